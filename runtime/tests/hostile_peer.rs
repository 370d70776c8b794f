//! A peer that breaks the protocol: its connection ends with a GOAWAY that says why, and nobody
//! else notices.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod support;

use std::io::Write;

use ringcall::{Code, Limits, ShardConfig, ShardPlace, rkyv::util::AlignedVec};
use ringcall_codec::{Decoder, Session, SessionConfig, SessionError};
use support::{
    echo::{Blob, EchoClient, nested},
    host::Host,
    raw::{
        CALLEE, CANCEL, CREDIT, DETAILS, END, Frame, GOAWAY, HELLO, IN_PARTS, ITEM, NOT_EXECUTED,
        NOTICE, ONEWAY, PACKED, PART, PING, PONG, Peer, REQUEST, RESPONSE, Random, STREAM, archive,
        call, goaway, hello, hello_of, plain, reply, request, status,
    },
    wait::{until, watched},
};

const INVALID: Code = Code::InvalidArgument;

#[test]
fn a_connection_begins_with_the_magic() {
    watched(|| {
        let host = Host::start();
        for at in 0..8 {
            let wrong = Frame { call: hello().call ^ 1 << (8 * at), ..hello() };
            let text = format!("not a ringcall peer: wrong magic {:#018x}", wrong.call);
            host.refuses_first(&wrong.bytes(), INVALID, &text);
        }
        // Another protocol altogether, and not the one that is answered too.
        let ssh = b"SSH-2.0-OpenSSH_9.6p1 Debian-3ubuntu13\r\n";
        host.refuses_first(ssh, INVALID, "frame of unknown kind 48");
    });
}

#[test]
fn a_version_that_is_not_spoken_is_told_those_that_are() {
    watched(|| {
        let host = Host::start();
        for (min, max) in [(0, 0), (2, 2), (2, 9), (0xffff, 0xffff), (1, 0), (9, 2)] {
            let wrong = Frame { code: min | max << 16, ..hello() };
            let text = format!(
                "no common version: the peer speaks {min} to {max}, this side 1 to 1; \
                 upgrade the older one"
            );
            host.refuses_first(&wrong.bytes(), Code::FailedPrecondition, &text);
        }
    });
}

#[test]
fn a_range_that_holds_the_version_is_served() {
    watched(|| {
        let host = Host::start();
        for (min, max) in [(0, 1), (1, 9), (0, 0xffff)] {
            let mut peer = Peer::connect(host.address());
            peer.send(&Frame { code: min | max << 16, ..hello() });
            peer.expect_hello();
            host.serves(&mut peer, call(0, 1));
        }
    });
}

#[test]
fn kinds_that_are_not_known_end_the_connection() {
    watched(|| {
        let host = Host::start();
        for kind in (0..=u8::MAX).filter(|kind| !(HELLO..=PART).contains(kind)) {
            let frame = Frame { kind, ..request(call(0, 1), EchoClient::ECHO, b"") };
            let text = format!("frame of unknown kind {kind}");
            host.refuses(&frame.bytes(), INVALID, &text);
            if kind < 16 {
                host.refuses_first(&frame.bytes(), INVALID, &text);
            }
        }
    });
}

/// A frame of each kind that is right but for what a test makes wrong.
fn each_kind() -> [(&'static str, Frame); 12] {
    let of_call = |kind| Frame { call: call(0, 1), ..plain(kind, 0) };
    [
        ("HELLO", hello()),
        ("REQUEST", request(call(0, 1), EchoClient::ECHO, b"")),
        ("RESPONSE", status(call(0, 1), Code::Internal, "")),
        ("ONEWAY", Frame { code: EchoClient::ECHO, ..plain(ONEWAY, 1) }),
        ("ITEM", of_call(ITEM)),
        ("CREDIT", Frame { aux: 1, ..of_call(CREDIT) }),
        ("CANCEL", of_call(CANCEL)),
        ("PING", plain(PING, 1)),
        ("PONG", plain(PONG, 1)),
        ("GOAWAY", goaway(Code::Internal, "")),
        ("NOTICE", Frame { code: Code::Internal as u32, ..plain(NOTICE, 1) }),
        ("PART", Frame { body: vec![0; 16], ..plain(PART, 1) }),
    ]
}

/// The flags that a kind of frame may have.
fn flags_of(kind: u8) -> u8 {
    match kind {
        REQUEST => STREAM | PACKED | IN_PARTS,
        RESPONSE => NOT_EXECUTED | DETAILS | PACKED | IN_PARTS,
        ONEWAY => PACKED | IN_PARTS,
        ITEM => END | CALLEE | PACKED | IN_PARTS,
        CREDIT => CALLEE,
        GOAWAY => END,
        _ => 0,
    }
}

#[test]
fn flags_that_are_reserved_end_the_connection() {
    watched(|| {
        let host = Host::start();
        for (name, frame) in each_kind() {
            for flags in (0..8).map(|bit| 1 << bit) {
                if flags_of(frame.kind) & flags != 0 {
                    continue;
                }
                let frame = Frame { flags, ..frame.clone() };
                let text =
                    format!("flags {flags:#04x} hold bits that are reserved in a {name} frame");
                host.refuses(&frame.bytes(), INVALID, &text);
            }
        }
        // A reply is the work of a handler.
        let contradiction = Frame { flags: 2, ..reply(call(0, 1), b"") };
        let text = "flags 0x02 hold bits that are reserved in a RESPONSE frame";
        host.refuses(&contradiction.bytes(), INVALID, text);
    });
}

#[test]
fn fields_that_are_reserved_end_the_connection() {
    watched(|| {
        let host = Host::start();
        let refuses = |frame: &Frame, field: &str| {
            let text = format!("reserved field `{field}` is not zero");
            host.refuses(&frame.bytes(), INVALID, &text);
        };
        for (_, right) in each_kind() {
            let kind = right.kind;
            for bit in [0, 7, 8, 31] {
                refuses(&Frame { check: 1 << bit, ..right.clone() }, "check");
                if ![REQUEST, RESPONSE, ONEWAY].contains(&kind) {
                    refuses(&Frame { time_us: 1 << bit, ..right.clone() }, "time_us");
                }
                if ![RESPONSE, ITEM, CREDIT].contains(&kind) {
                    refuses(&Frame { aux: 1 << bit, ..right.clone() }, "aux");
                }
                if [ITEM, CREDIT, CANCEL, PING, PONG, PART].contains(&kind) {
                    refuses(&Frame { code: 1 << bit, ..right.clone() }, "code");
                }
            }
            if ![REQUEST, RESPONSE, ONEWAY].contains(&kind) {
                for bit in [0, 7, 8, 15] {
                    // Without a body a part is refused for that.
                    let body =
                        if kind == PART { vec![0; 16 + (16 << bit)] } else { right.body.clone() };
                    refuses(&Frame { meta_len: 1 << bit, body, ..right.clone() }, "meta_len");
                }
            }
        }
        // Credit of nothing is none.
        refuses(&plain(CREDIT, call(0, 1)), "aux");
        for bit in [0, 31, 32, 63] {
            let mut frame = goaway(Code::Internal, "");
            frame.call = 1 << bit;
            refuses(&frame, "call_id");
        }
    });
}

#[test]
fn a_status_is_not_longer_than_one_may_be() {
    watched(|| {
        let host = Host::start();
        let refuses = |name: &str, frame: Frame, longest: usize| {
            let body = vec![b'x'; longest + 1];
            let len = body.len();
            let text = format!("status of {len} bytes in a {name} frame, the limit is {longest}");
            host.refuses(&Frame { body, ..frame }.bytes(), INVALID, &text);
        };
        refuses("GOAWAY", goaway(Code::Internal, ""), 1024);
        refuses("NOTICE", Frame { code: Code::Internal as u32, ..plain(NOTICE, 1) }, 1024);
        let failed = status(call(0, 1), Code::Internal, "");
        refuses("RESPONSE", Frame { flags: DETAILS, ..failed.clone() }, 5136);
        // Without details it may have no more than others.
        let mut peer = Peer::open(host.address());
        peer.send(&Frame { body: vec![b'x'; 1025], ..failed });
        let told = peer.frame();
        assert_eq!((told.kind, told.code), (GOAWAY, INVALID as u32));
        let text = String::from_utf8(told.body).unwrap();
        assert!(text.starts_with("status of 1025 bytes in a RESPONSE frame"), "{text}");
        peer.expect_end();
    });
}

#[test]
fn the_longest_frame_is_served_and_a_longer_one_refused() {
    watched(|| {
        const LIMIT: u32 = 64 * 1024;
        let host = Host::with(ShardConfig::new().frame_len_max(LIMIT));
        let longest = archive(&Blob::new(7, LIMIT as usize - 32 - 16));
        assert_eq!(longest.len() + 32, LIMIT as usize);
        let mut peer = Peer::open(host.address());
        peer.send(&request(call(0, 1), EchoClient::ECHO, &longest));
        assert_eq!(peer.frame(), reply(call(0, 1), &longest));
        host.serves(&mut peer, call(1, 1));
        let begun = request(call(0, 1), EchoClient::ECHO, &[0; 64]);
        for (body_len, frame_len) in [
            (LIMIT - 31, u64::from(LIMIT) + 16),
            (LIMIT, u64::from(LIMIT) + 32),
            (u32::MAX - 31, 1 << 32),
            (u32::MAX, (1 << 32) + 32),
        ] {
            let text = format!(
                "frame of {frame_len} bytes, the limit is 65536; \
                 raise frame_len_max or send less at a time"
            );
            host.refuses(&begun.declaring(body_len), Code::ResourceExhausted, &text);
        }
    });
}

#[test]
fn what_stands_behind_a_frame_that_is_too_long_is_not_read() {
    watched(|| {
        let host = Host::with(ShardConfig::new().frame_len_max(64 * 1024));
        let text = "frame of 65552 bytes, the limit is 65536; \
                    raise frame_len_max or send less at a time";
        // A waiting call would be seen in the counters.
        let valid = request(call(1, 1), EchoClient::HOLD, &archive(&Blob::new(1, 48))).bytes();
        let oversized = request(call(0, 1), EchoClient::HOLD, &[0; 65_520]).bytes();
        assert_eq!(oversized.len(), 65_552);
        // Behind all of it, behind the part that arrived, and inside of it.
        for kept in [oversized.len(), 4096, 32] {
            let before = host.counters();
            let stream = [&oversized[..kept], &valid, &valid].concat();
            host.refuses(&stream, Code::ResourceExhausted, text);
            assert_eq!(host.counters().since(&before).calls_spawned, 0);
        }
    });
}

#[test]
fn a_call_id_is_not_used_while_its_call_runs() {
    watched(|| {
        let host = Host::start();
        let body = archive(&Blob::new(1, 48));
        let held = request(call(3, 5), EchoClient::HOLD, &body);
        // The same id, and the same slot with another generation.
        for (second, text) in
            [(call(3, 5), "call 3.5 was used before"), (call(3, 6), "call 3.6 was used before")]
        {
            let before = host.counters();
            let again = request(second, EchoClient::ECHO, &body);
            let both = [held.bytes(), again.bytes()].concat();
            host.refuses(&both, INVALID, text);
            // The call that ran is given up with its connection, and its handler dropped.
            let since = || host.counters().since(&before);
            assert_eq!((since().calls_spawned, since().calls_cut), (1, 1));
            until("its handler is dropped", || since().handlers_stopped == 1);
        }
    });
}

#[test]
fn a_call_id_is_not_used_after_its_call() {
    watched(|| {
        let host = Host::start();
        let body = archive(&Blob::new(1, 48));
        for (second, text) in
            [(call(3, 5), "call 3.5 was used before"), (call(3, 4), "call 3.4 was used before")]
        {
            let mut peer = Peer::open(host.address());
            host.serves(&mut peer, call(3, 5));
            host.refuses_on(
                &mut peer,
                &request(second, EchoClient::ECHO, &body).bytes(),
                INVALID,
                text,
            );
        }
        let none = request(call(3, 0), EchoClient::ECHO, &body);
        host.refuses(&none.bytes(), INVALID, "call 3.0 has generation zero");
    });
}

#[test]
fn a_slot_beyond_the_limit_ends_the_connection() {
    watched(|| {
        let host = Host::with(ShardConfig::new().calls_in_flight_max(8));
        let mut peer = Peer::open(host.address());
        host.serves(&mut peer, call(7, 1));
        for slot in [8, 9, 4096, u32::MAX] {
            let beyond = request(call(slot, 1), EchoClient::ECHO, b"");
            let text = format!("call {slot}.1 is beyond the limit of 8 calls in flight");
            host.refuses(&beyond.bytes(), Code::ResourceExhausted, &text);
        }
    });
}

#[test]
fn a_server_takes_no_response_to_a_call_that_it_did_not_make() {
    watched(|| {
        let host = Host::start();
        let text = "response to call 0.1, which is not in flight";
        let refused = Frame { flags: NOT_EXECUTED, ..status(call(0, 1), Code::Internal, "no") };
        for frame in [reply(call(0, 1), b""), refused] {
            host.refuses(&frame.bytes(), INVALID, text);
        }
    });
}

#[test]
fn a_connection_has_one_hello_and_begins_with_it() {
    watched(|| {
        let host = Host::start();
        let text = "unexpected HELLO frame: a connection has one HELLO";
        host.refuses(&hello().bytes(), INVALID, text);
        for (name, frame) in each_kind() {
            if ![HELLO, GOAWAY].contains(&frame.kind) {
                let text = format!("unexpected {name} frame: a connection begins with HELLO");
                host.refuses_first(&frame.bytes(), INVALID, &text);
            }
        }
    });
}

#[test]
fn a_hello_whose_lengths_lie_is_malformed() {
    watched(|| {
        let host = Host::start();
        let refuses = |bytes: &[u8], len: u32| {
            let text = format!("HELLO body of {len} bytes is malformed");
            host.refuses_first(bytes, INVALID, &text);
        };
        // By the header alone: too short to be one, and longer than any.
        for declared in [0, 1, 31, 32 + 24 * 2048 + 1, 1 << 20, u32::MAX] {
            refuses(&hello().declaring(declared), declared);
        }
        // By the body: methods that are not there, and bytes that are no method.
        let offers = |count: u32, listed: &[u32]| {
            let mut frame = hello();
            frame.body[28..32].copy_from_slice(&count.to_le_bytes());
            for id in listed {
                frame.body.extend(u64::from(*id).to_le_bytes());
                frame.body.extend([0; 16]);
            }
            refuses(&frame.bytes(), frame.body.len() as u32);
        };
        for count in [1, 2049, 0x0aaa_aaab, 0x8000_0000, u32::MAX] {
            offers(count, &[]);
        }
        offers(0, &[1]);
        offers(2, &[1]);
        let mut odd = hello();
        odd.body.push(0);
        refuses(&odd.bytes(), 33);
        // Bytes of a method that are reserved.
        let mut reserved = hello();
        reserved.body[28] = 1;
        reserved.body.extend(u64::MAX.to_le_bytes());
        reserved.body.extend([0; 16]);
        refuses(&reserved.bytes(), 56);
    });
}

#[test]
fn a_hello_whose_fields_lie_is_refused() {
    watched(|| {
        let host = Host::start();
        for (frame_len, calls, shard, field) in [
            (0, 1, (0, 0), "frame_len_max"),
            (65_535, 1, (0, 0), "frame_len_max"),
            (65_536, 0, (0, 0), "calls_in_flight_max"),
            (65_536, 1, (1, 0), "shard_index"),
            (65_536, 1, (4, 4), "shard_index"),
        ] {
            let frame = hello_of(frame_len, calls, shard, &[]);
            let text = format!("HELLO limit `{field}` is out of range");
            host.refuses_first(&frame.bytes(), INVALID, &text);
        }
        for (at, field) in [(16, "stream_window"), (20, "connection_window")] {
            for window in [0, 4095, (1 << 30) + 1, u32::MAX] {
                let mut frame = hello();
                frame.body[at..at + 4].copy_from_slice(&window.to_le_bytes());
                let text = format!("HELLO limit `{field}` is out of range");
                host.refuses_first(&frame.bytes(), INVALID, &text);
            }
        }
        for (ids, at) in [([1, 1], 1), ([5, 3], 3), ([u32::MAX, 0], 0)] {
            let mut frame = hello();
            frame.body[28] = 2;
            for id in ids {
                frame.body.extend(u64::from(id).to_le_bytes());
                frame.body.extend([0; 16]);
            }
            let text = format!("HELLO lists method {at:#010x} twice or out of order");
            host.refuses_first(&frame.bytes(), INVALID, &text);
        }
        // The longest that there may be, and features that nobody knows, are fine.
        let mut longest = hello();
        longest.body[..8].fill(0xff);
        longest.body[28..32].copy_from_slice(&2048_u32.to_le_bytes());
        for id in 0..2048_u64 {
            longest.body.extend(id.to_le_bytes());
            longest.body.extend([0xee; 16]);
        }
        let mut peer = Peer::connect(host.address());
        peer.send(&longest);
        peer.expect_hello();
        host.serves(&mut peer, call(0, 1));
    });
}

/// What a session says to bytes that come behind a HELLO, or in its place.
fn judged(bytes: &[u8], is_open: bool) -> SessionError {
    let limits = Limits::default();
    let config = SessionConfig { limits, ..SessionConfig::default() };
    let mut session = Session::server(&config, ShardPlace::default(), &[], &[]);
    let mut decoder = Decoder::<AlignedVec<16>>::new(limits.frame_len_max);
    let opening = if is_open { hello().bytes() } else { Vec::new() };
    let input = [&opening, bytes].concat();
    let mut at = 0;
    loop {
        let step = decoder.next(&input, &mut at, |_| Ok(Some(AlignedVec::new())));
        match step {
            Ok(ringcall_codec::Step::InPlace { header, body }) => {
                if let Err(error) = session.handle_frame(&header, &input[body]) {
                    return error;
                }
            }
            Ok(_) => panic!("the garbage is no violation: choose another seed"),
            Err(error) => return error,
        }
    }
}

#[test]
fn garbage_ends_the_connection() {
    watched(|| {
        let host = Host::start();
        for seed in 1..=40 {
            let mut random = Random::new(seed * 0x9e37_79b9);
            let len = 32 + (random.number() % 5000) as usize;
            let garbage = random.bytes(len);
            for is_open in [true, false] {
                let status = judged(&garbage, is_open).status();
                if is_open {
                    host.refuses(&garbage, status.code(), status.message());
                } else {
                    host.refuses_first(&garbage, status.code(), status.message());
                }
            }
        }
    });
}

#[test]
fn garbage_behind_calls_ends_the_connection_after_their_replies() {
    watched(|| {
        let host = Host::start();
        let body = archive(&Blob::new(1, 48));
        for seed in 1..=10 {
            let garbage = Random::new(seed).bytes(600);
            let error = judged(&garbage, true).status();
            let mut peer = Peer::open(host.address());
            let mut stream = Vec::new();
            for slot in 0..3 {
                stream.extend(request(call(slot, 1), EchoClient::ECHO, &body).bytes());
            }
            stream.extend(&garbage);
            peer.send_bytes(&stream);
            for slot in 0..3 {
                assert_eq!(peer.frame(), reply(call(slot, 1), &body));
            }
            peer.expect_goaway(error.code(), error.message());
            host.is_unharmed();
        }
    });
}

#[test]
fn a_peer_that_finished_sending_is_still_told_why() {
    watched(|| {
        let host = Host::start();
        let text = "frame of unknown kind 13";
        let wrong = Frame { kind: 13, ..Frame::default() };
        for is_open in [true, false] {
            // The end of the stream comes with the bytes before it, or soon after.
            for _ in 0..20 {
                let mut peer = Peer::connect(host.address());
                let hello = if is_open { hello().bytes() } else { Vec::new() };
                peer.send_bytes(&[hello, wrong.bytes()].concat());
                peer.finish();
                peer.expect_hello();
                peer.expect_goaway(INVALID, text);
            }
        }
        host.is_unharmed();
    });
}

#[test]
fn a_peer_that_is_still_sending_is_told_why_and_not_reset() {
    watched(|| {
        let host = Host::start();
        let wrong = Frame { kind: 13, ..Frame::default() };
        let stream = [hello().bytes(), wrong.bytes(), vec![7; 900 * 1024]].concat();
        for _ in 0..20 {
            let mut peer = Peer::connect(host.address());
            peer.send_bytes(&stream);
            peer.expect_hello();
            peer.expect_goaway(INVALID, "frame of unknown kind 13");
        }
        host.is_unharmed();
    });
}

#[test]
fn a_peer_that_never_stops_sending_is_cut_off() {
    watched(|| {
        let host = Host::start();
        let before = host.counters();
        let mut peer = Peer::open(host.address());
        let garbage = vec![0xff; 64 * 1024];
        // What the kernel takes and what is read from it is bounded: writing fails at last.
        let mut writes = 0;
        while peer.stream.write_all(&garbage).is_ok() {
            writes += 1;
            assert!(writes < 4096, "the server reads without end");
        }
        let since = || host.counters().since(&before);
        until("it is closed", || since().connections_closed == 1);
        assert_eq!(since().protocol_errors, 1);
        host.is_unharmed();
    });
}

#[test]
fn nothing_follows_a_goaway_of_the_client() {
    watched(|| {
        let host = Host::start();
        let body = archive(&Blob::new(1, 48));
        let goaway = goaway(Code::Unavailable, "the client stops");
        let late = request(call(0, 1), EchoClient::ECHO, &body);
        let text = "unexpected REQUEST frame: the peer has said GOAWAY";
        let both = [goaway.bytes(), late.bytes()].concat();
        host.with_held(|held| {
            host.refuses_on(held, &both, INVALID, text);
        });
    });
}

#[test]
fn a_body_nested_too_deep_is_no_danger_to_the_shard() {
    watched(|| {
        let host = Host::start();
        let mut peer = Peer::open(host.address());
        for (generation, levels) in (1..).zip([1, 63, 64, 65, 200_000, 64]) {
            let id = call(0, generation);
            let body = nested(levels);
            peer.send(&request(id, EchoClient::DEPTH, &body));
            let answer = peer.frame();
            if levels <= 64 {
                assert_eq!(answer, reply(id, &(levels as u64).to_le_bytes()));
            } else {
                let len = body.len();
                let text =
                    format!("request: body of {len} bytes is not a valid archive of the message");
                answer.assert_refusal(id, INVALID, &text);
            }
            host.serves(&mut peer, call(1, generation));
        }
    });
}

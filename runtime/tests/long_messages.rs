//! Long messages: in parts, so that short ones do not wait behind them; whole and in place for
//! whoever reads them; and bounded, whatever a peer does with its parts.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod support;

use std::time::Duration;

use ringcall::{Code, ShardConfig};
use support::{
    echo::{self, Blob, EchoClient, Nothing},
    host::Host,
    raw::{
        CANCEL, Frame, GOAWAY, IN_PARTS, PART, PING, PONG, Peer, REQUEST, RESPONSE, archive, call,
        plain, request,
    },
    server::{counters, frames},
    station::run,
    wait::{all, until, watched},
};

const KIB: usize = 1024;
const MIB: usize = 1024 * KIB;

/// As soon as a peer can be told that it takes too long.
const SOON: Duration = Duration::from_millis(100);

/// So many bytes a second that only the time without them counts.
const FAST: u64 = 1 << 40;

/// The header of a request that comes in parts, and its payload.
fn long_request(slot: u32, method: u32, len: usize) -> (Frame, Vec<u8>) {
    let body = archive(&Blob::new(1, len));
    (Frame { flags: IN_PARTS, ..request(call(slot, 1), method, &[]) }, body)
}

/// The bytes of such a header.
fn header(frame: &Frame, payload: &[u8]) -> Vec<u8> {
    frame.declaring(payload.len() as u32)
}

fn part(number: u64, bytes: &[u8]) -> Vec<u8> {
    Frame { body: bytes.to_vec(), ..plain(PART, number) }.bytes()
}

/// All parts of a payload, of so many bytes each.
fn parts(number: u64, payload: &[u8], len: usize) -> Vec<Vec<u8>> {
    payload.chunks(len).map(|bytes| part(number, bytes)).collect()
}

#[test]
fn a_short_reply_does_not_wait_behind_a_long_one() {
    watched(|| {
        const LEN: usize = 12 * MIB;
        let host = Host::start();
        let mut peer = Peer::connect_narrow(host.address());
        peer.send(&support::raw::hello());
        peer.expect_hello();
        peer.send(&request(call(0, 1), EchoClient::GROW, &archive(&Blob::new(LEN as u64, 0))));
        let opening = peer.frame_or_part();
        assert_eq!((opening.kind, opening.flags), (RESPONSE, IN_PARTS));
        let long_len = opening.body.len();
        assert!(long_len >= LEN);
        // The long one has begun, and most of it cannot be sent: nobody reads.
        let short = archive(&Blob::new(7, 100));
        peer.send(&request(call(1, 1), EchoClient::ECHO, &short));
        let (mut long, mut before) = (Vec::new(), None);
        while long.len() < long_len || before.is_none() {
            let frame = peer.frame_or_part();
            if frame.kind == PART {
                long.extend(frame.body);
            } else {
                assert_eq!((frame.call, &frame.body), (call(1, 1), &short));
                before = Some(long.len());
            }
        }
        // No more went before it than what the kernel had taken, and a part or two.
        let before = before.unwrap();
        assert!(before < LEN - MIB, "{before} bytes of {LEN} came first");
        assert!(long == archive(&Blob::new(LEN as u64, LEN)));
        host.is_unharmed();
    });
}

#[test]
fn long_messages_of_all_lengths_pass_between_a_client_and_a_server() {
    watched(|| {
        let host = Host::start();
        run(async {
            let echo = EchoClient::connect(host.address()).await.unwrap();
            let lens =
                [64 * KIB - 64, 64 * KIB, 64 * KIB + 1, 96 * KIB, 97 * KIB, MIB, 5 * MIB + 3];
            for round in 0..3 {
                let blobs: Vec<_> = (0..).zip(lens).map(|(id, len)| Blob::new(id, len)).collect();
                // One by one, together, and with short ones between.
                let small = Blob::new(99, 10);
                let calls: Vec<_> = blobs.iter().flat_map(|blob| [blob, &small]).collect();
                let replies = if round == 0 {
                    let mut replies = Vec::new();
                    for blob in &calls {
                        replies.push(echo.echo(blob).await);
                    }
                    replies
                } else {
                    all(calls.iter().map(|blob| echo.echo(blob))).await
                };
                for (blob, reply) in calls.iter().zip(replies) {
                    let reply = reply.unwrap();
                    assert_eq!(reply.id, blob.id);
                    assert!(*reply.bytes == *blob.bytes, "{} bytes", blob.bytes.len());
                }
            }
        });
        host.is_unharmed();
        assert_eq!(host.counters().protocol_errors, 0);
    });
}

#[test]
fn long_messages_one_after_the_other_are_not_copied() {
    watched(|| {
        const CALLS: u64 = 20;
        // Without a bystander, whose messages of all lengths are counted too.
        let server = echo::serve(ShardConfig::new());
        run(async {
            let echo = EchoClient::connect(server.address()).await.unwrap();
            let blob = Blob::new(1, 2 * MIB);
            for _ in 0..CALLS {
                assert!(*echo.echo(&blob).await.unwrap().bytes == *blob.bytes);
            }
            // The first may begin in buffers that are too small.
            let counters = ringcall::counters().unwrap();
            assert!(counters.bytes_copied < 2 * MIB as u64, "{counters:?}");
        });
        let counted = counters(&server);
        assert!(counted.bytes_copied < 2 * MIB as u64, "{counted:?}");
        // And its HELLO.
        assert_eq!(frames(&counted), CALLS + 1);
    });
}

#[test]
fn a_request_in_parts_is_served_however_it_is_cut_and_whatever_comes_between() {
    watched(|| {
        let host = Host::start();
        for part_len in [16, 4096, 64 * KIB, 300_000] {
            let mut peer = Peer::open(host.address());
            let (frame, payload) = long_request(0, EchoClient::DIGEST, 300_000);
            let parts = parts(1, &payload, part_len);
            let mut stream = header(&frame, &payload);
            for (at, part) in parts.iter().enumerate() {
                stream.extend(part);
                if at + 1 < parts.len() && at % (1 + parts.len() / 5) == 0 {
                    stream.extend(plain(PING, at as u64).bytes());
                }
            }
            for piece in stream.chunks(100_001) {
                peer.send_bytes(piece);
            }
            let answer = loop {
                let answer = peer.frame();
                if answer.kind != PONG {
                    break answer;
                }
            };
            assert_eq!((answer.call, answer.code), (call(0, 1), 0));
            host.serves(&mut peer, call(0, 2));
        }
        host.is_unharmed();
    });
}

#[test]
fn a_call_in_parts_has_its_time_from_its_header_on() {
    watched(|| {
        let host = Host::start();
        let mut peer = Peer::open(host.address());
        let (frame, payload) = long_request(0, EchoClient::DIGEST, 100_000);
        let frame = Frame { time_us: 20_000, ..frame };
        peer.send_bytes(&header(&frame, &payload));
        // As much time, and behind it: when that is over, so is the other's.
        let body = archive(&Blob::new(1, 0));
        let hold = request(call(1, 1), EchoClient::HOLD, &body);
        peer.send(&Frame { time_us: 20_000, ..hold });
        let over = peer.frame();
        assert_eq!((over.call, over.code), (call(1, 1), Code::DeadlineExceeded as u32));
        peer.send_bytes(&part(1, &payload));
        let text = "too late when it came";
        peer.frame().assert_refusal(call(0, 1), Code::DeadlineExceeded, text);
        host.serves(&mut peer, call(0, 2));
    });
}

#[test]
fn a_request_in_parts_that_there_is_no_memory_for_is_refused_by_its_header() {
    watched(|| {
        let host = Host::with(ShardConfig::new().memory_max(MIB));
        let mut peer = Peer::open(host.address());
        let (frame, payload) = long_request(0, EchoClient::DIGEST, 2 * MIB);
        peer.send_bytes(&header(&frame, &payload));
        let text = "the server has no room for the call; try later";
        peer.frame().assert_refusal(call(0, 1), Code::ResourceExhausted, text);
        // Its parts are thrown away, and what comes between them is served.
        for (slot, part) in (1..).zip(parts(1, &payload, 64 * KIB)) {
            peer.send_bytes(&part);
            host.serves(&mut peer, call(slot, 1));
        }
        assert_eq!(host.counters().protocol_errors, 0);
        host.is_unharmed();
    });
}

#[test]
fn a_call_in_parts_is_cancelled_once_it_is_there() {
    watched(|| {
        let host = Host::start();
        let mut peer = Peer::open(host.address());
        let (frame, payload) = long_request(0, EchoClient::HOLD, 200_000);
        peer.send_bytes(&header(&frame, &payload));
        parts(1, &payload, 64 * KIB).iter().for_each(|part| peer.send_bytes(part));
        peer.send(&plain(CANCEL, call(0, 1)));
        assert_eq!(peer.frame().code, Code::Cancelled as u32);
        host.serves(&mut peer, call(0, 2));
    });
}

#[test]
fn parts_that_do_not_come_end_the_connection_whatever_comes_between() {
    watched(|| {
        let host = Host::with(ShardConfig::new().frame_timeout(SOON, FAST));
        let mut peer = Peer::open(host.address());
        let before = host.counters();
        let (frame, payload) = long_request(0, EchoClient::DIGEST, 200_000);
        peer.send_bytes(&header(&frame, &payload));
        let ended = || host.counters().since(&before).protocol_errors > 0;
        let mut slot = 0;
        until("it is closed", || {
            // Each of these is a whole frame.
            slot += 1;
            if !ended() {
                peer.send(&request(call(slot, 1), EchoClient::RELEASE, &archive(&Nothing)));
            }
            ended()
        });
        let last = loop {
            let frame = peer.frame();
            if frame.kind != RESPONSE {
                break frame;
            }
        };
        assert_eq!((last.kind, last.code), (GOAWAY, Code::DeadlineExceeded as u32));
        assert_eq!(last.body, b"a frame began and did not end in time");
        host.is_unharmed();
    });
}

#[test]
fn parts_that_cannot_be_end_the_connection() {
    watched(|| {
        let host = Host::start();
        let (frame, payload) = long_request(0, EchoClient::DIGEST, 100_000);
        let begun = header(&frame, &payload);
        let refused = |bytes: &[&[u8]], why: &str| {
            let text = format!("a frame in parts that cannot be: {why}");
            host.refuses(&bytes.concat(), Code::InvalidArgument, &text);
        };
        refused(&[&part(1, b"x")], "no such frame comes in parts");
        refused(&[&begun, &part(2, b"x")], "no such frame comes in parts");
        refused(&[&begun, &part(1, &vec![0; 200_000])], "the part is longer than the rest");
        refused(&[&begun, &part(1, &[0; 17])], "its length is no multiple of 16");
        refused(&[&header(&frame, &[])], "the frame has no payload");
        let many: Vec<_> = (0..5)
            .map(|slot| header(&long_request(slot, EchoClient::DIGEST, 0).0, &[0; 100]))
            .collect();
        refused(&[&many.concat()], "too many frames come in parts");
        let long = Frame { flags: IN_PARTS, ..request(call(0, 1), EchoClient::DIGEST, &[]) };
        let text = "frame of 1073741856 bytes, the limit is 16777216; raise frame_len_max or send \
                    less at a time";
        host.refuses(&long.declaring(1 << 30), Code::ResourceExhausted, text);
        assert_eq!(long.kind, REQUEST);
    });
}

#[test]
fn who_leaves_in_the_middle_of_a_long_message_leaves_nothing_behind() {
    watched(|| {
        // Room for two of them at a time.
        let host = Host::with(ShardConfig::new().memory_max(9 * MIB));
        let before = host.counters();
        for round in 1..=10 {
            let mut peer = Peer::open(host.address());
            let (frame, payload) = long_request(0, EchoClient::DIGEST, 3 * MIB);
            peer.send_bytes(&header(&frame, &payload));
            peer.send_bytes(&part(1, &payload[..MIB]));
            peer.send_bytes(&part(1, &payload[..64 * KIB])[..1000]);
            peer.reset();
            let closed = || host.counters().since(&before).connections_closed;
            until("it is closed", || closed() == round);
        }
        // So there is memory for one more.
        let mut peer = Peer::open(host.address());
        let (frame, payload) = long_request(0, EchoClient::DIGEST, 3 * MIB);
        peer.send_bytes(&header(&frame, &payload));
        parts(1, &payload, MIB).iter().for_each(|part| peer.send_bytes(part));
        assert_eq!(peer.frame().code, 0);
    });
}

//! Streams that end in the wrong place, arrive in crumbs or are not read: what was asked for is
//! answered as far as it can be, and nobody else notices.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod support;

use std::io::{ErrorKind, Write};

use ringcall::{Code, ShardConfig, SocketConfig};
use support::{
    echo::{Blob, EchoClient, digest_of, serve_on},
    host::Host,
    raw::{Frame, Peer, archive, call, goaway, hello, reply, request},
    wait::{until, watched},
};

/// A call of each slot, each with a body of its own.
fn calls(method: u32, slots: u32) -> Vec<Frame> {
    let call_in = |slot: u32| {
        let body = archive(&Blob::new(slot.into(), 20 + 10 * slot as usize));
        request(call(slot, 1), method, &body)
    };
    (0..slots).map(call_in).collect()
}

fn bytes_of(frames: &[Frame]) -> Vec<u8> {
    frames.iter().flat_map(Frame::bytes).collect()
}

/// The reply that `digest` and `hold` give to a call.
fn digested(request: &Frame) -> Frame {
    let slot = request.call as u32;
    let blob = Blob::new(slot.into(), 20 + 10 * slot as usize);
    reply(request.call, &archive(&digest_of(blob.id, &blob.bytes)))
}

#[test]
fn a_stream_that_ends_inside_of_a_frame_is_closed_and_no_error() {
    watched(|| {
        let host = Host::start();
        let before = host.counters();
        let first = hello().bytes();
        let second = bytes_of(&calls(EchoClient::ECHO, 1));
        // Every length of the first header and frame, then of the second.
        for len in 0..first.len() {
            let mut peer = Peer::connect(host.address());
            peer.send_bytes(&first[..len]);
            peer.finish();
            peer.expect_end();
            host.is_unharmed();
        }
        for len in 0..second.len() {
            let mut peer = Peer::open(host.address());
            peer.send_bytes(&second[..len]);
            peer.finish();
            peer.expect_end();
            host.is_unharmed();
        }
        let connections = (first.len() + second.len()) as u64;
        let since = || host.counters().since(&before);
        until("all are closed", || since().connections_closed == connections);
        assert_eq!((since().protocol_errors, since().calls_refused), (0, 0));
    });
}

#[test]
fn a_stream_that_ends_inside_of_a_large_frame_is_closed_and_no_error() {
    watched(|| {
        let host = Host::start();
        let before = host.counters();
        let frame = request(call(0, 1), EchoClient::ECHO, &vec![7; 200_000]).bytes();
        let lengths = [32, 33, 16_383, 16_384, 16_385, 100_000, frame.len() - 1];
        for len in lengths {
            let mut peer = Peer::open(host.address());
            // In two parts, so that the second comes to the buffer that the first made room for.
            let begun = len.min(40_000);
            peer.send_bytes(&frame[..begun]);
            host.is_unharmed();
            peer.send_bytes(&frame[begun..len]);
            host.is_unharmed();
            peer.finish();
            peer.expect_end();
            host.is_unharmed();
        }
        let since = || host.counters().since(&before);
        until("all are closed", || since().connections_closed == lengths.len() as u64);
        assert_eq!((since().protocol_errors, since().calls_refused), (0, 0));
    });
}

#[test]
fn a_reset_at_any_byte_harms_nobody_else() {
    watched(|| {
        let host = Host::start();
        let before = host.counters();
        let since = || host.counters().since(&before);
        let stream = [hello().bytes(), bytes_of(&calls(EchoClient::ECHO, 3))].concat();
        for len in 0..stream.len() {
            let mut peer = Peer::connect(host.address());
            peer.send_bytes(&stream[..len]);
            let accepted = len as u64 + 1;
            until("it is accepted", || since().connections_accepted == accepted);
            peer.reset();
            host.is_unharmed();
        }
        until("all are closed", || since().connections_closed == stream.len() as u64);
        assert_eq!((since().protocol_errors, since().accept_errors), (0, 0));
    });
}

#[test]
fn a_reset_inside_of_a_large_frame_or_with_calls_running_harms_nobody_else() {
    watched(|| {
        let host = Host::start();
        let before = host.counters();
        let since = || host.counters().since(&before);
        let large = request(call(0, 1), EchoClient::ECHO, &vec![7; 1 << 20]).bytes();
        for len in [40, 16_384, 70_000, large.len() - 1] {
            let mut peer = Peer::open(host.address());
            peer.send_bytes(&large[..len]);
            host.is_unharmed();
            peer.reset();
            host.is_unharmed();
        }
        until("all are closed", || since().connections_closed == 4);
        let mut peer = Peer::open(host.address());
        peer.send_bytes(&bytes_of(&calls(EchoClient::HOLD, 3)));
        until("all three wait", || since().calls_spawned == 3);
        peer.reset();
        until("it is closed", || since().connections_closed == 5);
        // Their handlers end, and their replies go nowhere.
        host.release();
        until("the replies are dropped", || since().replies_dropped == 3);
        host.is_unharmed();
        assert_eq!(since().protocol_errors, 0);
    });
}

#[test]
fn a_peer_that_sends_no_more_still_reads_its_replies() {
    watched(|| {
        let host = Host::start();
        // The end of the stream comes with the calls, and while they run.
        for ends_later in [false, true] {
            let before = host.counters();
            let since = || host.counters().since(&before);
            let held = calls(EchoClient::HOLD, 2);
            let inline = request(call(5, 1), EchoClient::ECHO, &archive(&Blob::new(5, 30)));
            let mut peer = Peer::connect(host.address());
            peer.send(&hello());
            peer.send_bytes(&bytes_of(&held));
            peer.send(&inline);
            if !ends_later {
                peer.finish();
            }
            peer.expect_hello();
            let mut echoed = reply(inline.call, &inline.body);
            echoed.aux = 2;
            assert_eq!(peer.frame(), echoed);
            until("both wait", || since().calls_spawned == 2);
            if ends_later {
                peer.finish();
            }
            host.is_unharmed();
            assert_eq!(since().connections_closed, 0);
            host.release();
            let mut first = digested(&held[0]);
            first.aux = 1;
            assert_eq!(peer.frame(), first);
            assert_eq!(peer.frame(), digested(&held[1]));
            peer.expect_end();
            assert_eq!(since().protocol_errors, 0);
        }
    });
}

#[test]
fn a_peer_that_says_goaway_still_reads_its_replies() {
    watched(|| {
        let host = Host::start();
        let goaway = goaway(Code::Unavailable, "the client stops");
        // With its stream open, ended at once, and ended while the calls run.
        for end in ["open", "at once", "later"] {
            let before = host.counters();
            let since = || host.counters().since(&before);
            let held = calls(EchoClient::HOLD, 2);
            let mut peer = Peer::open(host.address());
            peer.send_bytes(&bytes_of(&held));
            peer.send(&goaway);
            if end == "at once" {
                peer.finish();
            }
            until("both wait", || since().calls_spawned == 2);
            host.is_unharmed();
            if end == "later" {
                peer.finish();
                host.is_unharmed();
            }
            assert_eq!(since().connections_closed, 0, "{end}");
            host.release();
            let mut first = digested(&held[0]);
            first.aux = 1;
            assert_eq!(peer.frame(), first);
            assert_eq!(peer.frame(), digested(&held[1]));
            peer.expect_end();
            assert_eq!(since().protocol_errors, 0);
        }
        // Without calls, and as the first frame of all, it ends the connection at once.
        let mut peer = Peer::open(host.address());
        peer.send(&goaway);
        peer.expect_end();
        let mut peer = Peer::connect(host.address());
        peer.send(&goaway);
        peer.expect_end();
        host.is_unharmed();
    });
}

#[test]
fn a_stream_of_single_bytes_is_the_same_stream() {
    watched(|| {
        let host = Host::start();
        let calls = calls(EchoClient::ECHO, 3);
        let stream = [hello().bytes(), bytes_of(&calls)].concat();
        let mut peer = Peer::connect(host.address());
        for byte in stream {
            peer.send_bytes(&[byte]);
            // The shard has turned: it has received the byte.
            host.is_unharmed();
        }
        peer.expect_hello();
        for request in calls {
            assert_eq!(peer.frame(), reply(request.call, &request.body));
        }
        peer.finish();
        peer.expect_end();
    });
}

/// Writes until the server has read nothing for many turns, or `len_max` bytes were written.
fn write_until_blocked(peer: &mut Peer, host: &Host, frame: &[u8], len_max: usize) -> usize {
    const TURNS: u32 = 40;
    let mut written = 0;
    let mut blocked = 0;
    peer.stream.set_nonblocking(true).unwrap();
    while blocked < TURNS && written < len_max {
        match peer.stream.write(&frame[written % frame.len()..]) {
            Ok(len) => {
                written += len;
                blocked = 0;
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                host.is_unharmed();
                blocked += 1;
            }
            Err(error) => panic!("{error}"),
        }
    }
    peer.stream.set_nonblocking(false).unwrap();
    written
}

#[test]
fn a_peer_that_never_reads_is_not_read_from() {
    watched(|| {
        let narrow = SocketConfig::new().receive_buffer_bytes(128 * 1024);
        let narrow = narrow.send_buffer_bytes(64 * 1024);
        let host = Host::of(serve_on(ShardConfig::new(), narrow));
        let mut peer = Peer::connect_narrow(host.address());
        peer.send(&hello());
        // One call of which there are many: each needs an id of its own.
        let body = archive(&Blob::new(3, 4000));
        let frame_len = request(0, EchoClient::ECHO, &body).bytes().len();
        let mut frames = Vec::new();
        for number in 0..16_384 {
            let id = call(number % 4096, 1 + number / 4096);
            frames.extend(request(id, EchoClient::ECHO, &body).bytes());
        }
        let written = write_until_blocked(&mut peer, &host, &frames, frames.len());
        // Two send buffers of 256 KiB, one receive's worth of calls that wait, and what the
        // kernel holds: far from all of it.
        assert!(written < 4 << 20, "the server took {written} bytes");
        assert!(written > 256 << 10, "the server took {written} bytes only");
        // Once the peer reads it is served to the end, in order.
        peer.expect_hello();
        let whole = written / frame_len;
        let mut expected = 0..;
        let mut read = |peer: &mut Peer, count: usize| {
            for number in expected.by_ref().take(count) {
                let id = call(number % 4096, 1 + number / 4096);
                assert_eq!(peer.frame(), reply(id, &body), "reply {number}");
            }
        };
        read(&mut peer, whole);
        if !written.is_multiple_of(frame_len) {
            peer.send_bytes(&frames[written..(whole + 1) * frame_len]);
            read(&mut peer, 1);
        }
        host.serves(&mut peer, call(4000, 4000));
        host.is_unharmed();
        peer.finish();
        peer.expect_end();
    });
}

#[test]
fn a_peer_that_never_reads_its_refusals_is_not_read_from() {
    watched(|| {
        let narrow = SocketConfig::new().receive_buffer_bytes(128 * 1024);
        let narrow = narrow.send_buffer_bytes(64 * 1024);
        let host = Host::of(serve_on(ShardConfig::new(), narrow));
        let before = host.counters();
        let mut peer = Peer::connect_narrow(host.address());
        peer.send(&hello());
        // Frames of no body, whose refusals are longer than they are.
        let frames: Vec<u8> = (0..1 << 18)
            .flat_map(|number| request(call(number % 4096, 1 + number / 4096), 1, b"").bytes())
            .collect();
        let written = write_until_blocked(&mut peer, &host, &frames, frames.len());
        assert!(written < 4 << 20, "the server took {written} bytes");
        // It goes without having read a thing.
        peer.reset();
        let since = || host.counters().since(&before);
        until("it is closed", || since().connections_closed == 1);
        assert_eq!(since().protocol_errors, 0);
        host.is_unharmed();
    });
}

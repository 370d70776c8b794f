//! Where a stream is cut makes no difference: the same calls reach the server, and the same
//! replies the client.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod support;

use std::{
    net::TcpListener,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::Duration,
};

use ringcall::ShardConfig;
use support::{
    echo::{self, Blob, EchoClient, digest_of},
    raw::{Frame, Peer, archive, call, hello, hello_of, reply, request},
    server::counters,
    tcp::is_read,
    wait::{all, until, watched},
};

/// Length of a receive buffer, in bytes.
const BUFFER_LEN: usize = 16 * 1024;

/// The blobs of a stream of three, which are `len` bytes long and a little.
fn blobs(len: usize) -> [Blob; 3] {
    [0, 1, 2].map(|id| Blob::new(id, len + 10 * id as usize))
}

/// A call for each blob, and the reply to it.
fn calls_and_replies(len: usize) -> Vec<(Frame, Frame)> {
    let frames = blobs(len).map(|blob| {
        let id = call(blob.id as u32, 1);
        let digest = digest_of(blob.id, &blob.bytes);
        (request(id, EchoClient::DIGEST, &archive(&blob)), reply(id, &archive(&digest)))
    });
    frames.into()
}

/// Cuts of a stream of these frames that may go wrong: in and around each header, around each
/// end, and around each place where a receive buffer can end.
fn cuts(frames: &[Vec<u8>]) -> Vec<usize> {
    let mut cuts = Vec::new();
    let end: usize = frames.iter().map(Vec::len).sum();
    for at in (0..end).step_by(BUFFER_LEN) {
        cuts.extend([at.saturating_sub(16), at, at + 1, at + 16]);
    }
    let mut start = 0;
    for frame in frames {
        cuts.extend(
            [1, 16, 31, 32, 33, 48, frame.len() - 17, frame.len() - 1].map(|at| start + at),
        );
        for at in (0..frame.len()).step_by(BUFFER_LEN) {
            cuts.extend([start + at - usize::from(at > 0), start + at, start + at + 32]);
        }
        start += frame.len();
    }
    cuts.retain(|cut| *cut < end);
    cuts.sort_unstable();
    cuts.dedup();
    cuts
}

/// Sends a stream of HELLO and three calls in two parts, for each cut. The second is sent when
/// `is_received` says of the connection and of how much was sent on all that the first was read.
fn server_hears(
    len: usize,
    choose: impl Fn(&[Vec<u8>]) -> Vec<usize>,
    is_received: impl Fn(&Peer, &ringcall::ServerHandle, u64) -> bool,
) {
    let server = echo::serve(ShardConfig::new());
    let calls = calls_and_replies(len);
    let mut frames = vec![hello().bytes()];
    frames.extend(calls.iter().map(|(request, _)| request.bytes()));
    let stream = frames.concat();
    let mut sent = 0;
    for cut in choose(&frames) {
        let mut peer = Peer::connect(server.address());
        peer.send_bytes(&stream[..cut]);
        until("the first part is received", || is_received(&peer, &server, sent + cut as u64));
        peer.send_bytes(&stream[cut..]);
        peer.expect_hello();
        for (_, reply) in &calls {
            assert_eq!(peer.frame(), *reply, "cut at {cut} of {}", stream.len());
        }
        peer.finish();
        peer.expect_end();
        sent += stream.len() as u64;
    }
    let counters = counters(&server);
    assert_eq!(counters.bytes_received, sent);
    assert_eq!((counters.protocol_errors, counters.calls_refused), (0, 0));
}

#[test]
fn calls_cut_at_any_byte_are_the_same_calls() {
    watched(|| {
        server_hears(
            20,
            |frames| (0..frames.concat().len()).collect(),
            |_, server, sent| counters(server).bytes_received == sent,
        );
    });
}

#[test]
fn calls_of_60_kib_cut_anywhere_are_the_same_calls() {
    watched(|| server_hears(60 * 1024, cuts, |peer, _, _| is_read(&peer.stream)));
}

#[test]
fn calls_of_1_mib_cut_anywhere_are_the_same_calls() {
    let some = |frames: &[Vec<u8>]| {
        let every = cuts(frames);
        let step = every.len() / 24;
        every.into_iter().step_by(step).collect()
    };
    watched(move || server_hears(1 << 20, some, |peer, _, _| is_read(&peer.stream)));
}

/// Sends a stream of HELLO and three replies in two parts, for each cut. The second is sent when
/// `is_received` says of the connection, of what the client has received, and of how much was
/// sent on all that the first was read.
fn client_hears(
    len: usize,
    choose: fn(&[Vec<u8>]) -> Vec<usize>,
    is_received: fn(&Peer, u64, u64) -> bool,
) {
    let hello = hello_of(16 << 20, 4096, (0, 1), EchoClient::METHODS).bytes();
    let mut frames = vec![hello.clone()];
    for blob in blobs(len) {
        let id = call(blob.id as u32, 1);
        frames.push(reply(id, &archive(&blob)).bytes());
    }
    let stream = frames.concat();
    let stream_len = stream.len() as u64;
    let cuts = choose(&frames);
    let connections = cuts.len() as u64;
    let received = Arc::new(AtomicU64::new(0));
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let theirs = Arc::clone(&received);
    let server = thread::spawn(move || {
        let mut sent = 0;
        for cut in cuts {
            let mut peer = Peer::accept(&listener);
            peer.expect_hello();
            let send = |peer: &mut Peer, mut from: usize, to: usize| {
                if (from..to).contains(&cut) {
                    peer.send_bytes(&stream[from..cut]);
                    until("the first part is received", || {
                        is_received(peer, theirs.load(Ordering::Relaxed), sent + cut as u64)
                    });
                    from = cut;
                }
                peer.send_bytes(&stream[from..to]);
            };
            // The client calls once it has heard HELLO.
            send(&mut peer, 0, hello.len());
            for slot in 0..3 {
                assert_eq!(peer.frame().call, call(slot, 1));
            }
            send(&mut peer, hello.len(), stream.len());
            sent += stream.len() as u64;
            peer.expect_end();
        }
    });
    let outcome = ringcall::run(async {
        let shared = Arc::clone(&received);
        ringcall::spawn(async move {
            while let Some(counters) = ringcall::counters() {
                shared.store(counters.bytes_received, Ordering::Relaxed);
                ringcall::sleep(Duration::from_micros(100)).await;
            }
        });
        let blobs = blobs(len);
        for _ in 0..connections {
            let echo = EchoClient::connect(address).await.unwrap();
            let replies = all(blobs.iter().map(|blob| echo.echo(blob))).await;
            for (blob, reply) in blobs.iter().zip(replies) {
                let reply = reply.unwrap();
                assert_eq!(reply.id, blob.id);
                assert!(*reply.bytes == *blob.bytes, "reply {}", blob.id);
            }
        }
        let counters = ringcall::counters().unwrap();
        assert_eq!(counters.bytes_received, connections * stream_len);
        assert_eq!(counters.protocol_errors, 0);
    });
    outcome.unwrap();
    server.join().unwrap();
}

#[test]
fn replies_cut_at_any_byte_are_the_same_replies() {
    watched(|| {
        client_hears(
            20,
            |frames| (0..frames.concat().len()).collect(),
            |_, received, sent| received == sent,
        );
    });
}

#[test]
fn replies_of_60_kib_cut_anywhere_are_the_same_replies() {
    watched(|| client_hears(60 * 1024, cuts, |peer, _, _| is_read(&peer.stream)));
}

#[test]
fn replies_of_1_mib_cut_anywhere_are_the_same_replies() {
    let some = |frames: &[Vec<u8>]| {
        let every = cuts(frames);
        let step = every.len() / 24;
        every.into_iter().step_by(step).collect()
    };
    watched(move || client_hears(1 << 20, some, |peer, _, _| is_read(&peer.stream)));
}

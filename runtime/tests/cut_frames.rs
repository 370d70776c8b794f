//! Where a stream is cut makes no difference: the same calls reach the server, and the same
//! replies the client.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod support;

use std::{
    net::TcpListener,
    ops::Range,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::Duration,
};

use ringcall::{ServerHandle, ShardConfig};
use support::{
    echo::{self, Blob, EchoClient, digest_of},
    raw::{Frame, Peer, archive, call, hello, hello_of, reply, request},
    server::counters,
    tcp::is_read,
    wait::{all, until, watched},
};

/// Where a stream is cut: ascending, from its start.
type Cuts = Vec<usize>;

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
fn cuts(frames: &[Vec<u8>]) -> Vec<Cuts> {
    let mut cuts = Vec::new();
    let end: usize = frames.iter().map(Vec::len).sum();
    for at in (0..end).step_by(BUFFER_LEN) {
        cuts.extend([at.saturating_sub(16), at, at + 1, at + 16]);
    }
    let mut start = 0;
    for frame in frames {
        cuts.extend(places(frame).into_iter().map(|at| start + at));
        start += frame.len();
    }
    cuts.retain(|cut| *cut < end);
    cuts.sort_unstable();
    cuts.dedup();
    cuts.into_iter().map(|cut| vec![cut]).collect()
}

/// The same within one frame.
fn places(frame: &[u8]) -> Vec<usize> {
    let mut places = vec![1, 16, 31, 32, 33, 48, frame.len() - 17, frame.len() - 1];
    for at in (0..frame.len()).step_by(BUFFER_LEN) {
        places.extend([at.saturating_sub(1), at, at + 32]);
    }
    places.retain(|at| *at < frame.len());
    places
}

/// Cuts at every byte.
fn every_byte(frames: &[Vec<u8>]) -> Vec<Cuts> {
    (0..frames.concat().len()).map(|cut| vec![cut]).collect()
}

/// Some cuts of a stream that is long.
fn some(frames: &[Vec<u8>]) -> Vec<Cuts> {
    let all = cuts(frames);
    let step = all.len() / 24;
    all.into_iter().step_by(step).collect()
}

/// Each frame by itself, and the third in two parts: what comes is then what is expected.
fn one_by_one(frames: &[Vec<u8>]) -> Vec<Cuts> {
    let ends = frames.iter().scan(0, |end, frame| {
        *end += frame.len();
        Some(*end)
    });
    let ends: Vec<usize> = ends.take(3).collect();
    let cuts_of = |at| [&ends[..], &[ends[2] + at]].concat();
    places(&frames[3]).into_iter().map(cuts_of).collect()
}

/// Writes a part of a stream, in pieces that end at the cuts. Each is written when the one before
/// `is_received`.
fn send_cut(
    peer: &mut Peer,
    part: &[u8],
    cuts: &[usize],
    mut is_received: impl FnMut(&Peer, usize) -> bool,
) {
    let mut from = 0;
    for cut in cuts {
        peer.send_bytes(&part[from..*cut]);
        until("it is received", || is_received(peer, *cut));
        from = *cut;
    }
    peer.send_bytes(&part[from..]);
}

/// Sends a stream of HELLO and three calls in pieces, for each list of cuts. A piece is sent when
/// `is_received` says of the connection, and of how much was sent on all, that it was read.
fn server_hears(
    len: usize,
    choose: fn(&[Vec<u8>]) -> Vec<Cuts>,
    is_received: fn(&Peer, &ServerHandle, u64) -> bool,
) {
    let server = echo::serve(ShardConfig::new());
    let calls = calls_and_replies(len);
    let mut frames = vec![hello().bytes()];
    frames.extend(calls.iter().map(|(request, _)| request.bytes()));
    let stream = frames.concat();
    let mut sent = 0;
    for cuts in choose(&frames) {
        let mut peer = Peer::connect(server.address());
        send_cut(&mut peer, &stream, &cuts, |peer, cut| {
            is_received(peer, &server, sent + cut as u64)
        });
        peer.expect_hello();
        for (_, reply) in &calls {
            assert_eq!(peer.frame(), *reply, "cut at {cuts:?} of {}", stream.len());
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
        let is_counted =
            |_: &Peer, server: &ServerHandle, sent| counters(server).bytes_received == sent;
        server_hears(20, every_byte, is_counted);
    });
}

#[test]
fn calls_of_60_kib_cut_anywhere_are_the_same_calls() {
    watched(|| server_hears(60 * 1024, cuts, |peer, _, _| is_read(&peer.stream)));
}

#[test]
fn calls_of_60_kib_that_come_one_by_one_are_the_same_calls() {
    watched(|| server_hears(60 * 1024, one_by_one, |peer, _, _| is_read(&peer.stream)));
}

#[test]
fn calls_of_1_mib_cut_anywhere_are_the_same_calls() {
    watched(|| server_hears(1 << 20, some, |peer, _, _| is_read(&peer.stream)));
}

/// Sends a stream of HELLO and three replies in pieces, for each list of cuts. A piece is sent when
/// `is_received` says of the connection, of what the client has received, and of how much was sent
/// on all, that it was read.
fn client_hears(
    len: usize,
    choose: fn(&[Vec<u8>]) -> Vec<Cuts>,
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
    let all_cuts = choose(&frames);
    let connections = all_cuts.len() as u64;
    let received = Arc::new(AtomicU64::new(0));
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let theirs = Arc::clone(&received);
    let server = thread::spawn(move || {
        let mut sent = 0;
        for cuts in all_cuts {
            let mut peer = Peer::accept(&listener);
            peer.expect_hello();
            let mut send = |peer: &mut Peer, part: Range<usize>| {
                let cuts: Vec<usize> = cuts
                    .iter()
                    .filter(|cut| part.contains(cut))
                    .map(|cut| cut - part.start)
                    .collect();
                send_cut(peer, &stream[part.clone()], &cuts, |peer, cut| {
                    is_received(peer, theirs.load(Ordering::Relaxed), sent + cut as u64)
                });
                sent += part.len() as u64;
            };
            // The client calls once it has heard HELLO.
            send(&mut peer, 0..hello.len());
            for slot in 0..3 {
                assert_eq!(peer.frame().call, call(slot, 1));
            }
            send(&mut peer, hello.len()..stream.len());
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
    watched(|| client_hears(20, every_byte, |_, received, sent| received == sent));
}

#[test]
fn replies_of_60_kib_cut_anywhere_are_the_same_replies() {
    watched(|| client_hears(60 * 1024, cuts, |peer, _, _| is_read(&peer.stream)));
}

#[test]
fn replies_of_60_kib_that_come_one_by_one_are_the_same_replies() {
    watched(|| client_hears(60 * 1024, one_by_one, |peer, _, _| is_read(&peer.stream)));
}

#[test]
fn replies_of_1_mib_cut_anywhere_are_the_same_replies() {
    watched(|| client_hears(1 << 20, some, |peer, _, _| is_read(&peer.stream)));
}

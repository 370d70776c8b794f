//! Peers that were told to go away and go on sending: they are read from for a while, so that a
//! reset does not take what they were told away from them, and then cut.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod support;

use std::{
    io::{ErrorKind, Write},
    net::TcpListener,
    sync::mpsc::channel,
    thread,
};

use ringcall::{ShardConfig, ShardCounters};
use support::{
    echo::{self, EchoClient},
    raw::{GOAWAY, Peer},
    server::counters,
    wait::{until, until_async, watched},
};

/// Bytes that are read from a peer after it was told to go away.
const LINGER_BYTES_MAX: u64 = 1 << 20;

/// Length of a receive buffer: what may be there at once.
const BUFFER_LEN: u64 = 16 * 1024;

/// No header.
const GARBAGE: [u8; 32] = [0xff; 32];

/// Reads why the connection ends, and that it does.
#[track_caller]
fn expect_refusal(peer: &mut Peer) {
    let frame = peer.frame();
    assert_eq!(frame.kind, GOAWAY, "{frame:?}");
    peer.expect_end();
}

/// Sends until the connection is cut.
#[track_caller]
fn send_until_cut(peer: &mut Peer) {
    let error = loop {
        if let Err(error) = peer.stream.write_all(&[0; 16 * 1024]) {
            break error;
        }
    };
    let cut = [ErrorKind::ConnectionReset, ErrorKind::BrokenPipe];
    assert!(cut.contains(&error.kind()), "{error}");
}

/// What was received of the garbage and after it is the limit, and what was there when it was
/// reached.
#[track_caller]
fn assert_cut_at_the_limit(since: &ShardCounters) {
    let lingered = since.bytes_received - GARBAGE.len() as u64;
    let at_the_limit = LINGER_BYTES_MAX + 1..=LINGER_BYTES_MAX + BUFFER_LEN;
    assert!(at_the_limit.contains(&lingered), "cut after {lingered} bytes");
    assert_eq!((since.protocol_errors, since.connections_closed), (1, 1));
}

#[test]
fn a_client_that_was_told_to_go_away_and_goes_on_sending_is_cut() {
    watched(|| {
        let server = echo::serve(ShardConfig::new());
        let mut peer = Peer::open(server.address());
        let before = counters(&server);
        peer.send_bytes(&GARBAGE);
        expect_refusal(&mut peer);
        send_until_cut(&mut peer);
        until("it is closed", || counters(&server).connections_closed == 1);
        assert_cut_at_the_limit(&counters(&server).since(&before));
    });
}

#[test]
fn a_server_that_was_told_to_go_away_and_goes_on_sending_is_cut() {
    watched(|| {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (open, is_open) = channel();
        let server = thread::spawn(move || {
            let mut peer = Peer::serve(&listener, EchoClient::METHODS);
            is_open.recv().unwrap();
            peer.send_bytes(&GARBAGE);
            expect_refusal(&mut peer);
            send_until_cut(&mut peer);
        });
        let run = ringcall::run(async move {
            let counters = || ringcall::counters().unwrap();
            let echo = EchoClient::connect(address).await.unwrap();
            let before = counters();
            open.send(()).unwrap();
            until_async("it is closed", || counters().connections_closed == 1).await;
            assert_cut_at_the_limit(&counters().since(&before));
            assert!(!echo.client().is_open());
        });
        run.unwrap();
        server.join().unwrap();
    });
}

#[test]
fn a_peer_that_was_sending_when_it_was_told_to_go_away_reads_why() {
    watched(|| {
        let server = echo::serve(ShardConfig::new());
        let mut peer = Peer::open(server.address());
        let before = counters(&server);
        let since = || counters(&server).since(&before);
        peer.send_bytes(&GARBAGE);
        until("it is refused", || since().protocol_errors == 1);
        // As much as is read, to the byte.
        peer.send_bytes(&vec![0; LINGER_BYTES_MAX as usize]);
        let sent = GARBAGE.len() as u64 + LINGER_BYTES_MAX;
        until("all of it is read", || since().bytes_received == sent);
        expect_refusal(&mut peer);
        peer.finish();
        until("it is closed", || since().connections_closed == 1);
    });
}

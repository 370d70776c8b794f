//! Peers that send items to handlers that take none: a shard holds what it granted, and no more.
//!
//! In a process of its own, one test at a time, as it is the process's memory that is looked at.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod support;

use std::sync::Arc;

use ringcall::{Code, ServerHandle, ShardConfig};
use ringcall_codec::limits::{HEADER_LEN, ITEM_COST_MIN};
use support::{
    feed::{FeedClient, FeedServer, Feeder, NONE, Watch},
    memory::{alone, resident},
    raw::{ITEM, Peer, STREAM, archive, call, plain, request},
    server::{counters, serve},
    wait::until,
};

const MIB: usize = 1 << 20;

const PEERS: usize = 20;

/// What the server grants, in bytes: to a stream, and to a connection.
const STREAM_WINDOW: usize = 64 * 1024;
const CONNECTION_WINDOW: usize = 256 * 1024;

/// A server whose handlers wait, and take no items.
fn silent() -> ServerHandle {
    let windows = (STREAM_WINDOW as u32, CONNECTION_WINDOW as u32);
    let config = ShardConfig::new().stream_windows(windows.0, windows.1);
    // Few receive buffers, so that what is held is held elsewhere.
    let config = config.receive_buffers(64, 16 * 1024);
    serve(config, || FeedServer::new(Feeder::new(&Arc::<Watch>::default())))
}

/// Opens streams on new connections.
fn peers(server: &ServerHandle, streams: u32) -> Vec<Peer> {
    let open = |_| {
        let mut peer = Peer::open(server.address());
        for slot in 0..streams {
            let mut opening = request(call(slot, 1), FeedClient::SUM_LATER, &archive(&NONE));
            opening.flags = STREAM;
            peer.send(&opening);
        }
        peer
    };
    let peers: Vec<_> = (0..PEERS).map(open).collect();
    let handlers = PEERS as u64 * u64::from(streams);
    until("the handlers wait", || counters(server).calls_spawned == handlers);
    peers
}

/// The frame of an item.
fn item(slot: u32, number: u32, body: &[u8]) -> Vec<u8> {
    let mut item = plain(ITEM, call(slot, 1));
    (item.aux, item.body) = (number, body.to_vec());
    item.bytes()
}

/// Ends the connections, by what their peers send next, and waits until what they held is gone.
fn overdraw(server: &ServerHandle, peers: Vec<Peer>, slot: u32, body: &[u8], items: u32) {
    for mut peer in peers {
        // At once, since the server soon reads no more.
        let frames: Vec<_> = (0..items).flat_map(|number| item(slot, number, body)).collect();
        peer.send_bytes(&frames);
        let why = format!("item of call {slot}.1, beyond its credit");
        peer.expect_goaway(Code::ResourceExhausted, &why);
    }
    until("the connections are closed", || counters(server).connections_closed == PEERS as u64);
}

/// How much the process has grown while each of the peers sent items of this length, as many as
/// four streams and their connection have credit for. Then one more ends each connection.
fn growth(item_len: usize) -> usize {
    let cost = (item_len + HEADER_LEN).max(ITEM_COST_MIN as usize);
    // The four have the credit of the connection, all but some items.
    let each = STREAM_WINDOW / cost - 1;
    let streams = CONNECTION_WINDOW / STREAM_WINDOW;
    let server = silent();
    let mut peers = peers(&server, streams as u32 + 1);
    let before = resident();
    let body = vec![1; item_len];
    for peer in &mut peers {
        for slot in 0..streams as u32 {
            let items = (0..each as u32).flat_map(|number| item(slot, number, &body));
            peer.send_bytes(&items.collect::<Vec<_>>());
        }
    }
    let sent = PEERS * streams * each;
    until("they came", || counters(&server).items_received == sent as u64);
    let grown = resident().saturating_sub(before);
    assert_eq!(counters(&server).protocol_errors, 0);
    // One stream more has its own credit, and none of the connection.
    overdraw(&server, peers, streams as u32, &body, each as u32);
    grown
}

#[test]
fn items_of_4_kib_that_nobody_takes_cost_the_window_of_their_connection() {
    alone(|| {
        let grown = growth(4096 - HEADER_LEN);
        assert!(grown > PEERS * CONNECTION_WINDOW / 4, "{grown} bytes: where are they?");
        assert!(grown < PEERS * 2 * CONNECTION_WINDOW, "{grown} bytes more");
    });
}

#[test]
fn the_smallest_items_that_nobody_takes_cost_16_times_that_window() {
    alone(|| {
        // Each is copied out into the smallest buffer there is.
        const BUFFER_LEN: usize = 4096;
        let most = CONNECTION_WINDOW / ITEM_COST_MIN as usize * BUFFER_LEN;
        let grown = growth(16);
        assert!(grown < PEERS * (most + most / 4), "{grown} bytes more");
    });
}

#[test]
fn an_item_may_be_longer_than_every_window_and_a_second_may_not() {
    alone(|| {
        let server = silent();
        let mut peers = peers(&server, 2);
        let before = resident();
        for peer in &mut peers {
            peer.send_bytes(&item(0, 0, &vec![1; MIB]));
        }
        until("they came", || counters(&server).items_received == PEERS as u64);
        let grown = resident().saturating_sub(before);
        assert!(grown > PEERS * MIB / 2, "{grown} bytes: where are they?");
        assert!(grown < PEERS * 2 * MIB, "{grown} bytes more");
        // Its stream has credit, and its connection has none.
        overdraw(&server, peers, 1, &vec![1; CONNECTION_WINDOW], 1);
    });
}

//! Peers that would have a shard hold memory for them: it holds what arrived and what is bounded.
//!
//! In a process of its own, one test at a time, as it is the process's memory that is looked at.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod support;

use std::io::{ErrorKind, Write};

use ringcall::{ShardConfig, SocketConfig};
use support::{
    echo::{Blob, EchoClient, serve_on},
    host::Host,
    memory::{alone, resident},
    raw::{Peer, archive, call, hello, request},
    tcp::is_read,
    wait::until,
};

const MIB: usize = 1 << 20;

/// A server whose receive buffers have all been used, so that they are resident.
fn warm_host(socket: SocketConfig) -> Host {
    const BUFFERS: u16 = 64;
    // What is refused for want of memory is another matter.
    let config = ShardConfig::new().receive_buffers(BUFFERS, 16 * 1024).memory_max(8 << 30);
    let host = Host::of(serve_on(config, socket));
    let mut peer = Peer::open(host.address());
    for number in 0..2 * u32::from(BUFFERS) {
        let body = archive(&Blob::new(1, 16 * 1024 - 64));
        let id = call(0, 1 + number);
        peer.send(&request(id, EchoClient::ECHO, &body));
        assert_eq!(peer.frame().call, id);
    }
    host
}

/// How much the process has grown while `connections` peers each sent a frame's begin that
/// declares `body_len` bytes.
fn growth(connections: usize, body_len: u32) -> usize {
    let host = warm_host(SocketConfig::new());
    let mut peers: Vec<_> = (0..connections).map(|_| Peer::open(host.address())).collect();
    host.is_unharmed();
    let before = resident();
    let begin = request(call(0, 1), EchoClient::DIGEST, &[0; 32]).declaring(body_len);
    assert_eq!(begin.len(), 64);
    for peer in &mut peers {
        peer.send_bytes(&begin);
    }
    for peer in &peers {
        until("the begin is received", || is_read(&peer.stream));
    }
    host.is_unharmed();
    let grown = resident().saturating_sub(before);
    // They are neither refused nor served, and go on to be there.
    let counters = host.counters();
    assert_eq!(counters.protocol_errors, 0);
    assert_eq!(counters.connections_accepted - counters.connections_closed, peers.len() as u64 + 1);
    grown
}

#[test]
fn nothing_is_allocated_from_a_declared_length() {
    alone(|| {
        // As frames that a receive buffer holds, and as some that none does.
        for body_len in [12 * 1024, 100 * 1024, 8 * MIB as u32, 16 * MIB as u32 - 32] {
            let grown = growth(200, body_len);
            let declared = 200 * body_len as usize;
            let most = 6 * MIB;
            assert!(grown < most, "{grown} bytes more for {declared} bytes declared");
        }
    });
}

#[test]
fn a_frame_costs_what_arrived_of_it() {
    alone(|| {
        let host = warm_host(SocketConfig::new());
        let mut peers: Vec<_> = (0..20).map(|_| Peer::open(host.address())).collect();
        let before = resident();
        // A sixteenth of what is declared.
        let begin = request(call(0, 1), EchoClient::DIGEST, &vec![1; MIB / 2]);
        let begin = begin.declaring(8 * MIB as u32);
        for peer in &mut peers {
            peer.send_bytes(&begin);
            until("the begin is received", || is_read(&peer.stream));
        }
        let grown = resident().saturating_sub(before);
        assert!(grown > 20 * MIB / 4, "{grown} bytes: where are they?");
        assert!(grown < 20 * MIB, "{grown} bytes more");
        // Buffers that are given back are kept for others, in bounds.
        drop(peers);
        let is_closed = || host.counters().connections_closed >= 20;
        until("the connections are closed", is_closed);
        host.is_unharmed();
        let kept = resident().saturating_sub(before);
        assert!(kept < 17 * MIB, "{kept} bytes are kept");
    });
}

/// How much the process has grown while peers wrote calls, as many as the server takes, and read
/// no reply.
fn growth_unread(peers: usize, stream: &[u8]) -> usize {
    const TURNS: u32 = 30;
    let narrow = SocketConfig::new().receive_buffer_bytes(128 * 1024);
    let host = warm_host(narrow.send_buffer_bytes(64 * 1024));
    let mut peers: Vec<_> = (0..peers).map(|_| (Peer::connect_narrow(host.address()), 0)).collect();
    for (peer, _) in &mut peers {
        peer.send(&hello());
        peer.stream.set_nonblocking(true).unwrap();
    }
    host.is_unharmed();
    let before = resident();
    let mut idle_turns = 0;
    while idle_turns < TURNS {
        idle_turns += 1;
        for (peer, written) in &mut peers {
            match peer.stream.write(&stream[*written..]) {
                // All of it was written.
                Ok(0) => {}
                Ok(len) => {
                    *written += len;
                    idle_turns = 0;
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(error) => panic!("{error}"),
            }
        }
        host.is_unharmed();
    }
    let grown = resident().saturating_sub(before);
    // They go, and what was held for them goes too.
    let before_reset = host.counters().connections_closed;
    let count = peers.len() as u64;
    peers.into_iter().for_each(|(peer, _)| peer.reset());
    until("the connections are closed", || {
        host.counters().connections_closed == before_reset + count
    });
    host.is_unharmed();
    grown
}

#[test]
fn a_peer_that_never_reads_costs_two_send_buffers() {
    alone(|| {
        // 16 MiB of calls for each peer, with replies as long.
        let body = archive(&Blob::new(3, 4000));
        let stream: Vec<_> = (0..4096)
            .flat_map(|slot| request(call(slot, 1), EchoClient::ECHO, &body).bytes())
            .collect();
        // Two send buffers that grow by doubling, and a receive's worth of calls that wait.
        let grown = growth_unread(16, &stream);
        assert!(grown < 16 * 2 * MIB, "{grown} bytes more");
    });
}

#[test]
fn a_peer_that_never_reads_long_replies_costs_two_of_them() {
    alone(|| {
        // Calls of 64 bytes with replies of 1 MiB, 64 MiB together for each peer.
        let body = archive(&Blob::new(MIB as u64, 0));
        let stream: Vec<_> = (0..64)
            .flat_map(|slot| request(call(slot, 1), EchoClient::GROW, &body).bytes())
            .collect();
        let grown = growth_unread(4, &stream);
        assert!(grown < 4 * 5 * MIB, "{grown} bytes more");
    });
}

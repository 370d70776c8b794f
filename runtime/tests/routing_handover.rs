//! A client says which shard it wants, and is handed over to that; or is told why it is not.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod support;

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    thread,
    time::Duration,
};

use ringcall::{Balance, Code, MethodInfo, limits::HELLO_METHODS_MAX};
use support::{
    raw::{Frame, GOAWAY, Peer, hello_of},
    routed::{RoutedClient, RoutedShards, put, serve, total},
    station::run,
    wait::{until, watched},
};

/// The HELLO of a client that wants this shard of so many.
fn wants(index: u16, count: u16, methods: &[MethodInfo]) -> Frame {
    let mut hello = hello_of(16 << 20, 4096, (index, count), methods);
    hello.body[0] = 0x18;
    hello
}

fn place(hello: &Frame) -> (u16, u16) {
    let u16_at = |at: usize| u16::from_le_bytes([hello.body[at], hello.body[at + 1]]);
    (u16_at(24), u16_at(26))
}

#[test]
fn a_client_is_handed_over_to_the_shard_that_it_wants() {
    watched(|| {
        let (server, _) = serve(4);
        for round in 0..50 {
            let wanted = round % 4;
            let mut peer = Peer::connect(server.address());
            peer.send(&wants(wanted, 4, RoutedClient::METHODS));
            assert_eq!(place(&peer.frame()), (wanted, 4));
        }
        let counters = total(&server);
        assert_eq!(counters.connections_handed_over, counters.connections_taken_over);
        assert!(counters.connections_handed_over > 10, "{counters:?}");
        until("every connection has ended", || {
            let counters = total(&server);
            counters.connections_closed == counters.connections_accepted
        });
    });
}

#[test]
fn a_hello_that_comes_byte_by_byte_or_is_long_is_handed_over_too() {
    watched(|| {
        let (server, _) = serve(4);
        let method = |id| MethodInfo::unary(id, "Other.method", 1, 2);
        let many: Vec<_> = (1..HELLO_METHODS_MAX as u32).map(method).collect();
        for wanted in 0..4 {
            let mut peer = Peer::connect(server.address());
            for byte in wants(wanted, 4, &[]).bytes() {
                peer.send_bytes(&[byte]);
            }
            assert_eq!(place(&peer.frame()), (wanted, 4));
            let mut peer = Peer::connect(server.address());
            peer.send(&wants(wanted, 4, &many));
            assert_eq!(place(&peer.frame()), (wanted, 4));
            // What comes behind it goes along.
            let mut peer = Peer::connect(server.address());
            let ping = Frame { kind: support::raw::PING, call: 7, ..Frame::default() };
            peer.send_bytes(&[wants(wanted, 4, &[]).bytes(), ping.bytes()].concat());
            assert_eq!(place(&peer.frame()), (wanted, 4));
            assert_eq!(peer.frame(), Frame { kind: support::raw::PONG, ..ping });
        }
    });
}

#[test]
fn a_shard_that_there_is_not_is_refused_and_the_count_told() {
    watched(|| {
        let (server, _) = serve(3);
        for (index, count) in [(3, 4), (4, 5), (u16::MAX - 1, u16::MAX)] {
            let mut peer = Peer::connect(server.address());
            peer.send(&wants(index, count, RoutedClient::METHODS));
            assert_eq!(place(&peer.frame()).1, 3);
            let text = format!("there is no shard {index}: the server has 3; route to these");
            peer.expect_goaway(Code::InvalidArgument, &text);
        }
        // One that is none in its own eyes is malformed.
        let mut peer = Peer::connect(server.address());
        peer.send(&wants(4, 4, &[]));
        peer.frame();
        peer.expect_goaway(Code::InvalidArgument, "HELLO limit `shard_index` is out of range");
        // The others are undisturbed.
        let address = server.address();
        run(async move {
            let shards = RoutedShards::connect(address).await.unwrap();
            for key in 0..100 {
                shards.put(&put(key)).await.unwrap();
            }
        });
    });
}

#[test]
fn more_than_a_hello_before_the_servers_is_refused() {
    watched(|| {
        let (server, _) = serve(4);
        let mut is_refused = false;
        // Some of them are where they want to be.
        for wanted in 0..4 {
            let mut peer = Peer::connect(server.address());
            let much = vec![0; 256 * 1024];
            peer.send_bytes(&wants(wanted, 4, &[]).bytes());
            let _ = std::io::Write::write_all(&mut peer.stream, &much);
            is_refused |= peer.frame().kind == GOAWAY || peer.frame().kind == GOAWAY;
        }
        assert!(is_refused);
        until("every connection has ended", || {
            let counters = total(&server);
            counters.connections_closed == counters.connections_accepted
        });
    });
}

/// What a client that wants a shard is told by a server that may stop: HELLO, that it is to go
/// away, or nothing more.
fn knock(address: SocketAddr, wanted: u16) -> &'static str {
    use std::io::{Read, Write};
    let Ok(mut stream) = std::net::TcpStream::connect(address) else { return "refused" };
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    if stream.write_all(&wants(wanted, 4, &[]).bytes()).is_err() {
        return "reset";
    }
    let mut header = [0; 32];
    match stream.read_exact(&mut header) {
        Ok(()) if header[6] == GOAWAY => {
            let code = u32::from_le_bytes(header[16..20].try_into().unwrap());
            assert_eq!(code, Code::Unavailable as u32);
            "declined"
        }
        Ok(()) => "served",
        Err(error) => {
            // A connection must not be forgotten.
            assert_ne!(error.kind(), std::io::ErrorKind::WouldBlock, "nobody answers");
            "reset"
        }
    }
}

#[test]
fn a_connection_for_a_shard_that_stops_is_declined_or_reset_and_never_forgotten() {
    watched(|| {
        for round in 0..4 {
            let (server, _) = serve(4);
            let address = server.address();
            let is_over = Arc::new(AtomicBool::new(false));
            let knockers: Vec<_> = (0..4_u16)
                .map(|first| {
                    let is_over = Arc::clone(&is_over);
                    thread::spawn(move || {
                        let mut served = 0;
                        for wanted in (0..4).cycle().skip(first.into()) {
                            match knock(address, wanted) {
                                "served" => served += 1,
                                _ if is_over.load(Relaxed) => return served,
                                _ => {}
                            }
                        }
                        served
                    })
                })
                .collect();
            until("some are served", || total(&server).connections_taken_over > 20);
            is_over.store(true, Relaxed);
            if round % 2 == 0 {
                server.drain(Duration::from_secs(20));
            } else {
                server.stop();
            }
            let served: u32 = knockers.into_iter().map(|knocker| knocker.join().unwrap()).sum();
            assert!(served > 0);
            server.join().unwrap();
        }
    });
}

#[test]
fn connections_are_spread_evenly_where_they_are_few() {
    watched(|| {
        for _ in 0..5 {
            let server = ringcall::Server::builder()
                .cores(support::station::cores(4))
                .balance(Balance::OnAccept)
                .serve("127.0.0.1:0", |_| Nothing)
                .unwrap();
            let mut peers = Vec::new();
            for connections in 1..=9 {
                peers.push(Peer::open(server.address()));
                let open = |shard: &ringcall::ShardCounters| {
                    let came = shard.connections_accepted + shard.connections_taken_over;
                    came - shard.connections_handed_over - shard.connections_closed
                };
                let mut shards: Vec<_> = server.counters().iter().map(open).collect();
                shards.sort_unstable();
                assert_eq!(shards.iter().sum::<u64>(), connections);
                assert!(shards[3] - shards[0] <= 1, "{shards:?}");
            }
        }
    });
}

struct Nothing;

impl ringcall::Service for Nothing {
    const NAME: &'static str = "Nothing";
    const METHODS: &'static [MethodInfo] = &[];
    type State = Self;

    fn state(&self) -> &Self {
        self
    }

    async fn dispatch<P, C>(_: P, call: C)
    where
        P: std::ops::Deref<Target = Self>,
        C: std::ops::Deref<Target = ringcall::Incoming>,
    {
        call.unknown_method();
    }
}

//! Draining: a server that is to stop answers what it has taken and takes no more, so that nothing
//! is lost and nothing is done twice.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod support;

use std::{cell::Cell, rc::Rc, sync::atomic::Ordering::Relaxed, thread, time::Duration};

use ringcall::{ConnectError, Server, ShardConfig, prelude::*};
use support::{
    event::{Background, background},
    raw::{
        CANCEL, Frame, NOTICE, ONEWAY, PING, PONG, Peer, archive, call, draining, plain, reply,
        request,
    },
    station::{self, Number, StationClient, run},
    wait::{until, until_async, watched},
    works::{Done, Job, LONG, SHORT, Shop, WorksClient},
};

const NO_MORE: &str = "the connection takes no more calls";

/// Calls of a client until the first that is not answered: how many were, and that one.
fn call_until_refused(station: StationClient, waits: bool) -> Background<(u64, Status)> {
    background(async move {
        let mut answered = 0;
        loop {
            let number = Number { number: answered };
            let outcome = match waits {
                false => station.add(&number).await,
                true => station.wait(&number).await,
            };
            match outcome {
                Ok(reply) => assert_eq!(reply.number, answered + 1),
                Err(status) => return (answered, status),
            }
            answered += 1;
        }
    })
}

/// A server of several shards drains while many clients call: what its handlers began was answered,
/// and what failed was not begun.
fn drain_under_load(shards: usize) {
    const CONNECTIONS: usize = 16;
    const CALLERS: usize = 8;
    let (server, _) = station::serve(shards);
    let address = server.address();
    run(async {
        let mut callers = Vec::new();
        for _ in 0..CONNECTIONS {
            let station = StationClient::connect(address).await.unwrap();
            for caller in 0..CALLERS {
                callers.push(call_until_refused(station.clone(), caller % 2 == 1));
            }
        }
        let served = || {
            let counters = support::server::counters(&server);
            counters.calls_inline + counters.calls_spawned
        };
        until_async("the server is under load", || served() > 5_000).await;
        server.drain(LONG);
        let mut answered = 0;
        for caller in callers {
            let (calls, status) = caller.await;
            answered += calls;
            assert_eq!(status.code(), Code::Unavailable, "{status}");
            assert!(status.is_not_executed(), "{status}");
        }
        until_async("every connection is closed", || {
            let counters = support::server::counters(&server);
            counters.connections_closed == CONNECTIONS as u64
        })
        .await;
        let counters = support::server::counters(&server);
        assert_eq!(answered, served());
        assert_eq!((counters.calls_cut, counters.replies_dropped), (0, 0));
        assert_eq!(counters.protocol_errors, 0);
    });
    server.join().unwrap();
}

#[test]
fn no_call_that_was_begun_is_lost_under_load() {
    watched(|| drain_under_load(1));
}

#[test]
fn no_call_that_was_begun_is_lost_on_any_shard() {
    watched(|| drain_under_load(3));
}

#[test]
fn calls_that_run_are_answered_and_those_that_come_are_refused() {
    watched(|| {
        let shop = Shop::start();
        let mut peer = Peer::open(shop.server.address());
        let body = archive(&Job::new(1));
        peer.send(&request(call(0, 1), WorksClient::HOLD, &body));
        shop.blocks_until_it_runs(1);
        shop.server.drain(LONG);
        assert_eq!(peer.frame(), draining(Code::Unavailable, "the server stops"));
        let ping = peer.frame();
        assert_eq!(ping.kind, PING);
        // They cross the announcement.
        for generation in 1..=3 {
            peer.send(&request(call(1, generation), WorksClient::ADD, &body));
            peer.frame().assert_refusal(call(1, generation), Code::Unavailable, NO_MORE);
        }
        peer.send(&Frame { code: WorksClient::NOTE, body: body.clone(), ..plain(ONEWAY, 8) });
        let refused = peer.frame();
        assert_eq!((refused.kind, refused.call), (NOTICE, 8));
        assert_eq!(refused.body, NO_MORE.as_bytes());
        peer.send(&plain(PONG, ping.call));
        // A drain does not keep a call from being given up.
        peer.send(&plain(CANCEL, call(0, 1)));
        assert_eq!(peer.frame().code, Code::Cancelled as u32);
        peer.expect_goaway(Code::Unavailable, "every call has ended");
        peer.finish();
        until("it is closed", || shop.counters().connections_closed == 1);
        let counters = shop.counters();
        assert_eq!((counters.calls_refused_drain, counters.calls_cut), (4, 0));
        assert!(shop.noted().is_empty());
        shop.server.join().unwrap();
    });
}

#[test]
fn the_last_word_waits_for_the_answer_to_the_announcement() {
    watched(|| {
        let shop = Shop::start();
        let mut peer = Peer::open(shop.server.address());
        shop.server.drain(LONG);
        assert_eq!(peer.frame(), draining(Code::Unavailable, "the server stops"));
        let ping = peer.frame();
        // None runs, and one may be on its way: it is refused, and not cut.
        peer.send(&request(call(0, 1), WorksClient::ADD, &archive(&Job::new(1))));
        peer.frame().assert_refusal(call(0, 1), Code::Unavailable, NO_MORE);
        peer.send(&plain(PONG, ping.call));
        peer.expect_goaway(Code::Unavailable, "every call has ended");
        peer.finish();
        shop.server.join().unwrap();
    });
}

#[test]
fn a_client_is_answered_and_then_has_to_go_elsewhere() {
    watched(|| {
        let (first, second) = (Shop::start(), Shop::start());
        run(async {
            let works = first.connect().await;
            let holding = works.clone();
            let held = background(async move {
                holding.finish(&Job::new(1)).await.map(|done| done.number.to_native())
            });
            first.runs(1).await;
            first.server.drain(LONG);
            until_async("no more calls are taken", || !works.client().is_open()).await;
            let refused = works.add(&Job::new(4)).await.err().unwrap();
            assert_eq!(refused.code(), Code::Unavailable);
            assert!(refused.is_not_executed());
            let refused = works.note(&Job::new(4)).await.unwrap_err();
            assert!(refused.is_not_executed());
            let other = second.connect().await;
            assert_eq!(other.add(&Job::new(4)).await.unwrap().number, 5);
            // Nobody can open the gate from outside any more: what runs is given up.
            drop(held);
            assert_eq!(first.running(), 1);
            first.server.stop();
        });
        first.server.join().unwrap();
    });
}

#[test]
fn a_server_that_drains_accepts_no_more_connections() {
    watched(|| {
        let shop = Shop::start();
        let mut peer = Peer::open(shop.server.address());
        shop.server.drain(LONG);
        assert_eq!(peer.frame(), draining(Code::Unavailable, "the server stops"));
        run(async {
            let address = shop.server.address();
            let error = loop {
                match WorksClient::connect(address).await {
                    // The listener may be about to close.
                    Ok(_) | Err(ConnectError::Closed { .. }) => ringcall::yield_now().await,
                    Err(error) => break error,
                }
            };
            assert!(matches!(error, ConnectError::Connect { .. }), "{error}");
        });
        shop.server.stop();
        shop.server.join().unwrap();
    });
}

#[test]
fn clients_that_do_nothing_do_not_delay_a_drain() {
    watched(|| {
        let shop = Shop::start();
        run(async {
            let mut clients = Vec::new();
            for number in 0..20 {
                let works = shop.connect().await;
                works.add(&Job::new(number)).await.unwrap();
                clients.push(works);
            }
            shop.server.drain(LONG);
            until_async("all are closed", || shop.counters().connections_closed == 20).await;
            for works in &clients {
                assert!(!works.client().is_open());
            }
        });
        // Long before its time is over.
        shop.server.join().unwrap();
    });
}

#[test]
fn a_server_that_nobody_is_connected_to_ends_at_once() {
    watched(|| {
        for shards in [1, 3] {
            let (server, _) = station::serve(shards);
            server.drain(LONG);
            server.join().unwrap();
        }
    });
}

#[test]
fn a_peer_that_has_not_said_hello_is_told_to_go_away() {
    watched(|| {
        let shop = Shop::start();
        let mut peer = Peer::connect(shop.server.address());
        until("it is accepted", || shop.counters().connections_accepted == 1);
        shop.server.drain(LONG);
        peer.expect_hello();
        peer.expect_goaway(Code::Unavailable, "the server stops");
        peer.finish();
        shop.server.join().unwrap();
    });
}

#[test]
fn what_is_left_when_the_grace_is_over_is_cut() {
    watched(|| {
        let shop = Shop::start();
        // One that does not answer, and one whose call does not end.
        let silent = Peer::open(shop.server.address());
        run(async {
            let works = shop.connect().await;
            let calling = works.clone();
            let never = background(async move { calling.never(&Job::new(1)).await.map(drop) });
            shop.runs(1).await;
            shop.server.drain(SHORT);
            let cut = never.await.unwrap_err();
            assert_eq!((cut.code(), cut.message()), (Code::Unavailable, "the server stops"));
            // It was begun.
            assert!(!cut.is_not_executed());
        });
        let counters = shop.counters();
        assert_eq!(counters.calls_cut, 1);
        shop.server.join().unwrap();
        assert_eq!(shop.watch.running.load(Relaxed), 0);
        drop(silent);
    });
}

#[test]
fn draining_twice_is_draining_once() {
    watched(|| {
        let shop = Shop::start();
        let mut peer = Peer::open(shop.server.address());
        peer.send(&request(call(0, 1), WorksClient::ADD, &archive(&Job::new(1))));
        assert_eq!(peer.frame(), reply(call(0, 1), &archive(&Done { number: 2 })));
        // The first grace counts.
        shop.server.drain(LONG);
        shop.server.drain(Duration::ZERO);
        let stopper = shop.server.stopper();
        thread::spawn(move || stopper.drain(Duration::ZERO)).join().unwrap();
        assert_eq!(peer.frame(), draining(Code::Unavailable, "the server stops"));
        let ping = peer.frame();
        assert_eq!(ping.kind, PING);
        peer.send(&plain(PONG, ping.call));
        // No other announcement follows, and no stop.
        peer.expect_goaway(Code::Unavailable, "every call has ended");
        peer.finish();
        shop.server.join().unwrap();
        // A short grace is not made longer by a later one.
        let shop = Shop::start();
        let silent = Peer::open(shop.server.address());
        shop.server.drain(SHORT);
        shop.server.drain(LONG);
        shop.server.join().unwrap();
        drop(silent);
    });
}

#[test]
fn a_server_that_drains_can_be_stopped() {
    watched(|| {
        let shop = Shop::start();
        run(async {
            let works = shop.connect().await;
            let calling = works.clone();
            let never = background(async move { calling.never(&Job::new(1)).await.map(drop) });
            shop.runs(1).await;
            shop.server.drain(LONG);
            until_async("no more calls are taken", || !works.client().is_open()).await;
            assert!(!never.is_done());
            shop.server.stop();
            let cut = never.await.unwrap_err();
            assert_eq!((cut.code(), cut.message()), (Code::Unavailable, "the server stops"));
        });
        shop.server.join().unwrap();
    });
}

#[test]
fn a_server_that_stops_cannot_be_drained() {
    watched(|| {
        let shop = Shop::start();
        let silent = Peer::open(shop.server.address());
        shop.server.stop();
        shop.server.drain(LONG);
        shop.server.join().unwrap();
        drop(silent);
    });
}

#[test]
fn waiting_callers_of_a_connection_that_is_drained_are_refused() {
    watched(|| {
        let shop = Shop::with(ShardConfig::new().calls_in_flight_max(1));
        run(async {
            let works = shop.connect().await;
            let calling = works.clone();
            let never = background(async move { calling.never(&Job::new(1)).await.map(drop) });
            shop.runs(1).await;
            let refused = Rc::new(Cell::new(0));
            let waiting: Vec<_> = (0..10)
                .map(|number| {
                    let (works, refused) = (works.clone(), Rc::clone(&refused));
                    background(async move {
                        let status = works.add(&Job::new(number)).await.err().unwrap();
                        assert_eq!(status.code(), Code::Unavailable);
                        assert!(status.is_not_executed());
                        refused.set(refused.get() + 1);
                    })
                })
                .collect();
            ringcall::yield_now().await;
            assert_eq!(refused.get(), 0);
            shop.server.drain(LONG);
            for call in waiting {
                call.await;
            }
            assert_eq!((refused.get(), never.is_done()), (10, false));
            shop.server.stop();
            never.await.unwrap_err();
        });
        shop.server.join().unwrap();
    });
}

#[test]
fn a_shard_can_be_asked_to_drain_before_it_has_run() {
    watched(|| {
        for _ in 0..20 {
            let server = Server::builder().cores(station::cores(2));
            let shop = Shop::of(server);
            shop.server.drain(LONG);
            shop.server.join().unwrap();
        }
    });
}

//! Servers that stop: under load, from elsewhere, before anybody came, and with a successor.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod support;

use std::{
    cell::{Cell, RefCell},
    net::TcpListener,
    rc::Rc,
    sync::{atomic::Ordering::Relaxed, mpsc::channel},
    thread,
    time::Duration,
};

use ringcall::{ConnectError, prelude::*};
use support::{
    event::background,
    raw::Peer,
    server::counters,
    station::{Number, StationClient, run, serve, serve_at},
    wait::{until, until_async, watched},
};

const CONNECTIONS: usize = 16;
const CALLS_OF_EACH_KIND: usize = 8;

/// What became of the calls that were in flight when a server stopped.
#[derive(Clone, Default)]
struct Outcomes {
    answered: Rc<Cell<u64>>,
    failed: Rc<RefCell<Vec<Status>>>,
}

impl Outcomes {
    /// Whether the call was answered.
    fn note(&self, outcome: Result<Response<Number>, Status>) -> bool {
        match outcome {
            Ok(_) => self.answered.set(self.answered.get() + 1),
            Err(status) => {
                self.failed.borrow_mut().push(status);
                return false;
            }
        }
        true
    }
}

/// Calls of every kind are in flight on many connections when a server stops: each is answered or
/// fails, and what comes after fails.
fn stop_under_load(shards: usize, stop: impl FnOnce(ServerHandle) + Send + 'static) {
    let (server, waiting) = serve(shards);
    let address = server.address();
    let never_ending = (CONNECTIONS * CALLS_OF_EACH_KIND) as u64;
    let (under_load, is_under_load) = channel();
    let stopper = thread::spawn(move || {
        is_under_load.recv().unwrap();
        stop(server);
    });
    run(async {
        let outcomes = Outcomes::default();
        let mut connections = Vec::new();
        let mut callers = Vec::new();
        for _ in 0..CONNECTIONS {
            let station = StationClient::connect(address).await.unwrap();
            for caller in 0..CALLS_OF_EACH_KIND {
                let request = Number { number: 1 };
                let (one, outcomes_one) = (station.clone(), outcomes.clone());
                callers.push(background(async move {
                    outcomes_one.note(one.never(&request).await);
                }));
                let (one, outcomes) = (station.clone(), outcomes.clone());
                callers.push(background(async move {
                    let request = Number { number: 1 };
                    let mut goes_on = true;
                    while goes_on {
                        goes_on = match caller % 2 {
                            0 => outcomes.note(one.add(&request).await),
                            _ => outcomes.note(one.wait(&request).await),
                        };
                    }
                }));
            }
            connections.push(station);
        }
        until_async("the server is under load", || {
            waiting.load(Relaxed) == never_ending && outcomes.answered.get() > 1_000
        })
        .await;
        under_load.send(()).unwrap();
        // None hangs.
        for caller in callers {
            caller.await;
        }
        let failed = outcomes.failed.take();
        assert_eq!(failed.len(), 2 * CONNECTIONS * CALLS_OF_EACH_KIND);
        for status in failed {
            assert_eq!(status.code(), Code::Unavailable, "{status}");
        }
        for station in &connections {
            let status = station.add(&Number { number: 1 }).await.map(drop).unwrap_err();
            assert_eq!(status.code(), Code::Unavailable);
            assert!(status.is_not_executed());
            assert!(!station.client().is_open());
        }
    });
    stopper.join().unwrap();
    assert_eq!(waiting.load(Relaxed), 0, "every handler's future is dropped");
    // Nobody listens: the port is free, also for who does not share it.
    let error = run(async { StationClient::connect(address).await.map(drop).unwrap_err() });
    assert!(matches!(error, ConnectError::Connect { .. }), "{error}");
    drop(TcpListener::bind(address).unwrap());
    let (again, _) = serve_at(address, shards);
    run(async {
        let station = StationClient::connect(address).await.unwrap();
        let reply = station.add(&Number { number: 7 }).await.unwrap();
        assert_eq!(reply.number, 8);
    });
    drop(again);
}

#[test]
fn stopping_answers_or_fails_every_call() {
    watched(|| {
        stop_under_load(2, |server| {
            server.stop();
            server.join().unwrap();
        });
    });
}

#[test]
fn stopping_one_shard_answers_or_fails_every_call() {
    watched(|| {
        stop_under_load(1, |server| {
            server.stop();
            // Twice is once.
            server.stop();
            server.join().unwrap();
        });
    });
}

#[test]
fn dropping_a_server_answers_or_fails_every_call() {
    watched(|| stop_under_load(3, drop));
}

#[test]
fn stopping_tells_the_callers_why() {
    watched(|| {
        let (server, waiting) = serve(1);
        run(async {
            let station = StationClient::connect(server.address()).await.unwrap();
            let calling = station.clone();
            let call = background(async move {
                let outcome = calling.never(&Number { number: 1 }).await;
                outcome.map(drop).unwrap_err()
            });
            until_async("the handler waits", || waiting.load(Relaxed) == 1).await;
            server.stop();
            let status = call.await;
            assert_eq!(status.code(), Code::Unavailable);
            assert_eq!(status.message(), "the server stops");
            // Its handler ran, for all that is known.
            assert!(!status.is_not_executed());
            until_async("the connection is closed", || !station.client().is_open()).await;
            let late = station.never(&Number { number: 2 }).await.map(drop).unwrap_err();
            assert_eq!(late.message(), "the connection is closed: the server stops");
            assert!(late.is_not_executed());
        });
        server.join().unwrap();
    });
}

#[test]
fn a_server_is_stopped_from_another_thread_while_this_one_waits_for_it() {
    watched(|| {
        let (server, _) = serve(2);
        let stopper = server.stopper();
        let other = thread::spawn(move || stopper.clone().stop());
        server.join().unwrap();
        other.join().unwrap();
    });
}

#[test]
fn a_peer_that_neither_reads_nor_leaves_does_not_keep_a_server_from_stopping() {
    watched(|| {
        let (server, _) = serve(2);
        let silent: Vec<_> = (0..8).map(|_| Peer::connect(server.address())).collect();
        let open: Vec<_> = (0..8).map(|_| Peer::open(server.address())).collect();
        until("all are accepted", || counters(&server).connections_accepted == 16);
        server.stop();
        server.join().unwrap();
        drop((silent, open));
    });
}

#[test]
fn a_server_is_told_to_stop_before_anybody_came() {
    watched(|| {
        for shards in [1, 4] {
            drop(serve(shards));
            let (server, _) = serve(shards);
            server.stop();
            server.join().unwrap();
        }
    });
}

#[test]
fn a_client_of_a_stopped_server_connects_to_its_successor() {
    watched(|| {
        let (server, _) = serve(2);
        let address = server.address();
        run(async {
            let first = StationClient::connect(address).await.unwrap();
            first.add(&Number { number: 1 }).await.unwrap();
            // On another thread, as stopping waits for the peers to read that.
            thread::spawn(move || drop(server));
            until_async("the connection is closed", || !first.client().is_open()).await;
            let (server, _) = loop {
                // The shards of the first stop one after the other.
                if TcpListener::bind(address).is_ok() {
                    break serve_at(address, 2);
                }
                ringcall::sleep(Duration::from_millis(1)).await;
            };
            let second = StationClient::connect(address).await.unwrap();
            second.add(&Number { number: 1 }).await.unwrap();
            drop((second, first));
            server.stop();
            server.join().unwrap();
        });
    });
}

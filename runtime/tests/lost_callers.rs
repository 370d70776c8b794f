//! Connections that end with calls in flight: their handlers end, and nobody else notices.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod support;

use std::{cell::Cell, future::Future, rc::Rc, sync::atomic::Ordering::Relaxed, time::Duration};

use support::{
    desk::{DeskClient, Office, Unit, assert_is, load, pass_calls, run},
    event::Noted,
    raw::{Peer, archive, call, request},
    server::counters,
    wait::{until_async, watched},
};

const CALLS: u64 = 100;

/// A connection ends while its handlers wait: they are dropped, having read their requests to the
/// last, and nobody else notices.
fn end_a_connection<F: Future<Output = ()>>(office: &Office, end: impl FnOnce() -> F) {
    run(async {
        let bystander = office.connect().await;
        end().await;
        until_async("the handlers are dropped", || office.watch.running.load(Relaxed) == 0).await;
        until_async("the connection is closed", || {
            counters(&office.server).connections_closed == 1
        })
        .await;
        pass_calls(&bystander, 1_000).await;
        let counters = counters(&office.server);
        assert_eq!(counters.handlers_stopped, CALLS);
        assert_eq!(counters.connections_closed, 1);
        assert_eq!(counters.protocol_errors, 0);
        assert_eq!(counters.handlers_panicked, 0);
    });
    office.server.stop();
}

#[test]
fn a_client_that_is_dropped_with_calls_in_flight_disturbs_nobody() {
    watched(|| {
        let office = Office::start();
        end_a_connection(&office, || async {
            let desk = office.connect().await;
            let requests: Vec<_> = (0..CALLS).map(|number| load(number, 500)).collect();
            let calls = requests.iter().map(|request| Box::pin(desk.hold(request)));
            let mut calls: Vec<_> = calls.collect();
            let noted = Noted::new();
            for call in &mut calls {
                noted.begin(call.as_mut());
            }
            office.has_waited(CALLS).await;
        });
        office.server.join().unwrap();
    });
}

#[test]
fn a_connection_that_is_reset_with_calls_in_flight_disturbs_nobody() {
    watched(|| {
        let office = Office::start();
        end_a_connection(&office, || async {
            let mut peer = Peer::open(office.server.address());
            for number in 0..CALLS {
                let body = archive(&load(number, 500));
                peer.send(&request(call(number as u32, 1), DeskClient::HOLD, &body));
            }
            office.has_waited(CALLS).await;
            let socket = socket2::SockRef::from(&peer.stream);
            socket.set_linger(Some(Duration::ZERO)).unwrap();
        });
        office.server.join().unwrap();
    });
}

#[test]
fn clients_that_come_and_go_with_calls_in_flight_disturb_nobody() {
    watched(|| {
        let office = Office::start();
        run(async {
            let bystander = office.connect().await;
            let gone = Rc::new(Cell::new(0));
            for round in 0..100_u64 {
                let desk = office.connect().await;
                let waits = office.waits();
                let request = load(round, 50);
                let noted = Noted::new();
                let mut held = Box::pin(desk.hold(&request));
                let mut quick = Box::pin(desk.echo(&request));
                noted.begin(held.as_mut());
                noted.begin(quick.as_mut());
                // At every stage: unsent, in flight, waiting in the handler.
                match round % 3 {
                    0 => {}
                    1 => ringcall::yield_now().await,
                    _ => office.has_waited(waits + 1).await,
                }
                gone.set(gone.get() + 1);
                drop((held, quick));
                drop(desk);
                let reply = bystander.echo(&load(round, 60)).await.unwrap();
                assert_is(&reply, round, 60);
            }
            bystander.open(&Unit).await.unwrap();
            until_async("every connection is closed", || {
                counters(&office.server).connections_closed == gone.get()
            })
            .await;
            pass_calls(&bystander, 100).await;
        });
        assert_eq!(counters(&office.server).protocol_errors, 0);
    });
}

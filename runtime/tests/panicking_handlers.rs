//! Handlers that panic: their call fails, and nobody else notices.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod support;

use std::pin::pin;

use ringcall::prelude::*;
use support::{
    desk::{Load, Office, Unit, assert_is, load, run},
    event::{Noted, background},
    server::counters,
    wait::watched,
};

#[track_caller]
fn assert_panicked(outcome: Result<Response<Load>, Status>) {
    let status = outcome.map(drop).unwrap_err();
    assert_eq!(status.code(), Code::Internal);
    assert_eq!(status.message(), "the handler panicked");
    assert!(!status.is_not_executed());
}

#[test]
fn a_handler_that_panics_at_once_fails_its_call_and_nothing_else() {
    watched(|| {
        let office = Office::start();
        run(async {
            let (desk, other) = (office.connect().await, office.connect().await);
            let holder = desk.clone();
            let held = background(async move {
                let reply = holder.hold(&load(9, 900)).await.unwrap();
                assert_is(&reply, 9, 900);
            });
            office.has_waited(1).await;
            for round in 0..20 {
                // Side by side in one buffer.
                let (panics, works) = (load(1, 100), load(round, 200));
                let calls = async {
                    let (first, second) = (desk.panic(&panics), desk.echo(&works));
                    let mut first = pin!(first);
                    let mut second = pin!(second);
                    let noted = Noted::new();
                    noted.begin(first.as_mut());
                    noted.begin(second.as_mut());
                    (first.await, second.await)
                };
                let (first, second) = calls.await;
                assert_panicked(first);
                assert_is(&second.unwrap(), round, 200);
                let reply = other.echo(&load(round, 300)).await.unwrap();
                assert_is(&reply, round, 300);
            }
            other.open(&Unit).await.unwrap();
            held.await;
            let counters = counters(&office.server);
            assert_eq!(counters.handlers_panicked, 20);
            assert_eq!(counters.connections_closed, 0);
        });
        office.server.stop();
        office.server.join().unwrap();
    });
}

#[test]
fn a_handler_that_panics_after_an_await_fails_its_call_and_nothing_else() {
    watched(|| {
        let office = Office::start();
        run(async {
            let (desk, other) = (office.connect().await, office.connect().await);
            let mut waits = 0;
            for round in 0..20 {
                let panicking = desk.clone();
                let panics = background(async move { panicking.panic_later(&load(1, 100)).await });
                let holder = desk.clone();
                let held = background(async move { holder.hold(&load(round, 900)).await });
                waits += 2;
                office.has_waited(waits).await;
                other.open(&Unit).await.unwrap();
                assert_panicked(panics.await);
                assert_is(&held.await.unwrap(), round, 900);
                let reply = other.echo(&load(round, 300)).await.unwrap();
                assert_is(&reply, round, 300);
            }
            let counters = counters(&office.server);
            assert_eq!(counters.handlers_panicked, 20);
            assert_eq!(counters.connections_closed, 0);
        });
        office.server.stop();
        office.server.join().unwrap();
    });
}

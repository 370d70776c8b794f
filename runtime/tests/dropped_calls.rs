//! Calls that are dropped at any stage: what they took comes back, and those behind them go on.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod support;

use std::{future::Future, rc::Rc};

use ringcall::ShardConfig;
use support::{
    desk::{DeskClient, Office, Unit, assert_is, load, run},
    event::{Noted, background},
    server::counters,
    wait::{all, until_async, watched},
};

/// A call that is dropped gives back its slot: few slots, and many calls that are dropped.
fn drop_calls<F>(drop_one: impl Fn(Rc<Office>, DeskClient, u64) -> F)
where
    F: Future<Output = ()>,
{
    let office = Rc::new(Office::with(ShardConfig::new().calls_in_flight_max(4)));
    run(async {
        let desk = office.connect().await;
        for round in 0..100 {
            drop_one(Rc::clone(&office), desk.clone(), round).await;
            let reply = desk.echo(&load(round, 77)).await.unwrap();
            assert_is(&reply, round, 77);
        }
        // All four slots are there.
        let waits = office.waits();
        let held = (0..4).map(|number| {
            let desk = desk.clone();
            background(async move {
                let reply = desk.hold(&load(number, 10)).await.unwrap();
                assert_is(&reply, number, 10);
            })
        });
        let held: Vec<_> = held.collect();
        office.has_waited(waits + 4).await;
        office.connect().await.open(&Unit).await.unwrap();
        all(held).await;
    });
    assert_eq!(counters(&office.server).protocol_errors, 0);
}

#[test]
fn a_call_that_is_dropped_before_it_is_polled_costs_nothing() {
    watched(|| {
        drop_calls(|_, desk, round| async move {
            let request = load(round, 100);
            drop(desk.echo(&request));
        });
    });
}

#[test]
fn a_call_that_is_dropped_unsent_gives_its_slot_back() {
    watched(|| {
        drop_calls(|_, desk, round| async move {
            let request = load(round, 100);
            for _ in 0..10 {
                let mut call = Box::pin(desk.echo(&request));
                Noted::new().begin(call.as_mut());
            }
        });
    });
}

#[test]
fn a_call_that_is_dropped_in_flight_gives_its_slot_back() {
    watched(|| {
        drop_calls(|office, desk, round| async move {
            let request = load(round, 100);
            let waits = office.waits();
            let mut call = Box::pin(desk.hold(&request));
            Noted::new().begin(call.as_mut());
            office.has_waited(waits + 1).await;
            drop(call);
            // Its slot is taken until the handler has ended; others are not.
            let reply = desk.echo(&load(round, 55)).await.unwrap();
            assert_is(&reply, round, 55);
            desk.open(&Unit).await.unwrap();
        });
    });
}

#[test]
fn a_call_that_is_dropped_answered_gives_its_slot_back() {
    watched(|| {
        drop_calls(|_, desk, round| async move {
            let request = load(round, 100);
            let noted = Noted::new();
            let mut call = Box::pin(desk.echo(&request));
            noted.begin(call.as_mut());
            until_async("the answer is there", || noted.take()).await;
            drop(call);
        });
    });
}

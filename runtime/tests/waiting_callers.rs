//! Callers that wait for room, in the table of calls or in the send buffer: all get their turn.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod support;

use std::sync::{Arc, atomic::Ordering::Relaxed};

use ringcall::{ClientConfig, RunConfig, ShardConfig, SocketConfig};
use support::{
    desk::{DeskClient, Office, Unit, assert_is, load, run},
    event::{Noted, background},
    server::one_shard,
    wait::{all, until_async, watched},
};

#[test]
fn a_caller_that_waits_for_room_and_is_dropped_lets_the_next_go() {
    watched(|| {
        let office = Office::with(ShardConfig::new().calls_in_flight_max(1));
        run(async {
            let desk = office.connect().await;
            for round in 0..50 {
                let (a, b, c) = (load(round, 10), load(round, 20), load(round, 30));
                let noted = [(); 3].map(|()| Noted::new());
                let mut first = Box::pin(desk.echo(&a));
                let mut second = Box::pin(desk.echo(&b));
                let mut third = Box::pin(desk.echo(&c));
                noted[0].begin(first.as_mut());
                // Polled again for no reason, as by a `select`.
                noted[1].begin(second.as_mut());
                noted[1].begin(second.as_mut());
                noted[2].begin(third.as_mut());
                noted[1].begin(second.as_mut());
                let reply = first.await.unwrap();
                assert_is(&reply, round, 10);
                // There is room, and the second was told. It does not take it.
                assert!(noted[1].take());
                assert!(!noted[2].take());
                drop(second);
                assert!(noted[2].take());
                assert_is(&third.await.unwrap(), round, 30);
            }
        });
    });
}

#[test]
fn a_caller_that_is_polled_for_no_reason_takes_no_wake_up_from_others() {
    watched(|| {
        let office = Office::with(ShardConfig::new().calls_in_flight_max(2));
        run(async {
            let (desk, other) = (office.connect().await, office.connect().await);
            for round in 0..50 {
                let requests = [0, 1, 2, 3].map(|at| load(round * 4 + at, 40));
                let noted = [(); 4].map(|()| Noted::new());
                let waits = office.waits();
                let mut held = Box::pin(desk.hold(&requests[0]));
                let mut quick = Box::pin(desk.echo(&requests[1]));
                noted[0].begin(held.as_mut());
                noted[1].begin(quick.as_mut());
                // Two wait, the first with many polls; one place comes free, then another.
                let mut eager = Box::pin(desk.hold(&requests[2]));
                let mut patient = Box::pin(desk.echo(&requests[3]));
                for _ in 0..5 {
                    noted[2].begin(eager.as_mut());
                }
                noted[3].begin(patient.as_mut());
                quick.await.unwrap();
                assert!(noted[2].take());
                noted[2].begin(eager.as_mut());
                office.has_waited(waits + 2).await;
                other.open(&Unit).await.unwrap();
                // Both held calls are answered, and only one of them is taken.
                held.await.unwrap();
                until_async("the patient one is told", || noted[3].take()).await;
                assert_is(&patient.await.unwrap(), round * 4 + 3, 40);
                eager.await.unwrap();
            }
        });
    });
}

/// More calls than may be in flight: as tasks, and all polled by one task.
fn exceed_calls_in_flight(calls: u64, config: ShardConfig, max: u64) {
    let office = Office::with(config);
    let watch = Arc::clone(&office.watch);
    run(async move {
        let desk = office.connect().await;
        let call = |number: u64| {
            let desk = desk.clone();
            async move {
                let reply = desk.give_way(&load(number, 33)).await.unwrap();
                assert_is(&reply, number, 33);
            }
        };
        let tasks: Vec<_> = (0..calls).map(|number| background(call(number))).collect();
        for task in tasks {
            task.await;
        }
        all((0..calls.min(200)).map(call)).await;
        let running_max = watch.running_max.load(Relaxed);
        assert!((1..=max).contains(&running_max), "{running_max} at once");
        assert_eq!(watch.running.load(Relaxed), 0);
    });
}

#[test]
fn more_calls_than_the_server_accepts_wait_and_all_complete() {
    watched(|| {
        for max in [1, 2, 7, 64] {
            let config = ShardConfig::new().calls_in_flight_max(max);
            exceed_calls_in_flight(1_000, config, max.into());
        }
    });
}

#[test]
fn more_calls_than_the_default_wait_and_all_complete() {
    watched(|| exceed_calls_in_flight(6_000, ShardConfig::new(), 4_096));
}

#[test]
fn callers_wait_while_the_send_buffer_is_full_and_all_complete() {
    const LEN: usize = 64 * 1024;
    watched(|| {
        let small =
            SocketConfig::new().send_buffer_bytes(64 * 1024).receive_buffer_bytes(64 * 1024);
        let office = Office::of(one_shard().socket(small.clone()));
        let config = ShardConfig::new().send_buffer_max(2 * LEN);
        let run = RunConfig::new().shard(config).run(async {
            let config = ClientConfig::new().socket(small);
            let desk = DeskClient::with(&config, office.server.address());
            let desk = desk.await.unwrap();
            let blocking = desk.clone();
            let blocked = background(async move { blocking.block(&Unit).await.map(drop) });
            office.has_waited(1).await;
            let calls = (0..200).map(|number| {
                let desk = desk.clone();
                background(async move {
                    let reply = desk.echo(&load(number, LEN)).await.unwrap();
                    assert_is(&reply, number, LEN);
                })
            });
            let calls: Vec<_> = calls.collect();
            // Everything that fits into sockets and buffers is there, and most does not.
            let mut made = 0;
            until_async("nothing moves any more", || {
                let now = ringcall::counters().unwrap().bytes_sent;
                std::mem::replace(&mut made, now) == now
            })
            .await;
            let made = ringcall::counters().unwrap().calls_made;
            assert!(made < 100, "{made} calls made");
            office.watch.unblocked.store(1, Relaxed);
            for call in calls {
                call.await;
            }
            blocked.await.unwrap();
        });
        run.unwrap();
    });
}

//! A server comes back with another number of shards, under load: every call is answered or
//! refused, and runs on the shard that owns its key.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod support;

use std::{
    cell::Cell,
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    thread,
    time::Duration,
};

use ringcall::prelude::*;
use support::{
    routed::{
        RoutedClient, RoutedShards, Seen, owner, put, reserve, serve, serve_at, tasks, total,
    },
    station::run,
    wait::{until_async, watched, watched_for},
};

/// Calls of the load, by how they ended.
#[derive(Default)]
struct Tally {
    answered: AtomicU64,
    refused: AtomicU64,
    /// The shards that the last answer knew of.
    count: AtomicU64,
}

/// Calls until it is over, and counts each outcome. Gives how many calls were made.
fn load(address: std::net::SocketAddr, tally: &Arc<Tally>, is_over: &Arc<AtomicBool>) -> u64 {
    let (tally, is_over) = (Arc::clone(tally), Arc::clone(is_over));
    run(async move {
        let shards = RoutedShards::connect(address).await.unwrap();
        let made = Rc::new(Cell::new(0));
        tasks(16, |task| {
            let (shards, made) = (shards.clone(), Rc::clone(&made));
            let (tally, is_over) = (Arc::clone(&tally), Arc::clone(&is_over));
            async move {
                let mut key = task;
                while !is_over.load(Relaxed) {
                    key += 16;
                    made.set(made.get() + 1);
                    let request = put(key);
                    let outcome = if key % 3 == 0 {
                        shards.wait(&request).await
                    } else {
                        shards.put(&request).await
                    };
                    match outcome {
                        Ok(ran) => {
                            let (index, count) = (u16::from(ran.index), u16::from(ran.count));
                            assert_eq!(index, owner(key, count));
                            tally.count.store(count.into(), Relaxed);
                            tally.answered.fetch_add(1, Relaxed);
                        }
                        Err(status) => {
                            assert_eq!(status.code(), Code::Unavailable, "{status}");
                            tally.refused.fetch_add(1, Relaxed);
                        }
                    }
                }
            }
        })
        .await;
        made.get()
    })
}

#[test]
fn a_restart_with_another_number_of_shards_is_followed_under_load() {
    watched_for(Duration::from_secs(120), || {
        let (_port, address) = reserve();
        let seen = Seen::default();
        let mut server = serve_at(address, 4, &seen);
        let (tally, is_over) = (Arc::<Tally>::default(), Arc::<AtomicBool>::default());
        let load = {
            let (tally, is_over) = (Arc::clone(&tally), Arc::clone(&is_over));
            thread::spawn(move || load(address, &tally, &is_over))
        };
        let goes_on = |count: u64| {
            let before = tally.answered.load(Relaxed);
            support::wait::until("calls are answered by so many shards", || {
                tally.answered.load(Relaxed) > before + 500 && tally.count.load(Relaxed) == count
            });
        };
        goes_on(4);
        for (round, count) in [2, 3, 4, 1, 4].into_iter().enumerate() {
            if round % 2 == 0 {
                server.drain(Duration::from_secs(20));
            } else {
                server.stop();
            }
            server.join().unwrap();
            server = serve_at(address, count, &seen);
            goes_on(count as u64);
            let before = total(&server);
            goes_on(count as u64);
            // Nobody goes by the old number any more.
            assert_eq!(total(&server).since(&before).calls_forwarded, 0);
        }
        is_over.store(true, Relaxed);
        let made = load.join().unwrap();
        let (answered, refused) = (tally.answered.load(Relaxed), tally.refused.load(Relaxed));
        assert_eq!(made, answered + refused);
        assert_eq!(seen.misrouted.load(Relaxed), 0);
        assert!(answered > 100 * refused, "{refused} of {made} were refused");
    });
}

#[test]
fn a_call_waits_for_a_server_that_is_away_and_no_longer_than_it_may() {
    watched(|| {
        let (_port, address) = reserve();
        let seen = Seen::default();
        let server = serve_at(address, 2, &seen);
        run(async move {
            let shards = RoutedShards::connect(address).await.unwrap();
            shards.put(&put(1)).await.unwrap();
            let connection = shards.client().of(&2_u64).await.unwrap();
            server.drain(Duration::from_secs(20));
            until_async("the client is told", || !connection.is_open()).await;
            drop(connection);
            let joins = thread::spawn(move || server.join().unwrap());
            until_async("it has ended", || joins.is_finished()).await;
            let request = put(2);
            let status =
                shards.put(&request).timeout(Duration::from_millis(50)).await.err().unwrap();
            assert_eq!(status.code(), Code::DeadlineExceeded);
            assert!(status.is_not_executed() && status.message().contains("no connection in time"));
            let back = thread::spawn(move || serve_at(address, 3, &seen));
            let ran = shards.put(&request).await.unwrap();
            assert_eq!(u16::from(ran.count), 3);
            assert_eq!(shards.client().shards(), 3);
            drop(back.join().unwrap());
        });
    });
}

#[test]
fn a_server_that_stops_answers_or_refuses_every_call_that_was_passed_on() {
    watched(|| {
        for round in 0..10 {
            let (server, seen) = serve(4);
            let address = server.address();
            run(async move {
                let client = RoutedClient::connect(address).await.unwrap();
                let ended = Rc::new(Cell::new(0));
                for key in 0..100 {
                    let (client, ended) = (client.clone(), Rc::clone(&ended));
                    ringcall::spawn(async move {
                        let status = client.never(&put(key)).await.err().unwrap();
                        assert_eq!(status.code(), Code::Unavailable, "{status}");
                        ended.set(ended.get() + 1);
                    });
                }
                let waiting = || seen.waiting.load(Relaxed);
                if round % 2 == 0 {
                    until_async("they wait", || waiting() == 100).await;
                }
                server.stop();
                until_async("each has its outcome", || ended.get() == 100).await;
                server.join().unwrap();
                assert_eq!(waiting(), 0);
            });
        }
    });
}

#[test]
fn a_drain_waits_for_calls_that_other_shards_run() {
    watched(|| {
        let (server, seen) = serve(4);
        let address = server.address();
        run(async move {
            let client = RoutedClient::connect(address).await.unwrap();
            let answered = Rc::new(Cell::new(0));
            for key in 0..200 {
                let (client, answered) = (client.clone(), Rc::clone(&answered));
                ringcall::spawn(async move {
                    match client.wait(&put(key)).await {
                        Ok(_) => answered.set(answered.get() + 1),
                        Err(status) => {
                            assert!(status.is_not_executed(), "{status}");
                            answered.set(answered.get() + 1);
                        }
                    }
                });
            }
            until_async("some are answered", || answered.get() > 10).await;
            server.drain(Duration::from_secs(20));
            until_async("each has its outcome", || answered.get() == 200).await;
            server.join().unwrap();
            assert_eq!(seen.misrouted.load(Relaxed), 0);
        });
    });
}

#[test]
fn a_server_that_is_none_is_told_at_once() {
    let (_port, address) = reserve();
    let error = run(async move { RoutedShards::connect(address).await.err().unwrap() });
    assert!(matches!(error, ringcall::ConnectError::Connect { .. }), "{error}");
}

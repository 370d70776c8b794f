//! Deadlines: a call has its outcome in time or fails, and its handler is dropped.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod support;

use std::{net::TcpListener, thread, time::Duration};

use ringcall::{ClientConfig, Code, ShardConfig, Status};
use support::{
    event::{Noted, background},
    raw::{CANCEL, Frame, NOT_EXECUTED, Peer, archive, call, plain, reply, request, status},
    station::run,
    wait::{until, until_async, watched},
    works::{Done, Job, LONG, NO_DEADLINE, SHORT, Shop, WorksClient},
};

/// A call has failed as its time was over: by the caller's clock or by the server's, as the one or
/// the other is first.
#[track_caller]
fn assert_late<T>(outcome: Result<T, Status>) {
    let status = outcome.err().unwrap();
    assert_eq!(status.code(), Code::DeadlineExceeded, "{status}");
    assert!(!status.is_not_executed(), "{status}");
}

#[test]
fn a_call_without_an_outcome_in_time_fails_and_its_handler_is_dropped() {
    watched(|| {
        let shop = Shop::start();
        run(async {
            let works = shop.connect().await;
            for round in 1..=5 {
                assert_late(works.never(&Job::new(1)).timeout(SHORT).await);
                let stopped = || shop.counters().handlers_stopped == shop.begun();
                until_async("the handler is dropped", || shop.running() == 0 && stopped()).await;
                assert_eq!(works.add(&Job::new(round)).await.unwrap().number, round + 1);
            }
        });
        assert_eq!(shop.counters().protocol_errors, 0);
    });
}

#[test]
fn an_outcome_in_time_is_the_outcome() {
    watched(|| {
        let shop = Shop::start();
        run(async {
            let works = shop.connect().await;
            for number in 0..1000 {
                let reply = works.add(&Job::new(number)).timeout(LONG).await.unwrap();
                assert_eq!(reply.number, number + 1);
            }
            let held = works.clone();
            let held = background(async move {
                held.hold(&Job::new(7)).timeout(LONG).await.unwrap().number.to_native()
            });
            shop.runs(1).await;
            works.open(&Job::new(0)).await.unwrap();
            assert_eq!(held.await, 8);
        });
        assert_eq!(shop.counters().handlers_stopped, 0);
    });
}

#[test]
fn a_method_and_a_client_have_their_own_time_and_a_call_goes_before_them() {
    watched(|| {
        let shop = Shop::start();
        run(async {
            let hasty = ClientConfig::new().call_timeout(SHORT);
            let hasty = WorksClient::with(&hasty, shop.server.address()).await.unwrap();
            let calm = shop.connect().await;
            // Zero is for ever.
            let for_ever = [hasty.clone(), calm.clone()].map(|works| {
                background(async move {
                    works.hurry(&Job::new(1)).timeout(Duration::ZERO).await.unwrap().number.into()
                })
            });
            let for_long = hasty.clone();
            let for_long = background(async move {
                for_long.hold(&Job::new(1)).timeout(LONG).await.unwrap().number.into()
            });
            shop.runs(3).await;
            assert_late(calm.hurry(&Job::new(1)).await);
            assert_late(hasty.hold(&Job::new(1)).await);
            shop.runs(3).await;
            // Those that have more time still wait.
            calm.open(&Job::new(0)).await.unwrap();
            for call in for_ever.into_iter().chain([for_long]) {
                let number: u64 = call.await;
                assert_eq!(number, 2);
            }
        });
    });
}

#[test]
fn a_handler_knows_how_much_time_is_left() {
    watched(|| {
        let shop = Shop::start();
        run(async {
            let works = shop.connect().await;
            let none = works.time(&Job::new(1)).await.unwrap();
            assert_eq!(none.number, NO_DEADLINE);
            let some = works.time(&Job::new(1)).timeout(LONG).await.unwrap();
            let some = Duration::from_micros(some.number.into());
            assert!(some > Duration::ZERO && some <= LONG, "{some:?}");
            // More than travels is as much as travels.
            let most = works.time(&Job::new(1)).timeout(Duration::MAX).await.unwrap();
            let most = Duration::from_micros(most.number.into());
            assert!(most > LONG && most <= Duration::from_micros(u32::MAX.into()), "{most:?}");
        });
    });
}

/// The request of a call that wants its outcome within so many microseconds.
fn timed(slot: u32, method: u32, time_us: u32) -> Frame {
    Frame { time_us, ..request(call(slot, 1), method, &archive(&Job::new(1))) }
}

/// What the server answers a call of `time` that asks for so many microseconds.
fn time_of(config: ShardConfig, time_us: u32) -> u64 {
    let shop = Shop::with(config);
    let mut peer = Peer::open(shop.server.address());
    peer.send(&timed(0, WorksClient::TIME, time_us));
    let frame = peer.frame();
    assert_eq!((frame.call, frame.code), (call(0, 1), 0));
    u64::from_le_bytes(frame.body.try_into().unwrap())
}

#[test]
fn a_server_holds_calls_to_the_time_that_it_grants() {
    watched(|| {
        let (ms, s) = (Duration::from_millis, Duration::from_secs);
        let config = ShardConfig::new;
        assert_eq!(time_of(config(), 0), NO_DEADLINE);
        assert!(time_of(config().default_deadline(s(60)), 0) <= 60_000_000);
        assert!(time_of(config().deadlines(ms(0), s(60)), u32::MAX) <= 60_000_000);
        // It may be asked for less than the least, and gets that.
        assert!(time_of(config().deadlines(LONG, LONG), 1) > 1);
        // One that asks for none is not held to the most, but to the default.
        assert_eq!(time_of(config().deadlines(ms(0), s(60)), 0), NO_DEADLINE);
    });
}

#[test]
fn a_call_whose_caller_only_waits_is_ended_by_the_server() {
    watched(|| {
        let shop = Shop::with(ShardConfig::new().default_deadline(SHORT));
        let mut peer = Peer::open(shop.server.address());
        for (slot, time_us) in [(0, 5_000), (1, 0)] {
            peer.send(&timed(slot, WorksClient::HOLD, time_us));
            let ended = status(call(slot, 1), Code::DeadlineExceeded, "");
            assert_eq!(peer.frame(), ended);
        }
        assert_eq!(shop.counters().handlers_stopped, 2);
        assert_eq!((shop.running(), shop.finished()), (0, 0));
        peer.send(&request(call(0, 2), WorksClient::ADD, &archive(&Job::new(1))));
        assert_eq!(peer.frame(), reply(call(0, 2), &archive(&Done { number: 2 })));
    });
}

#[test]
fn a_call_that_comes_too_late_is_refused_and_not_run() {
    watched(|| {
        let none = ShardConfig::new().deadlines(Duration::ZERO, Duration::ZERO);
        let shop = Shop::with(none);
        let mut peer = Peer::open(shop.server.address());
        peer.send(&timed(0, WorksClient::HOLD, 5_000));
        let refused = status(call(0, 1), Code::DeadlineExceeded, "too late when it came");
        assert_eq!(peer.frame(), Frame { flags: NOT_EXECUTED, ..refused });
        run(async {
            let works = shop.connect().await;
            let failed = works.hold(&Job::new(1)).timeout(LONG).await.err().unwrap();
            assert_eq!(failed.code(), Code::DeadlineExceeded);
            assert!(failed.is_not_executed());
        });
        assert_eq!((shop.begun(), shop.counters().calls_refused_late), (0, 2));
    });
}

#[test]
fn a_call_made_for_another_ends_no_later() {
    watched(|| {
        let (front, back) = (Shop::start(), Shop::start());
        run(async {
            let works = front.connect().await;
            let port = Job::new(back.server.address().port().into());
            let calling = works.clone();
            let relayed = background(async move {
                let time = Duration::from_millis(100);
                calling.relay(&port).timeout(time).await.err().unwrap()
            });
            assert_eq!(relayed.await.code(), Code::DeadlineExceeded);
            // The handler goes on, and has learned it.
            until_async("the inner call has ended", || {
                front.watch.relayed.lock().unwrap().len() == 1
            })
            .await;
            until_async("its handler is dropped", || back.running() == 0).await;
        });
        let inner = front.watch.relayed.lock().unwrap().remove(0);
        assert_eq!(inner.code(), Code::DeadlineExceeded);
    });
}

#[test]
fn a_call_that_waits_for_room_waits_no_longer_than_it_has_time() {
    watched(|| {
        let shop = Shop::with(ShardConfig::new().calls_in_flight_max(1));
        run(async {
            let works = shop.connect().await;
            let holding = works.clone();
            let held = background(async move { holding.hold(&Job::new(1)).await.map(drop) });
            shop.runs(1).await;
            let failed = works.hold(&Job::new(2)).timeout(SHORT).await.err().unwrap();
            assert_eq!(failed.code(), Code::DeadlineExceeded);
            assert!(failed.is_not_executed(), "{failed}");
            // One that waits longer has its turn.
            let request = Job::new(3);
            let mut waiting = Box::pin(works.add(&request));
            Noted::new().begin(waiting.as_mut());
            shop.connect().await.open(&Job::new(0)).await.unwrap();
            held.await.unwrap();
            assert_eq!(waiting.await.unwrap().number, 4);
        });
        assert_eq!(shop.begun(), 1);
    });
}

#[test]
fn a_late_reply_is_thrown_away_and_its_slot_used_again() {
    watched(|| {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let server = thread::spawn(move || {
            let mut peer = Peer::serve(&listener, WorksClient::METHODS);
            let first = peer.frame();
            assert_eq!(first.call, call(0, 1));
            assert!(first.time_us > 0 && first.time_us <= 5_000, "{first:?}");
            assert_eq!(peer.frame(), plain(CANCEL, call(0, 1)));
            // Its slot is taken for as long as it was not answered.
            let second = peer.frame();
            assert_eq!((second.call, second.time_us), (call(1, 1), 0));
            peer.send(&reply(call(0, 1), &archive(&Done { number: 11 })));
            peer.send(&reply(call(1, 1), &archive(&Done { number: 22 })));
            for _ in 0..2 {
                let next = peer.frame();
                assert_eq!(next.call >> 32, 2, "a slot is used again");
                peer.send(&reply(next.call, &archive(&Done { number: 33 })));
            }
            peer.expect_end();
        });
        run(async {
            let works = WorksClient::connect(address).await.unwrap();
            let failed = works.never(&Job::new(1)).timeout(SHORT).await.err().unwrap();
            assert_eq!(failed, Status::new(Code::DeadlineExceeded, "no outcome in time"));
            assert_eq!(works.add(&Job::new(2)).await.unwrap().number, 22);
            let requests = [Job::new(3), Job::new(4)];
            let mut third = Box::pin(works.add(&requests[0]));
            let fourth = works.add(&requests[1]);
            Noted::new().begin(third.as_mut());
            assert_eq!(fourth.await.unwrap().number, 33);
            assert_eq!(third.await.unwrap().number, 33);
        });
        server.join().unwrap();
    });
}

#[test]
fn deadlines_that_are_no_order_are_refused() {
    let order = ShardConfig::new().deadlines(LONG, SHORT);
    let beyond = ShardConfig::new().deadlines(SHORT, SHORT).default_deadline(LONG);
    for (config, says) in [(order, "deadlines is"), (beyond, "default_deadline is")] {
        let error = ringcall::RunConfig::new().shard(config).run(async {}).unwrap_err();
        assert!(error.to_string().contains(says), "{error}");
    }
}

#[test]
fn many_calls_with_deadlines_each_end_with_their_own() {
    watched(|| {
        let shop = Shop::start();
        run(async {
            let works = shop.connect().await;
            // Every third is too short, and those between them are answered.
            let calls: Vec<_> = (0..300_u64)
                .map(|number| {
                    let works = works.clone();
                    background(async move {
                        let job = Job::new(number);
                        match number % 3 {
                            0 => works.never(&job).timeout(SHORT).await.map(|_| 0),
                            1 => {
                                works.hold(&job).timeout(LONG).await.map(|done| done.number.into())
                            }
                            _ => works.add(&job).timeout(LONG).await.map(|done| done.number.into()),
                        }
                    })
                })
                .collect();
            until_async("the short ones have ended", || {
                let counters = shop.counters();
                counters.handlers_stopped == 100 && shop.running() == 100
            })
            .await;
            works.open(&Job::new(0)).await.unwrap();
            for (number, call) in (0_u64..).zip(calls) {
                let outcome: Result<u64, Status> = call.await;
                match number % 3 {
                    0 => assert_late(outcome),
                    _ => assert_eq!(outcome, Ok(number + 1)),
                }
            }
        });
        until("none is left", || shop.running() == 0);
    });
}

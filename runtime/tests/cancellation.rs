//! Calls that are given up: at every stage of a call its caller may drop it, the handler is dropped
//! where it waits, and nothing is held any longer than until it has ended.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod support;

use std::{
    net::{SocketAddr, TcpListener},
    sync::atomic::Ordering::Relaxed,
    thread,
};

use ringcall::{Code, ShardConfig};
use support::{
    event::{Noted, background},
    raw::{CANCEL, Frame, Peer, archive, call, goaway, plain, reply, request, status},
    station::run,
    wait::{until, until_async, watched},
    works::{Done, Job, Shop, WorksClient},
};

fn job_frame(id: u64, method: u32) -> Frame {
    request(id, method, &archive(&Job::new(1)))
}

fn done_frame(id: u64) -> Frame {
    reply(id, &archive(&Done { number: 2 }))
}

fn cancel(id: u64) -> Frame {
    plain(CANCEL, id)
}

/// Runs a client against a server that does what it is told.
fn against(
    serve: impl FnOnce(&mut Peer) + Send + 'static,
    client: impl AsyncFnOnce(WorksClient) + 'static,
) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address: SocketAddr = listener.local_addr().unwrap();
    let server = thread::spawn(move || serve(&mut Peer::serve(&listener, WorksClient::METHODS)));
    run(async {
        client(WorksClient::connect(address).await.unwrap()).await;
        until_async("the server is done", || server.is_finished()).await;
    });
    server.join().unwrap();
}

#[test]
fn a_call_dropped_before_it_was_polled_is_not_made() {
    watched(|| {
        let serve = |peer: &mut Peer| {
            let only = peer.frame();
            assert_eq!((only.call, only.code), (call(0, 1), WorksClient::ADD));
            peer.send(&done_frame(call(0, 1)));
            peer.expect_end();
        };
        against(serve, async |works| {
            let job = Job::new(1);
            drop(works.hold(&job));
            works.add(&job).await.unwrap();
        });
    });
}

#[test]
fn a_call_dropped_before_it_was_sent_is_sent_and_given_up() {
    watched(|| {
        let serve = |peer: &mut Peer| {
            assert_eq!(peer.frame(), job_frame(call(0, 1), WorksClient::HOLD));
            assert_eq!(peer.frame(), cancel(call(0, 1)));
            // Its slot is taken until it was answered.
            assert_eq!(peer.frame(), job_frame(call(1, 1), WorksClient::ADD));
            peer.send(&status(call(0, 1), Code::Cancelled, ""));
            peer.send(&done_frame(call(1, 1)));
            peer.expect_end();
        };
        against(serve, async |works| {
            let job = Job::new(1);
            let mut held = Box::pin(works.hold(&job));
            Noted::new().begin(held.as_mut());
            drop(held);
            works.add(&job).await.unwrap();
        });
    });
}

#[test]
fn a_call_dropped_while_it_waits_for_room_is_not_made_and_leaves_its_place() {
    watched(|| {
        let shop = Shop::with(ShardConfig::new().calls_in_flight_max(1));
        run(async {
            let works = shop.connect().await;
            let (job, noted) = (Job::new(1), Noted::new());
            let holding = works.clone();
            let held = background(async move { holding.hold(&Job::new(1)).await.map(drop) });
            shop.runs(1).await;
            let mut first = Box::pin(works.hold(&job));
            let mut second = Box::pin(works.add(&job));
            noted.begin(first.as_mut());
            noted.begin(second.as_mut());
            drop(first);
            shop.connect().await.open(&job).await.unwrap();
            held.await.unwrap();
            assert_eq!(second.await.unwrap().number, 2);
        });
        assert_eq!((shop.begun(), shop.counters().handlers_stopped), (1, 0));
    });
}

#[test]
fn a_call_dropped_while_its_handler_waits_drops_the_handler() {
    watched(|| {
        let shop = Shop::start();
        run(async {
            let works = shop.connect().await;
            let (job, noted) = (Job::new(1), Noted::new());
            for round in 1..=10 {
                let mut given_up = Box::pin(works.hold(&job));
                let mut kept = Box::pin(works.hold(&job));
                noted.begin(given_up.as_mut());
                noted.begin(kept.as_mut());
                shop.runs(2).await;
                drop(given_up);
                shop.runs(1).await;
                assert_eq!(shop.counters().handlers_stopped, round);
                works.open(&job).await.unwrap();
                assert_eq!(kept.await.unwrap().number, 2);
                assert_eq!(shop.finished(), round);
            }
        });
    });
}

#[test]
fn a_call_dropped_after_its_answer_came_is_not_given_up() {
    watched(|| {
        let serve = |peer: &mut Peer| {
            assert_eq!(peer.frame(), job_frame(call(0, 1), WorksClient::ADD));
            peer.send(&done_frame(call(0, 1)));
            // Free at once, and no CANCEL before.
            assert_eq!(peer.frame(), job_frame(call(0, 2), WorksClient::ADD));
            peer.send(&done_frame(call(0, 2)));
            peer.expect_end();
        };
        against(serve, async |works| {
            let (job, noted) = (Job::new(1), Noted::new());
            let mut answered = Box::pin(works.add(&job));
            noted.begin(answered.as_mut());
            until_async("the answer is there", || noted.take()).await;
            drop(answered);
            works.add(&job).await.unwrap();
        });
    });
}

#[test]
fn a_cancelled_call_is_answered_once_its_handler_is_dropped() {
    watched(|| {
        let shop = Shop::start();
        let mut peer = Peer::open(shop.server.address());
        let id = call(3, 1);
        peer.send(&job_frame(id, WorksClient::HOLD));
        shop.blocks_until_it_runs(1);
        // Twice is once.
        peer.send(&cancel(id));
        peer.send(&cancel(id));
        assert_eq!(peer.frame(), status(id, Code::Cancelled, ""));
        assert_eq!((shop.running(), shop.finished()), (0, 0));
        // The slot is free then.
        peer.send(&job_frame(call(3, 2), WorksClient::ADD));
        assert_eq!(peer.frame(), done_frame(call(3, 2)));
    });
}

#[test]
fn a_cancel_that_comes_with_its_call_stops_it() {
    watched(|| {
        let shop = Shop::start();
        let mut peer = Peer::open(shop.server.address());
        for generation in 1..=10 {
            let id = call(0, generation);
            let both = [job_frame(id, WorksClient::HOLD).bytes(), cancel(id).bytes()];
            peer.send_bytes(&both.concat());
            assert_eq!(peer.frame(), status(id, Code::Cancelled, ""));
        }
        assert_eq!((shop.running(), shop.finished()), (0, 0));
        assert_eq!(shop.counters().handlers_stopped, 10);
    });
}

#[test]
fn a_cancel_that_is_too_late_or_of_no_call_is_ignored() {
    watched(|| {
        let shop = Shop::start();
        let mut peer = Peer::open(shop.server.address());
        let id = call(0, 1);
        let stream =
            [job_frame(id, WorksClient::ADD), cancel(id), cancel(call(0, 7)), cancel(call(9, 1))];
        for frame in &stream {
            peer.send(frame);
        }
        assert_eq!(peer.frame(), done_frame(id));
        // That of an earlier call in a slot does not stop the one that runs there.
        peer.send(&job_frame(call(0, 2), WorksClient::HOLD));
        shop.blocks_until_it_runs(1);
        peer.send(&cancel(id));
        peer.send(&job_frame(call(1, 1), WorksClient::OPEN));
        let mut opened = done_frame(call(1, 1));
        opened.aux = 1;
        assert_eq!(peer.frame(), opened);
        assert_eq!(peer.frame(), done_frame(call(0, 2)));
        assert_eq!(shop.counters().protocol_errors, 0);
    });
}

#[test]
fn a_cancel_beyond_the_limit_ends_the_connection() {
    watched(|| {
        let shop = Shop::with(ShardConfig::new().calls_in_flight_max(8));
        let mut peer = Peer::open(shop.server.address());
        peer.send(&cancel(call(8, 1)));
        let text = "call 8.1 is beyond the limit of 8 calls in flight";
        peer.expect_goaway(Code::ResourceExhausted, text);
    });
}

#[test]
fn a_handler_that_must_finish_finishes_also_when_its_caller_gave_up() {
    watched(|| {
        let shop = Shop::start();
        let mut peer = Peer::open(shop.server.address());
        let id = call(0, 1);
        peer.send(&job_frame(id, WorksClient::FINISH));
        shop.blocks_until_it_runs(1);
        peer.send(&cancel(id));
        peer.send(&job_frame(call(1, 1), WorksClient::ADD));
        let mut added = done_frame(call(1, 1));
        added.aux = 1;
        assert_eq!(peer.frame(), added);
        assert_eq!(shop.running(), 1);
        shop.release();
        // With its own outcome: it is there.
        assert_eq!(peer.frame(), done_frame(id));
        assert_eq!((shop.finished(), shop.counters().handlers_stopped), (1, 0));
    });
}

#[test]
fn a_handler_that_must_finish_finishes_also_when_its_connection_is_gone() {
    watched(|| {
        let shop = Shop::start();
        let mut peer = Peer::open(shop.server.address());
        peer.send(&job_frame(call(0, 1), WorksClient::FINISH));
        peer.send(&job_frame(call(1, 1), WorksClient::HOLD));
        shop.blocks_until_it_runs(2);
        peer.reset();
        shop.blocks_until_it_runs(1);
        assert_eq!(shop.counters().handlers_stopped, 1);
        shop.release();
        until("it has finished", || shop.running() == 0);
        assert_eq!(shop.finished(), 1);
        assert_eq!(shop.counters().replies_dropped, 2);
    });
}

#[test]
fn a_handler_that_works_on_can_see_that_nobody_waits() {
    watched(|| {
        let shop = Shop::start();
        let mut peer = Peer::open(shop.server.address());
        peer.send(&job_frame(call(0, 1), WorksClient::LOOK));
        peer.send(&job_frame(call(1, 1), WorksClient::LOOK));
        shop.blocks_until_it_runs(2);
        peer.send(&cancel(call(1, 1)));
        peer.send(&job_frame(call(2, 1), WorksClient::OPEN));
        assert_eq!(peer.frame().call, call(2, 1));
        for (slot, is_cancelled) in [(0, 0), (1, 1)] {
            let frame = peer.frame();
            let body = archive(&Done { number: is_cancelled });
            assert_eq!((frame.call, frame.body), (call(slot, 1), body));
        }
    });
}

#[test]
fn a_cancelled_call_keeps_its_slot_until_its_handler_has_stopped() {
    watched(|| {
        let shop = Shop::with(ShardConfig::new().calls_in_flight_max(4));
        let mut peer = Peer::open(shop.server.address());
        for slot in 0..4 {
            peer.send(&job_frame(call(slot, 1), WorksClient::FINISH));
        }
        shop.blocks_until_it_runs(4);
        for slot in 0..4 {
            peer.send(&cancel(call(slot, 1)));
        }
        // Who cancels and calls again does not have more run than may be in flight.
        peer.send(&job_frame(call(2, 2), WorksClient::FINISH));
        let told = goaway(Code::InvalidArgument, "call 2.2 was used before");
        assert_eq!(peer.frame(), told);
        peer.expect_end();
        assert_eq!(shop.begun(), 4);
        shop.release();
        until("they have finished", || shop.finished() == 4);
    });
}

#[test]
fn a_client_that_calls_and_gives_up_again_and_again_has_no_more_run_than_may_be_in_flight() {
    const CALLS: u64 = 2_000;
    watched(|| {
        let shop = Shop::with(ShardConfig::new().calls_in_flight_max(8));
        run(async {
            let works = shop.connect().await;
            let (job, noted) = (Job::new(1), Noted::new());
            for _ in 0..CALLS {
                let mut call = Box::pin(works.never(&job));
                noted.begin(call.as_mut());
                if noted.poll(call.as_mut()).is_pending() {
                    ringcall::yield_now().await;
                }
                drop(call);
            }
            // Its connection is as good as any.
            assert_eq!(works.add(&job).await.unwrap().number, 2);
            shop.runs(0).await;
        });
        let most = shop.watch.running_max.load(Relaxed);
        assert!((1..=8).contains(&most), "{most} ran at once");
        let counters = shop.counters();
        assert_eq!((counters.protocol_errors, counters.handlers_stopped), (0, shop.begun()));
    });
}

#[test]
fn what_a_dropped_client_had_given_up_is_dropped_at_the_server() {
    watched(|| {
        let shop = Shop::start();
        // The shard ends with them, at once.
        run(async {
            let works = shop.connect().await;
            let (job, noted) = (Job::new(1), Noted::new());
            let calls: Vec<_> = (0..10)
                .map(|_| {
                    let mut call = Box::pin(works.never(&job));
                    noted.begin(call.as_mut());
                    call
                })
                .collect();
            shop.runs(10).await;
            drop(calls);
        });
        until("the handlers are dropped", || shop.running() == 0);
        until("the connection is closed", || shop.counters().connections_closed == 1);
        assert_eq!(shop.counters().handlers_stopped, 10);
    });
}

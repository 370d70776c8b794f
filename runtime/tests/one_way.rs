//! One-way calls: made without waiting for anything, in order, and heard of again only where one
//! fails.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod support;

use std::{cell::RefCell, net::TcpListener, rc::Rc, sync::mpsc::channel, thread, time::Duration};

use ringcall::{Code, ShardConfig, Status};
use support::{
    event::{Noted, background},
    raw::{Frame, NOTICE, ONEWAY, Peer, archive, call, plain, reply, request, status},
    station::run,
    wait::{until, until_async, watched},
    works::{BAD, Done, Job, Shop, WorksClient},
};

fn one_way(number: u64, method: u32, job: u64) -> Frame {
    Frame { code: method, body: archive(&Job::new(job)), ..plain(ONEWAY, number) }
}

fn notice(number: u64, code: Code, text: &str) -> Frame {
    Frame { code: code as u32, body: text.as_bytes().to_vec(), ..plain(NOTICE, number) }
}

#[test]
fn one_way_calls_run_in_the_order_in_which_they_were_made() {
    const CALLS: u64 = 5_000;
    watched(|| {
        let shop = Shop::start();
        run(async {
            let works = shop.connect().await;
            for number in (0..CALLS).map(|number| number + 1_000) {
                works.note(&Job::new(number)).await.unwrap();
            }
            // A call that is made after them runs after them.
            works.add(&Job::new(0)).await.unwrap();
            let expected: Vec<_> = (1_000..1_000 + CALLS).collect();
            assert_eq!(shop.noted(), expected);
            assert_eq!(ringcall::counters().unwrap().one_ways_made, CALLS);
        });
        assert_eq!(shop.counters().notices, 0);
    });
}

#[test]
fn a_one_way_call_that_was_made_arrives_also_where_its_client_is_dropped_at_once() {
    watched(|| {
        let shop = Shop::start();
        for number in 0..50 {
            run(async {
                let works = shop.connect().await;
                works.note(&Job::long(number, 30_000)).await.unwrap();
            });
        }
        until("all have arrived", || shop.noted().len() == 50);
        assert_eq!(shop.noted(), (0..50).collect::<Vec<_>>());
        assert_eq!(shop.counters().protocol_errors, 0);
    });
}

#[test]
fn a_one_way_call_that_fails_is_told_of_by_its_number() {
    watched(|| {
        let shop = Shop::start();
        run(async {
            let works = shop.connect().await;
            let told = Rc::new(RefCell::new(Vec::new()));
            let theirs = Rc::clone(&told);
            works.client().on_notice(move |number, status| {
                theirs.borrow_mut().push((number, status.clone()));
            });
            for number in [5, BAD, 6, BAD] {
                works.note(&Job::new(number)).await.unwrap();
            }
            until_async("both are told of", || told.borrow().len() == 2).await;
            let panicked = Status::new(Code::Internal, "the handler panicked");
            assert_eq!(told.take(), [(2, panicked.clone()), (4, panicked)]);
            assert_eq!(ringcall::counters().unwrap().notices, 2);
        });
        assert_eq!(shop.noted(), [5, 6]);
        assert_eq!(shop.counters().handlers_panicked, 2);
    });
}

#[test]
fn a_one_way_call_that_is_none_fails_alone() {
    watched(|| {
        let shop = Shop::start();
        let mut peer = Peer::open(shop.server.address());
        peer.send(&one_way(7, 1, 1));
        let unknown = notice(7, Code::Unimplemented, "no method has the id 0x00000001");
        assert_eq!(peer.frame(), unknown);
        peer.send(&Frame { body: vec![0xff; 3], ..one_way(8, WorksClient::NOTE, 1) });
        let invalid = "request: body of 3 bytes is not a valid archive of the message";
        assert_eq!(peer.frame(), notice(8, Code::InvalidArgument, invalid));
        peer.send(&one_way(9, WorksClient::NOTE, 1));
        // Numbers are the caller's: any but zero will do.
        peer.send(&one_way(9, WorksClient::NOTE, 2));
        peer.send(&one_way(u64::MAX, WorksClient::NOTE, 3));
        until("they have run", || shop.noted().len() == 3);
        peer.send(&one_way(0, WorksClient::NOTE, 4));
        peer.expect_goaway(Code::InvalidArgument, "call 0.0 has generation zero");
        assert_eq!(shop.noted(), [1, 2, 3]);
    });
}

#[test]
fn a_method_called_the_wrong_way_says_so() {
    watched(|| {
        let shop = Shop::start();
        let mut peer = Peer::open(shop.server.address());
        // Its reply is thrown away.
        peer.send(&one_way(1, WorksClient::ADD, 1));
        let body = archive(&Job::new(1));
        peer.send(&request(call(0, 1), WorksClient::NOTE, &body));
        let text = "a one-way method was called for a reply";
        assert_eq!(peer.frame(), status(call(0, 1), Code::InvalidArgument, text));
        peer.send(&request(call(0, 2), WorksClient::ADD, &body));
        assert_eq!(peer.frame(), reply(call(0, 2), &archive(&Done { number: 2 })));
    });
}

#[test]
fn no_more_one_way_calls_run_at_once_than_calls_may_be_in_flight() {
    watched(|| {
        let shop = Shop::with(ShardConfig::new().calls_in_flight_max(3));
        let mut peer = Peer::open(shop.server.address());
        for number in 1..=5 {
            peer.send(&one_way(number, WorksClient::NOTE_LATER, number));
        }
        for number in [4, 5] {
            let text = "too many one-way calls run";
            assert_eq!(peer.frame(), notice(number, Code::ResourceExhausted, text));
        }
        assert_eq!(shop.running(), 3);
        // They are counted apart from calls.
        peer.send(&request(call(2, 1), WorksClient::OPEN, &archive(&Job::new(1))));
        assert_eq!(peer.frame().code, 0);
        until("they have run", || shop.noted() == [1, 2, 3]);
        peer.send(&one_way(6, WorksClient::NOTE, 6));
        until("there is room again", || shop.noted().len() == 4);
    });
}

#[test]
fn a_one_way_call_that_comes_too_late_is_not_run() {
    watched(|| {
        let none = ShardConfig::new().deadlines(Duration::ZERO, Duration::ZERO);
        let shop = Shop::with(none);
        let mut peer = Peer::open(shop.server.address());
        peer.send(&Frame { time_us: 1_000, ..one_way(1, WorksClient::NOTE, 1) });
        let late = notice(1, Code::DeadlineExceeded, "too late when it came");
        assert_eq!(peer.frame(), late);
        assert_eq!((shop.noted().len(), shop.counters().calls_refused_late), (0, 1));
    });
}

#[test]
fn one_way_calls_that_run_are_finished_also_when_their_caller_is_gone() {
    watched(|| {
        let shop = Shop::start();
        let mut peer = Peer::open(shop.server.address());
        peer.send(&one_way(1, WorksClient::NOTE_LATER, 1));
        shop.blocks_until_it_runs(1);
        peer.reset();
        until("the connection is closed", || shop.counters().connections_closed == 1);
        shop.release();
        until("it has run", || shop.noted() == [1]);
        assert_eq!(shop.counters().handlers_stopped, 0);
    });
}

#[test]
fn one_way_calls_wait_for_room_in_the_send_buffer() {
    const LEN: usize = 64 * 1024;
    watched(|| {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (read, may_read) = channel();
        let server = thread::spawn(move || {
            let mut peer = Peer::serve(&listener, WorksClient::METHODS);
            let made: u64 = may_read.recv().unwrap();
            for number in 1..=made {
                let frame = peer.frame();
                assert_eq!((frame.kind, frame.call), (ONEWAY, number));
                assert_eq!(frame.body, archive(&Job::long(number, LEN)));
            }
            peer.expect_end();
        });
        run(async {
            let works = WorksClient::connect(address).await.unwrap();
            let noted = Noted::new();
            let mut number = 0;
            // Until neither the kernel nor the connection takes any more.
            let waiting = loop {
                number += 1;
                assert!(number < 10_000, "nothing bounds what waits to be sent");
                let works = works.clone();
                let mut call = Box::pin(async move { works.note(&Job::long(number, LEN)).await });
                if noted.poll(call.as_mut()).is_ready() {
                    ringcall::yield_now().await;
                    continue;
                }
                break call;
            };
            read.send(number).unwrap();
            background(waiting).await.unwrap();
        });
        server.join().unwrap();
    });
}

#[test]
fn a_one_way_call_on_a_closed_connection_says_so() {
    watched(|| {
        let shop = Shop::start();
        run(async {
            let works = shop.connect().await;
            shop.server.stop();
            until_async("it is closed", || !works.client().is_open()).await;
            let failed = works.note(&Job::new(1)).await.unwrap_err();
            assert_eq!(failed.code(), Code::Unavailable);
            assert!(failed.is_not_executed());
        });
    });
}

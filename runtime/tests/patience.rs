//! Patience: no side waits for ever for what its peer owes it, and none is hurried that does its
//! part.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod support;

use std::{net::TcpListener, thread, time::Duration};

use ringcall::{Code, RunConfig, ShardConfig};
use support::{
    echo::{Blob, EchoClient},
    event::{Noted, background},
    host::Host,
    raw::{
        CANCEL, Frame, GOAWAY, PING, PONG, Peer, archive, call, draining, goaway, hello, plain,
        reply, request,
    },
    station::run,
    wait::{until, until_async, watched},
    works::{Done, Job, LONG, SHORT, Shop, WorksClient},
};

const LATE: Code = Code::DeadlineExceeded;

/// As soon as a peer can be asked for a sign of life.
const SOON: Duration = Duration::from_millis(100);

/// So many bytes a second that only the time without them counts.
const FAST: u64 = 1 << 40;

#[test]
fn a_peer_that_says_no_hello_is_told_so() {
    watched(|| {
        let host = Host::with(ShardConfig::new().hello_timeout(SOON));
        let hello = hello().bytes();
        // Nothing at all, and a part of one.
        for len in [0, 1, 31, 32, hello.len() - 1] {
            let before = host.counters();
            let mut peer = Peer::connect(host.address());
            peer.send_bytes(&hello[..len]);
            peer.expect_hello();
            peer.expect_goaway(LATE, "no HELLO in time");
            peer.finish();
            let since = || host.counters().since(&before);
            until("it is closed", || since().connections_closed == 1);
            assert_eq!(since().protocol_errors, 1);
        }
        host.is_unharmed();
    });
}

#[test]
fn a_frame_that_begins_and_does_not_end_ends_its_connection() {
    watched(|| {
        let host = Host::with(ShardConfig::new().frame_timeout(SOON, FAST));
        let text = "a frame began and did not end in time";
        let small = request(call(0, 1), EchoClient::ECHO, &archive(&Blob::new(1, 400))).bytes();
        let large = request(call(0, 1), EchoClient::ECHO, &archive(&Blob::new(1, 400_000))).bytes();
        // In the header, behind it, in the body, and in one that no receive buffer holds.
        for begun in [&small[..1], &small[..31], &small[..32], &small[..100]] {
            host.refuses(begun, LATE, text);
        }
        for begun in [&large[..32], &large[..20_000], &large[..large.len() - 1]] {
            host.refuses(begun, LATE, text);
        }
        // Behind a call that was whole.
        let mut peer = Peer::open(host.address());
        peer.send_bytes(&[&small[..], &small[..40]].concat());
        assert_eq!(peer.frame().code, 0);
        peer.expect_goaway(LATE, text);
    });
}

#[test]
fn a_frame_that_comes_byte_by_byte_does_not_have_more_time_for_that() {
    watched(|| {
        let host = Host::with(ShardConfig::new().frame_timeout(SOON, FAST));
        let mut peer = Peer::open(host.address());
        let before = host.counters();
        let frame = request(call(0, 1), EchoClient::ECHO, &archive(&Blob::new(1, 15_000))).bytes();
        // A byte now and then, each of which is a sign of life.
        for byte in frame {
            peer.send_bytes(&[byte]);
            if host.counters().since(&before).protocol_errors > 0 {
                peer.expect_goaway(LATE, "a frame began and did not end in time");
                return;
            }
            thread::sleep(Duration::from_millis(1));
        }
        panic!("it had all the time that it wanted");
    });
}

#[test]
fn the_time_of_a_frame_grows_with_its_length() {
    watched(|| {
        // A byte a second: years for the one, and a moment for the other.
        let host = Host::with(ShardConfig::new().frame_timeout(SOON, 1));
        let long = request(call(0, 1), EchoClient::DIGEST, &archive(&Blob::new(1, 50_000))).bytes();
        let mut slow = Peer::open(host.address());
        slow.send_bytes(&long[..40]);
        host.refuses(&long[..20], LATE, "a frame began and did not end in time");
        slow.send_bytes(&long[40..]);
        assert_eq!(slow.frame().code, 0);
    });
}

#[test]
fn a_peer_that_is_silent_is_asked_and_then_given_up() {
    watched(|| {
        let host = Host::with(ShardConfig::new().keepalive(SOON, SHORT));
        let mut peer = Peer::open(host.address());
        let before = host.counters();
        assert_eq!(peer.frame(), plain(PING, 1));
        peer.expect_goaway(LATE, "the peer gives no sign of life");
        peer.finish();
        let since = || host.counters().since(&before);
        until("it is closed", || since().connections_closed == 1);
        assert_eq!((since().protocol_errors, since().pings_answered), (1, 0));
        host.is_unharmed();
    });
}

#[test]
fn a_silent_peer_that_answers_when_it_is_asked_is_kept() {
    watched(|| {
        let shop = Shop::with(ShardConfig::new().keepalive(SOON, LONG));
        let mut peer = Peer::open(shop.server.address());
        for number in 1..=5 {
            assert_eq!(peer.frame(), plain(PING, number));
            peer.send(&plain(PONG, number));
            until("it is counted", || shop.counters().pings_answered == number);
        }
        let round_trips = shop.server.ping_round_trips();
        assert_eq!(round_trips[0].iter().sum::<u64>(), 5);
        peer.send(&request(call(0, 1), WorksClient::ADD, &archive(&Job::new(1))));
        assert_eq!(peer.frame(), reply(call(0, 1), &archive(&Done { number: 2 })));
    });
}

#[test]
fn whatever_comes_is_a_sign_of_life() {
    watched(|| {
        let shop = Shop::with(ShardConfig::new().keepalive(SOON, LONG));
        let mut peer = Peer::open(shop.server.address());
        assert_eq!(peer.frame(), plain(PING, 1));
        // Not the answer, and as good.
        peer.send(&plain(CANCEL, call(0, 1)));
        // Asked again after the silence that follows, and not given up.
        assert_eq!(peer.frame(), plain(PING, 2));
        peer.send(&plain(PONG, 77));
        assert_eq!(peer.frame(), plain(PING, 3));
        assert_eq!(shop.counters().protocol_errors, 0);
    });
}

#[test]
fn a_handler_whose_caller_is_gone_without_a_word_is_dropped() {
    watched(|| {
        let shop = Shop::with(ShardConfig::new().keepalive(SOON, SHORT));
        let mut peer = Peer::open(shop.server.address());
        peer.send(&request(call(0, 1), WorksClient::HOLD, &archive(&Job::new(1))));
        shop.blocks_until_it_runs(1);
        // To the server it looks as one that sends no more.
        drop(peer);
        shop.blocks_until_it_runs(0);
        until("its connection is closed", || shop.counters().connections_closed == 1);
        assert_eq!((shop.finished(), shop.counters().handlers_stopped), (0, 1));
    });
}

#[test]
fn a_ping_is_answered_at_once_and_behind_what_was_before() {
    watched(|| {
        let shop = Shop::start();
        let mut peer = Peer::open(shop.server.address());
        peer.send(&request(call(0, 1), WorksClient::HOLD, &archive(&Job::new(1))));
        peer.send(&request(call(1, 1), WorksClient::ADD, &archive(&Job::new(1))));
        for number in [7, 0, u64::MAX, 7] {
            peer.send(&plain(PING, number));
        }
        assert_eq!(peer.frame().call, call(1, 1));
        for number in [7, 0, u64::MAX, 7] {
            assert_eq!(peer.frame(), plain(PONG, number));
        }
    });
}

#[test]
fn a_peer_that_asks_all_the_time_is_refused() {
    watched(|| {
        let host = Host::start();
        let before = host.counters();
        let mut peer = Peer::open(host.address());
        // More than enough for a second, all at once.
        peer.send_bytes(&plain(PING, 1).bytes().repeat(2 * 100 + 1));
        let mut frame = peer.frame();
        let mut answered = 0;
        while frame == plain(PONG, 1) {
            answered += 1;
            frame = peer.frame();
        }
        assert!(answered >= 100, "{answered} were answered");
        let told = goaway(Code::ResourceExhausted, "too many PING frames within a second");
        assert_eq!(frame, told);
        assert_eq!(host.counters().since(&before).protocol_errors, 1);
        host.is_unharmed();
    });
}

/// Answers the PING that follows the announcement of a drain.
#[track_caller]
fn answer_ping(peer: &mut Peer) {
    let ping = peer.frame();
    assert_eq!(ping, Frame { call: ping.call, ..plain(PING, 0) });
    peer.send(&plain(PONG, ping.call));
}

#[test]
fn a_connection_without_calls_is_drained_and_closed() {
    watched(|| {
        let shop = Shop::with(ShardConfig::new().idle_timeout(SOON));
        let mut peer = Peer::open(shop.server.address());
        assert_eq!(peer.frame(), draining(Code::Unavailable, "the connection is idle"));
        answer_ping(&mut peer);
        peer.expect_goaway(Code::Unavailable, "every call has ended");
        assert_eq!(shop.counters().protocol_errors, 0);
    });
}

#[test]
fn a_connection_with_a_call_is_not_idle() {
    watched(|| {
        let shop = Shop::with(ShardConfig::new().idle_timeout(SOON));
        let mut busy = Peer::open(shop.server.address());
        busy.send(&request(call(0, 1), WorksClient::HOLD, &archive(&Job::new(1))));
        shop.blocks_until_it_runs(1);
        // Another, which came later, is drained before.
        let mut idle = Peer::open(shop.server.address());
        assert_eq!(idle.frame(), draining(Code::Unavailable, "the connection is idle"));
        shop.release();
        assert_eq!(busy.frame(), reply(call(0, 1), &archive(&Done { number: 2 })));
        assert_eq!(busy.frame(), draining(Code::Unavailable, "the connection is idle"));
    });
}

#[test]
fn a_connection_that_is_old_is_drained_and_its_calls_answered() {
    watched(|| {
        let shop = Shop::with(ShardConfig::new().age_max(SOON, 50));
        let mut peer = Peer::open(shop.server.address());
        peer.send(&request(call(0, 1), WorksClient::HOLD, &archive(&Job::new(1))));
        shop.blocks_until_it_runs(1);
        assert_eq!(peer.frame(), draining(Code::Unavailable, "the connection is old"));
        answer_ping(&mut peer);
        // What still comes is refused.
        peer.send(&request(call(1, 1), WorksClient::ADD, &archive(&Job::new(1))));
        let text = "the connection takes no more calls";
        peer.frame().assert_refusal(call(1, 1), Code::Unavailable, text);
        shop.release();
        assert_eq!(peer.frame(), reply(call(0, 1), &archive(&Done { number: 2 })));
        peer.expect_goaway(Code::Unavailable, "every call has ended");
        let counters = shop.counters();
        assert_eq!((counters.calls_refused_drain, counters.calls_cut), (1, 0));
    });
}

#[test]
fn a_client_whose_connection_is_drained_finishes_its_calls_and_makes_no_more() {
    watched(|| {
        // Longer than a sleeping shard is let sleep, and than the call may take to be there.
        let shop = Shop::with(ShardConfig::new().age_max(10 * SOON, 0));
        run(async {
            let works = shop.connect().await;
            let holding = works.clone();
            let held = background(async move {
                holding.hold(&Job::new(1)).await.map(|done| done.number.to_native())
            });
            until_async("no more calls are taken", || !works.client().is_open()).await;
            let late = works.add(&Job::new(1)).await.err().unwrap();
            assert_eq!(late.code(), Code::Unavailable);
            assert!(late.is_not_executed());
            shop.connect().await.open(&Job::new(0)).await.unwrap();
            assert_eq!(held.await, Ok(2));
        });
        assert_eq!(shop.counters().calls_cut, 0);
    });
}

#[test]
fn a_client_gives_a_silent_server_up() {
    watched(|| {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let server = thread::spawn(move || {
            let mut peer = Peer::serve(&listener, WorksClient::METHODS);
            assert_eq!(peer.frame().code, WorksClient::HOLD);
            assert_eq!(peer.frame(), plain(PING, 1));
            let told = peer.frame();
            assert_eq!((told.kind, told.code), (GOAWAY, LATE as u32));
            peer.expect_end();
        });
        let config = RunConfig::new().shard(ShardConfig::new().keepalive(SOON, SHORT));
        let ran = config.run(async {
            let works = WorksClient::connect(address).await.unwrap();
            let (job, noted) = (Job::new(1), Noted::new());
            let mut held = Box::pin(works.hold(&job));
            noted.begin(held.as_mut());
            let failed = held.await.err().unwrap();
            // The server may come back, and the call be made again.
            assert_eq!(failed.code(), Code::Unavailable, "{failed}");
            assert_eq!(failed.message(), "the peer gives no sign of life");
            assert!(!works.client().is_open());
            until_async("the server is done", || server.is_finished()).await;
        });
        ran.unwrap();
        server.join().unwrap();
    });
}

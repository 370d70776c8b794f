//! Streams go no faster than they are taken, and who does not take holds nobody else up.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod support;

use std::rc::Rc;

use ringcall::ShardConfig;
use support::{
    event::background,
    feed::{FULL, NONE, Number, Part, Range, with_client, with_shards},
    wait::{all, until_async},
};

/// A shard with so small windows, in bytes.
fn windows(stream: u32, connection: u32) -> ShardConfig {
    ShardConfig::new().stream_windows(stream, connection)
}

#[test]
fn a_slow_taker_stops_its_sender_at_the_window_and_not_its_neighbours() {
    with_client(async |client, watch| {
        let (slow, quick) = (1_000_000, 0);
        let range = Range { from: slow, to: slow + 10 * FULL };
        let mut numbers = client.count(&range).await.unwrap();
        until_async("the window is full", || watch.sent(slow) == FULL).await;
        let range = Range { from: quick, to: 50 * FULL };
        let neighbour = client.count(&range).await.unwrap();
        assert_eq!(neighbour.finish().await.unwrap().number, 50 * FULL);
        assert_eq!(watch.sent(slow), FULL);
        for number in slow..slow + 10 * FULL {
            assert_eq!(numbers.next().await.unwrap().unwrap().number, number);
        }
        assert_eq!(numbers.finish().await.unwrap().number, 10 * FULL);
    });
}

#[test]
fn a_slow_handler_stops_its_caller_at_the_window_and_not_its_neighbours() {
    with_client(async |client, _| {
        let slow = client.sum_later(&NONE).await.unwrap();
        let mut sent = 0;
        while slow.try_send(&Number { number: 1 }).unwrap() {
            sent += 1;
        }
        assert_eq!(sent, FULL);
        let quick = client.sum(&NONE).await.unwrap();
        for _ in 0..50 * FULL {
            quick.send(&Number { number: 1 }).await.unwrap();
        }
        assert_eq!(quick.finish().await.unwrap().number, 50 * FULL);
        assert!(!slow.try_send(&Number { number: 1 }).unwrap());
        client.open(&NONE).await.unwrap();
        for _ in 0..FULL {
            slow.send(&Number { number: 1 }).await.unwrap();
        }
        assert_eq!(slow.finish().await.unwrap().number, 2 * FULL);
    });
}

#[test]
fn each_end_says_how_long_its_windows_are() {
    let (server, client) = (windows(4_096, 1 << 20), windows(8_192, 1 << 20));
    with_shards(server, client, async |client, watch| {
        let up = client.sum_later(&NONE).await.unwrap();
        let mut sent = 0;
        while up.try_send(&Number { number: 1 }).unwrap() {
            sent += 1;
        }
        assert_eq!(sent, 4_096 / 256);
        let _down = client.count(&Range { from: 7, to: 1_000 }).await.unwrap();
        until_async("the window is full", || watch.sent(7) == 8_192 / 256).await;
        client.open(&NONE).await.unwrap();
        assert_eq!(watch.sent(7), 8_192 / 256);
    });
}

#[test]
fn streams_that_wait_for_the_credit_of_the_connection_go_on_when_it_is_there() {
    let config = windows(64 << 10, 64 << 10);
    with_shards(config.clone(), config, async |client, watch| {
        let slow = client.count(&Range { from: 1, to: 1_000 }).await.unwrap();
        until_async("one stream has all of the credit", || watch.sent(1) == 256).await;
        let others = (0..100).map(async |at| {
            let from = 10_000 * (at + 1);
            let numbers = client.count(&Range { from, to: from + 100 }).await.unwrap();
            numbers.finish().await.unwrap().number.to_native()
        });
        let mut slow = Some(slow);
        let sum = async {
            until_async("the others run", || watch.running() == 101).await;
            assert!((1..=100).all(|at| watch.sent(10_000 * at) == 0));
            slow = None;
        };
        let (counts, ()) = both(all(others), sum).await;
        assert_eq!(counts, [100; 100]);
    });
}

/// Awaits two futures at once.
async fn both<A: Future, B: Future>(a: A, b: B) -> (A::Output, B::Output) {
    let (mut a, mut b) = (std::pin::pin!(a), std::pin::pin!(b));
    let (mut from_a, mut from_b) = (None, None);
    std::future::poll_fn(|cx| {
        use std::task::Poll;
        if from_a.is_none()
            && let Poll::Ready(output) = a.as_mut().poll(cx)
        {
            from_a = Some(output);
        }
        if from_b.is_none()
            && let Poll::Ready(output) = b.as_mut().poll(cx)
        {
            from_b = Some(output);
        }
        match (&from_a, &from_b) {
            (Some(_), Some(_)) => Poll::Ready(()),
            _ => Poll::Pending,
        }
    })
    .await;
    (from_a.unwrap(), from_b.unwrap())
}

#[test]
fn several_tasks_that_send_on_one_stream_all_go_on_when_there_is_credit() {
    with_client(async |client, _| {
        let numbers = client.sum_later(&NONE).await.unwrap();
        while numbers.try_send(&Number { number: 1 }).unwrap() {}
        let tasks: Vec<_> = (0..10)
            .map(|_| {
                let sender = numbers.sender();
                background(async move {
                    for _ in 0..FULL {
                        sender.send(&Number { number: 1 }).await.unwrap();
                    }
                })
            })
            .collect();
        client.open(&NONE).await.unwrap();
        for task in tasks {
            task.await;
        }
        assert_eq!(numbers.finish().await.unwrap().number, 11 * FULL);
    });
}

#[test]
fn a_send_that_is_dropped_while_it_waits_sends_nothing_and_leaves_the_stream_as_it_was() {
    with_client(async |client, _| {
        let numbers = client.sum_later(&NONE).await.unwrap();
        while numbers.try_send(&Number { number: 1 }).unwrap() {}
        for _ in 0..10 {
            let item = Number { number: 1_000_000 };
            let mut send = std::pin::pin!(numbers.send(&item));
            support::event::Noted::new().begin(send.as_mut());
        }
        client.open(&NONE).await.unwrap();
        numbers.send(&Number { number: 5 }).await.unwrap();
        assert_eq!(numbers.finish().await.unwrap().number, FULL + 5);
    });
}

#[test]
fn no_credit_is_lost_by_streams_that_are_dropped_with_items_on_their_way() {
    // What one stream holds is all that there is.
    let config = windows(64 << 10, 64 << 10);
    with_shards(config.clone(), config, async |client, watch| {
        for round in 0..1_000 {
            let mut numbers = client.count(&Range { from: round, to: round + 500 }).await.unwrap();
            let up = client.sum(&NONE).await.unwrap();
            while up.try_send(&Number { number: 1 }).unwrap() {}
            // At most as many as there is credit for without taking any more.
            for _ in 0..round % 100 {
                numbers.next().await.unwrap().unwrap();
            }
        }
        let range = Range { from: 1_000_000, to: 1_100_000 };
        let numbers = client.count(&range).await.unwrap();
        assert_eq!(numbers.finish().await.unwrap().number, 100_000);
        let numbers = client.sum(&NONE).await.unwrap();
        for _ in 0..100_000 {
            numbers.send(&Number { number: 1 }).await.unwrap();
        }
        assert_eq!(numbers.finish().await.unwrap().number, 100_000);
        until_async("every handler has stopped", || watch.running() == 0).await;
    });
}

#[test]
fn items_that_lie_at_the_client_when_the_reply_comes_hold_their_credit() {
    let config = windows(64 << 10, 64 << 10);
    with_shards(config.clone(), config, async |client, watch| {
        // It has its reply, and nobody looks.
        let mut first = client.count(&Range { from: 1, to: 201 }).await.unwrap();
        until_async("all are sent", || watch.sent(1) == 200 && watch.running() == 0).await;
        let second = client.count(&Range { from: 1_000, to: 1_500 }).await.unwrap();
        until_async("what is left of the credit is used", || watch.sent(1_000) == 56).await;
        for _ in 0..10 {
            client.open(&NONE).await.unwrap();
        }
        assert_eq!(watch.sent(1_000), 56, "the first stream's items lie here still");
        for number in 1..201 {
            assert_eq!(first.next().await.unwrap().unwrap().number, number);
        }
        assert_eq!(second.finish().await.unwrap().number, 500);
        assert_eq!(first.finish().await.unwrap().number, 200);
    });
}

#[test]
fn large_items_stop_at_the_window_too() {
    with_client(async |client, _| {
        let echo = Rc::new(client.echo(&NONE).await.unwrap());
        // Sent beyond the credit once, and not again: the echo is not taken either.
        let mut sent = 0;
        let part = Part::new(1 << 20);
        let sending = {
            let echo = Rc::clone(&echo);
            background(async move { while echo.send(&Part::new(1 << 20)).await.is_ok() {} })
        };
        for _ in 0..100 {
            client.open(&NONE).await.unwrap();
            sent += usize::from(echo.try_send(&part).unwrap());
        }
        assert!(sent <= 3, "{sent} of {} bytes each", part.bytes.len());
        assert!(!sending.is_done());
    });
}

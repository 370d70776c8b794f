//! Streams: items travel in both directions while a call runs, in order, and are read in place.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod support;

use ringcall::{Code, is_in_receive_pool};
use support::{
    event::background,
    feed::{FULL, NONE, Number, Part, Range, THIRTEEN, with_client},
    wait::{all, until_async},
};

#[test]
fn items_of_a_server_come_in_order_and_then_the_reply() {
    with_client(async |client, _| {
        for len in [0, 1, 1_000, 100_000] {
            let range = Range { from: 7, to: 7 + len };
            let mut numbers = client.count(&range).await.unwrap();
            let mut expected = 7;
            while let Some(item) = numbers.next().await.unwrap() {
                assert_eq!(item.number, expected);
                expected += 1;
            }
            assert_eq!(expected, 7 + len);
            assert_eq!(numbers.finish().await.unwrap().number, len);
        }
    });
}

#[test]
fn items_of_a_client_arrive_in_order() {
    with_client(async |client, _| {
        let numbers = client.sum(&NONE).await.unwrap();
        for number in 0..100_000 {
            numbers.send(&Number { number }).await.unwrap();
        }
        assert_eq!(numbers.finish().await.unwrap().number, 4_999_950_000);
    });
}

#[test]
fn items_of_any_length_travel_both_ways() {
    with_client(async |client, _| {
        let mut echo = client.echo(&NONE).await.unwrap();
        for len in [0, 1, 100, 16_000, 100_000, 1 << 20, 3 << 20, 5] {
            let part = Part::new(len);
            echo.send(&part).await.unwrap();
            let back = echo.next().await.unwrap().unwrap();
            assert_eq!(back.bytes.as_slice(), part.bytes);
        }
        assert_eq!(echo.finish().await.unwrap().number, 8);
    });
}

#[test]
fn a_stream_that_fails_gives_its_items_and_then_the_status() {
    with_client(async |client, _| {
        let mut numbers = client.count(&Range { from: 10, to: THIRTEEN }).await.unwrap();
        for expected in 10..THIRTEEN {
            assert_eq!(numbers.next().await.unwrap().unwrap().number, expected);
        }
        let status = numbers.next().await.err().unwrap();
        assert_eq!((status.code(), status.message()), (Code::OutOfRange, "thirteen"));
        // Nothing follows it.
        assert!(numbers.next().await.unwrap().is_none());
        assert_eq!(numbers.finish().await.err().unwrap().code(), Code::Internal);
    });
}

#[test]
fn both_sides_send_at_once_more_than_their_windows() {
    with_client(async |client, _| {
        let mut echo = client.echo(&NONE).await.unwrap();
        let sender = echo.sender();
        let count = 20 * FULL;
        let sending = background(async move {
            for len in 0..count {
                sender.send(&Part::new(len as usize % 300)).await.unwrap();
            }
            sender.end();
        });
        for len in 0..count {
            let part = echo.next().await.unwrap().unwrap();
            assert_eq!(part.bytes.len() as u64, len % 300);
        }
        sending.await;
        assert!(echo.next().await.unwrap().is_none());
        assert_eq!(echo.finish().await.unwrap().number, count);
    });
}

#[test]
fn a_thousand_streams_run_at_once_on_one_connection() {
    with_client(async |client, watch| {
        let streams = all((0..1_000).map(|_| async { client.echo(&NONE).await.unwrap() })).await;
        until_async("all of them run", || watch.running() == 1_000).await;
        let exchange = streams.into_iter().enumerate().map(async |(at, mut stream)| {
            for round in 0..10 {
                let len = (at * 31 + round * 7) % 1_500;
                stream.send(&Part::new(len)).await.unwrap();
                let part = stream.next().await.unwrap().unwrap();
                assert_eq!(part.bytes.as_slice(), Part::new(len).bytes);
            }
            stream.finish().await.unwrap().number.to_native()
        });
        assert!(all(exchange).await.into_iter().all(|count| count == 10));
        assert_eq!(watch.running(), 0);
    });
}

#[test]
fn items_are_read_in_place_at_both_ends() {
    with_client(async |client, _| {
        let mut looks = client.look(&NONE).await.unwrap();
        for len in [1, 64, 4_000, 15_000] {
            looks.send(&Part::new(len)).await.unwrap();
            let seen = looks.next().await.unwrap().unwrap();
            assert_eq!(seen.number, 1, "an item of {len} bytes was copied at the server");
            assert!(is_in_receive_pool(&*seen), "its answer was copied at the client");
        }
        // The last item was held to the end.
        assert_eq!(looks.finish().await.unwrap().number, 1);
    });
}

#[test]
fn what_is_kept_of_an_item_stays_as_it_came() {
    with_client(async |client, _| {
        let count = 2 * FULL;
        let mut numbers = client.count(&Range { from: 0, to: count }).await.unwrap();
        let mut kept = Vec::new();
        while let Some(item) = numbers.next().await.unwrap() {
            kept.push(item);
        }
        numbers.finish().await.unwrap();
        let again = client.count(&Range { from: 5, to: 5 + count }).await.unwrap();
        again.finish().await.unwrap();
        for (item, number) in kept.iter().zip(0..) {
            assert_eq!(item.number, number);
        }
        assert_eq!(kept.len() as u64, count);
    });
}

//! How streams end: given up, answered early, too late, or with their connection. Who waits finds
//! out, at both ends, and nobody takes a part of the items for all of them.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod support;

use std::{pin::pin, rc::Rc, sync::Arc, task::Poll, time::Duration};

use ringcall::{Code, RunConfig};
use support::{
    event::{Noted, background},
    feed::{
        FULL, FeedClient, FeedServer, Feeder, NONE, Number, Range, Watch, with_client, with_shards,
    },
    server::one_shard,
    wait::{until_async, watched},
};

const FAR: Range = Range { from: 0, to: u64::MAX };

const ONE: Number = Number { number: 1 };

/// Calls again on the connection, so that what came before was handled at both ends.
async fn settle(client: &FeedClient) {
    for _ in 0..3 {
        client.open(&NONE).await.unwrap();
    }
}

#[test]
fn a_stream_that_is_dropped_stops_its_handler_wherever_that_waits() {
    with_client(async |client, watch| {
        // For credit, for an item, and for the gate.
        let count = client.count(&FAR).await.unwrap();
        let sum = client.sum(&NONE).await.unwrap();
        let ignore = client.ignore(&NONE).await.unwrap();
        until_async("all three wait", || watch.running() == 3 && watch.sent(0) == FULL).await;
        for _ in 0..10 {
            sum.send(&ONE).await.unwrap();
        }
        drop((count, sum, ignore));
        until_async("their handlers have stopped", || watch.running() == 0).await;
        settle(&client).await;
        assert_eq!(watch.sent(0), FULL);
    });
}

#[test]
fn a_stream_that_was_not_opened_sends_nothing() {
    with_client(async |client, watch| {
        drop(client.count(&FAR));
        settle(&client).await;
        assert_eq!((watch.running(), watch.sent(0)), (0, 0));
    });
}

#[test]
fn a_stream_can_be_finished_without_taking_its_items() {
    with_client(async |client, _| {
        for taken in [0, 1, 100] {
            let mut numbers = client.count(&Range { from: 0, to: 10 * FULL }).await.unwrap();
            for _ in 0..taken {
                numbers.next().await.unwrap().unwrap();
            }
            assert_eq!(numbers.finish().await.unwrap().number, 10 * FULL);
        }
    });
}

#[test]
fn sending_ends_when_the_server_has_replied() {
    with_client(async |client, _| {
        let numbers = client.ignore(&NONE).await.unwrap();
        while numbers.try_send(&ONE).unwrap() {}
        client.open(&NONE).await.unwrap();
        // It waits for credit, of which there will be none.
        let status = numbers.send(&ONE).await.unwrap_err();
        assert_eq!(status.code(), Code::Cancelled);
        assert_eq!(numbers.try_send(&ONE).unwrap_err().code(), Code::Cancelled);
        numbers.end();
        assert_eq!(numbers.finish().await.unwrap().number, 0);
    });
}

#[test]
fn a_task_that_did_not_open_the_stream_finds_out_that_it_has_ended() {
    with_client(async |client, _| {
        let numbers = client.ignore(&NONE).await.unwrap();
        while numbers.try_send(&ONE).unwrap() {}
        let sender = numbers.sender();
        let sending = background(async move { sender.send(&ONE).await });
        settle(&client).await;
        assert_eq!(sending.await.unwrap_err().code(), Code::Cancelled);
        numbers.finish().await.unwrap();
    });
}

#[test]
fn a_sender_beside_a_stream_finds_out_that_it_was_dropped() {
    with_client(async |client, _| {
        let numbers = client.sum_later(&NONE).await.unwrap();
        while numbers.try_send(&ONE).unwrap() {}
        let sender = numbers.sender();
        let sending = background(async move { sender.send(&ONE).await });
        ringcall::yield_now().await;
        assert!(!sending.is_done());
        drop(numbers);
        assert_eq!(sending.await.unwrap_err().code(), Code::Cancelled);
    });
}

#[test]
fn a_stream_whose_time_is_up_gives_its_items_and_then_says_so() {
    with_client(async |client, watch| {
        let timeout = Duration::from_millis(20);
        let mut numbers = client.count(&FAR).timeout(timeout).await.unwrap();
        until_async("its handler was stopped", || watch.sent(0) > 0 && watch.running() == 0).await;
        let mut came = 0;
        let status = loop {
            match numbers.next().await {
                Ok(Some(item)) => assert_eq!(item.number, came),
                Ok(None) => panic!("it has no reply"),
                Err(status) => break status,
            }
            came += 1;
        };
        assert_eq!(status.code(), Code::DeadlineExceeded);
        assert!(came <= FULL, "{came} came");
        drop(numbers);
        let sum = client.sum(&NONE).await.unwrap();
        sum.send(&ONE).await.unwrap();
        assert_eq!(sum.finish().await.unwrap().number, 1);
    });
}

#[test]
fn who_waits_to_send_is_told_when_the_time_is_up() {
    with_client(async |client, _| {
        let timeout = Duration::from_millis(20);
        let numbers = client.ignore(&NONE).timeout(timeout).await.unwrap();
        while numbers.try_send(&ONE).unwrap() {}
        let sender = numbers.sender();
        let sending = background(async move { sender.send(&ONE).await });
        assert_eq!(sending.await.unwrap_err().code(), Code::Cancelled);
        assert_eq!(numbers.finish().await.err().unwrap().code(), Code::DeadlineExceeded);
    });
}

#[test]
fn a_stream_that_nobody_looked_at_since_its_time_was_up_takes_no_other_calls_outcome() {
    with_client(async |client, watch| {
        let timeout = Duration::from_millis(5);
        let noted = Noted::new();
        let mut late = client.count(&FAR).timeout(timeout).await.unwrap();
        let mut late_call = pin!(client.count(&FAR).timeout(timeout).await.unwrap().finish());
        noted.begin(late_call.as_mut());
        until_async("its handler was stopped", || watch.sent(0) > 0 && watch.running() == 0).await;
        settle(&client).await;
        // With slots of the calls above where those are free.
        let others: Vec<_> = [client.sum_later(&NONE).await, client.sum_later(&NONE).await]
            .into_iter()
            .map(|stream| background(async move { stream.unwrap().finish().await.unwrap().number }))
            .collect();
        until_async("they wait", || watch.running() == 2).await;
        while let Ok(item) = late.next().await {
            assert!(item.is_some(), "it has no reply");
        }
        let Poll::Ready(Err(status)) = noted.poll(late_call.as_mut()) else {
            panic!("it has no reply");
        };
        assert_eq!(status.code(), Code::DeadlineExceeded);
        assert!(others.iter().all(|other| !other.is_done()));
        client.open(&NONE).await.unwrap();
        for other in others {
            assert_eq!(other.await, 0);
        }
    });
}

#[test]
fn a_handler_that_is_not_cancelled_finds_out_that_its_items_were_cut_off() {
    with_client(async |client, watch| {
        let numbers = client.sum_always(&NONE).await.unwrap();
        numbers.send(&ONE).await.unwrap();
        until_async("it runs", || watch.running() == 1).await;
        drop(numbers);
        until_async("it has ended", || watch.running() == 0).await;
        assert_eq!(watch.cut.lock().unwrap()[..].len(), 1);
        // One whose items had ended is not disturbed.
        let numbers = client.sum_always(&NONE).await.unwrap();
        numbers.send(&ONE).await.unwrap();
        numbers.end();
        assert_eq!(numbers.finish().await.unwrap().number, 1);
        assert_eq!(watch.cut.lock().unwrap().len(), 1);
    });
}

#[test]
fn a_handler_that_is_not_cancelled_finds_out_that_its_connection_is_gone() {
    with_client(async |client, watch| {
        let numbers = client.sum_always(&NONE).await.unwrap();
        numbers.send(&ONE).await.unwrap();
        until_async("it runs", || watch.running() == 1).await;
        drop((numbers, client));
        until_async("it has ended", || watch.running() == 0).await;
        assert_eq!(watch.cut.lock().unwrap().len(), 1);
    });
}

#[test]
fn items_that_are_left_to_a_task_are_cut_off_by_the_reply() {
    with_client(async |client, watch| {
        let numbers = client.leave(&NONE).await.unwrap();
        assert_eq!(numbers.finish().await.unwrap().number, 0);
        until_async("the task was told", || watch.cut.lock().unwrap().len() == 1).await;
    });
}

#[test]
fn streams_end_with_a_server_that_stops() {
    watched(|| {
        let watch = Arc::<Watch>::default();
        let server = one_shard().serve("127.0.0.1:0", {
            let watch = Arc::clone(&watch);
            move |_| FeedServer::new(Feeder::new(&watch))
        });
        let server = server.unwrap();
        let address = server.address();
        let run = RunConfig::new().run(async {
            let client = FeedClient::connect(address).await.unwrap();
            let mut down = client.count(&FAR).await.unwrap();
            let up = Rc::new(client.ignore(&NONE).await.unwrap());
            until_async("they run", || watch.running() == 2 && watch.sent(0) == FULL).await;
            while up.try_send(&ONE).unwrap() {}
            let sending = {
                let up = Rc::clone(&up);
                background(async move { up.send(&ONE).await })
            };
            server.stop();
            server.join().unwrap();
            assert!(sending.await.is_err());
            // What came before is still there, and then it is said that it is not all.
            let mut came = 0;
            let status = loop {
                match down.next().await {
                    Ok(item) => assert_eq!(item.expect("it has no reply").number, came),
                    Err(status) => break status,
                }
                came += 1;
            };
            assert_eq!(status.code(), Code::Unavailable);
            assert!(came >= FULL, "{came}");
            assert_eq!(watch.running(), 0);
        });
        run.unwrap();
    });
}

#[test]
fn streams_end_with_a_client_that_is_gone() {
    with_client(async |client, watch| {
        let down = client.count(&FAR).await.unwrap();
        let up = client.sum(&NONE).await.unwrap();
        until_async("they run", || watch.running() == 2).await;
        drop((down, up, client));
        until_async("their handlers have stopped", || watch.running() == 0).await;
    });
}

#[test]
fn streams_that_are_dropped_at_any_point_leave_nothing_behind() {
    let config = ringcall::ShardConfig::new().calls_in_flight_max(8);
    with_shards(config.clone(), config, async |client, watch| {
        for round in 0_u64..2_000 {
            let range = Range { from: round, to: round + round % 40 };
            match round % 5 {
                0 => {
                    let mut numbers = client.count(&range).await.unwrap();
                    for _ in 0..round % 7 {
                        if numbers.next().await.unwrap().is_none() {
                            break;
                        }
                    }
                }
                1 => {
                    let numbers = client.sum(&range).await.unwrap();
                    for number in 0..round % 7 {
                        numbers.send(&Number { number }).await.unwrap();
                    }
                    if round % 2 == 0 {
                        numbers.end();
                    }
                }
                2 => {
                    // Dropped while it waits for its outcome.
                    let noted = Noted::new();
                    let numbers = client.count(&range).await.unwrap();
                    let mut finish = pin!(numbers.finish());
                    let _ = noted.poll(finish.as_mut());
                }
                3 => {
                    let noted = Noted::new();
                    let mut numbers = client.count(&range).await.unwrap();
                    let mut next = pin!(numbers.next());
                    let _ = noted.poll(next.as_mut());
                }
                _ => drop(client.leave(&range).await.unwrap()),
            }
        }
        until_async("every handler has stopped", || watch.running() == 0).await;
        // With all of the slots.
        let mut streams = Vec::new();
        for _ in 0..7 {
            streams.push(client.sum_later(&NONE).await.unwrap());
        }
        until_async("they run", || watch.running() == 7).await;
        settle(&client).await;
        for stream in streams {
            assert_eq!(stream.finish().await.unwrap().number, 0);
        }
    });
}

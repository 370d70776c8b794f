//! Many threads call through one handle at once: every call has its own outcome, whatever becomes
//! of its neighbours.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod support;

use std::{
    future::{Future, poll_fn},
    mem,
    pin::Pin,
    task::Poll,
    thread,
    time::Duration,
};

use ringcall::{HandleConfig, ShardConfig, prelude::*};
use support::{
    echo::{Blob, EchoSendClient},
    server::counters,
    wait::{block_on, until, watched_for},
};

const THREADS: u64 = 8;
const CALLS: u64 = 100_000;

/// Calls of one thread that are in flight at once.
const DEPTH: usize = 32;

/// Time after which such a test hangs.
const PATIENCE: Duration = Duration::from_secs(600);

/// Makes calls, so many at once, and gives each outcome to `check` with its number.
async fn calls<F: Future>(
    count: u64,
    mut call: impl FnMut(u64) -> F,
    mut check: impl FnMut(u64, F::Output),
) {
    let mut made = 0;
    let mut running: Vec<(u64, Pin<Box<F>>)> = Vec::new();
    poll_fn(|cx| {
        loop {
            while running.len() < DEPTH && made < count {
                running.push((made, Box::pin(call(made))));
                made += 1;
            }
            let mut has_ended = false;
            for (number, mut future) in mem::take(&mut running) {
                match future.as_mut().poll(cx) {
                    Poll::Pending => running.push((number, future)),
                    Poll::Ready(outcome) => {
                        check(number, outcome);
                        has_ended = true;
                    }
                }
            }
            if !has_ended || made == count {
                break;
            }
        }
        if running.is_empty() { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
}

/// A few bytes that belong to this call alone.
fn blob(thread: u64, number: u64) -> Blob {
    Blob::new(thread << 32 | number, (number % 40) as usize)
}

#[test]
fn every_call_of_eight_threads_has_its_own_reply() {
    watched_for(PATIENCE, || {
        let server = support::echo::serve(ShardConfig::new());
        // Less room than the threads would like, so that they wait for it too.
        let handle = HandleConfig::new().calls_max(200).start().unwrap();
        let echo = block_on(EchoSendClient::connect(&handle, server.address())).unwrap();
        let threads: Vec<_> = (0..THREADS)
            .map(|thread| {
                let echo = echo.clone();
                thread::spawn(move || {
                    let mut answered = 0;
                    let call = |number| echo.echo(&blob(thread, number));
                    block_on(calls(CALLS, call, |number, outcome| {
                        let (reply, sent) = (outcome.unwrap(), blob(thread, number));
                        assert_eq!(u64::from(reply.id), sent.id);
                        assert_eq!(*reply.bytes, *sent.bytes);
                        answered += 1;
                    }));
                    answered
                })
            })
            .collect();
        let answered: u64 = threads.into_iter().map(|thread| thread.join().unwrap()).sum();
        assert_eq!(answered, THREADS * CALLS);
        let counters = handle.counters();
        assert_eq!((counters.calls_made, counters.replies_copied_out), (answered, answered));
    });
}

#[test]
fn calls_that_end_in_every_way_have_one_outcome_each() {
    const CALLS: u64 = 3000;
    watched_for(PATIENCE, || {
        let server = support::echo::serve(ShardConfig::new().calls_in_flight_max(64));
        let handle = HandleConfig::new().calls_max(150).start().unwrap();
        let echo = block_on(EchoSendClient::connect(&handle, server.address())).unwrap();
        let threads: Vec<_> = (0..THREADS)
            .map(|thread| {
                let echo = echo.clone();
                thread::spawn(move || {
                    let mut ended = 0;
                    let call = |number: u64| {
                        let (echo, sent) = (echo.clone(), blob(thread, number));
                        async move {
                            match number % 4 {
                                // Nobody releases it.
                                0 => {
                                    let held = echo.hold(&sent).timeout(Duration::from_millis(2));
                                    held.await.err().map(|status| status.code())
                                }
                                // Given up after one poll or two.
                                1 => {
                                    let mut call = echo.hold(&sent);
                                    let mut polls = number % 3;
                                    poll_fn(|cx| {
                                        assert!(Pin::new(&mut call).poll(cx).is_pending());
                                        polls = polls.saturating_sub(1);
                                        cx.waker().wake_by_ref();
                                        if polls == 0 { Poll::Ready(()) } else { Poll::Pending }
                                    })
                                    .await;
                                    None
                                }
                                _ => {
                                    let reply = echo.echo(&sent).await.unwrap();
                                    assert_eq!(u64::from(reply.id), sent.id);
                                    None
                                }
                            }
                        }
                    };
                    block_on(calls(CALLS, call, |number, outcome| {
                        let expected = (number % 4 == 0).then_some(Code::DeadlineExceeded);
                        assert_eq!(outcome, expected);
                        ended += 1;
                    }));
                    ended
                })
            })
            .collect();
        let ended: u64 = threads.into_iter().map(|thread| thread.join().unwrap()).sum();
        assert_eq!(ended, THREADS * CALLS);
        // Nothing is left over: there is room for all of it.
        until("no handler waits", || {
            let counters = counters(&server);
            counters.calls_spawned == counters.handlers_stopped
        });
        let after = calls(500, |number| echo.digest(&blob(0, number)), |_, it| drop(it.unwrap()));
        block_on(after);
    });
}

#[test]
fn each_call_has_an_outcome_when_the_handle_is_stopped_under_load() {
    watched_for(PATIENCE, || {
        let server = support::echo::serve(ShardConfig::new());
        for _ in 0..10 {
            let handle = HandleConfig::new().calls_max(100).start().unwrap();
            let echo = block_on(EchoSendClient::connect(&handle, server.address())).unwrap();
            let threads: Vec<_> = (0..THREADS)
                .map(|thread| {
                    let echo = echo.clone();
                    thread::spawn(move || {
                        let mut failed = 0;
                        while failed == 0 {
                            let call = |number| echo.echo(&blob(thread, number));
                            block_on(calls(100, call, |number, outcome| match outcome {
                                Ok(reply) => assert_eq!(u64::from(reply.id), thread << 32 | number),
                                Err(status) => {
                                    assert_eq!(status.code(), Code::Unavailable, "{status}");
                                    failed += 1;
                                }
                            }));
                        }
                    })
                })
                .collect();
            until("calls are made", || handle.counters().replies_copied_out > 1000);
            handle.join().unwrap();
            threads.into_iter().for_each(|thread| thread.join().unwrap());
        }
    });
}

//! Long operations by token: a table that belongs to no server, and all the ways they end.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod support;

use std::{
    cell::{Cell, RefCell},
    future::{pending, poll_fn},
    panic::resume_unwind,
    pin::pin,
    rc::Rc,
    sync::Arc,
    task::Poll,
    time::Duration,
};

use ringcall::{
    operations::{Operation, Operations, Progress, Token},
    prelude::*,
};
use support::{
    event::{Gate, Noted, background},
    wait::{all, until_async, watched},
};

/// Longer than any test takes.
const LONG: Duration = Duration::from_secs(1000);

/// A test of a table that belongs to no server.
fn on_a_shard(test: impl AsyncFn() + Send + 'static) {
    watched(move || ringcall::run(async { test().await }).unwrap());
}

/// Values that are there: tokens for it are its clones.
type Alive = Rc<()>;

fn others(alive: &Alive) -> usize {
    Rc::strong_count(alive) - 1
}

#[test]
fn a_result_is_shared_and_freed_when_it_is_forgotten() {
    on_a_shard(async || {
        let alive = Alive::default();
        let operations = Operations::<Alive>::new(0, 1, Duration::MAX);
        let result = Rc::clone(&alive);
        let token = operations.start(|_| async { Ok(result) }).unwrap();
        let first = operations.poll(token).unwrap().outcome().unwrap().unwrap();
        let second = operations.wait(token, Duration::MAX).await.unwrap();
        assert!(Rc::ptr_eq(&first, &second.outcome().unwrap().unwrap()));
        drop(first);
        assert_eq!(others(&alive), 1);
        operations.forget(token).unwrap();
        until_async("the result is freed", || others(&alive) == 0).await;
        assert!(operations.list().is_empty());
    });
}

#[test]
fn a_result_is_freed_when_its_time_is_over_though_nobody_asks() {
    on_a_shard(async || {
        let alive = Alive::default();
        let operations = Operations::<Alive>::new(0, 1, Duration::from_millis(1));
        let result = Rc::clone(&alive);
        operations.start(|_| async { Ok(result) }).unwrap();
        until_async("the result is freed", || others(&alive) == 0).await;
        assert!(operations.list().is_empty());
    });
}

#[test]
fn those_who_wait_get_a_result_that_is_not_kept() {
    on_a_shard(async || {
        let operations = Operations::<u64>::new(0, 1, Duration::ZERO);
        let gate = Gate::default();
        let opened = gate.clone();
        let work = |_: Operation| async move {
            opened.wait().await;
            Ok(7)
        };
        let token = operations.start(work).unwrap();
        let waiting: Vec<_> = (0..2)
            .map(|_| {
                let operations = operations.clone();
                background(async move { operations.wait(token, LONG).await })
            })
            .collect();
        gate.open();
        for progress in all(waiting).await {
            assert_eq!(*progress.unwrap().outcome().unwrap().unwrap(), 7);
        }
        until_async("it is gone", || operations.list().is_empty()).await;
        assert_eq!(operations.poll(token).unwrap_err().code(), Code::NotFound);
    });
}

#[test]
fn progress_is_what_was_reported_last() {
    #[derive(Clone, Copy, Debug, Default, PartialEq)]
    struct Copied {
        files: u64,
        bytes: u64,
    }

    on_a_shard(async || {
        let operations = Operations::<(), Copied>::new(0, 1, LONG);
        let gate = Gate::default();
        let opened = gate.clone();
        let token = operations.start(|operation| async move {
            for files in 1..4 {
                opened.wait().await;
                operation.report(Copied { files, bytes: 0 });
                operation.report(Copied { files, bytes: files * 100 });
            }
            pending().await
        });
        let token = token.unwrap();
        let reported = || match operations.poll(token).unwrap() {
            Progress::Running(copied) => copied,
            other => panic!("{other:?}"),
        };
        assert_eq!(reported(), Copied::default());
        for files in 1..4 {
            gate.open();
            until_async("it goes on", || reported().files == files).await;
            assert_eq!(reported(), Copied { files, bytes: files * 100 });
        }
    });
}

#[test]
fn a_wait_that_is_dropped_or_over_leaves_nothing_behind() {
    on_a_shard(async || {
        let operations = Operations::<()>::new(0, 1, LONG);
        let token = operations.start(|_| pending()).unwrap();
        let waker = Noted::new();
        {
            let mut waits =
                [Box::pin(operations.wait(token, LONG)), Box::pin(operations.wait(token, LONG))];
            for wait in &mut waits {
                waker.begin(wait.as_mut());
                waker.begin(wait.as_mut());
            }
            assert!(Arc::strong_count(&waker) > 1);
        }
        assert_eq!(Arc::strong_count(&waker), 1);
        let mut short = pin!(operations.wait(token, Duration::from_millis(1)));
        let over = poll_fn(|cx| short.as_mut().poll(cx)).await;
        assert!(matches!(over.unwrap(), Progress::Running(0)));
        operations.cancel(token).unwrap();
        assert!(!waker.take());
    });
}

#[test]
fn an_operation_is_polled_when_it_is_woken_and_not_otherwise() {
    on_a_shard(async || {
        let operations = Operations::<()>::new(0, 1, LONG);
        let polls = Rc::<Cell<u64>>::default();
        let counted = Rc::clone(&polls);
        let token = operations.start(|_| {
            poll_fn(move |_| {
                counted.set(counted.get() + 1);
                Poll::Pending
            })
        });
        for _ in 0..100 {
            operations.poll(token.clone().unwrap()).unwrap();
            ringcall::yield_now().await;
        }
        assert_eq!(polls.get(), 1);
    });
}

#[test]
fn an_operation_can_cancel_or_forget_itself() {
    on_a_shard(async || {
        let operations = Operations::<()>::new(0, 2, LONG);
        let alive = Alive::default();
        let run = |forgets: bool| {
            let (own, held) = (operations.clone(), Rc::clone(&alive));
            let run = move |operation: Operation| async move {
                let _held = held;
                let ended = match forgets {
                    true => own.forget(operation.token()),
                    false => own.cancel(operation.token()),
                };
                assert!(matches!(ended.unwrap(), Progress::Failed(_)));
                pending().await
            };
            operations.start(run).unwrap()
        };
        let cancelled = run(false);
        let status = operations.poll(cancelled).unwrap().outcome().unwrap().unwrap_err();
        assert_eq!(status.code(), Code::Cancelled);
        let forgotten = run(true);
        assert_eq!(operations.poll(forgotten).unwrap_err().code(), Code::NotFound);
        assert_eq!(others(&alive), 0);
        assert_eq!(operations.list().len(), 1);
    });
}

#[test]
fn an_operation_can_start_others_and_wait_for_them() {
    on_a_shard(async || {
        let operations = Operations::<u64>::new(0, 10, LONG);
        let own = operations.clone();
        let token = operations.start(|_| async move {
            let parts: Vec<_> = (0..5)
                .map(|part| {
                    own.start(move |_| async move {
                        ringcall::yield_now().await;
                        Ok(part)
                    })
                })
                .collect();
            let mut sum = 0;
            for part in parts {
                sum += *own.wait(part?, LONG).await?.outcome().unwrap()?;
            }
            Ok(sum)
        });
        let sum = operations.wait(token.unwrap(), LONG).await.unwrap();
        assert_eq!(*sum.outcome().unwrap().unwrap(), 10);
        assert_eq!(operations.list().len(), 6);
    });
}

/// Asks a table about an operation when it is dropped, and panics.
struct Asks(Operations<()>, Token, Rc<RefCell<Vec<String>>>);

impl Drop for Asks {
    fn drop(&mut self) {
        self.2.borrow_mut().push(format!("{:?}", self.0.poll(self.1).unwrap()));
        self.0.cancel(self.1).unwrap();
        resume_unwind(Box::new("on purpose"));
    }
}

#[test]
fn what_an_operation_does_when_it_is_dropped_hurts_nobody() {
    on_a_shard(async || {
        let operations = Operations::<()>::new(0, 2, LONG);
        let said = Rc::<RefCell<Vec<String>>>::default();
        let run = |goes_on: bool| {
            let (own, said) = (operations.clone(), Rc::clone(&said));
            let run = move |operation: Operation| async move {
                let _asks = Asks(own, operation.token(), said);
                if goes_on {
                    pending::<()>().await;
                }
                Ok(())
            };
            operations.start(run).unwrap()
        };
        let cancelled = run(true);
        operations.cancel(cancelled).unwrap();
        assert!(said.take()[0].contains("cancelled"));
        // In its last poll it still runs, and is cancelled there before it panics.
        let done = run(false);
        assert!(said.take()[0].contains("Running"));
        let status = operations.poll(done).unwrap().outcome().unwrap().unwrap_err();
        assert_eq!(status.code(), Code::Cancelled);
        assert_eq!(operations.list().len(), 2);
    });
}

#[test]
fn a_closure_that_panics_fails_its_operation() {
    on_a_shard(async || {
        fn work(_: Operation) -> std::future::Ready<Result<(), Status>> {
            resume_unwind(Box::new("on purpose"))
        }
        let operations = Operations::<()>::new(0, 1, LONG);
        let token = operations.start(work).unwrap();
        let status = operations.poll(token).unwrap().outcome().unwrap().unwrap_err();
        assert_eq!(status.code(), Code::Internal);
    });
}

#[test]
fn operations_end_with_the_last_clone_of_their_table() {
    on_a_shard(async || {
        let alive = Alive::default();
        let operations = Operations::<Alive>::new(0, 4, Duration::MAX);
        for _ in 0..2 {
            let (held, result) = (Rc::clone(&alive), Rc::clone(&alive));
            operations.start(|_| async move { Ok(result) }).unwrap();
            let stay = |_: Operation| async move {
                let _held = held;
                pending().await
            };
            operations.start(stay).unwrap();
        }
        let clone = operations.clone();
        drop(operations);
        assert_eq!(others(&alive), 4);
        drop(clone);
        until_async("all is freed", || others(&alive) == 0).await;
    });
}

#[test]
fn a_table_that_outlives_its_shard_is_empty() {
    watched(|| {
        let alive = Alive::default();
        let held = Rc::clone(&alive);
        let (operations, token) = ringcall::run(async {
            let operations = Operations::<()>::new(0, 1, LONG);
            let own = operations.clone();
            let token = operations.start(|_| async move {
                // A table in an operation of its own does not keep it.
                let _held = (own, held);
                pending().await
            });
            (operations, token.unwrap())
        })
        .unwrap();
        assert_eq!(others(&alive), 0);
        assert!(operations.list().is_empty());
        assert_eq!(operations.poll(token).unwrap_err().code(), Code::NotFound);
    });
}

#[test]
fn tokens_differ_in_every_bit_and_do_not_tell_their_secret() {
    on_a_shard(async || {
        let operations = Operations::<()>::new(3, 100, LONG);
        let mut tokens: Vec<_> =
            (0..100).map(|_| operations.start(|_| pending()).unwrap()).collect();
        assert!(tokens.iter().all(|token| token.shard == 3));
        // A bit that is the same in all of them would be so by chance once in 2^99 times.
        let differ = tokens.iter().fold(0, |bits, token| bits | token.secret ^ tokens[0].secret);
        assert_eq!(differ, u128::MAX);
        let secret = tokens[0].secret;
        let shown = format!("{:?}", tokens[0]);
        assert!(shown.contains("shard: 3"), "{shown}");
        assert!(!shown.contains(&secret.to_string()), "{shown}");
        let listed = operations.list();
        assert_eq!(listed.len(), 100);
        for (token, progress) in listed {
            assert!(matches!(progress, Progress::Running(0)));
            let at = tokens.iter().position(|other| *other == token).unwrap();
            tokens.swap_remove(at);
        }
        assert!(tokens.is_empty());
    });
}

#[test]
fn many_operations_leave_nothing_behind() {
    on_a_shard(async || {
        let alive = Alive::default();
        let operations = Operations::<Alive>::new(0, 16, Duration::from_millis(1));
        let (mut started, mut refused) = (0, 0);
        for number in 0..5000_u32 {
            let held = Rc::clone(&alive);
            let token = operations.start(move |operation| async move {
                for step in 0..number % 4 {
                    operation.report(step);
                    ringcall::yield_now().await;
                }
                match number % 7 {
                    0 => Err(Status::new(Code::Aborted, "as it is")),
                    1 => resume_unwind(Box::new("on purpose")),
                    2 => pending().await,
                    _ => Ok(held),
                }
            });
            match token {
                Ok(token) => {
                    started += 1;
                    match number % 5 {
                        0 => drop(operations.cancel(token).unwrap()),
                        1 => drop(operations.forget(token).unwrap()),
                        2 => drop(operations.wait(token, Duration::from_micros(1)).await),
                        _ => {}
                    }
                }
                Err(status) => {
                    assert_eq!(status.code(), Code::ResourceExhausted);
                    refused += 1;
                    ringcall::sleep(Duration::from_micros(200)).await;
                    if operations.list().iter().all(|(_, now)| matches!(now, Progress::Running(_)))
                    {
                        // Those that stay for good.
                        for (token, _) in operations.list() {
                            operations.cancel(token).unwrap();
                        }
                    }
                }
            }
            assert!(operations.list().len() <= 16);
        }
        assert!(started > 100 && refused > 0, "{started} started, {refused} refused");
        for (token, _) in operations.list() {
            operations.cancel(token).unwrap();
        }
        until_async("all are gone", || operations.list().is_empty()).await;
        until_async("all is freed", || others(&alive) == 0).await;
    });
}

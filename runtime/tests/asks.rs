//! Shards that ask each other: the results, and what becomes of an ask that gets none.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod support;

use std::{
    cell::{Cell, RefCell},
    future::pending,
    panic::resume_unwind,
    rc::Rc,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering::Relaxed},
        mpsc::{channel, sync_channel},
    },
    time::Duration,
};

use ringcall::{AskError, Shards, prelude::*};
use support::{
    event::{Noted, background},
    server::counters,
    station::{ANY_PORT, Number, cores, next, run},
    wait::{until, until_async, watched},
};

/// What each shard has.
struct Part {
    index: u16,
    asked: RefCell<Vec<u64>>,
}

#[ringcall::service]
trait Parts {
    /// Adds one at the next shard, within the call.
    async fn hop(&self, cx: &Context, request: Request<'_, Number>) -> Result<Number, Status>;
    /// Waits for ever at the next shard.
    async fn hang(&self, cx: &Context, request: Request<'_, Number>) -> Result<Number, Status>;
    /// The same, and is told that the time is over.
    #[rpc(no_cancel)]
    async fn insist(&self, cx: &Context, request: Request<'_, Number>) -> Result<Number, Status>;
}

impl Part {
    fn neighbour(&self, cx: &Context) -> u16 {
        (self.index + 1) % cx.shards().count()
    }
}

impl Parts for Part {
    async fn hop(&self, cx: &Context, request: Request<'_, Number>) -> Result<Number, Status> {
        let number = next(request).number;
        let ask = cx.shards().on(self.neighbour(cx), move |part: &Part| (part.index, number));
        let (index, number) = ask.await?;
        assert_eq!(index, self.neighbour(cx));
        Ok(Number { number })
    }

    async fn hang(&self, cx: &Context, _: Request<'_, Number>) -> Result<Number, Status> {
        cx.shards().on_async(self.neighbour(cx), async |_: &Part| pending().await).await?;
        unreachable!("it never ends")
    }

    async fn insist(&self, cx: &Context, _: Request<'_, Number>) -> Result<Number, Status> {
        Ok(cx.shards().on_async(self.neighbour(cx), async |_: &Part| pending().await).await?)
    }
}

/// Something that is told when it is dropped.
struct Told(Arc<AtomicU64>);

impl Drop for Told {
    fn drop(&mut self) {
        self.0.fetch_add(1, Relaxed);
    }
}

fn serve(shards: usize) -> ServerHandle {
    let server = Server::builder().cores(cores(shards)).serve(ANY_PORT, |shard| {
        PartsServer::new(Part { index: shard.index, asked: RefCell::default() })
    });
    server.unwrap()
}

/// Serves, runs a task on the first shard once and gives its output; the server goes on.
fn with_task<T, F>(shards: usize, task: F) -> (ServerHandle, T)
where
    T: Send + 'static,
    F: AsyncFnOnce(Shards) -> T + Send + 'static,
{
    let (done, output) = channel();
    let task = Arc::new(Mutex::new(Some(task)));
    let server = Server::builder().cores(cores(shards)).serve(ANY_PORT, move |shard| {
        if shard.index == 0 {
            let (task, done) = (task.lock().unwrap().take().unwrap(), done.clone());
            // The other shards are not there yet.
            ringcall::spawn(async move { done.send(task(ringcall::shards()).await).unwrap() });
        }
        PartsServer::new(Part { index: shard.index, asked: RefCell::default() })
    });
    (server.unwrap(), output.recv().unwrap())
}

/// Runs a task on the first shard of a server, to its end.
fn on_shard<T, F>(shards: usize, task: F) -> T
where
    T: Send + 'static,
    F: AsyncFnOnce(Shards) -> T + Send + 'static,
{
    watched(move || {
        let (server, output) = with_task(shards, task);
        server.stop();
        server.join().unwrap();
        output
    })
}

#[test]
fn each_shard_is_asked_for_its_own_state() {
    let indices = on_shard(4, async |shards| {
        let mut indices = Vec::new();
        for shard in 0..shards.count() {
            indices.push(shards.on(shard, |part: &Part| part.index).await.unwrap());
            let waits = async |part: &Part| {
                ringcall::yield_now().await;
                part.index
            };
            indices.push(shards.on_async(shard, waits).await.unwrap());
        }
        indices
    });
    assert_eq!(indices, [0, 0, 1, 1, 2, 2, 3, 3]);
}

#[test]
fn what_is_asked_runs_once_and_in_order() {
    const ASKS: u64 = 10_000;
    let asked = on_shard(2, async |shards| {
        let mut asks = Vec::new();
        for number in 0..ASKS {
            asks.push(shards.on(1, move |part: &Part| part.asked.borrow_mut().push(number)));
            if asks.len() == 100 {
                for outcome in support::wait::all(asks.drain(..)).await {
                    outcome.unwrap();
                }
            }
        }
        shards.on(1, |part: &Part| part.asked.take()).await.unwrap()
    });
    assert_eq!(asked, (0..ASKS).collect::<Vec<_>>());
}

#[test]
fn all_shards_are_asked_at_once() {
    on_shard(4, async |shards| {
        let indices = shards.gather(|part: &Part| part.index).await;
        assert_eq!(indices, (0..4).map(Ok).collect::<Vec<_>>());
        // Each waits until all have begun.
        let begun = Arc::new(AtomicU64::new(0));
        let all = shards.gather_async(async move |part: &Part| {
            begun.fetch_add(1, Relaxed);
            until_async("all have begun", || begun.load(Relaxed) == 4).await;
            part.index
        });
        assert_eq!(all.await, (0..4).map(Ok).collect::<Vec<_>>());
    });
}

#[test]
fn what_waits_on_another_shard_need_not_be_send() {
    let number = on_shard(2, async |shards| {
        let ask = shards.on_async(1, async |part: &Part| {
            let number = Rc::new(Cell::new(part.index));
            let background = {
                let number = Rc::clone(&number);
                background(async move {
                    ringcall::sleep(Duration::from_micros(100)).await;
                    number.set(number.get() + 41);
                })
            };
            background.await;
            number.get()
        });
        ask.await.unwrap()
    });
    assert_eq!(number, 42);
}

#[test]
fn calls_ask_the_next_shard_from_their_handlers() {
    watched(|| {
        let server = serve(3);
        run(async {
            for number in 0..30 {
                let client = PartsClient::connect(server.address()).await.unwrap();
                assert_eq!(client.hop(&Number { number }).await.unwrap().number, number + 1);
            }
        });
        let counters = counters(&server);
        assert_eq!((counters.asks_made, counters.asks_run), (30, 30));
    });
}

#[test]
fn a_shard_that_is_not_there_and_a_state_that_is_not_its_are_errors_that_say_so() {
    on_shard(2, async |shards| {
        let error = shards.on(2, |_: &Part| ()).await.unwrap_err();
        assert_eq!(error, AskError::NoSuchShard { index: 2, count: 2 });
        assert_eq!(error.to_string(), "there is no shard 2: the server has 2, numbered from zero");
        let errors = [
            shards.on(1, |_: &String| ()).await.unwrap_err(),
            shards.on_async(1, async |_: &String| ()).await.unwrap_err(),
        ];
        for error in errors {
            assert!(matches!(error, AskError::WrongState { .. }));
            support::text::assert_says(&error.to_string(), &["Part`", "not for `alloc::string::"]);
        }
    });
}

#[test]
fn there_is_nobody_to_ask_where_no_server_is() {
    let shards = ringcall::shards();
    assert_eq!(shards.count(), 0);
    run(async move {
        for shards in [shards, ringcall::shards()] {
            let error = shards.on(0, |_: &Part| ()).await.unwrap_err();
            assert_eq!(error, AskError::NoServer);
        }
    });
}

#[test]
fn what_panics_on_another_shard_fails_its_ask_alone() {
    on_shard(2, async |shards| {
        let panics = |_: &Part| resume_unwind(Box::new("on purpose"));
        assert_eq!(shards.on::<_, (), _>(1, panics).await, Err(AskError::Panicked));
        for waits in [false, true] {
            let ask = shards.on_async::<_, (), _>(1, async move |_: &Part| {
                if waits {
                    ringcall::sleep(Duration::from_micros(10)).await;
                }
                resume_unwind(Box::new("on purpose"))
            });
            assert_eq!(ask.await, Err(AskError::Panicked));
        }
        assert_eq!(shards.on(1, |part: &Part| part.index).await, Ok(1));
    });
}

#[test]
fn an_ask_that_is_dropped_is_dropped_on_the_other_shard() {
    on_shard(2, async |shards| {
        let dropped = Arc::<AtomicU64>::default();
        let begun = Arc::<AtomicU64>::default();
        for asks in 1..=100 {
            let (told, has_begun) = (Told(Arc::clone(&dropped)), Arc::clone(&begun));
            let before = begun.load(Relaxed);
            let mut ask = Box::pin(shards.on_async(1, async move |_: &Part| {
                let _told = told;
                has_begun.fetch_add(1, Relaxed);
                pending::<()>().await;
            }));
            Noted::new().begin(ask.as_mut());
            if asks % 2 == 0 {
                until_async("it has begun", || begun.load(Relaxed) > before).await;
            }
            drop(ask);
            until_async("it is dropped there", || dropped.load(Relaxed) == asks).await;
        }
    });
}

#[test]
fn an_ask_that_is_given_up_before_it_has_begun_does_not_begin() {
    on_shard(2, async |shards| {
        // The other shard is held up until the second ask was dropped.
        let (go_on, held) = channel::<()>();
        let held = Mutex::new(held);
        let mut holds = Box::pin(shards.on(1, move |_: &Part| held.lock().unwrap().recv()));
        let mut second = Box::pin(shards.on(1, |part: &Part| part.asked.borrow_mut().push(1)));
        let noted = Noted::new();
        noted.begin(holds.as_mut());
        noted.begin(second.as_mut());
        drop(second);
        go_on.send(()).unwrap();
        holds.await.unwrap().unwrap();
        assert_eq!(shards.on(1, |part: &Part| part.asked.take()).await, Ok(vec![]));
        // Nor does one that was never polled.
        drop(shards.on(1, |part: &Part| part.asked.borrow_mut().push(1)));
        assert_eq!(shards.on(1, |part: &Part| part.asked.take()).await, Ok(vec![]));
    });
}

#[test]
fn an_ask_whose_time_is_over_says_so_and_is_dropped_on_the_other_shard() {
    on_shard(2, async |shards| {
        let dropped = Arc::<AtomicU64>::default();
        for timeout_us in [0, 1, 1000] {
            let told = Told(Arc::clone(&dropped));
            let ask = shards.on_async(1, async move |_: &Part| {
                let _told = told;
                pending::<()>().await;
            });
            let timeout = Duration::from_micros(timeout_us);
            assert_eq!(ask.timeout(timeout).await, Err(AskError::TimedOut));
        }
        until_async("all are dropped there", || dropped.load(Relaxed) == 3).await;
        let all = shards.gather_async(async |part: &Part| {
            if part.index == 1 {
                pending::<()>().await;
            }
            part.index
        });
        let outcomes = all.timeout(Duration::from_millis(1)).await;
        assert_eq!(outcomes[1], Err(AskError::TimedOut));
        // One that is answered in time leaves no timer behind.
        let ask = shards.on(1, |part: &Part| part.index).timeout(Duration::from_secs(60));
        assert_eq!(ask.await, Ok(1));
    });
}

#[test]
fn an_ask_of_a_handler_ends_with_its_call() {
    watched(|| {
        let server = serve(2);
        run(async {
            let client = PartsClient::connect(server.address()).await.unwrap();
            let number = Number { number: 0 };
            let call = client.hang(&number).timeout(Duration::from_millis(2));
            assert_eq!(call.await.map(drop).unwrap_err().code(), Code::DeadlineExceeded);
            let call = client.insist(&number).timeout(Duration::from_millis(2));
            assert_eq!(call.await.map(drop).unwrap_err().code(), Code::DeadlineExceeded);
        });
        // That of the handler that is finished all the same had its outcome, as it drains.
        server.drain(Duration::from_secs(60));
        server.join().unwrap();
    });
}

#[test]
fn what_is_asked_beyond_what_may_wait_is_refused_and_the_rest_is_answered() {
    let (answered, busy) = on_shard(2, async |shards| {
        let (go_on, held) = channel::<()>();
        let held = Mutex::new(held);
        let mut holds = Box::pin(shards.on(1, move |_: &Part| held.lock().unwrap().recv()));
        let noted = Noted::new();
        noted.begin(holds.as_mut());
        let mut asks: Vec<_> = Vec::new();
        let mut busy = 0;
        for _ in 0..10_000 {
            let mut ask = Box::pin(shards.on(1, |_: &Part| ()));
            match noted.poll(ask.as_mut()) {
                std::task::Poll::Pending => asks.push(ask),
                std::task::Poll::Ready(outcome) => {
                    assert_eq!(outcome, Err(AskError::Busy));
                    busy += 1;
                }
            }
        }
        go_on.send(()).unwrap();
        holds.await.unwrap().unwrap();
        let answered = asks.len();
        for ask in asks {
            ask.await.unwrap();
        }
        // There is room again, for more than may wait at once.
        for _ in 0..300 {
            shards.on(1, |_: &Part| ()).await.unwrap();
        }
        (answered, busy)
    });
    assert!(answered >= 255, "{answered}");
    assert_eq!(answered + busy, 10_000);
}

#[test]
fn a_shard_that_panics_fails_what_it_was_asked() {
    watched(|| {
        let (server, ()) = with_task(2, async |shards| {
            let mut waits = Box::pin(shards.on_async(1, async |_: &Part| pending::<()>().await));
            Noted::new().begin(waits.as_mut());
            let panics = shards.on(1, |_: &Part| {
                ringcall::spawn(async {
                    ringcall::yield_now().await;
                    resume_unwind(Box::new("on purpose"));
                });
            });
            panics.await.unwrap();
            assert_eq!(waits.await, Err(AskError::Stopped));
            // And what it is asked from now on.
            assert_eq!(shards.on(1, |_: &Part| ()).await, Err(AskError::Stopped));
            assert_eq!(shards.on(0, |part: &Part| part.index).await, Ok(0));
        });
        server.stop();
        server.join().unwrap_err();
    });
}

#[test]
fn what_is_asked_of_a_server_that_stops_is_answered_or_dropped_and_nothing_is_left() {
    watched(|| {
        let dropped = Arc::<AtomicU64>::default();
        let theirs = Arc::clone(&dropped);
        let (begun, has_begun) = sync_channel(9);
        let server = Server::builder().cores(cores(3)).serve(ANY_PORT, move |shard| {
            let (theirs, begun) = (Arc::clone(&theirs), begun.clone());
            ringcall::spawn(async move {
                let all = ringcall::shards().gather_async(async move |_: &Part| {
                    let _told = Told(Arc::clone(&theirs));
                    begun.send(()).unwrap();
                    pending::<()>().await;
                });
                all.await;
            });
            PartsServer::new(Part { index: shard.index, asked: RefCell::default() })
        });
        let server = server.unwrap();
        (0..9).for_each(|_| has_begun.recv().unwrap());
        assert_eq!(dropped.load(Relaxed), 0);
        server.stop();
        server.join().unwrap();
        until("all are dropped", || dropped.load(Relaxed) == 9);
    });
}

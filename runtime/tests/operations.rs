//! Long operations by token: through a server and its callers.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod support;

use std::{
    future::pending,
    panic::resume_unwind,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use ringcall::{
    operations::{Operations, Progress, Token},
    prelude::*,
};
use support::{
    event::{Gate, background},
    server::{one_shard, usable_cores},
    wait::{all, until, until_async, watched},
};

/// Longer than any test takes.
const LONG: Duration = Duration::from_secs(1000);

#[ringcall::message]
pub enum Order {
    /// Reports 40, waits until the gate is opened, and gives a text.
    Wait,
    /// Waits for good.
    Stay,
    /// Ends with `NOT_FOUND` of its own.
    Fail,
    Panic,
}

#[ringcall::message]
pub struct Question {
    pub token: Token,
    pub at_most_ms: u64,
}

#[ringcall::message]
#[derive(Debug, PartialEq)]
pub enum Answer {
    Running(u32),
    Done(String),
    Failed { code: u32, message: String },
}

#[ringcall::message]
pub struct Unit;

#[ringcall::service]
pub trait Works {
    async fn start(&self, cx: &Context, request: Request<'_, Order>) -> Result<Token, Status>;
    async fn poll(&self, cx: &Context, request: Request<'_, Token>) -> Result<Answer, Status>;
    async fn wait(&self, cx: &Context, request: Request<'_, Question>) -> Result<Answer, Status>;
    async fn cancel(&self, cx: &Context, request: Request<'_, Token>) -> Result<Answer, Status>;
    async fn forget(&self, cx: &Context, request: Request<'_, Token>) -> Result<Answer, Status>;
    /// Opens the gate.
    async fn open(&self, cx: &Context, request: Request<'_, Unit>) -> Result<Unit, Status>;
}

/// What the test sees of the operations.
#[derive(Default)]
struct Watch {
    /// Operations' futures that are there.
    running: AtomicU64,
    /// Waits that have begun.
    waits: AtomicU64,
}

/// Counts a future for as long as it is there.
struct Counted(Arc<Watch>);

impl Counted {
    fn new(watch: &Arc<Watch>) -> Self {
        watch.running.fetch_add(1, Relaxed);
        Self(Arc::clone(watch))
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.running.fetch_sub(1, Relaxed);
    }
}

struct Plant {
    operations: Operations<String>,
    gate: Gate,
    watch: Arc<Watch>,
}

fn answer(progress: Progress<String>) -> Answer {
    match progress {
        Progress::Running(percent) => Answer::Running(percent),
        Progress::Done(text) => Answer::Done((*text).clone()),
        Progress::Failed(status) => {
            Answer::Failed { code: status.code() as u32, message: status.message().to_owned() }
        }
    }
}

impl Works for Plant {
    async fn start(&self, _: &Context, request: Request<'_, Order>) -> Result<Token, Status> {
        let (order, gate) = (request.to_owned()?, self.gate.clone());
        let counted = Counted::new(&self.watch);
        self.operations.start(move |operation| async move {
            let _counted = counted;
            match order {
                Order::Wait => {
                    operation.report(40);
                    gate.wait().await;
                    Ok("made".to_owned())
                }
                Order::Stay => pending().await,
                Order::Fail => Err(Status::new(Code::NotFound, "no material")),
                // As `panic!`, and prints nothing.
                Order::Panic => resume_unwind(Box::new("on purpose")),
            }
        })
    }

    async fn poll(&self, _: &Context, request: Request<'_, Token>) -> Result<Answer, Status> {
        self.operations.poll(request.get()).map(answer)
    }

    async fn wait(&self, _: &Context, request: Request<'_, Question>) -> Result<Answer, Status> {
        self.watch.waits.fetch_add(1, Relaxed);
        let at_most = Duration::from_millis(request.at_most_ms.to_native());
        self.operations.wait(&request.get().token, at_most).await.map(answer)
    }

    async fn cancel(&self, _: &Context, request: Request<'_, Token>) -> Result<Answer, Status> {
        self.operations.cancel(request.get()).map(answer)
    }

    async fn forget(&self, _: &Context, request: Request<'_, Token>) -> Result<Answer, Status> {
        self.operations.forget(request.get()).map(answer)
    }

    async fn open(&self, _: &Context, _: Request<'_, Unit>) -> Result<Unit, Status> {
        self.gate.open();
        Ok(Unit)
    }
}

struct Site {
    server: ServerHandle,
    watch: Arc<Watch>,
}

impl Site {
    fn start(shards: usize, operations_max: usize, keep_for: Duration) -> Self {
        let watch = Arc::<Watch>::default();
        let theirs = Arc::clone(&watch);
        let cores = vec![usable_cores()[0]; shards];
        let server = one_shard().cores(cores).serve("127.0.0.1:0", move |shard| {
            let operations = Operations::new(shard.index, operations_max, keep_for);
            let (gate, watch) = (Gate::default(), Arc::clone(&theirs));
            WorksServer::new(Plant { operations, gate, watch })
        });
        Self { server: server.unwrap(), watch }
    }

    async fn connect(&self) -> WorksClient {
        WorksClient::connect(self.server.address()).await.unwrap()
    }

    fn running(&self) -> u64 {
        self.watch.running.load(Relaxed)
    }
}

/// A test with a server of one shard, whose results are kept.
fn with_site(test: impl AsyncFn(&Site, &WorksClient) + Send + 'static) {
    watched(move || {
        let site = Site::start(1, 10, LONG);
        ringcall::run(async { test(&site, &site.connect().await).await }).unwrap();
    });
}

async fn start(works: &WorksClient, order: Order) -> Token {
    works.start(&order).await.unwrap().to_owned().unwrap()
}

async fn poll(works: &WorksClient, token: Token) -> Answer {
    works.poll(&token).await.unwrap().to_owned().unwrap()
}

async fn wait(works: &WorksClient, token: Token, at_most: Duration) -> Answer {
    let question = Question { token, at_most_ms: at_most.as_millis() as u64 };
    works.wait(&question).await.unwrap().to_owned().unwrap()
}

fn made() -> Answer {
    Answer::Done("made".to_owned())
}

#[track_caller]
fn assert_failed(answer: &Answer, expected: Code, words: &str) {
    match answer {
        Answer::Failed { code, message } => {
            assert_eq!(*code, expected as u32, "{message}");
            assert!(message.contains(words), "{message}");
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn an_operation_goes_on_without_its_caller_and_is_found_by_its_token() {
    with_site(async |site, works| {
        let token = {
            let caller = site.connect().await;
            start(&caller, Order::Wait).await
        };
        assert_eq!(poll(works, token).await, Answer::Running(40));
        works.open(&Unit).await.unwrap();
        assert_eq!(wait(works, token, LONG).await, made());
        // Its future is gone, its result is not.
        assert_eq!(site.running(), 0);
        assert_eq!(poll(works, token).await, made());
        assert_eq!(wait(works, token, LONG).await, made());
    });
}

#[test]
fn a_wait_that_is_shorter_than_the_operation_tells_how_far_it_is() {
    with_site(async |_, works| {
        let token = start(works, Order::Wait).await;
        for at_most in [Duration::ZERO, Duration::from_millis(2)] {
            assert_eq!(wait(works, token, at_most).await, Answer::Running(40));
        }
        works.open(&Unit).await.unwrap();
        assert_eq!(wait(works, token, LONG).await, made());
    });
}

#[test]
fn a_call_that_waits_past_its_deadline_leaves_the_operation_as_it_is() {
    with_site(async |site, works| {
        let token = start(works, Order::Wait).await;
        let question = Question { token, at_most_ms: u64::MAX };
        let outcome = works.wait(&question).timeout(Duration::from_millis(5)).await;
        assert_eq!(outcome.map(drop).unwrap_err().code(), Code::DeadlineExceeded);
        assert_eq!(site.running(), 1);
        assert_eq!(poll(works, token).await, Answer::Running(40));
        works.open(&Unit).await.unwrap();
        assert_eq!(wait(works, token, LONG).await, made());
    });
}

#[test]
fn all_who_wait_get_the_result() {
    with_site(async |site, works| {
        let token = start(works, Order::Wait).await;
        let mut waiting = Vec::new();
        for _ in 0..3 {
            let works = site.connect().await;
            waiting.push(background(async move {
                let twice = (0..2).map(|_| wait(&works, token, LONG));
                all(twice).await
            }));
        }
        until_async("all wait", || site.watch.waits.load(Relaxed) == 6).await;
        works.open(&Unit).await.unwrap();
        for answers in all(waiting).await {
            assert_eq!(answers, [made(), made()]);
        }
    });
}

#[test]
fn an_operation_that_is_cancelled_while_it_is_waited_for_is_dropped_and_all_are_told() {
    with_site(async |site, works| {
        let token = start(works, Order::Stay).await;
        let waiter = works.clone();
        let waiting = background(async move { wait(&waiter, token, LONG).await });
        until_async("it waits", || site.watch.waits.load(Relaxed) == 1).await;
        assert_eq!(site.running(), 1);
        let cancelled = works.cancel(&token).await.unwrap().to_owned().unwrap();
        assert_failed(&cancelled, Code::Cancelled, "cancelled");
        assert_eq!(site.running(), 0);
        assert_failed(&waiting.await, Code::Cancelled, "cancelled");
        assert_failed(&poll(works, token).await, Code::Cancelled, "cancelled");
        let again = works.cancel(&token).await.unwrap().to_owned().unwrap();
        assert_eq!(again, cancelled);
    });
}

#[test]
fn an_operation_that_is_done_is_not_cancelled() {
    with_site(async |_, works| {
        let token = start(works, Order::Wait).await;
        works.open(&Unit).await.unwrap();
        assert_eq!(wait(works, token, LONG).await, made());
        assert_eq!(works.cancel(&token).await.unwrap().to_owned().unwrap(), made());
        assert_eq!(poll(works, token).await, made());
    });
}

#[test]
fn an_operation_that_fails_is_told_from_one_that_is_not_there() {
    with_site(async |_, works| {
        let failed = start(works, Order::Fail).await;
        assert_failed(&poll(works, failed).await, Code::NotFound, "no material");
        let unknown = Token { secret: failed.secret ^ 1, ..failed };
        for outcome in [
            works.poll(&unknown).await,
            works.cancel(&unknown).await,
            works.forget(&unknown).await,
            works.wait(&Question { token: unknown, at_most_ms: 1 }).await,
        ] {
            let status = outcome.map(drop).unwrap_err();
            assert_eq!(status.code(), Code::NotFound);
            assert!(status.message().contains("token"), "{status}");
        }
    });
}

#[test]
fn an_operation_that_panics_fails_alone() {
    with_site(async |site, works| {
        let neighbour = start(works, Order::Wait).await;
        let token = start(works, Order::Panic).await;
        assert_failed(&poll(works, token).await, Code::Internal, "panicked");
        assert_failed(&wait(works, token, LONG).await, Code::Internal, "panicked");
        assert_eq!(site.running(), 1);
        works.open(&Unit).await.unwrap();
        assert_eq!(wait(works, neighbour, LONG).await, made());
    });
}

#[test]
fn another_shards_token_is_refused_with_the_shards_number() {
    watched(|| {
        let site = Site::start(2, 10, LONG);
        ringcall::run(async {
            let mut shards: [Option<WorksClient>; 2] = [None, None];
            while shards.iter().any(Option::is_none) {
                let works = site.connect().await;
                let index = works.client().shard().index;
                shards[usize::from(index)] = Some(works);
            }
            let [first, second] = shards.map(Option::unwrap);
            let token = start(&second, Order::Stay).await;
            assert_eq!(token.shard, 1);
            let status = first.poll(&token).await.map(drop).unwrap_err();
            assert_eq!(status.code(), Code::FailedPrecondition);
            assert!(status.message().contains("one of shard 1"), "{status}");
            let status = first.cancel(&token).await.map(drop).unwrap_err();
            assert_eq!(status.code(), Code::FailedPrecondition);
            assert_eq!(poll(&second, token).await, Answer::Running(0));
        })
        .unwrap();
    });
}

#[test]
fn a_full_table_refuses_until_a_place_is_free() {
    watched(|| {
        let site = Site::start(1, 2, LONG);
        ringcall::run(async {
            let works = site.connect().await;
            let kept = start(&works, Order::Fail).await;
            let running = start(&works, Order::Stay).await;
            let refused = async || {
                let status = works.start(&Order::Stay).await.map(drop).unwrap_err();
                assert_eq!(status.code(), Code::ResourceExhausted);
                assert!(status.message().contains("all 2 places"), "{status}");
            };
            refused().await;
            // Nothing of what was refused is left.
            assert_eq!(site.running(), 1);
            let forgotten = works.forget(&kept).await.unwrap().to_owned().unwrap();
            assert_failed(&forgotten, Code::NotFound, "no material");
            let other = start(&works, Order::Stay).await;
            refused().await;
            // One that was cancelled is still there to be asked for; one forgotten is not.
            works.cancel(&other).await.unwrap();
            refused().await;
            let forgotten = works.forget(&running).await.unwrap().to_owned().unwrap();
            assert_failed(&forgotten, Code::Cancelled, "cancelled");
            assert_eq!(site.running(), 0);
            let status = works.poll(&running).await.map(drop).unwrap_err();
            assert_eq!(status.code(), Code::NotFound);
            start(&works, Order::Stay).await;
        })
        .unwrap();
    });
}

#[test]
fn a_result_is_gone_when_its_time_is_over_and_its_place_is_free() {
    watched(|| {
        let site = Site::start(1, 1, Duration::from_millis(2));
        ringcall::run(async {
            let works = site.connect().await;
            for order in [Order::Fail, Order::Panic, Order::Wait, Order::Stay] {
                let is_cancelled = matches!(order, Order::Stay);
                let token = start(&works, order).await;
                works.open(&Unit).await.unwrap();
                if is_cancelled {
                    works.cancel(&token).await.unwrap();
                }
                let code = loop {
                    match works.poll(&token).await {
                        Ok(_) => ringcall::yield_now().await,
                        Err(status) => break status.code(),
                    }
                };
                assert_eq!(code, Code::NotFound);
            }
        })
        .unwrap();
        assert_eq!(site.running(), 0);
    });
}

#[test]
fn what_runs_ends_with_its_shard() {
    watched(|| {
        let site = Site::start(1, 10, LONG);
        ringcall::run(async {
            let works = site.connect().await;
            start(&works, Order::Fail).await;
            for _ in 0..3 {
                start(&works, Order::Stay).await;
            }
            let token = start(&works, Order::Wait).await;
            let waiter = works.clone();
            let waiting = background(async move {
                waiter.wait(&Question { token, at_most_ms: u64::MAX }).await.map(drop)
            });
            until_async("it waits", || site.watch.waits.load(Relaxed) == 1).await;
            assert_eq!(site.running(), 4);
            site.server.stop();
            waiting.await.unwrap_err();
        })
        .unwrap();
        let watch = Arc::clone(&site.watch);
        site.server.join().unwrap();
        assert_eq!(watch.running.load(Relaxed), 0);
    });
}

#[test]
fn a_server_that_drains_does_not_wait_for_operations() {
    watched(|| {
        let site = Site::start(1, 10, LONG);
        ringcall::run(async { start(&site.connect().await, Order::Stay).await }).unwrap();
        assert_eq!(site.running(), 1);
        site.server.drain(LONG);
        let watch = Arc::clone(&site.watch);
        site.server.join().unwrap();
        until("its future is gone", || watch.running.load(Relaxed) == 0);
    });
}

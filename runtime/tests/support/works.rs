//! A service whose methods are called in every way that a call without items can be, and a server
//! of it on one shard.

use std::{
    future::pending,
    panic::resume_unwind,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use ringcall::{ServerBuilder, ShardConfig, ShardCounters, prelude::*};

use super::{
    event::Gate,
    server::{counters, one_shard},
    wait::{until, until_async},
};

/// A number, and bytes to make it as long as a test wants.
#[ringcall::message]
pub(crate) struct Job {
    pub(crate) number: u64,
    pub(crate) bytes: Vec<u8>,
}

impl Job {
    pub(crate) fn new(number: u64) -> Self {
        Self { number, bytes: Vec::new() }
    }

    pub(crate) fn long(number: u64, len: usize) -> Self {
        Self { number, bytes: vec![number as u8; len] }
    }
}

#[ringcall::message]
pub(crate) struct Done {
    pub(crate) number: u64,
}

/// What [`Works::note`] panics at.
pub(crate) const BAD: u64 = 666;

/// What [`Works::time`] replies with where the call has no deadline.
pub(crate) const NO_DEADLINE: u64 = u64::MAX;

#[ringcall::service]
pub(crate) trait Works {
    /// Adds one, at once.
    async fn add(&self, cx: &Context, request: Request<'_, Job>) -> Result<Done, Status>;
    /// Adds one, once the gate was opened.
    async fn hold(&self, cx: &Context, request: Request<'_, Job>) -> Result<Done, Status>;
    /// As `hold`, and is finished also where nobody waits for it.
    #[rpc(no_cancel)]
    async fn finish(&self, cx: &Context, request: Request<'_, Job>) -> Result<Done, Status>;
    /// As `hold`, within 5 ms.
    #[rpc(timeout = "5ms")]
    async fn hurry(&self, cx: &Context, request: Request<'_, Job>) -> Result<Done, Status>;
    /// Never ends.
    async fn never(&self, cx: &Context, request: Request<'_, Job>) -> Result<Done, Status>;
    /// Has `never` of the server at the port that the number is end within this call, and goes on
    /// when this call is over.
    #[rpc(no_cancel)]
    async fn relay(&self, cx: &Context, request: Request<'_, Job>) -> Result<Done, Status>;
    /// Waits for the gate, and replies with one where nobody waits any more, else with zero.
    #[rpc(no_cancel)]
    async fn look(&self, cx: &Context, request: Request<'_, Job>) -> Result<Done, Status>;
    /// Replies with the microseconds that are left.
    async fn time(&self, cx: &Context, request: Request<'_, Job>) -> Result<Done, Status>;
    /// Opens the gate.
    async fn open(&self, cx: &Context, request: Request<'_, Job>) -> Result<Done, Status>;
    /// Notes the number; panics at [`BAD`].
    #[rpc(oneway)]
    async fn note(&self, cx: &Context, request: Request<'_, Job>);
    /// Notes the number, once the gate was opened.
    #[rpc(oneway)]
    async fn note_later(&self, cx: &Context, request: Request<'_, Job>);
}

/// What a test sees of the handlers.
#[derive(Default)]
pub(crate) struct Watch {
    /// Handlers that have begun to wait.
    pub(crate) begun: AtomicU64,
    /// Those of them that run, and the most that ever did.
    pub(crate) running: AtomicU64,
    pub(crate) running_max: AtomicU64,
    /// Those that came to their ends.
    pub(crate) finished: AtomicU64,
    pub(crate) noted: Mutex<Vec<u64>>,
    /// How the calls that `relay` made have ended.
    pub(crate) relayed: Mutex<Vec<Status>>,
}

/// A handler that waits, until it is done or dropped.
struct Waits<'a>(&'a Watch);

impl<'a> Waits<'a> {
    fn begin(watch: &'a Watch) -> Self {
        watch.begun.fetch_add(1, Relaxed);
        let running = watch.running.fetch_add(1, Relaxed) + 1;
        watch.running_max.fetch_max(running, Relaxed);
        Self(watch)
    }

    fn end(self) {
        self.0.finished.fetch_add(1, Relaxed);
    }
}

impl Drop for Waits<'_> {
    fn drop(&mut self) {
        self.0.running.fetch_sub(1, Relaxed);
    }
}

struct Worker {
    watch: Arc<Watch>,
    gate: Gate,
}

fn next(request: Request<'_, Job>) -> Done {
    Done { number: u64::from(request.number) + 1 }
}

impl Worker {
    async fn wait(&self) {
        let waits = Waits::begin(&self.watch);
        self.gate.wait().await;
        waits.end();
    }
}

impl Works for Worker {
    async fn add(&self, _: &Context, request: Request<'_, Job>) -> Result<Done, Status> {
        Ok(next(request))
    }

    async fn hold(&self, _: &Context, request: Request<'_, Job>) -> Result<Done, Status> {
        self.wait().await;
        Ok(next(request))
    }

    async fn finish(&self, _: &Context, request: Request<'_, Job>) -> Result<Done, Status> {
        self.wait().await;
        Ok(next(request))
    }

    async fn hurry(&self, _: &Context, request: Request<'_, Job>) -> Result<Done, Status> {
        self.wait().await;
        Ok(next(request))
    }

    async fn never(&self, _: &Context, _: Request<'_, Job>) -> Result<Done, Status> {
        let _waits = Waits::begin(&self.watch);
        pending().await
    }

    async fn relay(&self, cx: &Context, request: Request<'_, Job>) -> Result<Done, Status> {
        let port = u64::from(request.number) as u16;
        let other = WorksClient::connect(("127.0.0.1", port)).await;
        let other = other.map_err(|error| Status::new(Code::Unavailable, error.to_string()))?;
        let outcome = other.never(&Job::new(1)).within(cx).await;
        let status = outcome.map(drop).unwrap_err();
        self.watch.relayed.lock().unwrap().push(status.clone());
        Err(status)
    }

    async fn look(&self, cx: &Context, _: Request<'_, Job>) -> Result<Done, Status> {
        self.wait().await;
        Ok(Done { number: cx.is_cancelled().into() })
    }

    async fn time(&self, cx: &Context, _: Request<'_, Job>) -> Result<Done, Status> {
        let number = cx.time_left().map_or(NO_DEADLINE, |left| left.as_micros() as u64);
        Ok(Done { number })
    }

    async fn open(&self, _: &Context, request: Request<'_, Job>) -> Result<Done, Status> {
        self.gate.open();
        Ok(next(request))
    }

    async fn note(&self, _: &Context, request: Request<'_, Job>) {
        if request.number == BAD {
            // As `panic!`, and prints nothing.
            resume_unwind(Box::new("on purpose"));
        }
        self.watch.noted.lock().unwrap().push(request.number.into());
    }

    async fn note_later(&self, _: &Context, request: Request<'_, Job>) {
        self.wait().await;
        self.watch.noted.lock().unwrap().push(request.number.into());
    }
}

/// A server of one shard, and what its handlers show.
pub(crate) struct Shop {
    pub(crate) server: ServerHandle,
    pub(crate) watch: Arc<Watch>,
}

impl Shop {
    pub(crate) fn start() -> Self {
        Self::with(ShardConfig::new())
    }

    pub(crate) fn with(config: ShardConfig) -> Self {
        Self::of(one_shard().shard(config))
    }

    pub(crate) fn of(builder: ServerBuilder) -> Self {
        let watch = Arc::<Watch>::default();
        let theirs = Arc::clone(&watch);
        let works =
            move |_| WorksServer::new(Worker { watch: Arc::clone(&theirs), gate: Gate::default() });
        Self { server: builder.serve("127.0.0.1:0", works).unwrap(), watch }
    }

    pub(crate) async fn connect(&self) -> WorksClient {
        WorksClient::connect(self.server.address()).await.unwrap()
    }

    pub(crate) fn counters(&self) -> ShardCounters {
        counters(&self.server)
    }

    pub(crate) fn begun(&self) -> u64 {
        self.watch.begun.load(Relaxed)
    }

    pub(crate) fn running(&self) -> u64 {
        self.watch.running.load(Relaxed)
    }

    pub(crate) fn finished(&self) -> u64 {
        self.watch.finished.load(Relaxed)
    }

    pub(crate) fn noted(&self) -> Vec<u64> {
        self.watch.noted.lock().unwrap().clone()
    }

    /// Waits until so many handlers wait.
    pub(crate) async fn runs(&self, handlers: u64) {
        until_async("handlers wait", || self.running() == handlers).await;
    }

    /// [`runs`](Self::runs), on a thread without a shard.
    pub(crate) fn blocks_until_it_runs(&self, handlers: u64) {
        until("handlers wait", || self.running() == handlers);
    }

    /// Opens the gate, from a thread without a shard.
    pub(crate) fn release(&self) {
        let opened = ringcall::run(async {
            let works = self.connect().await;
            works.open(&Job::new(0)).await.map(drop)
        });
        opened.unwrap().unwrap();
    }
}

/// Longer than any test.
pub(crate) const LONG: Duration = Duration::from_secs(3600);

/// Sooner than anything else that a test waits for.
pub(crate) const SHORT: Duration = Duration::from_millis(5);

//! A service whose handlers wait for each kind of thing, panic and keep what they are given, and a
//! server of it on one shard.

use std::{
    cell::RefCell,
    future::Future,
    net::SocketAddr,
    panic::resume_unwind,
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use ringcall::{ServerBuilder, ShardConfig, prelude::*};

use super::{
    event::Gate,
    server::one_shard,
    wait::{all, until, until_async},
};

/// Bytes, with a number that they follow from.
#[ringcall::message]
pub(crate) struct Load {
    pub(crate) number: u64,
    pub(crate) bytes: Vec<u8>,
}

#[ringcall::message]
pub(crate) struct Unit;

#[ringcall::message]
pub(crate) struct Place {
    pub(crate) path: String,
}

#[ringcall::service]
pub(crate) trait Desk {
    /// Replies at once, with the same.
    async fn echo(&self, cx: &Context, request: Request<'_, Load>) -> Result<Load, Status>;
    /// Lets others run, and replies.
    async fn give_way(&self, cx: &Context, request: Request<'_, Load>) -> Result<Load, Status>;
    /// Waits for `open`, and replies with the same.
    async fn hold(&self, cx: &Context, request: Request<'_, Load>) -> Result<Load, Status>;
    /// Ends the waits of those who wait.
    async fn open(&self, cx: &Context, request: Request<'_, Unit>) -> Result<Unit, Status>;

    /// Sleeps again and again until `open`.
    async fn sleep(&self, cx: &Context, request: Request<'_, Load>) -> Result<Load, Status>;
    /// As `sleep`, with the executor's own timer.
    async fn tick(&self, cx: &Context, request: Request<'_, Load>) -> Result<Load, Status>;
    /// Reads a file again and again until `open`, and replies with what is in it.
    async fn read(&self, cx: &Context, request: Request<'_, Place>) -> Result<Load, Status>;
    /// Calls `echo` of the server at an address again and again until `open`, and then replies
    /// with what `hold` of that server does.
    async fn ask(&self, cx: &Context, request: Request<'_, Place>) -> Result<Load, Status>;

    /// Keeps the request beyond the call.
    async fn keep(&self, cx: &Context, request: Request<'_, Load>) -> Result<Unit, Status>;
    /// Replies with what was kept as the first.
    async fn recall(&self, cx: &Context, request: Request<'_, Unit>) -> Result<Load, Status>;

    /// Panics at once.
    async fn panic(&self, cx: &Context, request: Request<'_, Load>) -> Result<Load, Status>;
    /// Waits for `open`, and panics.
    async fn panic_later(&self, cx: &Context, request: Request<'_, Load>) -> Result<Load, Status>;
    /// Blocks its shard until the test says so.
    async fn block(&self, cx: &Context, request: Request<'_, Unit>) -> Result<Unit, Status>;
}

/// What the test and the handlers see of each other.
#[derive(Default)]
pub(crate) struct Watch {
    /// Waits that have begun.
    pub(crate) waits: AtomicU64,
    /// Handlers of `hold` and `give_way` that run, and the most that ever did.
    pub(crate) running: AtomicU64,
    pub(crate) running_max: AtomicU64,
    /// Whether `block` is to go on.
    pub(crate) unblocked: AtomicU64,
}

/// A handler that runs, for as long as it does.
struct Running<'a>(&'a Watch);

impl<'a> Running<'a> {
    fn begin(watch: &'a Watch) -> Self {
        let running = watch.running.fetch_add(1, Relaxed) + 1;
        watch.running_max.fetch_max(running, Relaxed);
        Self(watch)
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.0.running.fetch_sub(1, Relaxed);
    }
}

#[derive(Clone, Default)]
struct Clerk {
    pub(crate) watch: Arc<Watch>,
    gate: Gate,
    kept: Rc<RefCell<Vec<ringcall::Retained<Load>>>>,
}

impl Clerk {
    fn began_to_wait(&self) {
        self.watch.waits.fetch_add(1, Relaxed);
    }
}

fn same(request: Request<'_, Load>) -> Result<Load, Status> {
    request.to_owned()
}

pub(crate) fn load(number: u64, len: usize) -> Load {
    let byte = |at: usize| (at as u64).wrapping_mul(number | 1).rotate_left(23) as u8;
    Load { number, bytes: (0..len).map(byte).collect() }
}

#[track_caller]
pub(crate) fn assert_is(reply: &ArchivedLoad, number: u64, len: usize) {
    assert_eq!(reply.number, number);
    assert!(reply.bytes == load(number, len).bytes, "other bytes in reply to {number}");
}

impl Desk for Clerk {
    async fn echo(&self, _: &Context, request: Request<'_, Load>) -> Result<Load, Status> {
        same(request)
    }

    async fn give_way(&self, _: &Context, request: Request<'_, Load>) -> Result<Load, Status> {
        let _running = Running::begin(&self.watch);
        for _ in 0..3 {
            ringcall::yield_now().await;
        }
        same(request)
    }

    async fn hold(&self, _: &Context, request: Request<'_, Load>) -> Result<Load, Status> {
        let _running = Running::begin(&self.watch);
        self.began_to_wait();
        self.gate.wait().await;
        same(request)
    }

    async fn open(&self, _: &Context, _: Request<'_, Unit>) -> Result<Unit, Status> {
        self.gate.open();
        Ok(Unit)
    }

    async fn sleep(&self, _: &Context, request: Request<'_, Load>) -> Result<Load, Status> {
        let opened = self.gate.opened();
        while self.gate.opened() == opened {
            ringcall::sleep(Duration::from_micros(500)).await;
            self.began_to_wait();
        }
        same(request)
    }

    async fn tick(&self, _: &Context, request: Request<'_, Load>) -> Result<Load, Status> {
        let opened = self.gate.opened();
        while self.gate.opened() == opened {
            glommio::timer::Timer::new(Duration::from_micros(500)).await;
            self.began_to_wait();
        }
        same(request)
    }

    async fn read(&self, _: &Context, request: Request<'_, Place>) -> Result<Load, Status> {
        let opened = self.gate.opened();
        let mut bytes = Vec::new();
        while self.gate.opened() == opened {
            let path = request.path.as_str();
            let file = glommio::io::BufferedFile::open(path).await.unwrap();
            bytes = file.read_at(0, 1 << 20).await.unwrap().to_vec();
            file.close().await.unwrap();
            self.began_to_wait();
        }
        Ok(Load { number: 0, bytes })
    }

    async fn ask(&self, _: &Context, request: Request<'_, Place>) -> Result<Load, Status> {
        let opened = self.gate.opened();
        let address: SocketAddr = request.path.parse().unwrap();
        let other = DeskClient::connect(address).await.unwrap();
        while self.gate.opened() == opened {
            let reply = other.echo(&load(4, 400)).await?;
            assert_is(&reply, 4, 400);
            self.began_to_wait();
        }
        other.echo(&load(5, 50_000)).await?.to_owned()
    }

    async fn keep(&self, _: &Context, request: Request<'_, Load>) -> Result<Unit, Status> {
        self.kept.borrow_mut().push(request.retain()?);
        Ok(Unit)
    }

    async fn recall(&self, _: &Context, _: Request<'_, Unit>) -> Result<Load, Status> {
        let kept = self.kept.borrow_mut().remove(0);
        Ok(Load { number: kept.number.into(), bytes: kept.bytes.to_vec() })
    }

    async fn panic(&self, _: &Context, _: Request<'_, Load>) -> Result<Load, Status> {
        // As `panic!`, and prints nothing.
        resume_unwind(Box::new("on purpose"))
    }

    async fn panic_later(&self, _: &Context, _: Request<'_, Load>) -> Result<Load, Status> {
        self.began_to_wait();
        self.gate.wait().await;
        resume_unwind(Box::new("on purpose"))
    }

    async fn block(&self, _: &Context, _: Request<'_, Unit>) -> Result<Unit, Status> {
        self.began_to_wait();
        until("the test unblocks the shard", || self.watch.unblocked.load(Relaxed) > 0);
        Ok(Unit)
    }
}

/// A server of one shard, and what its handlers show.
pub(crate) struct Office {
    pub(crate) server: ServerHandle,
    pub(crate) watch: Arc<Watch>,
}

impl Office {
    pub(crate) fn start() -> Self {
        Self::with(ShardConfig::new())
    }

    pub(crate) fn with(config: ShardConfig) -> Self {
        Self::of(one_shard().shard(config))
    }

    pub(crate) fn of(builder: ServerBuilder) -> Self {
        let watch = Arc::<Watch>::default();
        let theirs = Arc::clone(&watch);
        let desk = move |_| {
            let watch = Arc::clone(&theirs);
            DeskServer::new(Clerk { watch, ..Clerk::default() })
        };
        Self { server: builder.serve("127.0.0.1:0", desk).unwrap(), watch }
    }

    pub(crate) async fn connect(&self) -> DeskClient {
        DeskClient::connect(self.server.address()).await.unwrap()
    }

    /// Waits until handlers have waited so many times.
    pub(crate) async fn has_waited(&self, waits: u64) {
        until_async("handlers wait", || self.waits() >= waits).await;
    }

    pub(crate) fn waits(&self) -> u64 {
        self.watch.waits.load(Relaxed)
    }
}

/// Calls that pass in the meantime: of every size that is received in its own way.
pub(crate) async fn pass_calls(desk: &DeskClient, calls: usize) {
    let workers = (0..50_usize).map(|worker| async move {
        for call in (worker..calls).step_by(50) {
            // Pieces of a buffer, several buffers, and one of their own.
            let len = match call % 100 {
                0 => 40_000,
                1 => 6_000,
                other => other * 3,
            };
            let number = call as u64;
            let reply = desk.echo(&load(number, len)).await.unwrap();
            assert_is(&reply, number, len);
        }
    });
    all(workers).await;
}

pub(crate) fn run<T: 'static, F: Future<Output = T>>(future: F) -> T {
    ringcall::run(future).unwrap()
}

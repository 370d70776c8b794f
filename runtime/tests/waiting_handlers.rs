//! Handlers that wait, panic or lose their caller: they get what they wait for, and nobody else
//! notices.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod support;

use std::{
    cell::{Cell, RefCell},
    fs,
    net::SocketAddr,
    panic::resume_unwind,
    path::PathBuf,
    pin::pin,
    process,
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use ringcall::{ClientConfig, RunConfig, Service, ShardConfig, SocketConfig, prelude::*};
use support::{
    event::{Background, Gate, Noted, background},
    raw::{Peer, archive, call, request},
    server::{counters, one_shard, serve},
    wait::{all, until, until_async, watched},
};

/// Bytes, with a number that they follow from.
#[ringcall::message]
pub struct Load {
    pub number: u64,
    pub bytes: Vec<u8>,
}

#[ringcall::message]
pub struct Unit;

#[ringcall::message]
pub struct Place {
    pub path: String,
}

#[ringcall::service]
pub trait Desk {
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
struct Watch {
    /// Waits that have begun.
    waits: AtomicU64,
    /// Handlers of `hold` and `give_way` that run, and the most that ever did.
    running: AtomicU64,
    running_max: AtomicU64,
    /// Whether `block` is to go on.
    unblocked: AtomicU64,
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
    watch: Arc<Watch>,
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

fn load(number: u64, len: usize) -> Load {
    let byte = |at: usize| (at as u64).wrapping_mul(number | 1).rotate_left(23) as u8;
    Load { number, bytes: (0..len).map(byte).collect() }
}

#[track_caller]
fn assert_is(reply: &ArchivedLoad, number: u64, len: usize) {
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
struct Office {
    server: ServerHandle,
    watch: Arc<Watch>,
}

impl Office {
    fn start() -> Self {
        Self::with(ShardConfig::new())
    }

    fn with(config: ShardConfig) -> Self {
        let watch = Arc::<Watch>::default();
        let theirs = Arc::clone(&watch);
        let server = serve(config, move || {
            DeskServer::new(Clerk { watch: Arc::clone(&theirs), ..Clerk::default() })
        });
        Self { server, watch }
    }

    async fn connect(&self) -> DeskClient {
        DeskClient::connect(self.server.address()).await.unwrap()
    }

    /// Waits until handlers have waited so many times.
    async fn has_waited(&self, waits: u64) {
        until_async("handlers wait", || self.waits() >= waits).await;
    }

    fn waits(&self) -> u64 {
        self.watch.waits.load(Relaxed)
    }
}

/// Calls that pass in the meantime: of every size that is received in its own way.
async fn pass_calls(desk: &DeskClient, calls: usize) {
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

/// Starts a call that waits until `open`; its neighbours are served before that, and it is
/// answered after.
async fn waits_among_neighbours<F>(office: &Office, start: impl FnOnce(DeskClient) -> F) -> Load
where
    F: Future<Output = Load> + 'static,
{
    let (desk, other) = (office.connect().await, office.connect().await);
    let waiting = background(start(desk.clone()));
    // It got what it waits for a few times, and waits again.
    office.has_waited(3).await;
    pass_calls(&desk, 100).await;
    pass_calls(&other, 100).await;
    let waits = office.waits();
    office.has_waited(waits + 3).await;
    assert!(!waiting.is_done());
    other.open(&Unit).await.unwrap();
    waiting.await
}

fn run<T: 'static, F: Future<Output = T>>(future: F) -> T {
    ringcall::run(future).unwrap()
}

#[test]
fn a_handler_that_sleeps_works_and_its_neighbours_are_served() {
    watched(|| {
        let office = Office::start();
        run(async {
            let sleep = |desk: DeskClient| async move {
                let reply = desk.sleep(&load(1, 1000)).await.unwrap();
                reply.to_owned().unwrap()
            };
            let reply = waits_among_neighbours(&office, sleep).await;
            assert_eq!(reply.bytes, load(1, 1000).bytes);
        });
        assert_eq!(counters(&office.server).calls_spawned, 1);
    });
}

#[test]
fn a_handler_that_waits_on_a_timer_of_the_executor_works_and_its_neighbours_are_served() {
    watched(|| {
        let office = Office::start();
        run(async {
            let tick = |desk: DeskClient| async move {
                let reply = desk.tick(&load(2, 2000)).await.unwrap();
                reply.to_owned().unwrap()
            };
            let reply = waits_among_neighbours(&office, tick).await;
            assert_eq!(reply.bytes, load(2, 2000).bytes);
        });
        assert_eq!(counters(&office.server).calls_spawned, 1);
    });
}

/// A file that is there for as long as this is.
struct File(PathBuf);

impl File {
    fn create(bytes: &[u8]) -> Self {
        static FILES: AtomicU64 = AtomicU64::new(0);
        let name = format!("ringcall-{}-{}", process::id(), FILES.fetch_add(1, Relaxed));
        let path = std::env::temp_dir().join(name);
        fs::write(&path, bytes).unwrap();
        Self(path)
    }
}

impl Drop for File {
    fn drop(&mut self) {
        fs::remove_file(&self.0).unwrap();
    }
}

#[test]
fn a_handler_that_reads_a_file_works_and_its_neighbours_are_served() {
    watched(|| {
        let office = Office::start();
        let written = load(3, 300_000).bytes;
        let file = File::create(&written);
        let path = file.0.to_str().unwrap().to_owned();
        run(async {
            let read = |desk: DeskClient| async move {
                let reply = desk.read(&Place { path }).await.unwrap();
                reply.to_owned().unwrap()
            };
            let reply = waits_among_neighbours(&office, read).await;
            assert_eq!(reply.bytes, written);
        });
        assert_eq!(counters(&office.server).calls_spawned, 1);
    });
}

/// A handler that calls the server at an address.
fn a_handler_calls(office: &Office, address: SocketAddr) {
    run(async {
        let path = address.to_string();
        let ask = |desk: DeskClient| async move {
            let reply = desk.ask(&Place { path }).await.unwrap();
            reply.to_owned().unwrap()
        };
        let reply = waits_among_neighbours(office, ask).await;
        assert_eq!(reply.bytes, load(5, 50_000).bytes);
    });
}

#[test]
fn a_handler_that_calls_another_server_works_and_its_neighbours_are_served() {
    watched(|| {
        let (office, other) = (Office::start(), Office::start());
        a_handler_calls(&office, other.server.address());
        assert!(counters(&office.server).calls_made > 0);
        assert!(counters(&other.server).calls_inline > 0);
    });
}

#[test]
fn a_handler_that_calls_its_own_shard_works_and_its_neighbours_are_served() {
    watched(|| {
        let office = Office::start();
        a_handler_calls(&office, office.server.address());
        let counters = counters(&office.server);
        assert!(counters.calls_made > 0);
        // Two of the test, and that of the handler.
        assert_eq!(counters.connections_accepted, 3);
    });
}

/// Lengths of what is held: a few bytes, most of a small buffer, several of them, a large frame.
const HELD_LENS: [usize; 12] =
    [1, 16, 48, 100, 1000, 2000, 3900, 5000, 9000, 17_000, 60_000, 200_000];

/// Requests are held across an await while 10,000 calls pass.
fn hold_requests(config: ShardConfig) -> ringcall::ShardCounters {
    let office = Office::with(config);
    run(async {
        let (desk, other) = (office.connect().await, office.connect().await);
        let mut held = Vec::new();
        for (number, len) in (0..).zip(HELD_LENS) {
            let holder = desk.clone();
            held.push(background(async move {
                let reply = holder.hold(&load(number, len)).await.unwrap();
                assert_is(&reply, number, len);
            }));
            // One after the other, so that each has a buffer of its own.
            office.has_waited(number + 1).await;
        }
        pass_calls(&desk, 5_000).await;
        pass_calls(&other, 5_000).await;
        assert!(!held.iter().any(Background::is_done));
        other.open(&Unit).await.unwrap();
        all(held).await;
    });
    let counters = counters(&office.server);
    assert_eq!(counters.calls_spawned, HELD_LENS.len() as u64);
    assert_eq!(counters.calls_inline, 10_001);
    counters
}

#[test]
fn a_held_request_reads_the_same_after_10_000_other_calls() {
    watched(|| {
        let counters = hold_requests(ShardConfig::new());
        assert_eq!(counters.frames_copied_pressure, 0);
    });
}

#[test]
fn a_held_request_reads_the_same_where_buffers_are_so_few_that_bodies_are_copied() {
    watched(|| {
        let counters = hold_requests(ShardConfig::new().receive_buffers(8, 4096));
        assert!(counters.frames_copied_pressure > 0);
    });
}

/// Requests are retained beyond their calls while 10,000 calls pass.
fn retain_requests(config: ShardConfig) {
    let office = Office::with(config);
    run(async {
        let desk = office.connect().await;
        for (number, len) in (0..).zip(HELD_LENS) {
            desk.keep(&load(number, len)).await.unwrap();
        }
        pass_calls(&desk, 10_000).await;
        for (number, len) in (0..).zip(HELD_LENS) {
            let kept = desk.recall(&Unit).await.unwrap();
            assert_is(&kept, number, len);
        }
    });
    assert_eq!(counters(&office.server).calls_spawned, 0);
}

#[test]
fn a_retained_request_reads_the_same_after_10_000_other_calls() {
    watched(|| retain_requests(ShardConfig::new()));
}

#[test]
fn a_retained_request_reads_the_same_where_buffers_are_few() {
    watched(|| retain_requests(ShardConfig::new().receive_buffers(8, 4096)));
}

/// Responses are kept by the client while 10,000 calls pass.
fn keep_responses(config: ShardConfig) {
    let office = Office::start();
    let run = RunConfig::new().shard(config).run(async {
        let desk = office.connect().await;
        let mut kept = Vec::new();
        for (number, len) in (0..).zip(HELD_LENS) {
            kept.push(desk.echo(&load(number, len)).await.unwrap());
        }
        pass_calls(&desk, 10_000).await;
        for ((number, len), response) in (0..).zip(HELD_LENS).zip(&kept) {
            assert_is(response, number, len);
        }
        kept.truncate(6);
        kept
    });
    // Neither the connection nor its shard is there any more.
    for ((number, len), response) in (0..).zip(HELD_LENS).zip(run.unwrap()) {
        assert_is(&response, number, len);
    }
}

#[test]
fn a_kept_response_reads_the_same_after_10_000_other_calls() {
    watched(|| keep_responses(ShardConfig::new()));
}

#[test]
fn a_kept_response_reads_the_same_where_buffers_are_few() {
    watched(|| keep_responses(ShardConfig::new().receive_buffers(8, 4096)));
}

#[track_caller]
fn assert_panicked(outcome: Result<Response<Load>, Status>) {
    let status = outcome.map(drop).unwrap_err();
    assert_eq!(status.code(), Code::Internal);
    assert_eq!(status.message(), "the handler panicked");
    assert!(!status.is_not_executed());
}

#[test]
fn a_handler_that_panics_at_once_fails_its_call_and_nothing_else() {
    watched(|| {
        let office = Office::start();
        run(async {
            let (desk, other) = (office.connect().await, office.connect().await);
            let holder = desk.clone();
            let held = background(async move {
                let reply = holder.hold(&load(9, 900)).await.unwrap();
                assert_is(&reply, 9, 900);
            });
            office.has_waited(1).await;
            for round in 0..20 {
                // Side by side in one buffer.
                let (panics, works) = (load(1, 100), load(round, 200));
                let calls = async {
                    let (first, second) = (desk.panic(&panics), desk.echo(&works));
                    let mut first = pin!(first);
                    let mut second = pin!(second);
                    let noted = Noted::new();
                    assert!(noted.poll(first.as_mut()).is_pending());
                    assert!(noted.poll(second.as_mut()).is_pending());
                    (first.await, second.await)
                };
                let (first, second) = calls.await;
                assert_panicked(first);
                assert_is(&second.unwrap(), round, 200);
                let reply = other.echo(&load(round, 300)).await.unwrap();
                assert_is(&reply, round, 300);
            }
            other.open(&Unit).await.unwrap();
            held.await;
            let counters = counters(&office.server);
            assert_eq!(counters.handlers_panicked, 20);
            assert_eq!(counters.connections_closed, 0);
        });
        office.server.stop();
        office.server.join().unwrap();
    });
}

#[test]
fn a_handler_that_panics_after_an_await_fails_its_call_and_nothing_else() {
    watched(|| {
        let office = Office::start();
        run(async {
            let (desk, other) = (office.connect().await, office.connect().await);
            let mut waits = 0;
            for round in 0..20 {
                let panicking = desk.clone();
                let panics = background(async move { panicking.panic_later(&load(1, 100)).await });
                let holder = desk.clone();
                let held = background(async move { holder.hold(&load(round, 900)).await });
                waits += 2;
                office.has_waited(waits).await;
                other.open(&Unit).await.unwrap();
                assert_panicked(panics.await);
                assert_is(&held.await.unwrap(), round, 900);
                let reply = other.echo(&load(round, 300)).await.unwrap();
                assert_is(&reply, round, 300);
            }
            let counters = counters(&office.server);
            assert_eq!(counters.handlers_panicked, 20);
            assert_eq!(counters.connections_closed, 0);
        });
        office.server.stop();
        office.server.join().unwrap();
    });
}

/// A call that is dropped gives back its slot: few slots, and many calls that are dropped.
fn drop_calls<F>(drop_one: impl Fn(Rc<Office>, DeskClient, u64) -> F)
where
    F: Future<Output = ()>,
{
    let office = Rc::new(Office::with(ShardConfig::new().calls_in_flight_max(4)));
    run(async {
        let desk = office.connect().await;
        for round in 0..100 {
            drop_one(Rc::clone(&office), desk.clone(), round).await;
            let reply = desk.echo(&load(round, 77)).await.unwrap();
            assert_is(&reply, round, 77);
        }
        // All four slots are there.
        let waits = office.waits();
        let held = (0..4).map(|number| {
            let desk = desk.clone();
            background(async move {
                let reply = desk.hold(&load(number, 10)).await.unwrap();
                assert_is(&reply, number, 10);
            })
        });
        let held: Vec<_> = held.collect();
        office.has_waited(waits + 4).await;
        office.connect().await.open(&Unit).await.unwrap();
        all(held).await;
    });
    assert_eq!(counters(&office.server).protocol_errors, 0);
}

#[test]
fn a_call_that_is_dropped_before_it_is_polled_costs_nothing() {
    watched(|| {
        drop_calls(|_, desk, round| async move {
            let request = load(round, 100);
            drop(desk.echo(&request));
        });
    });
}

#[test]
fn a_call_that_is_dropped_unsent_gives_its_slot_back() {
    watched(|| {
        drop_calls(|_, desk, round| async move {
            let request = load(round, 100);
            for _ in 0..10 {
                let mut call = Box::pin(desk.echo(&request));
                assert!(Noted::new().poll(call.as_mut()).is_pending());
            }
        });
    });
}

#[test]
fn a_call_that_is_dropped_in_flight_gives_its_slot_back() {
    watched(|| {
        drop_calls(|office, desk, round| async move {
            let request = load(round, 100);
            let waits = office.waits();
            let mut call = Box::pin(desk.hold(&request));
            assert!(Noted::new().poll(call.as_mut()).is_pending());
            office.has_waited(waits + 1).await;
            drop(call);
            // Its slot is taken until the handler has ended; others are not.
            let reply = desk.echo(&load(round, 55)).await.unwrap();
            assert_is(&reply, round, 55);
            desk.open(&Unit).await.unwrap();
        });
    });
}

#[test]
fn a_call_that_is_dropped_answered_gives_its_slot_back() {
    watched(|| {
        drop_calls(|_, desk, round| async move {
            let request = load(round, 100);
            let noted = Noted::new();
            let mut call = Box::pin(desk.echo(&request));
            assert!(noted.poll(call.as_mut()).is_pending());
            until_async("the answer is there", || noted.take()).await;
            drop(call);
        });
    });
}

/// Polls a call once; it must wait.
macro_rules! begin {
    ($noted:expr, $call:expr) => {
        assert!($noted.poll($call.as_mut()).is_pending())
    };
}

#[test]
fn a_caller_that_waits_for_room_and_is_dropped_lets_the_next_go() {
    watched(|| {
        let office = Office::with(ShardConfig::new().calls_in_flight_max(1));
        run(async {
            let desk = office.connect().await;
            for round in 0..50 {
                let (a, b, c) = (load(round, 10), load(round, 20), load(round, 30));
                let noted = [(); 3].map(|()| Noted::new());
                let mut first = Box::pin(desk.echo(&a));
                let mut second = Box::pin(desk.echo(&b));
                let mut third = Box::pin(desk.echo(&c));
                begin!(noted[0], first);
                // Polled again for no reason, as by a `select`.
                begin!(noted[1], second);
                begin!(noted[1], second);
                begin!(noted[2], third);
                begin!(noted[1], second);
                let reply = first.await.unwrap();
                assert_is(&reply, round, 10);
                // There is room, and the second was told. It does not take it.
                assert!(noted[1].take());
                assert!(!noted[2].take());
                drop(second);
                assert!(noted[2].take());
                assert_is(&third.await.unwrap(), round, 30);
            }
        });
    });
}

#[test]
fn a_caller_that_is_polled_for_no_reason_takes_no_wake_up_from_others() {
    watched(|| {
        let office = Office::with(ShardConfig::new().calls_in_flight_max(2));
        run(async {
            let (desk, other) = (office.connect().await, office.connect().await);
            for round in 0..50 {
                let requests = [0, 1, 2, 3].map(|at| load(round * 4 + at, 40));
                let noted = [(); 4].map(|()| Noted::new());
                let waits = office.waits();
                let mut held = Box::pin(desk.hold(&requests[0]));
                let mut quick = Box::pin(desk.echo(&requests[1]));
                begin!(noted[0], held);
                begin!(noted[1], quick);
                // Two wait, the first with many polls; one place comes free, then another.
                let mut eager = Box::pin(desk.hold(&requests[2]));
                let mut patient = Box::pin(desk.echo(&requests[3]));
                for _ in 0..5 {
                    begin!(noted[2], eager);
                }
                begin!(noted[3], patient);
                quick.await.unwrap();
                assert!(noted[2].take());
                begin!(noted[2], eager);
                office.has_waited(waits + 2).await;
                other.open(&Unit).await.unwrap();
                // Both held calls are answered, and only one of them is taken.
                held.await.unwrap();
                until_async("the patient one is told", || noted[3].take()).await;
                assert_is(&patient.await.unwrap(), round * 4 + 3, 40);
                eager.await.unwrap();
            }
        });
    });
}

/// More calls than may be in flight: as tasks, and all polled by one task.
fn exceed_calls_in_flight(calls: u64, config: ShardConfig, max: u64) {
    let office = Office::with(config);
    let watch = Arc::clone(&office.watch);
    run(async move {
        let desk = office.connect().await;
        let call = |number: u64| {
            let desk = desk.clone();
            async move {
                let reply = desk.give_way(&load(number, 33)).await.unwrap();
                assert_is(&reply, number, 33);
            }
        };
        let tasks: Vec<_> = (0..calls).map(|number| background(call(number))).collect();
        for task in tasks {
            task.await;
        }
        all((0..calls.min(200)).map(call)).await;
        let running_max = watch.running_max.load(Relaxed);
        assert!((1..=max).contains(&running_max), "{running_max} at once");
        assert_eq!(watch.running.load(Relaxed), 0);
    });
}

#[test]
fn more_calls_than_the_server_accepts_wait_and_all_complete() {
    watched(|| {
        for max in [1, 2, 7, 64] {
            let config = ShardConfig::new().calls_in_flight_max(max);
            exceed_calls_in_flight(1_000, config, max.into());
        }
    });
}

#[test]
fn more_calls_than_the_default_wait_and_all_complete() {
    watched(|| exceed_calls_in_flight(6_000, ShardConfig::new(), 4_096));
}

#[test]
fn callers_wait_while_the_send_buffer_is_full_and_all_complete() {
    const LEN: usize = 64 * 1024;
    watched(|| {
        let watch = Arc::<Watch>::default();
        let theirs = Arc::clone(&watch);
        let small =
            SocketConfig::new().send_buffer_bytes(64 * 1024).receive_buffer_bytes(64 * 1024);
        let server = one_shard().socket(small.clone()).serve("127.0.0.1:0", move |_| {
            DeskServer::new(Clerk { watch: Arc::clone(&theirs), ..Clerk::default() })
        });
        let server = server.unwrap();
        let config = ShardConfig::new().send_buffer_max(2 * LEN);
        let run = RunConfig::new().shard(config).run(async {
            let config = ClientConfig::new().socket(small);
            let desk = DeskClient::with(&config, server.address());
            let desk = desk.await.unwrap();
            let blocking = desk.clone();
            let blocked = background(async move { blocking.block(&Unit).await.map(drop) });
            until_async("the server reads no more", || watch.waits.load(Relaxed) > 0).await;
            let calls = (0..200).map(|number| {
                let desk = desk.clone();
                background(async move {
                    let reply = desk.echo(&load(number, LEN)).await.unwrap();
                    assert_is(&reply, number, LEN);
                })
            });
            let calls: Vec<_> = calls.collect();
            // Everything that fits into sockets and buffers is there, and most does not.
            let mut made = 0;
            until_async("nothing moves any more", || {
                let now = ringcall::counters().unwrap().bytes_sent;
                std::mem::replace(&mut made, now) == now
            })
            .await;
            let made = ringcall::counters().unwrap().calls_made;
            assert!(made < 100, "{made} calls made");
            watch.unblocked.store(1, Relaxed);
            for call in calls {
                call.await;
            }
            blocked.await.unwrap();
        });
        run.unwrap();
    });
}

/// A connection ends while its handlers wait; they go on, and read requests that came on it.
fn end_a_connection<F: Future<Output = ()>>(office: &Office, calls: u64, end: impl FnOnce() -> F) {
    run(async {
        let bystander = office.connect().await;
        end().await;
        pass_calls(&bystander, 1_000).await;
        assert_eq!(office.watch.running.load(Relaxed), calls);
        bystander.open(&Unit).await.unwrap();
        until_async("the handlers have ended", || office.watch.running.load(Relaxed) == 0).await;
        until_async("the connection is closed", || {
            counters(&office.server).connections_closed == 1
        })
        .await;
        pass_calls(&bystander, 1_000).await;
        let counters = counters(&office.server);
        assert_eq!(counters.connections_closed, 1);
        assert_eq!(counters.protocol_errors, 0);
        assert_eq!(counters.handlers_panicked, 0);
    });
    office.server.stop();
}

#[test]
fn a_client_that_is_dropped_with_calls_in_flight_disturbs_nobody() {
    const CALLS: u64 = 100;
    watched(|| {
        let office = Office::start();
        end_a_connection(&office, CALLS, || async {
            let desk = office.connect().await;
            let requests: Vec<_> = (0..CALLS).map(|number| load(number, 500)).collect();
            let calls = requests.iter().map(|request| Box::pin(desk.hold(request)));
            let mut calls: Vec<_> = calls.collect();
            let noted = Noted::new();
            for call in &mut calls {
                assert!(noted.poll(call.as_mut()).is_pending());
            }
            office.has_waited(CALLS).await;
        });
        office.server.join().unwrap();
    });
}

#[test]
fn a_connection_that_is_reset_with_calls_in_flight_disturbs_nobody() {
    const CALLS: u64 = 100;
    watched(|| {
        let office = Office::start();
        end_a_connection(&office, CALLS, || async {
            let methods = DeskServer::<Clerk>::METHODS;
            let hold = methods.iter().find(|method| method.name == "Desk.hold");
            let hold = hold.unwrap().id;
            let mut peer = Peer::open(office.server.address());
            for number in 0..CALLS {
                let body = archive(&load(number, 500));
                peer.send(&request(call(number as u32, 1), hold, &body));
            }
            office.has_waited(CALLS).await;
            let socket = socket2::SockRef::from(&peer.stream);
            socket.set_linger(Some(Duration::ZERO)).unwrap();
        });
        let counters = counters(&office.server);
        assert_eq!(counters.replies_dropped, CALLS);
        office.server.join().unwrap();
    });
}

#[test]
fn clients_that_come_and_go_with_calls_in_flight_disturb_nobody() {
    watched(|| {
        let office = Office::start();
        run(async {
            let bystander = office.connect().await;
            let gone = Rc::new(Cell::new(0));
            for round in 0..100_u64 {
                let desk = office.connect().await;
                let waits = office.waits();
                let request = load(round, 50);
                let noted = Noted::new();
                let mut held = Box::pin(desk.hold(&request));
                let mut quick = Box::pin(desk.echo(&request));
                begin!(noted, held);
                begin!(noted, quick);
                // At every stage: unsent, in flight, waiting in the handler.
                match round % 3 {
                    0 => {}
                    1 => ringcall::yield_now().await,
                    _ => office.has_waited(waits + 1).await,
                }
                gone.set(gone.get() + 1);
                drop((held, quick));
                drop(desk);
                let reply = bystander.echo(&load(round, 60)).await.unwrap();
                assert_is(&reply, round, 60);
            }
            bystander.open(&Unit).await.unwrap();
            until_async("every connection is closed", || {
                counters(&office.server).connections_closed == gone.get()
            })
            .await;
            pass_calls(&bystander, 100).await;
        });
        assert_eq!(counters(&office.server).protocol_errors, 0);
    });
}

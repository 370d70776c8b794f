//! Shards: several on one port, started, stopped and started again, and what is said where they
//! cannot start.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod support;

use std::{
    cell::{Cell, RefCell},
    collections::BTreeSet,
    env,
    future::pending,
    net::{SocketAddr, TcpListener},
    panic::resume_unwind,
    process::{Command, Stdio},
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
        mpsc::channel,
    },
    task::{Context as TaskContext, Poll, Waker},
    thread,
    time::Duration,
};

use ringcall::{
    ConnectError, RunConfig, ServeError, ShardConfig, ShardError, ShardPlace, prelude::*,
    ring::RingError,
};
use support::{
    event::background,
    raw::Peer,
    server::{counters, usable_cores},
    wait::{until, until_async, watched},
};

#[ringcall::message]
pub struct Number {
    pub number: u64,
}

#[ringcall::message]
pub struct Place {
    pub index: u16,
    pub count: u16,
    pub served: u64,
}

#[ringcall::service]
pub trait Station {
    /// The shard that runs the call, and how many calls it ran before.
    async fn place(&self, cx: &Context, request: Request<'_, Number>) -> Result<Place, Status>;
    /// Adds one, at once.
    async fn add(&self, cx: &Context, request: Request<'_, Number>) -> Result<Number, Status>;
    /// Adds one, after a while.
    async fn wait(&self, cx: &Context, request: Request<'_, Number>) -> Result<Number, Status>;
    /// Never replies.
    async fn never(&self, cx: &Context, request: Request<'_, Number>) -> Result<Number, Status>;
}

struct Porter {
    served: Cell<u64>,
    /// Calls of `never` that wait now, on all shards.
    waiting: Arc<AtomicU64>,
}

/// One that waits, until its future is dropped.
struct Waits<'a>(&'a AtomicU64);

impl<'a> Waits<'a> {
    fn begin(waiting: &'a AtomicU64) -> Self {
        waiting.fetch_add(1, Relaxed);
        Self(waiting)
    }
}

impl Drop for Waits<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}

fn next(request: Request<'_, Number>) -> Number {
    Number { number: u64::from(request.number) + 1 }
}

impl Station for Porter {
    async fn place(&self, cx: &Context, _: Request<'_, Number>) -> Result<Place, Status> {
        let served = self.served.get();
        self.served.set(served + 1);
        let ShardPlace { index, count, .. } = cx.shard();
        Ok(Place { index, count, served })
    }

    async fn add(&self, _: &Context, request: Request<'_, Number>) -> Result<Number, Status> {
        Ok(next(request))
    }

    async fn wait(&self, _: &Context, request: Request<'_, Number>) -> Result<Number, Status> {
        ringcall::sleep(Duration::from_micros(100)).await;
        ringcall::yield_now().await;
        Ok(next(request))
    }

    async fn never(&self, _: &Context, _: Request<'_, Number>) -> Result<Number, Status> {
        let _waits = Waits::begin(&self.waiting);
        pending().await
    }
}

/// Cores for so many shards, each core as often as it must be.
fn cores(shards: usize) -> Vec<usize> {
    usable_cores().into_iter().cycle().take(shards).collect()
}

fn serve_at(address: SocketAddr, shards: usize) -> (ServerHandle, Arc<AtomicU64>) {
    let waiting = Arc::<AtomicU64>::default();
    let theirs = Arc::clone(&waiting);
    let server = Server::builder().cores(cores(shards)).serve(address, move |shard| {
        assert_eq!(usize::from(shard.count), shards);
        StationServer::new(Porter { served: Cell::new(0), waiting: Arc::clone(&theirs) })
    });
    (server.unwrap(), waiting)
}

const ANY_PORT: SocketAddr =
    SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 0);

fn serve(shards: usize) -> (ServerHandle, Arc<AtomicU64>) {
    serve_at(ANY_PORT, shards)
}

fn run<T: 'static, F: Future<Output = T>>(future: F) -> T {
    ringcall::run(future).unwrap()
}

fn all_shards_serve(shards: u16) {
    let (server, _) = serve(shards.into());
    run(async {
        let mut connections: Vec<StationClient> = Vec::new();
        let mut reached = BTreeSet::new();
        // The kernel chooses a shard by the connection's ports, as evenly as chance is.
        while connections.len() < 64 || reached.len() < usize::from(shards) {
            assert!(connections.len() < 1000, "only {reached:?} were reached");
            let station = StationClient::connect(server.address()).await.unwrap();
            reached.insert(station.client().shard().index);
            connections.push(station);
        }
        assert_eq!(reached, (0..shards).collect());
        // Each connection stays where it is, and each shard counts for itself.
        let mut served = vec![0; shards.into()];
        for round in 0..3 {
            for station in &connections {
                let place = station.place(&Number { number: round }).await.unwrap();
                let ShardPlace { index, count, .. } = station.client().shard();
                assert_eq!((place.index.into(), place.count.into()), (index, count));
                assert_eq!(count, shards);
                let served = &mut served[usize::from(index)];
                assert_eq!(place.served, *served);
                *served += 1;
            }
        }
        let counters = server.counters();
        assert_eq!(counters.len(), usize::from(shards));
        for (counters, served) in counters.iter().zip(served) {
            assert_eq!(counters.calls_inline, served);
            assert_eq!(counters.connections_accepted * 3, served);
        }
    });
    server.stop();
    server.join().unwrap();
}

#[test]
fn one_shard_serves() {
    watched(|| all_shards_serve(1));
}

#[test]
fn two_shards_on_one_port_all_serve() {
    watched(|| all_shards_serve(2));
}

#[test]
fn three_shards_on_one_port_all_serve() {
    watched(|| all_shards_serve(3));
}

#[test]
fn four_shards_on_one_port_all_serve() {
    watched(|| all_shards_serve(4));
}

const CONNECTIONS: usize = 16;
const CALLS_OF_EACH_KIND: usize = 8;

/// What became of the calls that were in flight when a server stopped.
#[derive(Clone, Default)]
struct Outcomes {
    answered: Rc<Cell<u64>>,
    failed: Rc<RefCell<Vec<Status>>>,
}

impl Outcomes {
    /// Whether the call was answered.
    fn note(&self, outcome: Result<Response<Number>, Status>) -> bool {
        match outcome {
            Ok(_) => self.answered.set(self.answered.get() + 1),
            Err(status) => {
                self.failed.borrow_mut().push(status);
                return false;
            }
        }
        true
    }
}

/// Calls of every kind are in flight on many connections when a server stops: each is answered or
/// fails, and what comes after fails.
fn stop_under_load(shards: usize, stop: impl FnOnce(ServerHandle) + Send + 'static) {
    let (server, waiting) = serve(shards);
    let address = server.address();
    let never_ending = (CONNECTIONS * CALLS_OF_EACH_KIND) as u64;
    let (under_load, is_under_load) = channel();
    let stopper = thread::spawn(move || {
        is_under_load.recv().unwrap();
        stop(server);
    });
    run(async {
        let outcomes = Outcomes::default();
        let mut connections = Vec::new();
        let mut callers = Vec::new();
        for _ in 0..CONNECTIONS {
            let station = StationClient::connect(address).await.unwrap();
            for caller in 0..CALLS_OF_EACH_KIND {
                let request = Number { number: 1 };
                let (one, outcomes_one) = (station.clone(), outcomes.clone());
                callers.push(background(async move {
                    outcomes_one.note(one.never(&request).await);
                }));
                let (one, outcomes) = (station.clone(), outcomes.clone());
                callers.push(background(async move {
                    let request = Number { number: 1 };
                    let mut goes_on = true;
                    while goes_on {
                        goes_on = match caller % 2 {
                            0 => outcomes.note(one.add(&request).await),
                            _ => outcomes.note(one.wait(&request).await),
                        };
                    }
                }));
            }
            connections.push(station);
        }
        until_async("the server is under load", || {
            waiting.load(Relaxed) == never_ending && outcomes.answered.get() > 1_000
        })
        .await;
        under_load.send(()).unwrap();
        // None hangs.
        for caller in callers {
            caller.await;
        }
        let failed = outcomes.failed.take();
        assert_eq!(failed.len(), 2 * CONNECTIONS * CALLS_OF_EACH_KIND);
        for status in failed {
            assert_eq!(status.code(), Code::Unavailable, "{status}");
        }
        for station in &connections {
            let status = station.add(&Number { number: 1 }).await.map(drop).unwrap_err();
            assert_eq!(status.code(), Code::Unavailable);
            assert!(status.is_not_executed());
            assert!(!station.client().is_open());
        }
    });
    stopper.join().unwrap();
    assert_eq!(waiting.load(Relaxed), 0, "every handler's future is dropped");
    // Nobody listens: the port is free, also for who does not share it.
    let error = run(async { StationClient::connect(address).await.map(drop).unwrap_err() });
    assert!(matches!(error, ConnectError::Connect { .. }), "{error}");
    drop(TcpListener::bind(address).unwrap());
    let (again, _) = serve_at(address, shards);
    run(async {
        let station = StationClient::connect(address).await.unwrap();
        let reply = station.add(&Number { number: 7 }).await.unwrap();
        assert_eq!(reply.number, 8);
    });
    drop(again);
}

#[test]
fn stopping_answers_or_fails_every_call() {
    watched(|| {
        stop_under_load(2, |server| {
            server.stop();
            server.join().unwrap();
        });
    });
}

#[test]
fn stopping_one_shard_answers_or_fails_every_call() {
    watched(|| {
        stop_under_load(1, |server| {
            server.stop();
            // Twice is once.
            server.stop();
            server.join().unwrap();
        });
    });
}

#[test]
fn dropping_a_server_answers_or_fails_every_call() {
    watched(|| stop_under_load(3, drop));
}

#[test]
fn stopping_tells_the_callers_why() {
    watched(|| {
        let (server, waiting) = serve(1);
        run(async {
            let station = StationClient::connect(server.address()).await.unwrap();
            let calling = station.clone();
            let call = background(async move {
                let outcome = calling.never(&Number { number: 1 }).await;
                outcome.map(drop).unwrap_err()
            });
            until_async("the handler waits", || waiting.load(Relaxed) == 1).await;
            server.stop();
            let status = call.await;
            assert_eq!(status.code(), Code::Unavailable);
            assert_eq!(status.message(), "the server stops");
            // Its handler ran, for all that is known.
            assert!(!status.is_not_executed());
            until_async("the connection is closed", || !station.client().is_open()).await;
            let late = station.never(&Number { number: 2 }).await.map(drop).unwrap_err();
            assert_eq!(late.message(), "the connection is closed: the server stops");
            assert!(late.is_not_executed());
        });
        server.join().unwrap();
    });
}

#[test]
fn a_server_is_stopped_from_another_thread_while_this_one_waits_for_it() {
    watched(|| {
        let (server, _) = serve(2);
        let stopper = server.stopper();
        let other = thread::spawn(move || stopper.clone().stop());
        server.join().unwrap();
        other.join().unwrap();
    });
}

#[test]
fn a_peer_that_neither_reads_nor_leaves_does_not_keep_a_server_from_stopping() {
    watched(|| {
        let (server, _) = serve(2);
        let silent: Vec<_> = (0..8).map(|_| Peer::connect(server.address())).collect();
        let open: Vec<_> = (0..8).map(|_| Peer::open(server.address())).collect();
        until("all are accepted", || counters(&server).connections_accepted == 16);
        server.stop();
        server.join().unwrap();
        drop((silent, open));
    });
}

#[test]
fn a_server_is_told_to_stop_before_anybody_came() {
    watched(|| {
        for shards in [1, 4] {
            drop(serve(shards));
            let (server, _) = serve(shards);
            server.stop();
            server.join().unwrap();
        }
    });
}

#[test]
fn a_client_of_a_stopped_server_connects_to_its_successor() {
    watched(|| {
        let (server, _) = serve(2);
        let address = server.address();
        run(async {
            let first = StationClient::connect(address).await.unwrap();
            first.add(&Number { number: 1 }).await.unwrap();
            // On another thread, as stopping waits for the peers to read that.
            thread::spawn(move || drop(server));
            until_async("the connection is closed", || !first.client().is_open()).await;
            let (server, _) = loop {
                // The shards of the first stop one after the other.
                if TcpListener::bind(address).is_ok() {
                    break serve_at(address, 2);
                }
                ringcall::sleep(Duration::from_millis(1)).await;
            };
            let second = StationClient::connect(address).await.unwrap();
            second.add(&Number { number: 1 }).await.unwrap();
            drop((second, first));
            server.stop();
            server.join().unwrap();
        });
    });
}

/// A service that panics where it is made, on one shard of several.
fn panic_where_made(shards: usize, panicking: u16) {
    // A port that others can have afterwards.
    let address = TcpListener::bind(ANY_PORT).unwrap().local_addr().unwrap();
    let server = Server::builder().cores(cores(shards)).serve(address, move |shard| {
        if shard.index == panicking {
            // As `panic!`, and prints nothing.
            resume_unwind(Box::new("on purpose"));
        }
        StationServer::new(Porter { served: Cell::new(0), waiting: Arc::default() })
    });
    match server.map(drop).unwrap_err() {
        ServeError::Panicked { index, message } => {
            assert_eq!(index, panicking);
            assert!(message.contains("on purpose"), "{message}");
        }
        error => panic!("{error}"),
    }
    drop(TcpListener::bind(address).unwrap());
}

#[test]
fn a_service_that_panics_where_it_is_made_is_an_error() {
    watched(|| {
        for (shards, panicking) in [(1, 0), (2, 0), (2, 1), (4, 2)] {
            panic_where_made(shards, panicking);
        }
    });
}

#[test]
fn a_task_that_panics_fails_its_shard_and_the_calls_on_it_alone() {
    struct Fragile {
        panics: Rc<Cell<bool>>,
        porter: Porter,
    }

    impl Station for Fragile {
        async fn place(&self, cx: &Context, request: Request<'_, Number>) -> Result<Place, Status> {
            self.porter.place(cx, request).await
        }

        async fn add(&self, cx: &Context, request: Request<'_, Number>) -> Result<Number, Status> {
            self.porter.add(cx, request).await
        }

        async fn wait(&self, _: &Context, request: Request<'_, Number>) -> Result<Number, Status> {
            self.panics.set(true);
            Ok(next(request))
        }

        async fn never(
            &self,
            cx: &Context,
            request: Request<'_, Number>,
        ) -> Result<Number, Status> {
            self.porter.never(cx, request).await
        }
    }

    watched(|| {
        let server = Server::builder().cores(cores(2)).serve(ANY_PORT, |_| {
            let panics = Rc::<Cell<bool>>::default();
            let theirs = Rc::clone(&panics);
            ringcall::spawn(async move {
                while !theirs.get() {
                    ringcall::sleep(Duration::from_millis(1)).await;
                }
                resume_unwind(Box::new("on purpose"));
            });
            StationServer::new(Fragile {
                panics,
                porter: Porter { served: Cell::new(0), waiting: Arc::default() },
            })
        });
        let server = server.unwrap();
        let failed = run(async {
            // A connection to each shard.
            let mut stations: [Option<StationClient>; 2] = [None, None];
            while stations.iter().any(Option::is_none) {
                let station = StationClient::connect(server.address()).await.unwrap();
                let index = usize::from(station.client().shard().index);
                stations[index] = Some(station);
            }
            let [fails, works] = stations.map(Option::unwrap);
            let failing = fails.clone();
            let call = background(async move {
                let outcome = failing.never(&Number { number: 1 }).await;
                outcome.map(drop).unwrap_err()
            });
            fails.wait(&Number { number: 1 }).await.unwrap();
            let status = call.await;
            assert_eq!(status.code(), Code::Unavailable, "{status}");
            let reply = works.add(&Number { number: 5 }).await.unwrap();
            assert_eq!(reply.number, 6);
            fails.client().shard().index
        });
        server.stop();
        match server.join().unwrap_err() {
            ServeError::Panicked { index, message } => {
                assert_eq!(index, failed);
                assert!(message.contains("on purpose"), "{message}");
            }
            error => panic!("{error}"),
        }
    });
}

#[test]
fn a_panic_of_the_future_that_runs_is_that_of_run() {
    watched(|| {
        for _ in 0..2 {
            let outcome = thread::spawn(|| {
                run(async {
                    ringcall::yield_now().await;
                    resume_unwind(Box::new("on purpose"));
                });
            });
            let panic = outcome.join().unwrap_err();
            assert_eq!(panic.downcast_ref(), Some(&"on purpose"));
            let outcome = thread::spawn(|| {
                run(async {
                    ringcall::spawn(async { resume_unwind(Box::new("on purpose")) });
                    pending::<()>().await;
                });
            });
            let panic = outcome.join().unwrap_err();
            assert_eq!(panic.downcast_ref(), Some(&"on purpose"));
        }
    });
}

/// The error of a server that cannot start.
#[track_caller]
fn refusal(builder: ringcall::ServerBuilder, address: SocketAddr) -> String {
    let server = builder.serve(address, |_| -> StationServer<Porter> { panic!("no shard starts") });
    server.map(drop).unwrap_err().to_string()
}

#[track_caller]
fn assert_says(error: &str, texts: &[&str]) {
    for text in texts {
        assert!(error.contains(text), "{error:?} does not say {text:?}");
    }
}

#[test]
fn a_port_in_use_is_an_error_that_says_what_to_do() {
    // It does not share its port.
    let holder = TcpListener::bind(ANY_PORT).unwrap();
    let address = holder.local_addr().unwrap();
    for shards in [1, 2] {
        let error = refusal(Server::builder().cores(cores(shards)), address);
        assert_says(&error, &[&address.to_string(), "another program", "ss -ltnp"]);
    }
}

#[test]
fn an_address_of_another_host_is_an_error_that_says_what_to_do() {
    // Set aside for documentation: nobody has it.
    let address = "192.0.2.1:0".parse().unwrap();
    let error = refusal(Server::builder().cores(cores(1)), address);
    assert_says(&error, &["192.0.2.1", "ip address"]);
}

#[test]
fn a_core_that_does_not_exist_is_an_error_that_says_which_do() {
    let available = usable_cores();
    let named: Vec<_> = available.iter().map(usize::to_string).collect();
    for core in [1023, 1024, usize::MAX] {
        let error = refusal(Server::builder().cores([available[0], core]), ANY_PORT);
        assert_says(&error, &[&format!("core {core}"), &named.join(", ")]);
        let error = RunConfig::new().core(core).run(async {}).unwrap_err();
        assert_says(&error.to_string(), &[&format!("core {core}"), &named.join(", ")]);
    }
}

#[test]
fn no_core_or_too_many_are_an_error_that_says_how_many() {
    let first = usable_cores()[0];
    let error = refusal(Server::builder().cores([]), ANY_PORT);
    assert_says(&error, &["0 cores", "1 to 1024"]);
    let error = refusal(Server::builder().cores([first; 1025]), ANY_PORT);
    assert_says(&error, &["1025 cores", "1 to 1024"]);
}

#[test]
fn a_name_without_an_address_is_an_error() {
    let none: &[SocketAddr] = &[];
    let server = Server::builder().cores(cores(1));
    let server = server.serve(none, |_| -> StationServer<Porter> { panic!("no shard starts") });
    assert!(matches!(server, Err(ServeError::NoAddress)));
    let client = run(async { StationClient::connect(none).await.map(drop) });
    assert!(matches!(client, Err(ConnectError::NoAddress)));
}

#[test]
fn a_setting_out_of_bounds_is_an_error_that_says_the_bounds() {
    let new = ShardConfig::new;
    let cases: [(ShardConfig, &[&str]); 21] = [
        (new().ring_entries(0), &["ring_entries is 0", "8 to 32768"]),
        (new().ring_entries(4), &["ring_entries is 4", "8 to 32768"]),
        (new().ring_entries(9), &["ring_entries is 9", "power of two"]),
        (new().ring_entries(65_536), &["ring_entries is 65536", "8 to 32768"]),
        (new().ring_entries(u32::MAX), &["ring_entries", "8 to 32768"]),
        (new().receive_buffers(0, 4096), &["receive_buffers count is 0", "4 to 32768"]),
        (new().receive_buffers(2, 4096), &["receive_buffers count is 2", "4 to 32768"]),
        (new().receive_buffers(100, 4096), &["count is 100", "power of two"]),
        (new().receive_buffers(65_535, 4096), &["count is 65535", "32768"]),
        (new().receive_buffers(8, 0), &["receive_buffers len is 0", "multiple of 4096"]),
        (new().receive_buffers(8, 4095), &["len is 4095", "multiple of 4096"]),
        (new().receive_buffers(8, 6000), &["len is 6000", "multiple of 4096"]),
        (new().receive_buffers(8, (1 << 20) + 4096), &["len is 1052672", "1 MiB"]),
        (new().receive_buffers(32_768, 1 << 20), &["1 GiB"]),
        (new().frame_len_max(0), &["frame_len_max is 0", "64 KiB to 1 GiB"]),
        (new().frame_len_max(65_535), &["frame_len_max is 65535", "64 KiB"]),
        (new().frame_len_max((1 << 30) + 1), &["frame_len_max is 1073741825", "1 GiB"]),
        (new().calls_in_flight_max(0), &["calls_in_flight_max is 0", "1 to 1048576"]),
        (new().calls_in_flight_max((1 << 20) + 1), &["is 1048577", "1 to 1048576"]),
        (new().send_buffer_max(0), &["send_buffer_max is 0", "at least 4096"]),
        (new().send_buffer_max(4095), &["send_buffer_max is 4095", "at least 4096"]),
    ];
    for (config, texts) in cases {
        let server = Server::builder().cores(cores(1)).shard(config.clone());
        assert_says(&refusal(server, ANY_PORT), texts);
        let error = RunConfig::new().shard(config).run(async {}).unwrap_err();
        assert_says(&error.to_string(), texts);
    }
}

#[test]
fn settings_at_their_bounds_are_accepted() {
    watched(|| {
        let new = ShardConfig::new;
        let cases = [
            new().ring_entries(8),
            new().ring_entries(32_768),
            new().receive_buffers(4, 4096),
            new().receive_buffers(4, 1 << 20),
            new().receive_buffers(32_768, 4096),
            new().frame_len_max(65_536),
            new().frame_len_max(1 << 30),
            new().calls_in_flight_max(1),
            new().calls_in_flight_max(1 << 20),
            new().send_buffer_max(4096),
            new().send_buffer_max(usize::MAX),
            new().spin(Duration::from_micros(50)),
        ];
        for config in cases {
            let server = Server::builder().cores(cores(1)).shard(config.clone());
            let server = server.serve(ANY_PORT, |_| {
                StationServer::new(Porter { served: Cell::new(0), waiting: Arc::default() })
            });
            let server = match server {
                Err(ServeError::Shard(ShardError::Ring(RingError::Memlock { .. }))) => {
                    println!("not tried, as too little memory may be locked: {config:?}");
                    continue;
                }
                server => server.unwrap(),
            };
            let run = RunConfig::new().shard(config).run(async {
                let station = StationClient::connect(server.address()).await.unwrap();
                for number in 0..100 {
                    let reply = station.add(&Number { number }).await.unwrap();
                    assert_eq!(reply.number, number + 1);
                    let reply = station.wait(&Number { number }).await.unwrap();
                    assert_eq!(reply.number, number + 1);
                }
            });
            run.unwrap();
        }
    });
}

#[test]
fn a_client_without_an_executor_is_an_error_that_says_what_to_do() {
    let mut connect = Box::pin(StationClient::connect(ANY_PORT));
    let mut cx = TaskContext::from_waker(Waker::noop());
    let Poll::Ready(Err(error)) = connect.as_mut().poll(&mut cx) else {
        panic!("there is no executor")
    };
    assert!(matches!(error, ConnectError::Shard(ShardError::NoExecutor)));
    assert_says(&error.to_string(), &["no executor", "ringcall::run"]);
}

#[test]
fn running_inside_of_an_executor_is_an_error_that_says_what_to_do() {
    run(async {
        let error = ringcall::run(async {}).unwrap_err();
        assert!(matches!(error, ShardError::ExecutorRuns));
        assert_says(&error.to_string(), &["already", "await"]);
        // The one that runs goes on.
        ringcall::sleep(Duration::from_micros(10)).await;
    });
}

#[test]
fn a_client_connects_from_an_executor_that_is_not_ours() {
    watched(|| {
        let (server, _) = serve(1);
        let executor = glommio::LocalExecutorBuilder::default().make().unwrap();
        executor.run(async {
            let station = StationClient::connect(server.address()).await.unwrap();
            let other = StationClient::connect(server.address()).await.unwrap();
            for number in 0..100 {
                assert_eq!(station.add(&Number { number }).await.unwrap().number, number + 1);
                assert_eq!(other.wait(&Number { number }).await.unwrap().number, number + 1);
            }
        });
    });
}

/// Set where this process is a child of a test, which starts what cannot start.
const CHILD: &str = "RINGCALL_TEST_CHILD";

/// No test, but what a child does: starts a server and a client, and prints how that fails.
#[test]
fn child_that_cannot_start() {
    if env::var_os(CHILD).is_none() {
        return;
    }
    let server = Server::builder().cores(cores(2));
    let server = server.serve(ANY_PORT, |_| {
        StationServer::new(Porter { served: Cell::new(0), waiting: Arc::default() })
    });
    match server {
        Ok(_) => println!("server: started"),
        Err(error) => println!("server: {error}"),
    }
    match ringcall::run(async {}) {
        Ok(()) => println!("client: started"),
        Err(error) => println!("client: {error}"),
    }
}

/// Runs the child by a command that takes its command line, and gives what it printed of a server
/// and of a client.
fn start_child(command: &mut Command) -> [String; 2] {
    let child = command
        .arg(env::current_exe().unwrap())
        .args(["--exact", "child_that_cannot_start", "--nocapture"])
        .env(CHILD, "1")
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let printed = String::from_utf8(child.stdout).unwrap();
    let said = |who: &str| {
        let line = printed.lines().find_map(|line| line.split_once(who));
        let (_, said) = line.unwrap_or_else(|| {
            let error = String::from_utf8_lossy(&child.stderr);
            panic!("the child says nothing of its {who}\n{printed}\n{error}")
        });
        said.to_owned()
    };
    [said("server: "), said("client: ")]
}

#[test]
fn the_child_starts_where_nothing_is_in_its_way() {
    watched(|| {
        let said = start_child(&mut Command::new("env"));
        assert_eq!(said, ["started", "started"]);
    });
}

#[test]
fn too_little_lockable_memory_is_an_error_that_says_what_to_do() {
    watched(|| {
        let mut limited = Command::new("sh");
        limited.args(["-c", "ulimit -l 64 && exec \"$0\" \"$@\""]);
        for said in start_child(&mut limited) {
            assert_says(&said, &["65536 bytes", "ulimit -l", "LimitMEMLOCK="]);
        }
    });
}

#[test]
fn too_few_descriptors_are_an_error_that_says_what_to_do() {
    watched(|| {
        // Each thing that is opened is in turn the one that cannot be.
        for descriptors in 4.. {
            let mut limited = Command::new("sh");
            let limit = format!("ulimit -n {descriptors} && exec \"$0\" \"$@\"");
            limited.args(["-c", &limit]);
            let said = start_child(&mut limited);
            for said in said.iter().filter(|said| *said != "started") {
                assert_says(said, &["open files", "ulimit -n", "LimitNOFILE="]);
            }
            if said == ["started", "started"] {
                assert!(descriptors > 12, "{descriptors} descriptors suffice");
                break;
            }
        }
    });
}

/// What a server and a client say where system calls fail that make a ring; nothing where strace
/// cannot be used.
fn start_with_fault(fault: &str) -> Option<[String; 2]> {
    let probe = Command::new("strace")
        .args(["-f", "-o", "/dev/null", "true"])
        .stderr(Stdio::null())
        .status();
    if !probe.is_ok_and(|status| status.success()) {
        println!("skipped: strace is not installed, or may not trace");
        return None;
    }
    let mut strace = Command::new("strace");
    strace.args(["-f", "-o", "/dev/null"]);
    strace.args(["-e", "trace=io_uring_setup"]);
    strace.args(["-e", &format!("inject=io_uring_setup:{fault}")]);
    Some(start_child(&mut strace))
}

#[test]
fn a_forbidden_io_uring_is_an_error_that_says_what_to_do() {
    watched(|| {
        for said in start_with_fault("error=EPERM").into_iter().flatten() {
            assert_says(&said, &["forbidden", "kernel.io_uring_disabled", "seccomp"]);
        }
    });
}

#[test]
fn a_missing_io_uring_is_an_error_that_says_what_to_do() {
    watched(|| {
        for said in start_with_fault("error=ENOSYS").into_iter().flatten() {
            assert_says(&said, &["no io_uring", "Linux 6.1"]);
        }
    });
}

#[test]
fn a_ring_that_the_kernel_has_no_memory_for_is_an_error_that_says_what_to_do() {
    watched(|| {
        for said in start_with_fault("error=ENOMEM").into_iter().flatten() {
            assert_says(&said, &["memory", "ulimit -l", "LimitMEMLOCK="]);
        }
    });
}

#[test]
fn a_ring_that_fails_later_is_an_error_and_not_a_panic() {
    watched(|| {
        // The first ring tries whether there can be any; then come those of the executor, and of
        // the shard.
        for nth in 2..=5 {
            let fault = format!("error=EPERM:when={nth}");
            if let Some([server, _]) = start_with_fault(&fault) {
                assert_says(&server, &["io_uring"]);
                assert!(!server.contains("panicked"), "{nth}: {server}");
            }
        }
    });
}

//! The driver and the executor it runs on: under full load user code goes on, and however the
//! executor sleeps, nothing is slept through.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod support;

use std::{
    cell::Cell,
    net::SocketAddr,
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use ringcall::{RunConfig, ShardConfig, prelude::*};
use support::{
    event::{Gate, background},
    server::{counters, usable_cores},
    wait::{until, watched, watched_for},
};

#[ringcall::message]
pub struct Number {
    pub number: u64,
}

#[ringcall::service]
pub trait Clock {
    /// Keeps the core busy for a while, and adds one.
    async fn work(&self, cx: &Context, request: Request<'_, Number>) -> Result<Number, Status>;
    /// Sleeps for a millisecond as often as it is told to.
    async fn nap(&self, cx: &Context, request: Request<'_, Number>) -> Result<Number, Status>;

    /// Adds one, at once.
    async fn add(&self, cx: &Context, request: Request<'_, Number>) -> Result<Number, Status>;
    /// Adds one, after it gave way.
    async fn give_way(&self, cx: &Context, request: Request<'_, Number>) -> Result<Number, Status>;
    /// Adds one, after it slept.
    async fn sleep(&self, cx: &Context, request: Request<'_, Number>) -> Result<Number, Status>;
    /// Adds one, after it was woken by `wake` with the same number, or a higher one.
    async fn meet(&self, cx: &Context, request: Request<'_, Number>) -> Result<Number, Status>;
    /// Adds one, and wakes those who wait to meet.
    async fn wake(&self, cx: &Context, request: Request<'_, Number>) -> Result<Number, Status>;
}

#[derive(Default)]
struct Service {
    gate: Gate,
    /// The number that `wake` was called with, plus one.
    woken: Cell<u64>,
}

fn next(request: Request<'_, Number>) -> Result<Number, Status> {
    Ok(Number { number: u64::from(request.number) + 1 })
}

impl Clock for Service {
    async fn work(&self, _: &Context, request: Request<'_, Number>) -> Result<Number, Status> {
        let since = Instant::now();
        while since.elapsed() < Duration::from_micros(10) {
            std::hint::spin_loop();
        }
        next(request)
    }

    async fn nap(&self, _: &Context, request: Request<'_, Number>) -> Result<Number, Status> {
        for _ in 0..u64::from(request.number) {
            ringcall::sleep(Duration::from_millis(1)).await;
        }
        next(request)
    }

    async fn add(&self, _: &Context, request: Request<'_, Number>) -> Result<Number, Status> {
        next(request)
    }

    async fn give_way(&self, _: &Context, request: Request<'_, Number>) -> Result<Number, Status> {
        ringcall::yield_now().await;
        next(request)
    }

    async fn sleep(&self, _: &Context, request: Request<'_, Number>) -> Result<Number, Status> {
        ringcall::sleep(Duration::from_micros(20)).await;
        next(request)
    }

    async fn meet(&self, _: &Context, request: Request<'_, Number>) -> Result<Number, Status> {
        while self.woken.get() <= request.number.into() {
            self.gate.wait().await;
        }
        next(request)
    }

    async fn wake(&self, _: &Context, request: Request<'_, Number>) -> Result<Number, Status> {
        self.woken.set(u64::from(request.number) + 1);
        self.gate.open();
        next(request)
    }
}

/// Calls without end, many at a time, from a thread and shard of its own.
struct Load {
    calls: Arc<AtomicU64>,
    is_over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Load {
    /// Starts; returns once calls are answered.
    fn start(address: SocketAddr) -> Self {
        let (calls, is_over) = (Arc::<AtomicU64>::default(), Arc::<AtomicBool>::default());
        let (their_calls, they_are_over) = (Arc::clone(&calls), Arc::clone(&is_over));
        let thread = thread::spawn(move || {
            let load = async {
                let mut callers = Vec::new();
                for _ in 0..4 {
                    let clock = ClockClient::connect(address).await.unwrap();
                    for _ in 0..32 {
                        let (clock, calls) = (clock.clone(), Arc::clone(&their_calls));
                        let is_over = Arc::clone(&they_are_over);
                        callers.push(background(async move {
                            while !is_over.load(Relaxed) {
                                clock.work(&Number { number: 1 }).await.unwrap();
                                calls.fetch_add(1, Relaxed);
                            }
                        }));
                    }
                }
                for caller in callers {
                    caller.await;
                }
            };
            ringcall::run(load).unwrap();
        });
        let load = Self { calls, is_over, thread: Some(thread) };
        load.goes_on();
        load
    }

    /// Waits until more calls were answered.
    fn goes_on(&self) {
        let wanted = self.calls.load(Relaxed) + 1_000;
        until("the load goes on", || self.calls.load(Relaxed) >= wanted);
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.is_over.store(true, Relaxed);
        let ended = self.thread.take().unwrap().join();
        if !thread::panicking() {
            ended.unwrap();
        }
    }
}

const ANY_PORT: &str = "127.0.0.1:0";

#[test]
fn a_shard_at_full_load_runs_the_sleeps_of_a_handler() {
    watched(|| {
        let server = Server::builder().cores([usable_cores()[0]]);
        let server = server.serve(ANY_PORT, |_| ClockServer::new(Service::default()));
        let server = server.unwrap();
        let load = Load::start(server.address());
        let run = ringcall::run(async {
            let clock = ClockClient::connect(server.address()).await.unwrap();
            let reply = clock.nap(&Number { number: 50 }).await.unwrap();
            assert_eq!(reply.number, 51);
        });
        run.unwrap();
        // It was not for want of load.
        assert!(counters(&server).reactor_turns > 0);
        load.goes_on();
    });
}

#[test]
fn a_shard_at_full_load_runs_the_sleeps_of_a_task() {
    watched(|| {
        let naps = Arc::<AtomicU64>::default();
        let theirs = Arc::clone(&naps);
        let server = Server::builder().cores([usable_cores()[0]]);
        let server = server.serve(ANY_PORT, move |_| {
            let naps = Arc::clone(&theirs);
            ringcall::spawn(async move {
                loop {
                    ringcall::sleep(Duration::from_millis(1)).await;
                    naps.fetch_add(1, Relaxed);
                }
            });
            ClockServer::new(Service::default())
        });
        let server = server.unwrap();
        let load = Load::start(server.address());
        let wanted = naps.load(Relaxed) + 50;
        until("the task has slept", || naps.load(Relaxed) >= wanted);
        assert!(counters(&server).reactor_turns > 0);
        load.goes_on();
    });
}

#[test]
fn a_client_at_full_load_runs_the_sleeps_of_its_tasks() {
    watched(|| {
        let server = Server::builder().cores([usable_cores()[0]]);
        let server = server.serve(ANY_PORT, |_| ClockServer::new(Service::default()));
        let server = server.unwrap();
        let run = ringcall::run(async {
            let naps = background(async {
                for _ in 0..50 {
                    ringcall::sleep(Duration::from_millis(1)).await;
                }
            });
            let naps = Rc::new(naps);
            let mut callers = Vec::new();
            for _ in 0..4 {
                let clock = ClockClient::connect(server.address()).await.unwrap();
                for _ in 0..32 {
                    let (clock, naps) = (clock.clone(), Rc::clone(&naps));
                    callers.push(background(async move {
                        while !naps.is_done() {
                            let reply = clock.add(&Number { number: 1 }).await.unwrap();
                            assert_eq!(reply.number, 2);
                        }
                    }));
                }
            }
            for caller in callers {
                caller.await;
            }
        });
        run.unwrap();
    });
}

/// A thread that keeps a core busy until it is dropped.
struct Busy {
    is_over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Busy {
    fn on(core: usize) -> Self {
        let is_over = Arc::<AtomicBool>::default();
        let theirs = Arc::clone(&is_over);
        let thread = thread::spawn(move || {
            let mut cores = rustix::thread::CpuSet::new();
            cores.set(core);
            rustix::thread::sched_setaffinity(None, &cores).unwrap();
            while !theirs.load(Relaxed) {
                std::hint::spin_loop();
            }
        });
        Self { is_over, thread: Some(thread) }
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.is_over.store(true, Relaxed);
        let ended = self.thread.take().unwrap().join();
        if !thread::panicking() {
            ended.unwrap();
        }
    }
}

/// One call after the other, until the two shards have slept and were woken so often.
fn sleep_and_wake(server_core: usize, client_core: usize, wanted: u64) {
    let config = ShardConfig::new().sleeps_at_once();
    let server = Server::builder().cores([server_core]).shard(config.clone());
    let server = server.serve(ANY_PORT, |_| ClockServer::new(Service::default()));
    let server = server.unwrap();
    let run = RunConfig::new().core(client_core).shard(config).run(async {
        let clock = ClockClient::connect(server.address()).await.unwrap();
        let mut sleeps = 0;
        let mut number = 0;
        while sleeps < wanted {
            for _ in 0..100 {
                let reply = clock.add(&Number { number }).await.unwrap();
                number += 1;
                assert_eq!(reply.number, number);
            }
            sleeps = counters(&server).parks + ringcall::counters().unwrap().parks;
        }
    });
    run.unwrap();
}

#[test]
fn no_wake_up_of_100_000_is_lost_beside_a_busy_thread() {
    watched_for(Duration::from_secs(300), || {
        let core = usable_cores()[0];
        let _busy = Busy::on(core);
        sleep_and_wake(core, core, 100_000);
    });
}

#[test]
fn no_wake_up_across_cores_is_lost_beside_busy_threads() {
    watched_for(Duration::from_secs(300), || {
        let cores = usable_cores();
        let (first, last) = (cores[0], cores[cores.len() - 1]);
        let _busy = [Busy::on(first), Busy::on(last)];
        sleep_and_wake(first, last, 10_000);
    });
}

#[test]
fn a_call_is_served_at_every_moment_of_falling_asleep() {
    watched(|| {
        let new = ShardConfig::new;
        let spin = Duration::from_micros(50);
        for config in [new(), new().sleeps_at_once(), new().spin(spin)] {
            let server = Server::builder().cores([usable_cores()[0]]).shard(config.clone());
            let server = server.serve(ANY_PORT, |_| ClockServer::new(Service::default()));
            let server = server.unwrap();
            let run = RunConfig::new().shard(config).run(async {
                let clock = ClockClient::connect(server.address()).await.unwrap();
                for number in 0..2_000 {
                    let reply = clock.add(&Number { number }).await.unwrap();
                    assert_eq!(reply.number, number + 1);
                    // From too short to fall asleep to long asleep.
                    let pause = Duration::from_micros(number * 7 % 250);
                    if number % 2 == 0 {
                        ringcall::sleep(pause).await;
                    } else {
                        thread::sleep(pause);
                    }
                }
            });
            run.unwrap();
        }
    });
}

/// Calls on shards whose executor is made to sleep with runnable tasks: by a preemption timer that
/// fires before the first of them runs. Waits for the last reply.
fn sleep_on_runnable_tasks<F>(config: ShardConfig, call: impl Fn(ClockClient, Number) -> F)
where
    F: Future<Output = Result<Response<Number>, Status>> + 'static,
{
    let config = config.preempt_timer(Duration::from_micros(50));
    let server = Server::builder().cores([usable_cores()[0]]).shard(config.clone());
    let server = server.serve(ANY_PORT, |_| ClockServer::new(Service::default()));
    let server = server.unwrap();
    let run = RunConfig::new().shard(config).run(async {
        let mut connections = Vec::new();
        for _ in 0..3 {
            connections.push(ClockClient::connect(server.address()).await.unwrap());
        }
        for round in 0..2_000 {
            let calls =
                connections.iter().map(|clock| call(clock.clone(), Number { number: round }));
            let calls: Vec<_> = calls.map(background).collect();
            for call in calls {
                assert_eq!(call.await.unwrap().number, round + 1);
            }
        }
    });
    run.unwrap();
}

#[test]
fn a_shard_that_sleeps_on_runnable_tasks_serves_handlers_that_are_done_at_once() {
    watched(|| {
        for config in [ShardConfig::new(), ShardConfig::new().sleeps_at_once()] {
            let call =
                |clock: ClockClient, request: Number| async move { clock.add(&request).await };
            sleep_on_runnable_tasks(config, call);
        }
    });
}

#[test]
fn a_shard_that_sleeps_on_runnable_tasks_serves_handlers_that_wait() {
    watched(|| {
        for config in [ShardConfig::new(), ShardConfig::new().sleeps_at_once()] {
            sleep_on_runnable_tasks(config, |clock, request| async move {
                match request.number % 2 {
                    0 => clock.give_way(&request).await,
                    _ => clock.sleep(&request).await,
                }
            });
        }
    });
}

#[test]
fn a_shard_that_sleeps_on_runnable_tasks_serves_handlers_that_were_just_woken() {
    watched(|| {
        for config in [ShardConfig::new(), ShardConfig::new().sleeps_at_once()] {
            sleep_on_runnable_tasks(config, |clock, request| async move {
                let other = clock.clone();
                let number = request.number;
                let met = background(async move { clock.meet(&request).await });
                // It waits by now, or will not have to.
                other.wake(&Number { number }).await?;
                met.await
            });
        }
    });
}

/// A task that gives way in a loop has work: the shard does not wait between its turns. Nor does
/// anything else wait for it: the reactor has its turns, and with it timers.
#[test]
fn a_task_that_gives_way_neither_waits_nor_keeps_others_waiting() {
    let counted = RunConfig::new().run(async {
        // The first turns are also those of a shard that starts.
        ringcall::yield_now().await;
        let before = ringcall::counters().unwrap();
        let slept = Rc::new(Cell::new(0));
        let sleeper = Rc::clone(&slept);
        ringcall::spawn(async move {
            loop {
                ringcall::sleep(Duration::from_millis(1)).await;
                sleeper.set(sleeper.get() + 1);
            }
        });
        let mut yields = 0u64;
        while slept.get() < 5 {
            ringcall::yield_now().await;
            yields += 1;
        }
        (yields, ringcall::counters().unwrap().since(&before))
    });
    let (yields, counted) = counted.unwrap();
    // Each wait in the ring is an enter; there was one every fifth time.
    assert!(counted.enters < yields / 20, "{yields} yields, {} enters", counted.enters);
    assert!(counted.reactor_turns > 5, "{yields} yields, {} turns", counted.reactor_turns);
}

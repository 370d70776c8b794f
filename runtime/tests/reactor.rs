//! The driver and the executor it runs on: under full load user code goes on, and however the
//! executor sleeps, nothing is slept through.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod support;

use std::{
    net::SocketAddr,
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
    wait::{until, watched},
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
    /// Adds one, after it was woken by another call.
    async fn meet(&self, cx: &Context, request: Request<'_, Number>) -> Result<Number, Status>;
    /// Wakes those who wait to meet, and says how often that was done.
    async fn wake(&self, cx: &Context, request: Request<'_, Number>) -> Result<Number, Status>;
}

#[derive(Default)]
struct Service {
    gate: Gate,
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
        self.gate.wait().await;
        next(request)
    }

    async fn wake(&self, _: &Context, _: Request<'_, Number>) -> Result<Number, Status> {
        self.gate.open();
        Ok(Number { number: self.gate.opened() })
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

/// Ping-pong.
#[test]
fn park_wake() {
    let cycles: u64 = std::env::var("CYCLES").map_or(100_000, |v| v.parse().unwrap());
    let busy: bool = std::env::var("BUSY").is_ok();
    let gap: u64 = std::env::var("GAP").map_or(0, |v| v.parse().unwrap());
    let ccore: usize = std::env::var("CCORE").map_or(0, |v| v.parse().unwrap());
    watched(move || {
        let is_over = Arc::<AtomicBool>::default();
        let theirs = Arc::clone(&is_over);
        let b = thread::spawn(move || {
            if !busy {
                return;
            }
            let mut set = rustix::thread::CpuSet::new();
            set.set(0);
            rustix::thread::sched_setaffinity(None, &set).unwrap();
            while !theirs.load(Relaxed) {
                std::hint::spin_loop();
            }
        });
        let config = if std::env::var("ATONCE").is_ok() {
            ShardConfig::new().sleeps_at_once()
        } else {
            ShardConfig::new()
        };
        let server = Server::builder().cores([0]).shard(config.clone());
        let server = server.serve(ANY_PORT, |_| ClockServer::new(Service::default())).unwrap();
        let since = Instant::now();
        let mut c = Default::default();
        RunConfig::new()
            .core(ccore)
            .shard(config)
            .run(async {
                let clock = ClockClient::connect(server.address()).await.unwrap();
                for number in 0..cycles {
                    let reply = clock.add(&Number { number }).await.unwrap();
                    assert_eq!(reply.number, number + 1);
                    if gap > 0 {
                        ringcall::sleep(Duration::from_micros(gap)).await;
                    }
                }
                c = ringcall::counters().unwrap();
            })
            .unwrap();
        eprintln!(
            "{cycles} cycles in {:?}: server {:?} client {c:?}",
            since.elapsed(),
            counters(&server)
        );
        is_over.store(true, Relaxed);
        b.join().unwrap();
    });
}

/// Calls of a kind, many at a time, on shards whose executor is made to park with runnable tasks.
fn trap_one(rounds: u64) {
    let config = ShardConfig::new().preempt_timer(Duration::from_micros(50));
    let server = Server::builder().cores([usable_cores()[0]]).shard(config.clone());
    let server = server.serve(ANY_PORT, |_| ClockServer::new(Service::default()));
    let server = server.unwrap();
    let mut c = Default::default();
    let since = Instant::now();
    RunConfig::new()
        .shard(config)
        .run(async {
            let mut callers = Vec::new();
            for kind in 0..12 {
                let clock = ClockClient::connect(server.address()).await.unwrap();
                callers.push(background(async move {
                    for number in 0..rounds {
                        let request = Number { number };
                        let reply = match kind % 4 {
                            0 => clock.add(&request).await,
                            1 => clock.give_way(&request).await,
                            2 => clock.sleep(&request).await,
                            _ => {
                                let meet = clock.meet(&request);
                                let wake = async {
                                    loop {
                                        clock.wake(&request).await.unwrap();
                                        ringcall::yield_now().await;
                                    }
                                };
                                let mut meet = std::pin::pin!(meet);
                                let mut wake = std::pin::pin!(wake);
                                std::future::poll_fn(|cx| {
                                    if let std::task::Poll::Ready(r) = meet.as_mut().poll(cx) {
                                        return std::task::Poll::Ready(r);
                                    }
                                    let _: std::task::Poll<()> = wake.as_mut().poll(cx);
                                    std::task::Poll::Pending
                                })
                                .await
                            }
                        };
                        assert_eq!(reply.unwrap().number, number + 1);
                    }
                }));
            }
            for caller in callers {
                caller.await;
            }
            c = ringcall::counters().unwrap();
        })
        .unwrap();
    eprintln!(
        "{rounds} rounds in {:?}: server {:?} client {c:?}",
        since.elapsed(),
        counters(&server)
    );
}

#[test]
fn trap() {
    let rounds: u64 = std::env::var("CYCLES").map_or(1_000, |v| v.parse().unwrap());
    watched(move || trap_one(rounds));
}

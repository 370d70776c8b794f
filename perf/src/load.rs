//! The client side of a run: its threads are started, let through the gate and collected.

use std::{
    net::SocketAddr,
    panic::{self, AssertUnwindSafe},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc::{Receiver, RecvTimeoutError, channel},
    },
    thread,
    time::{Duration, Instant},
};

use crate::{
    error::Failure,
    floor,
    interrupt::Interrupt,
    measure::{Run, ServerFigures, ThreadFigures},
    parse::CoreList,
    progress::Progress,
    server::Server,
    target::{self, Target},
    window::{Event, Gate, Window},
    workload::Workload,
};

/// Longest time for which the main thread does not look for Ctrl-C.
const TICK: Duration = Duration::from_millis(100);

/// How to load a server.
#[derive(Clone, Debug)]
pub(crate) struct LoadPlan {
    pub(crate) cores: CoreList,
    pub(crate) spin: Duration,
    pub(crate) warmup: Duration,
    pub(crate) duration: Duration,
}

/// What a client thread is to do.
pub(crate) struct ClientThread {
    pub(crate) target: Target,
    pub(crate) address: SocketAddr,
    pub(crate) core: usize,
    pub(crate) spin: Duration,
    pub(crate) workload: Workload,
    /// Connections of this thread.
    pub(crate) connections: u32,
    pub(crate) gate: Gate,
}

/// The client threads of a run, as the main thread sees them.
struct Threads<'a> {
    target: Target,
    events: Receiver<Event>,
    /// Threads that have not ended.
    running: usize,
    figures: Vec<ThreadFigures>,
    is_given_up: Arc<AtomicBool>,
    interrupt: &'a Interrupt,
    progress: &'a Progress,
}

/// Loads a target with a workload and gives what was measured. `server` is the one that is
/// loaded, where it is in this process.
pub(crate) fn run(
    target: Target,
    workload: Workload,
    address: SocketAddr,
    server: Option<&Server>,
    plan: &LoadPlan,
    watch: (&Interrupt, &Progress),
) -> Result<Run, Failure> {
    let (sender, events) = channel();
    let is_given_up = Arc::<AtomicBool>::default();
    let mut keys = Vec::new();
    for (core, connections) in
        plan.cores.0.iter().zip(workload.connections_by_thread(plan.cores.0.len()))
    {
        if connections == 0 {
            continue;
        }
        let (gate, key) = Gate::new(sender.clone(), Arc::clone(&is_given_up));
        let (core, spin) = (*core, plan.spin);
        let thread = ClientThread { target, address, core, spin, workload, connections, gate };
        let sender = sender.clone();
        let body = move || {
            let outcome = panic::catch_unwind(AssertUnwindSafe(|| match target {
                Target::Ringcall | Target::Stream => target::run(&thread),
                Target::Floor | Target::Server => floor::client::run(&thread),
            }));
            let outcome = outcome.unwrap_or(Err(Failure::Panicked { target, side: "client" }));
            // Where nobody listens the run was given up.
            let _ = sender.send(Event::Ended(Box::new(outcome)));
        };
        let started = thread::Builder::new().name(format!("client-{core}")).spawn(body);
        started.map_err(|source| Failure::Io { target, side: "client", source })?;
        keys.push(key);
    }
    let (interrupt, progress) = watch;
    let running = keys.len();
    let figures = Vec::new();
    let mut threads =
        Threads { target, events, running, figures, is_given_up, interrupt, progress };
    for _ in 0..running {
        threads.wait_ready()?;
    }
    let window = Window::after(plan.warmup, plan.duration);
    keys.iter().for_each(|key| key.open(window));
    threads.wait_until(window.start)?;
    let before = server.map(Server::sample).transpose()?;
    threads.wait_until(window.end)?;
    let after = server.map(Server::sample).transpose()?;
    threads.wait_ended()?;
    let server = before.zip(after).map(|(before, after)| ServerFigures {
        counters: after.counters.since(&before.counters),
        elapsed: after.at - before.at,
    });
    Run::of(target, workload, &threads.figures, server)
}

impl Threads<'_> {
    /// Waits until one more thread is ready.
    fn wait_ready(&mut self) -> Result<(), Failure> {
        while !matches!(self.next(None)?, Some(Event::Ready)) {}
        Ok(())
    }

    /// Waits for a time; fails early where a thread does.
    fn wait_until(&mut self, time: Instant) -> Result<(), Failure> {
        while Instant::now() < time {
            self.next(Some(time))?;
        }
        Ok(())
    }

    /// Waits until every thread has ended.
    fn wait_ended(&mut self) -> Result<(), Failure> {
        while self.running > 0 {
            self.next(None)?;
        }
        Ok(())
    }

    /// Waits for a moment, until `time` at most, and takes what a thread tells.
    fn next(&mut self, time: Option<Instant>) -> Result<Option<Event>, Failure> {
        self.interrupt.check()?;
        self.progress.tick();
        let left = time.map_or(TICK, |time| time.saturating_duration_since(Instant::now()));
        if self.running == 0 {
            // All have given up early: there is nobody to hear from.
            thread::sleep(left.min(TICK));
            return Ok(None);
        }
        match self.events.recv_timeout(left.min(TICK)) {
            Ok(Event::Ended(outcome)) => {
                self.running -= 1;
                self.figures.push((*outcome)?);
                Ok(None)
            }
            Ok(Event::Ready) => Ok(Some(Event::Ready)),
            Err(RecvTimeoutError::Timeout) => Ok(None),
            Err(RecvTimeoutError::Disconnected) => {
                Err(Failure::Panicked { target: self.target, side: "client" })
            }
        }
    }
}

impl Drop for Threads<'_> {
    /// Threads that still run are told that nobody waits for them.
    fn drop(&mut self) {
        self.is_given_up.store(true, Ordering::Relaxed);
    }
}

//! The client side of a run: its threads are started, let through the gate, listened to and
//! stopped.

use std::{
    mem,
    net::SocketAddr,
    panic::{self, AssertUnwindSafe},
    sync::{
        Arc,
        mpsc::{Receiver, RecvTimeoutError, channel},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use crate::{
    client::{self, slow_readers},
    core_load, cores, cost,
    course::{Course, Phase},
    error::Failure,
    extras::{Beside, Extras},
    floor,
    gate::{Event, Gate, GateKey, State, ThreadEnd},
    generator::{Arrivals, Clock, SizeMix},
    idle::{self, IdleFigures},
    interrupt::Interrupt,
    lengths::Lengths,
    measure::{Run, ServerFigures},
    parse::CoreList,
    probe::Probe,
    progress::Progress,
    server::{Sample, Server},
    target::Target,
    workload::Workload,
};

/// Longest time for which the main thread does not look for Ctrl-C.
const LOOK_AFTER: Duration = Duration::from_millis(100);

/// Time between the last thread's being ready and the beginning of the load, so that every thread
/// has heard of it.
const LEAD: Duration = Duration::from_millis(1);

/// Longest time that a probe runs: as long as any run.
const PROBE_MAX: Duration = Duration::from_secs(2 * 24 * 60 * 60);

/// How to load a server.
#[derive(Clone, Debug)]
pub(crate) struct LoadPlan {
    pub(crate) cores: CoreList,
    pub(crate) spin: Duration,
    pub(crate) lengths: Lengths,
    pub(crate) pace: Pace,
    /// The sizes of calls, where they are not all as long as the workload says.
    pub(crate) sizes: Option<SizeMix>,
    /// What arrivals and sizes are drawn from.
    pub(crate) seed: u64,
    pub(crate) beside: Beside,
    /// Cores of the probe, the first, and of the slow readers, the last.
    pub(crate) beside_cores: CoreList,
    /// Whether what calls cost besides CPU time is counted.
    pub(crate) counts_cost: bool,
    /// Idle connections that are held beside the load.
    pub(crate) idle: u32,
}

/// When calls are made.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Pace {
    /// Each when the one before it was answered.
    Closed,
    /// When they are due, whatever became of those before.
    Open(Arrivals),
}

/// What a client thread is to do.
pub(crate) struct ClientThread {
    pub(crate) target: Target,
    pub(crate) address: SocketAddr,
    pub(crate) core: usize,
    pub(crate) workload: Workload,
    /// Its number among the client threads, and how many there are.
    pub(crate) number: usize,
    pub(crate) threads: usize,
    /// Connections of this thread.
    pub(crate) connections: u32,
    pub(crate) plan: LoadPlan,
    pub(crate) gate: Gate,
}

/// The client threads of a run, as the main thread sees them.
struct Threads<'a> {
    target: Target,
    events: Receiver<Event>,
    keys: Vec<GateKey>,
    /// Threads that have not ended.
    running: usize,
    first_error: Option<String>,
    extras: Extras,
    /// Threads of what goes on beside the load; each gives what was seen of it.
    beside: Vec<JoinHandle<Result<Extras, Failure>>>,
    state: Arc<State>,
    interrupt: &'a Interrupt,
    progress: &'a Progress,
}

/// What was read at one moment of a run.
struct Moment {
    server: Option<Sample>,
    cost: Option<cost::Reading>,
}

/// What became of a run.
pub(crate) enum Outcome {
    Whole(Run),
    /// It was interrupted; what was measured until then.
    Cut(Run),
}

impl Pace {
    pub(crate) fn is_open(&self) -> bool {
        matches!(self, Self::Open(_))
    }
}

impl LoadPlan {
    /// The core of the probe, where there is one.
    pub(crate) fn probe_core(&self) -> Option<usize> {
        self.beside.probe_per_s.and(self.beside_cores.0.first().copied())
    }

    /// The core of the slow readers, where there are some.
    pub(crate) fn slow_readers_core(&self) -> Option<usize> {
        self.beside_cores.0.last().copied().filter(|_| self.beside.slow_readers > 0)
    }
}

impl ClientThread {
    /// The seed of this thread.
    pub(crate) fn seed(&self) -> u64 {
        self.plan.seed.wrapping_add(self.number as u64)
    }
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
) -> Result<Outcome, Failure> {
    let clock = Clock::new();
    let mut threads = Threads::start(target, workload, address, plan, watch)?;
    for _ in 0..threads.running {
        threads.wait_ready()?;
    }
    let idle = match plan.idle {
        0 => None,
        connections => Some(threads.hold_idle(connections, server.is_some())?),
    };
    let mut watch = plan.counts_cost.then(|| cost::Watch::begin(server.is_some()));
    let ns = |duration: Duration| u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
    let grid = plan.lengths.grid(clock.now_ns() + ns(LEAD));
    let mut course = Course::begin(plan.lengths, grid, threads.running, plan.pace.is_open())?;
    threads.begin_beside(address, workload, plan)?;
    threads.keys.iter().for_each(|key| key.open(grid));
    let mut cores = core_load::Watch::new();
    let ended = threads.follow(&mut course, &mut cores, || {
        let cost = watch.as_mut().map(cost::Watch::read);
        Ok(Moment { server: server.map(Server::sample).transpose()?, cost })
    });
    let ended = match ended {
        // What was measured until then is kept.
        Err(Failure::Interrupted) if course.cut_short() => None,
        ended => Some(ended?),
    };
    let first_error = threads.first_error.take();
    let figures = |samples: (Sample, Sample)| ServerFigures {
        counters: samples.1.counters.since(&samples.0.counters),
        elapsed: samples.1.at - samples.0.at,
    };
    let is_whole = ended.is_some();
    cores.end();
    let core_load = cores.figures();
    let extras = threads.end_beside()?;
    let seen = (course.measured, first_error, extras);
    let (server, cost) = match ended.flatten() {
        Some((began, ended)) => {
            (began.server.zip(ended.server).map(figures), began.cost.zip(ended.cost))
        }
        None => (None, None),
    };
    let run = Run::of(target, workload, plan, seen, server)?;
    let cost = watch.zip(cost).map(|(watch, readings)| watch.costs(&run, server, readings));
    let run = Run { cost, idle, core_load, ..run };
    Ok(if is_whole { Outcome::Whole(run) } else { Outcome::Cut(run) })
}

impl<'a> Threads<'a> {
    /// Starts a thread on each core that has connections.
    fn start(
        target: Target,
        workload: Workload,
        address: SocketAddr,
        plan: &LoadPlan,
        (interrupt, progress): (&'a Interrupt, &'a Progress),
    ) -> Result<Self, Failure> {
        let (sender, events) = channel();
        let state = Arc::<State>::default();
        let connections = workload.connections_by_thread(plan.cores.0.len());
        let used = connections.iter().filter(|connections| **connections > 0).count();
        let mut threads = Self {
            target,
            events,
            keys: Vec::new(),
            running: 0,
            first_error: None,
            extras: Extras::new()?,
            beside: Vec::new(),
            state: Arc::clone(&state),
            interrupt,
            progress,
        };
        for (number, (core, connections)) in plan.cores.0.iter().zip(connections).enumerate() {
            if connections == 0 {
                continue;
            }
            let (gate, key) = Gate::new(number, sender.clone(), Arc::clone(&state));
            let thread = ClientThread {
                target,
                address,
                core: *core,
                workload,
                number,
                threads: used,
                connections,
                plan: plan.clone(),
                gate,
            };
            let sender = sender.clone();
            let body = move || {
                let outcome = panic::catch_unwind(AssertUnwindSafe(|| match target {
                    Target::Ringcall | Target::Handle | Target::Stream => client::run(thread),
                    Target::Floor | Target::Server => floor::client::run(&thread),
                }));
                let outcome = outcome.unwrap_or(Err(Failure::Panicked { target, side: "client" }));
                // Where nobody listens the run was given up.
                let _ = sender.send(Event::Ended(outcome));
            };
            let started = thread::Builder::new().name(format!("client-{core}")).spawn(body);
            started.map_err(|source| Failure::Io { target, side: "client", source })?;
            threads.keys.push(key);
            threads.running += 1;
        }
        Ok(threads)
    }

    /// Starts what goes on beside the load on threads of its own.
    fn begin_beside(
        &mut self,
        address: SocketAddr,
        workload: Workload,
        plan: &LoadPlan,
    ) -> Result<(), Failure> {
        let Beside { slow_readers, probe_per_s, .. } = plan.beside;
        let target = self.target;
        let failed = |source| Failure::Io { target, side: "client", source };
        if slow_readers > 0 {
            let state = Arc::clone(&self.state);
            let core = plan.slow_readers_core().unwrap_or(0);
            let body = move || {
                cores::pin(core).map_err(|source| Failure::Pin { core, source })?;
                let seen = slow_readers::run(address, slow_readers, workload, &state)?;
                Ok(Extras { slow_readers: seen, ..Extras::new()? })
            };
            let thread = thread::Builder::new().name("slow-readers".to_owned());
            self.beside.push(thread.spawn(body).map_err(failed)?);
        }
        if let Some(rate) = probe_per_s {
            let state = Arc::clone(&self.state);
            let probe = Probe {
                address,
                core: plan.probe_core().unwrap_or(0),
                rate,
                size: workload.size,
                warmup: Duration::ZERO,
                // It ends with the load.
                duration: PROBE_MAX,
            };
            let body = move || {
                let stages = probe.run(|| state.is_over())?;
                Ok(Extras { probe: Some(stages), ..Extras::new()? })
            };
            let thread = thread::Builder::new().name("probe".to_owned());
            self.beside.push(thread.spawn(body).map_err(failed)?);
        }
        Ok(())
    }

    /// Waits for the threads beside the load. Gives what they and the client threads have seen.
    fn end_beside(&mut self) -> Result<Extras, Failure> {
        self.state.end();
        let mut extras = mem::replace(&mut self.extras, Extras::new()?);
        for thread in self.beside.drain(..) {
            let panicked = Failure::Panicked { target: self.target, side: "client" };
            extras.add(&thread.join().map_err(|_| panicked)??);
        }
        Ok(extras)
    }

    /// Waits until one more thread is ready.
    fn wait_ready(&mut self) -> Result<(), Failure> {
        while !matches!(self.next()?, Some(Event::Ready)) {}
        Ok(())
    }

    /// Has the threads, all of them ready for it, open idle connections, and leaves the server
    /// alone with them for a while.
    fn hold_idle(
        &mut self,
        connections: u32,
        is_server_here: bool,
    ) -> Result<IdleFigures, Failure> {
        let opening = idle::Opening::begin();
        self.keys.iter().for_each(GateKey::go_on);
        for _ in 0..self.running {
            self.wait_ready()?;
        }
        let alone = opening.end(connections, is_server_here);
        while !alone.is_over() {
            self.next()?;
        }
        Ok(alone.end(connections))
    }

    /// Follows a run to its end. Gives what was read when measuring began and when it ended.
    fn follow(
        &mut self,
        course: &mut Course,
        cores: &mut core_load::Watch,
        mut read: impl FnMut() -> Result<Moment, Failure>,
    ) -> Result<Option<(Moment, Moment)>, Failure> {
        let mut began = None;
        if course.phase() == Phase::Measuring {
            began = Some(read()?);
            cores.begin();
        }
        // A thread whose callers have all given up ends by itself, and there is no run without it.
        while course.phase() != Phase::Over && self.running == self.keys.len() {
            if let Some(Event::Tick(thread, tick)) = self.next()? {
                let phase = course.phase();
                for (thread, recorder) in course.take(thread, tick) {
                    if let Some(key) = self.keys.get(thread) {
                        key.give_back(recorder);
                    }
                }
                if phase == Phase::WarmingUp && course.phase() != Phase::WarmingUp {
                    began = Some(read()?);
                    cores.begin();
                }
                cores.look();
                self.progress.show(course);
            }
        }
        let ended = read()?;
        cores.end();
        self.state.end();
        while self.running > 0 {
            self.next()?;
        }
        if course.phase() != Phase::Over {
            course.cut_short();
            let doubt = "it ended early: a client thread has lost all its connections";
            course.measured.doubts.push(doubt.to_owned());
        }
        Ok(began.map(|began| (began, ended)))
    }

    /// Waits for a moment and takes what a thread tells.
    fn next(&mut self) -> Result<Option<Event>, Failure> {
        self.interrupt.check()?;
        self.progress.tick();
        match self.events.recv_timeout(LOOK_AFTER) {
            Ok(Event::Ended(outcome)) => {
                self.running -= 1;
                let ThreadEnd { first_error, extras } = outcome?;
                self.first_error = self.first_error.take().or(first_error);
                self.extras.add(&extras);
                Ok(None)
            }
            Ok(event) => Ok(Some(event)),
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
        self.state.give_up();
    }
}

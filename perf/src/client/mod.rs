//! A client thread of ringcall, through its public API.
//!
//! One task for each call that can be in flight, which makes calls and records them. The tasks of a
//! connection share its client, and all tasks of a thread its recorder; nothing is allocated and
//! nothing crosses threads while calls are made.

mod call;
mod callers;
mod churn;
mod closed;
mod handle;
mod idle;
mod open;
pub(crate) mod slow_readers;
mod stream;

use std::{
    cell::{Cell, RefCell},
    rc::Rc,
    time::Duration,
};

use ringcall::{RunConfig, ShardCounters};

use self::call::Maker;
use crate::{
    error::Failure,
    extras::Extras,
    gate::{Grid, LOOK_AFTER, ThreadEnd, Tick},
    generator::{Clock, Desk, Recorder, SizeMix, SizePicks},
    load::{ClientThread, Pace},
    measure::thread_cpu_ns,
    target::{EchoClient, Payload, Target, shard_config},
    workload::{SIZE_MIN, Workload},
};

/// Longest time for which the calls in flight are waited for when everything is measured.
const DRAIN_MAX: Duration = Duration::from_secs(5);

/// What the tasks of a client thread share.
struct Shared {
    clock: Clock,
    recorder: RefCell<Box<Recorder>>,
    /// Bytes that calls carry: as many as the longest does. Counted, as those of a program often
    /// are, which keeps long ones off the beginning of a page: a copy of a MiB from there to a send
    /// buffer takes a tenth longer, as its loads and stores share the low bits of their addresses.
    payload: Rc<[u8]>,
    sizes: RefCell<SizePicks>,
    /// Calls that failed since the last tick.
    errors: Cell<u64>,
    first_error: RefCell<Option<String>>,
    is_over: Cell<bool>,
    /// Tasks that make calls.
    callers: Cell<usize>,
    /// Whether calls are nothing but calls, and what else they are.
    is_plain: bool,
    fanout: usize,
    /// Part of the calls that goes to the slow handler, and how much of one is due.
    slow_share: f64,
    slow_due: Cell<f64>,
    slow_us: u32,
    /// Calls that it answered since the last tick.
    slow_calls: Cell<u64>,
    extras: RefCell<Extras>,
}

/// Runs a client thread: connects, and makes calls until it is over.
pub(crate) fn run(thread: ClientThread) -> Result<ThreadEnd, Failure> {
    if thread.target == Target::Handle {
        return handle::run(&thread);
    }
    let config = shard_config(thread.plan.spin);
    RunConfig::new().core(thread.core).shard(config).run(load(thread))?
}

async fn load(thread: ClientThread) -> Result<ThreadEnd, Failure> {
    let mut clients = Vec::new();
    for _ in 0..thread.connections {
        if thread.gate.is_over() {
            return Err(Failure::Interrupted);
        }
        clients.push(EchoClient::connect(thread.address).await?);
    }
    let is_open = thread.plan.pace.is_open();
    let clients: Rc<[EchoClient]> = clients.into();
    let shared = Rc::new(Shared::new(&thread, thread.gate.recorder(is_open)?)?);
    if let Some(client) = clients.first() {
        check_frame_len(client, &shared.payload, thread.workload).await?;
    }
    // Made while the others connect: it takes time.
    let mut schedule = match &thread.plan.pace {
        Pace::Closed => None,
        Pace::Open(arrivals) => {
            Some(arrivals.schedule(thread.number, thread.threads, thread.seed()))
        }
    };
    // Held to the end of the run.
    let _idle = idle::connections(&thread, &clients).await?;
    let grid = thread.gate.pass()?;
    // What connecting cost is no call's.
    let begun = counters();
    let depth = thread.workload.depth as usize;
    if let Some(schedule) = &mut schedule {
        schedule.begin(grid.measuring_ns(), grid.measuring_ns() - grid.begin_ns);
    }
    let mut desk = None;
    match (schedule, thread.target) {
        (Some(schedule), _) => desk = Some(open::start(&clients, depth, schedule, &shared)),
        (None, Target::Stream) => {
            for client in clients.iter() {
                shared.begins();
                ringcall::spawn(stream::items(client.clone(), depth, Rc::clone(&shared)));
            }
        }
        (None, _) => {
            for own in (0..clients.len()).flat_map(|own| std::iter::repeat_n(own, depth)) {
                shared.begins();
                ringcall::spawn(closed::calls(Maker::new(&clients, own), Rc::clone(&shared)));
            }
        }
    }
    if let Some(per_s) = thread.plan.beside.churn_per_s {
        let per_s = per_s / thread.threads as f64;
        ringcall::spawn(churn::churn(thread.address, per_s, Rc::clone(&shared)));
    }
    tell(&thread, grid, &shared, desk.as_deref(), &begun).await?;
    shared.is_over.set(true);
    drain(&shared).await;
    let extras = shared.extras.replace(Extras::new()?);
    Ok(ThreadEnd { first_error: shared.first_error.take(), extras })
}

/// Tells what was recorded, tick by tick, until it is over or every caller has given up.
async fn tell(
    thread: &ClientThread,
    grid: Grid,
    shared: &Shared,
    desk: Option<&Desk>,
    begun: &ShardCounters,
) -> Result<(), Failure> {
    for number in 0.. {
        let end_ns = grid.end_of(number);
        loop {
            let left = end_ns.saturating_sub(shared.clock.now_ns());
            let is_over = thread.gate.is_over() || shared.callers.get() == 0;
            if left == 0 || is_over {
                break;
            }
            ringcall::sleep(Duration::from_nanos(left).min(LOOK_AFTER)).await;
        }
        if thread.gate.is_over() {
            return Ok(());
        }
        let empty = thread.gate.recorder(thread.plan.pace.is_open())?;
        let recorder = shared.recorder.replace(empty);
        let (ended_ns, counters) = (shared.clock.now_ns(), counters().since(begun));
        thread.gate.tell(Tick {
            recorder,
            errors: shared.errors.take(),
            slow_calls: shared.slow_calls.take(),
            unanswered: desk.map(Desk::unanswered).unwrap_or_default(),
            ended_ns,
            counters,
        });
        if shared.callers.get() == 0 {
            break;
        }
    }
    Ok(())
}

impl Shared {
    fn new(thread: &ClientThread, recorder: Box<Recorder>) -> Result<Self, Failure> {
        let beside = &thread.plan.beside;
        let mix = thread.plan.sizes.clone();
        let mix = mix.unwrap_or(SizeMix::Fixed(thread.workload.body_len()));
        let of_trace = match &thread.plan.pace {
            Pace::Closed => None,
            Pace::Open(arrivals) => arrivals.longest(),
        };
        let longest = mix.longest().max(of_trace.unwrap_or(0));
        Ok(Self {
            clock: Clock::new(),
            recorder: RefCell::new(recorder),
            payload: vec![0x5a; payload_len(longest)].into(),
            sizes: RefCell::new(mix.picks(thread.seed())),
            errors: Cell::new(0),
            first_error: RefCell::new(None),
            is_over: Cell::new(false),
            callers: Cell::new(0),
            is_plain: beside.calls_are_plain(),
            fanout: beside.fanout.max(1) as usize,
            slow_share: beside.slow.map_or(0.0, |slow| slow.share),
            slow_due: Cell::new(0.0),
            slow_us: beside.slow.map_or(0, |slow| slow.time.as_micros() as u32),
            slow_calls: Cell::new(0),
            extras: RefCell::new(Extras::new()?),
        })
    }

    /// Whether the call that is made now goes to the slow handler.
    #[inline]
    fn is_slow_turn(&self) -> bool {
        if self.is_plain {
            return false;
        }
        let due = self.slow_due.get() + self.slow_share;
        let is_due = due >= 1.0;
        self.slow_due.set(if is_due { due - 1.0 } else { due });
        is_due
    }

    /// What the next call carries.
    #[inline]
    fn next_payload(&self) -> Payload<'_> {
        let size = self.sizes.borrow_mut().pick();
        self.payload_of(size)
    }

    /// What a call carries whose body has a length.
    #[inline]
    fn payload_of(&self, body_len: u32) -> Payload<'_> {
        Payload { bytes: &self.payload[..payload_len(body_len)] }
    }

    /// Counts a task that makes calls.
    fn begins(&self) {
        self.callers.set(self.callers.get() + 1);
    }

    /// Counts it out.
    fn ends(&self) {
        self.callers.set(self.callers.get() - 1);
    }

    #[cold]
    fn fail(&self, error: impl FnOnce() -> String) {
        self.errors.set(self.errors.get() + 1);
        self.first_error.borrow_mut().get_or_insert_with(error);
    }
}

/// Bytes that a body of a length carries: without the root of its archive.
fn payload_len(body_len: u32) -> usize {
    (body_len.next_multiple_of(4).max(SIZE_MIN) - SIZE_MIN) as usize
}

/// Makes one call of the workload's size and looks what it sent: the floor sends as many bytes.
async fn check_frame_len(
    client: &EchoClient,
    payload: &[u8],
    workload: Workload,
) -> Result<(), Failure> {
    let len = workload.payload_len().min(payload.len());
    let wanted = Workload { size: len as u32 + SIZE_MIN, ..workload }.frame_len();
    let before = counters().bytes_encoded;
    match client.echo(&Payload { bytes: &payload[..len] }).await {
        Ok(_) => {}
        Err(status) => {
            return Err(Failure::CallsFailed { count: 1, first: status.to_string() });
        }
    }
    let found = counters().bytes_encoded - before;
    if found == wanted as u64 { Ok(()) } else { Err(Failure::FrameLen { found, wanted }) }
}

/// What this thread's shard has counted, with the thread's CPU time as of now.
fn counters() -> ShardCounters {
    let mut counters = ringcall::counters().unwrap_or_default();
    counters.cpu_ns = thread_cpu_ns();
    counters
}

/// Waits for the calls in flight, so that the server is not left with half of them.
async fn drain(shared: &Shared) {
    let deadline_ns = shared.clock.now_ns() + DRAIN_MAX.as_nanos() as u64;
    while shared.callers.get() > 0 && shared.clock.now_ns() < deadline_ns {
        ringcall::sleep(Duration::from_millis(1)).await;
    }
}

//! A client thread of ringcall, through its public API.
//!
//! One task for each call that can be in flight, which makes calls and records them. The tasks of a
//! connection share its client, and all tasks of a thread its recorder; nothing is allocated and
//! nothing crosses threads while calls are made.

mod closed;
mod idle;
mod open;
mod stream;

use std::{
    cell::{Cell, RefCell},
    rc::Rc,
    time::Duration,
};

use ringcall::{RunConfig, ShardCounters};

use crate::{
    error::Failure,
    gate::{Grid, LOOK_AFTER, Tick},
    generator::{Clock, Recorder, SizeMix, SizePicks},
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
    /// Bytes that calls carry: as many as the longest does.
    payload: Box<[u8]>,
    sizes: RefCell<SizePicks>,
    /// Calls that failed since the last tick.
    errors: Cell<u64>,
    first_error: RefCell<Option<String>>,
    is_over: Cell<bool>,
    /// Tasks that make calls.
    callers: Cell<usize>,
}

/// Runs a client thread: connects, makes calls until it is over, and gives what the first call
/// that failed did so with.
pub(crate) fn run(thread: ClientThread) -> Result<Option<String>, Failure> {
    let config = shard_config(thread.plan.spin);
    RunConfig::new().core(thread.core).shard(config).run(load(thread))?
}

async fn load(thread: ClientThread) -> Result<Option<String>, Failure> {
    let mut clients = Vec::new();
    for _ in 0..thread.connections {
        if thread.gate.is_over() {
            return Err(Failure::Interrupted);
        }
        clients.push(EchoClient::connect(thread.address).await?);
    }
    let is_open = thread.plan.pace.is_open();
    let shared = Rc::new(Shared::new(&thread, thread.gate.recorder(is_open)?));
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
    let _idle = idle::connections(&thread).await?;
    let grid = thread.gate.pass()?;
    let depth = thread.workload.depth as usize;
    if let Some(schedule) = &mut schedule {
        schedule.begin(grid.measuring_ns(), grid.measuring_ns() - grid.begin_ns);
    }
    match (schedule, thread.target) {
        (Some(schedule), _) => open::start(&clients, depth, schedule, &shared),
        (None, Target::Stream) => {
            for client in &clients {
                shared.begins();
                ringcall::spawn(stream::items(client.clone(), depth, Rc::clone(&shared)));
            }
        }
        (None, _) => {
            for client in clients.iter().flat_map(|client| std::iter::repeat_n(client, depth)) {
                shared.begins();
                ringcall::spawn(closed::calls(client.clone(), Rc::clone(&shared)));
            }
        }
    }
    tell(&thread, grid, &shared).await?;
    shared.is_over.set(true);
    drain(&shared).await;
    Ok(shared.first_error.take())
}

/// Tells what was recorded, tick by tick, until it is over or every caller has given up.
async fn tell(thread: &ClientThread, grid: Grid, shared: &Shared) -> Result<(), Failure> {
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
        let (ended_ns, counters) = (shared.clock.now_ns(), counters());
        thread.gate.tell(Tick { recorder, errors: shared.errors.take(), ended_ns, counters });
        if shared.callers.get() == 0 {
            break;
        }
    }
    Ok(())
}

impl Shared {
    fn new(thread: &ClientThread, recorder: Box<Recorder>) -> Self {
        let mix = thread.plan.sizes.clone();
        let mix = mix.unwrap_or(SizeMix::Fixed(thread.workload.body_len()));
        let of_trace = match &thread.plan.pace {
            Pace::Closed => None,
            Pace::Open(arrivals) => arrivals.longest(),
        };
        let longest = mix.longest().max(of_trace.unwrap_or(0));
        Self {
            clock: Clock::new(),
            recorder: RefCell::new(recorder),
            payload: vec![0x5a; payload_len(longest)].into(),
            sizes: RefCell::new(mix.picks(thread.seed())),
            errors: Cell::new(0),
            first_error: RefCell::new(None),
            is_over: Cell::new(false),
            callers: Cell::new(0),
        }
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

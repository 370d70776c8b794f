//! A client thread that calls through a handle, as programs on another executor do.
//!
//! The handle's shard has a thread of its own, on the same core; what the client costs is the CPU
//! time of both. Callers are the tasks of the least executor that there can be: a queue of those
//! that were woken, and a thread that is unparked.

use std::{
    cell::{Cell, RefCell},
    future::Future,
    pin::Pin,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    task::{Context, Wake, Waker},
    thread::{self, Thread},
    time::{Duration, Instant},
};

use ringcall::{Handle, HandleConfig, ShardCounters};

use super::{DRAIN_MAX, payload_len};
use crate::{
    cores,
    error::Failure,
    extras::Extras,
    gate::{Gate, Grid, LOOK_AFTER, ThreadEnd, Tick},
    generator::{Clock, Recorder, Timing, Unanswered},
    load::ClientThread,
    measure::thread_cpu_ns,
    target::{EchoSendClient, Payload, shard_config},
};

/// What the callers share.
struct Shared {
    clock: Clock,
    recorder: RefCell<Box<Recorder>>,
    errors: Cell<u64>,
    first_error: RefCell<Option<String>>,
    is_over: Cell<bool>,
    payload: Vec<u8>,
}

/// Runs a client thread. As that of a shard.
pub(super) fn run(thread: &ClientThread) -> Result<ThreadEnd, Failure> {
    cores::pin(thread.core).map_err(|source| Failure::Pin { core: thread.core, source })?;
    let calls = thread.connections as usize * thread.workload.depth as usize;
    let config = HandleConfig::new().core(thread.core).shard(shard_config(thread.plan.spin));
    let handle = config.calls_max(calls.max(1)).start()?;
    let mut executor = Executor::new();
    let mut clients = Vec::new();
    for _ in 0..thread.connections {
        clients.push(executor.block_on(EchoSendClient::connect(&handle, thread.address))?);
    }
    let shared = Shared {
        clock: Clock::new(),
        recorder: RefCell::new(thread.gate.recorder(false)?),
        errors: Cell::new(0),
        first_error: RefCell::new(None),
        is_over: Cell::new(false),
        payload: vec![0x5a; payload_len(thread.workload.body_len())],
    };
    let grid = thread.gate.pass()?;
    let begun = counters(&handle);
    let mut callers = Callers { running: 0, tasks: Vec::new() };
    for client in &clients {
        for _ in 0..thread.workload.depth {
            callers.spawn(&mut executor, calls_of(client, &shared));
        }
    }
    tell(&thread.gate, grid, &shared, &mut executor, &mut callers, || {
        counters(&handle).since(&begun)
    })?;
    shared.is_over.set(true);
    let until = Instant::now() + DRAIN_MAX;
    while callers.running > 0 && Instant::now() < until {
        executor.turn(&mut callers, Duration::from_millis(1));
    }
    drop(callers);
    let first_error = shared.first_error.take();
    drop(clients);
    handle.join()?;
    Ok(ThreadEnd { first_error, extras: Extras::new()? })
}

/// Lets the callers run, and tells what was recorded, tick by tick.
fn tell(
    gate: &Gate,
    grid: Grid,
    shared: &Shared,
    executor: &mut Executor,
    callers: &mut Callers<'_>,
    counters: impl Fn() -> ShardCounters,
) -> Result<(), Failure> {
    for number in 0.. {
        let end_ns = grid.end_of(number);
        loop {
            let left_ns = end_ns.saturating_sub(shared.clock.now_ns());
            if left_ns == 0 || gate.is_over() || callers.running == 0 {
                break;
            }
            executor.turn(callers, Duration::from_nanos(left_ns).min(LOOK_AFTER));
        }
        if gate.is_over() {
            return Ok(());
        }
        let recorder = shared.recorder.replace(gate.recorder(false)?);
        let (ended_ns, counters) = (shared.clock.now_ns(), counters());
        let (errors, slow_calls, unanswered) = (shared.errors.take(), 0, Unanswered::default());
        gate.tell(Tick { recorder, errors, slow_calls, unanswered, ended_ns, counters });
        if callers.running == 0 {
            return Ok(());
        }
    }
    Ok(())
}

/// Makes one call after the other, until it is over or one fails.
async fn calls_of(client: &EchoSendClient, shared: &Shared) {
    let mut begun_ns = shared.clock.now_ns();
    while !shared.is_over.get() {
        let outcome = client.echo(&Payload { bytes: &shared.payload }).await;
        let done_ns = shared.clock.now_ns();
        match outcome {
            Ok(reply) if reply.bytes.len() == shared.payload.len() => {
                let (due_ns, free_ns, sent_ns) = (begun_ns, begun_ns, begun_ns);
                let timing = Timing { due_ns, free_ns, sent_ns, done_ns };
                shared.recorder.borrow_mut().record(timing);
            }
            outcome => {
                shared.errors.set(shared.errors.get() + 1);
                let why = outcome.err().map(|status| status.to_string());
                let why = why.unwrap_or_else(|| "a reply of another length".to_owned());
                shared.first_error.borrow_mut().get_or_insert(why);
                return;
            }
        }
        begun_ns = done_ns;
    }
}

/// What both threads of the client have counted, with the CPU time of both.
fn counters(handle: &Handle) -> ShardCounters {
    let mut counters = handle.counters();
    counters.cpu_ns += thread_cpu_ns();
    counters
}

/// Runs tasks on its thread.
struct Executor {
    woken: Arc<Woken>,
    /// Tasks of this turn; kept for its capacity.
    turn: Vec<usize>,
}

/// Tasks that run, by number.
struct Callers<'a> {
    running: usize,
    tasks: Vec<Option<Task<'a>>>,
}

struct Task<'a> {
    future: Pin<Box<dyn Future<Output = ()> + 'a>>,
    waker: Waker,
}

/// The tasks that were woken.
struct Woken {
    tasks: Mutex<Vec<usize>>,
    /// Whether the thread waits for some.
    waits: AtomicBool,
    thread: Thread,
}

/// Wakes one task.
struct WakesTask {
    number: usize,
    woken: Arc<Woken>,
}

impl Executor {
    fn new() -> Self {
        let (tasks, waits) = (Mutex::default(), AtomicBool::new(false));
        let woken = Arc::new(Woken { tasks, waits, thread: thread::current() });
        Self { woken, turn: Vec::new() }
    }

    /// Runs every task that was woken once. Waits for one, for a time at most, where there is none.
    fn turn(&mut self, callers: &mut Callers<'_>, wait: Duration) {
        self.woken.take(&mut self.turn);
        if self.turn.is_empty() {
            self.woken.waits.store(true, SeqCst);
            if !self.woken.any() {
                thread::park_timeout(wait);
            }
            self.woken.waits.store(false, SeqCst);
        }
        for number in self.turn.drain(..) {
            let Some(place) = callers.tasks.get_mut(number) else { continue };
            let Some(task) = place else { continue };
            if task.future.as_mut().poll(&mut Context::from_waker(&task.waker)).is_ready() {
                *place = None;
                callers.running -= 1;
            }
        }
    }

    /// Runs one future to its end.
    fn block_on<T>(&mut self, future: impl Future<Output = T>) -> T {
        let output = Cell::new(None);
        let mut callers = Callers { running: 0, tasks: Vec::new() };
        callers.spawn(self, async { output.set(Some(future.await)) });
        loop {
            self.turn(&mut callers, LOOK_AFTER);
            if let Some(output) = output.take() {
                return output;
            }
        }
    }
}

impl<'a> Callers<'a> {
    fn spawn(&mut self, executor: &mut Executor, future: impl Future<Output = ()> + 'a) {
        let number = self.tasks.len();
        let waker = Waker::from(Arc::new(WakesTask { number, woken: Arc::clone(&executor.woken) }));
        waker.wake_by_ref();
        self.tasks.push(Some(Task { future: Box::pin(future), waker }));
        self.running += 1;
    }
}

impl Woken {
    fn take(&self, into: &mut Vec<usize>) {
        into.append(&mut self.tasks.lock().unwrap_or_else(PoisonError::into_inner));
    }

    fn any(&self) -> bool {
        !self.tasks.lock().unwrap_or_else(PoisonError::into_inner).is_empty()
    }
}

impl Wake for WakesTask {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        let woken = &self.woken;
        woken.tasks.lock().unwrap_or_else(PoisonError::into_inner).push(self.number);
        if woken.waits.swap(false, SeqCst) {
            woken.thread.unpark();
        }
    }
}

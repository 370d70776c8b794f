//! The client side of a run: one thread, pinned to its core, with one task for each call in flight.
//!
//! In a **closed loop** each task awaits its call and makes the next, with one clock read a call,
//! as ringcall-perf does it. In an **open loop** ringcall-perf's desk gives out calls when they are
//! due; what matters then is the time from which a call was due, not from which it could be made.

use std::{
    cell::{Cell, RefCell},
    net::SocketAddr,
    rc::Rc,
    sync::mpsc::{Receiver, Sender},
    time::Duration,
};

use bytes::Bytes;
use ringcall_perf::generator::{
    Arrivals, Caller, Clock, Desk, Job, Latencies, Rate, Recorder, Spacing, Timing, Unanswered,
};
use tokio::{
    task::{spawn_local, yield_now},
    time::{sleep, timeout},
};

use crate::{
    cores,
    error::Failure,
    measure::ClientFigures,
    peers::{Peer, PeerError, System},
    server,
    workload::{Window, Workload},
};

/// Time within which a server must accept a connection and answer on it.
pub(crate) const ANSWER_MAX: Duration = Duration::from_secs(5);

/// Longest time for which the calls in flight are waited for when everything is measured, so that
/// the server is not left with half of them.
const DRAIN_MAX: Duration = Duration::from_secs(5);

/// The byte that bodies are made of.
pub(crate) const FILL: u8 = 0x5a;

/// What arrivals are drawn from: as ringcall-perf's, where nothing else is asked for, so that every
/// system is offered the same load.
const SEED: u64 = 1;

/// What a client thread is to do.
pub(crate) struct ClientThread {
    pub(crate) system: System,
    pub(crate) address: SocketAddr,
    /// None for tests: then it runs anywhere.
    pub(crate) core: Option<usize>,
    pub(crate) workload: Workload,
    /// Calls per second, in an open loop.
    pub(crate) rate: Option<u32>,
    /// It says here that it is connected.
    pub(crate) ready: Sender<()>,
    /// Then it is told here when is measured.
    pub(crate) opens: Receiver<Window>,
}

/// What the tasks of a client share.
struct Shared {
    clock: Clock,
    record: RefCell<Recorder>,
    errors: Cell<u64>,
    first_error: RefCell<Option<String>>,
    is_over: Cell<bool>,
    /// Tasks that make calls.
    callers: Cell<usize>,
}

impl ClientThread {
    /// A failure of this side.
    pub(crate) fn failed(&self, source: impl Into<PeerError>) -> Failure {
        Failure::Peer { system: self.system, side: "client", source: source.into() }
    }

    /// Says that this side is ready, and blocks it until the window is known.
    pub(crate) fn pass_gate(&self) -> Result<Window, Failure> {
        let _ = self.ready.send(());
        self.opens.recv().map_err(|_| self.failed("the run was given up"))
    }
}

/// Runs a client thread: connects, calls until the window closes, and gives its figures.
pub(crate) fn run<P: Peer>(thread: &ClientThread) -> Result<ClientFigures, Failure> {
    thread.core.map_or(Ok(()), cores::pin)?;
    let runtime = server::runtime();
    let runtime = runtime.map_err(|source| thread.failed(source))?;
    runtime.block_on(load::<P>(thread))
}

async fn load<P: Peer>(thread: &ClientThread) -> Result<ClientFigures, Failure> {
    let body = Bytes::from(vec![FILL; thread.workload.body_len()]);
    let clients = connect::<P>(thread, &body).await?;
    let arrivals =
        thread.rate.map(|rate| Arrivals::Rated(Rate::Flat(rate.into()), Spacing::Poisson));
    // It takes time, which the warm-up is not to be charged with.
    let schedule = arrivals.map(|arrivals| arrivals.schedule(0, 1, SEED));
    let window = thread.pass_gate()?;
    let depth = thread.workload.depth as usize;
    let shared = Rc::new(Shared::new(clients.len() * depth, schedule.is_some())?);
    let mut desk = None;
    match schedule {
        Some(mut schedule) => {
            let lead_ns = window.start_ns.saturating_sub(shared.clock.now_ns());
            schedule.begin(window.start_ns, lead_ns);
            let (made, callers) = Desk::new(schedule, clients.len(), depth);
            for caller in callers {
                let client = clients[caller.connection()].clone();
                let (body, shared) = (body.clone(), Rc::clone(&shared));
                spawn_local(call_when_due::<P>(client, caller, body, shared));
            }
            spawn_local(pace(Rc::clone(&made), Rc::clone(&shared)));
            desk = Some(made);
        }
        None => {
            for client in clients.iter().flat_map(|client| std::iter::repeat_n(client, depth)) {
                let (client, body, shared) = (client.clone(), body.clone(), Rc::clone(&shared));
                spawn_local(call_on_and_on::<P>(client, body, shared));
            }
        }
    }
    let figures = shared.measure(desk.as_deref(), window).await?;
    Ok(ClientFigures { offered_per_s: thread.rate.map(f64::from), ..figures })
}

/// Opens the connections, with a call on each.
async fn connect<P: Peer>(thread: &ClientThread, body: &Bytes) -> Result<Vec<P::Client>, Failure> {
    let mut clients = Vec::new();
    for _ in 0..thread.workload.connections {
        let connected = timeout(ANSWER_MAX, async {
            let mut client = P::connect(thread.address, thread.workload).await?;
            let len = P::call(&mut client, body).await?;
            if len == body.len() { Ok(client) } else { Err(wrong_len(len).into()) }
        });
        let connected = connected.await.unwrap_or_else(|_| Err("no answer in time".into()));
        clients.push(connected.map_err(|source: PeerError| thread.failed(source))?);
    }
    Ok(clients)
}

/// Makes one call after the other.
async fn call_on_and_on<P: Peer>(mut client: P::Client, body: Bytes, shared: Rc<Shared>) {
    // One clock read a call: a call begins when the one before was recorded.
    let mut begun_ns = shared.clock.now_ns();
    while !shared.is_over.get() {
        let outcome = P::call(&mut client, &body).await;
        let done_ns = shared.clock.now_ns();
        match outcome {
            Ok(len) if len == body.len() => {
                let (due_ns, free_ns, sent_ns) = (begun_ns, begun_ns, begun_ns);
                let timing = Timing { due_ns, free_ns, sent_ns, done_ns };
                shared.record.borrow_mut().record(timing);
                begun_ns = done_ns;
            }
            outcome => {
                shared.fail(outcome).await;
                // The time that it slept is no call's.
                begun_ns = shared.clock.now_ns();
            }
        }
    }
    shared.callers.set(shared.callers.get() - 1);
}

/// Makes each call that the desk has for it.
async fn call_when_due<P: Peer>(
    mut client: P::Client,
    caller: Caller,
    body: Bytes,
    shared: Rc<Shared>,
) {
    while let Some(Job { due_ns, free_ns, .. }) = caller.next().await {
        let sent_ns = shared.clock.now_ns();
        let outcome = P::call(&mut client, &body).await;
        let done_ns = shared.clock.now_ns();
        match outcome {
            Ok(len) if len == body.len() => {
                let timing = Timing { due_ns, free_ns, sent_ns, done_ns };
                shared.record.borrow_mut().record(timing);
            }
            outcome => {
                caller.ended();
                shared.fail(outcome).await;
            }
        }
        caller.frees(done_ns);
    }
    shared.callers.set(shared.callers.get() - 1);
}

/// Gives out calls when they are due, and never sleeps: between two looks at the clock every task
/// that can run does, and the runtime looks at its sockets.
async fn pace(desk: Rc<Desk>, shared: Rc<Shared>) {
    while !shared.is_over.get() {
        desk.give_out();
        yield_now().await;
    }
    desk.close();
}

fn wrong_len(len: usize) -> String {
    format!("a reply of {len} bytes")
}

impl Shared {
    fn new(callers: usize, is_open: bool) -> Result<Self, Failure> {
        let record = if is_open { Recorder::open()? } else { Recorder::closed()? };
        Ok(Self {
            clock: Clock::new(),
            record: RefCell::new(record),
            errors: Cell::new(0),
            first_error: RefCell::new(None),
            is_over: Cell::new(false),
            callers: Cell::new(callers),
        })
    }

    /// Measures what is answered in the window, and what has no answer at its end. Ends the load, and
    /// waits for the calls in flight.
    async fn measure(&self, desk: Option<&Desk>, window: Window) -> Result<ClientFigures, Failure> {
        self.sleep_until(window.start_ns).await;
        self.record.borrow_mut().clear();
        self.errors.set(0);
        let start_ns = self.clock.now_ns();
        self.sleep_until(window.end_ns).await;
        let end_ns = self.clock.now_ns();
        // What is recorded from now on is in no figure.
        let mut record = self.record.replace(Recorder::closed()?);
        let unanswered = desk.map_or_else(Unanswered::default, Desk::unanswered);
        let errors = self.errors.get();
        self.is_over.set(true);
        let mut bounds = Latencies::new()?;
        if let Some(open) = &mut record.open {
            unanswered.add_to(open, end_ns, &mut bounds);
        }
        self.drain().await;
        let elapsed = Duration::from_nanos(end_ns - start_ns);
        let first_error = self.first_error.take();
        Ok(ClientFigures { record, bounds, errors, first_error, elapsed, offered_per_s: None })
    }

    /// Waits for calls in flight, for as long as there are any and it is worth it.
    async fn drain(&self) {
        let deadline_ns = self.clock.now_ns() + DRAIN_MAX.as_nanos() as u64;
        while self.callers.get() > 0 && self.clock.now_ns() < deadline_ns {
            sleep(Duration::from_millis(1)).await;
        }
    }

    async fn sleep_until(&self, time_ns: u64) {
        sleep(Duration::from_nanos(time_ns.saturating_sub(self.clock.now_ns()))).await;
    }

    /// Notes a call that failed, or whose reply has the wrong length.
    #[cold]
    async fn fail(&self, outcome: Result<usize, PeerError>) {
        self.errors.set(self.errors.get() + 1);
        let error = outcome.map_or_else(|error| error.to_string(), wrong_len);
        self.first_error.borrow_mut().get_or_insert(error);
        // What fails at once would keep this thread from everything else.
        sleep(Duration::from_millis(1)).await;
    }
}

//! The client side of a run: one thread, pinned to its core, with one task for each call in flight.
//!
//! In a **closed loop** each task awaits its call and makes the next, with one clock read a call,
//! as ringcall-perf does it. In an **open loop** a pacer, which never sleeps, takes arrivals as
//! they become due and hands them to idle tasks; what matters then is the time from which a call
//! was to be made, not from which it could be made.

use std::{
    cell::{Cell, RefCell},
    net::SocketAddr,
    rc::Rc,
    sync::mpsc::{Receiver, Sender},
    time::{Duration, Instant},
};

use bytes::Bytes;
use tokio::{
    task::{spawn_local, yield_now},
    time::{sleep, timeout},
};

use crate::{
    cores,
    error::Failure,
    generator::{Arrivals, Desk},
    measure::{ClientFigures, Latencies, OpenFigures},
    peers::{Peer, PeerError, System},
    server,
    workload::{Window, Workload},
};

/// Time within which a server must accept a connection and answer on it.
pub(crate) const ANSWER_MAX: Duration = Duration::from_secs(5);

/// Longest time for which the calls in flight are waited for when the window has closed.
const DRAIN_MAX: Duration = Duration::from_secs(5);

/// The byte that bodies are made of.
pub(crate) const FILL: u8 = 0x5a;

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
    latencies: RefCell<Latencies>,
    errors: Cell<u64>,
    first_error: RefCell<Option<String>>,
    is_over: Cell<bool>,
    /// Tasks that make calls.
    callers: Cell<usize>,
    open: Option<Open>,
}

/// What the tasks share in an open loop besides.
struct Open {
    desk: Desk,
    window: Window,
    from_send: RefCell<Latencies>,
    lateness: RefCell<Latencies>,
    offered: Cell<u64>,
    answered: Cell<u64>,
    /// Set when the last arrival of the window is handed over.
    is_paced: Cell<bool>,
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
    let window = thread.pass_gate()?;
    let callers = clients.len() * thread.workload.depth as usize;
    let shared = Rc::new(Shared::new(callers, thread.rate.map(|_| window))?);
    // One connection after the other, so that calls at a rate go around the connections too.
    for _ in 0..thread.workload.depth {
        for client in &clients {
            let (client, body, shared) = (client.clone(), body.clone(), Rc::clone(&shared));
            match thread.rate {
                None => spawn_local(call_on_and_on::<P>(client, body, shared)),
                Some(_) => spawn_local(call_when_due::<P>(client, body, shared)),
            };
        }
    }
    if let Some(rate) = thread.rate {
        spawn_local(pace(Arrivals::poisson(rate, Instant::now()), Rc::clone(&shared)));
    }
    let elapsed = match thread.rate {
        None => measure_closed(&shared, window).await,
        Some(_) => measure_open(&shared, window).await,
    };
    shared.figures(elapsed)
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
    let mut begun = Instant::now();
    while !shared.is_over.get() {
        let outcome = P::call(&mut client, &body).await;
        let now = Instant::now();
        match outcome {
            Ok(len) if len == body.len() => shared.latencies.borrow_mut().record(now - begun),
            outcome => shared.fail(outcome).await,
        }
        begun = now;
    }
    shared.callers.set(shared.callers.get() - 1);
}

/// Makes a call for each arrival that the desk has for it.
async fn call_when_due<P: Peer>(mut client: P::Client, body: Bytes, shared: Rc<Shared>) {
    let Some(open) = &shared.open else { return };
    let mut free = Instant::now();
    while let Some(intended) = open.desk.next().await {
        let sent = Instant::now();
        let outcome = P::call(&mut client, &body).await;
        let now = Instant::now();
        match outcome {
            Ok(len) if len == body.len() => {
                if now >= open.window.start && now < open.window.end {
                    open.answered.set(open.answered.get() + 1);
                }
                if intended >= open.window.start && intended < open.window.end {
                    shared.latencies.borrow_mut().record(now - intended);
                    open.from_send.borrow_mut().record(now - sent);
                    // What the generator adds of its own: not the wait for a caller to be free.
                    open.lateness.borrow_mut().record(sent - intended.max(free));
                }
            }
            outcome => shared.fail(outcome).await,
        }
        free = now;
    }
    shared.callers.set(shared.callers.get() - 1);
}

/// Takes arrivals as they become due, and never sleeps: between two looks at the clock every task
/// that can run does, and the runtime looks at its sockets.
async fn pace(mut arrivals: Arrivals, shared: Rc<Shared>) {
    let Some(open) = &shared.open else { return };
    loop {
        let now = Instant::now();
        while let Some(intended) = arrivals.due(now) {
            if intended >= open.window.end {
                return open.is_paced.set(true);
            }
            if intended >= open.window.start {
                open.offered.set(open.offered.get() + 1);
            }
            open.desk.arrive(intended);
        }
        yield_now().await;
    }
}

/// Measures what is recorded in the window; gives how long it was.
async fn measure_closed(shared: &Shared, window: Window) -> Duration {
    sleep_until(window.start).await;
    let start = Instant::now();
    shared.latencies.borrow_mut().clear();
    shared.errors.set(0);
    sleep_until(window.end).await;
    let elapsed = start.elapsed();
    // What is recorded from now on, of calls in flight, is in no figure.
    let latencies = Latencies::new().map(|none| shared.latencies.replace(none));
    let errors = shared.errors.get();
    shared.is_over.set(true);
    drain(|| shared.callers.get() > 0).await;
    if let Ok(latencies) = latencies {
        shared.latencies.replace(latencies);
    }
    shared.errors.set(errors);
    elapsed
}

/// Measures the calls that are to be made in the window, however late they are made.
async fn measure_open(shared: &Shared, window: Window) -> Duration {
    sleep_until(window.start).await;
    shared.errors.set(0);
    sleep_until(window.end).await;
    if let Some(open) = &shared.open {
        let answered = || shared.latencies.borrow().calls() + shared.errors.get();
        drain(|| !open.is_paced.get() || answered() < open.offered.get()).await;
        open.desk.close();
    }
    window.end - window.start
}

/// Waits for calls in flight, for as long as there are any and it is worth it.
async fn drain(is_wanted: impl Fn() -> bool) {
    let deadline = Instant::now() + DRAIN_MAX;
    while is_wanted() && Instant::now() < deadline {
        sleep(Duration::from_millis(1)).await;
    }
}

async fn sleep_until(time: Instant) {
    sleep(time.saturating_duration_since(Instant::now())).await;
}

fn wrong_len(len: usize) -> String {
    format!("a reply of {len} bytes")
}

impl Shared {
    fn new(callers: usize, open: Option<Window>) -> Result<Self, Failure> {
        Ok(Self {
            latencies: RefCell::new(Latencies::new()?),
            errors: Cell::new(0),
            first_error: RefCell::new(None),
            is_over: Cell::new(false),
            callers: Cell::new(callers),
            open: match open {
                None => None,
                Some(window) => Some(Open {
                    desk: Desk::default(),
                    window,
                    from_send: RefCell::new(Latencies::new()?),
                    lateness: RefCell::new(Latencies::new()?),
                    offered: Cell::new(0),
                    answered: Cell::new(0),
                    is_paced: Cell::new(false),
                }),
            },
        })
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

    fn figures(&self, elapsed: Duration) -> Result<ClientFigures, Failure> {
        let latencies = self.latencies.replace(Latencies::new()?);
        let errors = self.errors.get();
        let open = match &self.open {
            None => None,
            Some(open) => Some(OpenFigures {
                offered: open.offered.get(),
                answered: open.answered.get(),
                unanswered: open.offered.get().saturating_sub(latencies.calls() + errors),
                from_send: open.from_send.replace(Latencies::new()?),
                lateness: open.lateness.replace(Latencies::new()?),
            }),
        };
        let first_error = self.first_error.take();
        Ok(ClientFigures { latencies, errors, first_error, elapsed, open })
    }
}

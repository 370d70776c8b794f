//! ringcall as it is measured: an echo service and its callers, through the public API.
//!
//! One task for each call in flight, which awaits the call, records it and makes the next. The
//! tasks of a connection share its client, and all tasks of a thread its histogram; nothing is
//! allocated and nothing crosses threads while calls are made.

use std::{
    cell::{Cell, RefCell},
    fmt,
    rc::Rc,
    time::{Duration, Instant},
};

use ringcall::{RunConfig, ShardConfig, ShardCounters, Sink, Source, prelude::*};

use crate::{
    error::Failure,
    load::ClientThread,
    measure::{Latencies, ThreadFigures, thread_cpu_ns},
    stream,
    window::LOOK_AFTER,
    workload::SIZE_MIN,
};

/// Longest time for which the calls in flight are waited for when the window has closed.
const DRAIN_MAX: Duration = Duration::from_secs(5);

/// What is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Target {
    /// A raw io_uring echo of the same bytes
    Floor,
    /// ringcall, through its public API
    Ringcall,
    /// ringcall's server alone, under the floor's client
    Server,
    /// ringcall's streams: items that are sent back, as many on their way as calls would be
    Stream,
}

impl Target {
    /// Whether what serves is ringcall.
    pub(crate) fn serves_ringcall(self) -> bool {
        self != Self::Floor
    }

    /// Whether what calls is ringcall.
    pub(crate) fn calls_ringcall(self) -> bool {
        matches!(self, Self::Ringcall | Self::Stream)
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // `pad` heeds the width that a table asks for.
        f.pad(match self {
            Self::Floor => "floor",
            Self::Ringcall => "ringcall",
            Self::Server => "server",
            Self::Stream => "stream",
        })
    }
}

/// The message of the benchmark, both ways: bytes that are borrowed.
#[ringcall::message]
pub(crate) struct Payload<'a> {
    pub(crate) bytes: &'a [u8],
}

/// The service of the benchmark.
#[ringcall::service]
pub(crate) trait Echo {
    /// Replies with the request's bytes, borrowed from the buffer they were received in.
    async fn echo<'a>(
        &self,
        cx: &Context,
        request: Request<'a, Payload<'a>>,
    ) -> Result<Payload<'a>, Status>;

    /// Sends each item back, borrowed from the buffer it was received in.
    async fn mirror(
        &self,
        cx: &Context,
        request: Request<'_, Payload<'_>>,
        items: Source<Payload<'_>>,
        back: Sink<'_, Payload<'_>>,
    ) -> Result<Payload<'static>, Status>;
}

/// The echo service.
pub(crate) struct Mirror;

impl Echo for Mirror {
    async fn echo<'a>(
        &self,
        _: &Context,
        request: Request<'a, Payload<'a>>,
    ) -> Result<Payload<'a>, Status> {
        Ok(Payload { bytes: &request.get().bytes })
    }

    async fn mirror(
        &self,
        _: &Context,
        _: Request<'_, Payload<'_>>,
        mut items: Source<Payload<'_>>,
        back: Sink<'_, Payload<'_>>,
    ) -> Result<Payload<'static>, Status> {
        while let Some(item) = items.next().await? {
            back.send_like(&Payload { bytes: &item.bytes }).await?;
        }
        Ok(Payload { bytes: &[] })
    }
}

/// What the tasks of a client thread share.
pub(crate) struct Shared {
    pub(crate) latencies: RefCell<Latencies>,
    errors: Cell<u64>,
    first_error: RefCell<Option<String>>,
    pub(crate) is_over: Cell<bool>,
    /// Tasks that make calls.
    pub(crate) callers: Cell<usize>,
    pub(crate) payload_len: usize,
}

/// Runs a client thread: connects, calls until the window closes, and gives its figures.
pub(crate) fn run(thread: &ClientThread) -> Result<ThreadFigures, Failure> {
    RunConfig::new().core(thread.core).shard(shard_config(thread.spin)).run(load(thread))?
}

/// How a shard runs that is measured, on either side.
pub(crate) fn shard_config(spin: Duration) -> ShardConfig {
    // As many items on their way as there are calls without a window.
    ShardConfig::new().spin(spin).stream_windows(64 << 20, 512 << 20)
}

async fn load(thread: &ClientThread) -> Result<ThreadFigures, Failure> {
    let payload: Rc<[u8]> = vec![0x5a; thread.workload.payload_len()].into();
    let mut clients = Vec::new();
    for _ in 0..thread.connections {
        if thread.gate.is_given_up() {
            return Err(Failure::Interrupted);
        }
        clients.push(EchoClient::connect(thread.address).await?);
    }
    if let Some(client) = clients.first() {
        check_frame_len(client, &payload, thread.workload.frame_len()).await?;
    }
    let window = thread.gate.pass()?;
    let shared = Rc::new(Shared {
        latencies: RefCell::new(Latencies::new()?),
        errors: Cell::new(0),
        first_error: RefCell::new(None),
        is_over: Cell::new(false),
        callers: Cell::new(match thread.target {
            Target::Stream => clients.len(),
            _ => clients.len() * thread.workload.depth as usize,
        }),
        payload_len: payload.len(),
    });
    for client in &clients {
        if thread.target == Target::Stream {
            let (client, payload) = (client.clone(), Rc::clone(&payload));
            let depth = thread.workload.depth as usize;
            ringcall::spawn(stream::items(client, payload, depth, Rc::clone(&shared)));
            continue;
        }
        for _ in 0..thread.workload.depth {
            ringcall::spawn(call(client.clone(), Rc::clone(&payload), Rc::clone(&shared)));
        }
    }
    sleep_until(window.start, thread, &shared).await;
    let start = Instant::now();
    let before = counters();
    shared.latencies.borrow_mut().clear();
    shared.errors.set(0);
    sleep_until(window.end, thread, &shared).await;
    let latencies = shared.latencies.replace(Latencies::new()?);
    let elapsed = start.elapsed();
    let counters = counters().since(&before);
    let errors = shared.errors.get();
    shared.is_over.set(true);
    drain(&shared).await;
    let first_error = shared.first_error.take();
    Ok(ThreadFigures { latencies, errors, first_error, elapsed, counters })
}

/// Makes one call after the other.
async fn call(client: EchoClient, payload: Rc<[u8]>, shared: Rc<Shared>) {
    let request = Payload { bytes: &payload };
    // One clock read a call: a call begins when the one before was recorded.
    let mut begun = Instant::now();
    while !shared.is_over.get() {
        let outcome = client.echo(&request).await;
        let now = Instant::now();
        match outcome {
            Ok(reply) if reply.bytes.len() == shared.payload_len => {
                shared.latencies.borrow_mut().record(now - begun);
            }
            Ok(reply) => shared.fail(|| format!("a reply of {} bytes", reply.bytes.len())),
            Err(status) => {
                shared.fail(|| status.to_string());
                // What fails at once would keep this thread from everything else.
                ringcall::sleep(Duration::from_millis(1)).await;
                if !client.client().is_open() {
                    break;
                }
            }
        }
        begun = now;
    }
    shared.callers.set(shared.callers.get() - 1);
}

impl Shared {
    #[cold]
    pub(crate) fn fail(&self, error: impl FnOnce() -> String) {
        self.errors.set(self.errors.get() + 1);
        self.first_error.borrow_mut().get_or_insert_with(error);
    }
}

/// Makes one call and looks what it sent: the floor sends as many bytes.
async fn check_frame_len(
    client: &EchoClient,
    payload: &[u8],
    wanted: usize,
) -> Result<(), Failure> {
    let before = counters().bytes_encoded;
    match client.echo(&Payload { bytes: payload }).await {
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

/// Waits for a time; returns early where the run was given up or every caller has.
async fn sleep_until(time: Instant, thread: &ClientThread, shared: &Shared) {
    while !thread.gate.is_given_up() && shared.callers.get() > 0 {
        let left = time.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return;
        }
        ringcall::sleep(left.min(LOOK_AFTER)).await;
    }
}

/// Waits for the calls in flight, so that the server is not left with half of them.
async fn drain(shared: &Shared) {
    let deadline = Instant::now() + DRAIN_MAX;
    while shared.callers.get() > 0 && Instant::now() < deadline {
        ringcall::sleep(Duration::from_millis(1)).await;
    }
}

const _: () =
    assert!(size_of::<<Payload<'_> as ringcall::rkyv::Archive>::Archived>() == SIZE_MIN as usize);

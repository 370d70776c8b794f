//! The executor under the shards: the one module that names glommio.
//!
//! Everything that ringcall needs of an executor is here, so that another can take its place in
//! this file alone: starting one on a core, spawning, sleeping, giving way, and waiting for a
//! descriptor to be readable.

use std::{
    any::Any,
    cell::RefCell,
    future::{Future, poll_fn},
    io,
    os::fd::AsRawFd,
    panic,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
        mpsc::{RecvTimeoutError, Sender, SyncSender, channel, sync_channel},
    },
    task::{Context, Poll, Waker},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use crate::{shard::ShardError, tasks};

use glommio::{LocalExecutor, LocalExecutorBuilder, Placement};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

/// How an executor is started.
#[derive(Clone, Debug)]
pub(crate) struct ExecutorConfig {
    /// The core that its thread is pinned to; none leaves it to the scheduler.
    pub(crate) core: Option<usize>,
    /// Name of its thread.
    pub(crate) name: String,
    /// How long a task may run before the executor looks at its I/O. The default of glommio is
    /// 100 ms, and shorter is dangerous: if the timer fires before the first task of a round runs,
    /// the executor parks with runnable tasks (see `heartbeat.rs`). Tests shorten it to get there.
    pub(crate) preempt_timer: Option<Duration>,
}

/// Memory that a process must be allowed to lock before glommio starts, in bytes.
const MEMLOCK_MIN: u64 = 512 * 1024;

/// Longest sleep: a hundred years, as the clock overflows with the longest `Duration`.
const SLEEP_MAX: Duration = Duration::from_secs(100 * 365 * 24 * 3600);

/// Time between two knocks at an executor that has not begun with its future.
const KNOCK_FIRST: Duration = Duration::from_millis(5);

/// Time without a sign of life after which an executor that runs is knocked at: longer than the
/// slowest beat of a heart. It sleeps through work for twice as long at most, if every beat of its
/// heart was lost.
const KNOCK: Duration = Duration::from_millis(250);

/// How an executor ended that gave no output.
#[derive(Debug)]
pub(crate) enum ExecutorEnd {
    /// It could not be made.
    Failed(io::Error),
    /// It panicked, and said this.
    Panicked(String),
}

/// A running executor.
pub(crate) struct ExecutorThread<T>(JoinHandle<io::Result<T>>);

/// Checks what the executor needs of the process before anything is started.
pub(crate) fn check_limits() -> Result<(), ShardError> {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Memlock).current;
    match limit {
        Some(current) if current < MEMLOCK_MIN => {
            Err(ShardError::Memlock { current, wanted: MEMLOCK_MIN })
        }
        _ => Ok(()),
    }
}

/// The cores that this process may use.
pub(crate) fn usable_cores() -> Result<Vec<usize>, ShardError> {
    let affinity = |thread| sched_getaffinity(thread).map_err(io::Error::from);
    // A thread that is pinned may start others elsewhere.
    let (process, thread) = (affinity(Some(rustix::process::getpid()))?, affinity(None)?);
    let cores = 0..CpuSet::MAX_CPU;
    Ok(cores.filter(|core| process.is_set(*core) || thread.is_set(*core)).collect())
}

/// Checks that cores are there, before anything is started on them.
pub(crate) fn check_cores(cores: &[usize]) -> Result<(), ShardError> {
    let usable = usable_cores()?;
    match cores.iter().find(|core| !usable.contains(core)) {
        None => Ok(()),
        Some(core) => {
            let available: Vec<_> = usable.iter().map(usize::to_string).collect();
            Err(ShardError::NoSuchCore { core: *core, available: available.join(", ") })
        }
    }
}

/// Runs an executor on a thread of its own until the future that `make` gives is done.
pub(crate) fn start<T, F>(
    config: &ExecutorConfig,
    make: impl FnOnce() -> F + Send + 'static,
) -> io::Result<ExecutorThread<T>>
where
    F: Future<Output = T> + 'static,
    T: Send + 'static,
{
    let config = config.clone();
    let thread = thread::Builder::new().name(config.name.clone());
    let thread = thread.spawn(move || run_to_end(builder(&config).make().map_err(io_error)?, make));
    thread.map(ExecutorThread)
}

/// Runs an executor on this thread until the future that `make` gives is done. The thread is
/// pinned for that time alone.
pub(crate) fn run<T, F: Future<Output = T>>(
    config: &ExecutorConfig,
    make: impl FnOnce() -> F,
) -> io::Result<T> {
    let affinity = sched_getaffinity(None)?;
    let executor = builder(config).make().map_err(io_error);
    let output = executor.and_then(|executor| run_to_end(executor, make));
    sched_setaffinity(None, &affinity)?;
    output
}

/// Runs an executor until the future that `make` gives is done.
fn run_to_end<T, F: Future<Output = T>>(
    executor: LocalExecutor,
    make: impl FnOnce() -> F,
) -> io::Result<T> {
    let knocker = Knocker::start(|woken| TaskHandle(executor.spawn(woken)))?;
    let kept = tasks::Kept::begin();
    let output = executor.run(async {
        knocker.has_begun();
        make().await
    });
    drop((knocker, kept, executor));
    Ok(output)
}

thread_local! {
    /// The signs of life of this thread's executor, where somebody looks at them.
    static SIGNS: RefCell<Option<Arc<AtomicU64>>> = const { RefCell::new(None) };
}

/// Gives a sign of life of this thread's executor.
pub(crate) fn is_alive() {
    SIGNS.with_borrow(|signs| {
        if let Some(signs) = signs {
            signs.fetch_add(1, Ordering::Relaxed);
        }
    });
}

/// A thread that wakes an executor which gives no sign of life, for as long as this exists.
///
/// An executor can sleep with runnable tasks (see `heartbeat.rs`), its very first one too. Whatever
/// would wake it from within is armed by a task, and that task can be left lying with the others;
/// a wake-up from another thread cannot be lost in that way, however often it happens.
pub(crate) struct Knocker {
    /// Dropped to end the thread.
    begun: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
    /// The task that is woken. It is there to be woken and does nothing.
    _woken: TaskHandle,
}

impl Knocker {
    /// Knocks at this thread's executor, unless somebody does so already.
    pub(crate) fn start_here() -> io::Result<Option<Self>> {
        if SIGNS.with_borrow(Option::is_some) {
            return Ok(None);
        }
        let knocker = Self::start(|woken| TaskHandle(glommio::spawn_local(woken)))?;
        knocker.has_begun();
        Ok(Some(knocker))
    }

    fn start(spawn: impl FnOnce(Woken) -> TaskHandle) -> io::Result<Self> {
        let (send_waker, wakers) = sync_channel(1);
        let woken = spawn(Woken(send_waker));
        let (begun, has_begun) = channel::<()>();
        let signs = Arc::<AtomicU64>::default();
        let seen = Arc::clone(&signs);
        let thread =
            thread::Builder::new().name("ringcall-knocks".to_owned()).spawn(move || {
                let (mut period, mut waker): (_, Option<Waker>) = (KNOCK_FIRST, None);
                let mut before = 0;
                loop {
                    match has_begun.recv_timeout(period) {
                        Ok(()) => period = KNOCK,
                        Err(RecvTimeoutError::Timeout) => {
                            let now = seen.load(Ordering::Relaxed);
                            if std::mem::replace(&mut before, now) == now {
                                waker = waker.or_else(|| wakers.try_recv().ok());
                                waker.iter().for_each(Waker::wake_by_ref);
                            }
                        }
                        Err(RecvTimeoutError::Disconnected) => return,
                    }
                }
            })?;
        SIGNS.set(Some(signs));
        Ok(Self { begun: Some(begun), thread: Some(thread), _woken: woken })
    }

    /// Notes that the executor has begun with its future.
    fn has_begun(&self) {
        if let Some(begun) = &self.begun {
            // The thread is there for as long as this is.
            let _ = begun.send(());
        }
    }
}

impl Drop for Knocker {
    fn drop(&mut self) {
        SIGNS.set(None);
        self.begun.take();
        if let Some(thread) = self.thread.take() {
            // It does not panic.
            let _ = thread.join();
        }
    }
}

/// The future of a knocker's task: gives its waker away when it is first polled.
struct Woken(SyncSender<Waker>);

impl Future for Woken {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        // Later wakers find the channel full or closed.
        let _ = self.0.try_send(cx.waker().clone());
        Poll::Pending
    }
}

impl<T> ExecutorThread<T> {
    /// Waits for the executor to end.
    pub(crate) fn join(self) -> Result<T, ExecutorEnd> {
        match self.0.join() {
            Ok(output) => output.map_err(ExecutorEnd::Failed),
            Err(panic) => Err(ExecutorEnd::Panicked(text_of(&*panic))),
        }
    }
}

/// What a panic said.
fn text_of(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    let text = text.or_else(|| panic.downcast_ref::<String>().cloned());
    text.unwrap_or_else(|| "no text".to_owned())
}

/// Number of the executor that this thread runs now; none outside of one.
pub(crate) fn current() -> Option<usize> {
    // Outside of an executor glommio answers by a panic, and there is no other way to ask.
    panic::catch_unwind(|| glommio::executor().id()).ok()
}

/// A task that was spawned; to be kept, ended or forgotten.
#[must_use = "dropping it ends the task"]
pub(crate) struct TaskHandle(glommio::Task<()>);

/// Spawns a task on this executor, and polls it at once.
///
/// An executor that ends forgets the tasks that are left, with all that they hold; those of
/// [`tasks::spawn`] are ended before.
pub(crate) fn spawn(future: impl Future<Output = ()> + 'static) -> TaskHandle {
    TaskHandle(glommio::spawn_local(future))
}

impl TaskHandle {
    /// Lets the task run on its own.
    pub(crate) fn forget(self) {
        self.0.detach();
    }

    /// Drops the task's future, which must be another's than the caller's.
    pub(crate) async fn end(self) {
        self.0.cancel().await;
    }
}

/// Waits for a time; the executor's timers are checked once per round.
///
/// Polled again, a timer of glommio's is entered again, and only its last entry goes when it is
/// dropped: the others keep their wakers until the time is over. Resetting it takes its entry out.
pub(crate) async fn sleep(duration: Duration) {
    let due = Instant::now() + duration.min(SLEEP_MAX);
    let mut timer = glommio::timer::Timer::new(Duration::ZERO);
    poll_fn(|cx| {
        timer.reset(due.saturating_duration_since(Instant::now()));
        Pin::new(&mut timer).poll(cx).map(|_| ())
    })
    .await;
}

/// Lets every task that is runnable now run once.
pub(crate) async fn yield_now() {
    let mut yielded = false;
    poll_fn(|cx| {
        if yielded {
            return Poll::Ready(());
        }
        yielded = true;
        cx.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

/// Waits for a descriptor to be readable, with the wait kept between polls: once begun it stands
/// in the executor's ring until the descriptor is readable.
pub(crate) struct ReadableWatch<T: AsRawFd> {
    descriptor: glommio::io::PollableFd<T>,
    state: glommio::io::PollState,
}

impl<T: AsRawFd> ReadableWatch<T> {
    pub(crate) fn new(descriptor: T) -> io::Result<Self> {
        let descriptor = glommio::io::PollableFd::new(descriptor).map_err(io_error)?;
        Ok(Self { descriptor, state: glommio::io::PollState::new() })
    }

    pub(crate) fn poll_readable(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.descriptor.poll_readable(cx, &mut self.state).map_err(io_error)
    }
}

fn builder(config: &ExecutorConfig) -> LocalExecutorBuilder {
    let placement = config.core.map_or(Placement::Unbound, Placement::Fixed);
    let builder = LocalExecutorBuilder::new(placement).name(&config.name);
    match config.preempt_timer {
        Some(preempt_timer) => builder.preempt_timer(preempt_timer),
        None => builder,
    }
}

fn io_error<T>(error: glommio::GlommioError<T>) -> io::Error {
    error.into()
}

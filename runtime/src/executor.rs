//! The executor under the shards: the one module that names glommio.
//!
//! Everything that ringcall needs of an executor is here, so that another can take its place in
//! this file alone: starting one on a core, spawning, sleeping, giving way, and waiting for a
//! descriptor to be readable.

use std::{
    future::{Future, poll_fn},
    io,
    os::fd::AsRawFd,
    panic,
    task::{Context, Poll},
    time::Duration,
};

use crate::{shard::ShardError, tasks};

use glommio::{
    BuilderErrorKind, ExecutorJoinHandle, GlommioError, LocalExecutorBuilder, Placement,
};
use rustix::thread::{CpuSet, sched_getaffinity};

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

/// How an executor ended that gave no output.
#[derive(Debug)]
pub(crate) enum ExecutorEnd {
    /// It could not be made.
    Failed(io::Error),
    /// It panicked, and said this.
    Panicked(String),
}

/// A running executor.
pub(crate) struct ExecutorThread<T: Send + 'static>(ExecutorJoinHandle<T>);

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
    let handle = builder(config)
        .spawn(move || async move {
            let _kept = tasks::Kept::begin();
            make().await
        })
        .map_err(io_error)?;
    Ok(ExecutorThread(handle))
}

/// Runs an executor on this thread until the future that `make` gives is done. The thread is
/// pinned for that time alone.
pub(crate) fn run<T, F: Future<Output = T>>(
    config: &ExecutorConfig,
    make: impl FnOnce() -> F,
) -> io::Result<T> {
    let affinity = rustix::thread::sched_getaffinity(None)?;
    let executor = builder(config).make().map_err(io_error)?;
    let kept = tasks::Kept::begin();
    let output = executor.run(async move { make().await });
    drop((kept, executor));
    rustix::thread::sched_setaffinity(None, &affinity)?;
    Ok(output)
}

impl<T: Send + 'static> ExecutorThread<T> {
    /// Waits for the executor to end.
    pub(crate) fn join(self) -> Result<T, ExecutorEnd> {
        self.0.join().map_err(|error| match error {
            GlommioError::BuilderError(BuilderErrorKind::ThreadPanic(message)) => {
                ExecutorEnd::Panicked(message)
            }
            error => ExecutorEnd::Failed(error.into()),
        })
    }
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
pub(crate) async fn sleep(duration: Duration) {
    glommio::timer::sleep(duration).await;
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

//! Running a future on a shard of this thread: how a client gets one.

use std::{
    future::{Future, poll_fn},
    panic::resume_unwind,
    sync::Arc,
    task::Poll,
    time::Duration,
};

use ringcall_codec::ShardPlace;

use crate::{
    config::ShardConfig,
    counters::ShardCounters,
    executor::{self, ExecutorConfig},
    mail::Mailboxes,
    shard::{self, Shard, ShardError},
    tasks,
};

/// Runs a future on a shard of this thread, with the defaults, until it is done. Tasks that are
/// still there then are dropped.
///
/// # Errors
///
/// Where the shard cannot start: io_uring is missing or forbidden, or too little memory may be
/// locked. The error says what to do.
pub fn run<T, F: Future<Output = T>>(future: F) -> Result<T, ShardError> {
    RunConfig::default().run(future)
}

/// How to run a future on a shard of this thread.
#[derive(Clone, Debug, Default)]
pub struct RunConfig {
    core: Option<usize>,
    shard: ShardConfig,
}

impl RunConfig {
    /// The defaults: the scheduler chooses the core.
    pub fn new() -> Self {
        Self::default()
    }

    /// Pins this thread to a core while the future runs.
    #[must_use]
    pub fn core(mut self, core: usize) -> Self {
        self.core = Some(core);
        self
    }

    /// How the shard runs.
    #[must_use]
    pub fn shard(mut self, config: ShardConfig) -> Self {
        self.shard = config;
        self
    }

    /// Runs a future. As [`run`].
    ///
    /// # Errors
    ///
    /// As [`run`], and where a setting is out of range.
    pub fn run<T, F: Future<Output = T>>(self, future: F) -> Result<T, ShardError> {
        self.shard.validate()?;
        if tasks::are_kept() {
            return Err(ShardError::ExecutorRuns);
        }
        executor::check_cores(self.core.as_slice())?;
        shard::check_process(&self.shard, 1)?;
        let executor = ExecutorConfig {
            core: self.core,
            name: "ringcall-client".to_owned(),
            preempt_timer: self.shard.preempt_timer,
        };
        let output = executor::run(&executor, || async {
            let (place, mailboxes) = (ShardPlace::default(), Mailboxes::new(1)?);
            let shard = Shard::start(self.shard, place, Arc::default(), mailboxes)?;
            let output = tasks::guard(future).await;
            shard.close_all();
            tasks::end_all().await;
            Ok::<_, ShardError>(output)
        })??;
        Ok(output.unwrap_or_else(|panic| resume_unwind(panic)))
    }
}

/// Spawns a task on this thread's executor, where it runs on its own. It may make calls.
///
/// It is dropped when the shard stops; [`draining`](crate::draining) tells it before. A panic in it stops the shard, as a panic of the future
/// that [`run`] was given does; handlers are another matter, theirs fail a call.
///
/// Panics outside of an executor, as there is nowhere for it to run.
pub fn spawn(future: impl Future<Output = ()> + 'static) {
    tasks::spawn(future);
}

/// Waits for a time, on this thread's executor.
pub async fn sleep(duration: Duration) {
    executor::sleep(duration).await;
}

/// Lets every other task that is runnable on this thread's executor run once, and the shard's ring
/// have a turn. A task that does so in a loop keeps the thread busy: the shard does not sleep.
pub async fn yield_now() {
    let Some(shard) = Shard::existing() else {
        return executor::yield_now().await;
    };
    let mut gave_way = false;
    poll_fn(|cx| {
        if gave_way {
            return Poll::Ready(());
        }
        gave_way = true;
        shard.give_way(cx.waker());
        Poll::Pending
    })
    .await;
}

/// The counters of the shard that this thread runs; none where it runs none.
pub fn counters() -> Option<ShardCounters> {
    Shard::existing().map(|shard| shard.counters.snapshot())
}

/// Whether a value lies in a receive buffer of the shard that this thread runs. For tests of what
/// is read in place.
#[doc(hidden)]
pub fn is_in_receive_pool<T: ?Sized>(value: &T) -> bool {
    let address = std::ptr::from_ref(value).cast();
    Shard::existing().is_some_and(|shard| shard.pool.contains(address))
}

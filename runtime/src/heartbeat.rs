//! Why a shard never sleeps for good with work in hand.
//!
//! The executor asks for preemption by a timer. Where that timer fires between the end of one
//! round and the first task of the next, the round runs nothing, and the executor takes this for
//! "nothing to run": it parks, with runnable tasks. Seen with glommio 0.9.0 and glommio-ng 0.12.0;
//! rare with the timer's default of 100 ms, never impossible, as a thread can be descheduled for
//! longer.
//!
//! So something must always be outstanding that ends any sleep. One timer is not enough: the task
//! that it wakes can be left lying in the same way, and then nothing arms it again. Hence several
//! timers of one period, apart in phase, each polled on its own: every tick is another chance for
//! a whole round, and a shard would have to lose all of them in a row. They are timerfds and not
//! timers of the executor, which would re-arm them at each park.
//!
//! On a core that others keep busy even that happens: the executor is descheduled for longer than
//! its timer at every one of its four chances. So the last word is a thread's that knocks from
//! outside when it has felt no beat for a while (`Knocker` in `executor.rs`).

use std::{
    cell::{Cell, RefCell},
    future::poll_fn,
    io,
    os::fd::OwnedFd,
    rc::{Rc, Weak},
    task::Poll,
    time::Duration,
};

use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create,
    timerfd_settime,
};

use crate::{
    config::{HEARTBEAT, HEARTBEAT_IDLE},
    executor::{self, ReadableWatch},
    shard::Shard,
};

/// Timers of a shard's heartbeat.
const TIMERS: u32 = 4;

/// Keeps the executor of a shard from sleeping through work.
pub(crate) struct Heartbeat {
    timers: Vec<Timer>,
    period: Cell<Duration>,
}

/// A timerfd, and the wait for it. It is here and not in the task that waits, so that it is gone
/// with the shard, whatever becomes of the task.
struct Timer {
    fd: Rc<OwnedFd>,
    watch: RefCell<ReadableWatch<Rc<OwnedFd>>>,
}

impl Heartbeat {
    pub(crate) fn new() -> io::Result<Self> {
        let timer = || -> io::Result<Timer> {
            let flags = TimerfdFlags::CLOEXEC | TimerfdFlags::NONBLOCK;
            let fd = Rc::new(timerfd_create(TimerfdClockId::Monotonic, flags)?);
            let watch = RefCell::new(ReadableWatch::new(Rc::clone(&fd))?);
            Ok(Timer { fd, watch })
        };
        let timers = (0..TIMERS).map(|_| timer()).collect::<io::Result<_>>()?;
        let heartbeat = Self { timers, period: Cell::new(Duration::ZERO) };
        heartbeat.set_period(HEARTBEAT_IDLE)?;
        Ok(heartbeat)
    }

    /// Beats fast from now on. Called where calls may be in flight; costs a load where it does
    /// already.
    #[inline]
    pub(crate) fn quicken(&self) {
        if self.period.get() != HEARTBEAT {
            // The timers exist and the period is valid; a failure leaves the slow beat.
            let _ = self.set_period(HEARTBEAT);
        }
    }

    fn set_period(&self, period: Duration) -> io::Result<()> {
        for (index, timer) in (1..).zip(&self.timers) {
            let first = period * index / TIMERS;
            let spec = Itimerspec { it_interval: timespec(period), it_value: timespec(first) };
            timerfd_settime(&timer.fd, TimerfdTimerFlags::empty(), &spec)?;
        }
        self.period.set(period);
        Ok(())
    }

    /// Beats for as long as the shard exists: longer than its other tasks, so that ending those
    /// is not slept through either.
    pub(crate) fn start(shard: &Rc<Shard>) {
        for index in 0..shard.heartbeat.timers.len() {
            executor::spawn(beat(Rc::downgrade(shard), index)).forget();
        }
    }
}

/// One timer's beats. It is enough that they come: the round that runs this task runs every other
/// runnable task too.
async fn beat(shard: Weak<Shard>, index: usize) {
    let mut turns = 0;
    loop {
        let ticked = poll_fn(|cx| match shard.upgrade() {
            Some(shard) => shard.heartbeat.timers[index].watch.borrow_mut().poll_readable(cx),
            None => Poll::Ready(Err(io::ErrorKind::NotFound.into())),
        });
        let (Ok(()), Some(shard)) = (ticked.await, shard.upgrade()) else {
            return;
        };
        let mut ticks = [0; 8];
        // Nothing to read means that the period was changed since the tick.
        let _ = rustix::io::read(&shard.heartbeat.timers[index].fd, &mut ticks);
        shard.counters.heartbeats.add(1);
        executor::is_alive();
        if shard.is_timer_due_within(HEARTBEAT_IDLE) {
            // It sleeps no longer than until then, once it has looked at the clock again.
            shard.wake_driver();
        }
        let turns_now = shard.counters.turns.get();
        let is_idle = turns_now == turns && !shard.has_calls_in_flight();
        if is_idle && shard.heartbeat.period.get() != HEARTBEAT_IDLE {
            // As in `quicken`: a failure leaves the fast beat.
            let _ = shard.heartbeat.set_period(HEARTBEAT_IDLE);
        }
        turns = turns_now;
    }
}

fn timespec(duration: Duration) -> Timespec {
    Timespec {
        tv_sec: duration.as_secs().cast_signed(),
        tv_nsec: i64::from(duration.subsec_nanos()),
    }
}

//! Slow calls: the last of them, with what the shard was doing, so that the cause of an outlier
//! has a name.

use std::{
    collections::VecDeque,
    sync::{Mutex, PoisonError, TryLockError},
    time::{Duration, SystemTime},
};

use crate::counters::Counter;

/// Slow calls that each shard keeps, in number: the last.
pub const SLOW_CALLS_KEPT: usize = 64;

/// A call that took longer than nearly all others on its shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct SlowCall {
    /// The shard that ran it.
    pub shard: u16,
    /// `Service.method`.
    pub method: &'static str,
    /// When its handler began.
    pub at: SystemTime,
    /// Calls that this stands for: more than one where only a batch was measured, of which one or
    /// some were slow, and `method` is that of the last.
    pub calls: u32,
    /// From when the shard took the call from its ring until its handler began.
    pub queue: Duration,
    /// From the handler's begin to its end, awaits included.
    pub service: Duration,
    /// From the handler's end until the kernel had taken the reply; zero where that was not seen.
    pub reply: Duration,
    /// How long the shard did not look at its ring before it took the call: it may have waited in
    /// its socket for so long, unseen.
    pub away: Duration,
    /// Length of the turn in which its handler began, or, for one that waited, ended; zero where
    /// that is not known, as it was the reply that was slow.
    pub turn: Duration,
    /// Calls that began in that turn.
    pub batch: u32,
    /// Frames that were copied in that turn up to then, for whatever reason.
    pub copies: u32,
    /// Receive buffers that were free.
    pub buffers_free: u32,
    /// What took most of the time.
    pub cause: Cause,
}

/// What took most of a slow call's time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Cause {
    /// Its handler, which ran without waiting.
    Handler,
    /// What its handler waited for.
    Awaited,
    /// It queued while a handler of this method ran in the same turn.
    Behind(&'static str),
    /// It queued behind many calls that were taken with it.
    Batch,
    /// It was not read at once, as its peer does not read its replies.
    Blocked,
    /// The kernel did not take its reply: the peer reads slowly, or the network is slow.
    Reply,
    /// The shard's tasks ran: handlers that wait, and what else was spawned.
    Tasks,
    /// The executor's reactor had its turn, and what it woke.
    Reactor,
    /// The kernel took long to be entered: it sent and received, or gave the core to others.
    Kernel,
    /// Receive buffers were short: bodies were copied, or receiving had to wait.
    Pool,
}

impl Cause {
    /// One word for it, as metrics and pages write it.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Handler => "handler",
            Self::Awaited => "awaited",
            Self::Behind(_) => "behind",
            Self::Batch => "batch",
            Self::Blocked => "blocked",
            Self::Reply => "reply",
            Self::Tasks => "tasks",
            Self::Reactor => "reactor",
            Self::Kernel => "kernel",
            Self::Pool => "pool",
        }
    }
}

impl std::fmt::Display for Cause {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Behind(method) => write!(f, "behind {method}"),
            other => f.write_str(other.name()),
        }
    }
}

impl SlowCall {
    /// All of its time that was seen.
    pub fn total(&self) -> Duration {
        self.away + self.queue + self.service + self.reply
    }
}

/// The last slow calls of a shard.
#[derive(Debug, Default)]
pub(crate) struct SlowCalls {
    kept: Mutex<Kept>,
    /// Slow calls that were seen, kept or not.
    pub(crate) seen: Counter,
}

#[derive(Debug, Default)]
struct Kept {
    calls: VecDeque<SlowCall>,
    /// Number of the next one.
    next: u64,
}

impl SlowCalls {
    /// Keeps a call, and gives its number; none where a reader looks at this moment, as a shard
    /// waits for nobody.
    pub(crate) fn keep(&self, call: SlowCall) -> Option<u64> {
        self.with(|kept| {
            if kept.calls.len() >= SLOW_CALLS_KEPT {
                kept.calls.pop_front();
            }
            kept.calls.push_back(call);
            kept.next += 1;
            kept.next - 1
        })
    }

    /// Says more of a call that was kept, if it still is.
    pub(crate) fn amend(&self, number: u64, amend: impl FnOnce(&mut SlowCall)) {
        self.with(|kept| {
            let from_end = kept.next.saturating_sub(number) as usize;
            let at = kept.calls.len().checked_sub(from_end);
            if let Some(call) = at.and_then(|at| kept.calls.get_mut(at)) {
                amend(call);
            }
        });
    }

    fn with<T>(&self, with: impl FnOnce(&mut Kept) -> T) -> Option<T> {
        match self.kept.try_lock() {
            Ok(mut kept) => Some(with(&mut kept)),
            Err(TryLockError::Poisoned(poisoned)) => Some(with(&mut poisoned.into_inner())),
            Err(TryLockError::WouldBlock) => None,
        }
    }

    /// Those that are kept, oldest first.
    pub(crate) fn snapshot(&self) -> Vec<SlowCall> {
        let mut calls = Vec::with_capacity(SLOW_CALLS_KEPT);
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        calls.extend(&kept.calls);
        calls
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(number: u64) -> SlowCall {
        SlowCall {
            shard: 0,
            method: "Test.slow",
            at: SystemTime::UNIX_EPOCH,
            calls: 1,
            queue: Duration::ZERO,
            service: Duration::from_nanos(number),
            reply: Duration::ZERO,
            away: Duration::ZERO,
            turn: Duration::ZERO,
            batch: 1,
            copies: 0,
            buffers_free: 0,
            cause: Cause::Handler,
        }
    }

    #[test]
    fn the_last_are_kept_and_may_be_amended() {
        let calls = SlowCalls::default();
        for number in 0..100 {
            assert_eq!(calls.keep(call(number)), Some(number));
        }
        calls.amend(99, |call| call.reply = Duration::from_secs(1));
        calls.amend(36, |call| call.reply = Duration::from_secs(2));
        calls.amend(35, |call| call.reply = Duration::from_secs(3));
        let kept = calls.snapshot();
        assert_eq!(kept.len(), SLOW_CALLS_KEPT);
        assert_eq!(kept[0].service, Duration::from_nanos(36));
        assert_eq!(kept[0].reply, Duration::from_secs(2));
        assert_eq!(kept[63].reply, Duration::from_secs(1));
        assert!(kept.iter().all(|call| call.reply != Duration::from_secs(3)));
    }

    #[test]
    fn a_reader_never_makes_the_shard_wait() {
        let calls = SlowCalls::default();
        let reader = calls.kept.lock().unwrap();
        assert_eq!(calls.keep(call(0)), None);
        drop(reader);
        assert_eq!(calls.keep(call(0)), Some(0));
    }

    #[test]
    fn a_cause_says_behind_which_method() {
        assert_eq!(Cause::Behind("Kv.scan").to_string(), "behind Kv.scan");
        assert_eq!(Cause::Awaited.to_string(), "awaited");
    }
}

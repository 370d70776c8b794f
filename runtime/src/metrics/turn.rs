//! A turn of the driver as it is measured: its length, its batch, what went before it, and which
//! handler held it up.

use std::cell::Cell;

use super::slow::Cause;

/// Where the shard was while it did not look at its ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Away {
    /// Tasks of the executor ran.
    Tasks,
    /// The executor's reactor, and what it woke.
    Reactor,
}

/// What went on before the turn took what had come, in nanoseconds.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct AwayTimes {
    pub(crate) tasks_ns: u64,
    pub(crate) reactor_ns: u64,
    /// In the kernel, to which the ring was entered: it sends and receives meanwhile.
    pub(crate) kernel_ns: u64,
}

impl AwayTimes {
    pub(crate) fn total_ns(&self) -> u64 {
        self.tasks_ns + self.reactor_ns + self.kernel_ns
    }

    /// The longest of them.
    pub(crate) fn cause(&self) -> Cause {
        let Self { tasks_ns, reactor_ns, kernel_ns } = *self;
        if kernel_ns >= tasks_ns.max(reactor_ns) {
            Cause::Kernel
        } else if reactor_ns >= tasks_ns {
            Cause::Reactor
        } else {
            Cause::Tasks
        }
    }
}

/// The calls of one connection that were read in a row and took longer than such calls do.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Longest {
    /// By how much.
    pub(crate) excess_ns: u64,
    /// The method of the last of them.
    pub(crate) method: &'static str,
}

/// The turn that is under way. Times are nanoseconds since the shard started.
#[derive(Debug, Default)]
pub(crate) struct Turn {
    pub(crate) began_ns: Cell<u64>,
    /// Calls that had begun before it.
    pub(crate) calls_before: Cell<u64>,
    /// Frames that had been copied before it.
    pub(crate) copies_before: Cell<u64>,
    /// Frames that had been copied for want of buffers, and receives that had ended for it, before
    /// the turn before it.
    pub(crate) short_before: Cell<u64>,
    pub(crate) short_at_begin: Cell<u64>,
    pub(crate) away: Cell<AwayTimes>,
    /// The same, of the time since it began.
    pub(crate) away_since: Cell<AwayTimes>,
    pub(crate) longest: Cell<Longest>,
    /// Set where the shard had nothing to do before it.
    pub(crate) was_idle: Cell<bool>,
}

/// The times of a call that was measured, in nanoseconds.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct CallTimes {
    pub(crate) queue_ns: u64,
    pub(crate) service_ns: u64,
    /// How long the shard was away before the turn in which it began.
    pub(crate) away_ns: u64,
    /// Its handler waited.
    pub(crate) waited: bool,
    /// It was received in an earlier turn.
    pub(crate) was_blocked: bool,
}

impl Turn {
    /// What took most of the time of a call of this turn.
    pub(crate) fn cause_of(&self, times: &CallTimes, is_pool_short: bool) -> Cause {
        let CallTimes { queue_ns, service_ns, waited, was_blocked, .. } = *times;
        let away = self.away.get();
        // What a handler waits for has nothing to do with the turn in which it ends.
        if waited && service_ns >= queue_ns {
            return Cause::Awaited;
        }
        if away.total_ns() > queue_ns + service_ns {
            return away.cause();
        }
        if service_ns >= queue_ns {
            return Cause::Handler;
        }
        if was_blocked {
            return Cause::Blocked;
        }
        let longest = self.longest.get();
        if longest.excess_ns >= queue_ns / 2 {
            return Cause::Behind(longest.method);
        }
        if is_pool_short { Cause::Pool } else { Cause::Batch }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cause(turn: &Turn, queue_ns: u64, service_ns: u64) -> Cause {
        let times = CallTimes { queue_ns, service_ns, ..CallTimes::default() };
        turn.cause_of(&times, false)
    }

    #[test]
    fn the_longest_part_of_a_call_is_its_cause() {
        let turn = Turn::default();
        assert_eq!(cause(&turn, 10, 1000), Cause::Handler);
        assert_eq!(cause(&turn, 1000, 10), Cause::Batch);
        turn.longest.set(Longest { excess_ns: 800, method: "Kv.scan" });
        assert_eq!(cause(&turn, 1000, 10), Cause::Behind("Kv.scan"));
        assert_eq!(cause(&turn, 10, 1000), Cause::Handler);
        assert_eq!(cause(&turn, 10_000, 10), Cause::Batch);
    }

    #[test]
    fn a_shard_that_was_away_is_the_cause_where_that_took_longer() {
        let turn = Turn::default();
        turn.away.set(AwayTimes { tasks_ns: 5000, reactor_ns: 10, kernel_ns: 20 });
        assert_eq!(cause(&turn, 100, 100), Cause::Tasks);
        assert_eq!(cause(&turn, 100, 6000), Cause::Handler);
        turn.away.set(AwayTimes { tasks_ns: 10, reactor_ns: 5000, kernel_ns: 20 });
        assert_eq!(cause(&turn, 100, 100), Cause::Reactor);
        turn.away.set(AwayTimes { tasks_ns: 10, reactor_ns: 10, kernel_ns: 5000 });
        assert_eq!(cause(&turn, 100, 100), Cause::Kernel);
    }

    #[test]
    fn a_call_that_was_kept_back_or_waited_says_so() {
        let turn = Turn::default();
        let blocked = CallTimes { queue_ns: 100, was_blocked: true, ..CallTimes::default() };
        assert_eq!(turn.cause_of(&blocked, true), Cause::Blocked);
        let short = CallTimes { queue_ns: 100, ..CallTimes::default() };
        assert_eq!(turn.cause_of(&short, true), Cause::Pool);
        let waited = CallTimes { service_ns: 100, waited: true, ..CallTimes::default() };
        assert_eq!(turn.cause_of(&waited, true), Cause::Awaited);
    }
}

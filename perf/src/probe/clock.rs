//! The probe's clock: nanoseconds of CLOCK_MONOTONIC, to which the kernel's stamps are brought.
//!
//! The kernel stamps packets in CLOCK_REALTIME. The two clocks are steered alike and differ by an
//! amount that only steps of the wall clock change, so that it is taken anew for each call: a
//! step within a call puts that one wrong and no other.

use std::{num::NonZeroU64, time::Duration};

use rustix::{
    thread::{clock_nanosleep_absolute, set_current_timer_slack},
    time::{ClockId, Timespec, clock_gettime},
};

/// Time before a moment that is waited for in which the thread looks at the clock and does not
/// sleep, in nanoseconds: a timer and the wake-up after it are late by tens of microseconds.
const SPIN_NS: u64 = 50_000;

/// The time now, in nanoseconds of CLOCK_MONOTONIC.
#[inline]
pub(super) fn now_ns() -> u64 {
    ns_of(clock_gettime(ClockId::Monotonic))
}

/// A time of day as nanoseconds of the monotonic clock, and back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct RealTime {
    /// What CLOCK_REALTIME is ahead by.
    ahead_ns: u64,
}

impl RealTime {
    /// Compares the two clocks: of a few pairs of readings the closest one.
    pub(super) fn compare() -> Self {
        let pair = || {
            let before_ns = now_ns();
            let real_ns = ns_of(clock_gettime(ClockId::Realtime));
            let after_ns = now_ns();
            let took_ns = after_ns - before_ns;
            (took_ns, real_ns.saturating_sub(before_ns + took_ns / 2))
        };
        let closest = [pair(), pair(), pair()].into_iter().min().unwrap_or_default();
        Self { ahead_ns: closest.1 }
    }

    /// A time of CLOCK_REALTIME in nanoseconds, by the monotonic clock.
    pub(super) fn monotonic_ns(self, real_ns: u64) -> u64 {
        real_ns.saturating_sub(self.ahead_ns)
    }
}

/// Sleeps until a moment, the last of it awake. Returns at once where it is past.
pub(super) fn sleep_until(until_ns: u64) {
    let wake_ns = until_ns.saturating_sub(SPIN_NS);
    while now_ns() < wake_ns {
        let wake = Duration::from_nanos(wake_ns);
        let Ok(wake) = Timespec::try_from(wake) else { break };
        // Where a signal ends it the loop goes on.
        let _ = clock_nanosleep_absolute(ClockId::Monotonic, &wake);
    }
    while now_ns() < until_ns {
        std::hint::spin_loop();
    }
}

/// Lets this thread's sleeps end when they should: the kernel delays those of threads by 50 µs
/// otherwise, so that it can end several at once.
pub(super) fn sharpen_timers() {
    // Without, calls are made a little later than they were to be, and that is measured too.
    let _ = set_current_timer_slack(Some(NonZeroU64::MIN));
}

/// A time in nanoseconds; the longest there is where it is longer.
pub(super) fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

/// A reading of a clock in nanoseconds. None is before its zero.
fn ns_of(time: Timespec) -> u64 {
    time.tv_sec.cast_unsigned() * 1_000_000_000 + time.tv_nsec.cast_unsigned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reading_of_both_clocks_is_the_same_moment() {
        let before_ns = now_ns();
        let real_ns = ns_of(clock_gettime(ClockId::Realtime));
        let clocks = RealTime::compare();
        // The wall clock may be steered meanwhile, by far less than a second.
        let moment_ns = clocks.monotonic_ns(real_ns);
        assert!(moment_ns.abs_diff(before_ns) < 1_000_000_000, "{moment_ns} {before_ns}");
        assert_eq!(clocks.monotonic_ns(real_ns + 5) - moment_ns, 5);
    }

    #[test]
    fn nobody_wakes_before_the_time() {
        for wait_ns in [0, 1_000, 200_000] {
            let until_ns = now_ns() + wait_ns;
            sleep_until(until_ns);
            assert!(now_ns() >= until_ns);
        }
        sleep_until(0);
    }
}

//! The generator's clock: the processor's time stamp counter where it is steady, else the kernel's
//! monotonic clock.
//!
//! A call is timed twice, and a read of the kernel's clock can cost as much as the rest of what a
//! client does to record it.

use std::{
    sync::OnceLock,
    time::{Duration, Instant},
};

/// A clock; all of a process share one beginning, so that their times can be compared.
#[derive(Clone, Debug)]
pub struct Clock {
    counter: quanta::Clock,
    origin: Origin,
}

/// One moment in both clocks.
#[derive(Clone, Copy, Debug)]
struct Origin {
    raw: u64,
    instant: Instant,
}

impl Clock {
    /// The first one of a process finds how fast the counter counts, which takes up to 200 ms.
    pub fn new() -> Self {
        static ORIGIN: OnceLock<Origin> = OnceLock::new();
        let counter = quanta::Clock::new();
        let origin = *ORIGIN.get_or_init(|| Origin { raw: counter.raw(), instant: Instant::now() });
        Self { counter, origin }
    }

    /// Nanoseconds since the clock's beginning.
    #[inline]
    pub fn now_ns(&self) -> u64 {
        self.counter.delta_as_nanos(self.origin.raw, self.counter.raw())
    }

    /// A time of this clock as an instant.
    pub fn instant(&self, ns: u64) -> Instant {
        self.origin.instant + Duration::from_nanos(ns)
    }

    /// An instant as a time of this clock; zero for one before its beginning.
    pub fn ns_of(&self, instant: Instant) -> u64 {
        let since = instant.saturating_duration_since(self.origin.instant);
        u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
    }
}

impl Default for Clock {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_agrees_with_the_monotonic_clock() {
        let clock = Clock::new();
        let (begun, begun_ns) = (Instant::now(), clock.now_ns());
        while begun.elapsed() < Duration::from_millis(20) {}
        let (least, passed, most) = {
            let least = begun.elapsed();
            (least, Duration::from_nanos(clock.now_ns() - begun_ns), begun.elapsed())
        };
        let slack = most / 100;
        assert!(least - slack <= passed && passed <= most + slack, "{least:?} {passed:?} {most:?}");
    }

    #[test]
    fn clocks_share_their_beginning_and_convert_both_ways() {
        let (one, other) = (Clock::new(), Clock::new());
        let earlier = one.now_ns();
        assert!(other.now_ns() >= earlier);
        assert_eq!(other.ns_of(one.instant(earlier)), earlier);
        assert_eq!(one.ns_of(one.origin.instant - Duration::from_secs(1)), 0);
    }
}

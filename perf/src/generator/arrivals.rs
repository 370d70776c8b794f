//! When calls are due: a schedule that is made before the run and does not wait for replies.
//!
//! A load of this kind is called open: who waits in a queue does not keep others from coming. The
//! gaps between arrivals are drawn once, for a rate of one; while the load runs an arrival costs a
//! look into a table and a multiplication.

use std::{fmt, sync::Arc, time::Duration};

use fastrand::Rng;

use super::random::exponential;

/// Gaps in a table, after which it begins again: 4 MiB of them, and at a million calls a second a
/// second of them.
const GAPS: usize = 1 << 20;

/// Calls a second, as a function of the time.
#[derive(Clone, Debug, PartialEq)]
pub enum Rate {
    /// The same all the time.
    Flat(f64),
    /// From the first to the second, evenly, over a time; the second from then on.
    Ramp(f64, f64, Duration),
    /// Each for a time; the last one from then on.
    Steps(Vec<(f64, Duration)>),
}

/// How arrivals are spread.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Spacing {
    /// At equal distances.
    Even,
    /// Independent of each other, as those of many callers are.
    Poisson,
    /// So many at once, at equal distances.
    Bursts(u32),
}

/// Arrivals that were recorded elsewhere.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Trace {
    /// In order of time.
    pub arrivals: Vec<Arrival>,
}

/// One call of a trace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Arrival {
    /// Since the beginning, in nanoseconds.
    pub at_ns: u64,
    /// Length of its body in bytes; none leaves it to the workload.
    pub size: Option<u32>,
}

/// An open load.
#[derive(Clone, Debug, PartialEq)]
pub enum Arrivals {
    /// At a rate.
    Rated(Rate, Spacing),
    /// As they were recorded.
    Traced(Arc<Trace>),
}

/// The arrivals of one client thread. A copy goes on by itself, and shares what was drawn.
#[derive(Clone, Debug)]
pub struct Schedule {
    source: Source,
    /// When it began, by the generator's clock.
    begun_ns: u64,
    /// When the next call is due, since then.
    next_ns: f64,
}

#[derive(Clone, Debug)]
enum Source {
    Rated {
        gaps: Arc<[f32]>,
        position: usize,
        rate: Rate,
        /// This thread's part of the rate.
        share: f64,
        /// Calls of all threads before this one's first.
        first: f64,
    },
    Traced {
        trace: Arc<Trace>,
        position: usize,
        /// This thread takes each arrival of so many.
        stride: usize,
    },
}

impl Rate {
    /// Calls a second at a time since the beginning.
    #[inline]
    pub fn at(&self, seconds: f64) -> f64 {
        match self {
            Self::Flat(rate) => *rate,
            Self::Ramp(from, to, over) => {
                let over = over.as_secs_f64();
                if seconds >= over { *to } else { from + (to - from) * seconds.max(0.0) / over }
            }
            Self::Steps(steps) => {
                let mut end = 0.0;
                let current = steps.iter().find(|(_, length)| {
                    end += length.as_secs_f64();
                    seconds < end
                });
                current.or(steps.last()).map_or(0.0, |(rate, _)| *rate)
            }
        }
    }

    /// The time at which so many calls have become due since another, both in seconds since the
    /// beginning.
    fn after(&self, mut seconds: f64, mut calls: f64) -> f64 {
        loop {
            // Up to its end the rate changes evenly.
            let (slope, end) = self.piece(seconds);
            let rate = self.at(seconds);
            // Solves rate·t + slope·t²/2 = calls; none where it falls too low for that.
            let root = rate * rate + 2.0 * slope * calls;
            let wait = if root >= 0.0 { 2.0 * calls / (rate + root.sqrt()) } else { f64::INFINITY };
            let left = end - seconds;
            if wait <= left {
                return seconds + wait;
            }
            calls -= (rate + slope * left / 2.0) * left;
            seconds = end;
        }
    }

    /// How fast the rate changes at a time, in calls a second and second, and until when it does so.
    fn piece(&self, seconds: f64) -> (f64, f64) {
        match self {
            Self::Flat(_) => (0.0, f64::INFINITY),
            Self::Ramp(..) if seconds < 0.0 => (0.0, 0.0),
            Self::Ramp(from, to, over) => {
                let over = over.as_secs_f64();
                if seconds >= over { (0.0, f64::INFINITY) } else { ((to - from) / over, over) }
            }
            Self::Steps(steps) => {
                let mut end = 0.0;
                let ends = steps.iter().map(|(_, length)| {
                    end += length.as_secs_f64();
                    end
                });
                // The last one goes on.
                let mut ends = ends.take(steps.len().saturating_sub(1));
                (0.0, ends.find(|end| seconds < *end).unwrap_or(f64::INFINITY))
            }
        }
    }

    /// How long it changes; none where it does not.
    pub fn changes_for(&self) -> Option<Duration> {
        match self {
            Self::Flat(_) => None,
            Self::Ramp(_, _, over) => Some(*over),
            Self::Steps(steps) => Some(steps.iter().map(|(_, length)| *length).sum()),
        }
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Flat(rate) => write!(f, "{rate}/s"),
            Self::Ramp(from, to, over) => write!(f, "{from}/s to {to}/s over {over:?}"),
            Self::Steps(steps) => {
                for (index, (rate, length)) in steps.iter().enumerate() {
                    let comma = if index == 0 { "" } else { ", " };
                    write!(f, "{comma}{rate}/s for {length:?}")?;
                }
                Ok(())
            }
        }
    }
}

impl fmt::Display for Arrivals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Rated(rate, Spacing::Even) => write!(f, "{rate}, evenly"),
            Self::Rated(rate, Spacing::Poisson) => write!(f, "{rate}, Poisson"),
            Self::Rated(rate, Spacing::Bursts(calls)) => write!(f, "{rate}, {calls} at once"),
            Self::Traced(trace) => write!(f, "a trace of {} calls", trace.arrivals.len()),
        }
    }
}

impl Spacing {
    /// Calls that are due together.
    fn at_once(self) -> f64 {
        if let Self::Bursts(calls) = self { f64::from(calls) } else { 1.0 }
    }

    /// Gaps for a rate of one, whose mean is one.
    fn gaps(self, seed: u64) -> Arc<[f32]> {
        match self {
            Self::Even => Arc::new([1.0]),
            Self::Poisson => {
                let mut rng = Rng::with_seed(seed);
                (0..GAPS).map(|_| exponential(&mut rng) as f32).collect()
            }
            Self::Bursts(calls) => {
                let calls = calls.max(1) as usize;
                let mut gaps = vec![0.0; calls];
                gaps[calls - 1] = calls as f32;
                gaps.into()
            }
        }
    }
}

impl Arrivals {
    /// Calls a second that are due, on the average over a time from the beginning.
    pub fn offered_per_s(&self, passed: Duration) -> f64 {
        let seconds = passed.as_secs_f64();
        match self {
            Self::Rated(Rate::Flat(rate), _) => *rate,
            Self::Rated(rate, _) => {
                // In a thousand steps, which is exact for what is straight.
                let at = |step: u32| rate.at(seconds * (f64::from(step) + 0.5) / 1000.0);
                (0..1000).map(at).sum::<f64>() / 1000.0
            }
            Self::Traced(trace) => {
                let end_ns = passed.as_nanos();
                let due = trace.arrivals.iter().take_while(|it| u128::from(it.at_ns) < end_ns);
                due.count() as f64 / seconds
            }
        }
    }

    /// The longest body that it asks for by itself; none where it asks for none.
    pub fn longest(&self) -> Option<u32> {
        match self {
            Self::Rated(..) => None,
            Self::Traced(trace) => trace.arrivals.iter().filter_map(|it| it.size).max(),
        }
    }

    /// The schedule of one of `threads` client threads. Those of a trace take turns; at a rate each
    /// has its part, drawn from a seed of its own.
    pub fn schedule(&self, thread: usize, threads: usize, seed: u64) -> Schedule {
        let threads = threads.max(1);
        let source = match self {
            Self::Rated(rate, spacing) => Source::Rated {
                gaps: spacing.gaps(seed ^ (thread as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15)),
                position: 0,
                rate: rate.clone(),
                share: 1.0 / threads as f64,
                // Threads are out of step with each other, and so are their bursts.
                first: thread as f64 * spacing.at_once(),
            },
            Self::Traced(trace) => {
                Source::Traced { trace: Arc::clone(trace), position: thread, stride: threads }
            }
        };
        let mut schedule = Schedule { source, begun_ns: 0, next_ns: 0.0 };
        match &schedule.source {
            Source::Traced { trace, position, .. } => {
                schedule.next_ns = due_of(trace, *position);
            }
            Source::Rated { rate, first, .. } => schedule.next_ns = rate.after(0.0, *first) * 1e9,
        }
        schedule
    }
}

/// When an arrival of a trace is due; never where there is none.
fn due_of(trace: &Trace, position: usize) -> f64 {
    trace.arrivals.get(position).map_or(f64::INFINITY, |arrival| arrival.at_ns as f64)
}

impl Schedule {
    /// Lets it begin at a time of the generator's clock. At a rate, calls are due for some time
    /// before: as often as at the beginning.
    pub fn begin(&mut self, begin_ns: u64, lead_ns: u64) {
        self.begun_ns = begin_ns;
        if let Source::Rated { rate, first, .. } = &self.source {
            self.next_ns = rate.after(lead_ns as f64 * -1e-9, *first) * 1e9;
        }
    }

    /// When the next call is due, by the generator's clock; `u64::MAX` where there is none.
    #[inline]
    pub fn due_ns(&self) -> u64 {
        // Exact to a nanosecond for three months; a cast from infinity saturates.
        (self.begun_ns as f64 + self.next_ns + 0.5) as u64
    }

    /// The length that the call that is due has in a trace.
    pub fn size(&self) -> Option<u32> {
        match &self.source {
            Source::Rated { .. } => None,
            Source::Traced { trace, position, .. } => trace.arrivals.get(*position)?.size,
        }
    }

    /// Goes on to the call after the one that is due.
    #[inline]
    pub fn advance(&mut self) {
        match &mut self.source {
            Source::Rated { gaps, position, rate, share, .. } => {
                let calls = f64::from(gaps[*position]) / *share;
                self.next_ns = match rate {
                    Rate::Flat(rate) => self.next_ns + calls / *rate * 1e9,
                    _ => rate.after(self.next_ns * 1e-9, calls) * 1e9,
                };
                *position += 1;
                if *position == gaps.len() {
                    *position = 0;
                }
            }
            Source::Traced { trace, position, stride } => {
                *position += *stride;
                self.next_ns = due_of(trace, *position);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

    use super::*;

    fn due(schedule: &mut Schedule, count: usize) -> Vec<u64> {
        let mut times = Vec::new();
        for _ in 0..count {
            times.push(schedule.due_ns());
            schedule.advance();
        }
        times
    }

    fn calls_before(schedule: &mut Schedule, end_ns: u64) -> u64 {
        let mut calls = 0;
        while schedule.due_ns() < end_ns {
            schedule.advance();
            calls += 1;
        }
        calls
    }

    #[test]
    fn even_arrivals_are_at_equal_distances_from_the_beginning() {
        let mut schedule = Arrivals::Rated(Rate::Flat(1000.0), Spacing::Even).schedule(0, 1, 1);
        schedule.begin(5_000, 0);
        assert_eq!(due(&mut schedule, 3), [5_000, 1_005_000, 2_005_000]);
    }

    #[test]
    fn a_load_leads_up_to_its_beginning_at_its_first_rate() {
        let rate = Rate::Steps(vec![(1000.0, Duration::from_secs(1)), (1e6, Duration::ZERO)]);
        let mut schedule = Arrivals::Rated(rate, Spacing::Even).schedule(0, 1, 1);
        schedule.begin(5_000_000, 2_000_000);
        assert_eq!(due(&mut schedule, 4), [3_000_000, 4_000_000, 5_000_000, 6_000_000]);
    }

    #[test]
    fn what_was_offered_is_the_mean_of_the_rate() {
        let offered = |rate, seconds| {
            Arrivals::Rated(rate, Spacing::Even).offered_per_s(Duration::from_secs(seconds))
        };
        assert_eq!(offered(Rate::Flat(7.0), 3), 7.0);
        let ramp = Rate::Ramp(0.0, 10.0, Duration::from_secs(10));
        assert!((offered(ramp, 10) - 5.0).abs() < 1e-9);
        let arrival = |at_ns| Arrival { at_ns, size: None };
        let trace = Trace { arrivals: [0, 1, 2_500_000_000].map(arrival).into() };
        assert_eq!(Arrivals::Traced(Arc::new(trace)).offered_per_s(Duration::from_secs(2)), 1.0);
    }

    #[test]
    fn threads_share_a_rate_and_are_out_of_step() {
        let arrivals = Arrivals::Rated(Rate::Flat(1000.0), Spacing::Even);
        assert_eq!(due(&mut arrivals.schedule(0, 2, 1), 2), [0, 2_000_000]);
        assert_eq!(due(&mut arrivals.schedule(1, 2, 1), 2), [1_000_000, 3_000_000]);
    }

    #[test]
    fn bursts_come_at_once_and_keep_the_rate() {
        let arrivals = Arrivals::Rated(Rate::Flat(1000.0), Spacing::Bursts(3));
        let times = due(&mut arrivals.schedule(0, 1, 1), 6);
        assert_eq!(times, [0, 0, 0, 3_000_000, 3_000_000, 3_000_000]);
    }

    /// The gaps of a Poisson process are exponential: as spread as they are long, and one in e is
    /// longer than the mean.
    #[test]
    fn poisson_arrivals_keep_the_rate_and_are_spread_as_such() {
        let arrivals = Arrivals::Rated(Rate::Flat(1e6), Spacing::Poisson);
        let times = due(&mut arrivals.schedule(0, 1, 7), 400_001);
        let gaps: Vec<f64> = times.windows(2).map(|pair| (pair[1] - pair[0]) as f64).collect();
        let mean = gaps.iter().sum::<f64>() / gaps.len() as f64;
        assert!((990.0..1010.0).contains(&mean), "{mean}");
        let variance = gaps.iter().map(|gap| (gap - mean).powi(2)).sum::<f64>() / gaps.len() as f64;
        assert!((0.98..1.02).contains(&(variance.sqrt() / mean)), "{variance}");
        let longer = gaps.iter().filter(|gap| **gap > 1000.0).count() as f64 / gaps.len() as f64;
        assert!((0.36..0.376).contains(&longer), "{longer}");
        // Threads and seeds have gaps of their own.
        let other = due(&mut arrivals.schedule(0, 1, 8), 10);
        assert_ne!(times[..10], other[..]);
    }

    #[test]
    fn a_ramp_and_steps_change_the_rate() {
        let rate = Rate::Ramp(1000.0, 3000.0, Duration::from_secs(2));
        assert_eq!(rate.at(1.0), 2000.0);
        assert_eq!(rate.at(9.0), 3000.0);
        let mut schedule = Arrivals::Rated(rate, Spacing::Even).schedule(0, 1, 1);
        // The mean of two seconds is 2000 a second.
        let calls = calls_before(&mut schedule, 2_000_000_000);
        assert!((3990..=4010).contains(&calls), "{calls}");

        let step = |rate, seconds| (rate, Duration::from_secs(seconds));
        let steps = Rate::Steps(vec![step(100.0, 1), step(1000.0, 2)]);
        assert_eq!([steps.at(0.5), steps.at(1.0), steps.at(99.0)], [100.0, 1000.0, 1000.0]);
        assert_eq!(steps.changes_for(), Some(Duration::from_secs(3)));
        let mut schedule = Arrivals::Rated(steps, Spacing::Even).schedule(0, 1, 1);
        let calls = calls_before(&mut schedule, 3_000_000_000);
        assert!((2095..=2105).contains(&calls), "{calls}");
    }

    /// However slow it begins: the gap of a slow beginning does not reach over what follows.
    #[test]
    fn what_becomes_due_is_what_the_rate_adds_up_to() {
        let seconds = Duration::from_secs;
        for (rate, end_s, expected) in [
            (Rate::Ramp(0.1, 10_000.0, seconds(10)), 10, 50_000),
            (Rate::Ramp(10_000.0, 0.1, seconds(10)), 10, 50_000),
            (Rate::Steps(vec![(0.1, seconds(5)), (10_000.0, seconds(5))]), 10, 50_000),
            (Rate::Steps(vec![(1000.0, seconds(1)), (10.0, seconds(1))]), 4, 1030),
        ] {
            let arrivals = Arrivals::Rated(rate.clone(), Spacing::Even);
            let calls: u64 = (0..2)
                .map(|thread| {
                    let mut schedule = arrivals.schedule(thread, 2, 1);
                    schedule.begin(2_000_000_000, 1_000_000_000);
                    while schedule.due_ns() < 2_000_000_000 {
                        schedule.advance();
                    }
                    calls_before(&mut schedule, (2 + end_s) * 1_000_000_000)
                })
                .sum();
            assert!(calls.abs_diff(expected) <= 4, "{rate}: {calls} instead of {expected}");
        }
    }

    #[test]
    fn bursts_of_several_threads_take_turns() {
        let arrivals = Arrivals::Rated(Rate::Flat(1000.0), Spacing::Bursts(100));
        let first = |thread| arrivals.schedule(thread, 2, 1).due_ns();
        assert_eq!([first(0), first(1)], [0, 100_000_000]);
    }

    #[test]
    fn threads_take_turns_at_a_trace_and_come_to_its_end() {
        let arrival = |at_ns| Arrival { at_ns, size: Some(at_ns as u32) };
        let trace = Trace { arrivals: [10, 20, 30].map(arrival).into() };
        let arrivals = Arrivals::Traced(Arc::new(trace));
        let mut first = arrivals.schedule(0, 2, 1);
        assert_eq!(first.size(), Some(10));
        assert_eq!(due(&mut first, 3), [10, 30, u64::MAX]);
        assert_eq!(first.size(), None);
        assert_eq!(due(&mut arrivals.schedule(1, 2, 1), 2), [20, u64::MAX]);
    }
}

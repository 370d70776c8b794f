//! The course of a run: when it has warmed up, and when it may end.
//!
//! Pure: what the threads recorded tick by tick goes in, the phase comes out. Calls that were
//! answered before the warm-up ended are in no figure.

use std::{collections::VecDeque, mem, time::Duration};

use ringcall::ShardCounters;

use crate::{
    error::Failure,
    gate::{Grid, Tick},
    generator::{Interval, Latencies, Recorder, Settling, Unanswered, interval_of},
    lengths::{Length, Lengths, Precision, Warmup, percentile_name},
    series::{Series, Slice, Sparse},
};

/// Ticks of a section, of which several tell how sure a percentile is: long beside what disturbs
/// single calls, and short enough that the shortest run has ten.
const SECTION_TICKS: u64 = 3;

/// Fewest calls beyond a percentile, over the whole run, before it may be called sure.
const CALLS_BEYOND_MIN: u64 = 100;

/// A run, as far as it has come.
pub(crate) struct Course {
    lengths: Lengths,
    grid: Grid,
    /// What came from each thread and is not yet taken, oldest first.
    waiting: Vec<VecDeque<Tick>>,
    /// Each thread's last tick that was taken.
    last: Vec<Mark>,
    ticks: u64,
    phase: Phase,
    settling: Settling,
    /// Ticks that were measured.
    measured_ticks: u64,
    /// Sections that there were when it was last looked how sure the percentile is.
    looked_at: usize,
    /// Ticks of a section.
    section_ticks: u64,
    /// The section that is being filled.
    section: Latencies,
    /// Each thread's calls without an answer when it ended the last tick that was measured.
    unanswered: Vec<Unanswered>,
    pub(crate) measured: Measured,
}

/// A thread at the end of a tick.
#[derive(Clone, Copy, Default)]
struct Mark {
    ended_ns: u64,
    counters: ShardCounters,
}

/// Where a run is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    WarmingUp,
    Measuring,
    Over,
}

/// What was measured, over all threads.
pub(crate) struct Measured {
    pub(crate) total: Recorder,
    /// Calls that failed.
    pub(crate) errors: u64,
    /// Those of the warm-up, which are in no figure.
    pub(crate) errors_before: u64,
    /// Calls that the slow handler answered; they are in `calls_per_s` and in no latency.
    pub(crate) slow_calls: u64,
    /// What calls had waited that were due at the end and were not answered; they are in `total`
    /// too, and in the last of `series`. Empty where the load is closed.
    pub(crate) bounds: Latencies,
    /// Time that was measured.
    pub(crate) passed: Duration,
    pub(crate) calls_per_s: f64,
    pub(crate) client_cpu_per_s: f64,
    pub(crate) client: ShardCounters,
    /// By tick.
    pub(crate) series: Series,
    /// The percentile that is to be sure, of each section.
    sections: Vec<f64>,
    /// How sure the percentile is.
    pub(crate) interval: Option<Interval>,
    /// Where it did not settle, or is not as sure as it was to be.
    pub(crate) doubts: Vec<String>,
    /// Each thread when measuring began.
    began: Vec<Mark>,
    /// How long it warmed up.
    pub(crate) warmed_for: Duration,
}

impl Measured {
    /// When measuring began, by the generator's clock.
    pub(crate) fn began_ns(&self) -> u64 {
        self.began.iter().map(|mark| mark.ended_ns).min().unwrap_or(0)
    }
}

impl Course {
    /// A run of so many threads, whose calls are due at a time where the load is open.
    pub(crate) fn begin(
        lengths: Lengths,
        grid: Grid,
        threads: usize,
        is_open: bool,
    ) -> Result<Self, Failure> {
        let total = if is_open { Recorder::open()? } else { Recorder::closed()? };
        let warms_up = grid.warm_ticks > 0 || matches!(lengths.warmup, Warmup::UntilSettled(_));
        let begun = Mark { ended_ns: grid.begin_ns, counters: ShardCounters::default() };
        Ok(Self {
            lengths,
            grid,
            waiting: (0..threads).map(|_| VecDeque::new()).collect(),
            last: vec![begun; threads],
            ticks: 0,
            phase: if warms_up { Phase::WarmingUp } else { Phase::Measuring },
            settling: Settling::default(),
            measured_ticks: 0,
            looked_at: 0,
            section_ticks: match lengths.length {
                Length::For(length) => {
                    let ns = u64::try_from(length.as_nanos()).unwrap_or(u64::MAX);
                    (ns / grid.tick_ns / 10).max(1)
                }
                Length::UntilSure { .. } => SECTION_TICKS,
            },
            section: Latencies::new()?,
            unanswered: Vec::new(),
            measured: Measured {
                total,
                errors: 0,
                errors_before: 0,
                slow_calls: 0,
                bounds: Latencies::new()?,
                passed: Duration::ZERO,
                calls_per_s: 0.0,
                client_cpu_per_s: 0.0,
                client: ShardCounters::default(),
                series: Series::default(),
                sections: Vec::new(),
                interval: None,
                doubts: Vec::new(),
                began: vec![begun; threads],
                warmed_for: Duration::ZERO,
            },
        })
    }

    pub(crate) fn phase(&self) -> Phase {
        self.phase
    }

    /// Takes what a thread has recorded in its next tick. Gives back the recorders that were read,
    /// each with its thread, once every thread's are there.
    pub(crate) fn take(&mut self, thread: usize, tick: Tick) -> Vec<(usize, Box<Recorder>)> {
        let mut read = Vec::new();
        if let Some(waiting) = self.waiting.get_mut(thread) {
            waiting.push_back(tick);
        }
        while self.waiting.iter().all(|waiting| !waiting.is_empty()) {
            let mut ticks: Vec<Tick> =
                self.waiting.iter_mut().filter_map(VecDeque::pop_front).collect();
            self.take_all(&mut ticks);
            read.extend(ticks.into_iter().map(|tick| tick.recorder).enumerate());
        }
        read
    }

    /// Takes one tick of every thread.
    fn take_all(&mut self, ticks: &mut [Tick]) {
        let end_ns = self.grid.end_of(self.ticks);
        self.ticks += 1;
        match self.phase {
            Phase::WarmingUp => self.warm_up(ticks, end_ns),
            Phase::Measuring => self.measure(ticks),
            Phase::Over => {}
        }
        for (last, tick) in self.last.iter_mut().zip(ticks) {
            *last = Mark { ended_ns: tick.ended_ns, counters: tick.counters };
        }
    }

    fn warm_up(&mut self, ticks: &[Tick], end_ns: u64) {
        self.measured.errors_before += ticks.iter().map(|tick| tick.errors).sum::<u64>();
        let warmed = Duration::from_nanos(end_ns - self.grid.begin_ns);
        let is_warm = match self.lengths.warmup {
            Warmup::For(_) => self.ticks >= self.grid.warm_ticks,
            Warmup::UntilSettled(at_most) => {
                let medians = ticks.iter().map(|tick| tick.recorder.from_send.at(0.5) as f64);
                // A tick in which no call was answered shows nothing.
                let is_silent = ticks.iter().any(|tick| tick.recorder.from_send.count() == 0);
                let has_settled = !is_silent && self.settling.take(medians.sum());
                if !has_settled && warmed >= at_most {
                    self.measured.doubts.push(format!("it had not settled after {warmed:?}"));
                }
                has_settled || warmed >= at_most
            }
        };
        if is_warm {
            self.phase = Phase::Measuring;
            self.measured.warmed_for = warmed;
            for (began, tick) in self.measured.began.iter_mut().zip(ticks) {
                *began = Mark { ended_ns: tick.ended_ns, counters: tick.counters };
            }
        }
    }

    fn measure(&mut self, ticks: &mut [Tick]) {
        let measured = &mut self.measured;
        let begun = measured.series.slices.last().map_or(Duration::ZERO, |it| it.begun + it.length);
        let (mut recorded, mut errors, mut length) = (Vec::new(), 0, Duration::ZERO);
        for (tick, last) in ticks.iter().zip(&self.last) {
            measured.total.add(&tick.recorder);
            self.section.add(tick.recorder.latencies());
            measured.errors += tick.errors;
            measured.slow_calls += tick.slow_calls;
            errors += tick.errors;
            recorded.push(Sparse::of(tick.recorder.latencies()));
            length = length.max(Duration::from_nanos(tick.ended_ns.saturating_sub(last.ended_ns)));
        }
        let latencies = match recorded.len() {
            1 => recorded.swap_remove(0),
            _ => Sparse::merged(recorded.iter()),
        };
        let unanswered = ticks.iter_mut().map(|tick| mem::take(&mut tick.unanswered));
        self.unanswered = unanswered.collect();
        measured.series.push(Slice { begun, length, latencies, errors, ticks: 1 });
        self.measured_ticks += 1;
        if self.measured_ticks.is_multiple_of(self.section_ticks) {
            if self.section.count() > 0 {
                let quantile = self.lengths.precision.quantile;
                measured.sections.push(self.section.at(quantile) as f64);
            }
            self.section.clear();
        }
        let passed = begun + length;
        let is_over = match self.lengths.length {
            // Counted, as the ticks that a thread could take late add up to other times.
            Length::For(length) => {
                let ns = u64::try_from(length.as_nanos()).unwrap_or(u64::MAX);
                self.measured_ticks >= ns / self.grid.tick_ns
            }
            Length::UntilSure { at_least, at_most } => {
                // Who looks again and again finds the one time that chance made it narrow.
                let looks = passed >= at_least && measured.sections.len() * 2 >= self.looked_at * 3;
                if looks {
                    self.looked_at = measured.sections.len();
                }
                passed >= at_most || looks && measured.is_sure(self.lengths.precision)
            }
        };
        if is_over {
            let marks: Vec<Mark> = ticks.iter().map(Mark::of).collect();
            self.end(&marks);
        }
    }

    /// Ends the run with what is there. False where nothing was measured.
    pub(crate) fn cut_short(&mut self) -> bool {
        if self.phase == Phase::Measuring && !self.measured.series.slices.is_empty() {
            let marks = self.last.clone();
            self.end(&marks);
        }
        self.phase == Phase::Over
    }

    /// Everything is measured.
    fn end(&mut self, marks: &[Mark]) {
        self.phase = Phase::Over;
        let wanted = self.lengths.precision;
        let measured = &mut self.measured;
        let calls = measured.total.latencies().count() + measured.slow_calls;
        measured.add_unanswered(mem::take(&mut self.unanswered), marks);
        measured.interval = measured.interval(wanted.quantile);
        for (began, ended) in measured.began.iter().zip(marks) {
            let ns = ended.ended_ns.saturating_sub(began.ended_ns).max(1);
            let counters = ended.counters.since(&began.counters);
            measured.client_cpu_per_s += counters.cpu_ns as f64 / ns as f64 * 1e9;
            measured.client = measured.client.plus(&counters);
        }
        let by_thread = measured.began.iter().zip(marks);
        let passed_ns: u64 =
            by_thread.map(|(began, ended)| ended.ended_ns.saturating_sub(began.ended_ns)).sum();
        let passed = Duration::from_nanos(passed_ns / marks.len().max(1) as u64);
        measured.passed = passed;
        measured.calls_per_s = calls as f64 / passed.as_secs_f64().max(1e-9);
        let beyond = 1.0 - wanted.quantile;
        let unanswered = measured.bounds.count();
        if unanswered as f64 > (calls + unanswered) as f64 * beyond / 2.0 {
            measured.doubts.push(format!(
                "{unanswered} calls that were due had no answer when it ended, and count with the \
                 time that they had waited: {} and what is above it are longer than is shown",
                percentile_name(wanted.quantile)
            ));
        }
        if let Length::UntilSure { .. } = self.lengths.length
            && !measured.is_sure(wanted)
        {
            let found = match measured.interval {
                Some(interval) => format!("±{:.0} %", interval.relative() * 100.0),
                None => "nobody knows how sure".to_owned(),
            };
            measured.doubts.push(format!(
                "{} is not as sure as was wanted after {passed:.1?}: {found} instead of ±{:.0} %",
                percentile_name(wanted.quantile),
                wanted.relative * 100.0
            ));
        }
    }
}

impl Mark {
    fn of(tick: &Tick) -> Self {
        Self { ended_ns: tick.ended_ns, counters: tick.counters }
    }
}

impl Measured {
    /// Adds the calls without an answer, each with the time that it had waited at the end of its
    /// thread.
    fn add_unanswered(&mut self, unanswered: Vec<Unanswered>, ended: &[Mark]) {
        let Some(open) = &mut self.total.open else { return };
        for (of_thread, mark) in unanswered.into_iter().zip(ended) {
            of_thread.add_to(open, mark.ended_ns, &mut self.bounds);
        }
        if let Some(last) = self.series.slices.last_mut() {
            let bounds = Sparse::of(&self.bounds);
            last.latencies = Sparse::merged([&last.latencies, &bounds].into_iter());
        }
    }

    fn is_sure(&self, wanted: Precision) -> bool {
        let calls = self.total.latencies().count() as f64;
        let beyond = (calls * (1.0 - wanted.quantile)) as u64;
        let interval = self.interval(wanted.quantile);
        beyond >= CALLS_BEYOND_MIN
            && interval.is_some_and(|interval| interval.relative() <= wanted.relative)
    }

    /// The percentile with its interval.
    fn interval(&self, quantile: f64) -> Option<Interval> {
        interval_of(self.total.latencies().at(quantile) as f64, &self.sections)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

    use super::*;
    use crate::generator::Timing;

    const PRECISION: Precision = Precision { quantile: 0.99, relative: 0.05 };

    fn millis(milliseconds: u64) -> Duration {
        Duration::from_millis(milliseconds)
    }

    /// A course that is fed with ticks that last as long as the grid says.
    struct Fed {
        course: Course,
        ticks: u64,
    }

    impl Fed {
        fn new(warmup: Warmup, length: Length) -> Self {
            let lengths = Lengths { warmup, length, precision: PRECISION };
            let grid = lengths.grid(1_000);
            Self { course: Course::begin(lengths, grid, 1, false).unwrap(), ticks: 0 }
        }

        /// One tick with a thousand calls of each latency.
        fn tick(&mut self, latencies_us: &[u64]) -> Phase {
            let mut recorder = Recorder::closed().unwrap();
            for us in latencies_us {
                let timing = Timing { due_ns: 0, free_ns: 0, sent_ns: 0, done_ns: us * 1000 };
                (0..1000).for_each(|_| recorder.record(timing));
            }
            let ended_ns = self.course.grid.end_of(self.ticks);
            self.ticks += 1;
            let mut counters = ShardCounters::default();
            counters.cpu_ns = 50_000_000 * self.ticks;
            let recorder = Box::new(recorder);
            let (slow_calls, unanswered) = (0, Unanswered::default());
            let tick = Tick { recorder, errors: 1, slow_calls, unanswered, ended_ns, counters };
            self.course.take(0, tick);
            self.course.phase()
        }
    }

    #[test]
    fn a_run_of_a_given_length_forgets_its_warm_up() {
        let mut fed = Fed::new(Warmup::For(millis(200)), Length::For(millis(1000)));
        assert_eq!(fed.tick(&[900]), Phase::WarmingUp);
        assert_eq!(fed.tick(&[900]), Phase::Measuring);
        for _ in 0..9 {
            assert_eq!(fed.tick(&[100, 200]), Phase::Measuring);
        }
        assert_eq!(fed.tick(&[100, 200]), Phase::Over);
        let measured = &fed.course.measured;
        assert_eq!(measured.total.latencies().count(), 20_000);
        assert!((199_000..202_000).contains(&measured.total.latencies().max()));
        assert_eq!(measured.errors, 10);
        assert_eq!(measured.calls_per_s.round(), 20_000.0);
        assert_eq!(measured.client_cpu_per_s.round(), 5e8);
        assert_eq!(measured.warmed_for, millis(200));
        assert_eq!(measured.series.slices.len(), 10);
        assert_eq!(measured.series.slices[3].begun, millis(300));
        assert_eq!(measured.doubts, Vec::<String>::new());
    }

    #[test]
    fn a_warm_up_ends_when_the_figures_have_settled() {
        let length = Length::For(millis(1000));
        let mut fed = Fed::new(Warmup::UntilSettled(Duration::from_secs(5)), length);
        let mut latency = 1000;
        while fed.tick(&[latency]) == Phase::WarmingUp {
            latency = (latency * 8 / 10).max(100);
        }
        assert!((15..25).contains(&fed.ticks), "{}", fed.ticks);
        assert_eq!(fed.course.measured.doubts, Vec::<String>::new());
    }

    #[test]
    fn what_does_not_settle_is_measured_and_doubted() {
        let length = Length::For(millis(1000));
        let mut fed = Fed::new(Warmup::UntilSettled(Duration::from_secs(2)), length);
        let mut latency = 100;
        while fed.tick(&[latency]) == Phase::WarmingUp {
            latency = latency * 11 / 10;
        }
        assert_eq!(fed.ticks, 20);
        assert_eq!(fed.course.measured.doubts, ["it had not settled after 2s"]);
    }

    #[test]
    fn a_run_ends_as_soon_as_its_percentile_is_sure() {
        let until = |at_most| Length::UntilSure {
            at_least: Duration::from_secs(3),
            at_most: Duration::from_secs(at_most),
        };
        let mut steady = Fed::new(Warmup::For(Duration::ZERO), until(20));
        while steady.tick(&[100]) != Phase::Over {}
        assert_eq!(steady.ticks, 30);
        let interval = steady.course.measured.interval.unwrap();
        assert!(interval.relative() < 0.001, "{interval:?}");

        let mut noisy = Fed::new(Warmup::For(Duration::ZERO), until(6));
        while noisy.tick(&[100, 100 + 400 * (noisy.ticks / 3 % 2)]) != Phase::Over {}
        assert_eq!(noisy.ticks, 60);
        let doubts = &noisy.course.measured.doubts;
        assert!(doubts[0].starts_with("p99 is not as sure as was wanted after 6.0s: ±"));
    }

    #[test]
    fn threads_are_taken_tick_by_tick() {
        let lengths = Lengths {
            warmup: Warmup::For(Duration::ZERO),
            length: Length::For(millis(1000)),
            precision: PRECISION,
        };
        let mut course = Course::begin(lengths, lengths.grid(0), 2, false).unwrap();
        let tick = |ended_ns| {
            let mut recorder = Box::new(Recorder::closed().unwrap());
            recorder.record(Timing { due_ns: 0, free_ns: 0, sent_ns: 0, done_ns: 5_000 });
            let (errors, slow_calls, unanswered) = (0, 0, Unanswered::default());
            let counters = ShardCounters::default();
            Tick { recorder, errors, slow_calls, unanswered, ended_ns, counters }
        };
        assert!(course.take(0, tick(100_000_000)).is_empty());
        assert!(course.take(0, tick(200_000_000)).is_empty());
        let read = course.take(1, tick(100_000_000));
        assert_eq!(read.iter().map(|(thread, _)| *thread).collect::<Vec<_>>(), [0, 1]);
        assert_eq!(course.measured.series.slices.len(), 1);
        assert_eq!(course.measured.series.slices[0].latencies.calls(), 2);
    }

    #[test]
    fn a_run_that_is_cut_short_has_what_was_measured_until_then() {
        let mut fed = Fed::new(Warmup::For(millis(100)), Length::For(millis(1000)));
        fed.tick(&[900]);
        assert!(!fed.course.cut_short());
        fed.tick(&[100]);
        fed.tick(&[100]);
        assert!(fed.course.cut_short());
        assert_eq!(fed.course.measured.calls_per_s.round(), 10_000.0);
    }

    /// A call that hangs is the longest there is, and may be none of those that are missing.
    #[test]
    fn calls_without_an_answer_at_the_end_are_in_the_tail_and_not_in_the_rate() {
        let lengths = Lengths {
            warmup: Warmup::For(Duration::ZERO),
            length: Length::For(millis(1000)),
            precision: PRECISION,
        };
        let grid = lengths.grid(0);
        let mut course = Course::begin(lengths, grid, 1, true).unwrap();
        for number in 0..10 {
            let mut recorder = Box::new(Recorder::open().unwrap());
            let timing = Timing { due_ns: 0, free_ns: 0, sent_ns: 0, done_ns: 5_000 };
            (0..100).for_each(|_| recorder.record(timing));
            let ended_ns = grid.end_of(number);
            // Those of the ticks before the last are answered by then.
            let made = if number == 9 { vec![400_000_000; 20] } else { vec![1; 50] };
            let unanswered = Unanswered { made, rest: None, full_ns: 0 };
            let (errors, slow_calls, counters) = (0, 0, ShardCounters::default());
            course.take(0, Tick { recorder, errors, slow_calls, unanswered, ended_ns, counters });
        }
        assert_eq!(course.phase(), Phase::Over);
        let measured = &course.measured;
        assert_eq!(measured.calls_per_s.round(), 1000.0);
        assert_eq!([measured.bounds.count(), measured.total.latencies().count()], [20, 1020]);
        assert_eq!(measured.total.from_send.count(), 1000);
        let longest = measured.total.latencies().max();
        assert!(longest.abs_diff(600_000_000) < 1_000_000, "{longest}");
        assert!(measured.total.latencies().at(0.99) > 599_000_000);
        let of_series: u64 = measured.series.slices.iter().map(|it| it.latencies.calls()).sum();
        assert_eq!(of_series, 1020);
        let doubt = "20 calls that were due had no answer when it ended, and count with";
        assert!(measured.doubts[0].starts_with(doubt), "{:?}", measured.doubts);
    }
}

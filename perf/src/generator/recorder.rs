//! The record of what calls took.

use hdrhistogram::{CreationError, Histogram};

/// Longest latency that is told apart from longer ones, in nanoseconds: 60 s.
const LATENCY_MAX_NS: u64 = 60_000_000_000;

/// Decimal digits of a latency that are kept.
const LATENCY_DIGITS: u8 = 3;

/// A histogram of times in nanoseconds: three digits from one nanosecond to a minute.
#[derive(Clone, Debug)]
pub struct Latencies(Histogram<u64>);

/// When what happened to a call, by the generator's clock.
#[derive(Clone, Copy, Debug)]
pub struct Timing {
    /// When it was due.
    pub due_ns: u64,
    /// When the last limit of the load let it go: a caller became free that makes it.
    pub free_ns: u64,
    /// When it was made.
    pub sent_ns: u64,
    /// When its reply was there.
    pub done_ns: u64,
}

/// What one client thread has recorded in an interval of time.
#[derive(Debug)]
pub struct Recorder {
    /// From when a call was made until its reply was there.
    pub from_send: Latencies,
    /// What an open load has besides.
    pub open: Option<OpenRecord>,
}

/// What is recorded of calls that were due at a time.
#[derive(Debug)]
pub struct OpenRecord {
    /// From when a call was due until its reply was there: what its user waits.
    pub from_due: Latencies,
    /// How late the generator made calls that nothing else kept: its own error.
    pub lateness: Latencies,
}

impl Latencies {
    /// None are in it.
    ///
    /// # Errors
    ///
    /// None that can be: the bounds are constants.
    pub fn new() -> Result<Self, CreationError> {
        Ok(Self(Histogram::new_with_bounds(1, LATENCY_MAX_NS, LATENCY_DIGITS)?))
    }

    /// Takes note of one time.
    #[inline]
    pub fn record(&mut self, ns: u64) {
        self.0.saturating_record(ns);
    }

    /// Takes note of a time that several calls took.
    pub fn record_many(&mut self, ns: u64, calls: u64) {
        self.0.saturating_record_n(ns, calls);
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        self.0.reset();
    }

    /// How many there are.
    pub fn count(&self) -> u64 {
        self.0.len()
    }

    /// Adds those of another.
    pub fn add(&mut self, other: &Self) {
        // Both have the same bounds, so that there is room for every value.
        let _ = self.0.add(&other.0);
    }

    /// The time at a quantile, in 0 to 1; zero where there is none.
    pub fn at(&self, quantile: f64) -> u64 {
        self.0.value_at_quantile(quantile)
    }

    /// The longest; zero where there is none.
    pub fn max(&self) -> u64 {
        self.0.max()
    }

    /// The mean; zero where there is none.
    pub fn mean(&self) -> f64 {
        self.0.mean()
    }

    /// The histogram, for those who write it down.
    pub fn histogram(&self) -> &Histogram<u64> {
        &self.0
    }
}

impl Recorder {
    /// A record of calls that each follow another, which are due when they are made.
    ///
    /// # Errors
    ///
    /// As [`Latencies::new`].
    pub fn closed() -> Result<Self, CreationError> {
        Ok(Self { from_send: Latencies::new()?, open: None })
    }

    /// A record of calls that are due at a time.
    ///
    /// # Errors
    ///
    /// As [`Latencies::new`].
    pub fn open() -> Result<Self, CreationError> {
        let open = OpenRecord { from_due: Latencies::new()?, lateness: Latencies::new()? };
        Ok(Self { from_send: Latencies::new()?, open: Some(open) })
    }

    /// Takes note of a call that was answered.
    #[inline]
    pub fn record(&mut self, timing: Timing) {
        let Timing { due_ns, free_ns, sent_ns, done_ns } = timing;
        self.from_send.record(done_ns.saturating_sub(sent_ns));
        if let Some(open) = &mut self.open {
            open.from_due.record(done_ns.saturating_sub(due_ns));
            open.lateness.record(sent_ns.saturating_sub(due_ns.max(free_ns)));
        }
    }

    /// Adds what another has recorded.
    pub fn add(&mut self, other: &Self) {
        self.from_send.add(&other.from_send);
        if let (Some(open), Some(other)) = (&mut self.open, &other.open) {
            open.from_due.add(&other.from_due);
            open.lateness.add(&other.lateness);
        }
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        self.from_send.clear();
        if let Some(open) = &mut self.open {
            open.from_due.clear();
            open.lateness.clear();
        }
    }

    /// What users wait: from when calls were due, where they were due at a time.
    pub fn latencies(&self) -> &Latencies {
        self.open.as_ref().map_or(&self.from_send, |open| &open.from_due)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

    use super::*;

    #[test]
    fn a_call_that_is_late_counts_from_when_it_was_due() {
        let mut recorder = Recorder::open().unwrap();
        recorder.record(Timing { due_ns: 1_000, free_ns: 0, sent_ns: 1_400, done_ns: 2_000 });
        let open = recorder.open.as_ref().unwrap();
        assert_eq!([recorder.from_send.max(), open.from_due.max()], [600, 1_000]);
        assert_eq!(open.lateness.max(), 400);
        assert_eq!(recorder.latencies().max(), 1_000);
    }

    /// Who waits for a caller waits for replies, and that is the server's time.
    #[test]
    fn the_generator_is_not_blamed_for_callers_that_wait_for_replies() {
        let mut recorder = Recorder::open().unwrap();
        recorder.record(Timing { due_ns: 1_000, free_ns: 9_000, sent_ns: 9_100, done_ns: 9_500 });
        let open = recorder.open.as_ref().unwrap();
        assert_eq!([open.lateness.max(), open.from_due.max()], [100, 8_503]);
    }

    #[test]
    fn records_are_put_together_and_forgotten() {
        let mut recorder = Recorder::open().unwrap();
        let mut other = Recorder::open().unwrap();
        other.record(Timing { due_ns: 0, free_ns: 0, sent_ns: 10, done_ns: 30 });
        recorder.add(&other);
        recorder.add(&other);
        assert_eq!(recorder.latencies().count(), 2);
        assert_eq!(recorder.latencies().at(0.5), 30);
        recorder.clear();
        assert_eq!(recorder.latencies().count() + recorder.from_send.count(), 0);
    }

    #[test]
    fn the_longest_time_stands_for_longer_ones() {
        let mut latencies = Latencies::new().unwrap();
        latencies.record(u64::MAX);
        assert!(latencies.max() >= LATENCY_MAX_NS);
    }
}

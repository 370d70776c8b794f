//! Calls that have no answer when measuring ends.
//!
//! How long they take nobody knows, only that it is longer than they have waited by then. Left out,
//! they would make the tail look better for being cut, as those that wait longest are the last to be
//! answered. So each is recorded with the time that it has waited: a lower bound.

use super::{Latencies, OpenRecord, Schedule};

/// The calls of one client thread that were due at a moment and had no answer, as they are noted
/// while the load goes on: nothing here is a histogram yet.
#[derive(Clone, Debug, Default)]
pub struct Unanswered {
    /// When each call was due that was made.
    pub made: Vec<u64>,
    /// The schedule, which stands at the first call that was not made; none where nothing is due
    /// at a time.
    pub rest: Option<Schedule>,
    /// Calls that were not made wait for a caller where they were due by then; those due later
    /// wait for the generator.
    pub full_ns: u64,
}

impl Unanswered {
    /// Adds what they had waited at a moment to a record, and gives the same by itself. Calls that
    /// waited for nothing but the generator are late by as much.
    pub fn add_to(self, record: &mut OpenRecord, now_ns: u64, bounds: &mut Latencies) {
        let mut note = |due_ns: u64| {
            let waited_ns = now_ns.saturating_sub(due_ns);
            record.from_due.record(waited_ns);
            bounds.record(waited_ns);
            waited_ns
        };
        for due_ns in self.made {
            note(due_ns);
        }
        let Some(mut rest) = self.rest else { return };
        while rest.due_ns() <= now_ns {
            let due_ns = rest.due_ns();
            let waited_ns = note(due_ns);
            if due_ns > self.full_ns {
                record.lateness.record(waited_ns);
            }
            rest.advance();
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

    use super::*;
    use crate::generator::{Arrivals, Rate, Recorder, Spacing};

    #[test]
    fn each_counts_with_the_time_that_it_has_waited() {
        let mut rest = Arrivals::Rated(Rate::Flat(1000.0), Spacing::Even).schedule(0, 1, 1);
        // Due at 3, 4 and 5 ms; 6 ms is yet to come.
        rest.begin(3_000_000, 0);
        let unanswered =
            Unanswered { made: vec![1_000_000, 2_000_000], rest: Some(rest), full_ns: 4_000_000 };
        let mut recorder = Recorder::open().unwrap();
        let mut bounds = Latencies::new().unwrap();
        let record = recorder.open.as_mut().unwrap();
        unanswered.add_to(record, 5_500_000, &mut bounds);
        let near = |found: u64, wanted: u64| found.abs_diff(wanted) <= wanted / 500;
        for latencies in [&bounds, &record.from_due] {
            assert_eq!(latencies.count(), 5);
            let found = [0.2, 0.4, 0.6, 0.8, 1.0].map(|quantile| latencies.at(quantile));
            let wanted = [500_000, 1_500_000, 2_500_000, 3_500_000, 4_500_000];
            assert!(found.iter().zip(wanted).all(|(found, it)| near(*found, it)), "{found:?}");
        }
        // What was due at 3 and 4 ms waits for a caller.
        assert_eq!(record.lateness.count(), 1);
        assert!(near(record.lateness.max(), 500_000));
    }

    #[test]
    fn where_nothing_waits_nothing_is_added() {
        let mut recorder = Recorder::open().unwrap();
        let mut bounds = Latencies::new().unwrap();
        let record = recorder.open.as_mut().unwrap();
        Unanswered::default().add_to(record, 5_000, &mut bounds);
        assert_eq!(bounds.count() + record.from_due.count() + record.lateness.count(), 0);
    }
}

//! The course of a run as it is kept: what calls took, slice by slice, in bounded memory.

use std::{collections::BTreeMap, time::Duration};

use crate::generator::Latencies;

/// Most slices of a series: where there would be more they become longer.
const SLICES_MAX: usize = 2048;

/// What was recorded, slice by slice. Slices of one series have the same number of ticks, but for
/// the last.
#[derive(Clone, Debug)]
pub(crate) struct Series {
    pub(crate) slices: Vec<Slice>,
    /// Ticks of a slice.
    slice_ticks: u64,
}

impl Default for Series {
    fn default() -> Self {
        Self { slices: Vec::new(), slice_ticks: 1 }
    }
}

impl Series {
    /// Adds a slice. Where there are too many then, neighbours become one.
    pub(crate) fn push(&mut self, slice: Slice) {
        self.add(slice);
        if self.slices.len() > SLICES_MAX {
            self.slice_ticks *= 2;
            let slices = std::mem::take(&mut self.slices);
            slices.into_iter().for_each(|slice| self.add(slice));
        }
    }

    fn add(&mut self, slice: Slice) {
        match self.slices.last_mut() {
            Some(last) if last.ticks < self.slice_ticks => last.add(&slice),
            _ => self.slices.push(slice),
        }
    }
}

/// What all threads recorded in one tick, or in several of a long run.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Slice {
    /// Since measuring began.
    pub(crate) begun: Duration,
    pub(crate) length: Duration,
    pub(crate) latencies: Sparse,
    pub(crate) errors: u64,
    /// Ticks of the grid that it is.
    pub(crate) ticks: u64,
}

impl Slice {
    /// Adds the slice that follows it.
    fn add(&mut self, next: &Self) {
        self.length += next.length;
        self.latencies = Sparse::merged([&self.latencies, &next.latencies].into_iter());
        self.errors += next.errors;
        self.ticks += next.ticks;
    }
}

/// The counts of a histogram that are not zero, as (nanoseconds, calls), in order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Sparse(pub(crate) Vec<(u64, u64)>);

impl Sparse {
    pub(crate) fn of(latencies: &Latencies) -> Self {
        let recorded = latencies.histogram().iter_recorded();
        Self(
            recorded
                .map(|step| (step.value_iterated_to(), step.count_since_last_iteration()))
                .collect(),
        )
    }

    pub(crate) fn calls(&self) -> u64 {
        self.0.iter().map(|(_, calls)| calls).sum()
    }

    /// The time at a quantile; zero where there is none.
    pub(crate) fn at(&self, quantile: f64) -> u64 {
        let wanted = (quantile * self.calls() as f64).ceil().max(1.0) as u64;
        let mut seen = 0;
        let found = self.0.iter().find(|(_, calls)| {
            seen += calls;
            seen >= wanted
        });
        found.or(self.0.last()).map_or(0, |(ns, _)| *ns)
    }

    /// Those of several together.
    pub(crate) fn merged<'a>(all: impl Iterator<Item = &'a Self>) -> Self {
        let mut counts = BTreeMap::new();
        for (ns, calls) in all.flat_map(|sparse| &sparse.0) {
            *counts.entry(*ns).or_insert(0) += calls;
        }
        Self(counts.into_iter().collect())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

    use super::*;

    #[test]
    fn percentiles_of_sparse_counts_are_those_of_the_histogram() {
        let mut latencies = Latencies::new().unwrap();
        (1..=1000).for_each(|us| latencies.record(us * 1000));
        let sparse = Sparse::of(&latencies);
        for quantile in [0.5, 0.9, 0.99, 0.999, 1.0] {
            assert_eq!(sparse.at(quantile), latencies.at(quantile), "{quantile}");
        }
        assert_eq!(Sparse::merged([&sparse, &sparse].into_iter()).calls(), 2000);
        assert_eq!(Sparse::default().at(0.5), 0);
    }

    #[test]
    fn a_long_series_has_longer_slices_and_loses_nothing() {
        let length = Duration::from_millis(100);
        let mut series = Series::default();
        let ticks = 4 * SLICES_MAX as u32 + 3;
        for tick in 0..ticks {
            let latencies = Sparse(vec![(1000, 2)]);
            series.push(Slice { begun: length * tick, length, latencies, errors: 1, ticks: 1 });
            assert!(series.slices.len() <= SLICES_MAX);
        }
        let calls: u64 = series.slices.iter().map(|slice| slice.latencies.calls()).sum();
        let errors: u64 = series.slices.iter().map(|slice| slice.errors).sum();
        assert_eq!((calls, errors), (2 * u64::from(ticks), u64::from(ticks)));
        // Each begins where the one before ends.
        for pair in series.slices.windows(2) {
            assert_eq!(pair[0].begun + pair[0].length, pair[1].begun);
            assert_eq!(pair[0].ticks, series.slice_ticks);
        }
    }
}

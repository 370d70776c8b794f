//! Allocations of this process, counted by its allocator.
//!
//! Only in builds with the feature `count-allocations`: a count is an addition to numbers that all
//! threads share, and an executor allocates whenever it goes to sleep, so that counting would slow
//! what is measured. Nobody knows which thread allocated: of a process with both sides of a run, the
//! count is that of both, with what the harness itself takes to follow the run.

use serde::Serialize;

use crate::{cost::per_call, generator::median};

/// The allocator of `ringcall-perf` where allocations are counted. In a program whose
/// `#[global_allocator]` it is not there are no figures.
#[cfg(feature = "count-allocations")]
pub static COUNTING_ALLOCATOR: stats_alloc::StatsAlloc<mimalloc::MiMalloc> =
    stats_alloc::StatsAlloc::new(mimalloc::MiMalloc);

/// What this process has allocated since it began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Allocations {
    /// Times that memory was asked for, or for more or less of what there was.
    pub(crate) count: u64,
    /// Bytes that were asked for, whatever was given back.
    pub(crate) bytes: u64,
}

/// What a call costs this process. With what the harness takes to follow the run, which does not
/// depend on the number of calls.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub(crate) struct ProcessCost {
    /// Sides of the run in it: two, or the client alone.
    pub(crate) sides: u32,
    /// None where the program's allocator does not count.
    pub(crate) allocations: Option<f64>,
    pub(crate) bytes_allocated: Option<f64>,
}

impl Allocations {
    /// Up to now; none where the program has another allocator.
    #[cfg(not(feature = "count-allocations"))]
    pub(crate) fn of_this_process() -> Option<Self> {
        None
    }

    /// Up to now; none where the program has another allocator.
    #[cfg(feature = "count-allocations")]
    pub(crate) fn of_this_process() -> Option<Self> {
        let stats = COUNTING_ALLOCATOR.stats();
        let count = (stats.allocations + stats.reallocations) as u64;
        (count > 0).then_some(Self { count, bytes: stats.bytes_allocated as u64 })
    }

    /// What was allocated since an earlier count.
    pub(crate) fn since(self, earlier: Self) -> Self {
        Self {
            count: self.count.saturating_sub(earlier.count),
            bytes: self.bytes.saturating_sub(earlier.bytes),
        }
    }
}

impl ProcessCost {
    /// What so many calls cost between two counts.
    pub(crate) fn of(sides: u32, counts: Option<(Allocations, Allocations)>, calls: f64) -> Self {
        let allocated = counts.map(|(began, ended)| ended.since(began));
        Self {
            sides,
            allocations: allocated.map(|it| per_call(it.count, calls)),
            bytes_allocated: allocated.map(|it| per_call(it.bytes, calls)),
        }
    }

    /// The median of each figure; the sides are the same in all.
    pub(crate) fn median(of: impl Iterator<Item = Self> + Clone) -> Self {
        let perhaps = |figure: fn(&Self) -> Option<f64>| {
            of.clone().map(|it| figure(&it)).collect::<Option<Vec<f64>>>().map(median)
        };
        Self {
            sides: of.clone().map(|it| it.sides).max().unwrap_or(0),
            allocations: perhaps(|it| it.allocations),
            bytes_allocated: perhaps(|it| it.bytes_allocated),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

    use std::hint::black_box;

    use super::*;

    #[test]
    fn a_program_with_another_allocator_has_no_figures() {
        drop(black_box(vec![1, 2, 3]));
        assert_eq!(Allocations::of_this_process(), None);
    }

    #[test]
    fn a_difference_is_what_came_in_between() {
        let (before, after) =
            (Allocations { count: 3, bytes: 100 }, Allocations { count: 5, bytes: 164 });
        assert_eq!(after.since(before), Allocations { count: 2, bytes: 64 });
    }
}

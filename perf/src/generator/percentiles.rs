//! The percentiles that are reported of what calls took.

use serde::Serialize;

use super::{Latencies, median};

/// Percentiles in nanoseconds; all zero where there is no call.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Percentiles {
    /// The median.
    pub p50: u64,
    /// What nine of ten calls are within.
    pub p90: u64,
    /// What 99 of a hundred calls are within.
    pub p99: u64,
    /// What 999 of a thousand calls are within.
    pub p999: u64,
    /// What all but one of ten thousand calls are within.
    pub p9999: u64,
    /// The longest.
    pub max: u64,
}

impl Percentiles {
    /// Those of a record.
    pub fn of(latencies: &Latencies) -> Self {
        Self {
            p50: latencies.at(0.5),
            p90: latencies.at(0.9),
            p99: latencies.at(0.99),
            p999: latencies.at(0.999),
            p9999: latencies.at(0.9999),
            max: latencies.max(),
        }
    }

    /// The median of each over repeats, and the longest of all.
    pub fn of_repeats<'a>(repeats: impl Iterator<Item = &'a Self> + Clone) -> Self {
        let mid = |figure: fn(&Self) -> u64| {
            median(repeats.clone().map(|it| figure(it) as f64).collect()) as u64
        };
        Self {
            p50: mid(|it| it.p50),
            p90: mid(|it| it.p90),
            p99: mid(|it| it.p99),
            p999: mid(|it| it.p999),
            p9999: mid(|it| it.p9999),
            max: repeats.clone().map(|it| it.max).max().unwrap_or(0),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

    use super::*;

    #[test]
    fn repeats_give_the_median_of_each_and_the_longest_of_all() {
        let of = |us: u64| {
            let mut latencies = Latencies::new().unwrap();
            latencies.record(us * 1000);
            Percentiles::of(&latencies)
        };
        let all = [of(10), of(30), of(20)];
        let found = Percentiles::of_repeats(all.iter());
        assert_eq!([found.p50, found.p9999, found.max], [all[2].p50, all[2].p9999, all[1].max]);
    }
}

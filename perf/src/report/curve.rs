//! The points of a percentile curve.

use crate::generator::Latencies;

/// Points for each halving of what is left up to 100 %: enough for a smooth line.
const POINTS_PER_HALVING: u32 = 8;

/// Points as (how many calls there are to one that takes longer, nanoseconds): 2 at the median,
/// 100 at p99. The last one is the longest call, one of all.
pub(super) fn curve(latencies: &Latencies) -> Vec<(f64, u64)> {
    let calls = latencies.count() as f64;
    let mut points: Vec<(f64, u64)> = latencies
        .histogram()
        .iter_quantiles(POINTS_PER_HALVING)
        .map(|step| (1.0 / (1.0 - step.quantile_iterated_to()), step.value_iterated_to()))
        .take_while(|(one_of, _)| *one_of < calls)
        .map(|(one_of, ns)| ((one_of * 1e3).round() / 1e3, ns))
        .collect();
    points.push((calls, latencies.max()));
    points
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

    use super::*;

    #[test]
    fn points_are_percentiles_and_the_last_the_longest() {
        let mut latencies = Latencies::new().unwrap();
        (1..=10_000).for_each(|us| latencies.record(us * 1000));
        let points = curve(&latencies);
        assert_eq!(points.first(), Some(&(1.0, 1_000)));
        assert!(points.contains(&(2.0, latencies.at(0.5))));
        assert_eq!(points.last(), Some(&(10_000.0, latencies.max())));
        assert!(points.windows(2).all(|pair| pair[0].0 < pair[1].0 && pair[0].1 <= pair[1].1));
        assert!((80..160).contains(&points.len()), "{}", points.len());
    }
}

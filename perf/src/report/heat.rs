//! Latency over time: how many calls took how long, when.

use serde::Serialize;

use crate::series::{Slice, Sparse};

/// Most columns of a map; a longer run has several ticks in one.
const COLUMNS_MAX: usize = 80;

/// Rows for each tenfold of a latency.
const ROWS_PER_DECADE: f64 = 10.0;

/// A map of a run: columns are times, rows latencies on a log scale.
#[derive(Debug, PartialEq, Serialize)]
pub(super) struct HeatMap {
    /// When the first column begins and each ends, in seconds since measuring began.
    edges_s: Vec<f64>,
    /// The shortest latency of the lowest row, and the longest of each row.
    edges_ns: Vec<f64>,
    /// Of each column, the lowest row with calls, and how many calls that one and those above it
    /// have, up to the highest with calls; empty where no call ended in it.
    columns: Vec<Vec<u64>>,
    /// Of each column; null where no call ended in it.
    p50_ns: Vec<Option<u64>>,
    p99_ns: Vec<Option<u64>>,
}

/// The map of a run; none where nothing was recorded over time.
pub(super) fn heat_map(series: &[Slice]) -> Option<HeatMap> {
    let ticks = series.len().div_ceil(COLUMNS_MAX).max(1);
    let chunks = || series.chunks(ticks);
    let begins = chunks().filter_map(|slices| Some(slices.first()?.begun));
    let end = series.last()?.begun + series.last()?.length;
    let edges_s = begins.chain([end]).map(|at| (at.as_secs_f64() * 1e3).round() / 1e3).collect();
    let columns: Vec<Sparse> = chunks()
        .map(|slices| Sparse::merged(slices.iter().map(|slice| &slice.latencies)))
        .collect();
    let all = || columns.iter().flat_map(|column| &column.0);
    let lowest = all().map(|(ns, _)| row_of(*ns)).min()?;
    let highest = all().map(|(ns, _)| row_of(*ns)).max()?;
    let at = |quantile| {
        let one = |column: &Sparse| (column.calls() > 0).then(|| column.at(quantile));
        columns.iter().map(one).collect()
    };
    Some(HeatMap {
        edges_s,
        edges_ns: (lowest..=highest + 1).map(edge_of).collect(),
        columns: columns.iter().map(|column| counts_of(column, lowest)).collect(),
        p50_ns: at(0.5),
        p99_ns: at(0.99),
    })
}

/// The counts of a column, after the row that they begin at.
fn counts_of(column: &Sparse, lowest: usize) -> Vec<u64> {
    // Latencies are in order.
    let ends = column.0.first().zip(column.0.last());
    let Some(((shortest, _), (longest, _))) = ends else { return Vec::new() };
    let first = row_of(*shortest);
    let mut counts = vec![0; row_of(*longest) - first + 1];
    for (ns, calls) in &column.0 {
        if let Some(count) = counts.get_mut(row_of(*ns) - first) {
            *count += calls;
        }
    }
    counts.insert(0, (first - lowest) as u64);
    counts
}

/// The row of a latency, counted from one nanosecond.
fn row_of(ns: u64) -> usize {
    ((ns.max(1) as f64).log10() * ROWS_PER_DECADE) as usize
}

/// The shortest latency of a row.
fn edge_of(row: usize) -> f64 {
    10_f64.powf(row as f64 / ROWS_PER_DECADE).round()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

    use std::time::Duration;

    use super::*;

    fn slice(tick: u32, latencies: &[(u64, u64)]) -> Slice {
        let length = Duration::from_millis(100);
        Slice {
            begun: length * tick,
            length,
            latencies: Sparse(latencies.into()),
            errors: 0,
            ticks: 1,
        }
    }

    #[test]
    fn calls_are_where_their_time_and_latency_is() {
        let series = [
            slice(0, &[(1_000, 7), (1_100, 3), (1_700, 1)]),
            slice(1, &[]),
            slice(2, &[(1_700, 5)]),
        ];
        let expected = HeatMap {
            edges_s: vec![0.0, 0.1, 0.2, 0.3],
            edges_ns: vec![1_000.0, 1_259.0, 1_585.0, 1_995.0],
            columns: vec![vec![0, 10, 0, 1], vec![], vec![2, 5]],
            p50_ns: vec![Some(1_000), None, Some(1_700)],
            p99_ns: vec![Some(1_700), None, Some(1_700)],
        };
        assert_eq!(heat_map(&series), Some(expected));
    }

    #[test]
    fn a_long_run_has_no_more_columns_than_fit() {
        let series: Vec<Slice> = (0..1001).map(|tick| slice(tick, &[(5_000, 2)])).collect();
        let map = heat_map(&series).unwrap();
        assert_eq!(map.edges_s.len(), 78);
        assert_eq!([map.edges_s[1], map.edges_s[77]], [1.3, 100.1]);
        assert_eq!(map.columns[..77], vec![vec![0, 26]; 77]);
    }

    #[test]
    fn of_nothing_there_is_no_map() {
        assert_eq!(heat_map(&[]), None);
        assert_eq!(heat_map(&[slice(0, &[])]), None);
    }
}

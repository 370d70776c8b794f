//! Figures: latencies, CPU time, and what is made of them.
//!
//! Each client thread records for itself; what the threads and the repeats have measured is put
//! together here.

use std::time::Duration;

use hdrhistogram::Histogram;
use ringcall::ShardCounters;
use rustix::time::{ClockId, clock_gettime};

use crate::{error::Failure, target::Target, workload::Workload};

/// Longest latency that is told apart from longer ones, in nanoseconds: 60 s.
const LATENCY_MAX_NS: u64 = 60_000_000_000;

/// Decimal digits of a latency that are kept.
const LATENCY_DIGITS: u8 = 3;

/// Latencies of calls.
pub(crate) struct Latencies(Histogram<u64>);

/// The percentiles that are reported, in nanoseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub(crate) struct Percentiles {
    pub(crate) p50: u64,
    pub(crate) p90: u64,
    pub(crate) p99: u64,
    pub(crate) p999: u64,
    pub(crate) p9999: u64,
    pub(crate) max: u64,
}

/// What one client thread has measured.
pub(crate) struct ThreadFigures {
    pub(crate) latencies: Latencies,
    pub(crate) errors: u64,
    /// What the first call that failed, also while warming up, failed with.
    pub(crate) first_error: Option<String>,
    /// Time that was measured, by this thread's clock reads.
    pub(crate) elapsed: Duration,
    /// What its shard has counted in that time, with the thread's CPU time.
    pub(crate) counters: ShardCounters,
}

/// What the server has counted between two of its samples.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ServerFigures {
    pub(crate) counters: ShardCounters,
    pub(crate) elapsed: Duration,
}

/// What was measured of one target under one workload.
#[derive(Clone, Debug)]
pub(crate) struct Run {
    pub(crate) target: Target,
    pub(crate) workload: Workload,
    pub(crate) calls: u64,
    pub(crate) errors: u64,
    pub(crate) first_error: Option<String>,
    pub(crate) calls_per_s: f64,
    pub(crate) latency_ns: Percentiles,
    /// None where the server is another process.
    pub(crate) server_cpu_ns_per_call: Option<f64>,
    pub(crate) client_cpu_ns_per_call: f64,
    pub(crate) server: Option<ShardCounters>,
    pub(crate) client: ShardCounters,
}

impl Latencies {
    pub(crate) fn new() -> Result<Self, Failure> {
        Ok(Self(Histogram::new_with_bounds(1, LATENCY_MAX_NS, LATENCY_DIGITS)?))
    }

    /// Records one call.
    #[inline]
    pub(crate) fn record(&mut self, latency: Duration) {
        let ns = latency.as_secs() * 1_000_000_000 + u64::from(latency.subsec_nanos());
        self.0.saturating_record(ns);
    }

    /// Forgets what was recorded, when the warm-up is over.
    pub(crate) fn clear(&mut self) {
        self.0.reset();
    }

    /// Calls that were recorded.
    pub(crate) fn calls(&self) -> u64 {
        self.0.len()
    }

    fn add(&mut self, other: &Self) {
        // Both have the same bounds, so that there is room for every value.
        let _ = self.0.add(&other.0);
    }

    fn percentiles(&self) -> Percentiles {
        Percentiles {
            p50: self.0.value_at_quantile(0.5),
            p90: self.0.value_at_quantile(0.9),
            p99: self.0.value_at_quantile(0.99),
            p999: self.0.value_at_quantile(0.999),
            p9999: self.0.value_at_quantile(0.9999),
            max: self.0.max(),
        }
    }
}

impl Run {
    /// Puts the threads of a run together.
    ///
    /// The threads and the server take their figures at slightly different times; each rate is
    /// over the time of whoever took it, so that this does not matter.
    pub(crate) fn of(
        target: Target,
        workload: Workload,
        threads: &[ThreadFigures],
        server: Option<ServerFigures>,
    ) -> Result<Self, Failure> {
        let mut latencies = Latencies::new()?;
        let (mut calls_per_s, mut client_cpu_per_s) = (0.0, 0.0);
        let mut client = ShardCounters::default();
        for thread in threads {
            latencies.add(&thread.latencies);
            let seconds = thread.elapsed.as_secs_f64();
            calls_per_s += thread.latencies.calls() as f64 / seconds;
            client_cpu_per_s += thread.counters.cpu_ns as f64 / seconds;
            client = client.plus(&thread.counters);
        }
        let first_error = threads.iter().find_map(|thread| thread.first_error.clone());
        let errors = threads.iter().map(|thread| thread.errors).sum();
        if latencies.calls() == 0 {
            return Err(match first_error {
                Some(first) => Failure::CallsFailed { count: errors, first },
                None => Failure::NoCalls { workload: workload.to_string() },
            });
        }
        Ok(Self {
            target,
            workload,
            calls: latencies.calls(),
            errors,
            first_error,
            calls_per_s,
            latency_ns: latencies.percentiles(),
            server_cpu_ns_per_call: server.map(|server| {
                server.counters.cpu_ns as f64 / server.elapsed.as_secs_f64() / calls_per_s
            }),
            client_cpu_ns_per_call: client_cpu_per_s / calls_per_s,
            server: server.map(|server| server.counters),
            client,
        })
    }

    /// Puts the repeats of a run together: the median of each figure, the sum of each count, and
    /// the longest latency of all. None where there is no repeat.
    pub(crate) fn of_repeats(repeats: &[&Self]) -> Option<Self> {
        let first = repeats.first()?;
        let mid =
            |figure: fn(&Self) -> f64| median(repeats.iter().map(|run| figure(run)).collect());
        let mid_ns = |figure: fn(&Percentiles) -> u64| {
            median(repeats.iter().map(|run| figure(&run.latency_ns) as f64).collect()) as u64
        };
        let server_cpu: Option<Vec<f64>> =
            repeats.iter().map(|run| run.server_cpu_ns_per_call).collect();
        let add = |sum: ShardCounters, counters| sum.plus(&counters);
        let server: Option<Vec<ShardCounters>> = repeats.iter().map(|run| run.server).collect();
        Some(Self {
            target: first.target,
            workload: first.workload,
            calls: repeats.iter().map(|run| run.calls).sum(),
            errors: repeats.iter().map(|run| run.errors).sum(),
            first_error: repeats.iter().find_map(|run| run.first_error.clone()),
            calls_per_s: mid(|run| run.calls_per_s),
            latency_ns: Percentiles {
                p50: mid_ns(|latency| latency.p50),
                p90: mid_ns(|latency| latency.p90),
                p99: mid_ns(|latency| latency.p99),
                p999: mid_ns(|latency| latency.p999),
                p9999: mid_ns(|latency| latency.p9999),
                max: repeats.iter().map(|run| run.latency_ns.max).max().unwrap_or(0),
            },
            server_cpu_ns_per_call: server_cpu.map(median),
            client_cpu_ns_per_call: mid(|run| run.client_cpu_ns_per_call),
            server: server.map(|all| all.into_iter().fold(ShardCounters::default(), add)),
            client: repeats.iter().map(|run| run.client).fold(ShardCounters::default(), add),
        })
    }
}

/// The value in the middle, or the mean of the two there; zero where there is none.
pub(crate) fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    match (values.get(middle.wrapping_sub(1)), values.get(middle)) {
        (Some(below), Some(above)) if values.len().is_multiple_of(2) => (below + above) / 2.0,
        (_, Some(value)) => *value,
        _ => 0.0,
    }
}

/// CPU time that this thread has used, in nanoseconds.
pub(crate) fn thread_cpu_ns() -> u64 {
    let cpu = clock_gettime(ClockId::ThreadCPUTime);
    cpu.tv_sec.cast_unsigned() * 1_000_000_000 + cpu.tv_nsec.cast_unsigned()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

    use super::*;

    const WORKLOAD: Workload = Workload { connections: 1, depth: 1, size: 64 };

    fn thread(latencies_us: &[u64], elapsed: Duration, cpu_ns: u64) -> ThreadFigures {
        let mut latencies = Latencies::new().unwrap();
        for us in latencies_us {
            latencies.record(Duration::from_micros(*us));
        }
        let mut counters = ShardCounters::default();
        counters.cpu_ns = cpu_ns;
        ThreadFigures { latencies, errors: 0, first_error: None, elapsed, counters }
    }

    #[test]
    fn threads_are_put_together() {
        let threads = [
            thread(&[10, 10, 30], Duration::from_secs(1), 600),
            thread(&[20], Duration::from_secs(1), 200),
        ];
        let mut counters = ShardCounters::default();
        counters.cpu_ns = 16_000;
        let server = ServerFigures { counters, elapsed: Duration::from_secs(2) };
        let run = Run::of(Target::Floor, WORKLOAD, &threads, Some(server)).unwrap();
        assert_eq!(run.calls, 4);
        assert_eq!(run.calls_per_s, 4.0);
        assert_eq!(run.client_cpu_ns_per_call, 200.0);
        assert_eq!(run.server_cpu_ns_per_call, Some(2000.0));
        assert!((29_900..=30_100).contains(&run.latency_ns.max), "{:?}", run.latency_ns);
        assert!((9_900..=10_100).contains(&run.latency_ns.p50), "{:?}", run.latency_ns);
    }

    #[test]
    fn a_run_without_calls_has_no_figures() {
        let idle = [thread(&[], Duration::from_secs(1), 0)];
        let failure = Run::of(Target::Ringcall, WORKLOAD, &idle, None).unwrap_err();
        assert!(failure.to_string().contains("no call of 1×1 64 B was answered"), "{failure}");
    }

    #[test]
    fn repeats_give_medians_and_sums() {
        let runs: Vec<Run> = [10, 30, 20]
            .map(|us| {
                let threads = [thread(&[us], Duration::from_micros(us), us)];
                Run::of(Target::Ringcall, WORKLOAD, &threads, None).unwrap()
            })
            .into();
        let run = Run::of_repeats(&runs.iter().collect::<Vec<_>>()).unwrap();
        assert_eq!(run.calls, 3);
        assert_eq!(run.client_cpu_ns_per_call, 20.0);
        assert!((run.calls_per_s - 50_000.0).abs() < 1e-6);
        assert_eq!(run.latency_ns.p50, runs[2].latency_ns.p50);
        assert_eq!(run.latency_ns.max, runs[1].latency_ns.max);
        assert_eq!(run.server_cpu_ns_per_call, None);
    }

    #[test]
    fn the_median_is_in_the_middle() {
        assert_eq!(median(vec![3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(vec![4.0, 1.0, 2.0, 3.0]), 2.5);
        assert_eq!(median(vec![7.0]), 7.0);
        assert_eq!(median(vec![]), 0.0);
    }
}

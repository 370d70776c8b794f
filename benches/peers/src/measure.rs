//! Figures: latencies, and what is made of them and of CPU times.

use std::time::Duration;

use hdrhistogram::Histogram;
use serde::Serialize;

use crate::{error::Failure, peers::System, workload::Workload};

/// Longest latency that is told apart from longer ones, in nanoseconds: 60 s.
const LATENCY_MAX_NS: u64 = 60_000_000_000;

/// Decimal digits of a latency that are kept.
const LATENCY_DIGITS: u8 = 3;

/// Times of calls.
pub(crate) struct Latencies(Histogram<u64>);

/// The percentiles that are reported, in nanoseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Percentiles {
    pub(crate) p50: u64,
    pub(crate) p90: u64,
    pub(crate) p99: u64,
    pub(crate) p999: u64,
    pub(crate) p9999: u64,
    pub(crate) max: u64,
}

/// What the client has measured.
pub(crate) struct ClientFigures {
    /// From the call to its answer; in an open loop from the time at which it was to be made.
    pub(crate) latencies: Latencies,
    pub(crate) errors: u64,
    /// What the first call that failed, also while warming up, failed with.
    pub(crate) first_error: Option<String>,
    /// Time that was measured, by this thread's clock reads.
    pub(crate) elapsed: Duration,
    pub(crate) open: Option<OpenFigures>,
}

/// What an open loop measures besides.
pub(crate) struct OpenFigures {
    /// Calls that were to be made in the time that is measured.
    pub(crate) offered: u64,
    /// Answers that came in that time, whenever their calls were to be made: what the system did.
    pub(crate) answered: u64,
    /// Of those, the ones without an answer when the client gave up.
    pub(crate) unanswered: u64,
    pub(crate) from_send: Latencies,
    /// How late the generator itself was.
    pub(crate) lateness: Latencies,
}

/// What was measured of one system under one workload.
#[derive(Clone, Debug)]
pub(crate) struct Run {
    pub(crate) system: System,
    pub(crate) workload: Workload,
    pub(crate) calls: u64,
    pub(crate) errors: u64,
    pub(crate) first_error: Option<String>,
    pub(crate) calls_per_s: f64,
    pub(crate) latency_ns: Percentiles,
    pub(crate) server_cpu_ns_per_call: f64,
    pub(crate) client_cpu_ns_per_call: f64,
    pub(crate) open: Option<OpenRun>,
}

/// What an open loop gives besides.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct OpenRun {
    pub(crate) offered_per_s: f64,
    pub(crate) unanswered: u64,
    pub(crate) latency_from_send_ns: Percentiles,
    pub(crate) lateness_ns: Percentiles,
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

impl Percentiles {
    /// The median of each over the repeats, and the longest time of all.
    fn of_repeats(repeats: &[Self]) -> Self {
        let mid = |figure: fn(&Self) -> u64| {
            median(repeats.iter().map(|repeat| figure(repeat) as f64).collect()) as u64
        };
        Self {
            p50: mid(|it| it.p50),
            p90: mid(|it| it.p90),
            p99: mid(|it| it.p99),
            p999: mid(|it| it.p999),
            p9999: mid(|it| it.p9999),
            max: repeats.iter().map(|it| it.max).max().unwrap_or(0),
        }
    }
}

impl Run {
    /// Puts the two sides together. The loads are CPU seconds per second.
    ///
    /// The client takes its figures at slightly other times than the CPU times are taken at; each
    /// rate is over the time of whoever took it, so that this does not matter.
    pub(crate) fn of(
        system: System,
        workload: Workload,
        client: ClientFigures,
        server_load: f64,
        client_load: f64,
    ) -> Result<Self, Failure> {
        let calls = client.latencies.calls();
        if calls == 0 {
            return Err(match client.first_error {
                Some(first) => Failure::CallsFailed { system, count: client.errors, first },
                None => Failure::NoCalls { system, workload: workload.to_string() },
            });
        }
        let seconds = client.elapsed.as_secs_f64();
        let answered = client.open.as_ref().map_or(calls, |open| open.answered);
        if answered == 0 {
            return Err(Failure::NoCalls { system, workload: workload.to_string() });
        }
        let calls_per_s = answered as f64 / seconds;
        Ok(Self {
            system,
            workload,
            calls,
            errors: client.errors,
            first_error: client.first_error,
            calls_per_s,
            latency_ns: client.latencies.percentiles(),
            server_cpu_ns_per_call: server_load * 1e9 / calls_per_s,
            client_cpu_ns_per_call: client_load * 1e9 / calls_per_s,
            open: client.open.map(|open| OpenRun {
                offered_per_s: open.offered as f64 / seconds,
                unanswered: open.unanswered,
                latency_from_send_ns: open.from_send.percentiles(),
                lateness_ns: open.lateness.percentiles(),
            }),
        })
    }

    /// Puts the repeats of a run together: the median of each figure, the sum of each count, and
    /// the longest latency of all. None where there is no repeat.
    pub(crate) fn of_repeats(repeats: &[&Self]) -> Option<Self> {
        let first = repeats.first()?;
        let mid =
            |figure: fn(&Self) -> f64| median(repeats.iter().map(|run| figure(run)).collect());
        let mid_ns = |figures: Vec<Percentiles>| Percentiles::of_repeats(&figures);
        let open: Option<Vec<OpenRun>> = repeats.iter().map(|run| run.open).collect();
        Some(Self {
            system: first.system,
            workload: first.workload,
            calls: repeats.iter().map(|run| run.calls).sum(),
            errors: repeats.iter().map(|run| run.errors).sum(),
            first_error: repeats.iter().find_map(|run| run.first_error.clone()),
            calls_per_s: mid(|run| run.calls_per_s),
            latency_ns: mid_ns(repeats.iter().map(|run| run.latency_ns).collect()),
            server_cpu_ns_per_call: mid(|run| run.server_cpu_ns_per_call),
            client_cpu_ns_per_call: mid(|run| run.client_cpu_ns_per_call),
            open: open.map(|open| OpenRun {
                offered_per_s: median(open.iter().map(|open| open.offered_per_s).collect()),
                unanswered: open.iter().map(|open| open.unanswered).sum(),
                latency_from_send_ns: mid_ns(
                    open.iter().map(|open| open.latency_from_send_ns).collect(),
                ),
                lateness_ns: mid_ns(open.iter().map(|open| open.lateness_ns).collect()),
            }),
        })
    }
}

/// The value in the middle, or the mean of the two there; zero where there is none.
fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    match (values.get(middle.wrapping_sub(1)), values.get(middle)) {
        (Some(below), Some(above)) if values.len().is_multiple_of(2) => (below + above) / 2.0,
        (_, Some(value)) => *value,
        _ => 0.0,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

    use super::*;

    const WORKLOAD: Workload = Workload { connections: 1, depth: 1, size: 64 };

    fn figures(latencies_us: &[u64], elapsed: Duration) -> ClientFigures {
        let mut latencies = Latencies::new().unwrap();
        for us in latencies_us {
            latencies.record(Duration::from_micros(*us));
        }
        ClientFigures { latencies, errors: 0, first_error: None, elapsed, open: None }
    }

    fn run(latencies_us: &[u64], server_load: f64) -> Run {
        let client = figures(latencies_us, Duration::from_secs(2));
        Run::of(System::Tonic, WORKLOAD, client, server_load, 0.5).unwrap()
    }

    #[test]
    fn cpu_time_is_load_over_calls() {
        let run = run(&[10, 10, 30, 20], 1.0);
        assert_eq!(run.calls, 4);
        assert_eq!(run.calls_per_s, 2.0);
        assert_eq!(run.server_cpu_ns_per_call, 5e8);
        assert_eq!(run.client_cpu_ns_per_call, 2.5e8);
        assert!((9_900..=10_100).contains(&run.latency_ns.p50), "{:?}", run.latency_ns);
    }

    #[test]
    fn an_open_loop_counts_what_was_answered_in_its_time() {
        let mut client = figures(&[10, 10, 30, 20], Duration::from_secs(2));
        // Two of the four calls were answered when the window had closed.
        client.open = Some(OpenFigures {
            offered: 5,
            answered: 2,
            unanswered: 1,
            from_send: Latencies::new().unwrap(),
            lateness: Latencies::new().unwrap(),
        });
        let run = Run::of(System::Tonic, WORKLOAD, client, 1.0, 1.0).unwrap();
        assert_eq!((run.calls, run.calls_per_s), (4, 1.0));
        assert_eq!(run.server_cpu_ns_per_call, 1e9);
        let open = run.open.unwrap();
        assert_eq!((open.offered_per_s, open.unanswered), (2.5, 1));
    }

    #[test]
    fn a_run_without_calls_has_no_figures() {
        let client = figures(&[], Duration::from_secs(1));
        let failure = Run::of(System::Tarpc, WORKLOAD, client, 0.0, 0.0).unwrap_err();
        assert!(failure.to_string().starts_with("no call of 1×1 64 B on tarpc"), "{failure}");
    }

    #[test]
    fn repeats_give_medians_and_sums() {
        let runs = [run(&[10], 0.25), run(&[30], 1.0), run(&[20], 0.5)];
        let of_all = Run::of_repeats(&runs.iter().collect::<Vec<_>>()).unwrap();
        assert_eq!(of_all.calls, 3);
        assert_eq!(of_all.server_cpu_ns_per_call, runs[2].server_cpu_ns_per_call);
        assert_eq!(of_all.latency_ns.p50, runs[2].latency_ns.p50);
        assert_eq!(of_all.latency_ns.max, runs[1].latency_ns.max);
    }

    #[test]
    fn the_median_is_in_the_middle() {
        assert_eq!(median(vec![3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(vec![4.0, 1.0, 2.0, 3.0]), 2.5);
        assert_eq!(median(vec![]), 0.0);
    }
}

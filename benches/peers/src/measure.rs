//! Figures: latencies, and what is made of them and of CPU times.

use std::time::Duration;

use ringcall_perf::generator::{Latencies, Percentiles, Recorder, median};

use crate::{error::Failure, peers::System, workload::Workload};

/// What the client has measured.
pub(crate) struct ClientFigures {
    /// What the calls took that were answered in the time that is measured, and in an open loop what
    /// those had waited that had no answer at its end.
    pub(crate) record: Recorder,
    /// The latter by themselves; empty in a closed loop.
    pub(crate) bounds: Latencies,
    pub(crate) errors: u64,
    /// What the first call that failed, also while warming up, failed with.
    pub(crate) first_error: Option<String>,
    /// Time that was measured, by this thread's clock reads.
    pub(crate) elapsed: Duration,
    /// Calls a second that were due, in an open loop.
    pub(crate) offered_per_s: Option<f64>,
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

impl ClientFigures {
    /// Calls that were answered.
    pub(crate) fn answered(&self) -> u64 {
        self.record.from_send.count()
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
        let calls = client.answered();
        if calls == 0 {
            return Err(match client.first_error {
                Some(first) => Failure::CallsFailed { system, count: client.errors, first },
                None => Failure::NoCalls { system, workload: workload.to_string() },
            });
        }
        let calls_per_s = calls as f64 / client.elapsed.as_secs_f64();
        let record = &client.record;
        Ok(Self {
            system,
            workload,
            calls,
            errors: client.errors,
            first_error: client.first_error,
            calls_per_s,
            latency_ns: Percentiles::of(record.latencies()),
            server_cpu_ns_per_call: server_load * 1e9 / calls_per_s,
            client_cpu_ns_per_call: client_load * 1e9 / calls_per_s,
            open: record.open.as_ref().zip(client.offered_per_s).map(|(open, offered_per_s)| {
                OpenRun {
                    offered_per_s,
                    unanswered: client.bounds.count(),
                    latency_from_send_ns: Percentiles::of(&record.from_send),
                    lateness_ns: Percentiles::of(&open.lateness),
                }
            }),
        })
    }

    /// Puts the repeats of a run together: the median of each figure, the sum of each count, and
    /// the longest latency of all. None where there is no repeat.
    pub(crate) fn of_repeats(repeats: &[&Self]) -> Option<Self> {
        let first = repeats.first()?;
        let mid =
            |figure: fn(&Self) -> f64| median(repeats.iter().map(|run| figure(run)).collect());
        let mid_ns = |figures: Vec<Percentiles>| Percentiles::of_repeats(figures.iter());
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

    use ringcall_perf::generator::{Timing, Unanswered};

    use super::*;

    const WORKLOAD: Workload = Workload { connections: 1, depth: 1, size: 64 };

    fn figures(record: Recorder, latencies_us: &[u64]) -> ClientFigures {
        let mut figures = ClientFigures {
            record,
            bounds: Latencies::new().unwrap(),
            errors: 0,
            first_error: None,
            elapsed: Duration::from_secs(2),
            offered_per_s: None,
        };
        for us in latencies_us {
            let timing = Timing { due_ns: 0, free_ns: 0, sent_ns: 0, done_ns: us * 1000 };
            figures.record.record(timing);
        }
        figures
    }

    fn run(latencies_us: &[u64], server_load: f64) -> Run {
        let client = figures(Recorder::closed().unwrap(), latencies_us);
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
    fn an_open_loop_has_what_was_not_answered_in_its_latencies_and_in_no_rate() {
        let mut client = figures(Recorder::open().unwrap(), &[10, 10, 30, 20]);
        client.offered_per_s = Some(2.5);
        let made = vec![1_000_000];
        let unanswered = Unanswered { made, ..Unanswered::default() };
        let open = client.record.open.as_mut().unwrap();
        unanswered.add_to(open, 9_000_000, &mut client.bounds);
        let run = Run::of(System::Tonic, WORKLOAD, client, 1.0, 1.0).unwrap();
        assert_eq!((run.calls, run.calls_per_s), (4, 2.0));
        assert_eq!(run.server_cpu_ns_per_call, 5e8);
        assert!(run.latency_ns.max >= 8_000_000, "{:?}", run.latency_ns);
        let open = run.open.unwrap();
        assert_eq!((open.offered_per_s, open.unanswered), (2.5, 1));
        assert!(open.latency_from_send_ns.max < 100_000, "{open:?}");
    }

    #[test]
    fn a_run_without_calls_has_no_figures() {
        let client = figures(Recorder::closed().unwrap(), &[]);
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
}

//! Figures: latencies, CPU time, and what is made of them.
//!
//! What the client threads recorded comes from the course of a run; here it becomes the figures of
//! a run, a verdict on them, and the figures of several repeats.

use std::time::{Duration, SystemTime};

use ringcall::ShardCounters;
use rustix::time::{ClockId, clock_gettime};

use crate::{
    core_load::CoreLoad,
    cost::Costs,
    course::Measured,
    error::Failure,
    extras::Extras,
    generator::{Interval, Latencies, Percentiles, interval_of, median},
    idle::IdleFigures,
    lengths::percentile_name,
    load::{LoadPlan, Pace},
    series::Slice,
    target::Target,
    workload::Workload,
};

/// The error of a median, as a multiple of that of the mean: the root of half of pi, for figures
/// that are normally distributed.
const OF_MEDIAN: f64 = 1.253_314;

/// Lateness of the generator from which on a run is void, as a part of the latency at the same
/// percentile.
const LATENESS_MAX: f64 = 0.1;

/// Percentiles at which the generator's lateness is looked at, beside the one that is to be sure.
const JUDGED_AT: [f64; 2] = [0.5, 0.99];

/// Least part of the calls that were due which must have been answered for a run to be one at the
/// rate that it names.
const ANSWERED_MIN: f64 = 0.98;

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
    /// Calls that were answered.
    pub(crate) calls: u64,
    pub(crate) errors: u64,
    pub(crate) first_error: Option<String>,
    pub(crate) calls_per_s: f64,
    /// What users wait: from when a call was due where the load is open, else from when it was
    /// made.
    pub(crate) latency_ns: Percentiles,
    /// None where the server is another process.
    pub(crate) server_cpu_ns_per_call: Option<f64>,
    pub(crate) client_cpu_ns_per_call: f64,
    pub(crate) server: Option<ShardCounters>,
    pub(crate) client: ShardCounters,
    /// What an open load has besides.
    pub(crate) open: Option<OpenFigures>,
    /// What calls had waited that had no answer at the end; they are in `latencies` too, and not in
    /// `calls`. Empty where the load is closed.
    pub(crate) bounds: Latencies,
    /// What calls cost besides CPU time, where that was asked for.
    pub(crate) cost: Option<Costs>,
    /// What idle connections cost that were held beside the load, where there were some.
    pub(crate) idle: Option<IdleFigures>,
    /// What the cores were used for that threads of this process were pinned to.
    pub(crate) core_load: Vec<CoreLoad>,
    /// How sure the percentile is that was to be sure.
    pub(crate) interval: Option<Interval>,
    /// Why the figures say nothing of the target, where that is so.
    pub(crate) void: Option<String>,
    /// What is to be known of the figures otherwise.
    pub(crate) doubts: Vec<String>,
    /// All latencies, and by tick.
    pub(crate) latencies: Latencies,
    /// From when calls were made, where the load is open.
    pub(crate) from_send: Option<Latencies>,
    pub(crate) series: Vec<Slice>,
    pub(crate) warmed_for: Duration,
    /// When measuring began, by the generator's clock.
    pub(crate) began_ns: u64,
    /// What was seen of what went on beside the load, where something did.
    pub(crate) extras: Option<Extras>,
    /// When measuring began, by the wall clock. It is reckoned back from the end, and late by the
    /// milliseconds that threads take to end.
    pub(crate) began: SystemTime,
}

/// Figures of an open load.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct OpenFigures {
    /// Calls a second that were due.
    pub(crate) offered_per_s: f64,
    /// From when calls were made: what a closed loop would have seen.
    pub(crate) from_send_ns: Percentiles,
    /// How late the generator was.
    pub(crate) lateness_ns: Percentiles,
    /// Calls that were due at the end and had no answer, which count with the time that they had
    /// waited: a lower bound of their latency.
    pub(crate) unanswered: u64,
}

impl Run {
    /// The figures of a run, from what its threads and its server measured.
    ///
    /// The threads and the server take their figures at slightly different times; each rate is
    /// over the time of whoever took it, so that this does not matter.
    pub(crate) fn of(
        target: Target,
        workload: Workload,
        plan: &LoadPlan,
        (measured, first_error, extras): (Measured, Option<String>, Extras),
        server: Option<ServerFigures>,
    ) -> Result<Self, Failure> {
        let latencies = measured.total.latencies();
        let unanswered = measured.bounds.count();
        let calls = latencies.count().saturating_sub(unanswered);
        if calls == 0 {
            let count = measured.errors + measured.errors_before;
            return Err(match first_error {
                Some(first) => Failure::CallsFailed { count, first },
                None => Failure::NoCalls { workload: workload.to_string() },
            });
        }
        let (calls_per_s, began_ns) = (measured.calls_per_s, measured.began_ns());
        let passed = measured.passed;
        let open = match (&measured.total.open, &plan.pace) {
            (Some(open), Pace::Open(arrivals)) => Some(OpenFigures {
                offered_per_s: arrivals.offered_per_s(passed),
                from_send_ns: Percentiles::of(&measured.total.from_send),
                lateness_ns: Percentiles::of(&open.lateness),
                unanswered,
            }),
            _ => None,
        };
        let void = measured.total.open.as_ref().and_then(|record| {
            let quantile = plan.lengths.precision.quantile;
            let lateness = |quantile| record.lateness.at(quantile);
            too_late(quantile, lateness, |quantile| record.from_due.at(quantile))
        });
        let mut doubts = measured.doubts;
        if let Some(offered) = open.map(|open| open.offered_per_s)
            && calls_per_s < offered * ANSWERED_MIN
        {
            doubts.push(format!(
                "{target} answered {calls_per_s:.0} calls/s of the {offered:.0} that were due: it \
                 is overloaded, and its latencies grow for as long as that lasts"
            ));
        }
        Ok(Self {
            target,
            workload,
            calls,
            errors: measured.errors,
            first_error: first_error.filter(|_| measured.errors > 0),
            calls_per_s,
            latency_ns: Percentiles::of(latencies),
            server_cpu_ns_per_call: server.map(|server| {
                server.counters.cpu_ns as f64 / server.elapsed.as_secs_f64() / calls_per_s
            }),
            client_cpu_ns_per_call: measured.client_cpu_per_s / calls_per_s,
            server: server.map(|server| server.counters),
            client: measured.client,
            open,
            bounds: measured.bounds,
            cost: None,
            idle: None,
            core_load: Vec::new(),
            interval: measured.interval,
            void,
            doubts,
            latencies: latencies.clone(),
            from_send: open.map(|_| measured.total.from_send.clone()),
            series: measured.series.slices,
            warmed_for: measured.warmed_for,
            began_ns,
            extras: (!plan.beside.is_nothing()).then_some(extras),
            began: SystemTime::now().checked_sub(passed).unwrap_or(SystemTime::UNIX_EPOCH),
        })
    }

    /// Puts the repeats of a run together: the median of each figure, the sum of each count, and
    /// the longest latency of all. The distribution and the course are those of the repeat in the
    /// middle, by its p99. None where there is no repeat.
    pub(crate) fn of_repeats(repeats: &[&Self]) -> Option<Self> {
        let mut by_p99 = repeats.to_vec();
        by_p99.sort_by_key(|run| run.latency_ns.p99);
        let middle = by_p99.get(by_p99.len() / 2)?;
        let mid =
            |figure: fn(&Self) -> f64| median(repeats.iter().map(|run| figure(run)).collect());
        let server_cpu: Option<Vec<f64>> =
            repeats.iter().map(|run| run.server_cpu_ns_per_call).collect();
        let add = |sum: ShardCounters, counters| sum.plus(&counters);
        let server: Option<Vec<ShardCounters>> = repeats.iter().map(|run| run.server).collect();
        let opens: Option<Vec<OpenFigures>> = repeats.iter().map(|run| run.open).collect();
        let open = opens.filter(|opens| !opens.is_empty()).map(|opens| OpenFigures {
            offered_per_s: median(opens.iter().map(|open| open.offered_per_s).collect()),
            from_send_ns: Percentiles::of_repeats(opens.iter().map(|open| &open.from_send_ns)),
            lateness_ns: Percentiles::of_repeats(opens.iter().map(|open| &open.lateness_ns)),
            unanswered: opens.iter().map(|open| open.unanswered).sum(),
        });
        let latency_ns = Percentiles::of_repeats(repeats.iter().map(|run| &run.latency_ns));
        let mut doubts: Vec<String> = Vec::new();
        for doubt in repeats.iter().flat_map(|run| &run.doubts) {
            if !doubts.contains(doubt) {
                doubts.push(doubt.clone());
            }
        }
        // Repeats see what comes and goes between them as well; few of them say nothing of it, and
        // the sections of one of them nothing either.
        let of_repeats: Vec<f64> =
            repeats.iter().filter_map(|run| Some(run.interval?.value)).collect();
        let interval = match repeats {
            [only] => only.interval,
            _ => interval_of(median(of_repeats.clone()), &of_repeats)
                .map(|it| Interval { half_width: it.half_width * OF_MEDIAN, ..it }),
        };
        Some(Self {
            calls: repeats.iter().map(|run| run.calls).sum(),
            errors: repeats.iter().map(|run| run.errors).sum(),
            first_error: repeats.iter().find_map(|run| run.first_error.clone()),
            calls_per_s: mid(|run| run.calls_per_s),
            latency_ns,
            server_cpu_ns_per_call: server_cpu.map(median),
            client_cpu_ns_per_call: mid(|run| run.client_cpu_ns_per_call),
            server: server.map(|all| all.into_iter().fold(ShardCounters::default(), add)),
            client: repeats.iter().map(|run| run.client).fold(ShardCounters::default(), add),
            open,
            cost: Costs::of_repeats(repeats.iter().map(|run| run.cost.as_ref())),
            idle: IdleFigures::of_repeats(repeats.iter().map(|run| run.idle)),
            interval,
            // Half of the repeats must be sound for the one in the middle to be.
            void: majority_void(repeats),
            doubts,
            ..(*middle).clone()
        })
    }
}

/// Why half of the repeats or more are void, where they are.
fn majority_void(repeats: &[&Run]) -> Option<String> {
    let voids: Vec<&String> = repeats.iter().filter_map(|run| run.void.as_ref()).collect();
    let is_void = 2 * voids.len() >= repeats.len();
    voids.first().filter(|_| is_void).map(ToString::to_string)
}

/// Says where the generator was so late that its lateness could be what was measured.
fn too_late(
    wanted: f64,
    lateness: impl Fn(f64) -> u64,
    latency: impl Fn(f64) -> u64,
) -> Option<String> {
    let mut quantiles = JUDGED_AT.to_vec();
    if !quantiles.contains(&wanted) {
        quantiles.push(wanted);
    }
    let found = quantiles
        .into_iter()
        .find(|quantile| lateness(*quantile) as f64 > latency(*quantile) as f64 * LATENESS_MAX)?;
    let us = |ns: u64| ns as f64 / 1e3;
    Some(format!(
        "at {} the load generator was late by {:.1} µs where calls took {:.1} µs, so that what was \
         measured may be the generator; give it cores of its own, more of them, or a lower rate",
        percentile_name(found),
        us(lateness(found)),
        us(latency(found)),
    ))
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
    use crate::report::sample;

    #[test]
    fn repeats_give_medians_and_sums() {
        let runs = [10, 30, 20].map(|us| {
            let mut run = sample::run(Target::Ringcall, 1, us as f64, 7.0);
            run.latency_ns.p50 = us * 1000;
            run.latency_ns.p99 = us * 2000;
            run.latency_ns.max = us * 3000;
            run.warmed_for = Duration::from_secs(us);
            run
        });
        let run = Run::of_repeats(&runs.iter().collect::<Vec<_>>()).unwrap();
        assert_eq!(run.calls, 3000);
        assert_eq!(run.server_cpu_ns_per_call, Some(20.0));
        assert_eq!([run.latency_ns.p50, run.latency_ns.p99], [20_000, 40_000]);
        assert_eq!(run.latency_ns.max, 90_000);
        // The rest is of the repeat in the middle.
        assert_eq!(run.warmed_for, Duration::from_secs(20));
        assert!(Run::of_repeats(&[]).is_none());
    }

    #[test]
    fn a_run_is_void_where_the_generators_lateness_could_be_the_result() {
        let latency = |_| 100_000;
        assert_eq!(too_late(0.999, |_| 10_000, latency), None);
        let only_at_p999 = |quantile| if quantile > 0.99 { 20_000 } else { 0 };
        assert_eq!(too_late(0.99, only_at_p999, latency), None);
        let why = too_late(0.999, only_at_p999, latency).unwrap();
        assert!(why.starts_with("at p99.9 the load generator was late by 20.0 µs where"), "{why}");
    }

    #[test]
    fn repeats_are_void_where_half_of_them_are() {
        let sound = sample::run(Target::Ringcall, 1, 1.0, 1.0);
        let mut void = sound.clone();
        void.void = Some("late".to_owned());
        let of = |runs: &[&Run]| Run::of_repeats(runs).unwrap().void;
        assert_eq!(of(&[&sound, &sound, &void]), None);
        assert_eq!(of(&[&sound, &void]).as_deref(), Some("late"));
    }
}

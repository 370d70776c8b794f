//! `sweep`: one target at rate after rate, up to the knee and past it, to twice what it can do; or
//! the highest rate at which a percentile stays below a limit.

use std::time::Duration;

use crate::{
    args::SweepArgs,
    bench::{self, Plan},
    error::Failure,
    generator::{Arrivals, Latencies, Rate, Spacing},
    host::{self, Host},
    interrupt::Interrupt,
    load::{Outcome, Pace},
    measure::Run,
    parse::Slo,
    progress::Progress,
    report::{self, Outputs, Report, si, time},
    target::Target,
    workload::Workload,
};

/// Rates of a sweep, as parts of what the target can do.
const STEPS: [f64; 12] = [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0, 1.5, 2.0];

/// Calls in flight on each connection of the closed loop that finds what the target can do.
const CAPACITY_DEPTH: u32 = 64;

/// What is left between a rate that holds a limit and one that does not, as a part of it, when the
/// search ends.
const SEARCH_UNTIL: f64 = 0.05;

/// Lowest rate of a search, as a part of what the target can do: what does not hold there is not a
/// matter of the load.
const SEARCH_FROM: f64 = 0.01;

/// Most runs of a search.
const SEARCH_RUNS_MAX: u32 = 16;

/// Latency within which a call counts as goodput where none is named, as a multiple of the median
/// at the lowest rate.
const WITHIN_MEDIANS: f64 = 10.0;

/// Time that starting and ending a run takes, for the progress bar.
const OVERHEAD: Duration = Duration::from_millis(200);

/// Runs the sweep, or the search.
pub(crate) fn sweep(args: &SweepArgs) -> Result<(), Failure> {
    let (mut plan, warnings) = Plan::of_bench(&args.bench)?;
    if args.bench.run.rate.is_some() || args.bench.run.trace.is_some() {
        return Err(Failure::RateOfSweep);
    }
    plan.workloads = args.bench.workload.workloads(true);
    if args.bench.target.is_empty() {
        plan.targets = vec![Target::Ringcall];
    }
    let [target] = plan.targets[..] else { return Err(Failure::OneTarget) };
    if let Some(slo) = args.slo {
        // What is searched for is what must be sure.
        plan.load.lengths.precision.quantile = slo.quantile;
    }
    let sink = Outputs::open(&args.bench.run.outputs)?;
    let interrupt = Interrupt::watch()?;
    plan.check_files(host::raise_file_limit())?;
    for warning in &warnings {
        eprintln!("warning: {warning}");
    }
    let host = Host::describe();
    let runs = args.rates.as_ref().map_or(STEPS.len(), Vec::len) + 1;
    let progress = Progress::begin((plan.load.lengths.expected() + OVERHEAD) * runs as u32);
    let spacing = args.bench.run.arrivals;
    let (interrupt, progress) = (&interrupt, &progress);
    let mut sweep = Sweep { plan: &mut plan, interrupt, progress, spacing };
    let mut runs = Vec::new();
    let searched = match (&args.slo, &args.rates) {
        (Some(slo), _) => sweep.search(*slo, &mut runs).map(Some),
        (None, Some(rates)) => sweep.at_rates(rates, &mut runs).map(|()| None),
        (None, None) => sweep.capacity().and_then(|capacity| {
            let rates: Vec<f64> = STEPS.iter().map(|step| step * capacity).collect();
            sweep.at_rates(&rates, &mut runs).map(|()| None)
        }),
    };
    progress.end();
    runs.sort_by(|a, b| offered(a).total_cmp(&offered(b)));
    // What was measured before a failure is reported with it.
    let (found, failure) = match searched {
        Ok(found) => (found, None),
        Err(failure) => (None, Some(failure)),
    };
    let Some(first) = runs.first() else {
        return Err(failure.unwrap_or(Failure::Interrupted));
    };
    let within = args.within.unwrap_or_else(|| {
        Duration::from_nanos((first.latency_ns.p50 as f64 * WITHIN_MEDIANS) as u64)
    });
    let mut conditions = plan.conditions(warnings);
    conditions.load = format!("open loop, {target}, a run at each rate");
    conditions.is_partial = failure.is_some();
    let of_runs = table(&runs, within, found.as_ref());
    let report = Report::new(host, conditions, &[runs]);
    sink.write_as(&report, &(report::header(&report) + &of_runs))?;
    match (failure, found) {
        (Some(failure), _) => Err(failure),
        (None, Some(Found { rate: None, slo })) => Err(Failure::SloNotMet(slo.to_string())),
        // Beyond the highest rate that holds, runs may be void: that is how it was found.
        (None, Some(_)) => Ok(()),
        (None, None) => bench::verdict(&report),
    }
}

/// What a search has found.
struct Found {
    slo: Slo,
    /// The highest rate at which it held; none where it held at none.
    rate: Option<f64>,
}

struct Sweep<'a> {
    plan: &'a mut Plan,
    interrupt: &'a Interrupt,
    progress: &'a Progress,
    spacing: Spacing,
}

impl Sweep<'_> {
    /// Calls a second that the target answers in a closed loop of many calls.
    fn capacity(&mut self) -> Result<f64, Failure> {
        self.progress.say("finding what it can do".to_owned());
        let pace = std::mem::replace(&mut self.plan.load.pace, Pace::Closed);
        let workload = self.plan.workloads.first().copied().ok_or(Failure::OneTarget)?;
        let target = self.plan.targets.first().copied().ok_or(Failure::OneTarget)?;
        let deep = Workload { depth: CAPACITY_DEPTH, ..workload };
        let outcome = bench::measure_one(self.plan, deep, target, (self.interrupt, self.progress));
        self.plan.load.pace = pace;
        match outcome? {
            Outcome::Whole(run) => Ok(run.calls_per_s),
            Outcome::Cut(_) => Err(Failure::Interrupted),
        }
    }

    /// One run at a rate, the middle of its repeats.
    fn at(&mut self, rate: f64) -> Result<Run, Failure> {
        self.progress.say(format!("{} calls/s", si(rate)));
        let workload = self.plan.workloads.first().copied().ok_or(Failure::OneTarget)?;
        let target = self.plan.targets.first().copied().ok_or(Failure::OneTarget)?;
        self.plan.load.pace = Pace::Open(Arrivals::Rated(Rate::Flat(rate), self.spacing));
        let mut repeats = Vec::new();
        for _ in 0..self.plan.repeat {
            let watch = (self.interrupt, self.progress);
            match bench::measure_one(self.plan, workload, target, watch)? {
                Outcome::Whole(run) => repeats.push(run),
                Outcome::Cut(_) => return Err(Failure::Interrupted),
            }
        }
        Run::of_repeats(&repeats.iter().collect::<Vec<_>>()).ok_or(Failure::Interrupted)
    }

    fn at_rates(&mut self, rates: &[f64], runs: &mut Vec<Run>) -> Result<(), Failure> {
        for rate in rates {
            runs.push(self.at(*rate)?);
        }
        Ok(())
    }

    /// Looks for the highest rate that holds a limit: halves what is between one that does and one
    /// that does not, beginning with what the target can do.
    fn search(&mut self, slo: Slo, runs: &mut Vec<Run>) -> Result<Found, Failure> {
        let (mut holds, mut fails) = (0.0, None);
        let capacity = self.capacity()?;
        let mut next = capacity / 2.0;
        for _ in 0..SEARCH_RUNS_MAX {
            if next < capacity * SEARCH_FROM && !runs.is_empty() {
                break;
            }
            let run = self.at(next)?;
            if slo.holds(&run) {
                holds = next;
            } else {
                fails = Some(next);
            }
            runs.push(run);
            next = match fails {
                None => next * 1.5,
                Some(fails) if fails - holds <= SEARCH_UNTIL * fails => break,
                Some(fails) => (holds + fails) / 2.0,
            };
        }
        let rate = (holds > 0.0).then_some(holds);
        Ok(Found { slo, rate })
    }
}

impl Slo {
    /// Whether a run shows that it holds: a void run shows nothing, and one in which calls failed or
    /// were left over does not.
    fn holds(&self, run: &Run) -> bool {
        let is_answered = run.calls_per_s >= 0.98 * offered(run);
        let latency = run.latencies.at(self.quantile);
        run.void.is_none()
            && run.errors == 0
            && is_answered
            && u128::from(latency) <= self.limit.as_nanos()
    }
}

/// The part of the calls that were answered which were so within a time. What has no answer is no
/// part of them.
fn good_share(run: &Run, within_ns: u64) -> f64 {
    let count = |latencies: &Latencies, to_ns| latencies.histogram().count_between(0, to_ns);
    let answered = |to_ns| count(&run.latencies, to_ns) - count(&run.bounds, to_ns);
    answered(within_ns) as f64 / answered(u64::MAX).max(1) as f64
}

fn offered(run: &Run) -> f64 {
    run.open.map_or(run.calls_per_s, |open| open.offered_per_s)
}

fn table(runs: &[Run], within: Duration, found: Option<&Found>) -> String {
    let ns = |duration: Duration| u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
    let mut text = format!(
        "\n{:>8}  {:>8}  {:>8}  {:>6}  {:>8}  {:>8}  {:>8}  {:>8}  {:>8}  {:>6}\n",
        "due/s",
        "answered",
        "goodput",
        "server",
        "p50",
        "p99",
        "p99.9",
        "max",
        "late p99",
        "failed"
    );
    for run in runs {
        let goodput = run.calls_per_s * good_share(run, ns(within));
        let server = run.server_cpu_ns_per_call.map(|cpu| cpu * run.calls_per_s / 1e7);
        text += &format!(
            "{:>8}  {:>8}  {:>8}  {:>6}  {:>8}  {:>8}  {:>8}  {:>8}  {:>8}  {:>6}{}\n",
            si(offered(run)),
            si(run.calls_per_s),
            si(goodput),
            server.map_or_else(|| "–".to_owned(), |percent| format!("{percent:.0} %")),
            time(run.latency_ns.p50 as f64),
            time(run.latency_ns.p99 as f64),
            time(run.latency_ns.p999 as f64),
            time(run.latency_ns.max as f64),
            run.open.map_or_else(|| "–".to_owned(), |it| time(it.lateness_ns.p99 as f64)),
            run.errors,
            if run.void.is_some() { "  VOID" } else { "" },
        );
    }
    text += &format!(
        "\nLatencies count from when calls were due. goodput: answered within {}. server: its cores' \
         time, of one\ncore. late: how late the generator was.\n",
        time(within.as_nanos() as f64)
    );
    for doubt in runs.iter().flat_map(|run| &run.doubts) {
        text += &format!("! {doubt}\n");
    }
    if let Some(void) = runs.iter().find_map(|run| run.void.as_ref()) {
        text += &format!("VOID: the generator may be what was measured; first: {void}\n");
    }
    match found {
        None => {}
        Some(Found { slo, rate: Some(rate) }) => {
            text += &format!("\n{slo} holds up to {} calls/s.\n", si(*rate));
        }
        Some(Found { slo, rate: None }) => {
            text += &format!("\n{slo} held at no rate that was tried.\n");
        }
    }
    text
}

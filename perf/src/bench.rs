//! `bench` and `load`: runs every workload on every target, one after the other, and reports.
//!
//! The targets of a workload follow each other, so that the two sides of a ratio are near in
//! time; with repeats, everything is run once before anything is run again.

use std::{
    net::{Ipv4Addr, SocketAddr, ToSocketAddrs},
    sync::Arc,
    time::Duration,
};

use crate::{
    args::{BenchArgs, LoadArgs, RunArgs},
    cores,
    error::Failure,
    extras::Beside,
    generator::Arrivals,
    host::{self, Host},
    idle,
    interrupt::Interrupt,
    lengths::{Length, Lengths, Precision, Warmup},
    load::{self, LoadPlan, Outcome, Pace},
    measure::Run,
    parse::CoreList,
    progress::Progress,
    report::{Conditions, Outputs, Report},
    server::Server,
    target::{self, Target},
    trace,
    workload::Workload,
};

/// Time that starting and ending a run takes, for the progress bar.
pub(crate) const OVERHEAD: Duration = Duration::from_millis(100);

/// Bounds of a run whose length is not given.
const LENGTH_MIN: Duration = Duration::from_secs(3);
const LENGTH_MAX: Duration = Duration::from_secs(10);

/// Longest warm-up whose length is not given.
const WARMUP_MAX: Duration = Duration::from_secs(10);

/// Warm-up of a load whose rate changes, where none is given: it goes at its first rate, and there
/// would be no telling what settles from what is meant to change.
const WARMUP_OF_CHANGING: Duration = Duration::from_secs(1);

/// What is run, and against what.
pub(crate) struct Plan {
    pub(crate) targets: Vec<Target>,
    pub(crate) workloads: Vec<Workload>,
    pub(crate) repeat: u32,
    pub(crate) load: LoadPlan,
    /// Where the server is: here, on these cores, or elsewhere, at this address.
    pub(crate) server: Side,
}

pub(crate) enum Side {
    Here(CoreList),
    There(SocketAddr),
}

/// Measures server and client in this process, over loopback.
pub(crate) fn bench(args: &BenchArgs) -> Result<(), Failure> {
    let (plan, warnings) = Plan::of_bench(args)?;
    run(plan, &args.run, warnings)
}

/// Measures against a server elsewhere.
pub(crate) fn load(args: &LoadArgs) -> Result<(), Failure> {
    let available = cores::available().map_err(Failure::Cores)?;
    let cores = cores::of_client(&available, args.run.client_cores.as_ref())?;
    let address = resolve(&args.address)?;
    // Which cores a server has on this machine nobody knows: any may be one of them.
    let is_near = address.ip().to_canonical().is_loopback();
    let servers = CoreList(if is_near { available.clone() } else { Vec::new() });
    let beside = cores::beside(&available, (&servers, &cores), args.run.beside_cores.as_ref())?;
    let load = load_plan(&args.run, cores, beside)?;
    let targets = vec![args.target];
    check_targets(&targets, &load)?;
    let workloads = args.workload.workloads(load.pace.is_open());
    let server = Side::There(address);
    let plan = Plan { targets, workloads, repeat: args.run.repeat, load, server };
    let mut warnings = build_warnings();
    warnings.extend(plan.beside_warnings());
    run(plan, &args.run, warnings)
}

/// How the server is loaded, from what was asked for.
fn load_plan(args: &RunArgs, cores: CoreList, beside_cores: CoreList) -> Result<LoadPlan, Failure> {
    let precision = Precision { quantile: args.percentile, relative: args.precision };
    let mut lengths = Lengths {
        warmup: args.warmup.map_or(Warmup::UntilSettled(WARMUP_MAX), Warmup::For),
        length: args
            .duration
            .map_or(Length::UntilSure { at_least: LENGTH_MIN, at_most: LENGTH_MAX }, Length::For),
        precision,
    };
    let mut pace = Pace::Closed;
    if let Some(rate) = &args.rate {
        if let Some(changes_for) = rate.changes_for() {
            lengths.warmup = Warmup::For(args.warmup.unwrap_or(WARMUP_OF_CHANGING));
            lengths.length = Length::For(args.duration.unwrap_or(changes_for));
        }
        pace = Pace::Open(Arrivals::Rated(rate.clone(), args.arrivals));
    }
    if let Some(path) = &args.trace {
        let trace = trace::read(path)?;
        // It is measured from its first call to its last.
        lengths.warmup = Warmup::For(Duration::ZERO);
        lengths.length = Length::For(args.duration.unwrap_or(trace::length(&trace)));
        pace = Pace::Open(Arrivals::Traced(Arc::new(trace)));
    }
    let (sizes, seed, spin) = (args.sizes.clone(), args.seed, args.spin);
    if args.no_metrics {
        target::measure_nothing();
    }
    let beside = Beside {
        slow: args.slow,
        fanout: args.fanout,
        churn_per_s: args.churn,
        slow_readers: args.slow_readers,
        probe_per_s: args.probe,
    };
    let (counts_cost, idle) = (args.cost, args.idle);
    Ok(LoadPlan {
        cores,
        spin,
        lengths,
        pace,
        sizes,
        seed,
        beside,
        beside_cores,
        counts_cost,
        idle,
    })
}

/// Refuses what a target cannot do.
fn check_targets(targets: &[Target], load: &LoadPlan) -> Result<(), Failure> {
    let of_trace = matches!(&load.pace, Pace::Open(arrivals) if arrivals.longest().is_some());
    for target in targets {
        if (load.sizes.is_some() || of_trace) && !target.calls_ringcall() {
            return Err(Failure::OneSize { target: *target });
        }
        if *target != Target::Ringcall && !load.beside.is_nothing() {
            return Err(Failure::NothingBeside { target: *target });
        }
        if *target == Target::Handle && load.pace.is_open() {
            return Err(Failure::NoOpenHandle);
        }
        if *target == Target::Handle && load.sizes.is_some() {
            return Err(Failure::OneSize { target: *target });
        }
        if load.idle > 0 && (!target.calls_ringcall() || *target == Target::Handle) {
            return Err(Failure::NoIdle { target: *target });
        }
        if *target == Target::Stream && load.pace.is_open() {
            return Err(Failure::NoOpenStream);
        }
        if *target == Target::Stream && load.sizes.is_some() {
            return Err(Failure::OneSize { target: *target });
        }
    }
    Ok(())
}

impl Plan {
    /// What a `bench` runs, and what is to be known of it before.
    pub(crate) fn of_bench(args: &BenchArgs) -> Result<(Self, Vec<String>), Failure> {
        let available = cores::available().map_err(Failure::Cores)?;
        let (server, client) = (args.server_cores.as_ref(), args.run.client_cores.as_ref());
        let cores = cores::of_bench(&available, server, client)?;
        let mut warnings = build_warnings();
        if cores.are_shared() {
            let is_alone = available.len() < 2;
            let why = if is_alone { "there is only one core" } else { "a core is shared" };
            warnings.push(format!(
                "{why}: server and client take its time from each other, and latencies say little"
            ));
        }
        let sides = (&cores.server, &cores.client);
        let beside = cores::beside(&available, sides, args.run.beside_cores.as_ref())?;
        let load = load_plan(&args.run, cores.client, beside)?;
        let mut targets = Vec::new();
        for target in &args.target {
            if !targets.contains(target) {
                targets.push(*target);
            }
        }
        if targets.is_empty() {
            // The floor beside it, where that can do the same.
            let wanted = [Target::Floor, Target::Ringcall].into_iter();
            targets.extend(wanted.filter(|target| check_targets(&[*target], &load).is_ok()));
        }
        check_targets(&targets, &load)?;
        let workloads = args.workload.workloads(load.pace.is_open());
        let server = Side::Here(cores.server);
        let plan = Self { targets, workloads, repeat: args.run.repeat, load, server };
        warnings.extend(plan.beside_warnings());
        Ok((plan, warnings))
    }

    /// What goes on beside the load on a core: who, and which.
    fn beside(&self) -> impl Iterator<Item = (&'static str, usize)> {
        let (probe, readers) = (self.load.probe_core(), self.load.slow_readers_core());
        [("probe", probe), ("slow readers", readers)]
            .into_iter()
            .filter_map(|(who, core)| Some((who, core?)))
    }

    /// What is to be known where some of it shares a core with the load.
    fn beside_warnings(&self) -> impl Iterator<Item = String> {
        let is_shared = |core: usize| {
            let is_servers = matches!(&self.server, Side::Here(server) if server.0.contains(&core));
            is_servers || self.load.cores.0.contains(&core)
        };
        self.beside().filter(move |(_, core)| is_shared(*core)).map(|(who, core)| {
            format!(
                "{who}: core {core} is the load's too, and they take its time from each other; \
                 name another with --beside-cores where there is one"
            )
        })
    }
}

/// What is to be known of the figures before they are read.
pub(crate) fn build_warnings() -> Vec<String> {
    let debug = "this is a debug build: its figures mean nothing; run it with --release";
    if cfg!(debug_assertions) { vec![debug.to_owned()] } else { Vec::new() }
}

/// The address that a name stands for, the first where there are several.
pub(crate) fn resolve(address: &str) -> Result<SocketAddr, Failure> {
    let found = address.to_socket_addrs();
    let mut found =
        found.map_err(|source| Failure::Resolve { address: address.to_owned(), source })?;
    found.next().ok_or_else(|| Failure::NoAddress(address.to_owned()))
}

fn run(plan: Plan, args: &RunArgs, warnings: Vec<String>) -> Result<(), Failure> {
    let outputs = Outputs::open(&args.outputs)?;
    let interrupt = Interrupt::watch()?;
    plan.check_files(host::raise_file_limit())?;
    for warning in &warnings {
        eprintln!("warning: {warning}");
    }
    for workload in plan.workloads.iter().filter(|it| it.body_len() != it.size) {
        eprintln!(
            "note: bodies are multiples of 4 bytes: {} instead of {}",
            workload.body_len(),
            workload.size
        );
    }
    let host = Host::describe();
    let mut conditions = plan.conditions(warnings);
    let (repeats, failure) = measure(&plan, &interrupt);
    if let Some(failure) = failure {
        if repeats.iter().all(Vec::is_empty) {
            return Err(failure);
        }
        conditions.is_partial = true;
        outputs.write(&Report::new(host, conditions, &repeats))?;
        return Err(failure);
    }
    let report = Report::new(host, conditions, &repeats);
    outputs.write(&report)?;
    verdict(&report)
}

/// The failure that figures are, where they are one.
pub(crate) fn verdict(report: &Report) -> Result<(), Failure> {
    let errors: u64 = report.runs.iter().map(|run| run.errors).sum();
    if let Some(first) = report.runs.iter().find_map(|run| run.first_error.clone())
        && errors > 0
    {
        return Err(Failure::CallsFailed { count: errors, first });
    }
    let void = report.runs.iter().find(|run| run.void.is_some());
    match void.and_then(|run| Some((run, run.void.clone()?))) {
        Some((run, why)) => {
            Err(Failure::Void { run: format!("{} {}", run.workload, run.target), why })
        }
        None => Ok(()),
    }
}

/// Runs everything: for each repeat, the runs in the order of the report. Where it fails, or is
/// interrupted, what was measured before is given with the failure.
fn measure(plan: &Plan, interrupt: &Interrupt) -> (Vec<Vec<Run>>, Option<Failure>) {
    let progress = Progress::begin(plan.expected());
    let mut repeats: Vec<Vec<Run>> = Vec::new();
    for repeat in 1..=plan.repeat {
        repeats.push(Vec::new());
        for workload in &plan.workloads {
            for target in &plan.targets {
                let of = format!("{repeat}/{}", plan.repeat);
                progress.say(match plan.repeat {
                    1 => format!("{workload} {target}"),
                    _ => format!("{workload} {target}, {of}"),
                });
                let outcome = measure_one(plan, *workload, *target, (interrupt, &progress));
                let (run, failure) = match outcome {
                    Ok(Outcome::Whole(run)) => (Some(run), None),
                    Ok(Outcome::Cut(run)) => (Some(run), Some(Failure::Interrupted)),
                    Err(failure) => (None, Some(failure)),
                };
                if let Some(runs) = repeats.last_mut() {
                    runs.extend(run);
                }
                if failure.is_some() {
                    return (repeats, failure);
                }
            }
        }
    }
    (repeats, None)
}

/// One run of a target under a workload, with a server of its own where that is here.
pub(crate) fn measure_one(
    plan: &Plan,
    workload: Workload,
    target: Target,
    watch: (&Interrupt, &Progress),
) -> Result<Outcome, Failure> {
    match &plan.server {
        Side::Here(cores) => {
            let any_port = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
            let server = Server::start(target, any_port, cores, plan.load.spin)?;
            let address = server.address();
            let run = load::run(target, workload, address, Some(&server), &plan.load, watch)?;
            server.stop()?;
            Ok(run)
        }
        Side::There(address) => load::run(target, workload, *address, None, &plan.load, watch),
    }
}

impl Plan {
    /// Refuses more idle connections than this process may have files open for.
    pub(crate) fn check_files(&self, files_max: u64) -> Result<(), Failure> {
        if self.load.idle == 0 {
            return Ok(());
        }
        let connections = self.workloads.iter().map(|it| it.connections).max().unwrap_or(0);
        let (ends, serving) = match &self.server {
            Side::Here(cores) => (2, cores.0.len()),
            Side::There(_) => (1, 0),
        };
        let threads = (serving + self.load.cores.0.len()) as u64;
        idle::check_files((self.load.idle, connections), ends, threads, files_max)
    }

    /// Time that everything takes, roughly.
    fn expected(&self) -> Duration {
        let alone = if self.load.idle > 0 { idle::ALONE_FOR } else { Duration::ZERO };
        let each = self.load.lengths.expected() + alone + OVERHEAD;
        let runs = self.targets.len() * self.workloads.len();
        each * self.repeat * u32::try_from(runs).unwrap_or(u32::MAX)
    }

    pub(crate) fn conditions(&self, warnings: Vec<String>) -> Conditions {
        let sizes = self.load.sizes.as_ref().map(|sizes| format!(", {sizes}")).unwrap_or_default();
        let mut client = format!("client on core {}", self.load.cores);
        for (who, core) in self.beside() {
            client += &format!(", {who} on core {core}");
        }
        Conditions {
            server: match &self.server {
                Side::Here(cores) => format!("server on core {cores}, over loopback"),
                Side::There(address) => format!("server at {address}"),
            },
            client,
            load: match &self.load.pace {
                Pace::Closed => format!("closed loop{sizes}"),
                Pace::Open(arrivals) => format!("open loop, {arrivals}{sizes}"),
            },
            lengths: self.load.lengths,
            spin: self.load.spin,
            repeat: self.repeat,
            is_partial: false,
            warnings,
        }
    }
}

//! `bench` and `load`: runs every workload on every target, one after the other, and reports.
//!
//! The targets of a workload follow each other, so that the two sides of a ratio are near in
//! time; with repeats, everything is run once before anything is run again.

use std::{
    net::{Ipv4Addr, SocketAddr, ToSocketAddrs},
    time::Duration,
};

use crate::{
    args::{BenchArgs, LoadArgs, RunArgs},
    cores,
    error::Failure,
    host::{self, Host},
    interrupt::Interrupt,
    load::{self, LoadPlan},
    measure::Run,
    parse::CoreList,
    progress::Progress,
    report::{Conditions, Report, ReportSink},
    server::Server,
    target::Target,
    workload::Workload,
};

/// Time that starting and ending a run takes, for the progress bar.
const OVERHEAD: Duration = Duration::from_millis(100);

/// What is run, and against what.
struct Plan {
    targets: Vec<Target>,
    workloads: Vec<Workload>,
    repeat: u32,
    load: LoadPlan,
    /// Where the server is: here, on these cores, or elsewhere, at this address.
    server: Side,
}

enum Side {
    Here(CoreList),
    There(SocketAddr),
}

/// Measures server and client in this process, over loopback.
pub(crate) fn bench(args: &BenchArgs) -> Result<(), Failure> {
    let available = cores::available()?;
    let cores =
        cores::of_bench(&available, args.server_cores.as_ref(), args.run.client_cores.as_ref())?;
    let mut warnings = build_warnings();
    if cores.are_shared() {
        let why = if available.len() < 2 { "there is only one core" } else { "a core is shared" };
        warnings.push(format!(
            "{why}: server and client take its time from each other, and latencies say little"
        ));
    }
    let mut targets = Vec::new();
    for target in &args.target {
        if !targets.contains(target) {
            targets.push(*target);
        }
    }
    run(
        Plan {
            targets,
            workloads: args.workload.workloads(),
            repeat: args.run.repeat,
            load: load_plan(&args.run, cores.client),
            server: Side::Here(cores.server),
        },
        &args.run,
        warnings,
    )
}

/// Measures against a server elsewhere.
pub(crate) fn load(args: &LoadArgs) -> Result<(), Failure> {
    let available = cores::available()?;
    let cores = cores::of_client(&available, args.run.client_cores.as_ref())?;
    let address = resolve(&args.address)?;
    run(
        Plan {
            targets: vec![args.target],
            workloads: args.workload.workloads(),
            repeat: args.run.repeat,
            load: load_plan(&args.run, cores),
            server: Side::There(address),
        },
        &args.run,
        build_warnings(),
    )
}

fn load_plan(args: &RunArgs, cores: CoreList) -> LoadPlan {
    let RunArgs { spin, warmup, duration, .. } = *args;
    LoadPlan { cores, spin, warmup, duration }
}

/// What is to be known of the figures before they are read.
fn build_warnings() -> Vec<String> {
    let debug = "this is a debug build: its figures mean nothing; run it with --release";
    if cfg!(debug_assertions) { vec![debug.to_owned()] } else { Vec::new() }
}

fn resolve(address: &str) -> Result<SocketAddr, Failure> {
    let found = address.to_socket_addrs();
    let mut found =
        found.map_err(|source| Failure::Resolve { address: address.to_owned(), source })?;
    found.next().ok_or_else(|| Failure::NoAddress(address.to_owned()))
}

fn run(plan: Plan, args: &RunArgs, warnings: Vec<String>) -> Result<(), Failure> {
    let sink = ReportSink::open(args.json.as_deref())?;
    let interrupt = Interrupt::watch()?;
    host::raise_file_limit();
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
    let repeats = measure(&plan, &interrupt)?;
    let report = Report::new(host, plan.conditions(warnings), &repeats);
    sink.write(&report)?;
    let errors: u64 = report.runs.iter().map(|run| run.errors).sum();
    match report.runs.iter().find_map(|run| run.first_error.clone()) {
        Some(first) if errors > 0 => Err(Failure::CallsFailed { count: errors, first }),
        _ => Ok(()),
    }
}

/// Runs everything: for each repeat, the runs in the order of the report.
fn measure(plan: &Plan, interrupt: &Interrupt) -> Result<Vec<Vec<Run>>, Failure> {
    let progress = Progress::begin(plan.expected());
    let mut repeats = Vec::new();
    for repeat in 1..=plan.repeat {
        let mut runs = Vec::new();
        for workload in &plan.workloads {
            for target in &plan.targets {
                let of = format!("{repeat}/{}", plan.repeat);
                progress.say(match plan.repeat {
                    1 => format!("{workload} {target}"),
                    _ => format!("{workload} {target}, {of}"),
                });
                runs.push(measure_one(plan, *workload, *target, (interrupt, &progress))?);
            }
        }
        repeats.push(runs);
    }
    Ok(repeats)
}

fn measure_one(
    plan: &Plan,
    workload: Workload,
    target: Target,
    watch: (&Interrupt, &Progress),
) -> Result<Run, Failure> {
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
    /// Time that everything takes, roughly.
    fn expected(&self) -> Duration {
        let each = self.load.warmup + self.load.duration + OVERHEAD;
        let runs = self.targets.len() * self.workloads.len();
        each * self.repeat * u32::try_from(runs).unwrap_or(u32::MAX)
    }

    fn conditions(&self, warnings: Vec<String>) -> Conditions {
        Conditions {
            server: match &self.server {
                Side::Here(cores) => format!("server on core {cores}, over loopback"),
                Side::There(address) => format!("server at {address}"),
            },
            client: format!("client on core {}", self.load.cores),
            duration: self.load.duration,
            warmup: self.load.warmup,
            spin: self.load.spin,
            repeat: self.repeat,
            warnings,
        }
    }
}

//! `tune`: the settings that suit a workload on this host, and a file of them.
//!
//! `settings` has what can be set, `goal` what it is for, `search` how it is found; here the runs
//! are made, over loopback as those of a bench are, and `report` says what came of it.

mod goal;
mod report;
mod search;
mod settings;

use std::{
    net::{Ipv4Addr, SocketAddr},
    path::Path,
    time::{Duration, Instant},
};

use self::{
    goal::Figures,
    report::Conditions,
    search::{Found, Measure, ROUNDS},
    settings::Settings,
};
pub(crate) use self::{goal::Goal, settings::Knob};
use crate::{
    args::{OPEN_DEPTH, TuneArgs},
    bench::{self, OVERHEAD},
    cores,
    error::Failure,
    extras::Beside,
    generator::{Arrivals, Rate, Spacing},
    host,
    interrupt::Interrupt,
    lengths::{Length, Lengths, Precision, Warmup},
    load::{self, LoadPlan, Outcome, Pace},
    parse::CoreList,
    progress::Progress,
    report::{Destination, print},
    server::Server,
    target::Target,
    workload::Workload,
};

/// Bounds of the time that is measured in a run: below it figures say nothing, and beyond it more
/// rounds would say more.
const LENGTH_MIN: Duration = Duration::from_millis(100);
const LENGTH_MAX: Duration = Duration::from_secs(3);

/// Part of a run that is not measured, as its divisor.
const WARMUP_DIVISOR: u32 = 4;

/// Looks for settings, prints them with their evidence, and writes them where that was asked for.
pub(crate) fn tune(args: &TuneArgs) -> Result<(), Failure> {
    if args.rate.is_some() && args.goal == Goal::Throughput {
        return Err(Failure::RateOfThroughput);
    }
    let available = cores::available().map_err(Failure::Cores)?;
    let (server, client) = (args.server_cores.as_ref(), args.client_cores.as_ref());
    let cores = cores::of_bench(&available, server, client)?;
    let destination = args.write.as_deref().map(|path| open(path, args.force)).transpose()?;
    let interrupt = Interrupt::watch()?;
    host::raise_file_limit();
    for warning in bench::build_warnings() {
        eprintln!("warning: {warning}");
    }
    if cores.are_shared() {
        eprintln!("warning: a core is shared: what is tuned is the client as well");
    }
    let knobs: Vec<Knob> = Knob::ALL
        .into_iter()
        .filter(|knob| args.only.is_empty() || args.only.contains(knob))
        .collect();
    let length = length_of_runs(args.budget, &knobs, cores.server.0.len());
    let workload = Workload {
        connections: args.connections,
        depth: args.depth.unwrap_or(if args.rate.is_some() { OPEN_DEPTH } else { 1 }),
        size: args.size,
    };
    let progress = Progress::begin(args.budget);
    let mut host = Host {
        plan: load_plan(args, cores.client.clone(), length),
        workload,
        goal: args.goal,
        cores: cores.server.0.clone(),
        begun: Instant::now(),
        budget: args.budget,
        length,
        interrupt: &interrupt,
        progress: &progress,
    };
    let mut found = Found::new(Settings::default_on(host.cores.len()));
    let ended = search::search(&mut host, args.goal, (&knobs, cores.server.0.len()), &mut found);
    progress.end();
    // What fails in the middle says nothing of what was found before.
    if found.tried.is_empty()
        && matches!(&ended, Err(failure) if !matches!(failure, Failure::Interrupted))
    {
        return ended;
    }
    let pace = args.rate.map_or("closed loop".to_owned(), |rate| format!("{rate} calls/s due"));
    let conditions = Conditions {
        goal: args.goal,
        lines: vec![
            format!("{workload}, {pace}, tuned for {}", args.goal.name()),
            format!(
                "server on core {}, client on core {}, over loopback",
                cores.server, cores.client
            ),
            format!("runs of {length:?}; {}", report::method()),
        ],
        knobs,
        cores: cores.server.0,
        names_cores: server.is_some(),
    };
    print(&report::table(&conditions, &found, ended.is_ok()))?;
    if let Some(destination) = destination {
        destination.write(report::toml(&conditions, &found, ended.is_ok()).as_bytes())?;
        eprintln!("wrote {}", destination.path().display());
    }
    ended
}

/// Makes sure that a file can be written, and is not one that is there.
fn open(path: &Path, force: bool) -> Result<Destination, Failure> {
    // Of a link, whatever it leads to.
    if !force && path.symlink_metadata().is_ok_and(|it| it.is_file() || it.is_symlink()) {
        return Err(Failure::Exists { path: path.to_owned() });
    }
    Destination::open(path)
}

/// The time that is measured in a run, so that every setting can be tried within the budget.
fn length_of_runs(budget: Duration, knobs: &[Knob], cores: usize) -> Duration {
    let start = Settings::default_on(cores);
    let alternatives = |knob: &Knob| knob.alternatives(start, cores).len();
    let counts = knobs.iter().map(alternatives).filter(|count| *count > 0);
    // The comparison in all is once, and not with each setting.
    let once = 2 * ROUNDS as usize;
    let runs: usize = counts.map(|count| search::runs_of(count) - once).sum::<usize>() + once;
    let each = (budget / u32::try_from(runs).unwrap_or(u32::MAX)).saturating_sub(OVERHEAD);
    let measured = each * WARMUP_DIVISOR / (WARMUP_DIVISOR + 1);
    Duration::from_millis(measured.as_millis() as u64).clamp(LENGTH_MIN, LENGTH_MAX)
}

fn load_plan(args: &TuneArgs, cores: CoreList, length: Duration) -> LoadPlan {
    let quantile = if args.goal == Goal::P999 { 0.999 } else { 0.99 };
    LoadPlan {
        cores,
        spin: Duration::ZERO,
        lengths: Lengths {
            warmup: Warmup::For(length / WARMUP_DIVISOR),
            length: Length::For(length),
            precision: Precision { quantile, relative: 0.05 },
        },
        pace: match args.rate {
            Some(rate) => Pace::Open(Arrivals::Rated(Rate::Flat(rate), Spacing::Poisson)),
            None => Pace::Closed,
        },
        sizes: None,
        seed: 1,
        beside: Beside {
            slow: None,
            fanout: 1,
            churn_per_s: None,
            slow_readers: 0,
            probe_per_s: None,
        },
        beside_cores: CoreList(Vec::new()),
        counts_cost: false,
        idle: 0,
    }
}

/// This host, under the load.
struct Host<'a> {
    plan: LoadPlan,
    workload: Workload,
    goal: Goal,
    /// The cores that shards may have.
    cores: Vec<usize>,
    begun: Instant,
    budget: Duration,
    /// Time that is measured in a run.
    length: Duration,
    interrupt: &'a Interrupt,
    progress: &'a Progress,
}

impl Measure for Host<'_> {
    fn run(&mut self, settings: &Settings, what: &str) -> Result<Result<Figures, String>, Failure> {
        self.interrupt.check()?;
        self.progress.say(what.to_owned());
        let any_port = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let server = match Server::with_config(any_port, settings.config(&self.cores)) {
            Ok(server) => server,
            // Another value may do.
            Err(failure) => return Ok(Err(failure.to_string())),
        };
        let (address, watch) = (server.address(), (self.interrupt, self.progress));
        let (target, workload) = (Target::Ringcall, self.workload);
        let run = match load::run(target, workload, address, Some(&server), &self.plan, watch) {
            Ok(Outcome::Whole(run)) => Ok(run),
            Ok(Outcome::Cut(_)) | Err(Failure::Interrupted) => return Err(Failure::Interrupted),
            Err(failure) => Err(failure.to_string()),
        };
        server.stop()?;
        Ok(run.and_then(|run| Figures::of(&run, self.goal)))
    }

    fn has_time_for(&self, runs: usize) -> bool {
        let each = self.length + self.length / WARMUP_DIVISOR + OVERHEAD;
        let wanted = each * u32::try_from(runs).unwrap_or(u32::MAX);
        self.begun.elapsed() + wanted <= self.budget
    }
}

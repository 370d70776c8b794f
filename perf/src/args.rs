//! The command line: what can be asked for.
//!
//! First on the path of a run. A value that cannot be is refused here, with the flag's name;
//! what depends on the machine (which cores there are) is checked later.

use std::{ffi::OsString, net::SocketAddr, path::PathBuf, time::Duration};

use clap::{Args, Parser, Subcommand};

use crate::{
    extras::Slow,
    generator::{Rate, SizeMix, Spacing},
    netns::{
        self,
        parse::{BitsPerSecond, PartsPerMillion},
    },
    parse::{self, CoreList, Slo},
    target::Target,
    tune::{Goal, Knob},
    workload::{CONNECTIONS_MAX, DEPTH_MAX, Workload},
};

/// Most calls in flight on a connection of an open load that names no other: enough for a server
/// that stops for a while, as one that is full keeps calls from being made when they are due.
pub(crate) const OPEN_DEPTH: u32 = 256;

/// Most idle connections: the files that a process may have open are fewer.
const IDLE_MAX: u32 = 10_000_000;

/// Measures ringcall: what a call costs and how long it takes, beside a raw io_uring echo.
///
/// Without a command it runs `bench`.
#[derive(Debug, Parser)]
#[command(name = "ringcall-perf", version, args_conflicts_with_subcommands = true)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Option<Command>,
    #[command(flatten)]
    pub(crate) bench: BenchArgs,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Measures server and client in this process over loopback, each on its own cores
    Bench(BenchArgs),
    /// Serves until Ctrl-C, for `load` on another host
    Serve(ServeArgs),
    /// Measures against a `serve` on another host
    Load(LoadArgs),
    /// Shows where the time of a single call goes, between client, kernels, wire and server
    Stages(StagesArgs),
    /// Runs a target at rate after rate, to twice what it can do, or looks for the highest rate that
    /// keeps a percentile below a limit
    Sweep(SweepArgs),
    /// Compares two builds or two configurations, in turn, and says whether they differ
    Compare(CompareArgs),
    /// Looks at this host and says what to change for a server, why, and by which command
    ///
    /// It changes nothing. Exit status: 0 nothing to change, 1 something to change, 2 ringcall cannot
    /// run here or the arguments are wrong.
    Doctor(DoctorArgs),
    /// Looks for the server's settings that suit a workload on this host, and writes them to a file
    ///
    /// One setting after another is tried, in turn with those that there are, over loopback. It is
    /// changed only where that is better beyond the noise, in two comparisons, the second of fresh
    /// runs. Ctrl-C ends it with what was found until then.
    Tune(TuneArgs),
    /// Stops a server for known times and checks that the reported tail is what it must be
    Selftest(SelftestArgs),
    /// Shows a server that runs: shards, methods, tails, and the slowest recent calls with their cause
    Top(TopArgs),
    /// Measures across a link between two network namespaces of this host
    ///
    /// `serve` runs in one namespace and `load` in the other; both are gone afterwards. The link is
    /// a veth pair. With any of `--delay`, `--loss` and `--reorder` it is emulated by a thread of
    /// this process, between two TUN devices. Needs root and iproute2.
    Netns(NetnsArgs),
}

#[derive(Debug, Args)]
pub(crate) struct BenchArgs {
    #[command(flatten)]
    pub(crate) workload: WorkloadArgs,
    #[command(flatten)]
    pub(crate) run: RunArgs,
    /// Cores of the server, one shard on each, as `1` or `0,2-3` [default: the second there is]
    #[arg(long, value_name = "CORES", value_parser = parse::cores)]
    pub(crate) server_cores: Option<CoreList>,
    /// What to measure, in this order for each workload [default: floor,ringcall; of a sweep, and
    /// where calls differ or something goes on beside them, ringcall]
    #[arg(long, value_name = "TARGETS", value_enum, value_delimiter = ',')]
    pub(crate) target: Vec<Target>,
}

#[derive(Debug, Args)]
pub(crate) struct LoadArgs {
    /// Address that `serve` printed, as `10.0.0.1:7000`
    #[arg(value_name = "ADDR")]
    pub(crate) address: String,
    #[command(flatten)]
    pub(crate) workload: WorkloadArgs,
    #[command(flatten)]
    pub(crate) run: RunArgs,
    /// What serves there
    #[arg(long, value_enum, default_value = "ringcall")]
    pub(crate) target: Target,
}

#[derive(Debug, Args)]
pub(crate) struct ServeArgs {
    /// Address to listen on; port 0 lets the kernel choose
    #[arg(long, default_value = "0.0.0.0:7000")]
    pub(crate) address: SocketAddr,
    /// Cores to serve on, one shard on each, as `1` or `0,2-3` [default: all there are]
    #[arg(long, value_name = "CORES", value_parser = parse::cores)]
    pub(crate) cores: Option<CoreList>,
    /// How long an idle shard looks for work before it sleeps, as `50us` [default: 0us]
    #[arg(long, value_name = "TIME", value_parser = parse::spin)]
    pub(crate) spin: Option<Duration>,
    /// File of settings, as `tune` writes it and examples/ringcall.toml describes it; the flags above
    /// go before it
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// What to serve
    #[arg(long, value_enum, default_value = "ringcall")]
    pub(crate) target: Target,
    /// Ends with the process that has this id and has started it
    #[arg(long, hide = true)]
    pub(crate) parent: Option<i32>,
}

#[derive(Debug, Args)]
pub(crate) struct DoctorArgs {
    /// Cores of the shards, as `1` or `0,2-3` [default: those of --config, or all there are]
    #[arg(long, value_name = "CORES", value_parser = parse::cores)]
    pub(crate) cores: Option<CoreList>,
    /// Network interface that the clients come by [default: that of the default route]
    #[arg(long, value_name = "NAME")]
    pub(crate) interface: Option<String>,
    /// File of settings that the server will have
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// Prints the findings as JSON
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct TuneArgs {
    /// What is to become better
    #[arg(long, value_enum, default_value = "p99.9")]
    pub(crate) goal: Goal,
    /// Time that it may take
    #[arg(long, value_name = "TIME", default_value = "5m", value_parser = parse::duration)]
    pub(crate) budget: Duration,
    /// Tries these settings alone: with --budget it is how the curve of one is measured
    #[arg(long, value_name = "SETTINGS", value_enum, value_delimiter = ',')]
    pub(crate) only: Vec<Knob>,
    /// Writes the settings to a file, for `serve --config` and `ServerConfig::from_file`
    #[arg(long, value_name = "FILE")]
    pub(crate) write: Option<PathBuf>,
    /// Replaces the file where there is one
    #[arg(long, requires = "write")]
    pub(crate) force: bool,
    /// Connections, over all client cores
    #[arg(long, value_name = "N", default_value = "64",
        value_parser = clap::value_parser!(u32).range(1..=CONNECTIONS_MAX))]
    pub(crate) connections: u32,
    /// Calls in flight on each connection, the most where they are due at a rate [default: 1, at a
    /// rate 256]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=DEPTH_MAX))]
    pub(crate) depth: Option<u32>,
    /// Length of a body each way in bytes, as `64` or `4KiB`; rounded up to a multiple of 4
    #[arg(long, value_name = "BYTES", default_value = "64", value_parser = parse::size)]
    pub(crate) size: u32,
    /// Calls a second that are due, as `100k` [default: each call follows another]
    #[arg(long, value_name = "RATE", value_parser = parse::calls_per_s)]
    pub(crate) rate: Option<f64>,
    /// Cores of the server, one shard on each; fewer are tried [default: the second there is]
    #[arg(long, value_name = "CORES", value_parser = parse::cores)]
    pub(crate) server_cores: Option<CoreList>,
    /// Cores of the client, one thread on each [default: the first there is]
    #[arg(long, value_name = "CORES", value_parser = parse::cores)]
    pub(crate) client_cores: Option<CoreList>,
}

#[derive(Debug, Args)]
pub(crate) struct TopArgs {
    /// Address of the server, or of its metrics where these have one of their own, as
    /// `10.0.0.1:7000`
    #[arg(value_name = "ADDR")]
    pub(crate) address: String,
    /// Shows it once and ends
    #[arg(long)]
    pub(crate) once: bool,
    /// Prints the data once, as JSON, and ends
    #[arg(long, conflicts_with = "once")]
    pub(crate) json: bool,
    /// Time between two looks
    #[arg(long, value_name = "TIME", default_value = "1s", value_parser = parse::duration)]
    pub(crate) interval: Duration,
    /// Slow calls to show
    #[arg(long, value_name = "N", default_value = "12")]
    pub(crate) slow: usize,
}

#[derive(Debug, Args)]
pub(crate) struct SweepArgs {
    #[command(flatten)]
    pub(crate) bench: BenchArgs,
    /// Rates to run at, as `10k,20k` [default: a tenth of what it can do to twice that]
    #[arg(long, value_name = "RATES", value_delimiter = ',', value_parser = parse::calls_per_s)]
    pub(crate) rates: Option<Vec<f64>>,
    /// Looks for the highest rate at which this holds, as `p99.9<=200us`
    #[arg(long, value_name = "LIMIT", conflicts_with = "rates", value_parser = parse::slo)]
    pub(crate) slo: Option<Slo>,
    /// Latency up to which an answer is goodput [default: ten times the median at the lowest rate]
    #[arg(long, value_name = "TIME", value_parser = parse::duration_or_zero)]
    pub(crate) within: Option<Duration>,
}

#[derive(Debug, Args)]
pub(crate) struct CompareArgs {
    /// One side: flags for `bench`, perhaps after the path of another build of this program, as
    /// `'--spin 50us'` or `'../before/ringcall-perf'`; may be empty
    #[arg(value_name = "A", allow_hyphen_values = true)]
    pub(crate) a: String,
    /// The other side
    #[arg(value_name = "B", allow_hyphen_values = true)]
    pub(crate) b: String,
    /// Pairs of runs
    #[arg(long, value_name = "N", default_value = "10",
        value_parser = clap::value_parser!(u32).range(5..=1000))]
    pub(crate) pairs: u32,
    /// Time that is measured in each run
    #[arg(long, value_name = "TIME", default_value = "500ms", value_parser = parse::duration)]
    pub(crate) duration: Duration,
    /// Time before that, which is not measured
    #[arg(long, value_name = "TIME", default_value = "200ms",
        value_parser = parse::duration_or_zero)]
    pub(crate) warmup: Duration,
    /// Flags for `bench` that both sides have [default: --target ringcall]
    #[arg(last = true, value_name = "FLAGS OF BENCH")]
    pub(crate) bench_args: Vec<String>,
}

#[derive(Debug, Args)]
pub(crate) struct SelftestArgs {
    /// Calls a second that are due
    #[arg(long, value_name = "RATE", default_value = "5k", value_parser = parse::calls_per_s)]
    pub(crate) rate: f64,
    /// For how long the server is stopped
    #[arg(long, value_name = "TIME", default_value = "100ms", value_parser = parse::duration)]
    pub(crate) stop: Duration,
    /// From one stop to the next
    #[arg(long, value_name = "TIME", default_value = "1s", value_parser = parse::duration)]
    pub(crate) every: Duration,
    /// Time that is measured, under an open load and again in a closed loop
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = parse::duration)]
    pub(crate) duration: Duration,
}

/// The link of `netns`, and what runs across it.
#[derive(Debug, Args)]
pub(crate) struct NetnsArgs {
    /// What the link carries each way, as `1gbit` [default: what the machine can]
    ///
    /// Kept by the kernel's token bucket filter: a millisecond's worth passes at once, and what
    /// would wait for longer than ten milliseconds is dropped (of a slow link, at least 15 kB pass
    /// and 64 KiB wait).
    #[arg(long, value_name = "RATE", value_parser = netns::parse::rate)]
    pub(crate) rate: Option<BitsPerSecond>,
    /// Time that each packet takes one way, as `1ms`
    ///
    /// At most 8192 packets are on their way each way; more are dropped, and counted.
    #[arg(long, value_name = "TIME", value_parser = parse::duration_or_zero)]
    pub(crate) delay: Option<Duration>,
    /// How far that time varies up and down, as `200us`; packets stay in order
    #[arg(long, value_name = "TIME", requires = "delay", value_parser = parse::duration_or_zero)]
    pub(crate) jitter: Option<Duration>,
    /// Share of packets that are lost each way, as `0.1%`
    #[arg(long, value_name = "SHARE", value_parser = netns::parse::share)]
    pub(crate) loss: Option<PartsPerMillion>,
    /// Share of packets that are held back each way, so that later ones overtake them, as `1%`
    ///
    /// Each is held back for as long again as the delay, and 100 µs at least.
    #[arg(long, value_name = "SHARE", value_parser = netns::parse::share)]
    pub(crate) reorder: Option<PartsPerMillion>,
    /// Seed of what is lost, held back and varied
    #[arg(long, value_name = "N", default_value = "1")]
    pub(crate) seed: u64,
    /// Flags for `serve`, as `'--spin 50us'`; its address and target are given by themselves, and
    /// its core unless named is the second there is
    #[arg(long, value_name = "FLAGS", default_value = "", allow_hyphen_values = true)]
    pub(crate) server_args: String,
    /// Flags for `load`, without an address
    #[arg(last = true, value_name = "FLAGS OF LOAD")]
    pub(crate) load_args: Vec<OsString>,
}

#[derive(Debug, Args)]
pub(crate) struct StagesArgs {
    /// Address that `serve` printed [default: a server in this process, on the second core]
    #[arg(value_name = "ADDR")]
    pub(crate) address: Option<String>,
    /// Calls a second, one at a time
    #[arg(long, value_name = "N", default_value = "1000",
        value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub(crate) rate: u32,
    /// Time that is measured
    #[arg(long, value_name = "TIME", default_value = "5s", value_parser = parse::duration)]
    pub(crate) duration: Duration,
    /// Time before that, which is not measured
    #[arg(long, value_name = "TIME", default_value = "500ms",
        value_parser = parse::duration_or_zero)]
    pub(crate) warmup: Duration,
    /// Length of a body each way in bytes, as `64` or `4KiB`; rounded up to a multiple of 4
    #[arg(long, value_name = "BYTES", default_value = "64", value_parser = parse::size)]
    pub(crate) size: u32,
    /// Core of the caller [default: the first there is]
    #[arg(long, value_name = "CORE")]
    pub(crate) core: Option<usize>,
    /// How long the idle server of this process looks for work before it sleeps, as `50us`
    #[arg(long, value_name = "TIME", default_value = "0us", value_parser = parse::spin,
        conflicts_with = "address")]
    pub(crate) spin: Duration,
}

/// One workload; without any of these flags the standard ones are run.
#[derive(Debug, Args)]
#[command(next_help_heading = "Workload (without these: six standard ones)")]
pub(crate) struct WorkloadArgs {
    /// Connections, over all client cores [default: 64]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=CONNECTIONS_MAX))]
    connections: Option<u32>,
    /// Calls in flight on each connection, the most where they are due at a rate [default: 1, at a
    /// rate 256]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=DEPTH_MAX))]
    depth: Option<u32>,
    /// Length of a body each way in bytes, as `64` or `4KiB`; rounded up to a multiple of 4
    /// [default: 64]
    #[arg(long, value_name = "BYTES", value_parser = parse::size)]
    size: Option<u32>,
}

/// How to run, and where the results go.
#[derive(Debug, Args)]
pub(crate) struct RunArgs {
    /// Calls a second that are due, whatever became of those before, as `100k`; a ramp as
    /// `100k..400k/10s`, steps as `100k/5s,200k/5s` [default: each call follows another]
    #[arg(long, value_name = "RATE", value_parser = parse::rate)]
    pub(crate) rate: Option<Rate>,
    /// How calls are spread that are due at a rate: `even`, `poisson`, or `bursts:32` at once
    #[arg(long, value_name = "HOW", default_value = "poisson", requires = "rate",
        value_parser = parse::spacing)]
    pub(crate) arrivals: Spacing,
    /// Calls are due at the times in a file: a line each with microseconds since the beginning,
    /// and the length of the body in bytes where it is not the workload's
    #[arg(long, value_name = "FILE", conflicts_with = "rate")]
    pub(crate) trace: Option<PathBuf>,
    /// Lengths of bodies that are not all alike: each with its weight as `64:9,4KiB:1`, or `fleet`
    /// for the sizes of a published fleet (median 1.5 KB, to 500 KB)
    #[arg(long, value_name = "SIZES", value_parser = parse::sizes)]
    pub(crate) sizes: Option<SizeMix>,
    /// Part of the calls that go to a handler that takes a time, as `1%:10ms`; they are in no figure
    /// but one of their own
    #[arg(long, value_name = "SHARE:TIME", value_parser = parse::slow)]
    pub(crate) slow: Option<Slow>,
    /// Calls that are made at once, on the connections of a client core in turn, and count as one that
    /// takes as long as the last of them
    #[arg(long, value_name = "N", default_value = "1",
        value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub(crate) fanout: u32,
    /// Connections a second that are made beside the load, used for one call, and closed
    #[arg(long, value_name = "RATE", value_parser = parse::calls_per_s)]
    pub(crate) churn: Option<f64>,
    /// Connections beside the load that ask for more than they read
    #[arg(long, value_name = "N", default_value = "0",
        value_parser = clap::value_parser!(u32).range(0..=10_000))]
    pub(crate) slow_readers: u32,
    /// Calls a second of a probe beside the load, with a thread and a connection of its own: they
    /// queue behind the load's at the server, and for a core that it shares with the load
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub(crate) probe: Option<u32>,
    /// Cores of the probe, the first of these, and of the slow readers, the last [default: such as
    /// neither side uses, where there are some; else the first client core, as where the server is
    /// another process on this machine]
    #[arg(long, value_name = "CORES", value_parser = parse::cores)]
    pub(crate) beside_cores: Option<CoreList>,
    /// What arrivals and sizes are drawn from
    #[arg(long, value_name = "N", default_value = "1")]
    pub(crate) seed: u64,
    /// Time that is measured, for each target of each workload [default: from 3s until the
    /// percentile is sure, to 10s]
    #[arg(long, value_name = "TIME", value_parser = parse::duration)]
    pub(crate) duration: Option<Duration>,
    /// Time before that, which is not measured [default: until the figures settle, to 10s; none of a
    /// trace]
    #[arg(long, value_name = "TIME", conflicts_with = "trace",
        value_parser = parse::duration_or_zero)]
    pub(crate) warmup: Option<Duration>,
    /// The percentile that is to be sure, as `p99.9`
    #[arg(long, value_name = "P", default_value = "p99", value_parser = parse::percentile)]
    pub(crate) percentile: f64,
    /// How sure: half of its 95 % confidence interval, as a part of it
    #[arg(long, value_name = "SHARE", default_value = "5%", value_parser = parse::share)]
    pub(crate) precision: f64,
    /// Runs of everything, interleaved; the medians are reported
    #[arg(long, value_name = "N", default_value = "1",
        value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub(crate) repeat: u32,
    /// Cores of the client, one thread on each, as `0` or `0,2-3` [default: the first there is]
    #[arg(long, value_name = "CORES", value_parser = parse::cores)]
    pub(crate) client_cores: Option<CoreList>,
    /// How long an idle thread looks for work before it sleeps, as `50us`, on both sides
    #[arg(long, value_name = "TIME", default_value = "0us", value_parser = parse::spin)]
    pub(crate) spin: Duration,
    /// Shards measure nothing of themselves, on either side: what measuring costs shows in
    /// `compare '' '--no-metrics'`
    #[arg(long)]
    pub(crate) no_metrics: bool,
    /// Also reports what a call costs each side in switches, syscalls, copies, instructions and
    /// cycles; built with the feature `count-allocations`, allocations too
    #[arg(long)]
    pub(crate) cost: bool,
    /// Idle connections of ringcall that are held beside the load; also reports what each costs
    #[arg(long, value_name = "N", default_value = "0", hide_default_value = true,
        value_parser = clap::value_parser!(u32).range(0..=IDLE_MAX as i64))]
    pub(crate) idle: u32,
    #[command(flatten)]
    pub(crate) outputs: OutputArgs,
}

/// Where results go besides the terminal.
#[derive(Debug, Default, Args)]
pub(crate) struct OutputArgs {
    /// Writes everything below to a directory, which is made where it is not there: report.html,
    /// results.json, results.csv, core-load.csv, latencies.hlog, and a .hgrm for each run
    #[arg(long, help_heading = "Results", value_name = "DIR")]
    pub(crate) out: Option<PathBuf>,
    /// Writes a page with charts to a file, for a browser; it needs no network
    #[arg(long, help_heading = "Results", value_name = "PATH")]
    pub(crate) html: Option<PathBuf>,
    /// Writes the results as JSON to a file, or with `-` as the only thing to standard output
    #[arg(long, help_heading = "Results", value_name = "PATH")]
    pub(crate) json: Option<PathBuf>,
    /// Writes the results as CSV to a file, a line for each run
    #[arg(long, help_heading = "Results", value_name = "PATH")]
    pub(crate) csv: Option<PathBuf>,
    /// Writes the latencies of each second to a file, as a log of HdrHistogram
    #[arg(long, help_heading = "Results", value_name = "PATH")]
    pub(crate) hlog: Option<PathBuf>,
    /// Writes the percentiles of each run to a file of its own, in a directory or with names that
    /// begin so, as HdrHistogram's plotter reads them
    #[arg(long, help_heading = "Results", value_name = "DIR or PREFIX")]
    pub(crate) hgrm: Option<PathBuf>,
}

impl WorkloadArgs {
    /// The workloads that are asked for.
    pub(crate) fn workloads(&self, is_open: bool) -> Vec<Workload> {
        let Self { connections, depth, size } = *self;
        if !is_open && connections.is_none() && depth.is_none() && size.is_none() {
            return Workload::STANDARD.to_vec();
        }
        let depth = depth.unwrap_or(if is_open { OPEN_DEPTH } else { 1 });
        let connections = connections.unwrap_or(64);
        vec![Workload { connections, depth, size: size.unwrap_or(64) }]
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

    use clap::CommandFactory;

    use super::*;

    fn parsed(args: &[&str]) -> Cli {
        Cli::try_parse_from([&["ringcall-perf"], args].concat()).unwrap()
    }

    #[test]
    fn the_definition_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn without_a_command_it_is_bench() {
        let cli = parsed(&["--depth", "2", "--target", "floor"]);
        assert!(cli.command.is_none());
        assert_eq!(cli.bench.target, [Target::Floor]);
        let workload = Workload { connections: 64, depth: 2, size: 64 };
        assert_eq!(cli.bench.workload.workloads(false), [workload]);
    }

    #[test]
    fn without_a_workload_the_standard_ones_run() {
        assert_eq!(parsed(&[]).bench.workload.workloads(false), Workload::STANDARD);
    }

    #[test]
    fn targets_run_in_the_order_in_which_they_are_named() {
        let named = parsed(&["--target", "floor,ringcall"]);
        assert_eq!(named.bench.target, [Target::Floor, Target::Ringcall]);
    }
}

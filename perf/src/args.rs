//! The command line: what can be asked for.
//!
//! First on the path of a run. A value that cannot be is refused here, with the flag's name;
//! what depends on the machine (which cores there are) is checked later.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use clap::{Args, Parser, Subcommand};

use crate::{
    parse::{self, CoreList},
    target::Target,
    workload::{CONNECTIONS_MAX, DEPTH_MAX, Workload},
};

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
    /// What to measure, in this order for each workload
    #[arg(
        long,
        value_name = "TARGETS",
        value_enum,
        value_delimiter = ',',
        default_value = "floor,ringcall"
    )]
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
    /// How long an idle shard looks for work before it sleeps, as `50us`
    #[arg(long, value_name = "TIME", default_value = "0us", value_parser = parse::spin)]
    pub(crate) spin: Duration,
    /// What to serve
    #[arg(long, value_enum, default_value = "ringcall")]
    pub(crate) target: Target,
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
    /// Calls in flight on each connection [default: 1]
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
    /// Time that is measured, for each target of each workload
    #[arg(long, value_name = "TIME", default_value = "3s", value_parser = parse::duration)]
    pub(crate) duration: Duration,
    /// Time before that, which is not measured
    #[arg(long, value_name = "TIME", default_value = "1s", value_parser = parse::duration_or_zero)]
    pub(crate) warmup: Duration,
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
    /// Writes the results as JSON to a file, or with `-` as the only thing to standard output
    #[arg(long, value_name = "PATH")]
    pub(crate) json: Option<PathBuf>,
}

impl WorkloadArgs {
    /// The workloads that are asked for.
    pub(crate) fn workloads(&self) -> Vec<Workload> {
        let Self { connections, depth, size } = *self;
        if connections.is_none() && depth.is_none() && size.is_none() {
            return Workload::STANDARD.to_vec();
        }
        let connections = connections.unwrap_or(64);
        vec![Workload { connections, depth: depth.unwrap_or(1), size: size.unwrap_or(64) }]
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
        assert_eq!(cli.bench.workload.workloads(), [workload]);
    }

    #[test]
    fn without_a_workload_the_standard_ones_run() {
        assert_eq!(parsed(&[]).bench.workload.workloads(), Workload::STANDARD);
    }

    #[test]
    fn both_targets_run_in_order_floor_first() {
        assert_eq!(parsed(&[]).bench.target, [Target::Floor, Target::Ringcall]);
    }
}

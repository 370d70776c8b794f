//! The command line: what can be asked for.
//!
//! First on the path of a run. A value that cannot be is refused here, with the flag's name; what
//! depends on the machine (which cores there are) is checked in `cores`.

use std::{path::PathBuf, time::Duration};

use clap::{Parser, value_parser};

use crate::{
    peers::System,
    workload::{CONNECTIONS_MAX, DEPTH_MAX, SIZE_MAX, Workload},
};

/// Longest time that may be asked for.
const DURATION_MAX: Duration = Duration::from_secs(60 * 60);

/// Lowest rate of an open loop, in calls per second: at a lower one a window has few calls.
const RATE_MIN: i64 = 10;

/// Highest rate, in calls per second: past it the pacer alone would fill the client's core.
const RATE_MAX: i64 = 10_000_000;

/// Measures an echo call on other RPC systems over loopback, as ringcall-perf does on ringcall.
#[derive(Debug, Parser)]
#[command(name = "ringcall-peers", version)]
pub(crate) struct Args {
    /// What to measure, in this order for each workload [default: all]
    #[arg(long, value_name = "NAMES", value_enum, value_delimiter = ',')]
    pub(crate) peer: Vec<System>,
    /// Connections [default: 64]
    #[arg(long, value_name = "N", value_parser = value_parser!(u32).range(1..=CONNECTIONS_MAX),
        help_heading = WORKLOAD)]
    connections: Option<u32>,
    /// Calls in flight on each connection [default: 1]
    #[arg(long, value_name = "N", value_parser = value_parser!(u32).range(1..=DEPTH_MAX),
        help_heading = WORKLOAD)]
    depth: Option<u32>,
    /// Length of a body each way in bytes [default: 64]
    #[arg(long, value_name = "BYTES", value_parser = value_parser!(u32).range(1..=SIZE_MAX),
        help_heading = WORKLOAD)]
    size: Option<u32>,
    /// Calls per second, at Poisson times (open loop); without it each answer begets the next call
    #[arg(long, value_name = "CALLS_PER_S",
        value_parser = value_parser!(u32).range(RATE_MIN..=RATE_MAX))]
    pub(crate) rate: Option<u32>,
    /// Time that is measured, for each peer and workload
    #[arg(long, value_name = "TIME", default_value = "3s", value_parser = duration)]
    pub(crate) duration: Duration,
    /// Time before that, which is not measured
    #[arg(long, value_name = "TIME", default_value = "1s", value_parser = duration_or_zero)]
    pub(crate) warmup: Duration,
    /// Runs of everything, interleaved; the medians are reported
    #[arg(long, value_name = "N", default_value = "1", value_parser = value_parser!(u32).range(1..=1000))]
    pub(crate) repeat: u32,
    /// Core of the server
    #[arg(long, value_name = "CORE", default_value = "1")]
    pub(crate) server_core: usize,
    /// Core of the client
    #[arg(long, value_name = "CORE", default_value = "0")]
    pub(crate) client_core: usize,
    /// Writes the results as JSON to a file, or with `-` as the only thing to standard output
    #[arg(long, value_name = "PATH")]
    pub(crate) json: Option<PathBuf>,
}

const WORKLOAD: &str = "Workload (without these: five standard ones)";

impl Args {
    /// The systems that are asked for, each once.
    pub(crate) fn systems(&self) -> Vec<System> {
        let mut systems = Vec::new();
        for system in if self.peer.is_empty() { &System::ALL[..] } else { &self.peer } {
            if !systems.contains(system) {
                systems.push(*system);
            }
        }
        systems
    }

    /// The workloads that are asked for.
    pub(crate) fn workloads(&self) -> Vec<Workload> {
        let Self { connections, depth, size, .. } = *self;
        if connections.is_none() && depth.is_none() && size.is_none() {
            return Workload::STANDARD.to_vec();
        }
        let connections = connections.unwrap_or(64);
        vec![Workload { connections, depth: depth.unwrap_or(1), size: size.unwrap_or(64) }]
    }
}

/// What is wrong with the command line, in one line.
pub(crate) fn one_line(error: &clap::Error) -> String {
    let text = error.to_string();
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    let said =
        lines.take_while(|line| !line.starts_with("Usage:") && !line.starts_with("For more"));
    said.collect::<Vec<_>>().join(" ")
}

/// A time of at least a millisecond: `3s`, `300ms`.
fn duration(text: &str) -> Result<Duration, String> {
    match duration_or_zero(text)? {
        time if time < Duration::from_millis(1) => Err("it is less than 1ms".to_owned()),
        time => Ok(time),
    }
}

/// A time: `3s`, `300ms`, `0s`.
fn duration_or_zero(text: &str) -> Result<Duration, String> {
    match humantime::parse_duration(text) {
        Ok(time) if time <= DURATION_MAX => Ok(time),
        Ok(_) => Err("it is longer than an hour".to_owned()),
        Err(_) => Err("name a time as `3s` or `300ms`".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

    use clap::CommandFactory;

    use super::*;

    fn parsed(args: &[&str]) -> Args {
        Args::try_parse_from([&["ringcall-peers"], args].concat()).unwrap()
    }

    #[test]
    fn the_definition_is_consistent() {
        Args::command().debug_assert();
    }

    #[test]
    fn without_flags_every_system_runs_the_standard_workloads() {
        let args = parsed(&[]);
        assert_eq!(args.systems(), System::ALL);
        assert_eq!(args.workloads(), Workload::STANDARD);
    }

    #[test]
    fn a_workload_is_filled_up_and_a_system_named_twice_runs_once() {
        let args = parsed(&["--depth", "2", "--peer", "tarpc,epoll,tarpc"]);
        assert_eq!(args.systems(), [System::Tarpc, System::Epoll]);
        assert_eq!(args.workloads(), [Workload { connections: 64, depth: 2, size: 64 }]);
    }
}

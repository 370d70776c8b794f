//! What is tuned for, and the figures of a run that tell it.

use crate::{
    measure::Run,
    report::{si, time},
};

/// What is to become better.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Goal {
    /// More calls a second, in a closed loop
    Throughput,
    /// A shorter latency at the 99.9th percentile
    #[value(name = "p99.9")]
    P999,
    /// Less CPU time of the server for each call
    Cpu,
}

/// What is looked at of a run.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Figures {
    pub(super) calls: u64,
    pub(super) calls_per_s: f64,
    pub(super) p999_ns: f64,
    pub(super) server_cpu_ns_per_call: f64,
}

impl Goal {
    pub(super) const ALL: [Self; 3] = [Self::Throughput, Self::P999, Self::Cpu];

    pub(super) fn of(self, figures: &Figures) -> f64 {
        match self {
            Self::Throughput => figures.calls_per_s,
            Self::P999 => figures.p999_ns,
            Self::Cpu => figures.server_cpu_ns_per_call,
        }
    }

    pub(super) fn more_is_better(self) -> bool {
        self == Self::Throughput
    }

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Throughput => "calls/s",
            Self::P999 => "p99.9",
            Self::Cpu => "server CPU/call",
        }
    }

    /// A figure as people read it.
    pub(super) fn text(self, figure: f64) -> String {
        if self == Self::Throughput { si(figure) } else { time(figure) }
    }
}

impl Figures {
    /// Of a run; none where it is void or tells no CPU time, and why.
    pub(super) fn of(run: &Run) -> Result<Self, String> {
        if let Some(why) = &run.void {
            return Err(why.clone());
        }
        if run.errors > 0 {
            return Err(run.first_error.clone().unwrap_or_else(|| "calls failed".to_owned()));
        }
        Ok(Self {
            calls: run.calls,
            calls_per_s: run.calls_per_s,
            p999_ns: run.latency_ns.p999 as f64,
            server_cpu_ns_per_call: run.server_cpu_ns_per_call.ok_or("no CPU time was read")?,
        })
    }
}

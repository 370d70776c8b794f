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
    /// Not a number where the run does not tell it.
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
    /// Of a run; none where it does not tell what it is tuned for, and why.
    pub(super) fn of(run: &Run, goal: Goal) -> Result<Self, String> {
        // A generator that is late spoils latencies, and not what the server does.
        if let Some(why) = &run.void
            && goal == Goal::P999
        {
            return Err(why.clone());
        }
        if run.errors > 0 {
            return Err(run.first_error.clone().unwrap_or_else(|| "calls failed".to_owned()));
        }
        Ok(Self {
            calls: run.calls,
            calls_per_s: run.calls_per_s,
            p999_ns: run.void.as_ref().map_or(run.latency_ns.p999 as f64, |_| f64::NAN),
            server_cpu_ns_per_call: run.server_cpu_ns_per_call.ok_or("no CPU time was read")?,
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

    use super::*;
    use crate::{report::sample, target::Target};

    #[test]
    fn a_late_generator_spoils_latencies_alone() {
        let sound = sample::run(Target::Ringcall, 1, 7.0, 1.0);
        let mut late = sound.clone();
        late.void = Some("late".to_owned());
        assert_eq!(Figures::of(&late, Goal::P999), Err("late".to_owned()));
        let figures = Figures::of(&late, Goal::Cpu).unwrap();
        assert_eq!(Goal::Cpu.of(&figures), 7.0);
        assert!(Goal::P999.of(&figures).is_nan());
        assert!(Goal::P999.of(&Figures::of(&sound, Goal::P999).unwrap()) > 0.0);
    }

    #[test]
    fn a_run_with_failed_calls_tells_nothing() {
        let mut run = sample::run(Target::Ringcall, 1, 7.0, 1.0);
        (run.errors, run.first_error) = (1, Some("refused".to_owned()));
        assert_eq!(Figures::of(&run, Goal::Throughput), Err("refused".to_owned()));
    }
}

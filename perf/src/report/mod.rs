//! Results: what was measured and under which conditions, and everything that is written of it.
//!
//! A file for each format: `table` for the terminal, `html` (with `curve` and `heat`), `json`,
//! `csv`, `hgrm` and `hlog`. Each makes bytes of a report; `outputs` knows where they go.

mod cost;
mod csv;
mod curve;
mod destination;
mod heat;
mod hgrm;
mod hlog;
mod html;
mod json;
mod names;
mod outputs;
#[cfg(test)]
pub(crate) mod sample;
mod table;
pub(crate) mod units;

use std::{
    io::{self, Write},
    time::Duration,
};

use crate::{
    error::Failure, generator::median, host::Host, lengths::Lengths, measure::Run, target::Target,
};

pub(crate) use self::{
    cost::small,
    destination::Destination,
    outputs::Outputs,
    table::header,
    units::{si, time},
};

/// Everything that is reported of a command.
pub(crate) struct Report {
    pub(crate) host: Host,
    pub(crate) conditions: Conditions,
    /// By workload, then by target.
    pub(crate) runs: Vec<Run>,
    /// For each of the runs, its ratios to the floor's under the same workload.
    pub(crate) ratios: Vec<Option<Ratios>>,
}

/// How it was measured, for people.
#[derive(Clone, Debug)]
pub(crate) struct Conditions {
    pub(crate) server: String,
    pub(crate) client: String,
    /// How calls are made: a closed loop, or what is due when.
    pub(crate) load: String,
    pub(crate) lengths: Lengths,
    pub(crate) spin: Duration,
    pub(crate) repeat: u32,
    /// Whether it was interrupted.
    pub(crate) is_partial: bool,
    pub(crate) warnings: Vec<String>,
}

/// CPU time per call, as a multiple of the floor's: the median over the repeats.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Ratios {
    pub(crate) server: Option<f64>,
    pub(crate) client: f64,
}

impl Report {
    /// Puts the repeats together; each has the same runs in the same order.
    pub(crate) fn new(host: Host, conditions: Conditions, repeats: &[Vec<Run>]) -> Self {
        let count = repeats.first().map_or(0, Vec::len);
        let (mut runs, mut ratios) = (Vec::new(), Vec::new());
        for index in 0..count {
            let same: Vec<&Run> = repeats.iter().filter_map(|repeat| repeat.get(index)).collect();
            if let Some(run) = Run::of_repeats(&same) {
                ratios.push(ratios_of(&run, index, repeats));
                runs.push(run);
            }
        }
        Self { host, conditions, runs, ratios }
    }
}

/// The ratios of a run, each repeat's to the floor's of the same repeat. None for the floor, and
/// where it was not measured.
fn ratios_of(run: &Run, index: usize, repeats: &[Vec<Run>]) -> Option<Ratios> {
    if run.target == Target::Floor {
        return None;
    }
    let is_floor = |other: &&Run| other.target == Target::Floor && other.workload == run.workload;
    let pairs =
        repeats.iter().map(|repeat| Some((repeat.get(index)?, repeat.iter().find(is_floor)?)));
    let pairs: Vec<(&Run, &Run)> = pairs.collect::<Option<_>>()?;
    let server = pairs
        .iter()
        .map(|(run, floor)| Some(run.server_cpu_ns_per_call? / floor.server_cpu_ns_per_call?));
    let client =
        pairs.iter().map(|(run, floor)| run.client_cpu_ns_per_call / floor.client_cpu_ns_per_call);
    Some(Ratios {
        server: server.collect::<Option<Vec<f64>>>().map(median),
        client: median(client.collect()),
    })
}

/// What those who read latencies without a table are to know of calls without an answer; none where
/// every call has one.
fn unanswered_note(run: &Run) -> Option<String> {
    let unanswered = run.bounds.count();
    (unanswered > 0).then(|| {
        format!(
            "{unanswered} calls that were due had no answer when measuring ended, and count with \
             the time that they had waited; they take longer"
        )
    })
}

/// Prints to standard output. Whoever closed it, as `head` does, wants no more.
pub(crate) fn print(text: &str) -> Result<(), Failure> {
    let mut stdout = io::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(Failure::Output(error)),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

    use super::*;

    #[test]
    fn ratios_are_of_the_same_workload_and_repeat() {
        let run = |target, server, client| sample::run(target, 1, server, client);
        let repeats: Vec<Vec<Run>> = [(100.0, 110.0), (200.0, 300.0), (100.0, 130.0)]
            .map(|(floor, ringcall)| {
                vec![
                    run(Target::Floor, floor, floor),
                    run(Target::Ringcall, ringcall, 2.0 * ringcall),
                ]
            })
            .into();
        let report = Report::new(sample::host(), sample::conditions(), &repeats);
        assert_eq!(report.ratios[0], None);
        let ratios = report.ratios[1].unwrap();
        assert_eq!(ratios.server, Some(1.3));
        assert_eq!(ratios.client, 2.6);
        assert_eq!(report.runs[1].server_cpu_ns_per_call, Some(130.0));
    }

    #[test]
    fn without_a_floor_there_are_no_ratios() {
        let floor_of_another = sample::run(Target::Floor, 8, 1.0, 1.0);
        let runs = vec![floor_of_another, sample::run(Target::Ringcall, 1, 1.0, 1.0)];
        let report = Report::new(sample::host(), sample::conditions(), &[runs]);
        assert_eq!(report.ratios, [None, None]);
    }
}

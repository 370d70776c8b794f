//! Results: what was measured and under which conditions, as a table and as JSON.

mod cost;
mod json;
#[cfg(test)]
pub(crate) mod sample;
mod table;
mod units;

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write},
    path::{Path, PathBuf},
    time::Duration,
};

use crate::{
    course::Lengths, error::Failure, generator::median, host::Host, measure::Run, target::Target,
};

pub(crate) use self::{
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

/// Where a report goes. Opened before anything is measured, so that a path that cannot be written
/// costs nobody a run.
pub(crate) enum ReportSink {
    Table,
    Json,
    TableAndFile(JsonFile),
}

/// A file for JSON. What it held before stays until there is a report; a new one that gets none
/// is removed.
pub(crate) struct JsonFile {
    file: File,
    path: PathBuf,
    is_new: bool,
}

impl ReportSink {
    pub(crate) fn open(json: Option<&Path>) -> Result<Self, Failure> {
        match json {
            None => Ok(Self::Table),
            Some(path) if path == Path::new("-") => Ok(Self::Json),
            Some(path) => JsonFile::open(path)
                .map(Self::TableAndFile)
                .map_err(|source| Failure::Json { path: path.to_owned(), source }),
        }
    }

    pub(crate) fn write(self, report: &Report) -> Result<(), Failure> {
        self.write_as(report, &table::table(report))
    }

    /// Writes a report, whose table is another than that of a bench.
    pub(crate) fn write_as(self, report: &Report, table: &str) -> Result<(), Failure> {
        match self {
            Self::Table => print(table),
            Self::Json => print(&json::json(report)),
            Self::TableAndFile(file) => {
                print(table)?;
                let path = file.path.clone();
                file.write(&json::json(report)).map_err(|source| Failure::Json { path, source })
            }
        }
    }
}

impl JsonFile {
    fn open(path: &Path) -> io::Result<Self> {
        let is_new = !path.exists();
        let file = OpenOptions::new().write(true).create(true).truncate(false).open(path)?;
        Ok(Self { file, path: path.to_owned(), is_new })
    }

    fn write(mut self, json: &str) -> io::Result<()> {
        self.is_new = false;
        // A device or a pipe has no length.
        if self.file.metadata()?.is_file() {
            self.file.set_len(0)?;
        }
        self.file.write_all(json.as_bytes())
    }
}

impl Drop for JsonFile {
    fn drop(&mut self) {
        if self.is_new {
            // Left behind empty at worst.
            let _ = fs::remove_file(&self.path);
        }
    }
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

    #[test]
    fn a_new_file_without_a_report_is_removed_and_an_old_one_kept() {
        let path = std::env::temp_dir().join(format!("ringcall-perf-{}.json", std::process::id()));
        drop(ReportSink::open(Some(&path)).unwrap());
        assert!(!path.exists());
        fs::write(&path, "{}").unwrap();
        drop(ReportSink::open(Some(&path)).unwrap());
        assert_eq!(fs::read_to_string(&path).unwrap(), "{}");
        fs::remove_file(&path).unwrap();
    }

    #[test]
    fn a_path_that_cannot_be_written_is_refused_at_once() {
        let failure = ReportSink::open(Some(Path::new("/nowhere/at/all.json"))).err().unwrap();
        assert!(failure.to_string().starts_with("cannot write /nowhere/at/all.json: No such"));
    }
}

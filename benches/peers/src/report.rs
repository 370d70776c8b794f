//! Results: as a table for people and as JSON, in the schema 1 of ringcall-perf.
//!
//! Times are in nanoseconds, sizes in bytes. What ringcall-perf counts inside of ringcall is not
//! here; what an open loop adds is here and null in a closed one.

use std::{
    fmt::Write as _,
    fs::File,
    io::{self, Write as _},
    path::{Path, PathBuf},
};

use ringcall_perf::{generator::Percentiles, host::Host};
use serde::Serialize;

use crate::{error::Failure, measure::Run, peers::System};

/// Version of the schema.
const SCHEMA: u32 = 1;

/// Everything that is reported.
pub(crate) struct Report {
    pub(crate) host: Host,
    /// By workload, then by system.
    pub(crate) runs: Vec<Run>,
}

/// Where a report goes. Opened before anything is measured, so that a path that cannot be written
/// costs nobody a run.
pub(crate) enum ReportSink {
    Table,
    Json,
    File(File, PathBuf),
}

#[derive(Serialize)]
struct Document<'a> {
    schema: u32,
    host: &'a Host,
    runs: Vec<RunObject>,
}

#[derive(Serialize)]
struct RunObject {
    target: System,
    connections: u32,
    depth: u32,
    /// Length of a body as the caller gives it.
    size: u32,
    /// Calls that were answered in the time that is measured.
    calls: u64,
    errors: u64,
    calls_per_s: f64,
    /// In an open loop from the time at which a call was to be made.
    latency_ns: Percentiles,
    server_cpu_ns_per_call: f64,
    /// In an open loop with the pacer's, which fills what is left of the core.
    client_cpu_ns_per_call: f64,
    offered_per_s: Option<f64>,
    /// Calls that were due at the end and had no answer; each counts in `latency_ns` with the time
    /// that it had waited.
    unanswered: Option<u64>,
    latency_from_send_ns: Option<Percentiles>,
    lateness_ns: Option<Percentiles>,
}

impl Report {
    /// Puts the repeats together; each has the same runs in the same order.
    pub(crate) fn new(host: Host, repeats: &[Vec<Run>]) -> Self {
        let count = repeats.first().map_or(0, Vec::len);
        let same = |index| repeats.iter().filter_map(move |repeat: &Vec<Run>| repeat.get(index));
        let runs = (0..count).filter_map(|index| Run::of_repeats(&same(index).collect::<Vec<_>>()));
        Self { host, runs: runs.collect() }
    }

    fn json(&self) -> String {
        let runs = self.runs.iter().map(RunObject::new).collect();
        let document = Document { schema: SCHEMA, host: &self.host, runs };
        // Neither keys that are no strings nor a writer that fails are in it.
        serde_json::to_string_pretty(&document).unwrap_or_default() + "\n"
    }

    fn table(&self) -> String {
        let Host { name, kernel, cpu, cores, commit, date, .. } = &self.host;
        let mut text =
            format!("{name} · {kernel} · {cpu}, {cores} cores\n{date} · commit {commit}\n\n");
        let heading = ["calls/s", "server/call", "client/call", "p50", "p99", "p99.9", "max"];
        let _ = write!(text, "{:<12}{:<18}", "workload", "system");
        heading.iter().for_each(|name| {
            let _ = write!(text, "{name:>13}");
        });
        for run in &self.runs {
            let Run { system, workload, latency_ns, .. } = run;
            let _ =
                write!(text, "\n{:<12}{system:<18}{:>13.0}", workload.to_string(), run.calls_per_s);
            let [p50, p99, p999, max] =
                [latency_ns.p50, latency_ns.p99, latency_ns.p999, latency_ns.max]
                    .map(|ns| ns as f64);
            let times =
                [run.server_cpu_ns_per_call, run.client_cpu_ns_per_call, p50, p99, p999, max];
            times.iter().for_each(|ns| {
                let _ = write!(text, "{:>10.2} µs", ns / 1e3);
            });
            if let Some(open) = run.open {
                let _ = write!(text, "  of {:.0}/s offered", open.offered_per_s);
            }
        }
        text + "\n"
    }
}

impl RunObject {
    fn new(run: &Run) -> Self {
        Self {
            target: run.system,
            connections: run.workload.connections,
            depth: run.workload.depth,
            size: run.workload.size,
            calls: run.calls,
            errors: run.errors,
            calls_per_s: rounded(run.calls_per_s),
            latency_ns: run.latency_ns,
            server_cpu_ns_per_call: rounded(run.server_cpu_ns_per_call),
            client_cpu_ns_per_call: rounded(run.client_cpu_ns_per_call),
            offered_per_s: run.open.map(|open| rounded(open.offered_per_s)),
            unanswered: run.open.map(|open| open.unanswered),
            latency_from_send_ns: run.open.map(|open| open.latency_from_send_ns),
            lateness_ns: run.open.map(|open| open.lateness_ns),
        }
    }
}

impl ReportSink {
    pub(crate) fn open(json: Option<&Path>) -> Result<Self, Failure> {
        match json {
            None => Ok(Self::Table),
            Some(path) if path == Path::new("-") => Ok(Self::Json),
            Some(path) => match File::create(path) {
                Ok(file) => Ok(Self::File(file, path.to_owned())),
                Err(source) => Err(Failure::Json { path: path.to_owned(), source }),
            },
        }
    }

    pub(crate) fn write(self, report: &Report) -> Result<(), Failure> {
        match self {
            Self::Table => print(&report.table()),
            Self::Json => print(&report.json()),
            Self::File(mut file, path) => {
                print(&report.table())?;
                let written = file.write_all(report.json().as_bytes());
                written.map_err(|source| Failure::Json { path, source })
            }
        }
    }
}

/// Prints to standard output. Whoever closed it, as `head` does, wants no more.
fn print(text: &str) -> Result<(), Failure> {
    let mut stdout = io::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(Failure::Output(error)),
        _ => Ok(()),
    }
}

/// A figure without the digits that it does not have.
fn rounded(figure: f64) -> f64 {
    (figure * 10.0).round() / 10.0
}

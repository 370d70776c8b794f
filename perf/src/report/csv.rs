//! The report as CSV after RFC 4180: a line for each run, with every figure of the JSON.
//!
//! Columns are named after the path of the figure in the JSON, as `latency_ns.p99`, and are the
//! same in every report, so that the lines of several can be put together. What the cores did has a
//! table of its own: a line for each second of each core of each run.

use std::io;

use serde_json::Value;

use super::{
    Report,
    json::{Document, RunObject},
    names::names,
};

/// Figures of the JSON that have a table of their own.
const ELSEWHERE: &str = "/core_load";

/// The report, lines ended as the RFC has them.
pub(super) fn csv(report: &Report) -> io::Result<Vec<u8>> {
    let document = Document::new(report);
    let mut of_all = serde_json::to_value(&document)?;
    let runs = of_all["runs"].take();
    let mut columns = Columns { of_run: Vec::new(), of_all: Vec::new() };
    leaves(&serde_json::to_value(RunObject::complete())?, "", &mut columns.of_run);
    leaves(&of_all, "", &mut columns.of_all);
    columns.of_all.retain(|pointer| pointer != "/runs");
    columns.of_run.retain(|pointer| pointer != ELSEWHERE);

    let mut writer = writer();
    let heading = columns.of_run.iter().chain(&columns.of_all);
    writer
        .write_record(heading.map(|pointer| pointer.trim_start_matches('/').replace('/', ".")))?;
    for run in runs.as_array().into_iter().flatten() {
        let of_run = columns.of_run.iter().map(|pointer| cell(run.pointer(pointer)));
        let of_all = columns.of_all.iter().map(|pointer| cell(of_all.pointer(pointer)));
        writer.write_record(of_run.chain(of_all))?;
    }
    writer.into_inner().map_err(|error| error.into_error())
}

/// What each core was used for in each second of each run.
pub(super) fn core_load(report: &Report) -> io::Result<Vec<u8>> {
    let mut writer = writer();
    writer
        .write_record(["run", "core", "role", "begun_s", "length_s", "busy", "ours", "stolen"])?;
    for (run, name) in report.runs.iter().zip(names(report)) {
        for of_core in &run.core_load {
            for second in &of_core.seconds {
                writer.write_record([
                    name.clone(),
                    of_core.core.to_string(),
                    of_core.role(),
                    second.begun_s.to_string(),
                    second.length_s.to_string(),
                    second.busy.to_string(),
                    second.ours.map_or_else(String::new, |ours| ours.to_string()),
                    second.stolen.to_string(),
                ])?;
            }
        }
    }
    writer.into_inner().map_err(|error| error.into_error())
}

fn writer() -> csv::Writer<Vec<u8>> {
    csv::WriterBuilder::new().terminator(csv::Terminator::CRLF).from_writer(vec![])
}

/// The columns, as JSON pointers: those of a run, and those that all runs share.
struct Columns {
    of_run: Vec<String>,
    of_all: Vec<String>,
}

/// The pointers of everything in a value that holds no more values by name.
fn leaves(value: &Value, pointer: &str, found: &mut Vec<String>) {
    match value {
        Value::Object(map) => {
            for (key, value) in map {
                leaves(value, &format!("{pointer}/{key}"), found);
            }
        }
        _ => found.push(pointer.to_owned()),
    }
}

/// A figure as text; what is not there is empty, and several texts are one.
fn cell(value: Option<&Value>) -> String {
    match value {
        None | Some(Value::Null) => String::new(),
        Some(Value::String(text)) => text.clone(),
        Some(Value::Array(values)) => {
            values.iter().map(|value| cell(Some(value))).collect::<Vec<_>>().join("; ")
        }
        Some(value) => value.to_string(),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

    use super::*;
    use crate::report::{json::json, sample};

    /// Heading and lines, as another reader of CSV finds them.
    fn read(report: &Report) -> (csv::StringRecord, Vec<csv::StringRecord>) {
        let bytes = csv(report).unwrap();
        let mut reader = csv::Reader::from_reader(&*bytes);
        let heading = reader.headers().unwrap().clone();
        (heading, reader.records().map(Result::unwrap).collect())
    }

    #[test]
    fn every_figure_of_the_json_has_its_column() {
        let mut report = sample::report();
        report.runs[1].open = Some(sample::open());
        let (heading, lines) = read(&report);
        let document: Value = serde_json::from_str(&json(&report)).unwrap();
        assert_eq!(lines.len(), 3);
        for (run, line) in document["runs"].as_array().unwrap().iter().zip(&lines) {
            let mut figures = Vec::new();
            leaves(run, "", &mut figures);
            assert!(figures.len() > 30);
            for pointer in figures.iter().filter(|pointer| *pointer != ELSEWHERE) {
                let name = pointer[1..].replace('/', ".");
                let found = heading.iter().zip(line).find(|(column, _)| *column == name);
                match (run.pointer(pointer).unwrap(), found) {
                    // What has figures elsewhere has no column of its own.
                    (Value::Null, None) => {
                        assert!(heading.iter().any(|it| it.starts_with(&format!("{name}."))));
                    }
                    (value, Some((_, text))) => assert_eq!(text, cell(Some(value)), "{name}"),
                    (_, None) => panic!("no column {name}"),
                }
            }
        }
        for name in ["schema", "partial", "host.cpu", "host.settings.governor"] {
            assert!(heading.iter().any(|column| column == name), "{name}");
        }
    }

    #[test]
    fn each_second_of_each_core_has_its_line() {
        let bytes = core_load(&sample::report()).unwrap();
        let text = String::from_utf8(bytes).unwrap();
        let lines: Vec<&str> = text.split_terminator("\r\n").collect();
        // Three seconds of two cores of three runs.
        assert_eq!(lines.len(), 1 + 3 * 2 * 3);
        assert_eq!(lines[0], "run,core,role,begun_s,length_s,busy,ours,stolen");
        assert_eq!(lines[1], "1x16-64B-floor,0,client,0,1,0.99,0.98,0.01");
        assert_eq!(lines[18], "64x16-64B-ringcall,1,server,2,1,0.5,0.46,0.01");
    }

    #[test]
    fn columns_do_not_depend_on_what_was_measured() {
        let closed = sample::report();
        let mut open = sample::report();
        open.runs.truncate(1);
        open.runs[0].open = Some(sample::open());
        open.runs[0].interval = None;
        assert_eq!(read(&closed).0, read(&open).0);
    }

    #[test]
    fn commas_quotes_and_lines_stay_in_their_cell() {
        let mut report = sample::report();
        let text = "late, \"very\"\nlate";
        report.runs[0].void = Some(text.to_owned());
        report.runs[0].doubts = vec!["one".to_owned(), "two".to_owned()];
        report.conditions.is_partial = true;
        let bytes = String::from_utf8(csv(&report).unwrap()).unwrap();
        assert!(bytes.contains("\"late, \"\"very\"\"\nlate\",one; two,"), "{bytes}");
        assert!(bytes.ends_with("\r\n"));
        let (heading, lines) = read(&report);
        let of = |name: &str| heading.iter().position(|column| column == name).unwrap();
        assert_eq!(&lines[0][of("void")], text);
        assert_eq!(&lines[2][of("partial")], "true");
    }
}

//! The files that a run writes, as users ask for them.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
};

use base64::{Engine, prelude::BASE64_STANDARD};
use hdrhistogram::{
    Histogram,
    serialization::{
        Deserializer,
        interval_log::{IntervalLogIterator, LogEntry},
    },
};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

/// A directory of one test, removed with everything in it.
struct Directory(PathBuf);

impl Directory {
    fn new(name: &str) -> Self {
        let name = format!("ringcall-perf-{name}-{}", std::process::id());
        let directory = Self(std::env::temp_dir().join(name));
        fs::create_dir_all(&directory.0).unwrap();
        directory
    }

    fn path(&self, name: &str) -> String {
        self.0.join(name).to_str().unwrap().to_owned()
    }

    fn read(&self, name: &str) -> String {
        fs::read_to_string(self.0.join(name)).unwrap_or_else(|why| panic!("{name}: {why}"))
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// What is in a directory, in order.
fn names(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).unwrap();
    let mut names: Vec<String> =
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

fn perf(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ringcall-perf"));
    command.args(["--connections", "2", "--warmup", "10ms"]).args(args);
    command
}

/// A run of a time as short as can be, in which some call is answered.
fn output_of(args: &[&str]) -> Output {
    let mut milliseconds = 50;
    loop {
        let duration = format!("{milliseconds}ms");
        let output = perf(args).args(["--duration", &duration]).output().unwrap();
        if !stderr_of(&output).contains("take a longer one") {
            return output;
        }
        milliseconds *= 2;
    }
}

fn stderr_of(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

/// The data of a page.
fn data_of(page: &str) -> Value {
    let (_, rest) = page.split_once("<script type=\"application/json\" id=\"data\">").unwrap();
    serde_json::from_str(rest.split_once("</script>").unwrap().0).unwrap()
}

/// How many calls the lines of a tag have in a log.
fn calls_of(log: &str, tag: &str) -> u64 {
    let mut calls = 0;
    for entry in IntervalLogIterator::new(log.as_bytes()) {
        if let LogEntry::Interval(line) = entry.unwrap()
            && line.tag().unwrap().as_str() == tag
        {
            let bytes = BASE64_STANDARD.decode(line.encoded_histogram()).unwrap();
            let histogram: Histogram<u64> = Deserializer::new().deserialize(&mut &*bytes).unwrap();
            calls += histogram.len();
        }
    }
    calls
}

/// The number of calls that a file of percentiles ends with.
fn total_of(hgrm: &str) -> u64 {
    let (_, rest) = hgrm.split_once("Total count    =").unwrap();
    rest.split_once(']').unwrap().0.trim().parse().unwrap()
}

#[test]
fn a_directory_gets_every_format_with_the_same_figures() {
    let directory = Directory::new("cli-out");
    let out = directory.path("new/results");
    let output = output_of(&["--out", &out]);
    assert!(output.status.success(), "{}", stderr_of(&output));
    assert!(String::from_utf8_lossy(&output.stdout).contains("2×1 64 B"));
    let results = Directory(PathBuf::from(&out));
    let expected = [
        "2x1-64B-floor.hgrm",
        "2x1-64B-ringcall.hgrm",
        "core-load.csv",
        "latencies.hlog",
        "report.html",
        "results.csv",
        "results.json",
    ];
    assert_eq!(names(&results.0), expected);

    let json: Value = serde_json::from_str(&results.read("results.json")).unwrap();
    let data = data_of(&results.read("report.html"));
    let csv = results.read("results.csv");
    let mut lines = csv::Reader::from_reader(csv.as_bytes());
    let heading = lines.headers().unwrap().clone();
    let lines: Vec<csv::StringRecord> = lines.records().map(Result::unwrap).collect();
    assert_eq!(lines.len(), 2);
    for (index, target) in ["floor", "ringcall"].iter().enumerate() {
        let run = &json["runs"][index];
        let calls = run["calls"].as_u64().unwrap();
        let name = format!("2x1-64B-{target}");
        assert!(calls > 0);
        assert_eq!(total_of(&results.read(&format!("{name}.hgrm"))), calls);
        assert_eq!(calls_of(&results.read("latencies.hlog"), &name), calls);
        let column = heading.iter().position(|column| column == "calls").unwrap();
        assert_eq!(lines[index][column], calls.to_string());
        assert_eq!(data["runs"][index]["target"], *target);
        assert_eq!(data["runs"][index]["p99"], run["latency_ns"]["p99"]);
    }
}

#[test]
fn files_are_written_where_each_is_asked_for() {
    let directory = Directory::new("cli-each");
    let [html, table, hlog, hgrm] =
        ["a.html", "b.csv", "c.hlog", "run"].map(|it| directory.path(it));
    // Many calls are not due in so short a time; whether the run is void does not matter.
    let args = ["--target", "ringcall", "--rate", "2k", "--html", &html, "--csv", &table];
    let output = output_of(&[&args[..], &["--hlog", &hlog, "--hgrm", &hgrm]].concat());
    let expected = [
        "a.html",
        "b.csv",
        "c.hlog",
        "run-2x256-64B-ringcall-from-due.hgrm",
        "run-2x256-64B-ringcall-from-send.hgrm",
    ];
    assert_eq!(names(&directory.0), expected, "{}", stderr_of(&output));
    let data = data_of(&directory.read("a.html"));
    assert!(!data["runs"][0]["from_send"].as_array().unwrap().is_empty());
    let table = directory.read("b.csv");
    let mut lines = csv::Reader::from_reader(table.as_bytes());
    let column = lines.headers().unwrap().iter().position(|it| it == "unanswered").unwrap();
    let unanswered: u64 = lines.records().next().unwrap().unwrap()[column].parse().unwrap();
    // Each call counts in both; one without an answer has waited since it was due.
    let [from_due, from_send] = [3, 4].map(|file| total_of(&directory.read(expected[file])));
    assert_eq!(from_due, from_send + unanswered);
    assert_eq!(calls_of(&directory.read("c.hlog"), "2x256-64B-ringcall"), from_due);
}

#[test]
fn a_full_disk_is_named_and_the_other_files_are_there() {
    let directory = Directory::new("cli-full");
    let csv = directory.path("a.csv");
    for flag in ["--html", "--json", "--hlog"] {
        let output = output_of(&["--target", "floor", flag, "/dev/full", "--csv", &csv]);
        assert!(!output.status.success());
        let error = "error: cannot write /dev/full: No space left on device";
        assert!(stderr_of(&output).contains(error), "{flag}: {}", stderr_of(&output));
        assert_eq!(names(&directory.0), ["a.csv"]);
        fs::remove_file(&csv).unwrap();
    }
}

#[test]
fn paths_that_cannot_be_written_are_refused_before_the_run() {
    let directory = Directory::new("cli-refused");
    let file = directory.path("file");
    fs::write(&file, "old").unwrap();
    let inside = format!("{file}/results");
    for (flag, path) in [
        ("--html", "/nowhere/at/all.html"),
        ("--csv", "/nowhere/at/all.csv"),
        ("--hlog", "/"),
        ("--hgrm", "/nowhere/at/all"),
        ("--out", &inside),
    ] {
        let output = perf(&[flag, path, "--duration", "1000s"]).output().unwrap();
        assert!(!output.status.success(), "{flag}");
        let error = stderr_of(&output);
        assert!(error.contains(&format!("error: cannot write {path}")), "{flag}: {error}");
    }
    assert_eq!(directory.read("file"), "old");
    assert_eq!(names(&directory.0), ["file"]);
}

#[test]
fn an_interrupted_run_says_so_in_every_format() {
    let directory = Directory::new("cli-partial");
    let out = directory.path("results");
    // Nothing tells when a run has begun to measure: it is ended later each time, until there is
    // something to report.
    for wait in (0..).map(|round| std::time::Duration::from_millis(200 << round)) {
        let args = ["--target", "floor", "--duration", "1000s", "--out", &out];
        let mut child = perf(&args).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        std::thread::sleep(wait);
        let pid = Pid::from_raw(child.id().cast_signed()).unwrap();
        kill_process(pid, Signal::INT).unwrap();
        assert!(!child.wait().unwrap().success());
        if Path::new(&out).join("results.json").exists() {
            break;
        }
        assert!(wait.as_secs() < 60, "nothing is measured");
    }
    let results = Directory(PathBuf::from(&out));
    let json: Value = serde_json::from_str(&results.read("results.json")).unwrap();
    assert_eq!(json["partial"], true);
    assert_eq!(data_of(&results.read("report.html"))["partial"], true);
    let csv = results.read("results.csv");
    let mut lines = csv::Reader::from_reader(csv.as_bytes());
    let column = lines.headers().unwrap().iter().position(|column| column == "partial").unwrap();
    assert_eq!(&lines.records().next().unwrap().unwrap()[column], "true");
    for file in ["2x1-64B-floor.hgrm", "latencies.hlog"] {
        assert!(results.read(file).contains("Interrupted"), "{file}");
    }
}

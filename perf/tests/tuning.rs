//! `serve --config`, `doctor` and `tune` as they are run.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::{
    fs,
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    thread,
};

use ringcall::ServerConfig;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

fn perf(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ringcall-perf"));
    command.args(args);
    command
}

fn text_of(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

fn output_of(args: &[&str]) -> Output {
    perf(args).output().unwrap()
}

/// A directory that is gone at the end of a test.
struct TempDir(PathBuf);

impl TempDir {
    fn new(name: &str) -> Self {
        let name = format!("ringcall-perf-tuning-{name}-{}", std::process::id());
        let path = std::env::temp_dir().join(name);
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn file(&self, name: &str, text: &str) -> String {
        let path = self.0.join(name);
        fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    }
}

impl Drop for TempDir {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// The first core that this process may use.
fn first_core() -> usize {
    let allowed = rustix::thread::sched_getaffinity(None).unwrap();
    (0..rustix::thread::CpuSet::MAX_CPU).find(|core| allowed.is_set(*core)).unwrap()
}

/// Serves with a file of settings and more flags until it was told to end, and gives what it said
/// on standard error.
fn served_with(config: &Path, flags: &[&str]) -> String {
    let config = config.to_str().unwrap();
    let mut child = perf(&["serve", "--address", "127.0.0.1:0", "--config", config])
        .args(flags)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdout = BufReader::new(child.stdout.take().unwrap());
    let mut address = String::new();
    stdout.read_line(&mut address).unwrap();
    if address.starts_with("127.0.0.1:") {
        kill_process(Pid::from_raw(child.id().cast_signed()).unwrap(), Signal::INT).unwrap();
    }
    let output = child.wait_with_output().unwrap();
    let error = text_of(&output.stderr);
    assert!(output.status.success(), "{error}");
    error
}

#[test]
fn serve_takes_its_settings_from_a_file() {
    let dir = TempDir::new("serve");
    let core = first_core();
    let file =
        dir.file("ringcall.toml", &format!("cores = [{core}, {core}]\n[shard]\nspin_us = 5\n"));
    let said = served_with(Path::new(&file), &[]);
    assert!(said.contains(&format!("serves on core {core},{core} until")), "{said}");
    // A flag goes before the file.
    let said = served_with(Path::new(&file), &["--cores", &core.to_string(), "--spin", "1us"]);
    assert!(said.contains(&format!("serves on core {core} until")), "{said}");
}

#[test]
fn a_file_of_settings_that_is_wrong_is_refused_with_its_line() {
    let dir = TempDir::new("wrong");
    let file = dir.file("ringcall.toml", "[shard]\nspin = 5\n");
    for (command, code) in [("serve", 1), ("doctor", 2)] {
        let output = output_of(&[command, "--config", &file]);
        assert_eq!(output.status.code(), Some(code));
        let error = text_of(&output.stderr);
        let expected = format!("error: {file}, line 2: there is no setting `spin`");
        assert!(error.starts_with(&expected), "{error}");
    }
    let right = dir.file("right.toml", "");
    let error = output_of(&["serve", "--target", "floor", "--config", &right]).stderr;
    assert!(text_of(&error).contains("leave --config out"));
}

#[test]
fn doctor_examines_this_host_for_people_and_for_programs() {
    let core = first_core().to_string();
    let output = output_of(&["doctor", "--cores", &core, "--json"]);
    let document: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(document["exit_status"], output.status.code().unwrap());
    let findings = document["findings"].as_array().unwrap();
    let found = |topic: &str| findings.iter().find(|it| it["topic"] == topic).unwrap();
    // These tests run servers, so that one starts and the kernel is new enough.
    assert_eq!(found("server")["state"], "ok", "{}", found("server"));
    assert_eq!(found("kernel")["state"], "ok", "{}", found("kernel"));
    let output = output_of(&["doctor", "--cores", &core]);
    let table = text_of(&output.stdout);
    assert!(table.starts_with(&format!("1 shard on core {core}, NIC ")), "{table}");
    for finding in findings {
        assert!(table.contains(finding["topic"].as_str().unwrap()), "{table}");
    }
}

#[test]
fn doctor_refuses_what_there_is_not_with_a_status_of_its_own() {
    for (args, says) in [
        (&["--interface", "none0"][..], "there is no network interface none0"),
        (&["--cores", "1000"], "core 1000 is not there"),
        (&["--cores", "x"], "--cores"),
        (&["--what"], "--what"),
        (&["--config", "/no/such/file.toml"], "cannot read /no/such/file.toml"),
    ] {
        let output = output_of(&[&["doctor"], args].concat());
        assert_eq!(output.status.code(), Some(2), "{args:?}");
        assert!(text_of(&output.stderr).contains(says), "{args:?}: {}", text_of(&output.stderr));
        assert!(output.stdout.is_empty());
    }
}

/// The settings that a file has.
fn settings_of(path: &Path) -> ServerConfig {
    ServerConfig::from_file(path).unwrap()
}

#[test]
fn tune_writes_a_file_that_a_server_loads() {
    let dir = TempDir::new("tune");
    let path = dir.0.join("tuned.toml");
    let file = path.to_str().unwrap();
    // Time for one setting or two; what is found in it means nothing.
    let args = ["tune", "--budget", "8s", "--goal", "cpu", "--connections", "2", "--write", file];
    let output = output_of(&args);
    assert!(output.status.success(), "{}", text_of(&output.stderr));
    let table = text_of(&output.stdout);
    for text in ["2×1 64 B, closed loop, tuned for server CPU/call", "not tried", "default"] {
        assert!(table.contains(text), "no {text:?} in:\n{table}");
    }
    settings_of(&path);
    let written = fs::read_to_string(&path).unwrap();
    assert!(written.contains("# 2×1 64 B, closed loop, tuned for"), "{written}");
    let said = served_with(&path, &[]);
    assert!(said.contains("serves on core"), "{said}");

    // It is not replaced, unless that is asked for.
    fs::write(&path, "# mine\n").unwrap();
    let again = output_of(&args);
    assert!(!again.status.success() && again.stdout.is_empty());
    assert!(text_of(&again.stderr).contains("is there already"), "{}", text_of(&again.stderr));
    assert_eq!(fs::read_to_string(&path).unwrap(), "# mine\n");
    let args = ["tune", "--budget", "10ms", "--connections", "1", "--write", file, "--force"];
    assert!(output_of(&args).status.success());
    assert!(fs::read_to_string(&path).unwrap().contains("The defaults are kept"));
}

#[test]
fn an_interrupt_ends_tuning_with_what_was_found() {
    let dir = TempDir::new("interrupt");
    let path = dir.0.join("tuned.toml");
    let args = ["tune", "--budget", "1m", "--connections", "1", "--write", path.to_str().unwrap()];
    let child = perf(&args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let pid = Pid::from_raw(child.id().cast_signed()).unwrap();
    // Its threads are those of a run, so that it watches for signals.
    let tasks = format!("/proc/{}/task", child.id());
    let is_client = |task: fs::DirEntry| {
        fs::read_to_string(task.path().join("comm")).is_ok_and(|name| name.starts_with("client-"))
    };
    while !fs::read_dir(&tasks).unwrap().flatten().any(is_client) {
        thread::yield_now();
    }
    kill_process(pid, Signal::INT).unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(130));
    assert!(text_of(&output.stdout).contains("Not finished: this is what was found until then."));
    settings_of(&path);
}

#[test]
fn tuning_that_cannot_be_is_refused_before_it_begins() {
    for (args, says) in [
        (&["--goal", "throughput", "--rate", "1k"][..], "leave --rate out"),
        (&["--goal", "speed"], "--goal"),
        (&["--budget", "0"], "--budget"),
        (&["--write", "/no/such/dir/a.toml"], "cannot write /no/such/dir/a.toml"),
        (&["--force"], "--write"),
        (&["--server-cores", "1000"], "core 1000 is not there"),
    ] {
        let output = output_of(&[&["tune"], args].concat());
        assert!(!output.status.success() && output.stdout.is_empty(), "{args:?}");
        assert!(text_of(&output.stderr).contains(says), "{args:?}: {}", text_of(&output.stderr));
    }
}

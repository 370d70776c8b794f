//! Loads other than a closed loop of equal calls, and the commands built on them, as users run them.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::{
    fs,
    path::PathBuf,
    process::{Child, Command, Output, Stdio},
    thread,
    time::Duration,
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    process::{Pid, PidfdFlags, Signal, kill_process, pidfd_open},
};
use serde_json::Value;

/// Most runs of one command.
const TRIES: usize = 20;

/// Runs of the program until it has measured something: on a busy machine no call may be answered in
/// times as short as those of tests, and then it is tried once more.
fn perf(args: &[&str]) -> Output {
    let program = env!("CARGO_BIN_EXE_ringcall-perf");
    for _ in 0..TRIES {
        let output = Command::new(program).args(args).output().unwrap();
        if !stderr(&output).contains("take a longer one") {
            return output;
        }
    }
    panic!("{args:?}: no call was answered in {TRIES} runs");
}

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

/// The one run of a bench that is as short as can be. Where cores are shared its figures are void,
/// which says nothing against it here.
fn run(args: &[&str]) -> Value {
    let target = if args.contains(&"--target") { &[][..] } else { &["--target", "ringcall"] };
    let short = ["--duration", "200ms", "--warmup", "20ms", "--json", "-"];
    let output = perf(&[&["bench", "--connections", "2"], target, args, &short[..]].concat());
    let error = stderr(&output);
    assert!(output.status.success() || error.contains("is void"), "{args:?}: {error}");
    let document: Value = serde_json::from_slice(&output.stdout).unwrap();
    let runs = document["runs"].as_array().unwrap();
    assert_eq!(runs.len(), 1);
    assert_eq!(runs[0]["void"].is_string(), error.contains("is void"));
    runs[0].clone()
}

/// A file in the temporary directory, which goes with this.
struct TempFile(PathBuf);

impl TempFile {
    fn new(name: &str, text: &str) -> Self {
        let name = format!("ringcall-perf-{}-{name}", std::process::id());
        let path = std::env::temp_dir().join(name);
        fs::write(&path, text).unwrap();
        Self(path)
    }

    fn path(&self) -> &str {
        self.0.to_str().unwrap()
    }
}

impl Drop for TempFile {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

#[test]
fn an_open_load_offers_its_rate_and_tells_how_late_it_was() {
    for (target, spacing) in [("ringcall", "poisson"), ("floor", "even"), ("server", "bursts:8")] {
        let args = ["--rate", "2k", "--arrivals", spacing, "--target", target];
        // The last one named counts.
        let output = perf(
            &[
                &["bench", "--connections", "2", "--duration", "300ms", "--warmup", "20ms"],
                &args[..],
                &["--json", "-"],
            ]
            .concat(),
        );
        let document: Value = serde_json::from_slice(&output.stdout).unwrap();
        let run = &document["runs"][0];
        assert_eq!(run["offered_per_s"], 2000.0);
        let at = |key: &str, percentile: &str| run[key][percentile].as_u64().unwrap();
        assert!(at("latency_ns", "max") >= at("latency_from_send_ns", "max"), "{run}");
        assert!(at("lateness_ns", "p50") <= at("lateness_ns", "max"));
        let figure = |key: &str| run[key].as_f64().unwrap();
        let calls = figure("calls") + figure("unanswered");
        let due = 2000.0 * figure("calls") / figure("calls_per_s");
        // Give or take what chance makes of so few, and with what the warm-up has left over.
        assert!(calls >= due * 0.7, "{target}: {calls} of {due}: {run}");
    }
}

/// More is due than anything here can do: what is left over has waited for longest.
#[test]
fn every_call_that_was_due_is_in_the_latencies_answered_or_not() {
    for target in ["ringcall", "floor", "server"] {
        let rate = 2e6;
        let run = run(&["--rate", "2M", "--arrivals", "even", "--depth", "8", "--target", target]);
        let figure = |key: &str| run[key].as_f64().unwrap();
        let (calls, unanswered) = (figure("calls"), figure("unanswered"));
        let due = rate * calls / figure("calls_per_s");
        assert!(unanswered > 0.0, "{target}: {run}");
        // Those of the warm-up that were left over come on top.
        assert!(calls + unanswered >= due * 0.99, "{target}: {due} were due: {run}");
        let doubts = run["doubts"].as_array().unwrap();
        let doubts: Vec<&str> = doubts.iter().filter_map(Value::as_str).collect();
        assert!(doubts.iter().any(|it| it.contains("had no answer when it ended")), "{doubts:?}");
    }
}

#[test]
fn a_closed_loop_offers_nothing() {
    let run = run(&[]);
    for key in ["offered_per_s", "latency_from_send_ns", "lateness_ns", "unanswered", "void"] {
        assert!(run[key].is_null(), "{key}: {}", run[key]);
    }
}

#[test]
fn rates_change_and_sizes_are_mixed() {
    let ramp = run(&["--rate", "500..1500/400ms", "--arrivals", "even", "--sizes", "64:9,4KiB:1"]);
    // As often in the warm-up as at first; then a thousand a second on the average.
    assert!((450.0..1050.0).contains(&ramp["offered_per_s"].as_f64().unwrap()), "{ramp}");
    let fleet = run(&["--sizes", "fleet"]);
    let calls = fleet["calls"].as_f64().unwrap();
    let bytes = fleet["counters"]["client"]["bytes_received"].as_f64().unwrap();
    assert!(bytes / calls > 96.0, "{bytes} bytes in {calls} calls");
}

#[test]
fn a_trace_is_made_as_it_is_written() {
    let lines: String = (0..200).map(|call| format!("{} {}\n", call * 1000, 64 + call)).collect();
    let trace = TempFile::new("trace", &format!("# 200 calls in 200 ms\n{lines}"));
    let output = perf(&[
        "bench",
        "--connections",
        "2",
        "--target",
        "ringcall",
        "--trace",
        trace.path(),
        "--json",
        "-",
    ]);
    let document: Value = serde_json::from_slice(&output.stdout).unwrap();
    let run = &document["runs"][0];
    // All of them, but for what a busy machine answers too late.
    let calls = run["calls"].as_u64().unwrap();
    assert!((1..=200).contains(&calls), "{calls}");
    assert!(run["offered_per_s"].as_f64().unwrap() > 500.0, "{run}");
}

#[test]
fn a_trace_that_is_none_is_refused_with_its_line() {
    for (name, text, why) in [
        ("order", "5\n3\n", "line 2 of the trace"),
        ("word", "1\nx\n", "\"x\" is no time in microseconds"),
        ("empty", "# nothing\n", "there is no call in it"),
        ("size", "1 7\n", "a body has at least 8 bytes"),
    ] {
        let trace = TempFile::new(name, text);
        let output = perf(&["bench", "--trace", trace.path()]);
        assert!(!output.status.success());
        assert!(stderr(&output).contains(why), "{}", stderr(&output));
    }
    let output = perf(&["bench", "--trace", "/nowhere/trace"]);
    assert!(stderr(&output).contains("cannot read the trace /nowhere/trace: No such file"));
}

#[test]
fn what_goes_on_beside_the_load_is_reported() {
    let output = perf(&[
        "bench",
        "--target",
        "ringcall",
        "--connections",
        "2",
        "--rate",
        "2k",
        "--slow",
        "10%:1ms",
        "--churn",
        "50",
        "--slow-readers",
        "3",
        "--probe",
        "100",
        "--size",
        "4KiB",
        "--duration",
        "400ms",
        "--warmup",
        "20ms",
    ]);
    let (table, error) = (stdout(&output), stderr(&output));
    assert!(output.status.success() || error.contains("is void"), "{error}");
    // Each side has a core; the rest, if there is any, is for what goes on beside them.
    let are_alone = thread::available_parallelism().unwrap().get() > 2;
    assert_eq!(error.contains("name another with --beside-cores"), !are_alone, "{error}");
    for text in [
        "probe on core ",
        "slow readers on core ",
        "calls to the slow handler: ",
        "connections made, used for a call and closed: ",
        "slow readers have read ",
        "server queue",
        "handler",
    ] {
        assert!(table.contains(text), "no {text:?} in:\n{table}");
    }
}

#[test]
fn a_probe_that_shares_a_core_with_the_load_says_so() {
    let short = ["--duration", "200ms", "--warmup", "20ms", "--target", "ringcall"];
    for (core, side) in [("0", "client"), ("0", "server")] {
        let flag = format!("--{side}-cores");
        let args = ["bench", "--connections", "1", "--probe", "50", "--beside-cores", core];
        let output = perf(&[&args[..], &[&flag, core], &short].concat());
        let warning = "warning: probe: core 0 is the load's too";
        assert!(stderr(&output).contains(warning), "{}", stderr(&output));
        assert!(stdout(&output).contains("! probe: core 0 is the load's too"));
    }
    let output = perf(&["bench", "--probe", "50", "--beside-cores", "1000"]);
    assert!(stderr(&output).contains("core 1000 is not there"), "{}", stderr(&output));
}

#[test]
fn calls_that_are_made_to_many_at_once_are_one() {
    let alone = run(&["--depth", "1"]);
    let fanned = run(&["--depth", "1", "--fanout", "4"]);
    let calls = |run: &Value| run["calls"].as_f64().unwrap();
    let bytes = |run: &Value| run["counters"]["client"]["bytes_received"].as_f64().unwrap();
    let each = |run: &Value| bytes(run) / calls(run);
    // Four replies for each, but for those that were cut by the beginning or the end.
    let ratio = each(&fanned) / each(&alone);
    assert!((3.5..4.5).contains(&ratio), "{ratio}");
}

#[test]
fn what_a_target_cannot_do_is_refused() {
    for (args, why) in [
        (&["--target", "floor", "--sizes", "fleet"][..], "floor sends calls of one length"),
        (&["--target", "stream", "--rate", "1k"][..], "the items of a stream follow each other"),
        (&["--target", "floor", "--churn", "10"][..], "nothing goes on beside floor"),
        (&["--arrivals", "even"][..], "--rate"),
        (&["--rate", "1k", "--trace", "x"][..], "cannot be used with"),
        (&["--rate", "0"][..], "less than 0.1 calls a second"),
        (&["--percentile", "p100"][..], "name a percentile"),
    ] {
        let output = perf(&[&["bench"], args].concat());
        assert!(!output.status.success(), "{args:?}");
        assert!(stderr(&output).contains(why), "{args:?}: {}", stderr(&output));
    }
}

#[test]
fn a_sweep_shows_each_rate() {
    let output = perf(&[
        "sweep",
        "--target",
        "ringcall",
        "--connections",
        "2",
        "--rates",
        "2k,1k",
        "--duration",
        "200ms",
        "--warmup",
        "20ms",
    ]);
    let (table, error) = (stdout(&output), stderr(&output));
    assert!(output.status.success() || error.contains("is void"), "{error}");
    let rates: Vec<&str> = table
        .lines()
        .filter_map(|line| line.trim().strip_suffix("VOID").or(Some(line)))
        .filter(|line| line.contains(" % ") && line.contains(" k "))
        .map(|line| line.trim().split("  ").next().unwrap_or_default())
        .collect();
    assert_eq!(rates, ["1.00 k", "2.00 k"], "{table}");
}

#[test]
fn a_limit_that_no_call_keeps_is_held_at_no_rate() {
    let output = perf(&[
        "sweep",
        "--target",
        "ringcall",
        "--connections",
        "1",
        "--slo",
        "p50<=1ns",
        "--duration",
        "100ms",
        "--warmup",
        "10ms",
    ]);
    assert!(!output.status.success());
    assert!(stderr(&output).contains("p50 <= 1ns held at no rate that was tried"));
    for (args, why) in [
        (&["--target", "ringcall", "--rate", "1k"][..], "a sweep takes its rates from --rates"),
        (&["--target", "ringcall,floor"][..], "name one target"),
        (&["--slo", "p99<1ms"][..], "name a limit as"),
    ] {
        let output = perf(&[&["sweep"], args].concat());
        assert!(stderr(&output).contains(why), "{args:?}: {}", stderr(&output));
    }
}

#[test]
fn two_configurations_are_compared_in_turn() {
    let args = ["--pairs", "5", "--duration", "50ms", "--warmup", "10ms", "--"];
    let bench = ["--target", "floor", "--connections", "1"];
    let output = perf(&[&["compare", "", "--spin 20us"], &args[..], &bench].concat());
    assert!(output.status.success(), "{}", stderr(&output));
    let table = stdout(&output);
    assert!(table.contains("5 pairs of runs in turn") && table.contains("1×1 64 B floor"));
    assert!(table.lines().filter(|line| line.contains(" to ")).count() >= 5, "{table}");

    let output = perf(&["compare", "no/such/build", ""]);
    assert!(stderr(&output).contains("A begins with \"no/such/build\", which is no file"));
    let output = perf(&["compare", "", "--nonsense"]);
    assert!(stderr(&output).contains("a run of B failed"), "{}", stderr(&output));
}

#[test]
fn the_selftest_says_what_must_be_and_what_was_reported() {
    let output = perf(&["selftest", "--rate", "1k", "--every", "300ms", "--duration", "900ms"]);
    let table = stdout(&output);
    // How near they are depends on who else uses the machine.
    let error = stderr(&output);
    assert!(output.status.success() || error.contains("is off by"), "{error}");
    assert!(table.contains("must be") && table.contains("p99 "), "{table}");
    let output = perf(&["selftest", "--stop", "600ms", "--every", "1s"]);
    assert!(stderr(&output).contains("leave no time between them"));
}

/// The field of a process's `stat` that has a number, counted from zero behind its name.
fn stat_of(process: i32, number: usize) -> Option<String> {
    let stat = fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
    let (_, behind_name) = stat.rsplit_once(") ")?;
    behind_name.split(' ').nth(number).map(str::to_owned)
}

/// The one child of a process, once it is there and stopped.
fn stopped_child_of(parent: i32) -> Option<i32> {
    let processes = fs::read_dir("/proc").unwrap();
    let processes = processes.filter_map(|it| it.ok()?.file_name().to_str()?.parse().ok());
    let is_child = |process: &i32| stat_of(*process, 1) == Some(parent.to_string());
    let child = processes.into_iter().find(is_child)?;
    (stat_of(child, 0)? == "T").then_some(child)
}

/// As a second Ctrl-C ends it, which leaves no time for anything. The server is stopped then, and
/// hears nothing of it.
#[test]
fn the_server_of_a_selftest_ends_with_it() {
    let mut selftest = Command::new(env!("CARGO_BIN_EXE_ringcall-perf"))
        .args(["selftest", "--stop", "1s", "--every", "2s", "--duration", "1m"])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let parent = selftest.id().cast_signed();
    let server = loop {
        assert_eq!(selftest.try_wait().unwrap(), None, "it ended by itself");
        if let Some(server) = stopped_child_of(parent) {
            break Pid::from_raw(server).unwrap();
        }
        thread::sleep(Duration::from_millis(5));
    };
    let pidfd = pidfd_open(server, PidfdFlags::empty()).unwrap();
    selftest.kill().unwrap();
    selftest.wait().unwrap();
    let patience = Timespec { tv_sec: 30, tv_nsec: 0 };
    let ended = poll(&mut [PollFd::new(&pidfd, PollFlags::IN)], Some(&patience)).unwrap();
    if ended == 0 {
        let _ = kill_process(server, Signal::KILL);
    }
    assert_eq!(ended, 1, "it is still there");
}

#[test]
fn a_server_whose_parent_is_gone_does_not_begin() {
    let output = perf(&["serve", "--address", "127.0.0.1:0", "--parent", "1"]);
    assert!(!output.status.success());
    assert!(stderr(&output).contains("has ended"), "{}", stderr(&output));
}

/// Starts a bench that would go on for a minute, and interrupts it when it measures.
fn interrupted(args: &[&str], after: Duration) -> Output {
    let child: Child = Command::new(env!("CARGO_BIN_EXE_ringcall-perf"))
        .args(args)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let pid = Pid::from_raw(child.id().cast_signed()).unwrap();
    thread::sleep(after);
    kill_process(pid, Signal::INT).unwrap();
    child.wait_with_output().unwrap()
}

#[test]
fn what_was_measured_before_an_interruption_is_kept_and_marked() {
    let args = ["bench", "--target", "ringcall", "--connections", "1", "--duration", "1m"];
    let args = [&args[..], &["--warmup", "10ms", "--json", "-"]].concat();
    // It may come before anything was measured: there is nothing to wait for but time.
    for seconds in 1..20 {
        let output = interrupted(&args, Duration::from_secs(seconds));
        assert_eq!(output.status.code(), Some(130));
        if output.stdout.is_empty() {
            continue;
        }
        let document: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(document["partial"], true);
        assert!(document["runs"][0]["calls"].as_u64().unwrap() > 0);
        return;
    }
    panic!("nothing was kept");
}

//! The program as it is run: its output and its errors.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::process::{Command, Output};

use rustix::thread::{CpuSet, sched_getaffinity};
use serde_json::Value;

/// Runs it on the first two cores that this process may use.
fn output_of(args: &[&str]) -> Output {
    let allowed = sched_getaffinity(None).unwrap();
    let mut cores = (0..CpuSet::MAX_CPU).filter(|core| allowed.is_set(*core));
    let mut command = Command::new(env!("CARGO_BIN_EXE_ringcall-peers"));
    for flag in ["--client-core", "--server-core"] {
        let core = cores.next().expect("a bench wants two cores");
        if !args.contains(&flag) {
            command.args([flag, &core.to_string()]);
        }
    }
    command.args(args).output().unwrap()
}

/// The only line on standard error, of a run that has failed with 1 and printed no results.
fn error_of(args: &[&str]) -> String {
    let output = output_of(args);
    assert_eq!(output.status.code(), Some(1), "{args:?}");
    assert!(output.stdout.is_empty(), "{args:?}");
    let text = String::from_utf8(output.stderr).unwrap();
    let lines: Vec<&str> = text.lines().filter(|line| !line.starts_with("warning: ")).collect();
    assert_eq!(lines.len(), 1, "{args:?}: {text}");
    lines[0].to_owned()
}

/// The runs of a JSON report. On a busy machine no call may be answered in so short a time, and
/// then the time is doubled.
fn runs(args: &[&str]) -> Vec<Value> {
    let mut milliseconds = 200;
    let output = loop {
        let duration = format!("{milliseconds}ms");
        let short = ["--duration", &duration, "--warmup", "50ms", "--json", "-"];
        let output = output_of(&[args, &short].concat());
        if !String::from_utf8_lossy(&output.stderr).contains("error: no call of") {
            break output;
        }
        milliseconds *= 2;
    };
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let document: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(document["schema"], 1);
    assert!(document["host"]["kernel"].as_str().unwrap().starts_with("Linux"));
    document["runs"].as_array().unwrap().clone()
}

#[test]
fn what_cannot_be_is_refused_in_one_line() {
    for (args, reason) in [
        (&["--duration", "0s"][..], "it is less than 1ms"),
        (&["--duration", "soon"], "name a time as `3s` or `300ms`"),
        (&["--warmup", "2h"], "it is longer than an hour"),
        (&["--rate", "0"], "0 is not in 10..=10000000"),
        (&["--rate", "20000000"], "20000000 is not in 10..=10000000"),
        (&["--depth", "0"], "0 is not in 1..=1024"),
        (&["--connections", "many"], "invalid digit"),
        (&["--size", "5000000"], "5000000 is not in 1..=4194304"),
        (&["--peer", "gmf"], "[possible values: tonic, tarpc, capnp-rpc"),
        (&["--pear"], "unexpected argument '--pear'"),
        (&["--server-core", "1023"], "core 1023 is not there for this process"),
        (&["--peer", "epoll", "--rate", "1000"], "epoll is a floor and has no calls"),
        (&["--json", "/nowhere/at/all.json"], "cannot write /nowhere/at/all.json: No such file"),
    ] {
        let error = error_of(args);
        assert!(error.starts_with("error: ") && error.contains(reason), "{args:?}: {error}");
    }
}

#[test]
fn two_sides_on_one_core_are_refused() {
    let allowed = sched_getaffinity(None).unwrap();
    let core = (0..CpuSet::MAX_CPU).find(|core| allowed.is_set(*core)).unwrap().to_string();
    let error = error_of(&["--server-core", &core, "--client-core", &core]);
    assert!(error.ends_with("name two different cores"), "{error}");
}

#[test]
fn a_closed_loop_gives_the_keys_of_ringcall_perf() {
    let workload = ["--connections", "2", "--depth", "2", "--size", "100"];
    let runs =
        runs(&[&["--peer", "epoll,tokio-handwritten", "--repeat", "2"], &workload[..]].concat());
    let targets: Vec<_> = runs.iter().map(|run| run["target"].as_str().unwrap()).collect();
    assert_eq!(targets, ["epoll", "tokio-handwritten"]);
    for run in runs {
        assert_eq!([&run["connections"], &run["depth"], &run["size"]], [2, 2, 100]);
        assert_eq!(run["errors"], 0);
        for key in ["calls", "calls_per_s", "server_cpu_ns_per_call", "client_cpu_ns_per_call"] {
            assert!(run[key].as_f64().unwrap() > 0.0, "{key} of {run}");
        }
        for key in ["p50", "p90", "p99", "p999", "p9999", "max"] {
            assert!(run["latency_ns"][key].as_u64().unwrap() > 0, "{key} of {run}");
        }
        for key in ["offered_per_s", "unanswered", "latency_from_send_ns", "lateness_ns"] {
            assert!(run[key].is_null(), "{key} of {run}");
        }
    }
}

#[test]
fn an_open_loop_says_what_was_offered_and_how_late_it_was() {
    let workload = ["--connections", "2", "--depth", "2", "--rate", "1000"];
    let run = &runs(&[&["--peer", "tokio-handwritten"], &workload[..]].concat())[0];
    for key in ["offered_per_s", "calls_per_s"] {
        assert!(run[key].as_f64().unwrap() > 0.0, "{key} of {run}");
    }
    assert!(run["unanswered"].is_u64(), "{run}");
    let intended = run["latency_ns"]["max"].as_u64().unwrap();
    assert!(intended >= run["latency_from_send_ns"]["max"].as_u64().unwrap(), "{run}");
    assert!(run["lateness_ns"]["max"].is_u64(), "{run}");
}

//! The program as it is run: its output, its errors and its end.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::TcpListener,
    process::{Child, ChildStdout, Command, Output, Stdio},
    thread,
};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

fn perf(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ringcall-perf"));
    command.args(args);
    command
}

fn output_of(args: &[&[&str]]) -> Output {
    perf(&args.concat()).output().unwrap()
}

fn stderr_of(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

/// A run of a time as short as can be; what is measured then means nothing. On a busy machine no
/// call may be answered in it, and then the time is doubled.
fn measured(args: &[&str]) -> Output {
    let mut milliseconds = 50;
    loop {
        let duration = format!("{milliseconds}ms");
        let output = output_of(&[args, &["--duration", &duration, "--warmup", "10ms"]]);
        if !stderr_of(&output).contains("take a longer one") {
            assert!(output.status.success(), "{}", stderr_of(&output));
            return output;
        }
        milliseconds *= 2;
    }
}

/// The JSON on standard output of a run, and nothing else there.
fn json_of(args: &[&str]) -> Value {
    let output = measured(&[args, &["--json", "-"]].concat());
    serde_json::from_slice(&output.stdout).unwrap()
}

/// The last line on standard error, of a run that has failed.
fn error_of(args: &[&[&str]]) -> String {
    let output = output_of(args);
    assert!(!output.status.success(), "{args:?} succeeded");
    assert!(output.stdout.is_empty(), "{args:?} printed results");
    stderr_of(&output).lines().last().unwrap_or_default().to_owned()
}

fn keys(value: &Value) -> Vec<&str> {
    let mut keys: Vec<&str> = value.as_object().unwrap().keys().map(String::as_str).collect();
    keys.sort_unstable();
    keys
}

fn assert_is_run(run: &Value) {
    let expected = [
        "beside",
        "calls",
        "calls_per_s",
        "client_cpu_ns_per_call",
        "confidence",
        "connections",
        "core_load",
        "cost",
        "counters",
        "depth",
        "doubts",
        "errors",
        "idle",
        "latency_from_send_ns",
        "latency_ns",
        "lateness_ns",
        "offered_per_s",
        "server_cpu_ns_per_call",
        "size",
        "target",
        "unanswered",
        "void",
    ];
    assert_eq!(keys(run), expected);
    assert_eq!(keys(&run["latency_ns"]), ["max", "p50", "p90", "p99", "p999", "p9999"]);
    assert_eq!(keys(&run["counters"]), ["client", "server"]);
    assert_eq!(run["errors"], 0);
    assert!(run["calls"].as_u64().unwrap() > 0);
    assert!(run["calls_per_s"].as_f64().unwrap() > 0.0);
    assert!(run["client_cpu_ns_per_call"].as_f64().unwrap() > 0.0);
    for core in run["core_load"].as_array().unwrap() {
        for second in core["seconds"].as_array().unwrap() {
            let part = |name: &str| second[name].as_f64().unwrap();
            assert!((0.0..=1.0).contains(&(part("busy") + part("stolen"))), "{core}");
            assert!(part("length_s") > 0.0 && part("ours") > 0.0, "{core}");
        }
    }
    let latency = |name: &str| run["latency_ns"][name].as_u64().unwrap();
    assert!(0 < latency("p50") && latency("p50") <= latency("p99"));
    assert!(latency("p99") <= latency("max"));
}

/// A `serve` that is running, with the address that it printed first.
struct Serve {
    child: Child,
    stdout: BufReader<ChildStdout>,
    address: String,
}

impl Serve {
    fn start(target: &str) -> Self {
        let mut child = perf(&["serve", "--address", "127.0.0.1:0", "--target", target])
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        let mut address = String::new();
        stdout.read_line(&mut address).unwrap();
        Self { child, stdout, address: address.trim().to_owned() }
    }

    /// Stops it by a signal and gives what it printed after its address.
    fn stop(mut self, signal: Signal) -> String {
        signal_to(&self.child, signal);
        assert!(self.child.wait().unwrap().success());
        let mut rest = String::new();
        self.stdout.read_to_string(&mut rest).unwrap();
        rest
    }
}

impl Drop for Serve {
    fn drop(&mut self) {
        // Only where a test has failed is it still there.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn signal_to(child: &Child, signal: Signal) {
    let pid = Pid::from_raw(child.id().cast_signed()).unwrap();
    kill_process(pid, signal).unwrap();
}

#[test]
fn without_arguments_for_a_command_it_measures_both_targets() {
    let document = json_of(&["--connections", "2", "--depth", "2"]);
    assert_eq!(document["schema"], 1);
    assert_eq!(keys(&document), ["host", "partial", "runs", "schema"]);
    assert_eq!(keys(&document["host"]), ["commit", "cores", "cpu", "date", "kernel", "settings"]);
    let runs = document["runs"].as_array().unwrap();
    let targets: Vec<_> = runs.iter().map(|run| run["target"].as_str().unwrap()).collect();
    assert_eq!(targets, ["floor", "ringcall"]);
    for run in runs {
        assert_is_run(run);
        assert_eq!([&run["connections"], &run["depth"], &run["size"]], [2, 2, 64]);
        assert!(run["server_cpu_ns_per_call"].is_f64());
        for side in ["server", "client"] {
            for counter in ["enters", "sends", "bytes_received", "cpu_ns"] {
                assert!(run["counters"][side][counter].is_u64(), "{side} {counter}");
            }
        }
    }
}

#[test]
fn the_cores_of_both_sides_are_told_with_what_they_were_used_for() {
    let available = thread::available_parallelism().unwrap().get();
    let [client, server] = if available > 1 { ["0", "1"] } else { ["0", "0"] };
    let cores = ["--client-cores", client, "--server-cores", server];
    for target in ["ringcall", "floor"] {
        let args = [&["--connections", "1", "--target", target], &cores[..]].concat();
        let run = json_of(&args)["runs"][0].clone();
        let found: Vec<Value> = run["core_load"].as_array().unwrap().clone();
        let roles: Vec<String> =
            found.iter().map(|it| format!("{} {}", it["core"], it["roles"])).collect();
        let expected = if available > 1 {
            vec![r#"0 ["client"]"#, r#"1 ["server"]"#]
        } else {
            vec![r#"0 ["server","client"]"#]
        };
        assert_eq!(roles, expected, "{target}");
        assert!(found.iter().all(|it| it["seconds"].as_array().unwrap().len() == 1), "{run}");
    }
}

#[test]
fn the_server_alone_is_measured_beside_the_others() {
    for (depth, size) in [("4", "64"), ("3", "61440")] {
        let args = ["--target", "ringcall,floor,server", "--connections", "2"];
        let document = json_of(&[&args[..], &["--depth", depth, "--size", size]].concat());
        let runs = document["runs"].as_array().unwrap();
        let targets: Vec<_> = runs.iter().map(|run| run["target"].as_str().unwrap()).collect();
        assert_eq!(targets, ["ringcall", "floor", "server"]);
        runs.iter().for_each(assert_is_run);
        let counters = &runs[2]["counters"];
        assert!(counters["server"]["frames_in_place"].as_u64().unwrap() > 0);
        assert!(counters["client"]["frames_in_place"].is_null());
    }
}

#[test]
fn every_target_sends_as_many_bytes_per_call() {
    for size in ["8", "100", "20000", "61440"] {
        let targets = "floor,ringcall,server";
        let args = ["bench", "--connections", "3", "--size", size, "--target", targets];
        let document = json_of(&args);
        for run in document["runs"].as_array().unwrap() {
            assert_is_run(run);
            let bytes = run["counters"]["client"]["bytes_received"].as_f64().unwrap();
            let frame_len = (size.parse::<f64>().unwrap() / 16.0).ceil() * 16.0 + 32.0;
            // Frames that are cut by the beginning or the end of the window.
            let cut = 2.0 * 3.0 * frame_len;
            let expected = run["calls"].as_f64().unwrap() * frame_len;
            assert!((bytes - expected).abs() <= cut, "{size}: {bytes} instead of {expected}");
        }
    }
}

#[test]
fn what_a_call_costs_is_there_for_each_side_where_it_is_asked_for() {
    let args = ["--connections", "2", "--target", "floor,ringcall,server", "--cost"];
    let document = json_of(&args);
    let runs = document["runs"].as_array().unwrap();
    assert_eq!(runs.len(), 3);
    for run in runs {
        assert_is_run(run);
        let cost = &run["cost"];
        assert_eq!(keys(cost), ["client", "note", "process", "server"]);
        let process = &cost["process"];
        assert_eq!(keys(process), ["allocations", "bytes_allocated", "sides"]);
        assert_eq!(process["sides"], 2);
        for figure in ["allocations", "bytes_allocated"] {
            assert_eq!(process[figure].is_f64(), cfg!(feature = "count-allocations"), "{run}");
        }
        for side in ["server", "client"] {
            let cost = &cost[side];
            // There are none where the threads were not found.
            assert!(cost["voluntary_switches"].is_f64(), "{side}: {run}");
            assert!(cost["involuntary_switches"].is_f64(), "{side}: {run}");
            assert!(cost["enters"].as_f64().unwrap() > 0.0, "{side}: {run}");
            assert!(cost["sends"].as_f64().unwrap() > 0.0, "{side}: {run}");
            let is_floor = match run["target"].as_str().unwrap() {
                "floor" => true,
                "server" => side == "client",
                _ => false,
            };
            for copied in ["copies", "bytes_copied"] {
                assert_eq!(cost[copied].is_null(), is_floor, "{side} {copied}: {run}");
            }
            // What the processor counts is there, or why it is not.
            for counted in ["instructions", "cycles"] {
                let figure = cost[counted].as_f64().unwrap_or_default();
                assert!(figure > 0.0 || run["cost"]["note"].is_string(), "{side}: {run}");
            }
        }
    }
    let plain = json_of(&["--connections", "1", "--target", "ringcall"]);
    assert!(plain["runs"][0]["cost"].is_null() && plain["runs"][0]["idle"].is_null());
}

/// A call that is made to many at once has a list of them.
#[test]
#[cfg(feature = "count-allocations")]
fn what_a_call_allocates_is_counted_for_both_sides_and_for_each_alone() {
    let fanned = ["--connections", "2", "--target", "ringcall", "--fanout", "4", "--cost"];
    let allocations =
        |run: &Value| run["cost"]["process"]["allocations"].as_f64().unwrap_or_default();
    let run = json_of(&fanned)["runs"][0].clone();
    assert!(allocations(&run) > 0.9, "{run}");
    let serve = Serve::start("ringcall");
    let document = json_of(&[&["load", &serve.address], &fanned[..]].concat());
    let run = &document["runs"][0];
    assert!(allocations(run) > 0.9 && run["cost"]["process"]["sides"] == 1, "{run}");
    let counted = serve.stop(Signal::INT);
    let line = counted.lines().find(|line| line.starts_with("allocations ")).unwrap();
    assert!(line.split_whitespace().last().unwrap().parse::<u64>().unwrap() > 0, "{counted}");
    assert!(counted.contains("allocations_per_call"), "{counted}");
}

#[test]
fn idle_connections_are_held_beside_the_load_and_reported() {
    // As many as take more than what was free in the allocator's pages.
    let args = ["--connections", "2", "--target", "ringcall", "--idle", "2000"];
    let document = json_of(&args);
    let run = &document["runs"][0];
    assert_is_run(run);
    let idle = &run["idle"];
    assert_eq!(keys(idle), ["bytes_each", "connections", "ends", "server_cpu_share"]);
    assert_eq!([&idle["connections"], &idle["ends"]], [2000, 2]);
    assert!(idle["bytes_each"].as_f64().unwrap() > 0.0, "{idle}");
    assert!((0.0..=1.0).contains(&idle["server_cpu_share"].as_f64().unwrap()), "{idle}");
}

#[test]
fn a_server_elsewhere_serves_idle_connections_of_which_the_client_has_one_end() {
    let serve = Serve::start("ringcall");
    let args = ["load", &serve.address, "--connections", "2", "--idle", "50", "--cost"];
    let document = json_of(&args);
    let run = &document["runs"][0];
    assert_is_run(run);
    assert_eq!([&run["idle"]["connections"], &run["idle"]["ends"]], [50, 1]);
    assert!(run["idle"]["server_cpu_share"].is_null());
    assert!(run["cost"]["server"].is_null());
    assert!(run["cost"]["client"]["voluntary_switches"].is_f64());
    let counted = serve.stop(Signal::INT);
    let accepted = counted.lines().find(|line| line.contains("connections_accepted")).unwrap();
    let accepted: u64 = accepted.split_whitespace().last().unwrap().parse().unwrap();
    // As many again for each run that was too short.
    assert!(accepted > 0 && accepted.is_multiple_of(52), "{counted}");
}

#[test]
fn the_table_shows_what_calls_and_idle_connections_cost() {
    let args = ["--connections", "2", "--target", "ringcall", "--idle", "50", "--cost"];
    let table = String::from_utf8(measured(&args).stdout).unwrap();
    for text in ["Cost per call", "ringcall server", "ringcall client", "memory each", "server CPU"]
    {
        assert!(table.contains(text), "no {text:?} in:\n{table}");
    }
}

#[test]
fn idle_connections_that_cannot_be_are_refused_before_the_run() {
    for target in ["floor", "server", "floor,ringcall"] {
        let error = error_of(&[&["--idle", "5", "--target", target]]);
        assert!(error.contains("leave --idle out"), "{error}");
    }
    let program = env!("CARGO_BIN_EXE_ringcall-perf");
    let line = format!("ulimit -n 300; exec '{program}' --idle 1000 --target ringcall");
    let output = Command::new("sh").args(["-c", &line]).output().unwrap();
    assert!(!output.status.success());
    let error = stderr_of(&output);
    assert!(error.contains("may have 300: raise the limit with `ulimit -n "), "{error}");
}

#[test]
fn repeats_are_reported_as_one_run_each() {
    let args = ["--connections", "1", "--repeat", "3"];
    let document = json_of(&args);
    let runs = document["runs"].as_array().unwrap();
    assert_eq!(runs.len(), 2);
    runs.iter().for_each(assert_is_run);
}

#[test]
fn several_threads_a_side_share_the_connections() {
    let cores = thread::available_parallelism().unwrap().get();
    let list = if cores > 1 { "0-1" } else { "0" };
    let args = ["--connections", "5", "--server-cores", list, "--client-cores", list];
    let document = json_of(&args);
    document["runs"].as_array().unwrap().iter().for_each(assert_is_run);
}

#[test]
fn the_table_shows_both_targets_and_what_was_counted() {
    let output = measured(&["--connections", "2", "--spin", "20us"]);
    let table = String::from_utf8(output.stdout).unwrap();
    for text in ["2×1 64 B", "floor", "ringcall", "ratio", "in place", "commit", "spinning 20µs"]
    {
        assert!(table.contains(text), "no {text:?} in:\n{table}");
    }
}

#[test]
fn json_goes_to_a_file_beside_the_table() {
    let path = std::env::temp_dir().join(format!("ringcall-perf-cli-{}.json", std::process::id()));
    let args = ["--connections", "1", "--target", "floor", "--json", path.to_str().unwrap()];
    // What was there before is longer, and gone afterwards.
    std::fs::write(&path, "x".repeat(100_000)).unwrap();
    let output = measured(&args);
    assert!(!output.stdout.is_empty());
    let document: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    assert_eq!(document["runs"].as_array().unwrap().len(), 1);
    std::fs::remove_file(&path).unwrap();
}

#[test]
fn serve_and_load_are_the_two_halves() {
    for (target, signal) in
        [("ringcall", Signal::INT), ("floor", Signal::TERM), ("server", Signal::INT)]
    {
        let serve = Serve::start(target);
        let args = ["load", &serve.address, "--target", target, "--connections", "2"];
        let document = json_of(&args);
        let run = &document["runs"][0];
        assert_is_run(run);
        assert_eq!(run["target"], target);
        assert!(run["server_cpu_ns_per_call"].is_null());
        let counted = serve.stop(signal);
        assert!(counted.contains("connections_accepted"), "{counted}");
    }
}

#[test]
fn serve_echoes_large_frames_to_a_floor() {
    let serve = Serve::start("floor");
    let args = [
        "load",
        &serve.address,
        "--target",
        "floor",
        "--size",
        "1MiB",
        "--depth",
        "3",
        "--connections",
        "2",
    ];
    let document = json_of(&args);
    assert_is_run(&document["runs"][0]);
    serve.stop(Signal::INT);
}

#[test]
fn help_names_the_commands_and_flags() {
    let output = output_of(&[&["--help"]]);
    let help = String::from_utf8(output.stdout).unwrap();
    for text in ["bench", "serve", "load", "--connections", "--server-cores", "--spin", "--json"] {
        assert!(help.contains(text), "no {text:?} in:\n{help}");
    }
    for command in ["bench", "serve", "load"] {
        assert!(output_of(&[&[command, "--help"]]).status.success());
    }
}

#[test]
fn what_cannot_be_is_refused_with_the_flag_that_says_it() {
    for (flag, value) in [
        ("--connections", "0"),
        ("--depth", "0"),
        ("--depth", "4097"),
        ("--size", "7"),
        ("--size", "16MiB"),
        ("--duration", "0s"),
        ("--duration", "3"),
        ("--spin", "1h"),
        ("--repeat", "0"),
        ("--client-cores", "x"),
        ("--server-cores", "1-0"),
        ("--target", "tonic"),
    ] {
        let output = output_of(&[&[flag, value]]);
        assert!(!output.status.success(), "{flag} {value}");
        assert!(stderr_of(&output).contains(flag), "{flag} {value}: {}", stderr_of(&output));
    }
}

#[test]
fn a_core_that_is_not_there_is_named() {
    for flag in ["--client-cores", "--server-cores"] {
        let error = error_of(&[&[flag, "1000"]]);
        assert!(error.starts_with("error: core 1000 is not there for this process"), "{error}");
    }
}

#[test]
fn a_path_that_cannot_be_written_is_refused_before_the_run() {
    let error = error_of(&[&["--json", "/nowhere/at/all.json", "--duration", "1000s"]]);
    assert!(error.starts_with("error: cannot write /nowhere/at/all.json: "), "{error}");
}

#[test]
fn an_address_where_nobody_listens_is_named() {
    let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    for target in ["ringcall", "floor", "server"] {
        let error = error_of(&[&["load", &address, "--target", target]]);
        let expected = format!("error: cannot connect to {address}: Connection refused");
        assert!(error.starts_with(&expected), "{error}");
    }
    let error = error_of(&[&["load", "nowhere"]]);
    assert!(error.starts_with("error: cannot look nowhere up: "), "{error}");
}

#[test]
fn an_address_of_something_else_is_told_from_a_server() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let server = thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut request = [0; 64];
        let _ = stream.read(&mut request);
        stream.write_all(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n").unwrap();
        // Until the client has seen enough.
        let _ = stream.read_to_end(&mut Vec::new());
    });
    let error = error_of(&[&["load", &address]]);
    assert!(error.starts_with(&format!("error: {address}")), "{error}");
    server.join().unwrap();

    let serve = Serve::start("ringcall");
    let error = error_of(&[&["load", &serve.address, "--target", "floor"]]);
    assert!(error.contains("does not echo"), "{error}");

    let serve = Serve::start("floor");
    let error = error_of(&[&["load", &serve.address, "--target", "server"]]);
    assert!(error.contains("does not echo (REQUEST 0.1 came back to call 0.1)"), "{error}");
}

#[test]
fn a_port_in_use_is_named() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    for target in ["ringcall", "floor"] {
        let error = error_of(&[&["serve", "--address", &address, "--target", target]]);
        assert!(error.contains(&format!("cannot listen on {address}")), "{error}");
    }
}

#[test]
fn an_interrupt_ends_a_run_with_the_code_that_shells_expect() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let mut child =
        perf(&["load", &address]).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    // It connects, so it watches for signals.
    let _stream = listener.accept().unwrap();
    signal_to(&child, Signal::INT);
    assert_eq!(child.wait().unwrap().code(), Some(130));
    let mut error = String::new();
    child.stderr.take().unwrap().read_to_string(&mut error).unwrap();
    assert!(error.ends_with("error: interrupted\n"), "{error}");
}

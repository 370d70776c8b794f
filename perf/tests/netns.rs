//! `netns` as it is run: what it measures, how it ends, and that nothing of it is left then.
//!
//! Needs root, iproute2 and a kernel that makes namespaces and devices; where one of these is
//! missing, the tests that need it say so and check nothing.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::{
    fs::{self, File},
    io::Read,
    net::{Ipv4Addr, UdpSocket},
    os::{
        fd::AsFd,
        unix::{fs::MetadataExt, process::CommandExt},
    },
    process::{self, Child, Command, Output, Stdio},
    sync::{
        atomic::{AtomicU32, Ordering},
        mpsc,
    },
    thread,
    time::{Duration, Instant},
};

use rustix::{
    process::{Pid, Signal, geteuid, kill_process},
    thread::{LinkNameSpaceType, move_into_link_name_space},
};
use serde_json::Value;

/// Time after which a test hangs, rather than being slow.
const PATIENCE: Duration = Duration::from_secs(60);

/// A load that ends only when it is told to.
const ENDLESS: [&str; 5] = ["--", "--connections", "1", "--duration", "10000s"];

/// The devices that a test needs.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Needs {
    Veth,
    Tun,
}

/// A `netns` that runs.
struct Run {
    child: Child,
}

/// The namespaces of a run, held so that what is in them can be told even when they are removed.
struct Held {
    server: File,
    client: File,
}

/// Whether what a test needs is there; says what is missing otherwise.
fn is_possible(needs: Needs) -> bool {
    static PROBES: AtomicU32 = AtomicU32::new(0);
    let number = PROBES.fetch_add(1, Ordering::Relaxed);
    let probe = format!("ringcall-probe-{}-{number}", process::id());
    let ip = |args: &[&str]| {
        let output = Command::new("ip").args(args).output();
        let output = output.map_err(|error| format!("cannot run `ip`: {error}"))?;
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        if output.status.success() { Ok(()) } else { Err(said) }
    };
    let device: &[&str] = match needs {
        Needs::Veth => &["link", "add", "type", "veth"],
        Needs::Tun => &["tuntap", "add", "dev", "probe", "mode", "tun"],
    };
    let outcome = match geteuid().is_root() {
        false => Err("it takes root".to_owned()),
        true => ip(&["netns", "add", &probe]).and_then(|()| {
            let made = ip(&[&["-n", &probe], device].concat());
            ip(&["netns", "del", &probe])?;
            made
        }),
    };
    if let Err(why) = &outcome {
        println!("skipped: {why}");
    }
    outcome.is_ok()
}

fn netns(args: &[&[&str]]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ringcall-perf"));
    command.arg("netns").args(args.concat()).stdin(Stdio::null());
    command
}

fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let begin = Instant::now();
    while !holds() {
        assert!(begin.elapsed() < PATIENCE, "not yet: {what}");
        thread::sleep(Duration::from_millis(5));
    }
}

fn stderr_of(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

/// What is in a pipe until its end, which comes when every process that has it is gone.
fn rest_of(mut pipe: impl Read + Send + 'static) -> Vec<u8> {
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        let mut rest = Vec::new();
        pipe.read_to_end(&mut rest).unwrap();
        sender.send(rest)
    });
    receiver.recv_timeout(PATIENCE).expect("a process of the run still has the pipe")
}

impl Run {
    fn start(args: &[&[&str]]) -> Self {
        Self::spawn(netns(args).stdout(Stdio::piped()).stderr(Stdio::piped()))
    }

    /// One that nobody listens to.
    fn start_quiet(args: &[&[&str]]) -> Self {
        Self::spawn(netns(args).stdout(Stdio::null()).stderr(Stdio::null()))
    }

    fn spawn(command: &mut Command) -> Self {
        Self { child: command.spawn().unwrap() }
    }

    /// Where the file of a namespace is.
    fn path(&self, side: &str) -> String {
        format!("/var/run/netns/ringcall-{}-{side}", self.child.id())
    }

    /// Waits until the load is connected to the server.
    fn connected(&mut self) -> Held {
        let mut held = None;
        until("the load is connected", || {
            assert_eq!(self.child.try_wait().unwrap(), None, "it has ended");
            let Ok(server) = File::open(self.path("server")) else { return false };
            let Ok(client) = File::open(self.path("client")) else { return false };
            let load = processes_in(&client).into_iter().next();
            held = Some(Held { server, client });
            load.is_some_and(has_connection)
        });
        held.unwrap()
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_raw(self.child.id().cast_signed()).unwrap(), signal).unwrap();
    }

    /// Waits for its end, after which no namespace is left.
    fn end(&mut self) -> Output {
        until("it ends", || self.child.try_wait().unwrap().is_some());
        let stdout = self.child.stdout.take().map(rest_of).unwrap_or_default();
        let stderr = self.child.stderr.take().map(rest_of).unwrap_or_default();
        for side in ["server", "client"] {
            assert!(!fs::exists(self.path(side)).unwrap(), "its namespace is left");
        }
        Output { status: self.child.wait().unwrap(), stdout, stderr }
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        // Only where a test has failed does it still run.
        if matches!(self.child.try_wait(), Ok(None)) {
            self.signal(Signal::TERM);
            self.signal(Signal::TERM);
            let _ = self.child.wait();
        }
    }
}

impl Held {
    fn processes(&self) -> Vec<u32> {
        [processes_in(&self.server), processes_in(&self.client)].concat()
    }

    fn assert_empty(&self) {
        let left = self.processes();
        assert!(left.is_empty(), "{left:?} still run");
    }
}

/// The processes in a namespace; those that have ended and wait for their parent are in none.
fn processes_in(namespace: &File) -> Vec<u32> {
    let wanted = format!("net:[{}]", namespace.metadata().unwrap().ino());
    let entries = fs::read_dir("/proc").unwrap().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    pids.filter(|pid| {
        let found = fs::read_link(format!("/proc/{pid}/ns/net"));
        found.is_ok_and(|found| found.to_str() == Some(&wanted))
    })
    .collect()
}

/// Whether a connection is established where a process is.
fn has_connection(pid: u32) -> bool {
    const ESTABLISHED: &str = "01";
    let table = fs::read_to_string(format!("/proc/{pid}/net/tcp")).unwrap_or_default();
    table.lines().any(|line| line.split_whitespace().nth(3) == Some(ESTABLISHED))
}

/// Does something within a namespace.
fn within<T: Send>(namespace: &File, what: impl FnOnce() -> T + Send) -> T {
    let body = || {
        move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network)).unwrap();
        what()
    };
    thread::scope(|scope| scope.spawn(body).join().unwrap())
}

/// Sends datagrams that name their number from the client's namespace, a hundred at a time, and
/// gives their numbers as they come to the server's. Ends only when all have come.
fn datagrams(held: &Held, count: u32) -> Vec<u32> {
    let bind = |last| move || UdpSocket::bind((Ipv4Addr::new(198, 18, 0, last), 0)).unwrap();
    let receiver = within(&held.server, bind(1));
    let sender = within(&held.client, bind(2));
    receiver.set_read_timeout(Some(PATIENCE)).unwrap();
    sender.connect(receiver.local_addr().unwrap()).unwrap();
    let mut numbers = Vec::new();
    while numbers.len() < count as usize {
        let next = u32::try_from(numbers.len()).unwrap();
        for number in next..next + 100 {
            sender.send(&number.to_le_bytes()).unwrap();
        }
        for _ in 0..100 {
            let mut number = [0; 4];
            receiver.recv(&mut number).unwrap();
            numbers.push(u32::from_le_bytes(number));
        }
    }
    numbers
}

/// A whole run with JSON; what is measured is longer where no call was answered in it.
fn measured(args: &[&str], load_args: &[&str]) -> (Value, String) {
    let mut milliseconds = 200;
    loop {
        let duration = format!("{milliseconds}ms");
        let fixed = ["--", "--json", "-", "--warmup", "10ms", "--duration", &duration];
        let output = Run::start(&[args, &fixed, load_args]).end();
        let said = stderr_of(&output);
        if !said.contains("take a longer one") {
            assert_eq!(output.status.code(), Some(0), "{said}");
            return (serde_json::from_slice(&output.stdout).unwrap(), said);
        }
        milliseconds *= 2;
    }
}

#[test]
fn a_run_across_veth_gives_what_the_load_measured() {
    if !is_possible(Needs::Veth) {
        return;
    }
    for target in ["ringcall", "floor"] {
        let (document, said) = measured(&[], &["--target", target, "--connections", "2"]);
        let run = &document["runs"][0];
        assert_eq!(run["target"], target);
        assert!(run["calls"].as_u64().unwrap() > 0);
        assert_eq!(run["errors"], 0);
        assert!(said.contains("connections_accepted"), "{said}");
        assert!(!said.contains("link "), "{said}");
    }
}

#[test]
fn a_rate_limits_what_the_load_gets_through() {
    if !is_possible(Needs::Veth) {
        return;
    }
    // A thousand bytes and more a call, each way: a hundred and twenty a second, and what the
    // filter lets through at once. Without a limit there are thousands.
    let load_args = ["--connections", "4", "--size", "1KiB"];
    let output = Run::start(&[&["--rate", "1mbit", "--"], &load_args, &["--json", "-"]]).end();
    let said = stderr_of(&output);
    if said.contains("modprobe sch_tbf") {
        return println!("skipped: {said}");
    }
    let document: Value = serde_json::from_slice(&output.stdout).unwrap();
    let calls_per_s = document["runs"][0]["calls_per_s"].as_f64().unwrap();
    assert!(calls_per_s > 0.0 && calls_per_s < 500.0, "{calls_per_s}");
}

#[test]
fn a_signal_in_the_middle_ends_both_sides_and_leaves_nothing() {
    for (needs, flags) in [(Needs::Veth, &[][..]), (Needs::Tun, &["--delay", "100us"])] {
        if !is_possible(needs) {
            continue;
        }
        for signal in [Signal::INT, Signal::TERM] {
            let mut run = Run::start(&[flags, &ENDLESS]);
            let held = run.connected();
            assert_eq!(held.processes().len(), 2);
            run.signal(signal);
            let output = run.end();
            // As the load ends by itself when it is interrupted.
            assert_eq!(output.status.code(), Some(130));
            assert!(stderr_of(&output).contains("error: interrupted\n"));
            held.assert_empty();
        }
    }
}

#[test]
fn signals_that_follow_each_other_at_once_leave_nothing_either() {
    if !is_possible(Needs::Veth) {
        return;
    }
    let mut run = Run::start(&[&ENDLESS]);
    let held = run.connected();
    for _ in 0..5 {
        run.signal(Signal::INT);
    }
    assert_eq!(run.end().status.code(), Some(130));
    held.assert_empty();
}

#[test]
fn a_signal_at_any_moment_of_the_start_leaves_nothing() {
    if !is_possible(Needs::Veth) {
        return;
    }
    // The moments are those at which something that can be seen has just come to be.
    let seen: [fn(&Run) -> bool; 3] = [
        |run| fs::exists(run.path("server")).unwrap(),
        |run| fs::exists(run.path("client")).unwrap(),
        |run| File::open(run.path("server")).is_ok_and(|net| !processes_in(&net).is_empty()),
    ];
    for is_seen in seen {
        let mut run = Run::start(&[&ENDLESS]);
        until("something is there", || is_seen(&run));
        run.signal(Signal::INT);
        let output = run.end();
        assert_eq!(output.status.code(), Some(130), "{}", stderr_of(&output));
    }
}

#[test]
fn a_side_that_dies_ends_the_run_and_is_named() {
    if !is_possible(Needs::Veth) {
        return;
    }
    for (side, expected) in [
        ("server", "error: the server ended before the load did, with signal: 9 (SIGKILL)"),
        ("client", "error: the load was ended, with signal: 9 (SIGKILL)"),
    ] {
        let mut run = Run::start(&[&ENDLESS]);
        let held = run.connected();
        let dies = processes_in(if side == "server" { &held.server } else { &held.client });
        let [pid] = dies[..] else { panic!("{dies:?} run on the side of the {side}") };
        kill_process(Pid::from_raw(pid.cast_signed()).unwrap(), Signal::KILL).unwrap();
        let output = run.end();
        assert_eq!(output.status.code(), Some(1));
        assert_eq!(stderr_of(&output).lines().last(), Some(expected));
        held.assert_empty();
    }
}

#[test]
fn a_link_that_is_taken_away_ends_the_run_and_is_named() {
    if !is_possible(Needs::Tun) {
        return;
    }
    let mut run = Run::start(&[&["--delay", "100us"], &ENDLESS]);
    let held = run.connected();
    let name = format!("ringcall-{}-client", run.child.id());
    let status = Command::new("ip").args(["-n", &name, "link", "del", "link0"]).status().unwrap();
    assert!(status.success());
    let output = run.end();
    assert_eq!(output.status.code(), Some(1));
    let said = stderr_of(&output);
    let error = said.lines().last().unwrap();
    assert!(error.starts_with("error: the emulated link failed: "), "{error}");
    held.assert_empty();
}

#[test]
fn what_a_killed_run_left_is_removed_by_the_next() {
    if !is_possible(Needs::Veth) {
        return;
    }
    let mut killed = Run::start_quiet(&[&ENDLESS]);
    let held = killed.connected();
    killed.signal(Signal::KILL);
    killed.child.wait().unwrap();
    // A run in another test may have removed it already.
    measured(&[], &["--connections", "1"]);
    killed.end();
    until("its processes are gone", || held.processes().is_empty());
}

#[test]
fn an_error_of_the_load_is_passed_on_and_leaves_nothing() {
    if !is_possible(Needs::Veth) {
        return;
    }
    // The first is seen before anything is made, the others by the load and the server.
    for (args, status, expected) in [
        (&["--", "--nothing"][..], 2, "unexpected argument '--nothing'"),
        (&["--", "--client-cores", "1000"], 1, "core 1000 is not there for this process"),
        (&["--", "--json", "/nowhere/at/all.json"], 1, "cannot write /nowhere/at/all.json"),
        (&["--server-args", "--cores 1000"], 1, "the server ended before it served, with exit"),
    ] {
        let output = Run::start(&[args]).end();
        let said = stderr_of(&output);
        assert_eq!(output.status.code(), Some(status), "{said}");
        assert!(said.contains(expected), "{args:?}: {said}");
        assert!(output.stdout.is_empty());
    }
}

#[test]
fn a_link_with_nothing_but_a_delay_delivers_everything_in_order() {
    if !is_possible(Needs::Tun) {
        return;
    }
    let mut run = Run::start(&[&["--delay", "300us"], &ENDLESS]);
    let held = run.connected();
    assert_eq!(datagrams(&held, 2_000), (0..2_000).collect::<Vec<_>>());
    run.signal(Signal::INT);
    let said = stderr_of(&run.end());
    for direction in ["link server → client: ", "link client → server: "] {
        let line = said.lines().find_map(|line| line.strip_prefix(direction)).unwrap();
        let (packets, rest) = line.split_once(" packets, ").unwrap();
        assert!(packets.parse::<u64>().unwrap() > 0);
        let nothing = "0 lost, 0 dropped by the full queue, 0 by the full device, 0 held back, \
                       0 overtaken; delay ";
        let delays = rest.strip_prefix(nothing).unwrap_or_else(|| panic!("{line}"));
        // None is delivered early; how late they are is for the machine to say.
        let min_us: f64 = delays.split_once(' ').unwrap().0.parse().unwrap();
        assert!(min_us >= 300.0, "{line}");
    }
}

#[test]
fn a_link_that_reorders_delivers_everything_in_another_order() {
    if !is_possible(Needs::Tun) {
        return;
    }
    let flags = ["--delay", "5ms", "--jitter", "1ms", "--reorder", "10%"];
    let mut run = Run::start(&[&flags, &ENDLESS]);
    let held = run.connected();
    let mut numbers = datagrams(&held, 2_000);
    assert!(!numbers.is_sorted());
    numbers.sort_unstable();
    assert_eq!(numbers, (0..2_000).collect::<Vec<_>>());
    run.signal(Signal::TERM);
    run.end();
}

#[test]
fn a_load_across_a_bad_link_loses_no_call() {
    if !is_possible(Needs::Tun) {
        return;
    }
    let flags = ["--delay", "200us", "--jitter", "100us", "--loss", "1%", "--reorder", "5%"];
    let (document, said) = measured(&flags, &["--connections", "4", "--depth", "2"]);
    assert_eq!(document["runs"][0]["errors"], 0, "{said}");
    assert!(said.contains("link server → client: "), "{said}");
}

#[test]
fn a_link_that_loses_everything_fails_the_load_with_what_it_waited_for() {
    if !is_possible(Needs::Tun) {
        return;
    }
    for target in ["ringcall", "floor"] {
        let output = Run::start(&[&["--loss", "100%", "--", "--target", target]]).end();
        let said = stderr_of(&output);
        assert_eq!(output.status.code(), Some(1), "{said}");
        let error = said.lines().find(|line| line.starts_with("error: ")).unwrap();
        assert!(error.contains("198.18.0.1:7000"), "{error}");
        let line = said.lines().find(|line| line.starts_with("link client → server: ")).unwrap();
        let count = |name| {
            let before = line.split_once(name).unwrap().0;
            before.rsplit(' ').next().unwrap().parse::<u64>().unwrap()
        };
        assert!(count(" packets") > 0 && count(" packets") == count(" lost"), "{line}");
    }
}

#[test]
fn without_root_it_says_what_to_do() {
    let mut command = netns(&[]);
    if geteuid().is_root() {
        command.uid(65534);
    }
    match command.output() {
        Ok(output) => {
            assert_eq!(output.status.code(), Some(1));
            let expected = "error: network namespaces are made by root alone: run it with sudo\n";
            assert_eq!(stderr_of(&output), expected);
        }
        Err(error) => println!("skipped: others may not run the program: {error}"),
    }
}

#[test]
fn without_iproute2_it_says_what_to_install() {
    if !geteuid().is_root() {
        return println!("skipped: it takes root");
    }
    let output = netns(&[]).env("PATH", "/nowhere/at/all").output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let said = stderr_of(&output);
    assert!(said.starts_with("error: cannot run `ip`: "), "{said}");
    assert!(said.ends_with("; the package iproute2 has it\n"), "{said}");
}

#[test]
fn the_help_of_the_load_is_shown_after_the_dashes() {
    let output = netns(&[&["--", "--help"]]).output().unwrap();
    assert_eq!(output.status.code(), Some(0));
    let help = String::from_utf8(output.stdout).unwrap();
    assert!(help.contains("Usage: ringcall-perf load"), "{help}");
}

#[test]
fn what_cannot_be_is_refused_with_the_flag_that_says_it() {
    for (flag, value) in [
        ("--rate", "1"),
        ("--delay", "1"),
        ("--jitter", "1ms"),
        ("--loss", "101%"),
        ("--reorder", "1"),
        ("--seed", "x"),
    ] {
        let output = netns(&[&[flag, value]]).output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{flag} {value}");
        assert!(stderr_of(&output).contains(flag), "{flag} {value}: {}", stderr_of(&output));
    }
}

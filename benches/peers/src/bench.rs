//! Runs every workload on every system, one after the other, and reports.
//!
//! The systems of a workload follow each other, so that what is compared is near in time; with
//! repeats, everything is run once before anything is run again.

use std::{sync::mpsc::channel, thread, time::Duration};

use ringcall_perf::{
    generator::Clock,
    host::{self, Host},
};

use crate::{
    args::Args,
    client::ClientThread,
    cores,
    cpu::Sample,
    error::Failure,
    measure::Run,
    peers::System,
    report::{Report, ReportSink},
    server::Server,
    workload::{Window, Workload},
};

/// Measures what is asked for, and writes it down.
pub(crate) fn bench(args: &Args) -> Result<(), Failure> {
    cores::check(args.server_core, args.client_core)?;
    let systems = args.systems();
    if args.rate.is_some() && !systems.iter().all(|system| system.has_calls()) {
        return Err(Failure::NoOpenLoop);
    }
    if cfg!(debug_assertions) {
        eprintln!("warning: this is a debug build: its figures mean nothing; use --release");
    }
    let sink = ReportSink::open(args.json.as_deref())?;
    host::raise_file_limit();
    let host = Host::describe();
    let mut repeats = Vec::new();
    for _ in 0..args.repeat {
        let mut runs = Vec::new();
        for workload in args.workloads() {
            for system in &systems {
                runs.push(measure_one(args, *system, workload)?);
            }
        }
        repeats.push(runs);
    }
    let report = Report::new(host, &repeats);
    sink.write(&report)?;
    match report.runs.iter().find(|run| run.errors > 0) {
        Some(Run { system, errors: count, first_error, .. }) => {
            let first = first_error.clone().unwrap_or_default();
            Err(Failure::CallsFailed { system: *system, count: *count, first })
        }
        None => Ok(()),
    }
}

fn measure_one(args: &Args, system: System, workload: Workload) -> Result<Run, Failure> {
    let server = Server::start(system, Some(args.server_core), workload)?;
    let (ready, is_ready) = channel();
    let (open, opens) = channel();
    let thread = ClientThread {
        system,
        address: server.address(),
        core: Some(args.client_core),
        workload,
        rate: args.rate,
        ready,
        opens,
    };
    let name = format!("client {system}");
    let client = thread::Builder::new().name(name).spawn(move || {
        let figures = (system.sides().call)(&thread)?;
        // A thread that has ended has no CPU time to be read: it stays until it was sampled.
        let _ = thread.opens.recv();
        Ok(figures)
    });
    let client = client.map_err(|source| Failure::Start { system, side: "client", source })?;
    let panicked = Failure::Panicked { system, side: "client" };
    if is_ready.recv().is_err() {
        let failed = client.join().unwrap_or(Err(panicked)).err();
        // Why the server failed says more than what the client saw of it.
        server.stop()?;
        return Err(failed.unwrap_or(Failure::NoCalls { system, workload: workload.to_string() }));
    }
    let clock = Clock::new();
    let window = Window::after(&clock, args.warmup, args.duration);
    // A thread that is gone tells why when it is joined.
    let _ = open.send(window);
    sleep_until(&clock, window.start_ns);
    let before = sample(args);
    sleep_until(&clock, window.end_ns);
    let after = sample(args);
    drop(open);
    let figures = client.join().unwrap_or(Err(panicked));
    server.stop()?;
    let [server_load, client_load] = [0, 1].map(|side| after[side].load_since(&before[side]));
    Run::of(system, workload, figures?, server_load, client_load)
}

/// What the server's core and the client's have been used for up to now.
fn sample(args: &Args) -> [Sample; 2] {
    [args.server_core, args.client_core].map(Sample::of_core)
}

fn sleep_until(clock: &Clock, time_ns: u64) {
    thread::sleep(Duration::from_nanos(time_ns.saturating_sub(clock.now_ns())));
}

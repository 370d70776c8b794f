//! The latency harness of ringcall: measures what a call costs and how long it takes, beside a floor.
//!
//! Targets under the same load: ringcall through its public client, and `floor`, a raw
//! io_uring echo of the same bytes on the same ring and buffers. What a figure of ringcall is worth
//! is its ratio to the floor's, measured in the same run. A third, `server`, is ringcall's server
//! under the floor's client: its CPU time per call under the load that the floor has, whereas
//! under ringcall's own client it is also a matter of how fast that client is.
//!
//! The path of a run, one file each: `args` (and `parse`, `trace`, `cores`, `workload`) say what to
//! run; `bench`, `serve` and `load` run it; `server`, `client` and `floor` are the two sides of the
//! systems that `target` names; `gate` is what the threads of a run tell each other, [`generator`]
//! what makes and records a load; `course` decides when a run has warmed up and when it may end;
//! `cost` and `idle` read beside it what calls and idle connections cost, of `threads` and of this
//! process, and `core_load` what each core was used for; `measure` makes figures of it; `host` and `report` write them down. `sweep` runs at rate after rate, and
//! `compare` two builds in turn. `selftest` shows that they
//! are true of a server that stops; `netns` runs a `serve` and a `load` with a link of its own
//! between them; `doctor` reads what of this host is in the way, and `tune` finds the settings that
//! suit a load (`verdict` says what differs, for it and for `compare`); `probe` makes single calls
//! and says where the time of each went. `top` shows a server that
//! runs.

mod allocations;
mod args;
mod bench;
mod client;
mod compare;
mod core_load;
pub mod cores;
mod cost;
mod course;
mod doctor;
mod error;
mod extras;
mod floor;
mod gate;
pub mod generator;
pub mod host;
mod idle;
mod interrupt;
mod lengths;
mod load;
mod measure;
mod netns;
mod parse;
mod probe;
mod progress;
mod report;
mod selftest;
mod series;
mod serve;
mod server;
mod sweep;
mod target;
pub mod threads;
mod top;
mod trace;
mod tune;
mod verdict;
pub mod workload;

use std::process::ExitCode;

use clap::Parser;

#[cfg(feature = "count-allocations")]
pub use crate::allocations::COUNTING_ALLOCATOR;

use crate::{
    args::{Cli, Command},
    error::Failure,
};

/// Runs the program `ringcall-perf` with the arguments of this process.
pub fn run() -> ExitCode {
    let cli = Cli::parse();
    let done = |()| ExitCode::SUCCESS;
    let outcome = match cli.command {
        None => bench::bench(&cli.bench).map(done),
        Some(Command::Bench(args)) => bench::bench(&args).map(done),
        Some(Command::Load(args)) => bench::load(&args).map(done),
        Some(Command::Serve(args)) => serve::serve(&args).map(done),
        Some(Command::Sweep(args)) => sweep::sweep(&args).map(done),
        Some(Command::Compare(args)) => compare::compare(&args).map(done),
        Some(Command::Selftest(args)) => selftest::selftest(&args).map(done),
        Some(Command::Stages(args)) => probe::stages(&args).map(done),
        Some(Command::Doctor(args)) => doctor::doctor(&args),
        Some(Command::Tune(args)) => tune::tune(&args).map(done),
        Some(Command::Top(args)) => top::top(&args).map(done),
        Some(Command::Netns(args)) => netns::netns(&args),
    };
    match outcome {
        Ok(code) => code,
        // As clap says it where the command line itself is wrong; help is no error.
        Err(Failure::Usage(error)) => error.exit(),
        Err(failure) => {
            eprintln!("error: {failure}");
            match failure {
                // What a shell reports of a program that SIGINT ended.
                Failure::Interrupted => ExitCode::from(130),
                _ => ExitCode::FAILURE,
            }
        }
    }
}

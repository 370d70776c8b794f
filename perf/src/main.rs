//! ringcall-perf: measures what a call costs and how long it takes, beside a floor.
//!
//! Targets under the same closed loop: ringcall through its public client, and `floor`, a raw
//! io_uring echo of the same bytes on the same ring and buffers. What a figure of ringcall is worth
//! is its ratio to the floor's, measured in the same run. A third, `server`, is ringcall's server
//! under the floor's client: its CPU time per call under the load that the floor has, whereas
//! under ringcall's own client it is also a matter of how fast that client is.
//!
//! The path of a run, one file each: `args` (and `parse`, `cores`, `workload`) say what to run;
//! `bench`, `serve` and `load` run it; `server` and `load` start the two sides on their cores;
//! `target` and `floor` are the two systems that are measured; `window` and `measure` take the
//! figures; `host` and `report` write them down. `probe` makes single calls and says where the
//! time of each goes.

mod args;
mod bench;
mod cores;
mod error;
mod floor;
mod host;
mod interrupt;
mod load;
mod measure;
mod parse;
mod probe;
mod progress;
mod report;
mod serve;
mod server;
mod stream;
mod target;
mod window;
mod workload;

use std::process::ExitCode;

use clap::Parser;

use crate::{
    args::{Cli, Command},
    error::Failure,
};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let cli = Cli::parse();
    let outcome = match cli.command {
        None => bench::bench(&cli.bench),
        Some(Command::Bench(args)) => bench::bench(&args),
        Some(Command::Load(args)) => bench::load(&args),
        Some(Command::Serve(args)) => serve::serve(&args),
        Some(Command::Stages(args)) => probe::stages(&args),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
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

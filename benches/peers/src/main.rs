//! ringcall-peers: the workload of ringcall-perf on other RPC systems, measured alike.
//!
//! An echo of as many bytes each way, server and client on a core of their own, over loopback.
//! The path of a run, one file each: `args` and `workload` say what to run; `bench` runs it;
//! `server` and `client` are the two sides on their cores; `peers/` has the systems, a file each,
//! behind one trait; `cpu` and `measure` take the figures; `report` writes them down. `generated` is
//! what the schema compilers wrote. The load generator is ringcall-perf's own: the same clock, the
//! same arrivals, the same record of what calls took.

#![forbid(unsafe_code)]

mod args;
mod bench;
mod client;
mod cores;
mod cpu;
mod error;
mod generated;
mod measure;
mod peers;
mod report;
mod server;
mod workload;

use std::{process::ExitCode, sync::Arc};

use clap::Parser;
use signal_hook::{
    consts::{SIGINT, SIGTERM},
    flag,
};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let args = match args::Args::try_parse() {
        Ok(args) => args,
        Err(error) if error.use_stderr() => {
            eprintln!("{}", args::one_line(&error));
            return ExitCode::FAILURE;
        }
        // What was asked for is the help, or the version.
        Err(text) => text.exit(),
    };
    // volo's server listens for signals, and what tokio does for it outlives that server. This
    // comes first: a signal ends the process.
    for signal in [SIGINT, SIGTERM] {
        let always = Arc::new(true.into());
        if let Err(error) = flag::register_conditional_shutdown(signal, 128 + signal, always) {
            eprintln!("error: cannot watch for Ctrl-C: {error}");
            return ExitCode::FAILURE;
        }
    }
    match bench::bench(&args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("error: {failure}");
            ExitCode::FAILURE
        }
    }
}

//! The probe: one call at a time at a low rate, each taken apart into where its time went.
//!
//! It has a thread and a connection of its own, so that its calls queue behind nobody's here: what
//! they meet at the server is what a caller of that moment meets. It speaks the protocol with the
//! codec on a plain socket, as that is where the kernel's timestamps are to be had; the server
//! tells its own two times beside each reply.
//!
//! The path of a run, one file each: `command` is `ringcall-perf stages`; `pace` says when the
//! calls are to be made; `caller` makes one, over `socket` (bytes and timestamps) and `clock`;
//! `stages` takes its times apart and keeps a histogram of each; `table` prints them.

mod caller;
mod clock;
mod command;
mod pace;
mod socket;
mod stages;
mod table;

use std::{io, net::SocketAddr, time::Duration};

use self::{caller::Caller, clock::now_ns, pace::Pace, stages::Recorder};
pub(crate) use self::{
    command::stages,
    stages::{Stage, Stages},
    table::table,
};
use crate::{cores, error::Failure, target::Target};

/// What a probe does.
#[derive(Clone, Debug)]
pub(crate) struct Probe {
    /// A ringcall server of the benchmark's echo.
    pub(crate) address: SocketAddr,
    /// Core of its thread.
    pub(crate) core: usize,
    /// Calls a second.
    pub(crate) rate: u32,
    /// Length of a body each way, in bytes.
    pub(crate) size: u32,
    /// Time before the one that is measured.
    pub(crate) warmup: Duration,
    /// Time that is measured.
    pub(crate) duration: Duration,
}

impl Probe {
    /// Connects on this thread, which it pins, and makes calls until the time is over or `is_over`
    /// says so, which is asked before each call.
    pub(crate) fn run(&self, is_over: impl Fn() -> bool) -> Result<Stages, Failure> {
        cores::pin(self.core).map_err(|source| Failure::Pin { core: self.core, source })?;
        clock::sharpen_timers();
        let mut caller = Caller::connect(self.address, self.size)?;
        let mut recorder = Recorder::new()?;
        let start_ns = now_ns();
        let measured_ns = start_ns + clock::nanos(self.warmup);
        let end_ns = measured_ns + clock::nanos(self.duration);
        let mut pace = Pace::new(start_ns, self.rate);
        loop {
            let intended_ns = pace.next_ns();
            if intended_ns >= end_ns || is_over() {
                break;
            }
            clock::sleep_until(intended_ns);
            let times = caller.call(intended_ns).map_err(|source| no_echo(self.address, source))?;
            if intended_ns >= measured_ns {
                recorder.record(&times);
            }
        }
        Ok(recorder.finish(caller.no_stamps()))
    }
}

fn no_echo(address: SocketAddr, source: io::Error) -> Failure {
    Failure::NoEcho { address, target: Target::Ringcall, source }
}

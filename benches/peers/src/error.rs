//! Why a run ends without figures: one clear line each.

use std::{io, path::PathBuf};

use ringcall_perf::generator::CreationError;

use crate::peers::{PeerError, System};

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    #[error("core {core} is not there for this process, which may use {available}")]
    NoSuchCore { core: usize, available: String },
    #[error("server and client are both on core {core}: name two different cores")]
    SameCore { core: usize },
    #[error("cannot tell which cores there are: {0}")]
    Cores(io::Error),
    #[error("cannot pin a thread to core {core}: {source}")]
    Pin { core: usize, source: io::Error },
    #[error("epoll is a floor and has no calls to make at a rate: leave out --rate or epoll")]
    NoOpenLoop,
    #[error("cannot write {}: {source}", path.display())]
    Json { path: PathBuf, source: io::Error },
    #[error("cannot write to standard output: {0}")]
    Output(io::Error),
    #[error("the {system} {side} cannot start: {source}")]
    Start { system: System, side: &'static str, source: io::Error },
    #[error("the {system} {side} failed: {source}")]
    Peer { system: System, side: &'static str, source: PeerError },
    #[error("the {system} {side} panicked")]
    Panicked { system: System, side: &'static str },
    #[error("no call of {workload} on {system} was answered in the time that is measured")]
    NoCalls { system: System, workload: String },
    #[error("{count} calls of {system} failed, the first with: {first}")]
    CallsFailed { system: System, count: u64, first: String },
    #[error("cannot make a histogram: {0}")]
    Histogram(#[from] CreationError),
}

//! Why there is no run between namespaces: one clear line each, with what to do.

use std::{io, process::ExitStatus, time::Duration};

/// Why a run between two namespaces failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NetnsError {
    #[error("a jitter of {jitter:?} is more than the delay of {delay:?} that it varies")]
    JitterExceedsDelay { jitter: Duration, delay: Duration },
    #[error("network namespaces are made by root alone: run it with sudo")]
    NotRoot,
    #[error("cannot run `{command}`: {source}; the package iproute2 has it")]
    NoCommand { command: &'static str, source: io::Error },
    #[error("`{command}` failed: {said}; {cure}")]
    Refused { command: String, said: String, cure: &'static str },
    #[error("cannot enter the network namespace {name}: {source}")]
    Enter { name: String, source: io::Error },
    #[error(
        "cannot open a TUN device: {0}; `modprobe tun` makes /dev/net/tun where it is missing, and \
         a container must have that file and the right to use it (CAP_NET_ADMIN)"
    )]
    Tun(io::Error),
    #[error("cannot start the {what}: {source}")]
    Start { what: &'static str, source: io::Error },
    #[error("cannot wait for the {what}: {source}")]
    Wait { what: &'static str, source: io::Error },
    #[error("the server ended before it served, with {0}")]
    NotServing(ExitStatus),
    #[error("the server did not serve within {} s", within.as_secs())]
    Silent { within: Duration },
    #[error("the server ended before the load did, with {0}")]
    ServerEnded(ExitStatus),
    #[error("the server failed when it was told to end, with {0}")]
    ServerFailed(ExitStatus),
    #[error("the load was ended, with {0}")]
    LoadKilled(ExitStatus),
    #[error("the emulated link failed: {0}")]
    Link(io::Error),
    #[error("the thread of the emulated link panicked")]
    LinkPanicked,
}

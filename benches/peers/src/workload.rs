//! A workload: how many connections, how many calls in flight on each, how long the bodies.

use std::{fmt, time::Duration};

use ringcall_perf::{generator::Clock, workload::size_text};

/// Most connections of a run; the limit on open files may be lower.
pub(crate) const CONNECTIONS_MAX: i64 = 4096;

/// Most calls in flight on a connection.
pub(crate) const DEPTH_MAX: i64 = 1024;

/// Longest body in bytes. Systems that limit a message get a limit above it.
pub(crate) const SIZE_MAX: i64 = 4 << 20;

/// Room for what a system adds to a body, in bytes, where it limits whole messages.
const OVERHEAD_MAX: usize = 1 << 10;

/// What is called, and how much of it at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Workload {
    pub(crate) connections: u32,
    /// Calls in flight on each connection; with calls at a rate, the most of them.
    pub(crate) depth: u32,
    /// Bytes of a body, each way: those that the caller gives, without what a system adds.
    pub(crate) size: u32,
}

impl Workload {
    /// Those that run when none is asked for.
    pub(crate) const STANDARD: [Self; 5] = [
        Self { connections: 64, depth: 1, size: 64 },
        Self { connections: 64, depth: 16, size: 64 },
        Self { connections: 8, depth: 128, size: 64 },
        Self { connections: 64, depth: 1, size: 4 * 1024 },
        Self { connections: 8, depth: 1, size: 60 * 1024 },
    ];

    /// Bytes of a body.
    pub(crate) fn body_len(self) -> usize {
        self.size as usize
    }

    /// The limit on a message, in bytes, for systems that have one.
    pub(crate) fn message_len_max(self) -> usize {
        self.body_len() + OVERHEAD_MAX
    }
}

impl fmt::Display for Workload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { connections, depth, size } = self;
        write!(f, "{connections}×{depth} {}", size_text(*size))
    }
}

/// The time that is measured, by the generator's clock.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Window {
    pub(crate) start_ns: u64,
    pub(crate) end_ns: u64,
}

impl Window {
    pub(crate) fn after(clock: &Clock, warmup: Duration, duration: Duration) -> Self {
        // A run lasts for an hour at most (`args`).
        let start_ns = clock.now_ns() + warmup.as_nanos() as u64;
        Self { start_ns, end_ns: start_ns + duration.as_nanos() as u64 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_workload_is_written_as_people_do() {
        let texts = Workload::STANDARD.map(|workload| workload.to_string());
        assert_eq!(texts, ["64×1 64 B", "64×16 64 B", "8×128 64 B", "64×1 4 KiB", "8×1 60 KiB"]);
    }
}

//! Connections that are held beside a load and carry nothing: what each of them costs.
//!
//! They are opened once everything else of a run is ready, so that what the process grows by is
//! theirs. Then the server has nothing but them for a while, and its CPU time in it is theirs as
//! well.

use std::{
    fs,
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, Instant},
};

use serde::Serialize;

use crate::{
    error::Failure,
    generator::median,
    threads::{self, Threads},
};

/// Time for which the server has nothing but idle connections.
pub(crate) const ALONE_FOR: Duration = Duration::from_secs(2);

/// Files that a run opens besides connections: rings, eventfds and timers of each thread, at most.
const FILES_PER_THREAD: u64 = 16;

/// Whether idle connections were held in this process before. The allocator keeps what those had
/// and gives it to the next, so that the process does not grow by what these take.
static HELD_BEFORE: AtomicBool = AtomicBool::new(false);

/// What idle connections cost.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(crate) struct IdleFigures {
    pub(crate) connections: u32,
    /// Ends of each connection in this process: both, or the client's where the server is another.
    pub(crate) ends: u32,
    /// Anonymous memory of this process that came with each connection, with its ends in this
    /// process together. None where it cannot be told: where the kernel does not say, and for runs
    /// after the first in a process, which use memory again.
    pub(crate) bytes_each: Option<f64>,
    /// CPU time of the server's threads with nothing but idle connections, as a part of the time
    /// that passed. None where the server is another process.
    pub(crate) server_cpu_share: Option<f64>,
}

/// The opening of idle connections, with what there was before.
pub(crate) struct Opening {
    bytes_before: Option<u64>,
}

/// Idle connections with which the server is alone.
pub(crate) struct Alone {
    bytes_each: Option<f64>,
    server: Option<(Threads, Option<u64>)>,
    since: Instant,
}

impl Opening {
    pub(crate) fn begin() -> Self {
        let is_first = !HELD_BEFORE.swap(true, Ordering::Relaxed);
        Self { bytes_before: is_first.then(anonymous_bytes).flatten() }
    }

    /// That so many connections are open now.
    pub(crate) fn end(self, connections: u32, is_server_here: bool) -> Alone {
        let grown = self.bytes_before.zip(anonymous_bytes());
        let grown = grown.map(|(before, after)| after.saturating_sub(before));
        let server = is_server_here.then(|| Threads::named(threads::SERVER));
        Alone {
            bytes_each: grown.map(|bytes| bytes as f64 / f64::from(connections)),
            server: server.map(|threads| (threads.clone(), threads.cpu_ns())),
            since: Instant::now(),
        }
    }
}

impl Alone {
    /// Whether the server has had nothing else for long enough. Where it is another process there
    /// is nothing to wait for.
    pub(crate) fn is_over(&self) -> bool {
        self.server.is_none() || self.since.elapsed() >= ALONE_FOR
    }

    pub(crate) fn end(self, connections: u32) -> IdleFigures {
        let passed = self.since.elapsed();
        let ends = if self.server.is_some() { 2 } else { 1 };
        let cpu_ns = self.server.and_then(|(threads, before)| Some(threads.cpu_ns()? - before?));
        IdleFigures {
            connections,
            ends,
            bytes_each: self.bytes_each,
            server_cpu_share: cpu_ns.map(|ns| ns as f64 / passed.as_nanos() as f64),
        }
    }
}

impl IdleFigures {
    /// The median of each figure over the repeats that have it.
    pub(crate) fn of_repeats(repeats: impl Iterator<Item = Option<Self>>) -> Option<Self> {
        let repeats: Vec<Self> = repeats.collect::<Option<_>>()?;
        let mid = |figure: fn(&Self) -> Option<f64>| {
            let figures: Vec<f64> = repeats.iter().filter_map(figure).collect();
            (!figures.is_empty()).then(|| median(figures))
        };
        Some(Self {
            bytes_each: mid(|it| it.bytes_each),
            server_cpu_share: mid(|it| it.server_cpu_share),
            ..*repeats.first()?
        })
    }
}

/// Idle connections of one client thread of several: as many as of any other, or one more.
pub(crate) fn share(connections: u32, thread: usize, threads: usize) -> u32 {
    let (thread, threads) = (thread as u32, threads.max(1) as u32);
    connections / threads + u32::from(thread < connections % threads)
}

/// Refuses more idle connections than this process may have files open for.
///
/// `connections` are those of the load, `ends` those of each connection in this process, `threads`
/// those that serve and call.
pub(crate) fn check_files(
    (idle, connections): (u32, u32),
    ends: u64,
    threads: u64,
    files_max: u64,
) -> Result<(), Failure> {
    // Those that are open already; the listing itself is one.
    let open = fs::read_dir("/proc/self/fd").map_or(0, |files| files.count() as u64);
    let of_connections = (u64::from(idle) + u64::from(connections)) * ends;
    let wanted = open + of_connections + threads * FILES_PER_THREAD;
    if wanted <= files_max {
        return Ok(());
    }
    Err(Failure::TooFewFiles { idle, wanted, files_max })
}

/// Anonymous memory of this process that is resident, in bytes: heap, stacks and mapped buffers
/// that were written to, and no pages of files.
fn anonymous_bytes() -> Option<u64> {
    anonymous(&fs::read_to_string("/proc/self/smaps_rollup").ok()?)
}

fn anonymous(rollup: &str) -> Option<u64> {
    let line = rollup.lines().find_map(|line| line.strip_prefix("Anonymous:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib * 1024)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

    use super::*;

    #[test]
    fn anonymous_memory_is_read_from_a_rollup() {
        let rollup = "55a42e170000-7ffc617d4000 ---p 00000000 00:00 0    [rollup]\n\
                      Rss:                1768 kB\nPss_Anon:            116 kB\n\
                      Anonymous:           120 kB\nLazyFree:              0 kB\n";
        assert_eq!(anonymous(rollup), Some(120 * 1024));
        assert_eq!(anonymous("Rss:                1768 kB\n"), None);
        assert_eq!(anonymous("Anonymous:           many kB\n"), None);
    }

    #[test]
    fn memory_that_is_written_to_is_anonymous() {
        let Some(before) = anonymous_bytes() else { return };
        let written = vec![1_u8; 64 << 20];
        let grown = anonymous_bytes().unwrap().saturating_sub(before);
        assert!(grown >= written.len() as u64 / 2, "{grown}");
    }

    #[test]
    fn idle_connections_are_spread_over_all_threads() {
        for (connections, threads) in [(10, 3), (2, 3), (9, 3), (1, 1)] {
            let shares: Vec<u32> =
                (0..threads).map(|thread| share(connections, thread, threads)).collect();
            assert_eq!(shares.iter().sum::<u32>(), connections);
            assert!(shares.iter().max().unwrap() - shares.iter().min().unwrap() <= 1);
        }
    }

    #[test]
    fn more_connections_than_files_are_refused_with_the_limit() {
        assert!(check_files((100, 64), 2, 2, 10_000).is_ok());
        let failure = check_files((10_000, 64), 2, 2, 20_000).unwrap_err().to_string();
        assert!(failure.contains("may have 20000: raise the limit with `ulimit -n 2"), "{failure}");
    }

    #[test]
    fn repeats_have_the_figures_that_one_of_them_has() {
        let of = |bytes_each, share| {
            Some(IdleFigures { connections: 5, ends: 2, bytes_each, server_cpu_share: Some(share) })
        };
        let repeats = [of(Some(800.0), 0.1), of(None, 0.3), of(None, 0.2)];
        assert_eq!(IdleFigures::of_repeats(repeats.into_iter()), of(Some(800.0), 0.2));
        assert_eq!(IdleFigures::of_repeats([None].into_iter()), None);
    }
}

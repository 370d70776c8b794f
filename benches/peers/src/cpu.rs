//! What a side has used of its core: the CPU time of every thread of this process that is pinned
//! to that core alone.
//!
//! A thread inherits the pinning of the one that started it, so helper threads that a system
//! starts by itself are counted with their side, whoever made them. The main thread is pinned to
//! no core and counted nowhere.

use std::time::Instant;

use ringcall_perf::threads::{self, Pinned};

/// What a core's threads have used up to a moment.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sample {
    used_ns: u64,
    at: Instant,
}

impl Sample {
    /// Reads it for a core, in user and kernel mode.
    ///
    /// The kernel brings a running thread's time up to date when it is scheduled and at every
    /// tick, so a sample may lag by one tick, 4 ms or less.
    pub(crate) fn of_core(core: usize) -> Self {
        let pinned = threads::pinned().into_iter().filter(|thread| thread.core == core);
        // A thread that has just ended has none.
        let used_ns = pinned.filter_map(|thread| Pinned::cpu_ns(&thread)).sum();
        Self { used_ns, at: Instant::now() }
    }

    /// CPU seconds per second since an earlier sample of the same core.
    pub(crate) fn load_since(&self, earlier: &Self) -> f64 {
        let used_ns = self.used_ns.saturating_sub(earlier.used_ns);
        used_ns as f64 / (self.at - earlier.at).as_nanos().max(1) as f64
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

    use std::{sync::mpsc, thread};

    use super::*;
    use crate::cores;

    #[test]
    fn a_thread_counts_on_the_core_that_it_is_pinned_to_with_those_that_it_starts() {
        let core = ringcall_perf::cores::available().unwrap()[0];
        let (sender, samples) = mpsc::channel();
        thread::spawn(move || {
            cores::pin(core).unwrap();
            let helper = thread::spawn(move || {
                let before = Sample::of_core(core);
                // Until the kernel has charged it something, however busy the machine is.
                loop {
                    let now = Sample::of_core(core);
                    if now.used_ns > before.used_ns {
                        break sender.send(now.load_since(&before)).unwrap();
                    }
                }
            });
            helper.join().unwrap();
        });
        let load = samples.recv().unwrap();
        assert!(load > 0.0 && load.is_finite(), "{load}");
    }
}

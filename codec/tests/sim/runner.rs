//! Runs many seeds, and says how to repeat one that fails.

use std::{
    collections::BTreeMap,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Mutex,
        atomic::{AtomicU64, Ordering},
    },
    thread,
};

use crate::world::run;

/// One seed in so many is run a second time, to compare.
const TWICE_EVERY: u64 = 16;

/// What many simulations came to.
#[derive(Debug, Default)]
pub(crate) struct Totals {
    pub(crate) seeds: u64,
    pub(crate) failed: Vec<u64>,
    pub(crate) counts: BTreeMap<&'static str, u64>,
}

/// Runs `number` seeds from `first` on, on every core, and says now and then how far it is.
pub(crate) fn run_seeds(first: u64, number: u64, says_progress: bool) -> Totals {
    let totals = Mutex::new(Totals::default());
    let next = AtomicU64::new(0);
    let threads = thread::available_parallelism().map_or(1, usize::from);
    thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let at = next.fetch_add(1, Ordering::Relaxed);
                    if at >= number {
                        return;
                    }
                    let seed = first.wrapping_add(at);
                    let counts = run_one(seed);
                    let mut totals = totals.lock().expect("no panic holds it");
                    totals.seeds += 1;
                    match counts {
                        Some(counts) => {
                            for (what, count) in counts {
                                *totals.counts.entry(what).or_default() += count;
                            }
                        }
                        None => totals.failed.push(seed),
                    }
                    if says_progress && totals.seeds.is_multiple_of(1000) {
                        eprintln!("{} seeds, {} failed", totals.seeds, totals.failed.len());
                    }
                }
            });
        }
    });
    totals.into_inner().expect("no panic holds it")
}

/// Runs a seed; `None` where it fails.
fn run_one(seed: u64) -> Option<BTreeMap<&'static str, u64>> {
    let outcome = catch_unwind(AssertUnwindSafe(|| {
        let report = run(seed, false);
        if seed.is_multiple_of(TWICE_EVERY) {
            assert!(report == run(seed, false), "two runs of one seed differ");
        }
        report.counts
    }));
    if outcome.is_err() {
        eprintln!("seed {seed} failed; to repeat it: {}", replay(seed));
    }
    outcome.ok()
}

/// The command that runs a seed and shows what happens in it.
pub(crate) fn replay(seed: u64) -> String {
    format!("RINGCALL_SIM_FIRST={seed} RINGCALL_SIM_TRACE=1 cargo xtask sim 1")
}

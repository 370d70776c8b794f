//! Clients and servers in virtual time, over a network that does what networks do.
//!
//! A seed says which nodes there are, what they call, and which faults happen; everything follows
//! from it, so that a seed that fails can be repeated. Both ends of every connection are real
//! [`Session`](ringcall_codec::Session)s; the nodes, the network and the time are not.
//!
//! At each step `end.rs` compares a session with an account of its own, `ledger.rs` compares both
//! ends of each call, and `items.rs` both ends of each stream. Checked are the promises of
//! SECURITY.md that a session can keep: no panic and no unexplained error (P1), bounded memory
//! (P2), one outcome for each call, and the right one (P3), items once and in order, deadlines and
//! slots (P4), drains (P6), the same trace for the same seed (P8); and that once faults stop,
//! everything ends and new calls succeed.
//!
//! | file | what |
//! |---|---|
//! | `plan.rs` | what a seed switches on |
//! | `world.rs` | nodes, faults, the loop, the end |
//! | `conn.rs`, `pipe.rs` | the network |
//! | `end.rs` | what a transport does around a session |
//! | `traffic/` | what is called: a file for each kind |
//! | `ledger.rs` | the account of calls |
//! | `items.rs` | the account of items and credit |
//! | `regressions.rs` | seeds that have found something |
//!
//! `cargo xtask sim` runs more seeds than the tests here.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod conn;
mod core;
mod end;
mod items;
mod ledger;
mod letter;
mod outbox;
mod pipe;
mod plan;
mod random;
mod regressions;
mod runner;
mod trace;
mod traffic;
mod world;

use runner::{Totals, replay, run_seeds};

/// Everything that must have happened in some of a few hundred seeds, or they prove little.
const MUST_HAPPEN: &[&str] = &[
    "abandon",
    "broken",
    "bytes change",
    "crash",
    "credit",
    "details",
    "done",
    "drain",
    "error",
    "expired",
    "failed",
    "fin",
    "grace is over",
    "half close",
    "item",
    "item too long",
    "items have ended",
    "late credit",
    "late item",
    "lost",
    "no credit",
    "no shared credit",
    "not executed",
    "not made",
    "notice",
    "one way",
    "part",
    "pause",
    "peer drains",
    "pong",
    "refused",
    "reply",
    "reply too long",
    "reset",
    "slot is free",
    "stall",
    "stop",
    "stream",
    "too long",
    "turned away",
    "untaken",
    "vanish",
];

#[test]
fn a_few_hundred_seeds_keep_every_promise() {
    let totals = run_seeds(0, 300, false);
    check(&totals);
    for what in MUST_HAPPEN {
        assert!(totals.counts.contains_key(what), "never happened: {what}");
    }
}

#[test]
fn a_seed_has_one_trace_and_another_seed_another() {
    let first = world::run(7, false);
    assert_eq!(first, world::run(7, false));
    assert_ne!(first.hash, world::run(8, false).hash);
}

/// What `cargo xtask sim` runs: seeds from `RINGCALL_SIM_FIRST` on, `RINGCALL_SIM_SEEDS` of them,
/// with a trace where `RINGCALL_SIM_TRACE` is set.
#[test]
#[ignore = "takes minutes: run by `cargo xtask sim`"]
fn the_seeds_of_the_environment_keep_every_promise() {
    let number_of = |name: &str, default: u64| {
        std::env::var(name).map_or(default, |text| {
            text.parse().unwrap_or_else(|_| panic!("{name} is a number, got `{text}`"))
        })
    };
    let first = number_of("RINGCALL_SIM_FIRST", 0);
    let seeds = number_of("RINGCALL_SIM_SEEDS", 10_000);
    if std::env::var_os("RINGCALL_SIM_TRACE").is_some() {
        for seed in first..first.saturating_add(seeds) {
            let report = world::run(seed, true);
            eprintln!("seed {seed}: {report:#?}");
        }
        return;
    }
    let totals = run_seeds(first, seeds, true);
    eprintln!("{:#?}", totals.counts);
    check(&totals);
    eprintln!("{} seeds from {first} on, none failed", totals.seeds);
}

fn check(totals: &Totals) {
    if let Some(seed) = totals.failed.iter().min() {
        let (failed, of) = (totals.failed.len(), totals.seeds);
        panic!("{failed} of {of} seeds failed; to repeat one: {}", replay(*seed));
    }
}

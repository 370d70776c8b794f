//! The ledger: calls of every kind over real sockets, between servers that come and go and clients
//! that cancel, expire, reconnect and are cut off; at the end nothing is lost, duplicated or
//! crossed.
//!
//! Each call and each item carries an id and a checksum, and both ends enter what they know of it
//! in one book. `cargo xtask soak` runs it for long, and prints what is in the book.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod book;
mod crew;
mod cutter;
mod errand;
mod items;
mod letter;
mod post;
mod random;
#[path = "../support/mod.rs"]
mod support;

use std::{
    env,
    sync::{
        Arc,
        atomic::Ordering::Relaxed,
        mpsc::{RecvTimeoutError, channel},
    },
    thread,
    time::{Duration, Instant},
};

use book::{Audit, Book, Fault, Kind, Outcome};

/// Calls of the run that every test run has.
const CALLS: u64 = 20_000;

/// Calls of the long run where the user does not say.
const SOAK_CALLS: u64 = 10_000_000;

/// Time without a new call after which a run hangs, rather than being slow. As much more is given
/// before that to what the run itself waits for.
const PATIENCE: Duration = Duration::from_secs(65);

#[test]
fn every_call_of_every_kind_has_one_outcome_and_its_own() {
    let (book, audit) = run(CALLS, 5);
    check(&book, &audit);
}

#[test]
#[ignore = "runs long: `cargo xtask soak`"]
fn every_call_of_a_long_run_has_one_outcome_and_its_own() {
    let calls = env::var("RINGCALL_SOAK_CALLS").map_or(SOAK_CALLS, |calls| calls.parse().unwrap());
    let begin = Instant::now();
    let (book, audit) = run(calls, (calls / 100_000).clamp(5, 1_000));
    report(&book, &audit, begin.elapsed());
    check(&book, &audit);
}

/// Runs until it is done, or until nothing happens any more.
fn run(calls: u64, restarts: u64) -> (Arc<Book>, Audit) {
    let book = Arc::new(Book::new(calls));
    let (theirs, (done, is_done)) = (Arc::clone(&book), channel());
    let crew = thread::spawn(move || {
        crew::work(&theirs, calls, restarts);
        // Nobody listens where the patience is over.
        let _ = done.send(());
    });
    let mut made = 0;
    loop {
        match is_done.recv_timeout(PATIENCE) {
            Err(RecvTimeoutError::Timeout) if book.made() == made => {
                panic!("nothing happens for {PATIENCE:?}, after {made} calls\n{}", book.open())
            }
            Err(RecvTimeoutError::Timeout) => made = book.made(),
            Ok(()) | Err(RecvTimeoutError::Disconnected) => break,
        }
    }
    crew.join().unwrap();
    let audit = book.audit();
    (book, audit)
}

/// Nothing is wrong, and everything has happened.
fn check(book: &Book, audit: &Audit) {
    let faults: Vec<_> = Fault::ALL.into_iter().zip(audit.faults).collect();
    assert!(audit.faults == [0; 4], "{faults:?}\n{}", book.told().join("\n"));
    assert_eq!(audit.delivered + audit.noticed, audit.one_ways, "one-way calls");
    assert_eq!(audit.outcomes.iter().sum::<u64>(), audit.made);
    for (kind, count) in Kind::ALL.into_iter().zip(audit.kinds) {
        assert!(count > 0, "no call is {kind:?}");
    }
    for (outcome, count) in Outcome::ALL.into_iter().zip(audit.outcomes) {
        assert!(count > 0, "no call is {outcome:?}");
    }
    for (what, count) in figures(book, audit) {
        assert!(count > 0, "no {what}");
    }
}

fn figures(book: &Book, audit: &Audit) -> [(&'static str, u64); 11] {
    [
        ("calls made", audit.made),
        ("of them by handlers", audit.from_handlers),
        ("calls accepted", audit.accepted),
        ("one-way calls on connections that were not cut", audit.one_ways),
        ("of them delivered", audit.delivered),
        ("items taken", book.items.load(Relaxed)),
        ("bytes in replies and items", book.body_bytes.load(Relaxed)),
        ("of these bodies longer than 64 KiB", book.large_bodies.load(Relaxed)),
        ("connections opened", book.connections.load(Relaxed)),
        ("connections cut", book.cuts.load(Relaxed)),
        ("servers drained", book.restarts.load(Relaxed)),
    ]
}

fn report(book: &Book, audit: &Audit, took: Duration) {
    for (what, count) in figures(book, audit) {
        println!("{what:<48} {count:>14}");
    }
    println!("{:<48} {:>14}", "one-way calls noticed", audit.noticed);
    for (kind, count) in Kind::ALL.into_iter().zip(audit.kinds) {
        println!("{:<48} {count:>14}", format!("kind: {kind:?}"));
    }
    for (outcome, count) in Outcome::ALL.into_iter().zip(audit.outcomes) {
        println!("{:<48} {count:>14}", format!("outcome: {outcome:?}"));
    }
    for (fault, count) in Fault::ALL.into_iter().zip(audit.faults) {
        println!("{:<48} {count:>14}", format!("fault: {fault:?}"));
    }
    println!("{:<48} {:>14.1}", "seconds", took.as_secs_f64());
}

//! Requests and responses that are held while others come and go: they read the same.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod support;

use ringcall::{RunConfig, ShardConfig, ShardCounters};
use support::{
    desk::{Office, Unit, assert_is, load, pass_calls, run},
    event::{Background, background},
    server::counters,
    wait::{all, watched},
};

/// Lengths of what is held: a few bytes, most of a small buffer, several of them, a large frame.
const HELD_LENS: [usize; 12] =
    [1, 16, 48, 100, 1000, 2000, 3900, 5000, 9000, 17_000, 60_000, 200_000];

/// Requests are held across an await while 10,000 calls pass.
fn hold_requests(config: ShardConfig) -> ShardCounters {
    let office = Office::with(config);
    run(async {
        let (desk, other) = (office.connect().await, office.connect().await);
        let mut held = Vec::new();
        for (number, len) in (0..).zip(HELD_LENS) {
            let holder = desk.clone();
            held.push(background(async move {
                let reply = holder.hold(&load(number, len)).await.unwrap();
                assert_is(&reply, number, len);
            }));
            // One after the other, so that each has a buffer of its own.
            office.has_waited(number + 1).await;
        }
        pass_calls(&desk, 5_000).await;
        pass_calls(&other, 5_000).await;
        assert!(!held.iter().any(Background::is_done));
        other.open(&Unit).await.unwrap();
        all(held).await;
    });
    let counters = counters(&office.server);
    assert_eq!(counters.calls_spawned, HELD_LENS.len() as u64);
    assert_eq!(counters.calls_inline, 10_001);
    counters
}

#[test]
fn a_held_request_reads_the_same_after_10_000_other_calls() {
    watched(|| {
        let counters = hold_requests(ShardConfig::new());
        assert_eq!(counters.frames_copied_pressure, 0);
    });
}

#[test]
fn a_held_request_reads_the_same_where_buffers_are_so_few_that_bodies_are_copied() {
    watched(|| {
        let counters = hold_requests(ShardConfig::new().receive_buffers(8, 4096));
        assert!(counters.frames_copied_pressure > 0);
    });
}

/// Requests are retained beyond their calls while 10,000 calls pass.
fn retain_requests(config: ShardConfig) {
    let office = Office::with(config);
    run(async {
        let desk = office.connect().await;
        for (number, len) in (0..).zip(HELD_LENS) {
            desk.keep(&load(number, len)).await.unwrap();
        }
        pass_calls(&desk, 10_000).await;
        for (number, len) in (0..).zip(HELD_LENS) {
            let kept = desk.recall(&Unit).await.unwrap();
            assert_is(&kept, number, len);
        }
    });
    assert_eq!(counters(&office.server).calls_spawned, 0);
}

#[test]
fn a_retained_request_reads_the_same_after_10_000_other_calls() {
    watched(|| retain_requests(ShardConfig::new()));
}

#[test]
fn a_retained_request_reads_the_same_where_buffers_are_few() {
    watched(|| retain_requests(ShardConfig::new().receive_buffers(8, 4096)));
}

/// Responses are kept by the client while 10,000 calls pass.
fn keep_responses(config: ShardConfig) {
    let office = Office::start();
    let run = RunConfig::new().shard(config).run(async {
        let desk = office.connect().await;
        let mut kept = Vec::new();
        for (number, len) in (0..).zip(HELD_LENS) {
            kept.push(desk.echo(&load(number, len)).await.unwrap());
        }
        pass_calls(&desk, 10_000).await;
        for ((number, len), response) in (0..).zip(HELD_LENS).zip(&kept) {
            assert_is(response, number, len);
        }
        kept.truncate(6);
        kept
    });
    // Neither the connection nor its shard is there any more.
    for ((number, len), response) in (0..).zip(HELD_LENS).zip(run.unwrap()) {
        assert_is(&response, number, len);
    }
}

#[test]
fn a_kept_response_reads_the_same_after_10_000_other_calls() {
    watched(|| keep_responses(ShardConfig::new()));
}

#[test]
fn a_kept_response_reads_the_same_where_buffers_are_few() {
    watched(|| keep_responses(ShardConfig::new().receive_buffers(8, 4096)));
}

//! The data of the live page, as far as it is shown. What a later version adds is not looked at.

use std::collections::BTreeMap;

use serde::Deserialize;

#[derive(Debug, Deserialize)]
pub(super) struct Live {
    pub(super) ringcall: String,
    pub(super) address: String,
    pub(super) uptime_s: f64,
    pub(super) window_s: f64,
    pub(super) all: Shard,
    pub(super) shards: Vec<Shard>,
    pub(super) methods: Vec<Method>,
    pub(super) slow: Vec<Slow>,
    pub(super) slow_seen: u64,
}

#[derive(Debug, Deserialize)]
pub(super) struct Shard {
    #[serde(default)]
    pub(super) index: usize,
    #[serde(default)]
    pub(super) core: usize,
    pub(super) load: f64,
    pub(super) calls_per_s: f64,
    pub(super) calls_running: u64,
    pub(super) connections: u64,
    pub(super) buffers: u64,
    pub(super) buffers_free: u64,
    pub(super) batch: f64,
    pub(super) in_place: f64,
    pub(super) refused_per_s: f64,
    pub(super) measured_one_in: u64,
    pub(super) slow_from: u64,
    pub(super) queue: Times,
    pub(super) service: Times,
    pub(super) turn: Times,
}

#[derive(Debug, Deserialize)]
pub(super) struct Method {
    pub(super) name: String,
    pub(super) calls: u64,
    pub(super) calls_per_s: f64,
    pub(super) errors_per_s: f64,
    pub(super) outcomes: BTreeMap<String, u64>,
    pub(super) service: Times,
}

/// In nanoseconds.
#[derive(Debug, Deserialize)]
pub(super) struct Times {
    pub(super) p50: u64,
    pub(super) p99: u64,
    pub(super) p999: u64,
}

#[derive(Debug, Deserialize)]
pub(super) struct Slow {
    pub(super) shard: u16,
    pub(super) method: String,
    pub(super) ago_s: f64,
    pub(super) total: u64,
    pub(super) away: u64,
    pub(super) queue: u64,
    pub(super) service: u64,
    pub(super) reply: u64,
    pub(super) cause: String,
    pub(super) behind: Option<String>,
}

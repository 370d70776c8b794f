//! `/live.json`: what the live page and `ringcall-perf top` show.
//!
//! Counts are since the server began; rates and times are of the window that it names. Times are
//! nanoseconds unless the name says otherwise.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    time::{Duration, SystemTime},
};

use serde::Serialize;

use crate::metrics::{Cause, Histogram, MethodMetrics, ShardMetrics, SlowCall};

/// Slow calls that are shown, in number: the slowest of those that are kept.
const SLOW_SHOWN_MAX: usize = 32;

/// Methods that are shown, in number: those that are called most.
const METHODS_SHOWN_MAX: usize = 100;

/// Figures of all shards together, and of each.
type Figures<'a> = (&'a ShardMetrics, &'a [ShardMetrics]);

/// What is to be shown.
pub(super) struct View<'a> {
    pub(super) address: SocketAddr,
    pub(super) cores: Vec<usize>,
    pub(super) uptime: Duration,
    /// Time from `before` to `now`.
    pub(super) window: Duration,
    pub(super) before: Option<Figures<'a>>,
    pub(super) now: Figures<'a>,
}

#[derive(Serialize)]
struct Live<'a> {
    ringcall: &'static str,
    address: String,
    uptime_s: f64,
    window_s: f64,
    all: ShardView,
    shards: Vec<ShardView>,
    methods: Vec<MethodView<'a>>,
    methods_not_shown: usize,
    slow: Vec<SlowView>,
    slow_seen: u64,
    counters: BTreeMap<&'static str, u64>,
}

#[derive(Serialize)]
struct ShardView {
    #[serde(skip_serializing_if = "Option::is_none")]
    index: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    core: Option<usize>,
    /// Share of a core that the thread had: 1 is all of it.
    load: f64,
    calls_per_s: f64,
    calls_running: u64,
    connections: u64,
    buffers: u64,
    buffers_free: u64,
    owned_bytes: u64,
    batch: f64,
    replies_per_send: f64,
    /// Of the frames received, those that were read in place.
    in_place: f64,
    refused_per_s: f64,
    measured_one_in: u64,
    slow_from: u64,
    queue: Times,
    service: Times,
    reply: Times,
    turn: Times,
    tasks: Times,
    reactor_gap: Times,
}

#[derive(Serialize)]
struct MethodView<'a> {
    name: &'a str,
    calls: u64,
    errors: u64,
    calls_per_s: f64,
    errors_per_s: f64,
    outcomes: BTreeMap<&'static str, u64>,
    service: Times,
}

#[derive(Serialize)]
struct Times {
    p50: u64,
    p99: u64,
    p999: u64,
    max: u64,
}

#[derive(Serialize)]
struct SlowView {
    shard: u16,
    method: &'static str,
    ago_s: f64,
    calls: u32,
    total: u64,
    away: u64,
    queue: u64,
    service: u64,
    reply: u64,
    turn: u64,
    batch: u32,
    copies: u32,
    buffers_free: u32,
    cause: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    behind: Option<&'static str>,
}

/// The data of the live page, as JSON.
pub(super) fn render(view: &View<'_>) -> Vec<u8> {
    let none = ShardMetrics::default();
    let (now, shards) = view.now;
    let (before, shards_before) = view.before.unwrap_or((&none, &[]));
    let seconds = view.window.as_secs_f64().max(0.001);
    let shards = shards.iter().zip(&view.cores).enumerate();
    let shards = shards.map(|(index, (shard, core))| {
        let before = shards_before.get(index).unwrap_or(&none);
        let view = shard_view(shard, before, seconds);
        ShardView { index: Some(index), core: Some(*core), ..view }
    });
    let shards = shards.collect();
    let mut methods: Vec<_> =
        now.methods.iter().map(|method| method_view(method, before, seconds)).collect();
    methods.sort_by(|a, b| b.calls.cmp(&a.calls).then(a.name.cmp(b.name)));
    let methods_not_shown = methods.len().saturating_sub(METHODS_SHOWN_MAX);
    methods.truncate(METHODS_SHOWN_MAX);
    let live = Live {
        ringcall: env!("CARGO_PKG_VERSION"),
        address: view.address.to_string(),
        uptime_s: view.uptime.as_secs_f64(),
        window_s: seconds,
        all: shard_view(now, before, seconds),
        shards,
        methods,
        methods_not_shown,
        slow: slowest(&now.slow),
        slow_seen: now.slow_seen,
        counters: now.counters.iter().collect(),
    };
    // Nothing in it can fail to be written: no map has keys that are not text.
    serde_json::to_vec(&live).unwrap_or_default()
}

fn shard_view(now: &ShardMetrics, before: &ShardMetrics, seconds: f64) -> ShardView {
    let since = now.counters.since(&before.counters);
    let times = |now: &Histogram, before: &Histogram| times(&now.since(before));
    let copied = since.frames_copied_straddle
        + since.frames_copied_misaligned
        + since.frames_copied_pressure
        + since.frames_copied_large;
    let frames = since.frames_in_place + copied;
    let refused = since.calls_refused
        + since.calls_refused_overload
        + since.calls_refused_late
        + since.calls_refused_drain;
    ShardView {
        index: None,
        core: None,
        load: since.cpu_ns as f64 / 1e9 / seconds,
        calls_per_s: (since.calls_inline + since.calls_spawned) as f64 / seconds,
        calls_running: now.calls_running,
        connections: now.connections_open,
        buffers: now.buffers,
        buffers_free: now.buffers_free,
        owned_bytes: now.owned_bytes,
        batch: now.calls_per_turn.since(&before.calls_per_turn).mean(),
        replies_per_send: now.calls_per_send.since(&before.calls_per_send).mean(),
        in_place: if frames == 0 { 1.0 } else { since.frames_in_place as f64 / frames as f64 },
        refused_per_s: refused as f64 / seconds,
        measured_one_in: now.measured_one_in,
        slow_from: now.slow_from_ns,
        queue: times(&now.queue_ns, &before.queue_ns),
        service: times(&now.service_ns, &before.service_ns),
        reply: times(&now.reply_ns, &before.reply_ns),
        turn: times(&now.turn_ns, &before.turn_ns),
        tasks: times(&now.tasks_ns, &before.tasks_ns),
        reactor_gap: times(&now.reactor_gap_ns, &before.reactor_gap_ns),
    }
}

fn method_view<'a>(now: &'a MethodMetrics, before: &ShardMetrics, seconds: f64) -> MethodView<'a> {
    let before = before.methods.iter().find(|method| method.name == now.name);
    let (calls, errors) = before.map_or((0, 0), |before| (before.calls(), before.errors()));
    let none = Histogram::new();
    let service = now.service_ns.since(before.map_or(&none, |before| &before.service_ns));
    MethodView {
        name: now.name,
        calls: now.calls(),
        errors: now.errors(),
        calls_per_s: now.calls().saturating_sub(calls) as f64 / seconds,
        errors_per_s: now.errors().saturating_sub(errors) as f64 / seconds,
        outcomes: now.outcomes().collect(),
        service: times(&service),
    }
}

fn times(histogram: &Histogram) -> Times {
    Times {
        p50: histogram.quantile(0.5),
        p99: histogram.quantile(0.99),
        p999: histogram.quantile(0.999),
        max: histogram.max(),
    }
}

fn slowest(slow: &[SlowCall]) -> Vec<SlowView> {
    let mut slow = slow.to_vec();
    slow.sort_by_key(|call| std::cmp::Reverse(call.total()));
    slow.truncate(SLOW_SHOWN_MAX);
    let now = SystemTime::now();
    slow.iter().map(|call| slow_view(call, now)).collect()
}

fn slow_view(call: &SlowCall, now: SystemTime) -> SlowView {
    let behind = match call.cause {
        Cause::Behind(method) => Some(method),
        _ => None,
    };
    SlowView {
        shard: call.shard,
        method: call.method,
        // A clock that was set back meanwhile says nothing.
        ago_s: now.duration_since(call.at).unwrap_or_default().as_secs_f64(),
        calls: call.calls,
        total: ns(call.total()),
        away: ns(call.away),
        queue: ns(call.queue),
        service: ns(call.service),
        reply: ns(call.reply),
        turn: ns(call.turn),
        batch: call.batch,
        copies: call.copies,
        buffers_free: call.buffers_free,
        cause: call.cause.name(),
        behind,
    }
}

fn ns(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

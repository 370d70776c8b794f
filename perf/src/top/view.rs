//! What is shown, as lines of text.

use std::fmt::Write;

use super::{
    fetch::view_safe,
    live::{Live, Method, Shard, Slow, Times},
};
use crate::report::units::{si, time};

/// Methods that are shown, in number: those that are called most.
const METHODS_SHOWN: usize = 12;

/// The whole screen, with so many slow calls.
pub(super) fn text(live: &Live, slow_shown: usize) -> String {
    let mut out = String::new();
    let Live { all, shards, methods, slow, .. } = live;
    line(
        &mut out,
        format_args!(
            "ringcall {} at {}   up {:.0} s, rates and times of the last {:.1} s",
            view_safe(&live.ringcall),
            view_safe(&live.address),
            live.uptime_s,
            live.window_s
        ),
    );
    let measured = match all.measured_one_in {
        0 | 1 => "all measured".to_owned(),
        one_in => format!("1 in {one_in} measured"),
    };
    line(
        &mut out,
        format_args!(
            "{} calls/s ({measured})   {:.2} of {} cores   {} connections   {} calls running   {:.1} % in place",
            si(all.calls_per_s),
            all.load,
            shards.len(),
            count(all.connections),
            count(all.calls_running),
            all.in_place * 100.0
        ),
    );
    line(
        &mut out,
        format_args!(
            "\n{:>5} {:>4} {:>6} {:>8} {:>6} {:>6} {:>10} {:>9} {:>9} {:>9} {:>9} {:>9} {:>9} {:>9} {:>9}",
            "shard",
            "core",
            "load",
            "calls/s",
            "conns",
            "batch",
            "pool free",
            "queue p50",
            "p99",
            "p99.9",
            "handler",
            "p99",
            "p99.9",
            "turn p99",
            "refused/s"
        ),
    );
    shards.iter().for_each(|one| shard(&mut out, one));
    line(
        &mut out,
        format_args!(
            "\n{:<32} {:>8} {:>8} {:>8} {:>9} {:>9} {:>9}  {}",
            "method", "calls/s", "calls", "errors/s", "p50", "p99", "p99.9", "outcomes"
        ),
    );
    methods.iter().take(METHODS_SHOWN).for_each(|one| method(&mut out, one));
    if methods.is_empty() {
        line(&mut out, format_args!("none, or nothing is measured"));
    }
    let from = ns(all.slow_from);
    line(
        &mut out,
        format_args!(
            "\nslow calls from {from} on, the slowest of the recent; {} were seen\n\
             {:>9} {:<32} {:<24} {:>9} {:>9} {:>9} {:>9} {:>5} {:>8}",
            count(live.slow_seen),
            "total",
            "method",
            "cause",
            "away",
            "queue",
            "handler",
            "reply",
            "shard",
            "ago"
        ),
    );
    slow.iter().take(slow_shown).for_each(|one| slow_call(&mut out, one));
    out
}

fn shard(out: &mut String, shard: &Shard) {
    let pool = format!("{}/{}", shard.buffers_free, shard.buffers);
    let (queue, service) = (tail(&shard.queue), tail(&shard.service));
    line(
        out,
        format_args!(
            "{:>5} {:>4} {:>4.0} % {:>8} {:>6} {:>6} {pool:>10} {queue} {service} {:>9} {:>9}",
            shard.index,
            shard.core,
            shard.load * 100.0,
            si(shard.calls_per_s),
            count(shard.connections),
            si(shard.batch),
            ns(shard.turn.p99),
            si(shard.refused_per_s)
        ),
    );
}

fn method(out: &mut String, method: &Method) {
    let bad = method.outcomes.iter().filter(|(name, _)| *name != "OK");
    let bad: Vec<_> =
        bad.map(|(name, calls)| format!("{} {}", view_safe(name), count(*calls))).collect();
    line(
        out,
        format_args!(
            "{:<32} {:>8} {:>8} {:>8} {}  {}",
            view_safe(&method.name),
            si(method.calls_per_s),
            count(method.calls),
            si(method.errors_per_s),
            tail(&method.service),
            bad.join(", ")
        ),
    );
}

fn slow_call(out: &mut String, call: &Slow) {
    let cause = match &call.behind {
        Some(method) => format!("behind {}", view_safe(method)),
        None => view_safe(&call.cause),
    };
    line(
        out,
        format_args!(
            "{:>9} {:<32} {cause:<24} {:>9} {:>9} {:>9} {:>9} {:>5} {:>6.0} s",
            ns(call.total),
            view_safe(&call.method),
            ns(call.away),
            ns(call.queue),
            ns(call.service),
            ns(call.reply),
            call.shard,
            call.ago_s
        ),
    );
}

fn tail(times: &Times) -> String {
    format!("{:>9} {:>9} {:>9}", ns(times.p50), ns(times.p99), ns(times.p999))
}

/// A count: as it is, where it is short.
fn count(count: u64) -> String {
    if count < 10_000 { count.to_string() } else { si(count as f64) }
}

fn ns(ns: u64) -> String {
    if ns == 0 { "-".to_owned() } else { time(ns as f64) }
}

fn line(out: &mut String, text: std::fmt::Arguments<'_>) {
    // Writing to a string does not fail.
    let _ = writeln!(out, "{text}");
}

//! `/metrics`: the text format of Prometheus, version 0.0.4.
//!
//! Base units (seconds, bytes), a label for the shard, and for methods their name and outcome over
//! all shards. A histogram has a bucket for each power of two of nanoseconds, so that any server's
//! can be put together.

use std::{fmt::Write, time::Duration};

use crate::counters::ShardCounters;
use crate::metrics::{Histogram, MethodMetrics, Metrics, ShardMetrics};

/// The buckets of times: from 2^8 ns (256 ns) to 2^34 ns (17 s).
const TIME_BITS: std::ops::RangeInclusive<u32> = 8..=34;

/// The buckets of batches: from 1 to 4,096.
const BATCH_BITS: std::ops::RangeInclusive<u32> = 1..=13;

/// A family of values, one for each shard.
type Gauge = (&'static str, &'static str, fn(&ShardMetrics) -> u64);

const GAUGES: [Gauge; 7] = [
    ("connections", "Connections that are open.", |shard| shard.connections_open),
    ("calls_running", "Calls that run.", |shard| shard.calls_running),
    ("receive_buffers", "Receive buffers of the pool.", |shard| shard.buffers),
    ("receive_buffers_free", "Receive buffers that are not leased.", |shard| shard.buffers_free),
    ("owned_buffer_bytes", "Messages held in buffers of their own.", |shard| shard.owned_bytes),
    ("measured_one_in", "Of how many calls one is measured.", |shard| shard.measured_one_in),
    ("slow_calls_kept", "Slow calls that can be looked at.", |shard| shard.slow.len() as u64),
];

/// A family of histograms, one for each shard.
type Distribution = (&'static str, &'static str, fn(&ShardMetrics) -> &Histogram);

const TIMES: [Distribution; 7] = [
    (
        "call_queue_seconds",
        "From when a call was taken from the ring until its handler began.",
        |shard| &shard.queue_ns,
    ),
    ("call_service_seconds", "From a handler's begin to its end, awaits included.", |shard| {
        &shard.service_ns
    }),
    ("call_reply_seconds", "From a handler's end until the kernel had taken the reply.", |shard| {
        &shard.reply_ns
    }),
    ("turn_seconds", "Turns of the driver that found something to do.", |shard| &shard.turn_ns),
    ("tasks_seconds", "Tasks that ran between two turns.", |shard| &shard.tasks_ns),
    ("reactor_turn_seconds", "Turns of the executor's reactor.", |shard| &shard.reactor_turn_ns),
    ("reactor_gap_seconds", "Time without a turn of the reactor.", |shard| &shard.reactor_gap_ns),
];

const BATCHES: [Distribution; 2] = [
    ("turn_calls", "Calls that began in a turn, where some did.", |shard| &shard.calls_per_turn),
    ("send_replies", "Replies that one send took, where some did.", |shard| &shard.calls_per_send),
];

/// The text.
pub(super) fn render(metrics: &Metrics, uptime: Duration) -> String {
    let mut text = String::with_capacity(64 * 1024);
    let out = &mut text;
    family(out, "build_info", "gauge", "The version of ringcall.");
    line(out, "build_info", &format!("version=\"{}\"", env!("CARGO_PKG_VERSION")), "1");
    family(out, "uptime_seconds", "gauge", "Time since the server began.");
    line(out, "uptime_seconds", "", &uptime.as_secs_f64().to_string());
    counters(out, &metrics.shards);
    for (name, help, value) in GAUGES {
        family(out, name, "gauge", help);
        for (index, shard) in metrics.shards.iter().enumerate() {
            line(out, name, &label("shard", &index.to_string()), &value(shard).to_string());
        }
    }
    family(out, "slow_calls_total", "counter", "Calls that were slow.");
    for (index, shard) in metrics.shards.iter().enumerate() {
        let shard_label = label("shard", &index.to_string());
        line(out, "slow_calls_total", &shard_label, &shard.slow_seen.to_string());
    }
    for (name, help, of) in TIMES {
        family(out, name, "histogram", help);
        for (index, shard) in metrics.shards.iter().enumerate() {
            times(out, name, &label("shard", &index.to_string()), of(shard));
        }
    }
    for (name, help, of) in BATCHES {
        family(out, name, "histogram", help);
        for (index, shard) in metrics.shards.iter().enumerate() {
            let shard_label = label("shard", &index.to_string());
            histogram(out, name, &shard_label, of(shard), BATCH_BITS, |value| value as f64);
        }
    }
    methods(out, &metrics.merged().methods);
    text
}

/// What shards count, under the names that `ShardCounters` has.
fn counters(out: &mut String, shards: &[ShardMetrics]) {
    let names = ShardCounters::default().iter().map(|(name, _)| name);
    for (at, (counter, help)) in names.zip(ShardCounters::helps()).enumerate() {
        let is_cpu = counter == "cpu_ns";
        let name = if is_cpu { "cpu_seconds_total".to_owned() } else { format!("{counter}_total") };
        let help = match is_cpu {
            true => "CPU time of the shard's thread.",
            false => help,
        };
        family(out, &name, "counter", help);
        for (index, shard) in shards.iter().enumerate() {
            let value = shard.counters.iter().nth(at).map_or(0, |(_, value)| value);
            let value = if is_cpu { seconds(value).to_string() } else { value.to_string() };
            line(out, &name, &label("shard", &index.to_string()), &value);
        }
    }
}

fn methods(out: &mut String, methods: &[MethodMetrics]) {
    let called = || methods.iter().filter(|method| method.calls() > 0);
    let name = "method_calls_total";
    family(out, name, "counter", "Calls that have ended, by method and outcome.");
    for method in called() {
        let method_label = label("method", method.name);
        for (outcome, calls) in method.outcomes() {
            let labels = format!("{method_label},{}", label("code", outcome));
            line(out, name, &labels, &calls.to_string());
        }
    }
    let name = "method_service_seconds";
    family(out, name, "histogram", "From a handler's begin to its end, by method.");
    for method in called().filter(|method| method.service_ns.count() > 0) {
        times(out, name, &label("method", method.name), &method.service_ns);
    }
}

fn times(out: &mut String, name: &str, labels: &str, values: &Histogram) {
    histogram(out, name, labels, values, TIME_BITS, seconds);
}

fn histogram(
    out: &mut String,
    name: &str,
    labels: &str,
    values: &Histogram,
    bits: std::ops::RangeInclusive<u32>,
    unit: fn(u64) -> f64,
) {
    let bucket = format!("{name}_bucket");
    for bits in bits {
        // What a bucket counts is at most what is said of it: integers below a power of two.
        let below = values.below_power_of_two(bits);
        let labels = format!("{labels},{}", label("le", &unit((1 << bits) - 1).to_string()));
        line(out, &bucket, &labels, &below.to_string());
    }
    let count = values.count().to_string();
    line(out, &bucket, &format!("{labels},le=\"+Inf\""), &count);
    line(out, &format!("{name}_sum"), labels, &unit(values.sum()).to_string());
    line(out, &format!("{name}_count"), labels, &count);
}

fn seconds(ns: u64) -> f64 {
    ns as f64 / 1e9
}

fn family(out: &mut String, name: &str, kind: &str, help: &str) {
    // Writing to a string does not fail.
    let _ = writeln!(out, "# HELP ringcall_{name} {help}\n# TYPE ringcall_{name} {kind}");
}

fn line(out: &mut String, name: &str, labels: &str, value: &str) {
    let (open, close) = if labels.is_empty() { ("", "") } else { ("{", "}") };
    let _ = writeln!(out, "ringcall_{name}{open}{labels}{close} {value}");
}

/// A label, its value escaped as the format wants it.
fn label(name: &str, value: &str) -> String {
    let value = value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
    format!("{name}=\"{value}\"")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_escaped() {
        assert_eq!(label("method", "a\"b\\c\nd"), r#"method="a\"b\\c\nd""#);
    }

    #[test]
    fn every_family_is_announced_once_and_every_line_is_of_one() {
        let shards = vec![ShardMetrics::default(), ShardMetrics::default()];
        let text = render(&Metrics { shards }, Duration::from_millis(1500));
        assert!(text.ends_with('\n'));
        let mut families = std::collections::BTreeMap::new();
        for line in text.lines() {
            if let Some(rest) = line.strip_prefix("# TYPE ") {
                let (name, kind) = rest.split_once(' ').unwrap();
                assert_eq!(families.insert(name.to_owned(), kind), None, "{name} twice");
            } else if !line.starts_with("# HELP ") {
                let name = line.split(['{', ' ']).next().unwrap();
                let suffixes = ["_bucket", "_sum", "_count"];
                let base = suffixes.iter().find_map(|suffix| name.strip_suffix(suffix));
                let is_histogram =
                    base.is_some_and(|base| families.get(base) == Some(&"histogram"));
                assert!(is_histogram || families.contains_key(name), "{line}");
                assert!(line.rsplit(' ').next().unwrap().parse::<f64>().is_ok(), "{line}");
            }
        }
        assert_eq!(families.get("ringcall_cpu_seconds_total"), Some(&"counter"));
        assert!(text.contains("ringcall_uptime_seconds 1.5\n"));
    }

    #[test]
    fn buckets_are_cumulative_and_their_last_is_the_count() {
        let live = crate::metrics::LiveHistogram::default();
        [100, 300, 1000, 5_000_000, 60_000_000_000].into_iter().for_each(|ns| live.record(ns, 2));
        let mut text = String::new();
        times(&mut text, "x_seconds", "shard=\"0\"", &live.snapshot());
        let bucket = |line: &str| line.rsplit(' ').next().unwrap().parse::<u64>().unwrap();
        let buckets: Vec<_> =
            text.lines().filter(|line| line.contains("_bucket")).map(bucket).collect();
        assert!(buckets.is_sorted());
        assert_eq!((buckets[0], buckets.last()), (2, Some(&10)));
        assert_eq!(buckets[buckets.len() - 2], 8);
        assert!(text.contains("ringcall_x_seconds_count{shard=\"0\"} 10\n"));
        assert!(text.contains("le=\"0.000000255\"} 2\n"), "{text}");
    }
}

//! The report as JSON, schema 1.
//!
//! Times are in nanoseconds, sizes in bytes. Keys are added in later versions of the schema and
//! never change their meaning within one.

use ringcall::ShardCounters;
use serde::{Serialize, Serializer, ser::SerializeMap};

use super::Report;
use crate::{
    allocations::ProcessCost,
    core_load::CoreLoad,
    cost::{Costs, SideCost},
    extras::Extras,
    generator::Percentiles,
    host::Host,
    idle::IdleFigures,
    measure::Run,
    probe::Stages,
    target::Target,
};

/// Version of the schema.
const SCHEMA: u32 = 1;

/// What a floor counts; the rest is ringcall's alone.
const FLOOR_COUNTS: [&str; 11] = [
    "bytes_received",
    "bytes_sent",
    "buffers_exhausted",
    "cq_overflows",
    "enters",
    "sends",
    "parks",
    "connections_accepted",
    "connections_closed",
    "accept_errors",
    "cpu_ns",
];

#[derive(Serialize)]
pub(super) struct Document<'a> {
    schema: u32,
    /// Whether it was interrupted.
    partial: bool,
    host: &'a Host,
    runs: Vec<RunObject>,
}

#[derive(Serialize)]
pub(super) struct RunObject {
    target: Target,
    connections: u32,
    depth: u32,
    /// Length of a body as it travels.
    size: u32,
    calls: u64,
    errors: u64,
    calls_per_s: f64,
    /// Null where the loop is closed, as the three after `latency_ns` are.
    offered_per_s: Option<f64>,
    /// From when calls were due, where the load is open.
    latency_ns: Percentiles,
    /// From when calls were made.
    latency_from_send_ns: Option<Percentiles>,
    /// How late the generator was.
    lateness_ns: Option<Percentiles>,
    /// Calls that were due at the end and had no answer. They are not in `calls`, and in
    /// `latency_ns` each has the time that it had waited: a lower bound.
    unanswered: Option<u64>,
    confidence: Option<Confidence>,
    /// Why the figures say nothing of the target.
    void: Option<String>,
    /// What else is to be known of them.
    doubts: Vec<String>,
    /// Null where the server is another process.
    server_cpu_ns_per_call: Option<f64>,
    client_cpu_ns_per_call: f64,
    counters: Counters,
    /// Per call, for each side; null without `--cost`, as the server's where it is another process.
    cost: Option<Costs>,
    /// Null without `--idle`.
    idle: Option<IdleFigures>,
    /// What each core was used for that threads of this process were pinned to.
    core_load: Vec<CoreLoad>,
    /// What went on beside the load; null where nothing did.
    beside: Option<BesideObject>,
}

/// What was seen of what went on beside the load, warm-up included.
#[derive(Serialize)]
struct BesideObject {
    slow_calls: u64,
    slow_ns: Percentiles,
    churned: u64,
    churn_ns: Percentiles,
    slowly_read_bytes: u64,
    slow_readers_cut_off: u32,
    /// Where the time of the probe's calls went; null without a probe.
    probe: Option<Stages>,
}

/// The percentile that was to be sure, with its 95 % confidence interval.
#[derive(Serialize)]
struct Confidence {
    percentile: f64,
    value_ns: f64,
    half_width_ns: f64,
}

/// What both sides counted in the time that was measured.
#[derive(Serialize)]
struct Counters {
    /// Null where the server is another process.
    server: Option<SideCounters>,
    client: SideCounters,
}

struct SideCounters {
    is_ringcall: bool,
    counters: ShardCounters,
}

impl Serialize for SideCounters {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        for (name, count) in self.counters.iter() {
            if self.is_ringcall || FLOOR_COUNTS.contains(&name) {
                map.serialize_entry(name, &count)?;
            }
        }
        map.end()
    }
}

impl<'a> Document<'a> {
    pub(super) fn new(report: &'a Report) -> Self {
        let quantile = report.conditions.lengths.precision.quantile;
        let runs = report.runs.iter().map(|run| RunObject::new(run, quantile)).collect();
        Self { schema: SCHEMA, partial: report.conditions.is_partial, host: &report.host, runs }
    }
}

impl BesideObject {
    fn new(extras: &Extras) -> Self {
        Self {
            slow_calls: extras.slow.count(),
            slow_ns: Percentiles::of(&extras.slow),
            churned: extras.churn.count(),
            churn_ns: Percentiles::of(&extras.churn),
            slowly_read_bytes: extras.slow_readers.bytes,
            slow_readers_cut_off: extras.slow_readers.cut_off,
            probe: extras.probe.clone(),
        }
    }
}

impl RunObject {
    /// A run with every figure that one may have, all zero: what keys there are.
    pub(super) fn complete() -> Self {
        let none = || SideCounters { is_ringcall: true, counters: ShardCounters::default() };
        Self {
            target: Target::Ringcall,
            connections: 0,
            depth: 0,
            size: 0,
            calls: 0,
            errors: 0,
            calls_per_s: 0.0,
            offered_per_s: Some(0.0),
            latency_ns: Percentiles::default(),
            latency_from_send_ns: Some(Percentiles::default()),
            lateness_ns: Some(Percentiles::default()),
            unanswered: Some(0),
            confidence: Some(Confidence { percentile: 0.0, value_ns: 0.0, half_width_ns: 0.0 }),
            void: None,
            doubts: Vec::new(),
            server_cpu_ns_per_call: Some(0.0),
            client_cpu_ns_per_call: 0.0,
            counters: Counters { server: Some(none()), client: none() },
            cost: Some(Costs {
                server: Some(SideCost::default()),
                client: SideCost::default(),
                process: ProcessCost::default(),
                note: None,
            }),
            idle: Some(IdleFigures {
                connections: 0,
                ends: 0,
                bytes_each: None,
                server_cpu_share: None,
            }),
            core_load: Vec::new(),
            beside: Some(BesideObject {
                slow_calls: 0,
                slow_ns: Percentiles::default(),
                churned: 0,
                churn_ns: Percentiles::default(),
                slowly_read_bytes: 0,
                slow_readers_cut_off: 0,
                probe: None,
            }),
        }
    }

    fn new(run: &Run, quantile: f64) -> Self {
        let Run { target, workload, .. } = *run;
        let server = |counters| SideCounters { is_ringcall: target.serves_ringcall(), counters };
        let client = |counters| SideCounters { is_ringcall: target.calls_ringcall(), counters };
        Self {
            target,
            connections: workload.connections,
            depth: workload.depth,
            size: workload.body_len(),
            calls: run.calls,
            errors: run.errors,
            calls_per_s: rounded(run.calls_per_s),
            offered_per_s: run.open.map(|open| rounded(open.offered_per_s)),
            latency_ns: run.latency_ns,
            latency_from_send_ns: run.open.map(|open| open.from_send_ns),
            lateness_ns: run.open.map(|open| open.lateness_ns),
            unanswered: run.open.map(|open| open.unanswered),
            confidence: run.interval.map(|interval| Confidence {
                percentile: (quantile * 1e8).round() / 1e6,
                value_ns: rounded(interval.value),
                half_width_ns: rounded(interval.half_width),
            }),
            void: run.void.clone(),
            doubts: run.doubts.clone(),
            server_cpu_ns_per_call: run.server_cpu_ns_per_call.map(rounded),
            client_cpu_ns_per_call: rounded(run.client_cpu_ns_per_call),
            counters: Counters { server: run.server.map(server), client: client(run.client) },
            cost: run.cost.clone(),
            idle: run.idle,
            core_load: run.core_load.clone(),
            beside: run.extras.as_ref().map(BesideObject::new),
        }
    }
}

/// The report as a document, ended by a newline.
pub(super) fn json(report: &Report) -> String {
    // Neither keys that are no strings nor a writer that fails are in it.
    let text = serde_json::to_string_pretty(&Document::new(report)).unwrap_or_default();
    text + "\n"
}

/// A figure without the digits that it does not have.
fn rounded(figure: f64) -> f64 {
    (figure * 10.0).round() / 10.0
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

    use super::*;
    use crate::report::{Report, sample};

    fn floor() -> Report {
        let mut runs = vec![sample::run(Target::Floor, 8, 41.84, 12_100.0)];
        // One core and one second are enough to show.
        runs[0].core_load.remove(0);
        runs[0].core_load[0].seconds.drain(..2);
        Report::new(sample::host(), sample::conditions(), &[runs])
    }

    /// Who reads the JSON relies on every key of this.
    #[test]
    fn the_schema_is_as_published() {
        let side = r#"{
          "bytes_received": 96000,
          "bytes_sent": 0,
          "buffers_exhausted": 0,
          "cq_overflows": 0,
          "enters": 250,
          "sends": 1000,
          "parks": 0,
          "connections_accepted": 0,
          "connections_closed": 0,
          "accept_errors": 0,
          "cpu_ns": 0
        }"#;
        let expected = r#"{
  "schema": 1,
  "partial": false,
  "host": {
    "kernel": "Linux 6.18.44",
    "cpu": "AMD EPYC 9575F",
    "cores": 2,
    "settings": {
      "governor": "performance",
      "smt": "off",
      "idle_driver": "unknown",
      "clocksource": "tsc",
      "transparent_huge_pages": "madvise",
      "virtualization": "none seen",
      "mitigations": "none known to the kernel",
      "boot_parameters": "isolcpus=1"
    },
    "commit": "0123456789abcdef0123456789abcdef01234567",
    "date": "2026-02-28T23:59:59Z"
  },
  "runs": [
    {
      "target": "floor",
      "connections": 8,
      "depth": 16,
      "size": 64,
      "calls": 1000,
      "errors": 0,
      "calls_per_s": 19234.6,
      "offered_per_s": null,
      "latency_ns": {
        "p50": 50015,
        "p90": 55001,
        "p99": 61023,
        "p999": 812543,
        "p9999": 1200127,
        "max": 2000895
      },
      "latency_from_send_ns": null,
      "lateness_ns": null,
      "unanswered": null,
      "confidence": {
        "percentile": 99.0,
        "value_ns": 61023.0,
        "half_width_ns": 1220.5
      },
      "void": null,
      "doubts": [],
      "server_cpu_ns_per_call": 41.8,
      "client_cpu_ns_per_call": 12100.0,
      "counters": {
        "server": SIDE,
        "client": SIDE
      },
      "cost": null,
      "idle": null,
      "core_load": [
        {
          "core": 1,
          "roles": [
            "server"
          ],
          "seconds": [
            {
              "begun_s": 2.0,
              "length_s": 1.0,
              "busy": 0.5,
              "ours": 0.46,
              "stolen": 0.01
            }
          ]
        }
      ],
      "beside": null
    }
  ]
}
"#;
        assert_eq!(json(&floor()), expected.replace("SIDE", side));
    }

    #[test]
    fn every_counter_of_ringcall_is_there() {
        let report = sample::report();
        let document: serde_json::Value = serde_json::from_str(&json(&report)).unwrap();
        let counters = &document["runs"][1]["counters"]["client"];
        for (name, count) in ShardCounters::default().plus(&report.runs[1].client).iter() {
            assert_eq!(counters[name], count, "{name}");
        }
    }

    #[test]
    fn a_server_alone_counts_everything_and_its_client_what_a_floor_does() {
        let runs = vec![sample::run(Target::Server, 8, 41.84, 12_100.0)];
        let report = Report::new(sample::host(), sample::conditions(), &[runs]);
        let document: serde_json::Value = serde_json::from_str(&json(&report)).unwrap();
        let run = &document["runs"][0];
        assert_eq!(run["target"], "server");
        assert!(run["counters"]["server"]["frames_in_place"].is_u64());
        assert!(run["counters"]["client"]["frames_in_place"].is_null());
    }

    #[test]
    fn a_floor_counts_nothing_that_is_not_there() {
        let known: Vec<_> = ShardCounters::default().iter().map(|(name, _)| name).collect();
        assert!(FLOOR_COUNTS.iter().all(|name| known.contains(name)));
    }

    #[test]
    fn what_a_server_elsewhere_counts_is_null() {
        let mut report = floor();
        report.runs[0].server = None;
        report.runs[0].server_cpu_ns_per_call = None;
        let document: serde_json::Value = serde_json::from_str(&json(&report)).unwrap();
        assert!(document["runs"][0]["server_cpu_ns_per_call"].is_null());
        assert!(document["runs"][0]["counters"]["server"].is_null());
    }
}

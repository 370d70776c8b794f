//! The report as JSON, schema 1.
//!
//! Times are in nanoseconds, sizes in bytes. Keys are added in later versions of the schema and
//! never change their meaning within one.

use ringcall::ShardCounters;
use serde::{Serialize, Serializer, ser::SerializeMap};

use super::Report;
use crate::{
    host::Host,
    measure::{Percentiles, Run},
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
struct Document<'a> {
    schema: u32,
    host: &'a Host,
    runs: Vec<RunObject>,
}

#[derive(Serialize)]
struct RunObject {
    target: Target,
    connections: u32,
    depth: u32,
    /// Length of a body as it travels.
    size: u32,
    calls: u64,
    errors: u64,
    calls_per_s: f64,
    latency_ns: Percentiles,
    /// Null where the server is another process.
    server_cpu_ns_per_call: Option<f64>,
    client_cpu_ns_per_call: f64,
    counters: Counters,
}

/// What both sides counted in the time that was measured.
#[derive(Serialize)]
struct Counters {
    /// Null where the server is another process.
    server: Option<SideCounters>,
    client: SideCounters,
}

struct SideCounters {
    target: Target,
    counters: ShardCounters,
}

impl Serialize for SideCounters {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        for (name, count) in self.counters.iter() {
            if self.target == Target::Ringcall || FLOOR_COUNTS.contains(&name) {
                map.serialize_entry(name, &count)?;
            }
        }
        map.end()
    }
}

impl RunObject {
    fn new(run: &Run) -> Self {
        let Run { target, workload, .. } = *run;
        let side = |counters| SideCounters { target, counters };
        Self {
            target,
            connections: workload.connections,
            depth: workload.depth,
            size: workload.body_len(),
            calls: run.calls,
            errors: run.errors,
            calls_per_s: rounded(run.calls_per_s),
            latency_ns: run.latency_ns,
            server_cpu_ns_per_call: run.server_cpu_ns_per_call.map(rounded),
            client_cpu_ns_per_call: rounded(run.client_cpu_ns_per_call),
            counters: Counters { server: run.server.map(side), client: side(run.client) },
        }
    }
}

/// The report as a document of one line, ended by a newline.
pub(super) fn json(report: &Report) -> String {
    let runs = report.runs.iter().map(RunObject::new).collect();
    let document = Document { schema: SCHEMA, host: &report.host, runs };
    // Neither keys that are no strings nor a writer that fails are in it.
    let text = serde_json::to_string_pretty(&document).unwrap_or_default();
    text + "\n"
}

/// A figure without the digits that it does not have.
fn rounded(figure: f64) -> f64 {
    (figure * 10.0).round() / 10.0
}

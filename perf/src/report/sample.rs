//! A report with known figures, for the tests of what is written of it.

use std::time::Duration;

use ringcall::ShardCounters;

use super::{Conditions, Report};
use crate::{
    host::Host,
    measure::{Percentiles, Run},
    target::Target,
    workload::Workload,
};

pub(super) fn host() -> Host {
    Host {
        name: "sample".to_owned(),
        kernel: "Linux 6.18.44".to_owned(),
        cpu: "AMD EPYC 9575F".to_owned(),
        cores: 2,
        commit: "0123456789abcdef0123456789abcdef01234567".to_owned(),
        date: "2026-02-28T23:59:59Z".to_owned(),
    }
}

pub(super) fn conditions() -> Conditions {
    Conditions {
        server: "server on core 1, over loopback".to_owned(),
        client: "client on core 0".to_owned(),
        duration: Duration::from_secs(3),
        warmup: Duration::from_secs(1),
        spin: Duration::ZERO,
        repeat: 1,
        warnings: Vec::new(),
    }
}

/// A run with that CPU time per call on each side.
pub(super) fn run(target: Target, connections: u32, server: f64, client: f64) -> Run {
    let mut counters = ShardCounters::default();
    counters.bytes_received = 96_000;
    counters.bytes_encoded = 96_000;
    counters.bytes_copied = 960;
    counters.enters = 250;
    counters.sends = 1000;
    counters.frames_in_place = 990;
    counters.frames_copied_straddle = 10;
    Run {
        target,
        workload: Workload { connections, depth: 16, size: 64 },
        calls: 1000,
        errors: 0,
        first_error: None,
        calls_per_s: 19_234.56,
        latency_ns: Percentiles {
            p50: 50_015,
            p90: 55_001,
            p99: 61_023,
            p999: 812_543,
            p9999: 1_200_127,
            max: 2_000_895,
        },
        server_cpu_ns_per_call: Some(server),
        client_cpu_ns_per_call: client,
        server: Some(counters),
        client: counters,
    }
}

pub(super) fn report() -> Report {
    let runs = vec![
        run(Target::Floor, 1, 12_300.04, 12_100.0),
        run(Target::Ringcall, 1, 12_900.0, 54.06),
        run(Target::Ringcall, 64, 315.0, 450.0),
    ];
    Report::new(host(), conditions(), &[runs])
}

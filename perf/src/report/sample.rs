//! A report with known figures, for the tests of what is written of it.

#![allow(clippy::unwrap_used)]

use std::{
    fs,
    path::PathBuf,
    time::{Duration, SystemTime},
};

use ringcall::ShardCounters;

use super::{Conditions, Report};
use crate::{
    core_load::{CoreLoad, Role, Second},
    generator::{Interval, Latencies, Percentiles},
    host::{Host, Settings},
    lengths::{Length, Lengths, Precision, Warmup},
    measure::{OpenFigures, Run},
    series::{Slice, Sparse},
    target::Target,
    workload::Workload,
};

pub(crate) fn host() -> Host {
    Host {
        name: "sample".to_owned(),
        kernel: "Linux 6.18.44".to_owned(),
        cpu: "AMD EPYC 9575F".to_owned(),
        cores: 2,
        settings: Settings {
            governor: "performance".to_owned(),
            smt: "off".to_owned(),
            idle_driver: "unknown".to_owned(),
            clocksource: "tsc".to_owned(),
            transparent_huge_pages: "madvise".to_owned(),
            virtualization: "none seen".to_owned(),
            mitigations: "none known to the kernel".to_owned(),
            boot_parameters: "isolcpus=1".to_owned(),
        },
        commit: "0123456789abcdef0123456789abcdef01234567".to_owned(),
        date: "2026-02-28T23:59:59Z".to_owned(),
    }
}

pub(crate) fn conditions() -> Conditions {
    Conditions {
        server: "server on core 1, over loopback".to_owned(),
        client: "client on core 0".to_owned(),
        load: "closed loop".to_owned(),
        lengths: Lengths {
            warmup: Warmup::For(Duration::from_secs(1)),
            length: Length::For(Duration::from_secs(3)),
            precision: Precision { quantile: 0.99, relative: 0.05 },
        },
        spin: Duration::ZERO,
        repeat: 1,
        is_partial: false,
        warnings: Vec::new(),
    }
}

/// A thousand calls, most around 50 µs and some to 2 ms.
fn latencies() -> Latencies {
    let mut latencies = Latencies::new().unwrap();
    for (calls, us) in [(500, 50), (400, 55), (90, 61), (9, 812), (1, 2000)] {
        (0..calls).for_each(|_| latencies.record(us * 1000));
    }
    latencies
}

/// The same calls in each of thirty ticks.
fn series() -> Vec<Slice> {
    let slice = |tick: u32| Slice {
        begun: Duration::from_millis(100) * tick,
        length: Duration::from_millis(100),
        latencies: Sparse::of(&latencies()),
        errors: 0,
        ticks: 1,
    };
    (0..30).map(slice).collect()
}

/// Figures of an open load at 20,000 calls a second.
pub(crate) fn open() -> OpenFigures {
    let lateness =
        Percentiles { p50: 300, p90: 700, p99: 1_900, p999: 9_000, p9999: 20_000, max: 70_000 };
    let from_send = Percentiles {
        p50: 49_000,
        p90: 54_000,
        p99: 59_000,
        p999: 400_000,
        p9999: 900_000,
        max: 1_900_000,
    };
    OpenFigures {
        offered_per_s: 20_000.0,
        from_send_ns: from_send,
        lateness_ns: lateness,
        unanswered: 3,
    }
}

/// A client that had its core to itself, and a server that slept for half of the time.
pub(crate) fn core_load() -> Vec<CoreLoad> {
    let of_core = |core, role, busy, ours| CoreLoad {
        core,
        roles: vec![role],
        seconds: [0.0, 1.0, 2.0]
            .map(|begun_s| Second { begun_s, length_s: 1.0, busy, ours: Some(ours), stolen: 0.01 })
            .into(),
    };
    vec![of_core(0, Role::Client, 0.99, 0.98), of_core(1, Role::Server, 0.5, 0.46)]
}

/// A run with that CPU time per call on each side.
pub(crate) fn run(target: Target, connections: u32, server: f64, client: f64) -> Run {
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
        open: None,
        bounds: Latencies::new().unwrap(),
        cost: None,
        idle: None,
        core_load: core_load(),
        interval: Some(Interval { value: 61_023.0, half_width: 1_220.5 }),
        void: None,
        doubts: Vec::new(),
        latencies: latencies(),
        from_send: None,
        series: series(),
        began: SystemTime::UNIX_EPOCH + Duration::from_secs(1_772_323_199),
        warmed_for: Duration::from_secs(1),
        began_ns: 0,
        extras: None,
    }
}

pub(crate) fn report() -> Report {
    let runs = vec![
        run(Target::Floor, 1, 12_300.04, 12_100.0),
        run(Target::Ringcall, 1, 12_900.0, 54.06),
        run(Target::Ringcall, 64, 315.0, 450.0),
    ];
    Report::new(host(), conditions(), &[runs])
}

/// A directory for the files of one test, or the path of one; removed with everything in it.
pub(crate) struct Directory(pub(crate) PathBuf);

impl Directory {
    pub(crate) fn new(name: &str) -> Self {
        let name = format!("ringcall-perf-{name}-{}", std::process::id());
        let directory = Self(std::env::temp_dir().join(name));
        fs::create_dir_all(&directory.0).unwrap();
        directory
    }

    /// What is in it, in order.
    pub(crate) fn names(&self) -> Vec<String> {
        let entries = fs::read_dir(&self.0).unwrap();
        let mut names: Vec<String> =
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

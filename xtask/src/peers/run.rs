//! What is measured, and how it is run: the rows, the systems, and the two programs that have them.

use std::path::PathBuf;

use serde_json::Value;

use super::MANIFEST;
use crate::shell::{Step, cargo, program};

/// A workload: a row of the tables.
#[derive(Debug, PartialEq)]
pub(super) struct Row {
    pub(super) name: &'static str,
    connections: u32,
    /// Calls in flight on each connection.
    depth: u32,
    /// Bytes that the caller gives to a call, each way.
    body_len: u32,
    /// How many times the CPU time of ringcall's server the best peer's is to be, at least.
    pub(super) goal_peers: f64,
    /// The same for a protocol written by hand on tokio.
    pub(super) goal_handwritten: f64,
}

/// The rows of every table, with their goals.
#[rustfmt::skip]
pub(super) const ROWS: [Row; 5] = [
    Row { name: "64×1, 64 B", connections: 64, depth: 1, body_len: 64, goal_peers: 1.4, goal_handwritten: 1.1 },
    Row { name: "64×16, 64 B", connections: 64, depth: 16, body_len: 64, goal_peers: 4.0, goal_handwritten: 1.3 },
    Row { name: "8×128, 64 B", connections: 8, depth: 128, body_len: 64, goal_peers: 15.0, goal_handwritten: 2.0 },
    Row { name: "64×1, 4 KiB", connections: 64, depth: 1, body_len: 4 << 10, goal_peers: 1.5, goal_handwritten: 1.25 },
    Row { name: "8×1, 60 KiB", connections: 8, depth: 1, body_len: 60 << 10, goal_peers: 1.0, goal_handwritten: 1.0 },
];

/// The place in [`ROWS`] of the row that tells the capacity, and that open loops have.
pub(super) const OPEN_LOOP_ROW: usize = 1;

/// What ringcall-perf counts to a body beside what the caller gives: the root of its archive.
const ROOT_LEN: u32 = 8;

/// What a system is to the comparison.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Ringcall,
    /// Another RPC system.
    Peer,
    /// What users would write themselves.
    Handwritten,
    /// An echo of bytes without calls: what is left when a system costs nothing.
    Floor,
}

/// A system that is measured.
#[derive(Debug, PartialEq)]
pub(super) struct System {
    /// As the tables say it.
    pub(super) name: &'static str,
    /// As its program is told.
    target: &'static str,
    pub(super) kind: Kind,
}

/// Every system, in the order of the tables.
pub(super) const SYSTEMS: [System; 9] = [
    System { name: "ringcall", target: "ringcall", kind: Kind::Ringcall },
    System { name: "tonic", target: "tonic", kind: Kind::Peer },
    System { name: "tarpc", target: "tarpc", kind: Kind::Peer },
    System { name: "capnp-rpc", target: "capnp-rpc", kind: Kind::Peer },
    System { name: "volo-thrift", target: "volo-thrift", kind: Kind::Peer },
    System { name: "connectrpc", target: "connectrpc", kind: Kind::Peer },
    System { name: "tokio-handwritten", target: "tokio-handwritten", kind: Kind::Handwritten },
    System { name: "(epoll echo)", target: "epoll", kind: Kind::Floor },
    System { name: "(io_uring echo)", target: "floor", kind: Kind::Floor },
];

/// How to measure. Times are as the programs take them, which check them.
#[derive(Debug, PartialEq)]
pub(super) struct Bench {
    pub(super) repeat: usize,
    pub(super) duration: String,
    pub(super) warmup: String,
}

/// The two programs.
pub(super) struct Programs {
    perf: PathBuf,
    peers: PathBuf,
}

/// The row that open loops have.
pub(super) fn open_loop_row() -> &'static Row {
    &ROWS[OPEN_LOOP_ROW]
}

impl System {
    /// Whether it can be called at a rate.
    pub(super) fn has_calls(&self) -> bool {
        self.kind != Kind::Floor
    }

    /// Whether ringcall-perf has it.
    fn is_of_perf(&self) -> bool {
        self.kind == Kind::Ringcall || self.target == "floor"
    }

    /// The arguments with which its program runs it once.
    fn arguments(&self, row: &Row, rate: Option<u32>, bench: &Bench) -> Vec<String> {
        let (first, size) = if self.is_of_perf() {
            let cores = ["--server-cores", "1", "--client-cores", "0"];
            ([&["bench", "--target", self.target], &cores[..]].concat(), row.body_len + ROOT_LEN)
        } else {
            let cores = ["--server-core", "1", "--client-core", "0"];
            ([&["--peer", self.target], &cores[..]].concat(), row.body_len)
        };
        let mut arguments: Vec<String> = first.into_iter().map(str::to_owned).collect();
        let rate = rate.map(|rate| rate.to_string());
        for (flag, value) in [
            ("--connections", Some(row.connections.to_string())),
            ("--depth", Some(row.depth.to_string())),
            ("--size", Some(size.to_string())),
            ("--rate", rate),
            ("--duration", Some(bench.duration.clone())),
            ("--warmup", Some(bench.warmup.clone())),
            ("--json", Some("-".to_owned())),
        ] {
            arguments.extend(value.into_iter().flat_map(|value| [flag.to_owned(), value]));
        }
        arguments
    }
}

impl Programs {
    /// Builds both, in release.
    pub(super) fn build() -> Result<Self, String> {
        Ok(Self {
            perf: built("ringcall-perf", &["-p", "ringcall-perf"])?,
            peers: built("ringcall-peers", &["--manifest-path", MANIFEST])?,
        })
    }

    /// Runs a system once, and gives the document that its program prints.
    pub(super) fn run(
        &self,
        system: &System,
        row: &Row,
        rate: Option<u32>,
        bench: &Bench,
    ) -> Result<Value, String> {
        let path = if system.is_of_perf() { &self.perf } else { &self.peers };
        let step = program(&path.to_string_lossy(), []).args(&system.arguments(row, rate, bench));
        let shown = step.to_string();
        let output = step.capture()?;
        let document: Result<Value, _> = serde_json::from_slice(&output.stdout);
        match document {
            // ringcall-perf fails where its generator was late. The table marks that by itself, for
            // every system alike.
            Ok(document) if output.status.success() || document["runs"][0]["void"].is_string() => {
                Ok(document)
            }
            Err(error) if output.status.success() => {
                Err(format!("`{shown}` printed no JSON: {error}"))
            }
            _ => {
                let error = String::from_utf8_lossy(&output.stderr);
                Err(format!("`{shown}` failed: {}", error.trim_end()))
            }
        }
    }
}

/// Builds a program in release and gives where cargo has put it.
fn built(name: &str, package: &[&str]) -> Result<PathBuf, String> {
    let package: Vec<String> = package.iter().map(|argument| (*argument).to_owned()).collect();
    let build = || -> Step { cargo(["build", "--release"]).args(&package) };
    build().run()?;
    // Once more, as there is nothing left to do but to tell.
    let told = build().args(&["--message-format=json".to_owned()]).capture()?;
    let executable = |line: &str| -> Option<PathBuf> {
        let message: Value = serde_json::from_str(line).ok()?;
        (message["target"]["name"] == name).then_some(())?;
        Some(message["executable"].as_str()?.into())
    };
    let told = String::from_utf8_lossy(&told.stdout);
    told.lines().find_map(executable).ok_or(format!("cargo does not tell where {name} is"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_system_carries_the_same_bytes() {
        let bench = Bench { repeat: 1, duration: "1s".to_owned(), warmup: "0s".to_owned() };
        let line =
            |system: usize, rate| SYSTEMS[system].arguments(&ROWS[3], rate, &bench).join(" ");
        // The root of an archive is no part of what the caller gives.
        assert_eq!(
            line(0, None),
            "bench --target ringcall --server-cores 1 --client-cores 0 --connections 64 --depth 1 \
             --size 4104 --duration 1s --warmup 0s --json -"
        );
        assert_eq!(
            line(1, Some(70_000)),
            "--peer tonic --server-core 1 --client-core 0 --connections 64 --depth 1 --size 4096 \
             --rate 70000 --duration 1s --warmup 0s --json -"
        );
        assert!(line(8, None).starts_with("bench --target floor "));
    }

    #[test]
    fn floors_have_no_calls() {
        let names: Vec<_> = SYSTEMS.iter().filter(|it| !it.has_calls()).map(|it| it.name).collect();
        assert_eq!(names, ["(epoll echo)", "(io_uring echo)"]);
    }
}

//! Figures out of the programs' documents, and their medians over the repeats.

use std::collections::BTreeMap;

use serde_json::Value;

use super::run::{Kind, OPEN_LOOP_ROW, ROWS, Row, SYSTEMS, System};

/// Part of an offered rate that a system must answer while it is offered, so that it is said to
/// take it. What it answers afterwards does not count.
const TAKEN_MIN: f64 = 0.98;

/// What is reported of one run. Times are in nanoseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Figures {
    pub(super) calls_per_s: f64,
    /// CPU time of a call on each side.
    pub(super) server_ns: f64,
    pub(super) client_ns: f64,
    pub(super) p50_ns: f64,
    pub(super) p99_ns: f64,
    pub(super) p999_ns: f64,
    /// 99th percentile of how late an open loop's generator was; zero in a closed loop.
    pub(super) lateness_p99_ns: f64,
}

/// The machine, as the first document has it.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Machine {
    pub(super) cpu: String,
    pub(super) cores: u64,
    pub(super) kernel: String,
    pub(super) date: String,
    pub(super) commit: String,
}

/// What became of a system in an open loop.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Open {
    /// It took the rate in every repeat.
    Taken(Figures),
    /// It did not, in one repeat at least.
    NotTaken,
    /// It could not be run: why.
    Failed(String),
}

/// Everything that was measured.
#[derive(Debug, Default)]
pub(super) struct Results {
    pub(super) machine: Machine,
    /// By row and system, a run for each repeat.
    runs: BTreeMap<(&'static str, &'static str), Vec<Figures>>,
    /// By rate and system, what became of it in each repeat.
    open: BTreeMap<(u32, &'static str), Vec<Open>>,
}

impl Results {
    pub(super) fn new() -> Self {
        Self::default()
    }

    /// Adds a run under closed loop.
    pub(super) fn add(
        &mut self,
        row: &Row,
        system: &System,
        document: &Value,
    ) -> Result<(), String> {
        if self.runs.is_empty() {
            self.machine = Machine::read(document);
        }
        let figures = Figures::read(document)?;
        self.runs.entry((row.name, system.name)).or_default().push(figures);
        Ok(())
    }

    /// Adds a run under open loop, or that there is none.
    pub(super) fn add_open(&mut self, rate: u32, system: &System, document: Result<Value, String>) {
        let read = |document: Value| Ok((Figures::read(&document)?, is_taken(&document)?));
        let outcome = match document.and_then(read) {
            Ok((figures, true)) => Open::Taken(figures),
            Ok((_, false)) => Open::NotTaken,
            Err(error) => Open::Failed(error),
        };
        self.open.entry((rate, system.name)).or_default().push(outcome);
    }

    /// The medians of a system in a row.
    pub(super) fn medians(&self, row: &Row, system: &System) -> Option<Figures> {
        self.runs.get(&(row.name, system.name)).map(|runs| medians(runs))
    }

    /// How many times ringcall's the CPU time of a system's server is: the median over the
    /// repeats, of which each is compared in itself.
    pub(super) fn ratio(&self, row: &Row, system: &System) -> Option<f64> {
        let ringcall = self.runs.get(&(row.name, SYSTEMS[0].name))?;
        let runs = self.runs.get(&(row.name, system.name))?;
        Some(median(runs.iter().zip(ringcall).map(|(run, of)| run.server_ns / of.server_ns)))
    }

    /// The peer whose server takes the least CPU time in a row, with its ratio to ringcall's.
    pub(super) fn best_peer(&self, row: &Row) -> Option<(&'static System, f64)> {
        let peers = SYSTEMS.iter().filter(|system| system.kind == Kind::Peer);
        let ratios = peers.filter_map(|system| Some((system, self.ratio(row, system)?)));
        ratios.min_by(|(_, one), (_, other)| one.total_cmp(other))
    }

    /// The rates of the open loops in calls per second: a part of the capacity of the peer that
    /// has most of it, and of the one that has least.
    pub(super) fn open_loop_rates(&self, part: f64) -> Result<Vec<u32>, String> {
        let peers = SYSTEMS.iter().filter(|system| system.kind == Kind::Peer);
        let row = &ROWS[OPEN_LOOP_ROW];
        let capacities: Vec<f64> =
            peers.filter_map(|system| Some(self.medians(row, system)?.calls_per_s)).collect();
        let most = capacities.iter().copied().fold(0.0, f64::max);
        let least = capacities.iter().copied().fold(f64::INFINITY, f64::min);
        if capacities.is_empty() {
            return Err("no peer was measured".to_owned());
        }
        // To the thousand: the capacity is not known better.
        let rate = |capacity: f64| ((capacity * part / 1e3).round().max(1.0) * 1e3) as u32;
        let mut rates = vec![rate(least), rate(most)];
        rates.dedup();
        Ok(rates)
    }

    /// The rates at which open loops ran.
    pub(super) fn rates(&self) -> Vec<u32> {
        let mut rates: Vec<u32> = self.open.keys().map(|(rate, _)| *rate).collect();
        rates.dedup();
        rates
    }

    /// What became of a system at a rate: of all repeats the worst, or their medians.
    pub(super) fn open(&self, rate: u32, system: &System) -> Option<Open> {
        let outcomes = self.open.get(&(rate, system.name))?;
        let mut taken = Vec::new();
        for outcome in outcomes {
            match outcome {
                Open::Taken(figures) => taken.push(*figures),
                outcome => return Some(outcome.clone()),
            }
        }
        Some(Open::Taken(medians(&taken)))
    }
}

impl Figures {
    /// Reads the only run of a document.
    fn read(document: &Value) -> Result<Self, String> {
        let run = &document["runs"][0];
        let number = |value: &Value, name: &str| {
            value.as_f64().ok_or_else(|| format!("a document has no number for {name}: {document}"))
        };
        let latency = &run["latency_ns"];
        Ok(Self {
            calls_per_s: number(&run["calls_per_s"], "calls_per_s")?,
            server_ns: number(&run["server_cpu_ns_per_call"], "server_cpu_ns_per_call")?,
            client_ns: number(&run["client_cpu_ns_per_call"], "client_cpu_ns_per_call")?,
            p50_ns: number(&latency["p50"], "p50")?,
            p99_ns: number(&latency["p99"], "p99")?,
            p999_ns: number(&latency["p999"], "p999")?,
            lateness_p99_ns: run["lateness_ns"]["p99"].as_f64().unwrap_or(0.0),
        })
    }
}

impl Machine {
    fn read(document: &Value) -> Self {
        let host = &document["host"];
        let text = |name: &str| host[name].as_str().unwrap_or("unknown").to_owned();
        Self {
            cpu: text("cpu"),
            cores: host["cores"].as_u64().unwrap_or(0),
            kernel: text("kernel"),
            date: text("date"),
            commit: text("commit"),
        }
    }
}

/// Whether the system of an open loop's document has answered what it was offered. What was due at
/// the end and had no answer yet says nothing of that: something always is.
fn is_taken(document: &Value) -> Result<bool, String> {
    let run = &document["runs"][0];
    let (offered, answered) = (&run["offered_per_s"], &run["calls_per_s"]);
    let (Some(offered), Some(answered)) = (offered.as_f64(), answered.as_f64()) else {
        return Err(format!("a document of an open loop has no offered_per_s: {document}"));
    };
    Ok(answered >= TAKEN_MIN * offered)
}

fn medians(runs: &[Figures]) -> Figures {
    let mid = |figure: fn(&Figures) -> f64| median(runs.iter().map(figure));
    Figures {
        calls_per_s: mid(|run| run.calls_per_s),
        server_ns: mid(|run| run.server_ns),
        client_ns: mid(|run| run.client_ns),
        p50_ns: mid(|run| run.p50_ns),
        p99_ns: mid(|run| run.p99_ns),
        p999_ns: mid(|run| run.p999_ns),
        lateness_p99_ns: mid(|run| run.lateness_p99_ns),
    }
}

/// The value in the middle, or the mean of the two there; zero where there is none.
fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    match values.get(middle) {
        Some(above) if values.len().is_multiple_of(2) => (values[middle - 1] + above) / 2.0,
        Some(value) => *value,
        None => 0.0,
    }
}

#[cfg(test)]
pub(super) mod tests {
    use serde_json::json;

    use super::*;

    /// A document as both programs print it.
    pub(in crate::peers) fn document(server_ns: f64, calls_per_s: f64) -> Value {
        json!({
            "schema": 1,
            "host": {
                "kernel": "Linux 6.18.44", "cpu": "AMD EPYC 9575F", "cores": 2,
                "commit": "0123456789abcdef", "date": "2026-02-28T23:59:59Z",
            },
            "runs": [{
                "target": "any", "connections": 64, "depth": 16, "size": 64,
                "calls": 1000, "errors": 0, "calls_per_s": calls_per_s,
                "latency_ns": {
                    "p50": 50_000, "p90": 60_000, "p99": 70_000, "p999": 80_000,
                    "p9999": 90_000, "max": 100_000,
                },
                "server_cpu_ns_per_call": server_ns,
                "client_cpu_ns_per_call": 300.0,
                "offered_per_s": 1000.0,
            }],
        })
    }

    #[test]
    fn ratios_are_of_the_same_repeat_and_medians_of_all() {
        let mut results = Results::new();
        for (ringcall, tarpc) in [(100.0, 110.0), (200.0, 300.0), (100.0, 130.0)] {
            results.add(&ROWS[0], &SYSTEMS[0], &document(ringcall, 1e3)).expect("it is whole");
            results.add(&ROWS[0], &SYSTEMS[2], &document(tarpc, 1e3)).expect("it is whole");
        }
        assert_eq!(results.ratio(&ROWS[0], &SYSTEMS[2]), Some(1.3));
        assert_eq!(results.medians(&ROWS[0], &SYSTEMS[0]).map(|it| it.server_ns), Some(100.0));
        assert_eq!(results.best_peer(&ROWS[0]), Some((&SYSTEMS[2], 1.3)));
        assert_eq!(results.medians(&ROWS[1], &SYSTEMS[0]), None);
        assert_eq!(results.machine.cpu, "AMD EPYC 9575F");
    }

    #[test]
    fn the_best_peer_is_another_rpc_system() {
        let mut results = Results::new();
        // tokio by hand and the floors are better here, and no peers.
        for (system, server_ns) in SYSTEMS.iter().zip([9.0, 8.0, 7.0, 6.0, 5.0, 4.0, 3.0, 2.0, 1.0])
        {
            results.add(&ROWS[0], system, &document(server_ns, 1e3)).expect("it is whole");
        }
        assert_eq!(results.best_peer(&ROWS[0]).map(|(system, _)| system.name), Some("connectrpc"));
    }

    #[test]
    fn the_rates_are_a_part_of_what_peers_can_do() {
        let mut results = Results::new();
        for (system, calls_per_s) in SYSTEMS.iter().zip([9e6, 1e5, 5e5, 2e5, 3e5, 4e5, 8e6]) {
            results.add(&ROWS[1], system, &document(1.0, calls_per_s)).expect("it is whole");
        }
        assert_eq!(results.open_loop_rates(0.7), Ok(vec![70_000, 350_000]));
        assert!(Results::new().open_loop_rates(0.7).is_err());
    }

    #[test]
    fn a_rate_is_taken_in_every_repeat_or_not_at_all() {
        let mut results = Results::new();
        results.add_open(1000, &SYSTEMS[0], Ok(document(1.0, 999.0)));
        results.add_open(1000, &SYSTEMS[0], Ok(document(1.0, 1000.0)));
        results.add_open(1000, &SYSTEMS[1], Ok(document(1.0, 1000.0)));
        results.add_open(1000, &SYSTEMS[1], Ok(document(1.0, 900.0)));
        results.add_open(1000, &SYSTEMS[2], Err("no such flag".to_owned()));
        assert!(matches!(results.open(1000, &SYSTEMS[0]), Some(Open::Taken(_))));
        assert_eq!(results.open(1000, &SYSTEMS[1]), Some(Open::NotTaken));
        assert_eq!(results.open(1000, &SYSTEMS[2]), Some(Open::Failed("no such flag".to_owned())));
        assert_eq!(results.open(1000, &SYSTEMS[3]), None);
        assert_eq!(results.rates(), [1000]);
    }

    #[test]
    fn a_rate_is_taken_where_nearly_all_of_it_is_answered_while_it_is_offered() {
        let mut few_left = document(1.0, 990.0);
        few_left["runs"][0]["unanswered"] = json!(1);
        assert_eq!(is_taken(&few_left), Ok(true));
        assert_eq!(is_taken(&document(1.0, 970.0)), Ok(false));
        assert!(is_taken(&json!({ "runs": [{}] })).is_err());
    }

    #[test]
    fn a_document_without_a_figure_is_an_error_that_names_it() {
        let mut half = document(1.0, 1.0);
        half["runs"][0]["server_cpu_ns_per_call"] = Value::Null;
        let error = Results::new().add(&ROWS[0], &SYSTEMS[0], &half).expect_err("it lacks one");
        assert!(error.contains("no number for server_cpu_ns_per_call"), "{error}");
    }
}

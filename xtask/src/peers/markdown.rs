//! The tables of docs/benchmarks.md.
//!
//! The best of the systems with calls is bold in each column of each workload, whichever it is.
//! Floors have no calls, and are there to tell what is left when a system costs nothing.

use std::fmt::Write as _;
use std::fs;

use super::figures::{Figures, Machine, Open, Results};
use super::run::{Kind, ROWS, Row, SYSTEMS, System};
use crate::shell::root;

/// Where the versions of the systems are.
const LOCK: &str = "benches/peers/Cargo.lock";

/// The crates whose versions are named.
const CRATES: [&str; 7] =
    ["tonic", "tarpc", "capnp-rpc", "volo-thrift", "connectrpc", "tokio", "postcard"];

/// Everything that stands between the two comments.
pub(super) fn tables(results: &Results, command: &str) -> Result<String, String> {
    let lock = fs::read_to_string(root().join(LOCK))
        .map_err(|error| format!("cannot read {LOCK}: {error}"))?;
    let mut text = heading(&results.machine, command, &versions(&lock)?);
    text += &closed_loop(results);
    text += &goals(results);
    text += &open_loop(results);
    Ok(text)
}

fn heading(machine: &Machine, command: &str, versions: &str) -> String {
    let Machine { cpu, cores, kernel, date, commit } = machine;
    let day = date.get(..10).unwrap_or(date);
    let short = commit.get(..12).unwrap_or(commit);
    let changed = if commit.ends_with("-dirty") { ", with changes" } else { "" };
    format!(
        "Written by `{command}`: {cpu}, {cores} cores, {kernel}, {day}, commit {short}{changed}. \
         {versions}.\n"
    )
}

/// A row of a table in the making: cells, and by which figure each is the best of its column.
struct Line {
    cells: Vec<String>,
    /// Which figures compete: less is better. None where a system does not.
    ranks: Option<Vec<f64>>,
}

fn closed_loop(results: &Results) -> String {
    let mut text = "\n### Closed loop\n\n\
        | workload | system | server CPU/call | ÷ ringcall | calls/s | client CPU/call | p50 | p99 |\n\
        |---|---|---:|---:|---:|---:|---:|---:|\n"
        .to_owned();
    for row in &ROWS {
        let lines = SYSTEMS.iter().filter_map(|system| closed_loop_line(results, row, system));
        text += &block(row.name, lines.collect());
    }
    text
}

fn closed_loop_line(results: &Results, row: &Row, system: &System) -> Option<Line> {
    let figures = results.medians(row, system)?;
    let Figures { calls_per_s, server_ns, client_ns, p50_ns, p99_ns, .. } = figures;
    let ratio = results.ratio(row, system);
    let cells = vec![
        system.name.to_owned(),
        time(server_ns),
        ratio.map_or_else(String::new, times),
        count(calls_per_s),
        time(client_ns),
        time(p50_ns),
        time(p99_ns),
    ];
    // A system's name competes in nothing, nor does its ratio, which says what its time says.
    let none = f64::NAN;
    let ranks = vec![none, server_ns, none, -calls_per_s, client_ns, p50_ns, p99_ns];
    Some(Line { cells, ranks: system.has_calls().then_some(ranks) })
}

fn goals(results: &Results) -> String {
    let mut text = "\n### Goals\n\n\
        Server CPU time of a call, as a multiple of ringcall's.\n\n\
        | workload | best peer | multiple | goal | | tokio-handwritten | goal | |\n\
        |---|---|---:|---:|---|---:|---:|---|\n"
        .to_owned();
    let handwritten = SYSTEMS.iter().find(|system| system.kind == Kind::Handwritten);
    for row in &ROWS {
        let best = results.best_peer(row);
        let by_hand = handwritten.and_then(|system| results.ratio(row, system));
        let (Some((peer, ratio)), Some(by_hand)) = (best, by_hand) else { continue };
        let _ = writeln!(
            text,
            "| {} | {} | {} | {} | {} | {} | {} | {} |",
            row.name,
            peer.name,
            times(ratio),
            goal(row.goal_peers),
            verdict(ratio, row.goal_peers),
            times(by_hand),
            goal(row.goal_handwritten),
            verdict(by_hand, row.goal_handwritten),
        );
    }
    text
}

fn goal(goal: f64) -> String {
    if goal == 1.0 { "not worse".to_owned() } else { format!("≥ {goal}×") }
}

/// Judges the ratio as it is shown.
fn verdict(ratio: f64, goal: f64) -> &'static str {
    if (ratio * 100.0).round() / 100.0 >= goal { "met" } else { "**missed**" }
}

fn open_loop(results: &Results) -> String {
    let mut text = format!(
        "\n### Open loop\n\n\
         {}, with times from the moment at which a call was to be made. The rates are 70 % of what \
         the least and the most able peer did above. Lateness is the generator's own; †: it is more \
         than a tenth of the latency at p99, which may be the generator's then.\n\n\
         | offered | system | p50 | p99 | p99.9 | server CPU/call | lateness p99 |\n\
         |---|---|---:|---:|---:|---:|---:|\n",
        super::run::open_loop_row().name
    );
    let mut reasons = String::new();
    for rate in results.rates() {
        let mut lines = Vec::new();
        for system in SYSTEMS.iter().filter(|system| system.has_calls()) {
            match results.open(rate, system) {
                Some(Open::Taken(figures)) => lines.push(open_loop_line(system, &figures)),
                Some(Open::NotTaken) => lines.push(without_figures(system, "cannot take it")),
                Some(Open::Failed(error)) => {
                    lines.push(without_figures(system, "not measured"));
                    let first = error.lines().next().unwrap_or_default();
                    let reason = format!("\n{} was not measured: {first}\n", system.name);
                    if !reasons.contains(&format!("\n{} was", system.name)) {
                        reasons += &reason;
                    }
                }
                None => {}
            }
        }
        text += &block(&format!("{}/s", count(f64::from(rate))), lines);
    }
    text + &reasons
}

/// Lateness of a generator from which on a latency may be its own, as a part of it.
const LATENESS_MAX: f64 = 0.1;

fn open_loop_line(system: &System, figures: &Figures) -> Line {
    let Figures { p50_ns, p99_ns, p999_ns, server_ns, lateness_p99_ns, .. } = *figures;
    let times = [p50_ns, p99_ns, p999_ns, server_ns, lateness_p99_ns];
    let mark = if lateness_p99_ns > p99_ns * LATENESS_MAX { " †" } else { "" };
    let name = format!("{}{mark}", system.name);
    let cells = [name].into_iter().chain(times.map(time)).collect();
    Line { cells, ranks: Some(vec![f64::NAN, p50_ns, p99_ns, p999_ns, server_ns, f64::NAN]) }
}

fn without_figures(system: &System, why: &str) -> Line {
    let cells = [system.name, why, "", "", "", ""].map(str::to_owned);
    Line { cells: cells.into(), ranks: None }
}

/// Lines of a table with the name of their block before the first, and the best of each column
/// bold.
fn block(name: &str, lines: Vec<Line>) -> String {
    let best = |column: usize| {
        let ranks = lines.iter().filter_map(|line| line.ranks.as_ref()?.get(column).copied());
        ranks.filter(|rank| !rank.is_nan()).min_by(f64::total_cmp)
    };
    let mut text = String::new();
    for (index, line) in lines.iter().enumerate() {
        let _ = write!(text, "| {} |", if index == 0 { name } else { "" });
        for (column, cell) in line.cells.iter().enumerate() {
            let rank = line.ranks.as_ref().and_then(|ranks| ranks.get(column).copied());
            let is_best = rank.is_some() && rank == best(column);
            let _ = if is_best { write!(text, " **{cell}** |") } else { write!(text, " {cell} |") };
        }
        text.push('\n');
    }
    text
}

/// The versions of the systems, as a lock file has them: `tonic 0.14.9, ...`.
fn versions(lock: &str) -> Result<String, String> {
    let version = |name: &str| {
        let (_, entry) = lock.split_once(&format!("\nname = \"{name}\"\nversion = \""))?;
        Some(format!("{name} {}", entry.split_once('"')?.0))
    };
    let found: Option<Vec<String>> = CRATES.iter().map(|name| version(name)).collect();
    Ok(found.ok_or_else(|| format!("{LOCK} lacks one of {}", CRATES.join(", ")))?.join(", "))
}

/// A time as people read it, to three digits: `412 ns`, `5.62 µs`.
fn time(ns: f64) -> String {
    match ns {
        ns if ns < 999.5 => format!("{} ns", digits(ns)),
        ns if ns < 999_500.0 => format!("{} µs", digits(ns / 1e3)),
        ns if ns < 999_500_000.0 => format!("{} ms", digits(ns / 1e6)),
        ns => format!("{} s", digits(ns / 1e9)),
    }
}

/// A count as people read it, to three digits: `174 k`, `2.17 M`.
fn count(count: f64) -> String {
    match count {
        count if count < 999.5 => digits(count),
        count if count < 999_500.0 => format!("{} k", digits(count / 1e3)),
        count => format!("{} M", digits(count / 1e6)),
    }
}

fn times(ratio: f64) -> String {
    format!("{}×", digits(ratio))
}

/// Three digits of a number below a thousand.
fn digits(number: f64) -> String {
    let places = if number < 9.995 { 2 } else { usize::from(number < 99.95) };
    format!("{number:.places$}")
}

#[cfg(test)]
mod tests {
    use super::super::figures::tests::document;
    use super::*;

    /// Every system in every row: each twice as costly as the one before, from 100 ns on.
    fn results() -> Results {
        let mut results = Results::new();
        for row in &ROWS {
            let mut server_ns = 100.0;
            for system in &SYSTEMS {
                let document = document(server_ns, 1e9 / server_ns);
                results.add(row, system, &document).expect("it is whole");
                server_ns *= 2.0;
            }
        }
        results
    }

    fn lines_of<'a>(text: &'a str, start: &str) -> Vec<&'a str> {
        text.lines().filter(|line| line.starts_with(start)).collect()
    }

    #[test]
    fn the_best_of_each_column_is_bold_whoever_it_is() {
        let text = closed_loop(&results());
        assert_eq!(
            lines_of(&text, "| 64×1, 64 B"),
            ["| 64×1, 64 B | ringcall | **100 ns** | 1.00× | **10.0 M** | **300 ns** | \
              **50.0 µs** | **70.0 µs** |"]
        );
        let mut other = results();
        // Another system wins the first row, and a floor is better still.
        for (system, server_ns) in [(&SYSTEMS[2], 10.0), (&SYSTEMS[8], 1.0)] {
            for _ in 0..3 {
                let document = document(server_ns, 1e6);
                other.add(&ROWS[0], system, &document).expect("it is whole");
            }
        }
        let text = closed_loop(&other);
        let first: Vec<&str> = text.lines().skip(5).take(SYSTEMS.len()).collect();
        assert!(first[0].starts_with("| 64×1, 64 B | ringcall | 100 ns |"), "{}", first[0]);
        assert!(first[2].starts_with("|  | tarpc | **10.0 ns** |"), "{}", first[2]);
        assert!(first[8].starts_with("|  | (io_uring echo) | 1.00 ns |"), "{}", first[8]);
    }

    #[test]
    fn goals_are_met_or_said_to_be_missed() {
        let text = goals(&results());
        // The best peer, tonic, is at 2×; the handwritten one at 64×.
        let rows = lines_of(&text, "| 64×1");
        assert_eq!(rows[0], "| 64×1, 64 B | tonic | 2.00× | ≥ 1.4× | met | 64.0× | ≥ 1.1× | met |");
        assert!(rows[1].contains("| tonic | 2.00× | ≥ 4× | **missed** |"), "{}", rows[1]);
        assert_eq!([1.094, 1.096].map(|ratio| verdict(ratio, 1.1)), ["**missed**", "met"]);
        let last = lines_of(&text, "| 8×1,");
        assert_eq!(
            last[0],
            "| 8×1, 60 KiB | tonic | 2.00× | not worse | met | 64.0× | not worse | met |"
        );
    }

    #[test]
    fn an_open_loop_says_who_took_the_rate_and_who_could_not_be_run() {
        let mut results = results();
        results.add_open(70_000, &SYSTEMS[0], Err("`x` failed: no --rate\nmore".to_owned()));
        results.add_open(70_000, &SYSTEMS[1], Ok(document(1.0, 10.0)));
        results.add_open(70_000, &SYSTEMS[2], Ok(document(1.0, 1000.0)));
        let text = open_loop(&results);
        for line in [
            "| 70.0 k/s | ringcall | not measured |  |  |  |  |",
            "|  | tonic | cannot take it |  |  |  |  |",
            "|  | tarpc | **50.0 µs** | **70.0 µs** | **80.0 µs** | **1.00 ns** | 0.00 ns |",
            "ringcall was not measured: `x` failed: no --rate",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} in {text}");
        }
    }

    #[test]
    fn the_heading_names_machine_commit_and_versions() {
        let machine = results().machine;
        let text = heading(&machine, "cargo xtask peers", "tonic 1.2.3");
        assert_eq!(
            text,
            "Written by `cargo xtask peers`: AMD EPYC 9575F, 2 cores, Linux 6.18.44, 2026-02-28, \
             commit 0123456789ab. tonic 1.2.3.\n"
        );
    }

    #[test]
    fn versions_are_those_of_the_lock_file() {
        let lock = fs::read_to_string(root().join(LOCK)).expect("it is there");
        let text = versions(&lock).expect("every system is in it");
        assert!(text.starts_with("tonic 0."), "{text}");
        assert_eq!(text.split(", ").count(), CRATES.len());
        assert!(versions("").is_err());
    }

    #[test]
    fn figures_have_three_digits() {
        let times = [0.0, 41.84, 999.4, 999.6, 5_617.0, 9_996.0, 87_430.0, 999_600.0, 2.5e9];
        let wanted = [
            "0.00 ns", "41.8 ns", "999 ns", "1.00 µs", "5.62 µs", "10.0 µs", "87.4 µs", "1.00 ms",
            "2.50 s",
        ];
        assert_eq!(times.map(time), wanted);
        assert_eq!([7.0, 123_456.0, 2_171_000.0].map(count), ["7.00", "123 k", "2.17 M"]);
    }
}

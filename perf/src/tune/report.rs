//! What was found, with its evidence: for the terminal, and as the file of settings.

use super::{
    goal::Goal,
    search::{Found, Outcome, ROUNDS, Tried, is_better},
    settings::{Knob, Settings},
};
use crate::{
    generator::Interval,
    verdict::{Verdict, ends},
};

/// Fewest calls of a run of which the 99.9th percentile is more than its slowest few.
const CALLS_OF_P999_MIN: u64 = 20_000;

/// What it was found for and under.
pub(super) struct Conditions {
    pub(super) goal: Goal,
    /// Workload, cores, lengths of runs.
    pub(super) lines: Vec<String>,
    pub(super) knobs: Vec<Knob>,
    /// The cores that shards may have.
    pub(super) cores: Vec<usize>,
    /// Whether they were named.
    pub(super) names_cores: bool,
}

/// Everything that was tried, and what came of it.
pub(super) fn table(conditions: &Conditions, found: &Found, is_whole: bool) -> String {
    let goal = conditions.goal;
    let mut text = conditions.lines.join("\n");
    text += &format!("\n\n{:<38} {:>16}  ratio to what there was\n", "setting", goal.name());
    for Tried { knob, settings, figure, outcome } in &found.tried {
        let figure = figure.map_or("-".to_owned(), |figure| goal.text(figure));
        text += &format!("{:<38} {figure:>16}  {}\n", knob.text(settings), says(goal, outcome));
    }
    if conditions.cores.len() == 1 && conditions.knobs.contains(&Knob::Shards) {
        text += "Fewer shards: not tried, as the server has one core; --server-cores names more\n";
    }
    for knob in &found.left_out {
        text += &format!("{}: not tried, for want of time: a longer --budget\n", knob.name());
    }
    text.push('\n');
    if !is_whole {
        text += "Not finished: this is what was found until then.\n";
    }
    for line in summary(conditions, found) {
        text += &format!("{line}\n");
    }
    text
}

/// The conclusion, line by line.
fn summary(conditions: &Conditions, found: &Found) -> Vec<String> {
    let goal = conditions.goal;
    let start = Settings::default_on(conditions.cores.len());
    let mut lines = Vec::new();
    match (&found.in_all, found.given_up, found.best == start) {
        (_, Some(_), _) => lines.push(
            "What was taken step by step is not better than the defaults in the last comparison: \
             the defaults are kept."
                .to_owned(),
        ),
        (_, None, true) if found.tried.is_empty() => {
            lines.push("The defaults are kept: there was no time to try another.".to_owned());
        }
        (_, None, true) => {
            lines.push("The defaults are kept: nothing was better beyond the noise.".to_owned());
        }
        (None, None, false) => {
            lines.push("Better than the defaults step by step; not compared in all.".to_owned());
        }
        (Some(_), None, false) => lines.push("Better than the defaults:".to_owned()),
    }
    for (of, ratio) in found.in_all.iter().flatten() {
        let verdict = Verdict::of(*ratio, of.more_is_better());
        lines.push(format!("  {:<16} {}  {verdict}", of.name(), ratio_text(*ratio)));
    }
    if goal == Goal::P999 && found.calls_min < CALLS_OF_P999_MIN {
        lines.push(format!(
            "The shortest run had {} calls: its p99.9 is that of its slowest {}. A longer --budget \
             makes runs longer.",
            found.calls_min,
            found.calls_min.div_ceil(1000)
        ));
    }
    lines
}

/// The file of settings: the evidence as a comment, then every key.
pub(super) fn toml(conditions: &Conditions, found: &Found, is_whole: bool) -> String {
    let mut config = found.best.config(&conditions.cores);
    // Where no cores were named, those of the host that it will run on are its own matter.
    if !conditions.names_cores && found.best.shards == conditions.cores.len() {
        config.cores = None;
    }
    let mut text =
        "# Settings of a ringcall server, found by `ringcall-perf tune`.\n#\n".to_owned();
    for line in table(conditions, found, is_whole).lines() {
        text += format!("# {line}").trim_end();
        text.push('\n');
    }
    text + "\n" + &config.to_toml()
}

fn says(goal: Goal, outcome: &Outcome) -> String {
    let Outcome::Compared { first, again, is_taken } = outcome else {
        return match outcome {
            Outcome::NoFigure(why) => format!("no figure: {why}"),
            _ => "what there was".to_owned(),
        };
    };
    let verdict = Verdict::of(*first, goal.more_is_better());
    let text = format!("{}  {verdict}", ratio_text(*first));
    match (again, is_taken) {
        (Some(again), true) => format!("{text}; again {}: taken", ratio_text(*again)),
        (Some(again), false) => format!("{text}; again {}: not sure", ratio_text(*again)),
        (None, _) if is_better(goal, *first) => format!("{text}, another more so"),
        (None, _) => text,
    }
}

fn ratio_text(logarithm: Interval) -> String {
    let [at, from, to] = ends(logarithm);
    format!("{at:.3} ({from:.3} to {to:.3})")
}

/// How settings were compared, for people.
pub(super) fn method() -> String {
    format!(
        "{ROUNDS} rounds a comparison, in turn; ratios with 95 % intervals. A value is taken where\nit \
         is better in two comparisons of its own, and all together are better in a third."
    )
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

    use ringcall::ServerConfig;

    use super::*;

    fn conditions(names_cores: bool) -> Conditions {
        let lines = vec!["64×1 64 B, closed loop".to_owned()];
        Conditions {
            goal: Goal::P999,
            lines,
            knobs: Knob::ALL.into(),
            cores: vec![2, 3],
            names_cores,
        }
    }

    fn found() -> Found {
        let start = Settings::default_on(2);
        let best = Settings { spin_us: 50, ..start };
        let ratio = Interval { value: 0.5_f64.ln(), half_width: 0.1 };
        let tried = |settings, outcome| Tried {
            knob: Knob::Spin,
            settings,
            figure: Some(80_000.0),
            outcome,
        };
        let compared = Outcome::Compared { first: ratio, again: Some(ratio), is_taken: true };
        Found {
            best,
            tried: vec![tried(start, Outcome::Incumbent), tried(best, compared)],
            left_out: vec![Knob::RingEntries],
            in_all: Some(vec![(Goal::P999, ratio)]),
            calls_min: 5000,
            ..Found::new(start)
        }
    }

    #[test]
    fn the_table_has_the_evidence_and_what_is_missing() {
        let text = table(&conditions(false), &found(), false);
        for part in [
            "spin_us = 50",
            "80.0 µs",
            "0.500 (0.452 to 0.553)  better; again 0.500 (0.452 to 0.553): taken",
            "Ring entries: not tried",
            "Not finished: this is what was found",
            "Better than the defaults:",
            "had 5000 calls: its p99.9 is that of its slowest 5.",
        ] {
            assert!(text.contains(part), "no {part:?} in:\n{text}");
        }
        let mut nothing = Found::new(Settings::default_on(2));
        let untried = table(&conditions(false), &nothing, true);
        assert!(untried.contains("The defaults are kept: there was no time"), "{untried}");
        nothing.tried.push(found().tried[0].clone());
        let text = table(&conditions(false), &nothing, true);
        assert!(text.contains("The defaults are kept: nothing was better"), "{text}");
    }

    #[test]
    fn the_file_has_what_was_found_and_loads() {
        let config = ServerConfig::from_toml(&toml(&conditions(false), &found(), true)).unwrap();
        assert_eq!(config.cores, None);
        assert!(config.to_toml().contains("\nspin_us = 50\n"));
        let config = ServerConfig::from_toml(&toml(&conditions(true), &found(), true)).unwrap();
        assert_eq!(config.cores, Some(vec![2, 3]));
        let mut fewer = found();
        fewer.best.shards = 1;
        let config = ServerConfig::from_toml(&toml(&conditions(false), &fewer, true)).unwrap();
        assert_eq!(config.cores, Some(vec![2]));
    }
}

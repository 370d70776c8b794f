//! The search: one setting after another, and a new value only where it is better beyond the noise.
//!
//! The values of a setting and the one that there is run in turn, round after round, and each is
//! compared with the one that there is in the same round. Of many comparisons by chance some show a
//! difference; so what wins is compared once more, in fresh runs, and taken only where it wins
//! again. At the end all that was taken is compared with the defaults in the same way, and given
//! up where that shows nothing. It measures through [`Measure`], so that tests know the truth.

use crate::{
    error::Failure,
    generator::{Interval, median},
    tune::{
        goal::{Figures, Goal},
        settings::{Knob, Settings},
    },
    verdict::{Ratios, Verdict},
};

/// Rounds of a comparison: the fewest that tell an interval.
pub(super) const ROUNDS: u32 = 5;

/// Runs a server with settings under the load.
pub(super) trait Measure {
    /// The figures of one run, or why it has none. Fails where nothing more can be run.
    fn run(&mut self, settings: &Settings, what: &str) -> Result<Result<Figures, String>, Failure>;

    /// Whether so many runs still fit into the budget.
    fn has_time_for(&self, runs: usize) -> bool;
}

/// What became of a value that was tried.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Outcome {
    /// It is what there was.
    Incumbent,
    /// Against what there was.
    Compared { first: Interval, again: Option<Interval>, is_taken: bool },
    /// Too few of its runs have a figure.
    NoFigure(String),
}

/// A value that was tried.
#[derive(Clone, Debug)]
pub(super) struct Tried {
    pub(super) knob: Knob,
    pub(super) settings: Settings,
    /// The median over its runs of what is tuned for.
    pub(super) figure: Option<f64>,
    pub(super) outcome: Outcome,
}

/// What was found, also where it was cut short.
#[derive(Clone, Debug)]
pub(super) struct Found {
    pub(super) best: Settings,
    pub(super) tried: Vec<Tried>,
    /// Settings for which there was no time.
    pub(super) left_out: Vec<Knob>,
    /// Each figure of the best as a multiple of that of the defaults, where it is another.
    pub(super) in_all: Option<Vec<(Goal, Interval)>>,
    /// What was found and given up, as the last comparison did not show it.
    pub(super) given_up: Option<Settings>,
    /// Fewest calls of a run.
    pub(super) calls_min: u64,
}

/// The figures of several settings, by round: those that a run has.
struct Race {
    figures: Vec<Vec<Option<Figures>>>,
    /// Why the last run of each that has none has none.
    missing: Vec<String>,
}

/// How many runs trying a setting takes at most, with what follows.
pub(super) fn runs_of(alternatives: usize) -> usize {
    let rounds = ROUNDS as usize;
    // All in turn, the winner again, and the comparison with the defaults at the end.
    rounds * (alternatives + 1) + 2 * rounds + 2 * rounds
}

impl Found {
    pub(super) fn new(start: Settings) -> Self {
        Self {
            best: start,
            tried: Vec::new(),
            left_out: Vec::new(),
            in_all: None,
            given_up: None,
            calls_min: u64::MAX,
        }
    }
}

/// Searches from the defaults on. What was found until a failure is in `found`.
pub(super) fn search(
    measure: &mut impl Measure,
    goal: Goal,
    (knobs, cores): (&[Knob], usize),
    found: &mut Found,
) -> Result<(), Failure> {
    let defaults = found.best;
    for &knob in knobs {
        let alternatives = knob.alternatives(found.best, cores);
        if alternatives.is_empty() {
            continue;
        }
        if !measure.has_time_for(runs_of(alternatives.len())) {
            found.left_out.push(knob);
            continue;
        }
        try_knob(measure, goal, knob, &alternatives, found)?;
    }
    if found.best == defaults {
        return Ok(());
    }
    // Fresh runs: those that chose the winners favour them.
    let race = race(measure, &[defaults, found.best], "all of it", &mut found.calls_min)?;
    let ratio = |goal: Goal| Some((goal, race.ratio(goal, 1)?));
    let in_all: Vec<(Goal, Interval)> = Goal::ALL.into_iter().filter_map(ratio).collect();
    let of_goal = in_all.iter().find(|(it, _)| *it == goal);
    if !of_goal.is_some_and(|(_, ratio)| is_better(goal, *ratio)) {
        found.given_up = Some(std::mem::replace(&mut found.best, defaults));
    }
    found.in_all = Some(in_all);
    Ok(())
}

/// Tries every other value of a setting, and takes the best where it is better beyond the noise.
fn try_knob(
    measure: &mut impl Measure,
    goal: Goal,
    knob: Knob,
    alternatives: &[Settings],
    found: &mut Found,
) -> Result<(), Failure> {
    let incumbent = found.best;
    let all = [&[incumbent][..], alternatives].concat();
    let first = race(measure, &all, &knob.text(&incumbent), &mut found.calls_min)?;
    if first.median(goal, 0).is_none() {
        let why = first.missing.first().cloned().unwrap_or_default();
        return Err(Failure::NothingToTune { why });
    }
    let begin = found.tried.len();
    for (index, settings) in all.iter().enumerate() {
        let outcome = match (index, first.ratio(goal, index)) {
            (0, _) => Outcome::Incumbent,
            (_, Some(first)) => Outcome::Compared { first, again: None, is_taken: false },
            (_, None) => Outcome::NoFigure(first.missing.get(index).cloned().unwrap_or_default()),
        };
        let figure = first.median(goal, index);
        found.tried.push(Tried { knob, settings: *settings, figure, outcome });
    }
    let better = |tried: &&mut Tried| match &tried.outcome {
        Outcome::Compared { first, .. } => is_better(goal, *first),
        _ => false,
    };
    let worth = |tried: &&mut Tried| match &tried.outcome {
        Outcome::Compared { first, .. } if goal.more_is_better() => first.value,
        Outcome::Compared { first, .. } => -first.value,
        _ => f64::NEG_INFINITY,
    };
    let tried = found.tried.get_mut(begin..).unwrap_or_default().iter_mut();
    let Some(winner) = tried.filter(better).max_by(|a, b| worth(a).total_cmp(&worth(b))) else {
        return Ok(());
    };
    let settings = winner.settings;
    let what = format!("{}, again", knob.text(&settings));
    let fresh = race(measure, &[incumbent, settings], &what, &mut found.calls_min)?;
    let ratio = fresh.ratio(goal, 1);
    let is_sure = ratio.is_some_and(|ratio| is_better(goal, ratio));
    if let Outcome::Compared { again, is_taken, .. } = &mut winner.outcome {
        (*again, *is_taken) = (ratio, is_sure);
    }
    if is_sure {
        found.best = settings;
    }
    Ok(())
}

pub(super) fn is_better(goal: Goal, ratio: Interval) -> bool {
    Verdict::of(ratio, goal.more_is_better()) == Verdict::Better
}

/// Runs settings in turn, round after round; who begins changes each time, so that a machine that
/// becomes slower favours nobody.
fn race(
    measure: &mut impl Measure,
    all: &[Settings],
    what: &str,
    calls_min: &mut u64,
) -> Result<Race, Failure> {
    let mut race =
        Race { figures: vec![Vec::new(); all.len()], missing: vec![String::new(); all.len()] };
    for round in 0..ROUNDS {
        let mut order: Vec<usize> = (0..all.len()).collect();
        order.rotate_left(round as usize % all.len().max(1));
        for index in order {
            let (Some(settings), Some(figures), Some(missing)) =
                (all.get(index), race.figures.get_mut(index), race.missing.get_mut(index))
            else {
                continue;
            };
            let what = format!("{what}: round {} of {ROUNDS}", round + 1);
            let outcome = measure.run(settings, &what)?;
            if let Ok(figures) = &outcome {
                *calls_min = figures.calls.min(*calls_min);
            }
            figures.push(outcome.map_err(|why| *missing = why).ok());
        }
    }
    Ok(race)
}

impl Race {
    /// The logarithm of a figure of one as a multiple of that of the first.
    fn ratio(&self, goal: Goal, index: usize) -> Option<Interval> {
        let (first, other) = (self.figures.first()?, self.figures.get(index)?);
        let pairs = first.iter().zip(other).filter_map(|(a, b)| Some((a.as_ref()?, b.as_ref()?)));
        Ratios::of(pairs.map(|(a, b)| (goal.of(a), goal.of(b)))).logarithm()
    }

    fn median(&self, goal: Goal, index: usize) -> Option<f64> {
        let figures: Vec<f64> =
            self.figures.get(index)?.iter().flatten().map(|it| goal.of(it)).collect();
        (!figures.is_empty()).then(|| median(figures))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

    use super::*;

    /// A host whose truth is known, with noise.
    struct Host<F> {
        truth: F,
        noise: f64,
        random: fastrand::Rng,
        runs_left: usize,
    }

    impl<F: Fn(&Settings) -> Result<f64, String>> Measure for Host<F> {
        fn run(
            &mut self,
            settings: &Settings,
            _: &str,
        ) -> Result<Result<Figures, String>, Failure> {
            self.runs_left = self.runs_left.checked_sub(1).ok_or(Failure::Interrupted)?;
            Ok((self.truth)(settings).map(|p999_ns| {
                let noise = 1.0 + self.noise * (self.random.f64() - 0.5);
                Figures {
                    calls: 1000,
                    calls_per_s: 1e9 / p999_ns * noise,
                    p999_ns: p999_ns * noise,
                    server_cpu_ns_per_call: 100.0 + settings.spin_us as f64,
                }
            }))
        }

        fn has_time_for(&self, runs: usize) -> bool {
            runs <= self.runs_left
        }
    }

    fn search_on(
        truth: impl Fn(&Settings) -> Result<f64, String>,
        (noise, seed, runs): (f64, u64, usize),
    ) -> (Found, Result<(), Failure>) {
        let random = fastrand::Rng::with_seed(seed);
        let mut host = Host { truth, noise, random, runs_left: runs };
        let mut found = Found::new(Settings::default_on(2));
        let ended = search(&mut host, Goal::P999, (&Knob::ALL, 2), &mut found);
        (found, ended)
    }

    /// Spinning helps the more, and with it so do small buffers; one shard is half as good.
    fn truth(settings: &Settings) -> Result<f64, String> {
        let shards = if settings.shards == 1 { 2.0 } else { 1.0 };
        let spin = 1.0 - settings.spin_us as f64 / 200.0;
        let buffers = if settings.receive_buffer_bytes == 4096 { 0.8 } else { 1.0 };
        Ok(100_000.0 * shards * spin * buffers)
    }

    #[test]
    fn what_is_better_beyond_the_noise_is_found_and_nothing_else() {
        let (found, ended) = search_on(truth, (0.05, 1, 1000));
        ended.unwrap();
        let best = found.best;
        assert_eq!((best.shards, best.spin_us, best.receive_buffer_bytes), (2, 100, 4096));
        assert_eq!((best.ring_entries, best.send_buffer_max_bytes), (1024, 256 << 10));
        let in_all = found.in_all.unwrap();
        let ratio = |goal| in_all.iter().find(|(it, _)| *it == goal).unwrap().1.value.exp();
        assert!((ratio(Goal::P999) - 0.4).abs() < 0.02, "{in_all:?}");
        assert!((ratio(Goal::Cpu) - 2.0).abs() < 0.01, "{in_all:?}");
        assert!(found.left_out.is_empty() && found.given_up.is_none());
        assert_eq!(found.tried.len(), 2 + 4 + 5 + 3 + 3);
    }

    /// Of comparisons of equals, each shows a difference for the better in one of forty; that it
    /// does so twice, and in the end again, is rare.
    #[test]
    fn noise_changes_no_setting() {
        let changed = (0..100)
            .filter(|seed| {
                let (found, ended) = search_on(|_| Ok(100_000.0), (0.5, *seed, 1000));
                ended.unwrap();
                found.best != Settings::default_on(2)
            })
            .count();
        assert!(changed <= 2, "{changed} of 100");
    }

    #[test]
    fn a_budget_that_ends_leaves_out_what_it_has_no_time_for() {
        let (found, ended) = search_on(truth, (0.01, 1, 49));
        ended.unwrap();
        assert_eq!(found.best.spin_us, 0);
        assert_eq!(found.left_out, [Knob::Spin, Knob::ReceiveBuffers, Knob::RingEntries]);
        let (found, ended) = search_on(truth, (0.01, 1, 0));
        ended.unwrap();
        assert_eq!((found.left_out.len(), found.tried.len()), (5, 0));
    }

    #[test]
    fn what_was_found_before_an_interrupt_is_kept() {
        // In the middle of the receive buffers: a host that does not tell when its time is over.
        struct Endless<H>(H);
        impl<H: Measure> Measure for Endless<H> {
            fn run(
                &mut self,
                settings: &Settings,
                what: &str,
            ) -> Result<Result<Figures, String>, Failure> {
                self.0.run(settings, what)
            }
            fn has_time_for(&self, _: usize) -> bool {
                true
            }
        }
        let random = fastrand::Rng::with_seed(1);
        let host = Host { truth, noise: 0.01, random, runs_left: 10 + 20 + 10 + 7 };
        let mut found = Found::new(Settings::default_on(2));
        let ended = search(&mut Endless(host), Goal::P999, (&Knob::ALL, 2), &mut found);
        assert!(matches!(ended, Err(Failure::Interrupted)));
        assert_eq!((found.best.spin_us, found.tried.len()), (100, 6));
    }

    #[test]
    fn a_value_that_cannot_run_is_passed_over() {
        let broken = |settings: &Settings| match settings.ring_entries {
            4096 => Err("too little memory may be locked".to_owned()),
            _ => truth(settings),
        };
        let (found, ended) = search_on(broken, (0.01, 1, 1000));
        ended.unwrap();
        let tried = found.tried.iter().find(|it| it.settings.ring_entries == 4096).unwrap();
        let expected = Outcome::NoFigure("too little memory may be locked".to_owned());
        assert_eq!(tried.outcome, expected);
        let (_, ended) = search_on(|_| Err("late".to_owned()), (0.0, 1, 1000));
        assert!(matches!(ended, Err(Failure::NothingToTune { why }) if why == "late"));
    }
}

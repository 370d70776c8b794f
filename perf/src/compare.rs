//! `compare`: two builds, or two configurations, under the same load, in turn.
//!
//! Each side is this program or another build of it, with flags of its own. The sides take turns,
//! and which one is first changes each time, so that a machine that becomes slower or faster does
//! not favour either. What counts is the ratio within a pair of neighbours; the interval is that of
//! the mean of the logarithms of these ratios (Student's), which assumes that pairs are
//! independent, and nothing else.

use std::{
    env,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    thread,
    time::Duration,
};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::{
    args::CompareArgs,
    error::Failure,
    interrupt::Interrupt,
    progress::Progress,
    report::print,
    verdict::{Ratios, Verdict, ends},
};

/// Time that starting and ending a run takes, and the part of it that is not measured, for the
/// progress bar.
const OVERHEAD: Duration = Duration::from_millis(700);

/// Longest time for which the end of a run, and Ctrl-C, are not seen.
const LOOK_AFTER: Duration = Duration::from_millis(5);

/// One of the two.
#[derive(Clone, Debug, PartialEq)]
struct Side {
    name: String,
    program: PathBuf,
    flags: Vec<String>,
}

/// What is compared: its name, where it is in a run's JSON, and whether more of it is better.
struct Figure {
    name: &'static str,
    path: &'static [&'static str],
    more_is_better: bool,
}

const FIGURES: [Figure; 7] = [
    Figure { name: "calls/s", path: &["calls_per_s"], more_is_better: true },
    Figure { name: "server CPU/call", path: &["server_cpu_ns_per_call"], more_is_better: false },
    Figure { name: "client CPU/call", path: &["client_cpu_ns_per_call"], more_is_better: false },
    Figure { name: "p50", path: &["latency_ns", "p50"], more_is_better: false },
    Figure { name: "p90", path: &["latency_ns", "p90"], more_is_better: false },
    Figure { name: "p99", path: &["latency_ns", "p99"], more_is_better: false },
    Figure { name: "p99.9", path: &["latency_ns", "p999"], more_is_better: false },
];

/// Runs both sides in turn and prints what differs.
pub(crate) fn compare(args: &CompareArgs) -> Result<(), Failure> {
    let this = env::current_exe().map_err(Failure::ServerProcess)?;
    let a = Side::parse("A", &args.a, &this)?;
    let b = Side::parse("B", &args.b, &this)?;
    let interrupt = Interrupt::watch()?;
    let progress = Progress::begin(2 * args.pairs * (args.duration + OVERHEAD));
    let mut pairs: Vec<[Vec<Value>; 2]> = Vec::new();
    let mut ended = Ok(());
    for pair in 0..args.pairs {
        progress.say(format!("pair {} of {}", pair + 1, args.pairs));
        let run = |side: &Side| side.run(args, &interrupt, &progress);
        let both = if pair % 2 == 0 {
            run(&a).and_then(|first| Ok([first, run(&b)?]))
        } else {
            run(&b).and_then(|first| Ok([run(&a)?, first]))
        };
        match both {
            Ok(both) => pairs.push(both),
            // What was compared until then is kept.
            Err(failure) if pairs.is_empty() => return Err(failure),
            Err(failure) => {
                ended = Err(failure);
                break;
            }
        }
    }
    progress.end();
    print(&table(&a, &b, &pairs, args.pairs as usize))?;
    ended
}

impl Side {
    /// A side as it is named on the command line: flags, perhaps after the path of another build.
    fn parse(name: &str, text: &str, this: &Path) -> Result<Self, Failure> {
        let mut words = text.split_whitespace().map(str::to_owned).peekable();
        let program = match words.next_if(|word| !word.starts_with('-')) {
            None => this.to_owned(),
            Some(path) if Path::new(&path).is_file() => PathBuf::from(path),
            Some(path) => return Err(Failure::NoBuild { side: name.to_owned(), path }),
        };
        Ok(Self { name: name.to_owned(), program, flags: words.collect() })
    }

    /// One run: what it wrote of each workload and target.
    fn run(
        &self,
        args: &CompareArgs,
        interrupt: &Interrupt,
        progress: &Progress,
    ) -> Result<Vec<Value>, Failure> {
        interrupt.check()?;
        let failed = |why: String| Failure::SideFailed { side: self.name.clone(), why };
        let milliseconds = |time: Duration| format!("{}ms", time.as_millis());
        let child = Command::new(&self.program)
            .arg("bench")
            .args(["--duration", &milliseconds(args.duration)])
            .args(["--warmup", &milliseconds(args.warmup), "--json", "-"])
            .args(if args.bench_args.is_empty() { &DEFAULTS[..] } else { &[] })
            .args(&args.bench_args)
            .args(&self.flags)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|error| failed(error.to_string()))?;
        let pid = Pid::from_raw(child.id().cast_signed());
        // On a thread, as what it writes must be read while it runs.
        let ended = thread::spawn(move || child.wait_with_output());
        let mut is_told = false;
        while !ended.is_finished() {
            progress.tick();
            if interrupt.is_set()
                && !is_told
                && let Some(pid) = pid
            {
                // Once: by a second one it ends without cleaning up.
                is_told = true;
                let _ = kill_process(pid, Signal::INT);
            }
            thread::sleep(LOOK_AFTER);
        }
        let output = ended.join().map_err(|_| failed("its reader panicked".to_owned()))?;
        let output = output.map_err(|error| failed(error.to_string()))?;
        interrupt.check()?;
        if !output.status.success() {
            let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
            let error = stderr.lines().rev().find_map(|line| line.strip_prefix("error: "));
            let why = error.or(stderr.lines().last()).unwrap_or("it said nothing");
            return Err(failed(why.to_owned()));
        }
        let document: Value = serde_json::from_slice(&output.stdout)
            .map_err(|error| failed(format!("it wrote no JSON: {error}")))?;
        match document["runs"].as_array() {
            Some(runs) if !runs.is_empty() => Ok(runs.clone()),
            _ => Err(failed("its JSON has no runs".to_owned())),
        }
    }
}

/// What is measured where nothing is asked for.
const DEFAULTS: [&str; 2] = ["--target", "ringcall"];

impl Figure {
    fn of(&self, run: &Value) -> Option<f64> {
        self.path.iter().try_fold(run, |value, key| value.get(key))?.as_f64()
    }
}

/// The ratios of B to A, of each pair in which both sides have the figure.
fn ratios(figure: &Figure, pairs: &[[Vec<Value>; 2]], index: usize) -> Ratios {
    let of =
        |[a, b]: &[Vec<Value>; 2]| Some((figure.of(a.get(index)?)?, figure.of(b.get(index)?)?));
    Ratios::of(pairs.iter().filter_map(of))
}

fn says(verdict: Verdict) -> String {
    match verdict {
        Verdict::Better => "B is better".to_owned(),
        Verdict::Worse => "B is worse".to_owned(),
        Verdict::NoDifference { .. } => verdict.to_string(),
    }
}

fn table(a: &Side, b: &Side, pairs: &[[Vec<Value>; 2]], wanted: usize) -> String {
    let describe = |side: &Side| {
        let flags = match side.flags.as_slice() {
            [] => "as built".to_owned(),
            flags => flags.join(" "),
        };
        format!("{}: {} {flags}\n", side.name, side.program.display())
    };
    let mut text = describe(a) + &describe(b);
    text += &format!("{} pairs of runs in turn", pairs.len());
    if pairs.len() < wanted {
        text += &format!(" (interrupted, of {wanted})");
    }
    text += "; B as a multiple of A, with the 95 % interval. Each line is judged by itself:\nof \
        twenty without any difference one will name one.\n";
    for (index, run) in pairs.first().map_or(&[][..], |[a, _]| a).iter().enumerate() {
        let of = |key: &str| run[key].to_string();
        let target = run["target"].as_str().unwrap_or("?");
        text += &format!("\n{}×{} {} B {target}\n", of("connections"), of("depth"), of("size"));
        for figure in &FIGURES {
            let ratios = ratios(figure, pairs, index);
            let line = match ratios.logarithm() {
                Some(logarithm) => {
                    let verdict = Verdict::of(logarithm, figure.more_is_better);
                    let [at, from, to] = ends(logarithm);
                    format!("{at:.3}  ({from:.3} to {to:.3})  {}", says(verdict))
                }
                None => format!("too few pairs have it ({})", ratios.0.len()),
            };
            text += &format!("  {:<16} {line}\n", figure.name);
        }
    }
    text
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

    use serde_json::json;

    use super::*;

    fn pairs(ratios: &[f64]) -> Vec<[Vec<Value>; 2]> {
        let run = |ns: f64| vec![json!({ "server_cpu_ns_per_call": ns, "calls_per_s": null })];
        ratios.iter().map(|ratio| [run(100.0), run(100.0 * ratio)]).collect()
    }

    fn verdict(ratios: &[f64]) -> Verdict {
        let figure = &FIGURES[1];
        let interval = super::ratios(figure, &pairs(ratios), 0).logarithm().unwrap();
        Verdict::of(interval, figure.more_is_better)
    }

    #[test]
    fn a_difference_that_is_larger_than_the_noise_is_named() {
        assert_eq!(verdict(&[1.05, 1.04, 1.06, 1.05, 1.05]), Verdict::Worse);
        assert_eq!(verdict(&[0.90, 0.91, 0.89, 0.90, 0.92]), Verdict::Better);
    }

    #[test]
    fn noise_is_no_difference_and_says_how_large_one_could_be() {
        let Verdict::NoDifference { within } = verdict(&[1.05, 0.95, 1.02, 0.97, 1.01]) else {
            panic!("a difference was found");
        };
        assert!((0.02..0.08).contains(&within), "{within}");
    }

    #[test]
    fn what_a_side_does_not_tell_is_not_compared() {
        assert!(ratios(&FIGURES[0], &pairs(&[1.0; 6]), 0).logarithm().is_none());
        assert!(ratios(&FIGURES[1], &pairs(&[1.0; 4]), 0).logarithm().is_none());
    }

    #[test]
    fn a_side_is_flags_or_another_build_with_flags() {
        let this = env::current_exe().unwrap();
        let flags = Side::parse("A", "--spin 50us", &this).unwrap();
        assert_eq!((flags.program.as_path(), flags.flags.len()), (this.as_path(), 2));
        let other = Side::parse("B", this.to_str().unwrap(), Path::new("/other")).unwrap();
        assert_eq!((other.program, other.flags.len()), (this.clone(), 0));
        let failure = Side::parse("B", "no/such/build --spin 1us", &this).unwrap_err();
        assert!(failure.to_string().contains("no/such/build"), "{failure}");
    }
}

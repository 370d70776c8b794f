//! `cargo xtask flake`: a test that passes once may still fail now and then.
//!
//! It builds first, then runs the chosen tests again and again, and shows the output of the first
//! run that fails. Documentation tests are left out: each run would compile them anew.

use std::io::IsTerminal;
use std::path::Path;

use crate::shell::{Outcome, Step, cargo, root};

/// How often a test runs when the user does not say: a test that fails once in ten runs is missed
/// once in two hundred times.
const RUNS_DEFAULT: u32 = 50;

/// Runs one test file, or all tests with a name in their path, up to the first failure.
///
/// Fails when a run fails, when nothing compiles, or when no test is called so.
pub(crate) fn flake(arguments: &[String]) -> Outcome {
    let (name, runs) = parse(arguments)?;
    let selection = Selection::find(root(), name);
    selection.step(true).run()?;

    let progress = std::io::stderr().is_terminal();
    let mut passed = 0;
    for run in 1..=runs {
        if progress {
            eprint!("\rrun {run} of {runs}{}", if run == runs { "\n" } else { "" });
        }
        passed =
            selection.run_once().map_err(|message| format!("run {run} of {runs}: {message}"))?;
        if passed == 0 {
            return Err(format!("no test file and no test is called `{name}`"));
        }
    }
    println!("{runs} runs of `{name}` passed, {passed} tests in each");
    Ok(())
}

fn parse(arguments: &[String]) -> Result<(&str, u32), String> {
    let (name, runs) = match arguments {
        [name] => (name, RUNS_DEFAULT),
        [name, runs] => match runs.parse() {
            Ok(runs) if runs > 0 => (name, runs),
            _ => return Err(format!("the number of runs is 1 or more, got `{runs}`")),
        },
        _ => return Err("takes a name and, if wanted, a number of runs".to_owned()),
    };
    if name.is_empty() || name.starts_with('-') {
        return Err(format!("takes a name first, got `{name}`"));
    }
    Ok((name, runs))
}

/// Which tests a name stands for.
#[derive(Debug, PartialEq)]
enum Selection<'a> {
    /// The whole of a crate's `tests/NAME.rs` or `tests/NAME/main.rs`.
    File(&'a str),
    /// Each test of the workspace with the name in its path.
    Filter(&'a str),
}

impl<'a> Selection<'a> {
    fn find(root: &Path, name: &'a str) -> Self {
        let is_file = |folder: &Path| {
            let test = folder.join("tests").join(name);
            test.with_extension("rs").is_file() || test.join("main.rs").is_file()
        };
        let folders = std::fs::read_dir(root).into_iter().flatten().flatten();
        if folders.map(|folder| folder.path()).any(|folder| is_file(&folder)) {
            Self::File(name)
        } else {
            Self::Filter(name)
        }
    }

    fn step(&self, build_only: bool) -> Step {
        let mut arguments = vec!["test", "--workspace"];
        match self {
            Self::File(name) => arguments.extend(["--test", name]),
            Self::Filter(_) => arguments.push("--tests"),
        }
        if build_only {
            arguments.push("--no-run");
        }
        if let Self::Filter(name) = self {
            arguments.extend(["--", name]);
        }
        cargo(arguments)
    }

    /// Runs the tests once and counts those that passed; shows the output if one fails.
    fn run_once(&self) -> Result<u64, String> {
        let output = self.step(false).capture()?;
        if output.status.success() {
            return Ok(tests_passed(&String::from_utf8_lossy(&output.stdout)));
        }
        eprintln!();
        eprint!("{}", String::from_utf8_lossy(&output.stderr));
        print!("{}", String::from_utf8_lossy(&output.stdout));
        Err("a test failed".to_owned())
    }
}

/// Sums the passed tests of each test binary's last line, `test result: ok. 3 passed; 0 failed; ...`.
fn tests_passed(printed: &str) -> u64 {
    let results = printed.lines().filter_map(|line| line.strip_prefix("test result: ok. "));
    results.filter_map(|line| line.split(' ').next()?.parse::<u64>().ok()).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn strings(arguments: &[&str]) -> Vec<String> {
        arguments.iter().map(|argument| (*argument).to_owned()).collect()
    }

    #[test]
    fn a_name_alone_runs_fifty_times() {
        assert_eq!(parse(&strings(&["drain"])), Ok(("drain", 50)));
        assert_eq!(parse(&strings(&["drain", "200"])), Ok(("drain", 200)));
    }

    #[test]
    fn arguments_that_make_no_sense_are_refused() {
        for arguments in
            [&[][..], &[""], &["-p"], &["drain", "0"], &["drain", "often"], &["a", "1", "b"]]
        {
            assert!(parse(&strings(arguments)).is_err(), "{arguments:?}");
        }
    }

    #[test]
    fn a_name_that_is_a_test_file_stands_for_the_file() {
        assert_eq!(Selection::find(root(), "clippy_bans"), Selection::File("clippy_bans"));
        assert_eq!(Selection::find(root(), "tests_passed"), Selection::Filter("tests_passed"));
    }

    #[test]
    fn passed_tests_are_summed_over_all_binaries() {
        let printed = "running 3 tests\n...\n\
             test result: ok. 3 passed; 0 failed; 0 ignored; 0 measured; 9 filtered out\n\
             test result: ok. 0 passed; 0 failed; 0 ignored; 0 measured; 4 filtered out\n\
             test result: ok. 2 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out\n";
        assert_eq!(tests_passed(printed), 5);
        assert_eq!(tests_passed(""), 0);
    }
}

//! Commands that need a nightly compiler: the fuzzer, Miri and a sanitizer.
//!
//! Each says what to install where something is missing, and installs nothing itself.

use std::fs;
use std::path::Path;

use crate::commands::no_arguments;
use crate::shell::{Outcome, Step, program, root};

/// How long each target runs when the user does not say: a smoke test, not a search.
const FUZZ_SECONDS_DEFAULT: u32 = 20;

/// Calls that the test of dropped futures makes under the sanitizer.
const DROPPED_FUTURES: &str = "10000000";

/// Where the sanitizer's builds go: its flags would have everything else built anew.
const ASAN_TARGET_DIR: &str = "target/asan";

/// The sanitizer asks for a target by name, or build scripts would be built with it too.
const ASAN_TARGET: &str = "x86_64-unknown-linux-gnu";

/// Tests of the runtime that the sanitizer cannot watch, with the reason.
const ASAN_LEFT_OUT: &[(&str, &str)] = &[
    ("compile_fail", "it runs the compiler, which the sanitizer is not built into"),
    ("hostile_items", "it measures resident memory, and the sanitizer keeps what was freed"),
    ("hostile_memory", "it measures resident memory, and the sanitizer keeps what was freed"),
    ("leftovers", "it counts mappings of one size, and finds more under the sanitizer"),
    ("method_limit", "it runs the compiler, which the sanitizer is not built into"),
];

/// Fuzzes one target, or each for a while, from its corpus on.
///
/// Fails at the first input that breaks what its target asserts; `fuzz/artifacts/` has it then.
pub(crate) fn fuzz(arguments: &[String]) -> Outcome {
    let targets = fuzz_targets(root())?;
    let (chosen, seconds) = parse(arguments, &targets)?;
    needs(nightly(["--version"]), "rustup toolchain install nightly --profile minimal")?;
    needs(nightly(["fuzz", "--version"]), "cargo install --locked cargo-fuzz")?;
    for target in chosen {
        // What the fuzzer finds goes beside the corpus that is kept, in the folder named first.
        let found = format!("target/fuzz-corpus/{target}");
        let kept = format!("fuzz/corpus/{target}");
        let folder = root().join(&found);
        fs::create_dir_all(&folder)
            .map_err(|error| format!("cannot make {}: {error}", folder.display()))?;
        let time = format!("-max_total_time={seconds}");
        // Bounds on time and memory of one input, which its target must keep.
        let bounds = ["-timeout=10", "-rss_limit_mb=2048", "-malloc_limit_mb=256"];
        nightly(["fuzz", "run", target, &found, &kept, "--", &time].into_iter().chain(bounds))
            .run()?;
    }
    Ok(())
}

/// Runs the tests of the codec under Miri, which finds undefined behaviour in what they execute.
pub(crate) fn miri(arguments: &[String]) -> Outcome {
    needs(
        nightly(["miri", "--version"]),
        "rustup toolchain install nightly --profile minimal --component miri,rust-src",
    )?;
    // Tests read files; each number of cases is one that ends within minutes.
    nightly(["miri", "test", "-p", "ringcall-codec"])
        .args(arguments)
        .env("MIRIFLAGS", "-Zmiri-disable-isolation")
        .env("PROPTEST_CASES", "8")
        .run()
}

/// Runs the tests of the runtime under AddressSanitizer, those of dropped futures at length.
pub(crate) fn asan(arguments: &[String]) -> Outcome {
    no_arguments(arguments)?;
    needs(nightly(["--version"]), "rustup toolchain install nightly --profile minimal")?;
    let tests = asan_tests(root())?;
    let mut words = vec!["test", "--release", "-p", "ringcall", "--target", ASAN_TARGET, "--lib"];
    words.extend(tests.iter().flat_map(|test| ["--test", test]));
    nightly(words)
        .env("RUSTFLAGS", "-Zsanitizer=address")
        // An executor that ends leaves the allocations of its tasks behind, which are reported.
        .env("ASAN_OPTIONS", "detect_leaks=0")
        .env("CARGO_TARGET_DIR", ASAN_TARGET_DIR)
        .env("RINGCALL_DROPPED_FUTURES", DROPPED_FUTURES)
        // Fast enough for as many calls, and as strict as a debug build.
        .env("CARGO_PROFILE_RELEASE_DEBUG_ASSERTIONS", "true")
        .env("CARGO_PROFILE_RELEASE_LTO", "off")
        .env("CARGO_PROFILE_RELEASE_CODEGEN_UNITS", "16")
        .run()
}

/// A step that is `cargo` of the nightly toolchain.
///
/// By way of rustup: the cargo that runs xtask is that of another toolchain.
fn nightly<'a>(arguments: impl IntoIterator<Item = &'a str>) -> Step {
    program("rustup", ["run", "nightly", "cargo"].into_iter().chain(arguments))
}

/// Fails with what to install where a step that only prints a version fails.
fn needs(step: Step, install: &str) -> Outcome {
    let shown = step.to_string();
    match step.capture() {
        Ok(output) if output.status.success() => Ok(()),
        _ => Err(format!("`{shown}` does not run; install it with `{install}`")),
    }
}

/// The targets: a file each.
fn fuzz_targets(root: &Path) -> Result<Vec<String>, String> {
    names_in(&root.join("fuzz/fuzz_targets"))
}

/// The files of the runtime's tests that the sanitizer watches.
fn asan_tests(root: &Path) -> Result<Vec<String>, String> {
    let mut tests = names_in(&root.join("runtime/tests"))?;
    tests.retain(|test| ASAN_LEFT_OUT.iter().all(|(left_out, _)| left_out != test));
    Ok(tests)
}

/// The Rust files in a folder by name, in order, without what follows the dot.
fn names_in(folder: &Path) -> Result<Vec<String>, String> {
    let unreadable = |error| format!("cannot read {}: {error}", folder.display());
    let mut names = Vec::new();
    for entry in fs::read_dir(folder).map_err(unreadable)? {
        let name = entry.map_err(unreadable)?.file_name();
        names.extend(name.to_str().and_then(|name| name.strip_suffix(".rs")).map(str::to_owned));
    }
    names.sort_unstable();
    Ok(names)
}

/// Which targets are to run, and for how many seconds each.
fn parse<'a>(arguments: &[String], targets: &'a [String]) -> Result<(Vec<&'a str>, u32), String> {
    let (name, seconds) = match arguments {
        [] => (None, FUZZ_SECONDS_DEFAULT),
        [one] => match one.parse() {
            Ok(seconds) => (None, seconds),
            Err(_) => (Some(one), FUZZ_SECONDS_DEFAULT),
        },
        [name, seconds] => match seconds.parse() {
            Ok(seconds) => (Some(name), seconds),
            Err(_) => return Err(format!("takes a number of seconds, got `{seconds}`")),
        },
        _ => return Err("takes a target and a number of seconds, if wanted".to_owned()),
    };
    if seconds == 0 {
        // The fuzzer would take it as no limit.
        return Err("takes a number of seconds of 1 or more, got `0`".to_owned());
    }
    let chosen: Vec<_> = targets
        .iter()
        .map(String::as_str)
        .filter(|target| name.is_none_or(|name| name == target))
        .collect();
    if chosen.is_empty() {
        return Err(format!("takes one of the targets {}", targets.join(", ")));
    }
    Ok((chosen, seconds))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn strings(arguments: &[&str]) -> Vec<String> {
        arguments.iter().map(|argument| (*argument).to_owned()).collect()
    }

    #[test]
    fn every_target_runs_for_a_moment_unless_the_user_says_otherwise() {
        let targets = strings(&["decoder", "hello"]);
        let parsed = |arguments: &[&str]| parse(&strings(arguments), &targets);
        assert_eq!(parsed(&[]), Ok((vec!["decoder", "hello"], 20)));
        assert_eq!(parsed(&["300"]), Ok((vec!["decoder", "hello"], 300)));
        assert_eq!(parsed(&["hello"]), Ok((vec!["hello"], 20)));
        assert_eq!(parsed(&["hello", "7"]), Ok((vec!["hello"], 7)));
    }

    #[test]
    fn targets_and_times_that_are_none_are_refused() {
        let targets = strings(&["decoder", "hello"]);
        for arguments in
            [&["encoder"][..], &["hello", "long"], &["hello", "0"], &["0"], &["a", "1", "b"]]
        {
            assert!(parse(&strings(arguments), &targets).is_err(), "{arguments:?}");
        }
    }

    #[test]
    fn every_target_has_a_corpus() {
        let targets = fuzz_targets(root()).expect("the folder is there");
        assert!(!targets.is_empty());
        for target in targets {
            assert!(root().join("fuzz/corpus").join(&target).is_dir(), "{target}");
        }
    }

    #[test]
    fn the_sanitizer_watches_all_tests_but_those_left_out() {
        let all = names_in(&root().join("runtime/tests")).expect("the folder is there");
        let watched = asan_tests(root()).expect("the folder is there");
        assert!(watched.iter().any(|test| test == "dropped_futures"));
        // A test that was renamed is not left out any more, which must not go unseen.
        assert_eq!(watched.len() + ASAN_LEFT_OUT.len(), all.len());
    }

    #[test]
    fn what_is_missing_is_named_with_its_remedy() {
        let missing = program("no-such-program", ["--version"]);
        let error = needs(missing, "a command").expect_err("it does not exist");
        assert_eq!(error, "`no-such-program --version` does not run; install it with `a command`");
    }
}

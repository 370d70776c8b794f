//! The commands that hand their work to cargo.
//!
//! Each is a list of steps; what a command does is read off here.

use crate::security;
use crate::shell::{Outcome, cargo, script};
use crate::unsafe_audit;

pub(crate) fn test(arguments: &[String]) -> Outcome {
    cargo(["test", "--workspace"]).args(arguments).run()
}

/// The steps are in the order of their cost, so that a slip shows early.
pub(crate) fn check(arguments: &[String]) -> Outcome {
    no_arguments(arguments)?;
    unsafe_audit::audit(&[])?;
    security::check()?;
    cargo(["fmt", "--all", "--check"]).run()?;
    cargo(["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"]).run()?;
    // What is behind a feature is not in the workspace's build.
    cargo(["clippy", "-p", "ringcall-perf", "--all-targets", "--all-features"])
        .args(&["--", "-D", "warnings"].map(str::to_owned))
        .run()?;
    cargo(["doc", "--workspace", "--no-deps"]).env("RUSTDOCFLAGS", "-D warnings").run()
}

pub(crate) fn ci(arguments: &[String]) -> Outcome {
    no_arguments(arguments)?;
    script(".ci/run").run()
}

pub(crate) fn bench(arguments: &[String]) -> Outcome {
    cargo(["run", "--release", "-p", "ringcall-perf", "--", "bench"]).args(arguments).run()
}

pub(crate) fn micro(arguments: &[String]) -> Outcome {
    cargo(["bench", "-p", "ringcall-benches", "--bench", "*", "--"]).args(arguments).run()
}

pub(crate) fn deny(arguments: &[String]) -> Outcome {
    if !cargo(["deny", "--version"]).capture()?.status.success() {
        let install = "cargo install --locked cargo-deny";
        return Err(format!("cargo-deny is not installed; install it with `{install}`"));
    }
    cargo(["deny", "check"]).args(arguments).run()
}

/// Refuses arguments to a command that would ignore them.
pub(crate) fn no_arguments(arguments: &[String]) -> Outcome {
    match arguments.first() {
        None => Ok(()),
        Some(argument) => Err(format!("takes no arguments, got `{argument}`")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_argument_that_would_be_ignored_is_refused() {
        let error = check(&["--fix".to_owned()]).expect_err("check takes none");
        assert_eq!(error, "takes no arguments, got `--fix`");
    }
}

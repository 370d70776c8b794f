//! `cargo xtask`: every command of the project beside `cargo run` and `cargo test`.
//!
//! [`COMMANDS`] is the whole surface and the help is printed from it. A command runs what it
//! prints, so that anyone can run the same by hand; it stops at the first step that fails, and its
//! exit code says so. Beside std this crate depends on serde_json alone, for what measurements print:
//! it builds in a moment on a fresh machine.

mod commands;
mod flake;
mod nightly;
mod peers;
mod security;
mod shell;
mod sim;
mod soak;
mod source;
mod unsafe_audit;

use std::process::ExitCode;

use shell::Outcome;

/// One command: what the user types, what the help says, what runs.
struct Command {
    name: &'static str,
    arguments: &'static str,
    help: &'static str,
    run: fn(&[String]) -> Outcome,
}

fn main() -> ExitCode {
    let mut arguments = Vec::new();
    for argument in std::env::args_os().skip(1) {
        match argument.into_string() {
            Ok(argument) => arguments.push(argument),
            Err(argument) => return refuse(&format!("not valid UTF-8: {}", argument.display())),
        }
    }
    let Some((name, rest)) = arguments.split_first() else {
        print!("{}", help());
        return ExitCode::SUCCESS;
    };
    if matches!(name.as_str(), "help" | "-h" | "--help") {
        print!("{}", help());
        return ExitCode::SUCCESS;
    }
    let Some(command) = COMMANDS.iter().find(|command| command.name == name) else {
        return refuse(&format!("there is no command `{name}`\n\n{}", help()));
    };
    match (command.run)(rest) {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("error: {name}: {message}");
            ExitCode::FAILURE
        }
    }
}

/// Says what is wrong with the command line; the exit code is 2, unlike a command's that failed.
fn refuse(message: &str) -> ExitCode {
    eprintln!("error: {}", message.trim_end());
    ExitCode::from(2)
}

/// The help: one line per command.
fn help() -> String {
    let usage = |command: &Command| format!("{} {}", command.name, command.arguments);
    let width = COMMANDS.iter().map(|command| usage(command).len()).max().unwrap_or(0);
    let mut text = String::from("Usage: cargo xtask COMMAND\n\n");
    for command in COMMANDS {
        text.push_str(&format!("  {:width$}  {}\n", usage(command), command.help));
    }
    text
}

const COMMANDS: &[Command] = &[
    Command {
        name: "test",
        arguments: "[ARGS]",
        help: "run all tests; ARGS go to `cargo test --workspace`",
        run: commands::test,
    },
    Command {
        name: "check",
        arguments: "",
        help: "audit unsafe and SECURITY.md; formatting, clippy and docs without warnings",
        run: commands::check,
    },
    Command {
        name: "ci",
        arguments: "",
        help: "test, then check, exactly as CI does",
        run: commands::ci,
    },
    Command {
        name: "flake",
        arguments: "NAME [N=50]",
        help: "run a test file, or each test with NAME in its path, N times or until one fails",
        run: flake::flake,
    },
    Command {
        name: "sim",
        arguments: "[SEEDS=10000]",
        help: "simulate clients, servers and faults; RINGCALL_SIM_FIRST is the first seed",
        run: sim::sim,
    },
    Command {
        name: "soak",
        arguments: "[CALLS]",
        help: "make ten million calls, or CALLS, of every kind over sockets; account for each",
        run: soak::soak,
    },
    Command {
        name: "bench",
        arguments: "[ARGS]",
        help: "measure calls over loopback; ARGS go to `ringcall-perf bench`",
        run: commands::bench,
    },
    Command {
        name: "micro",
        arguments: "[ARGS]",
        help: "run the criterion benchmarks; ARGS go to them",
        run: commands::micro,
    },
    Command {
        name: "peers",
        arguments: "[ARGS]",
        help: "measure other systems too; --quick writes no document, --check tests them",
        run: peers::peers,
    },
    Command {
        name: "unsafe",
        arguments: "",
        help: "check that unsafe code stands where it may and says why it is sound",
        run: unsafe_audit::audit,
    },
    Command {
        name: "fuzz",
        arguments: "[NAME] [N]",
        help: "fuzz each target, or one, for N=20 seconds each (nightly, cargo-fuzz)",
        run: nightly::fuzz,
    },
    Command {
        name: "miri",
        arguments: "[ARGS]",
        help: "run the codec's tests under Miri; ARGS go to `cargo test` (nightly)",
        run: nightly::miri,
    },
    Command {
        name: "asan",
        arguments: "",
        help: "run the runtime's tests under AddressSanitizer (nightly)",
        run: nightly::asan,
    },
    Command {
        name: "deny",
        arguments: "[ARGS]",
        help: "check dependencies: vulnerabilities, licences, duplicates, sources (deny.toml)",
        run: commands::deny,
    },
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_help_has_one_line_for_each_command() {
        let help = help();
        for command in COMMANDS {
            let lines = help.lines().filter(|line| line.contains(command.help)).count();
            assert_eq!(lines, 1, "{}", command.name);
        }
    }

    #[test]
    fn the_help_fits_a_line_of_a_terminal() {
        assert!(help().lines().all(|line| line.len() <= 100), "{}", help());
    }

    #[test]
    fn no_two_commands_share_a_name() {
        let mut names: Vec<_> = COMMANDS.iter().map(|command| command.name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), COMMANDS.len());
    }
}

//! `cargo xtask peers`: ringcall beside other RPC systems, and what came of it as a document.
//!
//! It builds `ringcall-perf` and `ringcall-peers`, runs every system under every workload in turn,
//! again and again (`run`), takes medians (`figures`), and writes tables between two comments of
//! docs/benchmarks.md (`markdown`). Nothing is left out of them that was measured: where another
//! system is the best, it is shown as that.

mod figures;
mod markdown;
mod run;

use std::fs;

use crate::shell::{Outcome, cargo, root};
use crate::unsafe_audit::unreadable;
use figures::Results;
use run::{Bench, Programs, ROWS, SYSTEMS};

/// The document, and the comments between which the tables stand.
const DOCUMENT: &str = "docs/benchmarks.md";
const BEGIN: &str = "<!-- peers:begin -->";
const END: &str = "<!-- peers:end -->";

/// The manifest of the crate with the other systems, which is a workspace of its own.
const MANIFEST: &str = "benches/peers/Cargo.toml";

/// Part of a system's capacity that is offered to all in an open loop, in percent.
const OPEN_LOOP_PERCENT: f64 = 70.0;

/// What the user asks for.
#[derive(Debug, PartialEq)]
enum Wanted {
    Bench { bench: Bench, command: String, is_quick: bool },
    Check,
}

/// Measures and writes the tables; with `--check` builds and tests the other systems.
///
/// Fails when a system under closed loop does; one that cannot take the rate of an open loop is
/// said to in the table.
pub(crate) fn peers(arguments: &[String]) -> Outcome {
    match parse(arguments)? {
        Wanted::Check => check(),
        Wanted::Bench { bench, command, is_quick } => {
            let path = root().join(DOCUMENT);
            let text = fs::read_to_string(&path).map_err(|error| unreadable(&path, &error))?;
            // Before minutes are spent on figures that have no place.
            replaced(&text, "")?;
            let programs = Programs::build()?;
            let results = measure(&programs, &bench)?;
            let tables = markdown::tables(&results, &command)?;
            println!("{tables}");
            if is_quick {
                println!("{DOCUMENT} is as it was: so short runs say little");
                return Ok(());
            }
            fs::write(&path, replaced(&text, &tables)?)
                .map_err(|error| format!("cannot write {DOCUMENT}: {error}"))
        }
    }
}

fn check() -> Outcome {
    let manifest = ["--manifest-path", MANIFEST];
    cargo(["fmt", "--check"]).args(&manifest.map(str::to_owned)).run()?;
    let test = ["test", "--release", "--manifest-path", MANIFEST];
    cargo(test).run()?;
    // With the tests' profile: the systems are many crates, and are built once so.
    cargo(["clippy", "--release", "--all-targets", "--manifest-path", MANIFEST])
        .args(&["--", "-D", "warnings"].map(str::to_owned))
        .run()
}

fn parse(arguments: &[String]) -> Result<Wanted, String> {
    let mut bench = Bench { repeat: 5, duration: "1s".to_owned(), warmup: "300ms".to_owned() };
    let mut is_quick = false;
    let mut rest = arguments.iter();
    while let Some(argument) = rest.next() {
        let mut value = || rest.next().ok_or(format!("{argument} wants a value"));
        match argument.as_str() {
            "--check" if arguments.len() == 1 => return Ok(Wanted::Check),
            "--quick" => {
                is_quick = true;
                let (duration, warmup) = ("200ms".to_owned(), "100ms".to_owned());
                bench = Bench { repeat: 1, duration, warmup };
            }
            "--repeat" => {
                let text = value()?;
                bench.repeat = match text.parse() {
                    Ok(repeat @ 1..=100) => repeat,
                    _ => return Err(format!("--repeat is a number from 1 to 100, got `{text}`")),
                };
            }
            "--duration" => bench.duration.clone_from(value()?),
            "--warmup" => bench.warmup.clone_from(value()?),
            _ => return Err(format!("takes {ARGUMENTS}, got `{argument}`")),
        }
    }
    let command = ["cargo xtask peers".to_owned(), arguments.join(" ")].join(" ");
    Ok(Wanted::Bench { bench, command: command.trim_end().to_owned(), is_quick })
}

/// What it takes.
const ARGUMENTS: &str = "--repeat N, --duration T, --warmup T, --quick, or --check alone";

/// Runs everything: for each repeat every row, for each row every system, each time another first.
fn measure(programs: &Programs, bench: &Bench) -> Result<Results, String> {
    let mut results = Results::new();
    for repeat in 0..bench.repeat {
        for row in &ROWS {
            eprintln!("repeat {} of {}: {}", repeat + 1, bench.repeat, row.name);
            for turn in 0..SYSTEMS.len() {
                let system = &SYSTEMS[(turn + repeat) % SYSTEMS.len()];
                let document = programs.run(system, row, None, bench)?;
                results.add(row, system, &document)?;
            }
        }
    }
    for rate in results.open_loop_rates(OPEN_LOOP_PERCENT / 100.0)? {
        for repeat in 0..bench.repeat {
            eprintln!("repeat {} of {}: {rate} calls/s", repeat + 1, bench.repeat);
            for system in SYSTEMS.iter().filter(|system| system.has_calls()) {
                let document = programs.run(system, run::open_loop_row(), Some(rate), bench);
                results.add_open(rate, system, document);
            }
        }
    }
    Ok(results)
}

/// The document with other tables between the two comments.
fn replaced(text: &str, tables: &str) -> Result<String, String> {
    let missing = || format!("{DOCUMENT} wants the lines `{BEGIN}` and `{END}`, once each");
    let (before, rest) = text.split_once(BEGIN).ok_or_else(missing)?;
    let (between, after) = rest.split_once(END).ok_or_else(missing)?;
    if [before, between, after].iter().any(|part| part.contains(BEGIN) || part.contains(END)) {
        return Err(missing());
    }
    Ok(format!("{before}{BEGIN}\n{}\n{END}{after}", tables.trim_end()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(arguments: &[&str]) -> Result<Wanted, String> {
        parse(&arguments.iter().map(|argument| (*argument).to_owned()).collect::<Vec<_>>())
    }

    #[test]
    fn without_arguments_it_runs_five_times() {
        let bench = Bench { repeat: 5, duration: "1s".to_owned(), warmup: "300ms".to_owned() };
        let command = "cargo xtask peers".to_owned();
        assert_eq!(parsed(&[]), Ok(Wanted::Bench { bench, command, is_quick: false }));
    }

    #[test]
    fn what_is_quick_can_be_made_less_so() {
        let bench = Bench { repeat: 2, duration: "200ms".to_owned(), warmup: "100ms".to_owned() };
        let command = "cargo xtask peers --quick --repeat 2".to_owned();
        let wanted = Wanted::Bench { bench, command, is_quick: true };
        assert_eq!(parsed(&["--quick", "--repeat", "2"]), Ok(wanted));
        assert_eq!(parsed(&["--check"]), Ok(Wanted::Check));
    }

    #[test]
    fn arguments_that_make_no_sense_are_refused() {
        for arguments in [
            &["--repeat"][..],
            &["--repeat", "0"],
            &["--repeat", "1000"],
            &["--check", "--quick"],
            &["--quick", "--check"],
            &["fast"],
        ] {
            assert!(parsed(arguments).is_err(), "{arguments:?}");
        }
    }

    #[test]
    fn tables_stand_between_the_comments_and_nothing_else_changes() {
        let text = format!("above\n{BEGIN}\nold\n{END}\nbelow\n");
        let wanted = format!("above\n{BEGIN}\nnew\n{END}\nbelow\n");
        assert_eq!(replaced(&text, "new\n"), Ok(wanted));
        for text in ["", BEGIN, END, &format!("{END}{BEGIN}"), &text.repeat(2)] {
            assert!(replaced(text, "new").is_err(), "{text}");
        }
    }

    #[test]
    fn the_document_has_a_place_for_the_tables() {
        let text = fs::read_to_string(root().join(DOCUMENT)).expect("it is there");
        assert!(replaced(&text, "").is_ok());
    }
}

//! `cargo xtask sim`: many seeds of the protocol's simulator, built for speed.

use crate::shell::{Outcome, cargo};

/// How many seeds run when the user does not say: about a minute.
const SEEDS_DEFAULT: u64 = 10_000;

/// Runs the simulator in `codec/tests/sim` over so many seeds, from `RINGCALL_SIM_FIRST` on (0
/// where it is not set). With `RINGCALL_SIM_TRACE` set it shows what happens in each.
///
/// Fails when a seed fails; the seed and the command that repeats it are then printed.
pub(crate) fn sim(arguments: &[String]) -> Outcome {
    let seeds = parse(arguments)?;
    cargo(["test", "--release", "-p", "ringcall-codec", "--test", "sim", "--"])
        .args(&["--ignored".to_owned(), "--nocapture".to_owned()])
        .env("RINGCALL_SIM_SEEDS", &seeds.to_string())
        .run()
}

fn parse(arguments: &[String]) -> Result<u64, String> {
    match arguments {
        [] => Ok(SEEDS_DEFAULT),
        [seeds] => match seeds.replace('_', "").parse() {
            Ok(seeds) if seeds > 0 => Ok(seeds),
            _ => Err(format!("the number of seeds is 1 or more, got `{seeds}`")),
        },
        _ => Err("takes a number of seeds, if anything".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_number_of_seeds_is_a_number_or_not_given() {
        let parse = |text: &[&str]| {
            parse(&text.iter().map(|argument| (*argument).to_owned()).collect::<Vec<_>>())
        };
        assert_eq!(parse(&[]), Ok(SEEDS_DEFAULT));
        assert_eq!(parse(&["250"]), Ok(250));
        assert_eq!(parse(&["1_000_000"]), Ok(1_000_000));
        for arguments in [&["0"][..], &["-1"], &["many"], &["1", "2"]] {
            assert!(parse(arguments).is_err(), "{arguments:?}");
        }
    }
}

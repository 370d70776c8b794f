//! `cargo xtask soak`: millions of calls of every kind over real sockets, accounted for one by one.

use crate::shell::{Outcome, cargo};

/// How many calls are made when the user does not say: the short form.
const CALLS_DEFAULT: u64 = 10_000_000;

/// Most calls of one run, for the memory of the ledger: two bytes each.
const CALLS_MAX: u64 = 10_000_000_000;

/// Runs the long form of `runtime/tests/ledger` with so many calls, and prints what became of them.
///
/// Fails when a call, an item or an outcome was lost, came twice, or came for another.
pub(crate) fn soak(arguments: &[String]) -> Outcome {
    let calls = parse(arguments)?;
    cargo(["test", "--release", "-p", "ringcall", "--test", "ledger", "--"])
        .args(&["--ignored".to_owned(), "--nocapture".to_owned()])
        .env("RINGCALL_SOAK_CALLS", &calls.to_string())
        .run()
}

fn parse(arguments: &[String]) -> Result<u64, String> {
    match arguments {
        [] => Ok(CALLS_DEFAULT),
        [calls] => match calls.replace('_', "").parse() {
            Ok(calls) if (1_000..=CALLS_MAX).contains(&calls) => Ok(calls),
            _ => Err(format!("the number of calls is from 1000 to {CALLS_MAX}, got `{calls}`")),
        },
        _ => Err("takes a number of calls, if anything".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_number_of_calls_is_a_number_or_not_given() {
        let parse = |text: &[&str]| {
            parse(&text.iter().map(|argument| (*argument).to_owned()).collect::<Vec<_>>())
        };
        assert_eq!(parse(&[]), Ok(CALLS_DEFAULT));
        assert_eq!(parse(&["1000"]), Ok(1_000));
        assert_eq!(parse(&["100_000_000"]), Ok(100_000_000));
        for arguments in [&["999"][..], &["-1"], &["many"], &["20000000000"], &["1000", "2"]] {
            assert!(parse(arguments).is_err(), "{arguments:?}");
        }
    }
}

//! A trace: the times at which calls were made elsewhere, and their lengths, from a file.

use std::{
    fs::File,
    io::{BufRead, BufReader},
    path::Path,
    time::Duration,
};

use crate::{
    error::Failure,
    generator::{Arrival, Trace},
    parse,
};

/// Most calls of a trace: what they take in memory is some 300 MB.
const ARRIVALS_MAX: usize = 20_000_000;

/// Shortest time of a trace that is measured, so that there is something to see of its course.
const LENGTH_MIN: Duration = Duration::from_millis(100);

/// Reads a trace: a line for each call, with the microseconds since the beginning and, where it is
/// not that of the workload, the length of its body in bytes. Empty lines and what follows `#` are
/// left out.
pub(crate) fn read(path: &Path) -> Result<Trace, Failure> {
    let failed = |source| Failure::ReadTrace { path: path.to_owned(), source };
    let mut trace = Trace::default();
    for (index, line) in BufReader::new(File::open(path).map_err(failed)?).lines().enumerate() {
        let bad = |why| Failure::BadTrace { path: path.to_owned(), line: index + 1, why };
        let text = line.map_err(failed)?;
        if let Some(arrival) = arrival(&text).map_err(bad)? {
            if trace.arrivals.last().is_some_and(|last| last.at_ns > arrival.at_ns) {
                return Err(bad("it is earlier than the line before".to_owned()));
            }
            if trace.arrivals.len() == ARRIVALS_MAX {
                return Err(bad(format!("a trace has at most {ARRIVALS_MAX} calls")));
            }
            trace.arrivals.push(arrival);
        }
    }
    if trace.arrivals.is_empty() {
        let why = "there is no call in it".to_owned();
        return Err(Failure::BadTrace { path: path.to_owned(), line: 1, why });
    }
    Ok(trace)
}

/// How long a trace is to be measured: to its last call, and a little for its reply.
pub(crate) fn length(trace: &Trace) -> Duration {
    let last = trace.arrivals.last().map_or(0, |arrival| arrival.at_ns);
    (Duration::from_nanos(last) + LENGTH_MIN / 10).max(LENGTH_MIN)
}

/// The call of a line; none where there is none on it.
fn arrival(line: &str) -> Result<Option<Arrival>, String> {
    let line = line.split('#').next().unwrap_or_default();
    let mut words = line.split([' ', '\t', ',']).filter(|word| !word.is_empty());
    let Some(at_us) = words.next() else { return Ok(None) };
    let at_ns = match at_us.parse::<f64>() {
        Ok(us) if (0.0..=AT_US_MAX).contains(&us) => (us * 1e3) as u64,
        _ => return Err(format!("{at_us:?} is no time in microseconds, from 0 to a day")),
    };
    let size = words.next().map(parse::size).transpose()?;
    match words.next() {
        None => Ok(Some(Arrival { at_ns, size })),
        Some(word) => Err(format!("there is {word:?} after the time and the length")),
    }
}

/// Latest time of a call: a day.
const AT_US_MAX: f64 = 86_400e6;

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

    use super::*;

    #[test]
    fn a_line_has_a_time_and_perhaps_a_length() {
        let at = |at_ns, size| Some(Arrival { at_ns, size });
        assert_eq!(arrival("12.5").unwrap(), at(12_500, None));
        assert_eq!(arrival("3, 4KiB # a long one").unwrap(), at(3_000, Some(4096)));
        assert_eq!(arrival("  # nothing").unwrap(), None);
        for line in ["x", "-1", "1 2", "1 64 3", "1e12", "nan"] {
            assert!(arrival(line).is_err(), "{line}");
        }
    }
}

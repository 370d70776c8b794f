//! The latencies of each second of each run, as a log of HdrHistogram (V2, compressed).
//!
//! Tags tell the runs apart. Latencies are in nanoseconds, from when calls were due where the load
//! is open; the longest of each line is in milliseconds, as readers of such logs expect.

use std::{
    io,
    time::{Duration, SystemTime},
};

use hdrhistogram::serialization::{
    V2DeflateSerializer,
    interval_log::{IntervalLogWriterBuilder, Tag},
};

use super::{Report, names::names, unanswered_note};
use crate::{generator::Latencies, series::Slice};

/// Length of an interval.
const INTERVAL: Duration = Duration::from_secs(1);

/// Nanoseconds of the unit of the longest latency of a line.
const MAX_UNIT_NS: f64 = 1e6;

/// One line of the log.
struct Line<'a> {
    /// Since measuring began in the first of all runs.
    begun: Duration,
    length: Duration,
    slices: &'a [Slice],
    tag: &'a str,
}

/// The report as a log, in the order of time.
pub(super) fn hlog(report: &Report) -> io::Result<Vec<u8>> {
    let names = names(report);
    let start = report.runs.iter().map(|run| run.began).min().unwrap_or(SystemTime::UNIX_EPOCH);
    let mut lines = Vec::new();
    for (run, tag) in report.runs.iter().zip(&names) {
        let run_begun = run.began.duration_since(start).unwrap_or_default();
        for slices in run.series.chunk_by(|a, b| second_of(a) == second_of(b)) {
            let (Some(first), Some(last)) = (slices.first(), slices.last()) else { continue };
            let length = last.begun + last.length - first.begun;
            lines.push(Line { begun: run_begun + first.begun, length, slices, tag });
        }
    }
    lines.sort_by_key(|line| line.begun);

    let (mut log, mut serializer) = (Vec::new(), V2DeflateSerializer::new());
    let mut builder = IntervalLogWriterBuilder::new();
    builder
        .add_comment("[Histogram log format version 1.3]")
        .add_comment(&remarks(report, &names))
        .with_start_time(start)
        .with_base_time(start)
        .with_max_value_divisor(MAX_UNIT_NS);
    let mut writer = builder.begin_log_with(&mut log, &mut serializer)?;
    for line in lines {
        let mut latencies = Latencies::new().map_err(io::Error::other)?;
        for (ns, calls) in line.slices.iter().flat_map(|slice| &slice.latencies.0) {
            latencies.record_many(*ns, *calls);
        }
        writer
            .write_histogram(latencies.histogram(), line.begun, line.length, Tag::new(line.tag))
            .map_err(|error| io::Error::other(error.to_string()))?;
    }
    Ok(log)
}

/// The second in which the middle of a slice is, so that ticks which are not quite in step with
/// seconds fall into the right one.
fn second_of(slice: &Slice) -> u128 {
    (slice.begun + slice.length / 2).as_nanos() / INTERVAL.as_nanos()
}

fn remarks(report: &Report, names: &[String]) -> String {
    let mut remarks = vec!["Latencies in nanoseconds, a tag for each run".to_owned()];
    if report.conditions.is_partial {
        remarks.push("Interrupted: the figures until then".to_owned());
    }
    for (run, name) in report.runs.iter().zip(names) {
        remarks.extend(run.void.iter().map(|why| format!("VOID {name}: {why}")));
        remarks.extend(run.doubts.iter().map(|doubt| format!("{name}: {doubt}")));
        remarks.extend(unanswered_note(run).map(|note| format!("{name}: {note}")));
    }
    remarks.join("\n")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

    use base64::{Engine, prelude::BASE64_STANDARD};
    use hdrhistogram::{
        Histogram,
        serialization::{
            Deserializer,
            interval_log::{IntervalLogIterator, LogEntry},
        },
    };

    use super::*;
    use crate::{report::sample, series::Sparse};

    /// Tag, begin and histogram of each line, as the reader of the crate finds them, after the
    /// start of the log.
    fn read(log: &[u8]) -> (Duration, Vec<(String, Duration, Histogram<u64>)>) {
        let (mut start, mut lines) = (None, Vec::new());
        for entry in IntervalLogIterator::new(log) {
            match entry.unwrap() {
                LogEntry::StartTime(time) => start = Some(time),
                LogEntry::BaseTime(time) => assert_eq!(Some(time), start),
                LogEntry::Interval(line) => {
                    let bytes = BASE64_STANDARD.decode(line.encoded_histogram()).unwrap();
                    let histogram = Deserializer::new().deserialize(&mut &*bytes).unwrap();
                    let tag = line.tag().unwrap().as_str().to_owned();
                    lines.push((tag, line.start_timestamp(), histogram));
                }
            }
        }
        (start.unwrap(), lines)
    }

    #[test]
    fn a_log_that_is_read_back_has_the_same_counts() {
        let mut report = sample::report();
        // A run later than those before it.
        report.runs[1].began += Duration::from_secs(10);
        let (start, lines) = read(&hlog(&report).unwrap());
        assert_eq!(start, Duration::from_secs(1_772_323_199));
        // Three seconds of each of three runs.
        let found: Vec<(&str, u64)> =
            lines.iter().map(|(tag, begun, _)| (tag.as_str(), begun.as_secs())).collect();
        let (floor, one, other) = ("1x16-64B-floor", "1x16-64B-ringcall", "64x16-64B-ringcall");
        let expected = [
            (floor, 0),
            (other, 0),
            (floor, 1),
            (other, 1),
            (floor, 2),
            (other, 2),
            (one, 10),
            (one, 11),
            (one, 12),
        ];
        assert_eq!(found, expected);
        for (tag, _, histogram) in &lines {
            let ten = report.runs[0].series[..10].iter().map(|slice| &slice.latencies);
            let counts = histogram.iter_recorded();
            let counts = counts.map(|it| (it.value_iterated_to(), it.count_since_last_iteration()));
            assert_eq!(Sparse(counts.collect()), Sparse::merged(ten), "{tag}");
        }
    }

    #[test]
    fn what_is_to_be_known_is_in_the_comments() {
        let mut report = sample::report();
        report.conditions.is_partial = true;
        report.runs[0].void = Some("late,\nvery".to_owned());
        let log = hlog(&report).unwrap();
        let text = String::from_utf8(log.clone()).unwrap();
        assert!(text.starts_with("#[Histogram log format version 1.3]\n#Latencies in nanosec"));
        assert!(text.contains("\n#Interrupted: the figures until then\n"));
        assert!(text.contains("\n#VOID 1x16-64B-floor: late,\n#very\n"));
        assert_eq!(read(&log).1.len(), 9);
    }
}

//! The percentiles of each run as text, as wrk2 prints them and HdrHistogram's plotter reads them.

use std::fmt::Write;

use super::{Report, names::names, unanswered_note};
use crate::generator::Latencies;

/// Lines for each halving of what is left up to 100 %, as wrk2 has them.
const LINES_PER_HALVING: u32 = 5;

/// Nanoseconds of the unit of a value: microseconds.
const UNIT_NS: f64 = 1e3;

/// The files of a report, each with its name without an ending. An open load has two: from when
/// calls were due, and from when they were made.
pub(super) fn files(report: &Report) -> Vec<(String, String)> {
    let mut files = Vec::new();
    for (run, name) in report.runs.iter().zip(names(report)) {
        let mut remarks = vec!["Values in microseconds".to_owned()];
        if report.conditions.is_partial {
            remarks.push("Interrupted: the figures until then".to_owned());
        }
        remarks.extend(run.void.iter().map(|why| format!("VOID: {why}")));
        remarks.extend(run.doubts.iter().cloned());
        remarks.extend(unanswered_note(run));
        if let Some(from_send) = &run.from_send {
            files.push((format!("{name}-from-due"), hgrm(&run.latencies, &remarks)));
            files.push((format!("{name}-from-send"), hgrm(from_send, &remarks)));
        } else {
            files.push((name, hgrm(&run.latencies, &remarks)));
        }
    }
    files
}

/// The percentiles of one histogram, up to its longest, with what is to be known of them below.
fn hgrm(latencies: &Latencies, remarks: &[String]) -> String {
    let histogram = latencies.histogram();
    let mut text = "       Value     Percentile TotalCount 1/(1-Percentile)\n\n".to_owned();
    let mut count = 0;
    for step in histogram.iter_quantiles(LINES_PER_HALVING) {
        count += step.count_since_last_iteration();
        let value = step.value_iterated_to() as f64 / UNIT_NS;
        let quantile = step.quantile_iterated_to();
        // Writing to a string does not fail.
        let _ = write!(text, "{value:12.3} {quantile:14.12} {count:10} ");
        let _ = if quantile < 1.0 {
            writeln!(text, "{:14.2}", 1.0 / (1.0 - quantile))
        } else {
            writeln!(text, "{:>14}", "inf")
        };
    }
    let (mean, deviation) = (latencies.mean() / UNIT_NS, histogram.stdev() / UNIT_NS);
    let max = latencies.max() as f64 / UNIT_NS;
    // Doublings of the longest time, and how many times are told apart in each.
    let buckets = histogram.buckets();
    let sub_buckets = (2 * 10_u32.pow(histogram.sigfig().into())).next_power_of_two();
    let _ = writeln!(text, "#[Mean    = {mean:12.3}, StdDeviation   = {deviation:12.3}]");
    let _ = writeln!(text, "#[Max     = {max:12.3}, Total count    = {count:12}]");
    let _ = writeln!(text, "#[Buckets = {buckets:12}, SubBuckets     = {sub_buckets:12}]");
    for remark in remarks {
        let _ = writeln!(text, "# {}", remark.replace('\n', " "));
    }
    text
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

    use super::*;
    use crate::report::sample;

    /// A thousand calls of 1 to 1000 µs.
    fn known() -> Latencies {
        let mut latencies = Latencies::new().unwrap();
        (1..=1000).for_each(|us| latencies.record(us * 1000));
        latencies
    }

    #[test]
    fn lines_are_those_of_a_known_histogram() {
        let text = hgrm(&known(), &["Values in microseconds".to_owned()]);
        let mut lines = text.lines();
        assert_eq!(lines.next(), Some("       Value     Percentile TotalCount 1/(1-Percentile)"));
        assert_eq!(lines.next(), Some(""));
        assert_eq!(lines.next(), Some("       1.000 0.000000000000          1           1.00"));
        assert!(
            text.contains("\n     500.223 0.500000000000        500           2.00\n"),
            "{text}"
        );
        let end = "\n    1000.447 1.000000000000       1000            inf\n\
            #[Mean    =      500.505, StdDeviation   =      288.676]\n\
            #[Max     =     1000.447, Total count    =         1000]\n\
            #[Buckets =           26, SubBuckets     =         2048]\n\
            # Values in microseconds\n";
        assert!(text.ends_with(end), "{text}");
    }

    #[test]
    fn every_line_has_more_than_the_one_before() {
        let text = hgrm(&known(), &[]);
        let rows: Vec<Vec<f64>> = text
            .lines()
            .skip(2)
            .filter(|line| !line.starts_with('#'))
            .map(|line| line.split_whitespace().map(|it| it.parse().unwrap()).collect())
            .collect();
        assert!(rows.len() > 30);
        for pair in rows.windows(2) {
            assert_eq!(pair[0].len(), 4);
            assert!(pair[0].iter().zip(&pair[1]).all(|(before, after)| before <= after));
            assert!(pair[0][1] < pair[1][1]);
        }
        for row in &rows {
            assert!(row[2] >= (row[1] * 1000.0).floor(), "{row:?}");
        }
    }

    #[test]
    fn an_open_load_has_two_files_and_remarks_are_below() {
        let mut report = sample::report();
        report.conditions.is_partial = true;
        report.runs[1].from_send = Some(known());
        report.runs[1].void = Some("late".to_owned());
        let files = files(&report);
        let names: Vec<&str> = files.iter().map(|(name, _)| name.as_str()).collect();
        let expected = [
            "1x16-64B-floor",
            "1x16-64B-ringcall-from-due",
            "1x16-64B-ringcall-from-send",
            "64x16-64B-ringcall",
        ];
        assert_eq!(names, expected);
        assert_ne!(files[1].1, files[2].1);
        let remarks = "# Interrupted: the figures until then\n# VOID: late\n";
        assert!(files[1].1.ends_with(remarks) && files[2].1.ends_with(remarks));
    }
}

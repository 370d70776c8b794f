//! The stages as a table for a terminal of 110 columns.

use std::fmt::Write;

use super::{Stage, Stages};

/// Columns of the longest bar: that of a stage which is all of the time.
const BAR_LEN: u64 = 32;

/// The stages as people read them.
pub(crate) fn table(stages: &Stages) -> String {
    let all = stages.stages.iter().chain([&stages.total]).chain(&stages.details);
    let name_len = all.map(|stage| stage.name.chars().count()).max().unwrap_or(0);
    let mut text = String::new();
    let head = ["p50", "p99", "p99.9", "mean", "share"];
    line(&mut text, name_len, "stage", head.map(str::to_owned), "");
    for stage in &stages.stages {
        let bar = bar(stage.p50_ns, stages.total.p50_ns);
        line(&mut text, name_len, stage.name, figures(stage, stages.total.p50_ns), &bar);
    }
    line(&mut text, name_len, stages.total.name, figures(&stages.total, 0), "");
    if !stages.details.is_empty() {
        text += "\nof the same time, and no part of the sum:\n";
    }
    for stage in &stages.details {
        line(&mut text, name_len, stage.name, figures(stage, 0), "");
    }
    text
}

/// A stage's times, and its share of the total at the median; none of a total of zero.
fn figures(stage: &Stage, total_ns: u64) -> [String; 5] {
    let share = match total_ns {
        0 => String::new(),
        total_ns => format!("{:.0} %", stage.p50_ns as f64 / total_ns as f64 * 100.0),
    };
    let [p50, p99, p999] = [stage.p50_ns, stage.p99_ns, stage.p999_ns].map(|ns| us(ns as f64));
    [p50, p99, p999, us(stage.mean_ns), share]
}

/// A time in microseconds.
fn us(ns: f64) -> String {
    format!("{:.2} µs", ns / 1000.0)
}

/// A bar as long as the share.
fn bar(ns: u64, total_ns: u64) -> String {
    let eighths = (ns * BAR_LEN * 8).checked_div(total_ns).unwrap_or(0).min(BAR_LEN * 8) as usize;
    let last = ["", "▏", "▎", "▍", "▌", "▋", "▊", "▉"][eighths % 8];
    "█".repeat(eighths / 8) + last
}

fn line(text: &mut String, name_len: usize, name: &str, figures: [String; 5], bar: &str) {
    // Writing to a string does not fail.
    let _ = write!(text, "{name:<name_len$}");
    for (figure, len) in figures.iter().zip([11, 11, 12, 11, 7]) {
        // A figure that is wider than its column still stands apart.
        let len = len - 1;
        let _ = write!(text, " {figure:>len$}");
    }
    let _ = write!(text, "  {bar}");
    text.truncate(text.trim_end().len());
    text.push('\n');
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stage(name: &'static str, p50_ns: u64) -> Stage {
        let [p99_ns, p999_ns] = [p50_ns * 2, p50_ns * 30];
        Stage { name, count: 10, mean_ns: p50_ns as f64 * 1.5, p50_ns, p99_ns, p999_ns }
    }

    #[test]
    fn each_stage_has_a_line_and_a_bar() {
        let stages = Stages {
            stages: vec![stage("client queue", 100), stage("wire", 7_500), stage("handler", 0)],
            total: stage("total", 10_000),
            details: vec![stage("from here to there", 400)],
            warnings: Vec::new(),
        };
        let expected = "\
stage                     p50        p99       p99.9       mean  share
client queue          0.10 µs    0.20 µs     3.00 µs    0.15 µs    1 %  ▎
wire                  7.50 µs   15.00 µs   225.00 µs   11.25 µs   75 %  ████████████████████████
handler               0.00 µs    0.00 µs     0.00 µs    0.00 µs    0 %
total                10.00 µs   20.00 µs   300.00 µs   15.00 µs

of the same time, and no part of the sum:
from here to there    0.40 µs    0.80 µs    12.00 µs    0.60 µs
";
        assert_eq!(table(&stages), expected);
    }

    #[test]
    fn a_bar_is_never_longer_than_its_place() {
        assert_eq!(bar(u64::from(u32::MAX), 1), "█".repeat(32));
        assert_eq!(bar(1, 1), "█".repeat(32));
        assert_eq!(bar(1, 64), "▌");
        assert_eq!(bar(0, 0), "");
    }
}

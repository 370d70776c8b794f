//! Names of runs for files and tags: ASCII without commas, spaces and slashes.

use super::Report;
use crate::{measure::Run, workload::size_text};

/// A name for each run, no two alike: `64x16-64B-ringcall`. Runs of a target under one workload
/// are told apart by their rates: `64x256-64B-ringcall-100000ps`.
pub(super) fn names(report: &Report) -> Vec<String> {
    let shorts: Vec<String> = report.runs.iter().map(short).collect();
    let mut names: Vec<String> = Vec::new();
    for (run, short) in report.runs.iter().zip(&shorts) {
        let is_alone = shorts.iter().filter(|other| *other == short).count() == 1;
        let mut name = short.clone();
        if let Some(open) = run.open.filter(|_| !is_alone) {
            name += &format!("-{:.0}ps", open.offered_per_s);
        }
        let alike = names.iter().filter(|other| **other == name).count();
        names.push(if alike == 0 { name } else { format!("{name}-{}", alike + 1) });
    }
    names
}

fn short(run: &Run) -> String {
    let size = size_text(run.workload.body_len()).replace(' ', "");
    format!("{}x{}-{size}-{}", run.workload.connections, run.workload.depth, run.target)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        measure::OpenFigures,
        report::sample::{self, open},
    };

    #[test]
    fn runs_that_differ_in_their_rate_alone_are_named_by_it() {
        let mut report = sample::report();
        let rated = |per_s| Some(OpenFigures { offered_per_s: per_s, ..open() });
        let mut again = report.runs.clone();
        again.iter_mut().for_each(|run| run.open = rated(99_999.6));
        report.runs.iter_mut().for_each(|run| run.open = rated(50_000.0));
        assert_eq!(names(&report)[1], "1x16-64B-ringcall");
        report.runs.extend(again);
        assert_eq!(names(&report)[1], "1x16-64B-ringcall-50000ps");
        assert_eq!(names(&report)[4], "1x16-64B-ringcall-100000ps");
    }
}

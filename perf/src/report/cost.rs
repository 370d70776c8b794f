//! What a call and an idle connection cost, as tables for a terminal.

use super::{
    Report, si,
    table::{Table, dash, short, workload_once},
};
use crate::{
    cost::{Costs, SideCost},
    idle::IdleFigures,
    measure::Run,
};

/// What the column of allocations is.
const COUNTED_ALLOCATIONS: &str = "allocations: of this process, with those of executors that go to \
    sleep, and of the harness, which takes note of the\nrun ten times a second. Counting them takes \
    time: compare no other figure of this build with those of another.";

/// Why there is none.
const NO_ALLOCATIONS: &str = "Allocations are counted in a build with `--features \
    count-allocations`, as counting them takes time.";

/// What a call costs besides CPU time, for each side of each run; empty where nobody asked.
pub(super) fn costs(report: &Report) -> String {
    let are_counted = |run: &Run| run.cost.as_ref()?.process.allocations;
    let are_counted = report.runs.iter().any(|run| are_counted(run).is_some());
    let mut table = Table::new(&[
        "workload",
        "side",
        "waited",
        "preempted",
        "enters",
        "sends",
        "copies",
        "copied",
        "instructions",
        "cycles",
    ]);
    if are_counted {
        table.rows[0].push("allocations".to_owned());
    }
    let (mut last, mut notes) = (None, Vec::new());
    for run in &report.runs {
        let Some(Costs { server, client, process, note }) = &run.cost else { continue };
        let mut row = |side, figures: [String; 8], allocations: Option<f64>| {
            let mut row = vec![workload_once(run, &mut last), format!("{} {side}", run.target)];
            row.extend(figures);
            row.extend(allocations.map(small));
            table.rows.push(row);
        };
        match server {
            None => row("client", row_of(client), process.allocations),
            Some(server) => {
                row("server", row_of(server), None);
                row("client", row_of(client), None);
                // Which of the two allocates the process does not know.
                if process.allocations.is_some() {
                    row("both", Default::default(), process.allocations);
                }
            }
        }
        if let Some(note) = note
            && !notes.contains(note)
        {
            notes.push(note.clone());
        }
    }
    if table.rows.len() == 1 {
        return String::new();
    }
    let mut text = format!(
        "\nCost per call, beside CPU time:\n\n{table}\n\
         waited: times that a thread slept until there was something to do. preempted: times that \
         its core was taken from it.\nenters: calls of io_uring_enter. copies: received frames that \
         were copied; of a floor they are not counted.\n{}\n",
        if are_counted { COUNTED_ALLOCATIONS } else { NO_ALLOCATIONS }
    );
    for note in notes {
        text += &format!("note: {note}\n");
    }
    text
}

fn row_of(cost: &SideCost) -> [String; 8] {
    let number = |figure: Option<f64>| figure.map_or_else(dash, small);
    [
        number(cost.voluntary_switches),
        number(cost.involuntary_switches),
        small(cost.enters),
        small(cost.sends),
        number(cost.copies),
        cost.bytes_copied.map_or_else(dash, |bytes| format!("{} B", short(bytes))),
        cost.instructions.map_or_else(dash, si),
        cost.cycles.map_or_else(dash, si),
    ]
}

/// A count per call, which may be far below one where calls are made many at a time: `1.02`,
/// `0.25`, `0.0041`.
pub(crate) fn small(figure: f64) -> String {
    match figure {
        f if f >= 0.1 || f == 0.0 => short(f),
        f if f < 1e-5 => "<0.00001".to_owned(),
        f => {
            let decimals = 1 - f.log10().floor() as i32;
            format!("{f:.*}", decimals as usize)
        }
    }
}

/// What idle connections cost; empty where there were none.
pub(super) fn idle(report: &Report) -> String {
    let mut table = Table::new(&["workload", "target", "idle", "memory each", "server CPU"]);
    let (mut last, mut ends) = (None, 0);
    for run in &report.runs {
        let Some(idle) = &run.idle else { continue };
        ends = idle.ends;
        table.rows.push(idle_row(run, idle, workload_once(run, &mut last)));
    }
    if table.rows.len() == 1 {
        return String::new();
    }
    let whose = if ends == 2 { "both ends of it together" } else { "the client's end of it" };
    format!(
        "\nIdle connections beside the load:\n\n{table}\n\
         memory each: what the resident anonymous memory of this process (heap, stacks and buffers, \
         by smaps_rollup) grew by\nwhen they were opened, over their number: {whose}. It has the \
         pages of the shards' own buffers that\nopening was the first to touch. Only the first run of \
         a process tells: later ones use its memory again.\n\
         server CPU: the part of a core that the server's threads used with nothing but idle \
         connections.\n"
    )
}

fn idle_row(run: &Run, idle: &IdleFigures, workload: String) -> Vec<String> {
    let bytes = |bytes: f64| format!("{bytes:.0} B");
    let percent = |share: f64| format!("{:.3} %", share * 100.0);
    vec![
        workload,
        run.target.to_string(),
        idle.connections.to_string(),
        idle.bytes_each.map_or_else(dash, bytes),
        idle.server_cpu_share.map_or_else(dash, percent),
    ]
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

    use super::*;
    use crate::{allocations::ProcessCost, report::sample, target::Target};

    fn report(change: impl Fn(&mut Run)) -> Report {
        let mut runs = vec![
            sample::run(Target::Floor, 64, 315.0, 450.0),
            sample::run(Target::Ringcall, 64, 315.0, 450.0),
        ];
        runs.iter_mut().for_each(change);
        Report::new(sample::host(), sample::conditions(), &[runs])
    }

    fn cost(copies: Option<f64>, instructions: Option<f64>) -> SideCost {
        SideCost {
            voluntary_switches: Some(0.25),
            involuntary_switches: Some(0.000_123),
            enters: 1.016,
            sends: 1.0,
            copies,
            bytes_copied: copies.map(|copies| copies * 96.0),
            instructions,
            cycles: instructions.map(|count| count / 2.0),
        }
    }

    #[test]
    fn costs_stand_under_each_other_and_the_note_is_said_once() {
        let report = report(|run| {
            let copies = (run.target != Target::Floor).then_some(0.01);
            let server = Some(cost(copies, Some(5200.0)));
            let note = Some("why".to_owned());
            let process = ProcessCost::default();
            run.cost = Some(Costs { server, client: cost(copies, None), process, note });
        });
        let text = costs(&report);
        assert!(text.contains("\nAllocations are counted in a build with"), "{text}");
        let expected = [
            "workload    side             waited  preempted  enters  sends  copies  copied  \
             instructions  cycles",
            "64×16 64 B  floor server       0.25    0.00012    1.02   1.00       –       –        \
             5.20 k  2.60 k",
            "            floor client       0.25    0.00012    1.02   1.00       –       –             \
             –       –",
            "            ringcall server    0.25    0.00012    1.02   1.00   0.010  0.96 B        \
             5.20 k  2.60 k",
            "            ringcall client    0.25    0.00012    1.02   1.00   0.010  0.96 B             \
             –       –",
        ];
        let rows: Vec<&str> = text.lines().skip(3).take(5).collect();
        assert_eq!(rows, expected, "{text}");
        assert_eq!(text.matches("note: why\n").count(), 1, "{text}");
        assert!(text.lines().all(|line| line.chars().count() <= 120), "{text}");
    }

    #[test]
    fn allocations_are_those_of_both_sides_or_of_the_client_alone() {
        let process =
            |sides| ProcessCost { sides, allocations: Some(0.0042), bytes_allocated: Some(1.0) };
        let of_run = |is_server_here: bool| {
            let text = costs(&report(|run| {
                let server = is_server_here.then(|| cost(None, None));
                let process = process(1 + u32::from(is_server_here));
                let client = cost(None, None);
                run.cost = Some(Costs { server, client, process, note: None });
            }));
            assert!(text.lines().all(|line| line.chars().count() <= 120), "{text}");
            text
        };
        let both = of_run(true);
        let rows: Vec<&str> = both.lines().filter(|line| line.ends_with(" 0.0042")).collect();
        assert_eq!(rows.len(), 2, "{both}");
        assert!(rows.iter().all(|row| row.contains(" both ")), "{both}");
        let alone = of_run(false);
        let rows: Vec<&str> = alone.lines().filter(|line| line.ends_with(" 0.0042")).collect();
        assert!(rows.len() == 2 && rows.iter().all(|row| row.contains(" client ")), "{alone}");
        assert!(alone.contains("allocations: of this process"), "{alone}");
    }

    #[test]
    fn what_idle_connections_cost_says_whose_it_is() {
        let figures = |ends| IdleFigures {
            connections: 10_000,
            ends,
            bytes_each: (ends == 2).then_some(1023.6),
            server_cpu_share: (ends == 2).then_some(0.000_12),
        };
        let both = idle(&report(|run| run.idle = Some(figures(2))));
        assert!(both.contains("10000       1024 B     0.012 %"), "{both}");
        assert!(both.contains("both ends of it together"), "{both}");
        let one = idle(&report(|run| run.idle = Some(figures(1))));
        assert!(one.contains("10000            –           –"), "{one}");
        assert!(one.contains("the client's end of it"), "{one}");
        for text in [both, one] {
            assert!(text.lines().all(|line| line.chars().count() <= 120), "{text}");
        }
    }

    #[test]
    fn small_figures_keep_two_digits() {
        let figures = [0.0, 0.000_004, 0.000_041, 0.0416, 0.25, 1.016, 120.4];
        let shown = ["0", "<0.00001", "0.000041", "0.042", "0.25", "1.02", "120"];
        assert_eq!(figures.map(small), shown);
    }

    #[test]
    fn what_nobody_asked_for_is_not_there() {
        let report = report(|_| ());
        assert_eq!(costs(&report) + &idle(&report), "");
    }
}

//! The report as a table for a terminal of 110 columns.

use std::{fmt::Write, time::Duration};

use ringcall::ShardCounters;

use super::{
    Conditions, Ratios, Report, cost,
    units::{si, time},
};
use crate::{
    client::slow_readers::SlowlyRead, generator::Latencies, lengths::percentile_name, measure::Run,
    probe, target::Target, workload::Workload,
};

/// A table: the first two columns to the left, figures to the right. Columns are as wide as what
/// is in them.
pub(super) struct Table {
    pub(super) rows: Vec<Vec<String>>,
}

/// Columns that are aligned to the left.
const LEFT_COLUMNS: usize = 2;

/// What stands between two columns.
const GAP: &str = "  ";

/// What is above the figures of an open load.
pub(super) const OPEN_NOTE: &str = "Of the open load: calls count from when they were due, in the \
    table above. no answer: calls that had none\nat the end; each counts with the time that it had \
    waited, and takes longer. late: how late the generator made\ncalls that nothing else kept. from \
    send: what a client would see that counts from when it made them.";

/// What the columns of the counters are.
pub(super) const COUNTED_NOTE: &str = "in place: read where the kernel put it. Else copied once, as \
    it straddled two buffers, was misaligned, came\nwhen few buffers were free, or was large and had \
    begun in a small buffer. exhausted: times that none was\nfree. copied: bytes of received frames. \
    encoded: bytes written to be sent, the one copy of a message.";

/// The report as people read it.
pub(super) fn table(report: &Report) -> String {
    let mut text = header(report);
    text.push('\n');
    text += &figures(report).to_string();
    text.push('\n');
    text += &legend(report);
    let open = open_figures(report);
    if open.rows.len() > 1 {
        text += &format!("\n{OPEN_NOTE}\n\n");
        text += &open.to_string();
    }
    let beside = beside(report);
    if !beside.is_empty() {
        text.push('\n');
        text += &beside;
    }
    let remarks = remarks(report);
    if !remarks.is_empty() {
        text.push('\n');
        text += &remarks;
    }
    let counted = counted(report);
    if counted.rows.len() > 1 {
        text += "\nWhat ringcall counted of the frames that it received, and per call:\n\n";
        text += &counted.to_string();
        text += &format!("\n{COUNTED_NOTE}\n");
    }
    text += &cost::costs(report);
    text += &cost::idle(report);
    text
}

/// What was measured, and where.
pub(crate) fn header(report: &Report) -> String {
    let host = &report.host;
    let Conditions { server, client, load, lengths, spin, repeat, warnings, is_partial } =
        &report.conditions;
    let short = host.commit.get(..12).unwrap_or(&host.commit);
    let dirty = if host.commit.ends_with("-dirty") { ", changed" } else { "" };
    let times = match repeat {
        1 => String::new(),
        times => format!(", {times} times interleaved, medians"),
    };
    let spin = match *spin {
        Duration::ZERO => "no spinning".to_owned(),
        spin => format!("spinning {spin:?}"),
    };
    let mut text = format!(
        "{name} · {kernel} · {cpu}, {cores} cores\n{date} · commit {short}{dirty}\n\
         {server} · {client} · {load} · {spin}\n\
         {lengths}{times}\n",
        name = host.name,
        kernel = host.kernel,
        cpu = host.cpu,
        cores = host.cores,
        date = host.date,
    );
    if *is_partial {
        text += "! interrupted: these are the figures until then\n";
    }
    for warning in warnings {
        text += &format!("! {warning}\n");
    }
    text
}

pub(super) fn figures(report: &Report) -> Table {
    let mut table = Table::new(&[
        "workload",
        "target",
        "calls/s",
        "server/call",
        "ratio",
        "client/call",
        "ratio",
        "p50",
        "p99",
        "p99.9",
        "max",
        "±",
    ]);
    let mut last = None;
    for (run, ratios) in report.runs.iter().zip(&report.ratios) {
        table.rows.push(vec![
            workload_once(run, &mut last),
            run.target.to_string(),
            si(run.calls_per_s),
            run.server_cpu_ns_per_call.map_or_else(dash, time),
            ratios.and_then(|ratios| ratios.server).map_or_else(String::new, ratio),
            time(run.client_cpu_ns_per_call),
            ratios.map_or_else(String::new, |Ratios { client, .. }| ratio(client)),
            time(run.latency_ns.p50 as f64),
            time(run.latency_ns.p99 as f64),
            time(run.latency_ns.p999 as f64),
            time(run.latency_ns.max as f64),
            run.interval.map_or_else(dash, |interval| percent(interval.relative())),
        ]);
    }
    table
}

/// What an open load has besides: how late the generator was, and what a closed loop would have
/// shown.
pub(super) fn open_figures(report: &Report) -> Table {
    let mut table = Table::new(&[
        "workload",
        "target",
        "due/s",
        "answered/s",
        "no answer",
        "late p50",
        "p99",
        "p99.9",
        "max",
        "from send p50",
        "p99",
        "p99.9",
    ]);
    let mut last = None;
    for run in &report.runs {
        let Some(open) = run.open else { continue };
        table.rows.push(vec![
            workload_once(run, &mut last),
            run.target.to_string(),
            si(open.offered_per_s),
            si(run.calls_per_s),
            open.unanswered.to_string(),
            time(open.lateness_ns.p50 as f64),
            time(open.lateness_ns.p99 as f64),
            time(open.lateness_ns.p999 as f64),
            time(open.lateness_ns.max as f64),
            time(open.from_send_ns.p50 as f64),
            time(open.from_send_ns.p99 as f64),
            time(open.from_send_ns.p999 as f64),
        ]);
    }
    table
}

/// What was seen beside the load.
fn beside(report: &Report) -> String {
    let mut text = String::new();
    let line = |what: &str, latencies: &Latencies| {
        let at = |quantile| time(latencies.at(quantile) as f64);
        let (p50, p99, p999) = (at(0.5), at(0.99), at(0.999));
        format!("  {what}: {}, p50 {p50}, p99 {p99}, p99.9 {p999}\n", latencies.count())
    };
    for run in &report.runs {
        let Some(extras) = &run.extras else { continue };
        text += &format!("Beside {} {}, warm-up included:\n", run.workload, run.target);
        if extras.slow.count() > 0 {
            text += &line("calls to the slow handler", &extras.slow);
        }
        if extras.churn.count() > 0 {
            text += &line("connections made, used for a call and closed", &extras.churn);
        }
        let SlowlyRead { bytes, cut_off } = extras.slow_readers;
        if bytes > 0 || cut_off > 0 {
            text += &format!("  slow readers have read {bytes} bytes; {cut_off} were cut off\n");
        }
        if let Some(stages) = &extras.probe {
            text += "  the probe's calls:\n";
            for row in probe::table(stages).lines() {
                text += &format!("    {row}\n");
            }
            for warning in &stages.warnings {
                text += &format!("    ! {warning}\n");
            }
        }
    }
    text
}

/// What is to be known of single runs.
fn remarks(report: &Report) -> String {
    let mut text = String::new();
    for run in &report.runs {
        let of = format!("{} {}", run.workload, run.target);
        if let Some(why) = &run.void {
            text += &format!("! VOID {of}: {why}\n");
        }
        for doubt in &run.doubts {
            text += &format!("! {of}: {doubt}\n");
        }
    }
    text
}

/// The workload of a row; nothing where it is that of the row above.
pub(super) fn workload_once(run: &Run, last: &mut Option<Workload>) -> String {
    let is_new = last.replace(run.workload) != Some(run.workload);
    if is_new { run.workload.to_string() } else { String::new() }
}

pub(super) fn legend(report: &Report) -> String {
    let mut text = "workload: connections × calls in flight on each, length of a body each way. \
        server/call, client/call:\nCPU time of the threads that serve and that call."
        .to_owned();
    if report.ratios.iter().any(Option::is_some) {
        text += "\nratio: to the floor, a raw io_uring echo of as many bytes, copied once into a send buffer, \
            or sent from where\nthey were received where a frame is longer than a buffer of the pool.";
    }
    if report.runs.iter().any(|run| run.target == Target::Server) {
        text += "\nserver: ringcall's server alone, under the floor's client, which sends calls made \
            beforehand and counts the\nbytes of their replies.";
    }
    if report.runs.iter().any(|run| run.target == Target::Handle) {
        text += "\nhandle: calls of a thread without a shard, through a handle; client/call has the CPU time of that thread \
            and of\nthe handle's shard, which share a core.";
    }
    if report.runs.iter().any(|run| run.target == Target::Stream) {
        text += "\nstream: items of one stream a connection, each sent back by the server; a call is \
            an item and its return.";
    }
    if report.conditions.repeat > 1 {
        text += "\nmax: of all repeats.";
    }
    let sure = percentile_name(report.conditions.lengths.precision.quantile);
    text += &format!("\n±: half of the 95 % confidence interval of {sure}, as a part of it.");
    text.push('\n');
    let errors: u64 = report.runs.iter().map(|run| run.errors).sum();
    if errors > 0 {
        text += &format!("! {errors} calls failed; they are in no figure.\n");
    }
    text
}

/// What was counted of copies and syscalls, for each side of each run of ringcall.
pub(super) fn counted(report: &Report) -> Table {
    let mut table = Table::new(&[
        "workload",
        "side",
        "in place",
        "straddle",
        "misaligned",
        "pressure",
        "large",
        "exhausted",
        "copied",
        "encoded",
        "sends",
        "enters",
    ]);
    let mut last = None;
    for run in &report.runs {
        let sides = match run.target {
            Target::Floor => continue,
            Target::Ringcall | Target::Handle | Target::Stream => {
                vec![("server", run.server), ("client", Some(run.client))]
            }
            Target::Server => vec![("server alone", run.server)],
        };
        for (side, counters) in sides {
            if let Some(counters) = counters {
                let mut row = vec![workload_once(run, &mut last), side.to_owned()];
                row.extend(counted_row(run, &counters));
                table.rows.push(row);
            }
        }
    }
    table
}

fn counted_row(run: &Run, counters: &ShardCounters) -> Vec<String> {
    let copied = [
        counters.frames_copied_straddle,
        counters.frames_copied_misaligned,
        counters.frames_copied_pressure,
        counters.frames_copied_large,
    ];
    let frames = counters.frames_in_place + copied.iter().sum::<u64>();
    let share = |count: u64| percent(count as f64 / frames.max(1) as f64);
    let per_call = |count: u64| count as f64 / run.calls.max(1) as f64;
    let mut row = vec![share(counters.frames_in_place)];
    row.extend(copied.map(share));
    row.push(counters.buffers_exhausted.to_string());
    row.push(format!("{} B", short(per_call(counters.bytes_copied))));
    row.push(format!("{} B", short(per_call(counters.bytes_encoded))));
    row.push(short(per_call(counters.sends)));
    row.push(short(per_call(counters.enters)));
    row
}

impl Table {
    pub(super) fn new(heading: &[&str]) -> Self {
        Self { rows: vec![heading.iter().map(ToString::to_string).collect()] }
    }
}

impl std::fmt::Display for Table {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let columns = self.rows.first().map_or(0, Vec::len);
        let width = |text: &String| text.chars().count();
        let widths: Vec<usize> = (0..columns)
            .map(|column| self.rows.iter().filter_map(|row| row.get(column)).map(width).max())
            .map(Option::unwrap_or_default)
            .collect();
        for row in &self.rows {
            let mut line = String::new();
            for (column, (text, width)) in row.iter().zip(&widths).enumerate() {
                if column < LEFT_COLUMNS {
                    write!(line, "{text:<width$}{GAP}")?;
                } else {
                    write!(line, "{text:>width$}{GAP}")?;
                }
            }
            writeln!(f, "{}", line.trim_end())?;
        }
        Ok(())
    }
}

pub(super) fn dash() -> String {
    "–".to_owned()
}

fn ratio(ratio: f64) -> String {
    format!("{ratio:.2}×")
}

/// A share of one, in which some is never shown as none, nor nearly all as all.
fn percent(share: f64) -> String {
    match share * 100.0 {
        0.0 => "0 %".to_owned(),
        100.0 => "100 %".to_owned(),
        p if p < 0.1 => "<0.1 %".to_owned(),
        p if p > 99.9 => ">99.9 %".to_owned(),
        p => format!("{p:.1} %"),
    }
}

/// A small number: `0`, `0.04`, `1.02`.
pub(super) fn short(number: f64) -> String {
    match number {
        0.0 => "0".to_owned(),
        n if n < 0.005 => "<0.01".to_owned(),
        n if n >= 99.5 => format!("{n:.0}"),
        n => format!("{n:.2}"),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

    use super::*;
    use crate::report::sample;

    #[test]
    fn figures_stand_under_each_other() {
        let expected = [
            "workload    target    calls/s  server/call  ratio  client/call  ratio      p50      \
             p99   p99.9      max      ±",
            "1×16 64 B   floor      19.2 k      12.3 µs             12.1 µs         50.0 µs  \
             61.0 µs  813 µs  2.00 ms  2.0 %",
            "            ringcall   19.2 k      12.9 µs  1.05×      54.1 ns  0.00×  50.0 µs  \
             61.0 µs  813 µs  2.00 ms  2.0 %",
            "64×16 64 B  ringcall   19.2 k       315 ns              450 ns         50.0 µs  \
             61.0 µs  813 µs  2.00 ms  2.0 %",
        ];
        let figures = figures(&sample::report()).to_string();
        assert_eq!(figures.lines().collect::<Vec<_>>(), expected);
    }

    #[test]
    fn the_whole_fits_a_terminal() {
        for line in table(&sample::report()).lines() {
            assert!(line.chars().count() <= 120, "{line}");
            assert_eq!(line, line.trim_end());
        }
    }

    #[test]
    fn the_header_says_what_was_measured() {
        let mut report = sample::report();
        report.host.commit.push_str("-dirty");
        report.conditions.warnings.push("a core is shared".to_owned());
        report.conditions.repeat = 5;
        assert_eq!(
            header(&report),
            "sample · Linux 6.18.44 · AMD EPYC 9575F, 2 cores\n\
             2026-02-28T23:59:59Z · commit 0123456789ab, changed\n\
             server on core 1, over loopback · client on core 0 · closed loop · no spinning\n\
             3s measured after 1s, 5 times interleaved, medians\n\
             ! a core is shared\n"
        );
    }

    #[test]
    fn what_ringcall_counted_is_there_and_of_the_floor_nothing() {
        let text = table(&sample::report());
        let counted: Vec<&str> = text
            .lines()
            .filter(|line| line.contains("server    ") || line.contains("client    "))
            .collect();
        assert_eq!(counted.len(), 4, "{text}");
        assert!(counted[0].contains("99.0 %"), "{text}");
    }

    #[test]
    fn a_server_alone_is_explained_and_counted_without_its_client() {
        let runs =
            [Target::Floor, Target::Server].map(|target| sample::run(target, 8, 200.0, 100.0));
        let report = Report::new(sample::host(), sample::conditions(), &[runs.into()]);
        let text = table(&report);
        assert!(text.contains("1.00×") && text.contains("server: ringcall's server alone"));
        assert!(text.contains("server alone") && !text.contains("client  "), "{text}");
        assert!(text.lines().all(|line| line.chars().count() <= 120), "{text}");
    }

    #[test]
    fn some_is_never_shown_as_none_nor_nearly_all_as_all() {
        assert_eq!(percent(0.0), "0 %");
        assert_eq!(percent(1e-6), "<0.1 %");
        assert_eq!(percent(0.9999), ">99.9 %");
        assert_eq!(percent(1.0), "100 %");
        assert_eq!(short(0.0), "0");
        assert_eq!(short(0.001), "<0.01");
        assert_eq!(short(1.016), "1.02");
    }
}

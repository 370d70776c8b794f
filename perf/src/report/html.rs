//! The report as one page with charts, which needs nothing from elsewhere.
//!
//! The data stands in the page as JSON; `assets/report.js` makes tables and charts of it, a section
//! each, and leaves out those without data. Charts are drawn by Apache ECharts, of which
//! `assets/README.md` says how the bundle is made.

use serde::Serialize;

use super::{
    Conditions, Report,
    curve::curve,
    heat::{HeatMap, heat_map},
    table::{self, Table},
    units::si,
};
use crate::{core_load::CoreLoad, measure::Run, probe::Stage, target::Target};

const ECHARTS: &str = include_str!("../../assets/echarts.custom.min.js");
const LICENCE: &str = include_str!("../../assets/echarts.LICENSE");
const NOTICE: &str = include_str!("../../assets/echarts.NOTICE");
const SCRIPT: &str = include_str!("../../assets/report.js");
const STYLE: &str = include_str!("../../assets/report.css");

/// What the page shows.
#[derive(Serialize)]
struct Page {
    heading: String,
    /// Whether it was interrupted.
    partial: bool,
    warnings: Vec<String>,
    remarks: Vec<Remark>,
    figures: Figures,
    legend: String,
    /// Null where the load is closed.
    open: Option<Figures>,
    open_note: String,
    curve_note: String,
    /// Which repeat is drawn; empty where there is one.
    repeat_note: &'static str,
    counted: Option<Figures>,
    counted_note: String,
    runs: Vec<RunData>,
    conditions: Vec<(&'static str, String)>,
    host: Vec<(&'static str, String)>,
}

/// What is to be known of one run.
#[derive(Serialize)]
struct Remark {
    kind: RemarkKind,
    /// The run.
    of: String,
    text: String,
}

#[derive(Serialize)]
#[serde(rename_all = "lowercase")]
enum RemarkKind {
    Void,
    Errors,
    Doubt,
}

/// A table as the terminal has it.
#[derive(Serialize)]
struct Figures {
    head: Vec<String>,
    rows: Vec<Vec<String>>,
}

/// What is drawn of one run.
#[derive(Serialize)]
struct RunData {
    label: String,
    workload: String,
    target: Target,
    void: bool,
    calls_per_s: f64,
    offered_per_s: Option<f64>,
    p50: u64,
    p99: u64,
    p999: u64,
    curve: Vec<(f64, u64)>,
    /// The curve from when calls were made, where they were due at another time.
    from_send: Option<Vec<(f64, u64)>>,
    heat: Option<HeatMap>,
    warmed_for_s: f64,
    server_cpu_ns: Option<f64>,
    client_cpu_ns: f64,
    core_load: Vec<CoreLoad>,
    /// Where the time of the probe's calls went, where there was a probe.
    stages: Option<Vec<Stage>>,
}

/// The report as a page.
pub(super) fn html(report: &Report) -> String {
    // Neither keys that are no strings nor a writer that fails are in it.
    let data = serde_json::to_string(&Page::new(report)).unwrap_or_default();
    format!(
        include_str!("../../assets/report.html"),
        style = STYLE,
        notice = NOTICE,
        licence = LICENCE,
        data = in_script(&data),
        echarts = ECHARTS,
        script = SCRIPT,
    )
}

/// JSON that ends no script and begins no comment, whatever stands in its strings: it has `<`
/// nowhere else.
fn in_script(json: &str) -> String {
    json.replace('<', "\\u003c")
}

impl Page {
    fn new(report: &Report) -> Self {
        let Report { host, conditions, runs, .. } = report;
        let short = host.commit.get(..12).unwrap_or(&host.commit);
        let heading = format!("{} · commit {short} · {}", host.date, host.cpu);
        let counted = table::counted(report);
        let open = table::open_figures(report);
        let unless_empty = |table: Table| (table.rows.len() > 1).then(|| Figures::of(table));
        Self {
            heading,
            partial: conditions.is_partial,
            warnings: conditions.warnings.clone(),
            remarks: runs.iter().flat_map(remarks).collect(),
            figures: Figures::of(table::figures(report)),
            legend: unwrapped(&table::legend(report)),
            open: unless_empty(open),
            open_note: unwrapped(table::OPEN_NOTE),
            curve_note: curve_note(report),
            repeat_note: match conditions.repeat {
                1 => "",
                _ => " Of several repeats, the one whose p99 is in the middle.",
            },
            counted: unless_empty(counted),
            counted_note: unwrapped(table::COUNTED_NOTE),
            runs: runs.iter().map(RunData::of).collect(),
            conditions: condition_rows(conditions),
            host: host_rows(report),
        }
    }
}

impl Figures {
    fn of(table: Table) -> Self {
        let mut rows = table.rows.into_iter();
        Self { head: rows.next().unwrap_or_default(), rows: rows.collect() }
    }
}

impl RunData {
    fn of(run: &Run) -> Self {
        Self {
            label: name_of(run),
            workload: run.workload.to_string(),
            target: run.target,
            void: run.void.is_some(),
            calls_per_s: run.calls_per_s,
            offered_per_s: run.open.map(|open| open.offered_per_s),
            p50: run.latency_ns.p50,
            p99: run.latency_ns.p99,
            p999: run.latency_ns.p999,
            curve: curve(&run.latencies),
            from_send: run.from_send.as_ref().map(curve),
            heat: heat_map(&run.series),
            warmed_for_s: run.warmed_for.as_secs_f64(),
            server_cpu_ns: run.server_cpu_ns_per_call,
            client_cpu_ns: run.client_cpu_ns_per_call,
            core_load: run.core_load.clone(),
            stages: run.extras.as_ref().and_then(|it| Some(it.probe.as_ref()?.stages.clone())),
        }
    }
}

/// What a run is called: with its rate, where it has one.
fn name_of(run: &Run) -> String {
    let rate = run.open.map(|open| format!(", {}/s due", si(open.offered_per_s)));
    format!("{} {}{}", run.workload, run.target, rate.unwrap_or_default())
}

fn remarks(run: &Run) -> Vec<Remark> {
    let of = name_of(run);
    let remark = |kind, text| Remark { kind, of: of.clone(), text };
    let mut remarks = Vec::new();
    remarks.extend(run.void.iter().map(|why| remark(RemarkKind::Void, why.clone())));
    if run.errors > 0 {
        let first = run.first_error.as_deref().unwrap_or("unknown");
        let text =
            format!("{} calls failed and are in no figure, the first with: {first}", run.errors);
        remarks.push(remark(RemarkKind::Errors, text));
    }
    remarks.extend(run.doubts.iter().map(|doubt| remark(RemarkKind::Doubt, doubt.clone())));
    remarks
}

/// What the curves are of.
fn curve_note(report: &Report) -> String {
    let mut note =
        "How long the fastest calls up to each percentile took; both axes are log scales, \
        and each curve ends with the longest call."
            .to_owned();
    if report.runs.iter().any(|run| run.from_send.is_some()) {
        note += " Solid: from when calls were due, what their users wait; calls without an answer \
            at the end count with the time that they had waited. Dashed: from when they were made, \
            what a closed loop would see.";
    }
    note
}

fn condition_rows(conditions: &Conditions) -> Vec<(&'static str, String)> {
    let Conditions { server, client, load, lengths, spin, repeat, .. } = conditions;
    vec![
        ("Server", server.clone()),
        ("Client", client.clone()),
        ("Load", load.clone()),
        ("Time", lengths.to_string()),
        ("Spinning", if spin.is_zero() { "none".to_owned() } else { format!("{spin:?}") }),
        ("Repeats", repeat.to_string()),
    ]
}

/// The host without its name, as pages are passed on.
fn host_rows(report: &Report) -> Vec<(&'static str, String)> {
    let host = &report.host;
    let mut rows = vec![
        ("Kernel", host.kernel.clone()),
        ("CPU", format!("{}, {} cores", host.cpu, host.cores)),
        ("Commit", host.commit.clone()),
        ("Date", host.date.clone()),
    ];
    rows.extend(host.settings.rows().map(|(name, value)| (name, value.to_owned())));
    rows
}

/// Text that was broken into lines for a terminal; a browser breaks them anew.
fn unwrapped(text: &str) -> String {
    text.replace('\n', " ")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

    use serde_json::Value;

    use super::*;
    use crate::report::sample;

    /// The data of a page, as a browser finds it: up to the first end of a script.
    fn data_of(page: &str) -> Value {
        let begin = "<script type=\"application/json\" id=\"data\">";
        let (_, rest) = page.split_once(begin).unwrap();
        let (data, _) = rest.split_once("</script").unwrap();
        assert!(!data.contains('<'));
        serde_json::from_str(data).unwrap()
    }

    #[test]
    fn the_data_holds_the_figures_of_the_table() {
        let data = data_of(&html(&sample::report()));
        let figures = table::figures(&sample::report());
        assert_eq!(data["figures"]["head"], serde_json::json!(figures.rows[0]));
        assert_eq!(data["figures"]["rows"], serde_json::json!(figures.rows[1..]));
        assert_eq!(data["counted"]["rows"].as_array().unwrap().len(), 4);
        let run = &data["runs"][1];
        assert_eq!(run["label"], "1×16 64 B ringcall");
        assert_eq!(run["server_cpu_ns"], 12_900.0);
        assert_eq!(run["curve"].as_array().unwrap().last().unwrap()[0], 1000.0);
        assert_eq!(run["heat"]["edges_s"].as_array().unwrap().len(), 31);
        assert_eq!(run["core_load"][1]["roles"], serde_json::json!(["server"]));
        assert_eq!(run["core_load"][1]["seconds"][2]["busy"], 0.5);
        assert!(data["open"].is_null() && run["from_send"].is_null());
        assert_eq!(data["partial"], false);
        assert!(!data.to_string().contains("sample"), "the host is named");
    }

    #[test]
    fn an_open_load_has_both_curves_and_its_own_table() {
        let mut report = sample::report();
        report.runs[1].open = Some(sample::open());
        report.runs[1].from_send = Some(report.runs[1].latencies.clone());
        let data = data_of(&html(&report));
        assert_eq!(data["open"]["rows"].as_array().unwrap().len(), 1);
        assert_eq!(data["runs"][1]["from_send"], data["runs"][1]["curve"]);
        assert_eq!(data["runs"][1]["offered_per_s"], 20_000.0);
    }

    #[test]
    fn what_is_void_doubted_failed_or_partial_is_said() {
        let mut report = sample::report();
        report.conditions.is_partial = true;
        report.conditions.warnings.push("a core is shared".to_owned());
        report.runs[0].void = Some("late".to_owned());
        report.runs[1].errors = 3;
        report.runs[1].first_error = Some("gone".to_owned());
        report.runs[2].doubts.push("unsure".to_owned());
        let data = data_of(&html(&report));
        assert_eq!(data["partial"], true);
        assert_eq!(data["warnings"][0], "a core is shared");
        let kinds: Vec<_> =
            data["remarks"].as_array().unwrap().iter().map(|it| it["kind"].clone()).collect();
        assert_eq!(kinds, ["void", "errors", "doubt"]);
        assert_eq!(data["remarks"][1]["of"], "1×16 64 B ringcall");
        assert_eq!(data["runs"][0]["void"], true);
    }

    /// Labels come from the command line, host files from whoever made the host.
    #[test]
    fn no_text_of_the_data_ends_its_script() {
        let hostile = "</script><script>alert(1)</script><!-- <script> \u{2028} \" \\ {style}";
        let mut report = sample::report();
        report.conditions.load = hostile.to_owned();
        report.host.cpu = hostile.to_owned();
        report.runs[0].doubts.push(hostile.to_owned());
        let page = html(&report);
        let data = data_of(&page);
        assert_eq!(data["conditions"][2][1], hostile);
        assert_eq!(data["remarks"][0]["text"], hostile);
        assert!(!page.contains("alert(1)</script>"));
        // The data, the library and the script of the page.
        assert_eq!(page.matches("</script").count(), 3);
    }

    #[test]
    fn the_page_loads_nothing_and_is_not_too_long() {
        let page = html(&sample::report());
        for text in ["src=", "<link", "@import", "url(http", "fetch("] {
            let own = page.replace(ECHARTS, "");
            assert!(!own.contains(text), "{text}");
        }
        assert!(page.len() < 700_000, "{}", page.len());
        assert!(
            !format!("{LICENCE}{NOTICE}").contains(['<', '&']),
            "it stands in the page as it is"
        );
    }
}

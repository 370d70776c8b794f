//! The findings, for people and for programs.

use serde_json::json;

use super::{
    Shards,
    finding::{Finding, State},
    status,
    system::ranges,
};

/// Findings as a table: what is as it should be in a line each, what is not with its reason and
/// the command that changes it.
pub(super) fn table(shards: &Shards, nic: Option<&str>, findings: &[Finding]) -> String {
    let mut text = format!(
        "{} on core {}, NIC {}\n\n",
        shard_count(shards.cores.len()),
        ranges(&shards.cores),
        nic.unwrap_or("unknown")
    );
    let width = findings.iter().map(|finding| finding.topic.len()).max().unwrap_or(0);
    for Finding { topic, state, found, why, command } in findings {
        text += &format!("{:<8} {topic:<width$}  {found}\n", state.name());
        let indent = " ".repeat(8 + 1 + width + 2);
        if *state != State::Ok {
            text += &format!("{indent}why: {why}\n");
        }
        if let Some(command) = command {
            text += &format!("{indent}do:  {command}\n");
        }
    }
    let of = |state| findings.iter().filter(|finding| finding.state == state).count();
    let (stop, change, note) = (of(State::Stop), of(State::Change), of(State::Note));
    let counts = format!("{change} to change, {note} to note, {} unknown", of(State::Unknown));
    text + "\n"
        + &match (stop, change) {
            (0, 0) => format!("Nothing has to be changed ({counts}).\n"),
            (0, _) => {
                format!("{counts}. Settings by sysctl, echo and ulimit last until the next boot.\n")
            }
            _ => format!("ringcall cannot run here like this ({counts}).\n"),
        }
}

/// How many shards there are, for people.
pub(super) fn shard_count(shards: usize) -> String {
    if shards == 1 { "1 shard".to_owned() } else { format!("{shards} shards") }
}

/// Findings as JSON.
pub(super) fn json(shards: &Shards, nic: Option<&str>, findings: &[Finding]) -> String {
    let document = json!({
        "schema": 1,
        "cores": shards.cores,
        "interface": nic,
        "exit_status": status(findings),
        "findings": findings,
    });
    format!("{document:#}\n")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

    use serde_json::Value;

    use super::*;
    use crate::doctor::fake;

    fn findings() -> Vec<Finding> {
        vec![
            Finding::ok("kernel", "Linux 6.8".to_owned(), "of no interest"),
            Finding::change("governor", "powersave".to_owned(), "slow", "cpupower x".to_owned()),
            Finding::unknown("SMT", "not told", "shared"),
        ]
    }

    #[test]
    fn the_table_says_why_and_what_to_do_where_something_is_not_good() {
        let text = table(&fake::shards(&[0, 1, 2], 4), Some("eth0"), &findings());
        for line in [
            "3 shards on core 0-2, NIC eth0",
            "ok       kernel    Linux 6.8",
            "change   governor  powersave",
            "                   why: slow",
            "                   do:  cpupower x",
            "unknown  SMT       not told",
            "1 to change, 0 to note, 1 unknown. Settings by",
        ] {
            assert!(text.contains(line), "no {line:?} in:\n{text}");
        }
        assert!(!text.contains("of no interest"), "{text}");
        let good = table(&fake::shards(&[0], 4), None, &findings()[..1]);
        assert!(good.contains("Nothing has to be changed (0 to change"), "{good}");
    }

    #[test]
    fn json_has_every_finding_and_the_exit_status() {
        let text = json(&fake::shards(&[0, 2], 4), None, &findings());
        let document: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(document["exit_status"], 1);
        assert_eq!(document["cores"], serde_json::json!([0, 2]));
        assert!(document["interface"].is_null());
        assert_eq!(document["findings"][1]["state"], "change");
        assert_eq!(document["findings"][1]["command"], "cpupower x");
        assert_eq!(document["findings"].as_array().unwrap().len(), 3);
    }
}

//! The machine around this one, and the time that it takes from the shards' cores.

use super::{
    Shards,
    finding::Finding,
    system::{System, ranges},
};

/// Part of the time since boot that may have been stolen, before it is worth a note.
const STOLEN_MAX: f64 = 0.001;

/// The column of stolen time in a line of `/proc/stat`, after the core's name.
const STEAL: usize = 7;

/// Columns of it that add up to all time: guests' time is part of user time.
const COLUMNS: usize = 8;

pub(super) fn finding(system: &System, shards: &Shards) -> Finding {
    let topic = "steal time";
    let why = "while a neighbour has the core, calls wait: it is the tail that no setting cures";
    let stat = system.text("proc/stat").unwrap_or_default();
    let times: Option<Vec<(u64, u64)>> =
        shards.cores.iter().map(|core| times_of(&stat, *core)).collect();
    let (Some(times), Some(is_virtual)) = (times, is_virtual(system)) else {
        return Finding::unknown(topic, "the times of the cores cannot be read", why);
    };
    let (stolen, all) = times.iter().fold((0, 0), |sum, it| (sum.0 + it.0, sum.1 + it.1));
    let share = stolen as f64 / all.max(1) as f64;
    let found = match is_virtual {
        true => format!("{:.2} % since boot, of a virtual machine", share * 100.0),
        false => format!("{:.2} % since boot; no hypervisor seen", share * 100.0),
    };
    if share <= STOLEN_MAX {
        return Finding::ok(topic, found, why);
    }
    let found = format!("{found}, of core {}", ranges(&shards.cores));
    Finding::note(topic, found, why, "ask for a host with dedicated cores".to_owned())
}

/// The time stolen from a core and all of its time, in ticks.
fn times_of(stat: &str, core: usize) -> Option<(u64, u64)> {
    let name = format!("cpu{core} ");
    let line = stat.lines().find_map(|line| line.strip_prefix(&name))?;
    let times: Option<Vec<u64>> =
        line.split_whitespace().take(COLUMNS).map(|time| time.parse().ok()).collect();
    let times = times?;
    Some((*times.get(STEAL)?, times.iter().sum()))
}

/// Whether the processor says that there is a hypervisor; none where it says nothing.
fn is_virtual(system: &System) -> Option<bool> {
    let info = system.text("proc/cpuinfo")?;
    let mut flags = info.lines().filter(|line| line.starts_with("flags"));
    // Those of ARM have no such flag.
    Some(flags.next().is_some_and(|flags| flags.split_whitespace().any(|it| it == "hypervisor")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::{
        fake::{self, FakeSystem, assert_finds},
        finding::State,
    };

    fn found(stolen: &str, flags: &str) -> Finding {
        let stat = format!(
            "cpu  9 9 9 9 9 9 9 99999 0 0\ncpu0 1000 0 0 8000 0 0 0 0 500 0\n\
             cpu1 1000 0 500 8400 50 25 25 {stolen} 0 0\ncpu10 1 1 1 1 1 1 1 99999 0 0\n"
        );
        let info = format!("processor\t: 0\nflags\t\t: fpu {flags} sse\n");
        let fake = FakeSystem::with(&[("proc/stat", &stat), ("proc/cpuinfo", &info)]);
        finding(&fake.system(), &fake::shards(&[0, 1], 2))
    }

    #[test]
    fn time_that_neighbours_take_is_noted() {
        assert_finds(&found("0", ""), State::Ok, "0.00 % since boot; no hypervisor", "");
        assert_finds(&found("10", "hypervisor"), State::Ok, "0.05 % since boot, of a virtual", "");
        let says = "1.04 % since boot, of a virtual machine, of core 0-1";
        assert_finds(&found("200", "hypervisor"), State::Note, says, "dedicated cores");
        assert_finds(&found("many", ""), State::Unknown, "cannot be read", "");
    }
}

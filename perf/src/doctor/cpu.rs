//! The cores of the shards: how fast they run, how deep they sleep, what they share, what their
//! clock and the kernel's caution cost.

use super::{
    Shards,
    finding::Finding,
    system::{System, ranges},
};
use crate::host::chosen;

/// Time that a core may take to wake from its deepest sleep, in microseconds: more shows in the
/// latency of single calls.
const WAKE_US_MAX: u64 = 20;

/// Clock sources that a thread reads without a syscall.
const FAST_CLOCKS: [&str; 4] =
    ["tsc", "kvm-clock", "hyperv_clocksource_tsc_page", "arch_sys_counter"];

const CLOCK: &str = "sys/devices/system/clocksource/clocksource0";
const HUGE_PAGES: &str = "sys/kernel/mm/transparent_hugepage";

pub(super) fn findings(system: &System, shards: &Shards) -> Vec<Finding> {
    vec![
        governor(system, shards),
        sleep(system, shards),
        smt(system, shards),
        clock(system),
        huge_pages(system),
        mitigations(system),
    ]
}

fn of_core(core: usize, file: &str) -> String {
    format!("sys/devices/system/cpu/cpu{core}/{file}")
}

fn governor(system: &System, shards: &Shards) -> Finding {
    let topic = "governor";
    let why = "a core that has slowed down is slow for the first milliseconds of each burst";
    let read = |core: &usize| system.line(&of_core(*core, "cpufreq/scaling_governor"));
    let governors: Option<Vec<String>> = shards.cores.iter().map(read).collect();
    let Some(governors) = governors else {
        let what = "no core tells it; of a virtual machine the host decides";
        return Finding::unknown(topic, what, why);
    };
    let slow: Vec<usize> = shards
        .cores
        .iter()
        .zip(&governors)
        .filter(|(_, governor)| *governor != "performance")
        .map(|(core, _)| *core)
        .collect();
    let Some(other) = governors.iter().find(|governor| *governor != "performance") else {
        return Finding::ok(topic, "performance".to_owned(), why);
    };
    let command = format!("cpupower -c {} frequency-set -g performance", ranges(&slow));
    Finding::change(topic, format!("{other} on core {}", ranges(&slow)), why, command)
}

/// The state of idleness from which cores take longest to wake.
fn sleep(system: &System, shards: &Shards) -> Finding {
    let (topic, why) =
        ("idle states", "a call to a core that sleeps deep waits until it has woken");
    let Some(states) = shards.cores.first().map(|core| of_core(*core, "cpuidle")) else {
        return Finding::unknown(topic, "there is no shard", why);
    };
    let names: Vec<String> = system.names(&states).unwrap_or_default();
    let enabled = |state: &&String| system.number(&format!("{states}/{state}/disable")) != Some(1);
    let deepest = names
        .iter()
        .filter(|name| name.starts_with("state"))
        .filter(enabled)
        .filter_map(|state| {
            let latency_us = system.number(&format!("{states}/{state}/latency"))?;
            Some((latency_us, system.line(&format!("{states}/{state}/name"))?))
        })
        .max();
    match deepest {
        None => Finding::unknown(
            topic,
            "no core tells them; of a virtual machine the host decides",
            why,
        ),
        Some((latency_us, name)) if latency_us <= WAKE_US_MAX => {
            Finding::ok(topic, format!("the deepest, {name}, takes {latency_us} µs to wake"), why)
        }
        Some((latency_us, name)) => Finding::note(
            topic,
            format!("the deepest, {name}, takes {latency_us} µs to wake"),
            why,
            format!("cpupower -c {} idle-set -D {WAKE_US_MAX}", ranges(&shards.cores)),
        ),
    }
}

fn smt(system: &System, shards: &Shards) -> Finding {
    let topic = "SMT";
    let why = "two shards on threads of one core slow each other: more calls in all, longer tails";
    let siblings = |core: &usize| system.cores(&of_core(*core, "topology/thread_siblings_list"));
    let all: Option<Vec<Vec<usize>>> = shards.cores.iter().map(siblings).collect();
    let Some(all) = all else {
        return Finding::unknown(topic, "which cores are threads of one cannot be read", why);
    };
    let mut alone: Vec<usize> = Vec::new();
    let mut second: Vec<usize> = Vec::new();
    for (core, siblings) in shards.cores.iter().zip(&all) {
        let shares = alone.iter().any(|other| other != core && siblings.contains(other));
        if shares { second.push(*core) } else { alone.push(*core) }
    }
    if second.is_empty() {
        return Finding::ok(topic, "each shard has a core to itself".to_owned(), why);
    }
    let found = format!("core {} share theirs with other shards", ranges(&second));
    let command =
        format!("leave the second threads out: cores = {:?}, --cores {}", alone, ranges(&alone));
    Finding::note(topic, found, why, command)
}

fn clock(system: &System) -> Finding {
    let (topic, why) =
        ("clock source", "a shard looks at the clock once a turn; a slow clock is a syscall");
    let Some(current) = system.line(&format!("{CLOCK}/current_clocksource")) else {
        return Finding::unknown(topic, "it cannot be read", why);
    };
    if FAST_CLOCKS.contains(&current.as_str()) {
        return Finding::ok(topic, current, why);
    }
    let there = system.line(&format!("{CLOCK}/available_clocksource")).unwrap_or_default();
    let fast = there.split_whitespace().find(|name| FAST_CLOCKS.contains(name));
    let command = match fast {
        Some(name) => format!("echo {name} > /{CLOCK}/current_clocksource"),
        None => "boot with tsc=reliable, if the processor's is".to_owned(),
    };
    Finding::change(topic, current, why, command)
}

fn huge_pages(system: &System) -> Finding {
    let topic = "huge pages";
    let why = "where every mapping gets them, making one can stop a thread for milliseconds";
    let read = |file| system.line(&format!("{HUGE_PAGES}/{file}"));
    let (Some(enabled), defrag) = (read("enabled"), read("defrag").unwrap_or_default()) else {
        return Finding::unknown(topic, "the setting cannot be read", why);
    };
    let (enabled, defrag) = (chosen(&enabled), chosen(&defrag));
    let command = format!("echo madvise > /{HUGE_PAGES}/enabled");
    match (enabled.as_str(), defrag.as_str()) {
        ("always", "always") => {
            let found = "always, and memory is compacted at once for them".to_owned();
            Finding::change(topic, found, why, command)
        }
        ("always", _) => Finding::note(topic, "always".to_owned(), why, command),
        _ => Finding::ok(topic, enabled, why),
    }
}

fn mitigations(system: &System) -> Finding {
    let topic = "mitigations";
    let why = "what guards against flaws of the processor makes each syscall and interrupt dearer";
    let dir = "sys/devices/system/cpu/vulnerabilities";
    let Some(names) = system.names(dir).filter(|names| !names.is_empty()) else {
        return Finding::unknown(topic, "the kernel does not tell them", why);
    };
    let is_on = |name: &&String| {
        system.line(&format!("{dir}/{name}")).is_some_and(|state| state.starts_with("Mitigation"))
    };
    let on: Vec<&str> = names.iter().filter(is_on).map(String::as_str).collect();
    if on.is_empty() {
        return Finding::ok(topic, "none is on".to_owned(), why);
    }
    let command = "boot with mitigations=off, but only where no code runs that is not trusted";
    Finding::note(topic, format!("on: {}", on.join(", ")), why, command.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::{
        fake::{self, FakeSystem, assert_finds, of},
        finding::State::{self, *},
    };

    const CPU: &str = "sys/devices/system/cpu";

    /// The finding of a topic with shards on the cores 0 to 2 of 4.
    fn found(topic: &str, files: &[(&str, &str)]) -> Finding {
        let fake = FakeSystem::with(&[]);
        for (path, text) in files {
            fake.write(&path.replace("CPU", CPU), text);
        }
        of(&findings(&fake.system(), &fake::shards(&[0, 1, 2], 4)), topic).clone()
    }

    #[track_caller]
    fn check(topic: &str, files: &[(&str, &str)], (state, says, command): (State, &str, &str)) {
        assert_finds(&found(topic, files), state, says, command);
    }

    #[test]
    fn the_governor_of_each_shards_core_counts() {
        let of = |third| {
            [
                ("CPU/cpu0/cpufreq/scaling_governor", "performance\n"),
                ("CPU/cpu1/cpufreq/scaling_governor", "performance\n"),
                ("CPU/cpu2/cpufreq/scaling_governor", third),
                // Not a shard's.
                ("CPU/cpu3/cpufreq/scaling_governor", "powersave\n"),
            ]
        };
        check("governor", &of("performance\n"), (Ok, "performance", ""));
        let command = "cpupower -c 2 frequency-set -g performance";
        check("governor", &of("schedutil\n"), (Change, "schedutil on core 2", command));
        check("governor", &of(""), (Unknown, "virtual", ""));
    }

    #[test]
    fn the_deepest_sleep_that_is_not_switched_off_counts() {
        let of = |disabled| {
            [
                ("CPU/cpu0/cpuidle/state0/name", "POLL\n"),
                ("CPU/cpu0/cpuidle/state0/latency", "0\n"),
                ("CPU/cpu0/cpuidle/state1/name", "C1E\n"),
                ("CPU/cpu0/cpuidle/state1/latency", "10\n"),
                ("CPU/cpu0/cpuidle/state2/name", "C6\n"),
                ("CPU/cpu0/cpuidle/state2/latency", "133\n"),
                ("CPU/cpu0/cpuidle/state2/disable", disabled),
            ]
        };
        check("idle states", &of("1\n"), (Ok, "C1E, takes 10 µs", ""));
        check(
            "idle states",
            &of("0\n"),
            (Note, "C6, takes 133 µs", "cpupower -c 0-2 idle-set -D 20"),
        );
    }

    #[test]
    fn shards_on_threads_of_one_core_are_noted() {
        let of = |zero, one, two| {
            [
                ("CPU/cpu0/topology/thread_siblings_list", zero),
                ("CPU/cpu1/topology/thread_siblings_list", one),
                ("CPU/cpu2/topology/thread_siblings_list", two),
            ]
        };
        check("SMT", &of("0\n", "1\n", "2\n"), (Ok, "to itself", ""));
        // The sibling of core 2 has no shard.
        check("SMT", &of("0,4\n", "1,5\n", "2-3\n"), (Ok, "to itself", ""));
        let command = "cores = [0, 2], --cores 0,2";
        check("SMT", &of("0-1\n", "0-1\n", "2-3\n"), (Note, "core 1 share", command));
        check("SMT", &of("", "1\n", "2\n"), (Unknown, "cannot be read", ""));
    }

    #[test]
    fn a_slow_clock_is_to_be_changed() {
        let current = "sys/devices/system/clocksource/clocksource0/current_clocksource";
        let there = "sys/devices/system/clocksource/clocksource0/available_clocksource";
        for clock in FAST_CLOCKS {
            check("clock source", &[(current, clock)], (Ok, clock, ""));
        }
        let slow = [(current, "hpet\n"), (there, "hpet acpi_pm\n")];
        check("clock source", &slow, (Change, "hpet", "tsc=reliable"));
        let choice = [(current, "xen\n"), (there, "xen tsc hpet\n")];
        check("clock source", &choice, (Change, "xen", "echo tsc > /sys/devices"));
    }

    #[test]
    fn huge_pages_for_every_mapping_are_noted() {
        let enabled = "sys/kernel/mm/transparent_hugepage/enabled";
        let defrag = "sys/kernel/mm/transparent_hugepage/defrag";
        let sober =
            [(enabled, "always [madvise] never\n"), (defrag, "[always] defer madvise never\n")];
        check("huge pages", &sober, (Ok, "madvise", ""));
        check("huge pages", &[(enabled, "always madvise [never]\n")], (Ok, "never", ""));
        let greedy = [(enabled, "[always] madvise never\n"), (defrag, "always [madvise] never\n")];
        check("huge pages", &greedy, (Note, "always", "echo madvise > /sys/kernel/mm"));
        let worst = [greedy[0], (defrag, "[always] defer never\n")];
        check("huge pages", &worst, (Change, "compacted", "echo madvise"));
    }

    #[test]
    fn mitigations_that_are_on_are_noted() {
        let of = |spectre| {
            [
                ("CPU/vulnerabilities/meltdown", "Not affected\n"),
                ("CPU/vulnerabilities/spectre_v2", spectre),
            ]
        };
        check("mitigations", &of("Vulnerable\n"), (Ok, "none is on", ""));
        check(
            "mitigations",
            &of("Mitigation: Retpolines\n"),
            (Note, "spectre_v2", "mitigations=off"),
        );
    }
}

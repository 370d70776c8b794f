//! How this host is set up, as far as it moves latencies: what two hosts of one kind differ in.

use std::{collections::BTreeSet, fs, path::Path};

use serde::Serialize;

/// Parameters of the kernel's command line that move latencies. No others are written down: what
/// else stands there is nobody's business.
const BOOT_PARAMETERS: [&str; 16] = [
    "amd_pstate",
    "clocksource",
    "cpuidle.off",
    "idle",
    "intel_idle.max_cstate",
    "intel_pstate",
    "irqaffinity",
    "isolcpus",
    "mitigations",
    "nohz_full",
    "nosmt",
    "preempt",
    "processor.max_cstate",
    "rcu_nocbs",
    "transparent_hugepage",
    "tsc",
];

/// The settings of a host, each `unknown` where it cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Settings {
    /// What chooses the cores' frequency.
    pub governor: String,
    /// Whether cores are threads that share one.
    pub smt: String,
    /// What puts idle cores to sleep.
    pub idle_driver: String,
    /// What the kernel takes the time from.
    pub clocksource: String,
    /// Where memory is given in huge pages.
    pub transparent_huge_pages: String,
    /// The machine around this one, where there is one.
    pub virtualization: String,
    /// Flaws of the CPU that it is affected by, and what the kernel does about each.
    pub mitigations: String,
    /// What the kernel was told when it began, as far as it moves latencies.
    pub boot_parameters: String,
}

impl Settings {
    /// Reads those of the system whose files stand under a root.
    pub(super) fn read(root: &Path) -> Self {
        let cpu = root.join("sys/devices/system/cpu");
        Self {
            governor: governor(&cpu),
            smt: known(line(&cpu.join("smt/control"))),
            idle_driver: known(line(&cpu.join("cpuidle/current_driver"))),
            clocksource: known(line(
                &root.join("sys/devices/system/clocksource/clocksource0/current_clocksource"),
            )),
            transparent_huge_pages: known(
                line(&root.join("sys/kernel/mm/transparent_hugepage/enabled"))
                    .as_deref()
                    .map(chosen),
            ),
            virtualization: known(virtualization(root)),
            mitigations: known(mitigations(&cpu.join("vulnerabilities"))),
            boot_parameters: known(
                line(&root.join("proc/cmdline")).as_deref().map(boot_parameters),
            ),
        }
    }

    /// Each with a name for people.
    pub(crate) fn rows(&self) -> [(&'static str, &str); 8] {
        [
            ("Frequency governor", &self.governor),
            ("SMT", &self.smt),
            ("Idle driver", &self.idle_driver),
            ("Clock source", &self.clocksource),
            ("Transparent huge pages", &self.transparent_huge_pages),
            ("Virtualization", &self.virtualization),
            ("CPU flaws", &self.mitigations),
            ("Boot parameters", &self.boot_parameters),
        ]
    }
}

fn known(found: Option<String>) -> String {
    found.unwrap_or_else(|| "unknown".to_owned())
}

/// The text of a file of one line; none where it cannot be read or is empty.
fn line(path: &Path) -> Option<String> {
    let text = fs::read_to_string(path).ok()?;
    Some(text.trim().to_owned()).filter(|text| !text.is_empty())
}

/// The governors of all cores, which mostly are one.
fn governor(cpu: &Path) -> String {
    let entries = fs::read_dir(cpu).into_iter().flatten().flatten();
    let governors: BTreeSet<String> =
        entries.filter_map(|core| line(&core.path().join("cpufreq/scaling_governor"))).collect();
    let all = governors.into_iter().collect::<Vec<_>>().join(", ");
    known(Some(all).filter(|all| !all.is_empty()))
}

/// What stands in brackets: `always [madvise] never`.
pub(crate) fn chosen(choices: &str) -> String {
    let inside = choices.split_once('[').and_then(|(_, rest)| rest.split_once(']'));
    inside.map_or(choices, |(chosen, _)| chosen).to_owned()
}

/// A hint: CPUs tell that there is a hypervisor, and firmware mostly whose. None where the CPU
/// does not tell.
fn virtualization(root: &Path) -> Option<String> {
    let cpuinfo = fs::read_to_string(root.join("proc/cpuinfo")).ok()?;
    let flags = cpuinfo.lines().find(|line| line.starts_with("flags"))?;
    if !flags.split_whitespace().any(|flag| flag == "hypervisor") {
        return Some("none seen".to_owned());
    }
    let dmi = root.join("sys/class/dmi/id");
    let names: Vec<String> =
        ["sys_vendor", "product_name"].iter().filter_map(|file| line(&dmi.join(file))).collect();
    Some(match names.is_empty() {
        true => "virtual machine".to_owned(),
        false => format!("virtual machine ({})", names.join(" ")),
    })
}

fn mitigations(vulnerabilities: &Path) -> Option<String> {
    let entries = fs::read_dir(vulnerabilities).ok()?.flatten();
    let affected: BTreeSet<String> = entries
        .filter_map(|entry| {
            let state = line(&entry.path()).filter(|state| state != "Not affected")?;
            Some(format!("{}: {state}", entry.file_name().to_string_lossy()))
        })
        .collect();
    Some(match affected.is_empty() {
        true => "none known to the kernel".to_owned(),
        false => affected.into_iter().collect::<Vec<_>>().join(" · "),
    })
}

fn boot_parameters(cmdline: &str) -> String {
    let is_of_note = |parameter: &&str| {
        let name = parameter.split('=').next().unwrap_or_default();
        BOOT_PARAMETERS.contains(&name)
    };
    // What follows `--` is for init.
    let ours = cmdline.split_whitespace().take_while(|word| *word != "--");
    let found: Vec<&str> = ours.filter(is_of_note).collect();
    if found.is_empty() { "none of note".to_owned() } else { found.join(" ") }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

    use super::*;

    #[test]
    fn what_cannot_be_read_is_unknown() {
        let settings = Settings::read(Path::new("/nowhere/at/all"));
        for (name, value) in settings.rows() {
            assert_eq!(value, "unknown", "{name}");
        }
    }

    #[test]
    fn settings_are_read_where_the_kernel_shows_them() {
        let root = std::env::temp_dir().join(format!("ringcall-perf-host-{}", std::process::id()));
        let cpu = "sys/devices/system/cpu";
        for (file, text) in [
            (format!("{cpu}/cpu0/cpufreq/scaling_governor"), "performance\n"),
            (format!("{cpu}/cpu1/cpufreq/scaling_governor"), "powersave\n"),
            (format!("{cpu}/cpu2/cpufreq/scaling_governor"), "performance\n"),
            (format!("{cpu}/smt/control"), "off\n"),
            (format!("{cpu}/vulnerabilities/meltdown"), "Not affected\n"),
            (format!("{cpu}/vulnerabilities/spectre_v2"), "Mitigation: Retpolines\n"),
            ("sys/kernel/mm/transparent_hugepage/enabled".to_owned(), "always [madvise] never\n"),
            ("sys/class/dmi/id/sys_vendor".to_owned(), "QEMU\n"),
            ("proc/cpuinfo".to_owned(), "processor\t: 0\nflags\t\t: fpu hypervisor sse\n"),
            ("proc/cmdline".to_owned(), "root=/dev/vda isolcpus=2-3 nosmt quiet -- idle=poll\n"),
        ] {
            let path = root.join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        let settings = Settings::read(&root);
        fs::remove_dir_all(&root).unwrap();
        let expected = Settings {
            governor: "performance, powersave".to_owned(),
            smt: "off".to_owned(),
            idle_driver: "unknown".to_owned(),
            clocksource: "unknown".to_owned(),
            transparent_huge_pages: "madvise".to_owned(),
            virtualization: "virtual machine (QEMU)".to_owned(),
            mitigations: "spectre_v2: Mitigation: Retpolines".to_owned(),
            boot_parameters: "isolcpus=2-3 nosmt".to_owned(),
        };
        assert_eq!(settings, expected);
    }

    #[test]
    fn nothing_of_note_is_told_from_nothing_known() {
        assert_eq!(boot_parameters("root=/dev/vda quiet"), "none of note");
        assert_eq!(chosen("tsc"), "tsc");
    }
}

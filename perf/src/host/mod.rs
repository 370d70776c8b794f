//! The machine that was measured, and the code: what a figure is worth nothing without.

mod settings;

use std::{
    fs,
    path::Path,
    process::Command,
    time::{SystemTime, UNIX_EPOCH},
};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use serde::Serialize;

pub use settings::Settings;
pub(crate) use settings::chosen;

/// A description of this host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Host {
    /// The host's name; for people, and no part of what is published.
    #[serde(skip)]
    pub name: String,
    /// The kernel's name and version.
    pub kernel: String,
    /// The processor's model.
    pub cpu: String,
    /// Cores that the kernel uses.
    pub cores: usize,
    /// What it is set up to.
    pub settings: Settings,
    /// The commit that is checked out where this program was built, when it runs, with `-dirty`
    /// where files differ from it. `cargo run` builds what is checked out; a program that was
    /// built earlier may be of another commit.
    pub commit: String,
    /// When the run began: ISO 8601, UTC.
    pub date: String,
}

impl Host {
    /// Reads it; what cannot be read is `unknown`.
    pub fn describe() -> Self {
        let cpuinfo = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self {
            name: name(),
            kernel: kernel(),
            cpu: cpu_model(&cpuinfo).unwrap_or_else(|| "unknown".to_owned()),
            cores: cpuinfo.lines().filter(|line| line.starts_with("processor")).count(),
            settings: Settings::read(Path::new("/")),
            commit: commit().unwrap_or_else(|| "unknown".to_owned()),
            date: iso_date(since_epoch.as_secs()),
        }
    }
}

/// Lets this process have as many files open as it may raise the limit to: each connection is
/// one, on each side. Gives the limit.
pub fn raise_file_limit() -> u64 {
    let limit = getrlimit(Resource::Nofile);
    // Where it cannot be raised, connecting fails and says so.
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit });
    // Without a limit there is none.
    getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX)
}

fn name() -> String {
    let name = fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    if name.trim().is_empty() { "unknown".to_owned() } else { name.trim().to_owned() }
}

fn kernel() -> String {
    let read = |file| fs::read_to_string(format!("/proc/sys/kernel/{file}")).unwrap_or_default();
    format!("{} {}", read("ostype").trim(), read("osrelease").trim()).trim().to_owned()
}

fn cpu_model(cpuinfo: &str) -> Option<String> {
    let (_, model) =
        cpuinfo.lines().find(|line| line.starts_with("model name"))?.split_once(':')?;
    Some(model.split_whitespace().collect::<Vec<_>>().join(" "))
}

/// The commit that is checked out where this program was built; none where git or that place is
/// not there.
fn commit() -> Option<String> {
    let git = |args: &[&str]| {
        let mut git = Command::new("git");
        let output = git.args(["-C", env!("CARGO_MANIFEST_DIR")]).args(args).output().ok()?;
        let text = String::from_utf8(output.stdout).ok().filter(|_| output.status.success())?;
        Some(text.trim().to_owned())
    };
    let hash = git(&["rev-parse", "HEAD"])?;
    let changes = git(&["status", "--porcelain"])?;
    Some(if changes.is_empty() { hash } else { format!("{hash}-dirty") })
}

/// A time as `2026-02-28T23:59:59Z`.
fn iso_date(seconds_since_epoch: u64) -> String {
    let (days, seconds) = (seconds_since_epoch / 86_400, seconds_since_epoch % 86_400);
    let (year, month, day) = civil(days);
    let (hour, minute, second) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

/// Year, month and day of a day since 1970-01-01. After Howard Hinnant, "chrono-Compatible
/// Low-Level Date Algorithms": years begin in March, so that the leap day is the last.
fn civil(days: u64) -> (u64, u64, u64) {
    let days = days + 719_468;
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    (era * 400 + year_of_era + u64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

    use super::*;

    #[test]
    fn dates_are_iso_8601() {
        for (seconds, date) in [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_399, "2000-02-28T23:59:59Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (1_709_251_199, "2024-02-29T23:59:59Z"),
            (1_767_225_600, "2026-01-01T00:00:00Z"),
            (4_107_542_400, "2100-03-01T00:00:00Z"),
        ] {
            assert_eq!(iso_date(seconds), date);
        }
    }

    #[test]
    fn the_model_of_a_cpu_is_one_line_without_gaps() {
        let cpuinfo = "processor\t: 0\nmodel name\t: AMD  EPYC   9575F\nmodel name\t: other\n";
        assert_eq!(cpu_model(cpuinfo).unwrap(), "AMD EPYC 9575F");
        assert_eq!(cpu_model("processor : 0"), None);
    }

    #[test]
    fn this_host_has_cores_and_a_kernel() {
        let host = Host::describe();
        assert!(host.cores > 0);
        assert!(host.kernel.starts_with("Linux "), "{}", host.kernel);
    }
}

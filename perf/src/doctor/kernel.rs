//! The kernel: its version, and whether it lets io_uring be used.

use super::{finding::Finding, system::System};

/// The oldest kernel that ringcall is meant for.
const OLDEST: (u32, u32) = (6, 1);

const SWITCH: &str = "proc/sys/kernel/io_uring_disabled";

pub(super) fn findings(system: &System) -> Vec<Finding> {
    vec![version(system), io_uring(system)]
}

fn version(system: &System) -> Finding {
    let (topic, why) = ("kernel", "the ring's flags and receive buffers need Linux 6.1 or later");
    let release = system.line("proc/sys/kernel/osrelease");
    match release.as_deref().and_then(|release| Some((release, version_of(release)?))) {
        None => Finding::unknown(topic, "its version cannot be read", why),
        Some((release, version)) if version >= OLDEST => {
            Finding::ok(topic, format!("Linux {release}"), why)
        }
        Some((release, _)) => {
            let command = "install a kernel from 6.1 on, and reboot into it".to_owned();
            Finding::change(topic, format!("Linux {release}"), why, command)
        }
    }
}

/// Major and minor version.
fn version_of(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit());
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

fn io_uring(system: &System) -> Finding {
    let (topic, why) = ("io_uring", "without it no shard starts");
    let allow = || "sysctl -w kernel.io_uring_disabled=0".to_owned();
    match system.line(SWITCH).as_deref() {
        Some("0") => Finding::ok(topic, "allowed (kernel.io_uring_disabled = 0)".to_owned(), why),
        Some("1") => Finding::note(
            topic,
            "allowed to CAP_SYS_ADMIN and one group (kernel.io_uring_disabled = 1)".to_owned(),
            "a server without them does not start: add its group, or allow it to all",
            "sysctl -w kernel.io_uring_group=<gid of the server>".to_owned(),
        ),
        Some("2") => {
            let found = "forbidden to all (kernel.io_uring_disabled = 2)".to_owned();
            Finding::change(topic, found, why, allow())
        }
        Some(_) => Finding::unknown(topic, "kernel.io_uring_disabled is none of 0 to 2", why),
        // The switch came with 6.6.
        None if system.has("proc/sys/kernel/osrelease") && !system.has(SWITCH) => {
            Finding::ok(topic, "allowed: this kernel has no switch for it".to_owned(), why)
        }
        None => Finding::unknown(topic, "kernel.io_uring_disabled cannot be read", why),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::{
        fake::{FakeSystem, assert_finds, of},
        finding::State,
    };

    const RELEASE: &str = "proc/sys/kernel/osrelease";

    #[test]
    fn a_kernel_is_new_enough_or_not() {
        for (release, state, command) in [
            ("6.1.0-13-amd64\n", State::Ok, ""),
            ("10.0.0\n", State::Ok, ""),
            ("6.0.19\n", State::Change, "6.1"),
            ("5.15.0-91-generic\n", State::Change, "6.1"),
            ("nonsense\n", State::Unknown, ""),
        ] {
            let fake = FakeSystem::with(&[(RELEASE, release)]);
            let findings = findings(&fake.system());
            let found = if state == State::Unknown { "cannot" } else { release.trim() };
            assert_finds(of(&findings, "kernel"), state, found, command);
        }
    }

    #[test]
    fn the_switch_of_io_uring_is_read() {
        for (switch, state, command) in [
            (Some("0\n"), State::Ok, ""),
            (None, State::Ok, ""),
            (Some("1\n"), State::Note, "io_uring_group"),
            (Some("2\n"), State::Change, "sysctl -w kernel.io_uring_disabled=0"),
            (Some("7\n"), State::Unknown, ""),
        ] {
            let fake = FakeSystem::with(&[(RELEASE, "6.8.0")]);
            if let Some(switch) = switch {
                fake.write(SWITCH, switch);
            }
            assert_finds(of(&findings(&fake.system()), "io_uring"), state, "", command);
        }
    }
}

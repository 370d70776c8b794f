//! What this process may have: locked memory, open files, time on its cores.

use super::{Shards, finding::Finding, report::shard_count, system::System};

/// Memory that is locked for a shard, in bytes: the queues of its ring and of its executor's.
const LOCKED_BY_SHARD: u64 = 512 * 1024;

/// Files that are open for a shard, beside those of its connections.
const FILES_OF_SHARD: u64 = 12;

/// Connections that a server should be able to have, each an open file.
const CONNECTIONS: u64 = 10_000;

/// The bit of CAP_IPC_LOCK, to whose holder the limit of locked memory does not apply.
const CAP_IPC_LOCK: u32 = 14;

pub(super) fn findings(system: &System, shards: &Shards) -> Vec<Finding> {
    let shards = shards.cores.len() as u64;
    vec![locked_memory(system, shards), open_files(system, shards), quota(system)]
}

/// A soft limit of this process.
enum Limit {
    Unlimited,
    Of(u64),
}

fn limit(system: &System, name: &str) -> Option<Limit> {
    let limits = system.text("proc/self/limits")?;
    let values = limits.lines().find_map(|line| line.strip_prefix(name))?;
    match values.split_whitespace().next()? {
        "unlimited" => Some(Limit::Unlimited),
        number => Some(Limit::Of(number.parse().ok()?)),
    }
}

fn locked_memory(system: &System, count: u64) -> Finding {
    let topic = "locked memory";
    let why = "rings are locked, of all programs of a user together; where it is not enough shards do not start";
    let (wanted, shards) = (count * LOCKED_BY_SHARD, shard_count(count as usize));
    let kib = |bytes: u64| format!("{} KiB", bytes / 1024);
    match limit(system, "Max locked memory") {
        None => Finding::unknown(topic, "the limits of this process cannot be read", why),
        Some(Limit::Unlimited) => Finding::ok(topic, "unlimited".to_owned(), why),
        Some(Limit::Of(bytes)) if bytes >= wanted => {
            let found = format!("{}, and {} wanted for {shards}", kib(bytes), kib(wanted));
            Finding::ok(topic, found, why)
        }
        Some(Limit::Of(bytes))
            if bytes >= LOCKED_BY_SHARD && has_capability(system, CAP_IPC_LOCK) =>
        {
            // Below that the executor does not try.
            let found = format!("{}, which does not bind CAP_IPC_LOCK", kib(bytes));
            Finding::ok(topic, found, why)
        }
        Some(Limit::Of(bytes)) => {
            let found = format!("{}, and {} wanted for {shards}", kib(bytes), kib(wanted));
            let least = 2 * wanted / 1024;
            let command = format!("ulimit -l {least} (of systemd: LimitMEMLOCK={least}K)");
            Finding::change(topic, found, why, command)
        }
    }
}

fn open_files(system: &System, shards: u64) -> Finding {
    let (topic, why) =
        ("open files", "each connection is one; where they run out, accepting pauses");
    let wanted = shards * FILES_OF_SHARD + CONNECTIONS;
    match limit(system, "Max open files") {
        None => Finding::unknown(topic, "the limits of this process cannot be read", why),
        Some(Limit::Unlimited) => Finding::ok(topic, "unlimited".to_owned(), why),
        Some(Limit::Of(files)) if files >= wanted => Finding::ok(topic, files.to_string(), why),
        Some(Limit::Of(files)) => {
            let connections = files.saturating_sub(shards * FILES_OF_SHARD);
            let found = format!("{files}, enough for {connections} connections");
            let command = "ulimit -n 65536 (of systemd: LimitNOFILE=65536)".to_owned();
            Finding::change(topic, found, why, command)
        }
    }
}

fn has_capability(system: &System, bit: u32) -> bool {
    let status = system.text("proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok())
        .is_some_and(|mask| mask & 1 << bit != 0)
}

/// A bound on CPU time of the control groups that this process is in.
fn quota(system: &System) -> Finding {
    let topic = "CPU quota";
    let why =
        "a group that has used its share stands still for the rest of each period, mostly 100 ms";
    let Some(groups) = system.text("proc/self/cgroup") else {
        return Finding::unknown(topic, "the control groups of this process cannot be read", why);
    };
    let mut has_looked = false;
    for line in groups.lines() {
        let mut fields = line.splitn(3, ':');
        let (_, Some(controllers), Some(path)) = (fields.next(), fields.next(), fields.next())
        else {
            continue;
        };
        let base = match controllers {
            "" => "sys/fs/cgroup",
            it if it.split(',').any(|it| it == "cpu") => "sys/fs/cgroup/cpu",
            _ => continue,
        };
        // Those around it bind it as well.
        let mut path = path.trim_matches('/');
        loop {
            let group = format!("{base}/{path}");
            has_looked |= system.has(&group);
            if let Some(found) = quota_of(system, &group) {
                let command = "leave the quota out (systemd: CPUQuota=, containers: --cpus), and \
                               give whole cores (AllowedCPUs=, --cpuset-cpus)";
                return Finding::change(topic, found, why, command.to_owned());
            }
            match path.rsplit_once('/') {
                Some((parent, _)) => path = parent,
                None if path.is_empty() => break,
                None => path = "",
            }
        }
    }
    match has_looked {
        true => Finding::ok(topic, "none".to_owned(), why),
        false => Finding::unknown(topic, "the control groups are not mounted here", why),
    }
}

/// The quota of a group, where it has one: of version 2, or of version 1.
fn quota_of(system: &System, group: &str) -> Option<String> {
    let (quota, period): (f64, f64) = match system.line(&format!("{group}/cpu.max")) {
        Some(line) => {
            let (quota, period) = line.split_once(' ')?;
            // `max` where there is none.
            (quota.parse().ok()?, period.parse().ok()?)
        }
        None => {
            let of = |file: &str| system.line(&format!("{group}/{file}"))?.parse().ok();
            (of("cpu.cfs_quota_us")?, of("cpu.cfs_period_us")?)
        }
    };
    let cores = quota / period;
    (cores > 0.0).then(|| format!("{cores:.2} cores (of {group})"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::{
        fake::{self, FakeSystem, assert_finds, of},
        finding::State,
    };

    fn limits(locked: &str, files: &str) -> String {
        format!(
            "Limit                     Soft Limit           Hard Limit           Units     \n\
             Max open files            {files}              1048576              files     \n\
             Max locked memory         {locked}             unlimited            bytes     \n"
        )
    }

    fn found(files: &[(&str, &str)], topic: &str) -> Finding {
        let fake = FakeSystem::with(files);
        of(&findings(&fake.system(), &fake::shards(&[0, 1, 2, 3], 4)), topic).clone()
    }

    #[test]
    fn locked_memory_is_enough_for_the_shards_or_not() {
        let topic = "locked memory";
        for (locked, state, says, command) in [
            ("8388608", State::Ok, "8192 KiB, and 2048 KiB wanted for 4 shards", ""),
            ("2097152", State::Ok, "2048 KiB", ""),
            ("unlimited", State::Ok, "unlimited", ""),
            ("2097151", State::Change, "2048 KiB wanted for 4 shards", "ulimit -l 4096 "),
            ("much", State::Unknown, "cannot be read", ""),
        ] {
            let finding = found(&[("proc/self/limits", &limits(locked, "1024"))], topic);
            assert_finds(&finding, state, says, command);
        }
        let lawless = [
            ("proc/self/limits", &*limits("524288", "1024")),
            ("proc/self/status", "Name:\tx\nCapEff:\t000001ffffffffff\n"),
        ];
        assert_finds(&found(&lawless, topic), State::Ok, "CAP_IPC_LOCK", "");
        let bound = [lawless[0], ("proc/self/status", "CapEff:\t0000000000000400\n")];
        assert_finds(&found(&bound, topic), State::Change, "512 KiB", "LimitMEMLOCK=4096K");
        let least = limits("524287", "1024");
        let too_little = [("proc/self/limits", &*least), lawless[1]];
        assert_finds(&found(&too_little, topic), State::Change, "511 KiB", "ulimit -l");
    }

    #[test]
    fn open_files_are_enough_for_many_connections_or_not() {
        for (files, state, says, command) in [
            ("1048576", State::Ok, "1048576", ""),
            ("10048", State::Ok, "10048", ""),
            ("1024", State::Change, "1024, enough for 976 connections", "ulimit -n 65536"),
        ] {
            let finding = found(&[("proc/self/limits", &limits("0", files))], "open files");
            assert_finds(&finding, state, says, command);
        }
    }

    #[test]
    fn a_quota_of_any_group_around_is_found() {
        let topic = "CPU quota";
        let cgroup = ("proc/self/cgroup", "0::/a.slice/b.service\n");
        let none = [cgroup, ("sys/fs/cgroup/a.slice/b.service/cpu.max", "max 100000\n")];
        assert_finds(&found(&none, topic), State::Ok, "none", "");
        let around = [cgroup, ("sys/fs/cgroup/a.slice/cpu.max", "150000 100000\n")];
        assert_finds(&found(&around, topic), State::Change, "1.50 cores", "AllowedCPUs=");
        let first = ("proc/self/cgroup", "4:cpuacct,cpu:/docker/x\n1:name=systemd:/\n");
        let old = [
            first,
            ("sys/fs/cgroup/cpu/docker/x/cpu.cfs_quota_us", "50000\n"),
            ("sys/fs/cgroup/cpu/docker/x/cpu.cfs_period_us", "100000\n"),
        ];
        assert_finds(&found(&old, topic), State::Change, "0.50 cores", "--cpuset-cpus");
        let free = [first, ("sys/fs/cgroup/cpu/cpu.cfs_quota_us", "-1\n")];
        assert_finds(&found(&free, topic), State::Ok, "none", "");
        assert_finds(&found(&[cgroup], topic), State::Unknown, "not mounted", "");
    }
}

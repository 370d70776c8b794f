//! Settings of the kernel's network that every interface has in common.

use super::{Shards, finding::Finding, system::System};

const CORE: &str = "proc/sys/net/core";

pub(super) fn findings(system: &System, shards: &Shards) -> Vec<Finding> {
    vec![backlog(system, shards), busy_poll(system), migrate(system)]
}

fn backlog(system: &System, shards: &Shards) -> Finding {
    let (topic, why) =
        ("backlog", "clients that connect at once and find no room wait a second, or fail");
    let wanted = shards.backlog;
    match system.number(&format!("{CORE}/somaxconn")) {
        None => Finding::unknown(topic, "net.core.somaxconn cannot be read", why),
        Some(most) if most >= u64::from(wanted) => {
            Finding::ok(topic, format!("net.core.somaxconn is {most}, the backlog {wanted}"), why)
        }
        Some(most) => {
            let found = format!("net.core.somaxconn is {most}, and cuts the backlog of {wanted}");
            Finding::change(topic, found, why, format!("sysctl -w net.core.somaxconn={wanted}"))
        }
    }
}

fn busy_poll(system: &System) -> Finding {
    let (topic, why) = ("busy poll", "a receive that polls the NIC takes its core's time for it");
    let read = |file| system.number(&format!("{CORE}/{file}"));
    match (read("busy_read"), read("busy_poll")) {
        (Some(0), Some(0)) => Finding::ok(
            topic,
            "off, unless busy_poll_us of the settings asks for it".to_owned(),
            why,
        ),
        (Some(read_us), Some(poll_us)) => Finding::note(
            topic,
            format!(
                "net.core.busy_read is {read_us} µs, net.core.busy_poll {poll_us} µs, for all programs"
            ),
            "every socket polls, of other programs too: better by busy_poll_us of the settings alone",
            "sysctl -w net.core.busy_read=0 net.core.busy_poll=0".to_owned(),
        ),
        _ => Finding::unknown(topic, "net.core.busy_read and busy_poll cannot be read", why),
    }
}

fn migrate(system: &System) -> Finding {
    let topic = "rolling restarts";
    let why =
        "connections that wait for a server that stops are reset, instead of given to the next";
    match system.number("proc/sys/net/ipv4/tcp_migrate_req") {
        None => Finding::unknown(topic, "net.ipv4.tcp_migrate_req cannot be read", why),
        Some(0) => {
            let command = "sysctl -w net.ipv4.tcp_migrate_req=1".to_owned();
            Finding::note(topic, "net.ipv4.tcp_migrate_req is 0".to_owned(), why, command)
        }
        Some(value) => Finding::ok(topic, format!("net.ipv4.tcp_migrate_req is {value}"), why),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::{
        fake::{self, FakeSystem, assert_finds, of},
        finding::State::{self, *},
    };

    #[track_caller]
    fn check(topic: &str, files: &[(&str, &str)], (state, says, command): (State, &str, &str)) {
        let fake = FakeSystem::with(files);
        let findings = findings(&fake.system(), &fake::shards(&[0], 1));
        assert_finds(of(&findings, topic), state, says, command);
    }

    #[test]
    fn the_backlog_is_bounded_by_the_kernel() {
        let path = "proc/sys/net/core/somaxconn";
        check("backlog", &[(path, "4096\n")], (Ok, "4096, the backlog 1024", ""));
        check("backlog", &[(path, "1024\n")], (Ok, "1024", ""));
        let command = "sysctl -w net.core.somaxconn=1024";
        check("backlog", &[(path, "128\n")], (Change, "128, and cuts", command));
    }

    #[test]
    fn polling_of_all_sockets_is_noted() {
        let (read, poll) = ("proc/sys/net/core/busy_read", "proc/sys/net/core/busy_poll");
        check("busy poll", &[(read, "0\n"), (poll, "0\n")], (Ok, "off", ""));
        let on = [(read, "50\n"), (poll, "0\n")];
        check("busy poll", &on, (Note, "busy_read is 50 µs", "net.core.busy_read=0"));
        check("busy poll", &[(read, "0\n")], (Unknown, "cannot be read", ""));
    }

    #[test]
    fn connections_that_wait_move_to_another_server_or_not() {
        let path = "proc/sys/net/ipv4/tcp_migrate_req";
        check("rolling restarts", &[(path, "1\n")], (Ok, "is 1", ""));
        check("rolling restarts", &[(path, "0\n")], (Note, "is 0", "tcp_migrate_req=1"));
    }
}

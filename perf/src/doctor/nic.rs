//! The network interface: its node, its queues, and how the kernel spreads what they carry.

use super::{
    Shards,
    finding::Finding,
    report::shard_count,
    system::{System, mask},
};
use crate::error::Failure;

const NET: &str = "sys/class/net";

/// A network interface.
#[derive(Clone, Debug, Default)]
pub(super) struct Nic {
    pub(super) name: String,
    /// The node that it is near to, where it is known.
    pub(super) node: Option<usize>,
    /// Queues, as `rx-0`.
    pub(super) receive: Vec<String>,
    pub(super) send: Vec<String>,
}

/// The interface of a name.
pub(super) fn named(system: &System, name: &str) -> Result<Nic, Failure> {
    let there = system.names(NET).unwrap_or_default();
    match there.iter().any(|it| it == name) {
        true => Ok(read(system, name)),
        false => Err(Failure::NoInterface { name: name.to_owned(), there: there.join(", ") }),
    }
}

/// The interface to the rest of the world, where there is one.
pub(super) fn of_default_route(system: &System) -> Option<Nic> {
    let routes = system.text("proc/net/route")?;
    let name = routes.lines().find_map(|line| {
        let mut fields = line.split_whitespace();
        let (name, destination) = (fields.next()?, fields.next()?);
        (destination == "00000000").then(|| name.to_owned())
    })?;
    Some(read(system, &name))
}

fn read(system: &System, name: &str) -> Nic {
    let queues = system.names(&format!("{NET}/{name}/queues")).unwrap_or_default();
    let (receive, send) = queues.into_iter().partition(|queue| queue.starts_with("rx-"));
    // -1 where it is on none.
    let node = system.number(&format!("{NET}/{name}/device/numa_node"));
    let node = node.and_then(|node| usize::try_from(node).ok());
    Nic { name: name.to_owned(), node, receive, send }
}

pub(super) fn findings(system: &System, shards: &Shards, nic: Option<&Nic>) -> Vec<Finding> {
    vec![queues(shards, nic), receive_steering(system, shards, nic), send_steering(system, nic)]
}

/// Said where no interface is known.
pub(super) const NO_NIC: &str = "no default route; name the interface: --interface";

fn queues(shards: &Shards, nic: Option<&Nic>) -> Finding {
    let topic = "NIC queues";
    let why = "what all shards receive passes the cores of so many queues";
    let Some(nic) = nic.filter(|nic| !nic.receive.is_empty()) else {
        return Finding::unknown(topic, nic.map_or(NO_NIC, |_| "the interface tells none"), why);
    };
    let Nic { name, receive, .. } = nic;
    let (count, shards) = (receive.len(), shards.cores.len());
    let found = format!("{name} has {count} to receive, for {}", shard_count(shards));
    if count >= shards {
        return Finding::ok(topic, found, why);
    }
    let command = format!("ethtool -L {name} combined {shards} (ethtool -l {name} tells its most)");
    Finding::note(topic, found, why, command)
}

/// RPS: another core than that of the interrupt goes on with a packet.
fn receive_steering(system: &System, shards: &Shards, nic: Option<&Nic>) -> Finding {
    let topic = "RPS";
    let why = "it hands packets to other cores: of use with too few queues, else a detour";
    let Some(nic) = nic else { return Finding::unknown(topic, NO_NIC, why) };
    let path = |queue: &String| format!("{NET}/{}/queues/{queue}/rps_cpus", nic.name);
    let masks: Option<Vec<String>> =
        nic.receive.iter().map(|queue| system.line(&path(queue))).collect();
    let Some(masks) = masks.filter(|masks| !masks.is_empty()) else {
        return Finding::unknown(topic, "the interface does not tell", why);
    };
    let is_on = masks.iter().any(|mask| !is_empty(mask));
    let set = |mask: &str| {
        format!("for q in /{NET}/{}/queues/rx-*; do echo {mask} > $q/rps_cpus; done", nic.name)
    };
    match (is_on, nic.receive.len() >= shards.cores.len()) {
        (false, true) => Finding::ok(topic, "off".to_owned(), why),
        (true, false) => Finding::ok(topic, "on, with fewer queues than shards".to_owned(), why),
        (true, true) => {
            let found = "on, with a queue for each shard".to_owned();
            Finding::note(topic, found, why, set("0"))
        }
        (false, false) => {
            let found = "off, with fewer queues than shards".to_owned();
            Finding::note(topic, found, why, set(&mask(&shards.cores)))
        }
    }
}

/// XPS: a core sends by a queue of its own.
fn send_steering(system: &System, nic: Option<&Nic>) -> Finding {
    let (topic, why) = ("XPS", "cores that send by one queue wait for its lock");
    let Some(nic) = nic else { return Finding::unknown(topic, NO_NIC, why) };
    let Nic { name, send, .. } = nic;
    match send.len() {
        0 => return Finding::unknown(topic, "the interface does not tell", why),
        // The kernel has no choice then, and no setting.
        1 => return Finding::ok(topic, "one queue to send by".to_owned(), why),
        _ => {}
    }
    let masks: Option<Vec<String>> = send
        .iter()
        .map(|queue| system.line(&format!("{NET}/{name}/queues/{queue}/xps_cpus")))
        .collect();
    match masks {
        None => Finding::unknown(topic, "the interface does not tell", why),
        Some(masks) if masks.iter().any(|mask| !is_empty(mask)) => {
            Finding::ok(topic, "cores have queues of their own".to_owned(), why)
        }
        Some(_) => {
            let found = format!("off, with {} queues to send by: a hash chooses", send.len());
            let command = format!(
                "n={}; for c in $(seq 0 $((n-1))); do printf %x $((1<<c)) > /{NET}/{name}/queues/tx-$c/xps_cpus; done",
                send.len().min(32)
            );
            Finding::note(topic, found, why, command)
        }
    }
}

/// Whether a mask has no core.
fn is_empty(mask: &str) -> bool {
    mask.chars().all(|digit| digit == '0' || digit == ',')
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

    use super::*;
    use crate::doctor::{
        fake::{self, FakeSystem, assert_finds, of},
        finding::State::{self, *},
    };

    /// An interface with so many queues each way, with these masks.
    fn host(queues: usize, rps: &str, xps: &str) -> FakeSystem {
        let route = "Iface\tDestination\tGateway\neth0\t000200C0\t0\neth1\t00000000\t010200C0\n";
        let fake = FakeSystem::with(&[
            ("proc/net/route", route),
            ("sys/class/net/eth1/device/numa_node", "1\n"),
            ("sys/class/net/lo/device/none", ""),
        ]);
        for queue in 0..queues {
            let dir = "sys/class/net/eth1/queues";
            fake.write(&format!("{dir}/rx-{queue}/rps_cpus"), rps);
            fake.write(&format!("{dir}/tx-{queue}/xps_cpus"), xps);
        }
        fake
    }

    #[track_caller]
    fn check(fake: &FakeSystem, topic: &str, (state, says, command): (State, &str, &str)) {
        let nic = of_default_route(&fake.system());
        let shards = fake::shards(&[0, 1, 4, 5], 8);
        let findings = findings(&fake.system(), &shards, nic.as_ref());
        assert_finds(of(&findings, topic), state, says, command);
    }

    #[test]
    fn the_interface_is_that_of_the_default_route_or_the_one_that_is_named() {
        let fake = host(2, "0", "0");
        let nic = of_default_route(&fake.system()).unwrap();
        assert_eq!((nic.name.as_str(), nic.node), ("eth1", Some(1)));
        assert_eq!(named(&fake.system(), "lo").unwrap().node, None);
        let error = named(&fake.system(), "eth9").unwrap_err().to_string();
        assert!(error.contains("eth9") && error.contains("eth1, lo"), "{error}");
    }

    #[test]
    fn there_are_queues_for_the_shards_or_not() {
        check(&host(4, "0", "0"), "NIC queues", (Ok, "4 to receive, for 4 shards", ""));
        let few = host(2, "0", "0");
        check(&few, "NIC queues", (Note, "eth1 has 2", "ethtool -L eth1 combined 4"));
        check(&FakeSystem::with(&[]), "NIC queues", (Unknown, "--interface", ""));
    }

    #[test]
    fn packets_are_spread_where_queues_are_few_and_only_there() {
        let off = "00000000,00000000\n";
        check(&host(4, off, "0"), "RPS", (Ok, "off", ""));
        check(&host(2, "f\n", "0"), "RPS", (Ok, "on, with fewer", ""));
        check(&host(4, "f\n", "0"), "RPS", (Note, "on, with a queue for each", "echo 0 >"));
        check(&host(1, off, "0"), "RPS", (Note, "off, with fewer", "echo 33 > $q/rps_cpus"));
        check(&host(0, off, "0"), "RPS", (Unknown, "does not tell", ""));
    }

    #[test]
    fn cores_send_by_queues_of_their_own_or_not() {
        check(&host(1, "0", ""), "XPS", (Ok, "one queue", ""));
        check(&host(2, "0", "1\n"), "XPS", (Ok, "of their own", ""));
        check(&host(2, "0", "0\n"), "XPS", (Note, "2 queues", "/tx-$c/xps_cpus"));
        check(&host(2, "0", ""), "XPS", (Unknown, "does not tell", ""));
    }
}

//! The memory that is near the shards' cores, and whether the NIC is near it too.

use super::{
    Shards,
    finding::Finding,
    nic::Nic,
    system::{System, ranges},
};

const NODES: &str = "sys/devices/system/node";

/// A node: its number and its cores.
type Node = (usize, Vec<usize>);

pub(super) fn finding(system: &System, shards: &Shards, nic: Option<&Nic>) -> Finding {
    let topic = "NUMA";
    let why = "what crosses from one node to another, of memory or of the NIC, takes longer";
    let Some(nodes) = nodes(system) else {
        return Finding::unknown(topic, "the nodes cannot be read", why);
    };
    if nodes.len() == 1 {
        return Finding::ok(topic, "one node".to_owned(), why);
    }
    let of_shards: Vec<&Node> = nodes
        .iter()
        .filter(|(_, cores)| shards.cores.iter().any(|core| cores.contains(core)))
        .collect();
    let names: Vec<String> = of_shards.iter().map(|(node, _)| node.to_string()).collect();
    let names = names.join(", ");
    let near = nic
        .and_then(|nic| nic.node)
        .and_then(|of_nic| nodes.iter().find(|(node, _)| *node == of_nic));
    match (near, of_shards.as_slice()) {
        (_, []) => Finding::unknown(topic, "no node has the shards' cores", why),
        (Some((node, _)), [(only, _)]) if node == only => {
            Finding::ok(topic, format!("shards and NIC on node {node}"), why)
        }
        (Some((node, cores)), _) => {
            let usable: Vec<usize> =
                cores.iter().filter(|core| shards.available.contains(core)).copied().collect();
            let found = format!("shards on node {names}, the NIC on node {node}");
            let command = match usable.is_empty() {
                true => format!("let the process use the cores of node {node}: {}", ranges(cores)),
                false => format!("--cores {}", ranges(&usable)),
            };
            Finding::change(topic, found, why, command)
        }
        (None, [(node, _)]) => Finding::ok(topic, format!("shards on node {node}"), why),
        (None, [(_, first), ..]) => {
            let found = format!("shards on the nodes {names}");
            Finding::note(topic, found, why, format!("--cores {}", ranges(first)))
        }
    }
}

/// The nodes that have cores; none where they cannot be read.
fn nodes(system: &System) -> Option<Vec<Node>> {
    let names = system.names(NODES)?;
    let mut nodes: Vec<Node> = names
        .iter()
        .filter_map(|name| {
            let number = name.strip_prefix("node")?.parse().ok()?;
            Some((number, system.cores(&format!("{NODES}/{name}/cpulist"))?))
        })
        .collect();
    nodes.sort_unstable();
    Some(nodes).filter(|nodes| !nodes.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::{
        fake::{self, FakeSystem, assert_finds},
        finding::State::{self, *},
    };

    #[track_caller]
    fn check(cores: &[usize], nic: Option<usize>, (state, says, command): (State, &str, &str)) {
        let fake = FakeSystem::with(&[
            ("sys/devices/system/node/node0/cpulist", "0-3\n"),
            ("sys/devices/system/node/node1/cpulist", "4-7\n"),
            // Memory without cores.
            ("sys/devices/system/node/node2/cpulist", "\n"),
            ("sys/devices/system/node/online", "0-2\n"),
        ]);
        let nic = nic.map(|node| Nic { node: Some(node), ..Nic::default() });
        let finding = finding(&fake.system(), &fake::shards(cores, 8), nic.as_ref());
        assert_finds(&finding, state, says, command);
    }

    #[test]
    fn shards_belong_on_the_node_of_the_nic() {
        check(&[4, 5], Some(1), (Ok, "shards and NIC on node 1", ""));
        check(&[0, 1], Some(1), (Change, "shards on node 0, the NIC on node 1", "--cores 4-7"));
        check(&[3, 4], Some(0), (Change, "shards on node 0, 1, the NIC on node 0", "--cores 0-3"));
    }

    #[test]
    fn where_the_nic_is_not_known_shards_belong_on_one_node() {
        check(&[1, 2], None, (Ok, "shards on node 0", ""));
        check(&[3, 4], None, (Note, "the nodes 0, 1", "--cores 0-3"));
        check(&[9], None, (Unknown, "no node", ""));
    }

    #[test]
    fn one_node_is_as_it_should_be() {
        let fake = FakeSystem::with(&[("sys/devices/system/node/node0/cpulist", "0-1\n")]);
        let finding = finding(&fake.system(), &fake::shards(&[0, 1], 2), None);
        assert_finds(&finding, Ok, "one node", "");
    }
}

//! Placements on hosts that are trees of files.

#![allow(clippy::unwrap_used)]

use std::{
    env, fs,
    path::PathBuf,
    sync::atomic::{AtomicU64, Ordering::Relaxed},
};

use super::*;

/// A host in a directory of its own, which goes when this does.
struct Host {
    root: PathBuf,
    /// What its process may use.
    usable: Vec<usize>,
}

impl Host {
    /// A host whose nodes have these cores, each with its hardware threads. All are online and
    /// usable.
    fn new(nodes: &[&[&[usize]]]) -> Self {
        static HOSTS: AtomicU64 = AtomicU64::new(0);
        let name = format!("ringcall-host-{}-{}", std::process::id(), HOSTS.fetch_add(1, Relaxed));
        let mut host = Self { root: env::temp_dir().join(name), usable: Vec::new() };
        for (node, cores) in nodes.iter().enumerate() {
            let threads: Vec<_> = cores.iter().copied().flatten().copied().collect();
            host.write(&format!("node/node{node}/cpulist"), &text(&threads));
            for core in *cores {
                for thread in *core {
                    let file = format!("cpu/cpu{thread}/topology/core_cpus_list");
                    host.write(&file, &text(core));
                }
            }
            host.usable.extend(threads);
        }
        host.write("cpu/online", &text(&host.usable));
        host
    }

    fn write(&self, file: &str, text: &str) {
        let path = self.root.join("sys/devices/system").join(file);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    /// For a process that may use these.
    fn allowing(mut self, usable: &[usize]) -> Self {
        self.usable = usable.to_vec();
        self
    }

    fn topology(&self) -> Topology {
        Topology::read(&self.root, &self.usable)
    }

    fn place(&self, placement: Placement) -> Result<Vec<usize>, PlacementError> {
        placement.choose(&self.topology())
    }

    #[track_caller]
    fn refusal(&self, placement: Placement) -> String {
        self.place(placement).unwrap_err().to_string()
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.root).unwrap();
    }
}

fn text(numbers: &[usize]) -> String {
    let numbers: Vec<_> = numbers.iter().map(usize::to_string).collect();
    numbers.join(",") + "\n"
}

/// One socket, no threads beside each other.
fn plain() -> Host {
    Host::new(&[&[&[0], &[1], &[2], &[3]]])
}

/// Two sockets of three cores with two hardware threads each.
fn two_sockets() -> Host {
    Host::new(&[&[&[0, 6], &[1, 7], &[2, 8]], &[&[3, 9], &[4, 10], &[5, 11]]])
}

#[test]
fn a_plain_host_has_as_many_cores_as_threads() {
    let host = plain();
    assert_eq!(host.place(Placement::default()).unwrap(), [0, 1, 2, 3]);
    assert_eq!(host.place(Placement::physical()).unwrap(), [0, 1, 2, 3]);
    assert_eq!(host.place(Placement::physical().count(2)).unwrap(), [0, 1]);
    assert_eq!(host.place(Placement::threads().skip([0, 2])).unwrap(), [1, 3]);
    assert_eq!(host.topology().map(), "node 0 has cores 0-3");
}

#[test]
fn physical_cores_have_one_shard_each_and_nodes_are_filled_in_turn() {
    let host = two_sockets();
    assert_eq!(host.place(Placement::threads()).unwrap(), [0, 1, 2, 6, 7, 8, 3, 4, 5, 9, 10, 11]);
    assert_eq!(host.place(Placement::physical()).unwrap(), [0, 1, 2, 3, 4, 5]);
    assert_eq!(host.place(Placement::physical().count(4)).unwrap(), [0, 1, 2, 3]);
    assert_eq!(host.place(Placement::physical().node(1)).unwrap(), [3, 4, 5]);
    assert_eq!(host.place(Placement::threads().node(1).count(4)).unwrap(), [3, 4, 5, 9]);
    assert_eq!(host.place(Placement::physical().node(0).node(1).count(6)).unwrap().len(), 6);
    assert_eq!(
        host.topology().map(),
        "node 0 has cores 0-2 (further threads of them: 6-8), \
         node 1 has cores 3-5 (further threads of them: 9-11)"
    );
}

#[test]
fn a_physical_core_is_left_out_with_either_of_its_threads() {
    let host = two_sockets();
    assert_eq!(host.place(Placement::physical().skip([0])).unwrap(), [1, 2, 3, 4, 5]);
    assert_eq!(host.place(Placement::physical().skip([6, 4])).unwrap(), [1, 2, 3, 5]);
    assert_eq!(
        host.place(Placement::threads().skip([0])).unwrap(),
        [1, 2, 6, 7, 8, 3, 4, 5, 9, 10, 11]
    );
}

#[test]
fn named_cores_are_taken_as_they_are_named() {
    let host = two_sockets();
    assert_eq!(host.place(Placement::cores([5, 0, 5])).unwrap(), [5, 0, 5]);
    assert_eq!(host.place(Placement::cores([5, 0, 11]).node(1)).unwrap(), [5, 11]);
    assert_eq!(host.place(Placement::cores([5, 0, 11]).skip([5]).count(1)).unwrap(), [0]);
}

#[test]
fn numbers_may_have_holes_and_cores_be_offline() {
    // Of core 2+6 the first thread is offline, and so is core 1.
    let host = Host::new(&[&[&[0, 4], &[2, 6]], &[&[32], &[40]]]);
    host.write("cpu/online", "0,4,6,32,40");
    assert_eq!(host.place(Placement::threads()).unwrap(), [0, 4, 6, 32, 40]);
    assert_eq!(host.place(Placement::physical()).unwrap(), [0, 6, 32, 40]);
    let map = "node 0 has cores 0, 6 (further threads of them: 4), node 1 has cores 32, 40";
    assert_eq!(host.refusal(Placement::cores([2])), format!("core 2 is not there; {map}"));
    assert_eq!(host.refusal(Placement::threads().skip([1])), format!("core 1 is not there; {map}"));
}

#[test]
fn what_the_process_may_not_use_is_not_chosen() {
    let host = two_sockets().allowing(&[6, 1, 7, 3]);
    assert_eq!(host.place(Placement::threads()).unwrap(), [1, 6, 7, 3]);
    assert_eq!(host.place(Placement::physical()).unwrap(), [1, 6, 3]);
    // What it may not use can be left out all the same.
    assert_eq!(host.place(Placement::physical().skip([0])).unwrap(), [1, 3]);
    let refusal = host.refusal(Placement::cores([1, 2]));
    assert!(refusal.starts_with("core 2 is not for this process; give it the core"), "{refusal}");
    assert!(refusal.ends_with("; the process may use 1, 3, 6, 7"), "{refusal}");
}

#[test]
fn what_is_not_there_is_refused_with_what_is() {
    let host = two_sockets();
    let map = host.topology().map();
    for (placement, refusal) in [
        (Placement::cores([0, 12]), "core 12 is not there"),
        (Placement::cores([usize::MAX]), "core 18446744073709551615 is not there"),
        (Placement::physical().node(2), "node 2 is not there"),
        (
            Placement::physical().count(7),
            "7 shards are wanted, and the placement leaves 6 cores for them",
        ),
        (
            Placement::physical().node(1).skip([3, 4, 5]),
            "1 shards are wanted, and the placement leaves 0 cores for them",
        ),
        (
            Placement::threads().node(0).skip([0]).count(6),
            "6 shards are wanted, and the placement leaves 5 cores for them",
        ),
    ] {
        assert_eq!(host.refusal(placement), format!("{refusal}; {map}"));
    }
}

#[test]
fn a_host_that_tells_nothing_has_the_cores_that_the_process_may_use() {
    let host = plain().allowing(&[2, 5]);
    fs::remove_dir_all(host.root.join("sys")).unwrap();
    assert_eq!(host.place(Placement::physical()).unwrap(), [2, 5]);
    assert_eq!(host.topology().map(), "node 0 has cores 2, 5");
    // Nor is nonsense believed.
    host.write("cpu/online", "0-99999999999");
    host.write("cpu/cpu2/topology/core_cpus_list", "two");
    host.write("node/node1/cpulist", "1-\u{0}");
    assert_eq!(host.place(Placement::physical().node(0)).unwrap(), [2, 5]);
}

#[test]
fn older_kernels_name_the_siblings_otherwise() {
    let host = plain();
    for (thread, siblings) in [(0, "0,2"), (2, "0,2"), (1, "1,3"), (3, "1,3")] {
        let topology = host.root.join(format!("sys/devices/system/cpu/cpu{thread}/topology"));
        fs::remove_file(topology.join("core_cpus_list")).unwrap();
        fs::write(topology.join("thread_siblings_list"), siblings).unwrap();
    }
    assert_eq!(host.place(Placement::physical()).unwrap(), [0, 1]);
}

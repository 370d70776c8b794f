//! Shards run on the cores that they were placed on, and their memory is on the nodes of these.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod support;

use std::{fs, path::Path};

use ringcall::{Placement, prelude::*};
use support::{
    server::usable_cores,
    station::{ANY_PORT, run},
    wait::watched,
};

#[ringcall::message]
struct Bytes {
    bytes: Vec<u8>,
}

/// Where a call was handled.
#[ringcall::message]
struct Seen {
    cores: Vec<u64>,
    /// Address of what was received.
    address: u64,
}

#[ringcall::service]
trait Where {
    async fn am_i(&self, cx: &Context, request: Request<'_, Bytes>) -> Result<Seen, Status>;
}

struct Here;

impl Where for Here {
    async fn am_i(&self, _: &Context, request: Request<'_, Bytes>) -> Result<Seen, Status> {
        let allowed = rustix::thread::sched_getaffinity(None).unwrap();
        let cores = (0..rustix::thread::CpuSet::MAX_CPU).filter(|core| allowed.is_set(*core));
        let cores = cores.map(|core| core as u64).collect();
        let address = std::ptr::from_ref(&request.bytes.as_slice()[0]).addr() as u64;
        assert!(ringcall::is_in_receive_pool(&request.bytes.as_slice()[0]));
        Ok(Seen { cores, address })
    }
}

/// What a shard on this core says, after a while under load.
fn seen_on(core: usize, mut look: impl FnMut(u64)) {
    let server = Server::builder().placement(Placement::threads().skip(others(core)));
    let server = server.serve(ANY_PORT, move |shard| {
        assert_eq!((shard.index, shard.count, shard.core), (0, 1, core));
        WhereServer::new(Here)
    });
    let server = server.unwrap();
    run(async move {
        let client = WhereClient::connect(server.address()).await.unwrap();
        let mut address = 0;
        // As many as the pool has buffers, so that each was touched.
        for _ in 0..1100 {
            let seen = client.am_i(&Bytes { bytes: vec![1; 10_000] }).await.unwrap();
            let cores: Vec<u64> = seen.cores.iter().map(|core| (*core).into()).collect();
            assert_eq!(cores, [core as u64]);
            address = seen.address.into();
        }
        look(address);
    });
}

fn others(core: usize) -> Vec<usize> {
    usable_cores().into_iter().filter(|other| *other != core).collect()
}

/// The node of a core.
fn node_of(core: usize) -> usize {
    let directory = Path::new("/sys/devices/system/cpu").join(format!("cpu{core}"));
    let entries = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().file_name());
    let nodes = entries.filter_map(|name| name.to_str()?.strip_prefix("node")?.parse().ok());
    nodes.max().unwrap_or(0)
}

/// On which nodes the pages of the mapping are that an address lies in, and how many on each.
fn nodes_of(maps: &str, address: u64) -> Vec<(usize, u64)> {
    let of = |line: &'_ str| u64::from_str_radix(line.split(' ').next().unwrap(), 16).unwrap();
    let line = maps.lines().filter(|line| of(line) <= address).max_by_key(|line| of(line));
    let counts = line.unwrap().split(' ').filter_map(|field| field.strip_prefix('N'));
    let counts = counts.filter_map(|field| field.split_once('='));
    counts.map(|(node, pages)| (node.parse().unwrap(), pages.parse().unwrap())).collect()
}

#[test]
fn a_shards_thread_runs_on_its_core_and_its_receive_pool_is_on_the_cores_node() {
    watched(|| {
        for core in usable_cores() {
            seen_on(core, |address| {
                let Ok(maps) = fs::read_to_string("/proc/self/numa_maps") else {
                    println!("not looked at: this kernel does not tell where pages are");
                    return;
                };
                let nodes = nodes_of(&maps, address);
                let [(node, pages)] = nodes[..] else { panic!("on several nodes: {nodes:?}") };
                assert_eq!(node, node_of(core));
                assert!(pages > 0);
            });
        }
    });
}

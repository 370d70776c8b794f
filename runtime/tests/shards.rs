//! Several shards on one port, and clients on executors of others.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod support;

use std::collections::BTreeSet;

use ringcall::ShardPlace;
use support::{
    station::{Number, StationClient, run, serve},
    wait::watched,
};

fn all_shards_serve(shards: u16) {
    let (server, _) = serve(shards.into());
    run(async {
        let mut connections: Vec<StationClient> = Vec::new();
        let mut reached = BTreeSet::new();
        // The kernel chooses a shard by the connection's ports, as evenly as chance is.
        while connections.len() < 64 || reached.len() < usize::from(shards) {
            assert!(connections.len() < 1000, "only {reached:?} were reached");
            let station = StationClient::connect(server.address()).await.unwrap();
            reached.insert(station.client().shard().index);
            connections.push(station);
        }
        assert_eq!(reached, (0..shards).collect());
        // Each connection stays where it is, and each shard counts for itself.
        let mut served = vec![0; shards.into()];
        for round in 0..3 {
            for station in &connections {
                let place = station.place(&Number { number: round }).await.unwrap();
                let ShardPlace { index, count, .. } = station.client().shard();
                assert_eq!((place.index.into(), place.count.into()), (index, count));
                assert_eq!(count, shards);
                let served = &mut served[usize::from(index)];
                assert_eq!(place.served, *served);
                *served += 1;
            }
        }
        let counters = server.counters();
        assert_eq!(counters.len(), usize::from(shards));
        for (counters, served) in counters.iter().zip(served) {
            assert_eq!(counters.calls_inline, served);
            assert_eq!(counters.connections_accepted * 3, served);
        }
    });
    server.stop();
    server.join().unwrap();
}

#[test]
fn one_shard_serves() {
    watched(|| all_shards_serve(1));
}

#[test]
fn two_shards_on_one_port_all_serve() {
    watched(|| all_shards_serve(2));
}

#[test]
fn three_shards_on_one_port_all_serve() {
    watched(|| all_shards_serve(3));
}

#[test]
fn four_shards_on_one_port_all_serve() {
    watched(|| all_shards_serve(4));
}

#[test]
fn a_client_connects_from_an_executor_that_is_not_ours() {
    watched(|| {
        let (server, _) = serve(1);
        let executor = glommio::LocalExecutorBuilder::default().make().unwrap();
        executor.run(async {
            let station = StationClient::connect(server.address()).await.unwrap();
            let other = StationClient::connect(server.address()).await.unwrap();
            for number in 0..100 {
                assert_eq!(station.add(&Number { number }).await.unwrap().number, number + 1);
                assert_eq!(other.wait(&Number { number }).await.unwrap().number, number + 1);
            }
        });
    });
}

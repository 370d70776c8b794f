//! Calls go to the shard that owns their key, and one that comes to another is passed on.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod support;

use std::{cell::Cell, rc::Rc, sync::atomic::Ordering::Relaxed, time::Duration};

use ringcall::{Key, Metadata, RoutingKey, ShardPlace, prelude::*};
use support::{
    raw::{Peer, hello_of, request},
    routed::{
        RoutedBlockingClient, RoutedClient, RoutedShards, key_of_shard, owner, put, serve, tasks,
        total,
    },
    station::run,
    wait::{until, until_async, watched, watched_for},
};

/// Enough to take a while; the million is for optimized builds.
const CALLS: u64 = if cfg!(debug_assertions) { 100_000 } else { 1_000_000 };

#[test]
fn in_steady_state_every_call_goes_to_its_owner_without_a_hop() {
    watched_for(Duration::from_secs(120), || {
        const TASKS: u64 = 64;
        let (server, seen) = serve(4);
        let address = server.address();
        run(async move {
            let shards = RoutedShards::connect(address).await.unwrap();
            assert_eq!(shards.client().shards(), 4);
            tasks(TASKS, |task| {
                let shards = shards.clone();
                async move {
                    for number in 0..CALLS / TASKS {
                        let key = number * TASKS + task;
                        let ran = shards.put(&put(key)).await.unwrap();
                        assert_eq!((ran.index.into(), ran.count.into()), (owner(key, 4), 4_u16));
                    }
                }
            })
            .await;
        });
        let counters = total(&server);
        assert_eq!(counters.calls_inline, CALLS / TASKS * TASKS);
        assert_eq!((counters.calls_forwarded, counters.calls_served_for_others), (0, 0));
        assert_eq!(counters.connections_handed_over, counters.connections_taken_over);
        assert_eq!(seen.misrouted.load(Relaxed), 0);
        let shares = server.counters();
        let fair = CALLS / 4;
        let is_fair =
            |shard: &ringcall::ShardCounters| shard.calls_inline.abs_diff(fair) < fair / 8;
        assert!(shares.iter().all(is_fair));
    });
}

#[test]
fn a_call_at_the_wrong_shard_is_passed_on_and_counted() {
    watched(|| {
        let (server, seen) = serve(4);
        let address = server.address();
        let (calls, elsewhere) = run(async move {
            let client = RoutedClient::connect(address).await.unwrap();
            let ShardPlace { index: here, .. } = client.client().shard();
            let mut metadata = Metadata::new();
            metadata.insert(Key::TENANT, "acme").unwrap();
            let elsewhere = Rc::new(Cell::new(0_u64));
            let is_elsewhere = |key| u64::from(owner(key, 4) != here);
            for key in 0..500 {
                let request = put(key);
                let call = client.put(&request).metadata(&metadata);
                let ran = call.timeout(Duration::from_secs(60)).await.unwrap();
                assert_eq!(u16::from(ran.index), owner(key, 4));
                assert_eq!(ran.text.as_str(), request.text);
                assert_eq!(ran.tenant.as_str(), "acme");
                assert!(ran.has_deadline && ran.peer.starts_with("127.0.0.1:"));
                elsewhere.set(elsewhere.get() + is_elsewhere(key));
            }
            // Many at once, and those that wait.
            tasks(100, |task| {
                let (client, elsewhere) = (client.clone(), Rc::clone(&elsewhere));
                async move {
                    for key in task * 1000..task * 1000 + 20 {
                        let ran = client.wait(&put(key)).await.unwrap();
                        assert_eq!(u16::from(ran.index), owner(key, 4));
                        assert!(!ran.has_deadline && ran.tenant.is_empty());
                        elsewhere.set(elsewhere.get() + u64::from(owner(key, 4) != here));
                    }
                }
            })
            .await;
            // A status, by a key of two parts.
            for key in 0..20 {
                let request = put(key);
                let status = client.fail(&request).await.err().unwrap();
                assert_eq!((status.code(), status.message()), (Code::NotFound, &*request.text));
                let key = RoutingKey::of(&(key, request.text.as_str()));
                elsewhere.set(elsewhere.get() + u64::from(key.owner(4) != here));
            }
            // One without a key stays.
            assert_eq!(u16::from(client.anywhere(&put(1)).await.unwrap().index), here);
            (2521, elsewhere.get())
        });
        let counters = total(&server);
        assert_eq!(counters.calls_inline + counters.calls_spawned, calls);
        assert_eq!(counters.calls_forwarded, elsewhere);
        assert_eq!(counters.calls_served_for_others, elsewhere);
        assert_eq!(seen.misrouted.load(Relaxed), 0);
    });
}

#[test]
fn a_long_request_is_read_where_it_was_received() {
    watched(|| {
        let (server, seen) = serve(4);
        let address = server.address();
        let before = run(async move {
            let client = RoutedClient::connect(address).await.unwrap();
            let text = "long ".repeat(200_000);
            for key in 0..16 {
                let ran =
                    client.put(&support::routed::Put { key, text: text.clone() }).await.unwrap();
                assert_eq!(ran.text.as_str(), text);
                let kept = support::routed::Put { key, text: text.clone() };
                assert_eq!(client.keep(&kept).await.unwrap().text.as_str(), text);
            }
            text.len() as u64
        });
        let counters = total(&server);
        assert!(counters.calls_forwarded > 8);
        // The reply is copied, once; of the requests what came before their buffers were there.
        let replies = counters.calls_forwarded * (before + 256);
        assert!(counters.bytes_copied < replies + 32 * 96 * 1024, "{}", counters.bytes_copied);
        assert_eq!(seen.misrouted.load(Relaxed), 0);
        server.stop();
        server.join().unwrap();
    });
}

#[test]
fn one_way_calls_and_calls_of_a_blocking_client_find_their_shards() {
    watched(|| {
        let (server, seen) = serve(3);
        let address = server.address();
        run(async move {
            let client = RoutedClient::connect(address).await.unwrap();
            let shards = RoutedShards::connect(address).await.unwrap();
            for key in 0..300 {
                client.note(&put(key)).await.unwrap();
                shards.note(&put(key)).await.unwrap();
            }
            client.put(&put(1)).await.unwrap();
            until_async("all were noted", || seen.notes.load(Relaxed) == 600).await;
            assert_eq!(seen.misrouted.load(Relaxed), 0);
        });
        let mut client = RoutedBlockingClient::connect(address).unwrap();
        for key in 0..100 {
            let ran = client.put(&put(key)).wait().unwrap();
            assert_eq!(u16::from(ran.index), owner(key, 3));
        }
    });
}

#[test]
fn calls_without_a_key_go_to_each_shard_in_turn() {
    watched(|| {
        let (server, _) = serve(4);
        let address = server.address();
        run(async move {
            let shards = RoutedShards::connect(address).await.unwrap();
            let mut served = [0; 4];
            for _ in 0..40 {
                let ran = shards.anywhere(&put(1)).await.unwrap();
                served[usize::from(u16::from(ran.index))] += 1;
            }
            assert_eq!(served, [10; 4]);
        });
    });
}

/// A raw client that knows nothing of keys, and one that lies about them.
#[test]
fn a_call_without_a_key_in_its_header_is_passed_on_and_one_with_a_wrong_key_refused() {
    watched(|| {
        let (server, seen) = serve(2);
        let (mut peer, here) = keyed_peer(&server);
        let key = key_of_shard(1 - here, 2);
        let bytes = support::raw::archive(&put(key));
        for number in 1..=100 {
            let id = support::raw::call(0, number);
            peer.send(&request(id, RoutedClient::PUT, &bytes));
            let answer = peer.frame();
            assert_eq!((answer.call, answer.code), (id, 0));
        }
        assert_eq!(total(&server).calls_forwarded, 100);
        let id = support::raw::call(0, 101);
        let mut lie = request(id, RoutedClient::PUT, &bytes);
        lie.aux = RoutingKey::of(&key_of_shard(here, 2)).to_wire();
        for aux in [lie.aux, 1, u32::MAX] {
            let owner = RoutingKey::from_wire(aux).unwrap().owner(2);
            if owner == 1 - here {
                continue;
            }
            lie.aux = aux;
            peer.send(&lie);
            let text = "the routing key is not that of the request";
            peer.frame().assert_refusal(lie.call, Code::InvalidArgument, text);
            lie.call += 1 << 32;
        }
        // The lie may also lead away from the owner.
        let own = support::raw::archive(&put(key_of_shard(here, 2)));
        let mut lie = request(support::raw::call(1, 1), RoutedClient::PUT, &own);
        lie.aux = RoutingKey::of(&key).to_wire();
        peer.send(&lie);
        let text = "the routing key is not that of the request";
        peer.frame().assert_refusal(lie.call, Code::InvalidArgument, text);
        assert_eq!(seen.misrouted.load(Relaxed), 0);
    });
}

#[test]
fn a_call_that_is_given_up_stops_at_its_owner() {
    watched(|| {
        let (server, seen) = serve(4);
        let address = server.address();
        run(async move {
            let client = RoutedClient::connect(address).await.unwrap();
            let here = client.client().shard().index;
            let key = key_of_shard((here + 1) % 4, 4);
            // It is dropped.
            let (request, waiting) = (put(key), &seen.waiting);
            {
                let mut call = Box::pin(client.never(&request));
                let is_there = async {
                    until_async("it waits", || waiting.load(Relaxed) == 1).await;
                };
                support::routed::first(is_there, call.as_mut()).await;
            }
            until_async("it was stopped", || waiting.load(Relaxed) == 0).await;
            // Its time is over.
            let call = client.never(&request).timeout(Duration::from_millis(20));
            let status = call.await.err().unwrap();
            assert_eq!(status.code(), Code::DeadlineExceeded);
            until_async("it was stopped", || waiting.load(Relaxed) == 0).await;
        });
    });
}

/// A raw client that knows of keys, and the shard that it is at.
fn keyed_peer(server: &ServerHandle) -> (Peer, u16) {
    let mut peer = Peer::connect(server.address());
    let mut hello = hello_of(16 << 20, 4096, (0, 0), &[]);
    hello.body[0] = 0x08;
    peer.send(&hello);
    let answer = peer.frame();
    (peer, u16::from_le_bytes([answer.body[24], answer.body[25]]))
}

#[test]
fn a_caller_that_is_lost_leaves_nothing_behind() {
    watched(|| {
        const CALLS: u32 = 40;
        let (server, seen) = serve(4);
        for _ in 0..20 {
            let (mut peer, _) = keyed_peer(&server);
            for slot in 0..CALLS {
                let put = put(slot.into());
                let id = support::raw::call(slot, 1);
                let mut frame = request(id, RoutedClient::NEVER, &support::raw::archive(&put));
                frame.aux = RoutingKey::of(&put.key).to_wire();
                peer.send(&frame);
            }
            until("they wait", || seen.waiting.load(Relaxed) == u64::from(CALLS));
            peer.reset();
            until("every handler has stopped", || seen.waiting.load(Relaxed) == 0);
        }
        until("every connection has ended", || total(&server).connections_closed == 20);
        assert!(total(&server).calls_forwarded > 0);
        server.drain(Duration::from_secs(30));
        server.join().unwrap();
    });
}

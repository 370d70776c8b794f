//! Admission: a shard takes no more calls than it has room for, and says so before it holds their
//! bodies.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod support;

use ringcall::{Code, ShardConfig};
use support::{
    echo::{Blob, EchoClient},
    event::Noted,
    host::Host,
    raw::{CANCEL, Frame, NOTICE, ONEWAY, Peer, archive, call, plain, reply, request},
    station::run,
    wait::{until, watched},
    works::{Done, Job, Shop, WorksClient},
};

const MIB: usize = 1 << 20;

const NO_ROOM: &str = "the server has no room for the call; try later";

#[test]
fn no_more_calls_run_on_a_shard_than_it_takes() {
    watched(|| {
        let shop = Shop::with(ShardConfig::new().calls_max(3));
        run(async {
            // On connections of their own: the limit is the shard's.
            let (job, noted) = (Job::new(1), Noted::new());
            let clients = [shop.connect().await, shop.connect().await, shop.connect().await];
            let mut held: Vec<_> = clients.iter().map(|works| Box::pin(works.hold(&job))).collect();
            held.iter_mut().for_each(|call| noted.begin(call.as_mut()));
            shop.runs(3).await;
            let works = shop.connect().await;
            for refused in 1..=10 {
                let status = works.add(&job).await.err().unwrap();
                assert_eq!((status.code(), status.message()), (Code::ResourceExhausted, NO_ROOM));
                assert!(status.is_not_executed());
                assert_eq!(shop.counters().calls_refused_overload, refused);
            }
            // One that ends leaves its room to another.
            drop(held.pop());
            shop.runs(2).await;
            assert_eq!(works.open(&job).await.unwrap().number, 2);
            for call in held {
                assert_eq!(call.await.unwrap().number, 2);
            }
        });
        assert_eq!((shop.begun(), shop.counters().calls_refused_overload), (3, 10));
    });
}

#[test]
fn calls_that_are_refused_count_for_nothing() {
    watched(|| {
        let shop = Shop::with(ShardConfig::new().calls_max(1));
        let mut peer = Peer::open(shop.server.address());
        peer.send(&request(call(0, 1), WorksClient::HOLD, &archive(&Job::new(1))));
        shop.blocks_until_it_runs(1);
        let one_way = Frame { code: WorksClient::NOTE, ..plain(ONEWAY, 5) };
        let one_way = Frame { body: archive(&Job::new(1)), ..one_way };
        for generation in 1..=5 {
            let refused = call(1, generation);
            peer.send(&request(refused, WorksClient::ADD, &archive(&Job::new(1))));
            peer.frame().assert_refusal(refused, Code::ResourceExhausted, NO_ROOM);
            peer.send(&one_way);
            let code = Code::ResourceExhausted as u32;
            let body = NO_ROOM.as_bytes().to_vec();
            assert_eq!(peer.frame(), Frame { code, body, ..plain(NOTICE, 5) });
        }
        // Given up, so that there is room again.
        peer.send(&plain(CANCEL, call(0, 1)));
        assert_eq!(peer.frame().code, Code::Cancelled as u32);
        peer.send(&request(call(1, 6), WorksClient::ADD, &archive(&Job::new(1))));
        assert_eq!(peer.frame(), reply(call(1, 6), &archive(&Done { number: 2 })));
        assert_eq!((shop.noted().len(), shop.counters().calls_refused_overload), (0, 10));
    });
}

/// A request of so many bytes, as it travels.
fn long_request(slot: u32, method: u32, len: usize) -> Vec<u8> {
    request(call(slot, 1), method, &archive(&Blob::new(1, len))).bytes()
}

#[test]
fn a_request_that_there_is_no_memory_for_is_refused_by_its_header() {
    watched(|| {
        let host = Host::with(ShardConfig::new().memory_max(4 * MIB));
        let mut peer = Peer::open(host.address());
        let long = long_request(0, EchoClient::DIGEST, 8 * MIB);
        peer.send_bytes(&long[..32]);
        // There is nothing of its body yet.
        peer.frame().assert_refusal(call(0, 1), Code::ResourceExhausted, NO_ROOM);
        host.is_unharmed();
        // What comes of it is thrown away, and what stands behind it is served.
        peer.send_bytes(&long[32..]);
        host.serves(&mut peer, call(0, 2));
        host.is_unharmed();
        let counters = host.counters();
        assert_eq!((counters.calls_refused_overload, counters.protocol_errors), (1, 0));
    });
}

#[test]
fn a_refused_request_is_skipped_wherever_it_is_cut() {
    watched(|| {
        let host = Host::with(ShardConfig::new().memory_max(MIB / 4));
        let long = long_request(0, EchoClient::DIGEST, MIB);
        let one_way = Frame { kind: ONEWAY, call: 9, ..Frame::default() };
        let one_way = Frame { body: vec![7; MIB], code: EchoClient::DIGEST, ..one_way }.bytes();
        for cut in [33, 48, 4_000, 16 * 1024, 16 * 1024 + 1, 500_000, long.len() - 1] {
            let mut peer = Peer::open(host.address());
            peer.send_bytes(&long[..cut]);
            peer.frame().assert_refusal(call(0, 1), Code::ResourceExhausted, NO_ROOM);
            let cut_too = cut.min(one_way.len() - 1);
            peer.send_bytes(&[&long[cut..], &one_way[..cut_too]].concat());
            let told = peer.frame();
            assert_eq!((told.kind, told.call), (NOTICE, 9));
            peer.send_bytes(&one_way[cut_too..]);
            host.serves(&mut peer, call(0, 2));
        }
        host.is_unharmed();
        assert_eq!(host.counters().protocol_errors, 0);
    });
}

#[test]
fn memory_that_is_held_is_not_there_for_others_until_it_is_free() {
    watched(|| {
        // Buffers are powers of two: the one takes 2 MiB, the other 4.
        const LONG: usize = 4 * MIB - 64;
        let host = Host::with(ShardConfig::new().memory_max(5 * MIB));
        let mut holder = Peer::open(host.address());
        holder.send_bytes(&long_request(0, EchoClient::HOLD, 3 * MIB / 2));
        until("it is held", || host.counters().calls_spawned == 1);
        let mut other = Peer::open(host.address());
        other.send_bytes(&long_request(0, EchoClient::DIGEST, LONG));
        other.frame().assert_refusal(call(0, 1), Code::ResourceExhausted, NO_ROOM);
        // Small ones are served all the time.
        host.serves(&mut other, call(1, 1));
        host.is_unharmed();
        host.release();
        assert_eq!(holder.frame().code, 0);
        let again = request(call(0, 2), EchoClient::DIGEST, &archive(&Blob::new(1, LONG)));
        other.send(&again);
        assert_eq!(other.frame().code, 0);
        assert_eq!(host.counters().calls_refused_overload, 1);
    });
}

#[test]
fn a_refused_call_id_must_be_one_too() {
    watched(|| {
        let host = Host::with(ShardConfig::new().memory_max(MIB).calls_in_flight_max(8));
        for (id, code, text) in [
            (call(3, 0), Code::InvalidArgument, "call 3.0 has generation zero"),
            (
                call(8, 1),
                Code::ResourceExhausted,
                "call 8.1 is beyond the limit of 8 calls in flight",
            ),
        ] {
            let frame = request(id, EchoClient::DIGEST, &archive(&Blob::new(1, 8 * MIB)));
            host.refuses(&frame.bytes()[..48], code, text);
        }
        // Also one that was refused has been used.
        let mut peer = Peer::open(host.address());
        let long = long_request(0, EchoClient::DIGEST, 2 * MIB);
        peer.send_bytes(&long);
        peer.frame().assert_refusal(call(0, 1), Code::ResourceExhausted, NO_ROOM);
        host.refuses_on(&mut peer, &long[..32], Code::InvalidArgument, "call 0.1 was used before");
    });
}

#[test]
fn a_limit_of_no_calls_is_refused() {
    let error = ringcall::RunConfig::new().shard(ShardConfig::new().calls_max(0)).run(async {});
    assert!(error.unwrap_err().to_string().contains("calls_max is 0"));
}

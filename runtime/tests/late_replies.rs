//! Replies of handlers that waited: none is refused, so that more of them than a send buffer holds
//! are kept for a peer that does not read, as many as calls may be in flight.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod support;

use std::{
    sync::{
        atomic::Ordering::Relaxed,
        mpsc::{Receiver, Sender, channel},
    },
    thread,
};

use ringcall::{ShardConfig, SocketConfig};
use support::{
    desk::{DeskClient, Office, Unit, load, run},
    raw::{Peer, archive, call, hello, request},
    server::{counters, one_shard},
    wait::{until_async, watched},
};

/// Calls that may be in flight, and that the peer makes together.
const BATCH: u32 = 8;
const BATCHES: u64 = 4;
const SEND_BUFFER_MAX: usize = 4096;
const LEN: usize = 256 * 1024;

/// A call of `hold`, by its number; its reply is the same.
fn held(number: u32) -> (u64, Vec<u8>) {
    (call(number % BATCH, 1 + number / BATCH), archive(&load(number.into(), LEN)))
}

/// Writes a batch of calls each time that it is told to.
fn write_batches(mut peer: Peer, next: Receiver<()>) {
    for (batch, ()) in (0..).zip(next) {
        for number in batch * BATCH..(batch + 1) * BATCH {
            let (id, body) = held(number);
            peer.send(&request(id, DeskClient::HOLD, &body));
        }
    }
}

/// Reads the replies to all batches.
fn read_batches(mut peer: Peer) {
    for number in 0..BATCH * BATCHES as u32 {
        let (id, body) = held(number);
        let frame = peer.frame();
        assert_eq!((frame.call, frame.code), (id, 0));
        assert!(frame.body == body, "another reply to call {number}");
    }
}

/// Has all handlers of a batch reply at once.
async fn release(office: &Office, desk: &DeskClient, batches: u64) {
    office.has_waited(batches * u64::from(BATCH)).await;
    desk.open(&Unit).await.unwrap();
    until_async("all have replied", || office.watch.running.load(Relaxed) == 0).await;
}

/// Has batches made and answered until the server reads no more of them; how many were made.
///
/// The second is read where the replies to the first are in the send that is under way, and not
/// where some of them wait behind it.
fn make_until_blocked(office: &Office, next: &Sender<()>) -> u64 {
    const TURNS: u32 = 200;
    run(async {
        let desk = office.connect().await;
        next.send(()).unwrap();
        release(office, &desk, 1).await;
        for made in 2..=BATCHES {
            next.send(()).unwrap();
            let mut turns = 0;
            while office.waits() < made * u64::from(BATCH) {
                if turns == TURNS {
                    return made;
                }
                turns += 1;
                desk.echo(&load(1, 1)).await.unwrap();
            }
            release(office, &desk, made).await;
        }
        panic!("everything is read");
    })
}

#[test]
fn late_replies_that_are_not_read_are_kept_up_to_the_calls_in_flight() {
    watched(|| {
        let config = ShardConfig::new().calls_in_flight_max(BATCH).send_buffer_max(SEND_BUFFER_MAX);
        let narrow = SocketConfig::new().send_buffer_bytes(64 * 1024);
        let office = Office::of(one_shard().shard(config).socket(narrow));
        let mut peer = Peer::connect_narrow(office.server.address());
        peer.send(&hello());
        peer.expect_hello();
        let writer = Peer::on(peer.stream.try_clone().unwrap());
        let (next, is_next) = channel();
        let writing = thread::spawn(move || write_batches(writer, is_next));

        let made = make_until_blocked(&office, &next);
        let counted = counters(&office.server);
        let unsent = counted.bytes_encoded.saturating_sub(counted.bytes_sent);
        // One send buffer is under way, and another fills meanwhile.
        let replies = u64::from(BATCH) * LEN as u64;
        assert!(unsent > replies * 3 / 4, "{unsent} bytes only are kept");
        assert!(unsent < 2 * (replies + SEND_BUFFER_MAX as u64), "{unsent} bytes are kept");

        // None is lost: once the peer reads, each call is answered.
        let reading = thread::spawn(move || read_batches(peer));
        run(async {
            let desk = office.connect().await;
            release(&office, &desk, made).await;
            for batch in made + 1..=BATCHES {
                next.send(()).unwrap();
                release(&office, &desk, batch).await;
            }
        });
        drop(next);
        reading.join().unwrap();
        writing.join().unwrap();
        assert_eq!(counters(&office.server).protocol_errors, 0);
    });
}

//! What an open stream costs in memory where nothing travels on it, at each end.
//!
//! One end is ringcall, the other a raw peer that allocates nothing for a stream, so that one
//! counting allocator measures one end.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod support;

use std::{
    alloc::System,
    net::TcpListener,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering::Relaxed},
        mpsc::channel,
    },
    thread,
};

use ringcall::{Lag, RunConfig, Service, ShardConfig, Topic, prelude::*};
use stats_alloc::{INSTRUMENTED_SYSTEM, StatsAlloc};
use support::{
    raw::{Peer, REQUEST, STREAM, archive, call, hello_of, request},
    server::{counters, one_shard},
    wait::{until, until_async, watched},
};

#[global_allocator]
static GLOBAL: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// Streams that are open at once on one connection.
const STREAMS: u32 = 10_000;

/// Bytes that each may take at each end, the future of its handler among them.
const BYTES_MAX: usize = 512;

#[ringcall::message]
pub struct Note {
    pub number: u64,
}

/// Items from the server, as of a subscription.
#[ringcall::service]
pub trait News {
    async fn listen(
        &self,
        cx: &Context,
        request: Request<'_, Note>,
        news: Sink<'_, Note>,
    ) -> Result<Note, Status>;
}

/// Items from the client.
#[ringcall::service]
pub trait Upload {
    async fn store(
        &self,
        cx: &Context,
        request: Request<'_, Note>,
        notes: Source<Note>,
    ) -> Result<Note, Status>;
}

/// Items from both.
#[ringcall::service]
pub trait Chat {
    async fn talk(
        &self,
        cx: &Context,
        request: Request<'_, Note>,
        questions: Source<Note>,
        answers: Sink<'_, Note>,
    ) -> Result<Note, Status>;
}

/// Handlers that wait for what does not come.
#[derive(Default)]
struct Silence {
    topic: Topic<Note>,
}

impl News for Silence {
    async fn listen(
        &self,
        _: &Context,
        _: Request<'_, Note>,
        news: Sink<'_, Note>,
    ) -> Result<Note, Status> {
        self.topic.subscribe(Lag::Disconnect, 16).forward(&news).await?;
        Ok(Note { number: 0 })
    }
}

impl Upload for Silence {
    async fn store(
        &self,
        _: &Context,
        _: Request<'_, Note>,
        mut notes: Source<Note>,
    ) -> Result<Note, Status> {
        let mut number = 0;
        while let Some(note) = notes.next().await? {
            number += note.number.to_native();
        }
        Ok(Note { number })
    }
}

impl Chat for Silence {
    async fn talk(
        &self,
        _: &Context,
        _: Request<'_, Note>,
        mut questions: Source<Note>,
        answers: Sink<'_, Note>,
    ) -> Result<Note, Status> {
        let mut number = 0;
        while let Some(question) = questions.next().await? {
            number += question.number.to_native();
            answers.send(&Note { number }).await?;
        }
        Ok(Note { number })
    }
}

/// Bytes that are allocated now.
fn allocated() -> isize {
    let stats = GLOBAL.stats();
    stats.bytes_allocated as isize - stats.bytes_deallocated as isize
}

fn config() -> ShardConfig {
    ShardConfig::new().calls_in_flight_max(STREAMS)
}

/// The frames that open the streams from `from` on.
fn requests<S: Service>(slots: std::ops::Range<u32>, body: &[u8]) -> Vec<u8> {
    let method = S::METHODS[0].id;
    let frames = slots.map(|slot| {
        let mut frame = request(call(slot, 1), method, body);
        frame.flags = STREAM;
        frame.bytes()
    });
    frames.flatten().collect()
}

/// Compares what each stream takes with the limit.
#[track_caller]
fn assert_small(end: &str, before: isize, after: isize) {
    let each = (after - before).max(0) as usize / STREAMS as usize;
    println!("{end}: an idle stream takes {each} bytes");
    assert!(each <= BYTES_MAX, "{end}: {each} bytes");
}

// One test, since the allocator counts for the whole process.
#[test]
fn ten_thousand_idle_streams_cost_half_a_kibibyte_each_with_their_handlers() {
    watched(|| {
        at_the_server(NewsServer::new);
        at_the_server(UploadServer::new);
        at_the_server(ChatServer::new);
        at_the_client();
    });
}

fn at_the_server<S: Service>(make: fn(Silence) -> S) {
    let server = one_shard().shard(config());
    let server = server.serve("127.0.0.1:0", move |_| make(Silence::default())).unwrap();
    let mut peer = Peer::open(server.address());
    let body = archive(&Note { number: 1 });
    // The first of them pays for what all share.
    let (first, others) = (requests::<S>(0..1, &body), requests::<S>(1..STREAMS, &body));
    peer.send_bytes(&first);
    until("the first runs", || counters(&server).calls_spawned == 1);
    let before = allocated();
    peer.send_bytes(&others);
    until("all run", || counters(&server).calls_spawned == u64::from(STREAMS));
    assert_small(S::NAME, before, allocated());
}

fn at_the_client() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let (finish, is_finished) = channel::<()>();
    let came = Arc::new(AtomicU32::new(0));
    let peer = thread::spawn({
        let came = Arc::clone(&came);
        move || {
            let mut peer = Peer::accept(&listener);
            peer.expect_hello();
            peer.send(&hello_of(16 << 20, STREAMS, (0, 1), NewsServer::<Silence>::METHODS));
            for _ in 0..STREAMS {
                assert_eq!(peer.frame().kind, REQUEST);
                came.fetch_add(1, Relaxed);
            }
            // Holds the connection until the measurement is over.
            let _ = is_finished.recv();
        }
    });
    let run = RunConfig::new().shard(config()).run(async {
        let client = NewsClient::connect(address).await.unwrap();
        let topic = Note { number: 1 };
        let first = client.listen(&topic).await.unwrap();
        let mut streams = vec![first];
        let before = allocated();
        streams.reserve_exact(STREAMS as usize);
        for _ in 1..STREAMS {
            streams.push(client.listen(&topic).await.unwrap());
        }
        let has_come = || came.load(Relaxed) == STREAMS;
        until_async("the peer has all of them", has_come).await;
        assert_small("client", before, allocated());
        drop(streams);
    });
    run.unwrap();
    drop(finish);
    peer.join().unwrap();
}

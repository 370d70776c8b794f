//! In steady state a call allocates nothing, neither where it is served nor where it is made.
//!
//! A shard calls itself, so that one thread does all there is to do, and one allocator counts all
//! of it. Sleeps of the executor, turns of its reactor and the shard's heartbeat allocate; a window
//! in which there was one says nothing of calls, and is not looked at.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod support;

use std::{
    alloc::System,
    cell::Cell,
    future::{Future, poll_fn},
    net::SocketAddr,
    pin::Pin,
    sync::{
        Arc, OnceLock,
        mpsc::{Sender, channel},
    },
    task::Poll,
    time::Duration,
};

use ringcall::{Call, Key, Metadata, ShardConfig, prelude::*};
use stats_alloc::{INSTRUMENTED_SYSTEM, StatsAlloc};
use support::server::one_shard;

#[global_allocator]
static GLOBAL: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

#[ringcall::message]
pub struct Blob<'a> {
    pub id: u64,
    pub bytes: &'a [u8],
}

#[ringcall::service]
pub trait Echo {
    async fn echo<'a>(
        &self,
        cx: &Context,
        request: Request<'a, Blob<'a>>,
    ) -> Result<Blob<'a>, Status>;

    /// Counts the entries beside the request.
    async fn count<'a>(
        &self,
        cx: &Context,
        request: Request<'a, Blob<'a>>,
    ) -> Result<Blob<'a>, Status>;

    #[rpc(oneway)]
    async fn note(&self, cx: &Context, request: Request<'_, Blob<'_>>);
    async fn mirror(
        &self,
        cx: &Context,
        request: Request<'_, Word>,
        words: Source<Word>,
        back: Sink<'_, Word>,
    ) -> Result<Word, Status>;
}

struct Mirror;

impl Echo for Mirror {
    async fn echo<'a>(
        &self,
        _: &Context,
        request: Request<'a, Blob<'a>>,
    ) -> Result<Blob<'a>, Status> {
        Ok(Blob { id: request.id.into(), bytes: &request.get().bytes })
    }

    async fn count<'a>(&self, cx: &Context, _: Request<'a, Blob<'a>>) -> Result<Blob<'a>, Status> {
        assert_eq!(cx.metadata().get_named("basket"), Some(&b"7"[..]));
        Ok(Blob { id: cx.metadata().iter().count() as u64, bytes: b"" })
    }

    async fn note(&self, _: &Context, request: Request<'_, Blob<'_>>) {
        assert_eq!(request.id, 1);
    }

    async fn mirror(
        &self,
        _: &Context,
        request: Request<'_, Word>,
        mut words: Source<Word>,
        back: Sink<'_, Word>,
    ) -> Result<Word, Status> {
        while let Some(word) = words.next().await? {
            back.send(&Word { bytes: word.bytes }).await?;
        }
        Ok(Word { bytes: request.bytes })
    }
}

/// An item of 64 bytes.
#[ringcall::message]
pub struct Word {
    pub bytes: [u8; 64],
}

/// Calls that are made at once in a window.
const DEPTH: usize = 16;

/// Windows that must be seen without an interruption, of those that are tried.
const CLEAN: usize = 300;
const TRIES: usize = 30_000;

#[test]
fn a_call_allocates_nothing_in_steady_state() {
    let address = Arc::new(OnceLock::new());
    let (done, is_done) = channel();
    // Buffers in which 5000 bytes find no room, so that they come as large bodies do.
    let server = one_shard()
        .shard(ShardConfig::new().receive_buffers(256, 4096))
        .serve("127.0.0.1:0", {
            let address = Arc::clone(&address);
            move |_| {
                ringcall::spawn(call_self(Arc::clone(&address), done.clone()));
                EchoServer::new(Mirror)
            }
        })
        .unwrap();
    address.set(server.address()).unwrap();
    // Nothing else runs in this process: this thread waits.
    let outcome = is_done.recv_timeout(Duration::from_secs(60));
    assert_eq!(outcome.expect("the measurement ends"), Ok(()));
}

/// Measures calls of this shard to itself.
async fn call_self(address: Arc<OnceLock<SocketAddr>>, done: Sender<Result<(), String>>) {
    let address = loop {
        match address.get() {
            Some(address) => break *address,
            None => ringcall::sleep(Duration::from_millis(1)).await,
        }
    };
    let echo = EchoClient::connect(address).await.unwrap();
    let (bytes, large) = ([7; 64], [7; 5000]);
    let mut metadata = Metadata::new();
    metadata.insert(Key::TENANT, "acme").unwrap().insert_named("basket", "7").unwrap();
    let request = Blob { id: 1, bytes: &bytes };
    let one_call = async || {
        let reply = echo.echo(&request).await.unwrap();
        assert_eq!(*reply.bytes, bytes);
    };
    let outcome = async {
        measure("calls one after the other", one_call, one_call).await?;
        measure("large calls one after the other", one_call, async || {
            let request = Blob { id: 1, bytes: &large };
            let reply = echo.echo(&request).await.unwrap();
            assert_eq!(*reply.bytes, large);
        })
        .await?;
        measure("calls with a deadline", one_call, async || {
            let reply = echo.echo(&request).timeout(Duration::from_secs(3600)).await.unwrap();
            assert_eq!(*reply.bytes, bytes);
        })
        .await?;
        measure("calls with metadata", one_call, async || {
            let reply = echo.echo(&request).metadata(&metadata).await.unwrap();
            assert_eq!(*reply.bytes, bytes);
            assert!(reply.metadata().is_empty());
        })
        .await?;
        measure("calls whose metadata is read", one_call, async || {
            let reply = echo.count(&request).metadata(&metadata).await.unwrap();
            assert_eq!(reply.id, 2);
        })
        .await?;
        measure("one-way calls", one_call, async || {
            echo.note(&request).await.unwrap();
        })
        .await?;
        let word = Word { bytes: [7; 64] };
        let mirror = Cell::new(Some(echo.mirror(&word).await.unwrap()));
        // More of them than there is credit for without any that is granted anew.
        for (what, count) in [("items one after the other", 1), ("items at once", DEPTH)] {
            measure(what, one_call, async || {
                let mut stream = mirror.take().unwrap();
                for _ in 0..count {
                    stream.send(&word).await.unwrap();
                }
                for _ in 0..count {
                    assert_eq!(stream.next().await.unwrap().unwrap().bytes, word.bytes);
                }
                mirror.set(Some(stream));
            })
            .await?;
        }
        measure("calls at once", one_call, async || {
            let call = || echo.echo(&request);
            at_once(std::array::from_fn::<_, DEPTH, _>(|_| call())).await;
        })
        .await
    };
    done.send(outcome.await).unwrap();
}

/// Looks at windows of what `run` does until enough of them were clean. An error where one of
/// those allocated, or where too few were.
async fn measure(what: &str, settle: impl AsyncFn(), run: impl AsyncFn()) -> Result<(), String> {
    for _ in 0..1000 {
        run().await;
    }
    let (mut clean, mut settled_at) = (0, 0);
    for _ in 0..TRIES {
        let before = (interruptions(), allocations());
        if before.0 != settled_at {
            // What has begun ends before the next call is answered; nothing else may begin.
            settle().await;
            settled_at = before.0;
            continue;
        }
        run().await;
        let allocated = allocations() - before.1;
        if interruptions() != before.0 {
            continue;
        }
        if allocated > 0 {
            return Err(format!("{what}: {allocated} after {clean} windows without"));
        }
        clean += 1;
        if clean == CLEAN {
            return Ok(());
        }
    }
    Err(format!("{what}: {clean} windows of {TRIES} were clean"))
}

/// Times that something ran which is no part of a call.
fn interruptions() -> u64 {
    let counters = ringcall::counters().unwrap();
    counters.parks + counters.reactor_turns + counters.heartbeats
}

fn allocations() -> usize {
    let stats = GLOBAL.stats();
    stats.allocations + stats.reallocations
}

/// Awaits calls that are in flight together, without a list of them on the heap.
async fn at_once<const N: usize>(mut calls: [Call<'_, Blob<'_>, Blob<'static>>; N]) {
    let mut replies: [Option<Response<Blob<'static>>>; N] = [const { None }; N];
    poll_fn(|cx| {
        for (call, reply) in calls.iter_mut().zip(&mut replies) {
            if reply.is_none()
                && let Poll::Ready(outcome) = Pin::new(call).poll(cx)
            {
                *reply = Some(outcome.unwrap());
            }
        }
        match replies.iter().all(Option::is_some) {
            true => Poll::Ready(()),
            false => Poll::Pending,
        }
    })
    .await;
    assert!(replies.iter().flatten().all(|reply| *reply.bytes == [7; 64]));
}

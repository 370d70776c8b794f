//! What an idle connection costs in memory, at both ends together.
//!
//! Both ends are ringcall, in this process, so that one counting allocator measures the two.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod support;

use std::{
    alloc::System,
    future::poll_fn,
    mem::replace,
    task::{Context as TaskContext, Poll},
    time::Duration,
};

use ringcall::{Key, Metadata, RunConfig, ShardConfig, prelude::*};
use stats_alloc::{INSTRUMENTED_SYSTEM, StatsAlloc};
use support::{
    server::{counters, serve},
    wait::{all, until_async, watched},
};

#[global_allocator]
static GLOBAL: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// Connections that are open at once: with both of their ends here, fewer than the files that a
/// process may have open by default.
const CONNECTIONS: usize = 450;

/// Bytes that each may take at each end, with its share of what the shards keep for all.
const BYTES_MAX: usize = 1024;

/// Calls that are in flight at once on each connection, where there was a burst.
const BURST: usize = 64;

/// Bytes that each may take at each end then: the protocol wants it to be known which call had a
/// slot last, for as long as the connection lives.
const BYTES_AFTER_BURST_MAX: usize = BYTES_MAX + 16 * BURST;

#[ringcall::message]
pub struct Note {
    pub number: u64,
    pub text: String,
}

#[ringcall::service]
pub trait Echo {
    #[rpc(timeout = "60s")]
    async fn echo(&self, cx: &Context, request: Request<'_, Note>) -> Result<Note, Status>;

    /// Lets other tasks run before it answers.
    #[rpc(timeout = "60s")]
    async fn slow_echo(&self, cx: &Context, request: Request<'_, Note>) -> Result<Note, Status>;

    async fn count(
        &self,
        cx: &Context,
        request: Request<'_, Note>,
        notes: Source<Note>,
        sums: Sink<'_, Note>,
    ) -> Result<Note, Status>;
}

struct Mirror;

impl Echo for Mirror {
    async fn echo(&self, _: &Context, request: Request<'_, Note>) -> Result<Note, Status> {
        request.to_owned()
    }

    async fn slow_echo(&self, _: &Context, request: Request<'_, Note>) -> Result<Note, Status> {
        let mut has_waited = false;
        let once = |cx: &mut TaskContext<'_>| {
            if replace(&mut has_waited, true) {
                return Poll::Ready(());
            }
            cx.waker().wake_by_ref();
            Poll::Pending
        };
        poll_fn(once).await;
        request.to_owned()
    }

    async fn count(
        &self,
        _: &Context,
        request: Request<'_, Note>,
        mut notes: Source<Note>,
        sums: Sink<'_, Note>,
    ) -> Result<Note, Status> {
        let mut number = 0;
        while let Some(note) = notes.next().await? {
            number += note.number.to_native();
            sums.send(&Note { number, text: String::new() }).await?;
        }
        request.to_owned()
    }
}

/// Bytes that are allocated now.
fn allocated() -> isize {
    let stats = GLOBAL.stats();
    stats.bytes_allocated as isize - stats.bytes_deallocated as isize
}

/// Bytes of each connection at each end, of so many that were allocated since.
fn each(before: isize) -> usize {
    (allocated() - before).max(0) as usize / (2 * CONNECTIONS)
}

fn note() -> Note {
    Note { number: 1, text: "idle".to_owned() }
}

/// One call, which the server answers at once.
async fn one_call(echo: &EchoClient) {
    let mut metadata = Metadata::new();
    metadata.insert(Key::TENANT, "acme").unwrap();
    echo.echo(&note()).metadata(&metadata).await.unwrap();
}

/// Calls at once, answered at once and later; a stream.
async fn burst(echo: &EchoClient) {
    let short = note();
    for reply in all((0..BURST).map(|_| echo.echo(&short))).await {
        reply.unwrap();
    }
    for reply in all((0..BURST).map(|_| echo.slow_echo(&short))).await {
        reply.unwrap();
    }
    let mut counting = echo.count(&short).await.unwrap();
    counting.send(&short).await.unwrap();
    assert_eq!(counting.next().await.unwrap().unwrap().number, 1);
    counting.end();
    counting.finish().await.unwrap();
}

// One test, since the allocator counts for the whole process.
#[test]
fn an_idle_connection_takes_less_than_a_kibibyte_at_each_end() {
    watched(|| {
        // So that what is looked at now and then is looked at soon.
        let config =
            ShardConfig::new().keepalive(Duration::from_millis(200), Duration::from_secs(60));
        let server = serve(config.clone(), || EchoServer::new(Mirror));
        let address = server.address();
        let run = RunConfig::new().shard(config).run(async move {
            // The first pays for what all share.
            let first = EchoClient::connect(address).await.unwrap();
            burst(&first).await;
            let mut clients = Vec::with_capacity(CONNECTIONS);
            let before = allocated();
            for _ in 0..CONNECTIONS {
                let client = EchoClient::connect(address).await.unwrap();
                one_call(&client).await;
                clients.push(client);
            }
            println!("an idle connection takes {} bytes at each end", each(before));
            assert!(each(before) <= BYTES_MAX, "{} bytes", each(before));
            for client in &clients {
                burst(client).await;
            }
            println!("after a burst it takes {} bytes", each(before));
            let is_small = || each(before) <= BYTES_AFTER_BURST_MAX;
            until_async("what a burst took was given back", is_small).await;
            println!("and {} bytes later", each(before));
            assert_eq!(counters(&server).connections_closed, 0);
        });
        run.unwrap();
    });
}

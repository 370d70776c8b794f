//! Servers and handles that come and go in a process that runs on tokio leave nothing behind.
//!
//! The only test of its process, as it counts all that there are.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod support;

use std::{pin::pin, time::Duration};

use ringcall::{HandleConfig, ShardConfig, prelude::*};
use support::{
    belongings::Belongings,
    echo::{Blob, EchoSendClient, EchoServer, Service},
    event::Noted,
    server::usable_cores,
    wait::watched_for,
};
use tokio::runtime::Builder;

/// Buffers of a length and number that nothing else has.
const BUFFERS: (u16, u32) = (16, 12 * 4096);

fn config() -> ShardConfig {
    ShardConfig::new().receive_buffers(BUFFERS.0, BUFFERS.1)
}

/// A server and a handle come and go on a tokio runtime; the rounds differ in how.
async fn live(round: usize) {
    let cores: Vec<_> = usable_cores().into_iter().cycle().take(2).collect();
    let server = Server::builder().cores(cores).shard(config());
    let server = server.serve("127.0.0.1:0", |_| EchoServer::new(Service::default())).unwrap();
    let handle = HandleConfig::new().shard(config()).start().unwrap();
    let address = server.address();
    let echo = EchoSendClient::connect(&handle, address).await.unwrap();
    let kept = [100, 100_000].map(|len| echo.grow(&Blob::new(len, 0)));
    let mut replies = Vec::new();
    for call in kept {
        replies.push(tokio::spawn(call).await.unwrap().unwrap());
    }
    let mut held = pin!(echo.hold(&Blob::new(1, 10)));
    Noted::new().begin(held.as_mut());
    // Given up while the shard connects, or just after.
    let mut connecting = Box::pin(EchoSendClient::connect(&handle, address));
    drop(Noted::new().poll(connecting.as_mut()));
    drop(connecting);
    match round % 4 {
        // Everything is dropped, in this order or the other.
        0 => drop((server, handle)),
        1 => drop((handle, server)),
        2 => {
            handle.stop();
            assert!(held.await.is_err());
            drop(handle);
            // As a runtime's threads are not to be blocked.
            let joined = tokio::task::spawn_blocking(move || {
                server.stop();
                server.join()
            });
            joined.await.unwrap().unwrap();
        }
        _ => {
            server.stop();
            server.join().unwrap();
            assert!(held.await.is_err());
            handle.join().unwrap();
        }
    }
    assert_eq!(replies[0].bytes.len() + replies[1].bytes.len(), 100_100);
}

#[test]
fn coming_and_going_100_times_leaves_nothing_behind() {
    watched_for(Duration::from_secs(300), || {
        let runtime = Builder::new_multi_thread()
            .worker_threads(2)
            .thread_keep_alive(Duration::from_secs(3600))
            .enable_all()
            .build()
            .unwrap();
        // Its thread that blocks is kept.
        runtime.block_on(async { tokio::task::spawn_blocking(|| ()).await }).unwrap();
        let before = Belongings::now(BUFFERS);
        for round in 0..100 {
            runtime.block_on(live(round));
        }
        before.are_all_there_is(BUFFERS);
    });
}

//! ringcall in a process whose executor is tokio: calls from its tasks, and servers beside it.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod support;

use std::{net::SocketAddr, time::Duration};

use ringcall::{Handle, ShardConfig, prelude::*};
use support::{
    echo::{Blob, EchoSendClient, EchoServer, Service, digest_of},
    server::{counters, usable_cores},
    wait::{until, watched},
};
use tokio::runtime::{Builder, Runtime};

fn threads(count: usize) -> Runtime {
    Builder::new_multi_thread().worker_threads(count).enable_all().build().unwrap()
}

/// Makes calls, one after the other, as one task.
async fn call(echo: EchoSendClient, task: u64, calls: u64) {
    for number in 0..calls {
        let blob = Blob::new(task << 32 | number, (number % 100) as usize);
        let reply = echo.digest(&blob).await.unwrap();
        let expected = digest_of(blob.id, &blob.bytes);
        assert_eq!((u64::from(reply.id), u64::from(reply.hash)), (blob.id, expected.hash));
    }
}

async fn call_from_tasks(address: SocketAddr, tasks: u64, calls: u64) {
    let handle = Handle::start().unwrap();
    let echo = EchoSendClient::connect(&handle, address).await.unwrap();
    let tasks: Vec<_> =
        (0..tasks).map(|task| tokio::spawn(call(echo.clone(), task, calls))).collect();
    for task in tasks {
        task.await.unwrap();
    }
}

#[test]
fn tasks_of_many_threads_call_through_one_handle() {
    watched(|| {
        let server = support::echo::serve(ShardConfig::new());
        threads(4).block_on(call_from_tasks(server.address(), 64, 100));
        assert_eq!(counters(&server).calls_inline, 6400);
    });
}

#[test]
fn tasks_of_one_thread_call_through_a_handle() {
    watched(|| {
        let server = support::echo::serve(ShardConfig::new());
        let runtime = Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(call_from_tasks(server.address(), 64, 20));
    });
}

#[test]
fn a_time_out_of_tokio_drops_the_call_and_its_handler() {
    watched(|| {
        let server = support::echo::serve(ShardConfig::new());
        let handle = Handle::start().unwrap();
        threads(2).block_on(async {
            let echo = EchoSendClient::connect(&handle, server.address()).await.unwrap();
            let held = echo.hold(&Blob::new(1, 1));
            assert!(tokio::time::timeout(Duration::from_millis(30), held).await.is_err());
            call(echo, 1, 10).await;
        });
        until("no handler waits", || {
            let counters = counters(&server);
            counters.handlers_stopped == counters.calls_spawned
        });
    });
}

#[test]
fn a_task_that_is_aborted_gives_its_call_up() {
    watched(|| {
        let server = support::echo::serve(ShardConfig::new());
        let handle = Handle::start().unwrap();
        threads(2).block_on(async {
            let echo = EchoSendClient::connect(&handle, server.address()).await.unwrap();
            let task = tokio::spawn(echo.hold(&Blob::new(1, 1)));
            while counters(&server).calls_spawned == 0 {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            task.abort();
            assert!(task.await.err().unwrap().is_cancelled());
            while counters(&server).handlers_stopped == 0 {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            call(echo, 1, 10).await;
        });
    });
}

#[test]
fn servers_start_and_stop_within_a_runtime_beside_each_other() {
    watched(|| {
        threads(2).block_on(async {
            let handle = Handle::start().unwrap();
            let mut running = Vec::new();
            for _ in 0..4 {
                let cores: Vec<_> = usable_cores().into_iter().cycle().take(2).collect();
                let server = Server::builder().cores(cores);
                let server =
                    server.serve("127.0.0.1:0", |_| EchoServer::new(Service::default())).unwrap();
                let echo = EchoSendClient::connect(&handle, server.address()).await.unwrap();
                running.push((server, echo));
            }
            while let Some((server, echo)) = running.pop() {
                for (_, other) in &running {
                    tokio::spawn(call(other.clone(), 1, 20)).await.unwrap();
                }
                let held = tokio::spawn(echo.hold(&Blob::new(7, 7)));
                while counters(&server).calls_spawned == 0 {
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
                server.stop();
                // As a runtime's threads are not to be blocked.
                tokio::task::spawn_blocking(|| server.join()).await.unwrap().unwrap();
                assert_eq!(held.await.unwrap().err().unwrap().code(), Code::Unavailable);
                assert!(echo.digest(&Blob::new(1, 1)).await.is_err());
            }
        });
    });
}

//! Starting and stopping leaves no descriptor, no thread and no mapping behind.
//!
//! The only test of its process, as it counts all that there are.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod support;

use std::{
    cell::Cell, future::pending, panic::resume_unwind, pin::pin, sync::Arc, thread, time::Duration,
};

use ringcall::{RunConfig, Server, ServerHandle, ShardConfig, prelude::*};
use support::{
    belongings::Belongings,
    event::Noted,
    raw::Peer,
    server::usable_cores,
    wait::{until_async, watched_for},
};

#[ringcall::message]
pub struct Number {
    pub number: u64,
    pub bytes: Vec<u8>,
}

#[ringcall::service]
pub trait Adder {
    /// Adds one, at once.
    async fn add(&self, cx: &Context, request: Request<'_, Number>) -> Result<Number, Status>;
    /// Adds one, after others had their turn.
    async fn wait(&self, cx: &Context, request: Request<'_, Number>) -> Result<Number, Status>;
    /// Never replies.
    async fn never(&self, cx: &Context, request: Request<'_, Number>) -> Result<Number, Status>;
}

/// It counts the handlers that wait, and owns what the factory gave it.
struct Service {
    waiting: Cell<u64>,
    _alive: Arc<()>,
}

impl Adder for Service {
    async fn add(&self, _: &Context, request: Request<'_, Number>) -> Result<Number, Status> {
        Ok(Number { number: u64::from(request.number) + 1, bytes: request.bytes.to_vec() })
    }

    async fn wait(&self, cx: &Context, request: Request<'_, Number>) -> Result<Number, Status> {
        ringcall::yield_now().await;
        let mut reply = self.add(cx, request).await?;
        reply.number += self.waiting.get() << 32;
        Ok(reply)
    }

    async fn never(&self, _: &Context, request: Request<'_, Number>) -> Result<Number, Status> {
        // Held by the handler, and by nobody else.
        let _kept = request.retain()?;
        self.waiting.set(self.waiting.get() + 1);
        pending().await
    }
}

fn number(number: u64, len: usize) -> Number {
    Number { number, bytes: vec![number as u8; len] }
}

/// Buffers of a length and number that nothing else has.
const BUFFERS: (u16, u32) = (16, 12 * 4096);

fn config() -> ShardConfig {
    ShardConfig::new().receive_buffers(BUFFERS.0, BUFFERS.1)
}

fn serve(alive: &Arc<()>) -> ServerHandle {
    let alive = Arc::clone(alive);
    let cores: Vec<_> = usable_cores().into_iter().cycle().take(2).collect();
    let server = Server::builder().cores(cores).shard(config());
    let server = server.serve("127.0.0.1:0", move |_| {
        // One of the service's own tasks, which never ends.
        let theirs = Arc::clone(&alive);
        ringcall::spawn(async move {
            let _alive = theirs;
            pending().await
        });
        AdderServer::new(Service { waiting: Cell::new(0), _alive: Arc::clone(&alive) })
    });
    server.unwrap()
}

fn run<T, F: Future<Output = T>>(future: F) -> T {
    RunConfig::new().shard(config()).run(future).unwrap()
}

/// Calls of all kinds, some of them never answered; what is returned outlives the shard.
async fn call(server: &ServerHandle) -> (Response<Number>, AdderClient) {
    let adder = AdderClient::connect(server.address()).await.unwrap();
    let other = AdderClient::connect(server.address()).await.unwrap();
    let background = other.clone();
    ringcall::spawn(async move {
        let outcome = background.never(&number(3, 30)).await;
        assert!(outcome.is_err(), "it was answered");
    });
    let request = number(4, 40);
    let mut dropped = pin!(other.never(&request));
    assert!(Noted::new().poll(dropped.as_mut()).is_pending());
    assert_eq!(adder.add(&number(1, 100)).await.unwrap().number, 2);
    assert_eq!(other.wait(&number(1, 1000)).await.unwrap().bytes.len(), 1000);
    // Longer than a receive buffer.
    let response = adder.add(&number(1, 200_000)).await.unwrap();
    assert_eq!(response.bytes.len(), 200_000);
    (response, adder)
}

/// A server and a client come and go; the rounds differ in how.
fn live(round: usize, alive: &Arc<()>) {
    let server = serve(alive);
    let silent = Peer::open(server.address());
    let outlives = run(call(&server));
    drop(silent);
    match round % 5 {
        0 => drop(server),
        1 => {
            server.stop();
            server.join().unwrap();
        }
        2 => {
            // The client is there when the server goes.
            run(async {
                let kept = call(&server).await;
                let stopping = thread::spawn(move || drop(server));
                until_async("the server has gone", || stopping.is_finished()).await;
                stopping.join().unwrap();
                drop(kept);
            });
        }
        3 => {
            drop(server);
            let alive = Arc::clone(alive);
            let server = Server::builder().cores([usable_cores()[0]]).shard(config());
            let server = server.serve("127.0.0.1:0", move |_| -> AdderServer<Service> {
                let _alive = Arc::clone(&alive);
                resume_unwind(Box::new("on purpose"))
            });
            assert!(server.is_err());
        }
        _ => {
            let panics = thread::scope(|scope| {
                let running = scope.spawn(|| {
                    run(async {
                        let _kept = call(&server).await;
                        resume_unwind(Box::new("on purpose"))
                    })
                });
                running.join()
            });
            assert!(panics.is_err());
            drop(server);
        }
    }
    drop(outlives);
}

#[test]
fn starting_and_stopping_200_times_leaves_nothing_behind() {
    watched_for(Duration::from_secs(300), || {
        let before = Belongings::now(BUFFERS);
        let alive = Arc::new(());
        for round in 0..200 {
            live(round, &alive);
        }
        assert_eq!(Arc::strong_count(&alive), 1, "services and their tasks are dropped");
        before.are_all_there_is(BUFFERS);
    });
}

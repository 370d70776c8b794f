//! What a server measures of itself: calls by method and outcome, times, batches, slow calls.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod support;

use std::time::Duration;

use ringcall::{
    Cause, Code, OTHER_METHODS, ServerHandle, ShardConfig, ShardMetrics, SlowCall, prelude::*,
};
use support::{
    raw::{Peer, call, request},
    server::serve,
    station::run,
    wait::{all, until, until_async, watched},
};

#[ringcall::message]
pub struct Number {
    pub number: u64,
}

#[ringcall::service]
pub trait Desk {
    async fn quick(&self, cx: &Context, request: Request<'_, Number>) -> Result<Number, Status>;
    /// Keeps the thread for so many microseconds.
    async fn block(&self, cx: &Context, request: Request<'_, Number>) -> Result<Number, Status>;
    /// Waits for so many microseconds.
    async fn wait(&self, cx: &Context, request: Request<'_, Number>) -> Result<Number, Status>;
    /// Fails with the code of this number.
    async fn fail(&self, cx: &Context, request: Request<'_, Number>) -> Result<Number, Status>;
    async fn panic(&self, cx: &Context, request: Request<'_, Number>) -> Result<Number, Status>;
    #[rpc(oneway)]
    async fn note(&self, cx: &Context, request: Request<'_, Number>);
    async fn never_called(
        &self,
        cx: &Context,
        request: Request<'_, Number>,
    ) -> Result<Number, Status>;
}

struct Office;

fn reply(request: Request<'_, Number>) -> Result<Number, Status> {
    Ok(Number { number: request.number.into() })
}

impl Desk for Office {
    async fn quick(&self, _: &Context, request: Request<'_, Number>) -> Result<Number, Status> {
        reply(request)
    }

    async fn block(&self, _: &Context, request: Request<'_, Number>) -> Result<Number, Status> {
        std::thread::sleep(Duration::from_micros(request.number.into()));
        reply(request)
    }

    async fn wait(&self, _: &Context, request: Request<'_, Number>) -> Result<Number, Status> {
        ringcall::sleep(Duration::from_micros(request.number.into())).await;
        reply(request)
    }

    async fn fail(&self, _: &Context, request: Request<'_, Number>) -> Result<Number, Status> {
        let code = if request.number == 5 { Code::NotFound } else { Code::Aborted };
        Err(Status::new(code, "as asked for"))
    }

    async fn panic(&self, _: &Context, _: Request<'_, Number>) -> Result<Number, Status> {
        panic!("as asked for")
    }

    async fn note(&self, _: &Context, _: Request<'_, Number>) {}

    async fn never_called(&self, _: &Context, r: Request<'_, Number>) -> Result<Number, Status> {
        reply(r)
    }
}

fn number(number: u64) -> Number {
    Number { number }
}

fn office(config: ShardConfig) -> ServerHandle {
    serve(config, || DeskServer::new(Office))
}

async fn client(server: &ServerHandle) -> DeskClient {
    DeskClient::connect(server.address()).await.unwrap()
}

fn ended(metrics: &ShardMetrics, method: &str, code: Option<Code>) -> u64 {
    let mut methods = metrics.methods.iter();
    methods.find(|known| known.name == method).map_or(0, |known| known.ended_with(code))
}

/// The slow calls of a method, once there is one.
fn slow_of(server: &ServerHandle, method: &str) -> Vec<SlowCall> {
    let mut found = Vec::new();
    until("a slow call is kept", || {
        let slow = server.metrics().merged().slow;
        found = slow.into_iter().filter(|call| call.method == method).collect();
        !found.is_empty()
    });
    found
}

/// That is the cause, unless this machine was so busy that something else took longer.
fn assert_cause(call: &SlowCall, cause: Cause) {
    let was_disturbed = call.reply.max(call.away) > call.queue + call.service;
    assert!(call.cause == cause || was_disturbed, "{call:?}");
}

#[test]
fn every_call_is_counted_by_its_method_and_outcome() {
    watched(|| {
        // The server's time for a call ends before the caller's.
        let most = Duration::from_millis(5);
        let server = office(ShardConfig::new().deadlines(Duration::ZERO, most));
        run(async {
            let desk = client(&server).await;
            for _ in 0..20 {
                desk.quick(&number(1)).await.unwrap();
            }
            for code in [5, 5, 5, 10] {
                desk.fail(&number(code)).await.err().unwrap();
            }
            desk.wait(&number(10)).await.unwrap();
            desk.panic(&number(1)).await.err().unwrap();
            let late = desk.wait(&number(60_000_000)).timeout(Duration::from_secs(50)).await;
            assert_eq!(late.err().unwrap().code(), Code::DeadlineExceeded);
            desk.note(&number(1)).await.unwrap();
            until_async("they have ended", || server.metrics().merged().calls() >= 28).await;
        });
        let metrics = server.metrics().merged();
        assert_eq!(ended(&metrics, "Desk.quick", None), 20);
        assert_eq!(ended(&metrics, "Desk.fail", None), 0);
        assert_eq!(ended(&metrics, "Desk.fail", Some(Code::NotFound)), 3);
        assert_eq!(ended(&metrics, "Desk.fail", Some(Code::Aborted)), 1);
        assert_eq!(ended(&metrics, "Desk.wait", None), 1);
        assert_eq!(ended(&metrics, "Desk.wait", Some(Code::DeadlineExceeded)), 1);
        assert_eq!(ended(&metrics, "Desk.panic", Some(Code::Internal)), 1);
        assert_eq!(ended(&metrics, "Desk.note", None), 1);
        assert_eq!(ended(&metrics, "Desk.never_called", None), 0);
        assert_eq!(metrics.calls(), 28);
        let fail = metrics.methods.iter().find(|method| method.name == "Desk.fail").unwrap();
        let outcomes: Vec<_> = fail.outcomes().collect();
        assert_eq!(outcomes, [("NOT_FOUND", 3), ("ABORTED", 1)]);
        assert_eq!((fail.calls(), fail.errors()), (4, 4));
    });
}

#[test]
fn a_call_that_was_given_up_counts_as_cancelled() {
    watched(|| {
        let server = office(ShardConfig::new());
        run(async {
            let desk = client(&server).await;
            let long = number(60_000_000);
            let mut call = Box::pin(desk.wait(&long));
            std::future::poll_fn(|cx| {
                assert!(call.as_mut().poll(cx).is_pending());
                std::task::Poll::Ready(())
            })
            .await;
            until_async("it runs", || server.counters()[0].calls_spawned == 1).await;
            drop(call);
            until_async("it has ended", || server.metrics().merged().calls() == 1).await;
        });
        let metrics = server.metrics().merged();
        assert_eq!(ended(&metrics, "Desk.wait", Some(Code::Cancelled)), 1);
    });
}

#[test]
fn a_method_that_is_not_there_counts_among_others() {
    watched(|| {
        let server = office(ShardConfig::new());
        let mut peer = Peer::open(server.address());
        peer.send(&request(call(0, 1), 0x1234_5678, &[]));
        peer.frame();
        until("it has ended", || server.metrics().merged().calls() == 1);
        let metrics = server.metrics().merged();
        assert_eq!(ended(&metrics, OTHER_METHODS, Some(Code::Unimplemented)), 1);
    });
}

#[test]
fn few_calls_are_all_measured() {
    watched(|| {
        let server = office(ShardConfig::new());
        run(async {
            let desk = client(&server).await;
            for _ in 0..50 {
                desk.quick(&number(1)).await.unwrap();
            }
            desk.wait(&number(2000)).await.unwrap();
            assert_eq!(server.metrics().merged().connections_open, 1);
            // What was sent before was seen to be.
            desk.quick(&number(1)).await.unwrap();
            until_async("all was seen", || server.metrics().merged().reply_ns.count() >= 50).await;
        });
        let metrics = server.metrics().merged();
        assert_eq!(metrics.queue_ns.count(), 52);
        assert_eq!(metrics.service_ns.count(), 52);
        assert!(metrics.service_ns.max() >= 2_000_000);
        assert!(metrics.turn_ns.count() > 0);
        assert_eq!(metrics.calls_per_turn.sum(), 52);
        assert_eq!(metrics.calls_per_send.sum(), 52);
        let quick = metrics.methods.iter().find(|method| method.name == "Desk.quick").unwrap();
        assert_eq!(quick.service_ns.count(), 51);
        assert_eq!(metrics.buffers, 1024);
        assert!(metrics.buffers_free > 0);
    });
}

#[test]
fn a_shard_that_does_not_measure_counts_all_the_same() {
    watched(|| {
        let server = office(ShardConfig::new().metrics(false));
        run(async {
            let desk = client(&server).await;
            for _ in 0..10 {
                desk.block(&number(2000)).await.unwrap();
                desk.wait(&number(10)).await.unwrap();
            }
        });
        let metrics = server.metrics().merged();
        assert_eq!(metrics.counters.calls_inline + metrics.counters.calls_spawned, 20);
        assert_eq!(metrics.service_ns.count() + metrics.turn_ns.count(), 0);
        assert_eq!((metrics.slow_seen, metrics.methods.len()), (0, 0));
    });
}

#[test]
fn a_handler_that_keeps_the_thread_is_a_slow_call_and_so_is_what_queued_behind_it() {
    watched(|| {
        let server = office(ShardConfig::new().slow_call(Duration::from_millis(3)));
        run(async {
            let desk = client(&server).await;
            // Sent together, so that they come together.
            let (long, short) = (number(5000), number(1));
            let replies = all([desk.block(&long), desk.quick(&short)]).await;
            assert!(replies.iter().all(Result::is_ok));
        });
        let long = slow_of(&server, "Desk.block")[0];
        assert_cause(&long, Cause::Handler);
        assert!(long.service >= Duration::from_millis(5));
        let behind = slow_of(&server, "Desk.quick")[0];
        assert_cause(&behind, Cause::Behind("Desk.block"));
        assert!(behind.queue >= Duration::from_millis(5));
        assert_eq!(behind.batch, 2);
        assert!(behind.turn >= Duration::from_millis(5));
        assert_eq!(behind.calls, 1);
    });
}

#[test]
fn a_handler_that_waits_is_a_slow_call_because_of_what_it_awaits() {
    watched(|| {
        let server = office(ShardConfig::new().slow_call(Duration::from_millis(3)));
        run(async { client(&server).await.wait(&number(5000)).await.map(drop).unwrap() });
        let slow = slow_of(&server, "Desk.wait")[0];
        assert_cause(&slow, Cause::Awaited);
        assert!(slow.service >= Duration::from_millis(5));
        assert!(slow.total() >= slow.service);
    });
}

#[test]
fn only_the_last_slow_calls_are_kept() {
    watched(|| {
        let server = office(ShardConfig::new().slow_call(Duration::ZERO));
        run(async {
            let desk = client(&server).await;
            for _ in 0..2 * ringcall::SLOW_CALLS_KEPT {
                desk.quick(&number(1)).await.unwrap();
            }
        });
        let metrics = server.metrics().merged();
        assert_eq!(metrics.slow.len(), ringcall::SLOW_CALLS_KEPT);
        assert!(metrics.slow_seen >= 2 * ringcall::SLOW_CALLS_KEPT as u64);
        assert!(metrics.slow.is_sorted_by_key(|call| call.at));
    });
}

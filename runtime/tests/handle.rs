//! Calls through a handle, from threads that know nothing of ringcall's executor.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod support;

use std::{
    cell::{Cell, RefCell},
    future::pending,
    pin::pin,
    rc::Rc,
    sync::Arc,
    task::{Context as TaskContext, Poll, Wake, Waker},
    thread,
    time::Duration,
};

use ringcall::{
    Handle, HandleConfig, Metadata, RunConfig, ShardConfig, ShardError, handle, prelude::*,
};
use support::{
    echo::{Blob, EchoSendClient, Nothing, digest_of},
    event::Noted,
    server::{counters, serve as serve_one},
    wait::{all, block_on, until, watched},
};

#[ringcall::message]
pub struct Line<'a> {
    pub text: &'a str,
}

#[ringcall::message]
pub struct Lines {
    pub lines: Vec<String>,
}

#[ringcall::service]
pub trait Log {
    #[rpc(oneway)]
    async fn write(&self, cx: &Context, request: Request<'_, Line<'_>>);
    /// Replies with what was written, and beside it with the metadata of the request.
    async fn read(&self, cx: &Context, request: Request<'_, Line<'_>>) -> Result<Lines, Status>;
    /// Never replies.
    #[rpc(timeout = "60s")]
    async fn wait(&self, cx: &Context, request: Request<'_, Line<'_>>) -> Result<Lines, Status>;
}

#[derive(Clone, Default)]
struct Paper(Rc<RefCell<Vec<String>>>);

impl Log for Paper {
    async fn write(&self, _: &Context, request: Request<'_, Line<'_>>) {
        self.0.borrow_mut().push(request.text.to_string());
    }

    async fn read(&self, cx: &Context, _: Request<'_, Line<'_>>) -> Result<Lines, Status> {
        cx.set_reply_metadata(cx.metadata().to_owned());
        Ok(Lines { lines: self.0.borrow().clone() })
    }

    async fn wait(&self, _: &Context, _: Request<'_, Line<'_>>) -> Result<Lines, Status> {
        pending().await
    }
}

/// A server, a handle, and a client of the one through the other.
struct Set {
    handle: Handle,
    echo: EchoSendClient,
    server: ServerHandle,
}

impl Set {
    fn start() -> Self {
        Self::with(HandleConfig::new(), ShardConfig::new())
    }

    fn with(handle: HandleConfig, server: ShardConfig) -> Self {
        let server = support::echo::serve(server);
        let handle = handle.start().unwrap();
        let echo = block_on(EchoSendClient::connect(&handle, server.address())).unwrap();
        Self { handle, echo, server }
    }

    /// Waits until so many calls have come to the server and wait there.
    fn until_held(&self, calls: u64) {
        until("calls are held", || counters(&self.server).calls_spawned == calls);
    }

    fn release(&self) {
        block_on(self.echo.release(&Nothing)).unwrap();
    }
}

#[track_caller]
fn assert_status<T>(outcome: Result<T, Status>, code: Code, not_executed: bool) {
    let status = outcome.err().unwrap();
    assert_eq!((status.code(), status.is_not_executed()), (code, not_executed), "{status}");
}

#[test]
fn a_call_from_any_thread_gets_its_reply() {
    watched(|| {
        let set = Set::start();
        let blob = Blob::new(7, 100);
        let reply = block_on(set.echo.echo(&blob)).unwrap();
        assert_eq!((u64::from(reply.id), reply.bytes.as_ref()), (7, &blob.bytes[..]));
        assert!(reply.metadata().is_empty());
        let echo = set.echo.clone();
        let replies = thread::spawn(move || {
            block_on(all((0..50).map(|id| echo.digest(&Blob::new(id, id as usize)))))
        });
        for (id, reply) in (0..).zip(replies.join().unwrap()) {
            let expected = digest_of(id, &Blob::new(id, id as usize).bytes);
            let reply = reply.unwrap();
            assert_eq!((u64::from(reply.id), u64::from(reply.hash)), (id, expected.hash));
        }
        let counters = set.handle.counters();
        assert_eq!((counters.requests_copied_in, counters.replies_copied_out), (51, 51));
        assert_eq!((counters.calls_made, counters.replies_handed_over), (51, 0));
        set.handle.join().unwrap();
    });
}

#[test]
fn a_long_reply_is_handed_over_in_its_buffer() {
    watched(|| {
        let set = Set::start();
        for len in [10_000, 70_000, 1_000_000, 5_000_000] {
            let reply = block_on(set.echo.grow(&Blob::new(len, 0))).unwrap();
            assert_eq!(reply.bytes.as_slice(), Blob::new(len, len as usize).bytes);
        }
        let counters = set.handle.counters();
        assert_eq!((counters.replies_copied_out, counters.replies_handed_over), (1, 3));
    });
}

#[test]
fn a_reply_outlives_the_handle_and_its_shard() {
    watched(|| {
        let set = Set::start();
        let short = block_on(set.echo.grow(&Blob::new(100, 0))).unwrap();
        let long = block_on(set.echo.grow(&Blob::new(100_000, 0))).unwrap();
        set.handle.join().unwrap();
        drop(set);
        let (short, long) = thread::spawn(move || (short, long)).join().unwrap();
        assert_eq!(short.bytes.as_slice(), Blob::new(100, 100).bytes);
        assert_eq!(long.bytes.as_slice(), Blob::new(100_000, 100_000).bytes);
    });
}

#[test]
fn one_way_calls_metadata_and_server_times_work() {
    watched(|| {
        let server = serve_one(ShardConfig::new(), || LogServer::new(Paper::default()));
        let handle = Handle::start().unwrap();
        let log = block_on(LogSendClient::connect(&handle, server.address())).unwrap();
        for number in 0..10 {
            // What is borrowed is gone before the call is made.
            let call = {
                let text = format!("line {number}");
                log.write(&Line { text: &text })
            };
            block_on(call).unwrap();
        }
        let mut metadata = Metadata::new();
        metadata.insert_named("basket", b"7").unwrap();
        let nothing = Line { text: "" };
        let calls = [
            log.read(&nothing).metadata(&metadata).with_server_times(),
            log.read(&nothing).with_server_times().metadata(&metadata),
            log.read(&nothing).with_server_times(),
        ];
        for (number, reply) in block_on(all(calls)).into_iter().enumerate() {
            let reply = reply.unwrap();
            let lines = reply.to_owned().unwrap().lines;
            assert_eq!(lines, (0..10).map(|n| format!("line {n}")).collect::<Vec<_>>());
            assert!(reply.server_times().is_some());
            let basket = (number < 2).then_some(&b"7"[..]);
            assert_eq!(reply.metadata().get_named("basket"), basket);
        }
        assert_eq!(handle.counters().one_ways_made, 10);
    });
}

#[test]
fn a_call_that_is_dropped_is_given_up_at_the_server() {
    watched(|| {
        let set = Set::start();
        {
            let mut call = pin!(set.echo.hold(&Blob::new(1, 0)));
            Noted::new().begin(call.as_mut());
            set.until_held(1);
        }
        until("the handler is dropped", || counters(&set.server).handlers_stopped == 1);
        // One that is dropped at once, before the shard has seen it.
        for _ in 0..100 {
            let mut call = pin!(set.echo.hold(&Blob::new(1, 0)));
            Noted::new().begin(call.as_mut());
        }
        // And one that has its outcome already.
        let noted = Noted::new();
        let mut call = Box::pin(set.echo.digest(&Blob::new(2, 0)));
        noted.begin(call.as_mut());
        until("it has its reply", || noted.take());
        drop(call);
        block_on(set.echo.digest(&Blob::new(3, 10))).unwrap();
        until("every handler is dropped", || {
            let counters = counters(&set.server);
            counters.handlers_stopped == counters.calls_spawned
        });
    });
}

#[test]
fn a_deadline_ends_a_call() {
    watched(|| {
        let set = Set::start();
        // On a machine that is busy it may be over before the call is made.
        let call = set.echo.hold(&Blob::new(1, 0)).timeout(Duration::from_millis(20));
        assert_eq!(block_on(call).err().unwrap().code(), Code::DeadlineExceeded);
        let config = handle::ClientConfig::new().call_timeout(Duration::from_millis(20));
        let connect = EchoSendClient::with(&set.handle, &config, set.server.address());
        let echo = block_on(connect).unwrap();
        let outcome = block_on(echo.hold(&Blob::new(1, 0)));
        assert_eq!(outcome.err().unwrap().code(), Code::DeadlineExceeded);
        let held = counters(&set.server).calls_spawned;
        let call = echo.hold(&Blob::new(1, 0)).timeout(Duration::from_micros(0));
        let mut call = pin!(call);
        let noted = Noted::new();
        noted.begin(call.as_mut());
        set.until_held(held + 1);
        set.release();
        assert_eq!(block_on(call).unwrap().id, 1, "zero is for ever");
    });
}

#[test]
fn calls_in_flight_fail_when_the_server_stops() {
    watched(|| {
        let set = Set::start();
        let Set { handle, echo, server } = set;
        let held: Vec<_> = (0..20).map(|id| echo.hold(&Blob::new(id, 0))).collect();
        let waits = thread::spawn(move || block_on(all(held)));
        until("calls are held", || counters(&server).calls_spawned == 20);
        server.stop();
        for outcome in waits.join().unwrap() {
            assert_status(outcome, Code::Unavailable, false);
        }
        server.join().unwrap();
        // Whether the connection is known to be lost, or is found out to be.
        let outcome = block_on(echo.digest(&Blob::new(1, 1)));
        assert_eq!(outcome.err().unwrap().code(), Code::Unavailable);
        assert_status(block_on(echo.digest(&Blob::new(1, 1))), Code::Unavailable, true);
        drop(handle);
    });
}

#[test]
fn calls_go_on_when_the_handle_is_dropped_and_fail_when_it_is_stopped() {
    watched(|| {
        let Set { handle, echo, server } = Set::start();
        drop(handle);
        block_on(echo.digest(&Blob::new(1, 1))).unwrap();
        let handle = echo.client().handle();
        let held: Vec<_> = (0..20).map(|id| echo.hold(&Blob::new(id, 0))).collect();
        let waits = thread::spawn(move || block_on(all(held)));
        until("calls are held", || counters(&server).calls_spawned == 20);
        handle.stop();
        for outcome in waits.join().unwrap() {
            assert_status(outcome, Code::Unavailable, false);
        }
        handle.join().unwrap();
        handle.join().unwrap();
        assert_eq!(
            block_on(echo.digest(&Blob::new(1, 1))).err().unwrap().code(),
            Code::Unavailable
        );
        let refused = block_on(EchoSendClient::connect(&handle, server.address()));
        let error = refused.err().unwrap();
        assert_eq!(error.to_string(), "the handle's shard has ended; start another handle");
    });
}

#[test]
fn a_call_that_finds_no_room_waits_for_it() {
    watched(|| {
        let set = Set::with(HandleConfig::new().calls_max(2), ShardConfig::new());
        let held = [set.echo.hold(&Blob::new(0, 0)), set.echo.hold(&Blob::new(1, 0))];
        let waits = thread::spawn(move || block_on(all(held)));
        set.until_held(2);
        let (first, second, dropped) = (Noted::new(), Noted::new(), Noted::new());
        let mut call = Box::pin(set.echo.digest(&Blob::new(2, 2)));
        first.begin(call.as_mut());
        let mut gone = Box::pin(set.echo.digest(&Blob::new(3, 3)));
        dropped.begin(gone.as_mut());
        let mut last = Box::pin(set.echo.digest(&Blob::new(4, 4)));
        second.begin(last.as_mut());
        let late = set.echo.digest(&Blob::new(5, 5)).timeout(Duration::from_millis(10));
        assert_status(block_on(late), Code::DeadlineExceeded, true);
        drop(gone);
        assert_eq!(counters(&set.server).calls_inline, 0, "none of them was made");
        assert!(!first.take() && !second.take());
        // By another client, as there is no room for it on this handle.
        let address = set.server.address();
        let other = ringcall::run(async {
            let echo = support::echo::EchoClient::connect(address).await.unwrap();
            echo.release(&Nothing).await.unwrap();
        });
        other.unwrap();
        for outcome in waits.join().unwrap() {
            outcome.unwrap();
        }
        assert_eq!(block_on(call).unwrap().id, 2);
        assert_eq!(block_on(last).unwrap().id, 4);
    });
}

#[test]
fn a_call_waits_until_its_connection_has_room() {
    watched(|| {
        let set = Set::with(HandleConfig::new(), ShardConfig::new().calls_in_flight_max(2));
        let held = [set.echo.hold(&Blob::new(0, 0)), set.echo.hold(&Blob::new(1, 0))];
        let waits = thread::spawn(move || block_on(all(held)));
        set.until_held(2);
        let noted = Noted::new();
        let mut calls: Vec<_> =
            (0..10).map(|id| Box::pin(set.echo.digest(&Blob::new(id, 10)))).collect();
        calls.iter_mut().for_each(|call| noted.begin(call.as_mut()));
        let late = set.echo.digest(&Blob::new(5, 5)).timeout(Duration::from_millis(10));
        assert_status(block_on(late), Code::DeadlineExceeded, true);
        // Two that wait are dropped, the first among them.
        drop((calls.remove(5), calls.remove(0)));
        assert_eq!(counters(&set.server).calls_inline, 0, "none of them was made");
        let address = set.server.address();
        let other = ringcall::run(async {
            let echo = support::echo::EchoClient::connect(address).await.unwrap();
            echo.release(&Nothing).await.unwrap();
        });
        other.unwrap();
        for outcome in waits.join().unwrap() {
            outcome.unwrap();
        }
        let ids: Vec<u64> =
            block_on(all(calls)).into_iter().map(|reply| reply.unwrap().id.into()).collect();
        assert_eq!(ids, [1, 2, 3, 4, 6, 7, 8, 9]);
    });
}

#[test]
fn a_call_that_waits_for_room_fails_when_the_connection_is_lost() {
    watched(|| {
        let set = Set::with(HandleConfig::new(), ShardConfig::new().calls_in_flight_max(1));
        let mut held = pin!(set.echo.hold(&Blob::new(0, 0)));
        Noted::new().begin(held.as_mut());
        set.until_held(1);
        let waiting: Vec<_> = (0..10).map(|id| set.echo.digest(&Blob::new(id, 10))).collect();
        let waits = thread::spawn(move || block_on(all(waiting)));
        until("they are handed over", || set.handle.counters().turns > 3);
        set.server.stop();
        for outcome in waits.join().unwrap() {
            assert_status(outcome, Code::Unavailable, true);
        }
        assert_status(block_on(held), Code::Unavailable, false);
    });
}

#[test]
fn a_request_that_the_server_does_not_accept_fails_alone() {
    watched(|| {
        let server = ShardConfig::new().frame_len_max(64 * 1024);
        let set = Set::with(HandleConfig::new(), server);
        let outcome = block_on(set.echo.digest(&Blob::new(1, 64 * 1024)));
        assert_status(outcome, Code::ResourceExhausted, true);
        block_on(set.echo.digest(&Blob::new(1, 63 * 1024))).unwrap();
    });
}

#[test]
fn a_call_can_be_polled_by_one_task_after_the_other() {
    watched(|| {
        let set = Set::start();
        let (first, second) = (Noted::new(), Noted::new());
        let mut call = Box::pin(set.echo.hold(&Blob::new(9, 0)));
        first.begin(call.as_mut());
        set.until_held(1);
        second.begin(call.as_mut());
        set.release();
        until("the one that polled last is woken", || second.take());
        assert!(!first.take());
        assert!(matches!(second.poll(call.as_mut()), Poll::Ready(Ok(reply)) if reply.id == 9));
        assert!(matches!(second.poll(call.as_mut()), Poll::Ready(Err(_))), "it has ended");
    });
}

/// A waker of a broken executor.
struct Broken;

impl Wake for Broken {
    fn wake(self: Arc<Self>) {
        panic!("a waker that panics");
    }
}

#[test]
fn a_waker_that_panics_harms_no_other_call() {
    watched(|| {
        let set = Set::start();
        let waker = Waker::from(Arc::new(Broken));
        let mut call = pin!(set.echo.hold(&Blob::new(9, 0)));
        let polled = call.as_mut().poll(&mut TaskContext::from_waker(&waker));
        assert!(polled.is_pending());
        set.until_held(1);
        set.release();
        block_on(set.echo.digest(&Blob::new(1, 1))).unwrap();
        assert_eq!(block_on(call).unwrap().id, 9);
    });
}

#[test]
fn a_connection_that_is_given_up_is_closed() {
    watched(|| {
        let set = Set::start();
        {
            let address = set.server.address();
            let mut connect = pin!(EchoSendClient::connect(&set.handle, address));
            // Most often it is not there yet.
            drop(Noted::new().poll(connect.as_mut()));
        }
        // A client that is dropped closes its connection.
        let second = block_on(EchoSendClient::connect(&set.handle, set.server.address())).unwrap();
        block_on(second.digest(&Blob::new(1, 1))).unwrap();
        drop(second);
        until("there is one connection", || {
            let counters = counters(&set.server);
            let opened = counters.connections_accepted;
            opened >= 2 && opened - counters.connections_closed == 1
        });
        block_on(set.echo.digest(&Blob::new(1, 1))).unwrap();
    });
}

#[test]
fn what_cannot_be_is_refused() {
    watched(|| {
        let error = HandleConfig::new().calls_max(0).start().err().unwrap();
        assert_eq!(error.to_string(), "calls_max is 0, and must be from 1 to 1048576");
        let error = HandleConfig::new().core(100_000).start().err().unwrap();
        assert!(matches!(error, ShardError::NoSuchCore { core: 100_000, .. }), "{error}");
        let handle = Handle::start().unwrap();
        let refused = block_on(EchoSendClient::connect(&handle, "127.0.0.1:1"));
        assert!(matches!(refused, Err(ringcall::ConnectError::Connect { .. })));
        let refused = block_on(LogSendClient::connect(&handle, "not an address"));
        assert!(matches!(refused, Err(ringcall::ConnectError::Resolve(_))));
    });
}

#[test]
fn calls_are_made_from_a_shard_too() {
    watched(|| {
        let set = Set::start();
        let calls = Cell::new(0);
        let run = RunConfig::new().run(async {
            for id in 0..100 {
                let reply = set.echo.digest(&Blob::new(id, 10)).await.unwrap();
                assert_eq!(u64::from(reply.id), id);
                calls.set(calls.get() + 1);
            }
        });
        run.unwrap();
        assert_eq!(calls.get(), 100);
    });
}

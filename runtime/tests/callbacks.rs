//! Calls from a server to its client, on the connection that the client made.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod support;

use std::{
    cell::{Cell, RefCell},
    future::pending,
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use ringcall::{
    Client, ClientConfig, ConnectError, MethodInfo, ServerHandle, ShardConfig, prelude::*,
};
use support::{
    event::{Noted, background},
    raw::{
        GOAWAY, PING, PONG, Peer, REQUEST, archive, call, goaway, hello_with, reply, request,
        status,
    },
    server::{counters, one_shard},
    station::run,
    wait::{all, until, until_async, watched},
};

#[ringcall::message]
pub struct Number {
    pub number: u64,
}

#[ringcall::message]
pub struct Load {
    pub number: u64,
    pub bytes: Vec<u8>,
}

/// What the server serves.
#[ringcall::service]
pub trait Front {
    /// Has the caller double the number, and adds one.
    async fn ask(&self, cx: &Context, request: Request<'_, Number>) -> Result<Number, Status>;
    /// Has the caller send back as many bytes as the number says, and replies with how many came.
    async fn fetch(&self, cx: &Context, request: Request<'_, Number>) -> Result<Number, Status>;
    /// Calls something of the caller that never ends.
    async fn hang(&self, cx: &Context, request: Request<'_, Number>) -> Result<Number, Status>;
    /// Keeps the connection to call its caller later.
    async fn enlist(&self, cx: &Context, request: Request<'_, Number>) -> Result<Number, Status>;
    /// Has all that were enlisted double the number, and replies with the sum.
    async fn rally(&self, cx: &Context, request: Request<'_, Number>) -> Result<Number, Status>;
    /// Tells all that were enlisted the number.
    async fn announce(&self, cx: &Context, request: Request<'_, Number>) -> Result<Number, Status>;
}

/// What a client serves.
#[ringcall::service]
pub trait Back {
    async fn double(&self, cx: &Context, request: Request<'_, Number>) -> Result<Number, Status>;
    async fn bytes(&self, cx: &Context, request: Request<'_, Number>) -> Result<Load, Status>;
    async fn never(&self, cx: &Context, request: Request<'_, Number>) -> Result<Number, Status>;
    #[rpc(oneway)]
    async fn hear(&self, cx: &Context, request: Request<'_, Number>);
}

#[derive(Default)]
struct Desk {
    enlisted: RefCell<Vec<Client>>,
}

impl Front for Desk {
    async fn ask(&self, cx: &Context, request: Request<'_, Number>) -> Result<Number, Status> {
        let back = BackClient::on(cx.caller());
        let doubled = back.double(&Number { number: request.number.into() }).await?;
        Ok(Number { number: u64::from(doubled.number) + 1 })
    }

    async fn fetch(&self, cx: &Context, request: Request<'_, Number>) -> Result<Number, Status> {
        let number = request.number.into();
        let load = BackClient::on(cx.caller()).bytes(&Number { number }).await?;
        assert!(load.bytes.iter().all(|byte| *byte == number as u8));
        Ok(Number { number: load.bytes.len() as u64 })
    }

    async fn hang(&self, cx: &Context, _: Request<'_, Number>) -> Result<Number, Status> {
        BackClient::on(cx.caller()).never(&Number { number: 0 }).await.map(|_| Number { number: 0 })
    }

    async fn enlist(&self, cx: &Context, _: Request<'_, Number>) -> Result<Number, Status> {
        let mut enlisted = self.enlisted.borrow_mut();
        enlisted.push(cx.caller());
        Ok(Number { number: enlisted.len() as u64 })
    }

    async fn rally(&self, _: &Context, request: Request<'_, Number>) -> Result<Number, Status> {
        let number = Number { number: request.number.into() };
        let mut sum = 0;
        let enlisted = self.enlisted.borrow().clone();
        for client in enlisted {
            sum += u64::from(BackClient::on(client).double(&number).await?.number);
        }
        Ok(Number { number: sum })
    }

    async fn announce(&self, _: &Context, request: Request<'_, Number>) -> Result<Number, Status> {
        let number = Number { number: request.number.into() };
        let enlisted = self.enlisted.borrow().clone();
        for client in &enlisted {
            BackClient::on(client.clone()).hear(&number).await?;
        }
        Ok(Number { number: enlisted.len() as u64 })
    }
}

/// What a client's handlers show.
#[derive(Clone, Default)]
struct Home {
    waiting: Arc<AtomicU64>,
    heard: Rc<RefCell<Vec<u64>>>,
    doubled: Rc<Cell<u64>>,
}

struct Waits(Arc<AtomicU64>);

impl Drop for Waits {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}

impl Back for Home {
    async fn double(&self, _: &Context, request: Request<'_, Number>) -> Result<Number, Status> {
        let number: u64 = request.number.into();
        if number % 2 == 1 {
            // Also where its handler waits.
            ringcall::yield_now().await;
        }
        self.doubled.set(self.doubled.get() + 1);
        Ok(Number { number: 2 * number })
    }

    async fn bytes(&self, _: &Context, request: Request<'_, Number>) -> Result<Load, Status> {
        let number: u64 = request.number.into();
        Ok(Load { number, bytes: vec![number as u8; number as usize] })
    }

    async fn never(&self, _: &Context, _: Request<'_, Number>) -> Result<Number, Status> {
        self.waiting.fetch_add(1, Relaxed);
        let _waits = Waits(Arc::clone(&self.waiting));
        pending().await
    }

    async fn hear(&self, _: &Context, request: Request<'_, Number>) {
        self.heard.borrow_mut().push(request.number.into());
    }
}

fn serve() -> ServerHandle {
    let server = one_shard().calls_clients(BackClient::METHODS);
    server.serve("127.0.0.1:0", |_| FrontServer::new(Desk::default())).unwrap()
}

async fn connect(server: &ServerHandle, home: &Home) -> FrontClient {
    let (config, back) = (ClientConfig::new(), BackServer::new(home.clone()));
    let methods = FrontClient::METHODS;
    let client = Client::connect_serving(&config, server.address(), methods, back).await;
    FrontClient::on(client.unwrap())
}

fn number(number: u64) -> Number {
    Number { number }
}

#[test]
fn a_handler_calls_its_caller() {
    watched(|| {
        let server = serve();
        run(async {
            let home = Home::default();
            let front = connect(&server, &home).await;
            for round in 0..100 {
                let reply = front.ask(&number(round)).await.unwrap();
                assert_eq!(reply.number, 2 * round + 1);
            }
            // Of lengths that are received in each way.
            for len in [0, 100, 5_000, 20_000, 300_000] {
                assert_eq!(front.fetch(&number(len)).await.unwrap().number, len);
            }
            assert_eq!(home.doubled.get(), 100);
        });
        let counters = counters(&server);
        assert_eq!(counters.calls_made, 105);
        assert_eq!(counters.protocol_errors, 0);
    });
}

#[test]
fn both_directions_are_pipelined_at_once() {
    watched(|| {
        let server = serve();
        run(async {
            let home = Home::default();
            let front = connect(&server, &home).await;
            let calls = (0..2_000_u64).map(|round| {
                let front = &front;
                async move {
                    let reply = front.ask(&number(round)).await.unwrap();
                    assert_eq!(reply.number, 2 * round + 1);
                }
            });
            all(calls).await;
            assert_eq!(home.doubled.get(), 2_000);
        });
        assert_eq!(counters(&server).protocol_errors, 0);
    });
}

#[test]
fn a_server_calls_its_clients_when_nobody_asks() {
    watched(|| {
        let server = serve();
        run(async {
            let homes: Vec<_> = (0..5).map(|_| Home::default()).collect();
            let mut fronts = Vec::new();
            for home in &homes {
                let front = connect(&server, home).await;
                front.enlist(&number(0)).await.unwrap();
                fronts.push(front);
            }
            // Somebody else, who serves nothing.
            let other = FrontClient::connect(server.address()).await.unwrap();
            assert_eq!(other.rally(&number(21)).await.unwrap().number, 5 * 42);
            assert_eq!(other.announce(&number(7)).await.unwrap().number, 5);
            for home in &homes {
                until_async("it is heard", || *home.heard.borrow() == [7]).await;
            }
        });
    });
}

#[test]
fn a_client_that_is_gone_cannot_be_called() {
    watched(|| {
        let server = serve();
        run(async {
            let home = Home::default();
            let front = connect(&server, &home).await;
            front.enlist(&number(0)).await.unwrap();
            drop(front);
            until_async("it is gone", || counters(&server).connections_closed == 1).await;
            let other = FrontClient::connect(server.address()).await.unwrap();
            let failed = other.rally(&number(1)).await.err().unwrap();
            assert_eq!(failed.code(), Code::Unavailable, "{failed}");
            assert!(failed.message().starts_with("the connection is closed"), "{failed}");
        });
    });
}

#[test]
fn a_client_that_serves_nothing_ends_the_connection_when_it_is_called() {
    watched(|| {
        let server = serve();
        run(async {
            let front = FrontClient::connect(server.address()).await.unwrap();
            let failed = front.ask(&number(1)).await.err().unwrap();
            let text = "unexpected REQUEST frame: this end makes calls and serves none";
            assert_eq!(failed.code(), Code::Internal);
            assert!(failed.message().contains(text), "{failed}");
            assert!(!front.client().is_open());
            // Others do not notice.
            let home = Home::default();
            let reply = connect(&server, &home).await.ask(&number(1)).await.unwrap();
            assert_eq!(reply.number, 3);
        });
    });
}

#[test]
fn a_method_that_the_client_does_not_have_fails_the_call_alone() {
    watched(|| {
        let server = serve();
        run(async {
            // It serves another service.
            let (config, desk) = (ClientConfig::new(), FrontServer::new(Desk::default()));
            let methods = FrontClient::METHODS;
            let client = Client::connect_serving(&config, server.address(), methods, desk).await;
            let front = FrontClient::on(client.unwrap());
            let failed = front.ask(&number(1)).await.err().unwrap();
            assert_eq!(failed.code(), Code::Unimplemented, "{failed}");
            assert_eq!(front.enlist(&number(1)).await.unwrap().number, 1);
        });
    });
}

#[test]
fn a_caller_that_gives_up_has_its_own_handler_dropped() {
    watched(|| {
        let server = serve();
        run(async {
            let home = Home::default();
            let front = connect(&server, &home).await;
            let (job, noted) = (number(0), Noted::new());
            let mut hanging = Box::pin(front.hang(&job));
            noted.begin(hanging.as_mut());
            until_async("the server has called back", || home.waiting.load(Relaxed) == 1).await;
            // The server's handler is dropped, which gives up the call that it made.
            drop(hanging);
            until_async("the handler here is dropped", || home.waiting.load(Relaxed) == 0).await;
            assert_eq!(front.ask(&number(4)).await.unwrap().number, 9);
        });
        assert_eq!(counters(&server).handlers_stopped, 1);
    });
}

#[test]
fn a_client_that_ends_while_it_is_called_fails_the_call() {
    watched(|| {
        let server = serve();
        let waiting = run(async {
            let home = Home::default();
            let front = connect(&server, &home).await;
            background(async move { front.hang(&number(0)).await.map(drop) });
            until_async("the server has called back", || home.waiting.load(Relaxed) == 1).await;
            home.waiting
        });
        // The shard has ended with its handlers.
        assert_eq!(waiting.load(Relaxed), 0);
        // As no outcome can come any more; else the handler that waits for it would hold it open.
        until("the server has noticed", || counters(&server).connections_closed == 1);
    });
}

#[test]
fn a_server_that_stops_drops_the_handlers_of_its_clients() {
    watched(|| {
        let server = serve();
        run(async {
            let home = Home::default();
            let front = connect(&server, &home).await;
            let calling = front.clone();
            let hanging = background(async move { calling.hang(&number(0)).await.map(drop) });
            until_async("the server has called back", || home.waiting.load(Relaxed) == 1).await;
            server.stop();
            let failed = hanging.await.unwrap_err();
            assert_eq!(failed.code(), Code::Unavailable);
            until_async("the handler here is dropped", || home.waiting.load(Relaxed) == 0).await;
        });
    });
}

#[test]
fn layouts_of_callbacks_are_compared_when_a_client_connects() {
    watched(|| {
        let other: &'static [MethodInfo] = Box::leak({
            let mut methods = BackClient::METHODS.to_vec();
            methods[0].reply ^= 1;
            methods.into_boxed_slice()
        });
        let server = one_shard().calls_clients(other);
        let server = server.serve("127.0.0.1:0", |_| FrontServer::new(Desk::default())).unwrap();
        run(async {
            let (config, back) = (ClientConfig::new(), BackServer::new(Home::default()));
            let methods = FrontClient::METHODS;
            let refused = Client::connect_serving(&config, server.address(), methods, back).await;
            let error = refused.err().unwrap();
            assert!(matches!(error, ConnectError::Session { .. }), "{error}");
            assert!(error.to_string().contains("method Back.double differ (reply)"), "{error}");
            // Who serves nothing has nothing to differ.
            FrontClient::connect(server.address()).await.unwrap();
        });
    });
}

/// The frame of a call that the server makes.
fn called(peer: &mut Peer, slot: u32, method: u32) -> u64 {
    let frame = peer.frame();
    assert_eq!((frame.kind, frame.code), (REQUEST, method), "{frame:?}");
    assert_eq!(frame.call, call(slot, 1));
    frame.call
}

#[test]
fn calls_of_both_directions_have_the_same_ids_and_are_two() {
    watched(|| {
        let server = serve();
        let mut peer = Peer::connect(server.address());
        peer.send(&hello_with(&[FrontClient::METHODS, BackClient::METHODS].concat()));
        peer.expect_hello();
        let id = call(0, 1);
        peer.send(&request(id, FrontClient::ASK, &archive(&number(4))));
        assert_eq!(called(&mut peer, 0, BackClient::DOUBLE), id);
        peer.send(&reply(id, &archive(&number(8))));
        assert_eq!(peer.frame(), reply(id, &archive(&number(9))));
        // A status of the client is the handler's.
        peer.send(&request(call(1, 1), FrontClient::ASK, &archive(&number(4))));
        let callback = peer.frame().call;
        peer.send(&status(callback, Code::NotFound, "nobody is at home"));
        assert_eq!(peer.frame(), status(call(1, 1), Code::NotFound, "nobody is at home"));
    });
}

#[test]
fn a_response_to_a_call_that_the_server_did_not_make_ends_the_connection() {
    watched(|| {
        let server = serve();
        let mut peer = Peer::open(server.address());
        peer.send(&request(call(0, 1), FrontClient::HANG, &archive(&number(4))));
        let callback = called(&mut peer, 0, BackClient::NEVER);
        peer.send(&reply(callback + 1, &archive(&number(8))));
        let text = "response to call 1.1, which is not in flight";
        assert_eq!(peer.frame(), goaway(Code::InvalidArgument, text));
        peer.expect_end();
        until("its handler has ended", || counters(&server).handlers_stopped == 1);
    });
}

#[test]
fn a_server_that_drains_waits_for_the_calls_that_it_made() {
    watched(|| {
        let server = serve();
        let mut peer = Peer::open(server.address());
        peer.send(&request(call(0, 1), FrontClient::ASK, &archive(&number(4))));
        let callback = called(&mut peer, 0, BackClient::DOUBLE);
        server.drain(Duration::from_secs(3600));
        let draining = peer.frame();
        assert_eq!((draining.kind, draining.flags), (GOAWAY, 0), "{draining:?}");
        let mut ping = peer.frame();
        assert_eq!(ping.kind, PING);
        ping.kind = PONG;
        peer.send(&ping);
        peer.send(&reply(callback, &archive(&number(8))));
        assert_eq!(peer.frame(), reply(call(0, 1), &archive(&number(9))));
        peer.expect_goaway(Code::Unavailable, "every call has ended");
        peer.finish();
        server.join().unwrap();
    });
}

#[test]
fn limits_of_a_client_hold_for_calls_to_it() {
    watched(|| {
        let server = serve();
        // Two calls at a time, of the many that the server wants to make.
        let config = ringcall::RunConfig::new().shard(ShardConfig::new().calls_in_flight_max(2));
        let ran = config.run(async {
            let home = Home::default();
            let front = connect(&server, &home).await;
            let calls = (0..100_u64).map(|round| {
                let front = &front;
                async move { u64::from(front.ask(&number(round)).await.unwrap().number) }
            });
            let answers = all(calls).await;
            assert_eq!(answers, (0..100).map(|round| 2 * round + 1).collect::<Vec<_>>());
        });
        ran.unwrap();
        assert_eq!(counters(&server).protocol_errors, 0);
    });
}

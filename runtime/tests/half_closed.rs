//! Peers that send no more: handlers that have all they need answer, and those that wait for more
//! of their caller fail instead of waiting for ever.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod support;

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
};

use ringcall::{Client, ServerHandle, ShardConfig, prelude::*};
use support::{
    raw::{ITEM, ONEWAY, Peer, REQUEST, RESPONSE, STREAM, archive, call, plain, request, status},
    server::{counters, serve},
    wait::{until, until_async, watched},
};

#[ringcall::message]
struct Part {
    bytes: Vec<u8>,
}

#[ringcall::service]
trait Depot {
    /// Takes the caller's items.
    async fn collect(
        &self,
        cx: &Context,
        request: Request<'_, Part>,
        parts: Source<Part>,
    ) -> Result<Part, Status>;

    /// Sends items for as long as they are taken.
    async fn deliver(
        &self,
        cx: &Context,
        request: Request<'_, Part>,
        parts: Sink<'_, Part>,
    ) -> Result<Part, Status>;

    /// Waits until the test says so.
    #[rpc(oneway)]
    async fn note(&self, cx: &Context, request: Request<'_, Part>);

    /// Calls the caller, and replies with what it says.
    async fn ask(&self, cx: &Context, request: Request<'_, Part>) -> Result<Part, Status>;
}

#[derive(Clone, Default)]
struct Watch {
    begun: Arc<AtomicU64>,
    taken: Arc<AtomicU64>,
    goes_on: Arc<AtomicBool>,
}

impl Depot for Watch {
    async fn collect(
        &self,
        _: &Context,
        _: Request<'_, Part>,
        mut parts: Source<Part>,
    ) -> Result<Part, Status> {
        while parts.next().await?.is_some() {
            self.taken.fetch_add(1, Relaxed);
        }
        Ok(Part { bytes: Vec::new() })
    }

    async fn deliver(
        &self,
        _: &Context,
        _: Request<'_, Part>,
        parts: Sink<'_, Part>,
    ) -> Result<Part, Status> {
        let part = Part { bytes: vec![1; 1000] };
        loop {
            parts.send(&part).await?;
            self.taken.fetch_add(1, Relaxed);
        }
    }

    async fn note(&self, _: &Context, _: Request<'_, Part>) {
        self.begun.fetch_add(1, Relaxed);
        until_async("it is to go on", || self.goes_on.load(Relaxed)).await;
        self.taken.fetch_add(1, Relaxed);
    }

    async fn ask(&self, cx: &Context, _: Request<'_, Part>) -> Result<Part, Status> {
        let caller: Client = cx.caller();
        self.begun.fetch_add(1, Relaxed);
        let asked = Part { bytes: Vec::new() };
        DepotClient::on(caller).ask(&asked).await?.to_owned()
    }
}

fn depot() -> (ServerHandle, Watch) {
    let watch = Watch::default();
    let theirs = watch.clone();
    (serve(ShardConfig::new(), move || DepotServer::new(theirs.clone())), watch)
}

fn stream(method: u32, body: &[u8]) -> support::raw::Frame {
    let mut frame = request(call(0, 1), method, body);
    frame.flags |= STREAM;
    frame
}

/// The connection is closed on both sides, and the server has nothing left to wait for.
fn is_over(server: ServerHandle, peer: &mut Peer) {
    peer.expect_end();
    until("the connection is closed", || counters(&server).connections_closed == 1);
    assert_eq!(counters(&server).protocol_errors, 0);
    server.drain(std::time::Duration::MAX);
    server.join().unwrap();
}

#[test]
fn a_handler_that_waits_for_items_is_told_that_none_come() {
    watched(|| {
        let (server, watch) = depot();
        let mut peer = Peer::open(server.address());
        let body = archive(&Part { bytes: vec![2; 40] });
        peer.send(&stream(DepotClient::COLLECT, &body));
        let mut item = plain(ITEM, call(0, 1));
        item.body = body;
        peer.send(&item);
        until("the item is taken", || watch.taken.load(Relaxed) == 1);
        peer.finish();
        let mut expected = status(call(0, 1), Code::Unavailable, "the caller sends no more");
        let answer = peer.frame();
        expected.aux = answer.aux;
        assert_eq!(answer, expected);
        is_over(server, &mut peer);
    });
}

#[test]
fn items_that_came_before_the_end_are_taken() {
    watched(|| {
        let (server, watch) = depot();
        let mut peer = Peer::open(server.address());
        let body = archive(&Part { bytes: vec![2; 40] });
        let mut bytes = stream(DepotClient::COLLECT, &body).bytes();
        for aux in 0..100 {
            let mut item = plain(ITEM, call(0, 1));
            (item.body, item.aux) = (body.clone(), aux);
            bytes.extend(item.bytes());
        }
        peer.send_bytes(&bytes);
        peer.finish();
        assert_eq!(peer.frame().kind, RESPONSE);
        assert_eq!(watch.taken.load(Relaxed), 100);
        is_over(server, &mut peer);
    });
}

#[test]
fn a_handler_that_waits_for_credit_is_told_that_there_will_be_none() {
    watched(|| {
        let (server, watch) = depot();
        let mut peer = Peer::open(server.address());
        peer.send(&stream(DepotClient::DELIVER, &archive(&Part { bytes: Vec::new() })));
        let first = peer.frame();
        assert_eq!(first.kind, ITEM);
        peer.finish();
        let mut items = 1;
        let answer = loop {
            match peer.frame() {
                frame if frame.kind == ITEM => items += 1,
                frame => break frame,
            }
        };
        let text = "item not sent: the caller takes no more";
        let mut expected = status(call(0, 1), Code::Unavailable, text);
        expected.aux = answer.aux;
        assert_eq!(answer, expected);
        assert_eq!(watch.taken.load(Relaxed), items);
        is_over(server, &mut peer);
    });
}

#[test]
fn a_one_way_call_that_ends_later_ends_the_connection() {
    watched(|| {
        let (server, watch) = depot();
        let mut peer = Peer::open(server.address());
        let mut frame = plain(ONEWAY, 1);
        let body = archive(&Part { bytes: vec![3; 40] });
        frame.code = DepotClient::NOTE;
        frame.body = body;
        peer.send(&frame);
        until("the handler waits", || watch.begun.load(Relaxed) == 1);
        peer.finish();
        watch.goes_on.store(true, Relaxed);
        is_over(server, &mut peer);
        assert_eq!(watch.taken.load(Relaxed), 1, "the handler is done");
    });
}

#[test]
fn a_handler_that_has_called_its_caller_is_told_that_no_reply_comes() {
    watched(|| {
        let (server, watch) = depot();
        let mut peer = Peer::open(server.address());
        peer.send(&request(call(0, 1), DepotClient::ASK, &archive(&Part { bytes: Vec::new() })));
        assert_eq!(peer.frame().kind, REQUEST);
        assert_eq!(watch.begun.load(Relaxed), 1);
        peer.finish();
        let answer = peer.frame();
        let mut expected = status(call(0, 1), Code::Unavailable, "the client sends no more");
        expected.aux = answer.aux;
        assert_eq!(answer, expected);
        is_over(server, &mut peer);
    });
}

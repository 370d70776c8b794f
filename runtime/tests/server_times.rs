//! How long a server held a call: told to those who ask, whatever way the call goes.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod support;

use std::{
    net::TcpListener,
    thread,
    time::{Duration, Instant},
};

use ringcall::{
    Key, Metadata, ServerHandle, ServerTimes, ShardConfig, SocketConfig, limits::HEADER_LEN,
    prelude::*,
};
use support::{
    raw::{Frame, Peer, RESPONSE, archive, call, hello, request},
    server::{counters, one_shard, serve as serve_one},
    station::run,
    wait::{until, watched},
};

#[ringcall::message]
pub struct Text {
    pub text: String,
}

/// How long the handler itself says that it took, in nanoseconds.
#[ringcall::message]
pub struct Took {
    pub took_ns: u64,
}

#[ringcall::service]
pub trait Watched {
    /// Replies at once.
    async fn at_once(&self, cx: &Context, request: Request<'_, Text>) -> Result<Took, Status>;
    /// Waits for a while.
    async fn waits(&self, cx: &Context, request: Request<'_, Text>) -> Result<Took, Status>;
    /// Replies with metadata of its own.
    async fn beside(&self, cx: &Context, request: Request<'_, Text>) -> Result<Took, Status>;
    /// Replies with more than a send buffer takes.
    async fn at_length(&self, cx: &Context, request: Request<'_, Text>) -> Result<Text, Status>;
    /// Fails.
    async fn fails(&self, cx: &Context, request: Request<'_, Text>) -> Result<Took, Status>;
    /// Sends each item back, and waits for a while before each.
    async fn mirror(
        &self,
        cx: &Context,
        request: Request<'_, Text>,
        items: Source<Text>,
        back: Sink<'_, Text>,
    ) -> Result<Took, Status>;
}

struct Watchmaker;

fn took(since: Instant) -> Result<Took, Status> {
    Ok(Took { took_ns: since.elapsed().as_nanos() as u64 })
}

impl Watched for Watchmaker {
    async fn at_once(&self, _: &Context, _: Request<'_, Text>) -> Result<Took, Status> {
        took(Instant::now())
    }

    async fn waits(&self, _: &Context, _: Request<'_, Text>) -> Result<Took, Status> {
        let since = Instant::now();
        ringcall::sleep(Duration::from_millis(2)).await;
        took(since)
    }

    async fn beside(&self, cx: &Context, request: Request<'_, Text>) -> Result<Took, Status> {
        let since = Instant::now();
        let mut metadata = Metadata::new();
        metadata.insert(Key::TENANT, "not this one").unwrap();
        cx.set_reply_metadata(metadata.clone());
        ringcall::yield_now().await;
        // A later one takes its place, and says something else of its own.
        metadata.insert(Key::TENANT, request.text.as_bytes()).unwrap();
        metadata.insert(Key::TIMES, "made up").unwrap();
        cx.set_reply_metadata(metadata);
        took(since)
    }

    async fn at_length(&self, _: &Context, _: Request<'_, Text>) -> Result<Text, Status> {
        Ok(text(&"x".repeat(300_000)))
    }

    async fn fails(&self, cx: &Context, _: Request<'_, Text>) -> Result<Took, Status> {
        cx.set_reply_metadata(cx.metadata().to_owned());
        Err(Status::new(Code::Aborted, "as it was asked to"))
    }

    async fn mirror(
        &self,
        _: &Context,
        _: Request<'_, Text>,
        mut items: Source<Text>,
        back: Sink<'_, Text>,
    ) -> Result<Took, Status> {
        let since = Instant::now();
        while let Some(item) = items.next().await? {
            ringcall::sleep(Duration::from_millis(1)).await;
            back.send(&item.to_owned()?).await?;
        }
        took(since)
    }
}

fn serve() -> ServerHandle {
    serve_one(ShardConfig::new(), || WatchedServer::new(Watchmaker))
}

fn text(text: &str) -> Text {
    Text { text: text.to_owned() }
}

/// The handler's time holds what the handler measured of itself.
fn assert_holds(times: Option<ServerTimes>, took_ns: u64) {
    let times = times.expect("no times");
    assert!(times.handler >= Duration::from_nanos(took_ns), "{times:?} for {took_ns} ns");
}

#[test]
fn who_asks_is_told_and_who_does_not_is_not() {
    watched(|| {
        let server = serve();
        run(async {
            let client = WatchedClient::connect(server.address()).await.unwrap();
            let (text, metadata) = (text("Ada"), tenant());
            for _ in 0..3 {
                let reply = client.at_once(&text).await.unwrap();
                assert_eq!(reply.server_times(), None);
                assert!(reply.metadata().is_empty());
                let reply = client.at_once(&text).metadata(&metadata).await.unwrap();
                assert_eq!(reply.server_times(), None);
                let reply = client.at_once(&text).with_server_times().await.unwrap();
                assert_holds(reply.server_times(), reply.took_ns.into());
                let call = client.at_once(&text).with_server_times().metadata(&metadata);
                let reply = call.await.unwrap();
                assert_holds(reply.server_times(), reply.took_ns.into());
            }
        });
    });
}

fn tenant() -> Metadata {
    let mut metadata = Metadata::new();
    metadata.insert(Key::TENANT, "acme").unwrap();
    metadata
}

#[test]
fn the_time_in_which_a_handler_waits_is_its_own() {
    watched(|| {
        let server = serve();
        run(async {
            let client = WatchedClient::connect(server.address()).await.unwrap();
            let text = text("Ada");
            let reply = client.waits(&text).with_server_times().await.unwrap();
            assert!(u64::from(reply.took_ns) >= 2_000_000, "the handler did not wait");
            assert_holds(reply.server_times(), reply.took_ns.into());
        });
    });
}

#[test]
fn the_time_of_a_stream_is_that_until_its_reply() {
    watched(|| {
        let server = serve();
        run(async {
            let client = WatchedClient::connect(server.address()).await.unwrap();
            let text = text("Ada");
            let mut stream = client.mirror(&text).with_server_times().await.unwrap();
            for _ in 0..3 {
                stream.send(&text).await.unwrap();
                assert!(stream.next().await.unwrap().is_some());
            }
            let reply = stream.finish().await.unwrap();
            assert!(u64::from(reply.took_ns) >= 3_000_000, "the handler did not wait");
            assert_holds(reply.server_times(), reply.took_ns.into());
        });
    });
}

#[test]
fn the_metadata_of_a_handler_goes_with_the_times() {
    watched(|| {
        let server = serve();
        run(async {
            let client = WatchedClient::connect(server.address()).await.unwrap();
            let text = text("acme");
            let reply = client.beside(&text).with_server_times().await.unwrap();
            assert_holds(reply.server_times(), reply.took_ns.into());
            assert_eq!(reply.metadata().get(Key::TENANT), Some(&b"acme"[..]));
            assert_eq!(reply.metadata().iter().count(), 2);
            // Of a handler that says something else of its own, where nobody asks.
            let reply = client.beside(&text).await.unwrap();
            assert_eq!(reply.metadata().get(Key::TIMES), Some(&b"made up"[..]));
            assert_eq!(reply.server_times(), None);
        });
    });
}

#[test]
fn a_call_that_fails_has_no_times() {
    watched(|| {
        let server = serve();
        let mut peer = Peer::open(server.address());
        peer.send(&asking(WatchedClient::FAILS));
        let failed = peer.frame();
        let expected = (Code::Aborted as u32, 0, 0);
        assert_eq!((failed.code, failed.meta_len, failed.time_us), expected);
    });
}

/// The entry that asks: its key, no value, no name, and padding.
const WANTED: [u8; 16] = [8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];

/// The times beside a reply, read byte by byte.
fn times_in(answer: &Frame) -> ServerTimes {
    let nanos = |at: usize| {
        let bytes = answer.body[at..at + 4].try_into().unwrap();
        Duration::from_nanos(u32::from_le_bytes(bytes).into())
    };
    assert_eq!(answer.body[..5], [8, 0, 8, 0, 0]);
    ServerTimes { queue: nanos(5), handler: nanos(9) }
}

/// A request that asks for the times.
fn asking(method: u32) -> Frame {
    let body = [&WANTED[..], &archive(&text("Ada"))].concat();
    Frame { meta_len: 1, ..request(call(0, 1), method, &body) }
}

#[test]
fn the_header_of_a_reply_has_both_times_in_microseconds() {
    watched(|| {
        let server = serve();
        let mut peer = Peer::open(server.address());
        for (slot, method) in [(0, WatchedClient::AT_ONCE), (1, WatchedClient::WAITS)] {
            peer.send(&Frame { call: call(slot, 1), ..asking(method) });
            let answer = peer.frame();
            assert_eq!((answer.kind, answer.code, answer.meta_len), (RESPONSE, 0, 1));
            let times = times_in(&answer);
            let total_ns = (times.queue + times.handler).as_nanos();
            assert_eq!(u128::from(answer.time_us), total_ns.div_ceil(1000));
        }
        // Who does not ask has neither.
        let body = archive(&text("Ada"));
        peer.send(&request(call(2, 1), WatchedClient::AT_ONCE, &body));
        let answer = peer.frame();
        assert_eq!((answer.kind, answer.meta_len, answer.time_us), (RESPONSE, 0, 0));
    });
}

#[test]
fn a_call_that_is_not_read_as_its_caller_does_not_read_waits_in_the_queue() {
    watched(|| {
        let narrow = SocketConfig::new().send_buffer_bytes(64 * 1024);
        let server = one_shard().socket(narrow);
        let server = server.serve("127.0.0.1:0", |_| WatchedServer::new(Watchmaker)).unwrap();
        let mut peer = Peer::connect_narrow(server.address());
        peer.send(&hello());
        peer.expect_hello();
        // All at once, so that the server takes them at once. Two replies fill it.
        let calls = 0..5;
        let asking = |slot| Frame { call: call(slot, 1), ..asking(WatchedClient::AT_LENGTH) };
        let bytes: Vec<u8> = calls.clone().flat_map(|slot| asking(slot).bytes()).collect();
        peer.send_bytes(&bytes);
        until("the first has run", || counters(&server).calls_inline > 0);
        let unread_since = Instant::now();
        thread::sleep(Duration::from_millis(5));
        let unread = unread_since.elapsed();
        let answers: Vec<_> = calls.clone().map(|_| peer.frame()).collect();
        let last = answers.iter().find(|answer| answer.call == call(4, 1)).unwrap();
        let times = times_in(last);
        assert!(times.queue >= unread, "{times:?}, and it was not read for {unread:?}");
        assert!(answers.iter().all(|answer| answer.body.len() > 300_000 - HEADER_LEN));
    });
}

/// A server that answers calls with these metadata, whatever they ask for.
fn answering(blocks: Vec<Vec<u8>>) -> (std::net::SocketAddr, thread::JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let answers = move || {
        let mut peer = Peer::serve(&listener, WatchedClient::METHODS);
        for block in blocks {
            let asked = peer.frame();
            assert_eq!((asked.meta_len, &asked.body[..16]), (1, &WANTED[..]));
            let body = [&block[..], &archive(&Took { took_ns: 7 })].concat();
            let meta_len = (block.len() / 16) as u16;
            let (kind, call) = (RESPONSE, asked.call);
            peer.send(&Frame { kind, call, meta_len, time_us: u32::MAX, body, ..Frame::default() });
        }
        peer.expect_end();
    };
    (address, thread::spawn(answers))
}

/// Metadata with this value for the times.
fn told(value: &[u8]) -> Vec<u8> {
    let mut metadata = Metadata::new();
    metadata.insert(Key::TIMES, value).unwrap();
    metadata.as_bytes().to_vec()
}

/// What a peer may answer, and what is made of it.
fn answers() -> Vec<(Vec<u8>, Option<ServerTimes>)> {
    let longest = Duration::from_nanos(u32::MAX.into());
    let longest = ServerTimes { queue: longest, handler: longest };
    let tenant = tenant().as_bytes().to_vec();
    vec![
        (vec![], None),
        (tenant, None),
        (told(b""), None),
        (told(b"seven b"), None),
        (told(&[0; 9]), None),
        (told(&[0xff; 8]), Some(longest)),
        (told(&[0; 8]), Some(ServerTimes::default())),
    ]
}

#[test]
fn whatever_a_server_answers_is_taken_or_passed_over() {
    watched(|| {
        let (blocks, expected): (Vec<_>, Vec<_>) = answers().into_iter().unzip();
        let (address, server) = answering(blocks);
        run(async {
            let client = WatchedClient::connect(address).await.unwrap();
            let text = text("Ada");
            for times in expected {
                let reply = client.at_once(&text).with_server_times().await.unwrap();
                assert_eq!((reply.server_times(), reply.took_ns.into()), (times, 7_u64));
            }
        });
        server.join().unwrap();
    });
}

#[test]
fn a_blocking_client_takes_or_passes_over_the_same() {
    watched(|| {
        let (blocks, expected): (Vec<_>, Vec<_>) = answers().into_iter().unzip();
        let (address, server) = answering(blocks);
        let mut client = WatchedBlockingClient::connect(address).unwrap();
        for times in expected {
            let reply = client.at_once(&text("Ada")).with_server_times().wait().unwrap();
            assert_eq!((reply.server_times(), reply.took_ns.into()), (times, 7_u64));
        }
        drop(client);
        server.join().unwrap();
    });
}

#[test]
fn a_blocking_client_asks_and_is_told() {
    watched(|| {
        let server = serve();
        let mut client = WatchedBlockingClient::connect(server.address()).unwrap();
        let (text, tenant) = (text("Ada"), tenant());
        let reply = client.waits(&text).with_server_times().wait().unwrap();
        assert_holds(reply.server_times(), reply.took_ns.into());
        assert_eq!(client.waits(&text).wait().unwrap().server_times(), None);
        // Beside metadata, and pipelined.
        let call = client.beside(&text).metadata(&tenant).with_server_times();
        let ticket = call.start().unwrap();
        let reply: ringcall::blocking::Reply<Took> = client.client().finish(ticket).unwrap();
        assert_holds(reply.server_times(), reply.took_ns.into());
        assert_eq!(reply.metadata().get(Key::TENANT), Some(&b"Ada"[..]));
    });
}

#[test]
fn metadata_that_leaves_no_room_goes_without_the_times() {
    watched(|| {
        let server = serve();
        run(async {
            let client = WatchedClient::connect(server.address()).await.unwrap();
            let mut full = Metadata::new();
            full.insert(Key::TRACESTATE, vec![b't'; 8192 - 5]).unwrap();
            let text = text("Ada");
            let reply = client.at_once(&text).metadata(&full).with_server_times().await.unwrap();
            assert_eq!(reply.server_times(), None);
        });
    });
}

//! Metadata: what travels beside a message, both ways, and is read where it arrived.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod support;

use ringcall::{EntryKey, Key, Metadata, ServerHandle, ShardConfig, prelude::*};
use support::{
    raw::{
        Frame, GOAWAY, NOT_EXECUTED, ONEWAY, Peer, REQUEST, RESPONSE, archive, call, reply, request,
    },
    server::{counters, serve as serve_one},
    station::run,
    wait::{all, until, watched},
};

#[ringcall::message]
pub struct Text {
    pub text: String,
}

/// What a handler saw.
#[ringcall::message]
pub struct Seen {
    /// Whether the metadata was read where the kernel put it.
    pub in_place: bool,
    pub entries: Vec<String>,
}

#[ringcall::service]
pub trait Post {
    /// Replies with the entries that came, and sends them back beside the reply.
    async fn send(&self, cx: &Context, request: Request<'_, Text>) -> Result<Seen, Status>;
    /// As `send`, after a while.
    async fn send_later(&self, cx: &Context, request: Request<'_, Text>) -> Result<Seen, Status>;
    /// Fails, with metadata for a reply.
    async fn fail(&self, cx: &Context, request: Request<'_, Text>) -> Result<Seen, Status>;
}

struct Office;

fn seen(cx: &Context) -> Seen {
    let metadata = cx.metadata();
    let entries = metadata.iter().map(|(key, value)| {
        let value = String::from_utf8_lossy(value);
        match key {
            EntryKey::WellKnown(key) => format!("{}={value}", key.get()),
            EntryKey::Named(name) => format!("{name}={value}"),
        }
    });
    let entries = entries.collect();
    let in_place = |value| ringcall::is_in_receive_pool::<[u8]>(value);
    Seen { in_place: metadata.iter().all(|(_, value)| in_place(value)), entries }
}

impl Post for Office {
    async fn send(&self, cx: &Context, _: Request<'_, Text>) -> Result<Seen, Status> {
        cx.set_reply_metadata(cx.metadata().to_owned());
        Ok(seen(cx))
    }

    async fn send_later(&self, cx: &Context, _: Request<'_, Text>) -> Result<Seen, Status> {
        let mut metadata = Metadata::new();
        metadata.insert(Key::TENANT, "not this one").unwrap();
        cx.set_reply_metadata(metadata);
        for _ in 0..3 {
            ringcall::yield_now().await;
        }
        // A later one takes its place.
        cx.set_reply_metadata(cx.metadata().to_owned());
        Ok(seen(cx))
    }

    async fn fail(&self, cx: &Context, _: Request<'_, Text>) -> Result<Seen, Status> {
        cx.set_reply_metadata(cx.metadata().to_owned());
        Err(Status::new(Code::Aborted, seen(cx).entries.concat()))
    }
}

fn serve(config: ShardConfig) -> ServerHandle {
    serve_one(config, || PostServer::new(Office))
}

fn text(len: usize) -> Text {
    Text { text: "x".repeat(len) }
}

fn some() -> Metadata {
    let mut metadata = Metadata::new();
    metadata.insert(Key::TENANT, "acme").unwrap();
    metadata.insert_named("shop.basket", "7").unwrap();
    metadata
}

/// As long as metadata may be: 8,192 bytes.
fn longest() -> Metadata {
    let mut metadata = Metadata::new();
    metadata.insert(Key::TRACESTATE, vec![b't'; 8192 - 5]).unwrap();
    assert_eq!(metadata.as_bytes().len(), 8192);
    metadata
}

#[test]
fn entries_travel_in_both_directions() {
    watched(|| {
        let server = serve(ShardConfig::new());
        run(async {
            let post = PostClient::connect(server.address()).await.unwrap();
            let (text, metadata) = (text(20), some());
            for later in [false, true] {
                let call = match later {
                    false => post.send(&text).metadata(&metadata),
                    true => post.send_later(&text).metadata(&metadata),
                };
                let reply = call.await.unwrap();
                let entries: Vec<_> = reply.entries.iter().map(|entry| entry.as_str()).collect();
                assert_eq!(entries, ["6=acme", "shop.basket=7"]);
                assert_eq!(reply.metadata().get(Key::TENANT), Some(&b"acme"[..]));
                assert_eq!(reply.metadata().get_named("shop.basket"), Some(&b"7"[..]));
                assert_eq!(reply.metadata().iter().count(), 2);
                // It goes with the reply, whoever keeps that.
                let kept = reply.clone();
                drop(reply);
                assert_eq!(kept.metadata().get_str(Key::TENANT), Some("acme"));
            }
        });
    });
}

#[test]
fn entries_are_read_where_they_arrived() {
    watched(|| {
        let server = serve(ShardConfig::new());
        run(async {
            let post = PostClient::connect(server.address()).await.unwrap();
            for metadata in [some(), longest()] {
                let (text, before) = (text(20), counters(&server));
                for later in [false, true] {
                    let call = match later {
                        false => post.send(&text).metadata(&metadata),
                        true => post.send_later(&text).metadata(&metadata),
                    };
                    let reply = call.await.unwrap();
                    let value = reply.metadata().iter().next().unwrap().1;
                    // The longest may be cut by the end of a receive buffer.
                    if metadata.as_bytes().len() < 100 {
                        assert!(reply.in_place);
                        assert!(ringcall::is_in_receive_pool(value));
                    }
                }
                assert_eq!(counters(&server).since(&before).frames_copied_misaligned, 0);
            }
        });
    });
}

#[test]
fn a_call_without_metadata_has_none() {
    watched(|| {
        let server = serve(ShardConfig::new());
        run(async {
            let post = PostClient::connect(server.address()).await.unwrap();
            let (text, none) = (text(20), Metadata::new());
            for call in [post.send(&text), post.send(&text).metadata(&none)] {
                let reply = call.await.unwrap();
                assert!(reply.entries.is_empty());
                assert!(reply.metadata().is_empty());
            }
        });
    });
}

#[test]
fn a_status_takes_no_metadata() {
    watched(|| {
        let server = serve(ShardConfig::new());
        let mut peer = Peer::open(server.address());
        let frame = with_block(REQUEST, some().as_bytes());
        peer.send(&Frame { code: PostClient::FAIL, ..frame });
        let failed = peer.frame();
        assert_eq!((failed.code, failed.meta_len), (Code::Aborted as u32, 0));
        assert_eq!(failed.body, b"6=acmeshop.basket=7");
    });
}

#[test]
fn metadata_goes_with_bodies_of_every_length() {
    watched(|| {
        // Bodies that a receive buffer holds, that one cuts, and that none holds.
        let server = serve(ShardConfig::new().receive_buffers(64, 4096));
        run(async {
            let post = PostClient::connect(server.address()).await.unwrap();
            let (post, some, longest) = (&post, &some(), &longest());
            let calls = (0..200_usize).map(|number| async move {
                let text = text([0, 30, 900, 3000, 5000, 70_000][number % 6]);
                let metadata = if number % 4 == 3 { longest } else { some };
                let reply = post.send(&text).metadata(metadata).await.unwrap();
                assert_eq!(reply.metadata().to_owned().as_bytes(), metadata.as_bytes());
                assert_eq!(reply.entries.len(), metadata.as_ref().iter().count());
            });
            all(calls).await;
        });
        assert_eq!(counters(&server).protocol_errors, 0);
    });
}

/// Bytes up to a multiple of 16.
fn pad(mut bytes: Vec<u8>) -> Vec<u8> {
    bytes.resize(bytes.len().next_multiple_of(16), 0);
    bytes
}

/// A request with these bytes for metadata.
fn with_block(kind: u8, block: &[u8]) -> Frame {
    assert_eq!(block.len() % 16, 0);
    let body = [block, &archive(&text(20))].concat();
    let meta_len = (block.len() / 16) as u16;
    Frame { kind, meta_len, ..request(call(0, 1), PostClient::SEND, &body) }
}

#[test]
fn metadata_that_is_none_ends_the_connection() {
    watched(|| {
        let server = serve(ShardConfig::new());
        let entry = |key: u16, name: &[u8], value: &[u8]| {
            let mut bytes = key.to_le_bytes().to_vec();
            bytes.extend((value.len() as u16).to_le_bytes());
            bytes.push(name.len() as u8);
            bytes.extend(name);
            bytes.extend(value);
            bytes
        };
        let beyond_its_end = [&[7, 0, 255, 255, 0][..], b"abc"].concat();
        let not_zero_behind = [entry(7, b"", b"de"), vec![0; 8], vec![1]].concat();
        let blocks = [
            beyond_its_end,
            not_zero_behind,
            [entry(7, b"", b"a"), entry(7, b"", b"b")].concat(),
            [entry(0, b"a", b"a"), entry(0, b"a", b"b")].concat(),
            entry(7, b"name", b"de"),
            entry(0, b"UPPER", b"de"),
            entry(0, b"ringcall.mine", b"de"),
            // Nothing but padding.
            vec![0; 16],
        ];
        for kind in [REQUEST, ONEWAY] {
            for block in &blocks {
                let before = counters(&server);
                let mut peer = Peer::open(server.address());
                peer.send(&with_block(kind, &pad(block.clone())));
                let told = peer.frame();
                let text = String::from_utf8_lossy(&told.body).into_owned();
                assert_eq!((told.kind, told.code), (GOAWAY, 3), "{block:?}: {text}");
                peer.expect_end();
                until("it is counted", || counters(&server).since(&before).protocol_errors == 1);
            }
        }
        let mut peer = Peer::open(server.address());
        let long = Frame { meta_len: 513, ..request(call(0, 1), PostClient::SEND, b"") };
        peer.send(&long);
        let text = "metadata of 8208 bytes, the limit is 8192; send less";
        peer.expect_goaway(Code::InvalidArgument, text);
        // No handler has run.
        assert_eq!(counters(&server).calls_inline, 0);
    });
}

#[test]
fn keys_that_are_not_known_are_carried() {
    watched(|| {
        let server = serve(ShardConfig::new());
        let mut peer = Peer::open(server.address());
        let block = pad([&[0xff, 0x7f, 2, 0, 0][..], b"ok"].concat());
        peer.send(&with_block(REQUEST, &block));
        let answer = peer.frame();
        // Beside the reply, as it came.
        assert_eq!((answer.kind, answer.code, answer.meta_len), (RESPONSE, 0, 1), "{answer:?}");
        assert_eq!(answer.body[..16], block);
    });
}

#[test]
fn a_call_of_an_unknown_method_with_metadata_is_refused_alone() {
    watched(|| {
        let server = serve(ShardConfig::new());
        let mut peer = Peer::open(server.address());
        peer.send(&Frame { code: 9, ..with_block(REQUEST, some().as_bytes()) });
        let refused = peer.frame();
        assert_eq!((refused.code, refused.flags), (Code::Unimplemented as u32, NOT_EXECUTED));
        let message = archive(&text(20));
        peer.send(&request(call(0, 2), PostClient::SEND, &message));
        let answer = peer.frame();
        let nothing = Seen { in_place: true, entries: Vec::new() };
        assert_eq!(answer, reply(call(0, 2), &archive(&nothing)));
    });
}

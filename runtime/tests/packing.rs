//! Packed bodies through real sockets: compressed, with checksums, both, and neither where one
//! side has not said that it can.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod support;

use std::{cell::Cell, future::Future, rc::Rc};

use ringcall::{
    Compression, Context, Key, Metadata, Request, RunConfig, ServerHandle, ShardConfig,
    ShardCounters, Sink, Source, Status,
};
use support::{
    event::Gate,
    server,
    wait::{all, watched, watched_for},
};

#[ringcall::message]
pub struct Text {
    pub number: u64,
    pub bytes: Vec<u8>,
}

#[ringcall::message]
pub struct Count {
    pub count: u64,
}

#[ringcall::service]
pub trait Post {
    /// Replies with the same bytes, and the caller's tenant as metadata.
    async fn echo(&self, cx: &Context, request: Request<'_, Text>) -> Result<Text, Status>;

    /// Replies with so many zeros.
    async fn zeros(&self, cx: &Context, request: Request<'_, Count>) -> Result<Text, Status>;

    /// Counts a text whose bytes are what its number says.
    #[rpc(oneway)]
    async fn note(&self, cx: &Context, request: Request<'_, Text>);

    /// Replies when so many have been noted.
    async fn noted(&self, cx: &Context, request: Request<'_, Count>) -> Result<Count, Status>;

    /// Sends back each text.
    async fn stream(
        &self,
        cx: &Context,
        request: Request<'_, Count>,
        texts: Source<Text>,
        back: Sink<'_, Text>,
    ) -> Result<Text, Status>;

    /// Takes no text, and replies when so many have been noted.
    async fn ignore(
        &self,
        cx: &Context,
        request: Request<'_, Count>,
        texts: Source<Text>,
    ) -> Result<Text, Status>;
}

#[derive(Clone, Default)]
struct Service {
    noted: Rc<Cell<u64>>,
    gate: Gate,
}

impl Post for Service {
    async fn echo(&self, cx: &Context, request: Request<'_, Text>) -> Result<Text, Status> {
        if let Some(tenant) = cx.metadata().get(Key::TENANT) {
            let mut metadata = Metadata::new();
            metadata.insert(Key::TENANT, tenant).unwrap();
            cx.set_reply_metadata(metadata);
        }
        request.to_owned()
    }

    async fn zeros(&self, _: &Context, request: Request<'_, Count>) -> Result<Text, Status> {
        let len = request.count.to_native();
        Ok(Text { number: len, bytes: vec![0; len as usize] })
    }

    async fn note(&self, _: &Context, request: Request<'_, Text>) {
        let number = request.number.to_native();
        let expected = Text::plain(number, request.bytes.len());
        if request.bytes.as_slice() == expected.bytes {
            self.noted.set(self.noted.get() + 1);
            self.gate.open();
        }
    }

    async fn noted(&self, _: &Context, request: Request<'_, Count>) -> Result<Count, Status> {
        while self.noted.get() < request.count.to_native() {
            self.gate.wait().await;
        }
        Ok(Count { count: self.noted.get() })
    }

    async fn stream(
        &self,
        _: &Context,
        _: Request<'_, Count>,
        mut texts: Source<Text>,
        back: Sink<'_, Text>,
    ) -> Result<Text, Status> {
        let mut count = 0;
        while let Some(text) = texts.next().await? {
            back.send(&text.to_owned()?).await?;
            count += 1;
        }
        Ok(Text::plain(count, 5_000))
    }

    async fn ignore(
        &self,
        _: &Context,
        request: Request<'_, Count>,
        _: Source<Text>,
    ) -> Result<Text, Status> {
        let count = request.count.to_native();
        while self.noted.get() < count {
            self.gate.wait().await;
        }
        Ok(Text::plain(count, 5_000))
    }
}

impl Text {
    /// Bytes that compress well.
    fn plain(number: u64, len: usize) -> Self {
        let bytes = (0..len as u64).map(|at| ((at / 64) ^ number) as u8).collect();
        Self { number, bytes }
    }

    /// Bytes that do not compress.
    fn random(number: u64, len: usize) -> Self {
        Self { number, bytes: support::raw::Random::new(number + 1).bytes(len) }
    }
}

const LENGTHS: [usize; 8] = [0, 1, 100, 4_000, 16_000, 70_000, 1 << 20, 5];

fn config() -> ShardConfig {
    ShardConfig::new()
}

/// Each way to pack, and whether it compresses.
fn ways() -> [(ShardConfig, bool); 5] {
    let lz4 = || config().compression(Compression::Lz4, 64);
    let zstd = || config().compression(Compression::Zstd(3), 64);
    [
        (lz4(), true),
        (zstd(), true),
        (config().checksums(true), false),
        (lz4().checksums(true), true),
        (zstd().checksums(true), true),
    ]
}

fn serve(config: ShardConfig) -> ServerHandle {
    server::serve(config, || PostServer::new(Service::default()))
}

/// Runs a client against a server, and gives what each counted.
fn with_client<F: Future<Output = ()>>(
    server: ShardConfig,
    client: ShardConfig,
    test: impl FnOnce(PostClient) -> F,
) -> (ShardCounters, ShardCounters) {
    let server = serve(server);
    let run = RunConfig::new().shard(client).run(async {
        test(PostClient::connect(server.address()).await.unwrap()).await;
        ringcall::counters().unwrap()
    });
    (run.unwrap(), server::counters(&server))
}

async fn calls(client: &PostClient) {
    for (number, len) in (0..).zip(LENGTHS) {
        for text in [Text::plain(number, len), Text::random(number, len)] {
            let reply = client.echo(&text).await.unwrap();
            assert_eq!(
                (reply.number.to_native(), reply.bytes.as_slice()),
                (number, &text.bytes[..])
            );
            assert!(reply.metadata().get(Key::TENANT).is_none());
            let mut metadata = Metadata::new();
            metadata.insert(Key::TENANT, vec![b'a'; 1 + len % 3_000]).unwrap();
            let reply = client.echo(&text).metadata(&metadata).await.unwrap();
            assert_eq!(reply.bytes.as_slice(), text.bytes);
            assert_eq!(reply.metadata().get(Key::TENANT), metadata.as_ref().get(Key::TENANT));
        }
    }
}

async fn one_ways(client: &PostClient) {
    for (number, len) in (0..).zip(LENGTHS) {
        client.note(&Text::plain(number, len)).await.unwrap();
    }
    let count = LENGTHS.len() as u64;
    assert_eq!(client.noted(&Count { count }).await.unwrap().count, count);
}

async fn streams(client: &PostClient) {
    let mut stream = client.stream(&Count { count: 0 }).await.unwrap();
    for (number, len) in (0..).zip(LENGTHS) {
        for text in [Text::plain(number, len), Text::random(number, len)] {
            stream.send(&text).await.unwrap();
            let back = stream.next().await.unwrap().unwrap();
            assert_eq!((back.number.to_native(), back.bytes.as_slice()), (number, &text.bytes[..]));
        }
    }
    let reply = stream.finish().await.unwrap();
    assert_eq!(reply.number, 2 * LENGTHS.len() as u64);
    assert_eq!(reply.bytes.as_slice(), Text::plain(reply.number.to_native(), 5_000).bytes);
}

#[test]
fn everything_travels_packed_in_every_way() {
    watched(|| {
        for (config, compresses) in ways() {
            let counters = with_client(config.clone(), config, async |client| {
                calls(&client).await;
                one_ways(&client).await;
                streams(&client).await;
            });
            for counters in [counters.0, counters.1] {
                assert_eq!(counters.frames_decompressed > 0, compresses, "{counters:?}");
                assert_eq!((counters.protocol_errors, counters.calls_refused), (0, 0));
                assert_eq!((counters.calls_cut, counters.notices), (0, 0));
            }
        }
    });
}

#[test]
fn each_frame_that_got_shorter_is_counted_once_where_it_is_decompressed() {
    watched(|| {
        for (config, compresses) in ways() {
            let (client, server) = with_client(config.clone(), config, async |client| {
                for number in 0..100 {
                    client.echo(&Text::plain(number, 1_000)).await.unwrap();
                    // Too short, and not to be shortened.
                    client.echo(&Text::plain(number, 3)).await.unwrap();
                    client.echo(&Text::random(number, 1_000)).await.unwrap();
                }
            });
            let expected = if compresses { 100 } else { 0 };
            for counters in [client, server] {
                assert_eq!(counters.frames_decompressed, expected);
                // A text of that length is an archive of so many bytes.
                assert!(counters.bytes_copied >= 1_016 * expected, "{counters:?}");
            }
        }
    });
}

#[test]
fn nothing_is_packed_where_one_side_has_not_said_that_it_can() {
    watched(|| {
        // One call at a time, so that the same frames travel each time.
        let bytes = |server, client| {
            let counters = with_client(server, client, async |client| calls(&client).await);
            for counters in [counters.0, counters.1] {
                assert_eq!((counters.frames_decompressed, counters.protocol_errors), (0, 0));
            }
            (counters.0.bytes_received, counters.1.bytes_received)
        };
        let plain = bytes(config(), config());
        let lz4 = || config().compression(Compression::Lz4, 64);
        for (way, _) in ways() {
            assert_eq!(bytes(way.clone(), config()), plain);
            assert_eq!(bytes(config(), way), plain);
        }
        assert_eq!(bytes(lz4(), config().checksums(true)), plain);
    });
}

#[test]
fn each_side_compresses_in_its_own_way() {
    watched(|| {
        let lz4 = config().compression(Compression::Lz4, 64);
        let zstd = config().compression(Compression::Zstd(19), 64).checksums(true);
        for (server, client) in [(lz4.clone(), zstd.clone()), (zstd, lz4)] {
            let counters = with_client(server, client, async |client| {
                calls(&client).await;
                streams(&client).await;
            });
            for counters in [counters.0, counters.1] {
                assert!(counters.frames_decompressed > 0);
                assert_eq!(counters.protocol_errors, 0);
            }
        }
    });
}

#[test]
fn a_long_reply_that_compresses_well_sends_few_bytes() {
    watched(|| {
        for (config, compresses) in ways() {
            let (client, server) = with_client(config.clone(), config, async |client| {
                let reply = client.zeros(&Count { count: 1 << 20 }).await.unwrap();
                assert_eq!(reply.bytes.as_slice(), vec![0; 1 << 20]);
            });
            let sent = server.bytes_sent;
            assert_eq!(client.bytes_received, sent);
            assert_eq!(sent < 10_000, compresses, "{sent} bytes were sent");
            assert!(sent >= server.bytes_encoded, "what is counted as encoded is what is sent");
        }
    });
}

#[test]
fn many_replies_are_held_packed_or_not() {
    watched(|| {
        for (config, _) in ways() {
            with_client(config.clone(), config, async |client| {
                let texts: Vec<_> = (0..200).map(|number| Text::plain(number, 9_000)).collect();
                let replies = all(texts.iter().map(|text| async { client.echo(text).await })).await;
                for (reply, text) in replies.iter().zip(&texts) {
                    assert_eq!(reply.as_ref().unwrap().bytes.as_slice(), text.bytes);
                }
            });
        }
    });
}

#[test]
fn the_reply_of_a_stream_is_packed_behind_the_credit_that_goes_before_it() {
    watched(|| {
        for (config, _) in ways() {
            let config = config.stream_windows(4096, 8192);
            let counters = with_client(config.clone(), config, async |client| {
                for count in 1..=50 {
                    let stream = client.ignore(&Count { count }).await.unwrap();
                    // More than half of the connection's window: granted anew by the end.
                    for number in 0..2 {
                        stream.send(&Text::random(number, 3_000)).await.unwrap();
                    }
                    client.note(&Text::plain(count, 100)).await.unwrap();
                    let reply = stream.finish().await.unwrap();
                    assert_eq!(reply.bytes.as_slice(), Text::plain(count, 5_000).bytes);
                }
            });
            assert_eq!((counters.0.protocol_errors, counters.1.protocol_errors), (0, 0));
            assert_eq!(counters.1.items_received, 100);
        }
    });
}

#[test]
fn credit_does_not_leak_over_100_000_compressed_items() {
    const ITEMS: u64 = 100_000;
    watched_for(std::time::Duration::from_secs(240), || {
        let config = config().compression(Compression::Lz4, 64).checksums(true);
        // A few bytes lost with each item would leave nothing of these.
        let config = config.stream_windows(4096, 8192);
        let (client, server) = with_client(config.clone(), config, async |client| {
            let mut stream = client.stream(&Count { count: 0 }).await.unwrap();
            let text = |number: u64| match number % 3 {
                0 => Text::plain(number, 2_000),
                1 => Text::random(number, 300),
                _ => Text::plain(number, 10),
            };
            for first in (0..ITEMS).step_by(8) {
                for number in first..first + 8 {
                    stream.send(&text(number)).await.unwrap();
                }
                for number in first..first + 8 {
                    let back = stream.next().await.unwrap().unwrap();
                    assert_eq!(back.number, number);
                    if number % 997 < 3 {
                        assert_eq!(back.bytes.as_slice(), text(number).bytes);
                    }
                }
            }
            assert_eq!(stream.finish().await.unwrap().number, ITEMS);
        });
        for counters in [client, server] {
            assert_eq!((counters.items_sent, counters.items_received), (ITEMS, ITEMS));
            // The reply of the stream is one more.
            assert!(counters.frames_decompressed - ITEMS.div_ceil(3) <= 1, "{counters:?}");
        }
    });
}

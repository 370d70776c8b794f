//! What is read in place, and what is copied, by size: the addresses and the counters say so.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod support;

use std::hash::{DefaultHasher, Hasher};

use ringcall::{ShardConfig, ShardCounters, is_in_receive_pool, prelude::*};
use support::{
    caller::Caller,
    server::{counters, frames, frames_copied, serve},
    wait::{all, until, until_async, watched},
};

#[ringcall::message]
pub struct Unit;

#[ringcall::message]
pub struct Byte(pub u8);

/// Its archive is the bytes, padding to a multiple of 4, and 8 bytes that say where they are.
#[ringcall::message]
pub struct Blob<'a> {
    pub bytes: &'a [u8],
}

#[ringcall::message]
pub struct Wanted {
    pub len: u32,
    pub seed: u32,
}

/// What a handler saw of its request.
#[ringcall::message]
pub struct Seen {
    pub in_pool: bool,
    pub hash: u64,
}

#[ringcall::service]
pub trait Probe {
    async fn see_unit(&self, cx: &Context, request: Request<'_, Unit>) -> Result<Seen, Status>;
    async fn see_byte(&self, cx: &Context, request: Request<'_, Byte>) -> Result<Seen, Status>;
    async fn see(&self, cx: &Context, request: Request<'_, Blob<'_>>) -> Result<Seen, Status>;
    async fn unit(&self, cx: &Context, request: Request<'_, Unit>) -> Result<Unit, Status>;
    async fn byte(&self, cx: &Context, request: Request<'_, Byte>) -> Result<Byte, Status>;
    async fn want<'s>(
        &'s self,
        cx: &Context,
        wanted: Request<'_, Wanted>,
    ) -> Result<Blob<'s>, Status>;
    async fn pass<'a>(
        &self,
        cx: &Context,
        request: Request<'a, Blob<'a>>,
    ) -> Result<Blob<'a>, Status>;
}

struct Witness {
    pattern: Vec<u8>,
}

impl Probe for Witness {
    async fn see_unit(&self, _: &Context, request: Request<'_, Unit>) -> Result<Seen, Status> {
        let in_pool = is_in_receive_pool(request.get());
        Ok(Seen { in_pool, hash: 0 })
    }

    async fn see_byte(&self, _: &Context, request: Request<'_, Byte>) -> Result<Seen, Status> {
        let in_pool = is_in_receive_pool(request.get());
        Ok(Seen { in_pool, hash: request.0.into() })
    }

    async fn see(&self, _: &Context, request: Request<'_, Blob<'_>>) -> Result<Seen, Status> {
        Ok(Seen {
            in_pool: is_in_receive_pool(request.get()) && are_in_pool(&request.bytes),
            hash: hash(&request.bytes),
        })
    }

    async fn unit(&self, _: &Context, _: Request<'_, Unit>) -> Result<Unit, Status> {
        Ok(Unit)
    }

    async fn byte(&self, _: &Context, request: Request<'_, Byte>) -> Result<Byte, Status> {
        Ok(Byte(request.0))
    }

    async fn want<'s>(
        &'s self,
        _: &Context,
        wanted: Request<'_, Wanted>,
    ) -> Result<Blob<'s>, Status> {
        let (len, seed) = (wanted.len.to_native(), wanted.seed.to_native());
        Ok(Blob { bytes: part(&self.pattern, len as usize, seed as usize) })
    }

    async fn pass<'a>(
        &self,
        _: &Context,
        request: Request<'a, Blob<'a>>,
    ) -> Result<Blob<'a>, Status> {
        Ok(Blob { bytes: &request.get().bytes })
    }
}

const KIB: usize = 1024;

/// Lengths of bodies for which a pool buffer of 16 KiB is enough, with a header of 32 bytes: the
/// last is the longest.
const SMALL_BODIES: [usize; 4] = [64, 4 * KIB, 15 * KIB, 16 * KIB - 32];

/// Bytes that a blob has beside its own, where those are a multiple of 4.
const BLOB_TAIL: usize = 8;

/// What all bodies of the tests are cut from.
fn pattern() -> Vec<u8> {
    (0..9 << 20).map(|n: u32| (n ^ n >> 8 ^ n >> 16) as u8).collect()
}

fn part(pattern: &[u8], len: usize, seed: usize) -> &[u8] {
    &pattern[seed..seed + len]
}

fn hash(bytes: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    hasher.write(bytes);
    hasher.finish()
}

fn are_in_pool(bytes: &[u8]) -> bool {
    bytes.first().is_none_or(is_in_receive_pool) && bytes.last().is_none_or(is_in_receive_pool)
}

/// Length of the frame of a body.
fn frame_len(body_len: usize) -> u64 {
    (32 + body_len.next_multiple_of(16)) as u64
}

fn witness(config: ShardConfig) -> ServerHandle {
    serve(config, || ProbeServer::new(Witness { pattern: pattern() }))
}

fn client_counters() -> ShardCounters {
    ringcall::counters().unwrap()
}

/// Runs a test of a server and a client that is connected to it.
fn with_client(
    config: ShardConfig,
    test: impl AsyncFn(&ServerHandle, &ProbeClient) + Send + 'static,
) {
    watched(move || {
        let server = witness(config);
        ringcall::run(async {
            let probe = ProbeClient::connect(server.address()).await.unwrap();
            test(&server, &probe).await;
        })
        .unwrap();
    });
}

#[test]
fn a_request_is_read_in_the_receive_pool_whatever_its_size() {
    with_client(ShardConfig::default(), async |server, probe| {
        let pattern = pattern();
        let before = counters(server);
        assert!(probe.see_unit(&Unit).await.unwrap().in_pool);
        let seen = probe.see_byte(&Byte(7)).await.unwrap();
        assert!(seen.in_pool && seen.hash == 7);
        let mut bytes_received = frame_len(0) + frame_len(1);
        for body_len in SMALL_BODIES {
            let bytes = part(&pattern, body_len - BLOB_TAIL, body_len);
            let seen = probe.see(&Blob { bytes }).await.unwrap();
            assert_eq!(seen.hash, hash(bytes), "{body_len} bytes");
            assert!(seen.in_pool, "{body_len} bytes");
            bytes_received += frame_len(body_len);
        }
        let counted = counters(server).since(&before);
        assert_eq!(counted.bytes_received, bytes_received);
        assert_eq!(counted.frames_in_place, 6);
        assert_eq!(frames_copied(&counted), 0);
        assert_eq!(counted.bytes_copied, 0);
        assert_eq!(counted.calls_inline, 6);
    });
}

#[test]
fn a_response_is_read_in_the_receive_pool_whatever_its_size() {
    with_client(ShardConfig::default(), async |server, probe| {
        let pattern = pattern();
        let (before, server_before) = (client_counters(), counters(server));
        assert!(is_in_receive_pool(&*probe.unit(&Unit).await.unwrap()));
        let byte = probe.byte(&Byte(9)).await.unwrap();
        assert!(is_in_receive_pool(&*byte) && byte.0 == 9);
        let mut bytes_received = frame_len(0) + frame_len(1);
        for body_len in SMALL_BODIES {
            let len = body_len - BLOB_TAIL;
            let wanted = Wanted { len: len as u32, seed: 3 };
            let got = probe.want(&wanted).await.unwrap();
            assert_eq!(*got.bytes, *part(&pattern, len, 3));
            assert!(is_in_receive_pool(&*got) && are_in_pool(&got.bytes), "{body_len} bytes");
            bytes_received += frame_len(body_len);
        }
        let counted = client_counters().since(&before);
        assert_eq!(counted.bytes_received, bytes_received);
        assert_eq!(counted.frames_in_place, 6);
        assert_eq!(frames_copied(&counted), 0);
        assert_eq!(counted.bytes_copied, 0);
        let encoded = counters(server).since(&server_before).bytes_encoded;
        assert_eq!(encoded, bytes_received, "each reply was encoded once");
    });
}

#[test]
fn of_a_large_body_only_what_came_before_the_switch_is_copied() {
    for (body_len, prefix_len) in [
        (60 * KIB, 32),
        (60 * KIB, 16 * KIB),
        (60 * KIB, 40_000),
        (16 * KIB - 16, 5000),
        (8 << 20, 33),
        (8 << 20, 100 * KIB),
    ] {
        watched(move || {
            let pattern = pattern();
            let server = witness(ShardConfig::default());
            let mut caller = Caller::connect(server.address());
            let before = counters(&server);
            let bytes = part(&pattern, body_len - BLOB_TAIL, 5);
            let frame = caller.frame(ProbeClient::SEE, &Blob { bytes });
            assert_eq!(frame.len() as u64, frame_len(body_len));
            caller.send(&frame[..prefix_len]);
            until("the prefix is copied", || {
                counters(&server).since(&before).frames_copied_large == 1
            });
            // The kernel may have given the prefix in parts; all of it is copied in the end.
            let received = counters(&server).since(&before).bytes_received;
            assert!(received <= prefix_len as u64);
            caller.send(&frame[prefix_len..]);
            let (hash_seen, in_pool) =
                caller.reply::<Seen, _>(|seen| (seen.hash.to_native(), seen.in_pool));
            assert_eq!(hash_seen, hash(bytes));
            assert!(!in_pool, "no pool buffer holds it");
            let counted = counters(&server).since(&before);
            assert_eq!(counted.bytes_copied, received, "{body_len} after {prefix_len}");
            assert_eq!(counted.bytes_received, frame.len() as u64);
            assert_eq!(frames(&counted), 1);
        });
    }
}

#[test]
fn large_bodies_that_follow_a_large_one_are_not_copied() {
    with_client(ShardConfig::default(), async |server, probe| {
        let pattern = pattern();
        let (before, before_client) = (counters(server), client_counters());
        let bytes = part(&pattern, 60 * KIB, 0);
        probe.pass(&Blob { bytes }).await.unwrap();
        let first = counters(server);
        let first_client = client_counters();
        for counted in [first.since(&before), first_client.since(&before_client)] {
            assert_eq!((counted.frames_copied_large, frames(&counted)), (1, 1));
            assert!(counted.bytes_copied <= frame_len(60 * KIB + BLOB_TAIL));
        }
        for seed in 1..=50 {
            let bytes = part(&pattern, 60 * KIB, seed);
            let got = probe.pass(&Blob { bytes }).await.unwrap();
            assert_eq!(*got.bytes, *bytes);
        }
        for counted in [counters(server).since(&first), client_counters().since(&first_client)] {
            assert_eq!(counted.bytes_copied, 0);
            assert_eq!((counted.frames_in_place, frames(&counted)), (50, 50));
        }
    });
}

#[test]
fn small_bodies_after_large_ones_are_read_in_the_pool_again() {
    with_client(ShardConfig::default(), async |server, probe| {
        let pattern = pattern();
        for len in [60 * KIB, 8 << 20, 17 * KIB] {
            for _ in 0..2 {
                let bytes = part(&pattern, len, 1);
                let seen = probe.see(&Blob { bytes }).await.unwrap();
                assert_eq!((seen.hash.to_native(), seen.in_pool), (hash(bytes), false));
            }
            // The first small one arrives where a large one was expected.
            let bytes = part(&pattern, 100, 2);
            assert_eq!(probe.see(&Blob { bytes }).await.unwrap().hash, hash(bytes));
            let before = counters(server);
            for seed in 0..10 {
                let bytes = part(&pattern, 100, seed);
                let seen = probe.see(&Blob { bytes }).await.unwrap();
                assert_eq!((seen.hash.to_native(), seen.in_pool), (hash(bytes), true));
            }
            let counted = counters(server).since(&before);
            assert_eq!((counted.frames_in_place, frames(&counted)), (10, 10));
        }
    });
}

#[test]
fn bodies_of_mixed_sizes_arrive_byte_for_byte() {
    with_client(ShardConfig::default(), async |server, probe| {
        let pattern = pattern();
        const LENS: [usize; 12] =
            [0, 1, 100, 3000, 16_344, 16_345, 20_000, 60_000, 61_440, 65_536, 300_000, 1_200_000];
        // Every length after every other.
        let lens: Vec<_> = LENS
            .iter()
            .flat_map(|first| LENS.iter().flat_map(|second| [*first, *second]))
            .filter(|len| *len < 1_000_000)
            .chain([1_200_000, 10, 1_200_000, 60_000, 1_200_000])
            .collect();
        let pass = async |(seed, len): (usize, usize)| {
            let bytes = part(&pattern, len, seed);
            let got = probe.pass(&Blob { bytes }).await.unwrap();
            assert_eq!(got.bytes.len(), len);
            assert!(*got.bytes == *bytes, "call {seed} of {len} bytes");
        };
        let (before, before_client) = (counters(server), client_counters());
        for call in lens.iter().copied().enumerate() {
            pass(call).await;
        }
        all(lens.iter().copied().enumerate().map(pass)).await;
        let calls = 2 * lens.len() as u64;
        let counted = || [counters(server).since(&before), client_counters().since(&before_client)];
        for counted in counted() {
            assert_eq!(frames(&counted), calls, "each frame is counted once: {counted:?}");
        }
        // The last send may be counted after its bytes have come.
        let all_came = |[ours, theirs]: [ShardCounters; 2]| {
            ours.bytes_received == theirs.bytes_sent && theirs.bytes_received == ours.bytes_sent
        };
        until_async("what was sent has come", || all_came(counted())).await;
    });
}

#[test]
fn frames_that_straddle_buffers_are_copied_once() {
    with_client(ShardConfig::default(), async |server, probe| {
        let pattern = pattern();
        let lens: Vec<_> = (0..1000).map(|n| 100 + n * 7919 % 2901).collect();
        let (before, before_client) = (counters(server), client_counters());
        let got = all(lens.iter().enumerate().map(async |(seed, len)| {
            let bytes = part(&pattern, *len, seed);
            let got = probe.pass(&Blob { bytes }).await.unwrap();
            assert!(*got.bytes == *bytes, "call {seed} of {len} bytes");
            drop(got);
        }))
        .await;
        assert_eq!(got.len(), 1000);
        for counted in [counters(server).since(&before), client_counters().since(&before_client)] {
            assert_eq!(frames(&counted), 1000);
            assert!(counted.frames_copied_straddle > 10, "{counted:?}");
            assert!(counted.frames_in_place > 0, "{counted:?}");
            let copied_max = frames_copied(&counted) * frame_len(3000 + BLOB_TAIL);
            assert!(counted.bytes_copied <= copied_max, "{counted:?}");
            assert_eq!(counted.frames_copied_large, 0);
        }
    });
}

#[test]
fn a_cut_frame_and_the_misaligned_one_behind_it_are_copied_once() {
    watched(|| {
        let server = witness(ShardConfig::default());
        let mut caller = Caller::connect(server.address());
        let before = counters(&server);
        let (first, second) = ([1; 100], [2; 200]);
        let mut frames_sent = caller.frame(ProbeClient::SEE, &Blob { bytes: &first });
        let first_len = frames_sent.len();
        frames_sent.extend(caller.frame(ProbeClient::SEE, &Blob { bytes: &second }));
        let cut = first_len - 5;
        caller.send(&frames_sent[..cut]);
        until("the first piece is there", || {
            counters(&server).since(&before).bytes_received == cut as u64
        });
        // The second frame begins five bytes into its buffer.
        caller.send(&frames_sent[cut..]);
        for bytes in [&first[..], &second] {
            let (hash_seen, in_pool) =
                caller.reply::<Seen, _>(|seen| (seen.hash.to_native(), seen.in_pool));
            assert_eq!((hash_seen, in_pool), (hash(bytes), false));
        }
        let counted = counters(&server).since(&before);
        assert_eq!(counted.frames_copied_straddle, 1);
        assert_eq!(counted.frames_copied_misaligned, 1);
        assert_eq!(frames(&counted), 2);
        let copied = first_len + second.len() + BLOB_TAIL;
        assert_eq!(counted.bytes_copied, copied as u64);
    });
}

#[test]
fn a_body_that_is_passed_through_is_copied_once_into_the_send_buffer() {
    with_client(ShardConfig::default(), async |server, probe| {
        let pattern = pattern();
        let len = 64 * KIB;
        for seed in 0..3 {
            let bytes = part(&pattern, len, seed);
            probe.pass(&Blob { bytes }).await.unwrap();
        }
        let before = counters(server);
        for seed in 0..20 {
            let bytes = part(&pattern, len, seed);
            let got = probe.pass(&Blob { bytes }).await.unwrap();
            assert_eq!(*got.bytes, *bytes);
        }
        let counted = counters(server).since(&before);
        assert_eq!(counted.bytes_encoded, 20 * frame_len(len + BLOB_TAIL));
        assert_eq!(counted.bytes_copied, 0);
        assert_eq!(counted.frames_in_place, 20);
        assert_eq!(counted.calls_inline, 20);
    });
}

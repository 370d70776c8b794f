//! Peers whose packed bodies are none, or are more than they seem: the connection ends, or the
//! call fails, what is held is bounded, and nobody else notices.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod support;

use std::{net::TcpListener, thread};

use ringcall::{Code, Compression, RunConfig, ShardConfig};
use ringcall_codec::features;
use support::{
    echo::{Blob, EchoClient, digest_of},
    host::Host,
    raw::{Frame, PACKED, Peer, archive, call, hello, hello_with, reply, request},
    wait::watched,
};

const CHECKSUM: u8 = 0x04;
const COMPRESSED: u8 = 0x08;

/// The bits of HELLO.
const SUMS: u64 = 1;
const LZ4: u64 = 2;
const ZSTD: u64 = 4;

const MIB: usize = 1 << 20;

/// A server that packs in every way.
fn host(config: ShardConfig) -> Host {
    Host::with(config.compression(Compression::Lz4, 64).checksums(true))
}

/// Opens a connection as a peer that has these features.
fn open(host: &Host, features: u64) -> Peer {
    let mut peer = Peer::connect(host.address());
    let mut hello = hello();
    hello.body[..8].copy_from_slice(&features.to_le_bytes());
    peer.send(&hello);
    let served = SUMS | LZ4 | ZSTD | features::KEYS | features::SHARDS;
    assert_eq!(peer.expect_hello().body[..8], served.to_le_bytes());
    peer
}

fn lz4(bytes: &[u8]) -> Vec<u8> {
    lz4_flex::block::compress(bytes)
}

fn zstd_of(bytes: &[u8]) -> Vec<u8> {
    zstd::bulk::compress(bytes, 3).unwrap()
}

/// A compressed body: its head, and what stands for the bytes.
fn body(len: usize, algorithm: u8, bytes: &[u8]) -> Vec<u8> {
    [&(len as u32).to_le_bytes()[..], &[algorithm, 0, 0, 0], bytes].concat()
}

/// A call whose body is compressed.
fn compressed(method: u32, body: &[u8]) -> Frame {
    Frame { flags: COMPRESSED, ..request(call(0, 1), method, body) }
}

fn summed(mut frame: Frame) -> Frame {
    let sum = crc32c::crc32c(&frame.body);
    frame.body.extend(sum.to_le_bytes());
    Frame { flags: frame.flags | CHECKSUM, ..frame }
}

/// The archive of a text that compresses well.
fn zeros(len: usize) -> Vec<u8> {
    archive(&Blob { id: 1, bytes: vec![0; len] })
}

#[test]
fn the_compressed_example_of_the_wire_format_is_what_it_says() {
    let doc = include_str!("../../docs/wire.md");
    let start = doc.find("```text compressed-reply").unwrap();
    let lines = doc[start..].lines().skip(1).take_while(|line| *line != "```");
    let bytes = lines.flat_map(|line| line.split(';').next().unwrap().split_whitespace());
    let bytes: Vec<_> = bytes.map(|byte| u8::from_str_radix(byte, 16).unwrap()).collect();
    let (head, rest) = (&bytes[32..40], &bytes[40..32 + usize::from(bytes[0])]);
    assert_eq!(head, body(100, 1, &[]));
    assert_eq!(lz4_flex::block::decompress(rest, 100).unwrap(), [7; 100]);
}

#[test]
fn a_packed_call_of_a_peer_is_read_and_answered_packed() {
    watched(|| {
        let host = host(ShardConfig::new());
        let archive = zeros(1_000);
        for (features, packed) in [
            (LZ4, compressed(EchoClient::ECHO, &body(archive.len(), 1, &lz4(&archive)))),
            (ZSTD | LZ4, compressed(EchoClient::ECHO, &body(archive.len(), 2, &zstd_of(&archive)))),
        ] {
            for features in [features, features | SUMS] {
                let packed =
                    if features & SUMS == 0 { packed.clone() } else { summed(packed.clone()) };
                let mut peer = open(&host, features);
                peer.send(&packed);
                let mut answer = peer.frame();
                assert_eq!(answer.flags, packed.flags);
                if features & SUMS != 0 {
                    let sum = answer.body.split_off(answer.body.len() - 4);
                    assert_eq!(sum, crc32c::crc32c(&answer.body).to_le_bytes());
                }
                assert_eq!(answer.body[..8], body(archive.len(), 1, &[])[..]);
                let bytes = lz4_flex::block::decompress(&answer.body[8..], archive.len());
                assert_eq!(bytes.unwrap(), archive);
            }
        }
        host.is_unharmed();
    });
}

#[test]
fn a_peer_with_one_algorithm_is_answered_in_it_or_plainly() {
    watched(|| {
        // The server compresses by LZ4.
        let host = host(ShardConfig::new());
        let archive = zeros(1_000);
        let mut peer = open(&host, ZSTD);
        peer.send(&compressed(EchoClient::ECHO, &body(archive.len(), 2, &zstd_of(&archive))));
        let answer = peer.frame();
        assert_eq!(answer, reply(call(0, 1), &archive));
    });
}

#[test]
fn what_was_not_agreed_on_ends_the_connection() {
    watched(|| {
        let host = host(ShardConfig::new());
        let archive = zeros(1_000);
        let lz4 = compressed(EchoClient::ECHO, &body(archive.len(), 1, &lz4(&archive)));
        let zstd = compressed(EchoClient::ECHO, &body(archive.len(), 2, &zstd_of(&archive)));
        let sum = summed(request(call(0, 1), EchoClient::ECHO, &archive));
        let both = summed(lz4.clone());
        for (features, frame) in [
            (0, &lz4),
            (0, &zstd),
            (0, &sum),
            (SUMS, &lz4),
            (LZ4 | ZSTD, &sum),
            (LZ4 | ZSTD, &both),
            (SUMS, &both),
            // The algorithm is within the body.
            (LZ4, &zstd),
            (ZSTD, &lz4),
            (ZSTD | SUMS, &both),
        ] {
            let mut peer = open(&host, features);
            let text = "packed body in a REQUEST frame, which the two sides have not agreed on";
            host.refuses_on(&mut peer, &frame.bytes(), Code::InvalidArgument, text);
        }
    });
}

#[test]
fn a_body_that_is_not_what_its_checksum_says_ends_the_connection() {
    watched(|| {
        let host = host(ShardConfig::new());
        let archive = zeros(100);
        let frame = summed(request(call(0, 1), EchoClient::ECHO, &archive));
        let compressed =
            summed(compressed(EchoClient::ECHO, &body(archive.len(), 1, &lz4(&archive))));
        let text = "wrong checksum: the body was damaged on its way";
        for frame in [frame, compressed] {
            for at in [0, frame.body.len() / 2, frame.body.len() - 5, frame.body.len() - 1] {
                let mut frame = frame.clone();
                frame.body[at] ^= 0x10;
                let mut peer = open(&host, SUMS | LZ4 | ZSTD);
                host.refuses_on(&mut peer, &frame.bytes(), Code::DataLoss, text);
            }
        }
        for len in 0..4 {
            let short =
                Frame { flags: CHECKSUM, ..request(call(0, 1), EchoClient::ECHO, &[0; 4][..len]) };
            let mut peer = open(&host, SUMS);
            host.refuses_on(&mut peer, &short.bytes(), Code::DataLoss, text);
        }
    });
}

#[test]
fn a_checksum_is_not_looked_for_in_the_metadata() {
    watched(|| {
        let host = host(ShardConfig::new());
        // The last four bytes of the metadata are the checksum of what is before them.
        let metadata = [&[0; 12][..], &crc32c::crc32c(&[0; 12]).to_le_bytes()].concat();
        let frame = Frame {
            meta_len: 1,
            flags: CHECKSUM,
            ..request(call(0, 1), EchoClient::RELEASE, &metadata)
        };
        let mut peer = open(&host, SUMS);
        let text = "wrong checksum: the body was damaged on its way";
        host.refuses_on(&mut peer, &frame.declaring(0), Code::DataLoss, text);
    });
}

#[test]
fn a_body_that_does_not_decompress_to_what_it_says_ends_the_connection() {
    watched(|| {
        let host = host(ShardConfig::new());
        let archive = zeros(1_000);
        let (len, lz4, zstd) = (archive.len(), lz4(&archive), zstd_of(&archive));
        let twice = [&zstd[..], &zstd_of(b"")].concat();
        for body in [
            vec![],
            vec![0; 7],
            body(len, 0, &lz4),
            body(len, 3, &lz4),
            body(len, 1, &zstd),
            body(len, 2, &lz4),
            // One byte more or less than there is, and nothing.
            body(len + 1, 1, &lz4),
            body(len - 1, 1, &lz4),
            body(0, 1, &lz4),
            body(len + 1, 2, &zstd),
            body(len - 1, 2, &zstd),
            body(0, 2, &zstd),
            body(len, 1, &lz4[..lz4.len() - 1]),
            body(len, 2, &zstd[..zstd.len() - 1]),
            body(len, 1, b""),
            body(len, 2, b""),
            body(len, 2, &twice),
            // A repetition of what is not there yet, in a buffer that was somebody else's: from
            // no byte back, and from before the first.
            body(20, 1, &[0x1a, 7, 0, 0, 0x50, 7, 7, 7, 7, 7]),
            body(20, 1, &[0x1a, 7, 2, 0, 0x50, 7, 7, 7, 7, 7]),
            body(16 * MIB - 32, 1, &[0xff; 20]),
            body(16 * MIB - 32, 2, &[0; 20]),
        ] {
            let mut peer = open(&host, LZ4 | ZSTD);
            let frame = compressed(EchoClient::DIGEST, &body).bytes();
            let text = "malformed compressed body";
            host.refuses_on(&mut peer, &frame, Code::InvalidArgument, text);
        }
        assert_eq!(host.counters().frames_decompressed, 0);
    });
}

#[test]
fn a_length_beyond_the_limit_ends_the_connection_from_the_head() {
    watched(|| {
        let host = host(ShardConfig::new().frame_len_max(1 << 20));
        for len in [MIB - 31, 16 * MIB, 1 << 30, u32::MAX as usize] {
            let frame_len = (32 + len as u64).next_multiple_of(16);
            let text = format!(
                "frame of {frame_len} bytes, the limit is 1048576; raise frame_len_max or send less at a time"
            );
            let mut peer = open(&host, LZ4);
            let frame = compressed(EchoClient::DIGEST, &body(len, 1, &[0; 20])).bytes();
            host.refuses_on(&mut peer, &frame, Code::ResourceExhausted, &text);
        }
        // Metadata counts.
        let len = MIB - 32 - 16 + 1;
        let block = [&[0; 16][..], &body(len, 1, &[0; 20])].concat();
        let frame = Frame { meta_len: 1, ..compressed(EchoClient::DIGEST, &block) };
        let mut bytes = frame.declaring(block.len() as u32 - 16);
        bytes.resize(bytes.len().next_multiple_of(16), 0);
        let text = format!(
            "frame of {} bytes, the limit is 1048576; raise frame_len_max or send less at a time",
            MIB + 16
        );
        let mut peer = open(&host, LZ4);
        host.refuses_on(&mut peer, &bytes, Code::ResourceExhausted, &text);
    });
}

#[test]
fn the_longest_body_travels_compressed() {
    watched(|| {
        let host = host(ShardConfig::new().frame_len_max(1 << 20));
        let archive = zeros(MIB - 32 - 16);
        assert_eq!(archive.len(), MIB - 32);
        let mut peer = open(&host, ZSTD);
        let body = body(archive.len(), 2, &zstd_of(&archive));
        peer.send(&compressed(EchoClient::DIGEST, &body));
        let digest = support::raw::archive(&digest_of(1, &vec![0; MIB - 48]));
        assert_eq!(peer.frame(), reply(call(0, 1), &digest));
    });
}

#[test]
fn a_body_that_was_compressed_is_validated_as_every_other() {
    watched(|| {
        let host = host(ShardConfig::new());
        let mut peer = open(&host, LZ4 | ZSTD | SUMS);
        let garbage = [0xff; 200];
        for (generation, body) in
            (1..).zip([body(200, 1, &lz4(&garbage)), body(200, 2, &zstd_of(&garbage))])
        {
            let id = call(0, generation);
            peer.send(&summed(Frame { call: id, ..compressed(EchoClient::DIGEST, &body) }));
            let answer = peer.frame();
            assert_eq!((answer.call, answer.code), (id, Code::InvalidArgument as u32));
            assert_eq!(answer.flags, support::raw::NOT_EXECUTED);
        }
        // The connection goes on.
        let archive = zeros(1_000);
        let body = body(archive.len(), 1, &lz4(&archive));
        let id = call(0, 3);
        peer.send(&summed(Frame { call: id, ..compressed(EchoClient::ECHO, &body) }));
        assert_eq!(peer.frame().flags, PACKED);
        let counters = host.counters();
        assert_eq!((counters.calls_refused, counters.frames_decompressed), (2, 3));
        assert_eq!(counters.protocol_errors, 0);
    });
}

#[test]
fn bodies_that_are_held_decompressed_are_bounded_by_the_memory_of_the_shard() {
    watched(|| {
        // A megabyte each, of some dozen bytes on the way.
        let archive = zeros(MIB - 64);
        let body = body(archive.len(), 2, &zstd_of(&archive));
        assert!(body.len() < 200);
        let host = host(ShardConfig::new().memory_max(8 * MIB));
        let before = host.counters();
        let mut peer = open(&host, ZSTD);
        let mut stream = Vec::new();
        for slot in 0..100 {
            let id = call(slot, 1);
            stream.extend(Frame { call: id, ..compressed(EchoClient::HOLD, &body) }.bytes());
        }
        let text = format!(
            "no memory for a frame of {} bytes; send less at a time, or later",
            archive.len()
        );
        host.refuses_on(&mut peer, &stream, Code::ResourceExhausted, &text);
        let since = host.counters().since(&before);
        let held = since.frames_decompressed;
        assert!((1..=8).contains(&held), "{held} were held");
        assert_eq!(since.calls_cut, held);
        // And what was held has been given back.
        let mut peer = open(&host, ZSTD);
        for generation in 1..=20 {
            let id = call(0, generation);
            peer.send(&Frame { call: id, ..compressed(EchoClient::DIGEST, &body) });
            let answer = peer.frame();
            assert_eq!((answer.call, answer.code), (id, 0));
        }
    });
}

#[test]
fn a_server_whose_replies_are_damaged_is_left() {
    watched(|| {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let server = thread::spawn(move || {
            let mut peer = Peer::accept(&listener);
            peer.expect_hello();
            let mut hello = hello_with(EchoClient::METHODS);
            hello.body[..8].copy_from_slice(&SUMS.to_le_bytes());
            // The one shard of a server.
            hello.body[26] = 1;
            peer.send(&hello);
            let mut asked = peer.frame();
            assert_eq!(asked.flags, CHECKSUM);
            let sum = asked.body.split_off(asked.body.len() - 4);
            assert_eq!(sum, crc32c::crc32c(&asked.body).to_le_bytes());
            let mut answer = summed(reply(asked.call, &archive(&digest_of(1, b""))));
            answer.body[3] ^= 1;
            peer.send(&answer);
            peer.expect_goaway(Code::DataLoss, "wrong checksum: the body was damaged on its way");
        });
        let run = RunConfig::new().shard(ShardConfig::new().checksums(true)).run(async {
            let echo = EchoClient::connect(address).await.unwrap();
            let status = echo.digest(&Blob::new(1, 0)).await.err().unwrap();
            assert!(status.message().contains("wrong checksum"), "{status}");
            support::wait::until_async("the server is done", || server.is_finished()).await;
        });
        run.unwrap();
        server.join().unwrap();
    });
}

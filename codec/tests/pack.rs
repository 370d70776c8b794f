//! Packed bodies: what is packed is what is unpacked, and what is no packed body is found out
//! before anything is reserved for it.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use ringcall_codec::{
    Algorithm, CallId, CallOptions, Compressed, Decoder, EncodeError, Event, Flags, Header,
    ItemError, Key, Kind, Limits, Metadata, OpenError, SessionConfig, SessionError, StreamId,
    check_sum, compress_frame, compressed, features, limits::FRAME_LEN_MAX_DEFAULT, sum_frame,
};
use support::{Blob, Body, ECHO, KINDS, Pair, Random, frame, frame_with, frames_of, header, hello};

const ALL: u64 = features::CHECKSUM | features::LZ4 | features::ZSTD;
const BOTH: [Algorithm; 2] = [Algorithm::Lz4, Algorithm::Zstd];
const MESSAGES: [Kind; 4] = [Kind::Request, Kind::OneWay, Kind::Response, Kind::Item];

/// CRC32C, bit by bit.
fn crc32c(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0, |sum, byte| {
        (0..8).fold(sum ^ u32::from(*byte), |sum, _| sum >> 1 ^ (0x82f6_3b78 * (sum & 1)))
    })
}

/// Stands for a compressor: each run of a byte as its length and the byte.
fn shorten(bytes: &[u8], out: &mut Vec<u8>) -> bool {
    for run in bytes.chunk_by(|left, right| left == right).flat_map(|run| run.chunks(255)) {
        out.extend([run.len() as u8, run[0]]);
    }
    true
}

fn lengthen(bytes: &[u8]) -> Vec<u8> {
    bytes.chunks(2).flat_map(|run| std::iter::repeat_n(run[1], run[0].into())).collect()
}

fn compress(output: &mut Vec<u8>, from: usize, algorithm: Algorithm) {
    // What the working memory holds is of no matter.
    compress_frame(output, from, algorithm, &mut vec![9; 40], shorten);
}

/// The one frame in these bytes, whose padding is zero.
fn only_frame(bytes: &[u8]) -> (Header, Vec<u8>) {
    let mut frames = frames_of(&[&hello(), bytes].concat());
    assert_eq!(frames.len(), 2);
    let (header, payload) = frames.pop().unwrap();
    assert!(bytes[32 + payload.len()..].iter().all(|byte| *byte == 0));
    (header, payload)
}

/// A payload as it was before it was packed.
fn unpack(header: &Header, payload: &[u8]) -> Result<Vec<u8>, SessionError> {
    let mut payload = payload;
    if header.flags.contains(Flags::CHECKSUM) {
        payload = check_sum(header, payload, crc32c)?;
    }
    if !header.flags.contains(Flags::COMPRESSED) {
        return Ok(payload.to_vec());
    }
    let (metadata, body) = payload.split_at(header.meta_bytes());
    let body = compressed(header, body, ALL, FRAME_LEN_MAX_DEFAULT)?;
    let bytes = lengthen(body.bytes);
    assert_eq!(bytes.len(), body.body_len as usize);
    Ok([metadata, &bytes].concat())
}

fn metadata() -> Metadata {
    let mut metadata = Metadata::new();
    metadata.insert(Key::TENANT, "acme").unwrap().insert_named("a.b", [0; 40]).unwrap();
    metadata
}

fn bodies() -> Vec<Vec<u8>> {
    let random = Random::new(7).bytes(300);
    vec![vec![], vec![1], vec![0; 15], vec![0; 16], vec![5; 17], vec![0; 70_000], random]
}

#[test]
fn the_checksum_is_crc32c() {
    // The check value of the catalogue of CRCs, and RFC 3720, B.4.
    assert_eq!(crc32c(b"123456789"), 0xe306_9283);
    assert_eq!(crc32c(&[0; 32]), 0x8a91_36aa);
}

#[test]
fn what_is_packed_is_what_is_unpacked() {
    let block = metadata();
    for (kind, body) in
        MESSAGES.into_iter().flat_map(|kind| bodies().into_iter().map(move |body| (kind, body)))
    {
        for block in [&[][..], block.as_bytes()] {
            let block = if kind == Kind::Item { &[][..] } else { block };
            let plain = frame_with(header(kind), block, &body);
            let payload = [block, &body].concat();
            for algorithm in [None, Some(Algorithm::Lz4), Some(Algorithm::Zstd)] {
                for has_sum in [false, true] {
                    let mut packed = plain.clone();
                    if let Some(algorithm) = algorithm {
                        compress(&mut packed, 0, algorithm);
                        assert!(packed.len() <= plain.len());
                    }
                    if has_sum {
                        sum_frame(&mut packed, 0, crc32c);
                    }
                    let (header, found) = only_frame(&packed);
                    assert_eq!(header.flags.contains(Flags::CHECKSUM), has_sum);
                    let is_short = algorithm.is_some() && body.len() > 1_000;
                    assert!(!is_short || header.flags.contains(Flags::COMPRESSED));
                    assert_eq!(&found[..header.meta_bytes()], block, "metadata is not packed");
                    assert_eq!(unpack(&header, &found), Ok(payload.clone()));
                }
            }
        }
    }
}

#[test]
fn a_packed_frame_is_laid_out_as_written() {
    let plain = frame(header(Kind::Request), &[7; 100]);
    for (algorithm, number) in BOTH.into_iter().zip([1, 2]) {
        let mut packed = plain.clone();
        compress(&mut packed, 0, algorithm);
        let body = [100, 0, 0, 0, number, 0, 0, 0, 100, 7];
        let flags = Flags::COMPRESSED;
        assert_eq!(packed, frame(Header { flags, ..header(Kind::Request) }, &body));
        sum_frame(&mut packed, 0, crc32c);
        let body = [&body[..], &crc32c(&body).to_le_bytes()].concat();
        let flags = Flags::PACKED;
        assert_eq!(packed, frame(Header { flags, ..header(Kind::Request) }, &body));
    }
}

#[test]
fn a_frame_that_would_be_no_shorter_is_left_as_it_was() {
    let one_run = |len: usize| frame(header(Kind::Item), &vec![3; len]);
    // Ten bytes are no more than what they stand for; fewer blocks of sixteen are what counts.
    for (len, is_compressed) in [(0, false), (10, false), (16, false), (17, true), (100, true)] {
        let mut packed = one_run(len);
        compress(&mut packed, 0, Algorithm::Lz4);
        assert_eq!(packed != one_run(len), is_compressed, "{len}");
        assert_eq!(packed.len() < one_run(len).len(), is_compressed, "{len}");
    }
    let random = frame(header(Kind::Item), &Random::new(3).bytes(1_000));
    let mut packed = random.clone();
    compress(&mut packed, 0, Algorithm::Zstd);
    assert_eq!(packed, random);
    // A compressor that fails may have written.
    compress_frame(&mut packed, 0, Algorithm::Zstd, &mut Vec::new(), |_, out| {
        out.push(1);
        false
    });
    assert_eq!(packed, random);
}

#[test]
fn frames_before_the_last_are_not_touched() {
    let credit = frame(Header { aux: 77, ..header(Kind::Credit) }, b"");
    let other = frame(header(Kind::Response), &[1; 200]);
    let last = frame(header(Kind::Response), &[2; 200]);
    let before = [&other[..], &credit].concat();
    let mut alone = last.clone();
    compress(&mut alone, 0, Algorithm::Lz4);
    sum_frame(&mut alone, 0, crc32c);
    // From where the last frame begins, or one before it: the reply of a stream follows a CREDIT.
    for from in [before.len(), other.len(), 0] {
        let mut output = [&before[..], &last].concat();
        compress(&mut output, from, Algorithm::Lz4);
        sum_frame(&mut output, from, crc32c);
        assert_eq!(output, [&before[..], &alone].concat(), "{from}");
    }
    // No frame ends with the output.
    for rest in [&b""[..], &[1; 20], &[0xff; 40]] {
        let mut output = [&before[..], rest].concat();
        compress(&mut output, before.len(), Algorithm::Lz4);
        sum_frame(&mut output, before.len(), crc32c);
        assert_eq!(output, [&before[..], rest].concat());
    }
}

#[test]
fn a_bit_that_flips_under_a_checksum_is_found() {
    for block in [Metadata::new(), metadata()] {
        for compresses in [false, true] {
            let mut packed = frame_with(header(Kind::Request), block.as_bytes(), &[4; 60]);
            if compresses {
                compress(&mut packed, 0, Algorithm::Zstd);
            }
            sum_frame(&mut packed, 0, crc32c);
            let (header, payload) = only_frame(&packed);
            assert!(check_sum(&header, &payload, crc32c).is_ok());
            for bit in 0..8 * payload.len() {
                let mut flipped = payload.clone();
                flipped[bit / 8] ^= 1 << (bit % 8);
                let outcome = check_sum(&header, &flipped, crc32c);
                assert_eq!(outcome, Err(SessionError::ChecksumWrong), "{bit}");
            }
        }
    }
}

#[test]
fn a_checksum_stands_in_the_body_and_never_in_the_metadata() {
    // Sixteen bytes that are right by themselves, their last four the checksum of the others.
    let block = [&[0; 12][..], &crc32c(&[0; 12]).to_le_bytes()].concat();
    for body_len in 0..4 {
        let body = vec![0; body_len];
        let payload = [&block[..], &body].concat();
        let sum = crc32c(&payload[..payload.len() - 4]).to_le_bytes();
        let end = payload.len() - 4;
        let payload = [&payload[..end], &sum].concat();
        let flags = Flags::CHECKSUM;
        let header =
            Header { meta_len: 1, body_len: body_len as u32, flags, ..header(Kind::Request) };
        let outcome = check_sum(&header, &payload, crc32c);
        assert_eq!(outcome, Err(SessionError::ChecksumWrong), "{body_len}");
    }
}

#[test]
fn a_malformed_head_is_refused() {
    let header = header(Kind::Request);
    let read = |body: &[u8]| compressed(&header, body, ALL, FRAME_LEN_MAX_DEFAULT).map(drop);
    let head = [9, 0, 0, 0, 1, 0, 0, 0];
    assert_eq!(read(&head), Ok(()));
    for len in 0..head.len() {
        assert_eq!(read(&head[..len]), Err(SessionError::CompressedMalformed), "{len}");
    }
    for (at, byte) in (4..8).flat_map(|at| (0..=u8::MAX).map(move |byte| (at, byte))) {
        let mut head = head;
        head[at] = byte;
        let is_right = if at == 4 { byte == 1 || byte == 2 } else { byte == 0 };
        let expected = if is_right { Ok(()) } else { Err(SessionError::CompressedMalformed) };
        assert_eq!(read(&head), expected, "{at} {byte}");
    }
}

#[test]
fn a_head_says_how_long_the_body_is() {
    let body = [0x78, 0x56, 0x34, 0, 2, 0, 0, 0, 1, 2, 3];
    let expected =
        Compressed { algorithm: Algorithm::Zstd, body_len: 0x0034_5678, bytes: &[1, 2, 3] };
    let found = compressed(&header(Kind::Item), &body, ALL, FRAME_LEN_MAX_DEFAULT);
    assert_eq!(found, Ok(expected));
}

#[test]
fn a_body_must_fit_its_frame_when_it_is_not_compressed() {
    let frame_len_max = 65_536;
    for meta_len in [0, 1, 512] {
        let header = Header { meta_len, ..header(Kind::Request) };
        let read = |body_len: u32| {
            let head = [&body_len.to_le_bytes()[..], &[1, 0, 0, 0], &[0; 20]].concat();
            compressed(&header, &head, ALL, frame_len_max).map(|body| body.body_len)
        };
        let longest = frame_len_max - 32 - 16 * u32::from(meta_len);
        assert_eq!(read(0), Ok(0));
        assert_eq!(read(longest), Ok(longest));
        for body_len in [longest + 1, longest + 16, 16 << 20, u32::MAX] {
            let frame_len = Header { body_len, ..header }.frame_len();
            assert_eq!(
                read(body_len),
                Err(SessionError::FrameTooLong { frame_len, frame_len_max })
            );
        }
    }
}

#[test]
fn a_body_compressed_in_a_way_that_was_not_agreed_on_is_refused() {
    for algorithm in BOTH {
        let head = [1, 0, 0, 0, algorithm as u8, 0, 0, 0];
        for agreed in 0..=ALL {
            let found = compressed(&header(Kind::Item), &head, agreed, FRAME_LEN_MAX_DEFAULT);
            match agreed & algorithm.feature() {
                0 => assert_eq!(found, Err(SessionError::NotAgreed(Kind::Item))),
                _ => assert!(found.is_ok()),
            }
        }
    }
}

fn with_features(features: u64, limits: Limits) -> SessionConfig {
    SessionConfig { features, limits, ..SessionConfig::default() }
}

/// Two sessions of these features that are open.
fn pair_of(client: u64, server: u64, limits: Limits) -> Pair {
    Pair::open_configured(&with_features(client, limits), &with_features(server, limits), 0)
}

#[test]
fn what_both_sides_have_is_agreed_and_nothing_else_may_come() {
    for (client, server) in
        (0..=ALL).flat_map(|client| (0..=ALL).map(move |server| (client, server)))
    {
        let pair = pair_of(client, server, Limits::default());
        let agreed = client & server;
        for session in [&pair.client, &pair.server] {
            assert_eq!(session.features(), agreed);
            for (flags, needed) in [
                (Flags::CHECKSUM, &[features::CHECKSUM][..]),
                (Flags::COMPRESSED, &[features::LZ4 | features::ZSTD]),
                (Flags::PACKED, &[features::CHECKSUM, features::LZ4 | features::ZSTD]),
            ] {
                let may_come = needed.iter().all(|any| agreed & any != 0);
                let refused = Err(SessionError::NotAgreed(Kind::Item));
                let expected = if may_come { Ok(()) } else { refused };
                let header = Header { flags, ..header(Kind::Item) };
                assert_eq!(session.check_packed(&header), expected, "{client} {server} {flags:?}");
            }
        }
    }
    // Features of a later version are ignored.
    let pair = pair_of(u64::MAX, ALL, Limits::default());
    assert_eq!(pair.client.features(), ALL);
}

#[test]
fn before_a_connection_is_open_nothing_packed_may_come() {
    let config = with_features(ALL, Limits::default());
    let pair = Pair::configured(&config, &config);
    for kind in KINDS {
        let header = Header { flags: Flags::CHECKSUM, ..header(kind) };
        assert_eq!(pair.server.check_packed(&header), Err(SessionError::NotAgreed(kind)));
    }
}

#[test]
fn the_longest_frame_has_room_for_its_checksum() {
    let frame_len_max = 65_536;
    let limits = Limits { frame_len_max, ..Limits::default() };
    for (agreed, room) in [(0, 0), (features::LZ4, 0), (features::CHECKSUM, 16), (ALL, 16)] {
        for block in [Metadata::new(), metadata()] {
            let mut pair = pair_of(agreed, ALL, limits);
            let options = CallOptions { metadata: block.as_bytes(), ..CallOptions::default() };
            let body_len_max = 65_536 - 32 - room - block.as_bytes().len();
            // A number, a pointer and a length stand behind the bytes.
            let longest = body_len_max - 16;
            let mut call =
                |len| pair.client.call(&mut pair.scratch, ECHO, options, &Blob::new(0, len));
            let too_long = OpenError::Encode(EncodeError::TooLong { body_len_max });
            assert_eq!(call(longest + 1), Err(too_long));
            call(longest).unwrap();
            let mut frame = std::mem::take(pair.client.output());
            assert_eq!(frame.len(), 65_536 - room);
            if room > 0 {
                sum_frame(&mut frame, 0, crc32c);
            }
            assert_eq!(frame.len(), 65_536);
            let mut decoder = Decoder::<Body>::new(frame_len_max);
            let mut found = 0;
            let stream = [hello(), frame].concat();
            support::decode(&mut decoder, &stream, |_, _| {
                found += 1;
                Ok(())
            })
            .unwrap();
            assert_eq!(found, 2);
        }
    }
}

/// A pair with a stream, its call at both ends.
fn pair_with_stream(limits: Limits) -> (Pair, StreamId, StreamId) {
    let mut pair = pair_of(ALL, ALL, limits);
    let options = CallOptions { is_stream: true, ..CallOptions::default() };
    let blob = Blob::new(0, 0);
    let call = pair.client.call(&mut pair.scratch, ECHO, options, &blob).unwrap();
    pair.drive();
    assert_eq!(pair.next_call().0, call);
    let at = |is_made_here| StreamId { call, is_made_here };
    (pair, at(true), at(false))
}

/// Sends an item that is packed, and gives the length of its frame in bytes.
fn send_packed(pair: &mut Pair, stream: StreamId, len: usize) -> Result<u64, ItemError> {
    let output = pair.client.output();
    let start = output.len();
    // All one byte, so that it gets shorter.
    let blob = Blob { id: 0, bytes: vec![0; len] };
    pair.client.send_item(&mut pair.scratch, stream, &blob)?;
    let before = pair.client.output().len() - start;
    compress(pair.client.output(), start, Algorithm::Lz4);
    sum_frame(pair.client.output(), start, crc32c);
    let after = pair.client.output().len() - start;
    pair.client.item_packed(stream, before as u64, after as u64);
    Ok(after as u64)
}

#[test]
fn an_item_costs_what_travels_and_both_ends_count_the_same() {
    let limits = Limits { stream_window: 4096, connection_window: 8192, ..Limits::default() };
    // Shorter than it was, longer by its checksum, and as cheap as an item can be.
    for len in [60_000, 3, 241, 500] {
        let (mut pair, made, served) = pair_with_stream(limits);
        for _ in 0..100 {
            let (mut spent, mut frames) = (0, Vec::new());
            while let Ok(frame_len) = send_packed(&mut pair, made, len) {
                spent += frame_len.max(256);
                frames.push(frame_len);
            }
            // The whole window, and no more than one item beyond it.
            assert!(spent >= 4096 && spent - frames.last().unwrap().max(&256) < 4096, "{spent}");
            pair.drive();
            let items = pair.take_server_events();
            assert_eq!(items.len(), frames.len());
            for (event, frame_len) in items.iter().zip(frames) {
                assert_eq!(*event, Event::Item(served));
                pair.server.item_taken(served, frame_len);
            }
            pair.drive();
            pair.take_client_events();
        }
    }
}

#[test]
fn a_packed_item_beyond_the_credit_is_refused_by_its_length_on_the_way() {
    let limits = Limits { stream_window: 4096, connection_window: 8192, ..Limits::default() };
    let (mut pair, made, _) = pair_with_stream(limits);
    let item = |aux, body: &[u8]| {
        let flags = Flags::COMPRESSED;
        frame(Header { call: made.call, aux, flags, ..header(Kind::Item) }, body)
    };
    // Sixteen megabytes when it is not compressed, and 4,064 bytes on the way.
    let long = [&(16_u32 << 20).to_le_bytes()[..], &[1, 0, 0, 0], &[0; 4_024]].concat();
    pair.feed_server(&item(0, &long)).unwrap();
    pair.feed_server(&item(1, &[0; 8])).unwrap();
    let refused = Err(SessionError::CreditOverdrawn(made.call));
    assert_eq!(pair.feed_server(&item(2, &[0; 8])), refused);
}

#[test]
fn the_reply_of_a_stream_is_packed_behind_the_credit_that_goes_before_it() {
    let limits = Limits { connection_window: 4096, ..Limits::default() };
    let (mut pair, made, _) = pair_with_stream(limits);
    // Half of the connection's window is not taken, and granted anew when the call ends.
    while send_packed(&mut pair, made, 3).is_ok() {}
    pair.drive();
    pair.take_server_events();
    let (call, reply): (CallId, _) = (made.call, Blob { id: 9, bytes: vec![0; 300] });
    pair.server.reply(&mut pair.scratch, call, &[], &reply).unwrap();
    let plain = frames_of(&[hello(), pair.server.output().clone()].concat());
    let kinds: Vec<_> = plain.iter().map(|(header, _)| header.kind).collect();
    assert_eq!(kinds, [Kind::Hello, Kind::Credit, Kind::Response]);
    compress(pair.server.output(), 0, Algorithm::Zstd);
    sum_frame(pair.server.output(), 0, crc32c);
    let packed = support::take_frames(&mut pair.server);
    assert_eq!(packed[0], plain[1]);
    assert!(packed[1].0.flags.contains(Flags::PACKED));
    assert_eq!(unpack(&packed[1].0, &packed[1].1), Ok(plain[2].1.clone()));
}

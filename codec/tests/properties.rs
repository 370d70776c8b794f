//! Properties of headers, frames and calls: what is encoded is what is parsed, however it is cut.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use proptest::{collection::vec, prelude::*};
use ringcall_codec::{
    Algorithm, CallId, CallOptions, Code, Decoder, Event, Flags, Header, Key, Kind, MAGIC,
    Metadata, MetadataRef, Status, Step, access, check_sum, compress_frame, compressed,
    limits::{
        FRAME_LEN_MAX_DEFAULT, HELLO_BODY_LEN_MAX, METADATA_LEN_MAX, STATUS_BODY_LEN_MAX,
        STATUS_MESSAGE_LEN_MAX,
    },
    sum_frame,
};
use support::{Blob, Body, ECHO, KINDS, Pair, aligned, frame_with, hello};

const META_LEN_MAX: u16 = (METADATA_LEN_MAX / 16) as u16;

/// A frame as it is found: its header, then its metadata and body.
type Frame = (Header, Vec<u8>);

/// A header that is right, of any kind but HELLO, whose other fields are made of these numbers.
fn header_of(kind: Kind, call: u64, numbers: [u32; 4], meta_len: u16, flags: u8) -> Header {
    let [body_len, code, time_us, aux] = numbers;
    let none = Header {
        body_len: 0,
        meta_len: 0,
        kind,
        flags: Flags::NONE,
        call: CallId(call),
        code: 0,
        time_us: 0,
        aux: 0,
    };
    let status_len = |max: usize| body_len % (max as u32 + 1);
    let packed =
        [Flags::NONE, Flags::CHECKSUM, Flags::COMPRESSED, Flags::PACKED][usize::from(flags >> 6)];
    match kind {
        Kind::Hello => Header {
            call: CallId(MAGIC),
            body_len: body_len % HELLO_BODY_LEN_MAX as u32,
            code,
            ..none
        },
        Kind::Request | Kind::OneWay => Header {
            body_len,
            meta_len: meta_len % (META_LEN_MAX + 1),
            flags: packed,
            code,
            time_us,
            aux,
            ..none
        },
        Kind::Response => {
            let meta_len = meta_len % (META_LEN_MAX + 1);
            let reply = Header { body_len, meta_len, flags: packed, time_us, aux, ..none };
            let flag = |bit: u8, flag| if flags & bit == 0 { Flags::NONE } else { flag };
            let status = Header {
                code: code.max(1),
                flags: flag(1, Flags::NOT_EXECUTED).with(flag(2, Flags::DETAILS)),
                ..reply
            };
            match flags & 6 {
                0 => reply,
                4 => Header { body_len: status_len(STATUS_MESSAGE_LEN_MAX), ..status },
                _ if flags & 2 != 0 => {
                    Header { body_len: status_len(STATUS_BODY_LEN_MAX), ..status }
                }
                _ => reply,
            }
        }
        Kind::Item => {
            let side = if flags & 1 == 0 { Flags::NONE } else { Flags::CALLEE };
            let item = Header { body_len, aux, flags: side, ..none };
            if flags & 2 == 0 {
                return Header { flags: side.with(packed), ..item };
            }
            Header { body_len: 0, flags: side.with(Flags::END), ..item }
        }
        Kind::Credit => {
            let flags = if flags & 1 == 0 { Flags::NONE } else { Flags::CALLEE };
            Header { aux: aux.max(1), flags, ..none }
        }
        Kind::Cancel | Kind::Ping | Kind::Pong => none,
        Kind::GoAway => {
            let flags = if flags & 1 == 0 { Flags::NONE } else { Flags::END };
            let body_len = status_len(STATUS_MESSAGE_LEN_MAX);
            Header { body_len, call: CallId(0), code, flags, ..none }
        }
        Kind::Part => Header { body_len: body_len.max(1), ..none },
        Kind::Notice => Header { body_len: status_len(STATUS_MESSAGE_LEN_MAX), code, ..none },
    }
}

fn headers() -> impl Strategy<Value = Header> {
    (0..KINDS.len(), any::<u64>(), any::<[u32; 4]>(), any::<u16>(), any::<u8>()).prop_map(
        |(kind, call, numbers, meta_len, flags)| {
            header_of(KINDS[kind], call, numbers, meta_len, flags)
        },
    )
}

/// A frame of a header with a length that is there, and its bytes.
fn frames() -> impl Strategy<Value = (Header, Vec<u8>, Vec<u8>)> {
    let rare = prop_oneof![4 => 0..80_usize, 1 => 0..5_000_usize];
    (headers(), rare, 0..20_usize, any::<u8>()).prop_map(|(header, body_len, blocks, fill)| {
        let has_none = matches!(header.kind, Kind::Credit | Kind::Cancel | Kind::Ping | Kind::Pong)
            || header.kind == Kind::Item && header.flags.contains(Flags::END);
        let is_text = matches!(header.kind, Kind::GoAway | Kind::Notice)
            || header.kind == Kind::Response && header.code != 0;
        let len_max = if has_none {
            0
        } else if is_text {
            STATUS_MESSAGE_LEN_MAX
        } else {
            5_000
        };
        let blocks = if header.meta_len == 0 { 0 } else { blocks };
        // A second HELLO and a part are no frames that a decoder gives.
        let is_given = !matches!(header.kind, Kind::Hello | Kind::Part);
        let kind = if is_given { header.kind } else { Kind::Ping };
        let header = if kind == header.kind { header } else { support::header(kind) };
        let len_max = if kind == Kind::Ping { 0 } else { len_max };
        (header, vec![fill; 16 * blocks], vec![!fill; body_len.min(len_max)])
    })
}

/// The pieces of a stream that is cut after each of these lengths, over and over.
fn pieces<'a>(stream: &'a [u8], lengths: &[usize]) -> Vec<&'a [u8]> {
    let (mut rest, mut pieces) = (stream, Vec::new());
    for len in lengths.iter().cycle() {
        let (piece, tail) = rest.split_at((*len).min(rest.len()));
        pieces.push(piece);
        rest = tail;
        if rest.is_empty() {
            return pieces;
        }
    }
    pieces
}

/// What a decoder finds in pieces where every frame that is cut and of an odd call is refused,
/// and the headers of those.
fn decode(pieces: &[&[u8]], refuses: bool) -> (Vec<Frame>, Vec<Header>) {
    let mut decoder = Decoder::<Body>::new(FRAME_LEN_MAX_DEFAULT);
    let (mut found, mut refused) = (Vec::new(), Vec::new());
    for piece in pieces {
        let mut at = 0;
        loop {
            let step = decoder.next(piece, &mut at, |header| {
                if !refuses || header.call.0.is_multiple_of(2) || header.kind == Kind::Hello {
                    return Ok(Some(Body::new()));
                }
                refused.push(*header);
                Ok(None)
            });
            match step.unwrap() {
                Step::InPlace { header, body } => found.push((header, piece[body].to_vec())),
                Step::Assembled(partial) => found.push((partial.header, partial.body().to_vec())),
                Step::Skipped | Step::Part => {}
                Step::More => break,
            }
        }
        assert_eq!(at, piece.len(), "all of the input is consumed");
    }
    assert!(decoder.is_between_frames());
    assert_eq!(decoder.cut_len(), None);
    (found, refused)
}

/// A stream of these frames behind a HELLO, and what is to be found in it.
fn stream_of(frames: &[(Header, Vec<u8>, Vec<u8>)]) -> (Vec<u8>, Vec<Frame>) {
    let (mut stream, mut expected) = (hello(), Vec::new());
    for (header, metadata, body) in frames {
        stream.extend(frame_with(*header, metadata, body));
        let (body_len, meta_len) = (body.len() as u32, (metadata.len() / 16) as u16);
        let payload = [&metadata[..], body].concat();
        expected.push((Header { body_len, meta_len, ..*header }, payload));
    }
    (stream, expected)
}

fn blocks() -> impl Strategy<Value = Metadata> {
    vec((1..=40_u16, vec(any::<u8>(), 0..50)), 0..8).prop_map(|entries| {
        let mut metadata = Metadata::new();
        for (number, value) in entries {
            metadata.insert(Key::new(number).unwrap(), value).unwrap();
        }
        metadata
    })
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_header_is_parsed_as_it_was_encoded(header in headers()) {
        prop_assert_eq!(Header::parse(&header.encode()), Ok(header));
        prop_assert_eq!(header.frame_len() % 16, 0);
        prop_assert!(header.frame_len() - header.payload_len() < 32 + 16);
    }

    #[test]
    fn every_header_that_parses_after_a_change_is_encoded_as_it_came(
        header in headers(),
        at in 0..32_usize,
        byte in any::<u8>(),
    ) {
        let mut bytes = header.encode();
        bytes[at] = byte;
        if let Ok(parsed) = Header::parse(&bytes) {
            prop_assert_eq!(parsed.encode(), bytes);
        }
    }

    #[test]
    fn frames_are_found_as_they_were_sent_in_any_pieces(
        frames in vec(frames(), 0..12),
        lengths in vec(1..900_usize, 1..20),
    ) {
        let (stream, expected) = stream_of(&frames);
        let (found, _) = decode(&pieces(&stream, &lengths), false);
        prop_assert_eq!(&found[1..], &expected[..]);
    }

    #[test]
    fn frames_that_are_refused_are_missing_and_no_others(
        frames in vec(frames(), 0..12),
        lengths in vec(1..200_usize, 1..20),
    ) {
        let (stream, expected) = stream_of(&frames);
        let (found, mut refused) = decode(&pieces(&stream, &lengths), true);
        refused.reverse();
        let mut found = found[1..].iter();
        for frame in &expected {
            // A refused frame is cut; what is not refused is found, and both in order.
            if refused.last() == Some(&frame.0) && found.as_slice().first() != Some(frame) {
                refused.pop();
            } else {
                prop_assert_eq!(found.next(), Some(frame));
            }
        }
        prop_assert_eq!((found.next(), refused.pop()), (None, None));
    }

    #[test]
    fn calls_and_replies_arrive_as_they_were_made_in_any_pieces(
        requests in vec((any::<u64>(), 0..3_000_usize, blocks()), 1..8),
        piece_len in 1..2_000_usize,
    ) {
        let mut pair = Pair::open();
        pair.piece_len = piece_len;
        let mut calls = Vec::new();
        for (id, len, metadata) in &requests {
            let options =
                CallOptions { metadata: metadata.as_bytes(), ..CallOptions::default() };
            let blob = Blob::new(*id, *len);
            calls.push(pair.client.call(&mut pair.scratch, ECHO, options, &blob).unwrap());
        }
        pair.drive();
        for (call, (id, len, metadata)) in calls.iter().zip(&requests) {
            let (received, payload) = pair.next_call();
            let (block, body) = payload.split_at(metadata.as_bytes().len());
            prop_assert_eq!(received, *call);
            prop_assert_eq!(MetadataRef::parse(block), Ok(metadata.as_ref()));
            let body = aligned(body);
            let request = access::<Blob>(&body).unwrap();
            prop_assert_eq!(request.bytes.as_slice(), &Blob::new(*id, *len).bytes[..]);
            let reply = Blob::new(!*id, *len / 2);
            let block = metadata.as_bytes();
            pair.server.reply(&mut pair.scratch, received, block, &reply).unwrap();
        }
        pair.drive();
        for (call, (id, len, metadata)) in calls.iter().zip(&requests) {
            let (answered, payload) = pair.next_reply();
            let body = aligned(&payload[metadata.as_bytes().len()..]);
            prop_assert_eq!(answered, *call);
            let reply = access::<Blob>(&body).unwrap();
            prop_assert_eq!(reply.bytes.as_slice(), &Blob::new(!*id, *len / 2).bytes[..]);
        }
    }

    #[test]
    fn any_bytes_are_read_as_a_packed_body_or_refused(
        header in headers(),
        payload in vec(any::<u8>(), 0..100),
        agreed in 0..8_u64,
        frame_len_max in 65_536..=u32::MAX,
    ) {
        if let Ok(summed) = check_sum(&header, &payload, |_| 0) {
            prop_assert!(payload.ends_with(&[0; 4]));
            prop_assert_eq!(summed, &payload[..payload.len() - 4]);
        }
        if let Ok(body) = compressed(&header, &payload, agreed, frame_len_max) {
            prop_assert_eq!(body.bytes, &payload[8..]);
            prop_assert!(agreed & body.algorithm.feature() != 0);
            let unpacked = Header { body_len: body.body_len, ..header };
            prop_assert!(unpacked.frame_len() <= frame_len_max.into());
        }
    }

    #[test]
    fn a_frame_is_summed_and_compressed_to_what_it_was(
        (header, metadata, body) in frames(),
        keeps in 0..5_000_usize,
        sum in any::<u32>(),
    ) {
        // Stands for a compressor: what it gives is any number of bytes.
        let plain = frame_with(header, &metadata, &body);
        let mut packed = plain.clone();
        let kept = vec![7; keeps];
        compress_frame(&mut packed, 0, Algorithm::Lz4, &mut Vec::new(), |found, out| {
            assert_eq!(found, body);
            out.extend(&kept);
            true
        });
        let short = packed.clone();
        sum_frame(&mut packed, 0, |_| sum);
        let first = |frame: &[u8]| Header::parse(frame.first_chunk().unwrap());
        if header.flags.intersects(Flags::PACKED) || first(&packed).is_err() {
            // What is packed already, or has no message, is not given to these by anybody.
            return Ok(());
        }
        let summed = first(&packed).unwrap();
        prop_assert_eq!(packed.len() as u64, summed.frame_len());
        prop_assert_eq!(summed.meta_len, first(&plain).unwrap().meta_len);
        let payload = &packed[32..32 + summed.payload_len() as usize];
        let payload = check_sum(&summed, payload, |_| sum).unwrap();
        prop_assert_eq!(payload, &short[32..32 + payload.len()]);
        let (block, packed_body) = payload.split_at(summed.meta_bytes());
        prop_assert_eq!(block, &metadata[..]);
        if summed.flags.contains(Flags::COMPRESSED) {
            prop_assert!(short.len() < plain.len());
            let found = compressed(&summed, packed_body, u64::MAX, u32::MAX).unwrap();
            prop_assert_eq!(found.body_len as usize, body.len());
            prop_assert_eq!(found.bytes, &kept[..]);
        } else {
            prop_assert_eq!(short, plain);
            prop_assert_eq!(packed_body, &body[..]);
        }
    }

    #[test]
    fn a_status_arrives_as_it_was_given(
        code in 1..=16_u32,
        text in "\\PC{0,300}",
        not_executed in any::<bool>(),
        details in proptest::option::of(0..2_000_usize),
        piece_len in 1..500_usize,
    ) {
        let mut status = Status::new(Code::from_u32(code), text);
        if not_executed {
            status = status.not_executed();
        }
        if let Some(len) = details {
            status = status.with_details(&Blob::new(1, len)).unwrap();
        }
        let mut pair = Pair::open();
        pair.piece_len = piece_len;
        let call = pair.call(&Blob::new(0, 0));
        pair.drive();
        prop_assert!(pair.server.refuse(call, &status));
        pair.drive();
        let event = pair.take_client_events().pop();
        let Some(Event::Failed(failed, received)) = event else { panic!("{event:?}") };
        prop_assert_eq!(failed, call);
        // The text travels cut to its limit.
        prop_assert!(status.message().starts_with(received.message()));
        prop_assert!(received.message().len() > 1_020 || received.message() == status.message());
        prop_assert_eq!(received.is_not_executed(), not_executed);
        let bytes = received.details::<Blob>().map(|blob| blob.bytes.len());
        prop_assert_eq!(bytes, details);
    }
}

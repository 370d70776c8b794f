//! The decoder: the same frames however the stream is cut, and nothing kept for a length that is
//! only declared.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use ringcall_codec::{
    CallId, Decoder, Header, HeaderError, HelloError, Kind, SessionError, Step,
    limits::{FRAME_LEN_MAX_DEFAULT, HELLO_BODY_LEN_MAX},
};
use support::{Body, Random, decode, frame, frames_of, header, hello, request, response};

/// HELLO, a request of an odd length and an empty reply.
fn three_frames() -> (Vec<u8>, Vec<(Header, Vec<u8>)>) {
    let mut stream = hello();
    stream.extend(frame(request(CallId::new(7, 1)), b"a body of 25 bytes, yes!!"));
    stream.extend(frame(response(CallId::new(7, 1)), b""));
    let frames = frames_of(&stream);
    assert_eq!(frames.len(), 3);
    (stream, frames)
}

/// What a decoder finds in a stream that comes in these pieces.
fn decode_pieces<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> Vec<(Header, Vec<u8>)> {
    let mut decoder = Decoder::new(FRAME_LEN_MAX_DEFAULT);
    let mut frames = Vec::new();
    for piece in pieces {
        decode(&mut decoder, piece, |header, body| {
            frames.push((*header, body.to_vec()));
            Ok(())
        })
        .unwrap();
    }
    assert!(decoder.is_between_frames());
    frames
}

/// The error that a stream of these bytes ends with, all at once and byte by byte.
fn refusal(stream: &[u8], frame_len_max: u32) -> SessionError {
    let mut whole = Decoder::new(frame_len_max);
    let error = decode(&mut whole, stream, |_, _| Ok(())).unwrap_err();
    let mut bytewise = Decoder::new(frame_len_max);
    let bytewise =
        stream.chunks(1).find_map(|byte| decode(&mut bytewise, byte, |_, _| Ok(())).err());
    assert_eq!(bytewise.as_ref(), Some(&error));
    error
}

/// A decoder that has seen a HELLO.
fn begun(frame_len_max: u32) -> Decoder<Body> {
    let mut decoder = Decoder::new(frame_len_max);
    decode(&mut decoder, &hello(), |_, _| Ok(())).unwrap();
    decoder
}

fn is_more(step: Result<Step<Body>, SessionError>) -> bool {
    matches!(step, Ok(Step::More))
}

#[test]
fn a_stream_cut_at_any_byte_gives_the_same_frames() {
    let (stream, frames) = three_frames();
    for cut in 0..=stream.len() {
        let (head, tail) = stream.split_at(cut);
        assert_eq!(decode_pieces([head, tail]), frames, "cut at {cut}");
    }
}

#[test]
fn a_stream_cut_at_any_two_bytes_gives_the_same_frames() {
    let (stream, frames) = three_frames();
    for first in 0..=stream.len() {
        let (head, rest) = stream.split_at(first);
        for second in 0..=rest.len() {
            let (middle, tail) = rest.split_at(second);
            let pieces = [head, middle, tail];
            assert_eq!(decode_pieces(pieces), frames, "cut at {first} and {second} more");
        }
    }
}

#[test]
fn a_stream_in_pieces_of_one_size_gives_the_same_frames() {
    let (stream, frames) = three_frames();
    for piece_len in 1..=stream.len() {
        assert_eq!(decode_pieces(stream.chunks(piece_len)), frames);
    }
}

#[test]
fn random_streams_in_random_pieces_give_the_frames_that_were_sent() {
    let mut random = Random::new(3);
    for _ in 0..300 {
        let mut stream = hello();
        let mut bodies = Vec::new();
        for slot in 0..random.below(12) {
            let len = [0, 1, 15, 16, 17, 300, 5000][random.below(7)];
            let body = random.bytes(len);
            stream.extend(frame(request(CallId::new(slot as u32, 1)), &body));
            bodies.push(body);
        }
        let mut pieces = Vec::new();
        let mut rest = &stream[..];
        while !rest.is_empty() {
            let (piece, tail) = rest.split_at((1 + random.below(900)).min(rest.len()));
            pieces.push(piece);
            rest = tail;
        }
        let frames = decode_pieces(pieces);
        let received: Vec<_> = frames.into_iter().skip(1).map(|(_, body)| body).collect();
        assert_eq!(received, bodies);
    }
}

#[test]
fn a_whole_frame_is_found_where_it_lies_at_any_alignment() {
    let body = b"read where it lies";
    let frame = frame(request(CallId::new(1, 1)), body);
    for offset in 0..33 {
        let mut input = vec![0xee; offset];
        input.extend_from_slice(&frame);
        input.extend_from_slice(&frame[..31]);
        let mut decoder = begun(FRAME_LEN_MAX_DEFAULT);
        let mut at = offset;
        let step = decoder.next(&input, &mut at, |_| panic!("the frame is whole")).unwrap();
        let Step::InPlace { header, body: range } = step else { panic!("{step:?}") };
        assert_eq!(header.body_len as usize, body.len());
        assert_eq!(range, offset + 32..offset + 32 + body.len());
        assert_eq!(&input[range], body);
        assert_eq!(at, offset + frame.len());
        assert!(is_more(decoder.next(&input, &mut at, |_| Ok(Some(Body::new())))));
        assert_eq!(at, input.len());
        assert!(!decoder.is_between_frames());
    }
}

#[test]
fn a_large_frame_takes_memory_as_its_bytes_come() {
    const BODY_LEN: usize = 3_000_001;
    let body = Random::new(4).bytes(BODY_LEN);
    let frame = frame(request(CallId::new(1, 1)), &body);
    let mut decoder = begun(FRAME_LEN_MAX_DEFAULT);
    let mut received = 0;
    let mut assembled = None;
    for piece in frame.chunks(16 * 1024) {
        received += piece.len();
        let mut at = 0;
        match decoder.next(piece, &mut at, |_| Ok(Some(Body::new()))).unwrap() {
            Step::More => {
                let partial = decoder.partial().unwrap();
                assert_eq!(partial.buffer.len(), received);
                assert!(partial.buffer.capacity() <= 4 * received);
            }
            Step::Assembled(partial) => assembled = Some(partial),
            step => panic!("{step:?}"),
        }
        assert_eq!(at, piece.len());
    }
    assert_eq!(assembled.unwrap().body(), body);
    assert!(decoder.is_between_frames());
}

#[test]
fn the_longest_frame_passes_and_one_byte_more_is_refused_by_its_header() {
    const CAP: u32 = 64 * 1024;
    let declare = |body_len| Header { body_len, ..request(CallId::new(1, 1)) }.encode();
    for body_len in [0, 1, CAP - 32] {
        let mut decoder = begun(CAP);
        let mut at = 0;
        let step = decoder.next(&declare(body_len), &mut at, |header| {
            assert!(header.frame_len() <= CAP.into());
            Ok(Some(Body::new()))
        });
        assert!(step.is_ok(), "{body_len}");
    }
    for body_len in [CAP - 31, CAP, u32::MAX - 32, u32::MAX] {
        let mut decoder = begun(CAP);
        let refused = SessionError::FrameTooLong {
            frame_len: (u64::from(body_len) + 32).next_multiple_of(16),
            frame_len_max: CAP,
        };
        let step = decoder.next(&declare(body_len), &mut 0, |_| panic!("no buffer is asked for"));
        assert_eq!(step.unwrap_err(), refused);
        let stream = [&hello()[..], &declare(body_len)].concat();
        assert_eq!(refusal(&stream, CAP), refused);
    }
}

#[test]
fn nothing_behind_a_refused_frame_is_read() {
    let mut stream = hello();
    stream.extend(Header { body_len: u32::MAX, ..request(CallId::new(1, 1)) }.encode());
    stream.extend(frame(request(CallId::new(2, 1)), b"valid"));
    for piece_len in [1, 7, 32, 48, stream.len()] {
        let mut decoder = Decoder::new(FRAME_LEN_MAX_DEFAULT);
        let (mut frames, mut errors) = (0, 0);
        for piece in stream.chunks(piece_len) {
            let decoded = decode(&mut decoder, piece, |_, _| {
                frames += 1;
                Ok(())
            });
            errors += usize::from(decoded.is_err());
            // A transport stops at the first error.
            if decoded.is_err() {
                break;
            }
        }
        assert_eq!((frames, errors), (1, 1));
    }
}

#[test]
fn a_refused_header_that_came_in_pieces_stays_refused() {
    let mut decoder = begun(FRAME_LEN_MAX_DEFAULT);
    let bytes = Header { body_len: u32::MAX, ..request(CallId::new(1, 1)) }.encode();
    let (head, tail) = bytes.split_at(20);
    assert!(is_more(decoder.next(head, &mut 0, |_| Ok(Some(Body::new())))));
    let error = decoder.next(tail, &mut 0, |_| Ok(Some(Body::new()))).unwrap_err();
    let valid = frame(request(CallId::new(2, 1)), b"valid");
    let again = decoder.next(&valid, &mut 0, |_| Ok(Some(Body::new())));
    assert_eq!(again.unwrap_err(), error);
}

#[test]
fn a_stream_begins_with_hello() {
    for kind in [Kind::Request, Kind::Response] {
        let why = "a connection begins with HELLO";
        // 16 MiB are declared, and the header alone is refused.
        let header = Header { body_len: 16 << 20, ..header(kind) };
        assert_eq!(refusal(&header.encode(), u32::MAX), SessionError::Unexpected { kind, why });
    }
}

#[test]
fn a_side_that_does_not_open_the_connection_may_say_why() {
    let goaway = frame(Header { code: 14, ..header(Kind::GoAway) }, b"full");
    assert_eq!(decode_pieces([&goaway[..]])[0].1, b"full");
}

#[test]
fn a_hello_is_refused_by_its_header() {
    let refused = |code, body_len| {
        let header = Header { code, body_len, ..header(Kind::Hello) };
        refusal(&header.encode(), FRAME_LEN_MAX_DEFAULT)
    };
    let version =
        |peer_min, peer_max| SessionError::Hello(HelloError::Version { peer_min, peer_max });
    assert_eq!(refused(0x0003_0002, 32), version(2, 3));
    assert_eq!(refused(0x0000_0000, 32), version(0, 0));
    assert_eq!(refused(0x0000_0001, 32), version(1, 0));
    let malformed = |body_len| SessionError::Hello(HelloError::Malformed { body_len });
    for body_len in [0, 31, HELLO_BODY_LEN_MAX + 1, u32::MAX as usize] {
        assert_eq!(refused(0x0001_0001, body_len as u32), malformed(body_len));
    }
    // A second one is no longer than a first.
    let longer = Header { body_len: 16 << 20, ..header(Kind::Hello) };
    let step = begun(u32::MAX).next(&longer.encode(), &mut 0, |_| Ok(Some(Body::new())));
    assert_eq!(step.unwrap_err(), malformed(16 << 20));
}

#[test]
fn bytes_that_are_no_header_end_the_stream() {
    let garbage = b"GET / HTTP/1.1\r\nhost: localhost\r\n\r\n";
    let refused = refusal(garbage, FRAME_LEN_MAX_DEFAULT);
    assert_eq!(refused, SessionError::Header(HeaderError::UnknownKind(b'H')));
    let mut random = Random::new(5);
    for _ in 0..2_000 {
        let mut decoder = begun(FRAME_LEN_MAX_DEFAULT);
        let garbage = random.bytes(200);
        assert!(decode(&mut decoder, &garbage, |_, _| Ok(())).is_err());
    }
}

#[test]
fn flipped_bits_never_panic_and_never_ask_for_more_than_the_limit() {
    let (stream, _) = three_frames();
    for bit in 0..stream.len() * 8 {
        let mut flipped = stream.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        let mut decoder = Decoder::new(FRAME_LEN_MAX_DEFAULT);
        let mut at = 0;
        while let Ok(Step::InPlace { .. } | Step::Assembled(_)) =
            decoder.next(&flipped, &mut at, |header| {
                assert!(header.frame_len() <= FRAME_LEN_MAX_DEFAULT.into());
                Ok(Some(Body::new()))
            })
        {
            assert!(at <= flipped.len());
        }
    }
}

#[test]
fn a_cut_frame_can_be_taken_out_and_the_stream_goes_on_behind_it() {
    let long = frame(request(CallId::new(1, 1)), &[7; 1000]);
    let next = frame(request(CallId::new(2, 1)), b"next");
    let mut decoder = begun(FRAME_LEN_MAX_DEFAULT);
    let mut at = 0;
    assert!(is_more(decoder.next(&long[..100], &mut at, |_| Ok(Some(Body::new())))));
    let partial = decoder.take_partial().unwrap();
    assert_eq!(partial.header.frame_len() as usize, long.len());
    assert_eq!(&partial.buffer[..], &long[..100]);
    assert!(decoder.is_between_frames());
    assert_eq!(decoder.header_of(&next[..31]), Ok(None));
    assert_eq!(decoder.header_of(&next).unwrap().unwrap().body_len, 4);
    let step = decoder.next(&next, &mut 0, |_| Ok(Some(Body::new()))).unwrap();
    assert!(matches!(step, Step::InPlace { body, .. } if body == (32..36)));
}

#[test]
fn a_frame_that_there_is_no_memory_for_ends_the_stream() {
    let frame = frame(request(CallId::new(1, 1)), &[7; 1000]);
    for cut in [0, 1, 31, 32, 33, 500] {
        let mut decoder = begun(FRAME_LEN_MAX_DEFAULT);
        let no_memory =
            |header: &Header| Err(SessionError::NoMemory { frame_len: header.frame_len() });
        let (head, tail) = frame.split_at(cut);
        let tail = &tail[..100];
        let first = decoder.next(head, &mut 0, no_memory);
        let outcome = if first.is_ok() { decoder.next(tail, &mut 0, no_memory) } else { first };
        let refused = SessionError::NoMemory { frame_len: frame.len() as u64 };
        assert_eq!(outcome.unwrap_err(), refused, "cut at {cut}");
    }
}

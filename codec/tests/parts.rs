//! Long frames: in parts between the others, whole again at the other side, and in order within
//! their call.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use std::collections::{BTreeMap, VecDeque};

use ringcall_codec::{
    CallId, Decoder, Flags, FrameBuffer, Header, Interleaver, Kind, Partial, Piece, SessionError,
    Step,
    limits::{FRAME_LEN_MAX_DEFAULT, HEADER_LEN, LONG_FRAMES_MAX, PART_LEN, PARTS_AT_ONCE_MAX},
};
use support::{
    Body, Random, decode, frame, frame_with, header, hello, of_call,
    parts::{body, in_parts, item, of_callee, part},
    request, response,
};

/// A decoder that has seen a HELLO, and the frames that it gave.
struct Receiver {
    decoder: Decoder<Body>,
    frames: Vec<(Header, Vec<u8>)>,
}

impl Receiver {
    fn new() -> Self {
        let mut decoder = Decoder::new(FRAME_LEN_MAX_DEFAULT);
        decode(&mut decoder, &hello(), |_, _| Ok(())).unwrap();
        Self { decoder, frames: Vec::new() }
    }

    fn feed(&mut self, bytes: &[u8]) -> Result<(), SessionError> {
        let frames = &mut self.frames;
        decode(&mut self.decoder, bytes, |header, payload| {
            assert!(payload.as_ptr().addr().is_multiple_of(16));
            frames.push((*header, payload.to_vec()));
            Ok(())
        })
    }

    /// Feeds bytes, and receives what is left of a part straight to its place.
    fn feed_lent(&mut self, mut bytes: &[u8], random: &mut Random) {
        while !bytes.is_empty() {
            let take = bytes.len().min(1 + random.below(100));
            let (now, rest) = bytes.split_at(take);
            self.feed(now).unwrap();
            bytes = rest;
            let Some(missing) = self.decoder.cut_part_len().filter(|len| *len <= bytes.len())
            else {
                continue;
            };
            let mut lent = self.decoder.lend_part().unwrap();
            assert!(self.decoder.cut_part_len().is_none() && !self.decoder.is_between_frames());
            assert_eq!(lent.len + lent.padding, missing);
            lent.buffer.append(&bytes[..lent.len]);
            bytes = &bytes[missing..];
            let more = lent.more;
            match self.decoder.take_part_back(lent, missing) {
                Step::Part => assert!(more),
                Step::Assembled(frame) => {
                    assert!(!more);
                    self.frames.push((frame.header, frame.body().to_vec()));
                }
                other => panic!("{other:?}"),
            }
        }
    }

    fn assert_done(&self) {
        assert!(self.decoder.is_between_frames());
        assert_eq!(self.decoder.long_frames().0, 0);
    }
}

/// Sends one piece, which is bounded.
fn send(from: &mut Interleaver, part_len: usize) -> Option<Vec<u8>> {
    let Piece { bytes, range, .. } = from.next_piece()?;
    assert!(from.next_piece().is_none(), "one piece at a time");
    let sent = bytes[range].to_vec();
    from.sent(bytes);
    let header = Header::parse(sent.first_chunk().unwrap()).unwrap();
    if header.kind == Kind::Part {
        assert!(sent.len() <= HEADER_LEN + part_len * PARTS_AT_ONCE_MAX + part_len / 2 + 15);
    }
    Some(sent)
}

#[test]
fn a_long_frame_is_whole_again_at_the_other_side() {
    for len in [PART_LEN + 1, PART_LEN + 16, 3 * PART_LEN / 2 + 33, 10 * PART_LEN, 1_000_003] {
        let (mut sender, mut receiver) = (Interleaver::default(), Receiver::new());
        let body = body(len, 7);
        let call = request(CallId::new(3, 1));
        sender.push(frame(call, &body));
        while let Some(sent) = send(&mut sender, PART_LEN) {
            for piece in sent.chunks(16_384) {
                receiver.feed(piece).unwrap();
            }
        }
        assert!(sender.is_empty());
        receiver.assert_done();
        let header = Header { body_len: len as u32, ..call };
        assert!(receiver.frames == [(header, body)], "{len} bytes");
    }
}

#[test]
fn a_frame_of_the_longest_payload_that_goes_whole_does() {
    let mut sender = Interleaver::default();
    let whole = frame(request(CallId::new(0, 1)), &body(PART_LEN, 0));
    assert!(sender.passes(&whole));
    sender.push(whole.clone());
    assert_eq!(send(&mut sender, PART_LEN), Some(whole));
    assert!(sender.is_empty());
    assert!(!sender.passes(&frame(request(CallId::new(0, 1)), &body(PART_LEN + 1, 0))));
}

#[test]
fn metadata_comes_with_the_first_part() {
    let (mut sender, mut receiver) = (Interleaver::new(64), Receiver::new());
    let metadata = body(48, 1);
    sender.push(frame_with(request(CallId::new(0, 1)), &metadata, &body(100, 2)));
    while let Some(sent) = send(&mut sender, 64) {
        receiver.feed(&sent).unwrap();
    }
    let [(header, payload)] = &receiver.frames[..] else { panic!("one frame") };
    assert_eq!((header.meta_bytes(), header.body_len), (48, 100));
    assert_eq!(*payload, [metadata, body(100, 2)].concat());
}

#[test]
fn a_short_frame_overtakes_a_long_one() {
    let (mut sender, mut receiver) = (Interleaver::default(), Receiver::new());
    sender.push(frame(response(CallId::new(0, 1)), &body(16 * PART_LEN, 0)));
    let header = send(&mut sender, PART_LEN).unwrap();
    assert_eq!(header.len(), HEADER_LEN);
    receiver.feed(&header).unwrap();
    receiver.feed(&send(&mut sender, PART_LEN).unwrap()).unwrap();
    sender.push(frame(response(CallId::new(1, 1)), b"short"));
    // None of it is before that.
    receiver.feed(&send(&mut sender, PART_LEN).unwrap()).unwrap();
    assert_eq!(receiver.frames.len(), 1);
    assert_eq!(receiver.frames[0].1, b"short");
    let (missing, announced) = receiver.decoder.long_frames();
    assert_eq!(announced, 16 * PART_LEN as u64);
    assert_eq!(missing, announced - (PARTS_AT_ONCE_MAX * PART_LEN) as u64);
}

#[test]
fn long_frames_take_turns() {
    let (mut sender, mut receiver) = (Interleaver::new(64), Receiver::new());
    sender.push(frame(response(CallId::new(0, 1)), &body(6400, 0)));
    sender.push(frame(response(CallId::new(1, 1)), &body(640, 1)));
    let mut sent = 0;
    while receiver.frames.is_empty() {
        let piece = send(&mut sender, 64).unwrap();
        sent += piece.len();
        receiver.feed(&piece).unwrap();
    }
    assert_eq!(receiver.frames[0].0.call, CallId::new(1, 1));
    assert!(sent < 4 * 640, "the shorter one ends first: {sent} bytes");
}

#[test]
fn short_frames_without_end_do_not_hold_a_long_one_up() {
    let (mut sender, mut receiver) = (Interleaver::new(64), Receiver::new());
    sender.push(frame(response(CallId::new(0, 1)), &body(640, 0)));
    for round in 0..40 {
        sender.push(frame(response(CallId::new(1, round + 1)), b"short"));
        receiver.feed(&send(&mut sender, 64).unwrap()).unwrap();
    }
    assert!(receiver.frames.iter().any(|(header, _)| header.call == CallId::new(0, 1)));
}

#[test]
fn short_frames_have_their_turn_and_no_more() {
    let (mut sender, mut receiver) = (Interleaver::new(64), Receiver::new());
    sender.push(frame(response(CallId::new(0, 1)), &body(6400, 0)));
    receiver.feed(&send(&mut sender, 64).unwrap()).unwrap();
    let shorts = (0..100).flat_map(|slot| frame(response(CallId::new(slot + 1, 1)), b"short"));
    sender.push(shorts.collect());
    let (mut parts, mut short_bytes) = (0, 0);
    while let Some(sent) = send(&mut sender, 64) {
        receiver.feed(&sent).unwrap();
        if Header::parse(sent.first_chunk().unwrap()).unwrap().kind == Kind::Part {
            parts += 1;
            assert!(short_bytes <= (parts + 1) * 128, "{short_bytes} between {parts} parts");
        } else {
            short_bytes += sent.len();
        }
    }
    receiver.assert_done();
    assert_eq!(receiver.frames.len(), 101);
    let last = &receiver.frames[100].0;
    assert_eq!(last.call, CallId::new(0, 1));
}

#[test]
fn frames_of_one_call_keep_their_order() {
    let (mut sender, mut receiver) = (Interleaver::new(64), Receiver::new());
    let (call, other) = (CallId::new(0, 1), CallId::new(1, 1));
    let item = |call, sequence| of_callee(item(call, sequence));
    let frames = [
        frame(item(call, 0), &body(10, 0)),
        frame(item(call, 1), &body(300, 1)),
        frame(item(call, 2), &body(10, 2)),
        frame(item(call, 3), &body(200, 3)),
        frame(item(other, 0), &body(10, 4)),
        frame(response(call), &body(10, 5)),
    ];
    sender.push(frames.concat());
    while let Some(sent) = send(&mut sender, 64) {
        receiver.feed(&sent).unwrap();
    }
    receiver.assert_done();
    let of = |wanted: CallId| {
        let frames = receiver.frames.iter().filter(move |(header, _)| header.call == wanted);
        frames.map(|(header, body)| (header.kind, header.aux, body.len())).collect::<Vec<_>>()
    };
    let items = [10, 300, 10, 200].into_iter().zip(0..).map(|(len, at)| (Kind::Item, at, len));
    let expected: Vec<_> = items.chain([(Kind::Response, 0, 10)]).collect();
    assert_eq!(of(call), expected);
    assert_eq!(of(other), [(Kind::Item, 0, 10)]);
    // That of another call did not wait.
    assert_eq!(receiver.frames[1].0.call, other);
}

#[test]
fn a_slot_is_not_used_again_before_its_last_call_has_come() {
    let (mut sender, mut receiver) = (Interleaver::new(64), Receiver::new());
    sender.push(frame(item(CallId::new(0, 1), 0), &body(640, 0)));
    // The call was answered meanwhile. That of the other table has to do with neither.
    sender.push(frame(request(CallId::new(0, 2)), b""));
    sender.push(frame(response(CallId::new(0, 1)), b""));
    while let Some(sent) = send(&mut sender, 64) {
        receiver.feed(&sent).unwrap();
    }
    let kinds: Vec<_> = receiver.frames.iter().map(|(header, _)| header.kind).collect();
    assert_eq!(kinds, [Kind::Response, Kind::Item, Kind::Request]);
}

#[test]
fn a_hello_and_a_status_are_not_long() {
    let mut sender = Interleaver::new(16);
    let status = Header { code: 5, ..response(CallId::new(0, 1)) };
    for whole in [hello(), frame(status, &body(200, 0)), frame(header(Kind::GoAway), &body(99, 0))]
    {
        sender.push(whole.clone());
        assert_eq!(send(&mut sender, 16), Some(whole));
    }
    assert!(sender.is_empty());
}

#[test]
fn a_cancel_does_not_overtake_its_request() {
    let (mut sender, mut receiver) = (Interleaver::new(64), Receiver::new());
    let call = CallId::new(0, 1);
    sender.push(frame(request(call), &body(640, 0)));
    sender.push([frame(of_call(Kind::Cancel, call), b""), frame(header(Kind::Ping), b"")].concat());
    while let Some(sent) = send(&mut sender, 64) {
        receiver.feed(&sent).unwrap();
    }
    let kinds: Vec<_> = receiver.frames.iter().map(|(header, _)| header.kind).collect();
    assert_eq!(kinds, [Kind::Ping, Kind::Request, Kind::Cancel]);
}

#[test]
fn a_pong_waits_for_all_that_was_sent_before_it() {
    let (mut sender, mut receiver) = (Interleaver::new(64), Receiver::new());
    // The second item is begun only when the first has ended, and the request before that.
    for (header, len) in [(item(CallId::new(0, 1), 0), 640), (item(CallId::new(0, 1), 1), 300)] {
        sender.push(frame(header, &body(len, 0)));
    }
    sender.push(frame(request(CallId::new(1, 1)), &body(100, 0)));
    sender.push(frame(header(Kind::Pong), b""));
    sender.push(frame(request(CallId::new(2, 1)), &body(6400, 0)));
    while let Some(sent) = send(&mut sender, 64) {
        receiver.feed(&sent).unwrap();
    }
    let kinds: Vec<_> = receiver.frames.iter().map(|(header, _)| header.kind).collect();
    let expected = [Kind::Request, Kind::Item, Kind::Item, Kind::Pong, Kind::Request];
    assert_eq!(kinds, expected);
}

#[test]
fn the_last_word_is_the_last() {
    let (mut sender, mut receiver) = (Interleaver::new(64), Receiver::new());
    sender.push(frame(response(CallId::new(0, 1)), &body(6400, 0)));
    receiver.feed(&send(&mut sender, 64).unwrap()).unwrap();
    let last = Header { flags: Flags::END, ..header(Kind::GoAway) };
    sender.push([frame(response(CallId::new(1, 1)), &body(640, 0)), frame(last, b"")].concat());
    while let Some(sent) = send(&mut sender, 64) {
        receiver.feed(&sent).unwrap();
    }
    receiver.assert_done();
    let kinds: Vec<_> = receiver.frames.iter().map(|(header, _)| header.kind).collect();
    assert_eq!(kinds, [Kind::Response, Kind::Response, Kind::GoAway]);
}

#[test]
fn no_more_frames_are_begun_than_may_be() {
    let (mut sender, mut receiver) = (Interleaver::new(64), Receiver::new());
    let frames = LONG_FRAMES_MAX as u32 + 5;
    for slot in 0..frames {
        sender.push(frame(response(CallId::new(slot, 1)), &body(1000, slot as usize)));
    }
    // The receiver would refuse one too many.
    while let Some(sent) = send(&mut sender, 64) {
        receiver.feed(&sent).unwrap();
    }
    receiver.assert_done();
    assert_eq!(receiver.frames.len(), frames as usize);
    for (header, payload) in &receiver.frames {
        assert_eq!(*payload, body(1000, header.call.slot() as usize));
    }
}

#[test]
fn what_waits_is_counted_but_for_the_first_long_frame() {
    let mut sender = Interleaver::new(64);
    sender.push(frame(response(CallId::new(0, 1)), &body(6400, 0)));
    assert_eq!(sender.waiting_bytes(), 0);
    sender.push(frame(response(CallId::new(1, 1)), b""));
    assert_eq!(sender.waiting_bytes(), HEADER_LEN);
    sender.push(frame(response(CallId::new(2, 1)), &body(640, 0)));
    assert_eq!(sender.waiting_bytes(), HEADER_LEN + 640);
    // What follows the first of its call, and what follows all.
    sender.push(frame(of_callee(item(CallId::new(0, 1), 0)), &body(16, 0)));
    sender.push(frame(header(Kind::Pong), b""));
    assert_eq!(sender.waiting_bytes(), 3 * HEADER_LEN + 16 + 640);
    while let Some(Piece { bytes, .. }) = sender.next_piece() {
        sender.sent(bytes);
    }
    assert_eq!(sender.waiting_bytes(), 0);
}

#[test]
fn a_frame_refused_by_its_header_is_skipped_and_the_others_are_not() {
    let mut decoder = Receiver::new().decoder;
    let (refused, wanted) = (request(CallId::new(0, 1)), request(CallId::new(1, 1)));
    let mut stream = in_parts(refused, 100).encode().to_vec();
    stream.extend(in_parts(wanted, 40).encode());
    for bytes in [part(1, &[1; 64]), part(2, &[2; 40]), part(1, &[1; 36])] {
        stream.extend(bytes);
    }
    let (mut at, mut frames) = (0, Vec::new());
    loop {
        let take = |header: &Header| {
            assert!(!header.flags.contains(Flags::IN_PARTS));
            Ok((header.call == wanted.call).then(Body::new))
        };
        match decoder.next(&stream, &mut at, take).unwrap() {
            Step::Part => {}
            Step::Assembled(Partial { header, buffer }) => frames.push((header, buffer.len())),
            Step::More => break,
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(frames, [(Header { body_len: 40, ..wanted }, 72)]);
    assert_eq!((at, decoder.long_frames()), (stream.len(), (0, 140)));
}

#[test]
fn parts_that_cannot_be_are_refused() {
    let long = |len| in_parts(request(CallId::new(0, 1)), len).encode().to_vec();
    let refused = |frames: &[Vec<u8>]| {
        let mut receiver = Receiver::new();
        let error = receiver.feed(&frames.concat()).unwrap_err();
        // The same byte by byte.
        let mut bytewise = Receiver::new();
        let stream = frames.concat();
        let found = stream.chunks(1).find_map(|byte| bytewise.feed(byte).err());
        assert_eq!(found.as_ref(), Some(&error));
        error.to_string()
    };
    let says = |frames: &[Vec<u8>], why: &str| {
        let error = refused(frames);
        assert!(error.contains(why), "{error}");
    };
    says(&[part(1, b"x")], "no such frame");
    says(&[long(100), part(2, &[0; 16])], "no such frame");
    says(&[long(100), part(1, &[0; 112])], "longer than the rest");
    says(&[long(100), part(1, &[0; 33])], "no multiple of 16");
    says(&[long(0)], "no payload");
    says(&[long(100), part(1, &[0; 100]), part(1, b"x")], "no such frame");
    says(&[long(100), long(100)], "its call has another");
    says(&[header(Kind::Part).encode().to_vec(), vec![0; 16]], "no such frame");
    let empty = Header { body_len: 0, ..of_call(Kind::Part, CallId(1)) };
    says(&[long(100), empty.encode().to_vec()], "without a body");
    says(&[long(FRAME_LEN_MAX_DEFAULT as usize)], "frame_len_max");
    let of_slot = |slot| in_parts(request(CallId::new(slot, 1)), 100).encode().to_vec();
    let many: Vec<_> = (0..=LONG_FRAMES_MAX as u32).map(of_slot).collect();
    says(&many, "too many frames");
}

#[test]
fn only_messages_come_in_parts() {
    let is_refused = |header: Header| {
        let header = Header { flags: header.flags.with(Flags::IN_PARTS), ..header };
        Header::parse(&header.encode()).is_err()
    };
    for kind in support::KINDS {
        let is_message = matches!(kind, Kind::Request | Kind::OneWay | Kind::Response | Kind::Item);
        assert_eq!(is_refused(header(kind)), !is_message, "{kind}");
    }
    assert!(is_refused(Header { code: 5, ..response(CallId::new(0, 1)) }), "a status");
    assert!(is_refused(Header { flags: Flags::END, ..item(CallId::new(0, 1), 0) }), "an end");
}

#[test]
fn nothing_comes_in_parts_before_hello() {
    let mut decoder = Decoder::<Body>::new(FRAME_LEN_MAX_DEFAULT);
    let stream = in_parts(request(CallId::new(0, 1)), 100).encode();
    let error = decode(&mut decoder, &stream, |_, _| Ok(())).unwrap_err();
    assert!(matches!(error, SessionError::Unexpected { kind: Kind::Request, .. }), "{error}");
}

/// Frames of random calls and lengths, pushed and sent at random, in pieces of random lengths:
/// each comes once, unaltered, and those of a call in order.
#[test]
fn frames_at_random_come_once_and_in_order() {
    for seed in 1..=200 {
        let mut random = Random::new(seed);
        let part_len = 16 * (1 + random.below(8));
        let (mut sender, mut receiver) = (Interleaver::new(part_len), Receiver::new());
        let lends = random.below(2) == 0;
        let mut expected: BTreeMap<u64, VecDeque<(Header, Vec<u8>)>> = BTreeMap::new();
        let mut pushed = 0;
        while pushed < 200 || !sender.is_empty() {
            if pushed < 200 && random.below(3) > 0 {
                let mut output = Vec::new();
                for _ in 0..1 + random.below(4) {
                    pushed += 1;
                    let call = CallId::new(random.below(6) as u32, 1);
                    let len = match random.below(3) {
                        0 => random.below(20),
                        1 => random.below(3 * part_len),
                        _ => random.below(20 * part_len),
                    };
                    let body = body(len, pushed);
                    let header = Header { body_len: len as u32, ..item(call, pushed as u32) };
                    output.extend(frame(header, &body));
                    expected.entry(call.0).or_default().push_back((header, body));
                }
                sender.push(output);
            }
            let Some(sent) = send(&mut sender, part_len) else { continue };
            if lends {
                receiver.feed_lent(&sent, &mut random);
            } else {
                receiver.feed(&sent).unwrap();
            }
        }
        receiver.assert_done();
        for (header, body) in receiver.frames {
            let next = expected.get_mut(&header.call.0).and_then(VecDeque::pop_front);
            assert!(next == Some((header, body)), "seed {seed}, call {}", header.call);
        }
        assert!(expected.values().all(VecDeque::is_empty), "seed {seed}");
    }
}

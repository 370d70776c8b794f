//! Long frames between two sessions: the time that they have, the credit that they take, and what
//! waits for them.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use ringcall_codec::{
    CallId, Code, Event, Header, Kind, Patience, SessionError, Status,
    limits::{PART_LEN, PARTS_AT_ONCE_MAX},
};
use support::{
    Blob, PATIENT, Pair, frame, header,
    parts::{body, in_parts, item, of_callee, part},
    request, response, waiting,
};

#[test]
fn long_calls_and_replies_pass_between_two_sessions() {
    let mut pair = Pair::open().in_parts_of(64);
    let (long, short) = (Blob::new(1, 5000), Blob::new(2, 8));
    let calls = [pair.call(&long), pair.call(&short)];
    pair.drive();
    // The short one came first.
    for (expected, blob) in [(calls[1], &short), (calls[0], &long)] {
        let (call, payload) = pair.next_call();
        assert_eq!(call, expected);
        assert!(payload.as_ref() == support::archive(blob).as_ref());
        pair.reply(call, blob);
    }
    pair.drive();
    for (expected, blob) in [(calls[1], &short), (calls[0], &long)] {
        let (call, payload) = pair.next_reply();
        assert_eq!(call, expected);
        assert!(payload.as_ref() == support::archive(blob).as_ref());
        pair.client.release(call);
    }
    assert_eq!(pair.client.calls_made(), 0);
}

/// Parts of a long request that come one by one, each piece of bytes ending inside of the next.
#[test]
fn a_part_has_its_own_time() {
    let patience = Patience { frame_us: 1_000, bytes_per_s_min: 1_000_000, ..PATIENT };
    let config = waiting(patience);
    let mut pair = Pair::open_configured(&config, &config, 1);
    let payload = support::archive(&Blob::new(1, 64_000));
    let call = CallId::new(0, 1);
    let mut stream = in_parts(request(call), payload.len()).encode().to_vec();
    for bytes in payload.chunks(1_600) {
        stream.extend(part(1, bytes));
    }
    // Some 128 ms are allowed for all of it, and less than 3 ms for each part.
    for piece in stream.chunks(1_632) {
        pair.now_us += 2_000;
        pair.feed_server(piece).unwrap();
        pair.wait_until(pair.now_us).unwrap();
    }
    assert_eq!(pair.next_call().0, call);
}

/// Time that a frame in parts may stand still: a millisecond, and twice the longest part at a byte
/// a microsecond.
const STALL_US: u64 = 1_000 + 2 * (PART_LEN * PARTS_AT_ONCE_MAX + PART_LEN / 2) as u64;

fn pair_with_patience() -> Pair {
    let patience = Patience { frame_us: 1_000, bytes_per_s_min: 1_000_000, ..PATIENT };
    Pair::open_configured(&waiting(patience), &waiting(patience), 0)
}

#[test]
fn what_has_begun_in_parts_is_to_go_on_whatever_comes_between() {
    let mut pair = pair_with_patience();
    pair.feed_server(&in_parts(request(CallId::new(0, 1)), 5_000).encode()).unwrap();
    // Whole frames, and another that is announced, are no progress of it.
    for at in 1..10 {
        pair.wait_until(at * STALL_US / 10).unwrap();
        pair.feed_server(&frame(header(Kind::Pong), b"")).unwrap();
    }
    pair.feed_server(&in_parts(request(CallId::new(1, 1)), 1_000).encode()).unwrap();
    // A few bytes are little.
    pair.feed_server(&part(1, &[0; 16])).unwrap();
    pair.wait_until(STALL_US + 31).unwrap();
    assert_eq!(pair.wait_until(STALL_US + 32), Err(SessionError::FrameStalled));
}

#[test]
fn what_came_fast_in_parts_allows_no_longer_stall() {
    let mut pair = pair_with_patience();
    pair.feed_server(&in_parts(request(CallId::new(0, 1)), 10_000_000).encode()).unwrap();
    for _ in 0..50 {
        pair.feed_server(&part(1, &vec![0; 160_000])).unwrap();
    }
    pair.wait_until(STALL_US - 1).unwrap();
    assert_eq!(pair.wait_until(STALL_US), Err(SessionError::FrameStalled));
}

#[test]
fn who_does_not_read_does_not_blame_the_peer_for_parts_that_it_did_not_read() {
    let mut pair = pair_with_patience();
    pair.feed_server(&in_parts(request(CallId::new(0, 1)), 5_000).encode()).unwrap();
    pair.server.handle_pause();
    pair.wait_until(10 * STALL_US).unwrap();
    pair.feed_server(&part(1, &[0; 16])).unwrap();
    pair.wait_until(11 * STALL_US - 1).unwrap();
    assert_eq!(pair.wait_until(11 * STALL_US), Err(SessionError::FrameStalled));
}

#[test]
fn a_response_or_item_of_nothing_is_refused_by_its_header() {
    let mut pair = Pair::open();
    let call = pair.call(&Blob::new(1, 8));
    let refuses = |header: Header| pair.client.check_header(&header).err();
    assert_eq!(refuses(response(call)), None);
    let other = CallId::new(1, 1);
    assert_eq!(refuses(response(other)), Some(SessionError::NoSuchCall(other)));
    let stale = CallId::new(0, 2);
    assert_eq!(refuses(response(stale)), Some(SessionError::NoSuchCall(stale)));
    let no_stream = of_callee(item(call, 0));
    assert_eq!(refuses(no_stream), Some(SessionError::NoSuchStream(call)));
}

#[test]
fn a_drain_waits_for_a_call_that_is_coming_in_parts() {
    let mut pair = Pair::open();
    let payload = support::archive(&Blob::new(1, 100));
    let call = CallId::new(0, 1);
    pair.feed_server(&in_parts(request(call), payload.len()).encode()).unwrap();
    pair.server.drain(&Status::new(Code::Unavailable, "drained"));
    pair.drive();
    assert!(!pair.server.is_drained(), "the call is to be refused first");
    pair.feed_server(&part(1, &payload)).unwrap();
    let refused = [Event::Refused(Code::Unavailable)];
    assert_eq!(pair.take_server_events()[1..], refused);
    assert!(pair.server.is_drained());
}

/// A short item that waits behind a long one of its stream, and is overtaken by a long one of
/// another that takes all credit of the connection.
#[test]
fn items_that_overtake_each_other_are_within_their_credit() {
    let window = 8_192;
    let mut pair = support::streams::pair(1 << 20, window);
    let (first, _) = support::streams::stream(&mut pair);
    let (second, _) = support::streams::stream(&mut pair);
    let item = |stream: CallId, sequence, len| frame(item(stream, sequence), &body(len, 0));
    // Sent in this order, with credit: 4 KiB, a short one, and one that is longer than the rest.
    let long = item(second.call, 0, 40_000);
    let (before, behind) = (item(first.call, 0, 4_096), item(first.call, 1, 10));
    for frame in [before, long, behind] {
        pair.feed_server(&frame).unwrap();
    }
    // Nobody has sent with credit what comes now.
    let refused = pair.feed_server(&item(second.call, 1, 40_000));
    assert_eq!(refused, Err(SessionError::CreditOverdrawn(second.call)));
}

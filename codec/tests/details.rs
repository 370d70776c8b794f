//! Typed details of a status, from a server's handler to the caller.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use ringcall_codec::{
    CallId, Code, Event, Flags, Header, Kind, SessionError, Status,
    limits::{STATUS_BODY_LEN_MAX, STATUS_DETAILS_LEN_MAX},
};
use support::{Blob, Order, Pair, frame, frame_with, header, response, take_frames};

/// What the caller of a call is told where its server refuses it so.
fn travel(status: &Status, piece_len: usize) -> Status {
    let mut pair = Pair::open();
    pair.piece_len = piece_len;
    let call = pair.call(&Blob::new(0, 0));
    pair.drive();
    assert!(pair.server.refuse(call, status));
    pair.drive();
    failure(&mut pair, call)
}

fn failure(pair: &mut Pair, call: CallId) -> Status {
    match pair.client_events.pop_front() {
        Some((Event::Failed(failed, status), _)) if failed == call => status,
        other => panic!("{other:?}"),
    }
}

#[test]
fn details_reach_the_caller_as_their_type() {
    let status = Status::new(Code::Aborted, "lost").with_details(&Order::example()).unwrap();
    for piece_len in [usize::MAX, 1, 5, 16, 40, 100] {
        for status in [status.clone(), status.clone().not_executed()] {
            let received = travel(&status, piece_len);
            assert_eq!(received, status);
            let order = received.details::<Order>().unwrap();
            assert_eq!(order.customer, Order::example().customer);
            assert_eq!(order.lines.len(), 2);
            assert!(received.details::<Blob>().is_none(), "they are of another type");
        }
    }
}

#[test]
fn a_header_says_whether_there_are_details() {
    let plain = Status::new(Code::Aborted, "");
    let detailed = plain.clone().with_details(&Blob::new(1, 1)).unwrap();
    for (status, flags) in [
        (plain.clone(), Flags::NONE),
        (plain.not_executed(), Flags::NOT_EXECUTED),
        (detailed.clone(), Flags::DETAILS),
        (detailed.not_executed(), Flags::DETAILS.with(Flags::NOT_EXECUTED)),
    ] {
        let mut pair = Pair::open();
        let call = pair.call(&Blob::new(0, 0));
        pair.drive();
        pair.server.refuse(call, &status);
        let frames = take_frames(&mut pair.server);
        assert_eq!((frames[0].0.code, frames[0].0.flags), (Code::Aborted as u32, flags));
    }
}

#[test]
fn the_longest_status_reaches_the_caller() {
    let text = "t".repeat(5_000);
    let blob = Blob::new(3, STATUS_DETAILS_LEN_MAX - 16);
    let status = Status::new(Code::Internal, text).with_details(&blob).unwrap();
    let received = travel(&status, usize::MAX);
    assert_eq!(received.message().len(), 1024);
    assert_eq!(received.details::<Blob>().unwrap().bytes.as_slice(), blob.bytes);

    let mut pair = Pair::open();
    let call = pair.call(&Blob::new(0, 0));
    pair.drive();
    pair.server.refuse(call, &status);
    assert_eq!(take_frames(&mut pair.server)[0].1.len(), STATUS_BODY_LEN_MAX);
}

#[test]
fn details_whose_lengths_lie_close() {
    let detailed = |call| Header { code: 10, flags: Flags::DETAILS, ..response(call) };
    let mut body = vec![0; 16];
    body[8..12].copy_from_slice(&17_u32.to_le_bytes());
    body.extend([0; 31]);
    let mut dirty = vec![0; 32];
    dirty[12] = 1;
    for body in [&b""[..], &[0; 15], &body, &dirty] {
        let mut pair = Pair::open();
        let call = pair.call(&Blob::new(0, 0));
        let refused = pair.feed_client(&frame(detailed(call), body));
        assert_eq!(refused, Err(SessionError::StatusMalformed));
    }
    let malformed = SessionError::StatusMalformed.status();
    assert_eq!(malformed.code(), Code::InvalidArgument);
    assert_eq!(malformed.message(), "status with malformed details");
}

#[test]
fn details_that_are_no_archive_fail_their_call_only() {
    let mut pair = Pair::open();
    let call = pair.call(&Blob::new(0, 0));
    let mut body = <Blob as ringcall_codec::Field>::LAYOUT.to_le_bytes().to_vec();
    body.extend(16_u32.to_le_bytes());
    body.extend([0; 4]);
    body.extend([0xff; 16]);
    body.extend(b"as said");
    let header = Header { code: 10, flags: Flags::DETAILS, ..response(call) };
    pair.feed_client(&frame(header, &body)).unwrap();
    let status = failure(&mut pair, call);
    assert_eq!((status.code(), status.message()), (Code::Aborted, "as said"));
    assert!(status.has_details());
    assert!(status.details::<Blob>().is_none());
}

#[test]
fn details_are_found_behind_metadata() {
    let sent = Status::new(Code::Aborted, "lost").with_details(&Order::example()).unwrap();
    let mut pair = Pair::open();
    let call = pair.call(&Blob::new(0, 0));
    pair.drive();
    pair.server.refuse(call, &sent);
    let (header, body) = take_frames(&mut pair.server).remove(0);
    let mut block = ringcall_codec::Metadata::new();
    block.insert_named("k", "v").unwrap();
    pair.feed_client(&frame_with(header, block.as_bytes(), &body)).unwrap();
    assert_eq!(failure(&mut pair, call), sent);
}

#[test]
fn a_last_word_and_a_notice_have_no_details() {
    let status = Status::new(Code::Aborted, "lost").with_details(&Order::example()).unwrap();
    let mut pair = Pair::open();
    let number = pair.one_way();
    pair.drive();
    pair.server.end_one_way(number, Err(&status));
    pair.server.go_away(&status);
    let frames = take_frames(&mut pair.server);
    let said: Vec<_> =
        frames.iter().map(|(header, text)| (header.kind, header.flags, &text[..])).collect();
    let expected =
        [(Kind::Notice, Flags::NONE, &b"lost"[..]), (Kind::GoAway, Flags::END, &b"lost"[..])];
    assert_eq!(said, expected);
    for kind in [Kind::GoAway, Kind::Notice] {
        let header = Header { flags: Flags::DETAILS, ..header(kind) };
        let flags = header.encode()[7];
        let refused = ringcall_codec::HeaderError::ReservedFlags { flags, kind };
        assert_eq!(Header::parse(&header.encode()), Err(refused));
    }
}

//! Statuses: a code, a text that is cut to its limit, and whether the handler ran.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use ringcall_codec::{
    ClientEvent, Code, Flags, Header, Kind, Status, limits::STATUS_MESSAGE_LEN_MAX,
};
use support::{Blob, Pair, frame, header, response};

const CODES: [Code; 16] = [
    Code::Cancelled,
    Code::Unknown,
    Code::InvalidArgument,
    Code::DeadlineExceeded,
    Code::NotFound,
    Code::AlreadyExists,
    Code::PermissionDenied,
    Code::ResourceExhausted,
    Code::FailedPrecondition,
    Code::Aborted,
    Code::OutOfRange,
    Code::Unimplemented,
    Code::Internal,
    Code::Unavailable,
    Code::DataLoss,
    Code::Unauthenticated,
];

/// The status as the caller sees it.
fn travel(status: &Status) -> Status {
    let mut pair = Pair::open();
    let call = pair.call(&Blob::new(0, 0));
    pair.drive();
    assert!(pair.server.refuse(call, status));
    pair.drive();
    match pair.client_events.pop_front().unwrap().0 {
        ClientEvent::Failed(failed, status) if failed == call => status,
        event => panic!("{event:?}"),
    }
}

/// The status that a client sees in a response of this code and body.
fn received(code: u32, flags: Flags, body: &[u8]) -> Status {
    let mut pair = Pair::open();
    let call = pair.call(&Blob::new(0, 0));
    let header = Header { code, flags, ..response(call) };
    pair.feed_client(&frame(header, body)).unwrap();
    match pair.client_events.pop_front().unwrap().0 {
        ClientEvent::Failed(_, status) => status,
        event => panic!("{event:?}"),
    }
}

#[test]
fn every_code_arrives_with_its_text_and_mark() {
    for (number, code) in (1..).zip(CODES) {
        assert_eq!((code as u32, Code::from_u32(number)), (number, code));
        let status = Status::new(code, "why it failed");
        assert_eq!(travel(&status), status);
        let status = Status::new(code, "").not_executed();
        assert_eq!(travel(&status), status);
    }
}

#[test]
fn a_code_of_a_later_version_reads_as_unknown() {
    for number in [17, 1000, u32::MAX] {
        let status = received(number, Flags::NOT_EXECUTED, b"new");
        assert_eq!(status, Status::new(Code::Unknown, "new").not_executed());
    }
    // Zero is no status: where a GOAWAY has it, the peer has not said what it is.
    let mut pair = Pair::open();
    pair.feed_client(&frame(header(Kind::GoAway), b"")).unwrap();
    let (event, _) = pair.client_events.pop_front().unwrap();
    assert_eq!(event, ClientEvent::GoAway(Status::new(Code::Unknown, "")));
}

#[test]
fn a_text_is_cut_at_a_character_boundary() {
    const MAX: usize = STATUS_MESSAGE_LEN_MAX;
    for (text, expected_len) in [
        ("a".repeat(MAX), MAX),
        ("a".repeat(MAX + 1), MAX),
        ("ä".repeat(MAX), MAX),
        (format!("a{}", "ä".repeat(MAX)), MAX - 1),
        ("€".repeat(MAX), MAX - 1),
        (format!("a{}", "€".repeat(MAX)), MAX),
        (format!("aa{}", "😀".repeat(MAX)), MAX - 2),
        (format!("aaa{}", "😀".repeat(MAX)), MAX - 1),
    ] {
        let status = travel(&Status::new(Code::Internal, text.clone()));
        assert_eq!(status.message(), &text[..expected_len]);
    }
}

#[test]
fn a_text_that_is_not_utf8_is_shown_with_replacements() {
    assert_eq!(received(13, Flags::NONE, b"bad \xff byte").message(), "bad \u{fffd} byte");
    let worst = received(13, Flags::NONE, &[0xff; STATUS_MESSAGE_LEN_MAX]);
    assert_eq!(worst.message().chars().count(), STATUS_MESSAGE_LEN_MAX);
}

#[test]
fn a_status_prints_its_code_and_text() {
    assert_eq!(Status::new(Code::NotFound, "no such key").to_string(), "not found: no such key");
    assert_eq!(Status::new(Code::DataLoss, "").to_string(), "data loss");
}

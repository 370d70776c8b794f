//! Statuses: a code, a text that is cut to its limit, whether the handler ran, and details.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use ringcall_codec::{
    Code, EncodeError, Event, Flags, Header, Kind, Status,
    limits::{STATUS_DETAILS_LEN_MAX, STATUS_MESSAGE_LEN_MAX},
};
use support::{Blob, Order, Pair, frame, header, response};

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
        Event::Failed(failed, status) if failed == call => status,
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
        Event::Failed(_, status) => status,
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
    let last = Header { flags: Flags::END, ..header(Kind::GoAway) };
    pair.feed_client(&frame(last, b"")).unwrap();
    let (event, _) = pair.client_events.pop_front().unwrap();
    assert_eq!(event, Event::GoAway(Status::new(Code::Unknown, "")));
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

#[test]
fn details_are_read_as_the_type_that_they_were_given_as() {
    let plain = Status::new(Code::NotFound, "no such order");
    assert!(!plain.has_details());
    assert!(plain.details::<Order>().is_none());

    let status = plain.clone().with_details(&Order::example()).unwrap();
    assert!(status.has_details());
    let order = status.details::<Order>().unwrap();
    assert_eq!(order.id, Order::example().id);
    assert_eq!(order.customer, Order::example().customer);
    assert_eq!(order.lines.len(), 2);
    assert!(status.details::<Blob>().is_none());
    assert_eq!(status.message(), "no such order");
    assert_eq!(status.to_string(), plain.to_string());

    // The later ones count.
    let status = status.with_details(&Blob::new(3, 40)).unwrap();
    assert!(status.details::<Order>().is_none());
    assert_eq!(status.details::<Blob>().unwrap().bytes.as_slice(), Blob::new(3, 40).bytes);
}

#[test]
fn a_status_with_details_is_copied_and_compared_whole() {
    let plain = Status::new(Code::Aborted, "");
    let status = plain.clone().with_details(&Blob::new(1, 9)).unwrap();
    let copy = status.clone();
    assert_eq!(copy, status);
    assert_ne!(status, plain);
    assert_ne!(status, plain.clone().with_details(&Blob::new(2, 9)).unwrap());
    assert_ne!(status, plain.with_details(&Order::example()).unwrap());
    drop(status);
    assert_eq!(copy.details::<Blob>().unwrap().id, 1);
}

#[test]
fn details_beyond_their_limit_are_refused() {
    const MAX: usize = STATUS_DETAILS_LEN_MAX;
    // The bytes of the list, and 16 for what points to them.
    let status = |len| Status::new(Code::Internal, "").with_details(&Blob::new(0, len));
    assert_eq!(status(MAX - 16).unwrap().details::<Blob>().unwrap().bytes.len(), MAX - 16);
    assert_eq!(status(MAX - 15), Err(EncodeError::TooLong { body_len_max: MAX }));
    assert_eq!(status(1 << 20), Err(EncodeError::TooLong { body_len_max: MAX }));
}

#[test]
fn a_status_is_small() {
    assert!(size_of::<Status>() <= 40);
    assert!(size_of::<Result<(), Status>>() <= 40);
}

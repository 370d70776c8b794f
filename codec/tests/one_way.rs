//! One-way calls: numbered, without an outcome, and a NOTICE where one fails.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use ringcall_codec::{
    CallId, CallOptions, Code, EncodeError, Event, Flags, Header, Kind, Limits, OpenError,
    SessionError, Status, access,
};
use support::{Blob, ECHO, Pair, frame, header, of_call, take_frames};

fn notice(number: u64, code: Code) -> Header {
    Header { code: code as u32, ..of_call(Kind::Notice, CallId(number)) }
}

fn one_way(number: u64) -> Header {
    Header { code: ECHO, ..of_call(Kind::OneWay, CallId(number)) }
}

#[test]
fn one_way_calls_are_numbered_from_one_and_take_no_slot() {
    let few = Limits { calls_in_flight_max: 1, ..Limits::default() };
    let mut pair = Pair::open_with(Limits::default(), few);
    let call = pair.call(&Blob::new(0, 0));
    let numbers: Vec<_> = (0..5).map(|_| pair.one_way()).collect();
    assert_eq!(numbers, [1, 2, 3, 4, 5]);
    assert_eq!(pair.client.calls_made(), 1);
    let frames = take_frames(&mut pair.client);
    assert_eq!(frames[0].0.call, call);
    for (number, (header, body)) in (1..).zip(&frames[1..]) {
        assert_eq!(*header, Header { body_len: body.len() as u32, ..one_way(number) });
    }
}

#[test]
fn a_one_way_call_arrives_with_its_request_and_is_not_answered() {
    let mut pair = Pair::open();
    let (options, blob) = (CallOptions::default(), Blob::new(9, 30));
    let number = pair.client.one_way(&mut pair.scratch, ECHO, options, &blob).unwrap();
    pair.drive();
    let (event, body) = pair.server_events.pop_front().unwrap();
    assert_eq!(event, Event::OneWay { number, method: ECHO });
    assert_eq!(access::<Blob>(&body).unwrap().bytes.as_slice(), blob.bytes);
    assert_eq!((pair.server.one_ways_running(), pair.server.calls_running()), (1, 0));
    pair.server.end_one_way(number, Ok(()));
    assert_eq!(pair.server.one_ways_running(), 0);
    assert!(pair.server.output().is_empty());
}

#[test]
fn a_one_way_call_that_fails_is_noticed() {
    let mut pair = Pair::open();
    let numbers = [pair.one_way(), pair.one_way()];
    pair.drive();
    let status = Status::new(Code::NotFound, "no such key");
    pair.server.end_one_way(numbers[1], Err(&status));
    pair.drive();
    let noticed = Event::Notice { number: numbers[1], status: status.clone() };
    assert_eq!(pair.take_client_events(), [noticed]);
    assert_eq!(pair.server.one_ways_running(), 1);
    // Code and text are all that travels of a status here.
    let full = status.clone().not_executed().with_details(&Blob::new(1, 1)).unwrap();
    pair.server.end_one_way(numbers[0], Err(&full));
    pair.drive();
    let noticed = Event::Notice { number: numbers[0], status };
    assert_eq!(pair.take_client_events(), [noticed]);
}

#[test]
fn a_notice_of_no_one_way_call_closes() {
    let mut pair = Pair::open();
    pair.one_way();
    for number in [0, 2, u64::MAX] {
        let refused = pair.feed_client(&frame(notice(number, Code::Aborted), b""));
        assert_eq!(refused, Err(SessionError::NoSuchCall(CallId(number))));
    }
    pair.feed_client(&frame(notice(1, Code::Aborted), b"so it is")).unwrap();
    let status = Status::new(Code::Aborted, "so it is");
    assert_eq!(pair.take_client_events(), [Event::Notice { number: 1, status }]);
    // The server made none.
    let refused = pair.feed_server(&frame(notice(1, Code::Aborted), b""));
    assert_eq!(refused, Err(SessionError::NoSuchCall(CallId(1))));
}

#[test]
fn a_one_way_call_without_a_number_closes() {
    let mut pair = Pair::open();
    let refused = pair.feed_server(&frame(one_way(0), b""));
    assert_eq!(refused, Err(SessionError::GenerationZero(CallId(0))));
    let unavailable = Status::new(Code::Unavailable, "");
    let refused = pair.server.refuse_header(&one_way(0), &unavailable);
    assert_eq!(refused, Err(SessionError::GenerationZero(CallId(0))));
    assert!(pair.server.output().is_empty());
    assert_eq!(pair.feed_server(&frame(one_way(u64::MAX), b"")), Ok(()));
}

#[test]
fn no_more_one_way_calls_run_than_calls_may() {
    let few = Limits { calls_in_flight_max: 2, ..Limits::default() };
    let mut pair = Pair::open_with(Limits::default(), few);
    let numbers: Vec<_> = (0..3).map(|_| pair.one_way()).collect();
    pair.drive();
    let runs = |number| Event::OneWay { number, method: ECHO };
    let refused = Event::Refused(Code::ResourceExhausted);
    assert_eq!(pair.take_server_events(), [runs(1), runs(2), refused]);
    assert_eq!(pair.server.one_ways_running(), 2);
    let status = Status::new(Code::ResourceExhausted, "too many one-way calls run");
    assert_eq!(pair.take_client_events(), [Event::Notice { number: numbers[2], status }]);
    // They are counted apart from the calls, and there is room once one has ended.
    pair.call(&Blob::new(0, 0));
    pair.server.end_one_way(1, Ok(()));
    pair.one_way();
    pair.drive();
    pair.next_call();
    assert_eq!(pair.take_server_events(), [runs(4)]);
}

#[test]
fn a_one_way_call_that_cannot_be_made_uses_no_number() {
    let small = Limits { frame_len_max: 64 * 1024, ..Limits::default() };
    let mut pair = Pair::open_with(Limits::default(), small);
    let (options, long) = (CallOptions::default(), Blob::new(0, 1 << 20));
    let refused = pair.client.one_way(&mut pair.scratch, ECHO, options, &long);
    let too_long = EncodeError::TooLong { body_len_max: 64 * 1024 - 32 };
    assert_eq!(refused, Err(OpenError::Encode(too_long)));
    assert!(pair.client.output().is_empty());
    assert_eq!(pair.one_way(), 1);
    pair.client.go_away(&Status::new(Code::Cancelled, ""));
    let refused = pair.client.one_way(&mut pair.scratch, ECHO, options, &Blob::new(0, 0));
    assert_eq!(refused, Err(OpenError::NotOpen));
}

#[test]
fn one_way_calls_that_run_end_in_silence_after_the_last_word() {
    let mut pair = Pair::open();
    let numbers = [pair.one_way(), pair.one_way()];
    pair.drive();
    let status = Status::new(Code::Internal, "");
    // The peer's: what runs for it may still tell.
    let last = Header { flags: Flags::END, ..header(Kind::GoAway) };
    pair.feed_server(&frame(last, b"")).unwrap();
    pair.server.end_one_way(numbers[0], Err(&status));
    assert_eq!(take_frames(&mut pair.server).len(), 1);
    // This end's.
    pair.server.go_away(&status);
    pair.server.output().clear();
    pair.server.end_one_way(numbers[1], Err(&status));
    assert!(pair.server.output().is_empty());
    assert_eq!(pair.server.one_ways_running(), 0);
}

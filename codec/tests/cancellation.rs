//! Cancellation: a caller gives a call up, and what runs for it is told to stop.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use ringcall_codec::{
    CallId, Code, Event, Flags, Kind, Limits, SessionError, Status, limits::CANCELS_PER_SECOND_MAX,
};
use support::{Blob, PATIENT, Pair, frame, of_call, take_frames, waiting};

fn cancel(call: CallId) -> Vec<u8> {
    frame(of_call(Kind::Cancel, call), b"")
}

/// A call that reached the server and that its caller gave up, which the server knows.
fn cancelled() -> (Pair, CallId) {
    let mut pair = Pair::open();
    let call = pair.call(&Blob::new(0, 0));
    pair.drive();
    pair.next_call();
    pair.client.abandon(call);
    pair.drive();
    assert_eq!(pair.take_server_events(), [Event::Stop(call)]);
    (pair, call)
}

#[test]
fn a_call_that_is_abandoned_is_cancelled_once() {
    let mut pair = Pair::open();
    let call = pair.call(&Blob::new(0, 0));
    take_frames(&mut pair.client);
    pair.client.abandon(call);
    pair.client.abandon(call);
    let frames = take_frames(&mut pair.client);
    assert_eq!(frames, [(of_call(Kind::Cancel, call), Vec::new())]);
}

#[test]
fn a_call_that_is_not_in_flight_is_not_cancelled() {
    let mut pair = Pair::open();
    let call = pair.call(&Blob::new(0, 0));
    pair.drive();
    pair.next_call();
    pair.reply(call, &Blob::new(0, 0));
    pair.drive();
    // Answered, unknown, and of another use of the slot.
    for call in [call, CallId::new(7, 1), CallId::new(0, 9), CallId(0), CallId(u64::MAX)] {
        pair.client.abandon(call);
    }
    assert!(pair.client.output().is_empty());
}

#[test]
fn nothing_is_cancelled_on_a_connection_that_is_closed() {
    let mut pair = Pair::open();
    let call = pair.call(&Blob::new(0, 0));
    pair.client.go_away(&Status::new(Code::Cancelled, ""));
    let len = pair.client.output().len();
    pair.client.abandon(call);
    assert_eq!(pair.client.output().len(), len);
}

#[test]
fn a_call_that_stopped_is_answered_with_cancelled_and_frees_its_slot_then() {
    let (mut pair, call) = cancelled();
    assert!(pair.server.is_stopping(call));
    assert_eq!((pair.server.calls_running(), pair.client.calls_made()), (1, 1));
    // As long as it runs, its slot is taken.
    let next = CallId::new(call.slot(), call.generation() + 1);
    let refused = pair.feed_server(&frame(support::request(next), b""));
    assert_eq!(refused, Err(SessionError::CallReused(next)));

    assert!(pair.server.end_stopped(call, &Status::new(Code::Internal, "not this")));
    assert!(!pair.server.is_stopping(call));
    assert!(!pair.server.end_stopped(call, &Status::new(Code::Internal, "")), "once");
    let frames = take_frames(&mut pair.server);
    let [(header, text)] = &frames[..] else { panic!("{frames:?}") };
    assert_eq!((header.kind, header.call), (Kind::Response, call));
    assert_eq!((header.code, header.flags), (Code::Cancelled as u32, Flags::NONE));
    assert!(text.is_empty());
    pair.feed_client(&frame(*header, text)).unwrap();
    assert_eq!(pair.take_client_events(), [Event::Abandoned]);
    assert_eq!(pair.call(&Blob::new(0, 0)), next);
}

#[test]
fn a_call_that_is_done_before_it_stops_may_reply() {
    let (mut pair, call) = cancelled();
    pair.reply(call, &Blob::new(1, 10));
    assert_eq!(pair.server.calls_running(), 0);
    let frames = take_frames(&mut pair.server);
    assert_eq!((frames[0].0.call, frames[0].0.code), (call, 0));
    pair.feed_client(&frame(frames[0].0, &frames[0].1)).unwrap();
    assert_eq!(pair.take_client_events(), [Event::Abandoned]);
    assert_eq!(pair.client.calls_made(), 0);
}

#[test]
fn a_call_that_is_done_before_it_stops_may_fail_for_its_own_reason() {
    let (mut pair, call) = cancelled();
    assert!(pair.server.refuse(call, &Status::new(Code::NotFound, "no such key")));
    assert_eq!(take_frames(&mut pair.server)[0].0.code, Code::NotFound as u32);
}

#[test]
fn a_handler_that_stops_by_itself_ends_its_call_as_it_likes() {
    let mut pair = Pair::open();
    let call = pair.call(&Blob::new(0, 0));
    pair.drive();
    let status = Status::new(Code::Internal, "the handler is gone");
    assert!(pair.server.end_stopped(call, &status));
    pair.drive();
    assert_eq!(pair.take_client_events(), [Event::Failed(call, status)]);
}

#[test]
fn a_cancel_that_crosses_the_response_does_nothing() {
    let mut pair = Pair::open();
    let call = pair.call(&Blob::new(0, 0));
    pair.drive();
    pair.next_call();
    pair.reply(call, &Blob::new(0, 0));
    pair.client.abandon(call);
    pair.drive();
    assert_eq!(pair.take_server_events(), [Event::Nothing]);
    assert_eq!(pair.take_client_events(), [Event::Abandoned]);
    // Nor to the next call of its slot.
    let next = pair.call(&Blob::new(0, 0));
    assert_eq!(next.slot(), call.slot());
    pair.drive();
    pair.next_call();
    pair.feed_server(&cancel(call)).unwrap();
    assert_eq!(pair.take_server_events(), [Event::Nothing]);
    assert!(!pair.server.is_stopping(next));
}

#[test]
fn a_cancel_of_a_call_that_does_not_run_is_ignored() {
    let limits = Limits { calls_in_flight_max: 8, ..Limits::default() };
    let mut pair = Pair::open_with(Limits::default(), limits);
    for call in [CallId::new(0, 1), CallId::new(7, 3), CallId(0)] {
        pair.feed_server(&cancel(call)).unwrap();
        pair.feed_client(&cancel(call)).unwrap();
    }
    assert!(pair.take_server_events().iter().all(|event| *event == Event::Nothing));
    assert!(pair.take_client_events().iter().all(|event| *event == Event::Nothing));
    assert!(pair.server.output().is_empty(), "and has no answer");
    for slot in [8, u32::MAX] {
        let call = CallId::new(slot, 1);
        let refused = pair.feed_server(&cancel(call));
        assert_eq!(refused, Err(SessionError::SlotBeyondLimit { call, limit: 8 }));
    }
}

#[test]
fn a_call_is_told_to_stop_once() {
    let (mut pair, call) = cancelled();
    pair.feed_server(&cancel(call)).unwrap();
    assert_eq!(pair.take_server_events(), [Event::Nothing]);
    // Its deadline, if it has one, tells it nothing new.
    let mut pair = Pair::open_configured(&waiting(PATIENT), &waiting(PATIENT), 10);
    let call = pair.call_within(100);
    pair.drive();
    pair.next_call();
    pair.feed_server(&cancel(call)).unwrap();
    assert_eq!(pair.take_server_events(), [Event::Stop(call)]);
    pair.server.handle_timeout(500, &mut Vec::new()).unwrap();
    assert!(pair.server.end_stopped(call, &Status::new(Code::Internal, "")));
    assert_eq!(take_frames(&mut pair.server)[0].0.code, Code::Cancelled as u32);
}

#[test]
fn more_cancels_within_a_second_than_are_allowed_close() {
    let mut pair = Pair::open_configured(&waiting(PATIENT), &waiting(PATIENT), 5_000_000);
    let cancel = of_call(Kind::Cancel, CallId::new(0, 1));
    let max = CANCELS_PER_SECOND_MAX;
    // A second after the first, counting begins anew.
    for (now_us, count) in [(5_000_000, 1), (5_999_999, max - 1), (6_000_000, max)] {
        pair.server.handle_bytes(now_us);
        for _ in 0..count {
            assert_eq!(pair.server.handle_frame(&cancel, b""), Ok(Event::Nothing));
        }
    }
    let refused = pair.server.handle_frame(&cancel, b"");
    let too_many = SessionError::TooMany("CANCEL");
    assert_eq!(refused, Err(too_many.clone()));
    assert_eq!(too_many.status().code(), Code::ResourceExhausted);
    assert_eq!(too_many.status().message(), "too many CANCEL frames within a second");
}

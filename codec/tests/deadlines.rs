//! Deadlines: how much time a call gets, and what happens at either end when it is over.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use std::collections::BTreeMap;

use ringcall_codec::{
    CallId, CallOptions, Code, Deadlines, Event, Kind, Limits, OpenError, SessionConfig, Status,
};
use support::{Blob, ECHO, PATIENT, Pair, Random, frame, of_call, response, take_frames, waiting};

const START_US: u64 = 7_000_000;
const NEVER: u64 = u64::MAX;

/// An open pair whose server makes this of deadlines, and which waits for nothing else.
fn pair_with(deadlines: Deadlines) -> Pair {
    let server = SessionConfig { deadlines, ..waiting(PATIENT) };
    Pair::open_configured(&waiting(PATIENT), &server, START_US)
}

fn pair() -> Pair {
    pair_with(Deadlines::default())
}

fn options(deadline_us: u64, now_us: u64) -> CallOptions<'static> {
    CallOptions { deadline_us: Some(deadline_us), now_us, ..CallOptions::default() }
}

/// The calls that have failed in these events, all of them for their deadlines.
fn expired(events: Vec<Event>) -> Vec<CallId> {
    let calls = events.into_iter().map(|event| match event {
        Event::Failed(call, status) => {
            assert_eq!(status.code(), Code::DeadlineExceeded);
            assert!(!status.is_not_executed(), "its handler may have run");
            call
        }
        event => panic!("{event:?}"),
    });
    calls.collect()
}

#[test]
fn a_request_says_how_much_time_is_left() {
    let mut pair = pair();
    for (left_us, travels) in [
        (1, 1),
        (1_500, 1_500),
        (u64::from(u32::MAX), u32::MAX),
        (u64::from(u32::MAX) + 1, u32::MAX),
        (NEVER - START_US, u32::MAX),
    ] {
        pair.call_within(left_us);
        let options = options(START_US + left_us, START_US);
        pair.client.one_way(&mut pair.scratch, ECHO, options, &Blob::new(0, 0)).unwrap();
        let frames = take_frames(&mut pair.client);
        let times: Vec<_> =
            frames.iter().map(|(header, _)| (header.kind, header.time_us)).collect();
        assert_eq!(times, [(Kind::Request, travels), (Kind::OneWay, travels)]);
    }
    pair.call(&Blob::new(0, 0));
    pair.one_way();
    for (header, _) in take_frames(&mut pair.client) {
        assert_eq!(header.time_us, 0, "none is asked for");
    }
}

#[test]
fn a_call_whose_deadline_is_past_is_not_made() {
    let mut pair = pair();
    for deadline_us in [0, START_US - 1, START_US] {
        let (options, blob) = (options(deadline_us, START_US), Blob::new(0, 0));
        let call = pair.client.call(&mut pair.scratch, ECHO, options, &blob);
        assert_eq!(call, Err(OpenError::TooLate));
        let one_way = pair.client.one_way(&mut pair.scratch, ECHO, options, &blob);
        assert_eq!(one_way, Err(OpenError::TooLate));
    }
    assert!(pair.client.output().is_empty());
    assert_eq!(pair.client.calls_made(), 0);
    assert_eq!(pair.one_way(), 1, "no number was used");
}

#[test]
fn a_server_gives_the_time_that_is_asked_for_within_its_bounds() {
    let as_asked = Deadlines::default();
    let bounded = Deadlines { least_us: 100, most_us: 5_000, default_us: 700 };
    let crossed = Deadlines { least_us: 900, most_us: 300, default_us: 0 };
    for (deadlines, asked_us, granted_us) in [
        (as_asked, 0, None),
        (as_asked, 1, Some(1)),
        (as_asked, u32::MAX, Some(u32::MAX)),
        (bounded, 0, Some(700)),
        (bounded, 1, Some(100)),
        (bounded, 100, Some(100)),
        (bounded, 4_999, Some(4_999)),
        (bounded, 5_001, Some(5_000)),
        (bounded, u32::MAX, Some(5_000)),
        // The bound from above is the stronger one.
        (crossed, 1, Some(300)),
        (Deadlines { default_us: 1, ..bounded }, 0, Some(100)),
        (Deadlines { default_us: 90_000, ..bounded }, 0, Some(5_000)),
    ] {
        let mut pair = pair_with(deadlines);
        let call = CallId::new(0, 1);
        let header = ringcall_codec::Header { time_us: asked_us, ..support::request(call) };
        pair.now_us = START_US + 50;
        pair.feed_server(&frame(header, b"")).unwrap();
        pair.next_call();
        // It counts from the request's arrival, by this side's clock.
        let deadline_us = granted_us.map(|granted| START_US + 50 + u64::from(granted));
        assert_eq!(pair.server.deadline_us(call), deadline_us, "{deadlines:?} {asked_us}");
        assert_eq!(pair.server.next_timeout_us(), deadline_us.unwrap_or(NEVER));
    }
}

#[test]
fn a_call_without_time_is_refused_before_its_handler_runs() {
    let mut pair = pair_with(Deadlines { most_us: 0, ..Deadlines::default() });
    let call = pair.call_within(1_000);
    let options = options(START_US + 1_000, START_US);
    let number = pair.client.one_way(&mut pair.scratch, ECHO, options, &Blob::new(0, 0)).unwrap();
    pair.drive();
    let refused = || Event::Refused(Code::DeadlineExceeded);
    assert_eq!(pair.take_server_events(), [refused(), refused()]);
    assert_eq!((pair.server.calls_running(), pair.server.one_ways_running()), (0, 0));
    let text = "too late when it came";
    let status = Status::new(Code::DeadlineExceeded, text);
    let failed = Event::Failed(call, status.clone().not_executed());
    assert_eq!(pair.take_client_events(), [failed, Event::Notice { number, status }]);
}

#[test]
fn a_caller_gives_up_at_its_deadline_and_cancels() {
    let mut pair = pair();
    let call = pair.call_within(1_500);
    take_frames(&mut pair.client);
    assert_eq!(pair.client.next_timeout_us(), START_US + 1_500);
    pair.wait_until(START_US + 1_499).unwrap();
    assert!(pair.client_events.is_empty() && pair.client.output().is_empty());
    pair.wait_until(START_US + 1_500).unwrap();
    let failed = Event::Failed(call, Status::new(Code::DeadlineExceeded, "no outcome in time"));
    assert_eq!(pair.take_client_events(), [failed]);
    let frames = take_frames(&mut pair.client);
    assert_eq!(frames, [(of_call(Kind::Cancel, call), Vec::new())]);
    // Once, and whoever takes the outcome does not free the slot that the server still uses.
    pair.client.release(call);
    pair.client.abandon(call);
    pair.wait_until(START_US + 9_999).unwrap();
    assert!(pair.client_events.is_empty() && pair.client.output().is_empty());
    assert_eq!(pair.client.calls_made(), 1);
    assert_eq!(pair.client.next_timeout_us(), NEVER);
    pair.feed_client(&frame(response(call), b"")).unwrap();
    assert_eq!(pair.take_client_events(), [Event::Abandoned]);
    assert_eq!(pair.client.calls_made(), 0);
}

#[test]
fn a_server_stops_a_call_at_its_deadline() {
    let mut pair = pair();
    pair.call_within(1_500);
    pair.drive();
    let (call, _) = pair.next_call();
    assert_eq!(pair.server.next_timeout_us(), START_US + 1_500);
    let mut events = Vec::new();
    pair.server.handle_timeout(START_US + 1_499, &mut events).unwrap();
    assert_eq!((&events[..], pair.server.is_stopping(call)), (&[][..], false));
    for now_us in [START_US + 1_500, START_US + 1_600] {
        pair.server.handle_timeout(now_us, &mut events).unwrap();
        assert_eq!(events, [Event::Stop(call)], "once");
        assert!(pair.server.is_stopping(call));
    }
    assert_eq!(pair.server.next_timeout_us(), NEVER);
    // It holds its slot until it has stopped, and its caller learns why it did.
    assert_eq!(pair.server.calls_running(), 1);
    assert!(pair.server.end_stopped(call, &Status::new(Code::Internal, "not this")));
    assert_eq!(pair.server.calls_running(), 0);
    pair.drive();
    let failed = Event::Failed(call, Status::new(Code::DeadlineExceeded, ""));
    assert_eq!(pair.take_client_events(), [failed]);
}

#[test]
fn calls_of_one_deadline_are_over_together() {
    let mut pair = pair();
    let calls: Vec<_> = (0..3).map(|_| pair.call_within(100)).collect();
    let later = pair.call_within(101);
    pair.drive();
    pair.server_events.clear();
    pair.wait_until(START_US + 100).unwrap();
    assert_eq!(expired(pair.take_client_events()), calls);
    let stops: Vec<_> = calls.iter().map(|call| Event::Stop(*call)).collect();
    assert_eq!(pair.take_server_events(), stops);
    assert_eq!(pair.client.next_timeout_us(), START_US + 101);
    pair.wait_until(START_US + 101).unwrap();
    assert_eq!(expired(pair.take_client_events()), [later]);
    assert_eq!(pair.take_server_events(), [Event::Stop(later)]);
}

#[test]
fn thousands_of_deadlines_can_be_over_at_once() {
    let mut pair = pair();
    let calls: Vec<_> = (0..4_096).map(|_| pair.call_within(100)).collect();
    pair.drive();
    pair.server_events.clear();
    pair.wait_until(START_US + 1_000_000).unwrap();
    assert_eq!(expired(pair.take_client_events()), calls);
    assert_eq!(pair.take_server_events().len(), calls.len());
    let (options, blob) = (CallOptions::default(), Blob::new(0, 0));
    let more = pair.client.call(&mut pair.scratch, ECHO, options, &blob);
    assert_eq!(more, Err(OpenError::TooManyInFlight));
    // The CANCELs cross what the server decided by itself.
    pair.drive();
    assert!(pair.take_server_events().iter().all(|event| *event == Event::Nothing));
    for call in &calls {
        assert!(pair.server.end_stopped(*call, &Status::new(Code::Internal, "")));
    }
    pair.drive();
    assert!(pair.take_client_events().iter().all(|event| *event == Event::Abandoned));
    // Their callers have not been told yet.
    assert_eq!((pair.client.calls_made(), pair.server.calls_running()), (4_096, 0));
    calls.iter().for_each(|call| pair.client.release(*call));
    assert_eq!(pair.client.calls_made(), 0);
}

#[test]
fn each_of_many_deadlines_is_reported_as_soon_as_it_is_past_and_never_before() {
    let mut pair = pair();
    let mut random = Random::new(11);
    let mut open = BTreeMap::new();
    for _ in 0..3_000 {
        let left_us = 1 + random.below(50_000) as u64;
        let call = pair.call_within(left_us);
        open.insert((START_US + left_us, call.slot()), call);
    }
    take_frames(&mut pair.client);
    let mut now_us = START_US;
    while let Some(((earliest_us, _), _)) = open.first_key_value() {
        assert!(pair.client.next_timeout_us() <= *earliest_us, "it would be missed");
        now_us += random.below(200) as u64;
        pair.wait_until(now_us).unwrap();
        let later = open.split_off(&(now_us + 1, 0));
        let mut due: Vec<_> = open.into_values().map(|call| call.slot()).collect();
        let mut over: Vec<_> =
            expired(pair.take_client_events()).iter().map(|call| call.slot()).collect();
        due.sort_unstable();
        over.sort_unstable();
        assert_eq!(over, due);
        open = later;
    }
}

#[test]
fn a_call_without_a_deadline_is_never_due() {
    let mut pair = pair();
    let call = pair.call(&Blob::new(0, 0));
    pair.drive();
    pair.next_call();
    assert_eq!((pair.client.next_timeout_us(), pair.server.next_timeout_us()), (NEVER, NEVER));
    assert_eq!(pair.server.deadline_us(call), None);
    pair.wait_until(NEVER - 1).unwrap();
    assert!(pair.client_events.is_empty() && pair.server_events.is_empty());
}

#[test]
fn a_call_that_was_answered_in_time_does_not_expire() {
    let mut pair = pair();
    let answered = pair.call_within(100);
    pair.drive();
    let (call, _) = pair.next_call();
    pair.reply(call, &Blob::new(0, 0));
    pair.drive();
    pair.next_reply();
    // Neither while its outcome is not taken, nor when its slot has another call.
    pair.wait_until(START_US + 100).unwrap();
    pair.client.release(answered);
    let next = pair.call(&Blob::new(0, 0));
    assert_eq!(next.slot(), answered.slot());
    pair.drive();
    pair.next_call();
    pair.wait_until(START_US + 200).unwrap();
    assert!(pair.client_events.is_empty() && pair.server_events.is_empty());
}

#[test]
fn a_transport_without_a_clock_has_no_deadlines() {
    let limits = Limits::default();
    let mut pair = Pair::open_with(limits, limits);
    let call = pair.call_within(1);
    pair.drive();
    pair.next_call();
    // It never says what time it is.
    let mut events = Vec::new();
    pair.client.handle_timeout(0, &mut events).unwrap();
    pair.server.handle_timeout(0, &mut events).unwrap();
    assert!(events.is_empty());
    pair.reply(call, &Blob::new(0, 0));
    pair.drive();
    pair.next_reply();
}

#[test]
fn nothing_is_sent_for_a_deadline_after_the_last_word() {
    let mut pair = pair();
    pair.call_within(100);
    pair.client.go_away(&Status::new(Code::Cancelled, "the client stops"));
    pair.client.output().clear();
    assert_eq!(pair.client.next_timeout_us(), NEVER);
    pair.wait_until(START_US + 1_000).unwrap();
    assert!(pair.client.output().is_empty());
    assert!(pair.client_events.is_empty(), "every call has failed with the connection");
}

#[test]
fn nothing_is_sent_for_a_deadline_to_a_peer_that_has_left() {
    let mut pair = pair();
    let call = pair.call_within(100);
    pair.drive();
    pair.server.go_away(&Status::new(Code::Unavailable, "the server stops"));
    pair.drive();
    pair.client_events.clear();
    pair.wait_until(START_US + 1_000).unwrap();
    assert_eq!(expired(pair.take_client_events()), [call]);
    assert!(pair.client.output().is_empty());
}

#[test]
fn a_call_whose_time_was_up_keeps_its_slot_until_it_is_released_and_answered() {
    for is_released_first in [false, true] {
        let mut pair = pair();
        let call = pair.call_within(100);
        pair.drive();
        pair.wait_until(START_US + 100).unwrap();
        pair.drive();
        let release = |pair: &mut support::Pair| pair.client.release(call);
        let answer = |pair: &mut support::Pair| {
            assert!(pair.server.end_stopped(call, &Status::new(Code::Internal, "")));
            pair.drive();
        };
        // Another call in the slot would have its outcome taken for this one's.
        if is_released_first {
            release(&mut pair);
            assert_eq!(pair.client.calls_made(), 1);
            answer(&mut pair);
        } else {
            answer(&mut pair);
            assert_eq!(pair.client.calls_made(), 1);
            release(&mut pair);
        }
        assert_eq!(pair.client.calls_made(), 0);
    }
}

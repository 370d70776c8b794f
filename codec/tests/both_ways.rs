//! Calls from the server to its client, beside those of the client.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use ringcall_codec::{
    CallId, CallOptions, Code, Event, Kind, Limits, MethodInfo, OpenError, Session, SessionConfig,
    SessionError, ShardPlace, Status, access,
};
use support::{Blob, ECHO, Pair, frames_of, take_frames};

/// A call from the server, with its id as the caller knows it.
fn call_back(pair: &mut Pair, id: u64) -> CallId {
    let (options, blob) = (CallOptions::default(), Blob::new(id, 20));
    pair.server.call(&mut pair.scratch, ECHO, options, &blob).unwrap()
}

#[test]
fn a_server_calls_its_client() {
    let mut pair = Pair::open_both_ways();
    let call = call_back(&mut pair, 7);
    pair.drive();
    let (event, body) = pair.client_events.pop_front().unwrap();
    assert_eq!(event, Event::Call { call, method: ECHO });
    assert_eq!(access::<Blob>(&body).unwrap().id, 7);
    assert_eq!((pair.client.calls_running(), pair.server.calls_made()), (1, 1));
    pair.client.reply(&mut pair.scratch, call, &[], &Blob::new(8, 0)).unwrap();
    pair.drive();
    let (event, body) = pair.server_events.pop_front().unwrap();
    assert_eq!(event, Event::Reply(call));
    assert_eq!(access::<Blob>(&body).unwrap().id, 8);
    pair.server.release(call);
    assert_eq!((pair.client.calls_running(), pair.server.calls_made()), (0, 0));
}

#[test]
fn calls_of_both_directions_with_one_id_are_two_calls() {
    let mut pair = Pair::open_both_ways();
    for round in 1..20 {
        let up = pair.call(&Blob::new(1, 0));
        let down = call_back(&mut pair, 2);
        assert_eq!((up, down), (CallId::new(0, round), CallId::new(0, round)));
        pair.drive();
        let (received, body) = pair.next_call();
        assert_eq!((received, u64::from(access::<Blob>(&body).unwrap().id)), (up, 1));
        assert_eq!(pair.take_client_events(), [Event::Call { call: down, method: ECHO }]);
        pair.reply(up, &Blob::new(3, 0));
        let status = Status::new(Code::NotFound, "not here");
        assert!(pair.client.refuse(down, &status));
        pair.drive();
        assert_eq!(pair.next_reply().0, up);
        assert_eq!(pair.take_server_events(), [Event::Failed(down, status)]);
        pair.client.release(up);
        pair.server.release(down);
    }
}

#[test]
fn a_call_can_be_made_while_the_one_that_led_to_it_runs() {
    let mut pair = Pair::open_both_ways();
    let outer = pair.call(&Blob::new(1, 0));
    pair.drive();
    pair.next_call();
    let inner = call_back(&mut pair, 2);
    pair.drive();
    assert_eq!(pair.take_client_events(), [Event::Call { call: inner, method: ECHO }]);
    pair.client.reply(&mut pair.scratch, inner, &[], &Blob::new(2, 0)).unwrap();
    pair.drive();
    assert_eq!(pair.take_server_events(), [Event::Reply(inner)]);
    pair.reply(outer, &Blob::new(1, 0));
    pair.drive();
    assert_eq!(pair.next_reply().0, outer);
}

#[test]
fn a_server_makes_no_more_calls_than_its_client_accepts() {
    let few = Limits { calls_in_flight_max: 2, ..Limits::default() };
    let mut pair = Pair::open_with(few, Limits::default());
    for id in 0..2 {
        call_back(&mut pair, id);
    }
    let (options, blob) = (CallOptions::default(), Blob::new(0, 0));
    let third = pair.server.call(&mut pair.scratch, ECHO, options, &blob);
    assert_eq!(third, Err(OpenError::TooManyInFlight));
    assert!(!pair.server.has_room());
}

#[test]
fn a_client_that_serves_nothing_takes_no_call() {
    let mut pair = Pair::open();
    call_back(&mut pair, 1);
    let (kind, why) = (Kind::Request, "this end makes calls and serves none");
    assert_eq!(pair.try_drive(), Err(SessionError::Unexpected { kind, why }));
}

#[test]
fn one_way_calls_cancels_and_notices_go_both_ways() {
    let mut pair = Pair::open_both_ways();
    let call = call_back(&mut pair, 1);
    let (options, blob) = (CallOptions::default(), Blob::new(0, 0));
    let number = pair.server.one_way(&mut pair.scratch, ECHO, options, &blob).unwrap();
    assert_eq!((number, pair.one_way()), (1, 1), "each end counts its own");
    pair.server.abandon(call);
    pair.drive();
    let events = pair.take_client_events();
    let one_way = Event::OneWay { number, method: ECHO };
    assert_eq!(events, [Event::Call { call, method: ECHO }, one_way, Event::Stop(call)]);
    let status = Status::new(Code::Internal, "");
    pair.client.end_one_way(number, Err(&status));
    assert!(pair.client.end_stopped(call, &status));
    pair.server_events.clear();
    pair.drive();
    let notice = Event::Notice { number, status };
    assert_eq!(pair.take_server_events(), [notice, Event::Abandoned]);
}

#[test]
fn a_hello_lists_what_is_called_and_what_is_served_once() {
    const UP: MethodInfo = MethodInfo::unary(5, "Up.go", 1, 2);
    const DOWN: MethodInfo = MethodInfo::unary(3, "Down.come", 3, 4);
    const BOTH: MethodInfo = MethodInfo::unary(4, "Both.ways", 5, 6);
    let config = SessionConfig::default();
    let mut client = Session::client(&config, &[UP, BOTH], &[DOWN, BOTH]);
    let (hello, body) = frames_of(client.output()).remove(0);
    let ids: Vec<_> = body[32..].chunks(24).map(|entry| entry[0]).collect();
    assert_eq!(ids, [3, 4, 5]);
    let place = ShardPlace::default();
    let mut server = Session::server(&config, place, &[DOWN, BOTH], &[UP, BOTH]);
    assert_eq!(server.handle_frame(&hello, &body), Ok(Event::Opened));
    assert_eq!(frames_of(server.output()).len(), 1);

    // What the server calls is compared as what it serves.
    const OTHER: MethodInfo = MethodInfo { reply: 9, ..DOWN };
    let mut server = Session::server(&config, place, &[OTHER], &[UP]);
    let method = "Down.come".to_owned();
    let mismatch = SessionError::LayoutMismatch { method, part: "reply" };
    assert_eq!(server.handle_frame(&hello, &body), Err(mismatch));
}

#[test]
fn both_ends_can_be_told_to_stop_at_once() {
    let mut pair = Pair::open_both_ways();
    let up = pair.call(&Blob::new(1, 0));
    let down = call_back(&mut pair, 2);
    pair.drive();
    pair.client_events.clear();
    pair.server_events.clear();
    pair.client.abandon(up);
    pair.server.abandon(down);
    pair.drive();
    assert_eq!(pair.take_server_events(), [Event::Stop(up)]);
    assert_eq!(pair.take_client_events(), [Event::Stop(down)]);
    let status = Status::new(Code::Internal, "");
    assert!(pair.server.end_stopped(up, &status) && pair.client.end_stopped(down, &status));
    assert_eq!(take_frames(&mut pair.server).len(), 1);
    assert_eq!(take_frames(&mut pair.client).len(), 1);
}

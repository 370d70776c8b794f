//! Draining: an end announces that it takes no more calls, and nothing is lost on the way.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use ringcall_codec::{
    CallOptions, Code, Event, Flags, Header, Kind, OpenError, Scratch, SessionError, Status,
};
use support::{Blob, ECHO, METHODS, Pair, client, frame, header, server, take_frames};

fn reason() -> Status {
    Status::new(Code::Unavailable, "the server stops")
}

#[test]
fn a_drain_is_announced_once_and_asks_for_an_answer() {
    let mut pair = Pair::open();
    assert!(!pair.server.drains());
    pair.server.drain(&reason());
    pair.server.drain(&Status::new(Code::Aborted, "again"));
    assert!(pair.server.drains() && pair.server.is_open());
    let frames = take_frames(&mut pair.server);
    let [(goaway, text), (ping, nothing)] = &frames[..] else { panic!("{frames:?}") };
    let code = Code::Unavailable as u32;
    assert_eq!(*goaway, Header { code, body_len: 16, ..header(Kind::GoAway) });
    assert_eq!(goaway.flags, Flags::NONE, "it is not the last word");
    assert_eq!(text, b"the server stops");
    assert_eq!((ping.kind, &nothing[..]), (Kind::Ping, &b""[..]));
}

#[test]
fn a_peer_that_drains_is_called_no_more() {
    let mut pair = Pair::open();
    pair.server.drain(&reason());
    pair.drive();
    assert_eq!(pair.take_client_events()[0], Event::Draining(reason()));
    assert!(pair.client.peer_drains() && pair.client.is_open());
    let (options, blob) = (CallOptions::default(), Blob::new(0, 0));
    let call = pair.client.call(&mut pair.scratch, ECHO, options, &blob);
    assert_eq!(call, Err(OpenError::Draining));
    let one_way = pair.client.one_way(&mut pair.scratch, ECHO, options, &blob);
    assert_eq!(one_way, Err(OpenError::Draining));
    assert!(pair.client.output().is_empty());
}

#[test]
fn calls_that_run_are_answered_and_those_that_cross_the_announcement_are_refused() {
    let mut pair = Pair::open();
    let running = pair.call(&Blob::new(1, 0));
    pair.drive();
    pair.next_call();
    pair.server.drain(&reason());
    let late = pair.call(&Blob::new(2, 0));
    let number = pair.one_way();
    pair.drive();
    let events = pair.take_server_events();
    let refused = || Event::Refused(Code::Unavailable);
    assert!(matches!(events[..2], [Event::Refused(_), Event::Refused(_)]), "{events:?}");
    assert_eq!(events[..2], [refused(), refused()]);
    assert!(matches!(events[2], Event::Pong(_)));
    let events = pair.take_client_events();
    let status = Status::new(Code::Unavailable, "the connection takes no more calls");
    // Where it is asked again elsewhere, it does no harm.
    assert!(events.contains(&Event::Failed(late, status.clone().not_executed())), "{events:?}");
    assert!(events.contains(&Event::Notice { number, status }), "{events:?}");
    pair.reply(running, &Blob::new(3, 0));
    pair.drive();
    assert_eq!(pair.next_reply().0, running);
}

#[test]
fn an_end_is_drained_once_the_peer_knows_and_no_call_is_left() {
    let mut pair = Pair::open();
    let call = pair.call(&Blob::new(0, 0));
    let number = pair.one_way();
    pair.drive();
    pair.server_events.clear();
    assert!(!pair.server.is_drained(), "it does not drain");
    pair.server.drain(&reason());
    pair.reply(call, &Blob::new(0, 0));
    pair.server.end_one_way(number, Ok(()));
    assert!(!pair.server.is_drained(), "calls may be on their way");
    // Any other PONG is no answer to the announcement.
    let other = Header { call: ringcall_codec::CallId(77), ..header(Kind::Pong) };
    pair.feed_server(&frame(other, b"")).unwrap();
    assert!(!pair.server.is_drained());
    pair.drive();
    assert!(pair.server.is_drained());
}

#[test]
fn an_end_is_not_drained_while_calls_run() {
    let mut pair = Pair::open_both_ways();
    pair.call(&Blob::new(0, 0));
    pair.one_way();
    let (options, blob) = (CallOptions::default(), Blob::new(0, 0));
    let own = pair.server.call(&mut pair.scratch, ECHO, options, &blob).unwrap();
    pair.server.drain(&reason());
    let also = pair.server.call(&mut pair.scratch, ECHO, options, &blob).unwrap();
    pair.drive();
    // What crossed the announcement was refused; nothing but this end's own calls is left.
    assert_eq!((pair.server.calls_running(), pair.server.one_ways_running()), (0, 0));
    assert_eq!(pair.server.calls_made(), 2, "an end that takes no calls may still make some");
    assert!(!pair.server.is_drained());
    for call in [own, also] {
        pair.client.reply(&mut pair.scratch, call, &[], &blob).unwrap();
    }
    pair.drive();
    for call in [own, also] {
        assert!(!pair.server.is_drained(), "an outcome was not taken");
        pair.server.release(call);
    }
    assert!(pair.server.is_drained());
}

#[test]
fn one_way_calls_that_run_hold_a_drain_up() {
    let mut pair = Pair::open();
    let number = pair.one_way();
    pair.drive();
    pair.server.drain(&reason());
    pair.drive();
    assert!(!pair.server.is_drained());
    pair.server.end_one_way(number, Ok(()));
    assert!(pair.server.is_drained());
}

#[test]
fn both_ends_can_drain_at_once() {
    let mut pair = Pair::open();
    let call = pair.call(&Blob::new(0, 0));
    pair.drive();
    pair.client.drain(&Status::new(Code::Cancelled, "the client stops"));
    pair.server.drain(&reason());
    pair.drive();
    pair.reply(call, &Blob::new(0, 0));
    pair.drive();
    pair.client.release(call);
    assert!(pair.client.is_drained() && pair.server.is_drained());
    pair.server.go_away(&reason());
    pair.drive();
    assert_eq!(pair.take_client_events().last(), Some(&Event::GoAway(reason())));
}

#[test]
fn an_announcement_may_be_followed_by_the_last_word_at_any_time() {
    let mut pair = Pair::open();
    pair.call(&Blob::new(0, 0));
    pair.server.drain(&reason());
    pair.server.go_away(&Status::new(Code::Internal, "not well"));
    let down = std::mem::take(pair.server.output());
    pair.feed_client(&down).unwrap();
    let gone = Event::GoAway(Status::new(Code::Internal, "not well"));
    assert_eq!(pair.take_client_events(), [Event::Draining(reason()), Event::Nothing, gone]);
}

#[test]
fn a_connection_that_is_not_open_does_not_drain() {
    let (mut client, mut server) = (client(METHODS), server(METHODS));
    client.output().clear();
    for session in [&mut client, &mut server] {
        session.drain(&reason());
        assert!(!session.drains() && session.output().is_empty());
        session.go_away(&reason());
        session.output().clear();
        session.drain(&reason());
        assert!(!session.drains() && session.output().is_empty());
    }
}

#[test]
fn a_connection_does_not_begin_with_the_announcement_of_a_drain() {
    let announcement = Header { code: 14, ..header(Kind::GoAway) };
    for mut session in [client(METHODS), server(METHODS)] {
        let refused = session.handle_frame(&announcement, b"");
        let (kind, why) = (Kind::GoAway, "a connection begins with HELLO");
        assert_eq!(refused, Err(SessionError::Unexpected { kind, why }));
        assert!(!session.peer_drains());
    }
}

#[test]
fn a_last_word_before_hello_is_the_last() {
    let last = Header { code: 14, flags: Flags::END, ..header(Kind::GoAway) };
    let hello = support::frames_of(&support::hello()).remove(0);
    for mut session in [client(METHODS), server(METHODS)] {
        assert!(matches!(session.handle_frame(&last, b""), Ok(Event::GoAway(_))));
        let late = session.handle_frame(&hello.0, &hello.1);
        let (kind, why) = (Kind::Hello, "the peer has said GOAWAY");
        assert_eq!(late, Err(SessionError::Unexpected { kind, why }));
        let options = CallOptions::default();
        let call = session.call(&mut Scratch::default(), ECHO, options, &Blob::new(0, 0));
        assert_eq!(call, Err(OpenError::NotOpen));
    }
}

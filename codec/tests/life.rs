//! The life of a connection: HELLO in time, frames in time, signs of life, idleness and age.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use ringcall_codec::{
    CallId, Code, Event, Flags, Header, Kind, Patience, SessionConfig, SessionError, Status,
    limits::{
        BYTES_PER_S_MIN_DEFAULT, FRAME_START_US_DEFAULT, HELLO_US_DEFAULT, PING_AFTER_US_DEFAULT,
        PING_ANSWER_US_DEFAULT, PINGS_PER_SECOND_MAX,
    },
};
use support::{Blob, PATIENT, Pair, frame, header, of_call, request, take_frames, waiting};

const START_US: u64 = 3_000_000;
const NEVER: u64 = u64::MAX;

/// An open pair whose server has this patience, and whose client waits for ever.
fn pair_with(server: Patience) -> Pair {
    Pair::open_configured(&waiting(PATIENT), &waiting(server), START_US)
}

/// A pair of this patience on both sides that has said nothing.
fn strangers(patience: Patience) -> Pair {
    let mut pair = Pair::configured(&waiting(patience), &waiting(patience));
    pair.now_us = START_US;
    pair.client.begin(START_US);
    pair.server.begin(START_US);
    pair
}

/// What the server makes of the time.
fn server_at(pair: &mut Pair, now_us: u64) -> Result<Vec<Event>, SessionError> {
    let mut events = Vec::new();
    pair.now_us = now_us;
    pair.server.handle_timeout(now_us, &mut events).map(|()| events)
}

/// The kinds of the frames that the server put out.
fn server_said(pair: &mut Pair) -> Vec<Kind> {
    take_frames(&mut pair.server).iter().map(|(header, _)| header.kind).collect()
}

#[test]
fn the_patience_of_a_connection_is_bounded_by_default() {
    let patience = Patience::default();
    assert_eq!(patience.hello_us, HELLO_US_DEFAULT);
    assert_eq!(patience.frame_us, FRAME_START_US_DEFAULT);
    assert_eq!(patience.bytes_per_s_min, BYTES_PER_S_MIN_DEFAULT);
    assert_eq!(patience.ping_after_us, PING_AFTER_US_DEFAULT);
    assert_eq!(patience.ping_answer_us, PING_ANSWER_US_DEFAULT);
    assert_eq!((patience.idle_us, patience.age_us), (0, 0));
    assert!(HELLO_US_DEFAULT.min(FRAME_START_US_DEFAULT).min(BYTES_PER_S_MIN_DEFAULT) > 0);
    assert!(PING_AFTER_US_DEFAULT.min(PING_ANSWER_US_DEFAULT) > 0);
}

#[test]
fn a_peer_that_says_no_hello_is_left() {
    let mut pair = strangers(Patience { hello_us: 500, ..PATIENT });
    for session in [&mut pair.client, &mut pair.server] {
        assert_eq!(session.next_timeout_us(), START_US + 500);
        let mut events = Vec::new();
        assert_eq!(session.handle_timeout(START_US + 499, &mut events), Ok(()));
        let late = session.handle_timeout(START_US + 500, &mut events);
        assert_eq!(late, Err(SessionError::NoHello));
        assert!(events.is_empty());
    }
    assert_eq!(SessionError::NoHello.status().code(), Code::DeadlineExceeded);
}

#[test]
fn a_hello_byte_by_byte_has_no_more_time() {
    let mut pair = strangers(Patience { hello_us: 500, ..PATIENT });
    let hello = std::mem::take(pair.client.output());
    for (at, byte) in hello.iter().take(60).enumerate() {
        pair.now_us = START_US + at as u64;
        pair.feed_server(&[*byte]).unwrap();
    }
    assert_eq!(server_at(&mut pair, START_US + 500), Err(SessionError::NoHello));
}

#[test]
fn a_hello_is_not_waited_for_once_it_came() {
    let mut pair = Pair::open_configured(
        &waiting(Patience { hello_us: 500, ..PATIENT }),
        &waiting(Patience { hello_us: 500, ..PATIENT }),
        START_US,
    );
    assert_eq!((pair.client.next_timeout_us(), pair.server.next_timeout_us()), (NEVER, NEVER));
    // Nor when the peer has left, and what runs for it is still to be answered.
    let call = pair.call(&Blob::new(0, 0));
    pair.client.go_away(&Status::new(Code::Cancelled, "the client stops"));
    pair.drive();
    assert!(!pair.server.is_open());
    assert_eq!(pair.server.next_timeout_us(), NEVER);
    assert_eq!(server_at(&mut pair, START_US + 1_000), Ok(Vec::new()));
    pair.reply(call, &Blob::new(0, 0));
    assert_eq!(server_said(&mut pair), [Kind::Response]);
}

#[test]
fn nothing_is_waited_for_after_a_refused_hello_or_the_last_word() {
    let mut pair = strangers(Patience::default());
    pair.server.handle_frame(&header(Kind::Hello), b"").unwrap_err();
    pair.client.go_away(&Status::new(Code::Cancelled, ""));
    assert_eq!((pair.client.next_timeout_us(), pair.server.next_timeout_us()), (NEVER, NEVER));
    assert_eq!(pair.wait_until(NEVER - 1), Ok(()));
    assert!(pair.client_events.is_empty() && pair.server_events.is_empty());
}

#[test]
fn a_frame_that_begins_and_does_not_end_is_not_waited_for() {
    for cut in [1, 31] {
        let mut pair =
            pair_with(Patience { frame_us: 1_000, bytes_per_s_min: 1_000_000, ..PATIENT });
        let call = frame(request(CallId::new(0, 1)), &[0; 1_000]);
        pair.now_us = START_US + 50;
        pair.feed_server(&call[..cut]).unwrap();
        // Without its header its length allows nothing.
        assert_eq!(pair.server.next_timeout_us(), START_US + 1_050);
        assert_eq!(server_at(&mut pair, START_US + 1_049), Ok(Vec::new()));
        assert_eq!(server_at(&mut pair, START_US + 1_050), Err(SessionError::FrameStalled));
    }
    assert_eq!(SessionError::FrameStalled.status().code(), Code::DeadlineExceeded);
}

#[test]
fn a_long_frame_has_the_time_that_the_least_rate_takes() {
    let patience = Patience { frame_us: 1_000, bytes_per_s_min: 1_000_000, ..PATIENT };
    let call = frame(request(CallId::new(0, 1)), &[0; 100_000]);
    // A byte has a microsecond at this rate.
    let due_us = START_US + 1_000 + call.len() as u64;
    let mut pair = pair_with(patience);
    for (at, piece) in call[..90_000].chunks(1_000).enumerate() {
        pair.now_us = START_US + 1_000 * at as u64;
        pair.feed_server(piece).unwrap();
        // It counts from the first byte, whatever came since.
        assert_eq!(pair.server.next_timeout_us(), due_us);
    }
    assert_eq!(server_at(&mut pair, due_us - 1), Ok(Vec::new()));
    pair.feed_server(&call[90_000..]).unwrap();
    pair.next_call();
    assert_eq!(pair.server.next_timeout_us(), NEVER);
    assert_eq!(server_at(&mut pair, due_us + 1), Ok(Vec::new()));
}

#[test]
fn the_time_of_a_frame_is_not_that_of_the_one_before() {
    let mut pair = pair_with(Patience { frame_us: 1_000, bytes_per_s_min: 1_000_000, ..PATIENT });
    let frames: Vec<_> =
        (0..5).flat_map(|slot| frame(request(CallId::new(slot, 1)), &[0; 68])).collect();
    // 112 bytes each, in pieces that always end inside of one.
    for (at, piece) in frames.chunks(111).enumerate() {
        assert_eq!(server_at(&mut pair, START_US + 900 * at as u64), Ok(Vec::new()));
        pair.feed_server(piece).unwrap();
    }
    assert_eq!(pair.server.calls_running(), 5);
    assert_eq!(pair.server.next_timeout_us(), NEVER);
}

#[test]
fn what_a_length_allows_is_not_taken_back_as_its_bytes_come() {
    let mut pair = pair_with(Patience { frame_us: 1_000, bytes_per_s_min: 1_000_000, ..PATIENT });
    // As a transport may say that counts only what is missing.
    for missing in [None, Some(50_000), Some(20_000), Some(16)] {
        pair.server.handle_cut(missing);
    }
    assert_eq!(pair.server.next_timeout_us(), START_US + 51_000);
}

#[test]
fn a_peer_is_not_blamed_for_a_frame_that_is_not_read() {
    let mut pair = pair_with(Patience { frame_us: 1_000, bytes_per_s_min: 1_000_000, ..PATIENT });
    let call = frame(request(CallId::new(0, 1)), &[0; 100]);
    pair.feed_server(&call[..50]).unwrap();
    pair.server.handle_pause();
    assert_eq!(pair.server.next_timeout_us(), NEVER);
    assert_eq!(server_at(&mut pair, START_US + 10_000_000), Ok(Vec::new()));
    // When it is read again, its time begins anew.
    pair.feed_server(&call[50..60]).unwrap();
    assert_eq!(pair.server.next_timeout_us(), START_US + 10_000_000 + 1_000 + call.len() as u64);
}

#[test]
fn a_frame_has_all_the_time_where_there_is_no_bound() {
    let call = frame(request(CallId::new(0, 1)), &[0; 100]);
    for (frame_us, bytes_per_s_min) in [(0, 1_000_000), (1_000, 0), (0, 0)] {
        let mut pair = pair_with(Patience { frame_us, bytes_per_s_min, ..PATIENT });
        pair.feed_server(&call[..10]).unwrap();
        pair.feed_server(&call[10..50]).unwrap();
        assert_eq!(pair.server.next_timeout_us(), NEVER);
    }
}

#[test]
fn a_silent_peer_is_asked_and_then_left() {
    let mut pair = pair_with(Patience { ping_after_us: 300, ping_answer_us: 200, ..PATIENT });
    assert_eq!(pair.server.next_timeout_us(), START_US + 300);
    assert_eq!(server_at(&mut pair, START_US + 299), Ok(Vec::new()));
    assert!(pair.server.output().is_empty());
    assert_eq!(server_at(&mut pair, START_US + 300), Ok(Vec::new()));
    assert_eq!(server_said(&mut pair), [Kind::Ping]);
    assert_eq!(pair.server.next_timeout_us(), START_US + 500);
    assert_eq!(server_at(&mut pair, START_US + 499), Ok(Vec::new()));
    assert!(pair.server.output().is_empty(), "it is asked once");
    assert_eq!(server_at(&mut pair, START_US + 500), Err(SessionError::PeerSilent));
    assert_eq!(SessionError::PeerSilent.status().code(), Code::DeadlineExceeded);
}

#[test]
fn whatever_comes_is_a_sign_of_life() {
    let mut pair = pair_with(Patience { ping_after_us: 300, ping_answer_us: 200, ..PATIENT });
    server_at(&mut pair, START_US + 300).unwrap();
    // A part of a frame is enough.
    pair.now_us = START_US + 450;
    pair.feed_server(&frame(request(CallId::new(0, 1)), b"")[..1]).unwrap();
    assert_eq!(pair.server.next_timeout_us(), START_US + 750);
    assert_eq!(server_at(&mut pair, START_US + 749), Ok(Vec::new()));
    pair.server.output().clear();
    assert_eq!(server_at(&mut pair, START_US + 750), Ok(Vec::new()));
    assert_eq!(server_said(&mut pair), [Kind::Ping]);
}

#[test]
fn a_peer_that_takes_what_stands_before_a_ping_is_not_left() {
    let mut pair = pair_with(Patience { ping_after_us: 300, ping_answer_us: 200, ..PATIENT });
    assert_eq!(server_at(&mut pair, START_US + 300), Ok(Vec::new()));
    assert_eq!(server_said(&mut pair), [Kind::Ping]);
    // A long reply is on its way, and the PING behind it.
    for now_us in [400, 600, 800] {
        pair.server.handle_sent(START_US + now_us);
        assert_eq!(server_at(&mut pair, START_US + now_us + 199), Ok(Vec::new()));
    }
    assert_eq!(pair.server.next_timeout_us(), START_US + 1_000);
    assert_eq!(server_at(&mut pair, START_US + 1_000), Err(SessionError::PeerSilent));
}

#[test]
fn a_ping_is_answered_with_what_it_brought() {
    let mut pair = Pair::open();
    for number in [0, 1, u64::MAX, 0x0123_4567_89ab_cdef] {
        pair.feed_server(&frame(of_call(Kind::Ping, CallId(number)), b"")).unwrap();
        pair.feed_client(&frame(of_call(Kind::Ping, CallId(number)), b"")).unwrap();
        for session in [&mut pair.server, &mut pair.client] {
            let answer = (of_call(Kind::Pong, CallId(number)), Vec::new());
            assert_eq!(take_frames(session), [answer]);
        }
    }
}

#[test]
fn a_pong_tells_the_round_trip() {
    let mut pair = pair_with(Patience { ping_after_us: 300, ping_answer_us: 200, ..PATIENT });
    server_at(&mut pair, START_US + 310).unwrap();
    let ping = take_frames(&mut pair.server)[0].0.call;
    pair.now_us = START_US + 352;
    // Neither another number nor the same a second time is an answer.
    for (number, event) in
        [(CallId(ping.0 + 1), Event::Nothing), (ping, Event::Pong(42)), (ping, Event::Nothing)]
    {
        pair.feed_server(&frame(of_call(Kind::Pong, number), b"")).unwrap();
        assert_eq!(pair.take_server_events(), [event]);
    }
}

#[test]
fn two_silent_ends_keep_each_other_alive() {
    let patience = Patience { ping_after_us: 300_000, ping_answer_us: 200_000, ..PATIENT };
    let mut pair = Pair::open_configured(&waiting(patience), &waiting(patience), START_US);
    let mut pongs = 0;
    for now_us in (START_US..START_US + 100_000_000).step_by(50_000) {
        pair.wait_until(now_us).unwrap();
        pair.drive();
        for events in [pair.take_client_events(), pair.take_server_events()] {
            pongs += events.iter().filter(|event| matches!(event, Event::Pong(0))).count();
        }
    }
    assert!(pongs > 300, "{pongs}");
}

#[test]
fn more_pings_within_a_second_than_are_allowed_close() {
    let mut pair = pair_with(PATIENT);
    let ping = of_call(Kind::Ping, CallId(5));
    let max = PINGS_PER_SECOND_MAX;
    for (since_us, count) in [(0, 1), (999_999, max - 1), (1_000_000, max)] {
        pair.server.handle_bytes(START_US + since_us);
        for _ in 0..count {
            assert_eq!(pair.server.handle_frame(&ping, b""), Ok(Event::Nothing));
        }
    }
    let len = pair.server.output().len();
    let too_many = SessionError::TooMany("PING");
    assert_eq!(pair.server.handle_frame(&ping, b""), Err(too_many.clone()));
    assert_eq!(pair.server.output().len(), len, "it has no answer");
    assert_eq!(too_many.status().code(), Code::ResourceExhausted);
}

#[test]
fn an_idle_connection_is_drained() {
    let mut pair = pair_with(Patience { idle_us: 1_000, ..PATIENT });
    assert_eq!(pair.server.next_timeout_us(), START_US + 1_000);
    assert_eq!(server_at(&mut pair, START_US + 999), Ok(Vec::new()));
    assert!(!pair.server.drains());
    assert_eq!(server_at(&mut pair, START_US + 1_000), Ok(Vec::new()));
    assert!(pair.server.drains());
    pair.drive();
    let idle = Status::new(Code::Unavailable, "the connection is idle");
    assert_eq!(pair.take_client_events()[0], Event::Draining(idle));
    assert!(pair.server.is_drained());
    assert_eq!(pair.server.next_timeout_us(), NEVER, "it is drained once");
}

#[test]
fn a_connection_is_idle_from_the_end_of_its_last_call() {
    let mut pair = pair_with(Patience { idle_us: 1_000, ..PATIENT });
    let call = pair.call(&Blob::new(0, 0));
    let number = pair.one_way();
    pair.now_us = START_US + 900;
    pair.drive();
    // However long they run.
    assert_eq!(pair.server.next_timeout_us(), NEVER);
    assert_eq!(server_at(&mut pair, START_US + 5_000), Ok(Vec::new()));
    pair.reply(call, &Blob::new(0, 0));
    assert_eq!(server_at(&mut pair, START_US + 7_000), Ok(Vec::new()));
    pair.server.end_one_way(number, Ok(()));
    assert_eq!(pair.server.next_timeout_us(), START_US + 8_000);
    assert_eq!(server_at(&mut pair, START_US + 7_999), Ok(Vec::new()));
    assert!(!pair.server.drains());
}

#[test]
fn a_caller_is_idle_from_the_outcome_of_its_last_call() {
    let client = waiting(Patience { idle_us: 1_000, ..PATIENT });
    let mut pair = Pair::open_configured(&client, &waiting(PATIENT), START_US);
    let call = pair.call(&Blob::new(0, 0));
    pair.drive();
    pair.next_call();
    pair.now_us = START_US + 5_000;
    pair.reply(call, &Blob::new(0, 0));
    pair.drive();
    pair.client.release(call);
    assert_eq!(pair.client.next_timeout_us(), START_US + 6_000);
    pair.wait_until(START_US + 5_999).unwrap();
    assert!(!pair.client.drains());
    pair.wait_until(START_US + 6_000).unwrap();
    assert!(pair.client.drains());
}

#[test]
fn pings_do_not_keep_an_idle_connection_from_its_end() {
    let mut pair = pair_with(Patience { idle_us: 1_000, ..PATIENT });
    pair.now_us = START_US + 900;
    pair.feed_server(&frame(of_call(Kind::Ping, CallId(1)), b"")).unwrap();
    server_at(&mut pair, START_US + 1_000).unwrap();
    assert!(pair.server.drains());
}

#[test]
fn an_old_connection_is_drained_although_calls_run() {
    let mut pair = pair_with(Patience { age_us: 1_000, idle_us: 700, ..PATIENT });
    pair.now_us = START_US + 600;
    let call = pair.call(&Blob::new(0, 0));
    pair.drive();
    pair.next_call();
    assert_eq!(pair.server.next_timeout_us(), START_US + 1_000);
    assert_eq!(server_at(&mut pair, START_US + 999), Ok(Vec::new()));
    assert!(!pair.server.drains());
    assert_eq!(server_at(&mut pair, START_US + 1_000), Ok(Vec::new()));
    pair.drive();
    let old = Status::new(Code::Unavailable, "the connection is old");
    assert_eq!(pair.take_client_events()[0], Event::Draining(old));
    assert!(!pair.server.is_drained());
    pair.reply(call, &Blob::new(0, 0));
    pair.drive();
    assert_eq!(pair.next_reply().0, call);
    assert!(pair.server.is_drained());
}

#[test]
fn a_peer_that_does_not_answer_the_announcement_of_a_drain_is_left() {
    let mut pair = pair_with(Patience { ping_answer_us: 200, ..PATIENT });
    pair.now_us = START_US + 40;
    pair.server.handle_bytes(START_US + 40);
    pair.server.drain(&Status::new(Code::Unavailable, "the server stops"));
    assert_eq!(pair.server.next_timeout_us(), START_US + 240);
    assert_eq!(server_at(&mut pair, START_US + 240), Err(SessionError::PeerSilent));
}

#[test]
fn time_does_not_go_back() {
    let mut pair = pair_with(Patience { ping_after_us: 300, ..PATIENT });
    pair.server.handle_bytes(START_US + 1_000);
    pair.server.handle_bytes(START_US);
    assert_eq!(pair.server.next_timeout_us(), START_US + 1_300);
    assert_eq!(server_at(&mut pair, 0), Ok(Vec::new()));
}

#[test]
fn a_transport_without_a_clock_is_never_told_that_something_is_due() {
    let config = SessionConfig {
        patience: Patience {
            hello_us: 1,
            frame_us: 1,
            bytes_per_s_min: 1,
            ping_after_us: 1,
            ping_answer_us: 1,
            idle_us: 1,
            age_us: 1,
        },
        ..SessionConfig::default()
    };
    let mut pair = Pair::open_configured(&config, &config, 0);
    pair.feed_server(&frame(request(CallId::new(0, 1)), b"")[..20]).unwrap();
    assert_eq!(pair.wait_until(0), Ok(()));
    assert!(pair.server.output().is_empty() && pair.client.output().is_empty());
}

#[test]
fn the_last_word_is_told_the_reason_of_the_time() {
    let mut pair = pair_with(Patience { ping_after_us: 300, ping_answer_us: 200, ..PATIENT });
    server_at(&mut pair, START_US + 300).unwrap();
    let error = server_at(&mut pair, START_US + 500).unwrap_err();
    pair.server.output().clear();
    pair.server.go_away(&error.status());
    let frames = take_frames(&mut pair.server);
    let code = Code::DeadlineExceeded as u32;
    let text = b"the peer gives no sign of life";
    let last = Header { code, flags: Flags::END, ..header(Kind::GoAway) };
    assert_eq!(frames, [(Header { body_len: 30, ..last }, text.to_vec())]);
}

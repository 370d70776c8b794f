//! Violations: what no correct peer sends ends the connection, with an error that names it.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use ringcall_codec::{CallId, Code, Flags, Header, Kind, Limits, SessionError, Status};
use support::{
    Blob, KINDS, METHODS, Pair, Random, client, frame, header, hello, of_call, request, response,
    server,
};

/// What the server of an open pair says to a request of this id.
fn accept(pair: &mut Pair, call: CallId) -> Result<(), SessionError> {
    pair.feed_server(&frame(request(call), b""))
}

#[test]
fn a_call_id_cannot_be_used_while_its_call_runs() {
    let mut pair = Pair::open();
    let call = CallId::new(3, 5);
    accept(&mut pair, call).unwrap();
    assert_eq!(accept(&mut pair, call), Err(SessionError::CallReused(call)));
    // Nor its slot with another generation.
    let later = CallId::new(3, 6);
    assert_eq!(accept(&mut pair, later), Err(SessionError::CallReused(later)));
    assert_eq!(pair.server.calls_running(), 1);
}

#[test]
fn a_call_id_cannot_be_used_after_its_call_ended() {
    let mut pair = Pair::open();
    let call = CallId::new(3, 5);
    accept(&mut pair, call).unwrap();
    pair.reply(call, &Blob::new(0, 0));
    assert_eq!(accept(&mut pair, call), Err(SessionError::CallReused(call)));
    let earlier = CallId::new(3, 4);
    assert_eq!(accept(&mut pair, earlier), Err(SessionError::CallReused(earlier)));
    assert_eq!(accept(&mut pair, CallId::new(3, 6)), Ok(()));
}

#[test]
fn generations_go_on_past_the_largest_number() {
    let mut pair = Pair::open();
    for generation in [u32::MAX - 1, u32::MAX, 1, 2, 1 << 31, (1 << 31) + 5, 3] {
        let call = CallId::new(0, generation);
        assert_eq!(accept(&mut pair, call), Ok(()), "{generation}");
        pair.reply(call, &Blob::new(0, 0));
        assert_eq!(accept(&mut pair, call), Err(SessionError::CallReused(call)));
    }
    // Half the range ahead is taken for behind.
    let stale = CallId::new(0, 3 + (1 << 31));
    assert_eq!(accept(&mut pair, stale), Err(SessionError::CallReused(stale)));
}

#[test]
fn generation_zero_is_no_call() {
    let mut pair = Pair::open();
    let call = CallId::new(0, 0);
    assert_eq!(accept(&mut pair, call), Err(SessionError::GenerationZero(call)));
    assert_eq!(accept(&mut pair, CallId::new(0, u32::MAX)), Ok(()));
    pair.reply(CallId::new(0, u32::MAX), &Blob::new(0, 0));
    assert_eq!(accept(&mut pair, call), Err(SessionError::GenerationZero(call)));
}

#[test]
fn a_slot_beyond_the_limit_is_refused() {
    let limits = Limits { calls_in_flight_max: 8, ..Limits::default() };
    let mut pair = Pair::open_with(Limits::default(), limits);
    assert_eq!(accept(&mut pair, CallId::new(7, 1)), Ok(()));
    for slot in [8, 9, 4096, u32::MAX] {
        let call = CallId::new(slot, 1);
        let refused = SessionError::SlotBeyondLimit { call, limit: 8 };
        assert_eq!(accept(&mut pair, call), Err(refused.clone()));
        assert_eq!(refused.status().code(), Code::ResourceExhausted);
    }
}

#[test]
fn a_response_to_no_call_is_refused() {
    let mut pair = Pair::open();
    let running = pair.call(&Blob::new(0, 0));
    let strangers = [
        CallId::new(0, 0),
        CallId::new(0, 2),
        CallId::new(1, 1),
        CallId::new(1, 0),
        CallId::new(u32::MAX, 1),
    ];
    for call in strangers {
        let refused = pair.feed_client(&frame(response(call), b""));
        assert_eq!(refused, Err(SessionError::NoSuchCall(call)));
    }
    assert_eq!(pair.feed_client(&frame(response(running), b"")), Ok(()));
    // Answered already, whether or not its outcome was taken.
    let again = Err(SessionError::NoSuchCall(running));
    assert_eq!(pair.feed_client(&frame(response(running), b"")), again);
    pair.client.release(running);
    assert_eq!(pair.feed_client(&frame(response(running), b"")), again);
    // And not by the slot's next call.
    let next = pair.call(&Blob::new(0, 0));
    assert_eq!(next.slot(), running.slot());
    assert_eq!(pair.feed_client(&frame(response(running), b"")), again);
}

#[test]
fn each_end_refuses_what_belongs_to_the_other() {
    let mut pair = Pair::open();
    // The server made no call that could be answered.
    let call = CallId::new(0, 1);
    let to_server = pair.feed_server(&frame(response(call), b""));
    assert_eq!(to_server, Err(SessionError::NoSuchCall(call)));
    let why = "this end makes calls and serves none";
    for kind in [Kind::Request, Kind::OneWay] {
        let to_client = pair.feed_client(&frame(of_call(kind, call), b""));
        assert_eq!(to_client, Err(SessionError::Unexpected { kind, why }));
    }
}

#[test]
fn a_session_takes_no_call_before_hello() {
    // As a transport would that has not asked the decoder.
    let why = "a connection begins with HELLO";
    let mut server = server(METHODS);
    let kind = Kind::Request;
    let refused = server.handle_frame(&request(CallId::new(0, 1)), b"");
    assert_eq!(refused, Err(SessionError::Unexpected { kind, why }));
    let mut client = client(METHODS);
    let kind = Kind::Response;
    let refused = client.handle_frame(&response(CallId::new(0, 1)), b"");
    assert_eq!(refused, Err(SessionError::Unexpected { kind, why }));
    // Nor after a HELLO that was refused.
    server.handle_frame(&header(Kind::Hello), b"").unwrap_err();
    let kind = Kind::Request;
    let refused = server.handle_frame(&request(CallId::new(0, 1)), b"");
    assert_eq!(refused, Err(SessionError::Unexpected { kind, why }));
}

#[test]
fn nothing_follows_a_goaway_and_calls_that_run_are_answered() {
    let mut pair = Pair::open();
    let running = CallId::new(0, 1);
    accept(&mut pair, running).unwrap();
    let last = frame(Header { flags: Flags::END, ..header(Kind::GoAway) }, b"");
    pair.feed_server(&last).unwrap();
    let why = "the peer has said GOAWAY";
    let late = accept(&mut pair, CallId::new(1, 1));
    let kind = Kind::Request;
    assert_eq!(late, Err(SessionError::Unexpected { kind, why }));
    let again = pair.feed_server(&last);
    let kind = Kind::GoAway;
    assert_eq!(again, Err(SessionError::Unexpected { kind, why }));
    pair.server.output().clear();
    pair.reply(running, &Blob::new(0, 0));
    assert!(!pair.server.output().is_empty());
    assert!(!pair.server.is_open());
}

#[test]
fn a_violation_is_told_to_the_peer() {
    for (error, code, text) in [
        (
            SessionError::FrameTooLong { frame_len: 80_000, frame_len_max: 65_536 },
            Code::ResourceExhausted,
            "frame of 80000 bytes, the limit is 65536; \
             raise frame_len_max or send less at a time",
        ),
        (
            SessionError::SlotBeyondLimit { call: CallId::new(9, 1), limit: 8 },
            Code::ResourceExhausted,
            "call 9.1 is beyond the limit of 8 calls in flight",
        ),
        (
            SessionError::CallReused(CallId::new(3, 4)),
            Code::InvalidArgument,
            "call 3.4 was used before",
        ),
        (
            SessionError::GenerationZero(CallId::new(3, 0)),
            Code::InvalidArgument,
            "call 3.0 has generation zero",
        ),
        (
            SessionError::NoSuchCall(CallId::new(3, 4)),
            Code::InvalidArgument,
            "response to call 3.4, which is not in flight",
        ),
    ] {
        assert_eq!((error.status().code(), error.status().message()), (code, text));
    }
}

#[test]
fn garbage_ends_the_connection_and_never_panics() {
    let mut random = Random::new(9);
    for _ in 0..3_000 {
        let mut pair = Pair::open();
        pair.call(&Blob::new(0, 0));
        let len = 64 + random.below(300);
        let garbage = random.bytes(len);
        assert!(pair.feed_server(&garbage).is_err());
        assert!(pair.feed_client(&garbage).is_err());
        let mut closed = Pair::new(Limits::default(), Limits::default());
        assert!(closed.feed_server(&garbage).is_err());
        assert!(closed.feed_client(&garbage).is_err());
    }
}

#[test]
fn frames_of_random_fields_never_panic() {
    let mut random = Random::new(10);
    let mut pair = Pair::open();
    let mut events = Vec::new();
    for _ in 0..50_000 {
        let len = random.below(64);
        let body = random.bytes(len);
        let header = Header {
            call: CallId::new(random.below(5) as u32, random.below(4) as u32),
            code: random.below(20) as u32,
            meta_len: [0, 0, 1, 3][random.below(4)],
            flags: [Flags::NONE, Flags::END, Flags::DETAILS][random.below(3)],
            time_us: [0, 0, 500][random.below(3)],
            ..header(KINDS[random.below(KINDS.len())])
        };
        if random.below(500) == 0 {
            pair = Pair::open();
        }
        // Straight into the sessions, past the decoder's checks.
        let _ = pair.server.handle_frame(&header, &body);
        let _ = pair.client.handle_frame(&header, &body);
        let _ = pair.server.refuse_header(&header, &Status::new(Code::Unavailable, ""));
        let _ = pair.server.handle_timeout(random.next() % 1_000_000_000, &mut events);
        assert!(pair.server.calls_running() <= 5);
    }
}

#[test]
fn bits_flipped_in_an_exchange_never_panic() {
    let mut stream = hello();
    stream.extend(frame(request(CallId::new(0, 1)), &[0; 40]));
    stream.extend(frame(request(CallId::new(1, 1)), b""));
    for bit in 0..stream.len() * 8 {
        let mut flipped = stream.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        let mut pair = Pair::new(Limits::default(), Limits::default());
        let _ = pair.feed_server(&flipped);
        assert!(pair.server.calls_running() <= 2);
    }
}

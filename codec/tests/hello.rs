//! HELLO: what each side says of itself, and how a hostile one is refused.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use ringcall_codec::{
    CallOptions, Code, Event, Header, HelloError, Kind, Limits, MethodInfo, Session, SessionError,
    ShardPlace,
    limits::{HELLO_BODY_LEN_MAX, HELLO_METHODS_MAX, WINDOW_CEILING, WINDOW_FLOOR},
};
use support::{METHODS, Pair, Random, client, config, decode, frame, frames_of, header, server};

const ADD: MethodInfo = MethodInfo::unary(0x0a, "Sums.add", 0x11, 0x22);
const DIVIDE: MethodInfo = MethodInfo::unary(0x0d, "Sums.divide", 0x33, 0x44);

const LIMITS: Limits = Limits {
    frame_len_max: 0x0012_0000,
    calls_in_flight_max: 0x0304,
    stream_window: 0x0001_5100,
    connection_window: 0x0061_0000,
};

/// What a server with these methods makes of a HELLO body.
fn offer(methods: &'static [MethodInfo], body: &[u8]) -> Result<Event, SessionError> {
    let mut server = server(methods);
    let header = Header { body_len: body.len() as u32, ..header(Kind::Hello) };
    server.handle_frame(&header, body)
}

/// A body of these fixed fields and method ids.
fn body(frame_len_max: u32, calls_in_flight_max: u32, shard: (u16, u16), ids: &[u32]) -> Vec<u8> {
    let mut body = vec![0; 8];
    body.extend(frame_len_max.to_le_bytes());
    body.extend(calls_in_flight_max.to_le_bytes());
    body.extend(WINDOW_FLOOR.to_le_bytes());
    body.extend(WINDOW_CEILING.to_le_bytes());
    body.extend(shard.0.to_le_bytes());
    body.extend(shard.1.to_le_bytes());
    body.extend((ids.len() as u32).to_le_bytes());
    for id in ids {
        body.extend(u64::from(*id).to_le_bytes());
        body.extend([0; 16]);
    }
    body
}

fn refused(body: &[u8]) -> HelloError {
    match offer(&[], body) {
        Err(SessionError::Hello(error)) => error,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_hello_has_every_field_at_its_place() {
    // Given out of order; sent in ascending order of the ids.
    const METHODS: &[MethodInfo] = &[DIVIDE, ADD];
    let mut client = Session::client(&config(LIMITS), METHODS, &[]);
    #[rustfmt::skip]
    let expected = [
        0x50, 0, 0, 0,  0, 0,  1,  0, // body_len 80, HELLO
        b'r', b'i', b'n', b'g', b'c', b'a', b'l', b'l',
        1, 0,  1, 0,  0, 0, 0, 0, // versions 1 to 1
        0, 0, 0, 0,  0, 0, 0, 0,
        0, 0, 0, 0, 0, 0, 0, 0, // features
        0, 0, 0x12, 0,  4, 3, 0, 0, // frame_len_max, calls_in_flight_max
        0, 0x51, 1, 0,  0, 0, 0x61, 0, // stream_window, connection_window
        0, 0,  0, 0,  2, 0, 0, 0, // shard index and count, methods
        0x0a, 0, 0, 0,  0, 0, 0, 0,
        0x11, 0, 0, 0, 0, 0, 0, 0,
        0x22, 0, 0, 0, 0, 0, 0, 0,
        0x0d, 0, 0, 0,  0, 0, 0, 0,
        0x33, 0, 0, 0, 0, 0, 0, 0,
        0x44, 0, 0, 0, 0, 0, 0, 0,
    ];
    assert_eq!(client.output()[..], expected);
}

#[test]
fn both_sides_learn_what_the_other_accepts_and_where_it_is() {
    let mut pair = Pair::open();
    assert_eq!(pair.client.shard(), Some(ShardPlace { index: 2, count: 4 }));
    // The server accepts fewer calls than the client would make.
    let few = Limits { calls_in_flight_max: 2, ..Limits::default() };
    pair = Pair::open_with(Limits::default(), few);
    for _ in 0..2 {
        pair.call(&support::Blob::new(0, 0));
    }
    let third = pair.client.call(
        &mut pair.scratch,
        support::ECHO,
        CallOptions::default(),
        &support::Blob::new(0, 0),
    );
    assert!(third.is_err());
    pair.drive();
    assert_eq!(pair.server.calls_running(), 2);
}

#[test]
fn a_hello_cut_at_any_length_is_malformed() {
    let whole = body(1 << 20, 1, (0, 0), &[1, 2, 3]);
    assert_eq!(offer(&[], &whole), Ok(Event::Opened));
    for len in 0..whole.len() {
        assert_eq!(refused(&whole[..len]), HelloError::Malformed { body_len: len });
    }
    let longer = [&whole[..], &[0]].concat();
    assert_eq!(refused(&longer), HelloError::Malformed { body_len: longer.len() });
}

#[test]
fn a_count_that_the_body_does_not_have_is_malformed() {
    for count in [1, 2, HELLO_METHODS_MAX as u32 + 1, 0x0aaa_aaab, 0x8000_0000, u32::MAX] {
        let mut body = body(1 << 20, 1, (0, 0), &[]);
        body[28..32].copy_from_slice(&count.to_le_bytes());
        assert_eq!(refused(&body), HelloError::Malformed { body_len: 32 });
    }
}

#[test]
fn the_longest_hello_is_accepted_and_one_method_more_is_not() {
    let ids: Vec<u32> = (0..=HELLO_METHODS_MAX as u32).collect();
    let longest = body(1 << 20, 1, (0, 0), &ids[1..]);
    assert_eq!(longest.len(), HELLO_BODY_LEN_MAX);
    assert_eq!(offer(&[], &longest), Ok(Event::Opened));
    let longer = body(1 << 20, 1, (0, 0), &ids);
    assert_eq!(refused(&longer), HelloError::Malformed { body_len: longer.len() });
}

#[test]
fn reserved_bytes_of_a_method_must_be_zero() {
    for at in 36..40 {
        let mut body = body(1 << 20, 1, (0, 0), &[1]);
        body[at] = 1;
        assert_eq!(refused(&body), HelloError::Malformed { body_len: 56 });
    }
}

#[test]
fn methods_come_in_ascending_order_and_once() {
    let order = |ids: &[u32]| refused(&body(1 << 20, 1, (0, 0), ids));
    assert_eq!(order(&[1, 1]), HelloError::MethodOrder { id: 1 });
    assert_eq!(order(&[1, 5, 3]), HelloError::MethodOrder { id: 3 });
    assert_eq!(order(&[u32::MAX, 0]), HelloError::MethodOrder { id: 0 });
}

#[test]
fn limits_out_of_range_are_named() {
    let limit = |frame_len_max, calls, shard| refused(&body(frame_len_max, calls, shard, &[]));
    let bad = HelloError::BadLimit;
    assert_eq!(limit(0, 1, (0, 0)), bad("frame_len_max"));
    assert_eq!(limit(65_535, 1, (0, 0)), bad("frame_len_max"));
    assert_eq!(limit(65_536, 0, (0, 0)), bad("calls_in_flight_max"));
    assert_eq!(limit(65_536, 1, (1, 0)), bad("shard_index"));
    assert_eq!(limit(65_536, 1, (4, 4)), bad("shard_index"));
    for (at, field) in [(16, "stream_window"), (20, "connection_window")] {
        for window in [0, WINDOW_FLOOR - 1, WINDOW_CEILING + 1, u32::MAX] {
            let mut body = body(1 << 20, 1, (0, 0), &[]);
            body[at..at + 4].copy_from_slice(&window.to_le_bytes());
            assert_eq!(refused(&body), bad(field));
        }
    }
    let largest = body(u32::MAX, u32::MAX, (65_534, 65_535), &[]);
    assert_eq!(offer(&[], &largest), Ok(Event::Opened));
}

#[test]
fn features_that_are_not_known_are_ignored() {
    let mut body = body(1 << 20, 1, (0, 0), &[]);
    body[..8].fill(0xff);
    assert_eq!(offer(&[], &body), Ok(Event::Opened));
}

#[test]
fn a_version_range_that_holds_ours_is_accepted() {
    let body = body(1 << 20, 1, (0, 0), &[]);
    for (code, is_accepted) in [
        (0x0001_0001, true),
        (0x0009_0001, true),
        (0xffff_0000, true),
        (0x0003_0002, false),
        (0x0000_0000, false),
        (0x0000_0001, false),
    ] {
        let mut server = server(&[]);
        let header = Header { body_len: body.len() as u32, code, ..header(Kind::Hello) };
        assert_eq!(server.handle_frame(&header, &body).is_ok(), is_accepted, "{code:#x}");
    }
}

#[test]
fn a_server_that_refuses_a_version_says_hello_first_and_then_why() {
    let mut server = server(METHODS);
    let mut decoder = ringcall_codec::Decoder::new(u32::MAX);
    let newer = Header { code: 0x0007_0002, body_len: 32, ..header(Kind::Hello) };
    let error = decode(&mut decoder, &newer.encode(), |_, _| Ok(())).unwrap_err();
    server.go_away(&error.status());
    let frames = frames_of(server.output());
    assert_eq!((frames[0].0.kind, frames[0].0.code), (Kind::Hello, 0x0001_0001));
    assert_eq!(frames[1].0.kind, Kind::GoAway);
    assert_eq!(frames[1].0.code, Code::FailedPrecondition as u32);
    let text = "no common version: the peer speaks 2 to 7, this side 1 to 1; upgrade the older one";
    assert_eq!(frames[1].1, text.as_bytes());
}

#[test]
fn a_layout_that_differs_is_named_on_both_sides() {
    const OURS: &[MethodInfo] = &[ADD, DIVIDE];
    const OTHER_REQUEST: &[MethodInfo] = &[ADD, MethodInfo { request: 0x99, ..DIVIDE }];
    const OTHER_REPLY: &[MethodInfo] = &[MethodInfo { reply: 0x99, ..ADD }];
    const OTHER_BOTH: &[MethodInfo] = &[MethodInfo { request: 0x99, reply: 0x99, ..ADD }];
    for (theirs, method, part) in [
        (OTHER_REQUEST, "Sums.divide", "request"),
        (OTHER_REPLY, "Sums.add", "reply"),
        (OTHER_BOTH, "Sums.add", "request and reply"),
    ] {
        let mismatch = SessionError::LayoutMismatch { method: method.to_owned(), part };
        let mut client = client(theirs);
        let mut server = server(OURS);
        let (hello, body) = frames_of(client.output()).remove(0);
        assert_eq!(server.handle_frame(&hello, &body), Err(mismatch.clone()));
        assert!(!server.is_open());
        // The server's HELLO went out all the same, and the client finds the same.
        let (hello, body) = frames_of(server.output()).remove(0);
        assert_eq!(client.handle_frame(&hello, &body), Err(mismatch.clone()));
        assert!(!client.is_open());
        assert_eq!(mismatch.status().code(), Code::FailedPrecondition);
        let text = format!(
            "the layouts of method {method} differ ({part}); \
             build both sides from the same interface"
        );
        assert_eq!(mismatch.to_string(), text);
    }
}

#[test]
fn a_method_that_only_one_side_has_is_no_disagreement() {
    const MORE: &[MethodInfo] = &[ADD, DIVIDE];
    for (ours, theirs) in [(MORE, &MORE[..1]), (&MORE[..1], MORE), (&MORE[..1], &MORE[1..])] {
        let mut client = client(theirs);
        let mut server = server(ours);
        let (hello, body) = frames_of(client.output()).remove(0);
        assert_eq!(server.handle_frame(&hello, &body), Ok(Event::Opened));
        let (hello, body) = frames_of(server.output()).remove(0);
        assert_eq!(client.handle_frame(&hello, &body), Ok(Event::Opened));
    }
}

#[test]
fn a_side_says_hello_once() {
    let mut pair = Pair::open();
    let unexpected =
        SessionError::Unexpected { kind: Kind::Hello, why: "a connection has one HELLO" };
    let hello = frame(header(Kind::Hello), &body(1 << 20, 1, (0, 0), &[]));
    assert_eq!(pair.feed_server(&hello), Err(unexpected.clone()));
    assert_eq!(pair.feed_client(&hello), Err(unexpected));
}

#[test]
fn random_bodies_never_panic() {
    let mut random = Random::new(6);
    for _ in 0..20_000 {
        let len = random.below(200);
        let mut bytes = random.bytes(len);
        if len >= 32 && random.below(2) == 0 {
            let count = (len as u32 - 32) / 24;
            bytes[28..32].copy_from_slice(&count.to_le_bytes());
            bytes.truncate(32 + 24 * count as usize);
        }
        let _ = offer(METHODS, &bytes);
    }
}

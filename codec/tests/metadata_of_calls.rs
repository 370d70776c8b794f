//! Metadata beside a call's messages: both ways, in its place, and nothing malformed let in.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use ringcall_codec::{
    CallId, CallOptions, Code, EncodeError, Event, Header, Key, Kind, Limits, Metadata,
    MetadataError, MetadataRef, OpenError, ReplyError, SessionError, Status, access,
};
use support::{
    Blob, ECHO, Pair, aligned, config, frame_with, header, of_call, request, response, take_frames,
};

fn metadata() -> Metadata {
    let mut metadata = Metadata::new();
    metadata.insert(Key::TENANT, "acme").unwrap();
    metadata.insert_named("attempt", [3]).unwrap();
    metadata
}

fn with(metadata: &Metadata) -> CallOptions<'_> {
    CallOptions { metadata: metadata.as_bytes(), ..CallOptions::default() }
}

/// A block that is none: an entry that ends beyond it.
const MALFORMED: [u8; 16] = [1, 0, 200, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
const TRUNCATED: SessionError = SessionError::Metadata(MetadataError::Truncated { at: 0 });

#[test]
fn metadata_arrives_before_the_request_and_before_the_reply() {
    for piece_len in [usize::MAX, 1, 7, 48] {
        let mut pair = Pair::open();
        pair.piece_len = piece_len;
        let (sent, blob) = (metadata(), Blob::new(5, 40));
        let call = pair.client.call(&mut pair.scratch, ECHO, with(&sent), &blob).unwrap();
        pair.drive();
        let (received, payload) = pair.next_call();
        let (block, body) = payload.split_at(sent.as_bytes().len());
        assert_eq!((received, MetadataRef::parse(block)), (call, Ok(sent.as_ref())));
        assert_eq!(access::<Blob>(body).unwrap().id, 5);

        let mut back = Metadata::new();
        back.insert_named("shard-load", "0.3").unwrap();
        let blob = Blob::new(6, 3);
        pair.server.reply(&mut pair.scratch, call, back.as_bytes(), &blob).unwrap();
        pair.drive();
        let (answered, payload) = pair.next_reply();
        let (block, body) = payload.split_at(back.as_bytes().len());
        assert_eq!((answered, MetadataRef::parse(block)), (call, Ok(back.as_ref())));
        assert_eq!(access::<Blob>(body).unwrap().id, 6);
    }
}

#[test]
fn metadata_arrives_with_a_one_way_call() {
    let mut pair = Pair::open();
    let (sent, blob) = (metadata(), Blob::new(5, 40));
    let number = pair.client.one_way(&mut pair.scratch, ECHO, with(&sent), &blob).unwrap();
    pair.drive();
    let (event, payload) = pair.server_events.pop_front().unwrap();
    assert_eq!(event, Event::OneWay { number, method: ECHO });
    let (block, body) = payload.split_at(sent.as_bytes().len());
    assert_eq!(MetadataRef::parse(block), Ok(sent.as_ref()));
    assert_eq!(access::<Blob>(body).unwrap().id, 5);
}

#[test]
fn a_header_says_how_long_the_metadata_is_and_the_body_alone() {
    let mut pair = Pair::open();
    let sent = metadata();
    let blocks = sent.as_bytes().len() / 16;
    pair.client.call(&mut pair.scratch, ECHO, with(&sent), &Blob::new(5, 33)).unwrap();
    let frame = pair.client.output().clone();
    let body_len = 56;
    assert_eq!(frame[..6], [body_len, 0, 0, 0, blocks as u8, 0]);
    assert_eq!(&frame[32..32 + sent.as_bytes().len()], sent.as_bytes());
    assert_eq!(frame.len(), 32 + sent.as_bytes().len() + 64);
    // None takes no bytes.
    pair.client.output().clear();
    pair.client.call(&mut pair.scratch, ECHO, with(&Metadata::new()), &Blob::new(5, 33)).unwrap();
    assert_eq!(pair.client.output().len(), 32 + 64);
}

#[test]
fn the_longest_metadata_travels() {
    let mut pair = Pair::open();
    let mut longest = Metadata::new();
    longest.insert(Key::AUTHORIZATION, [7; 8192 - 5]).unwrap();
    assert_eq!(longest.as_bytes().len(), 8192);
    pair.client.call(&mut pair.scratch, ECHO, with(&longest), &Blob::new(1, 0)).unwrap();
    pair.drive();
    let (_, payload) = pair.next_call();
    assert_eq!(&payload[..8192], longest.as_bytes());
}

#[test]
fn metadata_counts_against_the_longest_frame() {
    let limits = Limits { frame_len_max: 64 * 1024, ..Limits::default() };
    let mut pair = Pair::open_configured(&config(limits), &config(limits), 0);
    let sent = metadata();
    let body_len_max = 64 * 1024 - 32 - sent.as_bytes().len();
    let too_long = EncodeError::TooLong { body_len_max };
    // Its archive has 16 bytes beside those of the list.
    let (fits, long) = (Blob::new(0, body_len_max - 16), Blob::new(0, body_len_max - 15));
    let refused = pair.client.call(&mut pair.scratch, ECHO, with(&sent), &long);
    assert_eq!(refused, Err(OpenError::Encode(too_long)));
    assert!(pair.client.output().is_empty(), "nor its metadata");
    let call = pair.client.call(&mut pair.scratch, ECHO, with(&sent), &fits).unwrap();
    assert_eq!(pair.client.output().len(), 64 * 1024);
    pair.drive();
    pair.next_call();
    let replied = pair.server.reply(&mut pair.scratch, call, sent.as_bytes(), &long);
    assert_eq!(replied, Err(ReplyError::Encode(too_long)));
    pair.drive();
    let (event, _) = pair.client_events.pop_front().unwrap();
    let Event::Failed(_, status) = event else { panic!("{event:?}") };
    assert_eq!(status.code(), Code::ResourceExhausted);
}

#[test]
fn malformed_metadata_closes() {
    for (header, is_from_client) in [
        (request(CallId::new(0, 1)), true),
        (Header { time_us: 5, ..request(CallId::new(0, 1)) }, true),
        (Header { code: ECHO, ..of_call(Kind::OneWay, CallId(1)) }, true),
        (response(CallId::new(0, 1)), false),
        (Header { code: 5, ..response(CallId::new(0, 1)) }, false),
    ] {
        let mut pair = Pair::open();
        pair.call(&Blob::new(0, 0));
        let bytes = frame_with(header, &MALFORMED, b"");
        let refused =
            if is_from_client { pair.feed_server(&bytes) } else { pair.feed_client(&bytes) };
        assert_eq!(refused, Err(TRUNCATED), "{header:?}");
        assert!(pair.client_events.is_empty() && pair.server_events.is_empty());
        assert_eq!((pair.server.calls_running(), pair.server.one_ways_running()), (0, 0));
    }
    assert_eq!(TRUNCATED.status().code(), Code::InvalidArgument);
    // The same where the call would be refused in any case.
    let mut pair = Pair::open();
    pair.server.drain(&Status::new(Code::Unavailable, ""));
    let refused = pair.feed_server(&frame_with(request(CallId::new(0, 1)), &MALFORMED, b""));
    assert_eq!(refused, Err(TRUNCATED));
}

#[test]
fn a_status_may_have_metadata_before_it() {
    let mut pair = Pair::open();
    let call = pair.call(&Blob::new(0, 0));
    let block = metadata();
    let header = Header { code: 5, ..response(call) };
    pair.feed_client(&frame_with(header, block.as_bytes(), b"no such key")).unwrap();
    let (event, payload) = pair.client_events.pop_front().unwrap();
    assert_eq!(event, Event::Failed(call, Status::new(Code::NotFound, "no such key")));
    assert_eq!(&payload[..block.as_bytes().len()], block.as_bytes());
}

#[test]
fn a_reply_without_metadata_has_none_of_the_request() {
    let mut pair = Pair::open();
    let sent = metadata();
    let call = pair.client.call(&mut pair.scratch, ECHO, with(&sent), &Blob::new(0, 0)).unwrap();
    pair.drive();
    pair.reply(call, &Blob::new(0, 0));
    let (header, body) = take_frames(&mut pair.server).remove(0);
    assert_eq!(header.meta_len, 0);
    assert!(access::<Blob>(&aligned(&body)).is_ok());
}

#[test]
fn frames_of_other_kinds_have_no_metadata() {
    let mut pair = Pair::open();
    pair.one_way();
    for kind in [Kind::Cancel, Kind::Ping, Kind::Pong, Kind::GoAway, Kind::Notice] {
        let bytes = frame_with(header(kind), &MALFORMED, b"");
        let reserved = ringcall_codec::HeaderError::ReservedField("meta_len");
        assert_eq!(pair.feed_server(&bytes), Err(SessionError::Header(reserved)));
    }
}

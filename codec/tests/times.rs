//! How long a callee held a call: asked for, told, and harmless whatever is told.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use std::time::Duration;

use ringcall_codec::{
    CallOptions, Header, Key, Metadata, MetadataRef, ServerTimes, limits::METADATA_ENTRIES_MAX,
    sum_frame,
};
use support::{Blob, ECHO, Pair, take_frames};

fn times(queue_ns: u64, handler_ns: u64) -> ServerTimes {
    let [queue, handler] = [queue_ns, handler_ns].map(Duration::from_nanos);
    ServerTimes { queue, handler }
}

/// The header and the metadata of a reply that was made with this metadata and these times.
fn told(metadata: &Metadata, times: ServerTimes) -> (Header, Metadata) {
    let mut pair = Pair::open();
    let call = pair.call(&Blob::new(5, 40));
    pair.drive();
    pair.next_call();
    pair.server.reply(&mut pair.scratch, call, metadata.as_bytes(), &Blob::new(6, 3)).unwrap();
    times.write(pair.server.output(), 0);
    let (header, payload) = take_frames(&mut pair.server).pop().unwrap();
    let metadata = MetadataRef::parse(&payload[..header.meta_bytes()]).unwrap().to_owned();
    (header, metadata)
}

fn with_room() -> Metadata {
    let mut metadata = Metadata::new();
    ServerTimes::reserve(&mut metadata).unwrap();
    metadata
}

#[test]
fn who_asks_is_told_apart_from_who_does_not() {
    assert!(ServerTimes::are_wanted(ServerTimes::WANTED));
    assert!(MetadataRef::parse(ServerTimes::WANTED).is_ok());
    assert!(!ServerTimes::are_wanted(&[]));
    let mut metadata = Metadata::new();
    metadata.insert(Key::TENANT, "acme").unwrap().insert_named("times", "").unwrap();
    assert!(!ServerTimes::are_wanted(metadata.as_bytes()));
    ServerTimes::ask(&mut metadata).unwrap();
    assert!(ServerTimes::are_wanted(metadata.as_bytes()));
    assert_eq!(metadata.as_ref().get(Key::TENANT), Some(&b"acme"[..]));
    // Of any value.
    metadata.insert(Key::TIMES, "please").unwrap();
    assert!(ServerTimes::are_wanted(metadata.as_bytes()));
}

#[test]
fn times_stand_in_the_metadata_and_their_sum_in_the_header() {
    for (sent, time_us) in [
        (times(0, 0), 0),
        (times(0, 1), 1),
        (times(1_500, 250), 2),
        (times(600, 400), 1),
        (times(7, 4_000_000_000), 4_000_001),
    ] {
        let (header, metadata) = told(&with_room(), sent);
        assert_eq!(ServerTimes::of(&metadata.as_ref()), Some(sent));
        assert_eq!(header.time_us, time_us, "{sent:?}");
    }
}

#[test]
fn times_that_are_too_long_are_the_longest() {
    let longest = u64::from(u32::MAX);
    let (header, metadata) = told(&with_room(), times(longest + 1, 1 << 40));
    assert_eq!(ServerTimes::of(&metadata.as_ref()), Some(times(longest, longest)));
    // The header's unit is longer, and its time that of what was measured.
    assert_eq!(header.time_us, ((longest + 1 + (1 << 40)) as u128).div_ceil(1000) as u32);
    let (header, _) = told(&with_room(), ServerTimes { queue: Duration::MAX, ..times(0, 1) });
    assert_eq!(header.time_us, u32::MAX);
}

#[test]
fn times_leave_the_entries_around_them_alone() {
    let mut metadata = Metadata::new();
    metadata.insert(Key::TENANT, "acme").unwrap();
    // What a handler put there itself gives way.
    metadata.insert(Key::TIMES, "any").unwrap().insert_named("x", [9; 20]).unwrap();
    ServerTimes::reserve(&mut metadata).unwrap();
    metadata.insert(Key::LOCALE, "de").unwrap();
    let (_, received) = told(&metadata, times(1, 2));
    let received = received.as_ref();
    assert_eq!(ServerTimes::of(&received), Some(times(1, 2)));
    assert_eq!(received.get(Key::TENANT), Some(&b"acme"[..]));
    assert_eq!(received.get_named("x"), Some(&[9; 20][..]));
    assert_eq!(received.get(Key::LOCALE), Some(&b"de"[..]));
    assert_eq!(received.iter().count(), 4);
}

#[test]
fn without_a_place_only_the_header_says_how_long() {
    let mut full = Metadata::new();
    for number in 0..METADATA_ENTRIES_MAX {
        full.insert_named(&number.to_string(), "").unwrap();
    }
    assert!(ServerTimes::reserve(&mut full).is_err());
    assert!(ServerTimes::ask(&mut full).is_err());
    let mut other = Metadata::new();
    other.insert(Key::TIMES, "seven b").unwrap();
    for metadata in [Metadata::new(), full, other] {
        let (header, received) = told(&metadata, times(1_500, 250));
        assert_eq!(header.time_us, 2);
        assert_eq!(received, metadata);
    }
}

#[test]
fn values_of_another_length_are_no_times_and_all_others_are() {
    for len in 0..40 {
        let mut metadata = Metadata::new();
        metadata.insert(Key::TIMES, vec![0xff; len]).unwrap();
        let longest = u64::from(u32::MAX);
        let expected = (len == 8).then(|| times(longest, longest));
        assert_eq!(ServerTimes::of(&metadata.as_ref()), expected, "{len} bytes");
    }
    assert_eq!(ServerTimes::of(&MetadataRef::EMPTY), None);
}

#[test]
fn times_are_written_into_the_last_of_several_frames() {
    let mut pair = Pair::open();
    let calls = [pair.call(&Blob::new(5, 40)), pair.call(&Blob::new(6, 40))];
    pair.drive();
    for call in calls {
        let metadata = with_room();
        pair.server.reply(&mut pair.scratch, call, metadata.as_bytes(), &Blob::new(6, 3)).unwrap();
    }
    times(3_000, 0).write(pair.server.output(), 0);
    let frames = take_frames(&mut pair.server);
    let [(first, _), (second, _)] = &frames[..] else { panic!("{frames:?}") };
    assert_eq!((first.time_us, second.time_us), (0, 3));
}

#[test]
fn a_checksum_covers_times_that_were_written_before_it() {
    let mut pair = Pair::open();
    let options = CallOptions { metadata: ServerTimes::WANTED, ..CallOptions::default() };
    let call = pair.client.call(&mut pair.scratch, ECHO, options, &Blob::new(5, 40)).unwrap();
    pair.drive();
    let metadata = with_room();
    pair.server.reply(&mut pair.scratch, call, metadata.as_bytes(), &Blob::new(6, 3)).unwrap();
    times(1, 2).write(pair.server.output(), 0);
    let mut summed = Vec::new();
    sum_frame(pair.server.output(), 0, |bytes| {
        summed = bytes.to_vec();
        0
    });
    let metadata = MetadataRef::parse(&summed[..16]).unwrap();
    assert_eq!(ServerTimes::of(&metadata), Some(times(1, 2)));
}

#[test]
fn what_is_no_frame_is_left_as_it_is() {
    for len in [0, 5, 31, 64] {
        let mut bytes = vec![0xff; len];
        times(1, 2).write(&mut bytes, 0);
        times(1, 2).write(&mut bytes, len + 1);
        assert_eq!(bytes, vec![0xff; len]);
    }
}

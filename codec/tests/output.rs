//! Output: a frame is whole or absent, and nothing of another message is in it.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use ringcall_codec::{
    CallOptions, Code, EncodeError, Event, Limits, OpenError, ReplyError, access,
    limits::HEADER_LEN,
};
use support::{Blob, ECHO, Gaps, Pair, frames_of, hello};

/// Fills the server's output with 0xEE and empties it, so that what is not written shows.
fn soil(output: &mut Vec<u8>) {
    output.clear();
    output.resize(4096, 0xee);
    output.clear();
}

#[test]
fn padding_is_zero_and_holds_nothing_of_earlier_frames() {
    let mut pair = Pair::open();
    for len in 0..64 {
        soil(pair.client.output());
        let blob = Blob { id: u64::MAX, bytes: vec![0xff; len] };
        pair.client.call(&mut pair.scratch, ECHO, CallOptions::default(), &blob).unwrap();
        let output = pair.client.output();
        let body_len = u32::from_le_bytes(output[..4].try_into().unwrap()) as usize;
        assert_eq!(output.len(), (HEADER_LEN + body_len).next_multiple_of(16));
        assert!(output[HEADER_LEN + body_len..].iter().all(|byte| *byte == 0));
        assert!(!output.contains(&0xee), "{len}");
    }
}

#[test]
fn gaps_inside_an_archive_are_zero() {
    let mut pair = Pair::open();
    let gaps = |fill: u8, maybe: Option<u64>| Gaps {
        small: fill,
        large: u128::from_ne_bytes([fill; 16]),
        maybe,
        list: vec![(fill, u32::from_ne_bytes([fill; 4]), maybe); 5],
    };
    // Dirties the working memory of the encoder too.
    let full = gaps(0xee, Some(0xeeee_eeee_eeee_eeee));
    pair.client.call(&mut pair.scratch, ECHO, CallOptions::default(), &full).unwrap();
    for maybe in [None, Some(0x0101_0101_0101_0101)] {
        soil(pair.client.output());
        pair.client.call(&mut pair.scratch, ECHO, CallOptions::default(), &gaps(1, maybe)).unwrap();
        let first = pair.client.output().clone();
        assert!(!first.contains(&0xee));
        pair.client.output().clear();
        pair.client.output().resize(4096, 0x77);
        pair.client.output().clear();
        pair.client.call(&mut pair.scratch, ECHO, CallOptions::default(), &gaps(1, maybe)).unwrap();
        assert_eq!(pair.client.output()[HEADER_LEN..], first[HEADER_LEN..]);
    }
}

#[test]
fn a_request_that_is_too_long_leaves_nothing_and_takes_no_slot() {
    let small = Limits { frame_len_max: 64 * 1024, ..Limits::default() };
    let mut pair = Pair::open_with(Limits::default(), small);
    pair.call(&Blob::new(1, 10));
    let before = pair.client.output().clone();
    let too_long = EncodeError::TooLong { body_len_max: 64 * 1024 - 32 };
    for len in [64 * 1024, 1 << 20] {
        let blob = Blob { id: 2, bytes: vec![0xab; len] };
        let call = pair.client.call(&mut pair.scratch, ECHO, CallOptions::default(), &blob);
        assert_eq!(call, Err(OpenError::Encode(too_long)));
        assert_eq!(*pair.client.output(), before);
        assert_eq!(pair.client.calls_made(), 1);
    }
    let next = pair.call(&Blob::new(3, 10));
    assert_eq!(next.slot(), 1);
    pair.drive();
    assert_eq!(pair.server_events.len(), 2);
}

#[test]
fn a_reply_that_is_too_long_becomes_a_status() {
    let small = Limits { frame_len_max: 64 * 1024, ..Limits::default() };
    let mut pair = Pair::open_with(small, Limits::default());
    let first = pair.call(&Blob::new(1, 10));
    let second = pair.call(&Blob::new(2, 10));
    pair.drive();
    let too_long = EncodeError::TooLong { body_len_max: 64 * 1024 - 32 };
    let long = Blob { id: 3, bytes: vec![0xab; 100_000] };
    let replied = pair.server.reply(&mut pair.scratch, first, &[], &long);
    assert_eq!(replied, Err(ReplyError::Encode(too_long)));
    assert!(!pair.server.output().contains(&0xab), "a part of the reply is left");
    pair.reply(second, &Blob::new(4, 10));
    pair.drive();
    let (failed, _) = pair.client_events.pop_front().unwrap();
    let Event::Failed(call, status) = failed else { panic!("{failed:?}") };
    assert_eq!((call, status.code()), (first, Code::ResourceExhausted));
    let text = "reply: message does not fit into a body of 65504 bytes, the most the peer accepts";
    assert_eq!(status.message(), text);
    assert!(!status.is_not_executed(), "the handler ran");
    let (call, body) = pair.next_reply();
    assert_eq!(call, second);
    assert_eq!(access::<Blob>(&body).unwrap().id, 4);
}

#[test]
fn the_longest_message_arrives_whatever_the_limit() {
    for frame_len_max in 64 * 1024..64 * 1024 + 33 {
        let limits = Limits { frame_len_max, ..Limits::default() };
        let mut pair = Pair::open_with(limits, limits);
        // The longest that is accepted, found from above.
        let longest = (0..200).find_map(|less| {
            let blob = Blob { id: 1, bytes: vec![1; frame_len_max as usize - less] };
            pair.client.call(&mut pair.scratch, ECHO, CallOptions::default(), &blob).ok()
        });
        assert!(longest.is_some());
        assert!(pair.client.output().len() <= frame_len_max as usize);
        assert!(pair.client.output().len() + 16 > frame_len_max as usize);
        pair.drive();
        pair.next_call();
    }
}

#[test]
fn frames_follow_each_other_in_the_order_they_were_made() {
    let mut pair = Pair::open();
    for id in 0..20 {
        pair.call(&Blob::new(id, id as usize));
    }
    let mut stream = hello();
    stream.extend_from_slice(pair.client.output());
    let frames = frames_of(&stream);
    assert_eq!(frames.len(), 21);
    for (id, (header, body)) in frames[1..].iter().enumerate() {
        assert_eq!(header.call.slot() as usize, id);
        assert_eq!(access::<Blob>(&support::aligned(body)).unwrap().id, id as u64);
    }
}

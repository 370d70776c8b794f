//! Streams: items in order, from either end, for as long as their call runs.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use ringcall_codec::{CallOptions, Code, Event, Header, ItemError, Status, access};
use support::{
    Blob, ECHO, Pair,
    streams::{
        WINDOW, end, fill_down, fill_up, from_callee, item, names, pair, send_down, send_up,
        stream, stream_within, take_at_server,
    },
    take_frames,
};

#[test]
fn items_are_numbered_in_each_direction_and_say_which_side_sent_them() {
    let mut pair = pair(WINDOW, WINDOW);
    let (made, served) = stream(&mut pair);
    for id in 0..3 {
        send_up(&mut pair, made, id).unwrap();
        send_down(&mut pair, served, id).unwrap();
    }
    pair.client.end_items(made);
    pair.server.end_items(served);
    let headers = |frames: Vec<(Header, Vec<u8>)>| -> Vec<_> {
        let plain = frames.into_iter().map(|(header, _)| Header { body_len: 0, ..header });
        plain.collect()
    };
    let call = made.call;
    let up = [item(call, 0), item(call, 1), item(call, 2), end(call, 3)];
    assert_eq!(headers(take_frames(&mut pair.client)), up);
    let down = up.map(from_callee);
    assert_eq!(headers(take_frames(&mut pair.server)), down);
}

#[test]
fn items_come_as_they_were_sent_however_they_are_cut() {
    for piece_len in [1, 7, 33, 4_000, usize::MAX] {
        let mut pair = pair(1 << 20, 1 << 20);
        pair.piece_len = piece_len;
        let (made, served) = stream(&mut pair);
        for id in 0..10 {
            let item = Blob::new(id, id as usize * 500);
            pair.client.send_item(&mut pair.scratch, made, &item).unwrap();
            pair.server.send_item(&mut pair.scratch, served, &item).unwrap();
        }
        pair.client.end_items(made);
        pair.server.end_items(served);
        pair.drive();
        for (events, stream) in [(&mut pair.server_events, served), (&mut pair.client_events, made)]
        {
            for id in 0..10 {
                let (event, payload) = events.pop_front().unwrap();
                assert_eq!(event, Event::Item(stream));
                let item = access::<Blob>(&payload).unwrap();
                let expected = Blob::new(id, id as usize * 500);
                assert_eq!((item.id, item.bytes.as_slice()), (id.into(), &expected.bytes[..]));
            }
            assert_eq!(events.pop_front().unwrap().0, Event::ItemsEnded(stream));
            assert!(events.is_empty());
        }
    }
}

#[test]
fn the_end_of_the_items_takes_no_credit_and_is_said_once() {
    let mut pair = pair(WINDOW, WINDOW);
    let (made, served) = stream(&mut pair);
    fill_up(&mut pair, made);
    pair.client.end_items(made);
    pair.client.end_items(made);
    assert_eq!(send_up(&mut pair, made, 0), Err(ItemError::Ended));
    pair.drive();
    let events = pair.take_server_events();
    let ends = events.iter().filter(|event| **event == Event::ItemsEnded(served));
    assert_eq!(ends.count(), 1);
    // The stream itself goes on, in the other direction.
    assert!(pair.client.is_stream(made) && pair.server.is_stream(served));
    send_down(&mut pair, served, 0).unwrap();
}

#[test]
fn nothing_is_sent_on_a_stream_that_is_over() {
    let mut pair = pair(WINDOW, WINDOW);
    // At the server from its reply on, at the client from when that came on.
    let (made, served) = stream(&mut pair);
    pair.reply(made.call, &Blob::new(0, 0));
    assert_eq!(send_down(&mut pair, served, 0), Err(ItemError::Ended));
    send_up(&mut pair, made, 0).unwrap();
    pair.drive();
    assert!(!pair.client.is_stream(made) && !pair.server.is_stream(served));
    assert_eq!(send_up(&mut pair, made, 0), Err(ItemError::Ended));
    pair.client.end_items(made);
    assert!(pair.client.output().is_empty());
    // A call that is no stream has no items.
    let plain = pair.call(&Blob::new(0, 0));
    pair.drive();
    pair.server_events.clear();
    assert_eq!(send_up(&mut pair, names(plain).0, 0), Err(ItemError::Ended));
    // The next call in the slot is another.
    pair.client.release(made.call);
    let (next, _) = stream(&mut pair);
    assert_eq!(next.call.slot(), made.call.slot());
    assert_eq!(send_up(&mut pair, made, 0), Err(ItemError::Ended));
    send_up(&mut pair, next, 0).unwrap();
}

#[test]
fn nothing_is_sent_after_the_last_word() {
    let mut pair = pair(WINDOW, WINDOW);
    let (made, served) = stream(&mut pair);
    fill_up(&mut pair, made);
    pair.drive();
    pair.server.go_away(&Status::new(Code::Unavailable, "the server stops"));
    let len = pair.server.output().len();
    assert_eq!(send_down(&mut pair, served, 0), Err(ItemError::Ended));
    pair.server.end_items(served);
    take_at_server(&mut pair);
    assert_eq!(pair.server.output().len(), len);
}

#[test]
fn items_of_a_call_that_its_caller_gave_up_are_ignored() {
    let mut pair = pair(WINDOW, 1 << 20);
    let (made, served) = stream(&mut pair);
    pair.client.abandon(made.call);
    fill_down(&mut pair, served);
    pair.server.end_items(served);
    pair.drive();
    assert!(pair.take_client_events().iter().all(|event| *event == Event::Nothing));
    assert_eq!(pair.take_server_events(), [Event::Stop(made.call)]);
}

#[test]
fn items_of_a_call_whose_time_was_up_are_ignored_until_it_is_answered() {
    let mut pair = pair(WINDOW, 1 << 20);
    let (made, served) = stream_within(&mut pair, 100);
    send_down(&mut pair, served, 0).unwrap();
    pair.drive();
    pair.client_events.clear();
    pair.wait_until(pair.now_us + 200).unwrap();
    assert!(matches!(pair.take_client_events()[..], [Event::Failed(call, _)] if call == made.call));
    send_down(&mut pair, served, 1).unwrap();
    pair.drive();
    assert_eq!(pair.take_client_events(), [Event::Nothing]);
    pair.client.release(made.call);
    send_down(&mut pair, served, 2).unwrap();
    pair.drive();
    assert_eq!(pair.take_client_events(), [Event::Nothing]);
}

#[test]
fn items_that_cross_the_reply_are_ignored() {
    let mut pair = pair(WINDOW, WINDOW);
    let (made, _) = stream(&mut pair);
    fill_up(&mut pair, made);
    pair.client.end_items(made);
    pair.reply(made.call, &Blob::new(0, 0));
    pair.drive();
    assert!(pair.take_server_events().iter().all(|event| *event == Event::Nothing));
}

#[test]
fn streams_of_both_ends_in_the_same_slot_do_not_meet() {
    let mut pair = Pair::open_both_ways();
    let options = CallOptions { is_stream: true, ..CallOptions::default() };
    let blob = Blob::new(0, 0);
    let up = pair.client.call(&mut pair.scratch, ECHO, options, &blob).unwrap();
    let down = pair.server.call(&mut pair.scratch, ECHO, options, &blob).unwrap();
    assert_eq!(up, down, "the same slot, at the same use of it");
    pair.drive();
    pair.client_events.clear();
    pair.server_events.clear();
    let (made, served) = names(up);
    // Four directions, each with a count of its own.
    let sent = [(made, 1), (served, 2)];
    for (stream, count) in sent {
        for id in 0..count {
            send_up(&mut pair, stream, id).unwrap();
            send_down(&mut pair, stream, id + 10).unwrap();
        }
    }
    pair.client.end_items(made);
    pair.drive();
    // What one end calls its own is the other's to serve.
    let of = |events: Vec<Event>, wanted: Event| events.iter().filter(|e| **e == wanted).count();
    let events = pair.take_server_events();
    assert_eq!(of(events, Event::Item(served)), 1);
    let events = pair.take_client_events();
    assert_eq!(of(events, Event::Item(served)), 1);
    // One ends, the other goes on.
    pair.reply(up, &Blob::new(0, 0));
    pair.drive();
    assert!(!pair.client.is_stream(made) && pair.client.is_stream(served));
    assert!(pair.server.is_stream(made) && !pair.server.is_stream(served));
    send_up(&mut pair, served, 3).unwrap();
    send_down(&mut pair, made, 12).unwrap();
    pair.drive();
    assert_eq!(pair.take_server_events(), [Event::Item(made)]);
}

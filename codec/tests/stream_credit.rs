//! The credit of streams: no more items than there is some for, and none of it is ever lost.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use ringcall_codec::{CallOptions, Code, EncodeError, Event, ItemError, Limits, Status, StreamId};
use support::{
    Blob, ECHO, Pair,
    streams::{
        COST, FULL, WINDOW, credit, fill_down, fill_up, frame_len, from_callee, granted, names,
        pair, send_down, send_up, stream, stream_within, take_at_server, windows,
    },
    take_frames,
};

#[test]
fn an_item_takes_the_length_of_its_frame_and_not_less_than_256_bytes() {
    for (len, count) in [(0, 16), (150, 16), (300, 12), (1_000, 4), (4_000, 2), (4_100, 1)] {
        let mut pair = pair(WINDOW, 1 << 20);
        let (made, _) = stream(&mut pair);
        let item = Blob::new(0, len);
        let mut sent = 0;
        while pair.client.send_item(&mut pair.scratch, made, &item).is_ok() {
            sent += 1;
        }
        let frame_len = take_frames(&mut pair.client)[0].0.frame_len();
        let cost = frame_len.max(COST.into());
        assert_eq!(sent, u64::from(WINDOW).div_ceil(cost), "{len}: frames of {frame_len}");
        assert_eq!(sent, count, "{len}: frames of {frame_len}");
    }
}

#[test]
fn an_item_of_any_length_is_sent_while_there_is_some_credit_and_is_paid_off_afterwards() {
    let mut pair = pair(WINDOW, WINDOW);
    let (made, served) = stream(&mut pair);
    // One byte of credit is left.
    for id in 0..FULL - 1 {
        send_up(&mut pair, made, id).unwrap();
    }
    let large = Blob::new(1, 1 << 20);
    pair.client.send_item(&mut pair.scratch, made, &large).unwrap();
    assert_eq!(send_up(&mut pair, made, 0), Err(ItemError::NoCredit));
    pair.drive();
    let mut lens: Vec<_> = pair.server_events.drain(..).map(|(_, body)| frame_len(&body)).collect();
    // Only the large one brings it above zero again.
    let large_len = lens.pop().unwrap();
    for len in lens {
        pair.server.item_taken(served, len);
    }
    pair.drive();
    assert_eq!(send_up(&mut pair, made, 0), Err(ItemError::NoCredit));
    pair.server.item_taken(served, large_len);
    pair.drive();
    assert_eq!(fill_up(&mut pair, made), FULL);
}

#[test]
fn an_item_that_cannot_be_encoded_takes_no_credit_and_no_number() {
    let short = Limits { frame_len_max: 1 << 16, ..windows(WINDOW, WINDOW) };
    let mut pair = Pair::open_with(short, short);
    let (made, _) = stream(&mut pair);
    let error = pair.client.send_item(&mut pair.scratch, made, &Blob::new(0, 1 << 16));
    assert!(matches!(error, Err(ItemError::Encode(EncodeError::TooLong { .. }))), "{error:?}");
    assert!(pair.client.output().is_empty());
    assert_eq!(fill_up(&mut pair, made), FULL);
    assert_eq!(take_frames(&mut pair.client)[0].0.aux, 0);
}

#[test]
fn credit_is_granted_anew_when_half_a_window_was_taken() {
    let mut pair = pair(WINDOW, 2 * WINDOW);
    let (made, served) = stream(&mut pair);
    assert_eq!(fill_up(&mut pair, made), FULL);
    pair.drive();
    pair.server_events.clear();
    for _ in 1..FULL / 2 {
        pair.server.item_taken(served, 0);
    }
    assert!(pair.server.output().is_empty(), "not worth a frame");
    pair.server.item_taken(served, 0);
    let frames = take_frames(&mut pair.server);
    assert_eq!(frames, [(from_callee(credit(made.call, WINDOW / 2)), Vec::new())]);
    for _ in 0..FULL / 2 {
        pair.server.item_taken(served, 0);
    }
    // The connection's window is twice as long, so it is its turn now.
    assert_eq!(granted(&take_frames(&mut pair.server)), (WINDOW, WINDOW / 2));
}

#[test]
fn who_waits_for_credit_is_told_of_it() {
    let mut pair = pair(WINDOW, WINDOW);
    let (made, _) = stream(&mut pair);
    fill_up(&mut pair, made);
    pair.drive();
    assert_eq!(take_at_server(&mut pair), FULL);
    pair.drive();
    let events = pair.take_client_events();
    assert_eq!(events.iter().filter(|event| **event == Event::Credit(Some(made))).count(), 2);
    assert_eq!(events.iter().filter(|event| **event == Event::Credit(None)).count(), 2);
    assert_eq!(fill_up(&mut pair, made), FULL);
}

#[test]
fn a_stream_whose_items_are_not_taken_does_not_stop_another() {
    let mut pair = pair(WINDOW, 2 * WINDOW);
    let (slow, _) = stream(&mut pair);
    fill_up(&mut pair, slow);
    pair.drive();
    pair.server_events.clear();
    let (quick, _) = stream(&mut pair);
    for _ in 0..100 {
        assert!(fill_up(&mut pair, quick) > 0);
        pair.drive();
        take_at_server(&mut pair);
        pair.drive();
    }
    assert_eq!(send_up(&mut pair, slow, 0), Err(ItemError::NoCredit));
}

#[test]
fn all_streams_together_have_the_credit_of_the_connection() {
    let mut pair = pair(WINDOW, WINDOW);
    let (first, _) = stream(&mut pair);
    let (second, _) = stream(&mut pair);
    assert_eq!(fill_up(&mut pair, first), FULL);
    assert_eq!(send_up(&mut pair, second, 0), Err(ItemError::NoSharedCredit));
    pair.drive();
    take_at_server(&mut pair);
    pair.drive();
    assert_eq!(fill_up(&mut pair, second), FULL);
    // The other direction has its own.
    let (_, served) = names(first.call);
    assert_eq!(fill_down(&mut pair, served), FULL);
}

#[test]
fn a_stream_that_has_sent_its_last_item_is_granted_no_more() {
    let mut pair = pair(WINDOW, 4 * WINDOW);
    let (made, _) = stream(&mut pair);
    fill_up(&mut pair, made);
    pair.client.end_items(made);
    pair.drive();
    take_at_server(&mut pair);
    assert!(pair.server.output().is_empty());
}

#[test]
fn items_that_came_before_the_outcome_hold_credit_until_that_is_taken() {
    let mut pair = pair(WINDOW, WINDOW);
    let (made, served) = stream(&mut pair);
    fill_down(&mut pair, served);
    pair.reply(made.call, &Blob::new(0, 0));
    pair.drive();
    // They lie at the client, and so do others before long if these were paid off.
    assert!(pair.client.output().is_empty());
    let (_, other) = stream(&mut pair);
    assert_eq!(send_down(&mut pair, other, 0), Err(ItemError::NoSharedCredit));

    // Half of them are taken after the outcome came, the others never.
    for _ in 0..FULL / 2 {
        pair.client.item_taken(made, 0);
    }
    pair.drive();
    assert_eq!(fill_down(&mut pair, other), FULL / 2);
    pair.client.release(made.call);
    pair.drive();
    assert_eq!(fill_down(&mut pair, other), FULL / 2);
    // Nothing is granted twice.
    pair.client.item_taken(made, 0);
    pair.client.release(made.call);
    assert!(pair.client.output().is_empty());
}

/// Ends streams with items on their way and untaken, again and again: the connection's credit is
/// all there afterwards.
#[track_caller]
fn assert_no_credit_is_lost(end: impl Fn(&mut Pair, StreamId, StreamId)) {
    let mut pair = pair(WINDOW, WINDOW);
    for round in 0..50 {
        let (made, served) = stream_within(&mut pair, 1_000);
        let sent = (fill_up(&mut pair, made), fill_down(&mut pair, served));
        // What was taken and not granted yet is less than half a window.
        assert!(sent.0 > FULL / 2 && sent.1 > FULL / 2, "{sent:?} in round {round}");
        if round % 2 == 0 {
            pair.drive();
        }
        if round % 3 == 0 {
            pair.server.item_taken(served, 0);
            pair.client.item_taken(made, 0);
        }
        end(&mut pair, made, served);
        pair.drive();
        pair.client.release(made.call);
        pair.drive();
        assert_eq!((pair.client.calls_made(), pair.server.calls_running()), (0, 0));
        pair.client_events.clear();
        pair.server_events.clear();
    }
}

#[test]
fn no_credit_is_lost_when_the_server_replies() {
    assert_no_credit_is_lost(|pair, made, _| pair.reply(made.call, &Blob::new(0, 0)));
}

#[test]
fn no_credit_is_lost_when_the_server_refuses() {
    assert_no_credit_is_lost(|pair, made, _| {
        assert!(pair.server.refuse(made.call, &Status::new(Code::Aborted, "")));
    });
}

#[test]
fn no_credit_is_lost_when_the_client_gives_up() {
    assert_no_credit_is_lost(|pair, made, served| {
        pair.client.abandon(made.call);
        pair.drive();
        // The server goes on for a while.
        while send_down(pair, served, 0).is_ok() {
            pair.drive();
            if pair.server.output().is_empty() && pair.client_events.len() > 100 {
                break;
            }
        }
        assert!(pair.server.end_stopped(made.call, &Status::new(Code::Internal, "")));
    });
}

#[test]
fn no_credit_is_lost_when_the_time_is_up() {
    assert_no_credit_is_lost(|pair, made, served| {
        pair.wait_until(pair.now_us + 2_000).unwrap();
        assert_eq!(send_up(pair, made, 0), Err(ItemError::Ended));
        let _ = send_down(pair, served, 0);
        pair.drive();
        assert!(pair.server.end_stopped(made.call, &Status::new(Code::Internal, "")));
    });
}

#[test]
fn no_credit_is_lost_when_the_call_is_refused_from_its_header() {
    let mut pair = pair(WINDOW, WINDOW);
    for _ in 0..50 {
        let options = CallOptions { is_stream: true, ..CallOptions::default() };
        let call = pair.client.call(&mut pair.scratch, ECHO, options, &Blob::new(0, 0)).unwrap();
        let header = take_frames(&mut pair.client)[0].0;
        assert!(fill_up(&mut pair, names(call).0) > FULL / 2);
        pair.server.refuse_header(&header, &Status::new(Code::ResourceExhausted, "")).unwrap();
        pair.drive();
        pair.client.release(call);
        pair.drive();
    }
}

#[test]
fn an_item_that_was_packed_costs_what_travelled() {
    let mut pair = pair(WINDOW, WINDOW);
    let (made, _) = stream(&mut pair);
    for _ in 0..4 {
        pair.client.send_item(&mut pair.scratch, made, &Blob::new(0, 2_000)).unwrap();
        let before = std::mem::take(pair.client.output()).len() as u64;
        assert!(before > 2_000);
        pair.client.item_packed(made, before, 1_024);
    }
    assert_eq!(send_up(&mut pair, made, 0), Err(ItemError::NoCredit));
}

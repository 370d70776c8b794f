//! What no correct peer sends of streams, and what one sends too late.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use ringcall_codec::{CallId, Event, Header, SessionError};
use support::{
    Blob, frame,
    streams::{FULL, WINDOW, credit, end, from_callee, item, pair, stream},
};

#[test]
fn an_item_without_credit_ends_the_connection() {
    let mut pair = pair(WINDOW, 1 << 20);
    let (made, _) = stream(&mut pair);
    let call = made.call;
    for number in 0..FULL as u32 {
        pair.feed_server(&frame(item(call, number), b"")).unwrap();
    }
    let refused = pair.feed_server(&frame(item(call, FULL as u32), b""));
    assert_eq!(refused, Err(SessionError::CreditOverdrawn(call)));
}

#[test]
fn an_item_without_credit_of_the_connection_ends_the_connection() {
    let mut pair = pair(1 << 20, WINDOW);
    let (first, _) = stream(&mut pair);
    let (second, _) = stream(&mut pair);
    for number in 0..FULL as u32 {
        pair.feed_server(&frame(item(first.call, number), b"")).unwrap();
    }
    let refused = pair.feed_server(&frame(item(second.call, 0), b""));
    assert_eq!(refused, Err(SessionError::CreditOverdrawn(second.call)));
}

#[test]
fn items_that_are_late_need_credit_too() {
    let mut pair = pair(1 << 20, WINDOW);
    let (first, _) = stream(&mut pair);
    let (late, _) = stream(&mut pair);
    pair.reply(late.call, &Blob::new(0, 0));
    for number in 0..FULL as u32 {
        pair.feed_server(&frame(item(first.call, number), b"")).unwrap();
    }
    let refused = pair.feed_server(&frame(item(late.call, 0), b""));
    assert_eq!(refused, Err(SessionError::CreditOverdrawn(late.call)));
}

#[test]
fn the_end_needs_no_credit() {
    let mut pair = pair(WINDOW, WINDOW);
    let (made, served) = stream(&mut pair);
    for number in 0..FULL as u32 {
        pair.feed_server(&frame(item(made.call, number), b"")).unwrap();
    }
    pair.feed_server(&frame(end(made.call, FULL as u32), b"")).unwrap();
    assert_eq!(pair.take_server_events().last(), Some(&Event::ItemsEnded(served)));
}

#[test]
fn an_item_out_of_order_ends_the_connection() {
    let wrong: [fn(CallId) -> [Header; 2]; 5] = [
        |call| [item(call, 0), item(call, 2)],
        |call| [item(call, 0), item(call, 0)],
        |call| [item(call, 0), end(call, 0)],
        |call| [end(call, 0), item(call, 1)],
        |call| [end(call, 0), end(call, 0)],
    ];
    for wrong in wrong {
        let mut pair = pair(WINDOW, WINDOW);
        let call = stream(&mut pair).0.call;
        let [first, second] = wrong(call);
        pair.feed_server(&frame(first, b"")).unwrap();
        let refused = pair.feed_server(&frame(second, b""));
        assert_eq!(refused, Err(SessionError::ItemOutOfOrder(call)), "{first:?} {second:?}");
    }
}

#[test]
fn an_item_of_no_stream_ends_the_connection() {
    let mut pair = pair(WINDOW, WINDOW);
    let plain = pair.call(&Blob::new(0, 0));
    pair.drive();
    pair.next_call();
    let made = stream(&mut pair).0.call;
    let next = CallId::new(made.slot(), made.generation() + 1);
    let server = [
        // A call without items, one that never was, one to come, and none.
        item(plain, 0),
        item(CallId::new(9, 1), 0),
        item(next, 0),
        item(CallId(0), 0),
        // The stream is the client's, so it is not the one that serves it.
        from_callee(item(made, 0)),
        from_callee(end(made, 0)),
    ];
    for header in server {
        let refused = pair.feed_server(&frame(header, b""));
        assert_eq!(refused, Err(SessionError::NoSuchStream(header.call)), "{header:?}");
    }
    let client = [item(made, 0), from_callee(item(plain, 0)), from_callee(item(next, 0))];
    for header in client {
        let refused = pair.feed_client(&frame(header, b""));
        assert_eq!(refused, Err(SessionError::NoSuchStream(header.call)), "{header:?}");
    }
}

#[test]
fn an_item_after_the_reply_ends_the_connection() {
    let mut pair = pair(WINDOW, WINDOW);
    let call = stream(&mut pair).0.call;
    pair.reply(call, &Blob::new(0, 0));
    pair.drive();
    for header in [from_callee(item(call, 0)), from_callee(end(call, 0))] {
        let refused = pair.feed_client(&frame(header, b""));
        assert_eq!(refused, Err(SessionError::NoSuchStream(call)));
    }
    pair.client.release(call);
    let refused = pair.feed_client(&frame(from_callee(item(call, 0)), b""));
    assert_eq!(refused, Err(SessionError::NoSuchStream(call)));
}

#[test]
fn more_credit_than_can_be_ends_the_connection() {
    let mut pair = pair(WINDOW, WINDOW);
    let (made, served) = stream(&mut pair);
    for call in [made.call, CallId(0)] {
        pair.feed_server(&frame(credit(call, u32::MAX - WINDOW), b"")).unwrap();
        let refused = pair.feed_server(&frame(credit(call, 1), b""));
        assert_eq!(refused, Err(SessionError::CreditOverflow(call)));
    }
    let events = [Event::Credit(Some(served)), Event::Credit(None)];
    assert_eq!(pair.take_server_events(), events);
}

#[test]
fn credit_for_a_stream_that_is_not_there_is_ignored() {
    let mut pair = pair(WINDOW, WINDOW);
    let plain = pair.call(&Blob::new(0, 0));
    pair.drive();
    pair.next_call();
    let over = stream(&mut pair).0.call;
    pair.reply(over, &Blob::new(0, 0));
    pair.drive();
    pair.client_events.clear();
    pair.server_events.clear();
    for call in [plain, over, CallId::new(77, 3), CallId(u64::MAX)] {
        for _ in 0..3 {
            pair.feed_server(&frame(credit(call, u32::MAX), b"")).unwrap();
            pair.feed_client(&frame(from_callee(credit(call, u32::MAX)), b"")).unwrap();
        }
    }
    assert!(pair.take_server_events().iter().all(|event| *event == Event::Nothing));
    assert!(pair.take_client_events().iter().all(|event| *event == Event::Nothing));
}

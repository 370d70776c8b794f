//! Sessions: calls reach the server and outcomes the calls that they belong to.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use ringcall_codec::{
    CallId, CallOptions, Code, EncodeError, Event, Flags, Kind, Limits, OpenError, ReplyError,
    Scratch, SessionError, Status, access, encode_body,
};
use support::{
    ArchivedBlob, Blob, ECHO, KINDS, METHODS, Pair, Random, client, frame, frames_of, header,
    request,
};

fn blob(body: &[u8]) -> &ArchivedBlob {
    access::<Blob>(body).unwrap()
}

#[test]
fn a_call_gets_its_reply() {
    let mut pair = Pair::open();
    let call = pair.call(&Blob::new(1, 48));
    pair.drive();
    let (received, body) = pair.next_call();
    assert_eq!(received, call);
    assert_eq!(blob(&body).bytes.as_slice(), Blob::new(1, 48).bytes);
    pair.reply(received, &Blob::new(2, 100));
    pair.drive();
    let (answered, body) = pair.next_reply();
    assert_eq!(answered, call);
    assert_eq!(blob(&body).id, 2);
    pair.client.release(call);
    assert_eq!((pair.client.calls_made(), pair.server.calls_running()), (0, 0));
}

#[test]
fn calls_cut_at_any_byte_give_the_same_events() {
    for piece_len in (1..200).chain([1000, 4096]) {
        let mut pair = Pair::new(Limits::default(), Limits::default());
        pair.piece_len = piece_len;
        pair.drive();
        pair.client_events.clear();
        pair.server_events.clear();
        let calls: Vec<_> = (0..3).map(|id| pair.call(&Blob::new(id, 7 * id as usize))).collect();
        pair.drive();
        for call in &calls {
            let (received, body) = pair.next_call();
            assert_eq!(received, *call);
            let echo = Blob::new(blob(&body).id.into(), 33);
            pair.reply(received, &echo);
        }
        pair.drive();
        for (id, call) in calls.iter().enumerate() {
            let (answered, body) = pair.next_reply();
            assert_eq!((answered, u64::from(blob(&body).id)), (*call, id as u64));
        }
    }
}

#[test]
fn calls_answered_out_of_order_reach_their_callers() {
    let mut pair = Pair::open();
    let calls: Vec<_> = (0..100).map(|id| pair.call(&Blob::new(id, 10))).collect();
    pair.drive();
    let mut received: Vec<_> = (0..100).map(|_| pair.next_call()).collect();
    let mut random = Random::new(7);
    while !received.is_empty() {
        let (call, body) = received.swap_remove(random.below(received.len()));
        let id = blob(&body).id.into();
        pair.reply(call, &Blob::new(id, id as usize));
    }
    pair.drive();
    for _ in 0..100 {
        let (call, body) = pair.next_reply();
        assert_eq!(calls[u64::from(blob(&body).id) as usize], call);
        pair.client.release(call);
    }
    assert_eq!(pair.client.calls_made(), 0);
}

#[test]
fn a_slot_is_used_again_with_a_later_generation() {
    let mut pair = Pair::open();
    for generation in 1..=1000 {
        let call = pair.call(&Blob::new(0, 0));
        assert_eq!(call, CallId::new(0, generation));
        pair.drive();
        let (call, _) = pair.next_call();
        pair.reply(call, &Blob::new(0, 0));
        pair.drive();
        let (call, _) = pair.next_reply();
        pair.client.release(call);
    }
}

#[test]
fn random_traffic_gives_each_call_exactly_one_outcome() {
    let mut pair = Pair::open();
    let mut random = Random::new(8);
    let (mut running, mut waiting) = (Vec::new(), std::collections::HashMap::new());
    let (mut made, mut outcomes) = (0_u64, 0_u64);
    for _ in 0..5_000 {
        pair.piece_len = 1 + random.below(600);
        match random.below(4) {
            0 | 1 if waiting.len() < 50 => {
                let call = pair.call(&Blob::new(made, random.below(400)));
                assert_eq!(waiting.insert(call, made), None);
                made += 1;
            }
            2 if !running.is_empty() => {
                let (call, id) = running.swap_remove(random.below(running.len()));
                if random.below(4) == 0 {
                    let status = Status::new(Code::Aborted, format!("{id}"));
                    assert!(pair.server.refuse(call, &status));
                } else {
                    pair.reply(call, &Blob::new(id, random.below(400)));
                }
            }
            _ => pair.drive(),
        }
        while let Some((event, body)) = pair.server_events.pop_front() {
            let Event::Call { call, .. } = event else { panic!("{event:?}") };
            running.push((call, u64::from(blob(&body).id)));
        }
        while let Some((event, body)) = pair.client_events.pop_front() {
            let (call, id) = match event {
                Event::Reply(call) => (call, blob(&body).id.into()),
                Event::Failed(call, status) => (call, status.message().parse().unwrap()),
                event => panic!("{event:?}"),
            };
            assert_eq!(waiting.remove(&call), Some(id));
            pair.client.release(call);
            outcomes += 1;
        }
        assert_eq!(pair.client.calls_made(), waiting.len());
    }
    assert_eq!(outcomes + waiting.len() as u64, made);
    assert!(outcomes > 1_000);
}

#[test]
fn no_more_calls_are_made_than_the_server_accepts() {
    let limits = Limits { calls_in_flight_max: 3, ..Limits::default() };
    let mut pair = Pair::open_with(Limits::default(), limits);
    let calls: Vec<_> = (0..3).map(|_| pair.call(&Blob::new(0, 0))).collect();
    pair.drive();
    let fourth =
        pair.client.call(&mut pair.scratch, ECHO, CallOptions::default(), &Blob::new(0, 0));
    assert_eq!(fourth, Err(OpenError::TooManyInFlight));
    assert!(pair.client.output().is_empty());
    let (first, _) = pair.next_call();
    pair.reply(first, &Blob::new(0, 0));
    pair.drive();
    // Answered, but its outcome was not taken.
    let fourth =
        pair.client.call(&mut pair.scratch, ECHO, CallOptions::default(), &Blob::new(0, 0));
    assert_eq!(fourth, Err(OpenError::TooManyInFlight));
    pair.client.release(calls[0]);
    assert_eq!(pair.call(&Blob::new(0, 0)), CallId::new(0, 2));
}

#[test]
fn a_call_before_the_connection_is_open_is_not_made() {
    let mut client = client(METHODS);
    client.output().clear();
    let call = client.call(&mut Scratch::default(), ECHO, CallOptions::default(), &Blob::new(0, 0));
    assert_eq!(call, Err(OpenError::NotOpen));
    assert!(client.output().is_empty());
}

#[test]
fn an_abandoned_call_keeps_its_slot_until_its_response_comes() {
    let mut pair = Pair::open();
    let call = pair.call(&Blob::new(0, 0));
    pair.client.abandon(call);
    assert_eq!(pair.client.calls_made(), 1);
    // Whoever drops the call twice, or after all releases it, does not free the slot.
    pair.client.abandon(call);
    pair.client.release(call);
    assert_eq!(pair.call(&Blob::new(0, 0)).slot(), 1);
    pair.drive();
    let (received, _) = pair.next_call();
    pair.reply(received, &Blob::new(0, 0));
    pair.drive();
    assert_eq!(pair.client_events.pop_front().unwrap().0, Event::Abandoned);
    assert_eq!(pair.client.calls_made(), 1);
    assert_eq!(pair.call(&Blob::new(0, 0)), CallId::new(0, 2));
}

#[test]
fn an_answered_call_that_is_abandoned_frees_its_slot() {
    let mut pair = Pair::open();
    let call = pair.call(&Blob::new(0, 0));
    pair.drive();
    let (received, _) = pair.next_call();
    pair.reply(received, &Blob::new(0, 0));
    pair.drive();
    pair.client.abandon(call);
    pair.client.release(call);
    assert_eq!(pair.client.calls_made(), 0);
    assert_eq!(pair.call(&Blob::new(0, 0)), CallId::new(0, 2));
    assert_eq!(pair.call(&Blob::new(0, 0)), CallId::new(1, 1));
}

#[test]
fn a_call_is_answered_once() {
    let mut pair = Pair::open();
    pair.call(&Blob::new(0, 0));
    pair.drive();
    let (call, _) = pair.next_call();
    pair.reply(call, &Blob::new(0, 0));
    pair.server.output().clear();
    let again = pair.server.reply(&mut pair.scratch, call, &[], &Blob::new(0, 0));
    assert_eq!(again, Err(ReplyError::NotRunning));
    assert!(!pair.server.refuse(call, &Status::new(Code::Internal, "")));
    for unknown in [CallId::new(0, 2), CallId::new(9, 1), CallId(0), CallId(u64::MAX)] {
        assert!(!pair.server.refuse(unknown, &Status::new(Code::Internal, "")));
    }
    assert!(pair.server.output().is_empty());
}

#[test]
fn every_running_call_can_be_refused_at_once() {
    let mut pair = Pair::open();
    let calls: Vec<_> = (0..5).map(|id| pair.call(&Blob::new(id, 0))).collect();
    pair.drive();
    let (second, _) = pair
        .server_events
        .remove(1)
        .map(|(event, body)| {
            let Event::Call { call, .. } = event else { panic!("{event:?}") };
            (call, body)
        })
        .unwrap();
    pair.reply(second, &Blob::new(0, 0));
    let status = Status::new(Code::Unavailable, "draining").not_executed();
    assert_eq!(pair.server.refuse_all(&status), 4);
    assert_eq!(pair.server.calls_running(), 0);
    assert_eq!(pair.server.refuse_all(&status), 0);
    pair.drive();
    assert_eq!(pair.next_reply().0, calls[1]);
    for call in [0, 2, 3, 4].map(|at| calls[at]) {
        let (event, _) = pair.client_events.pop_front().unwrap();
        assert_eq!(event, Event::Failed(call, status.clone()));
    }
}

#[test]
fn a_method_that_is_not_there_fails_its_call_only() {
    let mut pair = Pair::open();
    let call =
        pair.client.call(&mut pair.scratch, 99, CallOptions::default(), &Blob::new(0, 0)).unwrap();
    pair.drive();
    let event = pair.server_events.pop_front().unwrap().0;
    assert_eq!(event, Event::Call { call, method: 99 });
    let status = Status::new(Code::Unimplemented, "no method 99").not_executed();
    assert!(pair.server.refuse(call, &status));
    pair.drive();
    let (event, _) = pair.client_events.pop_front().unwrap();
    assert_eq!(event, Event::Failed(call, status));
    pair.client.release(call);
    pair.call(&Blob::new(0, 0));
    pair.drive();
    pair.next_call();
}

#[test]
fn a_goaway_reaches_the_other_end_and_is_the_last_frame() {
    let mut pair = Pair::open();
    let call = pair.call(&Blob::new(0, 0));
    pair.drive();
    let status = Status::new(Code::Unavailable, "the server stops");
    pair.server.go_away(&status);
    pair.server.go_away(&status);
    let reply = pair.server.reply(&mut pair.scratch, call, &[], &Blob::new(0, 0));
    assert_eq!(reply, Err(ReplyError::Closed));
    pair.server.refuse_all(&status);
    assert!(!pair.server.is_open());
    let frames = frames_of(&[&support::hello()[..], pair.server.output()].concat());
    assert_eq!(frames.len(), 2);
    pair.drive();
    assert_eq!(pair.client_events.pop_front().unwrap().0, Event::GoAway(status));
    // A request that was on its way is no violation that a peer must be told of.
    let late = frame(request(CallId::new(1, 1)), b"");
    let unexpected =
        SessionError::Unexpected { kind: Kind::Request, why: "this end has said GOAWAY" };
    assert_eq!(pair.feed_server(&late), Err(unexpected));
}

#[test]
fn a_client_that_goes_away_makes_no_more_calls() {
    let mut pair = Pair::open();
    let status = Status::new(Code::Cancelled, "the client stops");
    pair.client.go_away(&status);
    pair.client.go_away(&status);
    let call = pair.client.call(&mut pair.scratch, ECHO, CallOptions::default(), &Blob::new(0, 0));
    assert_eq!(call, Err(OpenError::NotOpen));
    pair.drive();
    assert_eq!(pair.server_events.pop_front().unwrap().0, Event::GoAway(status));
    assert!(pair.server_events.is_empty());
}

#[test]
fn a_goaway_before_hello_tells_the_client_why() {
    let mut pair = Pair::new(Limits::default(), Limits::default());
    let flags = Flags::END;
    let goaway = ringcall_codec::Header { code: 8, flags, ..header(Kind::GoAway) };
    pair.feed_client(&frame(goaway, b"too many connections")).unwrap();
    let status = Status::new(Code::ResourceExhausted, "too many connections");
    assert_eq!(pair.client_events.pop_front().unwrap().0, Event::GoAway(status));
}

#[test]
fn calls_that_run_are_answered_in_vain_after_the_client_went_away() {
    let mut pair = Pair::open();
    let calls = [1, 2].map(|id| pair.call(&Blob::new(id, 0)));
    pair.drive();
    pair.client.go_away(&Status::new(Code::Cancelled, "the client stops"));
    pair.drive();
    let received = [(); 2].map(|()| pair.next_call().0);
    assert_eq!(received, calls);
    assert!(matches!(pair.server_events.pop_front(), Some((Event::GoAway(_), _))));
    for call in calls {
        pair.reply(call, &Blob::new(3, 0));
    }
    // They were given up with the last word, which the answers may have crossed.
    let kind = Kind::Response;
    let late = SessionError::Unexpected { kind, why: "this end has said GOAWAY" };
    assert_eq!(pair.try_drive(), Err(late));
    assert!(pair.client_events.is_empty());
    // And nothing more comes from a client that has said so.
    for kind in KINDS.into_iter().filter(|kind| !matches!(kind, Kind::Hello | Kind::Part)) {
        let why = "the peer has said GOAWAY";
        let again = pair.feed_server(&frame(header(kind), b""));
        assert_eq!(again, Err(SessionError::Unexpected { kind, why }));
    }
}

#[test]
fn a_call_of_an_encoded_request_is_as_one_of_its_message() {
    let (mut of_message, mut of_body) = (Pair::open(), Pair::open());
    let blob = Blob::new(3, 77);
    let mut body = Vec::new();
    encode_body(&mut body, &mut Scratch::default(), &blob, 1000).unwrap();
    let call = of_message.call(&blob);
    let options = CallOptions::default();
    assert_eq!(of_body.client.call_encoded(ECHO, options, &body), Ok(call));
    assert_eq!(of_body.client.output(), of_message.client.output());
    let number = of_body.client.one_way_encoded(ECHO, options, &body).unwrap();
    let mut scratch = Scratch::default();
    assert_eq!(of_message.client.one_way(&mut scratch, ECHO, options, &blob), Ok(number));
    assert_eq!(of_body.client.output(), of_message.client.output());
}

#[test]
fn an_encoded_request_that_is_too_long_leaves_nothing_behind() {
    let server = Limits { frame_len_max: 64 * 1024, ..Limits::default() };
    let mut pair = Pair::new(Limits::default(), server);
    pair.drive();
    let body_len_max = pair.client.body_len_max();
    assert_eq!(body_len_max, 64 * 1024 - 32);
    let error = OpenError::Encode(EncodeError::TooLong { body_len_max });
    let body = vec![0; body_len_max + 1];
    let options = CallOptions::default();
    assert_eq!(pair.client.call_encoded(ECHO, options, &body), Err(error));
    assert_eq!((pair.client.output().len(), pair.client.calls_made()), (0, 0));
    assert!(pair.client.call_encoded(ECHO, options, &body[1..]).is_ok());
    let mut out = vec![7; 3];
    let message = Blob::new(1, 2000);
    let encoded = encode_body(&mut out, &mut Scratch::default(), &message, 1000);
    assert_eq!(encoded, Err(EncodeError::TooLong { body_len_max: 1000 }));
    assert_eq!(out, [7; 3]);
}

//! Calls refused by their headers: answered at once, their bodies skipped as they come.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use std::cell::RefCell;

use ringcall_codec::{
    CallId, Code, Decoder, Event, Flags, Header, Kind, Session, SessionError, Status, Step,
    limits::FRAME_LEN_MAX_DEFAULT,
};
use support::{
    Body, ECHO, METHODS, aligned, frame, frame_with, header, hello, of_call, request, server,
    take_frames,
};

fn overload() -> Status {
    Status::new(Code::ResourceExhausted, "overload")
}

/// A server that refuses each call of these slots whose frame is cut.
struct Refusing {
    session: RefCell<Session>,
    decoder: Decoder<Body>,
    refused: Vec<u32>,
    events: Vec<Event>,
}

impl Refusing {
    fn new(refused: &[u32]) -> Self {
        let mut server = Self {
            session: RefCell::new(server(METHODS)),
            decoder: Decoder::new(FRAME_LEN_MAX_DEFAULT),
            refused: refused.to_vec(),
            events: Vec::new(),
        };
        server.feed(&hello());
        assert_eq!(server.events.pop(), Some(Event::Opened));
        server.session.get_mut().output().clear();
        server
    }

    fn feed(&mut self, input: &[u8]) {
        let mut at = 0;
        loop {
            let step = self.decoder.next(input, &mut at, |header| {
                if !self.refused.contains(&header.call.slot()) {
                    return Ok(Some(Body::new()));
                }
                self.session.borrow_mut().refuse_header(header, &overload())?;
                Ok(None)
            });
            let (header, body) = match step.unwrap() {
                Step::InPlace { header, body } => (header, aligned(&input[body])),
                Step::Assembled(partial) => (partial.header, aligned(partial.body())),
                Step::Skipped | Step::Part => continue,
                Step::More => break,
            };
            let event = self.session.get_mut().handle_frame(&header, &body).unwrap();
            self.events.push(event);
        }
        assert_eq!(at, input.len(), "all of the input is consumed");
    }

    fn answers(&mut self) -> Vec<(Header, Vec<u8>)> {
        take_frames(self.session.get_mut())
    }
}

/// A frame that is refused where it is cut, between two that are not.
fn three_calls(kind: Kind) -> (Vec<u8>, std::ops::Range<usize>) {
    let mut stream = frame(request(CallId::new(1, 1)), b"first");
    let start = stream.len();
    let refused = Header { code: ECHO, ..of_call(kind, CallId::new(2, 1)) };
    let block = [3, 0, 1, 0, 0, 7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    stream.extend(frame_with(refused, &block, &[0xab; 75]));
    let end = stream.len();
    stream.extend(frame(request(CallId::new(3, 1)), b"third"));
    (stream, start..end)
}

fn call(slot: u32) -> Event {
    Event::Call { call: CallId::new(slot, 1), method: ECHO }
}

#[test]
fn a_refused_frame_is_skipped_wherever_it_is_cut() {
    let (stream, refused) = three_calls(Kind::Request);
    for first in 0..=stream.len() {
        for second in first..=stream.len() {
            let mut server = Refusing::new(&[2]);
            for piece in [&stream[..first], &stream[first..second], &stream[second..]] {
                server.feed(piece);
            }
            assert!(server.decoder.is_between_frames());
            let is_cut =
                [first, second].iter().any(|cut| refused.start < *cut && *cut < refused.end);
            let context = format!("cut at {first} and {second}");
            if is_cut {
                assert_eq!(server.events, [call(1), call(3)], "{context}");
                let answers = server.answers();
                let [(header, text)] = &answers[..] else { panic!("{context}: {answers:?}") };
                let code = Code::ResourceExhausted as u32;
                assert_eq!((header.call, header.code), (CallId::new(2, 1), code));
                assert_eq!((header.flags, &text[..]), (Flags::NOT_EXECUTED, &b"overload"[..]));
            } else {
                assert_eq!(server.events, [call(1), call(2), call(3)], "{context}");
                assert!(server.answers().is_empty());
            }
        }
    }
}

#[test]
fn refused_frames_are_skipped_in_pieces_of_any_size() {
    let (mut stream, _) = three_calls(Kind::Request);
    // Behind each other, and without a body.
    stream.extend(frame(request(CallId::new(4, 1)), b""));
    stream.extend(frame(request(CallId::new(5, 1)), &[1; 500]));
    stream.extend(frame(request(CallId::new(6, 1)), b"sixth"));
    for piece_len in 1..32 {
        let mut server = Refusing::new(&[2, 4, 5]);
        stream.chunks(piece_len).for_each(|piece| server.feed(piece));
        assert!(server.decoder.is_between_frames());
        assert_eq!(server.events, [call(1), call(3), call(6)], "{piece_len}");
        let answered: Vec<_> =
            server.answers().iter().map(|(header, _)| header.call.slot()).collect();
        assert_eq!(answered, [2, 4, 5]);
        assert_eq!(server.session.get_mut().calls_running(), 3);
    }
}

#[test]
fn a_refused_one_way_call_is_noticed() {
    let (stream, refused) = three_calls(Kind::OneWay);
    let mut server = Refusing::new(&[2]);
    server.feed(&stream[..refused.start + 40]);
    server.feed(&stream[refused.start + 40..]);
    assert_eq!(server.events, [call(1), call(3)]);
    let answers = server.answers();
    assert_eq!(answers.len(), 1);
    let (header, text) = &answers[0];
    assert_eq!((header.kind, header.call), (Kind::Notice, CallId::new(2, 1)));
    assert_eq!((header.code, &text[..]), (Code::ResourceExhausted as u32, &b"overload"[..]));
    assert_eq!(server.session.get_mut().one_ways_running(), 0);
}

#[test]
fn a_frame_that_is_skipped_is_not_kept() {
    let mut server = Refusing::new(&[2]);
    let long = frame(request(CallId::new(2, 1)), &[7; 100_000]);
    assert_eq!(server.decoder.cut_len(), None);
    for piece in long.chunks(1_000) {
        server.feed(piece);
        assert!(server.decoder.partial().is_none());
    }
    assert_eq!(server.decoder.cut_len(), None);
    assert!(server.events.is_empty());
}

#[test]
fn the_slot_of_a_refused_call_is_free_and_its_generation_used() {
    let mut session = Refusing::new(&[]).session.into_inner();
    let call = CallId::new(2, 1);
    session.refuse_header(&request(call), &overload()).unwrap();
    assert_eq!(session.calls_running(), 0);
    let reused = Err(SessionError::CallReused(call));
    assert_eq!(session.refuse_header(&request(call), &overload()), reused);
    let later = request(CallId::new(2, 2));
    assert!(matches!(session.handle_frame(&later, b""), Ok(Event::Call { .. })));
}

#[test]
fn a_header_that_no_correct_peer_sends_is_not_answered() {
    let mut session = Refusing::new(&[]).session.into_inner();
    for (call, refused) in [
        (CallId::new(0, 0), SessionError::GenerationZero(CallId::new(0, 0))),
        (
            CallId::new(4096, 1),
            SessionError::SlotBeyondLimit { call: CallId::new(4096, 1), limit: 4096 },
        ),
    ] {
        assert_eq!(session.refuse_header(&request(call), &overload()), Err(refused));
    }
    assert!(session.output().is_empty());
}

#[test]
fn a_call_is_refused_by_its_header_on_an_open_connection_only() {
    let calls = [request(CallId::new(0, 1)), of_call(Kind::OneWay, CallId(1))];
    let refuse = |session: &mut Session, header: &Header| {
        let len = session.output().len();
        let outcome = session.refuse_header(header, &overload());
        assert_eq!(session.output().len(), len, "it is not answered");
        match outcome {
            Err(SessionError::Unexpected { kind, why }) if kind == header.kind => why,
            outcome => panic!("{outcome:?}"),
        }
    };
    for call in &calls {
        let mut session = server(METHODS);
        assert_eq!(refuse(&mut session, call), "a connection begins with HELLO");
        let mut session = Refusing::new(&[]).session.into_inner();
        let last = Header { flags: Flags::END, ..header(Kind::GoAway) };
        session.handle_frame(&last, b"").unwrap();
        assert_eq!(refuse(&mut session, call), "the peer has said GOAWAY");
        let mut session = Refusing::new(&[]).session.into_inner();
        session.go_away(&overload());
        assert_eq!(refuse(&mut session, call), "this end has said GOAWAY");
    }
}

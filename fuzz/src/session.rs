//! Two sessions and the bytes between them: whatever the two do and when, each call has exactly
//! one outcome; and whatever the bytes become on their way, neither end panics or gives a call a
//! second outcome.
//!
//! Input: a byte of options, operations of a byte and what they read (`Pair::operate`).

use std::collections::BTreeMap;

use ringcall_codec::{
    CallId, CallOptions, Code, Decoder, Event, Key, Limits, Metadata, Patience, Scratch, Session,
    SessionConfig, SessionError, ShardPlace, Status, access, deserialize,
    limits::FRAME_LEN_MAX_FLOOR,
};

use crate::{
    hello::METHODS,
    input::{Buffer, Input, aligned, decode},
    message::Colour,
};

/// Calls that one end may have in flight: few, so that slots are used again.
const CALLS_MAX: u32 = 4;

/// One end and its transport.
struct End {
    session: Session,
    decoder: Decoder<Buffer>,
    /// Bytes on their way from here.
    wire: Vec<u8>,
    /// Calls made here: what was asked, while there is no outcome.
    waiting: BTreeMap<u64, Vec<u8>>,
    /// Calls with an outcome whose slots are still taken.
    answered: Vec<CallId>,
    /// Calls that run here, with what was asked.
    running: Vec<(CallId, Vec<u8>)>,
    /// One-way calls that run here.
    one_ways: Vec<u64>,
    /// One-way calls made here.
    one_ways_made: u64,
    /// Whether this end makes calls: its peer serves some.
    may_call: bool,
    /// Whether this end reads no more.
    is_closed: bool,
}

struct Pair {
    ends: [End; 2],
    scratch: Scratch,
    now_us: u64,
    /// Whether the bytes that arrive are those that were sent.
    is_faithful: bool,
}

/// Runs operations on two ends that have just connected, then lets everything end.
pub fn run(data: &[u8]) {
    let mut input = Input(data);
    let options = input.byte();
    let mut pair = Pair::new(options);
    if options & 0x01 != 0 {
        pair.settle();
    }
    // Each costs a pass over short lists: more find nothing new.
    for _ in 0..512 {
        if input.0.is_empty() {
            break;
        }
        pair.operate(&mut input);
        pair.check();
    }
    pair.finish();
}

impl Pair {
    fn new(options: u8) -> Self {
        let limits = Limits {
            frame_len_max: FRAME_LEN_MAX_FLOOR,
            calls_in_flight_max: CALLS_MAX,
            ..Limits::default()
        };
        let mut config = SessionConfig { limits, ..SessionConfig::default() };
        if options & 0x02 != 0 {
            config.patience =
                Patience { idle_us: 60_000_000, age_us: 600_000_000, ..config.patience };
        }
        if options & 0x04 != 0 {
            config.deadlines.default_us = 1000;
        }
        // A client may serve too.
        let callbacks = if options & 0x08 == 0 { METHODS } else { &[] };
        let client = Session::client(&config, METHODS, callbacks);
        let server = Session::server(&config, ShardPlace::default(), callbacks, METHODS);
        let ends = [End::new(client, true), End::new(server, !callbacks.is_empty())];
        Self { ends, scratch: Scratch::default(), now_us: 0, is_faithful: true }
    }

    /// One operation. Its byte has the end in its highest bit.
    fn operate(&mut self, input: &mut Input<'_>) {
        let operation = input.byte();
        let at = usize::from(operation >> 7);
        let end = &mut self.ends[at];
        match operation & 0x0f {
            0 | 1 if end.may_call => end.make(input, &mut self.scratch, self.now_us),
            2 => self.deliver(at, usize::from(input.byte())),
            3 => self.deliver(at, usize::MAX),
            4 | 5 => end.end_handler(input.byte(), &mut self.scratch),
            6 => end.abandon(usize::from(input.byte())),
            7 => end.release(usize::from(input.byte())),
            8 => self.pass_time(u64::from(input.byte()) << (input.byte() & 0x1f)),
            9 => end.session.drain(&Status::new(Code::Unavailable, "by an operation")),
            10 => end.close(&Status::new(Code::Unavailable, "by an operation")),
            11 => end.end_one_way(input.byte()),
            12 => self.settle(),
            13 => self.tamper(at, input),
            _ => {}
        }
        self.ends.iter_mut().for_each(End::send);
    }

    /// Changes, takes out or puts in bytes that are on their way.
    fn tamper(&mut self, at: usize, input: &mut Input<'_>) {
        let (how, place, byte) = (input.byte(), usize::from(input.byte()), input.byte());
        let wire = &mut self.ends[at].wire;
        let place = place.min(wire.len());
        match how % 3 {
            0 if place < wire.len() => wire[place] ^= byte,
            1 => drop(wire.drain(place..(place + usize::from(byte)).min(wire.len()))),
            2 => {
                let bytes = input.take(usize::from(byte)).to_vec();
                drop(wire.splice(place..place, bytes));
            }
            _ => return,
        }
        self.is_faithful = false;
    }

    /// Carries up to so many bytes from one end to the other.
    fn deliver(&mut self, from: usize, len: usize) {
        let wire = &mut self.ends[from].wire;
        let bytes: Vec<u8> = wire.drain(..len.min(wire.len())).collect();
        let end = &mut self.ends[1 - from];
        if end.is_closed || bytes.is_empty() {
            return;
        }
        if let Err(error) = end.receive(&bytes, self.now_us, self.is_faithful) {
            assert!(!self.is_faithful, "a correct peer is refused: {error}");
            end.close(&error.status());
        }
    }

    fn pass_time(&mut self, step_us: u64) {
        self.now_us = self.now_us.saturating_add(step_us);
        for end in self.ends.iter_mut().filter(|end| !end.is_closed) {
            let mut events = Vec::new();
            let was_open = end.session.is_open();
            let outcome = end.session.handle_timeout(self.now_us, &mut events);
            for event in events {
                // The peer has not answered yet: the slot stays taken, whoever releases it.
                if let Event::Failed(call, _) = event {
                    end.ended(call);
                    end.session.release(call);
                } else {
                    end.happened(event, &[], self.is_faithful);
                }
            }
            match outcome {
                Ok(()) => assert!(end.session.next_timeout_us() > self.now_us, "it is never done"),
                Err(error) => {
                    assert!(!was_open || error != SessionError::NoHello, "HELLO was said");
                    end.close(&error.status());
                }
            }
        }
    }

    /// Carries bytes until there are none.
    fn settle(&mut self) {
        self.ends.iter_mut().for_each(End::send);
        while self.ends.iter().any(|end| !end.wire.is_empty()) {
            for from in [0, 1] {
                self.deliver(from, usize::MAX);
            }
            self.ends.iter_mut().for_each(End::send);
        }
    }

    /// What both ends say of themselves is what they were told.
    fn check(&self) {
        for end in self.ends.iter().filter(|end| !end.is_closed) {
            let (session, made) = (&end.session, end.session.calls_made());
            assert!(made <= CALLS_MAX as usize);
            assert!(made >= end.waiting.len() + end.answered.len());
            assert_eq!(session.calls_running() as usize, end.running.len());
            assert_eq!(session.one_ways_running() as usize, end.one_ways.len());
        }
    }

    /// Ends every handler, and looks at what became of every call.
    fn finish(mut self) {
        self.settle();
        for round in 0.. {
            let mut has_more = false;
            for end in &mut self.ends {
                has_more |= !end.running.is_empty() || !end.one_ways.is_empty();
                while !end.running.is_empty() {
                    end.end_handler(0, &mut self.scratch);
                }
                while !end.one_ways.is_empty() {
                    end.end_one_way(0);
                }
            }
            self.settle();
            if !has_more {
                break;
            }
            assert!(round < 100, "bytes that were on their way bring only so many calls");
        }
        if self.ends.iter().any(|end| end.is_closed) || !self.is_faithful {
            return;
        }
        for end in &mut self.ends {
            assert!(end.waiting.is_empty(), "calls without an outcome: {:?}", end.waiting);
            while !end.answered.is_empty() {
                end.release(0);
            }
            assert_eq!(end.session.calls_made(), 0, "a slot is lost");
            assert_eq!(end.session.is_drained(), end.session.drains());
        }
    }
}

impl End {
    fn new(mut session: Session, may_call: bool) -> Self {
        session.begin(0);
        Self {
            session,
            decoder: Decoder::new(FRAME_LEN_MAX_FLOOR),
            wire: Vec::new(),
            waiting: BTreeMap::new(),
            answered: Vec::new(),
            running: Vec::new(),
            one_ways: Vec::new(),
            one_ways_made: 0,
            may_call,
            is_closed: false,
        }
    }

    fn send(&mut self) {
        self.wire.append(self.session.output());
    }

    /// Makes a call, or one without an answer.
    fn make(&mut self, input: &mut Input<'_>, scratch: &mut Scratch, now_us: u64) {
        let (form, len) = (input.byte(), usize::from(input.byte()));
        let text = "abcdefgh".repeat(32)[..len].to_owned();
        let mut metadata = Metadata::new();
        if form & 0x01 != 0 {
            metadata.insert(Key::TENANT, &text).expect("short enough");
        }
        let wait_us = u64::from(form >> 4) * 500;
        let deadline_us = (form & 0x02 != 0).then(|| now_us.saturating_add(wait_us));
        let options = CallOptions {
            deadline_us,
            now_us,
            metadata: metadata.as_bytes(),
            ..CallOptions::default()
        };
        let request = Colour::Named(text.clone());
        let method = METHODS[usize::from(form >> 3 & 1)].id;
        let output_len = self.session.output().len();
        if form & 0x04 != 0 {
            let made = self.session.one_way(scratch, method, options, &request);
            match made {
                Ok(number) => {
                    assert!(!self.is_closed && number == self.one_ways_made + 1);
                    self.one_ways_made = number;
                }
                Err(_) => assert_eq!(self.session.output().len(), output_len),
            }
            return;
        }
        match self.session.call(scratch, method, options, &request) {
            Ok(call) => {
                assert!(!self.is_closed);
                let earlier = self.waiting.insert(call.0, text.into_bytes());
                assert_eq!(earlier, None, "{call} is in flight already");
                assert!(!self.answered.contains(&call));
            }
            Err(_) => assert_eq!(self.session.output().len(), output_len, "nothing was sent"),
        }
    }

    fn receive(
        &mut self,
        bytes: &[u8],
        now_us: u64,
        is_faithful: bool,
    ) -> Result<(), SessionError> {
        let mut decoder = std::mem::replace(&mut self.decoder, Decoder::new(0));
        self.session.handle_bytes(now_us);
        let decoded = decode(&mut decoder, bytes, |header, payload| {
            if self.is_closed {
                return Ok(());
            }
            let event = self.session.handle_frame(header, payload)?;
            let body = &payload[header.meta_bytes()..];
            self.happened(event, body, is_faithful);
            Ok(())
        });
        self.decoder = decoder;
        decoded?;
        if !self.decoder.is_between_frames() {
            self.session.handle_cut(self.decoder.cut_len());
        }
        Ok(())
    }

    fn happened(&mut self, event: Event, body: &[u8], is_faithful: bool) {
        match event {
            Event::Call { call, .. } => self.running.push((call, text_of(body))),
            Event::OneWay { number, .. } => self.one_ways.push(number),
            Event::Stop(call) => {
                assert!(self.running.iter().any(|(running, _)| *running == call), "{call}");
                assert!(self.session.is_stopping(call));
            }
            Event::Reply(call) => {
                let asked = self.ended(call);
                assert!(!is_faithful || asked == text_of(body), "the reply to another call");
                self.answered.push(call);
            }
            Event::Failed(call, _) => {
                self.ended(call);
                self.answered.push(call);
            }
            Event::Notice { number, .. } => {
                assert!((1..=self.one_ways_made).contains(&number));
            }
            Event::GoAway(_) => self.stop(),
            _ => {}
        }
    }

    /// A call has an outcome, which must be its first.
    fn ended(&mut self, call: CallId) -> Vec<u8> {
        self.waiting.remove(&call.0).expect("only a call that waits has an outcome")
    }

    fn end_handler(&mut self, how: u8, scratch: &mut Scratch) {
        if self.running.is_empty() {
            return;
        }
        let (call, text) = self.running.remove(usize::from(how >> 2) % self.running.len());
        let status = Status::new(Code::Aborted, "by an operation");
        let was_running = match how & 3 {
            0 | 1 => {
                let reply = Colour::Named(String::from_utf8_lossy(&text).into_owned());
                let replied = self.session.reply(scratch, call, &[], &reply);
                replied.is_ok() || self.is_closed
            }
            2 => self.session.refuse(call, &status),
            _ => self.session.end_stopped(call, &status),
        };
        assert!(was_running, "{call} had an outcome before");
        assert!(!self.session.refuse(call, &status), "{call} has a second outcome");
    }

    fn end_one_way(&mut self, how: u8) {
        if self.one_ways.is_empty() {
            return;
        }
        let number = self.one_ways.remove(usize::from(how >> 1) % self.one_ways.len());
        let status = Status::new(Code::Aborted, "by an operation");
        self.session.end_one_way(number, if how & 1 == 0 { Ok(()) } else { Err(&status) });
    }

    /// Nobody waits for a call any more.
    fn abandon(&mut self, which: usize) {
        let Some(call) = self.waiting.keys().nth(which % self.waiting.len().max(1)) else { return };
        let call = CallId(*call);
        self.waiting.remove(&call.0);
        self.session.abandon(call);
    }

    fn release(&mut self, which: usize) {
        if !self.answered.is_empty() {
            let call = self.answered.remove(which % self.answered.len());
            self.session.release(call);
        }
    }

    /// Ends the connection from here.
    fn close(&mut self, status: &Status) {
        self.session.go_away(status);
        self.send();
        self.stop();
    }

    /// Reads no more. Every call that waits has failed, which is its outcome.
    fn stop(&mut self) {
        self.is_closed = true;
        self.waiting.clear();
    }
}

/// The text of a message; none where the bytes are no message.
fn text_of(body: &[u8]) -> Vec<u8> {
    let body = aligned(body);
    match access::<Colour>(&body).and_then(deserialize::<Colour>) {
        Ok(Colour::Named(text)) => text.into_bytes(),
        _ => Vec::new(),
    }
}

//! One end of a connection and its transport, for `session.rs`: what it was told, what it holds,
//! and what of it is on its way.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use ringcall_codec::{
    CallId, CallOptions, Code, Decoder, Event, Flags, FrameBuffer, Header, Interleaver, ItemError,
    Key, Kind, Metadata, Partial, Piece, Scratch, Session, SessionError, Status, Step, StreamId,
    access, deserialize,
    limits::{FRAME_LEN_MAX_FLOOR, ITEM_COST_MIN},
};

use crate::{
    hello::METHODS,
    input::{Buffer, Input, aligned},
    message::Colour,
    session::{CONNECTION_WINDOW, STREAM_WINDOW},
};

/// A frame as it is, whole.
type Frame = (Header, Vec<u8>);

/// A stream in a list: its call, and whether that was made here.
type StreamKey = (u64, bool);

/// One end and its transport.
pub struct End {
    pub session: Session,
    pub decoder: Decoder<Assembly>,
    interleaver: Interleaver,
    /// The piece that is being sent; what of it did not arrive is on the wire.
    out: Option<Vec<u8>>,
    /// Bytes on their way from here.
    pub wire: Vec<u8>,
    /// Frames on their way to here.
    pub expected: VecDeque<Frame>,
    /// Calls made here: what was asked, while there is no outcome.
    pub waiting: BTreeMap<u64, Vec<u8>>,
    /// Calls with an outcome whose slots are still taken.
    pub answered: Vec<CallId>,
    /// Calls that run here, with what was asked.
    pub running: Vec<(CallId, Vec<u8>)>,
    /// One-way calls that run here.
    pub one_ways: Vec<u64>,
    /// One-way calls made here.
    one_ways_made: u64,
    /// Items that were sent on each stream.
    pub sent: BTreeMap<StreamKey, u32>,
    /// Streams on which this end sends no more.
    ended_items: BTreeSet<StreamKey>,
    /// What came on each stream.
    pub received: BTreeMap<StreamKey, Received>,
    /// Items that came and were not taken, and the lengths of their frames.
    pub untaken: Vec<(StreamId, u64)>,
    /// What the longest item takes from the credit that has come.
    longest_item: u64,
    /// Whether this end makes calls: its peer serves some.
    pub may_call: bool,
    /// Whether this end refuses calls by their headers.
    pub refuses: bool,
    /// Whether this end reads no more.
    pub is_closed: bool,
}

/// Items of a stream.
#[derive(Default)]
pub struct Received {
    pub items: u32,
    /// Whether none can follow.
    pub is_all: bool,
}

/// A cut frame, and when its header came.
#[derive(Debug)]
pub struct Assembly {
    buffer: Buffer,
    begun_us: u64,
}

impl FrameBuffer for Assembly {
    fn append(&mut self, bytes: &[u8]) {
        self.buffer.append(bytes);
    }

    fn filled(&self) -> &[u8] {
        &self.buffer
    }
}

impl End {
    pub fn new(mut session: Session, may_call: bool, part_len: usize) -> Self {
        session.begin(0);
        Self {
            session,
            decoder: Decoder::new(FRAME_LEN_MAX_FLOOR),
            interleaver: Interleaver::new(part_len),
            out: None,
            wire: Vec::new(),
            expected: VecDeque::new(),
            waiting: BTreeMap::new(),
            answered: Vec::new(),
            running: Vec::new(),
            one_ways: Vec::new(),
            one_ways_made: 0,
            sent: BTreeMap::new(),
            ended_items: BTreeSet::new(),
            received: BTreeMap::new(),
            untaken: Vec::new(),
            longest_item: 0,
            may_call,
            refuses: false,
            is_closed: false,
        }
    }

    /// Takes what the session has to send; gives its frames.
    pub fn collect(&mut self) -> Vec<Frame> {
        let output = std::mem::take(self.session.output());
        let (mut frames, mut at) = (Vec::new(), 0);
        while let Some(head) = output[at..].first_chunk() {
            let header = Header::parse(head).expect("a session makes frames");
            let (body, end) = (at + 32, at + header.frame_len() as usize);
            frames.push((header, output[body..body + header.payload_len() as usize].to_vec()));
            at = end;
        }
        assert_eq!(at, output.len(), "an output is whole frames");
        if !output.is_empty() {
            self.interleaver.push(output);
        }
        frames
    }

    /// Whether there are bytes on their way, or will be.
    pub fn has_more(&self) -> bool {
        !self.wire.is_empty() || !self.interleaver.is_empty()
    }

    /// Puts so many bytes on the wire, if there are as many. What is not there may be overtaken.
    pub fn fill_wire(&mut self, len: usize, now_us: u64) {
        while self.wire.len() < len {
            if let Some(bytes) = self.out.take() {
                self.interleaver.sent(bytes);
                self.session.handle_sent(now_us);
            }
            let Some(Piece { bytes, range, .. }) = self.interleaver.next_piece() else { return };
            assert!(!range.is_empty());
            self.wire.extend_from_slice(&bytes[range]);
            self.out = Some(bytes);
        }
    }

    /// Makes a call, or one without an answer.
    pub fn make(&mut self, input: &mut Input<'_>, variant: u8, scratch: &mut Scratch, now_us: u64) {
        let (form, len) = (input.byte(), usize::from(input.byte()) << (variant & 0x06));
        let text = text(len);
        let mut metadata = Metadata::new();
        if form & 0x01 != 0 {
            metadata.insert(Key::TENANT, &text[..len.min(255)]).expect("short enough");
        }
        let wait_us = u64::from(form >> 4) * 500;
        let deadline_us = (form & 0x02 != 0).then(|| now_us.saturating_add(wait_us));
        let metadata = metadata.as_bytes();
        let is_stream = variant & 0x01 != 0 && form & 0x04 == 0;
        let options = CallOptions { deadline_us, now_us, metadata, is_stream, key: None };
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

    /// Sends an item on one of the streams that are open.
    pub fn send_item(
        &mut self,
        input: &mut Input<'_>,
        scratch: &mut Scratch,
    ) -> Result<(), ItemError> {
        let (which, len) = (input.byte(), usize::from(input.byte()));
        let streams = self.streams();
        let Some(stream) = streams.get(usize::from(which >> 3) % streams.len().max(1)) else {
            return Ok(());
        };
        self.send_item_of(*stream, len << (which & 0x07), scratch)
    }

    /// Sends an item, whose text says which it is.
    pub fn send_item_of(
        &mut self,
        stream: StreamId,
        len: usize,
        scratch: &mut Scratch,
    ) -> Result<(), ItemError> {
        let sent = self.sent.entry((stream.call.0, stream.is_made_here)).or_default();
        let item = Colour::Named(format!("{} {sent} {}", stream.call, text(len)));
        let output_len = self.session.output().len();
        let outcome = self.session.send_item(scratch, stream, &item);
        match outcome {
            Ok(()) => *sent += 1,
            Err(_) => assert_eq!(self.session.output().len(), output_len, "nothing was sent"),
        }
        outcome
    }

    pub fn end_items(&mut self, which: usize) {
        let streams = self.streams();
        if let Some(stream) = streams.get(which % streams.len().max(1)) {
            self.session.end_items(*stream);
            // None follows.
            let mut scratch = Scratch::default();
            let again = self.session.send_item(&mut scratch, *stream, &Colour::Named(text(1)));
            assert_eq!(again, Err(ItemError::Ended));
            self.ended_items.insert((stream.call.0, stream.is_made_here));
        }
    }

    /// Streams of calls that wait or run here, on which items can be sent.
    pub fn streams(&self) -> Vec<StreamId> {
        let made = self.waiting.keys().map(|call| (CallId(*call), true));
        let running = self.running.iter().map(|(call, _)| (*call, false));
        let streams = made.chain(running);
        let streams = streams.map(|(call, is_made_here)| StreamId { call, is_made_here });
        let is_ended =
            |stream: &StreamId| self.ended_items.contains(&(stream.call.0, stream.is_made_here));
        streams.filter(|stream| self.session.is_stream(*stream) && !is_ended(stream)).collect()
    }

    /// Takes an item that came.
    pub fn take_item(&mut self, which: usize) {
        if !self.untaken.is_empty() {
            let (stream, frame_len) = self.untaken.remove(which % self.untaken.len());
            self.session.item_taken(stream, frame_len);
        }
    }

    /// Lets go of the items of a stream that were not taken.
    pub fn forget_items(&mut self, stream: StreamId) {
        self.untaken.retain(|(untaken, _)| *untaken != stream);
    }

    /// Reads bytes that have come. `to_place` is whether the rest of a part goes to its place.
    pub fn receive(
        &mut self,
        bytes: &[u8],
        to_place: bool,
        now_us: u64,
        is_faithful: bool,
    ) -> Result<(), SessionError> {
        self.session.handle_bytes(now_us);
        let mut at = 0;
        if to_place && let Some(mut lent) = self.decoder.lend_part() {
            at = bytes.len().min(lent.len + lent.padding);
            lent.buffer.append(&bytes[..at.min(lent.len)]);
            if let Step::Assembled(frame) = self.decoder.take_part_back(lent, at) {
                self.assembled(&frame, is_faithful)?;
            }
        }
        while !self.is_closed {
            let Self { decoder, session, expected, refuses, .. } = self;
            let step = decoder.next(bytes, &mut at, |header| {
                let is_call = matches!(header.kind, Kind::Request | Kind::OneWay);
                if *refuses && is_call {
                    let status = Status::new(Code::ResourceExhausted, "by its header");
                    session.refuse_header(header, &status)?;
                    if is_faithful {
                        let (sent, _) = take_expected(expected, header);
                        assert_eq!(sent, *header);
                    }
                    return Ok(None);
                }
                Ok(Some(Assembly { buffer: Buffer::new(), begun_us: now_us }))
            })?;
            match step {
                Step::InPlace { header, body } => {
                    self.frame(&header, &bytes[body], None, is_faithful)?;
                }
                Step::Assembled(frame) => self.assembled(&frame, is_faithful)?,
                Step::Skipped | Step::Part => self.session.handle_skipped(),
                Step::More => break,
            }
        }
        if self.decoder.is_between_frames() {
            self.session.handle_skipped();
        } else {
            self.session.handle_cut(self.decoder.cut_len());
        }
        let (missing, announced) = self.decoder.long_frames();
        self.session.handle_long_frames(missing, announced);
        Ok(())
    }

    fn assembled(
        &mut self,
        frame: &Partial<Assembly>,
        is_faithful: bool,
    ) -> Result<(), SessionError> {
        self.frame(&frame.header, frame.body(), Some(frame.buffer.begun_us), is_faithful)
    }

    fn frame(
        &mut self,
        header: &Header,
        payload: &[u8],
        begun_us: Option<u64>,
        is_faithful: bool,
    ) -> Result<(), SessionError> {
        if is_faithful {
            let (sent, sent_payload) = take_expected(&mut self.expected, header);
            assert_eq!(sent, *header);
            assert!(sent_payload == payload, "{header:?} has another payload");
        }
        let is_waited_for = self.waiting.contains_key(&header.call.0);
        let event = match begun_us {
            Some(begun_us) => self.session.handle_assembled(header, payload, begun_us)?,
            None => self.session.handle_frame(header, payload)?,
        };
        if header.kind == Kind::Response && is_waited_for {
            // Every item of the callee was sent before.
            self.received.entry((header.call.0, true)).or_default().is_all = true;
        }
        self.happened(event, &payload[header.meta_bytes()..], header.frame_len(), is_faithful);
        Ok(())
    }

    /// Something happened, at a frame of this body and length or at none.
    pub fn happened(&mut self, event: Event, body: &[u8], frame_len: u64, is_faithful: bool) {
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
            Event::Item(stream) => self.item_came(stream, body, frame_len, is_faithful),
            Event::ItemsEnded(stream) => {
                let key = (stream.call.0, stream.is_made_here);
                let received = self.received.entry(key).or_default();
                assert!(!received.is_all, "{stream:?} ends twice");
                received.is_all = true;
            }
            Event::Notice { number, .. } => {
                assert!((1..=self.one_ways_made).contains(&number));
            }
            Event::GoAway(_) => self.stop(),
            _ => {}
        }
    }

    fn item_came(&mut self, stream: StreamId, body: &[u8], frame_len: u64, is_faithful: bool) {
        assert!(self.session.is_stream(stream), "{stream:?}");
        let received = self.received.entry((stream.call.0, stream.is_made_here)).or_default();
        assert!(!received.is_all, "{stream:?} has ended");
        if is_faithful {
            let item = String::from_utf8(text_of(body)).expect("it was a text");
            let rest = item.strip_prefix(&format!("{} {} ", stream.call, received.items));
            let rest = rest.unwrap_or_else(|| panic!("item {} is `{item}`", received.items));
            assert_eq!(rest, text(rest.len()));
        }
        received.items += 1;
        // Of a stream the window and one item, of the connection the window and two.
        let cost = |frame_len: u64| frame_len.max(ITEM_COST_MIN.into());
        let of_all = self.untaken.iter().map(|(_, frame_len)| cost(*frame_len)).sum::<u64>();
        let of_stream = self.untaken.iter().filter(|(untaken, _)| *untaken == stream);
        let of_stream = of_stream.map(|(_, frame_len)| cost(*frame_len)).sum::<u64>();
        self.longest_item = self.longest_item.max(cost(frame_len));
        assert!(of_stream < STREAM_WINDOW.into());
        assert!(of_all < u64::from(CONNECTION_WINDOW) + self.longest_item);
        self.untaken.push((stream, frame_len));
    }

    /// A call has an outcome, which must be its first.
    pub fn ended(&mut self, call: CallId) -> Vec<u8> {
        self.waiting.remove(&call.0).expect("only a call that waits has an outcome")
    }

    pub fn end_handler(&mut self, how: u8, scratch: &mut Scratch) {
        if self.running.is_empty() {
            return;
        }
        let (call, text) = self.running.remove(usize::from(how >> 2) % self.running.len());
        self.forget_items(StreamId { call, is_made_here: false });
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

    pub fn end_one_way(&mut self, how: u8) {
        if self.one_ways.is_empty() {
            return;
        }
        let number = self.one_ways.remove(usize::from(how >> 1) % self.one_ways.len());
        let status = Status::new(Code::Aborted, "by an operation");
        self.session.end_one_way(number, if how & 1 == 0 { Ok(()) } else { Err(&status) });
    }

    /// Nobody waits for a call any more.
    pub fn abandon(&mut self, which: usize) {
        let Some(call) = self.waiting.keys().nth(which % self.waiting.len().max(1)) else { return };
        let call = CallId(*call);
        self.waiting.remove(&call.0);
        self.forget_items(StreamId { call, is_made_here: true });
        self.session.abandon(call);
    }

    pub fn release(&mut self, which: usize) {
        if !self.answered.is_empty() {
            let call = self.answered.remove(which % self.answered.len());
            self.forget_items(StreamId { call, is_made_here: true });
            self.session.release(call);
        }
    }

    /// Ends the connection, as the peer has done wrong. The text is short, whatever it was.
    pub fn fail(&mut self, error: &SessionError) {
        self.close(&Status::new(error.status().code(), "by an error"));
    }

    /// Ends the connection from here.
    pub fn close(&mut self, status: &Status) {
        self.session.go_away(status);
        self.stop();
    }

    /// Reads no more. Every call that waits has failed, which is its outcome.
    fn stop(&mut self) {
        self.is_closed = true;
        self.waiting.clear();
        self.untaken.clear();
    }
}

/// The first of the frames on their way that is of this kind and call: frames of one call keep
/// their order. Calls of the two sides may have the same id.
fn take_expected(expected: &mut VecDeque<Frame>, header: &Header) -> Frame {
    let key = |header: &Header| (header.kind, header.call, header.flags.contains(Flags::CALLEE));
    let index = expected.iter().position(|(sent, _)| key(sent) == key(header));
    index.and_then(|index| expected.remove(index)).expect("only what was sent arrives")
}

fn text(len: usize) -> String {
    let mut text = "abcdefgh".repeat(len / 8 + 1);
    text.truncate(len);
    text
}

/// The text of a message; none where the bytes are no message.
fn text_of(body: &[u8]) -> Vec<u8> {
    let body = aligned(body);
    match access::<Colour>(&body).and_then(deserialize::<Colour>) {
        Ok(Colour::Named(text)) => text.into_bytes(),
        _ => Vec::new(),
    }
}

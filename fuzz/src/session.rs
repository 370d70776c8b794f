//! Two sessions and the bytes between them, long frames in parts: whatever the two do and when,
//! each call has exactly one outcome, and the items of each stream arrive once, in order and
//! unaltered; and whatever the bytes become on their way, neither end panics or gives a call a
//! second outcome.
//!
//! Input: a byte of options, operations of a byte and what they read (`Pair::operate`).

use ringcall_codec::{
    Code, Event, Limits, Patience, Scratch, Session, SessionConfig, SessionError, ShardPlace,
    Status, StreamId,
    limits::{FRAME_LEN_MAX_FLOOR, WINDOW_FLOOR},
};

use crate::{end::End, hello::METHODS, input::Input};

/// Calls that one end may have in flight: few, so that slots are used again.
pub(crate) const CALLS_MAX: u32 = 4;

/// Credit of a stream, and of all of them together: little, so that it is used up.
pub(crate) const STREAM_WINDOW: u32 = WINDOW_FLOOR;
/// See [`STREAM_WINDOW`].
pub(crate) const CONNECTION_WINDOW: u32 = 2 * WINDOW_FLOOR;

/// Shortest parts. No HELLO, GOAWAY or NOTICE is longer, which do not come in parts.
const PART_LEN_MIN: usize = 80;

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
            stream_window: STREAM_WINDOW,
            connection_window: CONNECTION_WINDOW,
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
        let part_len = PART_LEN_MIN + 16 * usize::from(options >> 4);
        let ends =
            [End::new(client, true, part_len), End::new(server, !callbacks.is_empty(), part_len)];
        Self { ends, scratch: Scratch::default(), now_us: 0, is_faithful: true }
    }

    /// One operation. Its byte has the end in its highest bit.
    fn operate(&mut self, input: &mut Input<'_>) {
        let operation = input.byte();
        let (at, variant) = (usize::from(operation >> 7), operation >> 4 & 7);
        let end = &mut self.ends[at];
        match operation & 0x0f {
            0 | 1 if end.may_call => end.make(input, variant, &mut self.scratch, self.now_us),
            2 => {
                let len = usize::from(input.byte()) << (variant & 0x06);
                self.deliver(at, len, variant & 1 != 0);
            }
            3 => self.deliver(at, usize::MAX, variant & 1 != 0),
            4 | 5 => end.end_handler(input.byte(), &mut self.scratch),
            6 => end.abandon(usize::from(input.byte())),
            7 => end.release(usize::from(input.byte())),
            8 => self.pass_time(u64::from(input.byte()) << (input.byte() & 0x1f)),
            9 => end.session.drain(&Status::new(Code::Unavailable, "by an operation")),
            10 => end.close(&Status::new(Code::Unavailable, "by an operation")),
            11 => end.end_one_way(input.byte()),
            12 => self.settle(),
            13 => self.tamper(at, input),
            14 => match variant & 3 {
                0 | 1 => drop(end.send_item(input, &mut self.scratch)),
                2 => end.take_item(usize::from(input.byte())),
                _ => end.end_items(usize::from(input.byte())),
            },
            15 => end.refuses = variant & 1 != 0,
            _ => {}
        }
        self.collect();
    }

    /// Takes what the two sessions have to send.
    fn collect(&mut self) {
        for at in [0, 1] {
            let frames = self.ends[at].collect();
            self.ends[1 - at].expected.extend(frames);
        }
    }

    /// Changes, takes out or puts in bytes that are on their way.
    fn tamper(&mut self, at: usize, input: &mut Input<'_>) {
        let (how, place, byte) = (input.byte(), usize::from(input.byte()), input.byte());
        let end = &mut self.ends[at];
        end.fill_wire(1, self.now_us);
        let wire = &mut end.wire;
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

    /// Carries up to so many bytes from one end to the other, a part that is cut to its place.
    fn deliver(&mut self, from: usize, len: usize, to_place: bool) {
        self.ends[from].fill_wire(len, self.now_us);
        let wire = &mut self.ends[from].wire;
        let bytes: Vec<u8> = wire.drain(..len.min(wire.len())).collect();
        let end = &mut self.ends[1 - from];
        if end.is_closed || bytes.is_empty() {
            return;
        }
        if let Err(error) = end.receive(&bytes, to_place, self.now_us, self.is_faithful) {
            assert!(!self.is_faithful, "a correct peer is refused: {error}");
            self.ends[1 - from].fail(&error);
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
                    end.forget_items(StreamId { call, is_made_here: true });
                    end.session.release(call);
                } else {
                    end.happened(event, &[], 0, self.is_faithful);
                }
            }
            match outcome {
                Ok(()) => assert!(end.session.next_timeout_us() > self.now_us, "it is never done"),
                Err(error) => {
                    assert!(!was_open || error != SessionError::NoHello, "HELLO was said");
                    end.fail(&error);
                }
            }
        }
    }

    /// Carries bytes until there are none.
    fn settle(&mut self) {
        self.collect();
        while self.ends.iter().any(End::has_more) {
            for from in [0, 1] {
                self.deliver(from, usize::MAX, false);
            }
            self.collect();
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
        for (end, peer) in [(0, 1), (1, 0)].map(|(end, peer)| (&self.ends[end], &self.ends[peer])) {
            for (stream, received) in end.received.iter().filter(|_| self.is_faithful) {
                let (call, made_here) = *stream;
                let sent = peer.sent.get(&(call, !made_here)).copied().unwrap_or_default();
                assert!(received.items <= sent);
                assert!(!received.is_all || received.items == sent, "{call:#x} lacks items");
            }
        }
    }

    /// Ends every handler, and looks at what became of every call.
    fn finish(mut self) {
        self.settle();
        self.check_credit();
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
        self.check();
        for end in &mut self.ends {
            assert!(end.waiting.is_empty(), "calls without an outcome: {:?}", end.waiting);
            while !end.answered.is_empty() {
                end.release(0);
            }
            assert_eq!(end.session.calls_made(), 0, "a slot is lost");
            assert_eq!(end.session.is_drained(), end.session.drains());
            assert!(end.expected.is_empty(), "frames are lost: {:?}", end.expected);
            assert!(end.decoder.is_between_frames());
            assert_eq!(end.decoder.long_frames().0, 0);
        }
    }

    /// Where every item that came was taken, every stream has credit for one more.
    fn check_credit(&mut self) {
        self.take_items();
        for at in [0, 1] {
            for stream in self.ends[at].streams() {
                let at_peer = StreamId { is_made_here: !stream.is_made_here, ..stream };
                let is_open = self.ends.iter().all(|end| end.session.is_open());
                if is_open && self.is_faithful && self.ends[1 - at].session.is_stream(at_peer) {
                    let sent = self.ends[at].send_item_of(stream, 10, &mut self.scratch);
                    assert_eq!(sent, Ok(()), "{stream:?}");
                    self.settle();
                    self.take_items();
                }
            }
        }
    }

    fn take_items(&mut self) {
        for end in &mut self.ends {
            while !end.untaken.is_empty() {
                end.take_item(0);
            }
        }
        self.settle();
    }
}

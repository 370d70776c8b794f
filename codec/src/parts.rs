//! Long frames in: put together from the parts that come between other frames.
//!
//! Beside the decoder, which finds the parts. A frame that comes in parts has a buffer of its own
//! from its header on, so its body is contiguous and aligned whatever came between; a transport
//! may receive a part straight to its place there.

use alloc::vec::Vec;

use crate::{
    decode::{FrameBuffer, Partial},
    header::{CallId, Flags, Header, Kind},
    limits::{FRAME_ALIGN, LONG_FRAMES_MAX},
    session::SessionError,
};

/// The long frames of a stream that have begun and not ended.
#[derive(Debug)]
pub(crate) struct LongFrames<B> {
    /// In the order in which they began.
    begun: Vec<LongFrame<B>>,
    /// How many began in the life of the stream: each is named by its number, from one.
    count: u64,
    /// Bytes that are still to come of all of them.
    missing: u64,
    /// Bytes that came or are still to come, in the life of the stream.
    announced: u64,
    /// The part that is being received.
    part: Option<Part>,
}

#[derive(Debug)]
struct LongFrame<B> {
    number: u64,
    header: Header,
    /// Payload bytes that are still to come.
    missing: u64,
    /// None where the frame was refused by its header, or its buffer is lent.
    buffer: Option<B>,
}

/// What is still to come of a part.
#[derive(Clone, Copy, Debug)]
struct Part {
    number: u64,
    len: usize,
    padding: usize,
}

/// A part that is to be received straight to its place: behind what is in the buffer.
#[derive(Debug)]
pub struct Lent<B> {
    /// The buffer of the whole frame, filled up to where the part goes on.
    pub buffer: B,
    /// Bytes of the part that are still to come.
    pub len: usize,
    /// Bytes that come behind those and fill the part up.
    pub padding: usize,
    /// Whether a header follows in any case: it is not the frame's last part.
    pub more: bool,
    number: u64,
}

impl<B> Lent<B> {
    /// The same part, of a buffer that is kept otherwise meanwhile.
    pub fn map<C>(self, map: impl FnOnce(B) -> C) -> Lent<C> {
        let Self { buffer, len, padding, more, number } = self;
        Lent { buffer: map(buffer), len, padding, more, number }
    }
}

/// How far the bytes of an input led.
pub(crate) enum Filled<B> {
    /// The part is still to be continued.
    Cut,
    /// The part has ended and its frame has not.
    Part,
    /// The frame is complete.
    Frame(Partial<B>),
}

impl<B> Default for LongFrames<B> {
    fn default() -> Self {
        Self { begun: Vec::new(), count: 0, missing: 0, announced: 0, part: None }
    }
}

impl<B: FrameBuffer> LongFrames<B> {
    /// Bytes that are still to come of the frames that have begun.
    pub(crate) fn missing(&self) -> u64 {
        self.missing
    }

    /// Bytes that were announced in the life of the stream.
    pub(crate) fn announced(&self) -> u64 {
        self.announced
    }

    /// Whether the input so far ended inside of a part.
    #[inline]
    pub(crate) fn is_in_part(&self) -> bool {
        self.part.is_some()
    }

    /// What is still to come of the part that is cut, in bytes, and whether it has a place.
    pub(crate) fn cut_part(&self) -> Option<(usize, bool)> {
        let part = self.part?;
        let frame = self.begun.iter().find(|frame| frame.number == part.number);
        Some((part.len + part.padding, frame.is_some_and(|frame| frame.buffer.is_some())))
    }

    /// Lets go of all of them.
    pub(crate) fn clear(&mut self) {
        self.begun.clear();
        self.part = None;
        self.missing = 0;
    }

    /// Gives memory back that is not needed for those that have begun.
    pub(crate) fn shrink_to_fit(&mut self) {
        self.begun.shrink_to_fit();
    }

    /// Notes a frame whose header came, before there is a place for it.
    ///
    /// # Errors
    ///
    /// Where it is one too many, or has nothing to come.
    pub(crate) fn check_begin(&self, header: &Header) -> Result<(), SessionError> {
        if header.payload_len() == 0 {
            return Err(SessionError::PartUnexpected("the frame has no payload"));
        }
        let is_same = |frame: &LongFrame<B>| {
            let (of_callee, kind) = (Flags::CALLEE, frame.header.kind);
            kind == header.kind
                && frame.header.call == header.call
                && frame.header.flags.contains(of_callee) == header.flags.contains(of_callee)
        };
        if self.begun.iter().any(is_same) {
            return Err(SessionError::PartUnexpected("its call has another that has not ended"));
        }
        if self.begun.len() >= LONG_FRAMES_MAX {
            return Err(SessionError::PartUnexpected("too many frames come in parts"));
        }
        Ok(())
    }

    /// Begins a frame, which was refused where there is no buffer.
    pub(crate) fn begin(&mut self, header: Header, mut buffer: Option<B>) {
        if let Some(buffer) = &mut buffer {
            buffer.append(&header.encode());
        }
        let missing = header.payload_len();
        self.count += 1;
        self.missing += missing;
        self.announced += missing;
        self.begun.push(LongFrame { number: self.count, header, missing, buffer });
    }

    /// Begins a part.
    ///
    /// # Errors
    ///
    /// Where its frame has not begun or has less to come, or where it is not the last and would
    /// leave the next at an odd place.
    pub(crate) fn begin_part(&mut self, header: &Header) -> Result<(), SessionError> {
        let number = header.call.0;
        let frame = self.begun.iter().find(|frame| frame.number == number);
        let Some(frame) = frame else {
            return Err(SessionError::PartUnexpected("no such frame comes in parts"));
        };
        let len = u64::from(header.body_len);
        if len > frame.missing {
            return Err(SessionError::PartUnexpected("the part is longer than the rest"));
        }
        if len < frame.missing && !len.is_multiple_of(FRAME_ALIGN as u64) {
            return Err(SessionError::PartUnexpected("its length is no multiple of 16"));
        }
        let padding = (len.next_multiple_of(FRAME_ALIGN as u64) - len) as usize;
        self.part = Some(Part { number, len: len as usize, padding });
        Ok(())
    }

    /// Takes what the input has of the part, and moves `at` past it.
    pub(crate) fn fill(&mut self, input: &[u8], at: &mut usize) -> Filled<B> {
        let Some(mut part) = self.part else { return Filled::Part };
        let rest = &input[*at..];
        let taken = rest.len().min(part.len);
        let frame = self.begun.iter_mut().find(|frame| frame.number == part.number);
        if let Some(buffer) = frame.and_then(|frame| frame.buffer.as_mut()) {
            buffer.append(&rest[..taken]);
        }
        part.len -= taken;
        let padding = part.padding.min(rest.len() - taken);
        part.padding -= padding;
        *at += taken + padding;
        self.part = Some(part);
        self.advance(taken)
    }

    /// Lends the buffer of the frame whose part is cut.
    pub(crate) fn lend(&mut self) -> Option<Lent<B>> {
        let Part { number, len, padding } = self.part?;
        let frame = self.begun.iter_mut().find(|frame| frame.number == number)?;
        let more = frame.missing > len as u64;
        Some(Lent { buffer: frame.buffer.take()?, len, padding, more, number })
    }

    /// Takes the buffer back, with `received` bytes more in it than before, which
    /// [`Lent::len`] and its padding bound.
    pub(crate) fn take_back(&mut self, lent: Lent<B>, received: usize) -> Filled<B> {
        let Some(part) = &mut self.part else { return Filled::Cut };
        let taken = received.min(part.len);
        part.len -= taken;
        part.padding -= (received - taken).min(part.padding);
        let frame = self.begun.iter_mut().find(|frame| frame.number == lent.number);
        if let Some(frame) = frame {
            frame.buffer = Some(lent.buffer);
        }
        self.advance(taken)
    }

    /// Notes so many bytes of the part, and what has ended with them.
    fn advance(&mut self, taken: usize) -> Filled<B> {
        let Some(part) = self.part else { return Filled::Part };
        self.missing -= taken as u64;
        let index = self.begun.iter().position(|frame| frame.number == part.number);
        if let Some(index) = index {
            self.begun[index].missing -= taken as u64;
        }
        if part.len + part.padding > 0 {
            return Filled::Cut;
        }
        self.part = None;
        match index {
            Some(index) if self.begun[index].missing == 0 => {
                let LongFrame { header, buffer, .. } = self.begun.remove(index);
                // One that was refused ends without a word: its sender was told.
                buffer.map_or(Filled::Part, |buffer| Filled::Frame(Partial { header, buffer }))
            }
            _ => Filled::Part,
        }
    }
}

/// The header of a frame that comes in parts, as it is once it has come.
pub(crate) fn whole(header: Header) -> Header {
    Header { flags: header.flags.without(Flags::IN_PARTS), ..header }
}

/// The header of a part.
pub(crate) fn part_header(number: u64, len: u32) -> Header {
    let (kind, call, flags) = (Kind::Part, CallId(number), Flags::NONE);
    Header { body_len: len, meta_len: 0, kind, flags, call, code: 0, time_us: 0, aux: 0 }
}

//! Frames in: found in received bytes where they lie.
//!
//! Between the ring and the session on the path of a call. A frame that lies whole in the input
//! is given as a range of it; a frame that is cut is copied once, into a buffer that the
//! transport gives. The declared length is checked against the limit before such a buffer is
//! asked for, and a buffer grows with the bytes received, never with the length declared.

use core::ops::Range;

use rkyv::util::AlignedVec;

use crate::{
    header::{Flags, Header, Kind},
    hello::Hello,
    limits::{FRAME_ALIGN, HEADER_LEN},
    parts::{Filled, Lent, LongFrames, whole},
    session::SessionError,
};

/// Finds frames in a stream of bytes that arrives in pieces of any size.
///
/// Call [`next`](Self::next) with a piece until it answers [`Step::More`], then with the piece
/// that follows it in the stream. How much of a piece was consumed is counted in `at`, the
/// caller's variable, so that the caller keeps the piece and its memory.
///
/// A transport that would rather receive the rest of a large frame where it belongs than have it
/// copied takes the cut frame out ([`take_partial`](Self::take_partial)) between two pieces.
///
/// The first frame of a stream is a HELLO (or a GOAWAY), and what a HELLO's header says is checked
/// before its body is there: a peer that is not known yet cannot have more kept than the longest
/// HELLO.
///
/// A frame that was refused by its header is not kept: what is missing of it is skipped as it
/// comes.
///
/// A frame that comes in parts is put together between the others, and is given when its last part
/// has come. A transport that would rather receive a part to its place takes the frame's buffer
/// out ([`lend_part`](Self::lend_part)) between two pieces.
///
/// Invariant: of `head_len > 0`, `partial` being there, `skip_len > 0` and a part being cut one
/// holds at most; each is one frame that has begun and not ended, and the next byte of input
/// continues it.
#[derive(Debug)]
pub struct Decoder<B> {
    frame_len_max: u32,
    /// Whether the header of a HELLO was accepted.
    has_begun: bool,
    /// The start of a header that is cut.
    head: [u8; HEADER_LEN],
    head_len: usize,
    partial: Option<Partial<B>>,
    /// Bytes that are still to come of a frame that nobody wants.
    skip_len: u64,
    long: LongFrames<B>,
}

/// What the decoder found.
#[derive(Debug, PartialEq, Eq)]
pub enum Step<B> {
    /// A frame lies whole in the input; its body is this range of it.
    InPlace {
        /// The frame's header.
        header: Header,
        /// Where the body lies in the input.
        body: Range<usize>,
    },
    /// A frame that was cut is complete.
    Assembled(Partial<B>),
    /// A frame that was refused by its header has ended, and more follows it. The session is told
    /// by [`handle_skipped`](crate::Session::handle_skipped).
    Skipped,
    /// A frame that comes in parts has begun, or one of its parts has ended that is not the last.
    /// The session is told as of a frame that was skipped.
    Part,
    /// The input is used up; what was left of it is kept.
    More,
}

/// A frame whose header is known and whose bytes were copied out of the input.
#[derive(Debug, PartialEq, Eq)]
pub struct Partial<B> {
    /// The frame's header.
    pub header: Header,
    /// The frame's bytes so far, from the header on.
    pub buffer: B,
}

/// Where a cut frame is put together: aligned to 16 bytes and filled from the front.
pub trait FrameBuffer {
    /// Appends bytes. Never called beyond the frame's length.
    fn append(&mut self, bytes: &[u8]);

    /// What was appended so far.
    fn filled(&self) -> &[u8];
}

impl<B: FrameBuffer> Decoder<B> {
    /// A decoder that refuses frames longer than `frame_len_max` bytes.
    pub fn new(frame_len_max: u32) -> Self {
        let head = [0; HEADER_LEN];
        let (has_begun, long) = (false, LongFrames::default());
        Self { frame_len_max, has_begun, head, head_len: 0, partial: None, skip_len: 0, long }
    }

    /// The next frame, where it lies whole in `input[*at..]` and is an ordinary one: its header is
    /// put into `found`, its payload is given, and `at` is moved past it. `None` moves nothing, and
    /// [`next`](Self::next) finds out why.
    ///
    /// Almost every frame is found so. Apart from `next`, so that a header goes from registers to
    /// where the session reads it.
    #[inline(always)]
    pub fn next_whole(
        &self,
        input: &[u8],
        at: &mut usize,
        found: &mut Header,
    ) -> Option<Range<usize>> {
        if !self.has_begun || !self.is_between_frames() {
            return None;
        }
        let rest = input.get(*at..)?;
        let bytes = rest.first_chunk()?;
        // Written once, field by field: copied on from elsewhere it is read back before it is stored.
        *found = Header::read(bytes, Kind::of(bytes).ok()?);
        let header = &*found;
        header.check(bytes).ok()?;
        let frame_len = header.whole_len();
        let len_max = rest.len().min(self.frame_len_max as usize) as u64;
        if frame_len > len_max || !header.is_ordinary() {
            return None;
        }
        let body = *at + HEADER_LEN;
        *at += frame_len as usize;
        // The body is shorter than its frame, which was compared with the input.
        Some(body..body + header.payload_len() as usize)
    }

    /// Finds the next frame in `input[*at..]` and moves `at` past what was consumed.
    ///
    /// `take` is called with the header of a frame that is cut, and gives a buffer for the frame,
    /// nothing where the frame is refused by its header and to be skipped, or the error where it
    /// can do neither.
    ///
    /// # Errors
    ///
    /// Where the bytes are no frame, one longer than the limit, a HELLO of no common version, or
    /// where the stream does not begin with a HELLO. The stream cannot be read further.
    #[inline]
    pub fn next(
        &mut self,
        input: &[u8],
        at: &mut usize,
        take: impl FnOnce(&Header) -> Result<Option<B>, SessionError>,
    ) -> Result<Step<B>, SessionError> {
        let mut header = Header::EMPTY;
        if let Some(body) = self.next_whole(input, at, &mut header) {
            return Ok(Step::InPlace { header, body });
        }
        if !self.is_between_frames() {
            return self.next_cut(input, at, take);
        }
        let rest = &input[*at..];
        let Some(bytes) = rest.first_chunk() else {
            self.keep_head(rest, at);
            return Ok(Step::More);
        };
        let header = self.check(bytes)?;
        if header.kind == Kind::Part || header.flags.contains(Flags::IN_PARTS) {
            *at += HEADER_LEN;
            return self.next_part(header, input, at, take);
        }
        let frame_len = header.frame_len() as usize;
        if frame_len > rest.len() {
            return Ok(match take(&header)? {
                Some(buffer) => self.assemble(header, buffer, input, at),
                None => self.skip(header.frame_len(), input, at),
            });
        }
        let body = *at + HEADER_LEN;
        *at += frame_len;
        // The body is shorter than its frame, which was compared with the input.
        Ok(Step::InPlace { header, body: body..body + header.payload_len() as usize })
    }

    /// The header that `bytes` begin with, if they hold all of it. For a transport that receives
    /// a frame where it belongs from its first byte on.
    ///
    /// # Errors
    ///
    /// As [`next`](Self::next).
    pub fn header_of(&mut self, bytes: &[u8]) -> Result<Option<Header>, SessionError> {
        bytes.first_chunk().map(|bytes| self.check(bytes)).transpose()
    }

    /// Length of the frame that is cut, in bytes, as far as it is known.
    pub fn cut_len(&self) -> Option<u64> {
        match &self.partial {
            Some(partial) => Some(partial.header.frame_len()),
            None if self.skip_len > 0 => Some(self.skip_len),
            None => self.long.cut_part().map(|(len, _)| len as u64),
        }
    }

    /// The frame that is cut, if its header is complete.
    pub fn partial(&self) -> Option<&Partial<B>> {
        self.partial.as_ref()
    }

    /// Takes the cut frame out; the caller receives the rest of it elsewhere, and the next input
    /// begins after it.
    pub fn take_partial(&mut self) -> Option<Partial<B>> {
        self.partial.take()
    }

    /// Bytes that are still to come of the part that is cut, where it has a place: a transport may
    /// receive them there.
    pub fn cut_part_len(&self) -> Option<usize> {
        self.long.cut_part().and_then(|(len, has_place)| has_place.then_some(len))
    }

    /// Lends the buffer of the frame whose part is cut, to receive the rest of the part into it.
    /// Nothing is decoded until it was [taken back](Self::take_part_back).
    pub fn lend_part(&mut self) -> Option<Lent<B>> {
        self.long.lend()
    }

    /// Takes a lent buffer back, in which `received` bytes of the part and the padding behind it
    /// have come; the next input goes on behind them.
    pub fn take_part_back(&mut self, lent: Lent<B>, received: usize) -> Step<B> {
        step_of(self.long.take_back(lent, received))
    }

    /// Bytes that are still to come of frames that come in parts, and bytes that were announced of
    /// such in the life of the stream.
    pub fn long_frames(&self) -> (u64, u64) {
        (self.long.missing(), self.long.announced())
    }

    /// Lets go of what was put together so far. Nothing more can be decoded.
    pub fn forget(&mut self) {
        self.partial = None;
        self.long.clear();
    }

    /// Whether the input so far ended between two frames; those that come in parts may have begun.
    #[inline]
    pub fn is_between_frames(&self) -> bool {
        self.head_len == 0
            && self.partial.is_none()
            && self.skip_len == 0
            && !self.long.is_in_part()
    }

    /// Parses a header and compares the length it declares with the limit.
    #[inline]
    fn check(&mut self, bytes: &[u8; HEADER_LEN]) -> Result<Header, SessionError> {
        let header = Header::parse(bytes)?;
        if !self.has_begun || header.kind == Kind::Hello {
            self.check_first(&header)?;
        }
        if header.whole_len() > u64::from(self.frame_len_max) {
            return Err(SessionError::FrameTooLong {
                frame_len: header.whole_len(),
                frame_len_max: self.frame_len_max,
            });
        }
        Ok(header)
    }

    /// Checks the header of a first frame, or of a HELLO that is none.
    #[cold]
    fn check_first(&mut self, header: &Header) -> Result<(), SessionError> {
        match header.kind {
            Kind::Hello => {
                Hello::check_header(header)?;
                self.has_begun = true;
                Ok(())
            }
            // A side that does not open the connection may say why.
            Kind::GoAway => Ok(()),
            kind => Err(SessionError::Unexpected { kind, why: "a connection begins with HELLO" }),
        }
    }

    /// Goes on with a frame whose first bytes came in an earlier input.
    fn next_cut(
        &mut self,
        input: &[u8],
        at: &mut usize,
        take: impl FnOnce(&Header) -> Result<Option<B>, SessionError>,
    ) -> Result<Step<B>, SessionError> {
        if let Some(Partial { header, buffer }) = self.partial.take() {
            return Ok(self.assemble(header, buffer, input, at));
        }
        if self.skip_len > 0 {
            return Ok(self.skip(self.skip_len, input, at));
        }
        if self.long.is_in_part() {
            return Ok(step_of(self.long.fill(input, at)));
        }
        self.keep_head(&input[*at..], at);
        if self.head_len < HEADER_LEN {
            return Ok(Step::More);
        }
        // A header that is refused stays, so that it is refused again and nothing after it read.
        let head = self.head;
        let header = self.check(&head)?;
        if header.kind == Kind::Part || header.flags.contains(Flags::IN_PARTS) {
            let step = self.next_part(header, input, at, take)?;
            self.head_len = 0;
            return Ok(step);
        }
        let buffer = take(&header)?;
        self.head_len = 0;
        let Some(mut buffer) = buffer else {
            return Ok(self.skip(header.frame_len() - HEADER_LEN as u64, input, at));
        };
        buffer.append(&head);
        Ok(self.assemble(header, buffer, input, at))
    }

    /// Goes on behind the header of a part, or of a frame that comes in parts.
    #[cold]
    fn next_part(
        &mut self,
        header: Header,
        input: &[u8],
        at: &mut usize,
        take: impl FnOnce(&Header) -> Result<Option<B>, SessionError>,
    ) -> Result<Step<B>, SessionError> {
        if header.kind == Kind::Part {
            self.long.begin_part(&header)?;
            return Ok(step_of(self.long.fill(input, at)));
        }
        let header = whole(header);
        self.long.check_begin(&header)?;
        let buffer = take(&header)?;
        self.long.begin(header, buffer);
        Ok(Step::Part)
    }

    /// Skips what the input has of so many bytes, and notes how many are still to come.
    fn skip(&mut self, len: u64, input: &[u8], at: &mut usize) -> Step<B> {
        let rest = (input.len() - *at) as u64;
        let skipped = rest.min(len);
        *at += skipped as usize;
        self.skip_len = len - skipped;
        if self.skip_len == 0 && skipped < rest { Step::Skipped } else { Step::More }
    }

    /// Copies what the input has of a frame; keeps the frame where that is not all of it.
    fn assemble(&mut self, header: Header, mut buffer: B, input: &[u8], at: &mut usize) -> Step<B> {
        let rest = &input[*at..];
        let missing = header.frame_len() as usize - buffer.filled().len();
        let copied = rest.len().min(missing);
        buffer.append(&rest[..copied]);
        *at += copied;
        let partial = Partial { header, buffer };
        if copied == missing {
            return Step::Assembled(partial);
        }
        self.partial = Some(partial);
        Step::More
    }

    /// Copies as much of a header as there is.
    fn keep_head(&mut self, rest: &[u8], at: &mut usize) {
        let copied = rest.len().min(HEADER_LEN - self.head_len);
        self.head[self.head_len..self.head_len + copied].copy_from_slice(&rest[..copied]);
        self.head_len += copied;
        *at += copied;
    }
}

fn step_of<B>(filled: Filled<B>) -> Step<B> {
    match filled {
        Filled::Cut => Step::More,
        Filled::Part => Step::Part,
        Filled::Frame(frame) => Step::Assembled(frame),
    }
}

impl<B: FrameBuffer> Partial<B> {
    /// The body, once the frame is complete.
    pub fn body(&self) -> &[u8] {
        &self.buffer.filled()[self.body_range()]
    }

    /// Where the body lies in the buffer.
    pub fn body_range(&self) -> Range<usize> {
        HEADER_LEN..HEADER_LEN + self.header.payload_len() as usize
    }
}

impl FrameBuffer for AlignedVec<FRAME_ALIGN> {
    fn append(&mut self, bytes: &[u8]) {
        self.extend_from_slice(bytes);
    }

    fn filled(&self) -> &[u8] {
        self
    }
}

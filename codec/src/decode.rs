//! Frames in: found in received bytes where they lie.
//!
//! Between the ring and the session on the path of a call. A frame that lies whole in the input
//! is given as a range of it; a frame that is cut is copied once, into a buffer that the
//! transport gives. The declared length is checked against the limit before such a buffer is
//! asked for, and a buffer grows with the bytes received, never with the length declared.

use alloc::boxed::Box;
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
/// What only cut and long frames need has memory of its own, so that a decoder between two frames
/// is small: there are thousands that idle. It is kept for the next such frame until
/// [`shrink_to_fit`](Self::shrink_to_fit).
///
/// Invariant: of the head of a cut frame, its `partial`, its `skip_len` and a part being cut one is
/// there at most; each is one frame that has begun and not ended, and the next byte of input
/// continues it. `is_between` says that none is.
#[derive(Debug)]
pub struct Decoder<B> {
    frame_len_max: u32,
    /// Whether the header of a HELLO was accepted.
    has_begun: bool,
    /// Whether the input so far ended between two frames.
    is_between: bool,
    /// The frame that is cut, where one was.
    cut: Option<Box<Cut<B>>>,
    /// Frames that come in parts, where there were some ever.
    long: Option<Box<LongFrames<B>>>,
}

/// A frame that has begun and not ended.
#[derive(Debug)]
struct Cut<B> {
    /// The start of a header that is cut.
    head: [u8; HEADER_LEN],
    head_len: usize,
    partial: Option<Partial<B>>,
    /// Bytes that are still to come of a frame that nobody wants.
    skip_len: u64,
}

impl<B> Default for Cut<B> {
    fn default() -> Self {
        Self { head: [0; HEADER_LEN], head_len: 0, partial: None, skip_len: 0 }
    }
}

impl<B> Cut<B> {
    /// Whether there is none.
    fn is_none(&self) -> bool {
        self.head_len == 0 && self.partial.is_none() && self.skip_len == 0
    }
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
        Self { frame_len_max, has_begun: false, is_between: true, cut: None, long: None }
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
        if !self.has_begun || !self.is_between {
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
        let step = self.next_other(input, at, take);
        self.note_place();
        step
    }

    /// Finds what is no ordinary frame that lies whole in the input.
    fn next_other(
        &mut self,
        input: &[u8],
        at: &mut usize,
        take: impl FnOnce(&Header) -> Result<Option<B>, SessionError>,
    ) -> Result<Step<B>, SessionError> {
        if !self.is_between {
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

    /// What a stream begins with that has brought no whole header yet; nothing once it was read.
    #[inline]
    pub fn first_bytes(&self) -> Option<&[u8]> {
        if self.has_begun {
            return None;
        }
        Some(self.cut.as_ref().map_or(&[], |cut| &cut.head[..cut.head_len]))
    }

    /// Length of the frame that is cut, in bytes, as far as it is known.
    pub fn cut_len(&self) -> Option<u64> {
        if let Some(partial) = self.partial() {
            return Some(partial.header.frame_len());
        }
        let skip_len = self.skip_len();
        if skip_len > 0 { Some(skip_len) } else { self.cut_part().map(|(len, _)| len as u64) }
    }

    /// The frame that is cut, if its header is complete.
    pub fn partial(&self) -> Option<&Partial<B>> {
        self.cut.as_ref()?.partial.as_ref()
    }

    /// Takes the cut frame out; the caller receives the rest of it elsewhere, and the next input
    /// begins after it.
    pub fn take_partial(&mut self) -> Option<Partial<B>> {
        let partial = self.cut.as_mut()?.partial.take();
        self.note_place();
        partial
    }

    /// Bytes that are still to come of the part that is cut, where it has a place: a transport may
    /// receive them there.
    pub fn cut_part_len(&self) -> Option<usize> {
        self.cut_part().and_then(|(len, has_place)| has_place.then_some(len))
    }

    /// What is still to come of the part that is cut, in bytes, and whether it has a place.
    fn cut_part(&self) -> Option<(usize, bool)> {
        self.long.as_ref()?.cut_part()
    }

    /// Lends the buffer of the frame whose part is cut, to receive the rest of the part into it.
    /// Nothing is decoded until it was [taken back](Self::take_part_back).
    pub fn lend_part(&mut self) -> Option<Lent<B>> {
        self.long.as_mut()?.lend()
    }

    /// Takes a lent buffer back, in which `received` bytes of the part and the padding behind it
    /// have come; the next input goes on behind them.
    pub fn take_part_back(&mut self, lent: Lent<B>, received: usize) -> Step<B> {
        let step = step_of(self.long().take_back(lent, received));
        self.note_place();
        step
    }

    /// Bytes that are still to come of frames that come in parts, and bytes that were announced of
    /// such in the life of the stream.
    pub fn long_frames(&self) -> (u64, u64) {
        self.long.as_ref().map_or((0, 0), |long| (long.missing(), long.announced()))
    }

    /// Lets go of what was put together so far. Nothing more can be decoded.
    pub fn forget(&mut self) {
        if let Some(cut) = &mut self.cut {
            cut.partial = None;
        }
        if let Some(long) = &mut self.long {
            long.clear();
        }
        self.note_place();
    }

    /// Gives memory back that is not needed between two frames. For a transport that has not
    /// received for a while.
    pub fn shrink_to_fit(&mut self) {
        if self.is_between {
            self.cut = None;
        }
        if let Some(long) = &mut self.long {
            long.shrink_to_fit();
        }
    }

    /// Whether the input so far ended between two frames; those that come in parts may have begun.
    #[inline]
    pub fn is_between_frames(&self) -> bool {
        self.is_between
    }

    /// Notes whether the input so far ended between two frames.
    fn note_place(&mut self) {
        self.is_between = self.cut.as_ref().is_none_or(|cut| cut.is_none())
            && self.long.as_ref().is_none_or(|long| !long.is_in_part());
    }

    /// Bytes that are still to come of a frame that nobody wants.
    fn skip_len(&self) -> u64 {
        self.cut.as_ref().map_or(0, |cut| cut.skip_len)
    }

    fn cut(&mut self) -> &mut Cut<B> {
        self.cut.get_or_insert_default()
    }

    fn long(&mut self) -> &mut LongFrames<B> {
        self.long.get_or_insert_default()
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
        let partial = self.cut.as_mut().and_then(|cut| cut.partial.take());
        if let Some(Partial { header, buffer }) = partial {
            return Ok(self.assemble(header, buffer, input, at));
        }
        let skip_len = self.skip_len();
        if skip_len > 0 {
            return Ok(self.skip(skip_len, input, at));
        }
        if let Some(long) = self.long.as_mut().filter(|long| long.is_in_part()) {
            return Ok(step_of(long.fill(input, at)));
        }
        self.keep_head(&input[*at..], at);
        let Cut { head, head_len, .. } = *self.cut();
        if head_len < HEADER_LEN {
            return Ok(Step::More);
        }
        // A header that is refused stays, so that it is refused again and nothing after it read.
        let header = self.check(&head)?;
        if header.kind == Kind::Part || header.flags.contains(Flags::IN_PARTS) {
            let step = self.next_part(header, input, at, take)?;
            self.cut().head_len = 0;
            return Ok(step);
        }
        let buffer = take(&header)?;
        self.cut().head_len = 0;
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
            let long = self.long();
            long.begin_part(&header)?;
            return Ok(step_of(long.fill(input, at)));
        }
        let header = whole(header);
        self.long().check_begin(&header)?;
        let buffer = take(&header)?;
        self.long().begin(header, buffer);
        Ok(Step::Part)
    }

    /// Skips what the input has of so many bytes, and notes how many are still to come.
    fn skip(&mut self, len: u64, input: &[u8], at: &mut usize) -> Step<B> {
        let rest = (input.len() - *at) as u64;
        let skipped = rest.min(len);
        *at += skipped as usize;
        self.cut().skip_len = len - skipped;
        if skipped == len && skipped < rest { Step::Skipped } else { Step::More }
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
        self.cut().partial = Some(partial);
        Step::More
    }

    /// Copies as much of a header as there is.
    fn keep_head(&mut self, rest: &[u8], at: &mut usize) {
        // The input is used up most often where it ends between two frames.
        if rest.is_empty() {
            return;
        }
        let Cut { head, head_len, .. } = self.cut();
        let copied = rest.len().min(HEADER_LEN - *head_len);
        head[*head_len..*head_len + copied].copy_from_slice(&rest[..copied]);
        *head_len += copied;
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

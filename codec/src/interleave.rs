//! Frames out: the long ones in parts, between the others.
//!
//! Last on the path of a call inside this crate, and beside it where no frame is long. A part is
//! sent from where its frame was encoded: its header takes the place of bytes before it that were
//! sent already, so that nothing is copied and each piece is one run of bytes.
//!
//! Frames of one call, and of the calls that have its slot after it, keep their order: what follows
//! a long frame of them waits for it. A PONG and the last word wait for all that came before. Other
//! frames overtake, so a long message delays a short one by a part or two, whatever its length.

use alloc::{boxed::Box, collections::VecDeque, vec::Vec};
use core::{mem, ops::Range};

use crate::{
    header::{Flags, Header, Kind},
    limits::{FRAME_ALIGN, HEADER_LEN, LONG_FRAMES_MAX, PART_LEN, PARTS_AT_ONCE_MAX},
    parts::part_header,
};

/// Cuts what a [`Session`](crate::Session) has to send into pieces.
///
/// The output goes in by [`push`](Self::push); then, while there is a [next piece](Self::next_piece),
/// it is sent whole and given back to [`sent`](Self::sent). A transport that sends no long frames
/// in parts needs none of it.
///
/// What only long frames need has memory of its own, so that one that has none is small: there are
/// thousands that idle. It is kept for the next long frame until
/// [`shrink_to_fit`](Self::shrink_to_fit).
#[derive(Debug)]
pub struct Interleaver {
    part_len: usize,
    /// How many long frames were begun before there was this queue.
    begun: u64,
    queue: Option<Box<Queue>>,
}

/// What waits to be sent, and what of it is being sent.
#[derive(Debug)]
struct Queue {
    part_len: usize,
    /// Frames that wait for nothing.
    short: Vec<u8>,
    /// Those before them, of which some had their turn: up to this place.
    short_rest: Option<(Vec<u8>, usize)>,
    /// Bytes of short frames that came, and that had their turn.
    short_came: u64,
    short_went: u64,
    /// Long frames that were not sent to their ends, in the order in which they came.
    long: VecDeque<LongFrame>,
    /// Frames that no long frame must be behind that came before them, and the last of those.
    behind: VecDeque<(u64, Vec<u8>)>,
    /// How many long frames came.
    pushed: u64,
    /// What long frames lie in.
    outputs: Vec<Output>,
    output_ids: u64,
    /// How many long frames were begun, each of which has its number.
    count: u64,
    /// Parts that were sent.
    turns: u32,
    last_was_short: bool,
    /// What is being sent.
    out: Out,
}

/// Bytes to be sent next: whole frames.
#[derive(Debug, PartialEq, Eq)]
pub struct Piece {
    /// To be given back, as they are.
    pub bytes: Vec<u8>,
    /// What is to be sent of them.
    pub range: Range<usize>,
    /// Whether the next piece follows at once, so that the network may wait for it.
    pub more: bool,
}

#[derive(Debug)]
struct LongFrame {
    /// Its place among all that came.
    place: u64,
    header: Header,
    /// Once it was begun.
    begun: Option<Begun>,
    output: u64,
    /// What is left of its payload.
    left: Range<usize>,
    /// Frames of its call that follow it.
    after: Vec<u8>,
}

/// A place in a table of calls: frames of the calls that have it, one after the other, keep their
/// order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Slot {
    slot: u32,
    /// Whose table it is.
    is_made_here: bool,
}

impl Slot {
    /// That of a frame, if its order matters.
    fn of(header: &Header) -> Option<Self> {
        let is_made_here = match header.kind {
            Kind::Request | Kind::Cancel => true,
            Kind::Response => false,
            Kind::Item => !header.flags.contains(Flags::CALLEE),
            _ => return None,
        };
        Some(Self { slot: header.call.slot(), is_made_here })
    }
}

/// Whether a frame carries a message: others are never long.
fn is_message(header: &Header) -> bool {
    match header.kind {
        Kind::Request | Kind::OneWay => true,
        Kind::Response => header.code == 0,
        Kind::Item => !header.flags.contains(Flags::END),
        _ => false,
    }
}

/// A long frame whose header is among the short frames.
#[derive(Clone, Copy, Debug)]
struct Begun {
    number: u64,
    /// Bytes of short frames up to the end of the header: its parts follow them.
    at: u64,
}

/// Bytes in which long frames lie.
#[derive(Debug)]
struct Output {
    id: u64,
    /// None in it while a piece of it is out.
    bytes: Vec<u8>,
    /// Long frames in it that are not at their ends.
    frames: usize,
}

/// Every so many parts, one is of the frame that came first.
const OLDEST_EVERY: u32 = 4;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Out {
    Nothing,
    /// Short frames, up to this place.
    Short(usize),
    /// A part, of a frame in this output.
    Part(u64),
}

impl Default for Interleaver {
    fn default() -> Self {
        Self::new(PART_LEN)
    }
}

impl Interleaver {
    /// One that cuts into parts of `part_len` bytes, a multiple of 16.
    pub fn new(part_len: usize) -> Self {
        debug_assert!(part_len.is_multiple_of(16) && part_len > 0, "parts keep the alignment");
        Self { part_len, begun: 0, queue: None }
    }

    /// Whether there is nothing to send, and nothing is being sent.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.queue.as_ref().is_none_or(|queue| queue.is_empty())
    }

    /// Whether these bytes can be sent as they are: none of it is long, and nothing waits that
    /// they must not overtake.
    #[inline]
    pub fn passes(&self, output: &[u8]) -> bool {
        output.len() <= self.part_len + HEADER_LEN && self.is_empty()
    }

    /// Bytes that wait, but for those of the long frame that came first. What follows that counts.
    pub fn waiting_bytes(&self) -> usize {
        self.queue.as_ref().map_or(0, |queue| queue.waiting_bytes())
    }

    /// Takes output of a session: whole frames, in order.
    pub fn push(&mut self, output: Vec<u8>) {
        let (part_len, begun) = (self.part_len, self.begun);
        self.queue.get_or_insert_with(|| Box::new(Queue::new(part_len, begun))).push(output);
    }

    /// The next piece to be sent; none where there is nothing, or one was not given back.
    pub fn next_piece(&mut self) -> Option<Piece> {
        self.queue.as_mut()?.next_piece()
    }

    /// Takes back the bytes of a piece that was sent. Gives them where they are not needed any
    /// more, for their memory.
    #[inline]
    pub fn sent(&mut self, bytes: Vec<u8>) -> Option<Vec<u8>> {
        match &mut self.queue {
            Some(queue) => queue.sent(bytes),
            None => Some(bytes),
        }
    }

    /// Gives memory back where there is nothing to send. For a transport that has not sent for a
    /// while.
    pub fn shrink_to_fit(&mut self) {
        if let Some(queue) = self.queue.take_if(|queue| queue.is_empty()) {
            self.begun = queue.count;
        }
    }
}

impl Queue {
    /// An empty one, after so many long frames.
    fn new(part_len: usize, count: u64) -> Self {
        Self {
            part_len,
            short: Vec::new(),
            short_rest: None,
            short_came: 0,
            short_went: 0,
            long: VecDeque::new(),
            behind: VecDeque::new(),
            pushed: 0,
            outputs: Vec::new(),
            count,
            turns: 0,
            last_was_short: false,
            output_ids: 0,
            out: Out::Nothing,
        }
    }

    fn is_empty(&self) -> bool {
        !self.has_short() && self.long.is_empty() && self.out == Out::Nothing
    }

    #[inline]
    fn has_short(&self) -> bool {
        !self.short.is_empty() || self.short_rest.is_some()
    }

    fn waiting_bytes(&self) -> usize {
        let after = self.long.iter().map(|frame| frame.after.len()).sum::<usize>();
        let long = self.long.iter().skip(1).map(|frame| frame.left.len());
        let behind = self.behind.iter().map(|(_, frame)| frame.len());
        let rest = self.short_rest.iter().map(|(bytes, at)| bytes.len() - at);
        self.short.len() + after + long.chain(behind).chain(rest).sum::<usize>()
    }

    fn push(&mut self, output: Vec<u8>) {
        if self.long.is_empty() && !self.has_long(&output) {
            return self.push_short(output);
        }
        self.output_ids += 1;
        let id = self.output_ids;
        let (mut at, mut frames) = (0, 0);
        while let Some(header) = output.get(at..).and_then(|rest| rest.first_chunk()) {
            let Ok(header) = Header::parse(header) else { break };
            let end = output.len().min(at + header.whole_len() as usize);
            if self.is_long(&header) {
                let payload = at + HEADER_LEN;
                let left = payload..payload + header.payload_len() as usize;
                let (begun, after) = (None, Vec::new());
                self.pushed += 1;
                let (place, output) = (self.pushed, id);
                self.long.push_back(LongFrame { place, header, begun, output, left, after });
                frames += 1;
            } else {
                self.push_frame(&header, &output[at..end]);
            }
            at = end;
        }
        debug_assert_eq!(at, output.len(), "an output is whole frames");
        if frames > 0 && !self.long.is_empty() {
            self.outputs.push(Output { id, bytes: output, frames });
        }
    }

    fn next_piece(&mut self) -> Option<Piece> {
        if self.out != Out::Nothing {
            return None;
        }
        while let Some(index) = self.first_to_begin() {
            self.begin(index);
        }
        let next = self.next_long();
        // In turns, so that neither holds the other up.
        self.last_was_short = self.has_short() && !(next.is_some() && self.last_was_short);
        if self.last_was_short { self.short_piece() } else { next.map(|index| self.part(index)) }
    }

    fn sent(&mut self, bytes: Vec<u8>) -> Option<Vec<u8>> {
        match mem::replace(&mut self.out, Out::Nothing) {
            Out::Nothing => Some(bytes),
            Out::Short(to) if to < bytes.len() => {
                self.short_rest = Some((bytes, to));
                None
            }
            Out::Short(_) => Some(bytes),
            Out::Part(id) => {
                let index = self.outputs.iter().position(|output| output.id == id);
                match index {
                    Some(index) if self.outputs[index].frames > 0 => {
                        self.outputs[index].bytes = bytes;
                        None
                    }
                    Some(index) => {
                        self.outputs.remove(index);
                        Some(bytes)
                    }
                    // What it was part of was given up meanwhile.
                    None => Some(bytes),
                }
            }
        }
    }

    /// Whether some of these frames are long.
    fn has_long(&self, output: &[u8]) -> bool {
        let mut at = 0;
        while output.len() - at > self.part_len + HEADER_LEN
            && let Some(header) = output.get(at..).and_then(|rest| rest.first_chunk())
            && let Ok(header) = Header::parse(header)
        {
            if self.is_long(&header) {
                return true;
            }
            at = output.len().min(at + header.whole_len() as usize);
        }
        false
    }

    fn is_long(&self, header: &Header) -> bool {
        header.payload_len() > self.part_len as u64 && is_message(header)
    }

    fn push_short(&mut self, output: Vec<u8>) {
        if self.short.is_empty() {
            self.short_came += output.len() as u64;
            self.short = output;
        } else {
            self.add_short(&output);
        }
    }

    /// Takes a frame that is not long.
    fn push_frame(&mut self, header: &Header, frame: &[u8]) {
        // It says that what was sent before it has come, or that nothing follows it.
        let is_last = header.kind == Kind::GoAway && header.flags.contains(Flags::END);
        if (is_last || header.kind == Kind::Pong) && !self.long.is_empty() {
            self.behind.push_back((self.pushed, frame.to_vec()));
            return;
        }
        let slot = Slot::of(header);
        let mut before = self.long.iter_mut().rev();
        match before.find(|long| slot.is_some() && Slot::of(&long.header) == slot) {
            Some(long) => long.after.extend_from_slice(frame),
            None => self.add_short(frame),
        }
    }

    /// A long frame has come to its end: what waited for it, and for all before it, need not.
    fn release_behind(&mut self) {
        let first = self.long.iter().map(|frame| frame.place).min().unwrap_or(u64::MAX);
        while let Some((last, frame)) = self.behind.front_mut()
            && *last < first
        {
            let frame = mem::take(frame);
            self.behind.pop_front();
            self.add_short(&frame);
        }
    }

    /// A long frame that may begin, by its place in the queue.
    fn first_to_begin(&self) -> Option<usize> {
        let begun = self.long.iter().filter(|frame| frame.begun.is_some()).count();
        if begun >= LONG_FRAMES_MAX.min(self.long.len()) {
            return None;
        }
        let mut frames = self.long.iter().enumerate();
        frames.position(|(index, frame)| {
            let slot = Slot::of(&frame.header);
            let mut before = self.long.iter().take(index);
            let follows = |long: &LongFrame| slot.is_some() && Slot::of(&long.header) == slot;
            frame.begun.is_none() && !before.any(follows)
        })
    }

    /// Begins a long frame: its header goes ahead of its parts, behind the frames that came before.
    fn begin(&mut self, index: usize) {
        self.count += 1;
        let header = self.long[index].header;
        let flags = header.flags.with(Flags::IN_PARTS);
        self.add_short(&Header { flags, ..header }.encode());
        self.long[index].begun = Some(Begun { number: self.count, at: self.short_came });
    }

    fn add_short(&mut self, frames: &[u8]) {
        self.short_came += frames.len() as u64;
        self.short.extend_from_slice(frames);
    }

    /// The long frame whose turn it is, by its place in the queue: the one that is nearest to its
    /// end, and now and then the one that waits longest. So a message of which most was sent is not
    /// held up by those behind it, and none is held up for ever.
    fn next_long(&self) -> Option<usize> {
        let is_begun = |frame: &LongFrame| frame.begun.is_some_and(|at| at.at <= self.short_went);
        let mut begun = (0..self.long.len()).filter(|index| is_begun(&self.long[*index]));
        if self.turns.is_multiple_of(OLDEST_EVERY) {
            return begun.next();
        }
        begun.min_by_key(|index| self.long[*index].left.len())
    }

    /// Short frames: as many as wait, or where a long one waits too, about as long as a part.
    fn short_piece(&mut self) -> Option<Piece> {
        let rest = self.short_rest.take();
        let short = || (mem::take(&mut self.short), 0);
        let (bytes, from) = rest.unwrap_or_else(short);
        let mut to = bytes.len();
        if !self.long.is_empty() && to - from > self.part_len + HEADER_LEN {
            to = from;
            while let Some(header) = bytes.get(to..).and_then(|rest| rest.first_chunk())
                && let Ok(header) = Header::parse(header)
            {
                let end = bytes.len().min(to + header.frame_len() as usize);
                if to > from && end - from > self.part_len {
                    break;
                }
                to = end;
            }
        }
        self.out = Out::Short(to);
        self.short_went += (to - from) as u64;
        // What ends with the header of a long frame is followed by a part.
        let more =
            self.long.iter().any(|frame| frame.begun.is_some_and(|at| at.at == self.short_went));
        (to > from).then_some(Piece { bytes, range: from..to, more })
    }

    /// The next part of a long frame that has begun.
    fn part(&mut self, index: usize) -> Piece {
        let frame = &mut self.long[index];
        let (id, left) = (frame.output, frame.left.clone());
        let is_alone = self.short.is_empty() && self.short_rest.is_none();
        let len_max = if is_alone { PARTS_AT_ONCE_MAX * self.part_len } else { self.part_len };
        // A rest that is short goes along.
        let is_last = left.len() <= len_max + self.part_len / 2;
        let len = if is_last { left.len() } else { len_max };
        frame.left.start += len;
        // Parts are as short as what a session encodes, whose lengths fit.
        let header = part_header(frame.begun.map_or(0, |begun| begun.number), len as u32);
        let output = self.outputs.iter_mut().find(|output| output.id == id);
        let bytes = output.map_or_else(Vec::new, |output| {
            output.frames -= usize::from(is_last);
            mem::take(&mut output.bytes)
        });
        self.out = Out::Part(id);
        self.turns = self.turns.wrapping_add(1);
        if is_last && let Some(frame) = self.long.remove(index) {
            self.add_short(&frame.after);
            self.release_behind();
        }
        piece(bytes, left.start, len, &header)
    }
}

/// A part with its header, in the place of the bytes before it.
fn piece(mut bytes: Vec<u8>, start: usize, len: usize, header: &Header) -> Piece {
    let from = start - HEADER_LEN;
    if let Some(place) = bytes.get_mut(from..start) {
        place.copy_from_slice(&header.encode());
    }
    let to = (start + len).next_multiple_of(FRAME_ALIGN);
    Piece { bytes, range: from..to, more: false }
}

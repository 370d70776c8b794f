//! The decoder finds the same frames in a stream however it is cut, puts those that come in parts
//! together as their parts say, and keeps no more than came.
//!
//! Input: a byte of options, a byte that says how many bytes of cuts follow, these, the stream or
//! choices that it is made of (`make`).

use std::{cell::Cell, rc::Rc};

use ringcall_codec::{
    CallId, Decoder, Flags, FrameBuffer, Header, Kind, Partial, SessionError, Step,
    limits::{FRAME_ALIGN, FRAME_LEN_MAX_FLOOR, HEADER_LEN, LONG_FRAMES_MAX},
};

use crate::{
    input::{Buffer, Input},
    seeds,
};

/// What was found of a frame: its header, and its body where it was wanted and is complete.
type Found = (Header, Option<Vec<u8>>);

/// What a decoder made of a stream.
#[derive(Debug, Default)]
struct Outcome {
    frames: Vec<Found>,
    error: Option<SessionError>,
    /// What the decoder said of frames in parts at the end.
    long: (u64, u64),
}

/// Where a cut frame is put together, and how much memory all such places of a decoder take.
#[derive(Debug)]
struct Place {
    buffer: Buffer,
    held: Rc<Cell<usize>>,
}

impl Place {
    fn new(held: &Rc<Cell<usize>>) -> Self {
        Self { buffer: Buffer::new(), held: held.clone() }
    }
}

impl FrameBuffer for Place {
    fn append(&mut self, bytes: &[u8]) {
        let before = self.buffer.capacity();
        self.buffer.append(bytes);
        self.held.set(self.held.get() + self.buffer.capacity() - before);
    }

    fn filled(&self) -> &[u8] {
        &self.buffer
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.held.set(self.held.get() - self.buffer.capacity());
    }
}

/// A frame that comes in parts, as whoever reads the stream in one piece sees it.
struct Long {
    number: u64,
    header: Header,
    payload: Vec<u8>,
}

/// What the transport does with a frame that is cut.
#[derive(Clone, Copy, PartialEq)]
enum Wish {
    Keep,
    Skip,
    NoMemory,
}

impl Wish {
    /// By the header alone, so that it does not depend on the cuts.
    fn of(header: &Header, options: u8) -> Self {
        // Nothing follows a HELLO that is not kept.
        let may_refuse = options & 0x04 != 0 && header.kind != Kind::Hello;
        match (may_refuse, header.call.0 & 7) {
            (true, 1) => Self::Skip,
            (true, 2) => Self::NoMemory,
            _ => Self::Keep,
        }
    }

    /// The answer to the decoder.
    fn place(self, header: &Header, held: &Rc<Cell<usize>>) -> Result<Option<Place>, SessionError> {
        match self {
            Self::Keep => Ok(Some(Place::new(held))),
            Self::Skip => Ok(None),
            Self::NoMemory => Err(SessionError::NoMemory { frame_len: header.frame_len() }),
        }
    }
}

/// Decodes a stream in one piece and in pieces, and compares.
pub fn run(data: &[u8]) {
    let mut input = Input(data);
    let options = input.byte();
    let cuts_len = usize::from(input.byte());
    let cuts = input.take(cuts_len);
    let mut stream = Vec::new();
    if options & 0x01 != 0 {
        // A stream that has begun well.
        stream.extend(seeds::hello());
    }
    if options & 0x20 == 0 {
        stream.extend(input.0);
    } else {
        make(input, &mut stream);
    }
    let frame_len_max = if options & 0x02 == 0 { FRAME_LEN_MAX_FLOOR } else { u32::MAX };

    let whole = decode_whole(&stream, options, frame_len_max);
    let cut = decode_cut(&stream, cuts, options, frame_len_max);
    compare(&whole, &cut, options);
}

/// Frames made of choices: bytes by chance are hardly ever a part that fits its frame.
fn make(mut input: Input<'_>, stream: &mut Vec<u8>) {
    // What is missing of each frame that comes in parts.
    let mut missing: Vec<u32> = Vec::new();
    while !input.0.is_empty() && stream.len() < 0x1_0000 {
        let choice = input.byte();
        let (call, len) = (CallId((choice >> 4).into()), u32::from(input.byte()));
        let kinds = [Kind::Request, Kind::Item, Kind::OneWay, Kind::Ping];
        let kind = kinds[usize::from(choice & 3)];
        let header = Header {
            body_len: if kind == Kind::Ping { 0 } else { len },
            meta_len: 0,
            kind,
            flags: Flags::NONE,
            call,
            code: 0,
            time_us: 0,
            aux: 0,
        };
        match choice & 0x0f {
            0..=3 => push(stream, header),
            4..=6 => {
                let meta_len = if kind == Kind::Item { 0 } else { (len & 3) as u16 };
                let body_len = len << (input.byte() & 7);
                let header = Header { body_len, meta_len, flags: Flags::IN_PARTS, ..header };
                stream.extend(header.encode());
                missing.push(header.payload_len() as u32);
            }
            7..=13 => {
                let index = usize::from(input.byte()) % (missing.len() + 1);
                let rest = missing.get(index).copied().unwrap_or_default();
                // One that fits, the rest of its frame, or whatever length.
                let body_len = match choice & 0x0f {
                    7..=9 => rest.min(16 * len),
                    10..=12 => rest,
                    _ => len,
                };
                if let Some(missing) = missing.get_mut(index) {
                    *missing = rest.saturating_sub(body_len);
                }
                let call = CallId(index as u64 + 1);
                push(stream, Header { body_len, kind: Kind::Part, call, ..header });
            }
            _ => stream.extend(input.take(len as usize)),
        }
    }
}

/// A header and as many bytes behind it as it says, which differ from place to place.
fn push(stream: &mut Vec<u8>, header: Header) {
    let start = stream.len();
    stream.extend(header.encode());
    let body = (0..header.body_len as usize).map(|at| ((start + at) ^ (start >> 8)) as u8);
    stream.extend(body);
    stream.resize(stream.len().next_multiple_of(FRAME_ALIGN), 0);
}

/// The outcome of a stream in one piece. The frame that it ends inside of has no body.
fn decode_whole(stream: &[u8], options: u8, frame_len_max: u32) -> Outcome {
    let mut decoder = Decoder::<Place>::new(frame_len_max);
    let (mut outcome, mut at, held) = (Outcome::default(), 0, Rc::default());
    // What has begun, and how many have.
    let (mut long, mut count) = (Vec::new(), 0);
    loop {
        let (start, mut asked) = (at, None);
        let step = decoder.next(stream, &mut at, |header| {
            asked = Some(*header);
            Wish::of(header, options).place(header, &held)
        });
        match step {
            Ok(Step::InPlace { header, body }) => {
                assert!(at > start && at <= stream.len());
                assert_eq!(body.start, start + HEADER_LEN);
                assert_eq!(header.payload_len(), body.len() as u64);
                assert_eq!(at - start, header.frame_len() as usize);
                assert_eq!(Header::parse(&header.encode()), Ok(header), "headers have one form");
                outcome.frames.push((header, Some(stream[body].to_vec())));
            }
            Ok(Step::More) => {
                assert_eq!(at, stream.len(), "nothing is left behind");
                outcome.frames.extend(asked.map(|header| (header, None)));
                outcome.long = decoder.long_frames();
                return outcome;
            }
            Ok(Step::Part) if asked.is_some() => {
                count += 1;
                let header = asked.expect("there is one");
                if Wish::of(&header, options) == Wish::Skip {
                    outcome.frames.push((header, None));
                }
                long.push(Long { number: count, header, payload: Vec::new() });
            }
            Ok(Step::Part) => {
                let ended = take_part(&mut long, &stream[start..at]);
                let was_kept = |long: Long| Wish::of(&long.header, options) == Wish::Keep;
                assert!(!ended.is_some_and(was_kept), "a frame that was kept is given");
            }
            Ok(Step::Assembled(partial)) => {
                let ended = take_part(&mut long, &stream[start..at]).expect("it has ended");
                assert_eq!(ended.header, partial.header);
                assert!(ended.payload == partial.body());
                outcome.frames.push((ended.header, Some(ended.payload)));
            }
            Ok(step) => panic!("{step:?} in one piece"),
            Err(error) => {
                outcome.error = Some(error);
                return outcome;
            }
        }
        let missing = |long: &Long| long.header.payload_len() - long.payload.len() as u64;
        assert_eq!(decoder.long_frames().0, long.iter().map(missing).sum::<u64>());
        assert!(long.len() <= LONG_FRAMES_MAX);
    }
}

/// Reads a PART; gives its frame if that has ended.
fn take_part(long: &mut Vec<Long>, part: &[u8]) -> Option<Long> {
    let (head, rest) = part.split_first_chunk().expect("a part has a header");
    let header = Header::parse(head).expect("it was read before");
    let index = long.iter().position(|long| long.number == header.call.0).expect("it has begun");
    let frame = &mut long[index];
    frame.payload.extend_from_slice(&rest[..header.body_len as usize]);
    assert_eq!(rest.len(), (header.body_len as usize).next_multiple_of(FRAME_ALIGN));
    let is_complete = frame.payload.len() as u64 == frame.header.payload_len();
    is_complete.then(|| long.remove(index))
}

/// The outcome of a stream in pieces, of which a frame that is skipped or not complete has no body.
fn decode_cut(stream: &[u8], cuts: &[u8], options: u8, frame_len_max: u32) -> Outcome {
    let mut decoder = Decoder::<Place>::new(frame_len_max);
    let (mut outcome, held) = (Outcome::default(), Rc::default());
    let (mut rest, mut cuts) = (stream, cuts.iter().cycle());
    while !rest.is_empty() {
        let cut = cuts.next().copied().unwrap_or(u8::MAX);
        // Lengths around those of headers, and some longer.
        let piece_len = if cut < 0x80 { 1 + cut % 64 } else { cut };
        let (piece, tail) = rest.split_at(usize::from(piece_len).min(rest.len()));
        rest = tail;
        if let Err(error) = decode_piece(&mut decoder, piece, options, &held, &mut outcome.frames) {
            outcome.error = Some(error);
            return outcome;
        }
        if options & 0x40 != 0 && decoder.cut_part_len().is_some() {
            // As a transport does that receives a part to its place, all of it or less.
            rest = receive_part(&mut decoder, rest, cut, &mut outcome.frames);
        }
        let received = stream.len() - rest.len();
        let places = LONG_FRAMES_MAX + 1;
        assert!(held.get() <= 64 * places + 4 * received, "{} of {received}", held.get());
        if let Some(partial) = decoder.partial() {
            let kept = &partial.buffer.buffer;
            assert!(kept.len() <= received, "{} bytes of {received}", kept.len());
            assert!(kept.capacity() <= 64 + 4 * kept.len(), "memory grows with what came");
            assert!((kept.len() as u64) < partial.header.frame_len(), "it is cut");
            assert_eq!(decoder.cut_len(), Some(partial.header.frame_len()));
        }
        if options & 0x08 != 0 && cut & 1 != 0 && decoder.partial().is_some() {
            // As a transport does that receives the rest of a large frame where it belongs.
            rest = take_out(&mut decoder, rest, &mut outcome.frames);
        }
    }
    if let Some(partial) = decoder.take_partial() {
        outcome.frames.push((partial.header, None));
    }
    outcome.long = decoder.long_frames();
    decoder.forget();
    assert_eq!((decoder.long_frames().0, held.get()), (0, 0));
    outcome
}

fn decode_piece(
    decoder: &mut Decoder<Place>,
    piece: &[u8],
    options: u8,
    held: &Rc<Cell<usize>>,
    frames: &mut Vec<Found>,
) -> Result<(), SessionError> {
    let mut at = 0;
    loop {
        // What the header alone says is what the frame says.
        let looks_ahead = options & 0x10 != 0 && decoder.is_between_frames();
        let expected = if looks_ahead { decoder.header_of(&piece[at..]).transpose() } else { None };
        let mut cut = None;
        let step = decoder.next(piece, &mut at, |header| {
            cut = Some(*header);
            let wish = Wish::of(header, options);
            if wish == Wish::Skip {
                frames.push((*header, None));
            }
            wish.place(header, held)
        });
        match (expected, &step) {
            (Some(Ok(expected)), Ok(Step::InPlace { header, .. })) => assert_eq!(expected, *header),
            (Some(Ok(expected)), Err(SessionError::PartUnexpected(_))) => {
                let is_long = expected.flags.contains(Flags::IN_PARTS);
                assert!(is_long || expected.kind == Kind::Part, "{expected:?}");
            }
            (Some(Ok(Header { kind: Kind::Part, .. })), _) => assert_eq!(cut, None, "{step:?}"),
            (Some(Ok(expected)), _) => {
                let flags = expected.flags.without(Flags::IN_PARTS);
                assert_eq!(Some(Header { flags, ..expected }), cut, "{step:?}");
            }
            (Some(Err(expected)), Err(error)) => assert_eq!(expected, *error),
            (Some(Err(expected)), _) => panic!("{expected:?} and then {step:?}"),
            (None, _) => {}
        }
        match step? {
            Step::InPlace { header, body } => frames.push((header, Some(piece[body].to_vec()))),
            Step::Assembled(partial) => {
                frames.push((partial.header, Some(partial.body().to_vec())));
            }
            Step::Skipped | Step::Part => {}
            Step::More => {
                assert_eq!(at, piece.len(), "a piece is used up");
                return Ok(());
            }
        }
    }
}

/// Takes the cut frame out of the decoder and puts it together outside; gives the stream behind it.
fn take_out<'a>(decoder: &mut Decoder<Place>, rest: &'a [u8], frames: &mut Vec<Found>) -> &'a [u8] {
    let Some(mut partial) = decoder.take_partial() else { return rest };
    assert!(decoder.is_between_frames());
    let missing = partial.header.frame_len() as usize - partial.buffer.filled().len();
    let (came, tail) = rest.split_at(missing.min(rest.len()));
    partial.buffer.append(came);
    let body = (came.len() == missing).then(|| partial.body().to_vec());
    frames.push((partial.header, body));
    tail
}

/// Receives some of the part that is cut to its place; gives the stream behind that.
fn receive_part<'a>(
    decoder: &mut Decoder<Place>,
    rest: &'a [u8],
    cut: u8,
    frames: &mut Vec<Found>,
) -> &'a [u8] {
    let part_len = decoder.cut_part_len().expect("one is cut");
    let mut lent = decoder.lend_part().expect("it has a place");
    assert_eq!(lent.len + lent.padding, part_len);
    assert_eq!(decoder.cut_len(), Some(part_len as u64));
    assert!(decoder.cut_part_len().is_none() && decoder.lend_part().is_none());
    let wanted = if cut & 1 == 0 { part_len } else { part_len.min(cut.into()) };
    let (came, tail) = rest.split_at(wanted.min(rest.len()));
    let more = lent.more;
    lent.buffer.append(&came[..came.len().min(lent.len)]);
    match decoder.take_part_back(lent, came.len()) {
        Step::Assembled(Partial { header, buffer }) => {
            assert!(!more && came.len() == part_len);
            let frame = Partial { header, buffer };
            frames.push((header, Some(frame.body().to_vec())));
        }
        Step::Part => assert!(more && came.len() == part_len),
        Step::More => assert!(came.len() < part_len),
        step => panic!("{step:?} of a part"),
    }
    tail
}

fn compare(whole: &Outcome, cut: &Outcome, options: u8) {
    let no_memory = matches!(cut.error, Some(SessionError::NoMemory { .. }));
    if no_memory {
        // Only frames that are cut or come in parts ask for memory: in one piece the stream may go
        // on.
        match whole.frames.get(cut.frames.len()) {
            Some((header, _)) => assert!(Wish::of(header, options) == Wish::NoMemory),
            None => assert_eq!(whole.error, cut.error),
        }
    } else {
        assert_eq!(whole.error, cut.error);
        assert_eq!(whole.long, cut.long);
        assert_eq!(whole.frames.len(), cut.frames.len(), "{whole:?}\n{cut:?}");
    }
    for (whole, cut) in whole.frames.iter().zip(&cut.frames) {
        assert_eq!(whole.0, cut.0);
        // One that was skipped has no body.
        let was_skipped = cut.1.is_none() && Wish::of(&cut.0, options) == Wish::Skip;
        assert!(was_skipped || whole.1 == cut.1, "{whole:?}\n{cut:?}");
    }
}

//! The decoder finds the same frames in a stream however it is cut, and keeps no more than came.
//!
//! Input: a byte of options, a byte that says how many bytes of cuts follow, these, the stream.

use ringcall_codec::{Decoder, Header, SessionError, Step, limits::FRAME_LEN_MAX_FLOOR};

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
        match (options & 0x04 != 0, header.call.0 & 7) {
            (true, 1) => Self::Skip,
            (true, 2) => Self::NoMemory,
            _ => Self::Keep,
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
    stream.extend(input.0);
    let frame_len_max = if options & 0x02 == 0 { FRAME_LEN_MAX_FLOOR } else { u32::MAX };

    let whole = decode_whole(&stream, frame_len_max);
    let cut = decode_cut(&stream, cuts, options, frame_len_max);
    compare(&whole, &cut, options);
}

/// The outcome of a stream in one piece. The frame that it ends inside of has no body.
fn decode_whole(stream: &[u8], frame_len_max: u32) -> Outcome {
    let mut decoder = Decoder::<Buffer>::new(frame_len_max);
    let (mut outcome, mut at, mut cut) = (Outcome::default(), 0, None);
    loop {
        let start = at;
        let take = |header: &Header| {
            cut = Some(*header);
            Ok(None)
        };
        match decoder.next(stream, &mut at, take) {
            Ok(Step::InPlace { header, body }) => {
                assert!(at > start && at <= stream.len());
                assert_eq!(body.start, start + 32);
                assert_eq!(header.payload_len(), body.len() as u64);
                assert_eq!(at - start, header.frame_len() as usize);
                assert_eq!(Header::parse(&header.encode()), Ok(header), "headers have one form");
                outcome.frames.push((header, Some(stream[body].to_vec())));
            }
            Ok(Step::More) => {
                assert_eq!(at, stream.len(), "nothing is left behind");
                outcome.frames.extend(cut.map(|header| (header, None)));
                return outcome;
            }
            Ok(step) => panic!("{step:?} in one piece"),
            Err(error) => {
                outcome.error = Some(error);
                return outcome;
            }
        }
    }
}

/// The outcome of a stream in pieces, of which a frame that is skipped or not complete has no body.
fn decode_cut(stream: &[u8], cuts: &[u8], options: u8, frame_len_max: u32) -> Outcome {
    let mut decoder = Decoder::<Buffer>::new(frame_len_max);
    let mut outcome = Outcome::default();
    let (mut rest, mut cuts) = (stream, cuts.iter().cycle());
    while !rest.is_empty() {
        let cut = cuts.next().copied().unwrap_or(u8::MAX);
        // Lengths around those of headers, and some longer.
        let piece_len = if cut < 0x80 { 1 + cut % 64 } else { cut };
        let (piece, tail) = rest.split_at(usize::from(piece_len).min(rest.len()));
        rest = tail;
        if let Err(error) = decode_piece(&mut decoder, piece, options, &mut outcome.frames) {
            outcome.error = Some(error);
            return outcome;
        }
        let received = stream.len() - rest.len();
        if let Some(partial) = decoder.partial() {
            let kept = &partial.buffer;
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
    outcome
}

fn decode_piece(
    decoder: &mut Decoder<Buffer>,
    piece: &[u8],
    options: u8,
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
            match Wish::of(header, options) {
                Wish::Keep => Ok(Some(Buffer::new())),
                Wish::Skip => {
                    frames.push((*header, None));
                    Ok(None)
                }
                Wish::NoMemory => Err(SessionError::NoMemory { frame_len: header.frame_len() }),
            }
        });
        match (expected, &step) {
            (Some(Ok(expected)), Ok(Step::InPlace { header, .. })) => assert_eq!(expected, *header),
            (Some(Ok(expected)), _) => assert_eq!(Some(expected), cut, "{step:?}"),
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
fn take_out<'a>(
    decoder: &mut Decoder<Buffer>,
    rest: &'a [u8],
    frames: &mut Vec<Found>,
) -> &'a [u8] {
    let Some(mut partial) = decoder.take_partial() else { return rest };
    assert!(decoder.is_between_frames());
    let missing = partial.header.frame_len() as usize - partial.buffer.len();
    let (came, tail) = rest.split_at(missing.min(rest.len()));
    partial.buffer.extend_from_slice(came);
    let body = (came.len() == missing).then(|| partial.body().to_vec());
    frames.push((partial.header, body));
    tail
}

fn compare(whole: &Outcome, cut: &Outcome, options: u8) {
    let no_memory = matches!(cut.error, Some(SessionError::NoMemory { .. }));
    if no_memory {
        // Only frames that are cut ask for memory: in one piece the stream may go on.
        let next = whole.frames.get(cut.frames.len()).map(|(header, _)| header);
        assert!(next.is_some_and(|header| Wish::of(header, options) == Wish::NoMemory));
    } else {
        assert_eq!(whole.error, cut.error);
        assert_eq!(whole.frames.len(), cut.frames.len(), "{whole:?}\n{cut:?}");
    }
    for (whole, cut) in whole.frames.iter().zip(&cut.frames) {
        assert_eq!(whole.0, cut.0);
        // One that was skipped has no body.
        let was_skipped = cut.1.is_none() && Wish::of(&cut.0, options) == Wish::Skip;
        assert!(was_skipped || whole.1 == cut.1, "{whole:?}\n{cut:?}");
    }
}

//! Frames out: a message is encoded straight into the bytes that will be sent.
//!
//! Last on the path of a call inside this crate. A frame is whole or absent in the output, its
//! padding is zero, and no byte of an earlier frame is left in it.

use alloc::vec::Vec;
use core::fmt;

use rkyv::{
    rancor::{Fallible, Source, Strategy, Trace},
    ser::{
        Positional, Serializer, Writer,
        allocator::{Arena, ArenaHandle},
    },
};

use crate::{
    header::Header,
    limits::{FRAME_ALIGN, FRAME_LEN_MAX_CEILING, HEADER_LEN},
    message::Message,
};

/// The serializer that [`Message`]s are encoded by: into a frame, with an arena for the working
/// memory of nested parts.
pub type Encoder<'a> = Strategy<Serializer<FrameWriter<'a>, ArenaHandle<'a>, ()>, EncodeError>;

/// Working memory for encoding, kept between messages so that none is allocated in steady state.
#[derive(Default)]
pub struct Scratch(Arena);

/// Appends one frame to the bytes to be sent.
///
/// Positions, and with them alignment, count from the start of the body, which is where the
/// receiver's alignment begins.
pub struct FrameWriter<'a> {
    out: &'a mut Vec<u8>,
    body_start: usize,
    body_len_max: usize,
}

/// Why a message could not be encoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum EncodeError {
    /// The frame would be longer than the receiver accepts.
    #[error("message does not fit into a body of {body_len_max} bytes, the most the peer accepts")]
    TooLong {
        /// Longest body that the receiver accepts, in bytes.
        body_len_max: usize,
    },
    /// The message's own serialization failed.
    #[error("message cannot be serialized")]
    Serialize,
}

/// Appends a frame that carries `message` behind `metadata`, which is a whole block or empty;
/// `header.body_len` and `header.meta_len` are filled in.
///
/// Inlined, so that the header goes from registers to its place: passed on through memory it
/// costs more than everything else here.
///
/// # Errors
///
/// Where the message is too long for `frame_len_max` or cannot be serialized; `out` is then as
/// it was before.
#[inline(always)]
pub(crate) fn encode_message<T: Message>(
    out: &mut Vec<u8>,
    scratch: &mut Scratch,
    header: Header,
    metadata: &[u8],
    message: &T,
    frame_len_max: u32,
) -> Result<(), EncodeError> {
    let frame_start = begin(out, header);
    encode_payload(out, scratch, frame_start, metadata, message, frame_len_max)
}

/// Appends what follows the header that `out` ends with.
#[inline]
fn encode_payload<T: Message>(
    out: &mut Vec<u8>,
    scratch: &mut Scratch,
    frame_start: usize,
    metadata: &[u8],
    message: &T,
    frame_len_max: u32,
) -> Result<(), EncodeError> {
    let mut body_len_max = body_len_max(frame_len_max);
    if !metadata.is_empty() {
        debug_assert!(metadata.len().is_multiple_of(FRAME_ALIGN), "a block is padded");
        body_len_max = body_len_max.saturating_sub(metadata.len());
        out.extend_from_slice(metadata);
    }
    let body_start = out.len();
    let outcome = write_body(out, scratch, message, body_len_max);
    match outcome {
        Ok(()) => {
            finish(out, frame_start, body_start);
            Ok(())
        }
        Err(error) => {
            out.truncate(frame_start);
            Err(error)
        }
    }
}

/// Appends a message's archive, as the body of a frame that is put together later.
///
/// # Errors
///
/// Where it is longer than `body_len_max` bytes or cannot be serialized; `out` is then as it was
/// before.
pub fn encode_body<T: Message>(
    out: &mut Vec<u8>,
    scratch: &mut Scratch,
    message: &T,
    body_len_max: usize,
) -> Result<(), EncodeError> {
    let body_start = out.len();
    let outcome = write_body(out, scratch, message, body_len_max);
    if outcome.is_err() {
        out.truncate(body_start);
    }
    outcome
}

/// Appends a message's archive. Where that fails, some of it is left.
#[inline(always)]
fn write_body<T: Message>(
    out: &mut Vec<u8>,
    scratch: &mut Scratch,
    message: &T,
    body_len_max: usize,
) -> Result<(), EncodeError> {
    let body_start = out.len();
    let writer = FrameWriter { out, body_start, body_len_max };
    let mut serializer = Serializer::new(writer, scratch.0.acquire(), ());
    rkyv::api::serialize_using::<_, EncodeError>(message, &mut serializer).map(|_| ())
}

/// Appends a frame of a body that was encoded before. As [`encode_message`].
///
/// # Errors
///
/// Where the body and the metadata are too long for `frame_len_max`; `out` is then as it was
/// before.
pub(crate) fn encode_encoded(
    out: &mut Vec<u8>,
    header: Header,
    metadata: &[u8],
    body: &[u8],
    frame_len_max: u32,
) -> Result<(), EncodeError> {
    let body_len_max = body_len_max(frame_len_max).saturating_sub(metadata.len());
    if body.len() > body_len_max {
        return Err(EncodeError::TooLong { body_len_max });
    }
    let frame_start = begin(out, header);
    out.extend_from_slice(metadata);
    let body_start = out.len();
    out.extend_from_slice(body);
    finish(out, frame_start, body_start);
    Ok(())
}

/// Longest body that fits into a frame with its header and padding.
#[inline]
pub(crate) fn body_len_max(frame_len_max: u32) -> usize {
    // More than the ceiling cannot be addressed inside an archive, whatever a peer would accept.
    let frame_len_max = frame_len_max.min(FRAME_LEN_MAX_CEILING) as usize;
    (frame_len_max - frame_len_max % FRAME_ALIGN).saturating_sub(HEADER_LEN)
}

/// Appends a frame whose body is bytes as they are.
pub(crate) fn encode_bytes(out: &mut Vec<u8>, header: Header, body: &[u8]) {
    encode_with(out, header, |out| out.extend_from_slice(body));
}

/// Appends a frame whose body `write` appends.
pub(crate) fn encode_with(out: &mut Vec<u8>, header: Header, write: impl FnOnce(&mut Vec<u8>)) {
    let frame_start = begin(out, header);
    let body_start = out.len();
    write(out);
    finish(out, frame_start, body_start);
}

/// Appends a header, and says where its frame starts.
#[inline(always)]
fn begin(out: &mut Vec<u8>, header: Header) -> usize {
    let frame_start = out.len();
    out.extend_from_slice(&[0; HEADER_LEN]);
    if let Some(place) = out.last_chunk_mut() {
        header.write(place);
    }
    frame_start
}

/// Writes the lengths over their places in the header, and pads the frame with zeros.
#[inline]
fn finish(out: &mut Vec<u8>, frame_start: usize, body_start: usize) {
    let body_len = out.len() - body_start;
    let meta_len = (body_start - frame_start - HEADER_LEN) / FRAME_ALIGN;
    // Bodies are bounded by frame_len_max, a u32, and metadata by METADATA_LEN_MAX.
    out[frame_start..frame_start + 4].copy_from_slice(&(body_len as u32).to_le_bytes());
    out[frame_start + 4..frame_start + 6].copy_from_slice(&(meta_len as u16).to_le_bytes());
    // More zeros than are wanted, as their number is then known to the compiler.
    out.extend_from_slice(&[0; FRAME_ALIGN]);
    out.truncate(body_start + body_len.next_multiple_of(FRAME_ALIGN));
}

impl Positional for FrameWriter<'_> {
    #[inline]
    fn pos(&self) -> usize {
        self.out.len() - self.body_start
    }
}

impl Fallible for FrameWriter<'_> {
    type Error = EncodeError;
}

impl Writer<EncodeError> for FrameWriter<'_> {
    #[inline]
    fn write(&mut self, bytes: &[u8]) -> Result<(), EncodeError> {
        if bytes.len() > self.body_len_max - self.pos() {
            return Err(EncodeError::TooLong { body_len_max: self.body_len_max });
        }
        self.out.extend_from_slice(bytes);
        Ok(())
    }
}

impl Trace for EncodeError {
    fn trace<R>(self, _: R) -> Self
    where
        R: fmt::Debug + fmt::Display + Send + Sync + 'static,
    {
        self
    }
}

impl Source for EncodeError {
    fn new<T: core::error::Error + Send + Sync + 'static>(_: T) -> Self {
        Self::Serialize
    }
}

impl fmt::Debug for Scratch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Scratch")
    }
}

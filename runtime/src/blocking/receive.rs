//! Bytes in: read to a buffer that a reply can keep, and found to be frames there.
//!
//! The buffers belong to the thread, and the client may go to another one between two calls. So
//! what a call receives is in its [`Hands`] while it waits, and what is left of it then (half a
//! frame, most often nothing) is copied to where it can be kept.

use std::{ops::Range, rc::Rc, time::Duration};

use ringcall_codec::{
    CallId, Decoder, Header, Partial, SessionError, Step,
    limits::{FRAME_ALIGN, HEADER_LEN},
};
use rkyv::util::AlignedVec;

use super::{
    config::{CHUNK_LEN, COPIED_OUT_MAX, HELD_BYTES_MAX, LARGE_LEN_MIN, SPARE_BYTES_MAX},
    connection::Lost,
    seats::Kept,
    socket::{Received, Socket},
};
use crate::ring::{Chunk, Lease, OwnedBuffer, OwnedPool};

/// Where the stream of received bytes is. Goes with the client from thread to thread.
#[derive(Debug)]
pub(super) struct Receiver {
    decoder: Decoder<AlignedVec<FRAME_ALIGN>>,
    /// The start of a large frame, whose rest is received where it belongs.
    cut: Option<Partial<AlignedVec<FRAME_ALIGN>>>,
    /// Where the next byte stands in the stream, modulo the alignment of frames: a chunk begins
    /// there too, so that every frame in it is aligned.
    offset: usize,
}

/// What a call has in hand while it waits.
pub(super) struct Hands {
    pub(super) pool: Rc<OwnedPool>,
    /// The call whose outcome is waited for, if there is one.
    pub(super) awaited: Option<CallId>,
    /// Its reply: the body, and the length of the metadata before it in units of 16 bytes.
    pub(super) reply: Option<(Lease, u16)>,
    large: Option<Large>,
}

/// A large frame of which some has come.
struct Large {
    header: Header,
    buffer: OwnedBuffer,
    filled: usize,
}

/// What was received.
pub(super) enum Input {
    Nothing,
    /// Some of a large frame.
    Part,
    /// A large frame, whole and alone.
    Frame(Header, Chunk),
    /// Bytes, from this place on.
    Chunk(Chunk, usize),
}

/// A frame's metadata and body, where they are.
pub(super) enum Payload<'a> {
    InPlace(&'a Chunk, Range<usize>),
    Apart(AlignedVec<FRAME_ALIGN>, Range<usize>),
}

thread_local! {
    /// The receive buffers of the thread's clients.
    static POOL: Rc<OwnedPool> = OwnedPool::new(SPARE_BYTES_MAX);
}

/// The thread's buffers; while the thread ends, some for this once.
pub(super) fn pool() -> Rc<OwnedPool> {
    POOL.try_with(Rc::clone).unwrap_or_else(|_| OwnedPool::new(0))
}

impl Hands {
    pub(super) fn new(awaited: Option<CallId>) -> Self {
        Self { pool: pool(), awaited, reply: None, large: None }
    }
}

impl Receiver {
    pub(super) fn new(frame_len_max: u32) -> Self {
        Self { decoder: Decoder::new(frame_len_max), cut: None, offset: 0 }
    }

    /// Reads once.
    pub(super) fn receive(
        &mut self,
        hands: &mut Hands,
        socket: &mut Socket,
        wait: Option<Duration>,
    ) -> Result<Input, Lost> {
        if let Some(Partial { header, buffer: begun }) = self.cut.take() {
            let mut buffer = take(&hands.pool, header.frame_len() as usize)?;
            buffer[..begun.len()].copy_from_slice(&begun);
            hands.large = Some(Large { header, buffer, filled: begun.len() });
        }
        if let Some(large) = hands.large.take() {
            return self.receive_rest(large, hands, socket, wait);
        }
        let mut buffer = take(&hands.pool, CHUNK_LEN)?;
        let from = self.offset;
        match socket.receive(&mut buffer[from..CHUNK_LEN], wait).map_err(Lost::receiving)? {
            Received::Bytes(len) => {
                self.offset = (from + len) % FRAME_ALIGN;
                Ok(Input::Chunk(Chunk::of_owned(buffer.share(), from + len), from))
            }
            Received::Nothing => Ok(Input::Nothing),
            Received::End => Err(Lost::Ended),
        }
    }

    /// Reads no further than to the frame's end.
    fn receive_rest(
        &mut self,
        mut large: Large,
        hands: &mut Hands,
        socket: &mut Socket,
        wait: Option<Duration>,
    ) -> Result<Input, Lost> {
        let frame_len = large.header.frame_len() as usize;
        let rest = &mut large.buffer[large.filled..frame_len];
        let received = match socket.receive(rest, wait).map_err(Lost::receiving)? {
            Received::Bytes(len) => len,
            Received::Nothing => 0,
            Received::End => return Err(Lost::Ended),
        };
        large.filled += received;
        self.offset = large.filled % FRAME_ALIGN;
        if large.filled == frame_len {
            return Ok(Input::Frame(
                large.header,
                Chunk::of_owned(large.buffer.share(), frame_len),
            ));
        }
        hands.large = Some(large);
        Ok(if received > 0 { Input::Part } else { Input::Nothing })
    }

    /// The next frame of a chunk.
    #[inline]
    pub(super) fn next(
        &mut self,
        chunk: &[u8],
        at: &mut usize,
    ) -> Result<Step<AlignedVec<FRAME_ALIGN>>, SessionError> {
        self.decoder.next(chunk, at, |header| {
            // What is longer is moved out of here before it is longer than this, but for what comes in
            // parts, which is put together here.
            let capacity = header.frame_len().min(CHUNK_LEN as u64);
            Ok(Some(AlignedVec::with_capacity(capacity as usize)))
        })
    }

    /// Notes that a chunk is used up. The length of the frame that it ends in, as far as that is
    /// known; none where it ends between two.
    pub(super) fn chunk_ended(&mut self) -> Option<Option<u64>> {
        if self.decoder.is_between_frames() {
            return None;
        }
        let frame_len = self.decoder.cut_len();
        if frame_len.is_some_and(|len| len >= LARGE_LEN_MIN) {
            self.cut = self.decoder.take_partial();
        }
        Some(frame_len)
    }

    /// Bytes that are still to come of frames in parts, and that were announced of such.
    pub(super) fn long_frames(&self) -> (u64, u64) {
        self.decoder.long_frames()
    }

    /// Keeps what a call had in hand, once it waits no more.
    pub(super) fn keep(&mut self, hands: Hands) {
        if let Some(Large { header, buffer, filled }) = hands.large {
            let mut begun = AlignedVec::with_capacity(filled);
            begun.extend_from_slice(&buffer[..filled]);
            self.cut = Some(Partial { header, buffer: begun });
        }
    }
}

impl Hands {
    /// Length of the large frame of which some has come.
    pub(super) fn large_len(&self) -> Option<u64> {
        self.large.as_ref().map(|large| large.header.frame_len())
    }
}

impl Payload<'_> {
    pub(super) fn bytes(&self) -> &[u8] {
        match self {
            Self::InPlace(chunk, range) => &chunk[range.clone()],
            Self::Apart(bytes, range) => &bytes[range.clone()],
        }
    }

    /// A lease on the payload where it is, if a reply can keep it there; on a copy if not.
    pub(super) fn lease(&self, pool: &Rc<OwnedPool>) -> Result<Lease, SessionError> {
        let bytes = self.bytes();
        if let Self::InPlace(chunk, range) = self
            && bytes.as_ptr().addr().is_multiple_of(FRAME_ALIGN)
            && (bytes.len() > COPIED_OUT_MAX || pool.outstanding_bytes() <= HELD_BYTES_MAX)
        {
            return Ok(Lease::new(chunk, range.clone()));
        }
        copy(pool, bytes)
    }

    /// The payload in memory that can go to another thread.
    pub(super) fn into_kept(self, meta_len: u16) -> Kept {
        match self {
            Self::Apart(bytes, payload) => Kept { bytes, payload, meta_len },
            Self::InPlace(chunk, range) => {
                let payload = &chunk[range];
                let mut bytes = AlignedVec::with_capacity(payload.len());
                bytes.extend_from_slice(payload);
                let payload = 0..bytes.len();
                Kept { bytes, payload, meta_len }
            }
        }
    }
}

/// Where metadata and body lie in a frame.
pub(super) fn payload_range(header: &Header) -> Range<usize> {
    HEADER_LEN..HEADER_LEN + header.payload_len() as usize
}

/// A lease on a copy of the bytes, in a buffer of the thread.
pub(super) fn copy(pool: &Rc<OwnedPool>, bytes: &[u8]) -> Result<Lease, SessionError> {
    let mut buffer = take(pool, bytes.len())?;
    buffer[..bytes.len()].copy_from_slice(bytes);
    Ok(Lease::new(&Chunk::of_copy(buffer.share(), bytes.len()), 0..bytes.len()))
}

/// A buffer that holds so many bytes at least. From 32 KiB on it takes memory as it is filled, so
/// that a length alone costs none.
fn take(pool: &Rc<OwnedPool>, len: usize) -> Result<OwnedBuffer, SessionError> {
    pool.try_take(len).map_err(|_| SessionError::NoMemory { frame_len: len as u64 })
}

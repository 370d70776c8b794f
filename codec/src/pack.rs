//! Packed bodies: compressed, or with a checksum, where both sides have said that they can.
//!
//! A frame is encoded as every other and packed where it lies, and unpacked before anybody reads
//! its body. What compresses and sums is the transport's: here is what it stands in on the wire.

use alloc::vec::Vec;

use crate::{
    header::{Flags, Header},
    limits::{FRAME_ALIGN, HEADER_LEN},
    session::SessionError,
};

/// Optional parts of the protocol, a bit each, as a HELLO lists them.
pub mod features {
    /// Bodies may carry a checksum.
    pub const CHECKSUM: u64 = 1 << 0;
    /// Bodies may be compressed by LZ4, in its block format.
    pub const LZ4: u64 = 1 << 1;
    /// Bodies may be compressed by Zstandard.
    pub const ZSTD: u64 = 1 << 2;
    /// Calls may carry a routing key: the hash that [`ShardKey`](crate::ShardKey) is.
    pub const KEYS: u64 = 1 << 3;
    /// A client may say which shard it wants to be connected to, and is handed over to that.
    pub const SHARDS: u64 = 1 << 4;
}

/// How a body is compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Algorithm {
    /// LZ4, in its block format.
    Lz4 = 1,
    /// Zstandard, one frame.
    Zstd = 2,
}

/// A compressed body: how, what, and how long it is when it is not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Compressed<'a> {
    /// How it is compressed.
    pub algorithm: Algorithm,
    /// Length of the body in bytes, once it is decompressed. Within the limit on frames.
    pub body_len: u32,
    /// The compressed bytes.
    pub bytes: &'a [u8],
}

/// Bytes before a compressed body: its length, the algorithm, zeros.
const COMPRESSED_HEAD_LEN: usize = 8;
/// Bytes of a checksum, behind the body.
const CHECKSUM_LEN: usize = 4;

impl Algorithm {
    /// The feature that both sides must have.
    pub fn feature(self) -> u64 {
        match self {
            Self::Lz4 => features::LZ4,
            Self::Zstd => features::ZSTD,
        }
    }
}

/// Compresses the body of the last frame of `output`.
///
/// `from` is where that frame begins, or one before it: the reply of a stream may follow a CREDIT.
/// `compress` appends the compressed bytes to the vector that it is given, or says false where it
/// cannot; `scratch` is working memory. The frame is left as it was where that makes it no
/// shorter.
pub fn compress_frame(
    output: &mut Vec<u8>,
    from: usize,
    algorithm: Algorithm,
    scratch: &mut Vec<u8>,
    compress: impl FnOnce(&[u8], &mut Vec<u8>) -> bool,
) {
    let Some((frame_start, header)) = last_frame(output, from) else { return };
    let body_start = frame_start + HEADER_LEN + header.meta_bytes();
    let body_len = header.body_len as usize;
    scratch.clear();
    scratch.extend_from_slice(&header.body_len.to_le_bytes());
    scratch.extend_from_slice(&[algorithm as u8, 0, 0, 0]);
    let body = &output[body_start..body_start + body_len];
    let padded = |len: usize| len.next_multiple_of(FRAME_ALIGN);
    if !compress(body, scratch) || padded(scratch.len()) >= padded(body_len) {
        return;
    }
    output.truncate(body_start);
    output.extend_from_slice(scratch);
    finish(output, frame_start, body_start, header, Flags::COMPRESSED);
}

/// Appends a checksum to the body of the last frame of `output`. `from` is as in
/// [`compress_frame`], and `sum` is CRC32C of bytes.
pub fn sum_frame(output: &mut Vec<u8>, from: usize, sum: impl FnOnce(&[u8]) -> u32) {
    let Some((frame_start, header)) = last_frame(output, from) else { return };
    let payload_start = frame_start + HEADER_LEN;
    output.truncate(payload_start + header.meta_bytes() + header.body_len as usize);
    let sum = sum(&output[payload_start..]);
    output.extend_from_slice(&sum.to_le_bytes());
    let body_start = payload_start + header.meta_bytes();
    finish(output, frame_start, body_start, header, Flags::CHECKSUM);
}

/// Checks the checksum of a payload that carries one, and gives the payload without it. `sum` is
/// CRC32C of bytes.
///
/// # Errors
///
/// Where it is not that of the payload, or the body is too short to hold one.
pub fn check_sum<'a>(
    header: &Header,
    payload: &'a [u8],
    sum: impl FnOnce(&[u8]) -> u32,
) -> Result<&'a [u8], SessionError> {
    // It stands in the body: what is before the body is metadata to the last byte.
    if (header.body_len as usize) < CHECKSUM_LEN {
        return Err(SessionError::ChecksumWrong);
    }
    match payload.split_last_chunk::<CHECKSUM_LEN>() {
        Some((summed, expected)) if sum(summed).to_le_bytes() == *expected => Ok(summed),
        _ => Err(SessionError::ChecksumWrong),
    }
}

/// Reads what stands before a compressed body. `agreed` are the features of both sides.
///
/// # Errors
///
/// Where it is malformed, compressed in a way that was not agreed on, or where the frame would be
/// longer than `frame_len_max` bytes were it not compressed. Nothing needs to be allocated to
/// find out.
pub fn compressed<'a>(
    header: &Header,
    body: &'a [u8],
    agreed: u64,
    frame_len_max: u32,
) -> Result<Compressed<'a>, SessionError> {
    let (head, bytes) =
        body.split_first_chunk::<COMPRESSED_HEAD_LEN>().ok_or(SessionError::CompressedMalformed)?;
    let body_len = u32::from_le_bytes([head[0], head[1], head[2], head[3]]);
    let algorithm = match head[4..] {
        [1, 0, 0, 0] => Algorithm::Lz4,
        [2, 0, 0, 0] => Algorithm::Zstd,
        _ => return Err(SessionError::CompressedMalformed),
    };
    if agreed & algorithm.feature() == 0 {
        return Err(SessionError::NotAgreed(header.kind));
    }
    let frame_len = Header { body_len, ..*header }.frame_len();
    if frame_len > u64::from(frame_len_max) {
        return Err(SessionError::FrameTooLong { frame_len, frame_len_max });
    }
    Ok(Compressed { algorithm, body_len, bytes })
}

/// Where the last frame of `output` begins, and its header. A frame begins at `from`.
pub(crate) fn last_frame(output: &[u8], from: usize) -> Option<(usize, Header)> {
    let mut frame_start = from;
    loop {
        let header = Header::parse(output.get(frame_start..)?.first_chunk()?).ok()?;
        let frame_end = frame_start + header.frame_len() as usize;
        if frame_end == output.len() {
            return Some((frame_start, header));
        }
        frame_start = frame_end;
    }
}

/// Writes the header anew, and pads the frame.
fn finish(
    output: &mut Vec<u8>,
    frame_start: usize,
    body_start: usize,
    header: Header,
    flag: Flags,
) {
    let body_len = output.len() - body_start;
    // It is that of a frame that fitted, and a few bytes.
    let header = Header { body_len: body_len as u32, flags: header.flags.with(flag), ..header };
    output[frame_start..frame_start + HEADER_LEN].copy_from_slice(&header.encode());
    output.resize(body_start + body_len.next_multiple_of(FRAME_ALIGN), 0);
}

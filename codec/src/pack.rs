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

/// Compresses the body of the frame that begins at `frame_start` and ends with `output`.
///
/// `compress` appends the compressed bytes to the vector that it is given, or says false where it
/// cannot; `scratch` is working memory. The frame is left as it was where that makes it no
/// shorter.
pub fn compress_frame(
    output: &mut Vec<u8>,
    frame_start: usize,
    algorithm: Algorithm,
    scratch: &mut Vec<u8>,
    compress: impl FnOnce(&[u8], &mut Vec<u8>) -> bool,
) {
    let Some(header) = header_at(output, frame_start) else { return };
    let body_start = frame_start + HEADER_LEN + header.meta_bytes();
    let body_len = header.body_len as usize;
    scratch.clear();
    scratch.extend_from_slice(&header.body_len.to_le_bytes());
    scratch.extend_from_slice(&[algorithm as u8, 0, 0, 0]);
    let body = &output[body_start..body_start + body_len];
    if !compress(body, scratch) || scratch.len() >= body_len {
        return;
    }
    output.truncate(body_start);
    output.extend_from_slice(scratch);
    finish(output, frame_start, body_start, header, Flags::COMPRESSED);
}

/// Appends a checksum to the body of the frame that begins at `frame_start` and ends with
/// `output`. `sum` is CRC32C of bytes.
pub fn sum_frame(output: &mut Vec<u8>, frame_start: usize, sum: impl FnOnce(&[u8]) -> u32) {
    let Some(header) = header_at(output, frame_start) else { return };
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
/// Where it is not that of the payload, or is missing.
pub fn check_sum(payload: &[u8], sum: impl FnOnce(&[u8]) -> u32) -> Result<&[u8], SessionError> {
    match payload.split_last_chunk::<CHECKSUM_LEN>() {
        Some((summed, expected)) if sum(summed).to_le_bytes() == *expected => Ok(summed),
        _ => Err(SessionError::ChecksumWrong),
    }
}

/// Reads what stands before a compressed body.
///
/// # Errors
///
/// Where it is malformed, or the body would be longer than a frame of `frame_len_max` bytes
/// holds. Nothing needs to be allocated to find out.
pub fn compressed(body: &[u8], frame_len_max: u32) -> Result<Compressed<'_>, SessionError> {
    let (head, bytes) =
        body.split_first_chunk::<COMPRESSED_HEAD_LEN>().ok_or(SessionError::CompressedMalformed)?;
    let body_len = u32::from_le_bytes([head[0], head[1], head[2], head[3]]);
    let algorithm = match head[4..] {
        [1, 0, 0, 0] => Algorithm::Lz4,
        [2, 0, 0, 0] => Algorithm::Zstd,
        _ => return Err(SessionError::CompressedMalformed),
    };
    let frame_len = HEADER_LEN as u64 + u64::from(body_len);
    if frame_len > u64::from(frame_len_max) {
        return Err(SessionError::FrameTooLong { frame_len, frame_len_max });
    }
    Ok(Compressed { algorithm, body_len, bytes })
}

fn header_at(output: &[u8], frame_start: usize) -> Option<Header> {
    Header::parse(output.get(frame_start..)?.first_chunk()?).ok()
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

//! Checksums over a header, to measure what one would cost: version 1 of the wire has none.
//!
//! `docs/wire.md` says what was measured and decided.

use ringcall_codec::limits::HEADER_LEN;

/// A header's checksum, 32 bits over its first 28 bytes, in its last four.
pub trait Checksum {
    /// The checksum of a header.
    fn of(header: &[u8; HEADER_LEN]) -> u32;

    /// Writes the checksum into the header that a frame begins with.
    #[inline]
    fn write(frame: &mut [u8]) {
        if let Some(header) = frame.first_chunk_mut::<HEADER_LEN>() {
            let sum = Self::of(header);
            header[28..].copy_from_slice(&sum.to_le_bytes());
        }
    }

    /// Compares the checksum and puts zero in its place, which is what the codec expects.
    #[inline]
    fn take(frame: &mut [u8]) -> bool {
        let Some(header) = frame.first_chunk_mut::<HEADER_LEN>() else {
            return false;
        };
        let is_right = header[28..] == Self::of(header).to_le_bytes();
        header[28..].fill(0);
        is_right
    }
}

/// No checksum, as on the wire.
pub struct None;

/// Two multiplications, their halves folded together, as in wyhash.
pub struct Fold;

/// CRC32C by the processor's own instruction, inlined: as cheap as a CRC can be. A build for a
/// processor that has it (`-C target-feature=+sse4.2`).
#[cfg(target_feature = "sse4.2")]
pub struct Crc32c;

impl Checksum for None {
    #[inline]
    fn of(_: &[u8; HEADER_LEN]) -> u32 {
        0
    }

    #[inline]
    fn write(_: &mut [u8]) {}

    #[inline]
    fn take(_: &mut [u8]) -> bool {
        true
    }
}

impl Checksum for Fold {
    #[inline]
    fn of(header: &[u8; HEADER_LEN]) -> u32 {
        let [first, second, third, fourth] = words(header);
        let sum = fold(first ^ KEYS[0], second ^ KEYS[1]);
        let sum = fold(third ^ KEYS[2], fourth ^ sum);
        (sum ^ sum >> 32) as u32
    }
}

#[cfg(target_feature = "sse4.2")]
impl Checksum for Crc32c {
    #[inline]
    fn of(header: &[u8; HEADER_LEN]) -> u32 {
        use core::arch::x86_64::{_mm_crc32_u32, _mm_crc32_u64};
        let [first, second, third, fourth] = words(header);
        let sum = _mm_crc32_u64(0xffff_ffff, first);
        let sum = _mm_crc32_u64(_mm_crc32_u64(sum, second), third);
        !_mm_crc32_u32(sum as u32, fourth as u32)
    }
}

/// The 28 bytes before the checksum; the last word has its upper half zero.
#[inline]
fn words(header: &[u8; HEADER_LEN]) -> [u64; 4] {
    let word = |at: usize| {
        let mut bytes = [0; 8];
        bytes.copy_from_slice(&header[at..at + 8]);
        u64::from_le_bytes(bytes)
    };
    [word(0), word(8), word(16), word(24) & 0xffff_ffff]
}

#[inline]
fn fold(left: u64, right: u64) -> u64 {
    let product = u128::from(left) * u128::from(right);
    product as u64 ^ (product >> 64) as u64
}

/// The fraction bits of pi, which are nobody's choice.
const KEYS: [u64; 3] = [
    0x243f_6a88_85a3_08d3,
    0x1319_8a2e_0370_7344,
    0xa409_3822_299f_31d0,
];

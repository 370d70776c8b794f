//! Packing of bodies: compression and checksums, where both sides have said that they can.
//!
//! Beside the path of a call: a connection on which nothing is packed asks one question a frame.

use std::cell::RefCell;

use ringcall_codec::{
    Algorithm, Compressed, Flags, Header, SessionError, check_sum, compress_frame, compressed,
    features, sum_frame,
};

use crate::{
    connection::Connection,
    ring::{Chunk, Lease},
};

/// How bodies are compressed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Compression {
    /// They are not.
    #[default]
    None,
    /// By LZ4: fast.
    Lz4,
    /// By Zstandard at this level, from 1 (fast) to 19 (short).
    Zstd(i32),
}

/// What is packed on a connection, once both sides have said what they can.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Packing {
    compression: Compression,
    /// Shortest body that is compressed, in bytes.
    compress_from: u32,
    has_sums: bool,
}

thread_local! {
    /// Working memory of the compressors, kept between frames.
    static SCRATCH: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// Longest working memory that is kept between frames, in bytes.
const SCRATCH_KEPT_MAX: usize = 1024 * 1024;

impl Compression {
    fn algorithm(self) -> Option<Algorithm> {
        match self {
            Self::None => None,
            Self::Lz4 => Some(Algorithm::Lz4),
            Self::Zstd(_) => Some(Algorithm::Zstd),
        }
    }

    /// The features that a side has which compresses so: it can decompress whatever comes.
    pub(crate) fn features(self) -> u64 {
        if self == Self::None { 0 } else { features::LZ4 | features::ZSTD }
    }
}

impl Packing {
    /// What is packed where both sides have these features; none where nothing is.
    pub(crate) fn agreed(
        features: u64,
        compression: Compression,
        compress_from: u32,
    ) -> Option<Self> {
        let can = |algorithm: Algorithm| features & algorithm.feature() != 0;
        let compression = match compression.algorithm() {
            Some(algorithm) if can(algorithm) => compression,
            _ => Compression::None,
        };
        let has_sums = features & features::CHECKSUM != 0;
        (has_sums || compression != Compression::None).then_some(Self {
            compression,
            compress_from,
            has_sums,
        })
    }

    /// Packs the last frame of `output`. It begins at `from`, or a frame before it does.
    pub(crate) fn pack(self, output: &mut Vec<u8>, from: usize) {
        let is_long = output.len() - from >= self.compress_from as usize;
        if let Some(algorithm) = self.compression.algorithm().filter(|_| is_long) {
            SCRATCH.with_borrow_mut(|scratch| {
                compress_frame(output, from, algorithm, scratch, |body, out| {
                    compress(self.compression, body, out)
                });
                if scratch.capacity() > SCRATCH_KEPT_MAX {
                    *scratch = Vec::new();
                }
            });
        }
        if self.has_sums {
            sum_frame(output, from, crc32c::crc32c);
        }
    }
}

/// Appends the compressed bytes. False where that fails.
fn compress(compression: Compression, body: &[u8], out: &mut Vec<u8>) -> bool {
    let start = out.len();
    match compression {
        Compression::None => false,
        Compression::Lz4 => {
            out.resize(start + lz4_flex::block::get_maximum_output_size(body.len()), 0);
            let len = lz4_flex::block::compress_into(body, &mut out[start..]);
            len.map(|len| out.truncate(start + len)).is_ok()
        }
        Compression::Zstd(level) => {
            out.resize(start + zstd::zstd_safe::compress_bound(body.len()), 0);
            let len = zstd::bulk::compress_to_buffer(body, &mut out[start..], level);
            len.map(|len| out.truncate(start + len)).is_ok()
        }
    }
}

/// Decompresses into a place that is exactly as long as the body. False where it is not that long.
fn decompress(from: &Compressed<'_>, to: &mut [u8]) -> bool {
    let len = match from.algorithm {
        Algorithm::Lz4 => lz4_flex::block::decompress_into(from.bytes, to).ok(),
        // A second frame is none of the body.
        Algorithm::Zstd => match zstd::zstd_safe::find_frame_compressed_size(from.bytes) {
            Ok(len) if len == from.bytes.len() => {
                zstd::bulk::decompress_to_buffer(from.bytes, to).ok()
            }
            _ => None,
        },
    };
    len == Some(to.len())
}

impl Connection {
    /// The payload of a packed frame as it was before it was packed.
    #[cold]
    pub(crate) fn unpacked(&self, header: &Header, payload: Lease) -> Result<Lease, SessionError> {
        let session = self.session.borrow();
        session.check_packed(header)?;
        let agreed = session.features();
        drop(session);
        let mut payload = payload;
        if header.flags.contains(Flags::CHECKSUM) {
            let len = check_sum(header, &payload, crc32c::crc32c)?.len();
            payload = payload.cut(len);
        }
        if !header.flags.contains(Flags::COMPRESSED) {
            return Ok(payload);
        }
        let meta_bytes = header.meta_bytes();
        let (metadata, body) =
            payload.split_at_checked(meta_bytes).ok_or(SessionError::CompressedMalformed)?;
        let body = compressed(header, body, agreed, self.shard.config.limits.frame_len_max)?;
        let body_len = body.body_len as usize;
        let len = meta_bytes + body_len;
        let no_memory = SessionError::NoMemory { frame_len: len as u64 };
        // What travels is short, so that nothing else bounds how many bodies are held at once.
        if !self.shard.has_memory_for(len as u64) {
            return Err(no_memory);
        }
        let Ok(mut buffer) = self.shard.owned.try_take(len.max(1)) else { return Err(no_memory) };
        buffer[..meta_bytes].copy_from_slice(metadata);
        if !decompress(&body, &mut buffer[meta_bytes..len]) {
            return Err(SessionError::CompressedMalformed);
        }
        self.shard.counters.frames_decompressed.add(1);
        self.shard.counters.bytes_copied.add(len as u64);
        Ok(Lease::new(&Chunk::of_copy(buffer.share(), len), 0..len))
    }
}

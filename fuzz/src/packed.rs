//! A frame that was packed is unpacked to what it was; bytes that nobody packed are refused or
//! unpacked within the limits, whatever they say of themselves.
//!
//! What compresses and sums, and the rules for it, are those of `runtime/src/pack.rs`.
//!
//! Input: a byte of options; then a frame in choices that is packed and unpacked (`round_trip`), or
//! a packed payload (`read`).

use ringcall_codec::{
    Algorithm, CallId, Compressed, Decoder, Flags, Header, Kind, SessionError, check_sum,
    compress_frame, compressed, features,
    limits::{FRAME_ALIGN, FRAME_LEN_MAX_FLOOR, HEADER_LEN},
    sum_frame,
};

use crate::{
    input::{Buffer, Input, decode},
    seeds,
};

/// Longest frame that is accepted, in bytes.
const FRAME_LEN_MAX: u32 = FRAME_LEN_MAX_FLOOR;

/// Packs a frame, or reads one that is packed.
pub fn run(data: &[u8]) {
    let mut input = Input(data);
    let options = input.byte();
    if options & 0x01 == 0 { read(input, options) } else { round_trip(input, options) }
}

/// Reads a payload that came as that of a packed frame.
fn read(mut input: Input<'_>, options: u8) {
    let meta_len = u16::from(input.byte() & 3);
    // What both sides have said that they can.
    let agreed = u64::from(input.byte());
    let mut payload = input.0.to_vec();
    let meta_bytes = 16 * usize::from(meta_len);
    payload.resize(payload.len().max(meta_bytes), 0);
    if options & 0x02 != 0 && payload.len() >= meta_bytes + 8 {
        // A head that is one, so that what is behind it is read; a length that fits, or does not.
        let algorithm = if options & 0x04 == 0 { Algorithm::Lz4 } else { Algorithm::Zstd };
        payload[meta_bytes + 4..][..4].copy_from_slice(&[algorithm as u8, 0, 0, 0]);
        if options & 0x08 != 0 {
            payload[meta_bytes + 2..][..2].fill(0);
        }
    }
    let mut flags = if options & 0x10 == 0 { Flags::COMPRESSED } else { Flags::PACKED };
    if options & 0x60 == 0x60 {
        flags = Flags::CHECKSUM;
    }
    if options & 0x20 != 0 && flags.contains(Flags::CHECKSUM) {
        // A sum that is right.
        payload.extend(crc32c::crc32c(&payload).to_le_bytes());
    }
    let body_len = (payload.len() - meta_bytes) as u32;
    let header = Header { body_len, meta_len, flags, ..plain_header(Kind::Request) };
    let unpacked = unpack(&header, &payload, agreed);
    let has_sum = flags.contains(Flags::CHECKSUM);
    let is_right = payload
        .split_last_chunk()
        .is_some_and(|(summed, sum)| body_len >= 4 && crc32c::crc32c(summed).to_le_bytes() == *sum);
    assert_eq!(has_sum && !is_right, unpacked == Err(SessionError::ChecksumWrong));
    match unpacked {
        Ok(unpacked) => {
            assert_eq!(unpacked[..meta_bytes], payload[..meta_bytes], "metadata is not packed");
            let body_len = (unpacked.len() - meta_bytes) as u32;
            let frame_len = Header { body_len, ..header }.frame_len();
            let is_compressed = flags.contains(Flags::COMPRESSED);
            assert!(!is_compressed || frame_len <= FRAME_LEN_MAX.into(), "{frame_len}");
        }
        Err(SessionError::NotAgreed(kind)) => {
            let algorithms = features::LZ4 | features::ZSTD;
            assert!(kind == Kind::Request && agreed & algorithms != algorithms);
        }
        Err(SessionError::FrameTooLong { frame_len, frame_len_max }) => {
            assert!(frame_len_max == FRAME_LEN_MAX && frame_len > frame_len_max.into());
        }
        Err(SessionError::CompressedMalformed | SessionError::ChecksumWrong) => {}
        Err(error) => panic!("{error} of a packed body"),
    }
}

/// Packs the last of some frames, finds it in a stream and unpacks it.
fn round_trip(mut input: Input<'_>, options: u8) {
    let (kind, meta_len) = if options & 0x02 == 0 {
        (Kind::Request, u16::from(input.byte() & 3))
    } else {
        (Kind::Item, 0)
    };
    // Of higher levels AddressSanitizer, where GCC has built it into zstd, says that a constant
    // table is a variable out of scope.
    let level = 1 + i32::from(input.byte() % 6);
    let before_len = usize::from(input.byte());
    let bit = u32::from(input.byte()) << 8 | u32::from(input.byte());
    let metadata = vec![7; 16 * usize::from(meta_len)];
    let body = body(&mut input);
    let header = Header { meta_len, body_len: body.len() as u32, ..plain_header(kind) };
    let mut output = Vec::new();
    push(&mut output, &plain_header(Kind::Response), &[&vec![1; before_len]]);
    let from = if options & 0x04 == 0 { output.len() } else { 0 };
    let start = output.len();
    push(&mut output, &header, &[&metadata, &body]);
    let plain = output.clone();

    let algorithm = if options & 0x08 == 0 { Algorithm::Lz4 } else { Algorithm::Zstd };
    if options & 0x10 != 0 {
        let mut scratch = vec![9; 40];
        compress_frame(&mut output, from, algorithm, &mut scratch, |body, out| {
            compress(algorithm, level, body, out)
        });
        assert!(output == plain || output.len() < plain.len(), "it is worth it");
    }
    let has_sum = options & 0x20 != 0;
    if has_sum {
        sum_frame(&mut output, from, crc32c::crc32c);
    }
    assert_eq!(output[..start], plain[..start], "other frames are not touched");
    assert!(output.len().is_multiple_of(FRAME_ALIGN));

    let (packed, mut payload) = last_frame(&output);
    assert_eq!(packed.flags.contains(Flags::CHECKSUM), has_sum);
    assert_eq!(Header { body_len: header.body_len, flags: header.flags, ..packed }, header);
    let agreed = features::CHECKSUM | algorithm.feature();
    let whole = [&metadata[..], &body].concat();
    assert!(unpack(&packed, &payload, agreed) == Ok(whole.clone()), "it is what it was");

    // A bit that flips on its way is found by the checksum; without one, anything is fine.
    let bits = 8 * payload.len() as u32;
    if packed.flags != Flags::NONE && bits > 0 {
        payload[(bit % bits / 8) as usize] ^= 1 << (bit % 8);
        let unpacked = unpack(&packed, &payload, agreed);
        assert!(!has_sum || unpacked == Err(SessionError::ChecksumWrong));
    }
}

/// A payload as it was before it was packed. Nothing is allocated before its length is known to be
/// within the limit.
fn unpack(header: &Header, payload: &[u8], agreed: u64) -> Result<Vec<u8>, SessionError> {
    let mut payload = payload;
    if header.flags.contains(Flags::CHECKSUM) {
        let summed = check_sum(header, payload, crc32c::crc32c)?;
        assert_eq!(summed.len() + 4, payload.len());
        payload = summed;
    }
    if !header.flags.contains(Flags::COMPRESSED) {
        return Ok(payload.to_vec());
    }
    let (metadata, body) =
        payload.split_at_checked(header.meta_bytes()).ok_or(SessionError::CompressedMalformed)?;
    let compressed = compressed(header, body, agreed, FRAME_LEN_MAX)?;
    assert_eq!(compressed.bytes.len() + 8, body.len());
    let len = metadata.len() + compressed.body_len as usize;
    assert!(len + HEADER_LEN <= FRAME_LEN_MAX as usize, "{compressed:?}");
    let mut unpacked = metadata.to_vec();
    unpacked.resize(len, 0);
    if !decompress(&compressed, &mut unpacked[metadata.len()..]) {
        return Err(SessionError::CompressedMalformed);
    }
    Ok(unpacked)
}

fn compress(algorithm: Algorithm, level: i32, body: &[u8], out: &mut Vec<u8>) -> bool {
    let start = out.len();
    let len = match algorithm {
        Algorithm::Lz4 => {
            out.resize(start + lz4_flex::block::get_maximum_output_size(body.len()), 0);
            lz4_flex::block::compress_into(body, &mut out[start..]).ok()
        }
        Algorithm::Zstd => {
            out.resize(start + zstd::zstd_safe::compress_bound(body.len()), 0);
            zstd::bulk::compress_to_buffer(body, &mut out[start..], level).ok()
        }
    };
    len.map(|len| out.truncate(start + len)).is_some()
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

/// A body that is made of runs, each of some of the input's bytes again and again.
fn body(input: &mut Input<'_>) -> Vec<u8> {
    let mut body = Vec::new();
    while !input.0.is_empty() && body.len() < FRAME_LEN_MAX as usize / 2 {
        let (len, times) = (usize::from(input.byte() & 0x1f), usize::from(input.byte()));
        body.extend(input.take(len).repeat(times));
    }
    body
}

fn plain_header(kind: Kind) -> Header {
    let (flags, call) = (Flags::NONE, CallId(1 << 32));
    Header { body_len: 0, meta_len: 0, kind, flags, call, code: 0, time_us: 0, aux: 0 }
}

/// Appends a frame of this payload.
fn push(output: &mut Vec<u8>, header: &Header, payload: &[&[u8]]) {
    let len = payload.iter().map(|bytes| bytes.len()).sum::<usize>();
    let body_len = (len - header.meta_bytes()) as u32;
    output.extend(Header { body_len, ..*header }.encode());
    payload.iter().for_each(|bytes| output.extend_from_slice(bytes));
    output.resize(output.len().next_multiple_of(FRAME_ALIGN), 0);
}

/// The last of the frames that a decoder finds in an output, and its payload.
fn last_frame(output: &[u8]) -> (Header, Vec<u8>) {
    let mut decoder = Decoder::<Buffer>::new(FRAME_LEN_MAX);
    let stream = [&seeds::hello(), output].concat();
    let mut last = None;
    let decoded = decode(&mut decoder, &stream, |header, payload| {
        last = Some((*header, payload.to_vec()));
        Ok(())
    });
    assert_eq!(decoded, Ok(()));
    assert!(decoder.is_between_frames());
    last.expect("there is a frame")
}

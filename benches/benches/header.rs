//! The 32 bytes of a header, encoded and parsed: as they are, and with a checksum as they might
//! be. Version 1 of the wire has none; `docs/wire.md` says what was measured and decided.

use std::hint::black_box;

use criterion::{Criterion, criterion_group, criterion_main};
use ringcall_codec::{CallId, Flags, Header, Kind, limits::HEADER_LEN};

const HEADER: Header = Header {
    body_len: 64,
    meta_len: 0,
    kind: Kind::Request,
    flags: Flags::NONE,
    call: CallId(7 | 9 << 32),
    code: 0x1234_5678,
    time_us: 0,
    aux: 0,
};

fn plain(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("header");
    group.bench_function("encode", |bencher| {
        bencher.iter(|| black_box(&HEADER).encode());
    });
    let bytes = HEADER.encode();
    group.bench_function("parse", |bencher| {
        bencher.iter(|| Header::parse(black_box(&bytes)));
    });
    group.finish();
}

fn with_checksum(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("header_with_checksum");
    group.bench_function("encode", |bencher| {
        bencher.iter(|| seal(black_box(&HEADER).encode()));
    });
    let bytes = seal(HEADER.encode());
    assert_eq!(unseal(&bytes), Some(HEADER.encode()));
    group.bench_function("parse", |bencher| {
        bencher.iter(|| unseal(black_box(&bytes)).map(|bytes| Header::parse(&bytes)));
    });
    group.finish();
}

/// Writes the checksum into the last four bytes.
#[inline]
fn seal(mut bytes: [u8; HEADER_LEN]) -> [u8; HEADER_LEN] {
    let sum = checksum(&bytes);
    bytes[28..].copy_from_slice(&sum.to_le_bytes());
    bytes
}

/// The header with zero in the place of its checksum, if that is right.
#[inline]
fn unseal(bytes: &[u8; HEADER_LEN]) -> Option<[u8; HEADER_LEN]> {
    let mut header = *bytes;
    header[28..].fill(0);
    (bytes[28..] == checksum(&header).to_le_bytes()).then_some(header)
}

/// 32 bits over the 28 bytes before it: two multiplications, their halves folded together, as in
/// wyhash.
#[inline]
fn checksum(header: &[u8; HEADER_LEN]) -> u32 {
    let word = |at: usize| {
        let mut bytes = [0; 8];
        bytes.copy_from_slice(&header[at..at + 8]);
        u64::from_le_bytes(bytes)
    };
    let sum = fold(word(0) ^ KEYS[0], word(8) ^ KEYS[1]);
    let sum = fold(word(16) ^ KEYS[2], (word(24) & 0xffff_ffff) ^ sum);
    (sum ^ sum >> 32) as u32
}

#[inline]
fn fold(left: u64, right: u64) -> u64 {
    let product = u128::from(left) * u128::from(right);
    product as u64 ^ (product >> 64) as u64
}

/// The fraction bits of pi, which are nobody's choice.
const KEYS: [u64; 3] = [0x243f_6a88_85a3_08d3, 0x1319_8a2e_0370_7344, 0xa409_3822_299f_31d0];

criterion_group!(benches, plain, with_checksum);
criterion_main!(benches);

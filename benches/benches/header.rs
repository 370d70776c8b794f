//! The 32 bytes of a header, parsed and encoded: as they are, and with a checksum as they might
//! be.

use std::hint::black_box;

use criterion::{Criterion, criterion_group, criterion_main};
use ringcall_benches::checksum::{self, Checksum};
use ringcall_codec::{CallId, Flags, Header, Kind};

const HEADER: Header = Header {
    body_len: 64,
    kind: Kind::Request,
    flags: Flags::NONE,
    call: CallId(7 | 9 << 32),
    code: 0x1234_5678,
    time_us: 0,
    aux: 0,
};

fn header(criterion: &mut Criterion) {
    with::<checksum::None>(criterion, "none");
    with::<checksum::Fold>(criterion, "fold");
    #[cfg(target_feature = "sse4.2")]
    with::<checksum::Crc32c>(criterion, "crc32c");
}

fn with<C: Checksum>(criterion: &mut Criterion, name: &str) {
    let mut group = criterion.benchmark_group("header");
    group.bench_function(format!("encode/{name}"), |bencher| {
        bencher.iter(|| {
            let mut bytes = black_box(&HEADER).encode();
            C::write(&mut bytes);
            bytes
        });
    });
    let mut bytes = HEADER.encode();
    C::write(&mut bytes);
    group.bench_function(format!("parse/{name}"), |bencher| {
        bencher.iter(|| {
            let mut bytes = *black_box(&bytes);
            C::take(&mut bytes).then(|| Header::parse(&bytes))
        });
    });
    group.finish();
}

criterion_group!(benches, header);
criterion_main!(benches);

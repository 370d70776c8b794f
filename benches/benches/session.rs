//! A round trip in memory: every step of the codec on both sides, and one copy each way for the
//! kernel's.

use std::hint::black_box;

use criterion::{Criterion, criterion_group, criterion_main};
use ringcall_benches::{ArchivedBlob, ArchivedOrder, Blob, Order, Pair};

fn round_trip(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("round_trip");
    for body_len in [64, 4096] {
        let (mut pair, blob) = (Pair::new(), Blob::of_len(body_len));
        group.bench_function(format!("blob_{body_len}B"), |bencher| {
            bencher.iter(|| pair.round_trip(black_box(&blob), ArchivedBlob::read));
        });
    }
    let (mut pair, order) = (Pair::new(), Order::example());
    group.bench_function("order", |bencher| {
        bencher.iter(|| pair.round_trip(black_box(&order), ArchivedOrder::read));
    });
    group.finish();
}

criterion_group!(benches, round_trip);
criterion_main!(benches);

//! Validation of a body: the price of reading a peer's bytes in place.

use std::hint::black_box;

use criterion::{Criterion, criterion_group, criterion_main};
use ringcall_benches::{Blob, Order, archive};
use ringcall_codec::access;

fn validate(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("validate");
    for body_len in [64, 4096] {
        let body = archive(&Blob::of_len(body_len));
        assert_eq!(body.len(), body_len);
        group.bench_function(format!("blob_{body_len}B"), |bencher| {
            bencher.iter(|| access::<Blob>(black_box(&body)).map(|blob| blob.read()));
        });
    }
    let body = archive(&Order::example());
    group.bench_function(format!("order_{}B", body.len()), |bencher| {
        bencher.iter(|| access::<Order>(black_box(&body)).map(|order| order.read()));
    });
    group.finish();
}

criterion_group!(benches, validate);
criterion_main!(benches);

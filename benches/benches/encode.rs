//! A request encoded into the bytes to be sent, its slot taken and given back.

use std::hint::black_box;

use criterion::{Bencher, Criterion, criterion_group, criterion_main};
use ringcall_benches::{Blob, Order, Pair};
use ringcall_codec::Message;

fn encode(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("encode");
    for body_len in [64, 4096] {
        group.bench_function(format!("blob_{body_len}B"), |bencher| {
            request(bencher, &Blob::of_len(body_len));
        });
    }
    group.bench_function("order", |bencher| request(bencher, &Order::example()));
    group.finish();
}

fn request<T: Message>(bencher: &mut Bencher<'_>, message: &T) {
    let mut pair = Pair::new();
    bencher.iter(|| black_box(pair.encode(black_box(message))));
}

criterion_group!(benches, encode);
criterion_main!(benches);

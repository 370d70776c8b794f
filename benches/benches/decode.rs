//! Frames found where they lie: alone, and 128 behind each other in one piece.

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use ringcall_benches::{Blob, Buffer, open_decoder, requests};
use ringcall_codec::Step;

fn in_place(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("decode_in_place");
    for (body_len, frames) in [(64, 1), (4096, 1), (64, 128)] {
        let input = requests(&Blob::of_len(body_len), frames);
        let mut decoder = open_decoder();
        group.throughput(Throughput::Elements(frames.into()));
        group.bench_function(BenchmarkId::new(format!("{body_len}B"), frames), |bencher| {
            bencher.iter(|| {
                let (input, mut at, mut found) = (black_box(&input[..]), 0, 0);
                while at < input.len() {
                    let step = decoder.next(input, &mut at, |_| Ok(Some(Buffer::new())));
                    let Ok(Step::InPlace { header, body }) = step else {
                        unreachable!("the frames are whole");
                    };
                    black_box((header, body));
                    found += 1;
                }
                assert_eq!(found, frames);
            });
        });
    }
    group.finish();
}

/// A frame whose second half comes in another piece, and is copied.
fn cut(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("decode_cut");
    for body_len in [64, 4096] {
        let input = requests(&Blob::of_len(body_len), 1);
        let (head, tail) = input.split_at(input.len() / 2);
        let mut decoder = open_decoder();
        let mut kept = Some(Buffer::with_capacity(input.len()));
        group.bench_function(format!("{body_len}B"), |bencher| {
            bencher.iter(|| {
                for piece in [black_box(head), black_box(tail)] {
                    let step =
                        decoder.next(piece, &mut 0, |_| Ok(Some(kept.take().unwrap_or_default())));
                    if let Ok(Step::Assembled(mut partial)) = step {
                        black_box(partial.body());
                        partial.buffer.clear();
                        kept = Some(partial.buffer);
                    }
                }
                assert!(kept.is_some());
            });
        });
    }
    group.finish();
}

criterion_group!(benches, in_place, cut);
criterion_main!(benches);

//! What it costs a load generator to take note of a call: two looks at the clock and the record of
//! an open load, which is three histograms. The harness is to do it in under 25 ns.

use std::hint::black_box;

use criterion::{Criterion, criterion_group, criterion_main};
use ringcall_perf::generator::{Clock, Recorder, Timing};

fn recording(criterion: &mut Criterion) {
    let clock = Clock::new();
    let mut group = criterion.benchmark_group("recording");
    group.bench_function("clock", |bencher| bencher.iter(|| clock.now_ns()));
    for (name, recorder) in [("closed", Recorder::closed()), ("open", Recorder::open())] {
        // The bounds are constants that are in order.
        let Ok(mut recorder) = recorder else { return };
        let mut call = 0u64;
        group.bench_function(name, |bencher| {
            bencher.iter(|| {
                // Latencies that differ as those of a load do, around 50 µs.
                call = call.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                let sent_ns = clock.now_ns();
                let due_ns = sent_ns - (call >> 54);
                let done_ns = clock.now_ns() + 50_000 + (call >> 50);
                recorder.record(black_box(Timing { due_ns, free_ns: 0, sent_ns, done_ns }));
            });
        });
    }
    group.finish();
}

criterion_group!(benches, recording);
criterion_main!(benches);

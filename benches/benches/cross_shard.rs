//! What it costs to ask another shard: there and back, one at a time and many in flight.
//!
//! Criterion gives the time. The CPU time of both shards for one ask is printed behind each
//! benchmark.

#![allow(clippy::unwrap_used, missing_docs)]

use std::{
    cell::Cell,
    future::poll_fn,
    pin::Pin,
    task::Poll,
    time::{Duration, Instant},
};

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use ringcall::{Ask, prelude::*};

#[ringcall::message]
struct Work {
    asks: u64,
    in_flight: u32,
    waits: bool,
}

#[ringcall::message]
struct Took {
    ns: u64,
}

#[ringcall::service]
trait Bench {
    /// Asks the next shard so often.
    async fn ask(&self, cx: &Context, request: Request<'_, Work>) -> Result<Took, Status>;
}

#[derive(Default)]
struct Part(Cell<u64>);

impl Part {
    fn bump(&self) -> u64 {
        self.0.set(self.0.get() + 1);
        self.0.get()
    }
}

impl Bench for Part {
    async fn ask(&self, cx: &Context, request: Request<'_, Work>) -> Result<Took, Status> {
        let Work { asks, in_flight, waits } = request.to_owned()?;
        let shards = cx.shards();
        let other = (cx.shard().index + 1) % shards.count();
        let ask = || match waits {
            false => shards.on(other, Part::bump),
            true => shards.on_async(other, async |part: &Part| part.bump()),
        };
        let (mut begun, mut running) = (0, Vec::<Ask<u64>>::new());
        let since = Instant::now();
        poll_fn(|poll| {
            loop {
                while begun < asks && running.len() < in_flight as usize {
                    begun += 1;
                    running.push(ask());
                }
                let before = running.len();
                running.retain_mut(|ask| match Pin::new(ask).poll(poll) {
                    Poll::Pending => true,
                    Poll::Ready(outcome) => outcome.is_err(),
                });
                match running.len() {
                    0 if begun == asks => return Poll::Ready(()),
                    left if left == before => return Poll::Pending,
                    _ => {}
                }
            }
        })
        .await;
        Ok(Took { ns: since.elapsed().as_nanos() as u64 })
    }
}

fn cross_shard(criterion: &mut Criterion) {
    let cores: Vec<_> =
        (0..2).map(|core| core % std::thread::available_parallelism().unwrap()).collect();
    let server =
        Server::builder().cores(cores).serve("127.0.0.1:0", |_| BenchServer::new(Part::default()));
    let server = server.unwrap();
    let mut client = BenchBlockingClient::connect(server.address()).unwrap();
    let totals = || {
        let counters = server.counters();
        let sum = |of: fn(&ringcall::ShardCounters) -> u64| counters.iter().map(of).sum::<u64>();
        (sum(|shard| shard.cpu_ns), sum(|shard| shard.asks_made))
    };
    let mut group = criterion.benchmark_group("cross_shard");
    for (name, waits) in [("closure", false), ("async_closure", true)] {
        for in_flight in [1, 16, 64, 256] {
            let before = totals();
            group.bench_function(BenchmarkId::new(name, in_flight), |bencher| {
                bencher.iter_custom(|asks| {
                    let work = Work { asks, in_flight, waits };
                    Duration::from_nanos(client.ask(&work).wait().unwrap().ns.into())
                });
            });
            let after = totals();
            let asks = (after.1 - before.1).max(1);
            println!("CPU of both shards: {} ns an ask", (after.0 - before.0) / asks);
        }
    }
    group.finish();
}

criterion_group!(benches, cross_shard);
criterion_main!(benches);

//! What bulk does to the tail of a latency method: without classes, and with them.
//!
//! One shard, 64 bulk calls of 50 µs of computing in flight on one connection, and one caller of a
//! short method on another. Prints percentiles, which are what this is about, and how much bulk was
//! done meanwhile.

#![allow(clippy::unwrap_used, missing_docs)]

use std::{
    cell::Cell,
    env,
    rc::Rc,
    time::{Duration, Instant},
};

use hdrhistogram::Histogram;
use ringcall::{RunConfig, prelude::*};

#[ringcall::message]
struct Nothing;

#[ringcall::service]
trait Plain {
    async fn quick(&self, cx: &Context, request: Request<'_, Nothing>) -> Result<Nothing, Status>;
    async fn slow(&self, cx: &Context, request: Request<'_, Nothing>) -> Result<Nothing, Status>;
}

#[ringcall::service]
trait Classed {
    #[rpc(class = "latency")]
    async fn quick(&self, cx: &Context, request: Request<'_, Nothing>) -> Result<Nothing, Status>;
    #[rpc(class = "bulk")]
    async fn slow(&self, cx: &Context, request: Request<'_, Nothing>) -> Result<Nothing, Status>;
}

const SLOW: Duration = Duration::from_micros(50);
const BULK_IN_FLIGHT: usize = 64;

struct Worker;

macro_rules! implement {
    ($service:ident) => {
        impl $service for Worker {
            async fn quick(&self, _: &Context, _: Request<'_, Nothing>) -> Result<Nothing, Status> {
                Ok(Nothing)
            }

            async fn slow(&self, _: &Context, _: Request<'_, Nothing>) -> Result<Nothing, Status> {
                let since = Instant::now();
                while since.elapsed() < SLOW {
                    std::hint::spin_loop();
                }
                Ok(Nothing)
            }
        }
    };
}

implement!(Plain);
implement!(Classed);

macro_rules! measure {
    ($name:literal, $server:ident, $client:ident, $bulk:expr, $time:expr) => {{
        let last = std::thread::available_parallelism().unwrap().get() - 1;
        let server = Server::builder().cores([last]).serve("127.0.0.1:0", |_| $server::new(Worker));
        let server = server.unwrap();
        let in_flight: usize = $bulk;
        let address = server.address();
        let (took, bulk_done) = RunConfig::new()
            .core(0)
            .run(async move {
                let client = $client::connect(address).await.unwrap();
                let bulk = $client::connect(address).await.unwrap();
                let (is_over, done) = (Rc::<Cell<bool>>::default(), Rc::<Cell<u64>>::default());
                for _ in 0..in_flight {
                    let (bulk, is_over, done) =
                        (bulk.clone(), Rc::clone(&is_over), Rc::clone(&done));
                    ringcall::spawn(async move {
                        while !is_over.get() && bulk.slow(&Nothing).await.is_ok() {
                            done.set(done.get() + 1);
                        }
                    });
                }
                let mut took = Histogram::<u64>::new_with_bounds(1, 60_000_000_000, 3).unwrap();
                let since = Instant::now();
                while since.elapsed() < $time {
                    let began = Instant::now();
                    client.quick(&Nothing).await.unwrap();
                    took.saturating_record(began.elapsed().as_nanos() as u64);
                    ringcall::yield_now().await;
                }
                is_over.set(true);
                (took, done.get())
            })
            .unwrap();
        let us = |percentile| took.value_at_percentile(percentile) as f64 / 1000.0;
        println!(
            "{:<18} {:>9.1} {:>9.1} {:>9.1} {:>9.1} {:>12} {:>12}",
            $name,
            us(50.0),
            us(99.0),
            us(99.9),
            us(100.0),
            took.len(),
            bulk_done
        );
    }};
}

fn main() {
    // As a test it only shows that it runs.
    let is_bench = env::args().any(|argument| argument == "--bench");
    let time = Duration::from_millis(if is_bench { 5000 } else { 50 });
    println!(
        "{:<18} {:>9} {:>9} {:>9} {:>9} {:>12} {:>12}",
        "latency in µs", "p50", "p99", "p99.9", "max", "calls", "bulk calls"
    );
    measure!("no bulk", PlainServer, PlainClient, 0, time);
    measure!("bulk, no classes", PlainServer, PlainClient, BULK_IN_FLIGHT, time);
    measure!("bulk, classes", ClassedServer, ClassedClient, BULK_IN_FLIGHT, time);
}

//! A service that says where it runs and never ends some calls, and servers of it on several shards.

use std::{
    cell::Cell,
    future::{Future, pending},
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use ringcall::{ShardPlace, prelude::*};

use super::server::usable_cores;

#[ringcall::message]
pub(crate) struct Number {
    pub(crate) number: u64,
}

#[ringcall::message]
pub(crate) struct Place {
    pub(crate) index: u16,
    pub(crate) count: u16,
    pub(crate) served: u64,
}

#[ringcall::service]
pub(crate) trait Station {
    /// The shard that runs the call, and how many calls it ran before.
    async fn place(&self, cx: &Context, request: Request<'_, Number>) -> Result<Place, Status>;
    /// Adds one, at once.
    async fn add(&self, cx: &Context, request: Request<'_, Number>) -> Result<Number, Status>;
    /// Adds one, after a while.
    async fn wait(&self, cx: &Context, request: Request<'_, Number>) -> Result<Number, Status>;
    /// Never replies.
    async fn never(&self, cx: &Context, request: Request<'_, Number>) -> Result<Number, Status>;
}

pub(crate) struct Porter {
    pub(crate) served: Cell<u64>,
    /// Calls of `never` that wait now, on all shards.
    pub(crate) waiting: Arc<AtomicU64>,
}

/// One that waits, until its future is dropped.
struct Waits<'a>(&'a AtomicU64);

impl<'a> Waits<'a> {
    fn begin(waiting: &'a AtomicU64) -> Self {
        waiting.fetch_add(1, Relaxed);
        Self(waiting)
    }
}

impl Drop for Waits<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}

pub(crate) fn next(request: Request<'_, Number>) -> Number {
    Number { number: u64::from(request.number) + 1 }
}

impl Station for Porter {
    async fn place(&self, cx: &Context, _: Request<'_, Number>) -> Result<Place, Status> {
        let served = self.served.get();
        self.served.set(served + 1);
        let ShardPlace { index, count, .. } = cx.shard();
        Ok(Place { index, count, served })
    }

    async fn add(&self, _: &Context, request: Request<'_, Number>) -> Result<Number, Status> {
        Ok(next(request))
    }

    async fn wait(&self, _: &Context, request: Request<'_, Number>) -> Result<Number, Status> {
        ringcall::sleep(Duration::from_micros(100)).await;
        ringcall::yield_now().await;
        Ok(next(request))
    }

    async fn never(&self, _: &Context, _: Request<'_, Number>) -> Result<Number, Status> {
        let _waits = Waits::begin(&self.waiting);
        pending().await
    }
}

/// Cores for so many shards, each core as often as it must be.
pub(crate) fn cores(shards: usize) -> Vec<usize> {
    usable_cores().into_iter().cycle().take(shards).collect()
}

pub(crate) fn serve_at(address: SocketAddr, shards: usize) -> (ServerHandle, Arc<AtomicU64>) {
    let waiting = Arc::<AtomicU64>::default();
    let theirs = Arc::clone(&waiting);
    let server = Server::builder().cores(cores(shards)).serve(address, move |shard| {
        assert_eq!(usize::from(shard.count), shards);
        StationServer::new(Porter { served: Cell::new(0), waiting: Arc::clone(&theirs) })
    });
    (server.unwrap(), waiting)
}

pub(crate) const ANY_PORT: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

pub(crate) fn serve(shards: usize) -> (ServerHandle, Arc<AtomicU64>) {
    serve_at(ANY_PORT, shards)
}

pub(crate) fn run<T: 'static, F: Future<Output = T>>(future: F) -> T {
    ringcall::run(future).unwrap()
}

//! A service whose calls go to the shard that owns their key, and tells when one does not.

use std::{
    future::pending,
    net::SocketAddr,
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use ringcall::{RoutingKey, ShardCounters, ShardPlace, prelude::*};

use super::station::cores;

#[ringcall::message]
pub(crate) struct Put {
    pub(crate) key: u64,
    pub(crate) text: String,
}

/// Where a call ran, and what its handler knew of it.
#[ringcall::message]
pub(crate) struct Ran {
    pub(crate) index: u16,
    pub(crate) count: u16,
    pub(crate) text: String,
    pub(crate) peer: String,
    pub(crate) tenant: String,
    pub(crate) has_deadline: bool,
}

#[ringcall::service]
pub(crate) trait Routed {
    /// At once.
    #[rpc(shard_by = key, idempotent)]
    async fn put(&self, cx: &Context, request: Request<'_, Put>) -> Result<Ran, Status>;
    /// After a while.
    #[rpc(shard_by = key)]
    async fn wait(&self, cx: &Context, request: Request<'_, Put>) -> Result<Ran, Status>;
    /// Never replies.
    #[rpc(shard_by = key)]
    async fn never(&self, cx: &Context, request: Request<'_, Put>) -> Result<Ran, Status>;
    /// Fails, with the text of the request.
    #[rpc(shard_by = (key, text))]
    async fn fail(&self, cx: &Context, request: Request<'_, Put>) -> Result<Ran, Status>;
    /// Counts.
    #[rpc(oneway, shard_by = key)]
    async fn note(&self, cx: &Context, request: Request<'_, Put>);
    /// Keeps the request, until the next is kept.
    #[rpc(shard_by = key)]
    async fn keep(&self, cx: &Context, request: Request<'_, Put>) -> Result<Ran, Status>;
    /// Where it comes.
    async fn anywhere(&self, cx: &Context, request: Request<'_, Put>) -> Result<Ran, Status>;
}

#[derive(Clone, Default)]
pub(crate) struct Seen {
    /// Calls of `never` that wait now.
    pub(crate) waiting: Arc<AtomicU64>,
    pub(crate) notes: Arc<AtomicU64>,
    pub(crate) misrouted: Arc<AtomicU64>,
}

pub(crate) struct Part {
    place: (u16, u16),
    seen: Seen,
    kept: std::cell::RefCell<Option<ringcall::Retained<Put>>>,
}

struct Waits(Arc<AtomicU64>);

impl Drop for Waits {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}

impl Part {
    fn ran(&self, cx: &Context, request: Request<'_, Put>) -> Ran {
        let ShardPlace { index, count, .. } = cx.shard();
        assert_eq!((index, count), self.place);
        Ran {
            index,
            count,
            text: request.text.as_str().to_owned(),
            peer: cx.peer().to_string(),
            tenant: cx
                .metadata()
                .get(ringcall::Key::TENANT)
                .map_or(String::new(), |tenant| String::from_utf8(tenant.to_vec()).unwrap()),
            has_deadline: cx.time_left().is_some(),
        }
    }

    /// The same, of a call that must be this shard's.
    fn own(&self, cx: &Context, request: Request<'_, Put>, key: RoutingKey) -> Ran {
        let ran = self.ran(cx, request);
        if key.owner(ran.count) != ran.index {
            self.seen.misrouted.fetch_add(1, Relaxed);
        }
        ran
    }
}

fn key_of(request: Request<'_, Put>) -> RoutingKey {
    RoutingKey::of(&request.key)
}

impl Routed for Part {
    async fn put(&self, cx: &Context, request: Request<'_, Put>) -> Result<Ran, Status> {
        Ok(self.own(cx, request, key_of(request)))
    }

    async fn wait(&self, cx: &Context, request: Request<'_, Put>) -> Result<Ran, Status> {
        ringcall::sleep(Duration::from_micros(200)).await;
        Ok(self.own(cx, request, key_of(request)))
    }

    async fn never(&self, _: &Context, _: Request<'_, Put>) -> Result<Ran, Status> {
        self.seen.waiting.fetch_add(1, Relaxed);
        let _waits = Waits(Arc::clone(&self.seen.waiting));
        pending().await
    }

    async fn fail(&self, cx: &Context, request: Request<'_, Put>) -> Result<Ran, Status> {
        let key = RoutingKey::of(&(u64::from(request.key), request.text.as_str()));
        Err(Status::new(Code::NotFound, self.own(cx, request, key).text))
    }

    async fn note(&self, cx: &Context, request: Request<'_, Put>) {
        self.own(cx, request, key_of(request));
        self.seen.notes.fetch_add(1, Relaxed);
    }

    async fn keep(&self, cx: &Context, request: Request<'_, Put>) -> Result<Ran, Status> {
        let kept = request.retain()?;
        let ran = self.own(cx, request, key_of(request));
        self.kept.replace(Some(kept));
        Ok(ran)
    }

    async fn anywhere(&self, cx: &Context, request: Request<'_, Put>) -> Result<Ran, Status> {
        Ok(self.ran(cx, request))
    }
}

pub(crate) fn put(key: u64) -> Put {
    Put { key, text: format!("the text of {key}") }
}

pub(crate) fn serve_at(address: SocketAddr, shards: usize, seen: &Seen) -> ServerHandle {
    let seen = seen.clone();
    let server = Server::builder().cores(cores(shards)).serve(address, move |shard| {
        let place = (shard.index, shard.count);
        RoutedServer::new(Part { place, seen: seen.clone(), kept: None.into() })
    });
    server.unwrap()
}

pub(crate) fn serve(shards: usize) -> (ServerHandle, Seen) {
    let seen = Seen::default();
    (serve_at(super::station::ANY_PORT, shards, &seen), seen)
}

/// The counters of all shards together.
pub(crate) fn total(server: &ServerHandle) -> ShardCounters {
    server.counters().iter().fold(ShardCounters::default(), |sum, shard| sum.plus(shard))
}

pub(crate) fn owner(key: u64, count: u16) -> u16 {
    RoutingKey::of(&key).owner(count)
}

/// A key that this shard owns, of four.
pub(crate) fn key_of_shard(index: u16, count: u16) -> u64 {
    (0..).find(|key| owner(*key, count) == index).unwrap()
}

/// Runs so many tasks, and waits for all of them.
pub(crate) async fn tasks<F: Future<Output = ()> + 'static>(count: u64, make: impl Fn(u64) -> F) {
    let left = Rc::new(std::cell::Cell::new(count));
    for number in 0..count {
        let (task, left) = (make(number), Rc::clone(&left));
        ringcall::spawn(async move {
            task.await;
            left.set(left.get() - 1);
        });
    }
    while left.get() > 0 {
        ringcall::sleep(Duration::from_millis(1)).await;
    }
}

/// Runs two until the first of them is done.
pub(crate) async fn first<A: Future, B: Future>(a: A, b: B) -> Option<A::Output> {
    let (mut a, mut b) = (std::pin::pin!(a), std::pin::pin!(b));
    std::future::poll_fn(|cx| {
        if let std::task::Poll::Ready(output) = a.as_mut().poll(cx) {
            return std::task::Poll::Ready(Some(output));
        }
        b.as_mut().poll(cx).map(|_| None)
    })
    .await
}

/// A port that is nobody's but this test's, for as long as the socket is kept: servers can listen
/// on it one after the other.
pub(crate) fn reserve() -> (socket2::Socket, SocketAddr) {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    socket.set_reuse_port(true).unwrap();
    socket.bind(&super::station::ANY_PORT.into()).unwrap();
    let address = socket.local_addr().unwrap().as_socket().unwrap();
    (socket, address)
}

//! A service with a method for each way that a call can go, and a server of it on one shard.

use std::sync::atomic::{AtomicUsize, Ordering};

use ringcall::{
    Field, Message, ShardConfig, SocketConfig,
    layout::layout_of_struct,
    prelude::*,
    rkyv::{self, Archive, Serialize},
};

use super::{event::Gate, server::usable_cores};

/// A number and bytes.
#[ringcall::message]
pub(crate) struct Blob {
    pub(crate) id: u64,
    pub(crate) bytes: Vec<u8>,
}

impl Blob {
    pub(crate) fn new(id: u64, len: usize) -> Self {
        let bytes = (0..len as u64).map(|at| (at ^ at >> 8 ^ id) as u8);
        Self { id, bytes: bytes.collect() }
    }
}

/// What was in a blob.
#[ringcall::message]
pub(crate) struct Digest {
    pub(crate) id: u64,
    pub(crate) len: u64,
    pub(crate) hash: u64,
}

/// Every way in which bytes can be no archive.
#[ringcall::message]
pub(crate) struct Form {
    pub(crate) name: String,
    pub(crate) is_set: bool,
    pub(crate) letter: char,
    pub(crate) choice: Choice,
    pub(crate) maybe: Option<u32>,
}

#[ringcall::message]
pub(crate) enum Choice {
    One,
    Other(u32),
}

/// Nothing at all: a body of no bytes.
#[ringcall::message]
pub(crate) struct Nothing;

/// A type that holds itself, which `#[ringcall::message]` refuses: as deep as its sender likes.
#[derive(Archive, Serialize)]
#[rkyv(crate = ringcall::rkyv)]
#[rkyv(serialize_bounds(
    __S: rkyv::ser::Writer + rkyv::ser::Allocator,
    __S::Error: rkyv::rancor::Source,
))]
#[rkyv(bytecheck(bounds(
    __C: rkyv::validation::ArchiveContext,
    __C::Error: rkyv::rancor::Source,
)))]
pub(crate) struct Nest {
    #[rkyv(omit_bounds)]
    pub(crate) inner: Option<Box<Nest>>,
}

impl Field for Nest {
    const LAYOUT: u64 = layout_of_struct(&[], 8, 4);
}

impl Message for Nest {}

impl ArchivedNest {
    pub(crate) fn levels(&self) -> u64 {
        let mut levels = 1;
        let mut at = self;
        while let Some(inner) = at.inner.as_ref() {
            levels += 1;
            at = inner;
        }
        levels
    }
}

/// The archive of `levels` nests, each inside the next.
pub(crate) fn nested(levels: usize) -> Vec<u8> {
    let mut body = vec![0; 8];
    for _ in 1..levels {
        // `Some`, three bytes of padding, and a pointer to the eight bytes before.
        body.extend([1, 0, 0, 0]);
        body.extend((-12_i32).to_le_bytes());
    }
    body
}

#[ringcall::message]
pub(crate) struct Levels {
    pub(crate) levels: u64,
}

#[ringcall::service]
pub(crate) trait Echo {
    /// Replies with the same bytes, borrowed from the request.
    async fn echo<'a>(&self, cx: &Context, request: Request<'a, Blob>) -> Result<View<'a>, Status>;

    /// Replies with what the bytes were.
    async fn digest(&self, cx: &Context, request: Request<'_, Blob>) -> Result<Digest, Status>;

    /// Waits until `release` is called, and replies as `digest`.
    async fn hold(&self, cx: &Context, request: Request<'_, Blob>) -> Result<Digest, Status>;

    /// Ends the wait of every `hold` that came before.
    async fn release(&self, cx: &Context, request: Request<'_, Nothing>)
    -> Result<Nothing, Status>;

    /// Validates a form.
    async fn fill(&self, cx: &Context, request: Request<'_, Form>) -> Result<Nothing, Status>;

    /// Counts levels.
    async fn depth(&self, cx: &Context, request: Request<'_, Nest>) -> Result<Levels, Status>;

    /// Replies with as many bytes as the request's id says.
    async fn grow(&self, cx: &Context, request: Request<'_, Blob>) -> Result<Blob, Status>;
}

/// A [`Blob`] that borrows its bytes.
#[ringcall::message]
pub(crate) struct View<'a> {
    pub(crate) id: u64,
    pub(crate) bytes: &'a [u8],
}

#[derive(Default)]
pub(crate) struct Service {
    held: Gate,
}

impl Echo for Service {
    async fn echo<'a>(&self, _: &Context, request: Request<'a, Blob>) -> Result<View<'a>, Status> {
        Ok(View { id: request.id.into(), bytes: &request.get().bytes })
    }

    async fn digest(&self, _: &Context, request: Request<'_, Blob>) -> Result<Digest, Status> {
        Ok(digest_of(request.id.into(), &request.bytes))
    }

    async fn hold(&self, _: &Context, request: Request<'_, Blob>) -> Result<Digest, Status> {
        self.held.wait().await;
        Ok(digest_of(request.id.into(), &request.bytes))
    }

    async fn release(&self, _: &Context, _: Request<'_, Nothing>) -> Result<Nothing, Status> {
        self.held.open();
        Ok(Nothing)
    }

    async fn fill(&self, _: &Context, _: Request<'_, Form>) -> Result<Nothing, Status> {
        Ok(Nothing)
    }

    async fn depth(&self, _: &Context, request: Request<'_, Nest>) -> Result<Levels, Status> {
        let levels = request.levels();
        Ok(Levels { levels })
    }

    async fn grow(&self, _: &Context, request: Request<'_, Blob>) -> Result<Blob, Status> {
        let len: u64 = request.id.into();
        Ok(Blob::new(len, len as usize))
    }
}

/// FNV-1a (64 bits) of the bytes.
pub(crate) fn digest_of(id: u64, bytes: &[u8]) -> Digest {
    let hash = bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3)
    });
    let len = bytes.len() as u64;
    Digest { id, len, hash }
}

/// A server of it on one shard. Each is on another core than the last, as far as there are any.
pub(crate) fn serve(config: ShardConfig) -> ServerHandle {
    serve_on(config, SocketConfig::new())
}

/// [`serve`], with options of the sockets.
pub(crate) fn serve_on(config: ShardConfig, socket: SocketConfig) -> ServerHandle {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    let cores = usable_cores();
    let core = cores[NEXT.fetch_add(1, Ordering::Relaxed) % cores.len()];
    let server = Server::builder().cores([core]).shard(config).socket(socket);
    server.serve("127.0.0.1:0", |_| EchoServer::new(Service::default())).unwrap()
}

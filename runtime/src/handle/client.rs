//! Connections through a handle, as their users have them.

use std::{
    fmt,
    future::Future,
    net::{SocketAddr, ToSocketAddrs},
    pin::Pin,
    rc::Rc,
    sync::Arc,
    task::{Context, Poll, Waker},
};

use ringcall_codec::{Message, MethodInfo, ShardPlace, Status};

use super::{
    Handle, Owner,
    call::{Call, OneWay},
    config::ClientConfig,
    promise::{Ended, Place, Promise},
    queue::{Entry, Shared},
};
use crate::{
    client::{self, ConnectError},
    shard::{Shard, ShardError},
    tasks,
};

/// A connection to a server, on which calls are made from any thread and any executor. Cheap to
/// clone; the last clone closes it.
///
/// The connection is on the shard of its [`Handle`], which runs for as long as there is a clone.
/// The send clients that `#[ringcall::service]` writes wrap one.
#[derive(Clone)]
pub struct Client {
    connected: Arc<Connected>,
}

/// A connection on a handle's shard.
pub(super) struct Connected {
    owner: Arc<Owner>,
    /// Its number on the shard.
    pub(super) port: u64,
    peer: SocketAddr,
    shard: ShardPlace,
    /// Longest body that the server accepts, in bytes.
    pub(super) body_len_max: usize,
    /// Time for calls of methods that have none of their own, in microseconds; zero is for ever.
    pub(super) timeout_us: u32,
}

/// A connection that is to be made.
pub(super) struct Connecting {
    owner: Arc<Owner>,
    config: ClientConfig,
    addresses: Vec<SocketAddr>,
    methods: &'static [MethodInfo],
    outcome: Promise<Outcome, ()>,
}

type Outcome = Result<Client, ConnectError>;

/// Waits until a connection is there; gives the attempt up when it is dropped.
struct Attempt(Arc<Place<Outcome, ()>>);

impl Client {
    /// Connects with the defaults, to call `methods`.
    ///
    /// A host name is looked up on this thread when the future is first polled; give an address
    /// where that must not wait.
    ///
    /// # Errors
    ///
    /// Where no address can be connected to, where the server is none or was built with other
    /// layouts of the methods' messages, or where the handle's shard has ended. Dropping the
    /// future gives the attempt up: what comes of it is closed, within the time to connect.
    pub async fn connect(
        handle: &Handle,
        address: impl ToSocketAddrs,
        methods: &'static [MethodInfo],
    ) -> Result<Self, ConnectError> {
        Self::connect_with(handle, &ClientConfig::default(), address, methods).await
    }

    /// Connects, to call `methods`. As [`connect`](Self::connect).
    ///
    /// # Errors
    ///
    /// As [`connect`](Self::connect).
    pub async fn connect_with(
        handle: &Handle,
        config: &ClientConfig,
        address: impl ToSocketAddrs,
        methods: &'static [MethodInfo],
    ) -> Result<Self, ConnectError> {
        // What is resolved is kept, and the address not: it may be of this thread.
        let addresses = address.to_socket_addrs().map_err(ConnectError::Resolve)?.collect();
        let (owner, config) = (Arc::clone(&handle.owner), config.clone());
        connect(owner, config, addresses, methods).await
    }

    /// Calls a method. The request is encoded now, on this thread; the call is made when the
    /// future is first polled.
    ///
    /// The future's error is the status that the server answered with, or one that says why there
    /// is no answer; [`Status::is_not_executed`] tells whether it is certain that no handler ran.
    /// Where as many calls as may be are in flight through the handle, or as many as the server
    /// accepts on the connection, the call waits for room.
    pub fn call<Q: Message, R: Message, E: From<Status>>(
        &self,
        method: &'static MethodInfo,
        request: &Q,
    ) -> Call<R, E> {
        Call::new(&self.connected, method, request)
    }

    /// Makes a call that gets no answer: the future is done once the request is in the
    /// connection's send buffer. Whether it arrives and its handler succeeds is not known.
    pub fn one_way<Q: Message>(&self, method: &'static MethodInfo, request: &Q) -> OneWay {
        OneWay::new(&self.connected, method, request)
    }

    /// Address of the server.
    pub fn peer(&self) -> SocketAddr {
        self.connected.peer
    }

    /// The server's shard that the connection arrived at.
    pub fn shard(&self) -> ShardPlace {
        self.connected.shard
    }

    /// The handle that it was connected through.
    pub fn handle(&self) -> Handle {
        Handle { owner: Arc::clone(&self.connected.owner) }
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").field("peer", &self.connected.peer).finish_non_exhaustive()
    }
}

impl Connected {
    #[inline]
    pub(super) fn shared(&self) -> &Arc<Shared> {
        &self.owner.shared
    }
}

impl Drop for Connected {
    fn drop(&mut self) {
        self.shared().push(Entry::Close { port: self.port });
    }
}

/// Has the handle's shard connect, and waits until it has.
async fn connect(
    owner: Arc<Owner>,
    config: ClientConfig,
    addresses: Vec<SocketAddr>,
    methods: &'static [MethodInfo],
) -> Outcome {
    let (place, outcome) = Place::new(Waker::noop().clone(), ());
    let shared = Arc::clone(&owner.shared);
    let connecting = Connecting { owner, config, addresses, methods, outcome };
    shared.push(Entry::Connect(Box::new(connecting)));
    Attempt(place).await
}

impl Future for Attempt {
    type Output = Outcome;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Outcome> {
        self.0.poll(cx.waker())
    }
}

impl Drop for Attempt {
    fn drop(&mut self) {
        self.0.give_up();
    }
}

impl Connecting {
    /// Begins to connect, on the shard.
    pub(super) fn begin(self, shard: &Rc<Shard>) {
        let shard = Rc::clone(shard);
        tasks::spawn(async move {
            let Self { owner, config, addresses, methods, outcome } = self;
            if outcome.is_given_up() {
                return;
            }
            let config_of_shard = config.on_shard();
            let client =
                client::connect(&shard, &config_of_shard, &addresses[..], methods, None).await;
            outcome.give(client.map(|client| {
                let session = client.connection().session.borrow();
                let body_len_max = session.body_len_max();
                drop(session);
                let (peer, place) = (client.peer(), client.shard());
                let port = shard.ports.enter(client, &owner.shared);
                let timeout_us = config.timeout_us;
                let connected =
                    Connected { owner, port, peer, shard: place, body_len_max, timeout_us };
                Client { connected: Arc::new(connected) }
            }));
        });
    }
}

impl Ended for Outcome {
    fn ended() -> Self {
        Err(ConnectError::Shard(ShardError::Ended))
    }
}

//! Calls out: a client on a shard, or on any glommio executor.

use std::{
    future::{Future, poll_fn},
    io,
    net::{SocketAddr, ToSocketAddrs},
    os::fd::OwnedFd,
    pin::pin,
    rc::Rc,
    task::Poll,
    time::Duration,
};

use ringcall_codec::{HeaderError, Message, MethodInfo, SessionError, ShardPlace, Status};

use crate::{
    call::Call,
    client_end::{ClientEnd, Failure},
    connection::{Connection, End, State},
    executor,
    shard::{Shard, ShardError},
    socket::{self, SocketConfig},
};

/// A connection to a server, on which calls are made. Cheap to clone; the last clone closes it.
///
/// It stays on the executor it was made on. The clients that `#[ringcall::service]` writes wrap
/// one.
#[derive(Clone)]
pub struct Client {
    shared: Rc<Shared>,
}

/// Closes the connection when the last clone is gone.
struct Shared {
    connection: Rc<Connection>,
}

/// How a client connects.
#[derive(Clone, Debug)]
pub struct ClientConfig {
    connect_timeout: Duration,
    socket: SocketConfig,
}

/// Why a client is not connected.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConnectError {
    /// The address cannot be looked up.
    #[error("cannot look the address up: {0}; give it as host:port")]
    Resolve(io::Error),
    /// The address stands for nothing.
    #[error("the name has no address")]
    NoAddress,
    /// The kernel cannot connect.
    #[error("cannot connect to {address}: {source}")]
    Connect {
        /// The last address that was tried.
        address: SocketAddr,
        /// What the kernel said.
        source: io::Error,
    },
    /// Connecting, or the server's HELLO, took too long.
    #[error("{address} did not answer within {timeout:?}; is it a ringcall server?")]
    Timeout {
        /// The last address that was tried.
        address: SocketAddr,
        /// The configured time.
        timeout: Duration,
    },
    /// What answers does not speak the protocol, or was built with other messages.
    #[error("{address}: {source}{}", advice(source))]
    Session {
        /// The last address that was tried.
        address: SocketAddr,
        /// What does not fit.
        source: SessionError,
    },
    /// The server closed the connection before it was open.
    #[error("{address} refused the connection: {status}")]
    Closed {
        /// The last address that was tried.
        address: SocketAddr,
        /// What the server said, or what happened.
        status: Status,
    },
    /// The shard for the connection cannot start.
    #[error(transparent)]
    Shard(#[from] ShardError),
}

impl Client {
    /// Connects with the defaults, to call `methods`.
    ///
    /// A host name is looked up on this thread; give an address where the shard must not wait.
    ///
    /// # Errors
    ///
    /// Where no address can be connected to, or where the server is none or was built with other
    /// layouts of the methods' messages. Dropping the future gives the attempt up.
    pub async fn connect(
        address: impl ToSocketAddrs,
        methods: &'static [MethodInfo],
    ) -> Result<Self, ConnectError> {
        Self::connect_with(&ClientConfig::default(), address, methods).await
    }

    /// Connects, to call `methods`. As [`connect`](Self::connect).
    ///
    /// # Errors
    ///
    /// As [`connect`](Self::connect).
    pub async fn connect_with(
        config: &ClientConfig,
        address: impl ToSocketAddrs,
        methods: &'static [MethodInfo],
    ) -> Result<Self, ConnectError> {
        let shard = Shard::current()?;
        let mut error = ConnectError::NoAddress;
        for address in address.to_socket_addrs().map_err(ConnectError::Resolve)? {
            match connect_to(&shard, config, address, methods).await {
                Ok(client) => return Ok(client),
                Err(failed) => error = failed,
            }
        }
        Err(error)
    }

    /// Calls a method: the request is encoded straight into the connection's send buffer when the
    /// future is first polled, and the reply is read where it arrives.
    ///
    /// The future's error is the status that the server answered with, or one that says why there
    /// is no answer; [`Status::is_not_executed`] tells whether it is certain that no handler ran.
    /// Where as many calls as the server accepts are in flight, or its send buffer is full, the
    /// call waits for room.
    #[inline]
    pub fn call<'a, Q: Message, R: Message>(
        &'a self,
        method: u32,
        request: &'a Q,
    ) -> Call<'a, Q, R> {
        Call::new(self, method, request)
    }

    /// Address of the server.
    pub fn peer(&self) -> SocketAddr {
        self.shared.connection.peer
    }

    /// The server's shard that the connection arrived at.
    pub fn shard(&self) -> ShardPlace {
        self.end().and_then(|end| end.session.borrow().shard()).unwrap_or_default()
    }

    /// Whether calls can still be made. A connection that was lost does not come back.
    pub fn is_open(&self) -> bool {
        self.shared.connection.state() == State::Open
    }

    #[inline]
    pub(crate) fn connection(&self) -> &Rc<Connection> {
        &self.shared.connection
    }

    #[inline]
    pub(crate) fn end(&self) -> Option<&ClientEnd> {
        match &self.shared.connection.end {
            End::Client(end) => Some(end),
            End::Server(_) => None,
        }
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        // A server that is being told why ends the connection itself, or has its time to.
        if !matches!(self.connection.state(), State::Lingering | State::Leaving) {
            self.connection.finish("the client was dropped");
        }
    }
}

impl ClientConfig {
    /// The defaults.
    pub fn new() -> Self {
        Self::default()
    }

    /// Time within which the server must have answered. Default: 5 s.
    #[must_use]
    pub fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.connect_timeout = timeout;
        self
    }

    /// Options of the socket.
    #[must_use]
    pub fn socket(mut self, socket: SocketConfig) -> Self {
        self.socket = socket;
        self
    }
}

impl Default for ClientConfig {
    fn default() -> Self {
        Self { connect_timeout: Duration::from_secs(5), socket: SocketConfig::default() }
    }
}

/// Connects to one address and exchanges HELLOs.
async fn connect_to(
    shard: &Rc<Shard>,
    config: &ClientConfig,
    address: SocketAddr,
    methods: &'static [MethodInfo],
) -> Result<Client, ConnectError> {
    let socket = socket::client(address, &config.socket)
        .map_err(|source| ConnectError::Connect { address, source })?;
    let socket = Rc::new(OwnedFd::from(socket));
    let end = End::Client(ClientEnd::new(shard, methods));
    let connection = Connection::open(shard, Rc::clone(&socket), address, end, State::Connecting);
    let op = shard.ring.borrow_mut().connect(&socket, connection.key, &address);
    connection.receive.borrow_mut().has_begun(op);
    shard.wake_driver();
    // From here on dropping the future closes the connection.
    let client = Client { shared: Rc::new(Shared { connection }) };
    let timeout = config.connect_timeout;
    let opened = {
        let open = poll_fn(|cx| match client.end() {
            Some(end) => end.poll_open(cx.waker()),
            None => Poll::Pending,
        });
        let mut open = pin!(open);
        let mut sleep = pin!(executor::sleep(timeout));
        poll_fn(|cx| match open.as_mut().poll(cx) {
            Poll::Ready(opened) => Poll::Ready(Some(opened)),
            Poll::Pending => sleep.as_mut().poll(cx).map(|()| None),
        })
        .await
    };
    match opened {
        Some(Ok(())) => Ok(client),
        Some(Err(Failure::Connect(source))) => Err(ConnectError::Connect { address, source }),
        Some(Err(Failure::Session(source))) => Err(ConnectError::Session { address, source }),
        Some(Err(Failure::Closed(status))) => Err(ConnectError::Closed { address, status }),
        None => Err(ConnectError::Timeout { address, timeout }),
    }
}

/// What a peer that is none of ours is likely to be.
fn advice(error: &SessionError) -> &'static str {
    match error {
        SessionError::Header(HeaderError::UnknownKind(_)) => "; is it a ringcall server?",
        _ => "",
    }
}

//! Calls out: a client on a shard, or on any glommio executor.

use std::{
    fmt,
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
    call::{Call, OneWay},
    callers::Failure,
    config::us32,
    connection::{Connection, Side, State, Transport},
    dispatch::{self, Dispatch},
    executor,
    intercept::InterceptCall,
    service::Service,
    shard::{Shard, ShardError},
    socket::{self, SocketConfig},
    streams::StreamCall,
};

/// A connection to a server, on which calls are made. Cheap to clone; the last clone closes it.
///
/// It stays on the executor it was made on. The clients that `#[ringcall::service]` writes wrap
/// one.
#[derive(Clone)]
pub struct Client {
    shared: Rc<Shared>,
}

/// Closes the connection when the last clone is gone, where it was made by the client.
struct Shared {
    connection: Rc<Connection>,
    /// Time for calls of methods that have none of their own, in microseconds; zero is for ever.
    timeout_us: u32,
    interceptor: Option<Rc<dyn InterceptCall>>,
}

/// How a client connects.
#[derive(Clone)]
pub struct ClientConfig {
    connect_timeout: Duration,
    timeout_us: u32,
    interceptor: Option<Rc<dyn InterceptCall>>,
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
        connect(&Shard::current()?, config, address, methods, None).await
    }

    /// Connects to one address, and to one of the shards of the server there if it has them. Where
    /// it cannot be there, it is where [`shard`](Self::shard) says.
    pub(crate) async fn connect_to_shard(
        config: &ClientConfig,
        address: SocketAddr,
        methods: &'static [MethodInfo],
        place: ShardPlace,
    ) -> Result<Self, ConnectError> {
        connect_to(&Shard::current()?, config, address, methods, None, place).await
    }

    /// Connects, to call `methods`, and serves `service` to the server on the same connection: it
    /// may call the client for as long as that is connected. As [`connect`](Self::connect).
    ///
    /// # Errors
    ///
    /// As [`connect`](Self::connect).
    pub async fn connect_serving<S: Service>(
        config: &ClientConfig,
        address: impl ToSocketAddrs,
        methods: &'static [MethodInfo],
        service: S,
    ) -> Result<Self, ConnectError> {
        let shard = Shard::current()?;
        let serves = dispatch::dispatcher(Rc::new(service), &shard);
        connect(&shard, config, address, methods, Some(serves)).await
    }

    /// The client of a connection that was accepted. It does not close it.
    pub(crate) fn of_accepted(connection: &Rc<Connection>) -> Self {
        let shared = Shared { connection: Rc::clone(connection), timeout_us: 0, interceptor: None };
        Self { shared: Rc::new(shared) }
    }

    /// Calls a method: the request is encoded straight into the connection's send buffer when the
    /// future is first polled, and the reply is read where it arrives.
    ///
    /// The future's error is the status that the server answered with, or one that says why there
    /// is no answer; [`Status::is_not_executed`] tells whether it is certain that no handler ran.
    /// Where as many calls as the server accepts are in flight, or its send buffer is full, the
    /// call waits for room.
    #[inline]
    pub fn call<'a, Q: Message, R: Message, E: From<Status>>(
        &'a self,
        method: &'static MethodInfo,
        request: &'a Q,
    ) -> Call<'a, Q, R, E> {
        Call::new(self, method, request)
    }

    /// Makes a call that gets no answer: the future is done once the request is in the
    /// connection's send buffer. Whether it arrives and its handler succeeds is not known; where
    /// the peer says that it failed, [`on_notice`](Self::on_notice) is told.
    #[inline]
    pub fn one_way<'a, Q: Message>(
        &'a self,
        method: &'static MethodInfo,
        request: &'a Q,
    ) -> OneWay<'a, Q> {
        OneWay::new(self, method, request)
    }

    /// Makes a call with which items travel: the future is done once the request is in the
    /// connection's send buffer, and gives the open stream.
    #[inline]
    pub fn stream<'a, Q: Message, I, O, R: Message, E: From<Status>>(
        &'a self,
        method: &'static MethodInfo,
        request: &'a Q,
    ) -> StreamCall<'a, Q, I, O, R, E> {
        StreamCall::new(self, method, request)
    }

    /// Sets who is told of one-way calls of this connection that failed at the peer: their number,
    /// and why. Numbers count up from 1 with the one-way calls that were made.
    pub fn on_notice(&self, on_notice: impl Fn(u64, &Status) + 'static) {
        self.shared.connection.callers.set_on_notice(Rc::new(on_notice));
    }

    /// Address of the peer.
    pub fn peer(&self) -> SocketAddr {
        self.shared.connection.peer
    }

    /// The server's shard that the connection arrived at.
    pub fn shard(&self) -> ShardPlace {
        self.shared.connection.session.borrow().shard().unwrap_or_default()
    }

    /// Whether calls can still be made. A connection that was lost, or whose server takes no more
    /// calls on it, does not come back.
    pub fn is_open(&self) -> bool {
        let connection = &self.shared.connection;
        connection.state() == State::Open && !connection.session.borrow().peer_drains()
    }

    #[inline]
    pub(crate) fn connection(&self) -> &Rc<Connection> {
        &self.shared.connection
    }

    /// Time for calls of methods that have none of their own, in microseconds.
    #[inline]
    pub(crate) fn timeout_us(&self) -> u32 {
        self.shared.timeout_us
    }

    /// Who sees the calls that are made.
    #[inline]
    pub(crate) fn interceptor(&self) -> Option<&Rc<dyn InterceptCall>> {
        self.shared.interceptor.as_ref()
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        // A server that is being told why ends the connection itself, or has its time to.
        if self.connection.side == Side::Client
            && !matches!(self.connection.state(), State::Lingering | State::Leaving)
        {
            self.connection.leave("the client was dropped");
        }
    }
}

impl ClientConfig {
    pub(crate) fn the_connect_timeout(&self) -> Duration {
        self.connect_timeout
    }

    pub(crate) fn timeout_us(&self) -> u32 {
        self.timeout_us
    }

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

    /// Time for a call of a method that has none of its own, unless the call says otherwise; zero
    /// is for ever. Default: zero. Up to 71 minutes.
    #[must_use]
    pub fn call_timeout(mut self, timeout: Duration) -> Self {
        self.timeout_us = us32(timeout);
        self
    }

    /// Lets an interceptor see every call that is made. Several are one as a tuple.
    #[must_use]
    pub fn intercept(mut self, interceptor: impl InterceptCall) -> Self {
        self.interceptor = Some(Rc::new(interceptor));
        self
    }

    /// Options of the socket.
    #[must_use]
    pub fn socket(mut self, socket: SocketConfig) -> Self {
        self.socket = socket;
        self
    }
}

impl fmt::Debug for ClientConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientConfig")
            .field("connect_timeout", &self.connect_timeout)
            .field("timeout_us", &self.timeout_us)
            .field("socket", &self.socket)
            .finish_non_exhaustive()
    }
}

impl Default for ClientConfig {
    fn default() -> Self {
        let (connect_timeout, socket) = (Duration::from_secs(5), SocketConfig::default());
        Self { connect_timeout, timeout_us: 0, interceptor: None, socket }
    }
}

/// Connects to the first of the addresses that answers.
pub(crate) async fn connect(
    shard: &Rc<Shard>,
    config: &ClientConfig,
    address: impl ToSocketAddrs,
    methods: &'static [MethodInfo],
    serves: Option<Rc<dyn Dispatch>>,
) -> Result<Client, ConnectError> {
    let anywhere = ShardPlace::default();
    let mut error = ConnectError::NoAddress;
    for address in address.to_socket_addrs().map_err(ConnectError::Resolve)? {
        match connect_to(shard, config, address, methods, serves.clone(), anywhere).await {
            Ok(client) => return Ok(client),
            Err(failed) => error = failed,
        }
    }
    Err(error)
}

/// Connects to one address and exchanges HELLOs.
async fn connect_to(
    shard: &Rc<Shard>,
    config: &ClientConfig,
    address: SocketAddr,
    methods: &'static [MethodInfo],
    serves: Option<Rc<dyn Dispatch>>,
    place: ShardPlace,
) -> Result<Client, ConnectError> {
    let socket = socket::client(address, &config.socket)
        .map_err(|source| ConnectError::Connect { address, source })?;
    let socket = Rc::new(OwnedFd::from(socket));
    let served = serves.as_ref().map_or(&[][..], |serves| serves.methods());
    let session = shard.client_session(place, methods, served);
    let begins = (Side::Client, State::Connecting);
    let transport = Transport::Socket(Rc::clone(&socket));
    let connection = Connection::open(shard, transport, address, begins, session, serves);
    let op = shard.ring.borrow_mut().connect(&socket, connection.key, &address);
    connection.receive.borrow_mut().has_begun(op);
    shard.wake_driver();
    // From here on dropping the future closes the connection.
    let (timeout_us, interceptor) = (config.timeout_us, config.interceptor.clone());
    let client = Client { shared: Rc::new(Shared { connection, timeout_us, interceptor }) };
    let timeout = config.connect_timeout;
    let opened = {
        let open = poll_fn(|cx| client.connection().callers.poll_open(cx.waker()));
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

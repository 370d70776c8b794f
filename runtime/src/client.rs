//! Calls out: a client on a shard, or on any glommio executor.

use std::{
    future::{Future, poll_fn},
    io,
    marker::PhantomData,
    net::{SocketAddr, ToSocketAddrs},
    ops::Deref,
    os::fd::OwnedFd,
    pin::{Pin, pin},
    rc::Rc,
    task::{Context, Poll},
    time::Duration,
};

use ringcall_codec::{
    CallId, Code, Deserializer, Message, MethodInfo, OpenError, SessionError, ShardPlace, Status,
    deserialize,
};
use rkyv::Deserialize;

use crate::{
    client_end::{ClientEnd, Failure, Ticket},
    connection::{Connection, End, State},
    executor,
    ring::View,
    service::prepare_output,
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

/// A call in flight: a future of its outcome.
///
/// Nothing is sent before it is first polled. Dropping it gives the call up: its handler may
/// still run, and the response is thrown away.
#[must_use = "nothing is sent before the call is awaited"]
pub struct Call<'a, Q, R> {
    client: &'a Client,
    method: u32,
    state: CallState<'a, Q>,
    reply: PhantomData<fn() -> R>,
}

enum CallState<'a, Q> {
    /// Not sent; with a ticket where it was refused for want of room and waits for some.
    New {
        request: &'a Q,
        ticket: Option<Ticket>,
    },
    InFlight(CallId),
    Done,
}

/// A reply, read where the kernel put it. Derefs to the archived message.
///
/// It keeps a receive buffer from being used again; when fewer than a quarter of a shard's buffers
/// are free, replies are copied out instead.
pub struct Response<T: Message>(View<T>);

/// Why a client is not connected.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConnectError {
    /// The address cannot be looked up.
    #[error("cannot look the address up: {0}")]
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
    #[error("{address}: {source}")]
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
        let state = CallState::New {
            request,
            ticket: None,
        };
        Call {
            client: self,
            method,
            state,
            reply: PhantomData,
        }
    }

    /// Address of the server.
    pub fn peer(&self) -> SocketAddr {
        self.shared.connection.peer
    }

    /// The server's shard that the connection arrived at.
    pub fn shard(&self) -> ShardPlace {
        self.end()
            .and_then(|end| end.session.borrow().shard())
            .unwrap_or_default()
    }

    /// Whether calls can still be made. A connection that was lost does not come back.
    pub fn is_open(&self) -> bool {
        self.shared.connection.state() == State::Open
    }

    #[inline]
    fn end(&self) -> Option<&ClientEnd> {
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

impl<Q: Message, R: Message> Future for Call<'_, Q, R> {
    type Output = Result<Response<R>, Status>;

    #[inline]
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let call = self.get_mut();
        if matches!(call.state, CallState::New { .. }) {
            return call.start(cx);
        }
        let CallState::InFlight(id) = call.state else {
            return Poll::Ready(Err(Status::new(Code::Internal, "the call has ended")));
        };
        let Some(end) = call.client.end() else {
            return Poll::Pending;
        };
        let outcome = match end.poll_outcome(id, cx.waker()) {
            Poll::Pending => return Poll::Pending,
            Poll::Ready(outcome) => outcome,
        };
        call.state = CallState::Done;
        end.wake_waiting(&call.client.shared.connection.shard);
        Poll::Ready(outcome.and_then(Response::new))
    }
}

impl<Q: Message, R: Message> Call<'_, Q, R> {
    /// Encodes the request, or waits for room to do so.
    #[inline]
    fn start(&mut self, cx: &mut Context<'_>) -> Poll<Result<Response<R>, Status>> {
        let connection = &self.client.shared.connection;
        let (Some(end), CallState::New { request, ticket }) = (self.client.end(), &mut self.state)
        else {
            return Poll::Pending;
        };
        if connection.state() != State::Open {
            let status = Status::new(Code::Unavailable, "the connection is closed");
            self.state = CallState::Done;
            return Poll::Ready(Err(status.not_executed()));
        }
        let shard = &connection.shard;
        let outcome = if connection.is_blocked() {
            Err(OpenError::TooManyInFlight)
        } else {
            let mut session = end.session.borrow_mut();
            let len = prepare_output(session.output(), shard);
            let made = session.call(&mut shard.scratch.borrow_mut(), self.method, *request);
            shard
                .counters
                .bytes_encoded
                .add((session.output().len() - len) as u64);
            made
        };
        let status = match outcome {
            Ok(id) => {
                end.wait(id, cx.waker());
                shard.call_made();
                shard.mark_dirty(connection);
                if let Some(ticket) = ticket.take() {
                    let has_room = end.session.borrow().has_room() && !connection.is_blocked();
                    end.end_wait(shard, ticket, has_room);
                }
                self.state = CallState::InFlight(id);
                return Poll::Pending;
            }
            Err(OpenError::TooManyInFlight) => {
                if let Some(kept) = end.wait_for_room(*ticket, cx.waker()) {
                    *ticket = Some(kept);
                    return Poll::Pending;
                }
                Status::new(
                    Code::ResourceExhausted,
                    "call not made: too many callers wait for room already",
                )
            }
            Err(error) => Status::new(Code::ResourceExhausted, format!("call not made: {error}")),
        };
        if let Some(ticket) = ticket.take() {
            end.end_wait(shard, ticket, true);
        }
        self.state = CallState::Done;
        Poll::Ready(Err(status.not_executed()))
    }
}

impl<Q, R> Drop for Call<'_, Q, R> {
    #[inline]
    fn drop(&mut self) {
        let Some(end) = self.client.end() else { return };
        let shard = &self.client.shared.connection.shard;
        match self.state {
            CallState::InFlight(call) => end.abandon(shard, call),
            // It may be the one that was woken for the room there is now.
            CallState::New {
                ticket: Some(ticket),
                ..
            } => end.end_wait(shard, ticket, true),
            CallState::New { .. } | CallState::Done => {}
        }
    }
}

impl<T: Message> Response<T> {
    #[inline]
    fn new(body: crate::ring::Lease) -> Result<Self, Status> {
        let view = View::new(body).map(Self);
        view.map_err(|error| Status::new(Code::Internal, format!("reply: {error}")))
    }

    /// The message itself, copied out of the buffer. Not for messages that borrow.
    ///
    /// # Errors
    ///
    /// Where a hand-written deserialization of the message fails.
    pub fn to_owned(&self) -> Result<T, Status>
    where
        T::Archived: Deserialize<T, Deserializer>,
    {
        let owned = deserialize::<T>(&self.0);
        owned.map_err(|error| Status::new(Code::Internal, error.to_string()))
    }
}

impl<T: Message> Deref for Response<T> {
    type Target = T::Archived;

    #[inline]
    fn deref(&self) -> &T::Archived {
        &self.0
    }
}

impl<T: Message> Clone for Response<T> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
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
        Self {
            connect_timeout: Duration::from_secs(5),
            socket: SocketConfig::default(),
        }
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
    let op = shard
        .ring
        .borrow_mut()
        .connect(&socket, connection.key, &address);
    connection.receive.borrow_mut().has_begun(op);
    shard.wake_driver();
    // From here on dropping the future closes the connection.
    let client = Client {
        shared: Rc::new(Shared { connection }),
    };
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

//! The client itself.

use std::{
    fmt,
    net::{SocketAddr, ToSocketAddrs},
};

use ringcall_codec::{Code, Message, MethodInfo, ShardPlace, Status};

use super::{
    call::{Call, OneWay, Ticket},
    config::ClientConfig,
    connection::Connection,
    reply::Reply,
};
use crate::client::ConnectError;

/// A connection to a server, on which one thread at a time makes calls that block it.
///
/// It can be sent to another thread, with calls in flight. The blocking clients that
/// `#[ringcall::service]` writes wrap one. Dropping it sends what was collected, for which it
/// waits up to a second, and closes the connection.
pub struct Client {
    pub(super) connection: Connection,
    /// Time for calls of methods that have none of their own, in microseconds; zero is for ever.
    pub(super) timeout_us: u32,
    peer: SocketAddr,
}

impl Client {
    /// Connects with the defaults, to call `methods`.
    ///
    /// # Errors
    ///
    /// Where no address can be connected to, or where the server is none or was built with other
    /// layouts of the methods' messages.
    pub fn connect(
        address: impl ToSocketAddrs,
        methods: &'static [MethodInfo],
    ) -> Result<Self, ConnectError> {
        Self::connect_with(&ClientConfig::default(), address, methods)
    }

    /// Connects, to call `methods`. As [`connect`](Self::connect).
    ///
    /// # Errors
    ///
    /// As [`connect`](Self::connect).
    pub fn connect_with(
        config: &ClientConfig,
        address: impl ToSocketAddrs,
        methods: &'static [MethodInfo],
    ) -> Result<Self, ConnectError> {
        let timeout_us = config.timeout_us;
        let mut error = ConnectError::NoAddress;
        for peer in address.to_socket_addrs().map_err(ConnectError::Resolve)? {
            match Connection::open(config, peer, methods) {
                Ok(connection) => return Ok(Self { connection, timeout_us, peer }),
                Err(failed) => error = failed,
            }
        }
        Err(error)
    }

    /// Calls a method, and waits for its outcome.
    ///
    /// # Errors
    ///
    /// As [`Call::wait`].
    pub fn call<Q: Message, R: Message, E: From<Status>>(
        &mut self,
        method: &'static MethodInfo,
        request: &Q,
    ) -> Result<Reply<R>, E> {
        self.prepare(method, request).wait()
    }

    /// A call of a method, to be given its own time-out or metadata and then made.
    pub fn prepare<'a, Q: Message, R: Message, E: From<Status>>(
        &'a mut self,
        method: &'static MethodInfo,
        request: &'a Q,
    ) -> Call<'a, Q, R, E> {
        Call::new(self, method, request)
    }

    /// Makes a call and does not wait for its outcome. As [`Call::start`].
    ///
    /// # Errors
    ///
    /// As [`Call::start`].
    pub fn start<Q: Message, R: Message, E: From<Status>>(
        &mut self,
        method: &'static MethodInfo,
        request: &Q,
    ) -> Result<Ticket<R, E>, E> {
        self.prepare(method, request).start()
    }

    /// Waits for the outcome of a call that was started. Calls may be finished in any order.
    ///
    /// # Errors
    ///
    /// As [`Call::wait`]; `INVALID_ARGUMENT` where another client made the call, which is given
    /// up then.
    pub fn finish<R: Message, E: From<Status>>(
        &mut self,
        ticket: Ticket<R, E>,
    ) -> Result<Reply<R>, E> {
        if !ticket.is_of(self.connection.given_up()) {
            let text = "the ticket is of another client";
            return Err(Status::new(Code::InvalidArgument, text).into());
        }
        let outcome = self.connection.wait(ticket.redeem());
        let reply = outcome.and_then(|(body, meta_len)| Reply::new(body, meta_len));
        reply.map_err(E::from)
    }

    /// Makes a call that gets no answer, and sends it.
    ///
    /// # Errors
    ///
    /// As [`OneWay::send`].
    pub fn one_way<Q: Message>(
        &mut self,
        method: &'static MethodInfo,
        request: &Q,
    ) -> Result<(), Status> {
        self.prepare_one_way(method, request).send()
    }

    /// A call that gets no answer, to be given its own time-out or metadata and then made.
    pub fn prepare_one_way<'a, Q: Message>(
        &'a mut self,
        method: &'static MethodInfo,
        request: &'a Q,
    ) -> OneWay<'a, Q> {
        OneWay::new(self, method, request)
    }

    /// Sends what was collected. Waits until the kernel has taken all of it.
    ///
    /// # Errors
    ///
    /// Where the connection is closed.
    pub fn flush(&mut self) -> Result<(), Status> {
        self.connection.flush()
    }

    /// Reads what has come and answers what is to be answered, without waiting: for a client that
    /// is kept and makes no calls for long. Every few seconds is often enough.
    ///
    /// # Errors
    ///
    /// Where the connection is closed.
    pub fn tend(&mut self) -> Result<(), Status> {
        self.connection.tend()
    }

    /// Sets who is told of one-way calls of this connection that failed at the server: their
    /// number, and why. Numbers count up from 1 with the one-way calls that were made. It is told
    /// while something else is waited for, and by [`tend`](Self::tend).
    pub fn on_notice(&mut self, on_notice: impl FnMut(u64, &Status) + Send + 'static) {
        self.connection.on_notice(Box::new(on_notice));
    }

    /// Address of the server.
    pub fn peer(&self) -> SocketAddr {
        self.peer
    }

    /// The server's shard that the connection arrived at.
    pub fn shard(&self) -> ShardPlace {
        self.connection.shard()
    }

    /// Whether calls can still be made, as far as was read. A connection that was lost, or whose
    /// server takes no more calls on it, does not come back.
    pub fn is_open(&self) -> bool {
        self.connection.is_open()
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client")
            .field("peer", &self.peer)
            .field("is_open", &self.is_open())
            .finish_non_exhaustive()
    }
}

/// A client with its calls can go to another thread.
const _: () = {
    const fn is_send<T: Send>() {}
    is_send::<Client>();
};

//! What a service is to the runtime, and what a handler is given.

use std::{cell::Cell, future::Future, net::SocketAddr, ops::Deref, rc::Rc};

use ringcall_codec::{
    BodyError, CallId, Code, Deserializer, Message, MethodInfo, ReplyError, ShardPlace, Status,
    access, deserialize,
};
use rkyv::Deserialize;

use crate::{
    connection::{Connection, End},
    ring::{Lease, View},
};

/// A service as the runtime sees it. Written by `#[ringcall::service]`.
pub trait Service: 'static {
    /// The service's name.
    const NAME: &'static str;

    /// Its methods.
    const METHODS: &'static [MethodInfo];

    /// Reads a call's request, runs its handler, and replies.
    fn dispatch(self: Rc<Self>, call: Incoming) -> impl Future<Output = ()> + 'static;
}

/// One accepted call, from its request to its one outcome. Dropping it unanswered answers it with
/// a status.
pub struct Incoming {
    context: Context,
    call: CallId,
    method: u32,
    body: Lease,
    is_answered: Cell<bool>,
}

/// What a handler can know of its call, beside the request.
pub struct Context {
    connection: Rc<Connection>,
}

/// A request, read where the kernel put it.
///
/// It is `Copy` and derefs to the archived message. Holding it across an `await` is fine, and
/// keeps its receive buffer from being used again; holding it past the handler does not compile.
/// [`retain`](Self::retain) gives an owned lease, [`to_owned`](Self::to_owned) the deserialized
/// message.
pub struct Request<'a, T: Message> {
    archived: &'a T::Archived,
    body: &'a Lease,
}

/// A message that keeps the buffer it was received in, and derefs to its archived form.
///
/// Cheap to clone. Held for long it keeps a receive buffer from being used again: when fewer than
/// a quarter of a shard's buffers are free, bodies are copied instead.
pub struct Retained<T: Message>(View<T>);

impl Incoming {
    #[inline]
    pub(crate) fn new(connection: Rc<Connection>, call: CallId, method: u32, body: Lease) -> Self {
        let context = Context { connection };
        Self { context, call, method, body, is_answered: Cell::new(false) }
    }

    /// Id of the method that is called.
    #[inline]
    pub fn method(&self) -> u32 {
        self.method
    }

    /// What the handler is given beside the request.
    #[inline]
    pub fn context(&self) -> &Context {
        &self.context
    }

    /// Validates the request, once, and reads it in place.
    ///
    /// # Errors
    ///
    /// Where the body is not a valid `T`: a status that says so, marked as not executed.
    #[inline]
    pub fn read<T: Message>(&self) -> Result<Request<'_, T>, Status> {
        match access::<T>(&self.body) {
            Ok(archived) => Ok(Request { archived, body: &self.body }),
            Err(error) => Err(self.invalid(error)),
        }
    }

    /// Answers the call. The reply is encoded straight into the connection's send buffer, and may
    /// borrow from the request. A second answer is dropped.
    #[inline]
    pub fn reply<T: Message>(&self, result: Result<T, Status>) {
        match result {
            Ok(reply) => self.reply_with(&reply),
            Err(status) => self.refuse(&status),
        }
    }

    /// Answers the call: its method is none of the service's.
    #[cold]
    pub fn unknown_method(&self) {
        self.context.connection.shard.counters.calls_refused.add(1);
        let message = format!("no method has the id {:#010x}", self.method);
        self.refuse(&Status::new(Code::Unimplemented, message).not_executed());
    }

    #[inline]
    fn reply_with<T: Message>(&self, reply: &T) {
        let connection = &self.context.connection;
        let shard = &connection.shard;
        if self.is_answered.replace(true) || !connection.is_alive() {
            shard.counters.replies_dropped.add(1);
            return;
        }
        let End::Server(end) = &connection.end else {
            return;
        };
        let mut session = end.session.borrow_mut();
        let len = prepare_output(session.output(), shard);
        let outcome = session.reply(&mut shard.scratch.borrow_mut(), self.call, reply);
        shard.counters.bytes_encoded.add((session.output().len() - len) as u64);
        drop(session);
        match outcome {
            Ok(()) => {}
            Err(ReplyError::NotRunning) => shard.counters.replies_dropped.add(1),
            Err(error) => tracing::warn!(%error, "reply not sent"),
        }
        shard.mark_dirty(connection);
    }

    #[cold]
    fn refuse(&self, status: &Status) {
        let connection = &self.context.connection;
        let shard = &connection.shard;
        if self.is_answered.replace(true) || !connection.is_alive() {
            shard.counters.replies_dropped.add(1);
            return;
        }
        let End::Server(end) = &connection.end else {
            return;
        };
        if !end.session.borrow_mut().refuse(self.call, status) {
            shard.counters.replies_dropped.add(1);
        }
        shard.mark_dirty(connection);
    }

    #[cold]
    fn invalid(&self, error: BodyError) -> Status {
        self.context.connection.shard.counters.calls_refused.add(1);
        Status::new(Code::InvalidArgument, format!("request: {error}")).not_executed()
    }
}

/// Gives the output a buffer that was used before, where it has none; its length now.
#[inline]
pub(crate) fn prepare_output(output: &mut Vec<u8>, shard: &crate::shard::Shard) -> usize {
    if output.capacity() == 0 {
        *output = shard.take_spare();
    }
    output.len()
}

impl Drop for Incoming {
    #[inline]
    fn drop(&mut self) {
        if !self.is_answered.get() {
            let message = if std::thread::panicking() {
                "the handler panicked"
            } else {
                "the handler was dropped before it replied"
            };
            self.refuse(&Status::new(Code::Internal, message));
        }
    }
}

impl Context {
    /// Address of the caller.
    pub fn peer(&self) -> SocketAddr {
        self.connection.peer
    }

    /// The shard that runs the call.
    pub fn shard(&self) -> ShardPlace {
        self.connection.shard.place
    }
}

impl<'a, T: Message> Request<'a, T> {
    /// The archived message, for as long as the call runs.
    #[inline]
    pub fn get(self) -> &'a T::Archived {
        self.archived
    }

    /// The message with a lease of its own on the buffer, to be kept beyond the handler.
    ///
    /// # Errors
    ///
    /// Where the message is no longer valid, which cannot be while the buffer is leased.
    pub fn retain(self) -> Result<Retained<T>, Status> {
        let view = View::new(self.body.clone());
        view.map(Retained).map_err(|error| Status::new(Code::Internal, error.to_string()))
    }

    /// The message itself, copied out of the buffer. Not for messages that borrow.
    ///
    /// # Errors
    ///
    /// Where a hand-written deserialization of the message fails.
    pub fn to_owned(self) -> Result<T, Status>
    where
        T::Archived: Deserialize<T, Deserializer>,
    {
        let owned = deserialize::<T>(self.archived);
        owned.map_err(|error| Status::new(Code::Internal, error.to_string()))
    }
}

impl<T: Message> Clone for Request<'_, T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T: Message> Copy for Request<'_, T> {}

impl<T: Message> Deref for Request<'_, T> {
    type Target = T::Archived;

    #[inline]
    fn deref(&self) -> &T::Archived {
        self.archived
    }
}

impl<T: Message> Deref for Retained<T> {
    type Target = T::Archived;

    #[inline]
    fn deref(&self) -> &T::Archived {
        &self.0
    }
}

impl<T: Message> Clone for Retained<T> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

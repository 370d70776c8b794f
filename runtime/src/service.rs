//! What a service is to the runtime, and what a handler is given.

use std::{future::Future, ops::Deref, rc::Rc};

use ringcall_codec::{
    BodyError, CallId, Code, Deserializer, Flags, Header, Kind, Message, MethodInfo, ReplyError,
    RoutingKey, Status, StreamId, access, deserialize, limits::FRAME_ALIGN,
};
use rkyv::Deserialize;

use crate::{
    classes::Class,
    connection::{Connection, Side},
    context::Context,
    intercept::Outcome,
    ring::{Lease, View},
    streams::{Sink, Source},
};

/// A service as the runtime sees it. Written by `#[ringcall::service]`.
pub trait Service: 'static {
    /// The service's name.
    const NAME: &'static str;

    /// Its methods.
    const METHODS: &'static [MethodInfo];

    /// Whether its methods are of different classes. Where they are not, calls begin as they come.
    const HAS_CLASSES: bool = false;

    /// The class of the method with this id.
    fn class(_method: u32) -> Class {
        Class::Normal
    }

    /// What other shards ask for: what implements the service's trait.
    type State: 'static;

    /// What [other shards](crate::Shards) are given of the service.
    fn state(&self) -> &Self::State;

    /// Reads a call's request, runs its handler, and replies.
    ///
    /// The future holds the service and the call as it was given them: its own from the runtime,
    /// borrowed from an interceptor. Where it is done, or has panicked, dropping it must not panic.
    fn dispatch<P, C>(service: P, call: C) -> impl Future<Output = ()>
    where
        P: Deref<Target = Self>,
        C: Deref<Target = Incoming>;
}

/// One accepted call, from its request to its one outcome. Dropping it unanswered answers it with
/// a status.
pub struct Incoming {
    context: Context,
}

/// A call of one's own.
pub(crate) struct Owned(pub(crate) Incoming);

/// Which call it is, in one word: what travels from a header to its handler.
#[derive(Clone, Copy, Debug)]
pub(crate) struct CallTag(u64);

impl CallTag {
    const ONE_WAY: u64 = 1 << 63;
    const STREAM: u64 = 1 << 62;
    const KEYED: u64 = 1 << 61;

    #[inline]
    pub(crate) fn new(method: u32, header: &Header) -> Self {
        let stream = if header.flags.contains(Flags::STREAM) { Self::STREAM } else { 0 };
        let keyed = if header.aux == 0 { 0 } else { Self::KEYED };
        Self(u64::from(method) | u64::from(header.meta_len) << 32 | stream | keyed)
    }

    /// Whether its header says whose shard it is.
    pub(crate) fn is_keyed(self) -> bool {
        self.0 & Self::KEYED != 0
    }

    pub(crate) fn one_way(self) -> Self {
        Self(self.0 | Self::ONE_WAY)
    }

    #[inline]
    pub(crate) fn method(self) -> u32 {
        self.0 as u32
    }

    /// Length of the metadata in bytes.
    #[inline]
    pub(crate) fn meta_bytes(self) -> usize {
        usize::from((self.0 >> 32) as u16) * ringcall_codec::limits::FRAME_ALIGN
    }

    #[inline]
    pub(crate) fn has_metadata(self) -> bool {
        (self.0 >> 32) as u16 != 0
    }

    #[inline]
    pub(crate) fn is_stream(self) -> bool {
        self.0 & Self::STREAM != 0
    }

    #[inline]
    pub(crate) fn is_one_way(self) -> bool {
        self.0 & Self::ONE_WAY != 0
    }
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
    pub(crate) fn new(
        connection: &Rc<Connection>,
        call: CallId,
        tag: CallTag,
        body: Lease,
    ) -> Self {
        connection.shard.handler_begins();
        Self { context: Context::new(Rc::clone(connection), call, tag, body) }
    }

    /// Id of the method that is called.
    #[inline]
    pub fn method(&self) -> u32 {
        self.context.tag.method()
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
        let body = &self.context.body;
        match access::<T>(body) {
            Ok(archived) => Ok(Request { archived, body }),
            Err(error) => Err(self.invalid(error)),
        }
    }

    /// Whether another shard owns the key of the call, whose hash this is. The call is then passed
    /// on to that, or refused where its header says otherwise: here it is over.
    #[inline]
    pub fn goes_elsewhere(&self, hash: impl FnOnce() -> u64) -> bool {
        let Context { connection, .. } = &self.context;
        let place = connection.shard.place;
        if place.count < 2 || connection.side == Side::Client {
            return false;
        }
        let key = RoutingKey::from_hash(hash());
        let owner = key.owner(place.count);
        if owner == place.index {
            return false;
        }
        self.go_to(owner, key);
        true
    }

    #[cold]
    fn go_to(&self, owner: u16, key: RoutingKey) {
        let Context { connection, call, tag, body, .. } = &self.context;
        if tag.is_keyed() {
            connection.shard.counters.calls_refused.add(1);
            let text = "the routing key is not that of the request";
            return self.reject(&Status::new(Code::InvalidArgument, text).not_executed());
        }
        if self.context.is_answered() {
            return;
        }
        self.context.outcome.set(Outcome::PassedOn);
        let meta_len = (tag.meta_bytes() / FRAME_ALIGN) as u16;
        let kind = if tag.is_one_way() { Kind::OneWay } else { Kind::Request };
        let (code, aux) = (tag.method(), key.to_wire());
        let header = Header { kind, call: *call, code, meta_len, aux, ..Header::EMPTY };
        let payload = body.clone().with_before(tag.meta_bytes());
        connection.pass_on(owner, &header, payload);
    }

    /// The items that the handler sends.
    #[inline]
    pub fn sink<T: Message>(&self) -> Sink<'_, T> {
        Sink::new(&self.context)
    }

    /// The items that the caller sends.
    #[inline]
    pub fn source<T: Message>(&self) -> Source<T> {
        Source::new(&self.context)
    }

    /// Answers the call. The reply is encoded straight into the connection's send buffer, and may
    /// borrow from the request. A second answer is dropped.
    #[inline]
    pub fn reply<T: Message, E: Into<Status>>(&self, result: Result<T, E>) {
        match result {
            Ok(reply) => self.reply_with(&reply),
            Err(error) => self.reject(&error.into()),
        }
    }

    /// Answers the call with a status; ends a one-way call as failed.
    #[cold]
    pub fn reject(&self, status: &Status) {
        self.end(Outcome::Failed(status.code()), |connection, context| {
            let mut session = connection.session.borrow_mut();
            if context.tag.is_one_way() {
                session.end_one_way(context.call.0, Err(status));
                return true;
            }
            session.refuse(context.call, status)
        });
    }

    /// Ends a one-way call: its handler is done.
    #[inline]
    pub fn done(&self) {
        if !self.context.tag.is_one_way() {
            let status =
                Status::new(Code::InvalidArgument, "a one-way method was called for a reply");
            return self.reject(&status);
        }
        self.end(Outcome::Replied, |connection, context| {
            connection.session.borrow_mut().end_one_way(context.call.0, Ok(()));
            true
        });
    }

    /// Answers the call: its method is none of the service's.
    #[cold]
    pub fn unknown_method(&self) {
        self.context.connection.shard.counters.calls_refused.add(1);
        let message = format!("no method has the id {:#010x}", self.method());
        self.reject(&Status::new(Code::Unimplemented, message).not_executed());
    }

    #[inline]
    fn reply_with<T: Message>(&self, reply: &T) {
        let context = &self.context;
        let connection = &context.connection;
        let shard = &connection.shard;
        if context.tag.is_one_way() {
            // Called so by a peer that does not want to know.
            return self.done();
        }
        if !self.ends_as(Outcome::Replied) {
            return;
        }
        let beside = context.beside_reply.take();
        let metadata = beside.as_ref().map_or(&[][..], |beside| beside.metadata.as_bytes());
        let mut session = connection.session.borrow_mut();
        session.set_now(shard.now_us());
        let len = prepare_output(session.output(), shard);
        let scratch = &mut shard.scratch.borrow_mut();
        let outcome = session.reply(scratch, context.call, metadata, reply);
        if let Some(beside) = beside
            && outcome.is_ok()
        {
            beside.end(session.output(), len);
        }
        if let Some(packing) = connection.packing.get()
            && outcome.is_ok()
        {
            packing.pack(session.output(), len);
        }
        shard.counters.bytes_encoded.add((session.output().len() - len) as u64);
        connection.replies_unsent.set(connection.replies_unsent.get().saturating_add(1));
        drop(session);
        match outcome {
            Ok(()) => {}
            Err(ReplyError::NotRunning) => shard.counters.replies_dropped.add(1),
            Err(error) => tracing::warn!(%error, "reply not sent"),
        }
        shard.mark_dirty(connection);
    }

    /// Notes how the call has ended. False where it had before, or where nobody is there to be
    /// told: that is counted, once.
    #[inline]
    fn ends_as(&self, outcome: Outcome) -> bool {
        let context = &self.context;
        let is_first = !context.is_answered();
        if is_first {
            context.outcome.set(outcome);
        }
        let is_told = is_first && context.connection.is_alive();
        if !is_told {
            context.connection.shard.counters.replies_dropped.add(1);
        }
        is_told
    }

    /// Ends the call otherwise than with a reply; false says that it does not run any more.
    fn end(&self, outcome: Outcome, end: impl FnOnce(&Connection, &Context) -> bool) {
        let context = &self.context;
        let connection = &context.connection;
        let shard = &connection.shard;
        if !self.ends_as(outcome) {
            return;
        }
        connection.session.borrow_mut().set_now(shard.now_us());
        if !end(connection, context) {
            shard.counters.replies_dropped.add(1);
        }
        shard.mark_dirty(connection);
    }

    #[cold]
    fn invalid(&self, error: BodyError) -> Status {
        self.context.connection.shard.counters.calls_refused.add(1);
        Status::new(Code::InvalidArgument, format!("request: {error}")).not_executed()
    }

    /// Ends a call that its handler left without an answer, and says how.
    #[cold]
    fn end_unanswered(&self) -> Code {
        let why_stopped = self.context.why_stopped();
        let message = if std::thread::panicking() {
            "the handler panicked"
        } else {
            "the handler was dropped before it replied"
        };
        let status = Status::new(Code::Internal, message);
        self.end(Outcome::Failed(Code::Internal), |connection, context| {
            let mut session = connection.session.borrow_mut();
            if context.tag.is_one_way() {
                session.end_one_way(context.call.0, Err(&status));
                return true;
            }
            session.end_stopped(context.call, &status)
        });
        why_stopped.unwrap_or(Code::Internal)
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

impl Deref for Owned {
    type Target = Incoming;

    #[inline]
    fn deref(&self) -> &Incoming {
        &self.0
    }
}

impl Drop for Incoming {
    #[inline]
    fn drop(&mut self) {
        self.context.connection.shard.handler_ends();
        if self.context.tag.is_stream() {
            let stream = StreamId { call: self.context.call, is_made_here: false };
            let connection = &self.context.connection;
            connection.inboxes.end(&connection.shard, stream);
        }
        let code = match self.context.outcome.get() {
            Outcome::Replied | Outcome::PassedOn => None,
            Outcome::Failed(code) => Some(code),
            Outcome::Unanswered => Some(self.end_unanswered()),
        };
        self.context.connection.shard.meter.call_ends(code);
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

//! A call out, from its request to its reply: a future, with nothing allocated for it.
//!
//! Last on the path of a call, at the caller. The request is encoded straight into the
//! connection's send buffer when the future is first polled, the reply is read where it arrived.

use std::{
    borrow::Borrow,
    future::Future,
    marker::PhantomData,
    ops::Deref,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, Waker},
};

use ringcall_codec::{
    BodyError, CallId, CallOptions, Code, Deserializer, Message, Metadata, MetadataRef, MethodInfo,
    OpenError, RoutingKey, ServerTimes, Session, Status, deserialize, limits::FRAME_ALIGN,
};
use rkyv::Deserialize;

use crate::{
    callers::Ticket,
    client::Client,
    connection::{Connection, State},
    intercept::Watch,
    ring::{Lease, View},
    service::prepare_output,
    shard::Shard,
    times,
};

/// A call in flight: a future of its outcome.
///
/// Nothing is sent before it is first polled. Dropping it gives the call up: the server is told,
/// drops the handler at its next await, and what it still answers is thrown away.
#[must_use = "nothing is sent before the call is awaited"]
pub struct Call<'a, Q, R, E = Status> {
    call: InFlight<'a, Q>,
    outcome: PhantomData<fn() -> (R, E)>,
}

/// A call that holds its client, and ends with a status.
pub(crate) struct OwnCall<'a, Q: Message, R>(InFlight<'a, Q, Client>, PhantomData<fn() -> R>);

/// A call, from its request until its outcome is taken: what all calls with an outcome share.
pub(crate) struct InFlight<'a, Q, C: Borrow<Client> = &'a Client> {
    pub(crate) client: C,
    pub(crate) terms: Terms<'a>,
    state: CallState<'a, Q>,
    /// Where the client has an interceptor: who is told of the outcome.
    pub(crate) watch: Option<Box<Watch>>,
}

/// A call without an answer: a future that is done once the request is in the send buffer.
///
/// Nothing is sent before it is first polled.
#[must_use = "nothing is sent before the call is awaited"]
pub struct OneWay<'a, Q> {
    client: &'a Client,
    terms: Terms<'a>,
    request: &'a Q,
    /// Where it was refused for want of room and waits for some.
    ticket: Option<Ticket>,
    /// Set when it is first polled, where it has a deadline.
    deadline_us: u64,
    watch: Option<Box<Watch>>,
}

/// No deadline.
const NEVER: u64 = u64::MAX;

/// What a call is made with, beside its request.
#[derive(Clone, Copy)]
pub(crate) struct Terms<'a> {
    pub(crate) method: &'static MethodInfo,
    pub(crate) metadata: Option<&'a Metadata>,
    /// The deadline of the call that this one is made for, in the time of the shard.
    pub(crate) within_us: u64,
    /// Time from the first poll to the outcome, in microseconds; zero is for ever.
    pub(crate) timeout_us: u32,
    pub(crate) is_stream: bool,
    /// Whether the server is asked how long it holds the call.
    pub(crate) wants_times: bool,
    /// Whose shard the call is.
    pub(crate) key: Option<RoutingKey>,
}

enum CallState<'a, Q> {
    /// Not sent; with a ticket where it was refused for want of room and waits for some.
    New {
        request: &'a Q,
        ticket: Option<Ticket>,
        /// Set when it is first polled, where it has a deadline.
        deadline_us: u64,
    },
    InFlight(CallId),
    Done,
}

/// A reply, read where the kernel put it. Derefs to the archived message.
///
/// It keeps a receive buffer from being used again; when fewer than a quarter of a shard's buffers
/// are free, replies are copied out instead.
pub struct Response<T: Message> {
    view: View<T>,
    /// Where in its buffer the body begins, and above that, the length of the metadata before it in
    /// units of 16 bytes. One word, as a reply goes through memory, and two would be read back as
    /// one before they are stored.
    place: u64,
}

impl<'a> Terms<'a> {
    #[inline]
    pub(crate) fn new(client: &Client, method: &'static MethodInfo) -> Self {
        Self::with_timeout(client.timeout_us(), method)
    }

    /// Those of a method; the time is for one that has none of its own, in microseconds.
    #[inline]
    pub(crate) fn with_timeout(timeout_us: u32, method: &'static MethodInfo) -> Self {
        let timeout_us = if method.timeout_us == 0 { timeout_us } else { method.timeout_us };
        let (is_stream, wants_times) = (false, false);
        let (within_us, metadata, key) = (NEVER, None, None);
        Self { method, timeout_us, within_us, metadata, is_stream, wants_times, key }
    }

    /// The same, of a call with which items travel.
    pub(crate) fn with_items(self) -> Self {
        Self { is_stream: true, ..self }
    }

    /// The time by which the outcome is wanted, or never: the earlier of the two.
    #[inline]
    pub(crate) fn deadline_us(&self, shard: &Shard) -> u64 {
        if self.timeout_us == 0 {
            return self.within_us;
        }
        self.within_us.min(shard.fresh_now_us() + u64::from(self.timeout_us))
    }

    /// The same, of which the time counts from now on.
    pub(crate) fn begun(self, shard: &Shard) -> Self {
        Self { within_us: self.deadline_us(shard), timeout_us: 0, ..self }
    }

    /// Asks the client's interceptor about the call, once.
    #[inline]
    fn ask(&self, client: &Client, watch: &mut Option<Box<Watch>>) -> Result<(), Status> {
        if let Some(interceptor) = client.interceptor()
            && watch.is_none()
        {
            *watch = Some(Watch::begin(interceptor, self.method, self.metadata)?);
        }
        Ok(())
    }

    /// `room` is for metadata that is put together.
    #[inline]
    fn options<'b>(
        &self,
        connection: &Connection,
        deadline_us: u64,
        watch: Option<&'b Watch>,
        room: &'b mut Metadata,
    ) -> CallOptions<'b>
    where
        'a: 'b,
    {
        let has_deadline = deadline_us != NEVER;
        let now_us = if has_deadline { connection.shard.fresh_now_us() } else { 0 };
        let deadline_us = has_deadline.then_some(deadline_us);
        let metadata = watch.map(Watch::metadata).or(self.metadata);
        let metadata = times::block_of_request(metadata, self.wants_times, room);
        CallOptions { deadline_us, now_us, metadata, is_stream: self.is_stream, key: self.key }
    }
}

/// The settings that every kind of call has.
macro_rules! terms {
    ($($of:ident)?) => {
        /// Gives the call so much time, in place of the method's or the client's; zero is for
        /// ever. Up to 71 minutes. Without an outcome by then it fails with `DEADLINE_EXCEEDED`,
        /// and the server is told to stop.
        pub fn timeout(mut self, timeout: ::std::time::Duration) -> Self {
            self.$($of.)?terms.timeout_us = $crate::config::us32(timeout);
            self
        }

        /// Ends the call no later than the call that it is made for.
        pub fn within(mut self, cx: &crate::context::Context) -> Self {
            self.$($of.)?terms.within_us = cx.deadline_us().unwrap_or(u64::MAX);
            self
        }

        /// Sends metadata with the request.
        pub fn metadata(mut self, metadata: &'a ::ringcall_codec::Metadata) -> Self {
            self.$($of.)?terms.metadata = Some(metadata);
            self
        }
    };
}

pub(crate) use terms;

impl<'a, Q, R, E> Call<'a, Q, R, E> {
    /// A call that is not made yet.
    #[inline]
    pub(crate) fn new(client: &'a Client, method: &'static MethodInfo, request: &'a Q) -> Self {
        let call = InFlight::new(client, Terms::new(client, method), request);
        Self { call, outcome: PhantomData }
    }

    /// Says whose shard the call is. What `#[rpc(shard_by = ...)]` does.
    #[inline]
    pub fn with_key(mut self, key: RoutingKey) -> Self {
        self.call.terms.key = Some(key);
        self
    }

    terms!(call);

    /// Asks the server how long it holds the call, for [`Response::server_times`]. One that fails
    /// has none. Costs 16 bytes each way and the server two looks at the clock; where metadata
    /// leaves no room for it, it is not asked.
    pub fn with_server_times(mut self) -> Self {
        self.call.terms.wants_times = true;
        self
    }
}

impl<Q: Message, R: Message, E: From<Status>> Future for Call<'_, Q, R, E> {
    type Output = Result<Response<R>, E>;

    // Inlined, as the reply would be passed through memory otherwise: written word by word and read
    // back as wider pieces before it is stored, it costs more than everything else here.
    #[inline(always)]
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let call = &mut self.get_mut().call;
        let CallState::InFlight(id) = call.state else {
            return call.begin(cx.waker()).map(|status| Err((*status).into()));
        };
        call.poll_reply(id, cx.waker()).map_err(E::from)
    }
}

impl<'a, Q: Message, R> OwnCall<'a, Q, R> {
    /// A call that is not made yet.
    pub(crate) fn new(client: Client, terms: Terms<'a>, request: &'a Q) -> Self {
        Self(InFlight::new(client, terms, request), PhantomData)
    }
}

impl<Q: Message, R: Message> Future for OwnCall<'_, Q, R> {
    type Output = Result<Response<R>, Status>;

    #[inline]
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let call = &mut self.get_mut().0;
        match call.state {
            CallState::InFlight(id) => call.poll_reply(id, cx.waker()),
            _ => call.begin(cx.waker()).map(|status| Err(*status)),
        }
    }
}

/// Tells a client's interceptor, if there is one, how a call ended.
#[inline]
pub(crate) fn tell(watch: &mut Option<Box<Watch>>, outcome: Result<(), &Status>) {
    if let Some(watch) = watch {
        watch.end(outcome);
    }
}

impl<'a, Q, C: Borrow<Client>> InFlight<'a, Q, C> {
    #[inline]
    pub(crate) fn new(client: C, terms: Terms<'a>, request: &'a Q) -> Self {
        let state = CallState::New { request, ticket: None, deadline_us: NEVER };
        Self { client, terms, state, watch: None }
    }
}

impl<Q: Message, C: Borrow<Client>> InFlight<'_, Q, C> {
    /// The outcome, once it is there.
    #[inline(always)]
    fn poll_reply<R: Message>(
        &mut self,
        id: CallId,
        waker: &Waker,
    ) -> Poll<Result<Response<R>, Status>> {
        let connection = self.client.borrow().connection();
        let outcome = match connection.callers.poll_outcome(id, waker) {
            Poll::Pending => return Poll::Pending,
            Poll::Ready(outcome) => outcome,
        };
        self.state = CallState::Done;
        connection.release(id);
        let status = match outcome {
            Ok((body, meta_len)) => match Response::new(body, meta_len) {
                Ok(response) => {
                    tell(&mut self.watch, Ok(()));
                    return Poll::Ready(Ok(response));
                }
                Err(status) => status,
            },
            Err(status) => *status,
        };
        tell(&mut self.watch, Err(&status));
        Poll::Ready(Err(status))
    }

    /// Makes the call where it is not made yet, and is ready only with why it never will be.
    // In a box, so that it is returned in a register.
    #[inline(never)]
    fn begin(&mut self, waker: &Waker) -> Poll<Box<Status>> {
        if let CallState::Done = self.state {
            return Poll::Ready(Box::new(Status::new(Code::Internal, "the call has ended")));
        }
        match self.start(waker) {
            Poll::Ready(Ok(id)) => {
                self.state = CallState::InFlight(id);
                Poll::Pending
            }
            Poll::Ready(Err(status)) => Poll::Ready(Box::new(status)),
            Poll::Pending => Poll::Pending,
        }
    }

    /// Encodes the request, or waits for room to do so. The call, once it is made, is the
    /// caller's to await and to give up.
    #[inline(always)]
    pub(crate) fn start(&mut self, waker: &Waker) -> Poll<Result<CallId, Status>> {
        let client = self.client.borrow();
        let connection = client.connection();
        let CallState::New { request, ticket, deadline_us } = &mut self.state else {
            return Poll::Pending;
        };
        if *deadline_us == NEVER {
            *deadline_us = self.terms.deadline_us(&connection.shard);
        }
        if let Err(status) = self.terms.ask(client, &mut self.watch) {
            self.state = CallState::Done;
            return Poll::Ready(Err(status));
        }
        let mut room = Metadata::new();
        let watch = self.watch.as_deref();
        let options = self.terms.options(connection, *deadline_us, watch, &mut room);
        let method = self.terms.method.id;
        let outcome =
            connection.make(|session, scratch| session.call(scratch, method, options, *request));
        let id = match outcome {
            Ok(id) => id,
            Err(error) => {
                let waits = wait_or_fail(connection, ticket, waker, options, error);
                if let Poll::Ready(status) = &waits {
                    self.state = CallState::Done;
                    tell(&mut self.watch, Err(status));
                }
                return waits.map(Err);
            }
        };
        connection.callers.wait(id, waker);
        connection.shard.call_made();
        if *deadline_us != NEVER {
            connection.set_timer();
        }
        if let Some(ticket) = ticket.take() {
            connection.end_wait(ticket);
        }
        self.state = CallState::Done;
        Poll::Ready(Ok(id))
    }
}

impl<Q, C: Borrow<Client>> Drop for InFlight<'_, Q, C> {
    #[inline]
    fn drop(&mut self) {
        let connection = self.client.borrow().connection();
        match self.state {
            CallState::InFlight(call) => connection.abandon(call),
            // It may be the one that was woken for the room there is now.
            CallState::New { ticket: Some(ticket), .. } => connection.end_wait(ticket),
            CallState::New { .. } | CallState::Done => {}
        }
    }
}

impl<'a, Q> OneWay<'a, Q> {
    #[inline]
    pub(crate) fn new(client: &'a Client, method: &'static MethodInfo, request: &'a Q) -> Self {
        let terms = Terms::new(client, method);
        Self { client, terms, request, ticket: None, deadline_us: NEVER, watch: None }
    }

    /// Says whose shard the call is. What `#[rpc(shard_by = ...)]` does.
    #[inline]
    pub fn with_key(mut self, key: RoutingKey) -> Self {
        self.terms.key = Some(key);
        self
    }

    terms!();
}

impl<Q: Message> Future for OneWay<'_, Q> {
    type Output = Result<(), Status>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let call = self.get_mut();
        let connection = call.client.connection();
        if call.deadline_us == NEVER {
            call.deadline_us = call.terms.deadline_us(&connection.shard);
        }
        if let Err(status) = call.terms.ask(call.client, &mut call.watch) {
            return Poll::Ready(Err(status));
        }
        let mut room = Metadata::new();
        let watch = call.watch.as_deref();
        let options = call.terms.options(connection, call.deadline_us, watch, &mut room);
        let (method, request) = (call.terms.method.id, call.request);
        let made =
            connection.make(|session, scratch| session.one_way(scratch, method, options, request));
        match made {
            Ok(_) => {
                connection.shard.counters.one_ways_made.add(1);
                if let Some(ticket) = call.ticket.take() {
                    connection.end_wait(ticket);
                }
                tell(&mut call.watch, Ok(()));
                Poll::Ready(Ok(()))
            }
            Err(error) => {
                let waker = cx.waker();
                let waits = wait_or_fail(connection, &mut call.ticket, waker, options, error);
                if let Poll::Ready(status) = &waits {
                    tell(&mut call.watch, Err(status));
                }
                waits.map(Err)
            }
        }
    }
}

impl<Q> Drop for OneWay<'_, Q> {
    fn drop(&mut self) {
        if let Some(ticket) = self.ticket {
            self.client.connection().end_wait(ticket);
        }
    }
}

/// What becomes of a call that could not be made: it waits for room, or has failed.
#[cold]
pub(crate) fn wait_or_fail(
    connection: &Rc<Connection>,
    ticket: &mut Option<Ticket>,
    waker: &Waker,
    options: CallOptions<'_>,
    mut error: OpenError,
) -> Poll<Status> {
    let callers = &connection.callers;
    if options.deadline_us.is_some_and(|deadline_us| deadline_us <= options.now_us) {
        error = OpenError::TooLate;
    }
    let status = match error {
        OpenError::TooManyInFlight => match callers.wait_for_room(*ticket, waker) {
            Some(kept) => {
                *ticket = Some(kept);
                if let Some(deadline_us) = options.deadline_us {
                    callers.waits_until(deadline_us);
                    connection.set_timer();
                }
                return Poll::Pending;
            }
            None => Status::new(
                Code::ResourceExhausted,
                "call not made: too many callers wait for room already",
            ),
        },
        OpenError::NotOpen => callers.closed(),
        OpenError::Draining => Status::new(Code::Unavailable, format!("call not made: {error}")),
        OpenError::TooLate => {
            Status::new(Code::DeadlineExceeded, format!("call not made: {error}"))
        }
        error => Status::new(Code::ResourceExhausted, format!("call not made: {error}")),
    };
    if let Some(ticket) = ticket.take() {
        connection.end_wait(ticket);
    }
    Poll::Ready(status.not_executed())
}

impl Connection {
    /// Makes a call: `encode` puts its request into the session's output.
    #[inline(always)]
    pub(crate) fn make<T>(
        self: &Rc<Self>,
        encode: impl FnOnce(&mut Session, &mut ringcall_codec::Scratch) -> Result<T, OpenError>,
    ) -> Result<T, OpenError> {
        if self.state() != State::Open {
            return Err(OpenError::NotOpen);
        }
        let shard = &self.shard;
        let mut session = self.session.borrow_mut();
        session.set_now(shard.now_us());
        if self.is_too_much(session.output().len()) {
            return Err(OpenError::TooManyInFlight);
        }
        let len = prepare_output(session.output(), shard);
        let made = encode(&mut session, &mut shard.scratch.borrow_mut());
        if let Some(packing) = self.packing.get()
            && made.is_ok()
        {
            packing.pack(session.output(), len);
        }
        shard.counters.bytes_encoded.add((session.output().len() - len) as u64);
        drop(session);
        if made.is_ok() {
            shard.mark_dirty(self);
        }
        made
    }

    /// The outcome of a call was taken.
    #[inline]
    pub(crate) fn release(self: &Rc<Self>, call: CallId) {
        let mut session = self.session.borrow_mut();
        session.release(call);
        let is_last = session.peer_drains();
        drop(session);
        self.wake_waiting();
        if is_last {
            self.end_if_done();
        }
    }

    /// Nobody waits for a call any more.
    pub(crate) fn abandon(self: &Rc<Self>, call: CallId) {
        self.callers.abandon(&self.shard, call);
        self.session.borrow_mut().abandon(call);
        if self.is_alive() {
            // The peer is told.
            self.shard.mark_dirty(self);
        }
        self.wake_waiting();
    }

    /// A caller that waited for room does so no more. Where it was woken for room and has left
    /// some, the next is woken.
    #[cold]
    pub(crate) fn end_wait(&self, ticket: Ticket) {
        let was_woken = self.callers.end_wait(ticket);
        if was_woken && !self.is_blocked() {
            self.wake_waiting();
        }
    }
}

impl<T: Message> Response<T> {
    #[inline(always)]
    pub(crate) fn new(body: Lease, meta_len: u16) -> Result<Self, Status> {
        let place = body.start() as u64 | u64::from(meta_len) << 32;
        match View::new(body) {
            Ok(view) => Ok(Self { view, place }),
            Err(error) => Err(invalid(&error)),
        }
    }

    /// What the server sent beside the reply. Nothing is copied.
    pub fn metadata(&self) -> MetadataRef<'_> {
        let end = self.place as u32 as usize;
        let len = (self.place >> 32) as usize * FRAME_ALIGN;
        let start = end.checked_sub(len);
        let metadata = start.map_or(&[][..], |start| self.view.buffer(start..end));
        // It was checked when it came.
        MetadataRef::parse(metadata).unwrap_or(MetadataRef::EMPTY)
    }

    /// How long the server held the call, where it was [asked](Call::with_server_times) and has
    /// measured that. What it says is not checked.
    pub fn server_times(&self) -> Option<ServerTimes> {
        ServerTimes::of(&self.metadata())
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
        let owned = deserialize::<T>(&self.view);
        owned.map_err(|error| Status::new(Code::Internal, error.to_string()))
    }
}

impl<T: Message> Deref for Response<T> {
    type Target = T::Archived;

    #[inline]
    fn deref(&self) -> &T::Archived {
        &self.view
    }
}

impl<T: Message> Clone for Response<T> {
    fn clone(&self) -> Self {
        Self { view: self.view.clone(), place: self.place }
    }
}

#[cold]
fn invalid(error: &BodyError) -> Status {
    Status::new(Code::Internal, format!("reply: {error}"))
}

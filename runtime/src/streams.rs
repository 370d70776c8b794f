//! Streams: items sent and taken while a call runs.
//!
//! Items are encoded straight into the connection's send buffer, and read where the kernel put
//! them, as requests and replies are. A sender waits while its receiver has granted no credit;
//! taking an item grants it anew.

use std::{
    future::{Future, poll_fn},
    marker::PhantomData,
    ops::Deref,
    pin::Pin,
    rc::Rc,
    task::{Context as TaskContext, Poll, Waker, ready},
};

use ringcall_codec::{
    CallId, Code, Deserializer, EncodeError, ItemError, Message, MethodInfo, Status, StreamId,
    deserialize,
};
use rkyv::Deserialize;

use crate::{
    call::{InFlight, Response, Terms, tell},
    client::Client,
    connection::{Connection, State},
    context::Context,
    inbox::Taken,
    intercept::Watch,
    ring::{Lease, View},
    service::prepare_output,
};

/// The items that a handler sends to its caller, while its call runs.
pub struct Sink<'a, T> {
    /// Where the connection is, and the call.
    context: &'a Context,
    items: PhantomData<fn(T)>,
}

/// The items that a caller sends to a handler.
pub struct Source<T> {
    connection: Rc<Connection>,
    call: CallId,
    items: PhantomData<fn() -> T>,
}

/// An item, read where the kernel put it. Derefs to the archived message.
///
/// It keeps a receive buffer from being used again; when fewer than a quarter of a shard's buffers
/// are free, items are copied out instead.
pub struct Item<T: Message>(View<T>);

/// The items of a side that sends none.
#[derive(Clone, Copy, Debug)]
pub enum NoItems {}

/// A call with items that is about to be made: a future of the open [`Stream`].
///
/// Nothing is sent before it is first polled.
#[must_use = "nothing is sent before the call is awaited"]
pub struct StreamCall<'a, Q, I, O, R, E = Status> {
    opening: InFlight<'a, Q>,
    stream: Types<I, O, R, E>,
}

/// A call in flight with which items travel: `I` to the server, `O` from it, and a reply `R`.
///
/// Dropping it before it has [finished](Self::finish) gives the call up.
pub struct Stream<I, O, R, E = Status> {
    client: Client,
    call: CallId,
    /// Whether the outcome of the call was taken.
    is_over: bool,
    /// Where the client has an interceptor: who is told of the outcome.
    watch: Option<Box<Watch>>,
    stream: Types<I, O, R, E>,
}

/// Sends the items of a [`Stream`] beside it: from another task, or while the next is awaited.
///
/// It does not keep the call alive; when that has ended, sending fails.
pub struct ItemSender<I, E = Status> {
    connection: Rc<Connection>,
    stream: StreamId,
    items: PhantomData<fn(I) -> E>,
}

/// Sends `I`, gives `O`, ends with `R` or `E`.
type Types<I, O, R, E> = PhantomData<fn(I) -> (O, R, E)>;

impl<'a, T> Sink<'a, T> {
    #[inline]
    pub(crate) fn new(context: &'a Context) -> Self {
        Self { context, items: PhantomData }
    }

    #[inline]
    fn connection(&self) -> &'a Rc<Connection> {
        &self.context.connection
    }

    #[inline]
    fn stream(&self) -> StreamId {
        StreamId { call: self.context.call, is_made_here: false }
    }
}

impl<T: Message> Sink<'_, T> {
    /// Sends an item: done once it is in the connection's send buffer. Waits while the caller has
    /// granted no credit, or the send buffer is full. Dropping the future sends nothing.
    ///
    /// # Errors
    ///
    /// Where the call is over, the item is longer than the caller accepts, or cannot be encoded.
    #[inline]
    pub fn send(&self, item: &T) -> impl Future<Output = Result<(), Status>> {
        poll_fn(|cx| self.poll_send(item, cx.waker()))
    }

    #[inline]
    pub(crate) fn poll_send(&self, item: &T, waker: &Waker) -> Poll<Result<(), Status>> {
        poll_send(self.connection(), self.stream(), item, waker)
    }

    /// Sends an item that is laid out as `T` is, and may borrow for another time: `Row<'_>` of what
    /// lies here, where the sink is of `Row<'_>` of what lies elsewhere. As [`send`](Self::send),
    /// and the compiler compares the layouts.
    ///
    /// # Errors
    ///
    /// As [`send`](Self::send).
    #[inline]
    pub fn send_like<M: Message>(&self, item: &M) -> impl Future<Output = Result<(), Status>> {
        const { assert!(M::LAYOUT == T::LAYOUT, "the item is not laid out as the stream's are") };
        poll_fn(|cx| poll_send(self.connection(), self.stream(), item, cx.waker()))
    }

    /// Sends an item if that can be done at once; false where it cannot.
    ///
    /// # Errors
    ///
    /// As [`send`](Self::send).
    #[inline]
    pub fn try_send(&self, item: &T) -> Result<bool, Status> {
        try_send(self.connection(), self.stream(), item)
    }
}

impl<T: Message> Source<T> {
    pub(crate) fn new(context: &Context) -> Self {
        let (connection, call) = (Rc::clone(&context.connection), context.call);
        Self { connection, call, items: PhantomData }
    }

    /// The next item; none after the last. Taking it lets the caller send more.
    ///
    /// # Errors
    ///
    /// Where an item is no valid `T`, or none comes any more and the last had not come: the caller
    /// gave up or is gone. Most handlers never see the latter: they are dropped while they wait.
    // Not an async function, which would keep `self` twice.
    #[expect(clippy::should_implement_trait, reason = "its future cannot be an iterator's item")]
    pub fn next(&mut self) -> impl Future<Output = Result<Option<Item<T>>, Status>> {
        poll_fn(|cx| self.poll_next(cx.waker()))
    }

    fn poll_next(&self, waker: &Waker) -> Poll<Result<Option<Item<T>>, Status>> {
        let stream = StreamId { call: self.call, is_made_here: false };
        Poll::Ready(match ready!(self.connection.inboxes.poll_next(stream, waker)) {
            Taken::Item(item, frame_len) => {
                self.connection.item_taken(stream, frame_len);
                Item::new(item).map(Some)
            }
            Taken::Ended => Ok(None),
            Taken::Cut => Err(Status::new(Code::Unavailable, "the caller sends no more")),
        })
    }
}

impl<'a, Q, I, O, R, E> StreamCall<'a, Q, I, O, R, E> {
    #[inline]
    pub(crate) fn new(client: &'a Client, method: &'static MethodInfo, request: &'a Q) -> Self {
        let opening = InFlight::new(client, Terms::new(client, method).with_items(), request);
        Self { opening, stream: PhantomData }
    }

    crate::call::terms!(opening);

    /// As [`Call::with_server_times`](crate::Call::with_server_times): the handler's time is that
    /// of the whole stream.
    pub fn with_server_times(mut self) -> Self {
        self.opening.terms.wants_times = true;
        self
    }
}

impl<Q: Message, I, O, R, E: From<Status>> Future for StreamCall<'_, Q, I, O, R, E> {
    type Output = Result<Stream<I, O, R, E>, E>;

    fn poll(self: Pin<&mut Self>, cx: &mut TaskContext<'_>) -> Poll<Self::Output> {
        let opening = &mut self.get_mut().opening;
        let call = match opening.start(cx.waker()) {
            Poll::Ready(Ok(call)) => call,
            Poll::Ready(Err(status)) => return Poll::Ready(Err(status.into())),
            Poll::Pending => return Poll::Pending,
        };
        let (client, watch) = (opening.client.clone(), opening.watch.take());
        client.connection().inboxes.begin(StreamId { call, is_made_here: true });
        Poll::Ready(Ok(Stream { client, call, is_over: false, watch, stream: PhantomData }))
    }
}

impl<I: Message, O, R, E: From<Status>> Stream<I, O, R, E> {
    /// Sends an item: done once it is in the connection's send buffer. Waits while the server has
    /// granted no credit, or the send buffer is full. Dropping the future sends nothing.
    ///
    /// # Errors
    ///
    /// Where the call has ended ([`finish`](Self::finish) tells how), the item is longer than the
    /// server accepts, or cannot be encoded.
    #[inline]
    pub fn send(&self, item: &I) -> impl Future<Output = Result<(), E>> {
        poll_fn(|cx| {
            poll_send(self.client.connection(), self.id(), item, cx.waker()).map_err(E::from)
        })
    }

    /// Sends an item that is laid out as `I` is, and may borrow for another time. As
    /// [`send`](Self::send), and the compiler compares the layouts.
    ///
    /// # Errors
    ///
    /// As [`send`](Self::send).
    #[inline]
    pub fn send_like<M: Message>(&self, item: &M) -> impl Future<Output = Result<(), E>> {
        const { assert!(M::LAYOUT == I::LAYOUT, "the item is not laid out as the stream's are") };
        poll_fn(|cx| {
            poll_send(self.client.connection(), self.id(), item, cx.waker()).map_err(E::from)
        })
    }

    /// Sends an item if that can be done at once; false where it cannot.
    ///
    /// # Errors
    ///
    /// As [`send`](Self::send).
    #[inline]
    pub fn try_send(&self, item: &I) -> Result<bool, E> {
        Ok(try_send(self.client.connection(), self.id(), item)?)
    }

    /// Says that no more items come. Dropping the stream without gives the call up.
    pub fn end(&self) {
        end_items(self.client.connection(), self.id());
    }

    /// What sends items beside this stream: two ends that both send before they take can otherwise
    /// wait for each other.
    pub fn sender(&self) -> ItemSender<I, E> {
        let connection = Rc::clone(self.client.connection());
        ItemSender { connection, stream: self.id(), items: PhantomData }
    }
}

impl<I: Message, E: From<Status>> ItemSender<I, E> {
    /// As [`Stream::send`].
    ///
    /// # Errors
    ///
    /// As there.
    #[inline]
    pub fn send(&self, item: &I) -> impl Future<Output = Result<(), E>> {
        poll_fn(|cx| poll_send(&self.connection, self.stream, item, cx.waker()).map_err(E::from))
    }

    /// As [`Stream::try_send`].
    ///
    /// # Errors
    ///
    /// As there.
    #[inline]
    pub fn try_send(&self, item: &I) -> Result<bool, E> {
        Ok(try_send(&self.connection, self.stream, item)?)
    }

    /// As [`Stream::end`]. Dropping this does not say so.
    pub fn end(&self) {
        end_items(&self.connection, self.stream);
    }
}

impl<I, O: Message, R, E: From<Status>> Stream<I, O, R, E> {
    /// The next item; none after the last, when the call has its reply. Taking it lets the server
    /// send more.
    ///
    /// # Errors
    ///
    /// Where the call has failed, or an item is no valid `O`.
    // Not an async function, which would keep `self` twice.
    #[expect(clippy::should_implement_trait, reason = "its future cannot be an iterator's item")]
    pub fn next(&mut self) -> impl Future<Output = Result<Option<Item<O>>, E>> {
        poll_fn(|cx| self.poll_next(cx))
    }

    fn poll_next(&mut self, cx: &mut TaskContext<'_>) -> Poll<Result<Option<Item<O>>, E>> {
        let connection = self.client.connection();
        // Items that came before the outcome are taken before it.
        match connection.inboxes.poll_next(self.id(), cx.waker()) {
            Poll::Ready(Taken::Item(item, frame_len)) => {
                connection.item_taken(self.id(), frame_len);
                return Poll::Ready(Item::new(item).map(Some).map_err(E::from));
            }
            Poll::Ready(Taken::Ended | Taken::Cut) | Poll::Pending => {}
        }
        if self.is_over {
            return Poll::Ready(Ok(None));
        }
        match connection.callers.poll_failure(self.call, cx.waker()) {
            Poll::Ready(None) => Poll::Ready(Ok(None)),
            Poll::Ready(Some(status)) => {
                self.is_over = true;
                connection.release(self.call);
                tell(&mut self.watch, Err(&status));
                Poll::Ready(Err(status.into()))
            }
            Poll::Pending => Poll::Pending,
        }
    }
}

impl<I, O, R: Message, E: From<Status>> Stream<I, O, R, E> {
    /// The outcome of the call. Says that no more items come from here; items that were not taken
    /// are thrown away, those that still come too.
    ///
    /// # Errors
    ///
    /// The status that the server answered with, or one that says why there is no answer.
    pub async fn finish(mut self) -> Result<Response<R>, E> {
        if self.is_over {
            return Err(Status::new(Code::Internal, "the call has failed before").into());
        }
        poll_fn(|cx| self.poll_finish(cx)).await
    }

    fn poll_finish(&mut self, cx: &mut TaskContext<'_>) -> Poll<Result<Response<R>, E>> {
        let connection = self.client.connection();
        end_items(connection, self.id());
        while let Poll::Ready(Taken::Item(_, frame_len)) =
            connection.inboxes.poll_next(self.id(), cx.waker())
        {
            connection.item_taken(self.id(), frame_len);
        }
        let outcome = match connection.callers.poll_outcome(self.call, cx.waker()) {
            Poll::Pending => return Poll::Pending,
            Poll::Ready(outcome) => outcome,
        };
        self.is_over = true;
        connection.release(self.call);
        let response = match outcome {
            Ok((body, meta_len)) => Response::new(body, meta_len),
            Err(status) => Err(*status),
        };
        tell(&mut self.watch, response.as_ref().map(|_| ()));
        Poll::Ready(response.map_err(E::from))
    }
}

impl<I, O, R, E> Stream<I, O, R, E> {
    fn id(&self) -> StreamId {
        StreamId { call: self.call, is_made_here: true }
    }
}

impl<I, O, R, E> Drop for Stream<I, O, R, E> {
    fn drop(&mut self) {
        let connection = self.client.connection();
        connection.inboxes.end(&connection.shard, self.id());
        if !self.is_over {
            connection.abandon(self.call);
        }
    }
}

impl<T: Message> Item<T> {
    #[inline]
    fn new(body: Lease) -> Result<Self, Status> {
        let view = View::new(body).map(Self);
        view.map_err(|error| Status::new(Code::InvalidArgument, format!("item: {error}")))
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

impl<T: Message> Deref for Item<T> {
    type Target = T::Archived;

    #[inline]
    fn deref(&self) -> &T::Archived {
        &self.0
    }
}

impl Connection {
    /// An item was taken: its sender may send more.
    #[inline]
    fn item_taken(self: &Rc<Self>, stream: StreamId, frame_len: u64) {
        let mut session = self.session.borrow_mut();
        let len = prepare_output(session.output(), &self.shard);
        session.item_taken(stream, frame_len);
        let has_granted = session.output().len() > len;
        drop(session);
        if has_granted {
            self.shard.mark_dirty(self);
        }
    }
}

/// Sends an item, or waits until it can be sent.
#[inline]
fn poll_send<T: Message>(
    connection: &Rc<Connection>,
    stream: StreamId,
    item: &T,
    waker: &Waker,
) -> Poll<Result<(), Status>> {
    if !connection.is_alive() || connection.state() == State::Connecting {
        return Poll::Ready(Err(Status::new(Code::Unavailable, "the connection is closed")));
    }
    let shard = &connection.shard;
    let mut session = connection.session.borrow_mut();
    if connection.is_too_much(session.output().len()) {
        connection.inboxes.wait_for_room(stream, waker);
        return Poll::Pending;
    }
    let len = prepare_output(session.output(), shard);
    let sent = session.send_item(&mut shard.scratch.borrow_mut(), stream, item);
    if let Some(packing) = connection.packing.get()
        && sent.is_ok()
    {
        let before = session.output().len() - len;
        packing.pack(session.output(), len);
        let after = session.output().len() - len;
        session.item_packed(stream, before as u64, after as u64);
    }
    shard.counters.bytes_encoded.add((session.output().len() - len) as u64);
    drop(session);
    match sent {
        Ok(()) => {
            shard.counters.items_sent.add(1);
            shard.mark_dirty(connection);
            Poll::Ready(Ok(()))
        }
        Err(ItemError::NoCredit | ItemError::NoSharedCredit) if !connection.is_granted_credit() => {
            let text = "item not sent: the caller takes no more";
            Poll::Ready(Err(Status::new(Code::Unavailable, text)))
        }
        Err(ItemError::NoCredit) => {
            connection.inboxes.wait_for_credit(stream, waker);
            Poll::Pending
        }
        Err(ItemError::NoSharedCredit) => {
            connection.inboxes.wait_for_room(stream, waker);
            Poll::Pending
        }
        Err(error) => Poll::Ready(Err(failed(error))),
    }
}

fn try_send<T: Message>(
    connection: &Rc<Connection>,
    stream: StreamId,
    item: &T,
) -> Result<bool, Status> {
    match poll_send(connection, stream, item, Waker::noop()) {
        Poll::Ready(sent) => sent.map(|()| true),
        Poll::Pending => Ok(false),
    }
}

fn end_items(connection: &Rc<Connection>, stream: StreamId) {
    connection.session.borrow_mut().end_items(stream);
    connection.shard.mark_dirty(connection);
}

#[cold]
fn failed(error: ItemError) -> Status {
    let code = match error {
        ItemError::Encode(EncodeError::TooLong { .. }) => Code::ResourceExhausted,
        ItemError::Encode(_) => Code::Internal,
        _ => Code::Cancelled,
    };
    Status::new(code, format!("item not sent: {error}"))
}

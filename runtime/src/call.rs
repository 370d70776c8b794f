//! A call out, from its request to its reply: a future, with nothing allocated for it.
//!
//! Last on the path of a call, at the caller. The request is encoded straight into the
//! connection's send buffer when the future is first polled, the reply is read where it arrived.

use std::{
    future::Future,
    marker::PhantomData,
    ops::Deref,
    pin::Pin,
    task::{Context, Poll},
};

use ringcall_codec::{CallId, Code, Deserializer, Message, OpenError, Status, deserialize};
use rkyv::Deserialize;

use crate::{
    client::Client,
    client_end::Ticket,
    connection::State,
    ring::{Lease, View},
    service::prepare_output,
};

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

impl<'a, Q, R> Call<'a, Q, R> {
    /// A call that is not made yet.
    #[inline]
    pub(crate) fn new(client: &'a Client, method: u32, request: &'a Q) -> Self {
        let state = CallState::New { request, ticket: None };
        Self { client, method, state, reply: PhantomData }
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
        end.wake_waiting(&call.client.connection().shard);
        Poll::Ready(outcome.and_then(Response::new))
    }
}

impl<Q: Message, R: Message> Call<'_, Q, R> {
    /// Encodes the request, or waits for room to do so.
    #[inline]
    fn start(&mut self, cx: &mut Context<'_>) -> Poll<Result<Response<R>, Status>> {
        let connection = self.client.connection();
        let (Some(end), CallState::New { request, ticket }) = (self.client.end(), &mut self.state)
        else {
            return Poll::Pending;
        };
        if connection.state() != State::Open {
            self.state = CallState::Done;
            return Poll::Ready(Err(end.closed()));
        }
        let shard = &connection.shard;
        let outcome = if connection.is_blocked() {
            Err(OpenError::TooManyInFlight)
        } else {
            let mut session = end.session.borrow_mut();
            let len = prepare_output(session.output(), shard);
            let made = session.call(&mut shard.scratch.borrow_mut(), self.method, *request);
            shard.counters.bytes_encoded.add((session.output().len() - len) as u64);
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
        let shard = &self.client.connection().shard;
        match self.state {
            CallState::InFlight(call) => end.abandon(shard, call),
            // It may be the one that was woken for the room there is now.
            CallState::New { ticket: Some(ticket), .. } => end.end_wait(shard, ticket, true),
            CallState::New { .. } | CallState::Done => {}
        }
    }
}

impl<T: Message> Response<T> {
    #[inline]
    fn new(body: Lease) -> Result<Self, Status> {
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

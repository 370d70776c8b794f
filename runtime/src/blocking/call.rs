//! Calls, as users write them: settings first, then `wait`, `start` or `send`.

use std::{
    fmt,
    marker::PhantomData,
    sync::{Arc, PoisonError},
    time::Duration,
};

use ringcall_codec::{CallId, Message, Metadata, MethodInfo, RoutingKey, Status};

use super::{
    client::Client,
    connection::{GivenUp, Terms},
    reply::Reply,
};
use crate::config::us32;

/// A call that is not made yet. Nothing is sent before [`wait`](Self::wait) or
/// [`start`](Self::start).
#[must_use = "nothing is sent before `wait` or `start`"]
pub struct Call<'a, Q, R, E = Status> {
    made: Made<'a, Q>,
    outcome: PhantomData<fn() -> (R, E)>,
}

/// A call without an answer that is not made yet. Nothing is sent before [`send`](Self::send) or
/// [`start`](Self::start).
#[must_use = "nothing is sent before `send` or `start`"]
pub struct OneWay<'a, Q> {
    made: Made<'a, Q>,
}

/// What every call is made of.
struct Made<'a, Q> {
    client: &'a mut Client,
    method: &'static MethodInfo,
    request: &'a Q,
    terms: Terms<'a>,
}

/// A call that is in flight, to be given to [`Client::finish`] of the client that made it.
///
/// Dropping it gives the call up: the server is told when the client is used next, and what it
/// still answers is thrown away.
#[must_use = "dropping it gives the call up"]
pub struct Ticket<R, E = Status> {
    pub(super) call: CallId,
    /// None once the call's outcome is waited for.
    given_up: Option<GivenUp>,
    outcome: PhantomData<fn() -> (R, E)>,
}

/// The settings that every kind of call has.
macro_rules! terms {
    () => {
        /// Gives the call so much time, in place of the method's or the client's; zero is for
        /// ever. Up to 71 minutes. Without an outcome by then it fails with `DEADLINE_EXCEEDED`,
        /// and the server is told to stop.
        pub fn timeout(mut self, timeout: Duration) -> Self {
            self.made.terms.timeout_us = us32(timeout);
            self
        }

        /// Says whose shard the call is. What `#[rpc(shard_by = ...)]` does.
        pub fn with_key(mut self, key: RoutingKey) -> Self {
            self.made.terms.key = Some(key);
            self
        }

        /// Sends metadata with the request.
        pub fn metadata(mut self, metadata: &'a Metadata) -> Self {
            self.made.terms.metadata = Some(metadata);
            self
        }
    };
}

impl<'a, Q> Made<'a, Q> {
    fn new(client: &'a mut Client, method: &'static MethodInfo, request: &'a Q) -> Self {
        let timeout_us = match method.timeout_us {
            0 => client.timeout_us,
            timeout_us => timeout_us,
        };
        let terms = Terms { timeout_us, metadata: None, wants_times: false, key: None };
        Self { client, method, request, terms }
    }
}

impl<'a, Q: Message, R: Message, E: From<Status>> Call<'a, Q, R, E> {
    pub(super) fn new(client: &'a mut Client, method: &'static MethodInfo, request: &'a Q) -> Self {
        Self { made: Made::new(client, method, request), outcome: PhantomData }
    }

    terms!();

    /// Asks the server how long it holds the call, for [`Reply::server_times`]. One that fails has
    /// none. Costs 16 bytes each way and the server two looks at the clock; where metadata leaves
    /// no room for it, it is not asked.
    pub fn with_server_times(mut self) -> Self {
        self.made.terms.wants_times = true;
        self
    }

    /// Makes the call, and waits for its outcome. What was collected before is sent in the same
    /// write.
    ///
    /// # Errors
    ///
    /// The status that the server answered with, or one that says why there is no answer;
    /// [`Status::is_not_executed`] tells whether it is certain that no handler ran.
    pub fn wait(self) -> Result<Reply<R>, E> {
        let Made { client, method, request, terms } = self.made;
        let connection = &mut client.connection;
        let reply = connection
            .call(method, terms, request)
            .and_then(|call| connection.wait(call))
            .and_then(|(body, meta_len)| Reply::new(body, meta_len));
        reply.map_err(E::from)
    }

    /// Makes the call, and does not wait: [`Client::finish`] does. Calls that were made so are
    /// collected, and sent in one write by the next that is waited for, by [`Client::flush`], or
    /// when there are 64 KiB of them. The time-out counts from here.
    ///
    /// # Errors
    ///
    /// Where the call cannot be made. As many calls as the server accepts (by default 4,096) may
    /// be in flight or have outcomes that were not taken: one more fails with
    /// `RESOURCE_EXHAUSTED`.
    pub fn start(self) -> Result<Ticket<R, E>, E> {
        let Made { client, method, request, terms } = self.made;
        let connection = &mut client.connection;
        let call = connection.call(method, terms, request)?;
        let given_up = Some(Arc::clone(connection.given_up()));
        let ticket = Ticket { call, given_up, outcome: PhantomData };
        connection.flush_if_long()?;
        Ok(ticket)
    }
}

impl<'a, Q: Message> OneWay<'a, Q> {
    pub(super) fn new(client: &'a mut Client, method: &'static MethodInfo, request: &'a Q) -> Self {
        Self { made: Made::new(client, method, request) }
    }

    terms!();

    /// Makes the call, and sends it with everything that was collected before. Whether it arrives
    /// and its handler succeeds is not known; where the server says that it failed,
    /// [`Client::on_notice`] is told.
    ///
    /// # Errors
    ///
    /// Where the call cannot be made, or the connection is lost while it is being sent.
    pub fn send(self) -> Result<(), Status> {
        let Made { client, method, request, terms } = self.made;
        client.connection.one_way(method, terms, request)?;
        client.connection.flush()
    }

    /// Makes the call and collects it, to be sent as those of [`Call::start`] are.
    ///
    /// # Errors
    ///
    /// As [`send`](Self::send).
    pub fn start(self) -> Result<(), Status> {
        let Made { client, method, request, terms } = self.made;
        client.connection.one_way(method, terms, request)?;
        client.connection.flush_if_long()
    }
}

impl<R, E> Ticket<R, E> {
    /// Whether the call was made on the connection that this list belongs to.
    pub(super) fn is_of(&self, given_up: &GivenUp) -> bool {
        self.given_up.as_ref().is_some_and(|ours| Arc::ptr_eq(ours, given_up))
    }

    /// Somebody waits for the outcome: the call is not given up when this drops.
    pub(super) fn redeem(mut self) -> CallId {
        self.given_up = None;
        self.call
    }
}

impl<R, E> Drop for Ticket<R, E> {
    fn drop(&mut self) {
        if let Some(given_up) = &self.given_up {
            given_up.lock().unwrap_or_else(PoisonError::into_inner).push(self.call);
        }
    }
}

impl<R, E> fmt::Debug for Ticket<R, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ticket").field("call", &self.call).finish_non_exhaustive()
    }
}

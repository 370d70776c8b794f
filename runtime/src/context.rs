//! What a handler can know of its call, beside the request.

use std::{cell::Cell, net::SocketAddr, rc::Rc, time::Duration};

use ringcall_codec::{CallId, Code, Metadata, MetadataRef, ShardPlace};

use crate::{
    client::Client,
    connection::Connection,
    intercept::Outcome,
    ring::Lease,
    service::CallTag,
    shards::{NEVER, Shards},
    times::BesideReply,
};

/// What a handler can know of its call, beside the request.
pub struct Context {
    pub(crate) connection: Rc<Connection>,
    pub(crate) call: CallId,
    pub(crate) tag: CallTag,
    /// The request's body; its metadata stands before it.
    pub(crate) body: Lease,
    /// How the call has ended, if it has.
    pub(crate) outcome: Cell<Outcome>,
    /// What goes with the reply; allocated only where there is some.
    pub(crate) beside_reply: Cell<Option<Box<BesideReply>>>,
}

impl Context {
    #[inline]
    pub(crate) fn new(connection: Rc<Connection>, call: CallId, tag: CallTag, body: Lease) -> Self {
        let beside =
            if tag.has_metadata() { BesideReply::begin(&connection, tag, &body) } else { None };
        let (outcome, beside_reply) = (Cell::new(Outcome::Unanswered), Cell::new(beside));
        Self { connection, call, tag, body, outcome, beside_reply }
    }

    /// Whether the call was answered.
    #[inline]
    pub(crate) fn is_answered(&self) -> bool {
        self.outcome.get() != Outcome::Unanswered
    }

    /// Address of the caller.
    pub fn peer(&self) -> SocketAddr {
        self.connection.peer
    }

    /// The shard that runs the call.
    pub fn shard(&self) -> ShardPlace {
        self.connection.shard.place
    }

    /// The shards of the server, to be asked for what they have. What is asked ends with the call.
    pub fn shards(&self) -> Shards {
        Shards::within(&self.connection.shard, self.deadline_us().unwrap_or(NEVER))
    }

    /// What the caller sent beside the request. Nothing is copied.
    pub fn metadata(&self) -> MetadataRef<'_> {
        let metadata = self.body.before(self.tag.meta_bytes());
        // It was checked when it came.
        MetadataRef::parse(metadata).unwrap_or(MetadataRef::EMPTY)
    }

    /// Gives metadata to go with the reply; a later one takes its place. A status takes none.
    pub fn set_reply_metadata(&self, metadata: Metadata) {
        let mut beside = self.beside_reply.take().unwrap_or_default();
        beside.set_metadata(metadata);
        self.beside_reply.set(Some(beside));
    }

    /// Time until the call is given up: zero once it is over, none where it has no deadline.
    ///
    /// What the server made of what the caller asked for. When it is over the handler is dropped,
    /// at its next await. Calls that are made [within](crate::Call::within) this call end with it.
    pub fn time_left(&self) -> Option<Duration> {
        let deadline_us = self.deadline_us()?;
        let now_us = self.connection.shard.fresh_now_us();
        Some(Duration::from_micros(deadline_us.saturating_sub(now_us)))
    }

    /// The deadline in the time of the shard, in microseconds.
    pub(crate) fn deadline_us(&self) -> Option<u64> {
        if self.tag.is_one_way() {
            return None;
        }
        self.connection.session.borrow().deadline_us(self.call)
    }

    /// Why nobody waits for the outcome any more, where that is so: the caller gave up or is gone,
    /// or the time is over.
    pub(crate) fn why_stopped(&self) -> Option<Code> {
        if self.tag.is_one_way() {
            return None;
        }
        let code = self.connection.session.borrow().why_stopping(self.call);
        code.or((!self.connection.is_alive()).then_some(Code::Cancelled))
    }

    /// Whether nobody waits for the outcome any more: the caller gave up, its time is over, or it
    /// is gone. For handlers that work on without an await; others are dropped at their next one,
    /// unless the method is `#[rpc(no_cancel)]`.
    pub fn is_cancelled(&self) -> bool {
        if self.tag.is_one_way() {
            return false;
        }
        !self.connection.is_alive() || self.connection.session.borrow().is_stopping(self.call)
    }

    /// The connection that the call came on, to make calls to the caller. Where the caller serves
    /// nothing they fail with `UNIMPLEMENTED`, or end the connection.
    ///
    /// So they do for a call that came to another shard of the server, as not executed.
    ///
    /// A clone may be kept beyond the call; it does not keep the connection open.
    pub fn caller(&self) -> Client {
        Client::of_accepted(&self.connection)
    }
}

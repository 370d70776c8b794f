//! Classes of methods: in which order the calls of a turn are handled, and how much bulk at once.
//!
//! Between the session and the dispatch of a call, for services with classes alone. Calls of
//! latency methods are dispatched as they are found. The others wait in here until everything that
//! has come was looked at: those of normal methods to the end of the turn, those of bulk methods
//! for as many turns as it takes. A bulk handler that has waited goes on in the same queue, so that
//! it is not ahead of a latency call by having begun.

use std::{
    cell::{Cell, RefCell},
    collections::VecDeque,
    rc::Rc,
    time::Instant,
};

use ringcall_codec::{CallId, Status};

use crate::{
    config::{BULK_CALLS_WAITING_MAX, BULK_PER_TURN_MAX, BULK_TIME_PER_TURN},
    connection::Connection,
    dispatch::Dispatch,
    ring::Lease,
    service::{CallTag, Incoming},
};

/// How urgent the calls of a method are, beside those of other methods on the same shard.
///
/// Given with `#[rpc(class = "latency")]`, `"normal"` or `"bulk"`. It orders what has come; a
/// handler that runs is not interrupted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Class {
    /// Handled before every other call that came in the same turn.
    Latency,
    /// Handled in the turn in which it came, after the latency calls.
    #[default]
    Normal,
    /// Handled after all others, for 50 µs or one call a turn, whichever is longer.
    Bulk,
}

/// The calls of a shard that wait for their turn.
#[derive(Default)]
pub(crate) struct Backlog {
    /// Bounded by what one turn finds.
    normal: RefCell<VecDeque<Deferred>>,
    /// Calls up to [`BULK_CALLS_WAITING_MAX`], and handlers that began.
    bulk: RefCell<VecDeque<Work>>,
    /// Calls in `bulk`.
    bulk_calls: Cell<usize>,
    /// When the call came that is being dispatched, where that was before it was read.
    came: Cell<Option<Instant>>,
}

/// A call that was accepted and has not begun.
pub(crate) struct Deferred {
    pub(crate) serves: Rc<dyn Dispatch>,
    pub(crate) connection: Rc<Connection>,
    pub(crate) call: CallId,
    pub(crate) tag: CallTag,
    pub(crate) body: Lease,
    pub(crate) came: Instant,
}

enum Work {
    Begin(Deferred),
    GoOn(Rc<dyn GoOn>),
}

/// A bulk handler that began, and has something to do again.
pub(crate) trait GoOn {
    /// Polls it. It may be gone.
    fn go_on(&self);
}

impl Backlog {
    /// Whether something waits.
    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.normal.borrow().is_empty() && self.bulk.borrow().is_empty()
    }

    /// Keeps a call for the end of the turn.
    pub(crate) fn defer_normal(&self, deferred: Deferred) {
        deferred.begin_to_wait();
        self.normal.borrow_mut().push_back(deferred);
    }

    /// Keeps a call for when there is time for it; gives it back where too many wait.
    pub(crate) fn defer_bulk(&self, deferred: Deferred) -> Result<(), Deferred> {
        if self.bulk_calls.get() >= BULK_CALLS_WAITING_MAX {
            return Err(deferred);
        }
        self.bulk_calls.set(self.bulk_calls.get() + 1);
        deferred.begin_to_wait();
        self.bulk.borrow_mut().push_back(Work::Begin(deferred));
        Ok(())
    }

    /// Lets a bulk handler go on when there is time for it.
    pub(crate) fn go_on_later(&self, handler: Rc<dyn GoOn>) {
        self.bulk.borrow_mut().push_back(Work::GoOn(handler));
    }

    /// Handles what waits: all that is normal, and of the bulk as much as a turn has.
    #[cold]
    pub(crate) fn run(&self) {
        while let Some(deferred) = pop(&self.normal) {
            self.begin(deferred);
        }
        if self.bulk.borrow().is_empty() {
            return;
        }
        let since = Instant::now();
        // Handlers that go on at once are behind those that wait.
        for _ in 0..BULK_PER_TURN_MAX {
            match pop(&self.bulk) {
                Some(Work::Begin(deferred)) => {
                    self.bulk_calls.set(self.bulk_calls.get() - 1);
                    self.begin(deferred);
                }
                Some(Work::GoOn(handler)) => handler.go_on(),
                None => return,
            }
            if since.elapsed() >= BULK_TIME_PER_TURN {
                return;
            }
        }
    }

    fn begin(&self, deferred: Deferred) {
        self.came.set(Some(deferred.came));
        deferred.begin();
        self.came.set(None);
    }

    /// When the call came that is being dispatched, where it has waited in here.
    pub(crate) fn came(&self) -> Option<Instant> {
        self.came.get()
    }

    /// Drops what waits: the shard ends.
    pub(crate) fn close(&self) {
        let (normal, bulk) = (self.normal.take(), self.bulk.take());
        self.bulk_calls.set(0);
        let begin = |work| match work {
            Work::Begin(deferred) => Some(deferred),
            Work::GoOn(_) => None,
        };
        normal.into_iter().chain(bulk.into_iter().filter_map(begin)).for_each(Deferred::drop_it);
    }
}

impl Deferred {
    /// Counts as a call that runs while it waits.
    fn begin_to_wait(&self) {
        self.connection.shard.handler_begins();
        self.connection.shard.wake_driver();
    }

    /// Gives the call to its handler, unless nobody waits for it any more.
    fn begin(self) {
        let Self { serves, connection, call, tag, body, .. } = self;
        connection.shard.handler_ends();
        let is_given_up = !tag.is_one_way()
            && (!connection.is_alive() || connection.session.borrow().is_stopping(call));
        if is_given_up {
            connection.shard.counters.handlers_stopped.add(1);
            // Its drop says how it ended.
            drop(Incoming::new(&connection, call, tag, body));
        } else {
            serves.run(&connection, call, tag, body);
        }
        connection.end_if_peer_finished();
    }

    /// Refuses the call: as many wait as may.
    pub(crate) fn refuse(self, status: &Status) {
        let incoming = Incoming::new(&self.connection, self.call, self.tag, self.body);
        incoming.context().connection.shard.counters.calls_refused_overload.add(1);
        incoming.reject(status);
    }

    fn drop_it(self) {
        self.connection.shard.handler_ends();
        drop(Incoming::new(&self.connection, self.call, self.tag, self.body));
    }
}

/// The first of a queue, which is not borrowed afterwards.
fn pop<T>(queue: &RefCell<VecDeque<T>>) -> Option<T> {
    queue.borrow_mut().pop_front()
}

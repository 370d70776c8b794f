//! The shard's side of a handle: connections on which calls from elsewhere are made.
//!
//! Between the queue and the session on the path of such a call. A port is one connection and the
//! calls that wait until it has room. Nothing here waits: it runs between two completions.

use std::{
    cell::{Cell, RefCell},
    collections::VecDeque,
    future::{Future, poll_fn},
    pin::pin,
    rc::Rc,
    sync::Arc,
    task::{Poll, Wake, Waker},
    time::Instant,
};

use ringcall_codec::{CallOptions, Status, limits::FRAME_ALIGN};

use super::{
    call::{CallPlace, CallPromise, Submission, too_late},
    queue::{Entry, Shared},
};
use crate::{
    call::wait_or_fail,
    callers::Ticket,
    client::Client,
    config::{HANDED_OVER_MIN, SPARE_REQUEST_LEN_MAX, SPARE_REQUESTS_MAX},
    executor,
    ring::{Detached, Lease},
    shard::Shard,
    slab::Slab,
};

/// The ports of a shard, and what they share.
#[derive(Default)]
pub(crate) struct Ports {
    ports: RefCell<Slab<Rc<Port>>>,
    /// Buffers of requests that were sent, for replies that are copied out.
    spare: RefCell<Vec<Vec<u8>>>,
    /// Who looks after those who wait for room in the handle.
    keeper: Keeper,
}

/// A connection on which calls from elsewhere are made.
struct Port {
    /// Keeps the connection open.
    client: Client,
    /// Calls that wait for room on it, longest first.
    waiting: RefCell<VecDeque<Submission>>,
    /// Its place among those who wait for room on the connection, while calls wait.
    ticket: Cell<Option<Ticket>>,
    /// No deadline of a call that waits is before this, in microseconds.
    earliest_us: Cell<u64>,
    /// Woken where there may be room.
    waker: Waker,
}

/// Has the shard look at a port.
struct PortWaker {
    shared: Arc<Shared>,
    port: u64,
}

#[derive(Default)]
struct Keeper {
    waker: RefCell<Option<Waker>>,
    is_told: Cell<bool>,
}

impl Ports {
    /// Does one thing that was asked for.
    pub(super) fn take(&self, shard: &Rc<Shard>, shared: &Arc<Shared>, entry: Entry) {
        match entry {
            Entry::Call(submission) => {
                let port = self.ports.borrow().get(submission.port).cloned();
                // A port that is gone has ended with its client, which the call would keep.
                if let Some(port) = port {
                    port.take(self, submission);
                }
            }
            Entry::GiveUp(call) => self.give_up(&call),
            Entry::Room { port } => {
                let port = self.ports.borrow().get(port).cloned();
                port.iter().for_each(|port| port.pump(self));
            }
            Entry::Connect(connecting) => connecting.begin(shard),
            Entry::Close { port } => {
                // Dropped without the table: it ends the connection.
                let port = self.ports.borrow_mut().remove(port);
                drop(port);
            }
            Entry::Tend => {
                shared.tends();
                self.keeper.tell();
            }
            Entry::Stop => {
                shard.is_stopping.set(true);
                shard.wake_stopped();
            }
        }
    }

    /// Enters a connection, and gives its number.
    pub(super) fn enter(&self, client: Client, shared: &Arc<Shared>) -> u64 {
        let mut number = 0;
        let shared = Arc::clone(shared);
        self.ports.borrow_mut().insert_with(|port| {
            number = port;
            Rc::new(Port {
                client,
                waiting: RefCell::default(),
                ticket: Cell::new(None),
                earliest_us: Cell::new(u64::MAX),
                waker: Waker::from(Arc::new(PortWaker { shared, port })),
            })
        });
        number
    }

    /// Lets go of every connection.
    pub(crate) fn clear(&self) {
        let ports = self.ports.take();
        drop(ports);
    }

    /// Nobody waits for a call any more.
    fn give_up(&self, call: &Arc<CallPlace>) {
        let port = self.ports.borrow().get(call.beside.port()).cloned();
        let Some(port) = port else { return };
        if let Some(id) = call.beside.id() {
            let connection = port.client.connection();
            if connection.callers.is_awaited_elsewhere(id, |pending| pending.0.is_at(call)) {
                connection.abandon(id);
            }
            return;
        }
        let position = {
            let waiting = port.waiting.borrow();
            waiting.iter().position(|waits| waits.call.is_at(call))
        };
        let removed = position.and_then(|at| port.waiting.borrow_mut().remove(at));
        drop(removed);
    }

    /// An empty buffer for a reply, with capacity if one was kept.
    fn take_spare(&self) -> Vec<u8> {
        self.spare.borrow_mut().pop().unwrap_or_default()
    }

    /// Keeps a request's buffer for a reply, within bounds.
    fn keep_spare(&self, buffer: Vec<u8>) {
        let mut spare = self.spare.borrow_mut();
        if spare.len() < SPARE_REQUESTS_MAX && buffer.capacity() <= SPARE_REQUEST_LEN_MAX {
            spare.push(buffer);
        }
    }
}

impl Port {
    /// Makes a call, or lets it wait behind those that do.
    fn take(&self, ports: &Ports, submission: Submission) {
        let is_first = self.waiting.borrow().is_empty();
        let kept = if is_first { self.make(ports, submission) } else { Some(submission) };
        if let Some(submission) = kept {
            self.note_deadline(&submission);
            self.waiting.borrow_mut().push_back(submission);
        }
    }

    /// Makes the calls that wait, as far as there is room.
    fn pump(&self, ports: &Ports) {
        self.fail_late();
        loop {
            let next = self.waiting.borrow_mut().pop_front();
            let Some(submission) = next else { break };
            if let Some(submission) = self.make(ports, submission) {
                self.waiting.borrow_mut().push_front(submission);
                return;
            }
        }
        if let Some(ticket) = self.ticket.take() {
            self.client.connection().end_wait(ticket);
        }
    }

    /// Makes a call. Gives it back where there is no room for it, and waits for some.
    fn make(&self, ports: &Ports, submission: Submission) -> Option<Submission> {
        if submission.call.is_given_up() {
            return None;
        }
        let connection = self.client.connection();
        let shard = &connection.shard;
        let Submission { port, request, call } = submission;
        let deadline_us = request.deadline.map(|deadline| shard.us_of(deadline));
        let options = CallOptions {
            deadline_us,
            now_us: shard.now_us(),
            metadata: &request.metadata,
            is_stream: false,
            key: None,
        };
        let (method, body) = (request.method.id, &request.body);
        let made = if request.is_one_way {
            connection
                .make(|session, _| session.one_way_encoded(method, options, body).map(|_| None))
        } else {
            connection.make(|session, _| session.call_encoded(method, options, body).map(Some))
        };
        match made {
            Ok(Some(id)) => {
                if let Some(place) = call.place() {
                    place.beside.set_id(id);
                }
                connection.callers.wait_elsewhere(id, PendingCall(call));
                shard.call_made();
                if deadline_us.is_some() {
                    connection.set_timer();
                }
            }
            Ok(None) => {
                shard.counters.one_ways_made.add(1);
                call.give(Ok(Detached::EMPTY));
            }
            Err(error) => {
                let mut ticket = self.ticket.take();
                let waits = wait_or_fail(connection, &mut ticket, &self.waker, options, error);
                self.ticket.set(ticket);
                match waits {
                    Poll::Pending => return Some(Submission { port, request, call }),
                    Poll::Ready(status) => call.give(Err(Box::new(status))),
                }
                return None;
            }
        }
        shard.counters.requests_copied_in.add(1);
        ports.keep_spare(request.body);
        None
    }

    /// Sees to it that the port is looked at when the time of a call that waits is over.
    fn note_deadline(&self, submission: &Submission) {
        let Some(deadline) = submission.request.deadline else { return };
        let connection = self.client.connection();
        let deadline_us = connection.shard.us_of(deadline);
        self.earliest_us.set(self.earliest_us.get().min(deadline_us));
        connection.callers.waits_until(deadline_us);
        connection.set_timer();
    }

    /// Fails the calls that waited until their time was over.
    fn fail_late(&self) {
        let now_us = self.client.connection().shard.now_us();
        if now_us < self.earliest_us.get() {
            return;
        }
        self.earliest_us.set(u64::MAX);
        let waiting = self.waiting.take();
        let mut kept = VecDeque::with_capacity(waiting.len());
        for submission in waiting {
            let shard = &self.client.connection().shard;
            match submission.request.deadline.map(|deadline| shard.us_of(deadline)) {
                Some(deadline_us) if deadline_us <= now_us => {
                    submission.call.give(Err(Box::new(too_late().not_executed())));
                }
                _ => {
                    self.note_deadline(&submission);
                    kept.push_back(submission);
                }
            }
        }
        *self.waiting.borrow_mut() = kept;
    }
}

/// A call that was made for somebody elsewhere: what stands in its seat.
pub(crate) struct PendingCall(CallPromise);

impl PendingCall {
    /// The reply has come.
    pub(crate) fn reply(self, shard: &Shard, body: Lease, meta_len: u16) {
        let meta_len = usize::from(meta_len) * FRAME_ALIGN;
        if self.0.is_given_up() {
            return;
        }
        let counters = &shard.counters;
        let body = if body.len() < HANDED_OVER_MIN {
            body
        } else {
            match Detached::take(body, meta_len) {
                Ok(bytes) => {
                    counters.replies_handed_over.add(1);
                    return self.0.give(Ok(bytes));
                }
                Err(body) => body,
            }
        };
        counters.replies_copied_out.add(1);
        counters.bytes_copied.add((meta_len + body.len()) as u64);
        let room = shard.ports.take_spare();
        self.0.give(Ok(Detached::copy(&body, meta_len, room)));
    }

    /// It has ended otherwise.
    pub(crate) fn fail(self, status: Status) {
        self.0.give(Err(Box::new(status)));
    }
}

impl Wake for PortWaker {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.shared.push(Entry::Room { port: self.port });
    }
}

impl Keeper {
    fn tell(&self) {
        self.is_told.set(true);
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }
}

/// Wakes those who wait for room in a handle when their time is over. A task of the shard.
pub(super) async fn keep_time(shard: Rc<Shard>, shared: Arc<Shared>) {
    loop {
        let keeper = &shard.ports.keeper;
        keeper.is_told.set(false);
        let now = Instant::now();
        shared.room.wake_late(now);
        let until = shared.room.first_deadline().map(|due| due.saturating_duration_since(now));
        let mut sleep = pin!(until.map(executor::sleep));
        poll_fn(|cx| {
            if keeper.is_told.get() {
                return Poll::Ready(());
            }
            *keeper.waker.borrow_mut() = Some(cx.waker().clone());
            match sleep.as_mut().as_pin_mut() {
                Some(sleep) => sleep.poll(cx),
                None => Poll::Pending,
            }
        })
        .await;
    }
}

//! The calls made on a connection: who waits for which outcome.

use std::{
    cell::{Cell, RefCell},
    collections::VecDeque,
    io,
    num::NonZeroU64,
    rc::Rc,
    task::{Poll, Waker},
};

use ringcall_codec::{CallId, Code, SessionError, Status};

use crate::{config::CALLERS_WAITING_MAX, ring::Lease, shard::Shard, slab::grow};

/// Who waits for the outcomes of the calls made on a connection.
pub(crate) struct Callers {
    /// Who waits for which outcome, by slot of the call.
    seats: RefCell<Vec<Seat>>,
    /// Callers that wait for a free slot or for room in the send buffer.
    waiting: RefCell<Waiting>,
    /// The first deadline of a caller that waits for room, in microseconds.
    wait_ends_us: Cell<u64>,
    opening: RefCell<Opening>,
    /// Why the connection is closed: what the first of its calls to fail so was told.
    closed: RefCell<Option<Status>>,
    /// Told of one-way calls that failed.
    on_notice: RefCell<Option<OnNotice>>,
}

/// Is told of a one-way call that failed: its number, and why.
pub(crate) type OnNotice = Rc<dyn Fn(u64, &Status)>;

/// Callers that wait, longest first: by their tickets, which count up.
struct Waiting {
    callers: VecDeque<(Ticket, Waker)>,
    next_ticket: Ticket,
}

/// The place of a caller among those that wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Ticket(NonZeroU64);

/// The place of a call in the table.
struct Seat {
    outcome: Outcome,
    /// Whom to wake. Kept when the call has ended, since most often the next call in the slot is
    /// made by the same task: a waker is not free to clone and drop.
    waker: Option<Waker>,
}

/// How far a call is. Three words, as it is moved twice for each call.
enum Outcome {
    /// The slot has no call, or its caller is gone.
    Nobody,
    Awaited,
    /// The body, and the length of the metadata before it in units of 16 bytes.
    Reply(Lease, u16),
    Failed(Box<Status>),
}

const _: () = assert!(size_of::<Outcome>() <= 24);

/// How far the opening of the connection is.
enum Opening {
    /// Neither open nor failed; who connects may wait.
    Waiting(Option<Waker>),
    Open,
    Failed(Failure),
}

/// Why a connection is not open.
#[derive(Debug)]
pub(crate) enum Failure {
    Connect(io::Error),
    Session(SessionError),
    Closed(Status),
}

impl Callers {
    pub(crate) fn new() -> Self {
        Self {
            seats: RefCell::default(),
            waiting: RefCell::default(),
            wait_ends_us: Cell::new(u64::MAX),
            opening: RefCell::new(Opening::Waiting(None)),
            closed: RefCell::new(None),
            on_notice: RefCell::new(None),
        }
    }

    /// A call has its reply.
    #[inline]
    pub(crate) fn replied(&self, shard: &Shard, call: CallId, body: Lease, meta_len: u16) {
        self.settle(shard, call, || Outcome::Reply(body, meta_len));
    }

    /// A call has ended otherwise.
    pub(crate) fn failed(&self, shard: &Shard, call: CallId, status: Status) {
        self.settle(shard, call, || Outcome::Failed(Box::new(status)));
    }

    /// The peer is one of ours.
    pub(crate) fn opened(&self, shard: &Shard) {
        self.set_opening(shard, Opening::Open);
    }

    /// Who is to be told of one-way calls that failed.
    pub(crate) fn set_on_notice(&self, on_notice: OnNotice) {
        *self.on_notice.borrow_mut() = Some(on_notice);
    }

    /// A one-way call has failed.
    pub(crate) fn notice(&self, number: u64, status: &Status) {
        let on_notice = self.on_notice.borrow().clone();
        if let Some(on_notice) = on_notice {
            on_notice(number, status);
        }
    }

    /// Notes that a caller waits for the outcome of a call.
    #[inline]
    pub(crate) fn wait(&self, call: CallId, waker: &Waker) {
        let mut seats = self.seats.borrow_mut();
        let slot = call.slot() as usize;
        if slot >= seats.len() {
            let empty = || Seat { outcome: Outcome::Nobody, waker: None };
            grow(&mut seats, slot + 1, empty);
        }
        let seat = &mut seats[slot];
        seat.outcome = Outcome::Awaited;
        seat.keep(waker);
    }

    /// The outcome of a call, once it is there.
    // Inlined, as the outcome would be passed through memory otherwise.
    #[inline(always)]
    pub(crate) fn poll_outcome(
        &self,
        call: CallId,
        waker: &Waker,
    ) -> Poll<Result<(Lease, u16), Box<Status>>> {
        let mut seats = self.seats.borrow_mut();
        let seat = &mut seats[call.slot() as usize];
        if let Outcome::Awaited = seat.outcome {
            seat.keep(waker);
            return Poll::Pending;
        }
        Poll::Ready(match std::mem::replace(&mut seat.outcome, Outcome::Nobody) {
            Outcome::Reply(body, meta_len) => Ok((body, meta_len)),
            Outcome::Failed(status) => Err(status),
            Outcome::Nobody | Outcome::Awaited => Err(waited_twice()),
        })
    }

    /// How a call has ended, once it has: with a status, which is taken, or with a reply, which is
    /// left.
    pub(crate) fn poll_failure(&self, call: CallId, waker: &Waker) -> Poll<Option<Status>> {
        let mut seats = self.seats.borrow_mut();
        let seat = &mut seats[call.slot() as usize];
        match std::mem::replace(&mut seat.outcome, Outcome::Nobody) {
            Outcome::Awaited => {
                seat.outcome = Outcome::Awaited;
                seat.keep(waker);
                Poll::Pending
            }
            Outcome::Failed(status) => Poll::Ready(Some(*status)),
            reply => {
                seat.outcome = reply;
                Poll::Ready(None)
            }
        }
    }

    /// Nobody waits for a call any more.
    pub(crate) fn abandon(&self, shard: &Shard, call: CallId) {
        let mut seats = self.seats.borrow_mut();
        let seat = &mut seats[call.slot() as usize];
        let outcome = std::mem::replace(&mut seat.outcome, Outcome::Nobody);
        drop(seats);
        if matches!(outcome, Outcome::Awaited) {
            shard.call_ended();
        }
    }

    /// Notes that a caller waits for room, and gives its ticket: none where too many wait. One
    /// that waits already keeps its place.
    #[cold]
    pub(crate) fn wait_for_room(&self, ticket: Option<Ticket>, waker: &Waker) -> Option<Ticket> {
        let mut waiting = self.waiting.borrow_mut();
        let Some(ticket) = ticket else {
            if waiting.callers.len() >= CALLERS_WAITING_MAX {
                return None;
            }
            let ticket = waiting.next_ticket;
            waiting.next_ticket = Ticket(ticket.0.saturating_add(1));
            waiting.callers.push_back((ticket, waker.clone()));
            return Some(ticket);
        };
        match waiting.find(ticket) {
            Ok(at) => waiting.callers[at].1.clone_from(waker),
            Err(at) => waiting.callers.insert(at, (ticket, waker.clone())),
        }
        Some(ticket)
    }

    /// A caller that waited for room has made its call, or is gone. Whether it had been woken for
    /// room, so that what it leaves of that is the next one's.
    #[cold]
    pub(crate) fn end_wait(&self, ticket: Ticket) -> bool {
        let mut waiting = self.waiting.borrow_mut();
        match waiting.find(ticket) {
            Ok(at) => waiting.callers.remove(at).is_none(),
            Err(_) => true,
        }
    }

    /// Notes that a caller waits for room no longer than until this time, in microseconds.
    pub(crate) fn waits_until(&self, deadline_us: u64) {
        self.wait_ends_us.set(self.wait_ends_us.get().min(deadline_us));
    }

    /// When the first of them gives up, in microseconds.
    #[inline]
    pub(crate) fn wait_ends_us(&self) -> u64 {
        self.wait_ends_us.get()
    }

    /// Wakes everybody who waits for room, where the time of one is over. The others keep their
    /// places.
    pub(crate) fn end_waits(&self, shard: &Shard, now_us: u64) {
        if now_us < self.wait_ends_us.get() {
            return;
        }
        self.wait_ends_us.set(u64::MAX);
        self.fail_waiting(shard);
    }

    /// Whether somebody waits for room.
    #[inline]
    pub(crate) fn any_waits(&self) -> bool {
        !self.waiting.borrow().callers.is_empty()
    }

    /// Wakes the caller that has waited longest for room. One that leaves room, or is gone by
    /// then, wakes the next.
    #[cold]
    pub(crate) fn wake_next(&self, shard: &Shard) {
        let mut waiting = self.waiting.borrow_mut();
        let next = waiting.callers.pop_front();
        drop(waiting);
        if let Some((_, waker)) = next {
            shard.wake_task(&waker);
        }
    }

    /// Waits until the connection is open, or gives why it is not.
    pub(crate) fn poll_open(&self, waker: &Waker) -> Poll<Result<(), Failure>> {
        let mut opening = self.opening.borrow_mut();
        match &mut *opening {
            Opening::Waiting(waiting) => {
                *waiting = Some(waker.clone());
                Poll::Pending
            }
            Opening::Open => Poll::Ready(Ok(())),
            Opening::Failed(_) => {
                let closed = Failure::Closed(Status::new(Code::Unavailable, "not connected"));
                match std::mem::replace(&mut *opening, Opening::Failed(closed)) {
                    Opening::Failed(failure) => Poll::Ready(Err(failure)),
                    Opening::Waiting(_) | Opening::Open => Poll::Ready(Ok(())),
                }
            }
        }
    }

    /// The kernel could not connect.
    pub(crate) fn connect_failed(&self, shard: &Shard, error: io::Error) {
        self.set_opening(shard, Opening::Failed(Failure::Connect(error)));
    }

    /// The server broke the protocol, or the two sides do not fit.
    pub(crate) fn session_failed(&self, shard: &Shard, error: SessionError) {
        // The callers' arguments are not what is wrong.
        let status = match error {
            SessionError::NoHello | SessionError::FrameStalled | SessionError::PeerSilent => {
                Status::new(Code::Unavailable, error.to_string())
            }
            _ => Status::new(Code::Internal, format!("the server broke the protocol: {error}")),
        };
        if matches!(*self.opening.borrow(), Opening::Waiting(_)) {
            self.set_opening(shard, Opening::Failed(Failure::Session(error)));
        }
        self.fail_all(shard, &status);
    }

    /// The status of a call that is made when the connection is closed already.
    #[cold]
    pub(crate) fn closed(&self) -> Status {
        let text = match &*self.closed.borrow() {
            Some(why) if !why.message().is_empty() => {
                format!("the connection is closed: {}", why.message())
            }
            _ => "the connection is closed".to_owned(),
        };
        Status::new(Code::Unavailable, text).not_executed()
    }

    /// Wakes everybody who waits for room: there will be none.
    pub(crate) fn fail_waiting(&self, shard: &Shard) {
        let waiting = std::mem::take(&mut self.waiting.borrow_mut().callers);
        for (_, waker) in waiting {
            shard.wake_task(&waker);
        }
    }

    /// Fails every call in flight, and everybody who waits.
    pub(crate) fn fail_all(&self, shard: &Shard, status: &Status) {
        self.closed.borrow_mut().get_or_insert_with(|| status.clone());
        if matches!(*self.opening.borrow(), Opening::Waiting(_)) {
            self.set_opening(shard, Opening::Failed(Failure::Closed(status.clone())));
        }
        let slots = self.seats.borrow().len();
        for slot in 0..slots {
            let mut seats = self.seats.borrow_mut();
            let waker = seats[slot].waker.take();
            if let Outcome::Awaited = seats[slot].outcome {
                seats[slot].outcome = Outcome::Failed(Box::new(status.clone()));
                drop(seats);
                shard.call_ended();
                waker.iter().for_each(|waker| shard.wake_task(waker));
            }
        }
        self.fail_waiting(shard);
    }

    /// Leaves an outcome for its caller, and wakes it.
    // The outcome is made at its place: it would be passed through memory otherwise.
    #[inline(always)]
    fn settle(&self, shard: &Shard, call: CallId, outcome: impl FnOnce() -> Outcome) {
        let mut seats = self.seats.borrow_mut();
        let Some(seat) = seats.get_mut(call.slot() as usize) else {
            return;
        };
        if !matches!(seat.outcome, Outcome::Awaited) {
            return;
        }
        // What was there has nothing to drop, which the compiler does not see.
        std::mem::forget(std::mem::replace(&mut seat.outcome, outcome()));
        // Not woken in the table's presence: what a waker does is its own affair.
        let waker = seat.waker.take();
        drop(seats);
        shard.call_ended();
        waker.iter().for_each(|waker| shard.wake_task(waker));
        if let Some(seat) = self.seats.borrow_mut().get_mut(call.slot() as usize) {
            seat.waker = waker;
        }
    }

    fn set_opening(&self, shard: &Shard, opening: Opening) {
        if let Opening::Waiting(Some(waker)) = self.opening.replace(opening) {
            shard.wake_task(&waker);
        }
    }
}

impl Seat {
    /// Keeps who waits. Clones only where it is another than before.
    #[inline]
    fn keep(&mut self, waker: &Waker) {
        match &mut self.waker {
            Some(kept) => kept.clone_from(waker),
            None => self.waker = Some(waker.clone()),
        }
    }
}

impl Default for Waiting {
    fn default() -> Self {
        Self { callers: VecDeque::new(), next_ticket: Ticket(NonZeroU64::MIN) }
    }
}

impl Waiting {
    /// Where a caller is, or would be.
    fn find(&self, ticket: Ticket) -> Result<usize, usize> {
        self.callers.binary_search_by_key(&ticket, |(ticket, _)| *ticket)
    }
}

#[cold]
fn waited_twice() -> Box<Status> {
    Box::new(Status::new(Code::Internal, "a call was waited for twice"))
}

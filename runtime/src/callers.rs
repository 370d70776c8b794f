//! The calls made on a connection: who waits for which outcome.

use std::{
    cell::{Cell, RefCell, RefMut},
    collections::VecDeque,
    io,
    num::NonZeroU64,
    rc::Rc,
    task::{Poll, Waker},
};

use ringcall_codec::{CallId, Code, SessionError, Status};

use crate::{
    config::CALLERS_WAITING_MAX, handle::PendingCall, ring::Lease, shard::Shard, slab::grow,
};

/// Who waits for the outcomes of the calls made on a connection.
pub(crate) struct Callers {
    /// Who waits for which outcome, by slot of the call.
    seats: RefCell<Box<[Seat]>>,
    rest: RefCell<Option<Box<Rest>>>,
    opening: Cell<Opening>,
}

/// What most connections have none of, most of the time.
#[derive(Default)]
struct Rest {
    /// Callers that wait for a free slot or for room in the send buffer.
    waiting: Waiting,
    /// Who waits for the connection to open.
    opens: Option<Waker>,
    /// Why it was not opened.
    failure: Option<Failure>,
    /// Why the connection is closed: what the first of its calls to fail so was told.
    closed: Option<Status>,
    /// Told of one-way calls that failed.
    on_notice: Option<OnNotice>,
}

/// Is told of a one-way call that failed: its number, and why.
pub(crate) type OnNotice = Rc<dyn Fn(u64, &Status)>;

/// Callers that wait, longest first: by their tickets, which count up.
struct Waiting {
    callers: VecDeque<(Ticket, Waker)>,
    next_ticket: Ticket,
    /// The first deadline of a caller that waits, in microseconds.
    ends_us: u64,
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
    /// As that, by somebody on another thread.
    Elsewhere(PendingCall),
    /// The body, and the length of the metadata before it in units of 16 bytes.
    Reply(Lease, u16),
    Failed(Box<Status>),
}

const _: () = assert!(size_of::<Outcome>() <= 24);

/// How far the opening of the connection is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Opening {
    /// Neither open nor failed; who connects may wait.
    Waiting,
    Open,
    Failed,
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
            rest: RefCell::default(),
            opening: Cell::new(Opening::Waiting),
        }
    }

    /// A call has its reply. True where its caller is elsewhere and has taken it, so that the call
    /// is to be released.
    #[inline]
    pub(crate) fn replied(&self, shard: &Shard, call: CallId, body: Lease, meta_len: u16) -> bool {
        self.settle(shard, call, || Outcome::Reply(body, meta_len))
    }

    /// A call has ended otherwise. As [`replied`](Self::replied).
    pub(crate) fn failed(&self, shard: &Shard, call: CallId, status: Status) -> bool {
        self.settle(shard, call, || Outcome::Failed(Box::new(status)))
    }

    /// The peer is one of ours.
    pub(crate) fn opened(&self, shard: &Shard) {
        self.set_opening(shard, Opening::Open, None);
    }

    /// Who is to be told of one-way calls that failed.
    pub(crate) fn set_on_notice(&self, on_notice: OnNotice) {
        self.rest().on_notice = Some(on_notice);
    }

    /// A one-way call has failed.
    pub(crate) fn notice(&self, number: u64, status: &Status) {
        let on_notice = self.rest.borrow().as_ref().and_then(|rest| rest.on_notice.clone());
        if let Some(on_notice) = on_notice {
            on_notice(number, status);
        }
    }

    /// Notes that a caller waits for the outcome of a call.
    #[inline]
    pub(crate) fn wait(&self, call: CallId, waker: &Waker) {
        let mut seats = self.seats.borrow_mut();
        let seat = seat_of(&mut seats, call);
        seat.outcome = Outcome::Awaited;
        seat.keep(waker);
    }

    /// Notes that somebody on another thread waits for the outcome of a call.
    pub(crate) fn wait_elsewhere(&self, call: CallId, pending: PendingCall) {
        let mut seats = self.seats.borrow_mut();
        seat_of(&mut seats, call).outcome = Outcome::Elsewhere(pending);
    }

    /// Whether the outcome of a call is waited for on another thread, by somebody who fits.
    pub(crate) fn is_awaited_elsewhere(
        &self,
        call: CallId,
        fits: impl FnOnce(&PendingCall) -> bool,
    ) -> bool {
        let seats = self.seats.borrow();
        let seat = seats.get(call.slot() as usize);
        seat.is_some_and(|seat| match &seat.outcome {
            Outcome::Elsewhere(pending) => fits(pending),
            _ => false,
        })
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
        let Some(seat) = seats.get_mut(call.slot() as usize) else {
            return Poll::Ready(Err(waited_twice()));
        };
        if let Outcome::Awaited = seat.outcome {
            seat.keep(waker);
            return Poll::Pending;
        }
        Poll::Ready(match std::mem::replace(&mut seat.outcome, Outcome::Nobody) {
            Outcome::Reply(body, meta_len) => Ok((body, meta_len)),
            Outcome::Failed(status) => Err(status),
            Outcome::Nobody | Outcome::Awaited | Outcome::Elsewhere(_) => Err(waited_twice()),
        })
    }

    /// How a call has ended, once it has: with a status, which is taken, or with a reply, which is
    /// left.
    pub(crate) fn poll_failure(&self, call: CallId, waker: &Waker) -> Poll<Option<Status>> {
        let mut seats = self.seats.borrow_mut();
        let Some(seat) = seats.get_mut(call.slot() as usize) else {
            return Poll::Ready(Some(*waited_twice()));
        };
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
        let Some(seat) = seats.get_mut(call.slot() as usize) else { return };
        let outcome = std::mem::replace(&mut seat.outcome, Outcome::Nobody);
        drop(seats);
        if matches!(outcome, Outcome::Awaited | Outcome::Elsewhere(_)) {
            shard.call_ended();
        }
    }

    /// Notes that a caller waits for room, and gives its ticket: none where too many wait. One
    /// that waits already keeps its place.
    #[cold]
    pub(crate) fn wait_for_room(&self, ticket: Option<Ticket>, waker: &Waker) -> Option<Ticket> {
        let mut rest = self.rest();
        let waiting = &mut rest.waiting;
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
        let mut rest = self.rest();
        let waiting = &mut rest.waiting;
        match waiting.find(ticket) {
            Ok(at) => waiting.callers.remove(at).is_none(),
            Err(_) => true,
        }
    }

    /// Notes that a caller waits for room no longer than until this time, in microseconds.
    pub(crate) fn waits_until(&self, deadline_us: u64) {
        let ends_us = &mut self.rest().waiting.ends_us;
        *ends_us = deadline_us.min(*ends_us);
    }

    /// When the first of them gives up, in microseconds.
    #[inline]
    pub(crate) fn wait_ends_us(&self) -> u64 {
        self.rest.borrow().as_ref().map_or(u64::MAX, |rest| rest.waiting.ends_us)
    }

    /// Wakes everybody who waits for room, where the time of one is over. The others keep their
    /// places.
    pub(crate) fn end_waits(&self, shard: &Shard, now_us: u64) {
        if now_us < self.wait_ends_us() {
            return;
        }
        self.rest().waiting.ends_us = u64::MAX;
        self.fail_waiting(shard);
    }

    /// Whether somebody waits for room.
    #[inline]
    pub(crate) fn any_waits(&self) -> bool {
        self.rest.borrow().as_ref().is_some_and(|rest| !rest.waiting.callers.is_empty())
    }

    /// Wakes the caller that has waited longest for room. One that leaves room, or is gone by
    /// then, wakes the next.
    #[cold]
    pub(crate) fn wake_next(&self, shard: &Shard) {
        let next = self.rest().waiting.callers.pop_front();
        if let Some((_, waker)) = next {
            shard.wake_task(&waker);
        }
    }

    /// Waits until the connection is open, or gives why it is not.
    pub(crate) fn poll_open(&self, waker: &Waker) -> Poll<Result<(), Failure>> {
        match self.opening.get() {
            Opening::Waiting => {
                self.rest().opens = Some(waker.clone());
                Poll::Pending
            }
            Opening::Open => Poll::Ready(Ok(())),
            Opening::Failed => {
                let closed = || Failure::Closed(Status::new(Code::Unavailable, "not connected"));
                Poll::Ready(Err(self.rest().failure.take().unwrap_or_else(closed)))
            }
        }
    }

    /// The kernel could not connect.
    pub(crate) fn connect_failed(&self, shard: &Shard, error: io::Error) {
        self.set_opening(shard, Opening::Failed, Some(Failure::Connect(error)));
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
        if self.opening.get() == Opening::Waiting {
            self.set_opening(shard, Opening::Failed, Some(Failure::Session(error)));
        }
        self.fail_all(shard, &status);
    }

    /// The status of a call that is made when the connection is closed already.
    #[cold]
    pub(crate) fn closed(&self) -> Status {
        let rest = self.rest.borrow();
        let text = match rest.as_ref().and_then(|rest| rest.closed.as_ref()) {
            Some(why) if !why.message().is_empty() => {
                format!("the connection is closed: {}", why.message())
            }
            _ => "the connection is closed".to_owned(),
        };
        Status::new(Code::Unavailable, text).not_executed()
    }

    /// Wakes everybody who waits for room: there will be none.
    pub(crate) fn fail_waiting(&self, shard: &Shard) {
        let waiting = match &mut *self.rest.borrow_mut() {
            Some(rest) => std::mem::take(&mut rest.waiting.callers),
            None => return,
        };
        for (_, waker) in waiting {
            shard.wake_task(&waker);
        }
    }

    /// Fails every call in flight, and everybody who waits.
    pub(crate) fn fail_all(&self, shard: &Shard, status: &Status) {
        self.rest().closed.get_or_insert_with(|| status.clone());
        if self.opening.get() == Opening::Waiting {
            self.set_opening(shard, Opening::Failed, Some(Failure::Closed(status.clone())));
        }
        let slots = self.seats.borrow().len();
        for slot in 0..slots {
            let mut seats = self.seats.borrow_mut();
            if let Outcome::Elsewhere(_) = seats[slot].outcome {
                settle_elsewhere(seats, shard, slot, Outcome::Failed(Box::new(status.clone())));
                continue;
            }
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
    fn settle(&self, shard: &Shard, call: CallId, outcome: impl FnOnce() -> Outcome) -> bool {
        let mut seats = self.seats.borrow_mut();
        let Some(seat) = seats.get_mut(call.slot() as usize) else {
            return false;
        };
        if !matches!(seat.outcome, Outcome::Awaited) {
            return settle_elsewhere(seats, shard, call.slot() as usize, outcome());
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
        false
    }

    fn set_opening(&self, shard: &Shard, opening: Opening, failure: Option<Failure>) {
        self.opening.set(opening);
        let mut rest = self.rest.borrow_mut();
        let waker = rest.as_mut().and_then(|rest| rest.opens.take());
        if failure.is_some() {
            rest.get_or_insert_default().failure = failure;
        }
        drop(rest);
        self.shrink_to_fit();
        waker.iter().for_each(|waker| shard.wake_task(waker));
    }

    /// Gives memory back where there are neither calls nor callers.
    pub(crate) fn shrink_to_fit(&self) {
        let mut seats = self.seats.borrow_mut();
        let is_empty = seats.iter().all(|seat| matches!(seat.outcome, Outcome::Nobody));
        let emptied = if is_empty { std::mem::take(&mut *seats) } else { Box::default() };
        drop(seats);
        // Not dropped in the tables' presence: what a waker does is its own affair.
        drop(emptied);
        let rest = self.rest.borrow_mut().take_if(|rest| rest.is_empty());
        drop(rest);
    }

    fn rest(&self) -> RefMut<'_, Rest> {
        RefMut::map(self.rest.borrow_mut(), |rest| &mut **rest.get_or_insert_default())
    }
}

impl Rest {
    fn is_empty(&self) -> bool {
        // Who has a ticket may come back with it, so that none may be given out twice.
        let gave_tickets = self.waiting.next_ticket != Ticket::FIRST;
        let is_told = self.closed.is_some() || self.on_notice.is_some();
        !gave_tickets && !is_told && self.opens.is_none() && self.failure.is_none()
    }
}

impl Ticket {
    const FIRST: Self = Self(NonZeroU64::MIN);
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
        Self { callers: VecDeque::new(), next_ticket: Ticket::FIRST, ends_us: u64::MAX }
    }
}

impl Waiting {
    /// Where a caller is, or would be.
    fn find(&self, ticket: Ticket) -> Result<usize, usize> {
        self.callers.binary_search_by_key(&ticket, |(ticket, _)| *ticket)
    }
}

/// The place of a call in the table, which is as long as it must be.
#[inline]
fn seat_of(seats: &mut Box<[Seat]>, call: CallId) -> &mut Seat {
    let slot = call.slot() as usize;
    if slot >= seats.len() {
        let empty = || Seat { outcome: Outcome::Nobody, waker: None };
        grow(seats, slot + 1, empty);
    }
    &mut seats[slot]
}

/// Gives an outcome to a caller on another thread. False where there is none, as it gave up.
#[inline(never)]
fn settle_elsewhere(
    mut seats: RefMut<'_, Box<[Seat]>>,
    shard: &Shard,
    slot: usize,
    outcome: Outcome,
) -> bool {
    let seat = &mut seats[slot].outcome;
    if !matches!(seat, Outcome::Elsewhere(_)) {
        return false;
    }
    let Outcome::Elsewhere(pending) = std::mem::replace(seat, Outcome::Nobody) else {
        return false;
    };
    drop(seats);
    shard.call_ended();
    match outcome {
        Outcome::Reply(body, meta_len) => pending.reply(shard, body, meta_len),
        Outcome::Failed(status) => pending.fail(*status),
        Outcome::Nobody | Outcome::Awaited | Outcome::Elsewhere(_) => {}
    }
    true
}

#[cold]
fn waited_twice() -> Box<Status> {
    Box::new(Status::new(Code::Internal, "a call was waited for twice"))
}

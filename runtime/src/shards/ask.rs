//! An ask, as the one who makes it has it: a future of its outcome.

use std::{
    future::Future,
    pin::Pin,
    rc::{Rc, Weak},
    sync::{Arc, atomic::AtomicBool},
    task::{Context as TaskContext, Poll},
    time::Duration,
};

use crate::{
    config::us64,
    context::Context,
    mail::{Errand, Refused},
    shard::Shard,
    shards::{AskError, asked::ReplyTo, seats::Seat},
};

/// No deadline.
pub(crate) const NEVER: u64 = u64::MAX;

/// Something asked of another shard: a future of its outcome. It has exactly one.
///
/// Nothing is sent before it is first polled. Dropping it gives it up: what has not begun on the
/// other shard does not begin, and what waits there is dropped at its next await.
#[must_use = "nothing is asked before it is awaited"]
pub struct Ask<R> {
    state: AskState<R>,
    within_us: u64,
    timeout_us: u64,
}

enum AskState<R> {
    /// It cannot be asked.
    Refused(AskError),
    New(Pending<R>, Errand),
    InFlight(Pending<R>),
    Done,
}

/// What is kept of an ask until its outcome is taken.
struct Pending<R> {
    here: Rc<Shard>,
    /// The shard that is asked.
    asked: u16,
    seat: Rc<Seat<R>>,
    is_given_up: Arc<AtomicBool>,
    /// Whether it may wait on the other shard, and be woken there to be dropped.
    waits: bool,
    /// When it ends at the latest, in the time of this shard.
    due_us: u64,
}

/// The same asked of every shard: a future of all outcomes, by the shards' numbers.
///
/// Each shard's is there or failed by itself. Nothing is sent before it is first polled; dropping
/// it gives up what is not answered.
#[must_use = "nothing is asked before it is awaited"]
pub struct Gather<R> {
    asks: Vec<Ask<R>>,
    outcomes: Vec<Option<Result<R, AskError>>>,
}

impl<R: Send + 'static> Ask<R> {
    /// An ask that is not made yet. `errand` makes what runs on the other shard of where it is to
    /// leave its answer.
    pub(crate) fn new(
        here: &Weak<Shard>,
        asked: u16,
        within_us: u64,
        waits: bool,
        errand: impl FnOnce(ReplyTo<R>) -> Errand,
    ) -> Self {
        let state = match Self::prepare(here, asked, waits, errand) {
            Ok((pending, errand)) => AskState::New(pending, errand),
            Err(error) => AskState::Refused(error),
        };
        Self { state, within_us, timeout_us: NEVER }
    }

    fn prepare(
        here: &Weak<Shard>,
        asked: u16,
        waits: bool,
        errand: impl FnOnce(ReplyTo<R>) -> Errand,
    ) -> Result<(Pending<R>, Errand), AskError> {
        let here = here.upgrade().filter(|here| here.asks.state.is_served());
        let here = here.ok_or(AskError::NoServer)?;
        let count = here.place.count;
        if asked >= count {
            return Err(AskError::NoSuchShard { index: asked, count });
        }
        let seat = here.asks.seats.take::<R>(asked)?;
        let is_given_up = Arc::<AtomicBool>::default();
        let home = Arc::clone(&here.remote.mail);
        let from = (here.place.index, seat.key);
        let errand = errand(ReplyTo::new(home, from, asked, Arc::clone(&is_given_up)));
        Ok((Pending { here, asked, seat, is_given_up, waits, due_us: NEVER }, errand))
    }

    /// Gives it so much time from when it is first polled; without an outcome by then it fails with
    /// [`AskError::TimedOut`].
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout_us = us64(timeout);
        self
    }

    /// Ends it no later than this call. Asks of [`Context::shards`] do so anyway.
    pub fn within(mut self, cx: &Context) -> Self {
        self.within_us = cx.deadline_us().unwrap_or(NEVER);
        self
    }

    /// The time by which it ends, in the time of its shard.
    fn due_us(&self, here: &Shard) -> u64 {
        if self.timeout_us == NEVER {
            return self.within_us;
        }
        self.within_us.min(here.fresh_now_us().saturating_add(self.timeout_us))
    }
}

impl<R: Send + 'static> Future for Ask<R> {
    type Output = Result<R, AskError>;

    fn poll(self: Pin<&mut Self>, cx: &mut TaskContext<'_>) -> Poll<Self::Output> {
        let this = self.get_mut();
        match std::mem::replace(&mut this.state, AskState::Done) {
            AskState::Refused(error) => Poll::Ready(Err(error)),
            AskState::New(mut pending, errand) => {
                pending.due_us = this.due_us(&pending.here);
                if let Err(error) = pending.send(errand) {
                    return Poll::Ready(Err(error));
                }
                pending.seat.wait(cx.waker());
                this.state = AskState::InFlight(pending);
                Poll::Pending
            }
            AskState::InFlight(pending) => {
                if let Some(outcome) = pending.seat.take_outcome() {
                    pending.clear_timer();
                    return Poll::Ready(outcome);
                }
                if pending.is_over() {
                    pending.give_up();
                    return Poll::Ready(Err(AskError::TimedOut));
                }
                pending.seat.wait(cx.waker());
                this.state = AskState::InFlight(pending);
                Poll::Pending
            }
            // It has had its outcome.
            AskState::Done => Poll::Pending,
        }
    }
}

impl<R> Drop for Ask<R> {
    fn drop(&mut self) {
        match &self.state {
            AskState::InFlight(pending) => pending.give_up(),
            // The errand is dropped, which frees the seat.
            AskState::Refused(_) | AskState::New(..) | AskState::Done => {}
        }
    }
}

impl<R> Pending<R> {
    /// Leaves the errand with the other shard. Where that fails it is dropped, and with it the way
    /// back, which frees the seat.
    fn send(&self, errand: Errand) -> Result<(), AskError> {
        if self.is_over() {
            return Err(AskError::TimedOut);
        }
        let mailbox = self.here.mailboxes.of(self.asked).ok_or(AskError::NoServer)?;
        let posted = mailbox.post(self.here.place.index.into(), errand);
        posted.map_err(|refused| {
            let (error, errand) = match refused {
                Refused::Full(errand) => (AskError::Busy, errand),
                Refused::Closed(errand) => (AskError::Stopped, errand),
            };
            drop(errand);
            error
        })?;
        self.here.counters.asks_made.add(1);
        if self.due_us != NEVER {
            self.here.set_ask_timer(self.seat.key, self.due_us);
        }
        Ok(())
    }

    fn is_over(&self) -> bool {
        self.due_us != NEVER && self.here.fresh_now_us() >= self.due_us
    }

    fn clear_timer(&self) {
        if self.due_us != NEVER {
            self.here.clear_ask_timer(self.seat.key, self.due_us);
        }
    }

    /// Nobody waits for the outcome any more.
    fn give_up(&self) {
        self.clear_timer();
        self.is_given_up.store(true, std::sync::atomic::Ordering::Relaxed);
        if self.waits
            && let Some(mailbox) = self.here.mailboxes.of(self.asked)
        {
            let from = (self.here.place.index, self.seat.key);
            // One for each seat at most, which is taken until the other shard has answered.
            mailbox.answer(Box::new(move |shard| shard.asks.running.wake(shard, from)));
        }
    }
}

impl<R: Send + 'static> Gather<R> {
    pub(crate) fn new(asks: impl Iterator<Item = Ask<R>>) -> Self {
        let asks: Vec<_> = asks.collect();
        let outcomes = asks.iter().map(|_| None).collect();
        Self { asks, outcomes }
    }

    /// As [`Ask::timeout`], for each shard.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.asks.iter_mut().for_each(|ask| ask.timeout_us = us64(timeout));
        self
    }

    /// As [`Ask::within`], for each shard.
    pub fn within(mut self, cx: &Context) -> Self {
        let within_us = cx.deadline_us().unwrap_or(NEVER);
        self.asks.iter_mut().for_each(|ask| ask.within_us = within_us);
        self
    }
}

// Results are not pinned: an ask is a future by itself, and holds none.
impl<R> Unpin for Ask<R> {}
impl<R> Unpin for Gather<R> {}

impl<R: Send + 'static> Future for Gather<R> {
    type Output = Vec<Result<R, AskError>>;

    fn poll(self: Pin<&mut Self>, cx: &mut TaskContext<'_>) -> Poll<Self::Output> {
        let this = self.get_mut();
        let mut all_are_there = true;
        for (ask, outcome) in this.asks.iter_mut().zip(&mut this.outcomes) {
            if outcome.is_none() {
                match Pin::new(ask).poll(cx) {
                    Poll::Ready(ready) => *outcome = Some(ready),
                    Poll::Pending => all_are_there = false,
                }
            }
        }
        if !all_are_there {
            return Poll::Pending;
        }
        Poll::Ready(this.outcomes.iter_mut().filter_map(Option::take).collect())
    }
}

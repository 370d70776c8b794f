//! Who waits on this shard for another one: a seat for each ask, until its answer has come.
//!
//! A seat stays taken after its ask was given up, until the other shard has said that it is done
//! with it. So what can be on the way back to a shard is bounded by what it may ask for.

use std::{
    any::Any,
    cell::{Cell, RefCell},
    rc::Rc,
    task::Waker,
};

use crate::{
    config::ASKS_IN_FLIGHT_MAX,
    shard::Shard,
    shards::AskError,
    slab::{Slab, grow},
};

/// The seats of a shard.
#[derive(Default)]
pub(crate) struct Seats {
    table: RefCell<Slab<Rc<dyn Waits>>>,
    /// Seats taken, by the shard that was asked.
    in_flight: RefCell<Box<[u32]>>,
    is_closed: Cell<bool>,
}

/// A seat, for a result of one type.
pub(crate) struct Seat<R> {
    pub(crate) key: u64,
    outcome: RefCell<Option<Result<R, AskError>>>,
    waker: RefCell<Option<Waker>>,
}

/// A seat, whatever the result.
trait Waits: Any {
    /// Wakes who waits, to look at the clock.
    fn wake(&self, shard: &Shard);

    /// Ends the ask.
    fn fail(&self, shard: &Shard, error: AskError);
}

impl Seats {
    /// Takes a seat for what is asked of a shard.
    pub(crate) fn take<R: 'static>(&self, asked: u16) -> Result<Rc<Seat<R>>, AskError> {
        if self.is_closed.get() {
            return Err(AskError::Stopped);
        }
        let mut in_flight = self.in_flight.borrow_mut();
        grow(&mut in_flight, usize::from(asked) + 1, || 0);
        let in_flight = &mut in_flight[usize::from(asked)];
        if *in_flight >= ASKS_IN_FLIGHT_MAX {
            return Err(AskError::Busy);
        }
        *in_flight += 1;
        let mut seat = None;
        self.table.borrow_mut().insert_with(|key| {
            let (outcome, waker) = (RefCell::new(None), RefCell::new(None));
            Rc::clone(seat.insert(Rc::new(Seat { key, outcome, waker }))) as Rc<dyn Waits>
        });
        // It was made just now.
        seat.ok_or(AskError::Busy)
    }

    /// The answer of a shard has come: the seat is free.
    pub(crate) fn answered<R: 'static>(
        &self,
        shard: &Shard,
        (asked, key): (u16, u64),
        outcome: Result<R, AskError>,
    ) {
        let seat = self.table.borrow_mut().remove(key);
        let Some(seat) = seat else { return };
        if let Some(in_flight) = self.in_flight.borrow_mut().get_mut(usize::from(asked)) {
            *in_flight -= 1;
        }
        let seat: Rc<dyn Any> = seat;
        // The key was that of a seat for this type, and a later seat has another key.
        if let Ok(seat) = seat.downcast::<Seat<R>>() {
            seat.settle(shard, outcome);
        }
    }

    /// The time of an ask may be over.
    pub(crate) fn wake(&self, shard: &Shard, key: u64) {
        let seat = self.table.borrow().get(key).cloned();
        if let Some(seat) = seat {
            seat.wake(shard);
        }
    }

    /// No answers come any more.
    pub(crate) fn close(&self, shard: &Shard) {
        self.is_closed.set(true);
        let seats = self.table.take();
        seats.values().iter().for_each(|seat| seat.fail(shard, AskError::Stopped));
    }
}

impl<R> Seat<R> {
    /// The outcome, where it is there.
    pub(crate) fn take_outcome(&self) -> Option<Result<R, AskError>> {
        self.outcome.take()
    }

    /// Leaves the waker of who waits.
    pub(crate) fn wait(&self, waker: &Waker) {
        match &mut *self.waker.borrow_mut() {
            Some(kept) => kept.clone_from(waker),
            none => *none = Some(waker.clone()),
        }
    }

    fn settle(&self, shard: &Shard, outcome: Result<R, AskError>) {
        // What was there before, and a user's result in it, is dropped when nothing is borrowed.
        let before = self.outcome.replace(Some(outcome));
        drop(before);
        self.wake_waiting(shard);
    }

    fn wake_waiting(&self, shard: &Shard) {
        let waker = self.waker.take();
        waker.iter().for_each(|waker| shard.wake_task(waker));
    }
}

impl<R: 'static> Waits for Seat<R> {
    fn wake(&self, shard: &Shard) {
        self.wake_waiting(shard);
    }

    fn fail(&self, shard: &Shard, error: AskError) {
        self.settle(shard, Err(error));
    }
}

//! Handlers that wait, by the slot of their call, so that one that nobody waits for can be told.
//!
//! Beside the path of a call: a handler that is done at once is never entered here.

use std::{
    cell::{OnceCell, RefCell},
    rc::Rc,
    task::{Poll, Waker},
};

use ringcall_codec::CallId;

use crate::{
    connection::{Connection, State},
    shard::Shard,
    slab::grow,
};

/// The waiting handlers of a connection. Their table is made for the first of them.
#[derive(Default)]
pub(crate) struct Seats(OnceCell<Box<Table>>);

/// Handlers by the slots of their calls.
type Table = RefCell<Box<[Handler]>>;

/// A waiting handler, or none.
#[derive(Default)]
struct Handler {
    generation: u32,
    must_stop: bool,
    waker: Option<Waker>,
}

/// The entry of a waiting handler; it is taken out when this drops.
pub(crate) struct Seat {
    connection: Rc<Connection>,
    call: CallId,
}

impl Seats {
    /// Tells the handler of a call to stop, if it waits.
    pub(crate) fn stop(&self, shard: &Shard, call: CallId) {
        let Some(seats) = self.0.get() else { return };
        let mut seats = seats.borrow_mut();
        let waker = match seats.get_mut(call.slot() as usize) {
            Some(handler) if handler.generation == call.generation() => handler.stop(),
            _ => None,
        };
        drop(seats);
        waker.iter().for_each(|waker| shard.wake_task(waker));
    }

    /// Tells every waiting handler to stop.
    pub(crate) fn stop_all(&self, shard: &Shard) {
        let Some(seats) = self.0.get() else { return };
        let wakers: Vec<_> = seats.borrow_mut().iter_mut().filter_map(Handler::stop).collect();
        wakers.iter().for_each(|waker| shard.wake_task(waker));
    }
}

impl Seats {
    /// Gives memory back where no handler waits.
    pub(crate) fn shrink_to_fit(&self) {
        let Some(seats) = self.0.get() else { return };
        let mut seats = seats.borrow_mut();
        if seats.iter().all(|handler| handler.generation == 0) {
            *seats = Box::default();
        }
    }
}

impl Handler {
    fn stop(&mut self) -> Option<Waker> {
        if self.generation == 0 {
            return None;
        }
        self.must_stop = true;
        self.waker.take()
    }
}

impl Seat {
    /// Enters the handler of a call, which has begun to wait.
    pub(crate) fn new(connection: &Rc<Connection>, call: CallId) -> Self {
        let mut seats = connection.seats.0.get_or_init(Box::default).borrow_mut();
        let slot = call.slot() as usize;
        grow(&mut seats, slot + 1, Handler::default);
        seats[slot] = Handler { generation: call.generation(), ..Handler::default() };
        Self { connection: Rc::clone(connection), call }
    }

    /// Ready once the handler is to stop.
    pub(crate) fn poll_stop(&self, waker: &Waker) -> Poll<()> {
        if self.connection.state() == State::Closed {
            return Poll::Ready(());
        }
        let Some(seats) = self.connection.seats.0.get() else { return Poll::Pending };
        let mut seats = seats.borrow_mut();
        match seats.get_mut(self.call.slot() as usize) {
            Some(handler) if handler.generation == self.call.generation() => {
                if handler.must_stop {
                    return Poll::Ready(());
                }
                match &mut handler.waker {
                    Some(kept) => kept.clone_from(waker),
                    None => handler.waker = Some(waker.clone()),
                }
                Poll::Pending
            }
            _ => Poll::Pending,
        }
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let Some(seats) = self.connection.seats.0.get() else { return };
        let mut seats = seats.borrow_mut();
        if let Some(handler) = seats.get_mut(self.call.slot() as usize)
            && handler.generation == self.call.generation()
        {
            *handler = Handler::default();
        }
    }
}

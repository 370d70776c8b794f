//! Where calls that are due meet callers that are free.
//!
//! It is made for any executor of one thread. Tasks that make one call at a time, the callers, come
//! here for the next; a task that never sleeps, the pacer, looks at the clock again and again and
//! gives each call that is due to a caller that is free, of the next connection in turn that has
//! one. Where there is none, as the most calls that may be in flight are, calls wait in the order in
//! which they were due; the time that they wait counts as theirs, and not as the generator's
//! lateness.

use std::{
    cell::{Cell, RefCell},
    future::poll_fn,
    rc::Rc,
    task::{Poll, Waker},
};

use super::{Clock, Schedule, Unanswered};

/// Calls that are given out before others run: they are sent together.
const AT_ONCE_MAX: u32 = 512;

/// What stands for a caller without a call: no call is due then.
const NO_CALL: u64 = u64::MAX;

/// What is due on a thread, and who is free to make it.
pub struct Desk {
    clock: Clock,
    schedule: RefCell<Schedule>,
    /// When there was last no caller free: whatever was due by then waited for one.
    full_ns: Cell<u64>,
    /// When the call of each caller was due; [`NO_CALL`] where it has none. In one place, as all of
    /// it is looked through at every tick.
    in_flight: Box<[Cell<u64>]>,
    /// Of each connection, the callers that are free, the one that was last at the end: what it
    /// needs is in the cache.
    free: Box<[RefCell<Vec<Rc<Seat>>>]>,
    /// The connection whose turn it was.
    turn: Cell<usize>,
    is_closed: Cell<bool>,
}

/// A caller's end of the desk.
pub struct Caller {
    desk: Rc<Desk>,
    seat: Rc<Seat>,
}

/// A call that is to be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Job {
    /// When it was due, by the generator's clock.
    pub due_ns: u64,
    /// When a caller became free that it had waited for; zero where it had not.
    pub free_ns: u64,
    /// Length of its body in bytes; none leaves it to the workload.
    pub size: Option<u32>,
}

/// What the desk knows of a caller.
struct Seat {
    connection: usize,
    /// Its number among all callers.
    number: usize,
    /// The call that it was given.
    job: Cell<Option<Job>>,
    waker: RefCell<Option<Waker>>,
    /// When its last call was answered.
    freed_ns: Cell<u64>,
}

impl Desk {
    /// A desk with so many callers for each connection, all of them free. They come in the order of
    /// their connections.
    pub fn new(schedule: Schedule, connections: usize, depth: usize) -> (Rc<Self>, Vec<Caller>) {
        let seat = |number| {
            let (job, waker, freed_ns) = (Cell::default(), RefCell::default(), Cell::default());
            Rc::new(Seat { connection: number / depth, number, job, waker, freed_ns })
        };
        let seats: Vec<Rc<Seat>> = (0..connections * depth).map(seat).collect();
        let free = seats.chunks(depth.max(1)).map(|seats| RefCell::new(seats.to_vec()));
        let desk = Rc::new(Self {
            clock: Clock::new(),
            schedule: RefCell::new(schedule),
            full_ns: Cell::new(0),
            in_flight: vec![Cell::new(NO_CALL); seats.len()].into(),
            free: free.collect(),
            turn: Cell::new(0),
            is_closed: Cell::new(false),
        });
        let callers = seats.into_iter().map(|seat| Caller { desk: Rc::clone(&desk), seat });
        let callers = callers.collect();
        (desk, callers)
    }

    /// Gives the calls that are due to callers that are free. The pacer does so again and again, and
    /// lets the other tasks run in between.
    pub fn give_out(&self) {
        let mut schedule = self.schedule.borrow_mut();
        for _ in 0..AT_ONCE_MAX {
            let due_ns = schedule.due_ns();
            if due_ns > self.clock.now_ns() {
                return;
            }
            let Some(seat) = self.next_free() else {
                return self.full_ns.set(self.clock.now_ns());
            };
            let free_ns = if due_ns <= self.full_ns.get() { seat.freed_ns.get() } else { 0 };
            self.in_flight[seat.number].set(due_ns);
            seat.job.set(Some(Job { due_ns, free_ns, size: schedule.size() }));
            seat.wake();
            schedule.advance();
        }
    }

    /// A caller that is free, of the next connection that has one.
    fn next_free(&self) -> Option<Rc<Seat>> {
        for _ in 0..self.free.len() {
            let next = self.turn.get() + 1;
            self.turn.set(if next >= self.free.len() { 0 } else { next });
            if let Some(seat) = self.free[self.turn.get()].borrow_mut().pop() {
                return Some(seat);
            }
        }
        None
    }

    /// Tells every caller that is free, or will be, that no call is to be made any more.
    pub fn close(&self) {
        self.is_closed.set(true);
        for connection in &self.free {
            let seats = connection.take();
            seats.iter().for_each(|seat| seat.wake());
        }
    }

    /// The calls without an answer, as of now.
    pub fn unanswered(&self) -> Unanswered {
        let made = self.in_flight.iter().map(Cell::get).filter(|due_ns| *due_ns != NO_CALL);
        let rest = Some(self.schedule.borrow().clone());
        Unanswered { made: made.collect(), rest, full_ns: self.full_ns.get() }
    }
}

impl Caller {
    /// The connection that it makes calls on, counted from zero.
    pub fn connection(&self) -> usize {
        self.seat.connection
    }

    /// Waits for the next call; none once the desk is closed. A call that was given is not lost where
    /// this is dropped, and comes when it is asked for again.
    pub async fn next(&self) -> Option<Job> {
        let seat = &*self.seat;
        poll_fn(|cx| {
            if let Some(job) = seat.job.take() {
                return Poll::Ready(Some(job));
            }
            if self.desk.is_closed.get() {
                return Poll::Ready(None);
            }
            let mut waker = seat.waker.borrow_mut();
            match waker.as_mut() {
                Some(known) if known.will_wake(cx.waker()) => {}
                _ => *waker = Some(cx.waker().clone()),
            }
            Poll::Pending
        })
        .await
    }

    /// Its call has ended, or is of a kind that is not taken note of: it is no longer one without an
    /// answer.
    #[inline]
    pub fn ended(&self) {
        self.desk.in_flight[self.seat.number].set(NO_CALL);
    }

    /// Its call has ended at a time, and it is free for another.
    #[inline]
    pub fn frees(&self, at_ns: u64) {
        self.ended();
        self.seat.freed_ns.set(at_ns);
        self.desk.free[self.seat.connection].borrow_mut().push(Rc::clone(&self.seat));
    }
}

impl Seat {
    fn wake(&self) {
        // One that has not run yet looks before it waits.
        if let Some(waker) = self.waker.borrow().as_ref() {
            waker.wake_by_ref();
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

    use std::{future::Future, pin::pin, task::Context};

    use super::*;
    use crate::generator::{Arrival, Arrivals, Latencies, Recorder, Trace};

    /// Calls that were all due a while ago, at these times.
    fn desk(due_ns: &[u64], connections: usize, depth: usize) -> (Rc<Desk>, Vec<Caller>) {
        let arrivals = due_ns.iter().map(|at_ns| Arrival { at_ns: *at_ns, size: Some(64) });
        let trace = Trace { arrivals: arrivals.collect() };
        let schedule = Arrivals::Traced(trace.into()).schedule(0, 1, 1);
        while Clock::new().now_ns() <= due_ns.iter().copied().max().unwrap_or(0) {}
        Desk::new(schedule, connections, depth)
    }

    fn next(caller: &Caller) -> Poll<Option<Job>> {
        pin!(caller.next()).poll(&mut Context::from_waker(Waker::noop()))
    }

    fn due(next: Poll<Option<Job>>) -> Option<u64> {
        match next {
            Poll::Ready(job) => Some(job.unwrap().due_ns),
            Poll::Pending => None,
        }
    }

    #[test]
    fn calls_go_around_the_connections_in_the_order_in_which_they_are_due() {
        let (desk, callers) = desk(&[1, 2, 3], 2, 2);
        let connections: Vec<usize> = callers.iter().map(Caller::connection).collect();
        assert_eq!(connections, [0, 0, 1, 1]);
        assert!(callers.iter().all(|caller| next(caller).is_pending()));
        desk.give_out();
        let due: Vec<_> = callers.iter().map(|caller| due(next(caller))).collect();
        assert_eq!(due, [None, Some(2), Some(3), Some(1)]);
    }

    #[test]
    fn a_call_waits_for_a_caller_and_knows_since_when_that_was_free() {
        let (desk, callers) = desk(&[1, 2], 1, 1);
        desk.give_out();
        let first = Job { due_ns: 1, free_ns: 0, size: Some(64) };
        assert_eq!(next(&callers[0]), Poll::Ready(Some(first)));
        assert!(next(&callers[0]).is_pending());
        callers[0].frees(77);
        desk.give_out();
        let second = Job { due_ns: 2, free_ns: 77, size: Some(64) };
        assert_eq!(next(&callers[0]), Poll::Ready(Some(second)));
    }

    #[test]
    fn what_has_no_answer_is_known_until_it_has_one() {
        let (desk, callers) = desk(&[1, 2, 3], 1, 2);
        desk.give_out();
        let count = |desk: &Desk| {
            let mut recorder = Recorder::open().unwrap();
            let mut bounds = Latencies::new().unwrap();
            desk.unanswered().add_to(recorder.open.as_mut().unwrap(), 1_000, &mut bounds);
            bounds.count()
        };
        assert_eq!(count(&desk), 3);
        callers[0].ended();
        assert_eq!(count(&desk), 2);
        callers[1].frees(500);
        desk.give_out();
        assert_eq!(count(&desk), 1);
    }

    #[test]
    fn a_desk_that_is_closed_has_no_more_calls_than_it_has_given_out() {
        let (desk, callers) = desk(&[1], 1, 2);
        desk.give_out();
        desk.close();
        assert_eq!(next(&callers[0]), Poll::Ready(None));
        assert_eq!(due(next(&callers[1])), Some(1));
        callers[1].frees(5);
        assert_eq!(next(&callers[1]), Poll::Ready(None));
    }
}

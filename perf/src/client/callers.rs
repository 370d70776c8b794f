//! Callers that one task polls by itself.
//!
//! A task of the executor for each would cost two switches a call, as much as the rest of what the
//! client does for it: here a call is made where it is given out, and a caller whose answer has
//! come is one look into a list away.

use std::{
    future::Future,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Wake, Waker},
};

use crossbeam::queue::ArrayQueue;

/// Futures with numbers, and which of them are to be polled again.
///
/// Nobody is woken when one of them is: who has them has to look.
pub(super) struct Callers {
    callers: Box<[Caller]>,
    woken: Arc<ArrayQueue<usize>>,
}

struct Caller {
    /// Nothing once it is done.
    future: Option<Pin<Box<dyn Future<Output = ()>>>>,
    flag: Arc<Flag>,
    waker: Waker,
}

/// Marks a caller as woken.
struct Flag {
    number: usize,
    is_woken: AtomicBool,
    /// Has room for each number once.
    woken: Arc<ArrayQueue<usize>>,
}

impl Callers {
    /// Numbers futures in their order.
    pub(super) fn new(futures: Vec<Pin<Box<dyn Future<Output = ()>>>>) -> Self {
        let woken = Arc::new(ArrayQueue::new(futures.len().max(1)));
        let callers = futures.into_iter().enumerate().map(|(number, future)| {
            let woken = Arc::clone(&woken);
            let flag = Arc::new(Flag { number, is_woken: AtomicBool::new(false), woken });
            Caller { future: Some(future), waker: Arc::clone(&flag).into(), flag }
        });
        Self { callers: callers.collect(), woken }
    }

    /// Polls one, unless it is done.
    #[inline]
    fn poll(&mut self, number: usize) {
        let Some(Caller { future, flag, waker }) = self.callers.get_mut(number) else { return };
        // What wakes it from here on is not seen by this poll.
        flag.is_woken.store(false, Ordering::Release);
        if let Some(polled) = future
            && polled.as_mut().poll(&mut Context::from_waker(waker)).is_ready()
        {
            *future = None;
        }
    }

    /// Polls those that were woken until now.
    pub(super) fn poll_woken(&mut self) {
        for _ in 0..self.woken.len() {
            let Some(number) = self.woken.pop() else { return };
            self.poll(number);
        }
    }

    /// Polls each.
    pub(super) fn poll_all(&mut self) {
        (0..self.callers.len()).for_each(|number| self.poll(number));
    }
}

impl Wake for Flag {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    #[inline]
    fn wake_by_ref(self: &Arc<Self>) {
        if !self.is_woken.swap(true, Ordering::AcqRel) {
            // There is room, as each stands in it once.
            let _ = self.woken.push(self.number);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{
        cell::{Cell, RefCell},
        future::poll_fn,
        rc::Rc,
        task::Poll,
    };

    use super::*;

    #[test]
    fn who_was_woken_is_polled_once_and_who_is_done_never() {
        let polls: Rc<[Cell<u32>]> = [const { Cell::new(0) }; 3].into();
        let wakers: Rc<RefCell<Vec<Waker>>> = Rc::default();
        let futures = (0..3).map(|number| {
            let (polls, wakers) = (Rc::clone(&polls), Rc::clone(&wakers));
            let future = poll_fn(move |cx| {
                wakers.borrow_mut().push(cx.waker().clone());
                polls[number].set(polls[number].get() + 1);
                // The last is done when it is polled for the second time.
                if number == 2 && polls[number].get() == 2 {
                    Poll::Ready(())
                } else {
                    Poll::Pending
                }
            });
            Box::pin(future) as Pin<Box<dyn Future<Output = ()>>>
        });
        let mut callers = Callers::new(futures.collect());
        let polled = || polls.iter().map(Cell::get).collect::<Vec<_>>();
        callers.poll_woken();
        assert_eq!(polled(), [0, 0, 0]);
        callers.poll_all();
        assert_eq!(polled(), [1, 1, 1]);
        let known = wakers.take();
        known[1].wake_by_ref();
        known[1].wake_by_ref();
        known[2].wake_by_ref();
        callers.poll_woken();
        assert_eq!(polled(), [1, 2, 2]);
        known[2].wake_by_ref();
        known[0].wake_by_ref();
        callers.poll_woken();
        callers.poll_woken();
        assert_eq!(polled(), [2, 2, 2]);
    }
}

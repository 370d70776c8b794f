//! Room for calls: as many as may be in flight through a handle, and who waits for one to end.

use std::{
    collections::VecDeque,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{
            AtomicUsize,
            Ordering::{Relaxed, SeqCst},
        },
    },
    task::Waker,
    time::Instant,
};

use crossbeam::utils::CachePadded;

use super::promise::wake;
use crate::config::CALLERS_WAITING_MAX;

/// Counts calls that may still be made, and keeps who waits.
pub(super) struct Room {
    free: CachePadded<AtomicUsize>,
    /// Callers in `waiting`, to be looked at without the lock.
    waiting_len: CachePadded<AtomicUsize>,
    waiting: Mutex<Waiting>,
}

/// Callers that wait, longest first: by their tickets, which count up.
#[derive(Default)]
struct Waiting {
    callers: VecDeque<Waiter>,
    next_ticket: u64,
}

struct Waiter {
    ticket: u64,
    waker: Waker,
    deadline: Option<Instant>,
}

/// What becomes of a caller that asks for room.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Asked {
    /// It may make its call.
    Granted,
    /// It waits, with this ticket.
    Waits(u64),
    /// Too many wait.
    Refused,
}

impl Room {
    pub(super) fn new(calls: usize) -> Self {
        Self {
            free: CachePadded::new(AtomicUsize::new(calls)),
            waiting_len: CachePadded::default(),
            waiting: Mutex::default(),
        }
    }

    /// Takes room for a call, if there is some and nobody waits for it.
    #[inline]
    pub(super) fn try_take(&self) -> bool {
        self.waiting_len.load(Relaxed) == 0 && self.take()
    }

    /// Takes room for a call, or waits for some: until the waker is woken for it, or it is woken
    /// because its deadline is past. A caller that waits already gives its ticket, and keeps its
    /// place.
    #[cold]
    pub(super) fn take_or_wait(
        &self,
        ticket: Option<u64>,
        waker: &Waker,
        deadline: Option<Instant>,
    ) -> Asked {
        let mut waiting = self.waiting();
        let ticket = match ticket {
            Some(ticket) => ticket,
            None if waiting.callers.len() >= CALLERS_WAITING_MAX => return Asked::Refused,
            None => {
                waiting.next_ticket += 1;
                waiting.next_ticket
            }
        };
        match waiting.find(ticket) {
            Ok(at) => waiting.callers[at].waker.clone_from(waker),
            Err(at) => {
                let waker = waker.clone();
                waiting.callers.insert(at, Waiter { ticket, waker, deadline });
                self.waiting_len.store(waiting.callers.len(), SeqCst);
            }
        }
        // Those before it come first. Whoever leaves room after this sees that somebody waits.
        let is_first = waiting.callers.front().is_some_and(|first| first.ticket == ticket);
        if is_first && self.take() {
            waiting.callers.pop_front();
            self.waiting_len.store(waiting.callers.len(), SeqCst);
            // There may be room for the next one too.
            if self.free.load(SeqCst) > 0 {
                self.wake_first(waiting);
            }
            return Asked::Granted;
        }
        Asked::Waits(ticket)
    }

    /// A call has ended.
    #[inline]
    pub(super) fn leave(&self) {
        self.free.fetch_add(1, SeqCst);
        if self.waiting_len.load(SeqCst) > 0 {
            self.wake_first(self.waiting());
        }
    }

    /// A caller waits no more; the room that it may have been woken for is the next one's.
    #[cold]
    pub(super) fn end_wait(&self, ticket: u64) {
        let mut waiting = self.waiting();
        if let Ok(at) = waiting.find(ticket) {
            waiting.callers.remove(at);
            self.waiting_len.store(waiting.callers.len(), SeqCst);
        }
        if self.free.load(SeqCst) > 0 {
            self.wake_first(waiting);
        }
    }

    /// The first deadline of those who wait.
    pub(super) fn first_deadline(&self) -> Option<Instant> {
        self.waiting().callers.iter().filter_map(|waiter| waiter.deadline).min()
    }

    /// Wakes those whose deadline is past; they find out, and go.
    pub(super) fn wake_late(&self, now: Instant) {
        let mut waiting = self.waiting();
        let late = |waiter: &&mut Waiter| waiter.deadline.is_some_and(|due| due <= now);
        let wakers: Vec<Waker> = (waiting.callers.iter_mut().filter(late))
            .map(|waiter| {
                // Once is enough.
                waiter.deadline = None;
                waiter.waker.clone()
            })
            .collect();
        drop(waiting);
        wakers.into_iter().for_each(wake);
    }

    /// Wakes everybody who waits: there will be no room.
    pub(super) fn wake_all(&self) {
        let waiting = self.waiting();
        let wakers: Vec<Waker> =
            waiting.callers.iter().map(|waiter| waiter.waker.clone()).collect();
        drop(waiting);
        wakers.into_iter().for_each(wake);
    }

    fn take(&self) -> bool {
        self.free.fetch_update(SeqCst, Relaxed, |free| free.checked_sub(1)).is_ok()
    }

    /// Wakes the caller that has waited longest. It keeps its place until it has taken the room or
    /// is gone, so that nobody comes before it.
    fn wake_first(&self, waiting: MutexGuard<'_, Waiting>) {
        let waker = waiting.callers.front().map(|first| first.waker.clone());
        // Not woken in the list's presence: what a waker does is its own affair.
        drop(waiting);
        waker.into_iter().for_each(wake);
    }

    /// Nothing panics while it is held, so it is never poisoned.
    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Waiting {
    /// Where a caller is, or would be.
    fn find(&self, ticket: u64) -> Result<usize, usize> {
        self.callers.binary_search_by_key(&ticket, |waiter| waiter.ticket)
    }
}

#[cfg(test)]
mod tests {
    use std::{
        sync::{
            Arc,
            atomic::{AtomicUsize, Ordering::SeqCst},
        },
        task::Wake,
        time::Duration,
    };

    use super::*;

    #[derive(Default)]
    struct Count(AtomicUsize);

    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, SeqCst);
        }
    }

    fn waiter() -> (Arc<Count>, Waker) {
        let count = Arc::<Count>::default();
        (Arc::clone(&count), Waker::from(count))
    }

    #[test]
    fn those_who_wait_come_in_their_order_and_before_those_who_do_not() {
        let room = Room::new(1);
        assert!(room.try_take());
        let ((first, first_waker), (second, second_waker)) = (waiter(), waiter());
        assert_eq!(room.take_or_wait(None, &first_waker, None), Asked::Waits(1));
        assert_eq!(room.take_or_wait(None, &second_waker, None), Asked::Waits(2));
        room.leave();
        assert_eq!((first.0.load(SeqCst), second.0.load(SeqCst)), (1, 0));
        assert!(!room.try_take(), "it is the first one's");
        assert_eq!(room.take_or_wait(Some(2), &second_waker, None), Asked::Waits(2));
        assert_eq!(room.take_or_wait(Some(1), &first_waker, None), Asked::Granted);
        room.leave();
        assert_eq!(second.0.load(SeqCst), 1);
        assert_eq!(room.take_or_wait(Some(2), &second_waker, None), Asked::Granted);
        room.leave();
        assert!(room.try_take());
    }

    #[test]
    fn room_for_two_wakes_both() {
        let room = Room::new(0);
        let ((_, first_waker), (second, second_waker)) = (waiter(), waiter());
        assert_eq!(room.take_or_wait(None, &first_waker, None), Asked::Waits(1));
        assert_eq!(room.take_or_wait(None, &second_waker, None), Asked::Waits(2));
        room.leave();
        room.leave();
        assert_eq!(room.take_or_wait(Some(1), &first_waker, None), Asked::Granted);
        assert_eq!(second.0.load(SeqCst), 1);
    }

    #[test]
    fn one_that_goes_after_it_was_woken_wakes_the_next() {
        let room = Room::new(0);
        let ((_, first_waker), (second, second_waker)) = (waiter(), waiter());
        assert_eq!(room.take_or_wait(None, &first_waker, None), Asked::Waits(1));
        assert_eq!(room.take_or_wait(None, &second_waker, None), Asked::Waits(2));
        room.leave();
        room.end_wait(1);
        assert_eq!(second.0.load(SeqCst), 1);
        assert_eq!(room.take_or_wait(Some(2), &second_waker, None), Asked::Granted);
    }

    #[test]
    fn one_whose_deadline_is_past_is_woken_and_no_other() {
        let room = Room::new(0);
        let ((first, first_waker), (second, second_waker)) = (waiter(), waiter());
        let now = Instant::now();
        let later = now + Duration::from_secs(1);
        assert_eq!(room.take_or_wait(None, &first_waker, Some(later)), Asked::Waits(1));
        assert_eq!(room.take_or_wait(None, &second_waker, Some(now)), Asked::Waits(2));
        assert_eq!(room.first_deadline(), Some(now));
        room.wake_late(now);
        assert_eq!((first.0.load(SeqCst), second.0.load(SeqCst)), (0, 1));
        assert_eq!(room.first_deadline(), Some(later));
    }

    #[test]
    fn more_than_may_wait_are_refused() {
        let room = Room::new(0);
        let (_, waker) = waiter();
        for _ in 0..CALLERS_WAITING_MAX {
            assert!(matches!(room.take_or_wait(None, &waker, None), Asked::Waits(_)));
        }
        assert_eq!(room.take_or_wait(None, &waker, None), Asked::Refused);
    }
}

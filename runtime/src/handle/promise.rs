//! An outcome that one thread waits for and the shard gives: exactly once, whatever happens.
//!
//! Between the future at the caller and the seat on the shard. Who is to give it holds a
//! [`Promise`]; one that is dropped, as its shard has ended, gives the outcome that says so.

use std::{
    mem,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    task::{Poll, Waker},
};

/// The place of an outcome, shared by who waits for it and who gives it.
pub(super) struct Place<T, B> {
    state: Mutex<State<T>>,
    /// Set once nobody waits for the outcome any more.
    is_given_up: AtomicBool,
    /// What goes with it.
    pub(super) beside: B,
}

enum State<T> {
    Waiting(Waker),
    There(T),
    Taken,
}

/// The duty to give an outcome.
pub(super) struct Promise<T: Ended, B>(Option<Arc<Place<T, B>>>);

/// An outcome that says that the shard has ended.
pub(super) trait Ended {
    fn ended() -> Self;
}

/// Wakes a caller. A waker is another executor's code: its panic must not be the shard's end.
pub(super) fn wake(waker: Waker) {
    let _ = catch_unwind(AssertUnwindSafe(|| waker.wake()));
}

impl<T: Ended, B> Place<T, B> {
    /// A place that somebody waits at, and the duty to give him the outcome.
    pub(super) fn new(waker: Waker, beside: B) -> (Arc<Self>, Promise<T, B>) {
        let (state, is_given_up) = (Mutex::new(State::Waiting(waker)), AtomicBool::new(false));
        let place = Arc::new(Self { state, is_given_up, beside });
        (Arc::clone(&place), Promise(Some(place)))
    }

    /// The outcome, once it is there.
    pub(super) fn poll(&self, waker: &Waker) -> Poll<T> {
        let mut state = self.state();
        match mem::replace(&mut *state, State::Taken) {
            State::There(outcome) => Poll::Ready(outcome),
            State::Waiting(mut kept) => {
                // A waker is cloned only where it is another than before.
                kept.clone_from(waker);
                *state = State::Waiting(kept);
                Poll::Pending
            }
            // Asked for twice, which its future does not.
            State::Taken => Poll::Ready(T::ended()),
        }
    }

    /// Nobody waits for the outcome any more. False where it is there already.
    pub(super) fn give_up(&self) -> bool {
        self.is_given_up.store(true, Relaxed);
        let state = mem::replace(&mut *self.state(), State::Taken);
        // What it held is dropped here, without the lock.
        matches!(state, State::Waiting(_))
    }

    /// Whether nobody waits for the outcome any more.
    pub(super) fn is_given_up(&self) -> bool {
        self.is_given_up.load(Relaxed)
    }

    fn give(&self, outcome: T) {
        let mut state = self.state();
        let before = match &*state {
            State::Waiting(_) => mem::replace(&mut *state, State::There(outcome)),
            State::There(_) | State::Taken => return,
        };
        drop(state);
        if let State::Waiting(waker) = before {
            wake(waker);
        }
    }

    /// Nothing panics while it is held, so it is never poisoned.
    fn state(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T: Ended, B> Promise<T, B> {
    /// Gives the outcome.
    pub(super) fn give(mut self, outcome: T) {
        if let Some(place) = self.0.take() {
            place.give(outcome);
        }
    }

    /// The place of the outcome; none once it was given.
    pub(super) fn place(&self) -> Option<&Arc<Place<T, B>>> {
        self.0.as_ref()
    }

    /// Whether the outcome is for this place.
    pub(super) fn is_at(&self, place: &Arc<Place<T, B>>) -> bool {
        self.0.as_ref().is_some_and(|ours| Arc::ptr_eq(ours, place))
    }

    /// Whether nobody waits for the outcome any more.
    pub(super) fn is_given_up(&self) -> bool {
        self.0.as_ref().is_none_or(|place| place.is_given_up())
    }
}

impl<T: Ended, B> Drop for Promise<T, B> {
    fn drop(&mut self) {
        if let Some(place) = self.0.take() {
            place.give(T::ended());
        }
    }
}

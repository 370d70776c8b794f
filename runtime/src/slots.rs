//! Pinned places for handler futures, used again and again.
//!
//! A future that was polled must not move, and whether a handler waits is known only when it was
//! polled. So each is put into a pooled place before its first poll, and stays there if it waits:
//! nothing is allocated for a call in steady state, and nothing unsafe is needed.

use std::{
    cell::RefCell,
    future::Future,
    pin::Pin,
    task::{Context, Poll},
};

/// A pool of pinned places for futures of one type.
pub(crate) struct Slots<F> {
    spare: RefCell<Vec<Slot<F>>>,
    spare_max: usize,
}

/// One pinned place, with a future in it or empty.
pub(crate) struct Slot<F>(Pin<Box<Option<F>>>);

impl<F: Future> Slots<F> {
    /// A pool that keeps up to `spare_max` empty places.
    pub(crate) fn new(spare_max: usize) -> Self {
        Self {
            spare: RefCell::default(),
            spare_max,
        }
    }

    /// Puts a future into a place.
    #[inline]
    pub(crate) fn place(&self, future: F) -> Slot<F> {
        let spare = self.spare.borrow_mut().pop();
        let mut slot = spare.unwrap_or_else(|| Slot(Box::pin(None)));
        slot.0.set(Some(future));
        slot
    }

    /// Drops the future in a place, and keeps the place.
    #[inline]
    pub(crate) fn recycle(&self, mut slot: Slot<F>) {
        slot.0.set(None);
        let mut spare = self.spare.borrow_mut();
        if spare.len() < self.spare_max {
            spare.push(slot);
        }
    }
}

impl<F: Future> Slot<F> {
    /// Polls the future where it lies. Ready where there is none.
    #[inline]
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<F::Output>> {
        match self.0.as_mut().as_pin_mut() {
            Some(future) => future.poll(cx).map(Some),
            None => Poll::Ready(None),
        }
    }
}

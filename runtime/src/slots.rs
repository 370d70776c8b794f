//! Pinned places for handler futures, used again and again.
//!
//! A future that was polled must not move, and whether a handler waits is known only when it was
//! polled. So each is made in a pooled place, and stays there if it waits: nothing is allocated
//! for a call in steady state.
//!
//! `Pin<Box<Option<F>>>` would do the same with nothing unsafe, and copies each future once more
//! on its way into the place: 15 ns of the 60 that a call has.

#![allow(unsafe_code)]

use std::{
    cell::RefCell,
    future::Future,
    mem::MaybeUninit,
    pin::Pin,
    ptr::NonNull,
    task::{Context, Poll},
};

/// A pool of pinned places for futures of one type.
pub(crate) struct Slots<F> {
    spare: RefCell<Vec<Slot<F>>>,
    spare_max: usize,
}

/// One pinned place, with a future in it or empty.
pub(crate) struct Slot<F> {
    /// From a leaked box, which `Drop` takes back. No box while futures are in it, since a future
    /// may point into itself.
    place: NonNull<MaybeUninit<F>>,
    /// Whether a future is in the place.
    is_full: bool,
}

impl<F: Future> Slots<F> {
    /// A pool that keeps up to `spare_max` empty places.
    pub(crate) fn new(spare_max: usize) -> Self {
        Self { spare: RefCell::default(), spare_max }
    }

    /// Makes a future in a place.
    #[inline]
    pub(crate) fn place(&self, make: impl FnOnce() -> F) -> Slot<F> {
        let spare = self.spare.borrow_mut().pop();
        let mut slot = spare.unwrap_or_else(Slot::new);
        slot.fill(make);
        slot
    }

    /// Drops the future in a place, and keeps the place.
    #[inline]
    pub(crate) fn recycle(&self, mut slot: Slot<F>) {
        slot.clear();
        let mut spare = self.spare.borrow_mut();
        if spare.len() < self.spare_max {
            spare.push(slot);
        }
    }
}

impl<F> Slot<F> {
    fn new() -> Self {
        let place = NonNull::from(Box::leak(Box::<F>::new_uninit()));
        Self { place, is_full: false }
    }

    /// Makes a future in the place, which is empty.
    #[inline]
    fn fill(&mut self, make: impl FnOnce() -> F) {
        debug_assert!(!self.is_full, "a place has one future at a time");
        // SAFETY: `place` is valid for writes and nobody else's: it came from a box, and this slot
        // is its only owner.
        unsafe { self.place.as_ptr().write(MaybeUninit::new(make())) };
        self.is_full = true;
    }

    /// Drops the future, if there is one.
    #[inline]
    pub(crate) fn clear(&mut self) {
        if std::mem::take(&mut self.is_full) {
            // SAFETY: the place is this slot's alone, which is borrowed mutably.
            let place = unsafe { self.place.as_mut() };
            // SAFETY: a future was written to the place, and not dropped since: `is_full` said so,
            // and does no longer, also if the drop panics. It is dropped where it was pinned.
            unsafe { place.assume_init_drop() };
        }
    }
}

impl<F: Future> Slot<F> {
    /// Polls the future where it lies. Ready with nothing where there is none.
    #[inline]
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<F::Output>> {
        if !self.is_full {
            return Poll::Ready(None);
        }
        // SAFETY: the place is this slot's alone, which is borrowed mutably.
        let place = unsafe { self.place.as_mut() };
        // SAFETY: `is_full` says that a future was written to the place.
        let future = unsafe { place.assume_init_mut() };
        // SAFETY: the future does not move until it is dropped: the place is on the heap, its
        // address is the same while the slot moves, and nothing gives the future out.
        let future = unsafe { Pin::new_unchecked(future) };
        future.poll(cx).map(Some)
    }
}

impl<F> Drop for Slot<F> {
    fn drop(&mut self) {
        self.clear();
        // SAFETY: the pointer came from a leaked box of this type, and only this drop takes it
        // back. The place is empty, so nothing points into it.
        drop(unsafe { Box::from_raw(self.place.as_ptr()) });
    }
}

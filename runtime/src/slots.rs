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
    cell::{Cell, RefCell},
    future::Future,
    mem::MaybeUninit,
    pin::Pin,
    ptr::NonNull,
    task::{Context, Poll},
};

/// A pool of pinned places for futures of one type.
pub(crate) struct Slots<F> {
    /// The place that was used last, which most calls use again.
    last: Cell<Option<Place<F>>>,
    spare: RefCell<Vec<Place<F>>>,
    spare_max: usize,
}

/// A future in its pinned place: one pointer, and dropped with it.
pub(crate) struct Slot<F>(Place<F>);

/// A place for a future. In a [`Slot`] it is full until the slot's own drop, which comes first;
/// elsewhere nothing is in it.
///
/// From a leaked box, which `Drop` takes back. No box while futures are in it, since a future may
/// point into itself.
struct Place<F>(NonNull<MaybeUninit<F>>);

impl<F: Future> Slots<F> {
    /// A pool that keeps up to `spare_max` empty places, and one.
    pub(crate) fn new(spare_max: usize) -> Self {
        Self { last: Cell::new(None), spare: RefCell::default(), spare_max }
    }

    /// Makes a future in a place.
    #[inline]
    pub(crate) fn place(&self, make: impl FnOnce() -> F) -> Slot<F> {
        self.last.take().unwrap_or_else(|| self.another()).fill(make)
    }

    #[cold]
    fn another(&self) -> Place<F> {
        self.spare.borrow_mut().pop().unwrap_or_else(Place::new)
    }

    /// Drops the future in a place, and keeps the place.
    #[inline(always)]
    pub(crate) fn recycle(&self, slot: Slot<F>) {
        if let Some(before) = self.last.replace(Some(slot.clear())) {
            self.keep(before);
        }
    }

    #[cold]
    fn keep(&self, place: Place<F>) {
        let mut spare = self.spare.borrow_mut();
        if spare.len() < self.spare_max {
            spare.push(place);
        }
    }
}

impl<F> Place<F> {
    fn new() -> Self {
        Self(NonNull::from(Box::leak(Box::<F>::new_uninit())))
    }

    /// Makes a future in the place.
    #[inline]
    fn fill(self, make: impl FnOnce() -> F) -> Slot<F> {
        // SAFETY: the place is valid for writes and nobody else's: it came from a box, and this is
        // its only owner. If `make` panics, nothing was written, and the place is freed empty.
        unsafe { self.0.as_ptr().write(MaybeUninit::new(make())) };
        Slot(self)
    }
}

impl<F> Slot<F> {
    /// Drops the future; the place is left. If the drop panics, the place is freed.
    #[inline(always)]
    fn clear(self) -> Place<F> {
        let mut place = Place(self.0.0);
        // What is in the place is dropped here, and by nobody else.
        std::mem::forget(self);
        // SAFETY: the place is this function's alone, as the slot came by value and was forgotten.
        let future = unsafe { place.0.as_mut() };
        // SAFETY: a future is in the place of every slot until it is dropped, and the slot was
        // forgotten. It is dropped where it was pinned.
        unsafe { future.assume_init_drop() };
        place
    }
}

impl<F: Future> Slot<F> {
    /// Polls the future where it lies.
    #[inline]
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<F::Output> {
        // SAFETY: the place is this slot's alone, which is borrowed mutably.
        let place = unsafe { self.0.0.as_mut() };
        // SAFETY: a future is in the place of every slot until it is dropped.
        let future = unsafe { place.assume_init_mut() };
        // SAFETY: the future does not move until it is dropped: the place is on the heap, its
        // address is the same while the slot moves, and nothing gives the future out.
        let future = unsafe { Pin::new_unchecked(future) };
        future.poll(cx)
    }
}

impl<F> Drop for Slot<F> {
    fn drop(&mut self) {
        // SAFETY: the place is this slot's alone, which is borrowed mutably.
        let place = unsafe { self.0.0.as_mut() };
        // SAFETY: a future is in the place of every slot until it is dropped, as it is now: where
        // it was pinned. The place is freed after that, also if the drop panics.
        unsafe { place.assume_init_drop() };
    }
}

impl<F> Drop for Place<F> {
    fn drop(&mut self) {
        // SAFETY: the pointer came from a leaked box of this type, and only this drop takes it
        // back. Nothing is in the place, so nothing points into it.
        drop(unsafe { Box::from_raw(self.0.as_ptr()) });
    }
}

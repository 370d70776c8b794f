//! Tasks of a shard that end in order: told when it drains, and waited for.
//!
//! Beside the path of a call. A shard's own tasks are dropped when it stops; one that has something
//! to finish before waits here.

use std::{
    cell::{Cell, RefCell},
    future::Future,
    pin::Pin,
    rc::{Rc, Weak},
    task::{Context, Poll, Waker},
};

use crate::{shard::Shard, slab::Slab};

/// Waits until the shard of this thread begins to drain, or to stop: for tasks that finish
/// something before it ends.
///
/// ```ignore
/// ringcall::spawn(async move {
///     let _unfinished = ringcall::draining().await;
///     log.flush().await;
/// });
/// ```
///
/// A shard that drains waits until what this gives is dropped, for its grace period at most; one
/// that is stopped without draining for a second. Then the task is dropped. On a shard that serves
/// nothing, and outside of one, it waits for ever.
pub fn draining() -> Draining {
    Draining { entry: Shard::existing().map(|shard| Entry::new(&shard)) }
}

/// A future of the beginning of the end, made by [`draining`]. The shard waits for it from when it
/// is made.
#[must_use = "it does nothing unless it is awaited"]
pub struct Draining {
    entry: Option<Entry>,
}

/// Something that is to be finished before the shard ends, until it is dropped.
#[must_use = "the shard ends without waiting where it is dropped"]
pub struct Unfinished(#[expect(dead_code, reason = "its drop tells the shard")] Option<Entry>);

/// The tasks that wait for the end of a shard, or work on before it.
#[derive(Default)]
pub(crate) struct Farewells {
    unfinished: Cell<usize>,
    waiting: RefCell<Slab<Waker>>,
}

/// One of them.
struct Entry {
    shard: Weak<Shard>,
    /// Key of its waker, where it has left one.
    key: Option<u64>,
}

impl Farewells {
    /// Whether none is left to wait for.
    pub(crate) fn are_over(&self) -> bool {
        self.unfinished.get() == 0
    }

    /// The end begins.
    pub(crate) fn begin(&self, shard: &Shard) {
        let waiting = self.waiting.borrow().values();
        waiting.iter().for_each(|waker| shard.wake_task(waker));
    }
}

impl Entry {
    fn new(shard: &Rc<Shard>) -> Self {
        let unfinished = &shard.farewells.unfinished;
        unfinished.set(unfinished.get() + 1);
        Self { shard: Rc::downgrade(shard), key: None }
    }

    fn wait(&mut self, shard: &Shard, waker: &Waker) {
        let mut waiting = shard.farewells.waiting.borrow_mut();
        if let Some(key) = self.key.take() {
            waiting.remove(key);
        }
        waiting.insert_with(|key| {
            self.key = Some(key);
            waker.clone()
        });
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        let Some(shard) = self.shard.upgrade() else { return };
        let farewells = &shard.farewells;
        farewells.unfinished.set(farewells.unfinished.get() - 1);
        if let Some(key) = self.key {
            farewells.waiting.borrow_mut().remove(key);
        }
        if farewells.are_over() && shard.is_ending() {
            shard.wake_stopped();
        }
    }
}

impl Future for Draining {
    type Output = Unfinished;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Unfinished> {
        let this = self.get_mut();
        let Some(entry) = &mut this.entry else { return Poll::Pending };
        match entry.shard.upgrade() {
            Some(shard) if !shard.is_ending() => {
                entry.wait(&shard, cx.waker());
                Poll::Pending
            }
            _ => Poll::Ready(Unfinished(this.entry.take())),
        }
    }
}

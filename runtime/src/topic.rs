//! Subscriptions: what is published once and goes to everybody who listens, each at their own pace.
//!
//! On top of streams and beside the path of a call. A topic belongs to one shard, as its
//! subscribers do; what it holds for each of them is bounded, and a policy says what becomes of a
//! subscriber that is slower than what is published.

use std::{
    cell::{Cell, RefCell},
    collections::VecDeque,
    future::poll_fn,
    rc::{Rc, Weak},
    task::{Poll, Waker, ready},
};

use ringcall_codec::{Code, Message, Status};

use crate::{slab::reserve, streams::Sink};

/// What becomes of a subscriber that has as many items waiting as it may.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lag {
    /// Who publishes waits for it, and with that everybody else who listens.
    Block,
    /// The item that has waited longest is dropped, and counted as [missed](Subscriber::missed).
    DropOldest,
    /// The subscription ends with `RESOURCE_EXHAUSTED`, and what waited is dropped.
    Disconnect,
}

/// What is published to everybody who listens on this shard. Clones are the same topic; when the
/// last is dropped, it ends.
///
/// An item is kept once, whoever waits for it. To reach subscribers of other shards, give each
/// shard a topic and send it what is to be published.
pub struct Topic<T>(Rc<Hub<T>>);

/// One who listens to a [`Topic`]. Dropping it ends the subscription.
pub struct Subscriber<T>(Rc<Queue<T>>);

struct Hub<T> {
    queues: RefCell<Vec<Rc<Queue<T>>>>,
    /// Subscribers for which publishers wait.
    full: Cell<usize>,
    /// Publishers that wait.
    waiting: RefCell<Vec<Waker>>,
    /// Whom an item wakes; empty, and kept for its place in memory.
    wakers: RefCell<Vec<Waker>>,
}

struct Queue<T> {
    hub: Weak<Hub<T>>,
    lag: Lag,
    end: Cell<End>,
    depth: u32,
    /// The place among those of the topic.
    index: Cell<u32>,
    items: Cell<VecDeque<Rc<T>>>,
    missed: Cell<u64>,
    waker: Cell<Option<Waker>>,
}

// There can be thousands that idle.
const _: () = assert!(size_of::<Queue<u8>>() <= 80);

/// What became of an item.
enum Given<T> {
    Kept,
    /// The one that had waited longest made room for it.
    InPlaceOf(Rc<T>),
    NoRoom,
}

/// Whether more items come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Open,
    /// The topic is gone.
    Ended,
    /// The subscriber was too slow.
    Lagged,
}

impl<T> Topic<T> {
    /// A topic that nobody listens to.
    pub fn new() -> Self {
        Self(Rc::new(Hub {
            queues: RefCell::default(),
            full: Cell::new(0),
            waiting: RefCell::default(),
            wakers: RefCell::default(),
        }))
    }

    /// Listens to what is published from now on. At most `depth` items wait, at least one; then
    /// `lag` says what becomes of the subscriber.
    pub fn subscribe(&self, lag: Lag, depth: usize) -> Subscriber<T> {
        let mut queues = self.0.queues.borrow_mut();
        let queue = Rc::new(Queue {
            hub: Rc::downgrade(&self.0),
            lag,
            depth: u32::try_from(depth).unwrap_or(u32::MAX).max(1),
            index: Cell::new(queues.len() as u32),
            items: Cell::default(),
            missed: Cell::new(0),
            end: Cell::new(End::Open),
            waker: Cell::new(None),
        });
        reserve(&mut queues, 1);
        queues.push(Rc::clone(&queue));
        Subscriber(queue)
    }

    /// How many listen.
    pub fn subscribers(&self) -> usize {
        self.0.queues.borrow().len()
    }

    /// Gives an item to everybody who listens, to all at once. Waits first while a subscriber of
    /// [`Lag::Block`] has no room, and for no other. Dropping the future publishes nothing.
    ///
    /// Several that wait are in no order.
    pub async fn publish(&self, item: T) {
        let mut item = Some(item);
        poll_fn(|cx| {
            if self.0.full.get() > 0 {
                self.0.wait(cx.waker());
                return Poll::Pending;
            }
            if let Some(item) = item.take() {
                self.0.give(&Rc::new(item));
            }
            Poll::Ready(())
        })
        .await;
    }

    /// Gives an item to everybody who listens, unless that would have to wait.
    ///
    /// # Errors
    ///
    /// The item, where a subscriber of [`Lag::Block`] has no room.
    pub fn try_publish(&self, item: T) -> Result<(), T> {
        if self.0.full.get() > 0 {
            return Err(item);
        }
        self.0.give(&Rc::new(item));
        Ok(())
    }
}

impl<T> Default for Topic<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T> Clone for Topic<T> {
    fn clone(&self) -> Self {
        Self(Rc::clone(&self.0))
    }
}

impl<T> Drop for Hub<T> {
    fn drop(&mut self) {
        let queues = self.queues.take();
        queues.iter().for_each(|queue| queue.end(End::Ended));
    }
}

impl<T> Subscriber<T> {
    /// The next item, in the order in which they were published.
    ///
    /// # Errors
    ///
    /// With `RESOURCE_EXHAUSTED` where the subscriber was too slow and its policy is
    /// [`Lag::Disconnect`]; with `UNAVAILABLE` after the last item of a topic that was dropped.
    pub async fn next(&mut self) -> Result<Rc<T>, Status> {
        let item = poll_fn(|cx| self.0.poll_next(cx.waker())).await;
        item.map_err(|end| self.status(end))
    }

    /// How many items the subscriber has missed so far, all of them from before the next.
    pub fn missed(&self) -> u64 {
        self.0.missed.get()
    }

    /// Sends each item to the caller of a handler, for as long as the call runs: a handler whose
    /// caller is gone is dropped while it waits here. A caller that takes no items makes the
    /// subscriber slow, and what then happens is its policy's to say.
    ///
    /// Done when the topic has ended and everything was sent. An item that waits to be sent is
    /// none of the `depth` that wait to be taken; where the future is dropped then, it is lost.
    ///
    /// # Errors
    ///
    /// Where the subscriber was too slow, as [`next`](Self::next) says, or an item cannot be sent,
    /// as [`Sink::send`] says.
    pub fn forward(&mut self, sink: &Sink<'_, T>) -> impl Future<Output = Result<(), Status>>
    where
        T: Message,
    {
        // Written out, as most subscriptions idle here: what is kept meanwhile is three words.
        let mut unsent = None;
        poll_fn(move |cx| {
            loop {
                let next = match unsent.take() {
                    Some(item) => Ok(item),
                    None => ready!(self.0.poll_next(cx.waker())),
                };
                let item = match next {
                    Ok(item) => item,
                    Err(End::Lagged) => return Poll::Ready(Err(self.status(End::Lagged))),
                    Err(End::Ended | End::Open) => return Poll::Ready(Ok(())),
                };
                match sink.poll_send(&item, cx.waker()) {
                    Poll::Ready(Ok(())) => {}
                    Poll::Ready(Err(status)) => return Poll::Ready(Err(status)),
                    Poll::Pending => {
                        unsent = Some(item);
                        return Poll::Pending;
                    }
                }
            }
        })
    }

    #[cold]
    fn status(&self, end: End) -> Status {
        match end {
            End::Lagged => {
                let text = format!("more than {} items waited to be taken", self.0.depth);
                Status::new(Code::ResourceExhausted, text)
            }
            End::Ended | End::Open => Status::new(Code::Unavailable, "the topic has ended"),
        }
    }
}

impl<T> Drop for Subscriber<T> {
    fn drop(&mut self) {
        if let Some(hub) = self.0.hub.upgrade() {
            hub.forget(&self.0);
        }
    }
}

impl<T> Hub<T> {
    /// Notes a publisher that waits.
    fn wait(&self, waker: &Waker) {
        let mut waiting = self.waiting.borrow_mut();
        if !waiting.iter().any(|kept| kept.will_wake(waker)) {
            waiting.push(waker.clone());
        }
    }

    /// Gives an item to everybody who listens.
    fn give(&self, item: &Rc<T>) {
        let mut wakers = self.wakers.take();
        let (mut lagged, mut missed) = (Vec::new(), Vec::new());
        for queue in self.queues.borrow().iter() {
            match queue.give(item) {
                Given::Kept => {}
                Given::InPlaceOf(oldest) => missed.push(oldest),
                Given::NoRoom => {
                    lagged.push(Rc::clone(queue));
                    continue;
                }
            }
            if queue.is_full() {
                self.full.set(self.full.get() + 1);
            }
            wakers.extend(queue.waker.take());
        }
        for queue in lagged {
            self.forget(&queue);
            queue.end(End::Lagged);
        }
        // Nothing is borrowed any more: what a waker does, or an item that is dropped, is its own
        // affair.
        wakers.drain(..).for_each(Waker::wake);
        self.wakers.replace(wakers);
        drop(missed);
    }

    /// Takes a subscriber out, if it is there.
    fn forget(&self, queue: &Rc<Queue<T>>) {
        let mut queues = self.queues.borrow_mut();
        let at = queue.index.get() as usize;
        if queues.get(at).is_none_or(|there| !Rc::ptr_eq(there, queue)) {
            return;
        }
        queues.swap_remove(at);
        if let Some(moved) = queues.get(at) {
            moved.index.set(at as u32);
        }
        drop(queues);
        if queue.is_full() {
            self.has_room();
        }
    }

    /// A subscriber for which publishers waited has room, or is gone.
    fn has_room(&self) {
        self.full.set(self.full.get() - 1);
        if self.full.get() == 0 {
            self.waiting.take().into_iter().for_each(Waker::wake);
        }
    }
}

impl<T> Queue<T> {
    /// Whether publishers wait for it.
    fn is_full(&self) -> bool {
        self.lag == Lag::Block && self.with_items(|items| items.len()) == self.depth as usize
    }

    /// Keeps an item for its subscriber, unless that is to be disconnected.
    fn give(&self, item: &Rc<T>) -> Given<T> {
        let is_full = self.with_items(|items| items.len()) == self.depth as usize;
        if is_full && self.lag == Lag::Disconnect {
            return Given::NoRoom;
        }
        // Publishers wait for one that blocks, so this one drops the oldest.
        let oldest = if is_full { self.with_items(VecDeque::pop_front) } else { None };
        self.missed.set(self.missed.get() + u64::from(is_full));
        self.with_items(|items| items.push_back(Rc::clone(item)));
        oldest.map_or(Given::Kept, Given::InPlaceOf)
    }

    /// No more items come.
    fn end(&self, end: End) {
        self.end.set(end);
        if end == End::Lagged {
            self.items.take();
        }
        let waker = self.waker.take();
        waker.into_iter().for_each(Waker::wake);
    }

    /// Lends the items out. Nothing of users may run meanwhile.
    fn with_items<R>(&self, with: impl FnOnce(&mut VecDeque<Rc<T>>) -> R) -> R {
        let mut items = self.items.take();
        let outcome = with(&mut items);
        self.items.set(items);
        outcome
    }

    fn poll_next(&self, waker: &Waker) -> Poll<Result<Rc<T>, End>> {
        let was_full = self.is_full();
        let item = self.with_items(VecDeque::pop_front);
        match (item, self.end.get()) {
            (Some(item), _) => {
                if was_full && let Some(hub) = self.hub.upgrade() {
                    hub.has_room();
                }
                Poll::Ready(Ok(item))
            }
            (None, End::Open) => {
                self.waker.set(Some(waker.clone()));
                Poll::Pending
            }
            (None, end) => Poll::Ready(Err(end)),
        }
    }
}

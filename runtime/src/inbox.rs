//! Items that have come and wait to be taken, and who waits to send more.
//!
//! Between the session and the two ends of a stream. An entry is there while the stream's call
//! runs; its items are bounded by the credit that this end has granted.

use std::{
    cell::RefCell,
    collections::VecDeque,
    task::{Poll, Waker},
};

use ringcall_codec::{CallId, StreamId};

use crate::{ring::Lease, shard::Shard};

/// The streams of a connection, by slot: those of calls made here, and those of calls served here.
#[derive(Default)]
pub(crate) struct Inboxes {
    made: RefCell<Vec<Option<Box<Inbox>>>>,
    served: RefCell<Vec<Option<Box<Inbox>>>>,
    /// The streams that wait for what all share: the connection's credit, or room in its send
    /// buffer. Each is here once at most.
    senders: RefCell<Vec<StreamId>>,
}

struct Inbox {
    generation: u32,
    has_ended: bool,
    /// Items, and the lengths of their frames in bytes.
    items: VecDeque<(Lease, u64)>,
    /// Who waits for an item.
    taker: Option<Waker>,
    /// Who waits to send.
    sender: Option<Waker>,
    /// Whether the stream is among those that wait for what all share.
    waits_for_room: bool,
}

/// An item, the end of them, or neither yet.
pub(crate) enum Taken {
    /// An item, and the length of its frame in bytes.
    Item(Lease, u64),
    Ended,
}

impl Inboxes {
    /// Enters a stream.
    pub(crate) fn begin(&self, stream: StreamId) {
        let mut inboxes = self.of(stream).borrow_mut();
        let slot = stream.call.slot() as usize;
        if slot >= inboxes.len() {
            inboxes.resize_with(slot + 1, || None);
        }
        inboxes[slot] = Some(Box::new(Inbox {
            generation: stream.call.generation(),
            has_ended: false,
            items: VecDeque::new(),
            taker: None,
            sender: None,
            waits_for_room: false,
        }));
    }

    /// Forgets a stream, and lets go of its items.
    pub(crate) fn end(&self, stream: StreamId) {
        let mut inboxes = self.of(stream).borrow_mut();
        if let Some(entry) = inboxes.get_mut(stream.call.slot() as usize)
            && entry.as_ref().is_some_and(|inbox| inbox.is_of(stream.call))
        {
            let ended = entry.take();
            drop(inboxes);
            // Buffers go back where they came from.
            drop(ended);
        }
    }

    /// An item has come.
    pub(crate) fn push(&self, shard: &Shard, stream: StreamId, item: Lease, frame_len: u64) {
        let waker = self.with(stream, |inbox| {
            inbox.items.push_back((item, frame_len));
            inbox.taker.take()
        });
        waker.flatten().iter().for_each(|waker| shard.wake_task(waker));
    }

    /// No more items come.
    pub(crate) fn ended(&self, shard: &Shard, stream: StreamId) {
        let waker = self.with(stream, |inbox| {
            inbox.has_ended = true;
            inbox.taker.take()
        });
        waker.flatten().iter().for_each(|waker| shard.wake_task(waker));
    }

    /// The next item, or the end. A stream that is not there has ended.
    pub(crate) fn poll_next(&self, stream: StreamId, waker: &Waker) -> Poll<Taken> {
        let next = self.with(stream, |inbox| match inbox.items.pop_front() {
            Some((item, frame_len)) => Poll::Ready(Taken::Item(item, frame_len)),
            None if inbox.has_ended => Poll::Ready(Taken::Ended),
            None => {
                keep(&mut inbox.taker, waker);
                Poll::Pending
            }
        });
        next.unwrap_or(Poll::Ready(Taken::Ended))
    }

    /// Notes who waits for the credit of a stream.
    pub(crate) fn wait_for_credit(&self, stream: StreamId, waker: &Waker) {
        self.with(stream, |inbox| keep(&mut inbox.sender, waker));
    }

    /// Notes who waits for what all streams share.
    pub(crate) fn wait_for_room(&self, stream: StreamId, waker: &Waker) {
        let is_new = self.with(stream, |inbox| {
            keep(&mut inbox.sender, waker);
            !std::mem::replace(&mut inbox.waits_for_room, true)
        });
        if is_new == Some(true) {
            self.senders.borrow_mut().push(stream);
        }
    }

    /// There is credit for a stream.
    pub(crate) fn credited(&self, shard: &Shard, stream: StreamId) {
        let waker = self.with(stream, |inbox| inbox.sender.take());
        waker.flatten().iter().for_each(|waker| shard.wake_task(waker));
    }

    /// Whether somebody waits for what all streams share.
    #[inline]
    pub(crate) fn any_waits(&self) -> bool {
        !self.senders.borrow().is_empty()
    }

    /// There is room for all streams, or there never will be.
    pub(crate) fn wake_senders(&self, shard: &Shard) {
        let senders = std::mem::take(&mut *self.senders.borrow_mut());
        for stream in senders {
            let waker = self.with(stream, |inbox| {
                inbox.waits_for_room = false;
                inbox.sender.take()
            });
            waker.flatten().iter().for_each(|waker| shard.wake_task(waker));
        }
    }

    /// The connection is closed: wakes everybody, to find that out.
    pub(crate) fn wake_all(&self, shard: &Shard) {
        self.wake_senders(shard);
        for inboxes in [&self.made, &self.served] {
            let wakers: Vec<_> = (inboxes.borrow_mut().iter_mut().flatten())
                .flat_map(|inbox| {
                    inbox.has_ended = true;
                    [inbox.taker.take(), inbox.sender.take()]
                })
                .flatten()
                .collect();
            wakers.iter().for_each(|waker| shard.wake_task(waker));
        }
    }

    fn of(&self, stream: StreamId) -> &RefCell<Vec<Option<Box<Inbox>>>> {
        if stream.is_made_here { &self.made } else { &self.served }
    }

    fn with<R>(&self, stream: StreamId, with: impl FnOnce(&mut Inbox) -> R) -> Option<R> {
        let mut inboxes = self.of(stream).borrow_mut();
        let inbox = inboxes.get_mut(stream.call.slot() as usize)?.as_mut()?;
        inbox.is_of(stream.call).then(|| with(inbox))
    }
}

impl Inbox {
    fn is_of(&self, call: CallId) -> bool {
        self.generation == call.generation()
    }
}

fn keep(place: &mut Option<Waker>, waker: &Waker) {
    match place {
        Some(kept) => kept.clone_from(waker),
        None => *place = Some(waker.clone()),
    }
}

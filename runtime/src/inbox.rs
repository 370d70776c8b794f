//! Items that have come and wait to be taken, and who waits to send more.
//!
//! Between the session and the two ends of a stream. An entry is there while the stream's call
//! runs; its items are bounded by the credit that this end has granted.

use std::{
    cell::{OnceCell, RefCell},
    collections::VecDeque,
    task::{Poll, Waker},
};

use ringcall_codec::{CallId, StreamId};

use crate::{ring::Lease, shard::Shard, slab::grow};

/// The streams of a connection. Its tables are made for the first of them.
#[derive(Default)]
pub(crate) struct Inboxes(OnceCell<Box<Tables>>);

/// Streams by slot: those of calls made here, and those of calls served here.
#[derive(Default)]
struct Tables {
    made: RefCell<Box<[Inbox]>>,
    served: RefCell<Box<[Inbox]>>,
    /// The streams that wait for what all share: the connection's credit, or room in its send
    /// buffer. Each is here once at most.
    senders: RefCell<Vec<StreamId>>,
}

/// The place of a stream in the table: small, as there can be thousands that idle.
struct Inbox {
    /// Zero where there is no stream.
    generation: u32,
    end: End,
    /// Whether the stream is among those that wait for what all share.
    waits_for_room: bool,
    /// Who waits for an item.
    taker: Option<Waker>,
    /// Made for the first item or sender that waits.
    queues: Option<Box<Queues>>,
}

const _: () = assert!(size_of::<Inbox>() == 32);

#[derive(Default)]
struct Queues {
    /// Items, and the lengths of their frames in bytes.
    items: VecDeque<(Lease, u64)>,
    /// Who waits to send: often one, or none.
    senders: Vec<Waker>,
}

/// Whether more items come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// There may be more.
    Open,
    /// Their sender has said that there are no more.
    Ended,
    /// It has not, and no more come.
    Cut,
}

/// An item, the end of them, or neither yet.
pub(crate) enum Taken {
    /// An item, and the length of its frame in bytes.
    Item(Lease, u64),
    /// Their sender has said that there are no more.
    Ended,
    /// It has not, and no more come.
    Cut,
}

impl Inboxes {
    /// Enters a stream.
    pub(crate) fn begin(&self, stream: StreamId) {
        let mut inboxes = self.0.get_or_init(Box::default).of(stream).borrow_mut();
        let slot = stream.call.slot() as usize;
        grow(&mut inboxes, slot + 1, || Inbox::of_generation(0));
        let inbox = Inbox::of_generation(stream.call.generation());
        let before = std::mem::replace(&mut inboxes[slot], inbox);
        drop(inboxes);
        // What an earlier call has left, whose outcome was taken and whose stream is still there.
        drop(before);
    }

    /// Forgets a stream, and lets go of its items. Who still waits finds that out.
    pub(crate) fn end(&self, shard: &Shard, stream: StreamId) {
        let Some(tables) = self.0.get() else { return };
        let mut inboxes = tables.of(stream).borrow_mut();
        if let Some(inbox) = inboxes.get_mut(stream.call.slot() as usize)
            && inbox.is_of(stream.call)
        {
            let ended = std::mem::replace(inbox, Inbox::of_generation(0));
            drop(inboxes);
            let Queues { items, senders } = ended.queues.map(|queues| *queues).unwrap_or_default();
            senders.iter().chain(&ended.taker).for_each(|waker| shard.wake_task(waker));
            // Buffers go back where they came from.
            drop(items);
        }
    }

    /// An item has come.
    pub(crate) fn push(&self, shard: &Shard, stream: StreamId, item: Lease, frame_len: u64) {
        let waker = self.with(stream, |inbox| {
            inbox.queues().items.push_back((item, frame_len));
            inbox.taker.take()
        });
        waker.flatten().iter().for_each(|waker| shard.wake_task(waker));
    }

    /// Their sender has said that no more items come.
    pub(crate) fn ended(&self, shard: &Shard, stream: StreamId) {
        let waker = self.with(stream, |inbox| {
            inbox.end = End::Ended;
            inbox.taker.take()
        });
        waker.flatten().iter().for_each(|waker| shard.wake_task(waker));
    }

    /// No more items of a stream come: wakes who waits, to find that out.
    pub(crate) fn cut_one(&self, shard: &Shard, stream: StreamId) {
        let taker = self.with(stream, Inbox::cut);
        taker.flatten().iter().for_each(|waker| shard.wake_task(waker));
        self.wake_senders_of(shard, stream);
    }

    /// The next item, or the end. A stream that is not there was cut.
    pub(crate) fn poll_next(&self, stream: StreamId, waker: &Waker) -> Poll<Taken> {
        let next = self.with(stream, |inbox| match (inbox.pop(), inbox.end) {
            (Some((item, frame_len)), _) => Poll::Ready(Taken::Item(item, frame_len)),
            (None, End::Ended) => Poll::Ready(Taken::Ended),
            (None, End::Cut) => Poll::Ready(Taken::Cut),
            (None, End::Open) => {
                match &mut inbox.taker {
                    Some(kept) => kept.clone_from(waker),
                    None => inbox.taker = Some(waker.clone()),
                }
                Poll::Pending
            }
        });
        next.unwrap_or(Poll::Ready(Taken::Cut))
    }

    /// Notes who waits for the credit of a stream.
    pub(crate) fn wait_for_credit(&self, stream: StreamId, waker: &Waker) {
        self.with(stream, |inbox| inbox.add_sender(waker));
    }

    /// Notes who waits for what all streams share.
    pub(crate) fn wait_for_room(&self, stream: StreamId, waker: &Waker) {
        let is_new = self.with(stream, |inbox| {
            inbox.add_sender(waker) && !std::mem::replace(&mut inbox.waits_for_room, true)
        });
        if is_new == Some(true)
            && let Some(tables) = self.0.get()
        {
            tables.senders.borrow_mut().push(stream);
        }
    }

    /// There is credit for a stream, or there never will be: wakes everybody who waits to send.
    #[inline]
    pub(crate) fn wake_senders_of(&self, shard: &Shard, stream: StreamId) {
        // So on every connection without streams.
        if self.0.get().is_some() {
            self.wake_senders_of_some(shard, stream);
        }
    }

    fn wake_senders_of_some(&self, shard: &Shard, stream: StreamId) {
        let senders = self.with(stream, |inbox| match &mut inbox.queues {
            Some(queues) if !queues.senders.is_empty() => Some(std::mem::take(&mut queues.senders)),
            _ => None,
        });
        if let Some(mut senders) = senders.flatten() {
            senders.drain(..).for_each(|waker| shard.wake_task(&waker));
            self.with(stream, |inbox| keep_place(&mut inbox.queues().senders, senders));
        }
    }

    /// Whether somebody waits for what all streams share.
    #[inline]
    pub(crate) fn any_waits(&self) -> bool {
        self.0.get().is_some_and(|tables| !tables.senders.borrow().is_empty())
    }

    /// There is room for all streams, or there never will be.
    pub(crate) fn wake_senders(&self, shard: &Shard) {
        let Some(tables) = self.0.get() else { return };
        let mut senders = std::mem::take(&mut *tables.senders.borrow_mut());
        for stream in senders.drain(..) {
            self.with(stream, |inbox| inbox.waits_for_room = false);
            self.wake_senders_of(shard, stream);
        }
        keep_place(&mut tables.senders.borrow_mut(), senders);
    }

    /// Neither items nor credit come any more: wakes everybody, to find that out.
    pub(crate) fn cut(&self, shard: &Shard) {
        self.wake_senders(shard);
        let Some(tables) = self.0.get() else { return };
        for inboxes in [&tables.made, &tables.served] {
            let wakers: Vec<_> = (inboxes.borrow_mut().iter_mut())
                .flat_map(|inbox| {
                    let taker = inbox.cut();
                    let queues = inbox.queues.iter_mut();
                    queues.flat_map(|queues| queues.senders.drain(..)).chain(taker)
                })
                .collect();
            wakers.iter().for_each(|waker| shard.wake_task(waker));
        }
    }

    /// Gives memory back where no stream is.
    pub(crate) fn shrink_to_fit(&self) {
        let Some(tables) = self.0.get() else { return };
        for inboxes in [&tables.made, &tables.served] {
            let mut inboxes = inboxes.borrow_mut();
            if inboxes.iter().all(|inbox| inbox.generation == 0) {
                *inboxes = Box::default();
            }
        }
        tables.senders.borrow_mut().shrink_to_fit();
    }

    fn with<R>(&self, stream: StreamId, with: impl FnOnce(&mut Inbox) -> R) -> Option<R> {
        let mut inboxes = self.0.get()?.of(stream).borrow_mut();
        let inbox = inboxes.get_mut(stream.call.slot() as usize)?;
        inbox.is_of(stream.call).then(|| with(inbox))
    }
}

impl Tables {
    fn of(&self, stream: StreamId) -> &RefCell<Box<[Inbox]>> {
        if stream.is_made_here { &self.made } else { &self.served }
    }
}

/// Gives a list back the place in memory that it had, where it has none meanwhile.
fn keep_place<T>(list: &mut Vec<T>, emptied: Vec<T>) {
    if list.capacity() == 0 {
        *list = emptied;
    }
}

impl Inbox {
    fn of_generation(generation: u32) -> Self {
        Self { generation, end: End::Open, waits_for_room: false, taker: None, queues: None }
    }

    fn queues(&mut self) -> &mut Queues {
        self.queues.get_or_insert_default()
    }

    fn pop(&mut self) -> Option<(Lease, u64)> {
        self.queues.as_mut()?.items.pop_front()
    }

    fn is_of(&self, call: CallId) -> bool {
        self.generation == call.generation()
    }

    /// No more items come. Whom to tell.
    fn cut(&mut self) -> Option<Waker> {
        if self.end == End::Open {
            self.end = End::Cut;
        }
        self.taker.take()
    }

    /// Notes who waits to send. False where that is nobody.
    fn add_sender(&mut self, waker: &Waker) -> bool {
        if waker.will_wake(Waker::noop()) {
            return false;
        }
        let senders = &mut self.queues().senders;
        if !senders.iter().any(|kept| kept.will_wake(waker)) {
            senders.push(waker.clone());
        }
        true
    }
}

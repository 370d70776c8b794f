//! What a handle's shard is asked to do: a queue that any thread adds to.
//!
//! The shard gets one errand for all that is in the queue, so a caller that finds it on its way
//! adds an entry and does nothing else.

use std::{
    rc::Rc,
    sync::{
        Arc,
        atomic::{
            AtomicBool,
            Ordering::{Relaxed, SeqCst},
            fence,
        },
    },
};

use crossbeam::{queue::SegQueue, utils::CachePadded};

use super::{
    call::{CallPlace, Submission},
    client::Connecting,
    room::Room,
};
use crate::{config::HANDLE_ENTRIES_PER_TURN_MAX, counters::Counters, mail::Mailbox, shard::Shard};

/// What a handle, its clients and its shard share.
pub(super) struct Shared {
    /// Bounded by the room for calls: each has two entries at most, its making and its giving up.
    /// Beside those there are as few as there are connections.
    queue: SegQueue<Entry>,
    /// Whether an errand for the queue is on its way.
    is_posted: CachePadded<AtomicBool>,
    /// Whether a `Tend` is on its way.
    is_tended: AtomicBool,
    /// Set once nobody takes anything out of the queue any more.
    is_closed: AtomicBool,
    mail: Arc<Mailbox>,
    /// Number of the queue in the mailbox for those who are on no shard.
    sender: usize,
    pub(super) room: Room,
    pub(super) counters: Arc<CachePadded<Counters>>,
}

/// Something for the shard to do.
pub(super) enum Entry {
    /// Makes a call.
    Call(Submission),
    /// Gives a call up: nobody waits for its outcome any more.
    GiveUp(Arc<CallPlace>),
    /// A connection has room again for the calls that wait for it.
    Room { port: u64 },
    /// Connects.
    Connect(Box<Connecting>),
    /// Closes the connection of a client that was dropped.
    Close { port: u64 },
    /// Looks after those who wait for room in the handle: the first deadline of theirs is earlier.
    Tend,
    /// Ends the shard.
    Stop,
}

impl Shared {
    pub(super) fn new(
        mail: Arc<Mailbox>,
        sender: usize,
        calls_max: usize,
        counters: Arc<CachePadded<Counters>>,
    ) -> Self {
        Self {
            queue: SegQueue::new(),
            is_posted: CachePadded::default(),
            is_tended: AtomicBool::new(false),
            is_closed: AtomicBool::new(false),
            mail,
            sender,
            room: Room::new(calls_max),
            counters,
        }
    }

    /// Leaves something for the shard. Dropped where that has ended, which tells who waits for it.
    pub(super) fn push(self: &Arc<Self>, entry: Entry) {
        self.queue.push(entry);
        // Pairs with the fence in `run`: either this sees that the errand is under way and will be
        // followed by another, or the shard sees the entry.
        fence(SeqCst);
        if self.is_closed.load(Relaxed) {
            return self.clear();
        }
        // Most often it is set, and then is only read.
        if !self.is_posted.load(Relaxed) && !self.is_posted.swap(true, Relaxed) {
            self.post();
        }
    }

    /// Has the shard look after those who wait for room.
    pub(super) fn tend(self: &Arc<Self>) {
        if !self.is_tended.swap(true, SeqCst) {
            self.push(Entry::Tend);
        }
    }

    /// The shard looks after those who wait for room: from now on it is to be told anew.
    pub(super) fn tends(&self) {
        self.is_tended.store(false, SeqCst);
    }

    /// Does what is asked for, up to a number of entries; the others have the next turn.
    pub(super) fn run(self: &Arc<Self>, shard: &Rc<Shard>) {
        self.is_posted.store(false, Relaxed);
        fence(SeqCst);
        for _ in 0..HANDLE_ENTRIES_PER_TURN_MAX {
            let Some(entry) = self.queue.pop() else { return };
            shard.ports.take(shard, self, entry);
        }
        if !self.queue.is_empty() && !self.is_posted.swap(true, Relaxed) {
            self.post();
        }
    }

    /// Takes nothing more; who waits for something finds out that the shard has ended.
    pub(super) fn close(&self) {
        self.is_closed.store(true, SeqCst);
        fence(SeqCst);
        self.clear();
        self.room.wake_all();
    }

    /// Whether the shard has ended.
    pub(super) fn is_closed(&self) -> bool {
        self.is_closed.load(SeqCst)
    }

    /// There is room for the errand: the queue for it holds no others, and it is there once.
    fn post(self: &Arc<Self>) {
        let shared = Arc::clone(self);
        let posted = self.mail.post(self.sender, Box::new(move |shard| shared.run(shard)));
        // A mailbox that is closed is that of a shard that ends, which closes this too.
        drop(posted);
    }

    fn clear(&self) {
        while self.queue.pop().is_some() {}
    }
}

//! Mail: work that a shard gets from other threads.
//!
//! Beside the path of a call. Who has something done on another shard leaves an errand in a queue
//! of its own there, and the shard's driver runs it in its next turn. A shard that is busy looks
//! at one flag a turn and is not disturbed; one that waits is woken. Every queue is bounded: what
//! is not taken at once is given back.

use std::{
    io,
    rc::Rc,
    sync::{
        Arc,
        atomic::{
            AtomicBool, AtomicU8, AtomicUsize,
            Ordering::{Acquire, Relaxed, Release, SeqCst},
            fence,
        },
    },
};

use crossbeam::{
    queue::{ArrayQueue, SegQueue},
    utils::CachePadded,
};

use crate::{
    config::{ERRANDS_PER_TURN_MAX, ERRANDS_WAITING_MAX},
    ring::Bell,
    shard::Shard,
};

/// Work for a shard, done by its driver between two completions: it must not wait. Dropped undone
/// where the shard has ended; whoever waits for it has to find that out from the drop.
pub(crate) type Errand = Box<dyn FnOnce(&Rc<Shard>) + Send>;

/// Where a shard finds its errands. Shared with everybody who may send it some.
pub(crate) struct Mailbox {
    /// A queue for each sender, so that none fills another's.
    requests: Box<[ArrayQueue<Errand>]>,
    /// What this shard asked for elsewhere. Bounded by what it asked for.
    answers: SegQueue<Errand>,
    has_mail: CachePadded<AtomicBool>,
    /// A [`Wait`]: where the shard waits, or is about to.
    waits: AtomicU8,
    is_closed: AtomicBool,
    /// Wakes the shard where it waits in its ring, which watches it.
    ring_bell: Bell,
    /// Wakes the shard's executor.
    bell: Bell,
    /// Connections that the shard has accepted and has, and those that are on their way to it.
    /// Looked at where one is accepted.
    connections: CachePadded<AtomicUsize>,
}

/// Where a shard waits for something to do.
///
/// One descriptor cannot wake both: the kernel does not ring the executor's bell from within the
/// ringing of one that the ring watches, not at once.
#[derive(Clone, Copy)]
#[repr(u8)]
pub(crate) enum Wait {
    Nowhere,
    InRing,
    InExecutor,
}

/// The mailboxes of a server's shards, by number: how they reach each other.
#[derive(Clone)]
pub(crate) struct Mailboxes(Arc<[Arc<Mailbox>]>);

impl Mailboxes {
    /// Those of so many shards. In each there is a queue for every shard, and one more for who is
    /// on none of them.
    pub(crate) fn new(shards: usize) -> io::Result<Self> {
        (0..shards).map(|_| Mailbox::new(shards + 1)).collect::<io::Result<_>>().map(Self)
    }

    /// That of one shard.
    pub(crate) fn of(&self, shard: u16) -> Option<&Arc<Mailbox>> {
        self.0.get(usize::from(shard))
    }

    /// The shard that has the fewest connections, where this one has more.
    pub(crate) fn with_fewer_connections(&self, than: u16) -> Option<u16> {
        let count = |mailbox: &Mailbox| mailbox.connections.load(Relaxed);
        let (fewest, least) = (0..).zip(self.0.iter()).min_by_key(|(_, mailbox)| count(mailbox))?;
        let own = self.of(than)?;
        (count(least) < count(own)).then_some(fewest)
    }

    #[allow(dead_code, reason = "for those who are on no shard")]
    /// Number of the queue for those who are on no shard of the server.
    pub(crate) fn outsiders(&self) -> usize {
        self.0.len()
    }
}

/// Why an errand is not taken; it is given back.
#[allow(dead_code, reason = "what is given back may be dropped unseen")]
pub(crate) enum Refused {
    /// As many wait as may.
    Full(Errand),
    /// The shard has ended.
    Closed(Errand),
}

impl Mailbox {
    /// A mailbox for so many senders, at least one.
    pub(crate) fn new(senders: usize) -> io::Result<Arc<Self>> {
        let requests = (0..senders.max(1)).map(|_| ArrayQueue::new(ERRANDS_WAITING_MAX)).collect();
        Ok(Arc::new(Self {
            requests,
            answers: SegQueue::new(),
            has_mail: CachePadded::default(),
            waits: AtomicU8::new(Wait::Nowhere as u8),
            is_closed: AtomicBool::new(false),
            ring_bell: Bell::new()?,
            bell: Bell::new()?,
            connections: CachePadded::default(),
        }))
    }

    /// What wakes the shard's executor.
    pub(crate) fn bell(&self) -> &Bell {
        &self.bell
    }

    /// What wakes the shard where it waits in its ring; for the ring to watch.
    pub(crate) fn ring_bell(&self) -> &Bell {
        &self.ring_bell
    }

    /// Leaves an errand in a sender's queue. From any thread.
    pub(crate) fn post(&self, sender: usize, errand: Errand) -> Result<(), Refused> {
        if self.is_closed.load(Acquire) {
            return Err(Refused::Closed(errand));
        }
        match self.requests.get(sender) {
            Some(queue) => queue.push(errand).map_err(Refused::Full)?,
            None => return Err(Refused::Full(errand)),
        }
        self.notify();
        Ok(())
    }

    /// Counts a connection that the shard gets.
    pub(crate) fn connection_comes(&self) {
        self.connections.fetch_add(1, Relaxed);
    }

    /// Counts a connection that the shard has no more, or does not get.
    pub(crate) fn connection_goes(&self) {
        self.connections.fetch_sub(1, Relaxed);
    }

    /// Has the shard look for what was left elsewhere for it.
    pub(crate) fn wake(&self) {
        self.notify();
    }

    /// Whether the shard has ended.
    pub(crate) fn is_closed(&self) -> bool {
        self.is_closed.load(Acquire)
    }

    /// Leaves the answer to something that this shard asked for: there is always room for it.
    /// Dropped where the shard has ended.
    pub(crate) fn answer(&self, errand: Errand) {
        self.answers.push(errand);
        self.notify();
    }

    /// Whether errands wait.
    #[inline]
    pub(crate) fn has_mail(&self) -> bool {
        self.has_mail.load(Relaxed)
    }

    /// Says that the shard is about to wait. What was left before is to be looked for after this;
    /// what is left later wakes it.
    pub(crate) fn fall_asleep(&self, wait: Wait) {
        self.waits.store(wait as u8, Relaxed);
        // Pairs with the fence in `notify`: either the sender sees that the shard waits, or the
        // shard sees the mail.
        fence(SeqCst);
    }

    /// Says that the shard is awake.
    pub(crate) fn wake_up(&self) {
        self.waits.store(Wait::Nowhere as u8, Relaxed);
    }

    /// Runs the errands that wait, up to a number; the others have the next turn. False where
    /// there was none.
    pub(crate) fn run(&self, shard: &Rc<Shard>) -> bool {
        // Acquire: what is found below was pushed before the flag was set.
        if !self.has_mail.swap(false, Acquire) {
            return false;
        }
        let mut left = ERRANDS_PER_TURN_MAX;
        while left > 0
            && let Some(errand) = self.answers.pop()
        {
            left -= 1;
            errand(shard);
        }
        // Each sender has its share of what is left, so that a busy one does not hold up others.
        let share = (left / self.requests.len()).max(1);
        for queue in &self.requests {
            for _ in 0..share {
                let Some(errand) = queue.pop() else { break };
                errand(shard);
            }
        }
        if !self.is_empty() {
            self.has_mail.store(true, Relaxed);
        }
        true
    }

    /// Takes no more errands, and drops those that wait.
    pub(crate) fn close(&self) {
        self.is_closed.store(true, SeqCst);
        self.clear();
    }

    fn notify(&self) {
        self.has_mail.store(true, Release);
        fence(SeqCst);
        if self.is_closed.load(Relaxed) {
            // It was closed meanwhile, and may not have seen what was left.
            return self.clear();
        }
        if self.waits.load(Relaxed) == Wait::Nowhere as u8 {
            return;
        }
        // Of several who see that it waits, one wakes it.
        match self.waits.swap(Wait::Nowhere as u8, Relaxed) {
            wait if wait == Wait::InRing as u8 => self.ring_bell.ring(),
            wait if wait == Wait::InExecutor as u8 => self.bell.ring(),
            _ => {}
        }
    }

    fn is_empty(&self) -> bool {
        self.answers.is_empty() && self.requests.iter().all(ArrayQueue::is_empty)
    }

    fn clear(&self) {
        while self.answers.pop().is_some() {}
        self.requests.iter().for_each(|queue| while queue.pop().is_some() {});
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

    use std::{
        future::poll_fn,
        sync::{
            Mutex,
            mpsc::{Sender, channel},
        },
        task::{Poll, Waker},
        thread,
    };

    use super::*;

    /// Tells when it is dropped, done or not.
    struct Told(Sender<()>);

    impl Drop for Told {
        fn drop(&mut self) {
            let _ = self.0.send(());
        }
    }

    fn errand(told: &Sender<()>) -> Errand {
        let told = Told(told.clone());
        Box::new(move |_| drop(told))
    }

    #[test]
    fn a_sender_that_fills_its_queue_is_refused_and_no_other() {
        let mailbox = Mailbox::new(2).unwrap();
        let (told, dropped) = channel();
        for _ in 0..ERRANDS_WAITING_MAX {
            assert!(mailbox.post(0, errand(&told)).is_ok());
        }
        assert!(matches!(mailbox.post(0, errand(&told)), Err(Refused::Full(_))));
        assert!(mailbox.post(1, errand(&told)).is_ok());
        assert!(matches!(mailbox.post(2, errand(&told)), Err(Refused::Full(_))));
        assert_eq!(dropped.try_iter().count(), 2, "those that were given back");
        mailbox.close();
        assert_eq!(dropped.try_iter().count(), ERRANDS_WAITING_MAX + 1);
    }

    #[test]
    fn a_closed_mailbox_takes_nothing_and_keeps_nothing() {
        let mailbox = Mailbox::new(1).unwrap();
        let (told, dropped) = channel();
        mailbox.close();
        assert!(matches!(mailbox.post(0, errand(&told)), Err(Refused::Closed(_))));
        mailbox.answer(errand(&told));
        assert_eq!(dropped.try_iter().count(), 2);
    }

    #[test]
    fn errands_wake_a_shard_that_sleeps_and_run_in_order() {
        const ERRANDS: usize = 2000;
        let numbers = crate::run(async {
            let shard = Shard::existing().unwrap();
            let (mailbox, counters) = (Arc::clone(&shard.remote.mail), Arc::clone(&shard.counters));
            let (send, received) = channel();
            let waker = Arc::new(Mutex::new(None::<Waker>));
            let to_wake = Arc::clone(&waker);
            let sender = thread::spawn(move || {
                for number in 0..ERRANDS {
                    let (send, to_wake) = (send.clone(), Arc::clone(&to_wake));
                    let mut errand: Errand = Box::new(move |shard| {
                        send.send(number).unwrap();
                        let waker = to_wake.lock().unwrap().take();
                        waker.iter().for_each(|waker| shard.wake_task(waker));
                    });
                    let parks = counters.parks.get();
                    while let Err(Refused::Full(back)) = mailbox.post(0, errand) {
                        errand = back;
                        thread::yield_now();
                    }
                    // Nothing else would wake it before its next beat.
                    while number % 100 == 0 && counters.parks.get() == parks {
                        thread::yield_now();
                    }
                }
            });
            let mut numbers = Vec::new();
            poll_fn(|cx| {
                *waker.lock().unwrap() = Some(cx.waker().clone());
                numbers.extend(received.try_iter());
                if numbers.len() < ERRANDS { Poll::Pending } else { Poll::Ready(()) }
            })
            .await;
            sender.join().unwrap();
            numbers
        });
        assert_eq!(numbers.unwrap(), (0..ERRANDS).collect::<Vec<_>>());
    }
}

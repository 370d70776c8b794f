//! What every part of a simulation shares: time, chance, what is to happen, and what is known of
//! each connection from above.

use std::{
    cmp::{Ordering, Reverse},
    collections::BinaryHeap,
};

use ringcall_codec::{Scratch, SessionError};

use crate::{
    items::{Handle, Items},
    ledger::Ledger,
    letter::Body,
    plan::{Fault, Plan},
    random::Random,
    trace::Trace,
};

/// One end of a connection: 0 is the client's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Place {
    pub(crate) conn: usize,
    pub(crate) side: usize,
}

impl Place {
    pub(crate) fn peer(self) -> Self {
        Self { side: 1 - self.side, ..self }
    }
}

/// Something that is to happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Task {
    /// The next piece for this end arrives.
    Deliver(Place),
    /// This end learns that its connection is broken.
    Broken(Place),
    /// The timer of this end fires.
    Timer(Place),
    /// This end has waited long enough for calls that run.
    Grace(Place),
    /// A handler has something to do.
    Work { at: Place, job: u64 },
    /// A caller gives up, if it still waits.
    Abandon { at: Place, call: u64 },
    /// A caller has taken its outcome.
    Release { at: Place, call: u64 },
    /// Somebody has items to send.
    Send { at: Place, stream: Handle },
    /// Somebody takes items that have come.
    Take { at: Place, stream: Handle },
    /// Somebody at one of the ends of this link makes a call.
    Call { link: usize },
    /// Calls until one succeeds.
    Probe { link: usize },
    /// A fault happens.
    Fault(Fault, u64),
    /// Faults and new calls stop.
    Calm,
    /// Everything must have come to its end.
    Settled,
    /// The probes must have succeeded.
    End,
}

/// What is known of a connection and neither end can know.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Facts {
    /// Bytes were changed on their way.
    pub(crate) is_tainted: bool,
    /// One end or one direction stood still.
    pub(crate) is_slowed: bool,
    /// Bytes had to wait for those before them.
    pub(crate) is_backlogged: bool,
    /// Why calls may be lost.
    pub(crate) excuse: Option<&'static str>,
}

impl Facts {
    /// Whether something that was done to the connection explains that an end gave it up.
    pub(crate) fn explains(&self, error: &SessionError) -> bool {
        match error {
            SessionError::NoHello | SessionError::FrameStalled => self.is_tainted || self.is_slowed,
            SessionError::PeerSilent => self.is_tainted || self.is_slowed || self.is_backlogged,
            _ => self.is_tainted,
        }
    }
}

/// A task in the queue. Two have never the same order, so that nothing else is compared.
struct Entry {
    at_us: u64,
    order: u64,
    task: Task,
}

impl Entry {
    fn key(&self) -> u128 {
        u128::from(self.at_us) << 64 | u128::from(self.order)
    }
}

impl PartialEq for Entry {
    fn eq(&self, other: &Self) -> bool {
        self.key() == other.key()
    }
}

impl Eq for Entry {}

impl PartialOrd for Entry {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Entry {
    fn cmp(&self, other: &Self) -> Ordering {
        self.key().cmp(&other.key())
    }
}

pub(crate) struct Core {
    pub(crate) now_us: u64,
    pub(crate) random: Random,
    pub(crate) plan: Plan,
    pub(crate) trace: Trace,
    pub(crate) ledger: Ledger,
    pub(crate) items: Items,
    pub(crate) scratch: Scratch,
    /// Where the payload of a frame is put while it is looked at.
    pub(crate) payload: Body,
    /// By connection.
    pub(crate) facts: Vec<Facts>,
    pub(crate) is_calm: bool,
    /// Numbers for handlers at work.
    pub(crate) jobs: u64,
    queue: BinaryHeap<Reverse<Entry>>,
    /// Tasks so far, so that those of one time are done in the order in which they were put in.
    order: u64,
}

impl Core {
    pub(crate) fn new(seed: u64, prints: bool) -> Self {
        let mut random = Random::new(seed);
        let plan = Plan::new(&mut random);
        let trace = Trace::new(prints);
        trace.say(|| format!("seed {seed}: {plan:#?}"));
        Self {
            now_us: 0,
            random,
            plan,
            trace,
            ledger: Ledger::default(),
            items: Items::default(),
            scratch: Scratch::default(),
            payload: Body::new(),
            facts: Vec::new(),
            is_calm: false,
            jobs: 0,
            queue: BinaryHeap::new(),
            order: 0,
        }
    }

    pub(crate) fn at(&mut self, at_us: u64, task: Task) {
        self.order += 1;
        let (at_us, order) = (at_us.max(self.now_us), self.order);
        self.queue.push(Reverse(Entry { at_us, order, task }));
    }

    pub(crate) fn after(&mut self, delay_us: u64, task: Task) {
        self.at(self.now_us + delay_us, task);
    }

    /// The next task; time goes on to it.
    pub(crate) fn next(&mut self) -> Option<Task> {
        let Reverse(Entry { at_us, task, .. }) = self.queue.pop()?;
        self.now_us = at_us;
        Some(task)
    }

    /// How many tasks there were.
    pub(crate) fn tasks(&self) -> u64 {
        self.order
    }

    pub(crate) fn facts(&mut self, at: Place) -> &mut Facts {
        &mut self.facts[at.conn]
    }

    /// Whether the ledger's word is law on this connection.
    pub(crate) fn is_sure(&self, at: Place) -> bool {
        !self.facts[at.conn].is_tainted
    }

    /// Says why calls on a connection may be lost; the first reason stays.
    pub(crate) fn excuse(&mut self, at: Place, why: &'static str) {
        self.facts[at.conn].excuse.get_or_insert(why);
    }

    /// Notes that something happened at an end.
    pub(crate) fn note(&mut self, at: Place, what: &'static str, details: &[u64]) {
        let mut all = [at.conn as u64, at.side as u64, 0, 0, 0];
        all[2..2 + details.len()].copy_from_slice(details);
        self.trace.note(self.now_us, what, &all[..2 + details.len()]);
    }
}

//! The ledger: what both ends know of each call, in a word for each.
//!
//! All ends of a run are in one process, so that the two sides of every call meet here. An id is
//! given once; whatever happens to it is entered at once, and what must not be is a fault.

use std::{
    fmt::Display,
    sync::{
        Mutex,
        atomic::{AtomicU16, AtomicU64, Ordering::Relaxed},
    },
};

/// What a call is: three bits of its word, never zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Unary = 1,
    OneWay,
    /// Items travel to the handler.
    Collect,
    /// Items travel to the caller.
    Deliver,
    /// Items travel both ways.
    Converse,
    /// The handler calls its caller.
    AskBack,
}

impl Kind {
    pub(crate) const ALL: [Self; 6] =
        [Self::Unary, Self::OneWay, Self::Collect, Self::Deliver, Self::Converse, Self::AskBack];
}

/// What the caller knows at last: three bits of the call's word, never zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    Replied = 1,
    /// The handler said so.
    Failed,
    /// Not executed.
    Refused,
    Expired,
    /// The caller gave up.
    Abandoned,
    /// The connection ended first.
    Lost,
    /// Of a one-way call: it is in the send buffer.
    Sent,
}

impl Outcome {
    pub(crate) const ALL: [Self; 7] = [
        Self::Replied,
        Self::Failed,
        Self::Refused,
        Self::Expired,
        Self::Abandoned,
        Self::Lost,
        Self::Sent,
    ];
}

/// How a handler ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    Answered,
    Failed,
    Dropped,
}

/// What must not be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// No outcome, or one that says nothing although there was an answer.
    Lost,
    /// A second outcome, a handler that began twice, an item that came twice.
    Duplicated,
    /// What belongs to another call, or is not as it was sent.
    Crossed,
    /// An outcome that does not agree with what the other end knows.
    Untrue,
}

impl Fault {
    pub(crate) const ALL: [Self; 4] = [Self::Lost, Self::Duplicated, Self::Crossed, Self::Untrue];
}

const KIND: u16 = 0b111;
const OUTCOME_SHIFT: u32 = 3;
const OUTCOME: u16 = 0b111 << OUTCOME_SHIFT;
const BEGUN: u16 = 1 << 6;
const ANSWERED: u16 = 1 << 7;
const FAILED: u16 = 1 << 8;
const DROPPED: u16 = 1 << 9;
const NOTICED: u16 = 1 << 10;
/// It has a deadline.
const EXPIRES: u16 = 1 << 11;
/// Its caller may give it up.
const MAY_BE_ABANDONED: u16 = 1 << 12;
/// Its connection may be cut.
const CUT: u16 = 1 << 13;
/// A handler made it.
const FROM_HANDLER: u16 = 1 << 14;

/// Calls that handlers make may go beyond the number that was asked for: by as many as run when it
/// is reached.
const BEYOND: usize = 1 << 18;

/// Faults that are kept to be read.
const TOLD_MAX: usize = 20;

pub(crate) struct Book {
    next: AtomicU64,
    wanted: u64,
    calls: Box<[AtomicU16]>,
    faults: [AtomicU64; Fault::ALL.len()],
    told: Mutex<Vec<String>>,
    pub(crate) items: AtomicU64,
    pub(crate) body_bytes: AtomicU64,
    pub(crate) large_bodies: AtomicU64,
    pub(crate) connections: AtomicU64,
    pub(crate) cuts: AtomicU64,
    pub(crate) restarts: AtomicU64,
}

/// What a call is made with.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Terms {
    pub(crate) kind: Kind,
    pub(crate) expires: bool,
    pub(crate) may_be_abandoned: bool,
    pub(crate) is_cut: bool,
    pub(crate) is_from_handler: bool,
}

/// What has become of all calls.
#[derive(Debug, Default)]
pub(crate) struct Audit {
    pub(crate) made: u64,
    pub(crate) from_handlers: u64,
    pub(crate) kinds: [u64; Kind::ALL.len()],
    pub(crate) outcomes: [u64; Outcome::ALL.len()],
    pub(crate) faults: [u64; Fault::ALL.len()],
    /// Handlers that have begun: calls that were accepted.
    pub(crate) accepted: u64,
    /// One-way calls on connections that were not cut.
    pub(crate) one_ways: u64,
    pub(crate) delivered: u64,
    pub(crate) noticed: u64,
}

impl Book {
    /// For so many calls.
    pub(crate) fn new(wanted: u64) -> Self {
        let len = wanted as usize + BEYOND;
        Self {
            next: AtomicU64::new(0),
            wanted,
            calls: (0..len).map(|_| AtomicU16::new(0)).collect(),
            faults: Default::default(),
            told: Mutex::default(),
            items: AtomicU64::new(0),
            body_bytes: AtomicU64::new(0),
            large_bodies: AtomicU64::new(0),
            connections: AtomicU64::new(0),
            cuts: AtomicU64::new(0),
            restarts: AtomicU64::new(0),
        }
    }

    /// Calls that were made.
    pub(crate) fn made(&self) -> u64 {
        self.next.load(Relaxed)
    }

    /// Whether as many calls were made as are wanted.
    pub(crate) fn is_full(&self) -> bool {
        self.made() >= self.wanted
    }

    /// Enters a call that is about to be made, and gives it its id.
    pub(crate) fn enter(&self, terms: Terms) -> u64 {
        let id = self.next.fetch_add(1, Relaxed);
        let mut word = terms.kind as u16;
        for (holds, bit) in [
            (terms.expires, EXPIRES),
            (terms.may_be_abandoned, MAY_BE_ABANDONED),
            (terms.is_cut, CUT),
            (terms.is_from_handler, FROM_HANDLER),
        ] {
            word |= if holds { bit } else { 0 };
        }
        self.calls[id as usize].store(word, Relaxed);
        id
    }

    /// The handler of a call begins.
    pub(crate) fn begins(&self, id: u64, kind: Kind) {
        let Some(before) = self.set(id, BEGUN) else {
            return self.fault(Fault::Crossed, format!("{kind:?} {id} was never made"));
        };
        if before & BEGUN != 0 {
            self.fault(Fault::Duplicated, format!("{kind:?} {id} is executed again"));
        }
        if before & KIND != kind as u16 {
            self.fault(Fault::Crossed, format!("call {id} came as {kind:?}: {before:#06x}"));
        }
    }

    /// The handler of a call has ended.
    pub(crate) fn ends(&self, id: u64, end: End) {
        let bit = match end {
            End::Answered => ANSWERED,
            End::Failed => FAILED,
            End::Dropped => DROPPED,
        };
        if let Some(before) = self.set(id, bit)
            && (before & BEGUN == 0 || before & (ANSWERED | FAILED | DROPPED) != 0)
        {
            self.fault(Fault::Duplicated, format!("call {id} ends twice: {before:#06x}, {end:?}"));
        }
    }

    /// The caller has the outcome.
    pub(crate) fn settles(&self, id: u64, outcome: Outcome) {
        if let Some(before) = self.set(id, (outcome as u16) << OUTCOME_SHIFT)
            && before & OUTCOME != 0
        {
            let what = format!("call {id} has a second outcome: {before:#06x}, {outcome:?}");
            self.fault(Fault::Duplicated, what);
        }
    }

    /// The caller was told that a one-way call has failed.
    pub(crate) fn noticed(&self, id: u64, status: impl Display) {
        if let Some(before) = self.set(id, NOTICED) {
            if before & NOTICED != 0 {
                self.fault(Fault::Duplicated, format!("call {id} is noticed again: {status}"));
            }
            if before & KIND != Kind::OneWay as u16 {
                self.fault(
                    Fault::Crossed,
                    format!("call {id} is noticed: {before:#06x}, {status}"),
                );
            }
        }
    }

    /// Whether a one-way call has come to its end at either side.
    pub(crate) fn is_settled(&self, id: u64) -> bool {
        self.calls[id as usize].load(Relaxed) & (ANSWERED | FAILED | DROPPED | NOTICED) != 0
    }

    /// Enters what must not be.
    pub(crate) fn fault(&self, fault: Fault, what: impl Display) {
        self.faults[fault as usize].fetch_add(1, Relaxed);
        let mut told = self.told.lock().unwrap();
        if told.len() < TOLD_MAX {
            told.push(format!("{fault:?}: {what}"));
        }
    }

    /// The first of what must not be.
    pub(crate) fn told(&self) -> Vec<String> {
        self.told.lock().unwrap().clone()
    }

    /// What waits for something, to be read where a run hangs.
    pub(crate) fn open(&self) -> String {
        let words = (0..self.made()).zip(&self.calls).map(|(id, call)| (id, call.load(Relaxed)));
        let open = words.filter(|(_, word)| {
            let works = word & BEGUN != 0 && word & (ANSWERED | FAILED | DROPPED) == 0;
            works || outcome_of(*word).is_none()
        });
        let mut told = self.told();
        told.extend(open.take(TOLD_MAX).map(|(id, word)| format!("{id}: {}", in_words(word))));
        told.join("\n")
    }

    fn set(&self, id: u64, bits: u16) -> Option<u16> {
        let call = (id < self.made()).then(|| &self.calls[id as usize])?;
        Some(call.fetch_or(bits, Relaxed))
    }

    /// Closes the ledger, when both sides of every call have ended.
    pub(crate) fn audit(&self) -> Audit {
        let mut audit = Audit { made: self.made(), ..Audit::default() };
        for (id, call) in (0..audit.made).zip(&self.calls) {
            let word = call.load(Relaxed);
            if let Some((fault, what)) = judge(word) {
                self.fault(fault, format!("call {id}: {what} ({})", in_words(word)));
            }
            audit.count(word);
        }
        audit.faults = Fault::ALL.map(|fault| self.faults[fault as usize].load(Relaxed));
        audit
    }
}

impl Audit {
    fn count(&mut self, word: u16) {
        let has = |bits: u16| u64::from(word & bits != 0);
        self.kinds[usize::from(word & KIND) - 1] += 1;
        if let Some(outcome) = outcome_of(word) {
            self.outcomes[outcome as usize - 1] += 1;
        }
        self.accepted += has(BEGUN);
        self.from_handlers += has(FROM_HANDLER);
        let is_made = word & KIND == Kind::OneWay as u16 && outcome_of(word) == Some(Outcome::Sent);
        if is_made && word & CUT == 0 {
            self.one_ways += 1;
            self.delivered += has(ANSWERED);
            self.noticed += has(NOTICED);
        }
    }
}

fn outcome_of(word: u16) -> Option<Outcome> {
    let outcome = usize::from((word & OUTCOME) >> OUTCOME_SHIFT);
    outcome.checked_sub(1).map(|index| Outcome::ALL[index])
}

/// Whether what the two sides know of a call agrees, and is allowed.
fn judge(word: u16) -> Option<(Fault, &'static str)> {
    let has = |bits: u16| word & bits != 0;
    let ends = [ANSWERED, FAILED, DROPPED].into_iter().filter(|end| has(*end)).count();
    let is_one_way = word & KIND == Kind::OneWay as u16;
    if ends != usize::from(has(BEGUN)) {
        return Some((Fault::Lost, "its handler has not one end"));
    }
    let Some(outcome) = outcome_of(word) else {
        return Some((Fault::Lost, "it has no outcome"));
    };
    // A one-way call that was not made is refused, or was given up while it waited for room.
    let is_made = !matches!(outcome, Outcome::Refused | Outcome::Abandoned);
    if is_made && is_one_way != (outcome == Outcome::Sent) {
        return Some((Fault::Untrue, "its kind has no such outcome"));
    }
    let untrue = match outcome {
        Outcome::Replied => !has(ANSWERED),
        Outcome::Failed => !has(FAILED),
        Outcome::Refused => has(BEGUN),
        Outcome::Expired => !has(EXPIRES),
        Outcome::Abandoned => !has(MAY_BE_ABANDONED | CUT) || is_one_way && has(BEGUN),
        Outcome::Lost => false,
        Outcome::Sent => has(BEGUN) && has(NOTICED),
    };
    if untrue {
        return Some((Fault::Untrue, "its two sides do not agree"));
    }
    if has(CUT) {
        return None;
    }
    // A handler that nobody waits for may be there still when its connection is closed in order.
    let may_be_cut_off = has(FROM_HANDLER) && has(MAY_BE_ABANDONED);
    match outcome {
        Outcome::Lost if !may_be_cut_off => Some((Fault::Lost, "its connection was not cut")),
        Outcome::Sent if has(ANSWERED) == has(NOTICED) => {
            Some((Fault::Lost, "it was neither delivered nor noticed"))
        }
        _ => None,
    }
}

fn in_words(word: u16) -> String {
    let kind = Kind::ALL[usize::from(word & KIND) - 1];
    let mut text = format!("{kind:?}, {:?}", outcome_of(word));
    for (bit, name) in [
        (BEGUN, "begun"),
        (ANSWERED, "answered"),
        (FAILED, "failed"),
        (DROPPED, "dropped"),
        (NOTICED, "noticed"),
        (EXPIRES, "with a deadline"),
        (MAY_BE_ABANDONED, "may be given up"),
        (CUT, "may be cut"),
        (FROM_HANDLER, "made by a handler"),
    ] {
        if word & bit != 0 {
            text.push_str(", ");
            text.push_str(name);
        }
    }
    text
}

//! What the main thread and the client threads of a run tell each other.
//!
//! Client threads connect, say that they are ready and wait at the gate. Once all are there they
//! begin at one time, and tell after each tick of the grid what they have recorded in it, until
//! they are told that the run is over.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU8, Ordering},
        mpsc::{Receiver, Sender, channel},
    },
    time::Duration,
};

use ringcall::ShardCounters;

use crate::{
    error::Failure,
    extras::Extras,
    generator::{Recorder, Unanswered},
};

/// Longest time for which a client thread does not look whether the run is over.
pub(crate) const LOOK_AFTER: Duration = Duration::from_millis(50);

/// Times at which client threads tell what they have recorded, by the generator's clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Grid {
    pub(crate) begin_ns: u64,
    /// Ticks of the warm-up, where its length is known.
    pub(crate) warm_ticks: u64,
    pub(crate) warm_tick_ns: u64,
    /// Length of the ticks after it.
    pub(crate) tick_ns: u64,
}

/// What a client thread has recorded from one tick to the next.
pub(crate) struct Tick {
    pub(crate) recorder: Box<Recorder>,
    /// Calls that failed in it.
    pub(crate) errors: u64,
    /// Calls that the slow handler answered in it.
    pub(crate) slow_calls: u64,
    /// Calls that were due when it ended and were not answered; of an open load.
    pub(crate) unanswered: Unanswered,
    /// When it ended, by the generator's clock.
    pub(crate) ended_ns: u64,
    /// What the thread's shard had counted by then since the load began, with the thread's CPU
    /// time.
    pub(crate) counters: ShardCounters,
}

/// What a client thread tells.
pub(crate) enum Event {
    /// It is connected and waits at the gate, or before idle connections are opened.
    Ready,
    /// What it recorded; the thread's number first.
    Tick(usize, Tick),
    /// It is done.
    Ended(Result<ThreadEnd, Failure>),
}

/// What a client thread tells at its end.
pub(crate) struct ThreadEnd {
    /// What the first call that failed did so with, also while warming up.
    pub(crate) first_error: Option<String>,
    pub(crate) extras: Extras,
}

/// A client thread's end of the gate.
pub(crate) struct Gate {
    thread: usize,
    events: Sender<Event>,
    opens: Receiver<Grid>,
    goes_on: Receiver<()>,
    /// Recorders that were read and may be filled again.
    spare: Receiver<Box<Recorder>>,
    state: Arc<State>,
}

/// The end of the gate that opens it for one thread.
pub(crate) struct GateKey {
    opens: Sender<Grid>,
    goes_on: Sender<()>,
    spare: Sender<Box<Recorder>>,
}

/// How far the run is, for all threads.
#[derive(Debug, Default)]
pub(crate) struct State(AtomicU8);

/// The load goes on.
const RUNNING: u8 = 0;
/// Everything is measured: what is in flight is waited for.
const OVER: u8 = 1;
/// Nobody wants the figures.
const GIVEN_UP: u8 = 2;

impl Grid {
    /// When the warm-up ends, where its length is known; else when the load begins.
    pub(crate) fn measuring_ns(&self) -> u64 {
        self.begin_ns + self.warm_ticks * self.warm_tick_ns
    }

    /// When a tick ends, the first one being zero.
    pub(crate) fn end_of(&self, tick: u64) -> u64 {
        let ended = tick + 1;
        let warm = ended.min(self.warm_ticks) * self.warm_tick_ns;
        self.begin_ns + warm + ended.saturating_sub(self.warm_ticks) * self.tick_ns
    }
}

impl Gate {
    pub(crate) fn new(thread: usize, events: Sender<Event>, state: Arc<State>) -> (Self, GateKey) {
        let (opens, opened) = channel();
        let (go_on, goes_on) = channel();
        let (returns, spare) = channel();
        let gate = Self { thread, events, opens: opened, goes_on, spare, state };
        (gate, GateKey { opens, goes_on: go_on, spare: returns })
    }

    /// Says that this thread is as far as idle connections, and blocks it until all are.
    pub(crate) fn meet(&self) -> Result<(), Failure> {
        // As below.
        let _ = self.events.send(Event::Ready);
        self.goes_on.recv().map_err(|_| Failure::Interrupted)
    }

    /// Says that this thread is ready, and blocks it until all are.
    pub(crate) fn pass(&self) -> Result<Grid, Failure> {
        // Nobody listens where the run was given up, and then the gate does not open either.
        let _ = self.events.send(Event::Ready);
        self.opens.recv().map_err(|_| Failure::Interrupted)
    }

    /// Tells what was recorded in a tick.
    pub(crate) fn tell(&self, tick: Tick) {
        // As above.
        let _ = self.events.send(Event::Tick(self.thread, tick));
    }

    /// A recorder that is empty: one that came back, or a new one.
    pub(crate) fn recorder(&self, is_open: bool) -> Result<Box<Recorder>, Failure> {
        if let Ok(spare) = self.spare.try_recv() {
            return Ok(spare);
        }
        Ok(Box::new(if is_open { Recorder::open()? } else { Recorder::closed()? }))
    }

    /// Whether everything is measured, or nobody wants the figures.
    pub(crate) fn is_over(&self) -> bool {
        self.state.is_over()
    }

    /// Whether the run was given up and nobody wants its figures.
    pub(crate) fn is_given_up(&self) -> bool {
        self.state.0.load(Ordering::Relaxed) == GIVEN_UP
    }
}

impl GateKey {
    pub(crate) fn open(&self, grid: Grid) {
        // A thread that is gone has told why.
        let _ = self.opens.send(grid);
    }

    /// Lets a thread go on that has met the others.
    pub(crate) fn go_on(&self) {
        // As above.
        let _ = self.goes_on.send(());
    }

    /// Gives a recorder back that was read.
    pub(crate) fn give_back(&self, mut recorder: Box<Recorder>) {
        recorder.clear();
        let _ = self.spare.send(recorder);
    }
}

impl State {
    /// Whether everything is measured, or nobody wants the figures.
    pub(crate) fn is_over(&self) -> bool {
        self.0.load(Ordering::Relaxed) != RUNNING
    }

    /// Everything is measured.
    pub(crate) fn end(&self) {
        let _ = self.0.compare_exchange(RUNNING, OVER, Ordering::Relaxed, Ordering::Relaxed);
    }

    /// Nobody wants the figures any more.
    pub(crate) fn give_up(&self) {
        self.0.store(GIVEN_UP, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ticks_of_the_warm_up_have_a_length_of_their_own() {
        let grid = Grid { begin_ns: 100, warm_ticks: 2, warm_tick_ns: 10, tick_ns: 30 };
        assert_eq!([0, 1, 2, 3].map(|tick| grid.end_of(tick)), [110, 120, 150, 180]);
    }
}

//! When is measured: one window of time for every thread of a run.
//!
//! Client threads connect, say that they are ready and wait at the gate; once all are there, they
//! are told when the window opens and closes, and each takes its figures at those times by
//! itself.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc::{Receiver, Sender, channel},
    },
    time::{Duration, Instant},
};

use crate::{error::Failure, measure::ThreadFigures};

/// Longest time for which a client thread does not look whether the run is given up.
pub(crate) const LOOK_AFTER: Duration = Duration::from_millis(50);

/// The time that is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Window {
    pub(crate) start: Instant,
    pub(crate) end: Instant,
}

impl Window {
    pub(crate) fn after(warmup: Duration, duration: Duration) -> Self {
        let start = Instant::now() + warmup;
        Self { start, end: start + duration }
    }
}

/// What a client thread tells.
pub(crate) enum Event {
    /// It is connected and waits at the gate.
    Ready,
    /// It is done.
    Ended(Box<Result<ThreadFigures, Failure>>),
}

/// A client thread's end of the gate.
pub(crate) struct Gate {
    events: Sender<Event>,
    opens: Receiver<Window>,
    is_given_up: Arc<AtomicBool>,
}

/// The end of the gate that opens it for one thread.
pub(crate) struct GateKey(Sender<Window>);

impl Gate {
    pub(crate) fn new(events: Sender<Event>, is_given_up: Arc<AtomicBool>) -> (Self, GateKey) {
        let (key, opens) = channel();
        (Self { events, opens, is_given_up }, GateKey(key))
    }

    /// Says that this thread is ready, and blocks it until all are.
    pub(crate) fn pass(&self) -> Result<Window, Failure> {
        // Nobody listens where the run was given up, and then the gate does not open either.
        let _ = self.events.send(Event::Ready);
        self.opens.recv().map_err(|_| Failure::Interrupted)
    }

    /// Whether the run was given up and nobody wants its figures.
    pub(crate) fn is_given_up(&self) -> bool {
        self.is_given_up.load(Ordering::Relaxed)
    }
}

impl GateKey {
    pub(crate) fn open(&self, window: Window) {
        // A thread that is gone has told why.
        let _ = self.0.send(window);
    }
}

//! What goes on beside the calls that are measured, and what was seen of it.

use std::time::Duration;

use hdrhistogram::CreationError;

use crate::{client::slow_readers::SlowlyRead, generator::Latencies, probe::Stages};

/// What is asked for.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Beside {
    /// Some calls go to a handler that takes its time.
    pub(crate) slow: Option<Slow>,
    /// Each call is so many at once, and takes as long as the last of them.
    pub(crate) fanout: u32,
    /// Connections a second that are made, used for one call, and closed.
    pub(crate) churn_per_s: Option<f64>,
    /// Connections that ask for more than they read.
    pub(crate) slow_readers: u32,
    /// Calls a second of a probe that has a thread and a connection of its own.
    pub(crate) probe_per_s: Option<u32>,
}

/// Calls to a handler that takes its time.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Slow {
    /// Of all calls.
    pub(crate) share: f64,
    pub(crate) time: Duration,
}

/// What was seen of it, from the beginning of the warm-up to the end.
#[derive(Clone, Debug)]
pub(crate) struct Extras {
    /// What calls to the slow handler took.
    pub(crate) slow: Latencies,
    /// From when a connection was due until its one call was answered.
    pub(crate) churn: Latencies,
    pub(crate) slow_readers: SlowlyRead,
    /// Where the time of the probe's calls went.
    pub(crate) probe: Option<Stages>,
}

impl Beside {
    /// Whether calls are nothing but calls.
    pub(crate) fn calls_are_plain(&self) -> bool {
        self.slow.is_none() && self.fanout <= 1
    }

    /// Whether there is nothing beside the load.
    pub(crate) fn is_nothing(&self) -> bool {
        *self == Self { fanout: self.fanout, ..Self::default() } && self.fanout <= 1
    }
}

impl Extras {
    pub(crate) fn new() -> Result<Self, CreationError> {
        let (slow, churn) = (Latencies::new()?, Latencies::new()?);
        Ok(Self { slow, churn, slow_readers: SlowlyRead::default(), probe: None })
    }

    pub(crate) fn add(&mut self, other: &Self) {
        self.slow.add(&other.slow);
        self.churn.add(&other.churn);
        self.slow_readers.bytes += other.slow_readers.bytes;
        self.slow_readers.cut_off += other.slow_readers.cut_off;
        self.probe = self.probe.take().or_else(|| other.probe.clone());
    }
}

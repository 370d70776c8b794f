//! What has happened, as a hash that two runs of a seed must agree on, and for eyes when asked.

use std::collections::BTreeMap;

use crate::{letter::sum_of, random::mix, world::Report};

pub(crate) struct Trace {
    hash: u64,
    counts: BTreeMap<&'static str, u64>,
    prints: bool,
}

impl Trace {
    pub(crate) fn new(prints: bool) -> Self {
        Self { hash: 0, counts: BTreeMap::new(), prints }
    }

    /// Notes that something has happened.
    pub(crate) fn note(&mut self, now_us: u64, what: &'static str, details: &[u64]) {
        *self.counts.entry(what).or_default() += 1;
        self.hash = sum_of(self.hash, now_us, what.as_bytes());
        for detail in details {
            self.hash = mix(self.hash ^ detail);
        }
        if self.prints {
            eprintln!("{:>10}.{:06} {what} {details:?}", now_us / 1_000_000, now_us % 1_000_000);
        }
    }

    /// Says something for eyes alone.
    pub(crate) fn say(&self, what: impl FnOnce() -> String) {
        if self.prints {
            eprintln!("{:>17} {}", "", what());
        }
    }

    pub(crate) fn report(self) -> Report {
        Report { hash: self.hash, counts: self.counts }
    }
}

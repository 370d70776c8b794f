//! Replies that are watched: from the end of a handler until the kernel has taken what it replied.

use std::cell::Cell;

use super::turn::CallTimes;

/// Replies that a shard watches at once, in number: more than are measured in most turns, and few
/// enough to look for a free one in.
const WATCHES: usize = 16;

/// A reply that is watched.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Watched {
    /// When its handler had ended, in nanoseconds since the shard started; zero: nothing is watched.
    pub(crate) ended_ns: u64,
    /// Calls that it stands for.
    pub(crate) weight: u64,
    pub(crate) times: CallTimes,
    pub(crate) method: &'static str,
    /// Its number where it is kept as a slow call already.
    pub(crate) slow: Option<u64>,
    /// The kernel has it.
    pub(super) is_sending: bool,
}

/// The replies that a shard watches. A connection has the number of its watch; zero is none.
#[derive(Debug, Default)]
pub(crate) struct Watches([Cell<Watched>; WATCHES]);

impl Watches {
    /// Begins to watch; zero where too many are watched.
    pub(crate) fn begin(&self, watched: Watched) -> u8 {
        let free = self.0.iter().position(|watch| watch.get().ended_ns == 0);
        free.map_or(0, |at| {
            self.0[at].set(watched);
            at as u8 + 1
        })
    }

    /// What was collected on the connection goes to the kernel.
    pub(crate) fn sends(&self, watch: u8) {
        self.change(watch, |watched| watched.is_sending = true);
    }

    /// A send is done. The reply that was watched, where it was with it.
    pub(crate) fn sent(&self, watch: u8) -> Option<Watched> {
        let watched = self.0.get(usize::from(watch).wrapping_sub(1))?.get();
        if watched.is_sending {
            self.end(watch);
        }
        watched.is_sending.then_some(watched)
    }

    /// Watches no more.
    pub(crate) fn end(&self, watch: u8) {
        self.change(watch, |watched| *watched = Watched::default());
    }

    fn change(&self, watch: u8, change: impl FnOnce(&mut Watched)) {
        if let Some(place) = self.0.get(usize::from(watch).wrapping_sub(1)) {
            let mut watched = place.get();
            change(&mut watched);
            place.set(watched);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reply_is_over_with_the_send_that_has_it_and_not_with_the_one_before() {
        let watches = Watches::default();
        let watch = watches.begin(Watched { ended_ns: 5, ..Watched::default() });
        assert_eq!(watch, 1);
        assert!(watches.sent(watch).is_none(), "that was the send before");
        watches.sends(watch);
        assert_eq!(watches.sent(watch).map(|watched| watched.ended_ns), Some(5));
        assert!(watches.sent(watch).is_none());
    }

    #[test]
    fn watches_are_bounded_and_used_again() {
        let watches = Watches::default();
        let watched = Watched { ended_ns: 1, ..Watched::default() };
        let all: Vec<u8> = (0..WATCHES).map(|_| watches.begin(watched)).collect();
        assert!(all.iter().all(|watch| *watch > 0));
        assert_eq!(watches.begin(watched), 0);
        watches.end(all[3]);
        assert_eq!(watches.begin(watched), all[3]);
        watches.end(0);
    }
}

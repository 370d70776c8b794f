//! When the probe's calls are to be made: at a constant rate, each a little early or late.
//!
//! A call's intended time does not depend on how long the ones before it took, so that a server
//! that is slow for a while is not asked less often in that while. The jitter keeps the probe out
//! of step with whatever else happens at regular times.

/// The intended times of calls, in ascending order.
#[derive(Debug)]
pub(super) struct Pace {
    /// The middle of the next call's time.
    middle_ns: u64,
    period_ns: u64,
    /// State of the jitter's random numbers.
    random: u64,
}

impl Pace {
    /// So many calls a second from this time on.
    pub(super) fn new(start_ns: u64, rate: u32) -> Self {
        let period_ns = (1_000_000_000 / u64::from(rate.max(1))).max(1);
        // Any number but zero; the time is another in each run.
        Self { middle_ns: start_ns + period_ns, period_ns, random: start_ns | 1 }
    }

    /// The intended time of the next call: up to a quarter of the period before or after the
    /// middle of its own.
    pub(super) fn next_ns(&mut self) -> u64 {
        // Marsaglia's xorshift64.
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        let early_ns = self.period_ns / 4;
        let jitter_ns = self.random % (2 * early_ns + 1);
        let intended_ns = self.middle_ns - early_ns + jitter_ns;
        self.middle_ns += self.period_ns;
        intended_ns
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_come_at_the_rate_and_in_order() {
        for rate in [1, 7, 1000, 1_000_000_000, u32::MAX] {
            let start_ns = 5_000_000_000;
            let mut pace = Pace::new(start_ns, rate);
            let period_ns = pace.period_ns;
            let mut last_ns = 0;
            for number in 1..=1000 {
                let intended_ns = pace.next_ns();
                let middle_ns = start_ns + number * period_ns;
                assert!(intended_ns.abs_diff(middle_ns) <= period_ns / 4, "call {number}");
                assert!(intended_ns > last_ns, "call {number} at {rate}");
                last_ns = intended_ns;
            }
        }
    }

    #[test]
    fn they_are_not_in_step() {
        let mut pace = Pace::new(1, 1000);
        let gaps: std::collections::BTreeSet<u64> = (0..100)
            .scan(pace.next_ns(), |last_ns, _| {
                let next_ns = pace.next_ns();
                Some(next_ns - std::mem::replace(last_ns, next_ns))
            })
            .collect();
        assert!(gaps.len() > 90, "{} different gaps", gaps.len());
    }
}

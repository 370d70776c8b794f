//! Histograms with one writer and any readers: counts in buckets that are each a sixteenth of a
//! power of two wide.
//!
//! A shard records with plain stores, as it counts; a reader copies the counts and works on the
//! copy. What is read of a bucket is its upper end, so a percentile is never less than it was, and
//! at most 6.25 % more.

use crate::counters::Counter;

/// Buckets that each power of two is divided into.
const SUB_BUCKETS: usize = 1 << SUB_BITS;
const SUB_BITS: u32 = 4;

/// Values of so many bits and more are counted in the last bucket: 2^36 ns are 68 s.
const VALUE_BITS_MAX: u32 = 36;

/// Buckets of a histogram: 4 KiB of counters.
const BUCKETS: usize = (VALUE_BITS_MAX - SUB_BITS + 1) as usize * SUB_BUCKETS;

/// A histogram as its shard writes it.
#[derive(Debug)]
pub(crate) struct LiveHistogram {
    buckets: [Counter; BUCKETS],
    sum: Counter,
}

/// How often which values were seen: a copy of a shard's histogram, or several put together.
///
/// Values are nanoseconds, or what the field that holds it says. A bucket is at most 6.25 % wide;
/// what is said of a value is the upper end of its bucket, as `hdrhistogram` does it.
#[derive(Clone, PartialEq, Eq)]
pub struct Histogram {
    /// Without the zeros at the end.
    buckets: Vec<u64>,
    sum: u64,
}

impl Default for LiveHistogram {
    fn default() -> Self {
        Self { buckets: std::array::from_fn(|_| Counter::default()), sum: Counter::default() }
    }
}

impl LiveHistogram {
    /// Records a value that stands for `weight` of them.
    #[inline]
    pub(crate) fn record(&self, value: u64, weight: u64) {
        self.buckets[bucket_of(value)].add(weight);
        self.sum.add(value.wrapping_mul(weight));
    }

    /// A copy. What is recorded meanwhile may be in the sum and in no bucket, or the other way.
    pub(crate) fn snapshot(&self) -> Histogram {
        let used = self.buckets.iter().rposition(|bucket| bucket.get() > 0).map_or(0, |at| at + 1);
        let buckets = self.buckets[..used].iter().map(Counter::get).collect();
        Histogram { buckets, sum: self.sum.get() }
    }
}

impl Histogram {
    /// One in which nothing was recorded.
    pub const fn new() -> Self {
        Self { buckets: Vec::new(), sum: 0 }
    }

    /// How many values were recorded.
    pub fn count(&self) -> u64 {
        self.buckets.iter().sum()
    }

    /// The sum of the values.
    pub fn sum(&self) -> u64 {
        self.sum
    }

    /// The mean of the values; zero where there are none.
    pub fn mean(&self) -> f64 {
        match self.count() {
            0 => 0.0,
            count => self.sum as f64 / count as f64,
        }
    }

    /// The value that this share of all values does not exceed, 0.999 for p99.9; zero where there
    /// are none.
    pub fn quantile(&self, share: f64) -> u64 {
        let count = self.count();
        let wanted = ((share.clamp(0.0, 1.0) * count as f64).ceil() as u64).clamp(1, count.max(1));
        let mut seen = 0;
        let at = self.buckets.iter().position(|bucket| {
            seen += bucket;
            seen >= wanted
        });
        at.map_or(0, highest_of)
    }

    /// The highest value; zero where there are none.
    pub fn max(&self) -> u64 {
        self.buckets.iter().rposition(|count| *count > 0).map_or(0, highest_of)
    }

    /// How many values were below a power of two.
    pub fn below_power_of_two(&self, bits: u32) -> u64 {
        let end = bucket_of(1 << bits.min(63)).min(self.buckets.len());
        self.buckets[..end].iter().sum()
    }

    /// The buckets that are not empty, each as its highest value and how many were in it: what
    /// `hdrhistogram::Histogram::record_n` takes.
    pub fn iter(&self) -> impl Iterator<Item = (u64, u64)> + '_ {
        let buckets = self.buckets.iter().enumerate();
        buckets.filter(|(_, count)| **count > 0).map(|(at, count)| (highest_of(at), *count))
    }

    /// Adds what another has.
    pub fn add(&mut self, other: &Self) {
        if self.buckets.len() < other.buckets.len() {
            self.buckets.resize(other.buckets.len(), 0);
        }
        self.buckets.iter_mut().zip(&other.buckets).for_each(|(to, from)| *to += from);
        self.sum = self.sum.wrapping_add(other.sum);
    }

    /// What was recorded after `earlier` and up to this.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Self {
        let before = earlier.buckets.iter().copied().chain(std::iter::repeat(0));
        let since = self.buckets.iter().zip(before).map(|(now, before)| now.saturating_sub(before));
        Self { buckets: since.collect(), sum: self.sum.wrapping_sub(earlier.sum) }
    }
}

impl Default for Histogram {
    fn default() -> Self {
        Self::new()
    }
}

impl std::fmt::Debug for Histogram {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Histogram")
            .field("count", &self.count())
            .field("p50", &self.quantile(0.5))
            .field("p99", &self.quantile(0.99))
            .field("max", &self.max())
            .finish()
    }
}

/// Values that were seen lately: each look at them halves what they count for.
#[derive(Debug)]
pub(crate) struct Recent(Box<[u64; BUCKETS]>);

impl Recent {
    pub(crate) fn new() -> Self {
        Self(Box::new([0; BUCKETS]))
    }

    #[inline]
    pub(crate) fn record(&mut self, value: u64, weight: u64) {
        self.0[bucket_of(value)] += weight;
    }

    /// The value that all but `one_in` of them do not exceed; none where they are too few to say.
    pub(crate) fn exceeded_by_one_in(&mut self, one_in: u64) -> Option<u64> {
        let total: u64 = self.0.iter().sum();
        let mut above = total / one_in;
        let at = self.0.iter().rposition(|count| {
            let is_it = *count > above;
            above = above.saturating_sub(*count);
            is_it
        });
        self.0.iter_mut().for_each(|count| *count /= 2);
        (total >= one_in).then(|| at.map(highest_of)).flatten()
    }
}

/// The bucket that counts a value.
#[inline]
fn bucket_of(value: u64) -> usize {
    let bits = u64::BITS - value.leading_zeros();
    if bits <= SUB_BITS {
        return value as usize;
    }
    let shift = bits - SUB_BITS - 1;
    let bucket =
        (shift as usize + 1) * SUB_BUCKETS + ((value >> shift) as usize & (SUB_BUCKETS - 1));
    bucket.min(BUCKETS - 1)
}

/// The highest value that a bucket counts.
fn highest_of(bucket: usize) -> u64 {
    if bucket < SUB_BUCKETS {
        return bucket as u64;
    }
    let shift = bucket / SUB_BUCKETS - 1;
    (((SUB_BUCKETS + bucket % SUB_BUCKETS) as u64 + 1) << shift) - 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_value_is_in_a_bucket_that_is_at_most_a_sixteenth_wider() {
        let values = (0..40).flat_map(|bits| [1_u64 << bits, (1 << bits) + 1, (3 << bits) / 2]);
        for value in values.filter(|value| *value < 1 << VALUE_BITS_MAX) {
            let highest = highest_of(bucket_of(value));
            assert!(highest >= value, "{value} is said to be {highest}");
            assert!(highest - value <= value / 16, "{value} is said to be {highest}");
            assert_eq!(bucket_of(highest), bucket_of(value));
            assert_eq!(bucket_of(highest + 1), (bucket_of(value) + 1).min(BUCKETS - 1));
        }
    }

    #[test]
    fn what_is_too_long_is_in_the_last_bucket() {
        assert_eq!(bucket_of(u64::MAX), BUCKETS - 1);
        assert_eq!(highest_of(BUCKETS - 1), (1 << VALUE_BITS_MAX) - 1);
    }

    #[test]
    fn quantiles_are_those_of_the_values() {
        let live = LiveHistogram::default();
        (1..=10).for_each(|value| live.record(value, 1));
        live.record(1000, 10);
        let histogram = live.snapshot();
        assert_eq!(histogram.count(), 20);
        assert_eq!(histogram.sum(), 55 + 10_000);
        assert_eq!(histogram.quantile(0.0), 1);
        assert_eq!(histogram.quantile(0.25), 5);
        assert_eq!(histogram.quantile(0.5), 10);
        assert_eq!(histogram.quantile(0.51), 1023);
        assert_eq!(histogram.max(), 1023);
        assert_eq!(histogram.below_power_of_two(3), 7);
        assert_eq!(histogram.iter().map(|(_, count)| count).sum::<u64>(), 20);
        assert_eq!(Histogram::new().quantile(0.5), 0);
    }

    #[test]
    fn two_are_put_together_and_taken_apart() {
        let (first, second) = (LiveHistogram::default(), LiveHistogram::default());
        first.record(5, 3);
        second.record(500, 2);
        let mut both = first.snapshot();
        both.add(&second.snapshot());
        assert_eq!((both.count(), both.sum()), (5, 1015));
        let since = both.since(&first.snapshot());
        assert_eq!((since.count(), since.sum(), since.quantile(0.0)), (2, 1000, 511));
    }

    #[test]
    fn what_is_recent_tells_its_outliers_and_forgets() {
        let mut recent = Recent::new();
        assert_eq!(recent.exceeded_by_one_in(1000), None);
        recent.record(100, 5000);
        recent.record(1 << 20, 5);
        assert_eq!(recent.exceeded_by_one_in(1000), Some(highest_of(bucket_of(100))));
        recent.record(1 << 20, 5);
        assert!(recent.exceeded_by_one_in(1000) > Some(1 << 20));
        while recent.exceeded_by_one_in(1000).is_some() {}
        assert!(recent.0.iter().sum::<u64>() < 1000);
    }
}

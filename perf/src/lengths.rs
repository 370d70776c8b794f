//! How long a run is: its warm-up, the time that is measured, and how sure a percentile is to be.

use std::{fmt, time::Duration};

use crate::gate::Grid;

/// Length of a tick of a run whose length is not known, and the longest of any.
const TICK: Duration = Duration::from_millis(100);

/// Fewest ticks of a run, so that there is something to see of its course.
const TICKS_MIN: u64 = 10;

/// How long it warms up.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Warmup {
    For(Duration),
    /// Until its figures have settled, and at most so long.
    UntilSettled(Duration),
}

/// How long is measured.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Length {
    For(Duration),
    /// Until the interval of the percentile is narrow enough.
    UntilSure {
        at_least: Duration,
        at_most: Duration,
    },
}

/// How sure a percentile is to be.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Precision {
    /// In 0 to 1.
    pub(crate) quantile: f64,
    /// Half of the 95 % interval, as a part of the figure.
    pub(crate) relative: f64,
}

/// The lengths of a run.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Lengths {
    pub(crate) warmup: Warmup,
    pub(crate) length: Length,
    /// The percentile that is to be sure, also where the length is given.
    pub(crate) precision: Precision,
}

impl fmt::Display for Lengths {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.length {
            Length::For(length) => write!(f, "{length:?} measured")?,
            Length::UntilSure { at_least, at_most } => {
                let Precision { quantile, relative } = self.precision;
                let (sure, percent) = (percentile_name(quantile), relative * 100.0);
                write!(
                    f,
                    "measured from {at_least:?} until {sure} is sure to ±{percent:.0} %, to {at_most:?}"
                )?;
            }
        }
        match self.warmup {
            Warmup::For(warmup) => write!(f, " after {warmup:?}"),
            Warmup::UntilSettled(_) => write!(f, " after the figures settled"),
        }
    }
}

impl Lengths {
    /// The grid of a run that begins at a time of the generator's clock.
    pub(crate) fn grid(&self, begin_ns: u64) -> Grid {
        let ns = |duration: Duration| u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        let ticks = |duration: Duration, least: u64| {
            ns(duration).div_ceil(ns(TICK)).max(least).min(ns(duration).max(1))
        };
        let (warm_ticks, warm_tick_ns) = match self.warmup {
            Warmup::For(Duration::ZERO) | Warmup::UntilSettled(_) => (0, 0),
            Warmup::For(warmup) => (ticks(warmup, 1), ns(warmup) / ticks(warmup, 1)),
        };
        let tick_ns = match self.length {
            Length::For(length) => ns(length) / ticks(length, TICKS_MIN),
            Length::UntilSure { .. } => ns(TICK),
        };
        Grid { begin_ns, warm_ticks, warm_tick_ns, tick_ns: tick_ns.max(1) }
    }

    /// What it will take, roughly.
    pub(crate) fn expected(&self) -> Duration {
        let warmup = match self.warmup {
            Warmup::For(warmup) => warmup,
            Warmup::UntilSettled(at_most) => (TICK * 10).min(at_most),
        };
        let (Length::For(length) | Length::UntilSure { at_least: length, .. }) = self.length;
        warmup + length
    }
}

/// A percentile as people write it: `p50`, `p99.9`.
pub(crate) fn percentile_name(quantile: f64) -> String {
    // Digits that binary fractions add are not meant.
    format!("p{}", (quantile * 1e8).round() / 1e6)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_named_as_people_do() {
        assert_eq!(percentile_name(0.5), "p50");
        assert_eq!(percentile_name(0.999), "p99.9");
        assert_eq!(percentile_name(0.9999), "p99.99");
    }
}

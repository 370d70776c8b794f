//! Whether two configurations differ in a figure, from runs of both in turn.
//!
//! What counts is the ratio within a pair of neighbours; the interval is that of the mean of the
//! logarithms of these ratios (Student's), which assumes that pairs are independent, and nothing
//! else.

use std::fmt;

use crate::generator::{Interval, interval_of};

/// What was found of one figure.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Verdict {
    /// The interval of the ratio does not hold 1.
    Better,
    Worse,
    /// It does; and the largest difference that it leaves room for is that.
    NoDifference {
        within: f64,
    },
}

/// The ratios of one configuration to another, of one figure.
#[derive(Clone, Debug)]
pub(crate) struct Ratios(pub(crate) Vec<f64>);

impl Ratios {
    /// Of pairs of figures, of the one configuration and of the other.
    pub(crate) fn of(pairs: impl Iterator<Item = (f64, f64)>) -> Self {
        Self(pairs.map(|(a, b)| b / a).filter(|ratio| ratio.is_normal()).collect())
    }

    /// The mean of their logarithms, with its interval; none of fewer than five.
    pub(crate) fn logarithm(&self) -> Option<Interval> {
        let logarithms: Vec<f64> = self.0.iter().map(|ratio| ratio.ln()).collect();
        let mean = logarithms.iter().sum::<f64>() / logarithms.len() as f64;
        interval_of(mean, &logarithms)
    }
}

impl Verdict {
    /// From the logarithm of a ratio.
    pub(crate) fn of(logarithm: Interval, more_is_better: bool) -> Self {
        let Interval { value, half_width } = logarithm;
        if value.abs() <= half_width {
            return Self::NoDifference { within: (value.abs() + half_width).exp_m1() };
        }
        if (value > 0.0) == more_is_better { Self::Better } else { Self::Worse }
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Better => f.write_str("better"),
            Self::Worse => f.write_str("worse"),
            Self::NoDifference { within } => {
                write!(f, "no difference shown; it is under {:.1} %", within * 100.0)
            }
        }
    }
}

/// A ratio and the ends of its interval, from its logarithm.
pub(crate) fn ends(logarithm: Interval) -> [f64; 3] {
    [0.0, -1.0, 1.0].map(|offset| (logarithm.value + offset * logarithm.half_width).exp())
}

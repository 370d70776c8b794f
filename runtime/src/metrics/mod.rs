//! Metrics: what a shard measures of itself beside what it counts, and what is read of that.
//!
//! A shard writes its figures with plain stores and waits for no reader. `meter` decides which
//! calls are measured and looks at the clock, `turns` is told of turns by the driver, `turn` is the
//! one that is under way, `reply` the replies that are watched, `outliers` keeps slow calls.
//! `figures`, with `histogram`, `methods` and `slow`, is what others read, and `snapshot` what they
//! make of it.

mod figures;
mod histogram;
mod meter;
mod methods;
mod outliers;
mod reply;
mod slow;
mod snapshot;
mod turn;
mod turns;

pub(crate) use self::{
    figures::Figures,
    meter::{Meter, WaitingSince},
    methods::ServiceFigures,
    turn::Away,
};
pub use self::{
    histogram::Histogram,
    methods::OTHER_METHODS,
    slow::{Cause, SLOW_CALLS_KEPT, SlowCall},
    snapshot::{MethodMetrics, Metrics, ShardMetrics},
};

#[cfg(test)]
pub(crate) use self::histogram::LiveHistogram;

//! What a load generator is made of, whatever it calls: a clock, the times and sizes of calls, who
//! makes which, the record of what they took, and what may be concluded from it.
//!
//! The clients of ringcall and of the floor are built on it, and so are those of other systems that
//! are measured beside them.

/// Why there is no histogram, which with constants for its bounds does not happen.
pub use hdrhistogram::CreationError;

mod arrivals;
mod clock;
mod confidence;
mod desk;
mod percentiles;
mod random;
mod recorder;
mod settle;
mod sizes;
mod unanswered;

pub use arrivals::{Arrival, Arrivals, Rate, Schedule, Spacing, Trace};
pub use clock::Clock;
pub use confidence::{Interval, interval_of, median};
pub use desk::{Caller, Desk, Job};
pub use percentiles::Percentiles;
pub use recorder::{Latencies, OpenRecord, Recorder, Timing};
pub use settle::Settling;
pub use sizes::{SizeMix, SizePicks};
pub use unanswered::Unanswered;

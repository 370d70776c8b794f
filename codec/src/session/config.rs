//! What a session is told when it is made: limits, deadlines, patience. All times in microseconds.

use crate::{
    hello::Limits,
    limits::{
        BYTES_PER_S_MIN_DEFAULT, FRAME_START_US_DEFAULT, HELLO_US_DEFAULT, PING_AFTER_US_DEFAULT,
        PING_ANSWER_US_DEFAULT,
    },
};

/// How one end of a connection behaves.
#[derive(Clone, Copy, Debug, Default)]
pub struct SessionConfig {
    /// Optional parts of the protocol that it speaks: [`features`](crate::features).
    pub features: u64,
    /// What it accepts.
    pub limits: Limits,
    /// What it makes of the deadlines that callers ask for.
    pub deadlines: Deadlines,
    /// How long it waits for its peer.
    pub patience: Patience,
}

/// What a server makes of the deadlines that callers ask for.
#[derive(Clone, Copy, Debug)]
pub struct Deadlines {
    /// A call gets at least this long, in microseconds.
    pub least_us: u32,
    /// A call gets at most this long, in microseconds.
    pub most_us: u32,
    /// A call that asks for none gets this long, in microseconds; zero gives it no deadline.
    pub default_us: u32,
}

/// How long one end waits for the other. In microseconds; zero is for ever.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// From the connection's start until the peer's HELLO.
    pub hello_us: u64,
    /// From the first byte of a frame until all of it, beside what `bytes_per_s_min` allows.
    pub frame_us: u64,
    /// Least rate at which a frame that has begun may arrive, in bytes a second.
    pub bytes_per_s_min: u64,
    /// Silence of the peer after which it is asked for a sign of life.
    pub ping_after_us: u64,
    /// From that question until the connection is given up.
    pub ping_answer_us: u64,
    /// From the last call until the connection is drained.
    pub idle_us: u64,
    /// From the connection's start until it is drained. A transport gives each connection another
    /// (jitter), or they would all come back at once.
    pub age_us: u64,
}

impl Patience {
    /// Waits for ever, for everything.
    pub const NONE: Self = Self {
        hello_us: 0,
        frame_us: 0,
        bytes_per_s_min: 0,
        ping_after_us: 0,
        ping_answer_us: 0,
        idle_us: 0,
        age_us: 0,
    };
}

impl Default for Deadlines {
    /// What the caller asks for.
    fn default() -> Self {
        Self { least_us: 0, most_us: u32::MAX, default_us: 0 }
    }
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            hello_us: HELLO_US_DEFAULT,
            frame_us: FRAME_START_US_DEFAULT,
            bytes_per_s_min: BYTES_PER_S_MIN_DEFAULT,
            ping_after_us: PING_AFTER_US_DEFAULT,
            ping_answer_us: PING_ANSWER_US_DEFAULT,
            idle_us: 0,
            age_us: 0,
        }
    }
}

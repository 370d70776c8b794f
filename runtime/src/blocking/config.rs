//! How a blocking client connects, and its limits: unit, reason, default.

use std::time::Duration;

use ringcall_codec::{
    Deadlines, Limits, Patience, SessionConfig, features,
    limits::{FRAME_LEN_MAX_CEILING, FRAME_LEN_MAX_FLOOR},
};

use crate::{config::us32, socket::SocketConfig};

/// Bytes of requests that are collected before they are sent without being asked for.
///
/// Bounds what a batch holds. A write of this length costs far more than the call into the kernel.
pub(super) const COLLECTED_MAX: usize = 64 * 1024;

/// Longest buffer for requests that is kept when it is empty, in bytes.
pub(super) const OUTGOING_KEPT_MAX: usize = 1024 * 1024;

/// Length of the buffer that bytes are received to, and by that of a read, in bytes.
pub(super) const CHUNK_LEN: usize = 64 * 1024;

/// Shortest frame, where it is cut, whose rest is received where it stays, in bytes. A shorter one
/// is copied together, so that a read can bring what follows it too.
pub(super) const LARGE_LEN_MIN: u64 = 16 * 1024;

/// Unused receive buffers that a thread keeps, in bytes.
pub(super) const SPARE_BYTES_MAX: usize = 8 * 1024 * 1024;

/// Bytes of receive buffers in use on a thread from which on short replies are copied out of
/// theirs, so that many that are kept do not keep a whole buffer each.
pub(super) const HELD_BYTES_MAX: usize = 1024 * 1024;

/// Longest body that is copied out then, in bytes. A longer one fills a good part of its buffer.
pub(super) const COPIED_OUT_MAX: usize = CHUNK_LEN / 4;

/// Time without a read after which a client looks at what has come before it makes a call, in
/// microseconds: that the server has left, for example. One system call.
pub(super) const LOOK_AFTER_US: u64 = 10_000;

/// Reads of one look at what has come: a server that never stops sending does not keep its client
/// from calling.
pub(super) const LOOKS_MAX: usize = 64;

/// How a blocking client connects and behaves.
#[derive(Clone, Debug)]
pub struct ClientConfig {
    pub(super) connect_timeout: Duration,
    pub(super) timeout_us: u32,
    pub(super) socket: SocketConfig,
    frame_len_max: u32,
    ping_after_us: u64,
    ping_answer_us: u64,
}

impl ClientConfig {
    /// The defaults.
    pub fn new() -> Self {
        Self::default()
    }

    /// Time to connect to an address, and time for the HELLO of the server there. Default: 5 s.
    /// At least a millisecond.
    #[must_use]
    pub fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.connect_timeout = timeout.max(Duration::from_millis(1));
        self
    }

    /// Time for a call of a method that has none of its own, unless the call says otherwise; zero
    /// is for ever. Default: zero. Up to 71 minutes.
    #[must_use]
    pub fn call_timeout(mut self, timeout: Duration) -> Self {
        self.timeout_us = us32(timeout);
        self
    }

    /// Longest frame that is accepted, in bytes, from 64 KiB to 1 GiB; the nearest of these where
    /// it is beyond them. Default: 16 MiB.
    #[must_use]
    pub fn frame_len_max(mut self, bytes: u32) -> Self {
        self.frame_len_max = bytes.clamp(FRAME_LEN_MAX_FLOOR, FRAME_LEN_MAX_CEILING);
        self
    }

    /// Silence of the server, while an outcome is waited for, after which it is asked for a sign
    /// of life, and time for its answer; zero never asks, and waits for ever for a server that is
    /// gone without a word. Default: 30 s and 10 s. At least 100 ms of silence.
    #[must_use]
    pub fn keepalive(mut self, after: Duration, answer: Duration) -> Self {
        let after = if after.is_zero() { after } else { after.max(KEEPALIVE_FLOOR) };
        self.ping_after_us = us64(after);
        self.ping_answer_us = us64(answer);
        self
    }

    /// Options of the socket.
    #[must_use]
    pub fn socket(mut self, socket: SocketConfig) -> Self {
        self.socket = socket;
        self
    }

    pub(super) fn session(&self) -> SessionConfig {
        let patience = Patience {
            hello_us: us64(self.connect_timeout),
            ping_after_us: self.ping_after_us,
            ping_answer_us: self.ping_answer_us,
            ..Patience::default()
        };
        let limits = Limits { frame_len_max: self.frame_len_max, ..Limits::default() };
        SessionConfig {
            features: features::KEYS,
            limits,
            deadlines: Deadlines::default(),
            patience,
        }
    }
}

impl Default for ClientConfig {
    fn default() -> Self {
        let Patience { ping_after_us, ping_answer_us, .. } = Patience::default();
        Self {
            connect_timeout: Duration::from_secs(5),
            timeout_us: 0,
            socket: SocketConfig::default(),
            frame_len_max: Limits::default().frame_len_max,
            ping_after_us,
            ping_answer_us,
        }
    }
}

/// A server may refuse to be asked a hundred times a second.
const KEEPALIVE_FLOOR: Duration = Duration::from_millis(100);

fn us64(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

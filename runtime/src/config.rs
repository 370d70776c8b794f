//! Every limit and setting of the runtime: unit, reason, default.
//!
//! The limits of the wire format are in `ringcall_codec::limits`.

use std::time::Duration;

use ringcall_codec::{
    Limits,
    limits::{CALLS_IN_FLIGHT_MAX_CEILING, FRAME_LEN_MAX_CEILING, FRAME_LEN_MAX_FLOOR},
};

use crate::ring::RingConfig;

/// Bytes of replies that may wait on a connection before it is not read from, in bytes.
///
/// Guards memory against a peer that calls and does not read. 256 KiB keep a fast link busy for
/// the time that a turn takes.
pub const SEND_BUFFER_MAX_DEFAULT: usize = 256 * 1024;

/// Uninterrupted work of the driver after which the executor's reactor gets a turn.
///
/// It bounds how late timers, files and channels of user code are. Measured: at 200 µs a
/// `sleep(1 ms)` at full load takes 1.2 to 1.4 ms, and throughput does not change.
pub(crate) const REACTOR_TURN_AFTER: Duration = Duration::from_micros(200);

/// Longest time that the driver waits in the ring before it lets the executor sleep.
///
/// A task that becomes runnable unseen by the driver is late by this much at most.
pub(crate) const DOZE_MAX: Duration = Duration::from_micros(100);

/// Times that every runnable task may run before the driver waits in the ring: tasks that wake
/// each other in a chain of this length are not late at all.
pub(crate) const YIELDS_BEFORE_DOZE: u32 = 4;

/// Idle send buffers that a shard keeps for the next reply, in bytes.
pub(crate) const SPARE_SEND_BYTES_MAX: usize = 16 * 1024 * 1024;

/// Idle send buffers that a shard keeps, in number.
pub(crate) const SPARE_SEND_BUFFERS_MAX: usize = 1024;

/// Handler slots that a shard keeps for the next call, in number. More exist while more handlers
/// wait at once.
pub(crate) const SPARE_SLOTS_MAX: usize = 1024;

/// Bytes that are read from a peer after it was told to go away, so that what it was told is not
/// lost to a reset.
pub(crate) const LINGER_BYTES_MAX: u64 = 1024 * 1024;

/// Time for which they are read.
pub(crate) const LINGER_MAX: Duration = Duration::from_secs(1);

/// Time that a stopping shard waits for its last replies to be sent.
pub(crate) const STOP_FLUSH_MAX: Duration = Duration::from_secs(1);

/// Share of the receive pool, as its divisor, below which bodies are copied out instead of
/// leased, so that slow handlers cannot starve the shard: a quarter.
pub(crate) const POOL_PRESSURE_DIVISOR: usize = 4;

/// Longest frame for which a connection that receives large frames keeps a buffer between two of
/// them, in bytes. A longer one comes to a fresh buffer each time.
pub(crate) const LARGE_KEPT_MAX: usize = 1024 * 1024;

/// Bytes of buffers in use on a shard from which on none is kept between two large frames: many
/// idle connections must not hold memory because each had one large frame once.
pub(crate) const LARGE_KEPT_TOTAL_MAX: usize = 64 * 1024 * 1024;

/// Callers that may wait for room on a connection; one more is refused.
pub(crate) const CALLERS_WAITING_MAX: usize = 65_536;

/// Period of a shard's heartbeat while calls are in flight.
pub(crate) const HEARTBEAT: Duration = Duration::from_millis(10);

/// Period of a shard's heartbeat while none is.
pub(crate) const HEARTBEAT_IDLE: Duration = Duration::from_millis(200);

/// How a shard runs: its ring, its buffers, its patience. Server and client shards share it.
#[derive(Clone, Debug)]
pub struct ShardConfig {
    pub(crate) spin: Duration,
    pub(crate) ring: RingConfig,
    pub(crate) send_buffer_max: usize,
    pub(crate) limits: Limits,
    pub(crate) preempt_timer: Option<Duration>,
    pub(crate) sleeps_at_once: bool,
}

/// A setting that cannot be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{setting} is {value}, and must be {wanted}")]
pub struct ConfigError {
    setting: &'static str,
    value: String,
    wanted: String,
}

impl ShardConfig {
    /// The defaults: no spinning, 1,024 receive buffers of 16 KiB, frames up to 16 MiB.
    pub fn new() -> Self {
        Self::default()
    }

    /// How long a shard that found nothing to do goes on looking before it sleeps. Default: 0.
    ///
    /// A call to a shard that sleeps waits for the kernel to wake it, tens of microseconds on many
    /// machines. Spinning trades CPU time for that.
    #[must_use]
    pub fn spin(mut self, spin: Duration) -> Self {
        self.spin = spin;
        self
    }

    /// Buffers that received bytes arrive in: their number, a power of two up to 32,768, and the
    /// length of each in bytes, a multiple of 4,096. Default: 1,024 of 16 KiB.
    ///
    /// A frame that fits into one buffer is read where it arrived. More or longer buffers walk
    /// through more of the cache.
    #[must_use]
    pub fn receive_buffers(mut self, count: u16, len: u32) -> Self {
        self.ring.pool_buffers = count;
        self.ring.pool_buffer_len = len;
        self
    }

    /// Entries of the submission queue, a power of two up to 32,768; the completion queue has
    /// eight times as many. Default: 1,024.
    #[must_use]
    pub fn ring_entries(mut self, entries: u32) -> Self {
        self.ring.sq_entries = entries;
        self.ring.cq_entries = entries.saturating_mul(8);
        self
    }

    /// Bytes of replies that may wait on a connection before it is not read from. Default: 256 KiB.
    #[must_use]
    pub fn send_buffer_max(mut self, bytes: usize) -> Self {
        self.send_buffer_max = bytes;
        self
    }

    /// Longest frame that is accepted, in bytes, from 64 KiB to 1 GiB. Default: 16 MiB.
    #[must_use]
    pub fn frame_len_max(mut self, bytes: u32) -> Self {
        self.limits.frame_len_max = bytes;
        self
    }

    /// Calls that one connection may have in flight, from 1 to 1,048,576. Default: 4,096.
    #[must_use]
    pub fn calls_in_flight_max(mut self, calls: u32) -> Self {
        self.limits.calls_in_flight_max = calls;
        self
    }

    /// Shortens the executor's preemption timer. For tests of what happens when it fires at the
    /// wrong moment.
    #[doc(hidden)]
    #[must_use]
    pub fn preempt_timer(mut self, timer: Duration) -> Self {
        self.preempt_timer = Some(timer);
        self
    }

    /// Lets the executor sleep as soon as there is nothing to do, without a wait in the ring
    /// before. For tests of falling asleep and being woken.
    #[doc(hidden)]
    #[must_use]
    pub fn sleeps_at_once(mut self) -> Self {
        self.sleeps_at_once = true;
        self
    }

    /// Checks every setting.
    pub(crate) fn validate(&self) -> Result<(), ConfigError> {
        let ring = &self.ring;
        let Limits { frame_len_max, calls_in_flight_max } = self.limits;
        let (entries, count, len) = (ring.sq_entries, ring.pool_buffers, ring.pool_buffer_len);
        let is_entries = entries.is_power_of_two() && (8..=32_768).contains(&entries);
        check("ring_entries", entries, "a power of two from 8 to 32768", is_entries)?;
        let is_count = count.is_power_of_two() && (4..=32_768).contains(&count);
        check("receive_buffers count", count, "a power of two from 4 to 32768", is_count)?;
        let is_len = len.is_multiple_of(4096) && (4096..=1 << 20).contains(&len);
        check("receive_buffers len", len, "a multiple of 4096 up to 1 MiB", is_len)?;
        let is_pool = u64::from(count) * u64::from(len) <= 1 << 30;
        check("receive_buffers", u64::from(count) * u64::from(len), "up to 1 GiB in all", is_pool)?;
        let is_frame = (FRAME_LEN_MAX_FLOOR..=FRAME_LEN_MAX_CEILING).contains(&frame_len_max);
        check("frame_len_max", frame_len_max, "from 64 KiB to 1 GiB", is_frame)?;
        let is_calls = (1..=CALLS_IN_FLIGHT_MAX_CEILING).contains(&calls_in_flight_max);
        check("calls_in_flight_max", calls_in_flight_max, "from 1 to 1048576", is_calls)?;
        let bytes = self.send_buffer_max;
        check("send_buffer_max", bytes, "at least 4096", bytes >= 4096)
    }
}

impl Default for ShardConfig {
    fn default() -> Self {
        Self {
            spin: Duration::ZERO,
            ring: RingConfig::default(),
            send_buffer_max: SEND_BUFFER_MAX_DEFAULT,
            limits: Limits::default(),
            preempt_timer: None,
            sleeps_at_once: false,
        }
    }
}

fn check(
    setting: &'static str,
    value: impl ToString,
    wanted: &str,
    holds: bool,
) -> Result<(), ConfigError> {
    if holds {
        return Ok(());
    }
    Err(ConfigError { setting, value: value.to_string(), wanted: wanted.to_owned() })
}

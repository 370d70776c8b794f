//! Every limit and setting of the runtime: unit, reason, default.
//!
//! The limits of the wire format are in `ringcall_codec::limits`.

use std::time::Duration;

use ringcall_codec::{
    Deadlines, Limits, Patience, SessionConfig, features,
    limits::{
        CALLS_IN_FLIGHT_MAX_CEILING, FRAME_LEN_MAX_CEILING, FRAME_LEN_MAX_FLOOR, WINDOW_CEILING,
        WINDOW_FLOOR,
    },
};

use crate::{pack::Compression, ring::RingConfig};

/// Bytes of replies that may wait on a connection before it is not read from, in bytes.
///
/// Guards memory against a peer that calls and does not read. 256 KiB keep a fast link busy for
/// the time that a turn takes.
pub const SEND_BUFFER_MAX_DEFAULT: usize = 256 * 1024;

/// Shortest silence after which a peer is asked for a sign of life, in microseconds: a peer may
/// refuse to be asked a hundred times a second.
const KEEPALIVE_FLOOR_US: u64 = 100_000;

/// Shortest frame that is compressed by default, where compression is asked for, in bytes.
pub const COMPRESS_FROM_DEFAULT: u32 = 4096;

/// Calls that may run on a shard at once, by default.
///
/// Guards memory and latency: a call that cannot begin soon is better refused at once, from its
/// header, than begun late. Most handlers are done when they are first polled and never count.
pub const SHARD_CALLS_MAX_DEFAULT: usize = 65_536;

/// Bytes of frames that a shard holds in buffers of their own, by default: 1 GiB.
///
/// Guards memory against many large requests at once. Beyond it a request that needs a buffer is
/// refused from its header.
pub const SHARD_MEMORY_MAX_DEFAULT: usize = 1 << 30;

/// Uninterrupted work of the driver after which the executor's reactor gets a turn.
///
/// It bounds how late timers, files and channels of user code are, and costs CPU time: ARCHITECTURE
/// has what was measured.
pub(crate) const REACTOR_TURN_AFTER: Duration = Duration::from_micros(500);

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

/// Time without a call after which a connection gives back what only calls, streams and long frames
/// need, when its timers are next looked at: at the latest when the peer is to be asked for a sign
/// of life. So thousands that idle take little, and one in use allocates nothing, even where its
/// thread does not run for a while.
pub(crate) const KEPT_UNUSED: Duration = Duration::from_secs(5);

/// Descriptions of this end that a shard keeps for its next connections: one for each service that
/// is served or called there, and beyond so many the oldest is made anew.
pub(crate) const ENDPOINTS_KEPT_MAX: usize = 32;

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

/// Bytes of buffers in use on a shard from which on no connection that receives large frames keeps
/// one between two of them, which is up to 64 KiB: many
/// idle connections must not hold memory because each had one large frame once.
pub(crate) const LARGE_KEPT_TOTAL_MAX: usize = 64 * 1024 * 1024;

/// Callers that may wait for room on a connection; one more is refused.
pub(crate) const CALLERS_WAITING_MAX: usize = 65_536;

/// Errands that may wait at a shard, for each sender; one more is given back.
///
/// A sender is another shard, or everybody who is on none. The queue is there from the start:
/// 4 KiB for each pair of shards.
pub(crate) const ERRANDS_WAITING_MAX: usize = 256;

/// Calls of a shard that other shards run and whose requests they may still read; one more is
/// refused.
///
/// Bounds the errands and answers between shards, and the memory of requests: as many as come from
/// 64 full connections.
pub(crate) const LOANS_MAX: usize = 65_536;

/// How long a shard that ends waits for other shards to let go of requests that it has received;
/// then the memory of those is never given back.
pub(crate) const LOANS_END_MAX: Duration = Duration::from_secs(1);

/// Bytes that may come on a connection while it is handed over to another shard. A client sends its
/// HELLO and waits; what comes behind it can be a GOAWAY.
pub(crate) const HANDOVER_BYTES_MAX: usize = 64 * 1024;

/// Errands that a shard runs in one turn, so that its connections are not kept waiting.
pub(crate) const ERRANDS_PER_TURN_MAX: usize = 256;

/// Connections that may wait to be accepted, for each shard, by default.
///
/// Many clients that connect at once are not refused; the kernel bounds it by its own limit, which
/// is 4,096 by default.
pub(crate) const BACKLOG_DEFAULT: u32 = 1024;

/// Longest file of settings that is read, in bytes: a wrong path must not fill the memory.
pub(crate) const CONFIG_FILE_BYTES_MAX: u64 = 1024 * 1024;

/// Calls that may be in flight through a handle, by default, and at most.
///
/// Guards memory: a call holds its request until it is sent, and its reply until that is taken. As
/// many as a server accepts on one connection.
pub(crate) const HANDLE_CALLS_MAX_DEFAULT: usize = 4096;
pub(crate) const HANDLE_CALLS_MAX_CEILING: usize = 1 << 20;

/// Things asked for through a handle that its shard does in one turn, so that its connections are
/// not kept waiting.
pub(crate) const HANDLE_ENTRIES_PER_TURN_MAX: usize = 256;

/// Shortest body of a reply, in bytes, whose buffer is handed to a caller elsewhere where it is one
/// of its own. A shorter one is copied, which is cheaper than a new buffer for the next.
pub(crate) const HANDED_OVER_MIN: usize = 32 * 1024;

/// Buffers of requests that a handle's shard keeps for replies: in number, and the capacity of
/// each, in bytes.
pub(crate) const SPARE_REQUESTS_MAX: usize = 256;
pub(crate) const SPARE_REQUEST_LEN_MAX: usize = 4096;

/// Asks that a shard may have in flight to another one; one more fails.
///
/// It bounds what waits to be answered, and the queue of answers. More than as many errands may
/// wait, as asks may wait on the other shard for as long as they like.
pub(crate) const ASKS_IN_FLIGHT_MAX: u32 = 4096;

/// Calls of bulk methods that may wait on a shard before they begin; one more is refused. Each
/// keeps its request.
pub(crate) const BULK_CALLS_WAITING_MAX: usize = 4096;

/// Time for bulk in each turn, once there is any: what a call of a latency method may wait for
/// bulk, and for the bulk handler that runs then. Shorter, and the turns cost more than the bulk.
pub(crate) const BULK_TIME_PER_TURN: Duration = Duration::from_micros(50);

/// Bulk calls that begin or go on in one turn, however short they are.
pub(crate) const BULK_PER_TURN_MAX: usize = 64;

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
    pub(crate) deadlines: Deadlines,
    pub(crate) patience: Patience,
    pub(crate) compression: Compression,
    /// Shortest frame that is compressed, in bytes.
    pub(crate) compress_from: u32,
    pub(crate) checksums: bool,
    /// Of `patience.age_us`, how much it is shortened by at most, in percent.
    pub(crate) age_jitter: u8,
    pub(crate) calls_max: usize,
    pub(crate) memory_max: usize,
    pub(crate) metrics: bool,
    /// From when on a call is slow; none where that is found out.
    pub(crate) slow_call: Option<Duration>,
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

impl ConfigError {
    /// What it is called where it is set, perhaps with the name of one of its arguments.
    pub(crate) fn setting(&self) -> &'static str {
        self.setting
    }

    pub(crate) fn wanted(&self) -> &str {
        &self.wanted
    }
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

    /// Bytes of items that each stream, and all streams of a connection together, may have on
    /// their way to this shard, from 4 KiB to 1 GiB. Default: 256 KiB and 16 MiB.
    ///
    /// An item of any length can be sent while there is some credit, so a stream holds its window
    /// and one item at most.
    #[must_use]
    pub fn stream_windows(mut self, stream: u32, connection: u32) -> Self {
        self.limits.stream_window = stream;
        self.limits.connection_window = connection;
        self
    }

    /// Calls that may run on the shard at once, on all connections; one more is refused, as not
    /// executed. Default: 65,536.
    #[must_use]
    pub fn calls_max(mut self, calls: usize) -> Self {
        self.calls_max = calls;
        self
    }

    /// Bytes of messages that the shard holds in buffers of their own: those that are longer than
    /// a receive buffer, were cut, or were compressed. One more request is refused, as not
    /// executed; one more compressed body ends its connection. Default: 1 GiB.
    #[must_use]
    pub fn memory_max(mut self, bytes: usize) -> Self {
        self.memory_max = bytes;
        self
    }

    /// What the shard makes of the deadlines that callers ask for: a call gets `least` at least
    /// and `most` at most. Default: what the caller asks for.
    #[must_use]
    pub fn deadlines(mut self, least: Duration, most: Duration) -> Self {
        self.deadlines.least_us = us32(least);
        self.deadlines.most_us = us32(most);
        self
    }

    /// The deadline of calls whose callers ask for none. Default: none.
    #[must_use]
    pub fn default_deadline(mut self, deadline: Duration) -> Self {
        self.deadlines.default_us = us32(deadline);
        self
    }

    /// Compresses the bodies of frames that are at least so long, in bytes, where the peer can
    /// decompress them: one that is told to compress too, by whatever algorithm. A body that gets
    /// no shorter travels as it is. Default: no compression.
    ///
    /// A compressed body is not read in place: it is decompressed into a buffer of its own, of the
    /// length that it declares, within `frame_len_max`.
    #[must_use]
    pub fn compression(mut self, compression: Compression, from_bytes: u32) -> Self {
        self.compression = compression;
        self.compress_from = from_bytes;
        self
    }

    /// Sends a checksum (CRC32C) behind each body, and checks those that come, where the peer is
    /// told to do so too. Default: no.
    ///
    /// TCP has a checksum of 16 bits, and TLS a better one than this: this is for networks without
    /// TLS whose hardware is not trusted.
    #[must_use]
    pub fn checksums(mut self, checksums: bool) -> Self {
        self.checksums = checksums;
        self
    }

    /// Time for a peer's HELLO; zero waits for ever. Default: 5 s.
    #[must_use]
    pub fn hello_timeout(mut self, timeout: Duration) -> Self {
        self.patience.hello_us = us64(timeout);
        self
    }

    /// Time for a frame that has begun to arrive, beside what its length takes at
    /// `bytes_per_second`; zero waits for ever. Default: 5 s and 64 KiB/s.
    #[must_use]
    pub fn frame_timeout(mut self, timeout: Duration, bytes_per_second: u64) -> Self {
        self.patience.frame_us = us64(timeout);
        self.patience.bytes_per_s_min = bytes_per_second;
        self
    }

    /// Silence of a peer after which it is asked for a sign of life, and time for its answer; zero
    /// never asks. Default: 30 s and 10 s.
    #[must_use]
    pub fn keepalive(mut self, after: Duration, answer: Duration) -> Self {
        self.patience.ping_after_us = us64(after);
        self.patience.ping_answer_us = us64(answer);
        self
    }

    /// Time without a call after which a connection is drained and closed; zero keeps it. Default:
    /// zero.
    #[must_use]
    pub fn idle_timeout(mut self, timeout: Duration) -> Self {
        self.patience.idle_us = us64(timeout);
        self
    }

    /// Age at which a connection is drained and closed, so that clients spread anew; zero keeps
    /// it. Each connection's is shorter by up to `jitter_percent`, or they would all come back at
    /// once. Default: zero.
    #[must_use]
    pub fn age_max(mut self, age: Duration, jitter_percent: u8) -> Self {
        self.patience.age_us = us64(age);
        self.age_jitter = jitter_percent;
        self
    }

    /// Whether the shard measures itself, beside what it counts: times of calls, turns, batches and
    /// methods ([`ShardMetrics`](crate::ShardMetrics)). Default: yes.
    ///
    /// Costs a few nanoseconds a call; most calls are not measured where there are many.
    #[must_use]
    pub fn metrics(mut self, metrics: bool) -> Self {
        self.metrics = metrics;
        self
    }

    /// From how long on a call is slow, and kept with what the shard was doing. Default: longer
    /// than 999 of 1,000 calls took lately, and at least 20 µs.
    #[must_use]
    pub fn slow_call(mut self, from: Duration) -> Self {
        self.slow_call = Some(from);
        self
    }

    /// Bytes of buffers in use from which on none is kept for a large frame that may come: what
    /// idle connections keep must not take the memory of the calls that there are.
    pub(crate) fn large_kept_max(&self) -> usize {
        LARGE_KEPT_TOTAL_MAX.min(self.memory_max / 4)
    }

    /// How a session on the shard behaves. `draw` is a random number, for the jitter.
    pub(crate) fn session(&self, draw: u64) -> SessionConfig {
        let mut patience = self.patience;
        let spread_us = patience.age_us / 100 * u64::from(self.age_jitter.min(100));
        patience.age_us -= draw % (spread_us + 1);
        let sums = if self.checksums { features::CHECKSUM } else { 0 };
        let routing = features::KEYS | features::SHARDS;
        let features = self.compression.features() | sums | routing;
        SessionConfig { features, limits: self.limits, deadlines: self.deadlines, patience }
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
        let Limits { frame_len_max, calls_in_flight_max, stream_window, connection_window } =
            self.limits;
        for (window, bytes) in
            [("stream_window", stream_window), ("connection_window", connection_window)]
        {
            let is_window = (WINDOW_FLOOR..=WINDOW_CEILING).contains(&bytes);
            check(window, bytes, "from 4096 to 1 GiB", is_window)?;
        }
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
        let Deadlines { least_us, most_us, default_us } = self.deadlines;
        let shown = |us: u32| format!("{:?}", Duration::from_micros(u64::from(us)));
        check("deadlines", shown(least_us), "at most the longest deadline", least_us <= most_us)?;
        let is_default = default_us == 0 || (least_us..=most_us).contains(&default_us);
        check("default_deadline", shown(default_us), "between the least and the most", is_default)?;
        let percent = self.age_jitter;
        check("age_max jitter_percent", percent, "from 0 to 100", percent <= 100)?;
        let level = match self.compression {
            Compression::Zstd(level) => level,
            _ => 1,
        };
        check("compression level", level, "from 1 to 19", (1..=19).contains(&level))?;
        let after_us = self.patience.ping_after_us;
        let is_patient = after_us == 0 || after_us >= KEEPALIVE_FLOOR_US;
        let after = format!("{:?}", Duration::from_micros(after_us));
        check("keepalive after", after, "zero or at least 100 ms", is_patient)?;
        check("calls_max", self.calls_max, "at least 1", self.calls_max > 0)?;
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
            deadlines: Deadlines::default(),
            patience: Patience::default(),
            compression: Compression::None,
            compress_from: COMPRESS_FROM_DEFAULT,
            checksums: false,
            age_jitter: 0,
            calls_max: SHARD_CALLS_MAX_DEFAULT,
            memory_max: SHARD_MEMORY_MAX_DEFAULT,
            metrics: true,
            slow_call: None,
            preempt_timer: None,
            sleeps_at_once: false,
        }
    }
}

/// Microseconds; what does not fit is as good as the most.
pub(crate) fn us32(duration: Duration) -> u32 {
    u32::try_from(duration.as_micros()).unwrap_or(u32::MAX)
}

pub(crate) fn us64(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

pub(crate) fn check(
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

//! What a shard counts: each exception to reading in place, each syscall, each outcome. What it
//! measures is in `metrics`.
//!
//! A shard is the only writer of its counters and adds with plain stores; any thread may read
//! them. A figure that claims zero copies prints them.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use crate::metrics::Figures;

macro_rules! counters {
    ($($(#[doc = $doc:literal])+ $name:ident,)*) => {
        /// The live counters of one shard.
        #[derive(Debug, Default)]
        pub(crate) struct Counters {
            $(pub(crate) $name: Counter,)*
            pub(crate) ping_round_trips: RoundTripCounters,
            pub(crate) figures: Figures,
        }

        /// The counters of one shard at one moment.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        #[non_exhaustive]
        pub struct ShardCounters {
            $($(#[doc = $doc])+ pub $name: u64,)*
        }

        impl Counters {
            pub(crate) fn snapshot(&self) -> ShardCounters {
                ShardCounters { $($name: self.$name.get(),)* }
            }
        }

        impl ShardCounters {
            /// Each counter's name and value, in the order of the fields.
            pub fn iter(&self) -> impl Iterator<Item = (&'static str, u64)> + use<> {
                [$((stringify!($name), self.$name),)*].into_iter()
            }

            /// What each counter counts, in the same order.
            pub(crate) fn helps() -> impl Iterator<Item = &'static str> {
                [$(concat!($($doc),+).trim_ascii(),)*].into_iter()
            }

            /// What was counted after `earlier` and up to this.
            #[must_use]
            pub fn since(&self, earlier: &Self) -> Self {
                Self { $($name: self.$name.saturating_sub(earlier.$name),)* }
            }

            /// The counters of two shards together.
            #[must_use]
            pub fn plus(&self, other: &Self) -> Self {
                Self { $($name: self.$name + other.$name,)* }
            }
        }
    };
}

counters! {
    /// Frames whose body was read where the kernel put it.
    frames_in_place,
    /// Frames copied once because they straddled two receive buffers.
    frames_copied_straddle,
    /// Frames copied once because their body lay at no multiple of 16 bytes.
    frames_copied_misaligned,
    /// Frames copied once because fewer than a quarter of the receive buffers were free.
    frames_copied_pressure,
    /// Large frames of which the first bytes were copied to the buffer that received the rest.
    frames_copied_large,
    /// Frames whose body was decompressed to a buffer of its own.
    frames_decompressed,
    /// Bytes copied for the frames above.
    bytes_copied,
    /// Bytes of bodies and headers encoded into send buffers: the one copy of a reply or request.
    bytes_encoded,
    /// Bytes received from sockets.
    bytes_received,
    /// Bytes accepted by sockets.
    bytes_sent,
    /// Times a receive ended because every buffer of the pool was leased.
    buffers_exhausted,
    /// Times the completion queue overflowed; the kernel kept the completions.
    cq_overflows,
    /// Calls of `io_uring_enter`.
    enters,
    /// Sends, each with every reply or request that a connection had collected.
    sends,
    /// Turns of the driver that found something to do.
    turns,
    /// Times the driver let the executor's reactor run in the middle of uninterrupted work.
    reactor_turns,
    /// Times the driver found nothing to do and let the executor sleep.
    parks,
    /// Ticks of the timers that keep the executor from sleeping with work in hand.
    heartbeats,
    /// Calls whose handler was done when it was first polled.
    calls_inline,
    /// Calls whose handler waited and became a task.
    calls_spawned,
    /// Calls answered with a status that no handler made: unknown method, invalid body.
    calls_refused,
    /// Calls whose handler panicked.
    handlers_panicked,
    /// Handlers that waited and were dropped, as nobody waited for their outcome any more.
    handlers_stopped,
    /// Calls refused as the shard had no room for them: too many run, or too much memory is used.
    calls_refused_overload,
    /// Calls refused as their deadline was past when they came.
    calls_refused_late,
    /// Calls refused as their connection takes no more.
    calls_refused_drain,
    /// Calls that ran when their connection was ended by this side.
    calls_cut,
    /// One-way calls made from here that failed at the peer.
    notices,
    /// Times a peer answered when it was asked for a sign of life.
    pings_answered,
    /// Replies to calls that had ended, or whose connection had.
    replies_dropped,
    /// Asks made of other shards.
    asks_made,
    /// Asks of other shards that ran here.
    asks_run,
    /// Calls made.
    calls_made,
    /// One-way calls made.
    one_ways_made,
    /// Requests that came through a handle and were copied to a send buffer.
    requests_copied_in,
    /// Replies that were copied for a caller on another thread.
    replies_copied_out,
    /// Replies that went to a caller on another thread in the buffer that they were received to.
    replies_handed_over,
    /// Items of streams sent.
    items_sent,
    /// Items of streams received.
    items_received,
    /// Connections accepted.
    connections_accepted,
    /// Connections accepted that spoke HTTP, and were handed on.
    connections_http,
    /// Connections handed over to the shard that their client wants, or that has fewer.
    connections_handed_over,
    /// Connections taken over from another shard.
    connections_taken_over,
    /// Calls passed on to the shard that owns their key.
    calls_forwarded,
    /// Calls run that came to another shard.
    calls_served_for_others,
    /// Connections opened to servers.
    connections_opened,
    /// Connections ended, for whatever reason.
    connections_closed,
    /// Connections ended because of what the peer sent.
    protocol_errors,
    /// Times accepting failed: too many open files, a connection that was gone already.
    accept_errors,
    /// CPU time of the shard's thread in nanoseconds, at most a millisecond old while it is busy.
    cpu_ns,
}

/// A number with one writer and any number of readers.
#[derive(Debug, Default)]
pub(crate) struct Counter(AtomicU64);

impl Counter {
    /// Adds. Only ever called by the thread that owns the counter, so that load and store need
    /// not be one operation.
    #[inline]
    pub(crate) fn add(&self, n: u64) {
        self.0.store(self.0.load(Relaxed).wrapping_add(n), Relaxed);
    }

    /// Sets. As [`add`](Self::add).
    #[inline]
    pub(crate) fn set(&self, n: u64) {
        self.0.store(n, Relaxed);
    }

    #[inline]
    pub(crate) fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// How long peers took to answer when asked for a sign of life, counted by powers of two: field
/// `n` counts the answers that took from 2^(n-1) to 2^n - 1 microseconds.
pub type RoundTrips = [u64; ROUND_TRIPS_LEN];

/// The last counts everything that took longer: over half an hour.
const ROUND_TRIPS_LEN: usize = 32;

#[derive(Debug, Default)]
pub(crate) struct RoundTripCounters([Counter; ROUND_TRIPS_LEN]);

impl RoundTripCounters {
    pub(crate) fn record_us(&self, round_trip_us: u64) {
        let bits = (u64::BITS - round_trip_us.leading_zeros()) as usize;
        self.0[bits.min(ROUND_TRIPS_LEN - 1)].add(1);
    }

    pub(crate) fn snapshot(&self) -> RoundTrips {
        std::array::from_fn(|index| self.0[index].get())
    }
}

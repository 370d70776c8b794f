//! Every setting that a file can have, once: its key, its place, what it means.
//!
//! The settings are taken apart without `..`, so that one that is new does not compile before it
//! has its key here, or is said to have none.

use ringcall_codec::{Deadlines, Limits, Patience};

use super::{
    ServerConfig,
    setting::{Chosen, Cores, Flag, Most, Packing, Setting, Time, Unit::*, Whole},
};
use crate::{config::ShardConfig, ring::RingConfig, socket::SocketConfig};

/// A key of the file.
#[derive(Clone, Copy, Debug)]
pub(super) struct Key {
    /// Its table; none where it stands before the first.
    pub(super) table: &'static str,
    /// Its name, with its unit.
    pub(super) name: &'static str,
    /// What [`ConfigError`](crate::ConfigError) calls it.
    pub(super) setting: &'static str,
    /// What it means: a sentence or two for whoever reads the file.
    pub(super) says: &'static str,
}

/// The tables, in their order.
pub(super) const TABLES: [&str; 3] = ["", "shard", "socket"];

/// Shows every key with its value, in the order of the file.
pub(super) fn visit(config: &mut ServerConfig, visitor: &mut dyn FnMut(Key, &mut dyn Setting)) {
    let ServerConfig { cores, backlog, shard, socket } = config;
    let mut key = |name, says, setting: &mut dyn Setting| {
        visitor(Key { table: "", name, setting: name, says }, setting);
    };
    key(
        "cores",
        "Cores to run shards on, one shard each time a core is named. Without it: all that the \
         process may use.",
        &mut Cores(cores),
    );
    key(
        "backlog",
        "Connections that may wait to be accepted, for each shard; net.core.somaxconn bounds it.",
        &mut Whole(backlog),
    );
    visit_shard(shard, visitor);
    visit_socket(socket, visitor);
}

fn visit_shard(shard: &mut ShardConfig, visitor: &mut dyn FnMut(Key, &mut dyn Setting)) {
    let ShardConfig {
        spin,
        ring:
            RingConfig {
                sq_entries,
                cq_entries,
                pool_buffers,
                pool_buffer_len,
                // No setting of a shard: it follows from what the ring is for.
                owned_retained_bytes_max: _,
            },
        send_buffer_max,
        limits: Limits { frame_len_max, calls_in_flight_max, stream_window, connection_window },
        deadlines: Deadlines { least_us, most_us, default_us },
        patience,
        compression,
        compress_from,
        checksums,
        age_jitter,
        calls_max,
        memory_max,
        metrics,
        slow_call,
        // For tests of ringcall.
        preempt_timer: _,
        sleeps_at_once: _,
    } = shard;
    let Patience {
        hello_us,
        frame_us,
        bytes_per_s_min,
        ping_after_us,
        ping_answer_us,
        idle_us,
        age_us,
    } = patience;
    let mut key = |name, setting, says, value: &mut dyn Setting| {
        visitor(Key { table: "shard", name, setting, says }, value);
    };
    key(
        "spin_us",
        "spin",
        "How long a shard with nothing to do goes on looking before it sleeps.",
        &mut Time(spin, Us, ""),
    );
    key(
        "receive_buffers",
        "receive_buffers count",
        "Buffers that received bytes arrive in: a power of two.",
        &mut Whole(pool_buffers),
    );
    key(
        "receive_buffer_bytes",
        "receive_buffers len",
        "Length of each: a multiple of 4096. A frame that fits into one is read where it arrived.",
        &mut Whole(pool_buffer_len),
    );
    key(
        "ring_entries",
        "ring_entries",
        "Entries of the submission queue, a power of two; the completion queue has eight times as \
         many.",
        &mut Whole(sq_entries),
    );
    // As `ShardConfig::ring_entries` has it.
    *cq_entries = sq_entries.saturating_mul(8);
    key(
        "send_buffer_max_bytes",
        "send_buffer_max",
        "Replies that may wait on a connection before it is not read from.",
        &mut Whole(send_buffer_max),
    );
    key(
        "frame_len_max_bytes",
        "frame_len_max",
        "Longest frame that is accepted.",
        &mut Whole(frame_len_max),
    );
    key(
        "calls_in_flight_max",
        "calls_in_flight_max",
        "Calls that one connection may have in flight.",
        &mut Whole(calls_in_flight_max),
    );
    key(
        "calls_max",
        "calls_max",
        "Calls that may run on the shard at once; one more is refused.",
        &mut Whole(calls_max),
    );
    key(
        "memory_max_bytes",
        "memory_max",
        "Messages that the shard holds in buffers of their own; one more is refused.",
        &mut Whole(memory_max),
    );
    key(
        "stream_window_bytes",
        "stream_window",
        "Items that each stream may have on their way to this shard.",
        &mut Whole(stream_window),
    );
    key(
        "connection_window_bytes",
        "connection_window",
        "Items that all streams of a connection together may have on their way.",
        &mut Whole(connection_window),
    );
    key(
        "deadline_min_ms",
        "deadlines least",
        "Time that a call gets at least, whatever its caller asks for.",
        &mut Time(least_us, Ms, ""),
    );
    key(
        "deadline_max_ms",
        "deadlines most",
        "Time that a call gets at most. Without it: what its caller asks for.",
        &mut Time(&mut Most(most_us), Ms, "60_000"),
    );
    key(
        "deadline_default_ms",
        "default_deadline",
        "Time of a call whose caller asks for none; 0 gives it no deadline.",
        &mut Time(default_us, Ms, ""),
    );
    key(
        "compression",
        "compression level",
        "How bodies are compressed where the peer is told to compress too: \"none\", \"lz4\", or \
         \"zstd:3\" with a level from 1 to 19.",
        &mut Packing(compression),
    );
    key(
        "compress_from_bytes",
        "compress_from",
        "Shortest frame that is compressed.",
        &mut Whole(compress_from),
    );
    key(
        "checksums",
        "checksums",
        "Whether bodies have checksums (CRC32C) where the peer is told so too.",
        &mut Flag(checksums),
    );
    key(
        "hello_timeout_s",
        "hello_timeout",
        "Time for a peer's HELLO; 0 waits for ever.",
        &mut Time(hello_us, S, ""),
    );
    key(
        "frame_timeout_s",
        "frame_timeout",
        "Time for a frame that has begun, beside what its length takes at the next; 0 waits for \
         ever.",
        &mut Time(frame_us, S, ""),
    );
    key(
        "frame_bytes_per_s_min",
        "frame_timeout bytes_per_second",
        "Least rate at which a frame that has begun may arrive.",
        &mut Whole(bytes_per_s_min),
    );
    key(
        "keepalive_after_s",
        "keepalive after",
        "Silence of a peer after which it is asked for a sign of life; 0 never asks.",
        &mut Time(ping_after_us, S, ""),
    );
    key(
        "keepalive_answer_s",
        "keepalive answer",
        "Time for its answer.",
        &mut Time(ping_answer_us, S, ""),
    );
    key(
        "idle_timeout_s",
        "idle_timeout",
        "Time without a call after which a connection is drained and closed; 0 keeps it.",
        &mut Time(idle_us, S, ""),
    );
    key(
        "age_max_s",
        "age_max",
        "Age at which a connection is drained and closed; 0 keeps it.",
        &mut Time(age_us, S, ""),
    );
    key(
        "age_jitter_percent",
        "age_max jitter_percent",
        "By how much of it that is shortened at random, at most.",
        &mut Whole(age_jitter),
    );
    key(
        "metrics",
        "metrics",
        "Whether the shard measures its calls and turns; counters are there in any case.",
        &mut Flag(metrics),
    );
    key(
        "slow_call_us",
        "slow_call",
        "Time from which on a call is kept as slow. Without it: what all but one in a thousand took \
         less than lately.",
        &mut Time(slow_call, Us, "1_000"),
    );
}

fn visit_socket(socket: &mut SocketConfig, visitor: &mut dyn FnMut(Key, &mut dyn Setting)) {
    let SocketConfig { receive_buffer_bytes, send_buffer_bytes, keepalive, busy_poll } = socket;
    let mut key = |name, setting, says, value: &mut dyn Setting| {
        visitor(Key { table: "socket", name, setting, says }, value);
    };
    key(
        "so_rcvbuf_bytes",
        "receive_buffer_bytes",
        "SO_RCVBUF, which the kernel doubles. Without it: the kernel's own tuning.",
        &mut Chosen(receive_buffer_bytes, "4_194_304"),
    );
    key(
        "so_sndbuf_bytes",
        "send_buffer_bytes",
        "SO_SNDBUF, as that.",
        &mut Chosen(send_buffer_bytes, "4_194_304"),
    );
    key(
        "tcp_keepalive_s",
        "keepalive",
        "Idle time after which the kernel probes whether the peer is there (SO_KEEPALIVE), in \
         whole seconds. Without it: never.",
        &mut Time(keepalive, S, "60"),
    );
    key(
        "busy_poll_us",
        "busy_poll",
        "Time for which a receive polls the NIC (SO_BUSY_POLL). Without it: net.core.busy_read.",
        &mut Time(busy_poll, Us, "50"),
    );
}

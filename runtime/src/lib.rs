//! ringcall: a zero-copy RPC runtime on io_uring.
//!
//! One executor, one ring and one listener per core; requests and replies are read where the
//! kernel put them. The README says what zero-copy covers, ARCHITECTURE.md follows a call byte by
//! byte.
//!
//! The path of a call through this crate, one file each: `ring` → `connection` and `receive` →
//! `events` → `dispatch` → `service` (the handler) → `connection` → `ring`; `driver` turns it,
//! `shard` holds it together, `server` starts it. `client`, `call` and `callers` are its mirror
//! image, `streams` and `inbox` the items that travel while it runs.

// `#[message]` and `#[service]` name this crate so, in here too.
extern crate self as ringcall;

pub mod blocking;
mod call;
mod callers;
mod classes;
mod client;
mod config;
mod config_file;
mod connection;
mod context;
mod counters;
mod dispatch;
mod draining;
mod driver;
mod endpoints;
mod events;
mod executor;
pub mod handle;
mod handover;
mod heartbeat;
mod http;
mod ids;
mod inbox;
mod intercept;
mod listener;
mod long_frames;
mod mail;
mod metrics;
pub mod operations;
mod pack;
mod placement;
mod receive;
mod relay;
#[doc(hidden)]
pub mod ring;
mod run;
mod seats;
mod server;
mod service;
mod shard;
mod sharded;
mod shards;
mod slab;
mod slots;
mod socket;
mod streams;
mod tasks;
mod times;
mod tls;
mod topic;
mod trace;

pub use std::net::ToSocketAddrs;

pub use ringcall_codec::{
    BodyError, Code, EntryKey, Field, Key, Limits, Message, Metadata, MetadataError, MetadataRef,
    MethodInfo, MethodKind, RoutingKey, ServerTimes, SessionError, ShardKey, ShardPlace, Status,
    TraceContext, TraceContextError, hash_bytes, hash_parts, layout, layout::layout_with_items,
    limits,
};
pub use ringcall_macros::{message, service};
pub use rkyv;

#[doc(hidden)]
pub use crate::run::is_in_receive_pool;
pub use crate::{
    call::{Call, OneWay, Response},
    classes::Class,
    client::{Client, ClientConfig, ConnectError},
    config::{
        COMPRESS_FROM_DEFAULT, ConfigError, SEND_BUFFER_MAX_DEFAULT, SHARD_CALLS_MAX_DEFAULT,
        SHARD_MEMORY_MAX_DEFAULT, ShardConfig,
    },
    config_file::{ConfigFileError, Place, ServerConfig},
    context::Context,
    counters::{RoundTrips, ShardCounters},
    draining::{Draining, Unfinished, draining},
    handle::{Handle, HandleConfig},
    ids::{Ids, IdsError},
    intercept::{Intercept, InterceptCall, Intercepted, Outcome, intercept},
    listener::Balance,
    metrics::{
        Cause, Histogram, MethodMetrics, Metrics, OTHER_METHODS, SLOW_CALLS_KEPT, ShardMetrics,
        SlowCall,
    },
    pack::Compression,
    placement::{Placement, PlacementError},
    run::{RunConfig, counters, run, sleep, spawn, yield_now},
    server::{ServeError, Server, ServerBuilder, ServerHandle, ShardInfo, Stopper},
    service::{Incoming, Request, Retained, Service},
    shard::ShardError,
    sharded::{ShardedCall, ShardedClient},
    shards::{Ask, AskError, Gather, Shards, shards},
    socket::SocketConfig,
    streams::{Item, ItemSender, NoItems, Sink, Source, Stream, StreamCall},
    topic::{Lag, Subscriber, Topic},
    trace::{Trace, TracedCall},
};

/// What a service, its server and its clients need, for one `use`.
pub mod prelude {
    pub use crate::{
        Client, Code, Context, Request, Response, Retained, Server, ServerHandle, ShardInfo, Sink,
        Source, Status,
    };
}

// The README's code is compiled with the tests of the documentation.
#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
mod readme {}

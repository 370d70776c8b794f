//! ringcall: a zero-copy RPC runtime on io_uring.
//!
//! One executor, one ring and one listener per core; requests and replies are read where the
//! kernel put them. The README says what zero-copy covers, ARCHITECTURE.md follows a call byte by
//! byte.
//!
//! The path of a call through this crate, one file each: `ring` → `connection` and `receive` →
//! `server_end` → `dispatch` → `service` (the handler) → `connection` → `ring`; `driver` turns it,
//! `shard` holds it together, `server` starts it. `client`, `call` and `client_end` are its mirror
//! image.

mod call;
mod client;
mod client_end;
mod config;
mod connection;
mod counters;
mod dispatch;
mod driver;
mod executor;
mod heartbeat;
mod listener;
mod receive;
#[doc(hidden)]
pub mod ring;
mod run;
mod server;
mod server_end;
mod service;
mod shard;
mod slab;
mod slots;
mod socket;
mod tasks;
mod tls;

pub use std::net::ToSocketAddrs;

pub use ringcall_codec::{
    BodyError, Code, Field, Limits, Message, MethodInfo, SessionError, ShardPlace, Status, layout,
    limits,
};
pub use ringcall_macros::{message, service};
pub use rkyv;

#[doc(hidden)]
pub use crate::run::is_in_receive_pool;
pub use crate::{
    call::{Call, Response},
    client::{Client, ClientConfig, ConnectError},
    config::{ConfigError, SEND_BUFFER_MAX_DEFAULT, ShardConfig},
    counters::ShardCounters,
    run::{RunConfig, counters, run, sleep, spawn, yield_now},
    server::{ServeError, Server, ServerBuilder, ServerHandle, ShardInfo, Stopper},
    service::{Context, Incoming, Request, Retained, Service},
    shard::ShardError,
    socket::SocketConfig,
};

/// What a service, its server and its clients need, for one `use`.
pub mod prelude {
    pub use crate::{
        Client, Code, Context, Request, Response, Retained, Server, ServerHandle, ShardInfo, Status,
    };
}

// The README's code is compiled with the tests of the documentation.
#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
mod readme {}

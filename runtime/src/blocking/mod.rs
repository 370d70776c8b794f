//! A client on a blocking socket: no executor, no ring, no thread of its own.
//!
//! For scripts, tests and tools. It speaks the same protocol by the same codec as
//! [`ringcall::Client`](crate::Client), and calls the same servers; each call blocks its thread
//! until it has its outcome. On a shard or an executor it would block every other task: use the
//! other client there.
//!
//! ```no_run
//! use std::time::Duration;
//!
//! use ringcall::prelude::*;
//!
//! #[ringcall::message]
//! pub struct Name { pub name: String }
//!
//! #[ringcall::service]
//! pub trait Greeter {
//!     async fn greet(&self, cx: &Context, request: Request<'_, Name>) -> Result<Name, Status>;
//! }
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let mut greeter = GreeterBlockingClient::connect("127.0.0.1:7000")?;
//! let world = Name { name: "world".to_owned() };
//! println!("{}", greeter.greet(&world).wait()?.name);
//!
//! // With a deadline, and pipelined: two calls in one write.
//! let first = greeter.greet(&world).timeout(Duration::from_millis(5)).start()?;
//! let second = greeter.greet(&world).start()?;
//! println!("{}", greeter.client().finish(second)?.name);
//! println!("{}", greeter.client().finish(first)?.name);
//! # Ok(())
//! # }
//! ```
//!
//! # What happens only while it is being used
//!
//! Nothing reads the socket between two calls, so a server that asks for a sign of life then (by
//! default after 30 s of silence, and for 10 s) gets none and ends the connection, and one that
//! drains waits for the client until its grace is over. [`Client::tend`] reads and answers what
//! has come, without a call.
//!
//! Streams, calls from server to client, interceptors and packed bodies are the other client's.
//!
//! One file each: `call` (what users write), `config`, `reply`; `connection` (the protocol's state
//! and who waits for what), `receive` (bytes to frames), `socket` (the system calls), `seats`
//! (outcomes that wait to be taken).

mod call;
mod client;
mod config;
mod connection;
mod receive;
mod reply;
mod seats;
mod socket;

pub use self::{
    call::{Call, OneWay, Ticket},
    client::Client,
    config::ClientConfig,
    reply::Reply,
};

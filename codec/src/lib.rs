//! The wire format and the protocol of ringcall: bytes in, events and bytes out.
//!
//! This crate has no I/O, no clock, no threads and no unsafe; it is `no_std` with `alloc` and
//! forbids unsafe code, so the compiler proves all four. The ring transport, the tests and every
//! other transport share it.
//!
//! The path of a frame through it, one file each:
//!
//! 1. [`Header`]: the 32 bytes that open each frame.
//! 2. [`Decoder`]: finds frames in received bytes, in place.
//! 3. [`Session`]: is the frame expected, within limits, in time? → an event.
//! 4. [`access`]: validates a body once and reads it where it lies.
//! 5. [`FrameWriter`]: encodes a message straight into the bytes to be sent.
//! 6. [`Interleaver`]: sends long frames in parts, between the others.
//!
//! `docs/wire.md` is the norm that this crate implements.

#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

mod decode;
mod encode;
mod header;
mod hello;
mod interleave;
pub mod layout;
pub mod limits;
mod message;
mod metadata;
mod pack;
mod parts;
mod session;
mod shard_key;
mod status;
mod times;
mod trace_context;

pub use decode::{Decoder, FrameBuffer, Partial, Step};
pub use encode::{EncodeError, Encoder, FrameWriter, Scratch, encode_body};
pub use header::{CallId, Flags, Header, HeaderError, Kind, MAGIC, VERSION_MAX, VERSION_MIN};
pub use hello::{Hello, HelloError, Limits, MethodLayout, ShardPlace};
pub use interleave::{Interleaver, Piece};
pub use layout::Field;
pub use message::{BodyError, Deserializer, Message, Validator, access, deserialize};
pub use metadata::{Entries, EntryKey, Key, Metadata, MetadataError, MetadataRef};
pub use pack::{Algorithm, Compressed, check_sum, compress_frame, compressed, features, sum_frame};
pub use parts::Lent;
pub use session::{
    CallOptions, Deadlines, Endpoint, Event, ItemError, MethodInfo, MethodKind, OpenError,
    Patience, ReplyError, Session, SessionConfig, SessionError, StreamId,
};
pub use shard_key::{RoutingKey, ShardKey, hash_bytes, hash_parts};
pub use status::{Code, Status};
pub use times::ServerTimes;
pub use trace_context::{TraceContext, TraceContextError};

//! What the codec must hold for any bytes, a file a target.
//!
//! Each target is a function over bytes that panics where something does not hold. The fuzzer calls
//! it with bytes of its own making (`fuzz_targets/`), `tests/corpus.rs` with those that were kept
//! (`corpus/`).

// The macros write `::ringcall::` paths. Here they lead to the codec, which is all that messages
// need, and not to the runtime.
extern crate self as ringcall;
#[doc(hidden)]
pub use ringcall_codec::*;
#[doc(hidden)]
pub use rkyv;

pub mod decoder;
mod end;
pub mod hello;
pub mod input;
pub mod message;
pub mod metadata;
pub mod packed;
pub mod seeds;
pub mod session;

/// A target's name and function.
pub type Target = (&'static str, fn(&[u8]));

/// Every target.
pub const TARGETS: [Target; 6] = [
    ("decoder", decoder::run),
    ("message", message::run),
    ("hello", hello::run),
    ("session", session::run),
    ("metadata", metadata::run),
    ("packed", packed::run),
];

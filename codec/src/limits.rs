//! Every limit of the protocol, in one place: its unit, what it guards against, its default.
//!
//! A limit that a transport may lower is a default here and a field of [`Limits`](crate::Limits);
//! the others are part of the wire format.

/// Length of a frame's header, in bytes. Fixed, so that a header never needs a second read to be
/// measured.
pub const HEADER_LEN: usize = 32;

/// Frames begin at multiples of this many bytes in the stream, padded with zeros.
///
/// 16 is the largest alignment an archived primitive asks for (`u128`), so a body that starts on
/// a frame boundary can be read where it lies.
pub const FRAME_ALIGN: usize = 16;

/// Longest frame that is accepted by default, header and padding included, in bytes: 16 MiB.
///
/// Guards memory: a peer can make a receiver hold at most this much for one frame. Checked
/// against the header before anything is reserved.
pub const FRAME_LEN_MAX_DEFAULT: u32 = 16 * 1024 * 1024;

/// Highest value [`FRAME_LEN_MAX_DEFAULT`] may be raised to: 1 GiB.
///
/// Archives address their parts with signed 32-bit offsets, so bodies are not encoded beyond this,
/// whatever a peer would accept.
pub const FRAME_LEN_MAX_CEILING: u32 = 1024 * 1024 * 1024;

/// Lowest value the frame limit may be set to: 64 KiB, which holds the longest HELLO.
pub const FRAME_LEN_MAX_FLOOR: u32 = 64 * 1024;

/// Calls that one connection may have in flight, by default.
///
/// Guards the call tables: 8 bytes on the server for each slot up to the highest that a peer has
/// used, and whatever the handlers hold.
pub const CALLS_IN_FLIGHT_MAX_DEFAULT: u32 = 4096;

/// Highest value the number of calls in flight may be set to.
pub const CALLS_IN_FLIGHT_MAX_CEILING: u32 = 1 << 20;

/// Levels of nesting that a body may have; validation stops there with an error.
///
/// Guards the stack: validation recurses once per level, and a hostile archive can nest as deep
/// as it has bytes (`rkyv` itself sets no limit).
pub const MESSAGE_DEPTH_MAX: usize = 64;

/// Methods that a HELLO may list.
///
/// Guards the memory and time spent on a peer that is not yet known to be one: 24 bytes each.
pub const HELLO_METHODS_MAX: usize = 2048;

/// Longest body of a HELLO, in bytes: the fixed part and [`HELLO_METHODS_MAX`] methods.
pub const HELLO_BODY_LEN_MAX: usize = 24 + 24 * HELLO_METHODS_MAX;

/// Longest message of a status, in bytes of UTF-8; a longer one is cut at a character boundary.
///
/// Guards the send buffer against error replies that are larger than the replies they replace.
pub const STATUS_MESSAGE_LEN_MAX: usize = 1024;

const _: () = assert!(HELLO_BODY_LEN_MAX + HEADER_LEN < FRAME_LEN_MAX_FLOOR as usize);
const _: () = assert!(HEADER_LEN.is_multiple_of(FRAME_ALIGN));

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
pub const HELLO_BODY_LEN_MAX: usize = 32 + 24 * HELLO_METHODS_MAX;

/// Longest message of a status, in bytes of UTF-8; a longer one is cut at a character boundary.
///
/// Guards the send buffer against error replies that are larger than the replies they replace.
pub const STATUS_MESSAGE_LEN_MAX: usize = 1024;

/// Longest metadata of a frame, in bytes.
///
/// Guards the receive buffer and the time spent on a call before anything is known of it.
pub const METADATA_LEN_MAX: usize = 8192;

/// Longest `tracestate` that is carried on, in bytes: what W3C Trace Context asks for at least.
pub const TRACESTATE_LEN_MAX: usize = 512;

/// Members of a `tracestate`, in number: what W3C Trace Context allows.
pub const TRACESTATE_MEMBERS_MAX: usize = 32;

/// Entries that the metadata of a frame may have.
///
/// Guards the time spent on a block: each entry's key is compared with those before it.
pub const METADATA_ENTRIES_MAX: usize = 64;

/// Longest name of a metadata entry, in bytes.
///
/// Guards the time spent on comparing names; a longer one says what belongs into a value.
pub const METADATA_NAME_LEN_MAX: usize = 64;

/// Longest typed details of a status, in bytes of archive.
///
/// Guards the send buffer as [`STATUS_MESSAGE_LEN_MAX`] does.
pub const STATUS_DETAILS_LEN_MAX: usize = 4096;

/// Longest body of a status with details, in bytes: their two lengths, they and the text.
pub const STATUS_BODY_LEN_MAX: usize = 16 + STATUS_DETAILS_LEN_MAX + STATUS_MESSAGE_LEN_MAX;

/// CANCEL frames that a peer may send within a second.
///
/// A call that was cancelled keeps its slot until its handler has stopped, which bounds what a
/// cancel can cost; this bounds the frames themselves.
pub const CANCELS_PER_SECOND_MAX: u32 = 100_000;

/// PING frames that a peer may send within a second: each is answered by a PONG.
pub const PINGS_PER_SECOND_MAX: u32 = 100;

/// Bytes of items that one stream may have on their way or waiting to be taken, by default.
///
/// Guards memory against a sender that is faster than its receiver. 256 KiB keep a stream at a
/// gigabyte a second over a round trip of a quarter of a millisecond.
pub const STREAM_WINDOW_DEFAULT: u32 = 256 * 1024;

/// The same for all streams of a connection together, by default: 16 MiB.
pub const CONNECTION_WINDOW_DEFAULT: u32 = 16 * 1024 * 1024;

/// Least and most that the windows can be set to: 4 KiB and 1 GiB.
pub const WINDOW_FLOOR: u32 = 4 * 1024;

/// See [`WINDOW_FLOOR`].
pub const WINDOW_CEILING: u32 = 1 << 30;

/// What an item takes from the credit at least, in bytes: a small frame costs more than its bytes.
pub const ITEM_COST_MIN: u32 = 256;

/// Time for a HELLO, by default, in microseconds: 5 s.
///
/// Guards connections, and the descriptors they take, against peers that connect and say nothing.
pub const HELLO_US_DEFAULT: u64 = 5_000_000;

/// Time for a frame that has begun, beside what its length allows, by default, in microseconds:
/// 5 s.
///
/// Guards against peers that send a byte now and then (slowloris).
pub const FRAME_START_US_DEFAULT: u64 = 5_000_000;

/// Least rate at which a frame that has begun may arrive, by default, in bytes a second: 64 KiB.
pub const BYTES_PER_S_MIN_DEFAULT: u64 = 64 * 1024;

/// Silence of a peer after which it is asked for a sign of life, by default, in microseconds: 30 s.
///
/// Guards against peers that are gone without a word, and against routers that forget connections.
pub const PING_AFTER_US_DEFAULT: u64 = 30_000_000;

/// Time for the answer to that question, by default, in microseconds: 10 s.
pub const PING_ANSWER_US_DEFAULT: u64 = 10_000_000;

const _: () = assert!(HELLO_BODY_LEN_MAX + HEADER_LEN < FRAME_LEN_MAX_FLOOR as usize);
const _: () = assert!(HEADER_LEN.is_multiple_of(FRAME_ALIGN));

/// Longest payload (metadata and body) that is sent in one piece, in bytes, and the length of the
/// parts of a longer one: 64 KiB.
///
/// Guards the frames behind a long one: none waits for more than a part or two of it.
pub const PART_LEN: usize = 64 * 1024;

/// Parts of this many times [`PART_LEN`] are sent while no short frame waits.
///
/// Guards what comes next, which waits for one. Shorter parts cost more, and longer ones leave the
/// two ends waiting for each other: measured, a stream of 1 MiB is fastest with these.
pub const PARTS_AT_ONCE_MAX: usize = 8;

/// Frames that a side may send in parts at a time.
///
/// Guards the receiver, which has begun to put each together: more wait at their sender until one
/// has ended.
pub const LONG_FRAMES_MAX: usize = 4;

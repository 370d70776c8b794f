//! Frames in parts, made by hand.

use ringcall_codec::{CallId, Flags, Header, Kind};

use super::{frame, of_call};

/// Bytes that tell where they are.
pub(crate) fn body(len: usize, salt: usize) -> Vec<u8> {
    (0..len).map(|at| (at * 31 + at / 256 + salt) as u8).collect()
}

/// An item of the side that made the call.
pub(crate) fn item(call: CallId, sequence: u32) -> Header {
    Header { aux: sequence, ..of_call(Kind::Item, call) }
}

/// The same header from the side that serves the call.
pub(crate) fn of_callee(header: Header) -> Header {
    Header { flags: header.flags.with(Flags::CALLEE), ..header }
}

/// The header of a frame that comes in parts.
pub(crate) fn in_parts(header: Header, len: usize) -> Header {
    let flags = header.flags.with(Flags::IN_PARTS);
    Header { flags, body_len: len as u32, ..header }
}

pub(crate) fn part(number: u64, bytes: &[u8]) -> Vec<u8> {
    frame(of_call(Kind::Part, CallId(number)), bytes)
}

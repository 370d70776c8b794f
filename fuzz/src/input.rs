//! Reading choices and frames off a fuzzer's bytes.

use ringcall_codec::{Decoder, FrameBuffer, Header, SessionError, Step};
use rkyv::util::AlignedVec;

/// Where a cut frame is put together.
pub type Buffer = AlignedVec<16>;

/// Bytes that are taken off the front; zeros once there are none left.
pub struct Input<'a>(pub &'a [u8]);

impl<'a> Input<'a> {
    /// The next byte.
    pub fn byte(&mut self) -> u8 {
        let Some((byte, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        *byte
    }

    /// The next so many bytes, or as many as there are.
    pub fn take(&mut self, len: usize) -> &'a [u8] {
        let (taken, rest) = self.0.split_at(len.min(self.0.len()));
        self.0 = rest;
        taken
    }
}

/// A copy at a multiple of 16.
pub fn aligned(bytes: &[u8]) -> Buffer {
    // With capacity, as an empty one points anywhere.
    let mut copy = Buffer::with_capacity(bytes.len().max(1));
    copy.append(bytes);
    copy
}

/// Gives each frame that the decoder finds in `input` to `on_frame`: its header and payload.
///
/// # Errors
///
/// The decoder's error, or that of `on_frame`.
pub fn decode(
    decoder: &mut Decoder<Buffer>,
    input: &[u8],
    mut on_frame: impl FnMut(&Header, &[u8]) -> Result<(), SessionError>,
) -> Result<(), SessionError> {
    let mut at = 0;
    loop {
        match decoder.next(input, &mut at, |_| Ok(Some(Buffer::new())))? {
            Step::InPlace { header, body } => on_frame(&header, &input[body])?,
            Step::Assembled(partial) => on_frame(&partial.header, partial.body())?,
            Step::Skipped | Step::Part => {}
            Step::More => return Ok(()),
        }
    }
}

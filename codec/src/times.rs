//! How long a callee held a call, for callers that ask: an entry of the metadata, both ways.
//!
//! Beside metadata on the path of a call. A request with [`Key::TIMES`] asks, whatever the value.
//! The reply's entry has two u32 in nanoseconds. The last of the two times ends when the reply is
//! encoded, so they are written over their places in a frame that is already made. A peer may
//! have measured anything or nothing: a value of another length is no times, and any of that
//! length is. No clock is read here.

use core::time::Duration;

use crate::{
    limits::HEADER_LEN,
    metadata::{Key, Metadata, MetadataError, MetadataRef},
    pack::last_frame,
};

/// How long the server held a call: from the moment at which its shard took the request's bytes
/// from the kernel until the reply was encoded. What a client that asked for it was told.
///
/// Each is at most 2^32 - 1 ns, which stands for that time (4.29 s) and any longer one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct ServerTimes {
    /// From the beginning of the shard's turn that took the request until the handler was first
    /// polled: the calls that were before it in the turn, and the time for which a connection was
    /// not read that had too many replies to send.
    pub queue: Duration,
    /// From then until the reply was encoded, the time in which the handler waited included.
    pub handler: Duration,
}

impl ServerTimes {
    /// A block of metadata that asks for the times and holds nothing else.
    pub const WANTED: &'static [u8] = &WANTED;

    /// Adds the entry that asks for the times.
    ///
    /// # Errors
    ///
    /// Where there is no room for it.
    pub fn ask(metadata: &mut Metadata) -> Result<(), MetadataError> {
        metadata.insert(Key::TIMES, []).map(drop)
    }

    /// Whether the metadata of a request asks for the times. `block` was checked when it came.
    pub fn are_wanted(block: &[u8]) -> bool {
        MetadataRef::of_checked(block).get(Key::TIMES).is_some()
    }

    /// The times in the metadata of a reply, where there are some.
    pub fn of(metadata: &MetadataRef<'_>) -> Option<Self> {
        let [q0, q1, q2, q3, h0, h1, h2, h3] = *metadata.get(Key::TIMES)? else { return None };
        let nanos = |bytes| Duration::from_nanos(u32::from_le_bytes(bytes).into());
        Some(Self { queue: nanos([q0, q1, q2, q3]), handler: nanos([h0, h1, h2, h3]) })
    }

    /// Adds a place for the times to the metadata of a reply, to be [written](Self::write) over.
    ///
    /// # Errors
    ///
    /// Where there is no room for it.
    pub fn reserve(metadata: &mut Metadata) -> Result<(), MetadataError> {
        metadata.insert(Key::TIMES, [0; VALUE_LEN]).map(drop)
    }

    /// Writes the times into the last frame of `output`, which is a reply: into its header, and
    /// into the place in its metadata where one was [reserved](Self::reserve). `from` is where
    /// that frame begins, or one before it.
    pub fn write(self, output: &mut [u8], from: usize) {
        let Some((frame_start, header)) = last_frame(output, from) else { return };
        let time_us = &mut output[frame_start + TIME_US..frame_start + TIME_US + 4];
        time_us.copy_from_slice(&self.total_us().to_le_bytes());
        let block_start = frame_start + HEADER_LEN;
        let block = &output[block_start..block_start + header.meta_bytes()];
        let Some(place) = MetadataRef::of_checked(block).place_of(Key::TIMES) else { return };
        if let Some(value) = output[block_start..][place].first_chunk_mut::<VALUE_LEN>() {
            value[..4].copy_from_slice(&nanos(self.queue).to_le_bytes());
            value[4..].copy_from_slice(&nanos(self.handler).to_le_bytes());
        }
    }

    /// Both, in microseconds rounded up; at most 2^32 - 1.
    fn total_us(self) -> u32 {
        let total_ns = self.queue.saturating_add(self.handler).as_nanos();
        u32::try_from(total_ns.div_ceil(1000)).unwrap_or(u32::MAX)
    }
}

/// A time in nanoseconds as it travels.
fn nanos(time: Duration) -> u32 {
    u32::try_from(time.as_nanos()).unwrap_or(u32::MAX)
}

/// Length of the entry's value in a reply, in bytes.
const VALUE_LEN: usize = 8;

/// Where `time_us` stands in a header.
const TIME_US: usize = 20;

/// An entry of this key without name and value, and padding.
const WANTED: [u8; 16] = {
    let mut block = [0; 16];
    let [low, high] = Key::TIMES.get().to_le_bytes();
    (block[0], block[1]) = (low, high);
    block
};

//! The floor: a raw io_uring echo, as little as can be done for the same bytes.
//!
//! It has the runtime's ring with the same flags and sizes, the same receive buffers, the same
//! two receive modes (multishot into the pool; frames longer than a pool buffer into a buffer of
//! their own) and one send per connection per turn. It has no executor, no frames, no calls, no
//! messages. Bytes that came to the pool are put behind those to be sent, so that there is one
//! send for all that has arrived, which is the one copy that a reply of ringcall has too. Frames
//! longer than a pool buffer are sent from where they were received, without a copy; ringcall
//! copies those once, as it encodes the reply. Both sides of the floor sleep in the
//! ring, but for the client of an open load, which never does.
//!
//! Its client is also that of the target `server`, ringcall's server alone: the same loop over
//! frames that are calls.
//!
//! It must stay as fast as can be: every ratio that is reported is to it.

pub(crate) mod client;
pub(crate) mod frames;
pub(crate) mod server;
mod shard;

use std::{
    hint, io, mem,
    time::{Duration, Instant},
};

use ringcall::{
    limits::HEADER_LEN,
    ring::{OwnedBuffer, Ring, RingConfig, RingError, Socket},
};

/// Longest time for which a thread sleeps in the ring before it looks whether it is to stop.
const WAIT_MAX: Duration = Duration::from_millis(50);

/// A ring and how to wait for it.
struct Turns {
    ring: Ring,
    spin: Duration,
    /// Times that the thread slept, or tried to.
    parks: u64,
}

impl Turns {
    fn new(spin: Duration) -> Result<Self, RingError> {
        Ok(Self { ring: Ring::new(&RingConfig::default())?, spin, parks: 0 })
    }

    /// Submits, and does not wait.
    #[inline]
    fn look(&mut self) -> io::Result<()> {
        self.ring.enter()
    }

    /// Submits, looks for completions for as long as is to be spun, then sleeps until there are
    /// some.
    #[inline]
    fn wait(&mut self) -> io::Result<()> {
        if self.spin > Duration::ZERO {
            self.ring.enter()?;
            let idle_since = Instant::now();
            while self.ring.is_quiet() {
                if idle_since.elapsed() >= self.spin {
                    self.parks += 1;
                    return self.ring.wait(WAIT_MAX);
                }
                hint::spin_loop();
            }
            return self.ring.enter();
        }
        self.parks += 1;
        self.ring.wait(WAIT_MAX)
    }
}

/// The receive of frames that no pool buffer holds whole: each into one buffer, from its first
/// byte to its last.
struct Whole {
    frame_len: usize,
    /// Where in the buffer this frame's first byte that is received here goes: not zero where
    /// the bytes before came to the pool.
    start: usize,
    filled: usize,
}

impl Whole {
    fn new(frame_len: usize, start: usize) -> Self {
        Self { frame_len, start, filled: start }
    }

    /// Receives the rest of the frame; what is there of it, or with luck all.
    #[inline]
    fn receive(&self, ring: &mut Ring, socket: &Socket, token: u64, buffer: OwnedBuffer) {
        ring.recv_into(socket, token, buffer, self.filled, self.frame_len, false);
    }

    /// Takes note of bytes. Where the frame is complete, gives where its bytes are, and begins
    /// the next.
    #[inline]
    fn received(&mut self, bytes: usize) -> Option<std::ops::Range<usize>> {
        self.filled += bytes;
        if self.filled < self.frame_len {
            return None;
        }
        self.filled = 0;
        Some(mem::take(&mut self.start)..self.frame_len)
    }
}

/// A frame of the floor: as long as one of ringcall, with the length of its body at its start,
/// from which a server knows in which mode to receive.
fn frame(frame_len: usize) -> Vec<u8> {
    let mut frame = vec![0x5a; frame_len];
    let body_len = u32::try_from(frame_len - HEADER_LEN).unwrap_or(u32::MAX);
    frame[..4].copy_from_slice(&body_len.to_le_bytes());
    frame
}

/// Length of the frames of a connection whose first bytes these are; none where they are too few
/// to tell.
fn frame_len_of(first: &[u8]) -> Option<usize> {
    let body_len = u32::from_le_bytes(*first.first_chunk()?);
    Some(body_len as usize + HEADER_LEN)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

    use super::*;

    #[test]
    fn a_frame_tells_its_length() {
        for frame_len in [48, 96, 61_472] {
            assert_eq!(frame(frame_len).len(), frame_len);
            assert_eq!(frame_len_of(&frame(frame_len)), Some(frame_len));
        }
        assert_eq!(frame_len_of(&[1, 2, 3]), None);
    }

    #[test]
    fn a_frame_is_whole_with_its_last_byte() {
        let mut whole = Whole::new(100, 30);
        assert_eq!(whole.received(69), None);
        assert_eq!(whole.received(1), Some(30..100));
        assert_eq!(whole.received(100), Some(0..100));
    }
}

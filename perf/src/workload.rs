//! A workload: how many connections, how many calls in flight on each, how long the bodies.

use std::fmt;

use ringcall::limits::{
    CALLS_IN_FLIGHT_MAX_DEFAULT, FRAME_ALIGN, FRAME_LEN_MAX_DEFAULT, HEADER_LEN,
};

/// Most connections of a run; the limit on open files usually is lower.
pub(crate) const CONNECTIONS_MAX: i64 = 65_536;

/// Most calls in flight on a connection: what a server accepts by default.
pub(crate) const DEPTH_MAX: i64 = CALLS_IN_FLIGHT_MAX_DEFAULT as i64;

/// Shortest body in bytes: the root of an archived echo, a pointer and a length.
pub(crate) const SIZE_MIN: u32 = 8;

/// Longest body in bytes: with its header it is as long as a frame may be by default.
pub(crate) const SIZE_MAX: u32 = FRAME_LEN_MAX_DEFAULT - HEADER_LEN as u32;

/// The alignment of an archived echo's root; a body's length is a multiple of it.
const ROOT_ALIGN: u32 = 4;

/// Connections, calls on each, and how long those are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Workload {
    /// Connections, over all client cores.
    pub connections: u32,
    /// Calls in flight on each connection.
    pub depth: u32,
    /// Length of a body, each way, in bytes, as asked for.
    pub size: u32,
}

impl Workload {
    /// Those that run when none is asked for.
    pub const STANDARD: [Self; 6] = [
        Self { connections: 1, depth: 1, size: 64 },
        Self { connections: 64, depth: 1, size: 64 },
        Self { connections: 64, depth: 16, size: 64 },
        Self { connections: 8, depth: 128, size: 64 },
        Self { connections: 64, depth: 1, size: 4 * 1024 },
        Self { connections: 8, depth: 1, size: 60 * 1024 },
    ];

    /// Length of a body as it travels: an archive ends with its root, which is aligned to 4 bytes.
    pub(crate) fn body_len(self) -> u32 {
        self.size.next_multiple_of(ROOT_ALIGN)
    }

    /// Bytes that a call carries: the body without the root of its archive.
    pub(crate) fn payload_len(self) -> usize {
        (self.body_len() - SIZE_MIN) as usize
    }

    /// Bytes of a call on the wire, each way: header, body and padding.
    pub(crate) fn frame_len(self) -> usize {
        HEADER_LEN + (self.body_len() as usize).next_multiple_of(FRAME_ALIGN)
    }

    /// Connections of each of `threads` client threads; they differ by one at most.
    pub(crate) fn connections_by_thread(self, threads: usize) -> Vec<u32> {
        let threads = u32::try_from(threads).unwrap_or(u32::MAX).max(1);
        let (each, rest) = (self.connections / threads, self.connections % threads);
        (0..threads).map(|thread| each + u32::from(thread < rest)).collect()
    }
}

impl fmt::Display for Workload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { connections, depth, .. } = self;
        write!(f, "{connections}×{depth} {}", size_text(self.body_len()))
    }
}

/// A length as people write it: `64 B`, `4 KiB`.
pub fn size_text(bytes: u32) -> String {
    match bytes {
        0 => "0 B".to_owned(),
        _ if bytes.is_multiple_of(1 << 20) => format!("{} MiB", bytes >> 20),
        _ if bytes.is_multiple_of(1 << 10) => format!("{} KiB", bytes >> 10),
        _ => format!("{bytes} B"),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

    use super::*;

    fn of_size(size: u32) -> Workload {
        Workload { connections: 1, depth: 1, size }
    }

    #[test]
    fn a_frame_has_a_header_a_body_and_padding() {
        assert_eq!(of_size(64).frame_len(), 96);
        assert_eq!(of_size(4096).frame_len(), 4128);
        assert_eq!(of_size(60 * 1024).frame_len(), 61_472);
        assert_eq!(of_size(8).frame_len(), 48);
        assert_eq!(of_size(SIZE_MAX).frame_len(), 16 << 20);
    }

    #[test]
    fn a_body_is_rounded_up_to_its_root() {
        assert_eq!(of_size(64).payload_len(), 56);
        assert_eq!(of_size(8).payload_len(), 0);
        assert_eq!(of_size(61).body_len(), 64);
    }

    #[test]
    fn connections_are_spread_evenly() {
        let workload = Workload { connections: 8, ..of_size(64) };
        assert_eq!(workload.connections_by_thread(3), [3, 3, 2]);
        assert_eq!(of_size(64).connections_by_thread(3), [1, 0, 0]);
    }

    #[test]
    fn a_workload_is_written_as_people_do() {
        assert_eq!(Workload::STANDARD[4].to_string(), "64×1 4 KiB");
        assert_eq!(of_size(1000).to_string(), "1×1 1000 B");
    }
}

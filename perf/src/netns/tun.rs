//! The emulated link as it runs: a thread between two TUN devices, one in each namespace.
//!
//! What the kernel sends on one device is read here, waits in a [`LinkDirection`] and is written to
//! the other device. The thread decides nothing about packets; it only keeps the time. It takes a
//! core of its own while packets are on their way with less than [`SPIN`] between them, so on a
//! machine with few cores it takes time from what is measured.

use std::{
    fs, io,
    net::Shutdown,
    num::NonZeroU64,
    os::{
        fd::{AsFd, BorrowedFd},
        unix::net::UnixStream,
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    thread::set_current_timer_slack,
};
use tappers::{Interface, linux::Tun};

use super::{NetnsError, link::LinkDirection, namespace::Namespace};

/// Time before a packet leaves in which the thread does not sleep: waking up takes up to as long.
const SPIN: Duration = Duration::from_micros(50);

/// Packets that are read from one device before the other has its turn.
const READS_MAX: usize = 64;

/// More than the MTU of a device, which is 1,500.
const PACKET_LEN_MAX: usize = 2048;

/// A link that is emulated. Dropping it ends its thread.
pub(super) struct EmulatedLink {
    /// Closed by either side when it ends.
    stop: UnixStream,
    thread: Option<JoinHandle<io::Result<[LinkDirection; 2]>>>,
}

/// A TUN device of this name, made in a namespace. It is there until it is dropped.
pub(super) fn open(namespace: &Namespace, name: &str) -> Result<Tun, NetnsError> {
    let opened = namespace.within(|| {
        let device = Tun::create_named(Interface::new(name)?)?;
        device.set_nonblocking(true)?;
        Ok(device)
    })?;
    opened.map_err(NetnsError::Tun)
}

/// Packets that the kernel has dropped at a TUN device since it was made, because the thread did
/// not read them in time: a device keeps 500.
pub(super) fn dropped(namespace: &Namespace, name: &str) -> Result<u64, NetnsError> {
    let table = namespace.within(|| fs::read_to_string("/proc/thread-self/net/dev"))?;
    let dropped = table.and_then(|table| {
        dropped_in(&table, name).ok_or_else(|| io::Error::other(format!("{name} is not there")))
    });
    dropped.map_err(NetnsError::Link)
}

/// What a device has dropped that was sent on it, from the kernel's table of devices.
fn dropped_in(table: &str, name: &str) -> Option<u64> {
    // Eight columns of what was received come first, then bytes, packets, errors.
    const SENT_DROPPED: usize = 8 + 3;
    let columns = table.lines().find_map(|line| line.trim().strip_prefix(name)?.strip_prefix(':'));
    columns?.split_whitespace().nth(SENT_DROPPED)?.parse().ok()
}

impl EmulatedLink {
    /// Starts to carry packets: by `directions[0]` from the first device to the second, and by
    /// `directions[1]` back. Both devices are up.
    pub(super) fn start(
        devices: [Tun; 2],
        directions: [LinkDirection; 2],
    ) -> Result<Self, NetnsError> {
        let (stop, stopped) = UnixStream::pair().map_err(NetnsError::Link)?;
        let body = move || {
            let mut link = Link { devices, directions, begun: Instant::now() };
            link.run(&stopped)?;
            Ok(link.directions)
        };
        let thread = thread::Builder::new().name("link".to_owned()).spawn(body);
        let thread = thread.map_err(|source| NetnsError::Start { what: "link", source })?;
        Ok(Self { stop, thread: Some(thread) })
    }

    /// Readable once the thread has ended by itself, which it does only where it fails.
    pub(super) fn ended(&self) -> BorrowedFd<'_> {
        self.stop.as_fd()
    }

    /// Whether the thread has ended by itself.
    pub(super) fn has_ended(&self) -> bool {
        self.thread.as_ref().is_none_or(JoinHandle::is_finished)
    }

    /// Ends the thread and gives what the link did. Packets that are on their way are lost.
    pub(super) fn stop(mut self) -> Result<[LinkDirection; 2], NetnsError> {
        match self.join() {
            Some(Ok(directions)) => directions.map_err(NetnsError::Link),
            Some(Err(_)) | None => Err(NetnsError::LinkPanicked),
        }
    }

    fn join(&mut self) -> Option<thread::Result<io::Result<[LinkDirection; 2]>>> {
        // Where it fails, the thread has closed its end before.
        let _ = self.stop.shutdown(Shutdown::Both);
        self.thread.take().map(JoinHandle::join)
    }
}

impl Drop for EmulatedLink {
    fn drop(&mut self) {
        // Whoever wants to know what it did has stopped it.
        let _ = self.join();
    }
}

/// What the thread has.
struct Link {
    devices: [Tun; 2],
    directions: [LinkDirection; 2],
    begun: Instant,
}

impl Link {
    /// Carries packets until the other end of `stopped` is closed.
    fn run(&mut self, stopped: &UnixStream) -> io::Result<()> {
        // By default the kernel lets a thread sleep for 50 µs longer than it asked for.
        set_current_timer_slack(NonZeroU64::new(1))?;
        let mut buffer = [0; PACKET_LEN_MAX];
        loop {
            self.forward(0, 1)?;
            self.forward(1, 0)?;
            let [first, second, stop] = self.wait(stopped)?;
            if stop {
                return Ok(());
            }
            for (from, is_readable) in [(0, first), (1, second)] {
                if is_readable {
                    self.receive(from, &mut buffer)?;
                }
            }
        }
    }

    /// Writes the packets from one device whose time has come to the other.
    fn forward(&mut self, from: usize, to: usize) -> io::Result<()> {
        while let Some(packet) = self.directions[from].take_due(self.begun.elapsed()) {
            self.devices[to].send(&packet)?;
        }
        Ok(())
    }

    /// Waits until there is something to do; says what of both devices and `stopped` is readable.
    fn wait(&self, stopped: &UnixStream) -> io::Result<[bool; 3]> {
        let departures = self.directions.iter().filter_map(LinkDirection::poll_departure);
        // With no time left this looks and comes back at once: that is how the thread spins.
        let timeout = departures.min().map(|leaves| {
            let left = leaves.saturating_sub(self.begun.elapsed()).saturating_sub(SPIN);
            Timespec {
                tv_sec: i64::try_from(left.as_secs()).unwrap_or(i64::MAX),
                tv_nsec: left.subsec_nanos().into(),
            }
        });
        let mut fds = [
            PollFd::new(&self.devices[0], PollFlags::IN),
            PollFd::new(&self.devices[1], PollFlags::IN),
            PollFd::new(stopped, PollFlags::IN),
        ];
        match poll(&mut fds, timeout.as_ref()) {
            // Errors are for whoever reads.
            Ok(_) => Ok(fds.map(|fd| !fd.revents().is_empty())),
            Err(rustix::io::Errno::INTR) => Ok([false; 3]),
            Err(errno) => Err(errno.into()),
        }
    }

    /// Takes packets that were sent on a device.
    fn receive(&mut self, from: usize, buffer: &mut [u8]) -> io::Result<()> {
        for _ in 0..READS_MAX {
            let packet_len = match self.devices[from].recv(buffer) {
                Ok(packet_len) => packet_len,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            };
            let packet = &buffer[..packet_len];
            // Of IPv6 there is only what the kernel says by itself to a new link.
            if packet.first().is_some_and(|byte| byte >> 4 == 4) {
                self.directions[from].handle_arrival(self.begun.elapsed(), packet);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

    use super::*;

    #[test]
    fn what_a_device_dropped_is_in_the_column_of_what_was_sent() {
        let table = "Inter-|   Receive    |  Transmit\n face |bytes packets errs drop | bytes\n\
                     \x20   lo: 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16\n\
                     link01: 21 22 23 24 25 26 27 28 29 30 31 32 33 34 35 36\n\
                     \x20link0: 41 42 43 44 45 46 47 48 49 50 51 52 53 54 55 56\n";
        assert_eq!(dropped_in(table, "link0"), Some(52));
        assert_eq!(dropped_in(table, "lo"), Some(12));
        assert_eq!(dropped_in(table, "link"), None);
        assert_eq!(dropped_in("", "link0"), None);
    }
}

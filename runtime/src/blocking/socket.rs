//! The socket, and the system calls on it.
//!
//! Reads block, with a time-out where something is due. Writes never do: where the socket takes no
//! more, the client waits for both directions, since a server that has replies to be read may not
//! read before they are.

use std::{
    io::{self, ErrorKind, Read},
    net::{Shutdown, SocketAddr, TcpStream},
    time::{Duration, Instant},
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    io::Errno,
    net::{RecvFlags, SendFlags, recv, send},
};

use super::config::OUTGOING_KEPT_MAX;
use crate::{
    config::{LINGER_BYTES_MAX, LINGER_MAX},
    socket::{self, SocketConfig},
};

/// A connected socket, and the bytes that are on their way into it.
#[derive(Debug)]
pub(super) struct Socket {
    stream: TcpStream,
    /// The time-out that reads have now.
    read_timeout: Option<Duration>,
    outgoing: Vec<u8>,
    sent: usize,
}

/// What came of a read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Received {
    /// So many bytes.
    Bytes(usize),
    /// None for now.
    Nothing,
    /// None any more.
    End,
}

impl Socket {
    pub(super) fn connect(
        address: SocketAddr,
        config: &SocketConfig,
        timeout: Duration,
    ) -> io::Result<Self> {
        let socket = socket::client(address, config)?;
        socket.connect_timeout(&address.into(), timeout)?;
        let stream = TcpStream::from(socket);
        Ok(Self { stream, read_timeout: None, outgoing: Vec::new(), sent: 0 })
    }

    /// Sends what waits and then `output`, as far as the socket takes it at once. True where
    /// nothing is left.
    pub(super) fn send(&mut self, output: &mut Vec<u8>) -> io::Result<bool> {
        loop {
            if self.sent == self.outgoing.len() {
                self.outgoing.clear();
                self.sent = 0;
                if self.outgoing.capacity() > OUTGOING_KEPT_MAX {
                    self.outgoing = Vec::new();
                }
                if output.is_empty() {
                    return Ok(true);
                }
                std::mem::swap(&mut self.outgoing, output);
            }
            let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
            match send(&self.stream, &self.outgoing[self.sent..], flags) {
                Ok(sent) => self.sent += sent,
                Err(Errno::AGAIN) => return Ok(false),
                Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Bytes that the socket has not taken yet.
    pub(super) fn unsent(&self) -> usize {
        self.outgoing.len() - self.sent
    }

    /// Reads what has come. Where nothing has, waits for this long; without a time, for as long as
    /// it takes. Where bytes are unsent, their room in the socket ends the wait too.
    pub(super) fn receive(
        &mut self,
        to: &mut [u8],
        wait: Option<Duration>,
    ) -> io::Result<Received> {
        let received = if wait == Some(Duration::ZERO) {
            recv(&self.stream, to, RecvFlags::DONTWAIT).map(|(len, _)| len).map_err(Into::into)
        } else if self.unsent() > 0 {
            self.wait_for(PollFlags::IN | PollFlags::OUT, wait)?;
            recv(&self.stream, to, RecvFlags::DONTWAIT).map(|(len, _)| len).map_err(Into::into)
        } else {
            self.set_read_timeout(wait)?;
            self.stream.read(to)
        };
        match received {
            Ok(0) => Ok(Received::End),
            Ok(len) => Ok(Received::Bytes(len)),
            Err(error) => match error.kind() {
                ErrorKind::WouldBlock | ErrorKind::Interrupted => Ok(Received::Nothing),
                _ => Err(error),
            },
        }
    }

    /// Ends the connection once the socket has taken what is to be sent, or after a time.
    pub(super) fn close(&mut self, output: &mut Vec<u8>) {
        let since = Instant::now();
        while let Ok(false) = self.send(output) {
            let left = LINGER_MAX.saturating_sub(since.elapsed());
            if left.is_zero() || self.wait_for(PollFlags::OUT, Some(left)).is_err() {
                break;
            }
        }
        self.finish();
    }

    /// Sends no more, and throws away what has come.
    pub(super) fn finish(&mut self) {
        // What was sent must not be lost to a reset, which bytes that were not read would cause.
        let _ = self.stream.shutdown(Shutdown::Write);
        let mut rest = [0; 4096];
        let mut read = 0;
        while let Ok((len @ 1.., _)) = recv(&self.stream, &mut rest[..], RecvFlags::DONTWAIT) {
            read += len as u64;
            if read > LINGER_BYTES_MAX {
                break;
            }
        }
    }

    fn wait_for(&self, events: PollFlags, wait: Option<Duration>) -> io::Result<()> {
        let timeout = wait.and_then(|wait| Timespec::try_from(wait).ok());
        match poll(&mut [PollFd::new(&self.stream, events)], timeout.as_ref()) {
            Ok(_) | Err(Errno::INTR) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Sees to it that a read takes no longer than so long. It may take less: a time-out that is
    /// near enough is left, as setting one is a system call.
    fn set_read_timeout(&mut self, wait: Option<Duration>) -> io::Result<()> {
        if !is_near(self.read_timeout, wait) {
            let timeout = wait.map(coarse);
            self.stream.set_read_timeout(timeout)?;
            self.read_timeout = timeout;
        }
        Ok(())
    }
}

/// Whether a time-out is no longer than a wait, and not much shorter.
fn is_near(timeout: Option<Duration>, wait: Option<Duration>) -> bool {
    match (timeout, wait) {
        (None, None) => true,
        (Some(timeout), Some(wait)) => timeout <= wait && timeout >= wait / 2,
        (Some(timeout), None) => timeout >= LONG,
        (None, Some(_)) => false,
    }
}

/// The three leading bits of a time, so that the next wait, which most often is as long but for
/// the microseconds that have passed, finds the time-out near enough. At least a microsecond.
fn coarse(wait: Duration) -> Duration {
    let wait_us = u64::try_from(wait.as_micros()).unwrap_or(u64::MAX).max(1);
    let dropped = wait_us.ilog2().saturating_sub(2);
    Duration::from_micros(wait_us >> dropped << dropped)
}

/// A time-out as good as none: to wake up so rarely costs nothing.
const LONG: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_out_is_never_longer_than_what_is_waited_for() {
        for us in (1..2_000).chain([4_999_980, 30_000_000, u64::from(u32::MAX)]) {
            let wait = Duration::from_micros(us);
            let timeout = coarse(wait);
            assert!(timeout <= wait && !timeout.is_zero(), "{timeout:?} for {wait:?}");
            assert!(is_near(Some(timeout), Some(wait)), "{timeout:?} for {wait:?}");
        }
    }

    #[test]
    fn waits_that_differ_by_microseconds_share_a_time_out() {
        let timeout = Some(coarse(Duration::from_micros(4_999_980)));
        for us in [4_999_990, 4_999_970, 4_900_000] {
            assert!(is_near(timeout, Some(Duration::from_micros(us))));
        }
        assert!(!is_near(timeout, Some(Duration::from_secs(1))));
        assert!(!is_near(timeout, Some(Duration::from_secs(60))));
    }

    #[test]
    fn who_waits_for_ever_is_not_woken_all_the_time() {
        assert!(is_near(None, None));
        assert!(is_near(Some(Duration::from_secs(4)), None));
        assert!(!is_near(Some(Duration::from_micros(400)), None));
        assert!(!is_near(None, Some(Duration::from_secs(4))));
    }
}

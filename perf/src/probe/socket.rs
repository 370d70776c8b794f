//! The probe's socket: bytes, and when the kernel had them.
//!
//! SO_TIMESTAMPING has the kernel note when it gave the last byte of a send to the device, and
//! when it was given the last bytes of a read by one; the former comes by the socket's error
//! queue, named by the byte's place in the stream, the latter beside the bytes. Where a NIC was
//! told to stamp packets itself, its stamps are read too: they are of the NIC's clock, and good
//! for differences only.

use std::{
    io::{self, IoSliceMut, Write},
    net::{SocketAddr, TcpStream},
    os::fd::AsRawFd,
    time::Duration,
};

use nix::{
    errno::Errno,
    libc,
    sys::{
        socket::{
            ControlMessageOwned, MsgFlags, TimestampingFlag, recvmsg, setsockopt,
            sockopt::Timestamping,
        },
        time::TimeSpec,
    },
};

/// Time within which the server must connect, and answer.
const ANSWER_MAX: Duration = Duration::from_secs(5);

/// Bytes of control messages of one read: the longest are three times of 16 bytes and an error
/// with an address, each with a header.
const CONTROL_LEN: usize = 256;

/// A connected socket.
pub(super) struct StampedSocket {
    stream: TcpStream,
    control: Vec<u8>,
    /// Bytes that were sent since the kernel counts them.
    sent: u32,
}

/// When the kernel was done with the last byte of a send, as far as it says so. In nanoseconds, of
/// CLOCK_REALTIME where nothing else is said.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct SendStamps {
    /// It came to the queue before the device.
    pub(super) queued_ns: Option<u64>,
    /// The driver was given it.
    pub(super) driver_ns: Option<u64>,
    /// The peer's kernel has acknowledged it, with a packet of its own or with its answer.
    pub(super) acknowledged_ns: Option<u64>,
    /// The NIC sent it, by the NIC's clock.
    pub(super) nic_ns: Option<u64>,
}

/// Bytes that came, and when.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Received {
    /// How many; none is the end of the stream.
    pub(super) len: usize,
    /// When the kernel was given the last of them, in nanoseconds of CLOCK_REALTIME.
    pub(super) driver_ns: Option<u64>,
    /// The same by the NIC's clock.
    pub(super) nic_ns: Option<u64>,
}

impl StampedSocket {
    /// Connects, without timestamps yet.
    pub(super) fn connect(address: SocketAddr) -> io::Result<Self> {
        let stream = TcpStream::connect_timeout(&address, ANSWER_MAX)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(ANSWER_MAX))?;
        stream.set_write_timeout(Some(ANSWER_MAX))?;
        Ok(Self { stream, control: vec![0; CONTROL_LEN], sent: 0 })
    }

    /// Asks the kernel for timestamps from now on. The peer has answered everything that was
    /// sent: the kernel counts from the first byte that is not acknowledged.
    pub(super) fn begin_stamps(&mut self) -> io::Result<()> {
        let flags = libc::SOF_TIMESTAMPING_SOFTWARE
            | libc::SOF_TIMESTAMPING_RX_SOFTWARE
            | libc::SOF_TIMESTAMPING_TX_SOFTWARE
            | libc::SOF_TIMESTAMPING_TX_SCHED
            | libc::SOF_TIMESTAMPING_TX_ACK
            | libc::SOF_TIMESTAMPING_RAW_HARDWARE
            | libc::SOF_TIMESTAMPING_RX_HARDWARE
            | libc::SOF_TIMESTAMPING_TX_HARDWARE
            // Without it a NIC's stamp takes the place of the kernel's.
            | libc::SOF_TIMESTAMPING_OPT_TX_SWHW
            | libc::SOF_TIMESTAMPING_OPT_ID
            | libc::SOF_TIMESTAMPING_OPT_TSONLY;
        setsockopt(&self.stream, Timestamping, &TimestampingFlag::from_bits_retain(flags))?;
        self.sent = 0;
        Ok(())
    }

    /// Sends all bytes.
    pub(super) fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes)?;
        // The kernel's counter of them has 32 bits too.
        self.sent = self.sent.wrapping_add(bytes.len() as u32);
        Ok(())
    }

    /// Waits for bytes, for a time.
    pub(super) fn receive(&mut self, to: &mut [u8]) -> io::Result<Received> {
        loop {
            match self.read_message(to, MsgFlags::empty()) {
                Ok((len, notes)) => {
                    let Notes { driver_ns, nic_ns, .. } = notes;
                    return Ok(Received { len, driver_ns, nic_ns });
                }
                Err(Errno::EINTR) => {}
                Err(Errno::EAGAIN) => return Err(io::ErrorKind::TimedOut.into()),
                Err(errno) => return Err(errno.into()),
            }
        }
    }

    /// The stamps of the last byte that was sent, as far as they are there by now. Throws those of
    /// earlier ones away.
    pub(super) fn send_stamps(&mut self) -> SendStamps {
        let mut stamps = SendStamps::default();
        let last_byte = self.sent.wrapping_sub(1);
        loop {
            let notes = match self.read_message(&mut [], MsgFlags::MSG_ERRQUEUE) {
                Ok((_, notes)) => notes,
                Err(Errno::EINTR) => continue,
                // The queue is empty.
                Err(_) => return stamps,
            };
            if let Some(about) = notes.about.filter(|about| about.byte == last_byte) {
                stamps.note(about.what, &notes);
            }
        }
    }

    fn read_message(&mut self, to: &mut [u8], flags: MsgFlags) -> Result<(usize, Notes), Errno> {
        let mut to = [IoSliceMut::new(to)];
        let descriptor = self.stream.as_raw_fd();
        let message = recvmsg::<()>(descriptor, &mut to, Some(&mut self.control), flags)?;
        let mut notes = Notes::default();
        // Messages that are cut say nothing.
        message.cmsgs().into_iter().flatten().for_each(|message| notes.read(&message));
        Ok((message.bytes, notes))
    }
}

/// What stands beside the bytes of a read, or in the error queue.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Notes {
    driver_ns: Option<u64>,
    nic_ns: Option<u64>,
    about: Option<About>,
}

/// Which event a stamp of the error queue is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct About {
    /// The place in the stream of the last byte that it is about.
    byte: u32,
    what: u32,
}

/// Kinds of stamps of the error queue, as the kernel numbers them.
const SENT: u32 = 0;
const QUEUED: u32 = 1;
const ACKNOWLEDGED: u32 = 2;

impl Notes {
    fn read(&mut self, message: &ControlMessageOwned) {
        match message {
            ControlMessageOwned::ScmTimestampsns(stamps) => {
                self.driver_ns = ns_of(&stamps.system);
                self.nic_ns = ns_of(&stamps.hw_raw);
            }
            ControlMessageOwned::Ipv4RecvErr(error, _)
            | ControlMessageOwned::Ipv6RecvErr(error, _)
                if error.ee_origin == libc::SO_EE_ORIGIN_TIMESTAMPING =>
            {
                self.about = Some(About { byte: error.ee_data, what: error.ee_info });
            }
            _ => {}
        }
    }
}

impl SendStamps {
    /// Takes what the error queue says of the byte that is asked for.
    fn note(&mut self, what: u32, notes: &Notes) {
        match what {
            SENT => {
                self.driver_ns = notes.driver_ns.or(self.driver_ns);
                self.nic_ns = notes.nic_ns.or(self.nic_ns);
            }
            QUEUED => self.queued_ns = notes.driver_ns,
            ACKNOWLEDGED => self.acknowledged_ns = notes.driver_ns,
            _ => {}
        }
    }
}

/// A stamp in nanoseconds; all zeros are none.
fn ns_of(time: &TimeSpec) -> Option<u64> {
    let seconds = u64::try_from(time.tv_sec()).ok()?;
    let nanoseconds = u64::try_from(time.tv_nsec()).ok()?;
    let ns = seconds.checked_mul(1_000_000_000)?.checked_add(nanoseconds)?;
    (ns > 0).then_some(ns)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

    use std::{
        io::Read,
        net::TcpListener,
        thread,
        time::{SystemTime, UNIX_EPOCH},
    };

    use super::*;

    fn real_ns() -> u64 {
        SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos() as u64
    }

    #[test]
    fn the_kernel_says_when_it_had_the_bytes() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let echo = thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut bytes = [0; 7];
            while stream.read_exact(&mut bytes).is_ok() {
                stream.write_all(&bytes).unwrap();
            }
        });
        let mut socket = StampedSocket::connect(address).unwrap();
        socket.begin_stamps().unwrap();
        // The kernel begins to stamp what comes in a little after it was asked to.
        let (before_ns, sent, received) = (0..100_000)
            .find_map(|_| {
                let before_ns = real_ns();
                socket.send(b"7 bytes").unwrap();
                let received = socket.receive(&mut [0; 64]).unwrap();
                assert_eq!(received.len, 7);
                let sent = socket.send_stamps();
                received.driver_ns.map(|_| (before_ns, sent, received))
            })
            .expect("no stamp of what came");
        let times = [Some(before_ns), sent.queued_ns, sent.driver_ns, received.driver_ns];
        let times = times.map(|ns| ns.expect("a stamp is missing"));
        assert!(times.is_sorted(), "{times:?}");
        assert!(times[3] <= real_ns());
        drop(socket);
        echo.join().unwrap();
    }

    #[test]
    fn a_server_that_is_gone_is_the_end_of_the_stream() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut socket = StampedSocket::connect(listener.local_addr().unwrap()).unwrap();
        socket.begin_stamps().unwrap();
        drop(listener.accept().unwrap());
        assert_eq!(socket.receive(&mut [0; 64]).unwrap(), Received::default());
        assert_eq!(socket.send_stamps(), SendStamps::default());
    }

    #[test]
    fn a_stamp_is_of_what_the_error_queue_says() {
        let notes = |driver_ns, nic_ns| Notes { driver_ns, nic_ns, about: None };
        let mut stamps = SendStamps::default();
        stamps.note(QUEUED, &notes(Some(1), None));
        // The driver's and the NIC's come apart, in any order.
        stamps.note(SENT, &notes(None, Some(9)));
        stamps.note(SENT, &notes(Some(2), None));
        stamps.note(ACKNOWLEDGED, &notes(Some(3), None));
        stamps.note(77, &notes(Some(4), Some(4)));
        let expected = SendStamps {
            queued_ns: Some(1),
            driver_ns: Some(2),
            acknowledged_ns: Some(3),
            nic_ns: Some(9),
        };
        assert_eq!(stamps, expected);
    }

    #[test]
    fn zeros_are_no_stamp() {
        assert_eq!(ns_of(&TimeSpec::new(0, 0)), None);
        assert_eq!(ns_of(&TimeSpec::new(-1, 0)), None);
        assert_eq!(ns_of(&TimeSpec::new(2, 3)), Some(2_000_000_003));
        assert_eq!(ns_of(&TimeSpec::new(i64::MAX, 0)), None);
    }
}

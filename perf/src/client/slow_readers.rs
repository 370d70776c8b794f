//! Connections that ask for more than they read: the server must neither keep what it would send
//! without bound, nor serve others worse for it.

use std::{
    io::{self, Read, Write},
    net::{SocketAddr, TcpStream},
    thread,
    time::Duration,
};

use crate::{
    error::Failure,
    floor::frames::{self, CallIds},
    gate::State,
    target::Target,
    workload::Workload,
};

/// Calls that a slow reader has made and not yet read the reply of, at most.
const OWED_MAX: u32 = 1024;

/// What it reads at a time, in bytes.
const READ_LEN: usize = 1024;

/// Time between two reads.
const READ_EVERY: Duration = Duration::from_millis(10);

/// Time within which a server must greet.
const ANSWER_MAX: Duration = Duration::from_secs(5);

struct Reader {
    stream: TcpStream,
    frame: Vec<u8>,
    ids: Option<CallIds>,
    /// Bytes of the frame that is being sent which are sent already.
    sent: usize,
    calls: u64,
    read: u64,
}

/// What slow readers have seen.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct SlowlyRead {
    pub(crate) bytes: u64,
    /// Readers that the server cut off.
    pub(crate) cut_off: u32,
}

/// Keeps slow readers until it is over.
pub(crate) fn run(
    address: SocketAddr,
    count: u32,
    workload: Workload,
    state: &State,
) -> Result<SlowlyRead, Failure> {
    let failed = |source| Failure::NoEcho { address, target: Target::Ringcall, source };
    let (mut readers, mut seen) = (Vec::new(), SlowlyRead::default());
    for _ in 0..count {
        if state.is_over() {
            break;
        }
        readers.push(Reader::connect(address, workload).map_err(failed)?);
    }
    while !state.is_over() {
        readers.retain_mut(|reader| {
            let before = reader.read;
            let is_there = reader.turn().is_ok();
            seen.bytes += reader.read - before;
            seen.cut_off += u32::from(!is_there);
            is_there
        });
        thread::sleep(READ_EVERY);
    }
    Ok(seen)
}

impl Reader {
    fn connect(address: SocketAddr, workload: Workload) -> io::Result<Self> {
        let mut stream = TcpStream::connect_timeout(&address, ANSWER_MAX)?;
        let workload = Workload { depth: OWED_MAX, ..workload };
        let (frame, ids) = frames::open(&mut stream, Target::Ringcall, workload, ANSWER_MAX)?;
        stream.set_nonblocking(true)?;
        Ok(Self { stream, frame, ids, sent: 0, calls: 0, read: 0 })
    }

    /// Reads a little, and asks for as much as it may.
    fn turn(&mut self) -> io::Result<()> {
        let mut buffer = [0; READ_LEN];
        match self.stream.read(&mut buffer) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(len) => self.read += len as u64,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
        // Replies are as long as the calls, and come in their order.
        let answered = self.read / self.frame.len() as u64;
        while self.calls < answered + u64::from(OWED_MAX) {
            if self.sent == 0
                && let Some(ids) = &mut self.ids
            {
                let len = self.frame.len();
                ids.number(&mut self.frame, len);
            }
            match self.stream.write(&self.frame[self.sent..]) {
                Ok(len) => self.sent += len,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            }
            if self.sent == self.frame.len() {
                self.sent = 0;
                self.calls += 1;
            }
        }
        Ok(())
    }
}

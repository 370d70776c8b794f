//! The two sides as processes, and the signals that end them.
//!
//! Nothing here waits without listening to the user: whatever is waited for, a signal comes first.

use std::{
    ffi::OsString,
    io::{self, Read},
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::{net::UnixStream, process::CommandExt},
    },
    process::{Child, Command, ExitStatus, Stdio},
    time::{Duration, Instant},
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    io::Errno,
    process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal},
};
use signal_hook::{
    consts::{SIGHUP, SIGINT, SIGTERM},
    low_level::pipe,
};

use super::{NetnsError, namespace::Namespace};
use crate::error::Failure;

/// Time that the server has to start.
const START_MAX: Duration = Duration::from_secs(30);

/// The signals that ask for the end. None ends this process by itself, however many come: it has
/// something to clear up.
pub(super) struct Signals {
    /// Has a byte for each signal that came.
    came: UnixStream,
}

/// Why a wait is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wake {
    /// The user has asked for the end.
    Signal,
    /// What was waited for has come.
    Ready,
    /// The time is over.
    Late,
}

/// A side that runs. Dropping it kills it.
pub(super) struct Running {
    what: &'static str,
    child: Child,
    /// Refers to the process, and is readable once it has ended.
    pidfd: OwnedFd,
}

impl Signals {
    /// Watches from now on.
    pub(super) fn watch() -> io::Result<Self> {
        let (came, comes) = UnixStream::pair()?;
        came.set_nonblocking(true)?;
        for signal in [SIGINT, SIGTERM, SIGHUP] {
            pipe::register(signal, comes.try_clone()?)?;
        }
        Ok(Self { came })
    }

    /// Waits until a signal comes, or one of `fds` is readable, or it is late. Each signal ends one
    /// wait.
    pub(super) fn wait(
        &mut self,
        fds: &[BorrowedFd<'_>],
        until: Option<Instant>,
    ) -> io::Result<Wake> {
        loop {
            let left = until.map(|until| until.saturating_duration_since(Instant::now()));
            let timeout = left.and_then(|left| Timespec::try_from(left).ok());
            let mut polled = vec![PollFd::new(&self.came, PollFlags::IN)];
            polled.extend(fds.iter().map(|fd| PollFd::new(fd, PollFlags::IN)));
            let count = match poll(&mut polled, timeout.as_ref()) {
                Ok(count) => count,
                Err(Errno::INTR) => continue,
                Err(errno) => return Err(errno.into()),
            };
            let is_signal = !polled[0].revents().is_empty();
            return match count {
                0 => Ok(Wake::Late),
                _ if is_signal => {
                    self.came.read_exact(&mut [0])?;
                    Ok(Wake::Signal)
                }
                _ => Ok(Wake::Ready),
            };
        }
    }
}

impl Running {
    /// Starts this program within a namespace.
    pub(super) fn start(
        namespace: &Namespace,
        what: &'static str,
        args: &[OsString],
        stdout: Stdio,
    ) -> Result<Self, NetnsError> {
        let started = namespace.within(|| {
            // In a process group of its own: Ctrl-C is for this process, which passes it on once.
            let mut command = Command::new(std::env::current_exe()?);
            command.args(args).stdin(Stdio::null()).stdout(stdout).process_group(0).spawn()
        })?;
        let mut child = started.map_err(|source| NetnsError::Start { what, source })?;
        let opened = Pid::from_raw(child.id().cast_signed())
            .ok_or(Errno::SRCH)
            .and_then(|pid| pidfd_open(pid, PidfdFlags::empty()));
        match opened {
            Ok(pidfd) => Ok(Self { what, child, pidfd }),
            Err(errno) => {
                let _ = child.kill();
                let _ = child.wait();
                Err(NetnsError::Start { what, source: errno.into() })
            }
        }
    }

    /// Readable once it has ended.
    pub(super) fn ended(&self) -> BorrowedFd<'_> {
        self.pidfd.as_fd()
    }

    /// How it ended, if it has.
    pub(super) fn try_end(&mut self) -> Result<Option<ExitStatus>, NetnsError> {
        self.child.try_wait().map_err(|source| NetnsError::Wait { what: self.what, source })
    }

    /// Tells it to end, and kills it where it does not within the time, or where the user asks for
    /// the end once more.
    pub(super) fn end(
        &mut self,
        signals: &mut Signals,
        within: Duration,
    ) -> Result<ExitStatus, NetnsError> {
        let what = self.what;
        // One that has just ended needs no signal.
        let _ = pidfd_send_signal(&self.pidfd, Signal::INT);
        let wake = signals.wait(&[self.ended()], Some(Instant::now() + within));
        if wake.map_err(|source| NetnsError::Wait { what, source })? != Wake::Ready {
            let _ = self.child.kill();
        }
        self.child.wait().map_err(|source| NetnsError::Wait { what, source })
    }

    /// Waits until it serves: then it prints its address on a line.
    pub(super) fn wait_serving(&mut self, signals: &mut Signals) -> Result<(), Failure> {
        let failed = |source| NetnsError::Wait { what: "server", source };
        let until = Instant::now() + START_MAX;
        let mut line = Vec::new();
        while let Some(stdout) = self.child.stdout.as_mut().filter(|_| !line.ends_with(b"\n")) {
            match signals.wait(&[stdout.as_fd()], Some(until)).map_err(failed)? {
                Wake::Signal => return Err(Failure::Interrupted),
                Wake::Late => return Err(NetnsError::Silent { within: START_MAX }.into()),
                Wake::Ready => {}
            }
            let mut chunk = [0; 256];
            let len = stdout.read(&mut chunk).map_err(failed)?;
            line.extend_from_slice(&chunk[..len]);
            if len == 0 {
                // It ends, and has said why.
                return Err(NetnsError::NotServing(self.end(signals, START_MAX)?).into());
            }
        }
        Ok(())
    }

    /// What it has printed and nobody has read. It has ended.
    pub(super) fn rest_of_output(&mut self) -> String {
        let mut rest = String::new();
        if let Some(stdout) = self.child.stdout.as_mut() {
            // Where it cannot be read there is nothing to show.
            let _ = stdout.read_to_string(&mut rest);
        }
        rest
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Neither does anything to one whose end is known.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

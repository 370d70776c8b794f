//! The bell: an eventfd that wakes a parked executor.
//!
//! Beside the path of a call: the ring rings it when there are completions to fetch, other
//! threads when they have left work. Nobody touches it while the shard is busy.

use std::{
    io,
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd},
    sync::Arc,
};

use rustix::event::{EventfdFlags, eventfd};

/// A non-blocking eventfd. Clones are the same bell, and may ring from any thread.
#[derive(Clone, Debug)]
pub struct Bell(Arc<OwnedFd>);

impl Bell {
    /// Makes a bell that has not been rung.
    ///
    /// # Errors
    ///
    /// Where the process has too many open files.
    pub fn new() -> io::Result<Self> {
        let fd = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        Ok(Self(Arc::new(fd)))
    }

    /// Makes the bell readable until it is [cleared](Self::clear). Costs a syscall.
    pub fn ring(&self) {
        // Fails only where the counter is full: the bell is rung already.
        let _ = rustix::io::write(&*self.0, &1_u64.to_ne_bytes());
    }

    /// Silences the bell. Never blocks. Costs a syscall.
    pub fn clear(&self) {
        // Fails only where the counter is zero: the bell is silent already.
        let _ = rustix::io::read(&*self.0, &mut [0; 8]);
    }
}

impl AsFd for Bell {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl AsRawFd for Bell {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

//! Why a ring cannot be made, and what to do about it.

use std::io;

use rustix::{
    io::Errno,
    process::{Resource, getrlimit},
};

/// Why a ring cannot be made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RingError {
    /// The system forbids io_uring.
    #[error(
        "io_uring is forbidden here (EPERM): {}; or a seccomp profile forbids it, as those of \
         container engines do by default: run with one that allows io_uring_setup, \
         io_uring_enter and io_uring_register",
        disabled_advice()
    )]
    Forbidden,
    /// The kernel has no io_uring.
    #[error("this kernel has no io_uring (ENOSYS); ringcall needs Linux 6.1 or later, built with CONFIG_IO_URING")]
    Missing,
    /// The kernel's io_uring is too old.
    #[error("this kernel's io_uring lacks {what} (EINVAL); ringcall needs Linux 6.1 or later")]
    TooOld {
        /// What it lacks.
        what: &'static str,
    },
    /// Too little memory may be locked.
    #[error(
        "too little memory may be locked for the ring (ENOMEM); the limit is {}: raise it with \
         `ulimit -l`, LimitMEMLOCK= of systemd or --ulimit memlock= of a container",
        memlock_limit()
    )]
    Memlock,
    /// The process or the system has no descriptor left.
    #[error("no file descriptor is left for the ring; raise the limit with `ulimit -n`")]
    Descriptors,
    /// Something else that the kernel says.
    #[error("cannot {what}: {source}")]
    Os {
        /// What was tried.
        what: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
}

impl RingError {
    pub(super) fn from_setup(error: io::Error) -> Self {
        Self::classify(error, "set the ring up", "the setup flags DEFER_TASKRUN and SINGLE_ISSUER")
    }

    pub(super) fn from_pool(error: io::Error) -> Self {
        Self::classify(error, "register the receive buffers", "rings of provided buffers")
    }

    pub(super) fn from_memory(error: io::Error) -> Self {
        Self::classify(error, "map the receive buffers", "anonymous mappings")
    }

    pub(super) fn from_bell(error: io::Error) -> Self {
        Self::classify(error, "register the ring's eventfd", "eventfd notification")
    }

    fn classify(source: io::Error, what: &'static str, feature: &'static str) -> Self {
        match Errno::from_io_error(&source) {
            Some(Errno::PERM | Errno::ACCESS) => Self::Forbidden,
            Some(Errno::NOSYS) => Self::Missing,
            Some(Errno::INVAL) => Self::TooOld { what: feature },
            Some(Errno::NOMEM) => Self::Memlock,
            Some(Errno::MFILE | Errno::NFILE) => Self::Descriptors,
            _ => Self::Os { what, source },
        }
    }
}

/// What the sysctl says, and what to do about it.
fn disabled_advice() -> String {
    let setting = std::fs::read_to_string("/proc/sys/kernel/io_uring_disabled");
    match setting.as_deref().map(str::trim) {
        Ok("0") => "the sysctl kernel.io_uring_disabled is 0 and allows it".to_owned(),
        Ok(value) => format!(
            "the sysctl kernel.io_uring_disabled is {value}; allow it with \
             `sysctl -w kernel.io_uring_disabled=0`"
        ),
        Err(_) => "allow it with `sysctl -w kernel.io_uring_disabled=0`".to_owned(),
    }
}

/// The limit as a person reads it.
fn memlock_limit() -> String {
    match getrlimit(Resource::Memlock).current {
        Some(bytes) => format!("{} KiB", bytes / 1024),
        None => "none, so memory itself is short".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(errno: Errno) -> String {
        RingError::from_setup(errno.into()).to_string()
    }

    #[test]
    fn each_refusal_of_the_kernel_says_what_to_do() {
        assert!(text(Errno::PERM).contains("kernel.io_uring_disabled"));
        assert!(text(Errno::PERM).contains("seccomp"));
        assert!(text(Errno::NOSYS).contains("Linux 6.1"));
        assert!(text(Errno::INVAL).contains("DEFER_TASKRUN"));
        assert!(text(Errno::NOMEM).contains("ulimit -l"));
        assert!(text(Errno::MFILE).contains("ulimit -n"));
        assert!(text(Errno::IO).starts_with("cannot set the ring up"));
    }
}

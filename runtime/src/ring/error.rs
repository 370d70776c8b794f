//! Why a ring cannot be made, in words that say what to do about it.
//!
//! Beside the path of a call, at start-up. It never guesses: every cure it names belongs to the
//! error number that the kernel gave.

use std::{fmt, io};

use rustix::{
    io::Errno,
    process::{Resource, getrlimit},
};

use super::RingConfig;

/// Why a ring cannot be made or equipped.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RingError {
    /// EPERM: the kernel or a seccomp profile forbids io_uring.
    #[error(
        "io_uring is forbidden here (EPERM): allow it with `sysctl -w kernel.io_uring_disabled=0`; \
         in a container, also run with a seccomp profile that allows io_uring_setup, \
         io_uring_enter and io_uring_register (the default profiles of Docker, containerd and \
         Podman do not)"
    )]
    Forbidden,
    /// ENOSYS: the kernel has no io_uring, or a seccomp profile hides it.
    #[error(
        "this kernel has no io_uring (ENOSYS): Linux 6.1 or later built with CONFIG_IO_URING is \
         needed; in a container, also a seccomp profile that allows io_uring_setup"
    )]
    Missing,
    /// ENOMEM: too little memory may be locked.
    #[error(
        "too little memory may be locked (ENOMEM): the limit RLIMIT_MEMLOCK is {limit}, and this \
         ring wants about {wanted_bytes} bytes beside those of other rings: raise it with \
         `ulimit -l` (in KiB) or with LimitMEMLOCK= in the systemd unit"
    )]
    Memlock {
        /// The limit at present.
        limit: MemlockLimit,
        /// About what the kernel locks for the ring and its pool, in bytes.
        wanted_bytes: u64,
    },
    /// EMFILE or ENFILE: too many open files.
    #[error(
        "too many open files for one more ring: raise the limit with `ulimit -n` or with \
         LimitNOFILE= in the systemd unit"
    )]
    Descriptors,
    /// EINVAL on setup: the kernel does not know the flags.
    #[error(
        "the kernel refuses the ring's setup flags (EINVAL: single issuer, deferred task work): \
         Linux 6.1 or later is needed"
    )]
    SetupUnsupported,
    /// EINVAL on registering the pool: the kernel has no provided-buffer rings.
    #[error(
        "the kernel refuses the ring of receive buffers (EINVAL): Linux 5.19 or later is needed"
    )]
    PoolUnsupported,
    /// A setting is out of its bounds.
    #[error("{setting} is {value}, but must be {wanted}")]
    Config {
        /// The setting's name in [`RingConfig`].
        setting: &'static str,
        /// Its value.
        value: u64,
        /// Its bounds.
        wanted: &'static str,
    },
    /// The memory of the receive buffers cannot be mapped.
    #[error("cannot map memory for the receive buffers ({wanted_bytes} bytes)")]
    Memory {
        /// What was asked for, in bytes.
        wanted_bytes: u64,
        /// What the kernel says.
        source: io::Error,
    },
    /// Any other refusal.
    #[error("cannot {step}")]
    Refused {
        /// What was tried.
        step: Step,
        /// What the kernel says.
        source: io::Error,
    },
}

/// A step of making a ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Step {
    /// io_uring_setup and mapping its queues.
    Setup,
    /// Registering the pool of receive buffers.
    Pool,
    /// Registering the bell.
    Bell,
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Setup => "set up io_uring",
            Self::Pool => "register the receive buffers with io_uring",
            Self::Bell => "register the eventfd with io_uring; a ring takes one bell",
        })
    }
}

/// The limit on locked memory. Displays as bytes or "unlimited".
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemlockLimit(Option<u64>);

impl fmt::Display for MemlockLimit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(bytes) => write!(f, "{bytes} bytes"),
            None => f.write_str("unlimited"),
        }
    }
}

impl RingError {
    /// Names the cause where something else of a shard than its ring cannot be made, if the cure is
    /// one that is named here; gives the error back if not.
    pub(crate) fn of_shard(source: io::Error) -> Result<Self, io::Error> {
        match Errno::from_io_error(&source) {
            Some(Errno::PERM | Errno::NOSYS | Errno::NOMEM | Errno::MFILE | Errno::NFILE) => {
                Ok(Self::of(Step::Setup, source, &RingConfig::default()))
            }
            _ => Err(source),
        }
    }

    /// Names the cause of a step's failure, and the cure where there is one.
    pub(super) fn of(step: Step, source: io::Error, config: &RingConfig) -> Self {
        match (step, Errno::from_io_error(&source)) {
            (_, Some(Errno::PERM)) => Self::Forbidden,
            (Step::Setup, Some(Errno::NOSYS)) => Self::Missing,
            (_, Some(Errno::NOMEM)) => Self::Memlock {
                limit: MemlockLimit(getrlimit(Resource::Memlock).current),
                wanted_bytes: locked_bytes(config),
            },
            (_, Some(Errno::MFILE | Errno::NFILE)) => Self::Descriptors,
            (Step::Setup, Some(Errno::INVAL)) => Self::SetupUnsupported,
            (Step::Pool, Some(Errno::INVAL)) => Self::PoolUnsupported,
            _ => Self::Refused { step, source },
        }
    }
}

/// About what the kernel locks for a ring: its queues, and the entries of the pool.
fn locked_bytes(config: &RingConfig) -> u64 {
    const SQ_ENTRY: u64 = 64 + 4;
    const CQ_ENTRY: u64 = 16;
    const POOL_ENTRY: u64 = 16;
    u64::from(config.sq_entries) * SQ_ENTRY
        + u64::from(config.cq_entries) * CQ_ENTRY
        + u64::from(config.pool_buffers) * POOL_ENTRY
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(step: Step, errno: Errno) -> String {
        RingError::of(step, errno.into(), &RingConfig::default()).to_string()
    }

    #[test]
    fn each_refusal_names_its_cure() {
        let forbidden = message(Step::Setup, Errno::PERM);
        assert!(forbidden.contains("sysctl -w kernel.io_uring_disabled=0"), "{forbidden}");
        assert!(forbidden.contains("seccomp"), "{forbidden}");
        let missing = message(Step::Setup, Errno::NOSYS);
        assert!(missing.contains("no io_uring") && missing.contains("6.1"), "{missing}");
        let memlock = message(Step::Setup, Errno::NOMEM);
        assert!(memlock.contains("RLIMIT_MEMLOCK"), "{memlock}");
        assert!(memlock.contains("ulimit -l") && memlock.contains("LimitMEMLOCK="), "{memlock}");
        let old = message(Step::Setup, Errno::INVAL);
        assert!(old.contains("6.1"), "{old}");
        let older = message(Step::Pool, Errno::INVAL);
        assert!(older.contains("5.19"), "{older}");
        let files = message(Step::Setup, Errno::MFILE);
        assert!(files.contains("ulimit -n"), "{files}");
    }

    #[test]
    fn an_unforeseen_refusal_keeps_the_kernels_words() {
        let error = RingError::of(Step::Bell, Errno::BUSY.into(), &RingConfig::default());
        assert!(matches!(error, RingError::Refused { step: Step::Bell, .. }));
        assert!(std::error::Error::source(&error).is_some());
    }
}

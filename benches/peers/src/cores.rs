//! The core of each side: it must be there, and the other side's must be another one.

use std::io;

use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

use crate::error::Failure;

/// Checks the cores of the two sides.
///
/// They must differ: what a core's threads have used is what its side has used (`cpu`), and two
/// sides on one core take its time from each other.
pub(crate) fn check(server: usize, client: usize) -> Result<(), Failure> {
    let allowed = sched_getaffinity(None).map_err(|errno| Failure::Cores(errno.into()))?;
    let available: Vec<usize> = (0..CpuSet::MAX_CPU).filter(|core| allowed.is_set(*core)).collect();
    for core in [server, client] {
        if !available.contains(&core) {
            let numbers: Vec<String> = available.iter().map(ToString::to_string).collect();
            return Err(Failure::NoSuchCore { core, available: numbers.join(",") });
        }
    }
    if server == client { Err(Failure::SameCore { core: server }) } else { Ok(()) }
}

/// Pins this thread to a core, and with it every thread that it starts from now on.
pub(crate) fn pin(core: usize) -> Result<(), Failure> {
    let mut set = CpuSet::new();
    if core >= CpuSet::MAX_CPU {
        return Err(Failure::Pin { core, source: io::ErrorKind::InvalidInput.into() });
    }
    set.set(core);
    sched_setaffinity(None, &set).map_err(|errno| Failure::Pin { core, source: errno.into() })
}

//! The core of each side: it must be there, and the other side's must be another one.

use ringcall_perf::cores;

use crate::error::Failure;

/// Checks the cores of the two sides.
///
/// They must differ: what a core's threads have used is what its side has used (`cpu`), and two
/// sides on one core take its time from each other.
pub(crate) fn check(server: usize, client: usize) -> Result<(), Failure> {
    let available = cores::available().map_err(Failure::Cores)?;
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
    cores::pin(core).map_err(|source| Failure::Pin { core, source })
}

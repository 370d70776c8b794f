//! The memory of this process, for tests that look at how it grows.

use std::{
    fs,
    sync::{Mutex, PoisonError},
};

use super::wait::watched;

static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

/// Runs a test while no other of this process does.
pub(crate) fn alone(body: impl FnOnce() + Send + 'static) {
    let _alone = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    watched(body);
}

/// Memory of this process that is there and not only promised, in bytes.
pub(crate) fn resident() -> usize {
    let statm = fs::read_to_string("/proc/self/statm").unwrap();
    let pages: usize = statm.split(' ').nth(1).unwrap().parse().unwrap();
    pages * rustix::param::page_size()
}

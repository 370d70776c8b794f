//! Ctrl-C: the run ends soon and cleanly; a second one ends the process at once.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use signal_hook::{
    consts::{SIGINT, SIGTERM},
    flag,
};

use crate::error::Failure;

/// Whether the user has asked for the end, by SIGINT or SIGTERM.
pub(crate) struct Interrupt(Arc<AtomicBool>);

impl Interrupt {
    /// Watches from now on.
    pub(crate) fn watch() -> Result<Self, Failure> {
        let is_set = Arc::<AtomicBool>::default();
        for signal in [SIGINT, SIGTERM] {
            // In this order: the first signal only sets the flag, which arms the second.
            flag::register_conditional_default(signal, Arc::clone(&is_set))
                .map_err(Failure::Signals)?;
            flag::register(signal, Arc::clone(&is_set)).map_err(Failure::Signals)?;
        }
        Ok(Self(is_set))
    }

    pub(crate) fn is_set(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    /// An error once it was asked for the end.
    pub(crate) fn check(&self) -> Result<(), Failure> {
        if self.is_set() { Err(Failure::Interrupted) } else { Ok(()) }
    }
}

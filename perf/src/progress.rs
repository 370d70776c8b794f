//! How far a run is: a bar on standard error, where that is a terminal.

use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// The progress of a whole command.
pub(crate) struct Progress {
    bar: ProgressBar,
    begun: Instant,
}

impl Progress {
    /// Begins, with the time that is expected.
    pub(crate) fn begin(expected: Duration) -> Self {
        // Hidden by itself where standard error is no terminal.
        let target = ProgressDrawTarget::stderr_with_hz(5);
        let milliseconds = u64::try_from(expected.as_millis()).unwrap_or(u64::MAX);
        let bar = ProgressBar::with_draw_target(Some(milliseconds), target);
        let style = ProgressStyle::with_template("{bar:32} {percent:>3} %  {msg}  ({eta} left)");
        if let Ok(style) = style {
            bar.set_style(style.progress_chars("━╸─"));
        }
        Self { bar, begun: Instant::now() }
    }

    /// Says what is being run.
    pub(crate) fn say(&self, what: String) {
        self.bar.set_message(what);
    }

    /// Moves the bar on. Called some ten times a second.
    pub(crate) fn tick(&self) {
        let milliseconds = u64::try_from(self.begun.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.bar.set_position(milliseconds.min(self.bar.length().unwrap_or(0)));
    }

    /// Takes the bar away.
    pub(crate) fn end(&self) {
        self.bar.finish_and_clear();
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.end();
    }
}

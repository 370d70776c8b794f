//! How far a run is: a bar on standard error, where that is a terminal.

use std::{
    cell::RefCell,
    time::{Duration, Instant},
};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::{
    course::{Course, Phase},
    report::{si, time},
};

/// The progress of a whole command.
pub(crate) struct Progress {
    bar: ProgressBar,
    begun: Instant,
    what: RefCell<String>,
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
        Self { bar, begun: Instant::now(), what: RefCell::default() }
    }

    /// Says what is being run.
    pub(crate) fn say(&self, what: String) {
        self.bar.set_message(what.clone());
        self.what.replace(what);
    }

    /// Shows the figures of a run so far.
    pub(crate) fn show(&self, course: &Course) {
        // Who cannot see it need not have it made, on a core that may be measured.
        if self.bar.is_hidden() {
            return;
        }
        let what = self.what.borrow();
        self.bar.set_message(match (course.phase(), course.measured.series.slices.last()) {
            (Phase::WarmingUp, _) | (_, None) => format!("{what}: warming up"),
            (_, Some(last)) => {
                let rate = last.latencies.calls() as f64 / last.length.as_secs_f64().max(1e-9);
                let p99 = course.measured.total.latencies().at(0.99) as f64;
                format!("{what}: {} calls/s, p99 {}", si(rate), time(p99))
            }
        });
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

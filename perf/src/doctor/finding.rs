//! One thing that was found.

use serde::Serialize;

/// What is to be made of a finding, the worst last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum State {
    /// As it should be.
    Ok,
    /// It cannot be read.
    Unknown,
    /// To be known, and to be changed in some cases.
    Note,
    /// To be changed.
    Change,
    /// ringcall cannot run so.
    Stop,
}

/// One thing that was found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Finding {
    pub(super) topic: &'static str,
    pub(super) state: State,
    /// How it is.
    pub(super) found: String,
    /// Why it matters, in a line.
    pub(super) why: &'static str,
    /// What changes it.
    pub(super) command: Option<String>,
}

impl Finding {
    pub(super) fn ok(topic: &'static str, found: String, why: &'static str) -> Self {
        Self { topic, state: State::Ok, found, why, command: None }
    }

    /// Where it cannot be read; `what` says what is missing.
    pub(super) fn unknown(topic: &'static str, what: &str, why: &'static str) -> Self {
        Self { topic, state: State::Unknown, found: what.to_owned(), why, command: None }
    }

    pub(super) fn note(
        topic: &'static str,
        found: String,
        why: &'static str,
        command: String,
    ) -> Self {
        Self { topic, state: State::Note, found, why, command: Some(command) }
    }

    pub(super) fn change(
        topic: &'static str,
        found: String,
        why: &'static str,
        command: String,
    ) -> Self {
        Self { topic, state: State::Change, found, why, command: Some(command) }
    }
}

impl State {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Unknown => "unknown",
            Self::Note => "note",
            Self::Change => "change",
            Self::Stop => "stop",
        }
    }
}

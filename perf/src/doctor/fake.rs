//! A system of files that a test writes, and what it is asked to run.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::{
    fs,
    path::PathBuf,
    process,
    sync::atomic::{AtomicU32, Ordering},
};

use super::{
    Shards,
    finding::{Finding, State},
    system::System,
};

/// Gone when it is dropped.
pub(super) struct FakeSystem {
    root: PathBuf,
}

impl FakeSystem {
    /// A system with these files, and no others.
    pub(super) fn with(files: &[(&str, &str)]) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("ringcall-perf-doctor-{}-{number}", process::id());
        let fake = Self { root: std::env::temp_dir().join(name) };
        fs::create_dir_all(&fake.root).unwrap();
        files.iter().for_each(|(path, text)| fake.write(path, text));
        fake
    }

    pub(super) fn write(&self, path: &str, text: &str) {
        let path = self.root.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    /// A link to a path that is relative to its directory.
    pub(super) fn link(&self, path: &str, to: &str) {
        std::os::unix::fs::symlink(to, self.root.join(path)).unwrap();
    }

    pub(super) fn system(&self) -> System {
        System::at(&self.root)
    }
}

impl Drop for FakeSystem {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.root);
    }
}

/// Shards on these cores, of so many.
pub(super) fn shards(cores: &[usize], available: usize) -> Shards {
    Shards { cores: cores.to_vec(), available: (0..available).collect(), backlog: 1024 }
}

/// The only finding of a topic.
#[track_caller]
pub(super) fn of<'a>(findings: &'a [Finding], topic: &str) -> &'a Finding {
    let found: Vec<&Finding> = findings.iter().filter(|finding| finding.topic == topic).collect();
    assert_eq!(found.len(), 1, "{topic}: {findings:#?}");
    found[0]
}

/// Checks a finding: its state, a part of how it is, and a part of the command.
#[track_caller]
pub(super) fn assert_finds(finding: &Finding, state: State, found: &str, command: &str) {
    assert_eq!(finding.state, state, "{finding:?}");
    assert!(finding.found.contains(found), "{finding:?} has not found {found:?}");
    match (&finding.command, command) {
        (None, "") => {}
        (Some(text), command) => {
            assert!(!command.is_empty() && text.contains(command), "{finding:?}: {command:?}");
        }
        (None, command) => panic!("{finding:?} has no command {command:?}"),
    }
}

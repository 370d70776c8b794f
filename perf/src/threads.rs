//! What the kernel tells of the threads of this process, under `/proc/self/task`.
//!
//! The main thread reads it when measuring begins and when it ends, so that no thread on the path
//! of a call does anything for it. Threads are found by their names: those that wait for a whole
//! run to be told something (`ringcall-knocks`) belong to neither side.

use std::{fs, ops::Sub};

use rustix::{
    process::Pid,
    thread::{CpuSet, sched_getaffinity},
};

/// What the threads of a server in this process are called, before their number.
pub(crate) const SERVER: &[&str] = &["ringcall-", "floor-"];

/// What the client threads of a run are called, before the number of their core.
pub(crate) const CLIENT: &[&str] = &["client-"];

/// A thread of this process that may run on one core alone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pinned {
    /// The kernel's id of it.
    pub id: u32,
    /// What it is called.
    pub name: String,
    /// The core.
    pub core: usize,
}

impl Pinned {
    /// Its CPU time in nanoseconds, in user and kernel mode; none where it has ended, or where the
    /// kernel was built without statistics of its scheduler. The kernel brings the time of a running
    /// thread up to date when it is scheduled and at every tick, so that it lags by one tick at most.
    pub fn cpu_ns(&self) -> Option<u64> {
        cpu_ns(&read(self.id, "schedstat")?)
    }
}

/// The threads of one side of a run.
#[derive(Clone, Debug, Default)]
pub(crate) struct Threads(Vec<u32>);

/// How often threads gave their core up, since they began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Switches {
    /// To wait for something.
    pub(crate) voluntary: u64,
    /// As something else was to run there.
    pub(crate) involuntary: u64,
}

impl Threads {
    /// The threads of this process with one of these names, each followed by a number.
    pub(crate) fn named(prefixes: &[&str]) -> Self {
        let is_named = |id: &u32| read(*id, "comm").is_some_and(|name| matches(&name, prefixes));
        Self(all().into_iter().filter(is_named).collect())
    }

    /// Adds a thread by its id.
    pub(crate) fn add(&mut self, id: u32) {
        self.0.push(id);
    }

    /// The kernel's ids of the threads.
    pub(crate) fn ids(&self) -> &[u32] {
        &self.0
    }

    /// The switches of all of them; none where one has ended, or there is none.
    pub(crate) fn switches(&self) -> Option<Switches> {
        self.0.first()?;
        self.0.iter().try_fold(Switches::default(), |sum, id| {
            let of = switches(&read(*id, "status")?)?;
            Some(Switches {
                voluntary: sum.voluntary + of.voluntary,
                involuntary: sum.involuntary + of.involuntary,
            })
        })
    }

    /// The CPU time of all of them in nanoseconds; none where one has ended, or there is none, or
    /// where the kernel was built without statistics of its scheduler.
    pub(crate) fn cpu_ns(&self) -> Option<u64> {
        self.0.first()?;
        self.0.iter().map(|id| cpu_ns(&read(*id, "schedstat")?)).sum()
    }
}

impl Sub for Switches {
    type Output = Self;

    fn sub(self, earlier: Self) -> Self {
        Self {
            voluntary: self.voluntary.saturating_sub(earlier.voluntary),
            involuntary: self.involuntary.saturating_sub(earlier.involuntary),
        }
    }
}

/// The threads of this process that are pinned to a core.
pub fn pinned() -> Vec<Pinned> {
    let pinned = |id: u32| {
        let allowed = sched_getaffinity(Pid::from_raw(id.cast_signed())).ok()?;
        let mut cores = (0..CpuSet::MAX_CPU).filter(|core| allowed.is_set(*core));
        let (core, None) = (cores.next()?, cores.next()) else { return None };
        Some(Pinned { id, name: read(id, "comm")?.trim_end().to_owned(), core })
    };
    all().into_iter().filter_map(pinned).collect()
}

/// The ids of all threads of this process.
fn all() -> Vec<u32> {
    let Ok(tasks) = fs::read_dir("/proc/self/task") else { return Vec::new() };
    tasks.filter_map(|task| task.ok()?.file_name().to_str()?.parse().ok()).collect()
}

/// A file of a thread; none where the thread has ended.
fn read(id: u32, file: &str) -> Option<String> {
    fs::read_to_string(format!("/proc/self/task/{id}/{file}")).ok()
}

/// Whether a thread's name is one of the prefixes and a number.
pub(crate) fn matches(name: &str, prefixes: &[&str]) -> bool {
    let number = prefixes.iter().find_map(|prefix| name.trim_end().strip_prefix(prefix));
    number.is_some_and(|number| number.parse::<u32>().is_ok())
}

/// The switches in a thread's `status`.
fn switches(status: &str) -> Option<Switches> {
    let count = |name| {
        let mut fields = status.lines().filter_map(|line| line.split_once(':'));
        fields.find(|(field, _)| *field == name)?.1.trim().parse().ok()
    };
    Some(Switches {
        voluntary: count("voluntary_ctxt_switches")?,
        involuntary: count("nonvoluntary_ctxt_switches")?,
    })
}

/// The CPU time in a thread's `schedstat`: the first of its numbers, in nanoseconds.
fn cpu_ns(schedstat: &str) -> Option<u64> {
    schedstat.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

    use std::{sync::mpsc::channel, thread};

    use super::*;

    #[test]
    fn a_name_is_a_prefix_and_a_number() {
        assert!(matches("ringcall-0\n", SERVER));
        assert!(matches("floor-13\n", SERVER));
        for name in ["ringcall-knocks\n", "ringcall-\n", "client-0\n", "floor\n", ""] {
            assert!(!matches(name, SERVER), "{name}");
        }
    }

    #[test]
    fn switches_are_read_from_a_status() {
        let status = "Name:\tclient-0\nvoluntary_ctxt_switches:\t150\n\
                      nonvoluntary_ctxt_switches:\t545\n";
        assert_eq!(switches(status), Some(Switches { voluntary: 150, involuntary: 545 }));
        assert_eq!(switches("Name:\tclient-0\nvoluntary_ctxt_switches:\t150\n"), None);
        assert_eq!(switches("voluntary_ctxt_switches:\tmany\n"), None);
    }

    #[test]
    fn cpu_time_is_read_from_a_schedstat() {
        assert_eq!(cpu_ns("92808 2414329 2\n"), Some(92_808));
        assert_eq!(cpu_ns(""), None);
        assert_eq!(cpu_ns("none 1 2"), None);
    }

    #[test]
    fn a_thread_is_found_by_its_name_until_it_ends() {
        let (ready, is_ready) = channel::<()>();
        let (end, ends) = channel::<()>();
        let body = move || {
            ready.send(()).unwrap();
            // Waiting is a switch.
            let _ = ends.recv();
        };
        let thread = thread::Builder::new().name("sought-7".to_owned()).spawn(body).unwrap();
        is_ready.recv().unwrap();
        let threads = Threads::named(&["sought-"]);
        assert_eq!(threads.ids().len(), 1);
        assert!(threads.switches().is_some());
        drop(end);
        thread.join().unwrap();
        // The kernel lists a thread for a moment after it was joined.
        while threads.switches().is_some() {
            thread::yield_now();
        }
        let nobody = Threads::named(&["sought-"]);
        assert!(nobody.ids().is_empty() && nobody.switches().is_none());
        assert_eq!(nobody.cpu_ns(), None);
    }
}

//! What each core of a run was used for, second by second: how long it was busy, how long with
//! threads of this process that serve or call, and how long the host of a virtual machine kept it.
//!
//! The main thread reads it about once a second, from `/proc/stat` and from `schedstat` of its
//! threads, and nothing on the path of a call does anything for it. A core that is busy with more
//! than its threads has other work, of which a latency is a part.

use std::{
    fmt, fs, mem,
    time::{Duration, Instant},
};

use serde::{Serialize, Serializer};

use crate::threads::{self, Threads};

/// Time from one reading to the next, at first. The kernel counts in ticks of 10 ms mostly, so that
/// of shorter times a percent could not be told.
const EVERY: Duration = Duration::from_secs(1);

/// Shortest time from a reading to the last one of a run that has others.
const LAST_MIN: Duration = Duration::from_millis(500);

/// Most readings of a run; where there would be more they become rarer.
const READINGS_MAX: usize = 1024;

/// What threads of a run do on a core.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Role {
    Server,
    Client,
    Probe,
    SlowReaders,
}

/// A core that a run has used.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct CoreLoad {
    pub(crate) core: usize,
    pub(crate) roles: Vec<Role>,
    pub(crate) seconds: Vec<Second>,
}

/// A core in one second, in less at the end of a run, and in more where it is a long one. Parts are
/// in 0 to 1.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(crate) struct Second {
    /// Since measuring began.
    pub(crate) begun_s: f64,
    pub(crate) length_s: f64,
    /// The part of the time in which it ran anything.
    pub(crate) busy: f64,
    /// The part in which it ran threads of the run; none where the kernel does not count it.
    pub(crate) ours: Option<f64>,
    /// The part that the host of a virtual machine used for others.
    pub(crate) stolen: f64,
}

/// Looks at the cores while a run is measured.
pub(crate) struct Watch {
    cores: Vec<Watched>,
    readings: Vec<Reading>,
    every: Duration,
    is_over: bool,
}

/// A core with threads of the run.
struct Watched {
    core: usize,
    roles: Vec<Role>,
    threads: Threads,
}

/// What was counted up to a moment, of each core that is watched.
#[derive(Clone)]
struct Reading {
    at: Instant,
    of_cores: Vec<Count>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Count {
    ticks: Ticks,
    ours_ns: Option<u64>,
}

/// Ticks of the kernel's clock that a core has spent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Ticks {
    busy: u64,
    stolen: u64,
    all: u64,
}

impl Role {
    /// What a thread is for, by its name.
    fn of(name: &str) -> Option<Self> {
        match name {
            "probe" => Some(Self::Probe),
            "slow-readers" => Some(Self::SlowReaders),
            name if threads::matches(name, threads::SERVER) => Some(Self::Server),
            name if threads::matches(name, threads::CLIENT) => Some(Self::Client),
            _ => None,
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Server => "server",
            Self::Client => "client",
            Self::Probe => "probe",
            Self::SlowReaders => "slow readers",
        })
    }
}

impl Serialize for Role {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl CoreLoad {
    /// The roles in one text.
    pub(crate) fn role(&self) -> String {
        let roles: Vec<String> = self.roles.iter().map(Role::to_string).collect();
        roles.join(" and ")
    }
}

impl Watch {
    /// Watches nothing yet.
    pub(crate) fn new() -> Self {
        Self { cores: Vec::new(), readings: Vec::new(), every: EVERY, is_over: false }
    }

    /// Measuring begins: watches the cores to which threads of the run are pinned.
    pub(crate) fn begin(&mut self) {
        self.cores = Watched::of_this_process();
        self.readings.clear();
        self.read();
    }

    /// Takes a reading where it is time for one. Does nothing before measuring begins.
    pub(crate) fn look(&mut self) {
        if self.readings.last().is_some_and(|last| last.at.elapsed() >= self.every) {
            self.read();
        }
    }

    /// Measuring ends, and the threads of the run are still there. Reads for the last time; told
    /// again it does nothing.
    pub(crate) fn end(&mut self) {
        if self.is_over || self.readings.is_empty() {
            return;
        }
        self.is_over = true;
        if let [_, .., last] = self.readings.as_slice()
            && last.at.elapsed() < LAST_MIN
        {
            self.readings.pop();
        }
        self.read();
    }

    /// What each core was used for.
    pub(crate) fn figures(&mut self) -> Vec<CoreLoad> {
        let readings = mem::take(&mut self.readings);
        let of_core = |(index, watched): (usize, Watched)| CoreLoad {
            core: watched.core,
            roles: watched.roles,
            seconds: seconds_of(index, &readings),
        };
        mem::take(&mut self.cores).into_iter().enumerate().map(of_core).collect()
    }

    fn read(&mut self) {
        let Ok(stat) = fs::read_to_string("/proc/stat") else { return };
        let count = |watched: &Watched| Count {
            ticks: ticks_of(&stat, watched.core).unwrap_or_default(),
            ours_ns: watched.threads.cpu_ns(),
        };
        let of_cores = self.cores.iter().map(count).collect();
        self.readings.push(Reading { at: Instant::now(), of_cores });
        if self.readings.len() > READINGS_MAX {
            self.every *= 2;
            let mut is_kept = false;
            self.readings.retain(|_| {
                is_kept = !is_kept;
                is_kept
            });
        }
    }
}

impl Watched {
    /// The cores that threads of this process are pinned to, in order.
    fn of_this_process() -> Vec<Self> {
        let mut cores: Vec<Self> = Vec::new();
        for thread in threads::pinned() {
            let Some(role) = Role::of(&thread.name) else { continue };
            let known = cores.iter().position(|it| it.core == thread.core);
            let index = known.unwrap_or(cores.len());
            if known.is_none() {
                let (core, threads) = (thread.core, Threads::default());
                cores.push(Self { core, roles: Vec::new(), threads });
            }
            cores[index].threads.add(thread.id);
            if !cores[index].roles.contains(&role) {
                cores[index].roles.push(role);
                cores[index].roles.sort_unstable();
            }
        }
        cores.sort_by_key(|it| it.core);
        cores
    }
}

/// What the core with an index did from each reading to the next. Times in which the kernel's clock
/// did not tick are left out.
fn seconds_of(index: usize, readings: &[Reading]) -> Vec<Second> {
    let Some(first) = readings.first() else { return Vec::new() };
    let pairs = readings.windows(2).filter_map(|pair| {
        let [before, after] = pair else { return None };
        let (was, is) = (before.of_cores.get(index)?, after.of_cores.get(index)?);
        let ticks = is.ticks.since(was.ticks);
        let length = after.at - before.at;
        let ours_ns = is.ours_ns.zip(was.ours_ns).map(|(is, was)| is.saturating_sub(was));
        let of_ticks = |count: u64| rounded(count as f64 / ticks.all as f64);
        (ticks.all > 0).then(|| Second {
            begun_s: rounded((before.at - first.at).as_secs_f64()),
            length_s: rounded(length.as_secs_f64()),
            busy: of_ticks(ticks.busy),
            ours: ours_ns.map(|ns| rounded(ns as f64 / length.as_nanos() as f64)),
            stolen: of_ticks(ticks.stolen),
        })
    });
    pairs.collect()
}

impl Ticks {
    fn since(self, earlier: Self) -> Self {
        Self {
            busy: self.busy.saturating_sub(earlier.busy),
            stolen: self.stolen.saturating_sub(earlier.stolen),
            all: self.all.saturating_sub(earlier.all),
        }
    }
}

/// The ticks of a core in `/proc/stat`: after its name user, nice, system, idle, iowait, irq,
/// softirq and steal. What guests of this machine use comes after that, and is in user and nice too.
fn ticks_of(stat: &str, core: usize) -> Option<Ticks> {
    let name = format!("cpu{core} ");
    let line = stat.lines().find_map(|line| line.strip_prefix(&name))?;
    let counts: Vec<u64> =
        line.split_whitespace().take(8).map_while(|it| it.parse().ok()).collect();
    let [user, nice, system, idle, iowait, irq, softirq, stolen] = counts[..] else { return None };
    let busy = user + nice + system + irq + softirq;
    Some(Ticks { busy, stolen, all: busy + idle + iowait + stolen })
}

/// To a tenth of a thousandth: there is no more in it.
fn rounded(figure: f64) -> f64 {
    (figure * 1e4).round() / 1e4
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

    use std::{sync::mpsc::channel, thread};

    use super::*;
    use crate::cores;

    #[test]
    fn ticks_are_those_of_the_core_that_is_asked_for() {
        let stat = "cpu  99 99 99 99 99 99 99 99 0 0\n\
                    cpu1 10 1 20 300 5 2 3 40 7 0\n\
                    cpu10 1 1 1 1 1 1 1 1 0 0\n";
        assert_eq!(ticks_of(stat, 1), Some(Ticks { busy: 36, stolen: 40, all: 381 }));
        assert_eq!(ticks_of(stat, 0), None);
        assert_eq!(ticks_of("cpu1 10 1 20 300\n", 1), None);
    }

    #[test]
    fn parts_are_of_the_time_between_two_readings() {
        let at = Instant::now();
        let reading = |seconds: u64, [busy, stolen, all]: [u64; 3], ours_ns| Reading {
            at: at + Duration::from_secs(seconds),
            of_cores: vec![Count { ticks: Ticks { busy, stolen, all }, ours_ns }],
        };
        let readings = [
            reading(0, [100, 0, 1000], Some(500_000_000)),
            reading(1, [150, 10, 1100], Some(900_000_000)),
            reading(3, [350, 10, 1300], None),
        ];
        let second = |begun_s, length_s, busy, ours, stolen| Second {
            begun_s,
            length_s,
            busy,
            ours,
            stolen,
        };
        let expected = [second(0.0, 1.0, 0.5, Some(0.4), 0.1), second(1.0, 2.0, 1.0, None, 0.0)];
        assert_eq!(seconds_of(0, &readings), expected);
        assert_eq!(seconds_of(1, &readings), []);
    }

    #[test]
    fn a_long_run_has_rarer_readings_from_its_first_to_its_last() {
        let mut watch = Watch::new();
        watch.read();
        let first = watch.readings[0].at;
        for _ in 0..READINGS_MAX {
            watch.read();
            assert!(watch.readings.len() <= READINGS_MAX);
        }
        assert_eq!(watch.every, EVERY * 2);
        assert_eq!(watch.readings[0].at, first);
    }

    #[test]
    fn a_core_is_watched_for_the_threads_that_are_pinned_to_it() {
        let core = cores::available().unwrap()[0];
        let (ready, is_ready) = channel();
        let (end, ends) = channel::<()>();
        let name = format!("client-{core}");
        let body = move || {
            cores::pin(core).unwrap();
            ready.send(()).unwrap();
            let _ = ends.recv();
        };
        let thread = thread::Builder::new().name(name).spawn(body).unwrap();
        is_ready.recv().unwrap();
        let mut watch = Watch::new();
        watch.begin();
        watch.end();
        let found = watch.figures();
        drop(end);
        thread.join().unwrap();
        let of_core = found.iter().find(|it| it.core == core).unwrap();
        assert_eq!(of_core.roles, [Role::Client]);
        assert_eq!(of_core.role(), "client");
    }
}

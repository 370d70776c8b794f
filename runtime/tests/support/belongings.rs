//! What the process has, to be compared with what it had before.

use std::{
    collections::BTreeMap,
    fs, thread,
    time::{Duration, Instant},
};

/// What the process has.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Belongings {
    descriptors: BTreeMap<String, usize>,
    threads: usize,
    /// Mappings of the size of a shard's receive buffers.
    pools: usize,
}

impl Belongings {
    /// What there is now. `buffers` is the number and length of the receive buffers of the test's
    /// shards, which nothing else has.
    pub(crate) fn now(buffers: (u16, u32)) -> Self {
        let mut descriptors = BTreeMap::new();
        for entry in fs::read_dir("/proc/self/fd").unwrap() {
            // What this reads the directory with is gone by now.
            if let Ok(target) = fs::read_link(entry.unwrap().path()) {
                let kind = target.to_string_lossy();
                let kind = kind.split([':', '/']).take(2).collect::<Vec<_>>();
                *descriptors.entry(kind.concat()).or_default() += 1;
            }
        }
        let maps = fs::read_to_string("/proc/self/smaps").unwrap();
        let pool_len = u64::from(buffers.0) * u64::from(buffers.1);
        let size = format!("{} kB", pool_len / 1024);
        let sizes = maps.lines().filter_map(|line| line.strip_prefix("Size:"));
        Self {
            descriptors,
            threads: fs::read_dir("/proc/self/task").unwrap().count(),
            pools: sizes.filter(|kept| kept.trim() == size).count(),
        }
    }

    /// There is nothing else, once threads of executors have ended, which they do in their own
    /// time.
    #[track_caller]
    pub(crate) fn are_all_there_is(&self, buffers: (u16, u32)) {
        let since = Instant::now();
        while Self::now(buffers) != *self && since.elapsed() < Duration::from_secs(10) {
            thread::sleep(Duration::from_millis(1));
        }
        assert_eq!(Self::now(buffers), *self);
    }
}

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

/// What the heaps are aligned to that glibc has for threads, in bytes.
const HEAP_ALIGN: u64 = 64 * 1024 * 1024;

/// Where a mapping begins and ends.
fn range(line: &str) -> (u64, u64) {
    let (start, end) = line.split_once(' ').unwrap().0.split_once('-').unwrap();
    let address = |digits| u64::from_str_radix(digits, 16).unwrap();
    (address(start), address(end))
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
        let maps = fs::read_to_string("/proc/self/maps").unwrap();
        let pool_len = u64::from(buffers.0) * u64::from(buffers.1);
        let is_pool = |(start, end): &(u64, u64)| {
            // A heap of the allocator for another thread may be as long, and begins at such a place.
            end - start == pool_len && !start.is_multiple_of(HEAP_ALIGN)
        };
        Self {
            descriptors,
            threads: fs::read_dir("/proc/self/task").unwrap().count(),
            pools: maps.lines().map(range).filter(is_pool).count(),
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

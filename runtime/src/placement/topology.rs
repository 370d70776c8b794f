//! What the host has: hardware threads, the physical cores that they share, and the nodes.
//!
//! Read from `/sys/devices/system`. Where something of it is missing, as in some containers, each
//! hardware thread counts as a core of its own, and all are on node 0.

use std::{collections::BTreeMap, fs, path::Path};

/// Highest number that is read off a list of cores, so that a damaged one takes no memory.
const CORE_MAX: usize = 1 << 16;

/// The hardware threads of a host that are online.
pub(crate) struct Topology {
    /// By number.
    threads: BTreeMap<usize, Thread>,
}

struct Thread {
    /// The least of the numbers that share its physical core.
    core: usize,
    node: usize,
    /// Whether the process may run on it.
    is_usable: bool,
}

impl Topology {
    /// Reads the topology of the host whose `sys` is under this path, for a process that may use
    /// these cores.
    pub(crate) fn read(root: &Path, usable: &[usize]) -> Self {
        let system = root.join("sys/devices/system");
        let online = list(&system.join("cpu/online")).unwrap_or_else(|| usable.to_vec());
        let nodes = nodes(&system.join("node"));
        let thread = |number: usize| {
            let topology = system.join(format!("cpu/cpu{number}/topology"));
            let siblings = list(&topology.join("core_cpus_list"))
                .or_else(|| list(&topology.join("thread_siblings_list")));
            let core = siblings.unwrap_or_default().into_iter().min().unwrap_or(number);
            let node = nodes.get(&number).copied().unwrap_or(0);
            (number, Thread { core, node, is_usable: usable.contains(&number) })
        };
        Self { threads: online.into_iter().map(thread).collect() }
    }

    /// The node of a hardware thread; none where that is not there.
    pub(crate) fn node_of(&self, thread: usize) -> Option<usize> {
        Some(self.threads.get(&thread)?.node)
    }

    pub(crate) fn has_node(&self, node: usize) -> bool {
        self.threads.values().any(|thread| thread.node == node)
    }

    pub(crate) fn is_usable(&self, thread: usize) -> bool {
        self.threads.get(&thread).is_some_and(|thread| thread.is_usable)
    }

    /// Whether two hardware threads are on one physical core.
    pub(crate) fn share_a_core(&self, one: usize, other: usize) -> bool {
        let core = |thread| self.threads.get(&thread).map(|thread: &Thread| thread.core);
        core(one).is_some() && core(one) == core(other)
    }

    /// The hardware threads that the process may use, node by node.
    pub(crate) fn usable(&self) -> Vec<usize> {
        let usable = self.threads.iter().filter(|(_, thread)| thread.is_usable);
        let mut usable: Vec<_> = usable.map(|(number, thread)| (thread.node, *number)).collect();
        usable.sort_unstable();
        usable.into_iter().map(|(_, number)| number).collect()
    }

    /// The first of those of each physical core.
    pub(crate) fn physical(&self) -> Vec<usize> {
        let mut cores = Vec::new();
        let mut usable = self.usable();
        usable.retain(|number| {
            let core = self.threads.get(number).map(|thread| thread.core);
            let is_first = !cores.contains(&core);
            cores.push(core);
            is_first
        });
        usable
    }

    /// What the host has, in a line: cores by node, the further threads of those cores, and what
    /// the process may use where that is not all.
    pub(crate) fn map(&self) -> String {
        let mut nodes: BTreeMap<usize, (Vec<usize>, Vec<usize>)> = BTreeMap::new();
        for (number, thread) in &self.threads {
            let (first, further) = nodes.entry(thread.node).or_default();
            let of_its_kind = if self.is_first(*number, thread) { first } else { further };
            of_its_kind.push(*number);
        }
        let nodes: Vec<_> = nodes
            .iter()
            .map(|(node, (first, further))| {
                let threads = match further.is_empty() {
                    true => String::new(),
                    false => format!(" (further threads of them: {})", ranges(further)),
                };
                format!("node {node} has cores {}{threads}", ranges(first))
            })
            .collect();
        let mut map = nodes.join(", ");
        let usable = self.usable();
        if usable.len() < self.threads.len() {
            map += &format!("; the process may use {}", ranges(&usable));
        }
        map
    }

    /// Whether it is the first of the threads of its core that are online.
    fn is_first(&self, number: usize, thread: &Thread) -> bool {
        !self.threads.range(..number).any(|(_, other)| other.core == thread.core)
    }
}

/// The node of each hardware thread.
fn nodes(directory: &Path) -> BTreeMap<usize, usize> {
    let Ok(entries) = fs::read_dir(directory) else { return BTreeMap::new() };
    let node = |entry: fs::DirEntry| {
        let node: usize = entry.file_name().to_str()?.strip_prefix("node")?.parse().ok()?;
        let threads = list(&entry.path().join("cpulist"))?;
        Some(threads.into_iter().map(move |thread| (thread, node)))
    };
    entries.filter_map(Result::ok).filter_map(node).flatten().collect()
}

/// A list as the kernel writes it, `0-3,8`; none where there is no such file, or another form.
fn list(path: &Path) -> Option<Vec<usize>> {
    let text = fs::read_to_string(path).ok()?;
    let mut numbers = Vec::new();
    for range in text.trim().split(',').filter(|range| !range.is_empty()) {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        let (first, last): (usize, usize) = (first.parse().ok()?, last.parse().ok()?);
        if last > CORE_MAX {
            return None;
        }
        numbers.extend(first..=last);
    }
    Some(numbers)
}

/// Numbers as people write them: `0-3, 8`.
fn ranges(numbers: &[usize]) -> String {
    let mut numbers = numbers.to_vec();
    numbers.sort_unstable();
    let runs = numbers.chunk_by(|one, next| one + 1 == *next);
    let runs: Vec<_> = runs
        .map(|run| match run {
            [one] => one.to_string(),
            [one, two] => format!("{one}, {two}"),
            [first, .., last] => format!("{first}-{last}"),
            [] => String::new(),
        })
        .collect();
    runs.join(", ")
}

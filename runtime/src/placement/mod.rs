//! Placement: on which cores a server's shards run.
//!
//! Before anything is started. What is wanted is compared with what the host has (`topology.rs`),
//! and refused with a map of it where they do not agree.

mod topology;

#[cfg(test)]
mod tests;

use std::path::Path;

pub(crate) use self::topology::Topology;
use crate::executor;

/// On which cores the shards of a server run, a shard each.
///
/// ```
/// use ringcall::Placement;
///
/// Placement::cores([2, 3, 5]); // these, and a core twice for two shards
/// Placement::threads(); // every hardware thread that the process may use: the default
/// Placement::physical(); // one for each physical core
/// Placement::physical().node(1).skip([0]).count(4); // of that, what is on node 1, but for ...
/// ```
///
/// Numbers are those of Linux: `lscpu -e`. What the process may not use, by its affinity or a
/// container's cpuset, and what is offline, is never chosen.
///
/// The memory of a shard lies on the node of its core: a shard's thread is pinned before it maps
/// its buffers, and is the first to touch them. That is so under the kernel's default policy; a
/// process that was started under another (`numactl --interleave`) has that one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Placement {
    of: Of,
    /// Nodes to choose from; all where none is named.
    nodes: Vec<usize>,
    skipped: Vec<usize>,
    count: Option<usize>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Of {
    Cores(Vec<usize>),
    Physical,
    Threads,
}

/// Why shards cannot be placed as they are wanted. Each says what the host has.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PlacementError {
    /// A core is named that is not there, or is offline.
    #[error("core {core} is not there; {host}")]
    NoSuchCore {
        /// The core.
        core: usize,
        /// The host's topology.
        host: String,
    },
    /// A core is named that the process may not use.
    #[error(
        "core {core} is not for this process; give it the core (`taskset -c`, CPUAffinity= of \
         systemd, --cpuset-cpus of a container) or name another; {host}"
    )]
    NotAllowed {
        /// The core.
        core: usize,
        /// The host's topology.
        host: String,
    },
    /// A node is named that is not there.
    #[error("node {node} is not there; {host}")]
    NoSuchNode {
        /// The node.
        node: usize,
        /// The host's topology.
        host: String,
    },
    /// Fewer cores are left than are wanted.
    #[error("{wanted} shards are wanted, and the placement leaves {left} cores for them; {host}")]
    TooFew {
        /// Shards that are wanted, at least one.
        wanted: usize,
        /// Cores that are left.
        left: usize,
        /// The host's topology.
        host: String,
    },
}

impl Placement {
    /// These cores, and a core as often as it is named.
    pub fn cores(cores: impl IntoIterator<Item = usize>) -> Self {
        Self::of(Of::Cores(cores.into_iter().collect()))
    }

    /// Every hardware thread that the process may use: the default.
    pub fn threads() -> Self {
        Self::of(Of::Threads)
    }

    /// One hardware thread of each physical core, the first that the process may use. Two shards
    /// on one physical core share its caches and its units.
    pub fn physical() -> Self {
        Self::of(Of::Physical)
    }

    fn of(of: Of) -> Self {
        Self { of, nodes: Vec::new(), skipped: Vec::new(), count: None }
    }

    /// Only those on this NUMA node; given again, those on either.
    #[must_use]
    pub fn node(mut self, node: usize) -> Self {
        self.nodes.push(node);
        self
    }

    /// Not these: they serve interrupts, or the rest of the application. Of
    /// [`physical`](Self::physical) cores those are left out of which a hardware thread is named.
    #[must_use]
    pub fn skip(mut self, cores: impl IntoIterator<Item = usize>) -> Self {
        self.skipped.extend(cores);
        self
    }

    /// So many, at least one: the first in the order of nodes and of their numbers, so that they
    /// are on as few nodes as can be. Of named cores, the first that are named.
    #[must_use]
    pub fn count(mut self, count: usize) -> Self {
        self.count = Some(count);
        self
    }

    /// How many cores are named, where they are.
    pub(crate) fn named(&self) -> Option<usize> {
        match &self.of {
            Of::Cores(cores) => Some(cores.len()),
            Of::Physical | Of::Threads => None,
        }
    }

    /// The cores on this host.
    pub(crate) fn on_this_host(&self) -> Result<Vec<usize>, crate::server::ServeError> {
        let usable = executor::usable_cores()?;
        Ok(self.choose(&Topology::read(Path::new("/"), &usable))?)
    }

    /// The cores that are chosen of a host's.
    pub(crate) fn choose(&self, host: &Topology) -> Result<Vec<usize>, PlacementError> {
        self.check(host)?;
        let is_wanted = |core: &usize| {
            let node = host.node_of(*core);
            let on_node =
                self.nodes.is_empty() || node.is_some_and(|node| self.nodes.contains(&node));
            on_node && !self.is_skipped(host, *core)
        };
        let mut cores = match &self.of {
            Of::Cores(cores) => cores.clone(),
            Of::Threads => host.usable(),
            Of::Physical => host.physical(),
        };
        cores.retain(is_wanted);
        let wanted = self.count.unwrap_or(1).max(1);
        if cores.len() < wanted {
            return Err(PlacementError::TooFew { wanted, left: cores.len(), host: host.map() });
        }
        cores.truncate(self.count.unwrap_or(cores.len()));
        Ok(cores)
    }

    /// Checks that what is named is there.
    fn check(&self, host: &Topology) -> Result<(), PlacementError> {
        if let Some(node) = self.nodes.iter().find(|node| !host.has_node(**node)) {
            return Err(PlacementError::NoSuchNode { node: *node, host: host.map() });
        }
        let named: &[usize] = match &self.of {
            Of::Cores(cores) => cores,
            Of::Physical | Of::Threads => &[],
        };
        for core in named.iter().chain(&self.skipped) {
            if host.node_of(*core).is_none() {
                return Err(PlacementError::NoSuchCore { core: *core, host: host.map() });
            }
        }
        match named.iter().find(|core| !host.is_usable(**core)) {
            Some(core) => Err(PlacementError::NotAllowed { core: *core, host: host.map() }),
            None => Ok(()),
        }
    }

    fn is_skipped(&self, host: &Topology, core: usize) -> bool {
        match self.of {
            Of::Physical => self.skipped.iter().any(|skipped| host.share_a_core(*skipped, core)),
            Of::Cores(_) | Of::Threads => self.skipped.contains(&core),
        }
    }
}

impl Default for Placement {
    fn default() -> Self {
        Self::threads()
    }
}

//! Starting what the tests call.

use ringcall::{Server, ServerBuilder, ServerHandle, Service, ShardConfig, ShardCounters};

/// A server of one shard, on a core that this process may use.
pub(crate) fn one_shard() -> ServerBuilder {
    Server::builder().cores([usable_cores()[0]])
}

/// Serves on one shard, on a port that the kernel chooses.
pub(crate) fn serve<S: Service>(
    config: ShardConfig,
    make: impl Fn() -> S + Clone + Send + 'static,
) -> ServerHandle {
    let server = one_shard().shard(config);
    server.serve("127.0.0.1:0", move |_| make()).unwrap()
}

/// The cores that this process may use.
pub(crate) fn usable_cores() -> Vec<usize> {
    let allowed = rustix::thread::sched_getaffinity(None).unwrap();
    let cores = 0..rustix::thread::CpuSet::MAX_CPU;
    cores.filter(|core| allowed.is_set(*core)).collect()
}

/// The counters of all shards together.
pub(crate) fn counters(server: &ServerHandle) -> ShardCounters {
    let shards = server.counters();
    let start = ShardCounters::default();
    shards.iter().fold(start, |sum, shard| sum.plus(shard))
}

/// Frames that were received, however they were read.
pub(crate) fn frames(counters: &ShardCounters) -> u64 {
    counters.frames_in_place + frames_copied(counters)
}

/// Frames that were received and copied.
pub(crate) fn frames_copied(counters: &ShardCounters) -> u64 {
    counters.frames_copied_straddle
        + counters.frames_copied_misaligned
        + counters.frames_copied_pressure
        + counters.frames_copied_large
}

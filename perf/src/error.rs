//! Why a run ends without figures: one clear line each.

use std::{io, net::SocketAddr, path::PathBuf, time::Duration};

use ringcall::{ConfigFileError, ConnectError, ServeError, ShardError, ring::RingError};

use crate::{netns::NetnsError, target::Target, top::TopError};

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    #[error("core {core} is not there for this process, which may use {available}")]
    NoSuchCore { core: usize, available: String },
    #[error("cannot tell which cores there are: {0}")]
    Cores(io::Error),
    #[error("there is no network interface {name}; there are {there}")]
    NoInterface { name: String, there: String },
    #[error("cannot pin a thread to core {core}: {source}")]
    Pin { core: usize, source: io::Error },
    #[error("cannot write {}: {source}", path.display())]
    Write { path: PathBuf, source: io::Error },
    #[error("only JSON goes to standard output: name a file instead of -")]
    OnlyJson,
    #[error("{} is to be two reports at once: give each a path of its own", path.display())]
    WrittenTwice { path: PathBuf },
    #[error("cannot write to standard output: {0}")]
    Output(io::Error),
    #[error("cannot look {address} up: {source}")]
    Resolve { address: String, source: io::Error },
    #[error("{0} stands for no address")]
    NoAddress(String),
    #[error("cannot listen on {address}: {source}")]
    Listen { address: SocketAddr, source: io::Error },
    #[error("the server cannot start: {0}")]
    Serve(#[from] ServeError),
    #[error("{0}")]
    Config(#[from] ConfigFileError),
    #[error("the floor has no settings of ringcall: leave --config out, or serve `ringcall`")]
    NoSettings,
    #[error("{0}")]
    Connect(#[from] ConnectError),
    #[error("cannot connect to {address}: {source}")]
    FloorConnect { address: SocketAddr, source: io::Error },
    #[error(
        "{address} does not echo ({source}); is `ringcall-perf serve --target {target}` running there?"
    )]
    NoEcho { address: SocketAddr, target: Target, source: io::Error },
    #[error("{0}")]
    Top(#[from] TopError),
    #[error("{0}")]
    Shard(#[from] ShardError),
    #[error("{0}")]
    Ring(#[from] RingError),
    #[error("a thread of the {target} {side} failed: {source}")]
    Io { target: Target, side: &'static str, source: io::Error },
    #[error("a thread of the {target} {side} panicked")]
    Panicked { target: Target, side: &'static str },
    #[error("the {target} server does not answer")]
    Silent { target: Target },
    #[error("a call takes {found} bytes to send instead of {wanted}: the floor would not be alike")]
    FrameLen { found: u64, wanted: usize },
    #[error("no call of {workload} was answered in the time that is measured; take a longer one")]
    NoCalls { workload: String },
    #[error("{target} sends calls of one length: leave --sizes out, or measure `ringcall` alone")]
    OneSize { target: Target },
    #[error(
        "nothing goes on beside {target}: leave --slow, --fanout, --churn, --slow-readers and --probe out, or measure `ringcall` alone"
    )]
    NothingBeside { target: Target },
    #[error(
        "{target} has no idle connections of ringcall: leave --idle out, or measure `--target ringcall`"
    )]
    NoIdle { target: Target },
    #[error(
        "{idle} idle connections take {wanted} files open in this process, which may have \
         {files_max}: raise the limit with `ulimit -n {wanted}`, or hold fewer"
    )]
    TooFewFiles { idle: u32, wanted: u64, files_max: u64 },
    #[error("the items of a stream follow each other: measure `stream` without --rate and --trace")]
    NoOpenStream,
    #[error(
        "calls through a handle follow each other: measure `handle` without --rate and --trace"
    )]
    NoOpenHandle,
    #[error("cannot read the trace {}: {source}", path.display())]
    ReadTrace { path: PathBuf, source: io::Error },
    #[error("line {line} of the trace {}: {why}", path.display())]
    BadTrace { path: PathBuf, line: usize, why: String },
    #[error("the run {run} is void: {why}")]
    Void { run: String, why: String },
    #[error("name one target: a sweep runs it at many rates")]
    OneTarget,
    #[error("a sweep takes its rates from --rates, or finds them; leave --rate and --trace out")]
    RateOfSweep,
    #[error("{0} held at no rate that was tried")]
    SloNotMet(String),
    #[error("{side} begins with {path:?}, which is no file; flags begin with `-`")]
    NoBuild { side: String, path: String },
    #[error("a run of {side} failed: {why}")]
    SideFailed { side: String, why: String },
    #[error("the process that started this server has ended")]
    Orphaned,
    #[error("cannot start a server of its own: {0}")]
    ServerProcess(io::Error),
    #[error(
        "stops of {stop:?} every {every:?} leave no time between them: stop for less than half"
    )]
    StopsTooLong { stop: Duration, every: Duration },
    #[error("no percentile is decided by the stops; stop for longer, or more often")]
    NothingToCheck,
    #[error(
        "{percentile} is off by {error_percent:.1} %: on this machine, or under this load, the figures of this harness cannot be relied on"
    )]
    SelftestFailed { percentile: String, error_percent: f64 },
    #[error("{count} calls failed, the first with: {first}")]
    CallsFailed { count: u64, first: String },
    #[error("cannot make a histogram: {0}")]
    Histogram(#[from] hdrhistogram::CreationError),
    #[error("{0}")]
    Usage(#[from] clap::Error),
    #[error("{} is there already: name another file, or add --force to replace it", path.display())]
    Exists { path: PathBuf },
    #[error(
        "a rate that is given leaves nothing to win: leave --rate out, or tune for another goal"
    )]
    RateOfThroughput,
    #[error("no run with the settings that there are gave the figure that is tuned for: {why}")]
    NothingToTune { why: String },
    #[error("{0}")]
    Netns(#[from] NetnsError),
    #[error("cannot watch for Ctrl-C: {0}")]
    Signals(io::Error),
    #[error("interrupted")]
    Interrupted,
}

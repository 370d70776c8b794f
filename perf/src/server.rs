//! The server side of a run: either target, started, sampled and stopped alike.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use ringcall::{Server as RingcallServer, ServerConfig, ServerHandle, ShardCounters};

use crate::{
    error::Failure,
    floor::server::FloorServer,
    parse::CoreList,
    target::{EchoServer, Mirror, Target, shard_config},
};

/// A running server of either target. Dropping it stops it.
pub(crate) enum Server {
    Ringcall(ServerHandle),
    Floor(FloorServer),
}

/// What a server has counted at one moment, over all its shards.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sample {
    pub(crate) counters: ShardCounters,
    pub(crate) at: Instant,
}

impl Server {
    /// Starts a server on an address, with a shard on each of the cores.
    pub(crate) fn start(
        target: Target,
        address: SocketAddr,
        cores: &CoreList,
        spin: Duration,
    ) -> Result<Self, Failure> {
        Ok(match target {
            Target::Ringcall | Target::Handle | Target::Server | Target::Stream => Self::Ringcall(
                RingcallServer::builder()
                    .cores(cores.0.iter().copied())
                    .shard(shard_config(spin))
                    .serve(address, |_| EchoServer::new(Mirror))?,
            ),
            Target::Floor => Self::Floor(FloorServer::start(address, cores, spin)?),
        })
    }

    /// Starts a server of ringcall with the settings of a file.
    pub(crate) fn with_config(address: SocketAddr, config: ServerConfig) -> Result<Self, Failure> {
        let server = RingcallServer::builder().config(config);
        Ok(Self::Ringcall(server.serve(address, |_| EchoServer::new(Mirror))?))
    }

    pub(crate) fn address(&self) -> SocketAddr {
        match self {
            Self::Ringcall(server) => server.address(),
            Self::Floor(server) => server.address(),
        }
    }

    /// What was counted up to now, with the CPU time of the shards' threads.
    pub(crate) fn sample(&self) -> Result<Sample, Failure> {
        let counters = match self {
            Self::Ringcall(server) => server.counters(),
            Self::Floor(server) => server.counters()?,
        };
        let sum = |sum: ShardCounters, shard: &ShardCounters| sum.plus(shard);
        let counters = counters.iter().fold(ShardCounters::default(), sum);
        Ok(Sample { counters, at: Instant::now() })
    }

    /// Stops the server and waits for its end.
    pub(crate) fn stop(self) -> Result<(), Failure> {
        match self {
            Self::Ringcall(server) => {
                server.stop();
                Ok(server.join()?)
            }
            Self::Floor(server) => server.join(),
        }
    }
}

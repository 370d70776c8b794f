//! What all connections of one end have in common, stated once for them.
//!
//! Beside the path of a call: a session refers to it, so that what thousands of idle connections
//! hold of their own is what differs between them.

use alloc::sync::Arc;

use super::{
    MethodInfo,
    config::{Deadlines, Patience, SessionConfig},
    layouts_of,
    session::Session,
};
use crate::{
    hello::{Hello, ShardPlace},
    pack::features,
};

/// One end as its connections have it: what it accepts, what it serves and calls, how long it
/// waits. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Endpoint(Arc<Common>);

#[derive(Debug)]
pub(super) struct Common {
    /// The methods of the calls that the peer may make; none where this end serves nothing.
    pub(super) serves: &'static [MethodInfo],
    /// The methods of the calls that this end makes.
    pub(super) calls: &'static [MethodInfo],
    pub(super) is_client: bool,
    pub(super) hello: Hello,
    pub(super) deadlines: Deadlines,
    pub(super) patience: Patience,
}

impl Endpoint {
    /// The end that connects. It calls `calls`, and serves `serves` to its server.
    pub fn client(
        config: &SessionConfig,
        calls: &'static [MethodInfo],
        serves: &'static [MethodInfo],
    ) -> Self {
        Self::new(config, ShardPlace::default(), calls, serves, true)
    }

    /// As [`client`](Self::client), of one that wants to be connected to this shard: a server that
    /// knows of shards hands it over to that, and one that does not lets it be where it arrived.
    pub fn client_of_shard(
        config: &SessionConfig,
        shard: ShardPlace,
        calls: &'static [MethodInfo],
        serves: &'static [MethodInfo],
    ) -> Self {
        let config = SessionConfig { features: config.features | features::SHARDS, ..*config };
        Self::new(&config, shard, calls, serves, true)
    }

    /// The end that is connected to. It serves `serves`, and calls `calls` of its clients.
    pub fn server(
        config: &SessionConfig,
        shard: ShardPlace,
        calls: &'static [MethodInfo],
        serves: &'static [MethodInfo],
    ) -> Self {
        Self::new(config, shard, calls, serves, false)
    }

    fn new(
        config: &SessionConfig,
        shard: ShardPlace,
        calls: &'static [MethodInfo],
        serves: &'static [MethodInfo],
        is_client: bool,
    ) -> Self {
        let SessionConfig { features, limits, deadlines, patience } = *config;
        let hello = Hello::with_methods(features, limits, shard, layouts_of(calls, serves));
        Self(Arc::new(Common { serves, calls, is_client, hello, deadlines, patience }))
    }

    /// A session of this end on a new connection, which is drained at the age of `age_us`
    /// microseconds; at zero never. A client's HELLO is in the output.
    pub fn session(&self, age_us: u64) -> Session {
        Session::new(Arc::clone(&self.0), age_us)
    }
}

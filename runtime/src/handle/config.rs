//! How a handle's shard runs, and how clients connect through it.

use std::time::Duration;

use super::Handle;
use crate::{
    client,
    config::{
        ConfigError, HANDLE_CALLS_MAX_CEILING, HANDLE_CALLS_MAX_DEFAULT, ShardConfig, check, us32,
    },
    shard::ShardError,
    socket::SocketConfig,
};

/// How a handle's shard runs.
#[derive(Clone, Debug)]
pub struct HandleConfig {
    pub(super) core: Option<usize>,
    pub(super) shard: ShardConfig,
    pub(super) calls_max: usize,
}

impl HandleConfig {
    /// The defaults: the scheduler chooses the core.
    pub fn new() -> Self {
        Self::default()
    }

    /// Pins the shard's thread to a core. One that the callers' executor does not use is best.
    #[must_use]
    pub fn core(mut self, core: usize) -> Self {
        self.core = Some(core);
        self
    }

    /// How the shard runs.
    #[must_use]
    pub fn shard(mut self, config: ShardConfig) -> Self {
        self.shard = config;
        self
    }

    /// Calls that may be in flight through the handle at once, from 1 to 1,048,576: one more waits
    /// until another has ended. A call counts from its first poll until it has ended and its
    /// future is gone. Default: 4,096.
    ///
    /// Guards memory against callers that are faster than the servers they call.
    #[must_use]
    pub fn calls_max(mut self, calls: usize) -> Self {
        self.calls_max = calls;
        self
    }

    /// Starts the shard. As [`Handle::start`].
    ///
    /// # Errors
    ///
    /// As [`Handle::start`], and where a setting is out of range.
    pub fn start(self) -> Result<Handle, ShardError> {
        Handle::start_with(self)
    }

    /// Checks every setting.
    pub(super) fn validate(&self) -> Result<(), ConfigError> {
        let calls = self.calls_max;
        let is_calls = (1..=HANDLE_CALLS_MAX_CEILING).contains(&calls);
        check("calls_max", calls, "from 1 to 1048576", is_calls)?;
        self.shard.validate()
    }
}

impl Default for HandleConfig {
    fn default() -> Self {
        let (shard, calls_max) = (ShardConfig::default(), HANDLE_CALLS_MAX_DEFAULT);
        Self { core: None, shard, calls_max }
    }
}

/// How a client connects through a handle.
#[derive(Clone, Debug)]
pub struct ClientConfig {
    connect_timeout: Duration,
    pub(super) timeout_us: u32,
    socket: SocketConfig,
}

impl ClientConfig {
    /// The defaults.
    pub fn new() -> Self {
        Self::default()
    }

    /// Time within which the server must have answered. Default: 5 s.
    #[must_use]
    pub fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.connect_timeout = timeout;
        self
    }

    /// Time for a call of a method that has none of its own, unless the call says otherwise; zero
    /// is for ever. Default: zero. Up to 71 minutes.
    #[must_use]
    pub fn call_timeout(mut self, timeout: Duration) -> Self {
        self.timeout_us = us32(timeout);
        self
    }

    /// Options of the socket.
    #[must_use]
    pub fn socket(mut self, socket: SocketConfig) -> Self {
        self.socket = socket;
        self
    }

    /// The same for a client of the shard. Time for calls is counted at the caller.
    pub(super) fn on_shard(&self) -> client::ClientConfig {
        let config = client::ClientConfig::new().connect_timeout(self.connect_timeout);
        config.socket(self.socket.clone())
    }
}

impl Default for ClientConfig {
    fn default() -> Self {
        let (connect_timeout, socket) = (Duration::from_secs(5), SocketConfig::default());
        Self { connect_timeout, timeout_us: 0, socket }
    }
}

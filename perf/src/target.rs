//! What is measured: the systems, and the echo service of ringcall.

use std::{
    fmt,
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use ringcall::{ShardConfig, Sink, Source, prelude::*};

use crate::workload::SIZE_MIN;

/// What is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Target {
    /// A raw io_uring echo of the same bytes
    Floor,
    /// ringcall, through its public API
    Ringcall,
    /// ringcall, called through a handle from a thread that has no shard
    Handle,
    /// ringcall's server alone, under the floor's client
    Server,
    /// ringcall's streams: items that are sent back, as many on their way as calls would be
    Stream,
}

impl Target {
    /// Whether what serves is ringcall.
    pub(crate) fn serves_ringcall(self) -> bool {
        self != Self::Floor
    }

    /// Whether what calls is ringcall.
    pub(crate) fn calls_ringcall(self) -> bool {
        matches!(self, Self::Ringcall | Self::Handle | Self::Stream)
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // `pad` heeds the width that a table asks for.
        f.pad(match self {
            Self::Floor => "floor",
            Self::Ringcall => "ringcall",
            Self::Handle => "handle",
            Self::Server => "server",
            Self::Stream => "stream",
        })
    }
}

/// The message of the benchmark, both ways: bytes that are borrowed.
#[ringcall::message]
pub(crate) struct Payload<'a> {
    pub(crate) bytes: &'a [u8],
}

/// A call to a handler that takes its time.
#[ringcall::message]
pub(crate) struct Linger<'a> {
    /// How long, in microseconds.
    pub(crate) us: u32,
    pub(crate) bytes: &'a [u8],
}

/// The service of the benchmark.
#[ringcall::service]
pub(crate) trait Echo {
    /// Replies with the request's bytes, borrowed from the buffer they were received in.
    async fn echo<'a>(
        &self,
        cx: &Context,
        request: Request<'a, Payload<'a>>,
    ) -> Result<Payload<'a>, Status>;

    /// As `echo`, after a time.
    async fn linger<'a>(
        &self,
        cx: &Context,
        request: Request<'a, Linger<'a>>,
    ) -> Result<Payload<'a>, Status>;

    /// Sends each item back, borrowed from the buffer it was received in.
    async fn mirror(
        &self,
        cx: &Context,
        request: Request<'_, Payload<'_>>,
        items: Source<Payload<'_>>,
        back: Sink<'_, Payload<'_>>,
    ) -> Result<Payload<'static>, Status>;
}

/// The echo service.
pub(crate) struct Mirror;

impl Echo for Mirror {
    async fn echo<'a>(
        &self,
        _: &Context,
        request: Request<'a, Payload<'a>>,
    ) -> Result<Payload<'a>, Status> {
        Ok(Payload { bytes: &request.get().bytes })
    }

    async fn linger<'a>(
        &self,
        _: &Context,
        request: Request<'a, Linger<'a>>,
    ) -> Result<Payload<'a>, Status> {
        ringcall::sleep(Duration::from_micros(u32::from(request.us).into())).await;
        Ok(Payload { bytes: &request.get().bytes })
    }

    async fn mirror(
        &self,
        _: &Context,
        _: Request<'_, Payload<'_>>,
        mut items: Source<Payload<'_>>,
        back: Sink<'_, Payload<'_>>,
    ) -> Result<Payload<'static>, Status> {
        while let Some(item) = items.next().await? {
            back.send_like(&Payload { bytes: &item.bytes }).await?;
        }
        Ok(Payload { bytes: &[] })
    }
}

/// Set where shards are not to measure themselves: asked for once, before any starts.
static MEASURES_NOTHING: AtomicBool = AtomicBool::new(false);

/// Shards that are started from now on measure nothing of themselves.
pub(crate) fn measure_nothing() {
    MEASURES_NOTHING.store(true, Ordering::Relaxed);
}

/// How a shard runs that is measured, on either side.
pub(crate) fn shard_config(spin: Duration) -> ShardConfig {
    // As many items on their way as there are calls without a window.
    let config = ShardConfig::new().spin(spin).stream_windows(64 << 20, 512 << 20);
    config.metrics(!MEASURES_NOTHING.load(Ordering::Relaxed))
}

const _: () =
    assert!(size_of::<<Payload<'_> as ringcall::rkyv::Archive>::Archived>() == SIZE_MIN as usize);

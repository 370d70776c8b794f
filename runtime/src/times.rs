//! How long a callee holds a call: asked for at the caller, measured for callers that ask.
//!
//! Beside the call out, and beside the dispatch of a call. Whether one asks is looked at only where it has metadata at all,
//! so other calls look at no clock.

use std::time::{Duration, Instant};

use ringcall_codec::{Metadata, ServerTimes};

use crate::{connection::Connection, ring::Lease, service::CallTag};

/// The block of metadata that goes with a request, asking for the times where they are wanted.
/// `room` is for what is put together here.
#[inline]
pub(crate) fn block_of_request<'a>(
    metadata: Option<&'a Metadata>,
    wants_times: bool,
    room: &'a mut Metadata,
) -> &'a [u8] {
    match metadata {
        None if wants_times => ServerTimes::WANTED,
        None => &[],
        Some(metadata) if wants_times => with_ask(metadata, room),
        Some(metadata) => metadata.as_bytes(),
    }
}

#[cold]
fn with_ask<'a>(metadata: &Metadata, room: &'a mut Metadata) -> &'a [u8] {
    room.clone_from(metadata);
    // Where there is no room the caller's own go, and no times are asked for.
    let _ = ServerTimes::ask(room);
    room.as_bytes()
}

/// What goes with a reply beside its message.
#[derive(Default)]
pub(crate) struct BesideReply {
    pub(crate) metadata: Metadata,
    stopwatch: Option<Stopwatch>,
}

/// Measures one call.
struct Stopwatch {
    queue: Duration,
    handler_began: Instant,
}

impl BesideReply {
    /// What is to go with the reply of a call with metadata, whose handler begins now: the times,
    /// where the call asks for them.
    #[cold]
    pub(crate) fn begin(connection: &Connection, tag: CallTag, body: &Lease) -> Option<Box<Self>> {
        let is_asked = ServerTimes::are_wanted(body.before(tag.meta_bytes()));
        if !is_asked || tag.is_one_way() {
            return None;
        }
        let handler_began = Instant::now();
        let came = connection.shard.backlog.came().unwrap_or_else(|| connection.taken_at());
        let queue = handler_began.saturating_duration_since(came);
        let stopwatch = Some(Stopwatch { queue, handler_began });
        let mut beside = Self { stopwatch, ..Self::default() };
        beside.set_metadata(Metadata::new());
        Some(Box::new(beside))
    }

    /// Takes the handler's metadata, and keeps a place in it for the times.
    pub(crate) fn set_metadata(&mut self, metadata: Metadata) {
        self.metadata = metadata;
        if self.stopwatch.is_some() {
            // Where there is no room the handler's own go, and the times do not.
            let _ = ServerTimes::reserve(&mut self.metadata);
        }
    }

    /// The reply was encoded: writes the times into it. It is the last frame of `output`, in which
    /// a frame begins at `from`.
    pub(crate) fn end(&self, output: &mut [u8], from: usize) {
        if let Some(Stopwatch { queue, handler_began }) = self.stopwatch {
            ServerTimes { queue, handler: handler_began.elapsed() }.write(output, from);
        }
    }
}

//! What connections of one kind have in common, kept for the next of them.
//!
//! Beside the path of a call: a connection is made from what the one before it had, so that
//! thousands share one description of this end.

use std::{cell::RefCell, ptr};

use ringcall_codec::{Endpoint, MethodInfo, Session};

use crate::{config::ENDPOINTS_KEPT_MAX, connection::Side, shard::Shard};

/// The endpoints of a shard, the one that was made last at the end.
#[derive(Default)]
pub(crate) struct Endpoints(RefCell<Vec<Kept>>);

/// An endpoint, and what it was made of beside the shard's configuration.
struct Kept {
    side: Side,
    calls: &'static [MethodInfo],
    serves: &'static [MethodInfo],
    endpoint: Endpoint,
}

impl Shard {
    /// A session for a new connection, on which this side serves and calls these methods.
    pub(crate) fn session(
        &self,
        side: Side,
        calls: &'static [MethodInfo],
        serves: &'static [MethodInfo],
    ) -> Session {
        let config = self.config.session(self.random());
        let mut kept = self.endpoints.0.borrow_mut();
        let is_it = |kept: &&Kept| {
            kept.side == side && is_same(kept.calls, calls) && is_same(kept.serves, serves)
        };
        if let Some(found) = kept.iter().find(is_it) {
            return found.endpoint.session(config.patience.age_us);
        }
        let endpoint = match side {
            Side::Server => Endpoint::server(&config, self.place, calls, serves),
            Side::Client => Endpoint::client(&config, calls, serves),
        };
        let session = endpoint.session(config.patience.age_us);
        if kept.len() >= ENDPOINTS_KEPT_MAX {
            kept.remove(0);
        }
        kept.push(Kept { side, calls, serves, endpoint });
        session
    }
}

/// Whether two lists are one. Lists that are equal and not one are not found out.
fn is_same(one: &'static [MethodInfo], other: &'static [MethodInfo]) -> bool {
    ptr::eq(one, other) || one.is_empty() && other.is_empty()
}

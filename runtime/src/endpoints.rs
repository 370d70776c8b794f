//! What connections of one kind have in common, kept for the next of them.
//!
//! Beside the path of a call: a connection is made from what the one before it had, so that
//! thousands share one description of this end.

use std::{cell::RefCell, ptr};

use ringcall_codec::{Endpoint, MethodInfo, Session, ShardPlace};

use crate::{config::ENDPOINTS_KEPT_MAX, connection::Side, shard::Shard};

/// The endpoints of a shard, the one that was made last at the end.
#[derive(Default)]
pub(crate) struct Endpoints(RefCell<Vec<Kept>>);

/// An endpoint, and what it was made of beside the shard's configuration.
struct Kept {
    side: Side,
    /// A server's own shard; of a client, the one that it wants.
    place: ShardPlace,
    calls: &'static [MethodInfo],
    serves: &'static [MethodInfo],
    endpoint: Endpoint,
}

impl Shard {
    /// A session for a connection that was accepted, on which this side serves and calls these
    /// methods.
    pub(crate) fn server_session(
        &self,
        calls: &'static [MethodInfo],
        serves: &'static [MethodInfo],
    ) -> Session {
        self.session(Side::Server, self.place, calls, serves)
    }

    /// A session for a new connection, whose client wants this shard of its server.
    pub(crate) fn client_session(
        &self,
        wanted: ShardPlace,
        calls: &'static [MethodInfo],
        serves: &'static [MethodInfo],
    ) -> Session {
        self.session(Side::Client, wanted, calls, serves)
    }

    fn session(
        &self,
        side: Side,
        place: ShardPlace,
        calls: &'static [MethodInfo],
        serves: &'static [MethodInfo],
    ) -> Session {
        let config = self.config.session(self.random());
        let mut kept = self.endpoints.0.borrow_mut();
        let is_it = |kept: &&Kept| {
            kept.side == side
                && kept.place == place
                && is_same(kept.calls, calls)
                && is_same(kept.serves, serves)
        };
        if let Some(found) = kept.iter().find(is_it) {
            return found.endpoint.session(config.patience.age_us);
        }
        let endpoint = match side {
            Side::Server => Endpoint::server(&config, place, calls, serves),
            Side::Client => Endpoint::client_of_shard(&config, place, calls, serves),
        };
        let session = endpoint.session(config.patience.age_us);
        if kept.len() >= ENDPOINTS_KEPT_MAX {
            kept.remove(0);
        }
        kept.push(Kept { side, place, calls, serves, endpoint });
        session
    }
}

/// Whether two lists are one. Lists that are equal and not one are not found out.
fn is_same(one: &'static [MethodInfo], other: &'static [MethodInfo]) -> bool {
    ptr::eq(one, other) || one.is_empty() && other.is_empty()
}

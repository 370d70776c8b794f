//! The serving end of a connection: frames to calls.

use std::{cell::RefCell, rc::Rc};

use ringcall_codec::{Header, ServerEvent, ServerSession};

use crate::{
    connection::{Connection, State},
    dispatch::Dispatch,
    ring::Lease,
    shard::Shard,
};

/// What a connection has if it serves.
pub(crate) struct ServerEnd {
    pub(crate) session: RefCell<ServerSession>,
    dispatch: Rc<dyn Dispatch>,
}

impl ServerEnd {
    pub(crate) fn new(shard: &Shard, dispatch: Rc<dyn Dispatch>) -> Self {
        let limits = shard.config.limits;
        let session = ServerSession::new(dispatch.methods(), limits, shard.place);
        Self { session: RefCell::new(session), dispatch }
    }

    /// Gives a frame to the session, and a call to its handler.
    #[inline]
    pub(crate) fn handle_frame(&self, connection: &Rc<Connection>, header: &Header, body: Lease) {
        let event = self.session.borrow_mut().handle_frame(header, &body);
        match event {
            Ok(ServerEvent::Call { call, method }) => {
                let caller = Rc::clone(connection);
                self.dispatch.dispatch(caller, call, method, body);
                if connection.state() == State::PeerFinished {
                    connection.end_if_done();
                }
            }
            Ok(ServerEvent::Opened) => connection.shard.mark_dirty(connection),
            Ok(ServerEvent::GoAway(status)) => {
                tracing::debug!(peer = %connection.peer, %status, "client goes away");
                connection.peer_finished();
            }
            Err(error) => connection.fail(error),
        }
    }
}

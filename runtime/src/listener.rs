//! Accepting: one listener a shard, all on one port.
//!
//! The accept goes on until the shard stops: too many open files, and connections that were gone
//! before they were accepted, are counted and waited out.

use std::{io, os::fd::OwnedFd, rc::Rc, time::Duration};

use ringcall_codec::MethodInfo;
use socket2::SockAddr;

use crate::{
    connection::{Connection, Side, State, Transport},
    dispatch::Dispatch,
    executor, handover,
    ring::{OpId, Socket},
    shard::Shard,
    tasks,
};

/// The bit of a ring token that says that it is a listener's.
pub(crate) const LISTENER_TOKEN: u64 = 1 << 63;

/// Time after which accepting is tried again where it failed.
const ACCEPT_BACKOFF: Duration = Duration::from_millis(10);

/// A listener of a shard.
pub(crate) struct Listener {
    socket: Socket,
    dispatch: Rc<dyn Dispatch>,
    /// The methods of calls to clients.
    calls: &'static [MethodInfo],
    balance: Balance,
    op: Option<OpId>,
}

/// What a server does about connections that the kernel spreads over its shards unevenly.
///
/// The kernel chooses a shard by a hash of a connection's addresses: evenly where connections are
/// many, and as chance is where they are few. A connection of a client that wants a certain shard
/// goes to that, whatever this says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Balance {
    /// Nothing: a connection stays where the kernel puts it.
    #[default]
    Off,
    /// Hands each connection that is accepted to the shard that has the fewest. Costs two errands
    /// between shards and a few microseconds when it is accepted, and nothing after that.
    OnAccept,
}

impl Listener {
    /// What its connections give their calls to.
    pub(crate) fn dispatch(&self) -> Rc<dyn Dispatch> {
        Rc::clone(&self.dispatch)
    }

    /// The methods of calls to clients.
    pub(crate) fn calls(&self) -> &'static [MethodInfo] {
        self.calls
    }
}

/// Begins to accept.
pub(crate) fn listen(
    shard: &Rc<Shard>,
    socket: OwnedFd,
    dispatch: Rc<dyn Dispatch>,
    calls: &'static [MethodInfo],
    balance: Balance,
) {
    let index = {
        let mut listeners = shard.listeners.borrow_mut();
        listeners.push(Listener { socket: Rc::new(socket), dispatch, calls, balance, op: None });
        listeners.len() - 1
    };
    arm(shard, index);
}

/// Stops accepting, and closes the listeners once the kernel has let go of them.
pub(crate) fn close_all(shard: &Shard) {
    for listener in shard.listeners.take() {
        if let Some(op) = listener.op {
            shard.ring.borrow_mut().cancel(op);
        }
    }
}

/// A connection was accepted, or accepting failed.
pub(crate) fn accepted(shard: &Rc<Shard>, index: u64, result: io::Result<OwnedFd>, more: bool) {
    let index = index as usize;
    let (dispatch, calls, balance) = match shard.listeners.borrow_mut().get_mut(index) {
        Some(listener) => {
            if !more {
                listener.op = None;
            }
            (Rc::clone(&listener.dispatch), listener.calls, listener.balance)
        }
        // The shard stops. A connection that came meanwhile is closed by being dropped.
        None => return,
    };
    let is_accepted = result.is_ok();
    match result.and_then(|socket| Ok((peer_of(&socket)?, socket))) {
        Ok((peer, socket)) => {
            shard.counters.connections_accepted.add(1);
            let fewer = || shard.mailboxes.with_fewer_connections(shard.place.index);
            if balance == Balance::OnAccept
                && let Some(to) = fewer()
            {
                handover::send(shard, to, socket, peer, Vec::new());
            } else {
                open(shard, socket, peer, dispatch, calls);
            }
        }
        Err(error) => {
            shard.counters.accept_errors.add(1);
            tracing::warn!(%error, "accepting failed; going on");
        }
    }
    if more {
        return;
    }
    if is_accepted {
        return arm(shard, index);
    }
    let shard = Rc::downgrade(shard);
    tasks::spawn(async move {
        executor::sleep(ACCEPT_BACKOFF).await;
        if let Some(shard) = shard.upgrade() {
            arm(&shard, index);
        }
    });
}

/// Serves a connection.
fn open(
    shard: &Rc<Shard>,
    socket: OwnedFd,
    peer: std::net::SocketAddr,
    dispatch: Rc<dyn Dispatch>,
    calls: &'static [MethodInfo],
) {
    let session = shard.server_session(calls, dispatch.methods());
    let begins = (Side::Server, State::Open);
    let socket = Transport::Socket(Rc::new(socket));
    Connection::open(shard, socket, peer, begins, session, Some(dispatch)).rearm();
}

fn arm(shard: &Shard, index: usize) {
    let mut listeners = shard.listeners.borrow_mut();
    if let Some(listener) = listeners.get_mut(index)
        && listener.op.is_none()
    {
        let token = LISTENER_TOKEN | index as u64;
        let mut ring = shard.ring.borrow_mut();
        listener.op = Some(ring.accept_multishot(&listener.socket, token));
        shard.wake_driver();
    }
}

/// Address of the peer. Fails where the peer is gone already.
fn peer_of(socket: &OwnedFd) -> io::Result<std::net::SocketAddr> {
    let address: SockAddr = socket2::SockRef::from(socket).peer_addr()?;
    address.as_socket().ok_or_else(|| io::Error::other("the peer has no IP address"))
}

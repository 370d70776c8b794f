//! Handing a connection over to another shard, before anything was said on it.
//!
//! Beside the path of a call: once in the life of a connection, at most. A client names the shard
//! that it wants in its HELLO. The socket goes there with the bytes that have come, and begins
//! anew: so it works through every NAT, and needs no privileges. The kernel may still receive for
//! the old shard, and what it has received is lost to the new one: so that ends first.

use std::{mem, net::SocketAddr, os::fd::OwnedFd, rc::Rc, sync::Arc};

use ringcall_codec::{Code, Header, Session, Status, limits::FRAME_ALIGN};

use crate::{
    config::HANDOVER_BYTES_MAX,
    connection::{Connection, Side, State, Transport},
    mail::Mailbox,
    ring::Chunk,
    shard::Shard,
};

/// Where a connection goes, and what has come on it.
pub(crate) struct Passage {
    to: u16,
    bytes: Vec<u8>,
}

/// A connection on its way to a shard. Where it does not arrive it is declined by the shard that it
/// comes from.
struct Passenger {
    /// None once it has arrived.
    socket: Option<OwnedFd>,
    peer: SocketAddr,
    bytes: Vec<u8>,
    home: Arc<Mailbox>,
    goal: Arc<Mailbox>,
}

impl Connection {
    /// The HELLO of the client asks for another shard.
    #[cold]
    pub(crate) fn begin_handover(self: &Rc<Self>, to: u16, header: &Header, payload: &[u8]) {
        let mut bytes = header.encode().to_vec();
        bytes.extend_from_slice(payload);
        bytes.resize(bytes.len().next_multiple_of(FRAME_ALIGN), 0);
        self.state.set(State::HandingOver);
        self.shard.passages.borrow_mut().insert(self.key, Passage { to, bytes });
        if let Some(op) = self.receive.borrow().op {
            self.shard.ring.borrow_mut().cancel(op);
            self.shard.wake_driver();
        }
    }

    /// Keeps what comes until the connection goes.
    pub(crate) fn carry(self: &Rc<Self>, bytes: &[u8]) {
        let mut passages = self.shard.passages.borrow_mut();
        let Some(passage) = passages.get_mut(&self.key) else { return };
        passage.bytes.extend_from_slice(bytes);
        let is_too_much = passage.bytes.len() > HANDOVER_BYTES_MAX;
        drop(passages);
        if is_too_much {
            let text = "more than a HELLO came before this side's";
            self.decline(&Status::new(Code::InvalidArgument, text));
        }
    }

    /// The kernel has let go of the connection: it goes.
    pub(crate) fn hand_over(self: &Rc<Self>) {
        let passage = self.shard.passages.borrow_mut().remove(&self.key);
        let (Some(Passage { to, bytes }), Some(socket)) = (passage, self.socket()) else { return };
        // The connection's own is closed when the last operation has let go of it.
        let socket = match rustix::io::fcntl_dupfd_cloexec(socket, 0) {
            Ok(socket) => socket,
            Err(error) => {
                tracing::warn!(%error, "a connection cannot be handed over");
                return self.decline(&not_taken());
            }
        };
        let shard = &self.shard;
        self.vanish();
        send(shard, to, socket, self.peer, bytes);
    }

    /// Takes the connection out of its shard, and leaves the socket as it is.
    fn vanish(&self) {
        let shard = &self.shard;
        self.state.set(State::Closed);
        shard.connections.borrow_mut().remove(self.key);
        shard.remote.mail.connection_goes();
        shard.clear_timer(self);
        drop(self.serves.take());
        self.receive.borrow_mut().close();
        if shard.is_stopping.get() || shard.is_draining.get() {
            shard.wake_stopped();
        }
    }

    /// Ends a connection on which nothing was said, and tells its client why.
    pub(crate) fn decline(self: &Rc<Self>, status: &Status) {
        self.shard.passages.borrow_mut().remove(&self.key);
        self.session.borrow_mut().decline(status);
        self.linger_as(State::Lingering);
    }
}

/// Sends a connection to a shard, with what has come on it.
pub(crate) fn send(shard: &Rc<Shard>, to: u16, socket: OwnedFd, peer: SocketAddr, bytes: Vec<u8>) {
    if let Some(mailbox) = shard.mailboxes.of(to) {
        shard.counters.connections_handed_over.add(1);
        mailbox.connection_comes();
        let (home, goal) = (Arc::clone(&shard.remote.mail), Arc::clone(mailbox));
        let passenger = Passenger { socket: Some(socket), peer, bytes, home, goal };
        // One that is not taken is declined as it is dropped.
        let errand = move |shard: &Rc<Shard>| passenger.arrive(shard);
        let _ = mailbox.post(shard.place.index.into(), Box::new(errand));
    }
}

impl Passenger {
    /// It has come to the shard that it wants.
    fn arrive(mut self, shard: &Rc<Shard>) {
        let Some(socket) = self.socket.take() else { return };
        let listener = shard.listeners.borrow();
        let serves = listener.first().map(|listener| (listener.dispatch(), listener.calls()));
        drop(listener);
        // One that drains or stops has no listener.
        let Some((dispatch, calls)) = serves else {
            return decline(shard, socket, self.peer);
        };
        shard.counters.connections_taken_over.add(1);
        let session = shard.server_session(calls, dispatch.methods());
        let begins = (Side::Server, State::Open);
        let socket = Transport::Socket(Rc::new(socket));
        let connection =
            Connection::open(shard, socket, self.peer, begins, session, Some(dispatch));
        let bytes = mem::take(&mut self.bytes);
        if !bytes.is_empty() {
            let mut buffer = shard.owned.take(bytes.len());
            buffer[..bytes.len()].copy_from_slice(&bytes);
            shard.counters.bytes_copied.add(bytes.len() as u64);
            connection.take(Chunk::of_copy(buffer.share(), bytes.len()));
        }
        connection.rearm();
    }
}

impl Drop for Passenger {
    fn drop(&mut self) {
        self.goal.connection_goes();
        if let Some(socket) = self.socket.take() {
            let peer = self.peer;
            self.home.answer(Box::new(move |shard| decline(shard, socket, peer)));
        }
    }
}

/// Ends a connection that no shard takes.
fn decline(shard: &Rc<Shard>, socket: OwnedFd, peer: SocketAddr) {
    let session = Session::server(&shard.config.session(0), shard.place, &[], &[]);
    let begins = (Side::Server, State::Open);
    let socket = Transport::Socket(Rc::new(socket));
    Connection::open(shard, socket, peer, begins, session, None).decline(&not_taken());
}

fn not_taken() -> Status {
    Status::new(Code::Unavailable, "the shard takes no connections now; connect again")
}

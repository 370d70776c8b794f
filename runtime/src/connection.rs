//! A connection: an entry in its shard's table, not a task.
//!
//! Between the ring and the session on the path of a call, in both directions. What comes in is
//! in `receive.rs`; here are the life of a connection and what goes out: one send at a time, with
//! everything that was collected while the one before was under way.

use std::{
    cell::{Cell, RefCell},
    io,
    net::SocketAddr,
    rc::Rc,
};

use ringcall_codec::{Code, SessionError, Status};

use crate::{
    client_end::ClientEnd, config::LINGER_MAX, executor, receive::Receive, ring::Socket,
    server_end::ServerEnd, shard::Shard, tasks, tls::Stage,
};

/// One connection of a shard, serving or calling.
pub(crate) struct Connection {
    pub(crate) shard: Rc<Shard>,
    pub(crate) peer: SocketAddr,
    pub(crate) end: End,
    pub(crate) receive: RefCell<Receive>,
    pub(crate) stage: Stage,
    /// Whether the connection is in its shard's list of those with bytes to send.
    pub(crate) is_dirty: Cell<bool>,
    pub(crate) socket: Socket,
    pub(crate) key: u64,
    is_sending: Cell<bool>,
    state: Cell<State>,
}

/// Which end of a connection this is.
pub(crate) enum End {
    Server(ServerEnd),
    Client(ClientEnd),
}

/// How far a connection is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    /// The kernel connects; client only.
    Connecting,
    /// Both directions are open.
    Open,
    /// The peer sends no more; what it asked for is still answered.
    PeerFinished,
    /// The peer was told to go away; what it still sends is read and thrown away, so that a reset
    /// does not take what it was told away from it.
    Lingering,
    /// The same, and the peer sends no more: over as soon as it was told.
    Leaving,
    /// Gone from the shard's table.
    Closed,
}

impl Connection {
    /// Enters a connection into its shard's table.
    pub(crate) fn open(
        shard: &Rc<Shard>,
        socket: Socket,
        peer: SocketAddr,
        end: End,
        state: State,
    ) -> Rc<Self> {
        let receive = RefCell::new(Receive::new(shard.config.limits.frame_len_max));
        shard.connections.borrow_mut().insert_with(|key| {
            Rc::new(Self {
                shard: Rc::clone(shard),
                peer,
                end,
                receive,
                stage: Stage::Plain,
                is_dirty: Cell::new(false),
                socket,
                key,
                is_sending: Cell::new(false),
                state: Cell::new(state),
            })
        })
    }

    #[inline]
    pub(crate) fn state(&self) -> State {
        self.state.get()
    }

    /// Whether frames are read and replies sent.
    #[inline]
    pub(crate) fn is_alive(&self) -> bool {
        matches!(self.state.get(), State::Open | State::PeerFinished)
    }

    /// Gives access to the bytes that the session has to send.
    #[inline]
    pub(crate) fn with_output<R>(&self, with: impl FnOnce(&mut Vec<u8>) -> R) -> R {
        match &self.end {
            End::Server(end) => with(end.session.borrow_mut().output()),
            End::Client(end) => with(end.session.borrow_mut().output()),
        }
    }

    /// Whether so much waits to be sent that no more is to be added.
    #[inline]
    pub(crate) fn is_blocked(&self) -> bool {
        self.with_output(|output| output.len()) > self.shard.config.send_buffer_max
    }

    /// Whether so many replies wait to be sent that no more calls are to be read. A client always
    /// reads, or the two ends could wait for each other.
    #[inline]
    pub(crate) fn must_not_read(&self) -> bool {
        matches!(self.end, End::Server(_)) && self.is_blocked()
    }

    /// Hands everything collected to the ring, unless a send is under way.
    pub(crate) fn start_send(self: &Rc<Self>) {
        self.is_dirty.set(false);
        if self.is_sending.get() || matches!(self.state.get(), State::Connecting | State::Closed) {
            return;
        }
        let bytes = self.with_output(std::mem::take);
        if bytes.is_empty() {
            return;
        }
        self.send(bytes, 0);
    }

    fn send(&self, bytes: Vec<u8>, from: usize) {
        self.is_sending.set(true);
        self.shard.counters.sends.add(1);
        self.shard.ring.borrow_mut().send(&self.socket, self.key, bytes, from);
    }

    /// A send is done: goes on with what was collected meanwhile.
    pub(crate) fn sent(self: &Rc<Self>, result: io::Result<usize>, bytes: Vec<u8>, from: usize) {
        self.is_sending.set(false);
        match result {
            Ok(sent) if sent > 0 => {
                self.shard.counters.bytes_sent.add(sent as u64);
                if from + sent < bytes.len() {
                    self.send(bytes, from + sent);
                    return;
                }
                self.shard.keep_spare(bytes);
            }
            Ok(_) => return self.finish("the socket takes no more bytes"),
            Err(error) => return self.finish(&format!("sending failed: {error}")),
        }
        if !self.with_output(|output| output.is_empty()) {
            self.shard.mark_dirty(self);
        }
        self.resume();
        if let End::Client(end) = &self.end {
            end.wake_waiting(&self.shard);
        }
        self.end_if_done();
    }

    /// The kernel has connected, or failed to.
    pub(crate) fn connected(self: &Rc<Self>, result: io::Result<()>) {
        if self.state.get() != State::Connecting {
            return;
        }
        match result {
            Ok(()) => {
                self.state.set(State::Open);
                self.receive.borrow_mut().has_ended();
                self.shard.mark_dirty(self);
                self.rearm();
            }
            Err(error) => {
                if let End::Client(end) = &self.end {
                    end.connect_failed(&self.shard, error);
                }
                self.finish("connecting failed");
            }
        }
    }

    /// The peer sends no more. Its calls are answered, then the connection ends.
    pub(crate) fn peer_finished(self: &Rc<Self>) {
        match (&self.end, self.state.get()) {
            // It may have said GOAWAY before its stream ends.
            (End::Server(_), State::Open | State::PeerFinished) => {
                self.state.set(State::PeerFinished);
                self.end_if_done();
            }
            (End::Client(_), State::Open) => self.finish("the server closed the connection"),
            (_, State::Lingering) => {
                self.state.set(State::Leaving);
                self.end_if_done();
            }
            _ => self.finish("the peer closed the connection"),
        }
    }

    /// Ends the connection where nothing more is to be done on it.
    pub(crate) fn end_if_done(self: &Rc<Self>) {
        let state = self.state.get();
        let has_output = self.is_sending.get() || !self.with_output(|output| output.is_empty());
        if has_output {
            return;
        }
        match state {
            State::PeerFinished => {
                if let End::Server(end) = &self.end
                    && end.session.borrow().calls_in_flight() == 0
                    && !self.receive.borrow().has_backlog()
                {
                    self.finish("the client closed the connection");
                }
            }
            State::Lingering => {
                // A peer that is gone already needs no end of the stream.
                let _ = rustix::net::shutdown(&self.socket, rustix::net::Shutdown::Write);
            }
            State::Leaving => self.finish("the peer was told why"),
            State::Connecting | State::Open | State::Closed => {}
        }
    }

    /// Ends the connection because of what the peer sent, and tells it why.
    #[cold]
    pub(crate) fn fail(self: &Rc<Self>, error: SessionError) {
        tracing::debug!(peer = %self.peer, %error, "connection refused");
        self.shard.counters.protocol_errors.add(1);
        let status = error.status();
        if let End::Client(end) = &self.end {
            end.session_failed(&self.shard, error);
        }
        self.go_away(&status);
    }

    /// Tells the peer that the connection ends and why, and ends it when the peer has read that
    /// or had time to.
    pub(crate) fn go_away(self: &Rc<Self>, status: &Status) {
        if !self.is_alive() {
            return;
        }
        match &self.end {
            End::Server(end) => end.session.borrow_mut().go_away(status),
            End::Client(end) => {
                end.session.borrow_mut().go_away(status);
                end.fail_all(&self.shard, status);
            }
        }
        self.state.set(State::Lingering);
        self.receive.borrow_mut().forget();
        self.shard.mark_dirty(self);
        self.rearm();
        let connection = Rc::downgrade(self);
        tasks::spawn(async move {
            executor::sleep(LINGER_MAX).await;
            if let Some(connection) = connection.upgrade() {
                connection.finish("the peer had its time to read why");
            }
        });
    }

    /// Ends the connection now: every call on it has failed.
    pub(crate) fn finish(&self, why: &str) {
        if self.state.replace(State::Closed) == State::Closed {
            return;
        }
        tracing::trace!(peer = %self.peer, why, "connection closed");
        self.shard.counters.connections_closed.add(1);
        self.shard.connections.borrow_mut().remove(self.key);
        let receiving = self.receive.borrow_mut().close();
        if let Some(op) = receiving {
            self.shard.ring.borrow_mut().cancel(op);
        }
        if let End::Client(end) = &self.end {
            let status = Status::new(Code::Unavailable, why.to_owned());
            end.fail_all(&self.shard, &status);
        }
        // A send under way would wait for a peer that does not read; closing does not end it.
        let _ = rustix::net::shutdown(&self.socket, rustix::net::Shutdown::Both);
        self.shard.wake_driver();
        if self.shard.is_stopping.get() {
            self.shard.wake_stopped();
        }
    }

    /// Fails every call that runs.
    pub(crate) fn refuse_all(&self, status: &Status) {
        if let End::Server(end) = &self.end
            && self.is_alive()
        {
            end.session.borrow_mut().refuse_all(status);
        }
    }
}

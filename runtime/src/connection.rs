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

use ringcall_codec::{Code, Interleaver, Piece, Session, SessionError, Status};

use crate::{
    callers::Callers,
    config::{KEPT_UNUSED, LINGER_MAX},
    dispatch::Dispatch,
    executor,
    inbox::Inboxes,
    pack::Packing,
    receive::Receive,
    relay::Origin,
    ring::Socket,
    seats::Seats,
    shard::Shard,
    tasks,
    tls::Stage,
};

/// One connection of a shard. Either end may serve, and either may call.
///
/// Small, as thousands idle: what only some have stands elsewhere, and goes when they have been idle
/// for a while.
pub(crate) struct Connection {
    pub(crate) shard: Rc<Shard>,
    pub(crate) peer: SocketAddr,
    pub(crate) side: Side,
    pub(crate) session: RefCell<Session>,
    /// What the peer's calls are given to; none where nothing is served. Let go of at the end, as
    /// the service may keep this connection to call its peer.
    pub(crate) serves: RefCell<Option<Rc<dyn Dispatch>>>,
    /// The handlers of those calls that wait.
    pub(crate) seats: Seats,
    /// Who waits for the outcomes of calls made here.
    pub(crate) callers: Callers,
    /// What is packed, once that is agreed.
    pub(crate) packing: Cell<Option<Packing>>,
    /// Items that wait to be taken.
    pub(crate) inboxes: Inboxes,
    /// When the shard looks at this connection's timers, in microseconds; never at the maximum.
    pub(crate) timer_us: Cell<u64>,
    pub(crate) receive: RefCell<Receive>,
    pub(crate) stage: Stage,
    /// Cuts what is to be sent where some of it is long.
    interleaver: RefCell<Interleaver>,
    /// Bytes in it that wait, but for those of the long frame that came first.
    waiting_bytes: Cell<u32>,
    /// Whether the connection is in its shard's list of those with bytes to send.
    pub(crate) is_dirty: Cell<bool>,
    /// Number of the reply on it that is measured; zero where none is.
    pub(crate) watch: Cell<u8>,
    /// Replies that were encoded and are not with the ring.
    pub(crate) replies_unsent: Cell<u32>,
    pub(crate) transport: Transport,
    pub(crate) key: u64,
    /// Where the bytes end that are being sent; zero where none are. What waits to be sent is at most
    /// a frame longer than may wait, which is far less than 4 GiB.
    sending_to: Cell<u32>,
    pub(crate) state: Cell<State>,
}

/// With the counts of its `Rc` it fills a size class of common allocators, of which the next is an
/// eighth or a fifth larger.
const _: () = assert!(size_of::<Connection>() <= 640 - 16);

/// Which end of a connection this is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    /// It was connected to.
    Server,
    /// It connected.
    Client,
}

/// What a connection sends and receives by.
pub(crate) enum Transport {
    Socket(Socket),
    /// Another shard, which has the connection: see `relay.rs`.
    Relay(Box<Origin>),
}

/// How far a connection is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    /// The kernel connects; client only.
    Connecting,
    /// Both directions are open.
    Open,
    /// Another shard takes it over, as soon as the kernel receives no more for this one.
    HandingOver,
    /// The peer sends no more; what it asked for is still answered.
    PeerFinished,
    /// The peer was told to go away; what it still sends is read and thrown away, so that a reset
    /// does not take what it was told away from it.
    Lingering,
    /// The same, and the peer sends no more: over as soon as it was told.
    Leaving,
    /// It speaks HTTP, and leaves the shard once nothing is received for it.
    LeavingForHttp,
    /// Gone from the shard's table.
    Closed,
}

impl Connection {
    /// Enters a connection into its shard's table.
    pub(crate) fn open(
        shard: &Rc<Shard>,
        transport: Transport,
        peer: SocketAddr,
        (side, state): (Side, State),
        mut session: Session,
        serves: Option<Rc<dyn Dispatch>>,
    ) -> Rc<Self> {
        session.begin(shard.now_us());
        shard.use_spare(session.output());
        if side == Side::Server && matches!(transport, Transport::Socket(_)) {
            shard.remote.mail.connection_comes();
        }
        let receive = RefCell::new(Receive::new(shard.config.limits.frame_len_max));
        let connection = shard.connections.borrow_mut().insert_with(|key| {
            Rc::new(Self {
                shard: Rc::clone(shard),
                peer,
                side,
                session: RefCell::new(session),
                serves: RefCell::new(serves),
                seats: Seats::default(),
                callers: Callers::new(),
                packing: Cell::new(None),
                inboxes: Inboxes::default(),
                timer_us: Cell::new(u64::MAX),
                receive,
                stage: Stage::Plain,
                interleaver: RefCell::default(),
                waiting_bytes: Cell::new(0),
                is_dirty: Cell::new(false),
                watch: Cell::new(0),
                replies_unsent: Cell::new(0),
                transport,
                key,
                sending_to: Cell::new(0),
                state: Cell::new(state),
            })
        });
        connection.set_timer();
        connection
    }

    /// The socket; a relay has none.
    #[inline]
    pub(crate) fn socket(&self) -> Option<&Socket> {
        match &self.transport {
            Transport::Socket(socket) => Some(socket),
            Transport::Relay(_) => None,
        }
    }

    #[inline]
    pub(crate) fn state(&self) -> State {
        self.state.get()
    }

    #[cold]
    pub(crate) fn set_state(&self, state: State) {
        self.state.set(state);
    }

    /// Whether frames are read and replies sent.
    #[inline]
    pub(crate) fn is_alive(&self) -> bool {
        matches!(self.state.get(), State::Open | State::PeerFinished)
    }

    /// Gives access to the bytes that the session has to send.
    #[inline]
    pub(crate) fn with_output<R>(&self, with: impl FnOnce(&mut Vec<u8>) -> R) -> R {
        with(self.session.borrow_mut().output())
    }

    /// Whether so much waits to be sent that no more is to be added. One long frame does not count,
    /// as it holds nothing up.
    #[inline]
    pub(crate) fn is_blocked(&self) -> bool {
        self.is_too_much(self.with_output(|output| output.len()))
    }

    /// Whether an output of so many bytes, and what waits before it, is too much.
    #[inline]
    pub(crate) fn is_too_much(&self, output_len: usize) -> bool {
        output_len + self.waiting_bytes.get() as usize > self.shard.config.send_buffer_max
    }

    /// Whether so many replies wait to be sent that no more calls are to be read. A client always
    /// reads, or the two ends could wait for each other.
    #[inline]
    pub(crate) fn must_not_read(&self) -> bool {
        self.side == Side::Server && self.is_blocked()
    }

    /// Sees to it that the shard looks at this connection's timers when the first is due. Where
    /// that is later than it was, the shard looks too early once, and finds out.
    #[inline]
    pub(crate) fn set_timer(&self) {
        let due_us = self.session.borrow().next_timeout_us().min(self.callers.wait_ends_us());
        if due_us < self.timer_us.get() {
            self.shard.set_timer(self, due_us);
        }
    }

    /// A timer may be due.
    pub(crate) fn timer_fired(self: &Rc<Self>, now_us: u64) {
        if !self.is_alive() {
            return;
        }
        let mut events = Vec::new();
        let outcome = self.session.borrow_mut().handle_timeout(now_us, &mut events);
        for event in events {
            self.event(event);
        }
        self.callers.end_waits(&self.shard, now_us);
        if let Err(error) = outcome {
            return self.fail(error);
        }
        if !self.with_output(|output| output.is_empty()) {
            self.with_output(|output| self.shard.use_spare(output));
            self.shard.mark_dirty(self);
        }
        self.end_if_done();
        if self.session.borrow().unused_us() >= KEPT_UNUSED.as_micros() as u64 {
            self.shrink_to_fit();
        }
        self.set_timer();
    }

    /// Gives memory back that an idle connection has no use for.
    #[cold]
    fn shrink_to_fit(&self) {
        self.session.borrow_mut().shrink_to_fit();
        self.receive.borrow_mut().shrink_to_fit();
        self.interleaver.borrow_mut().shrink_to_fit();
        self.callers.shrink_to_fit();
        self.inboxes.shrink_to_fit();
        self.seats.shrink_to_fit();
    }

    /// Hands everything collected to the ring, unless a send is under way.
    pub(crate) fn start_send(self: &Rc<Self>) {
        self.is_dirty.set(false);
        if let Transport::Relay(origin) = &self.transport {
            return self.say_back(**origin);
        }
        if self.is_sending() || matches!(self.state.get(), State::Connecting | State::Closed) {
            return;
        }
        match self.next_piece() {
            Some(piece) => self.send(piece),
            // As a one-way call ends.
            None => self.end_if_done(),
        }
    }

    /// What is to be sent next: what was collected, or some of it where it is long.
    #[inline]
    fn next_piece(&self) -> Option<Piece> {
        let bytes = self.with_output(std::mem::take);
        if !self.interleaver.borrow().passes(&bytes) {
            return self.next_of_long(bytes);
        }
        let range = 0..bytes.len();
        (!bytes.is_empty()).then_some(Piece { bytes, range, more: false })
    }

    #[cold]
    fn next_of_long(&self, output: Vec<u8>) -> Option<Piece> {
        let mut interleaver = self.interleaver.borrow_mut();
        if !output.is_empty() {
            interleaver.push(output);
        }
        let piece = interleaver.next_piece();
        self.waiting_bytes.set(interleaver.waiting_bytes() as u32);
        piece
    }

    /// Whether bytes are with the ring.
    #[inline]
    fn is_sending(&self) -> bool {
        self.sending_to.get() > 0
    }

    fn send(&self, Piece { bytes, range, more }: Piece) {
        let Some(socket) = self.socket() else { return };
        self.sending_to.set(range.end as u32);
        self.shard.counters.sends.add(1);
        self.shard.send_begins(self);
        self.shard.ring.borrow_mut().send_some(socket, self.key, bytes, range, more);
    }

    /// A send is done: goes on with what was collected meanwhile.
    pub(crate) fn sent(self: &Rc<Self>, result: io::Result<usize>, bytes: Vec<u8>, from: usize) {
        let to = self.sending_to.replace(0) as usize;
        match result {
            Ok(sent) if sent > 0 => {
                self.shard.counters.bytes_sent.add(sent as u64);
                self.session.borrow_mut().handle_sent(self.shard.now_us());
                if from + sent < to {
                    self.send(Piece { bytes, range: from + sent..to, more: false });
                    return;
                }
                if self.watch.get() != 0 {
                    self.shard.watched_sent(self);
                }
                let spare = self.interleaver.borrow_mut().sent(bytes);
                spare.into_iter().for_each(|bytes| self.shard.keep_spare(bytes));
            }
            Ok(_) => return self.finish("the socket takes no more bytes"),
            Err(error) => return self.finish(&format!("sending failed: {error}")),
        }
        if self.has_output() {
            self.shard.mark_dirty(self);
        }
        self.resume();
        self.wake_waiting();
        // With the last reply of a call that ran the connection may be idle from now on.
        self.set_timer();
        if self.inboxes.any_waits() {
            self.inboxes.wake_senders(&self.shard);
        }
        self.end_if_done();
    }

    /// Whether there is something to be sent that is not with the ring.
    fn has_output(&self) -> bool {
        !self.with_output(|output| output.is_empty()) || !self.interleaver.borrow().is_empty()
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
                self.callers.connect_failed(&self.shard, error);
                self.finish("connecting failed");
            }
        }
    }

    /// The peer sends no more. Its calls are answered, then the connection ends.
    pub(crate) fn peer_finished(self: &Rc<Self>) {
        match (self.side, self.state.get()) {
            // It may have said GOAWAY before its stream ends.
            (Side::Server, State::Open | State::PeerFinished) => {
                self.state.set(State::PeerFinished);
                if !self.receive.borrow().has_backlog() {
                    self.nothing_comes();
                }
                self.end_if_done();
            }
            (Side::Client, State::Open) => self.finish("the server closed the connection"),
            (_, State::Lingering) => {
                self.state.set(State::Leaving);
                self.end_if_done();
            }
            (_, State::LeavingForHttp) => self.hand_to_http(),
            _ => self.finish("the peer closed the connection"),
        }
    }

    /// Nothing comes from the peer any more, and what came was read: what waits for more has failed.
    /// Handlers that have all they need go on, and their callers may read what they answer.
    pub(crate) fn nothing_comes(&self) {
        let status = Status::new(Code::Unavailable, "the client sends no more");
        self.callers.fail_all(&self.shard, &status);
        self.inboxes.cut(&self.shard);
    }

    /// Whether the peer may still grant credit.
    pub(crate) fn is_granted_credit(&self) -> bool {
        self.state.get() == State::Open || self.receive.borrow().has_backlog()
    }

    /// The peer has said its last word.
    pub(crate) fn peer_goes_away(self: &Rc<Self>, status: &Status) {
        if self.side == Side::Server {
            return self.peer_finished();
        }
        self.callers.fail_all(&self.shard, status);
        self.finish("the server said to go away");
    }

    /// Ends the connection where nothing more is to be done on it.
    pub(crate) fn end_if_done(self: &Rc<Self>) {
        let state = self.state.get();
        if self.is_sending() || self.has_output() {
            return;
        }
        match state {
            State::Open => self.end_if_drained(),
            State::PeerFinished => {
                let session = self.session.borrow();
                let is_idle = session.calls_running() == 0 && session.one_ways_running() == 0;
                drop(session);
                if is_idle && !self.receive.borrow().has_backlog() {
                    self.finish("the client closed the connection");
                }
            }
            State::Lingering => {
                // A peer that is gone already needs no end of the stream.
                if let Some(socket) = self.socket() {
                    let _ = rustix::net::shutdown(socket, rustix::net::Shutdown::Write);
                }
            }
            State::Leaving => self.finish("the peer was told why"),
            State::Connecting | State::HandingOver | State::LeavingForHttp | State::Closed => {}
        }
    }

    /// Ends the connection where this side takes no more calls and none is in flight. Where it is
    /// the peer that takes none, the peer ends it: it may have notices to send before.
    fn end_if_drained(self: &Rc<Self>) {
        let is_drained = self.session.borrow().is_drained();
        if is_drained {
            self.go_away(&Status::new(Code::Unavailable, "every call has ended"));
        }
    }

    /// Announces that no more calls are taken here, and ends the connection when the last that
    /// runs has been answered.
    pub(crate) fn drain(self: &Rc<Self>, status: &Status) {
        if self.state.get() != State::Open || self.socket().is_none() {
            // A relay ends with the connection that it is of.
            return;
        }
        if !self.session.borrow().is_open() {
            // It has not begun.
            return self.go_away(status);
        }
        let mut session = self.session.borrow_mut();
        session.set_now(self.shard.fresh_now_us());
        session.drain(status);
        drop(session);
        self.shard.mark_dirty(self);
        self.set_timer();
    }

    /// Wakes the caller that has waited longest for room, where there is some.
    #[inline]
    pub(crate) fn wake_waiting(&self) {
        if self.callers.any_waits() && self.session.borrow().has_room() {
            self.callers.wake_next(&self.shard);
        }
    }

    /// Ends the connection because of what the peer sent, and tells it why.
    #[cold]
    pub(crate) fn fail(self: &Rc<Self>, error: SessionError) {
        tracing::debug!(peer = %self.peer, %error, "connection refused");
        self.shard.counters.protocol_errors.add(1);
        let status = error.status();
        self.callers.session_failed(&self.shard, error);
        self.go_away(&status);
    }

    /// Tells the peer that the connection ends and why, and ends it when the peer has read that
    /// or had time to.
    pub(crate) fn go_away(self: &Rc<Self>, status: &Status) {
        if self.state() == State::HandingOver {
            return self.decline(status);
        }
        if !self.is_alive() {
            return;
        }
        if self.socket().is_none() {
            return self.finish("the relay has nothing more to say");
        }
        let running = self.session.borrow().calls_running();
        self.shard.counters.calls_cut.add(u64::from(running));
        self.session.borrow_mut().go_away(status);
        self.callers.fail_all(&self.shard, status);
        self.seats.stop_all(&self.shard);
        self.inboxes.cut(&self.shard);
        self.linger_as(State::Lingering);
    }

    /// Ends the connection once what is to be sent was sent: that calls were given up, and one-way
    /// calls, must not be lost because nobody needs the connection any more.
    pub(crate) fn leave(self: &Rc<Self>, why: &str) {
        if self.state.get() != State::Open || self.flush() {
            return self.finish(why);
        }
        self.callers.fail_all(&self.shard, &Status::new(Code::Unavailable, why.to_owned()));
        self.seats.stop_all(&self.shard);
        self.inboxes.cut(&self.shard);
        self.linger_as(State::Leaving);
    }

    /// Sends what was collected as far as the socket takes it at once, without the ring. False
    /// where some of it is left.
    pub(crate) fn flush(&self) -> bool {
        let Some(socket) = self.socket() else { return true };
        if self.is_sending() {
            return false;
        }
        let flags = rustix::net::SendFlags::DONTWAIT | rustix::net::SendFlags::NOSIGNAL;
        while let Some(Piece { bytes, range, .. }) = self.next_piece() {
            let sent = match rustix::net::send(socket, &bytes[range.clone()], flags) {
                Ok(sent) => sent,
                Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => 0,
                // Nobody is there to read it.
                Err(_) => return true,
            };
            self.shard.counters.bytes_sent.add(sent as u64);
            if sent < range.len() {
                let range = range.start + sent..range.end;
                self.send(Piece { bytes, range, more: false });
                return false;
            }
            self.interleaver.borrow_mut().sent(bytes);
        }
        true
    }

    /// Reads no more frames, and ends the connection when what is to be sent was sent and read, or
    /// after a time.
    pub(crate) fn linger_as(self: &Rc<Self>, state: State) {
        self.state.set(state);
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
        let was = self.state.replace(State::Closed);
        if was == State::Closed {
            return;
        }
        tracing::trace!(peer = %self.peer, why, "connection closed");
        self.shard.connections.borrow_mut().remove(self.key);
        match &self.transport {
            Transport::Socket(_) => {
                self.shard.counters.connections_closed.add(1);
                if self.side == Side::Server {
                    self.shard.remote.mail.connection_goes();
                }
            }
            Transport::Relay(origin) => self.end_relay(**origin),
        }
        self.end_passed();
        self.shard.passages.borrow_mut().remove(&self.key);
        let receiving = self.receive.borrow_mut().close();
        if let Some(op) = receiving {
            self.shard.ring.borrow_mut().cancel(op);
        }
        self.shard.clear_timer(self);
        self.shard.ends_watch(self);
        self.callers.fail_all(&self.shard, &Status::new(Code::Unavailable, why.to_owned()));
        self.seats.stop_all(&self.shard);
        self.inboxes.cut(&self.shard);
        drop(self.serves.take());
        self.interleaver.take();
        // A send under way would wait for a peer that does not read; closing does not end it.
        if let Some(socket) = self.socket().filter(|_| was != State::LeavingForHttp) {
            let _ = rustix::net::shutdown(socket, rustix::net::Shutdown::Both);
        }
        self.shard.wake_driver();
        if self.shard.is_stopping.get() || self.shard.is_draining.get() {
            self.shard.wake_stopped();
        }
    }

    /// Fails every call that runs.
    pub(crate) fn refuse_all(&self, status: &Status) {
        if self.is_alive() {
            let cut = self.session.borrow_mut().refuse_all(status);
            if self.socket().is_some() {
                self.shard.counters.calls_cut.add(cut as u64);
            }
        }
    }
}

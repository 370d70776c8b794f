//! One HTTP connection: a head comes, an answer goes, and it is closed.

use std::{
    net::Shutdown,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    sync::Arc,
    time::Instant,
};

use rustix::{
    event::PollFlags,
    io::Errno,
    net::{RecvFlags, SendFlags, recv, send},
};
use socket2::SockRef;

use super::{
    ANSWER_PATIENCE, HEAD_LEN_MAX, LINGER, REQUEST_PATIENCE,
    pages::Pages,
    request::{self, Refusal, TOO_LATE, Wanted},
};

/// A connection of the thread. The socket may be a blocking one; it is never waited for.
pub(super) struct Connection {
    socket: OwnedFd,
    state: State,
    /// When its patience is over.
    until: Instant,
}

enum State {
    /// What has come of the head.
    Reading(Vec<u8>),
    /// What is to go, and how much of it has gone.
    Writing {
        head: Vec<u8>,
        body: Arc<[u8]>,
        sent: usize,
    },
    /// The answer has gone; what still comes is thrown away, as closing with it unread would take
    /// the answer from the peer.
    Ending,
    Over,
}

impl Connection {
    /// One of which `head` has come already.
    pub(super) fn new(socket: OwnedFd, head: Vec<u8>, now: Instant) -> Self {
        Self { socket, state: State::Reading(head), until: now + REQUEST_PATIENCE }
    }

    /// One that is told why it is not answered.
    pub(super) fn refused(socket: OwnedFd, refusal: &Refusal, now: Instant) -> Self {
        let mut connection = Self::new(socket, Vec::new(), now);
        connection.answer(refusal.bytes(), Arc::new([]), now);
        connection
    }

    /// What it waits for.
    pub(super) fn interest(&self) -> PollFlags {
        match self.state {
            State::Writing { .. } => PollFlags::OUT,
            _ => PollFlags::IN,
        }
    }

    pub(super) fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    pub(super) fn is_over(&self) -> bool {
        matches!(self.state, State::Over)
    }

    pub(super) fn until(&self) -> Instant {
        self.until
    }

    /// Goes on as far as it can at once.
    pub(super) fn go_on(&mut self, pages: &mut Pages, now: Instant) {
        if now >= self.until {
            self.out_of_time(now);
        }
        loop {
            let went_on = match &mut self.state {
                State::Reading(_) => self.read(pages, now),
                State::Writing { .. } => self.write(now),
                State::Ending => self.end(),
                State::Over => false,
            };
            if !went_on {
                return;
            }
        }
    }

    fn out_of_time(&mut self, now: Instant) {
        match self.state {
            State::Reading(_) => self.answer(TOO_LATE.bytes(), Arc::new([]), now),
            _ => self.state = State::Over,
        }
    }

    fn read(&mut self, pages: &mut Pages, now: Instant) -> bool {
        let State::Reading(head) = &mut self.state else { return false };
        if let Some(wanted) = (!head.is_empty()).then(|| request::parse(head)).flatten() {
            let (head, body) = match wanted {
                Wanted::Page { page, head_only } => pages.answer(page, head_only, now),
                Wanted::Refused(refusal) => (refusal.bytes(), Arc::from([])),
            };
            self.answer(head, body, now);
            return true;
        }
        let mut bytes = [0; 4096];
        let room = bytes.len().min(HEAD_LEN_MAX - head.len());
        match recv(&self.socket, &mut bytes[..room], RecvFlags::DONTWAIT) {
            Ok((received, _)) if received > 0 => {
                head.extend_from_slice(&bytes[..received]);
                true
            }
            Err(Errno::AGAIN) => false,
            Err(Errno::INTR) => true,
            _ => {
                self.state = State::Over;
                false
            }
        }
    }

    fn answer(&mut self, head: Vec<u8>, body: Arc<[u8]>, now: Instant) {
        self.state = State::Writing { head, body, sent: 0 };
        self.until = now + ANSWER_PATIENCE;
    }

    fn write(&mut self, now: Instant) -> bool {
        let State::Writing { head, body, sent } = &mut self.state else { return false };
        let rest = match head.get(*sent..) {
            Some(rest) if !rest.is_empty() => rest,
            _ => &body[*sent - head.len()..],
        };
        if rest.is_empty() {
            // A peer that is gone already needs no end of the stream.
            let _ = SockRef::from(&self.socket).shutdown(Shutdown::Write);
            self.state = State::Ending;
            self.until = now + LINGER;
            return true;
        }
        match send(&self.socket, rest, SendFlags::DONTWAIT | SendFlags::NOSIGNAL) {
            Ok(written) => {
                *sent += written;
                true
            }
            Err(Errno::AGAIN) => false,
            Err(Errno::INTR) => true,
            Err(_) => {
                self.state = State::Over;
                false
            }
        }
    }

    fn end(&mut self) -> bool {
        match recv(&self.socket, &mut [0; 4096], RecvFlags::DONTWAIT) {
            Ok((received, _)) if received > 0 => {}
            Err(Errno::AGAIN) => return false,
            Err(Errno::INTR) => {}
            _ => self.state = State::Over,
        }
        true
    }
}

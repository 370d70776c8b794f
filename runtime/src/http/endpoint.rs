//! The thread that answers HTTP: what shards hand over, and what comes to an address of its own.
//!
//! It sleeps until somebody asks. Its priority is below the shards', so that on a machine that is
//! full it is they who work.

use std::{
    io,
    net::{SocketAddr, TcpListener},
    os::fd::OwnedFd,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use crossbeam::{queue::ArrayQueue, utils::CachePadded};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::{CONNECTIONS_MAX, HANDED_MAX, connection::Connection, pages::Pages, request::TOO_MANY};
use crate::{counters::Counters, ring::Bell};

/// How much the thread gives way to others: a fifth of a core's time where a shard wants it too.
const NICENESS: i32 = 7;

/// Time for which an address of its own is left alone after accepting failed.
const ACCEPT_BACKOFF: Duration = Duration::from_millis(100);

/// How shards hand connections over.
pub(crate) struct Door {
    handed: ArrayQueue<Handed>,
    bell: Bell,
    is_closing: AtomicBool,
}

/// A connection, and what of it was received.
pub(super) struct Handed {
    pub(super) socket: OwnedFd,
    pub(super) head: Vec<u8>,
}

/// What is told of: the shards of a server, and the server.
pub(crate) struct Source {
    pub(crate) address: SocketAddr,
    /// Of each shard, its core and what it counts.
    pub(crate) shards: Vec<(usize, Arc<CachePadded<Counters>>)>,
}

/// The thread. Dropping it ends it.
pub(crate) struct Endpoint {
    door: Arc<Door>,
    thread: Option<JoinHandle<()>>,
}

impl Door {
    pub(crate) fn new() -> io::Result<Arc<Self>> {
        let (handed, bell) = (ArrayQueue::new(HANDED_MAX), Bell::new()?);
        Ok(Arc::new(Self { handed, bell, is_closing: AtomicBool::new(false) }))
    }

    /// Hands a connection over; gives it back where too many wait.
    pub(super) fn hand(&self, handed: Handed) -> Result<(), Handed> {
        self.handed.push(handed)?;
        self.bell.ring();
        Ok(())
    }
}

impl Endpoint {
    /// Starts the thread, which accepts on `listener` too.
    pub(crate) fn start(
        door: Arc<Door>,
        listener: Option<TcpListener>,
        source: Source,
    ) -> io::Result<Self> {
        let here = Arc::clone(&door);
        let serve = move || Serving::new(here, listener, source).serve();
        let thread = thread::Builder::new().name("ringcall-http".to_owned()).spawn(serve)?;
        Ok(Self { door, thread: Some(thread) })
    }
}

impl Drop for Endpoint {
    fn drop(&mut self) {
        self.door.is_closing.store(true, Ordering::Release);
        self.door.bell.ring();
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the thread that answers HTTP panicked");
        }
    }
}

struct Serving {
    door: Arc<Door>,
    listener: Option<TcpListener>,
    /// Until when the listener is left alone.
    listen_from: Instant,
    connections: Vec<Connection>,
    pages: Pages,
}

impl Serving {
    fn new(door: Arc<Door>, listener: Option<TcpListener>, source: Source) -> Self {
        let pages = Pages::new(source);
        Self { door, listener, listen_from: Instant::now(), connections: Vec::new(), pages }
    }

    fn serve(mut self) {
        // It goes on where that is refused.
        let _ = rustix::process::nice(NICENESS);
        while !self.door.is_closing.load(Ordering::Acquire) {
            self.wait();
            let now = Instant::now();
            self.door.bell.clear();
            // Those that are over make room before others come.
            self.go_on(now);
            while let Some(Handed { socket, head }) = self.door.handed.pop() {
                self.begin(socket, head, now);
            }
            self.accept(now);
            self.go_on(now);
        }
    }

    fn go_on(&mut self, now: Instant) {
        self.connections.iter_mut().for_each(|one| one.go_on(&mut self.pages, now));
        self.connections.retain(|connection| !connection.is_over());
    }

    /// Waits until there is something to do.
    fn wait(&self) {
        let now = Instant::now();
        let is_listening = now >= self.listen_from;
        let listener = self.listener.as_ref().filter(|_| is_listening);
        let mut wanted = vec![PollFd::new(&self.door.bell, PollFlags::IN)];
        wanted.extend(listener.map(|listener| PollFd::new(listener, PollFlags::IN)));
        wanted.extend(
            self.connections.iter().map(|connection| {
                PollFd::from_borrowed_fd(connection.as_fd(), connection.interest())
            }),
        );
        let ends = self.connections.iter().map(Connection::until);
        let ends =
            ends.chain((self.listener.is_some() && !is_listening).then_some(self.listen_from));
        let timeout = ends.min().map(|end| {
            // A millisecond more, as it is cut to what the clock of the kernel counts.
            let left = end.saturating_duration_since(now) + Duration::from_millis(1);
            Timespec { tv_sec: left.as_secs().cast_signed(), tv_nsec: left.subsec_nanos().into() }
        });
        // An interruption is a turn with nothing to do.
        let _ = poll(&mut wanted, timeout.as_ref());
    }

    fn accept(&mut self, now: Instant) {
        let Some(listener) = &self.listener else { return };
        let mut accepted = Vec::new();
        while now >= self.listen_from && accepted.len() < CONNECTIONS_MAX {
            match listener.accept() {
                Ok((socket, _)) => accepted.push(OwnedFd::from(socket)),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => {
                    tracing::warn!(%error, "accepting an HTTP connection failed; going on");
                    self.listen_from = now + ACCEPT_BACKOFF;
                }
            }
        }
        accepted.into_iter().for_each(|socket| self.begin(socket, Vec::new(), now));
    }

    fn begin(&mut self, socket: OwnedFd, head: Vec<u8>, now: Instant) {
        if self.connections.len() < CONNECTIONS_MAX {
            return self.connections.push(Connection::new(socket, head, now));
        }
        // As much of it as goes at once.
        Connection::refused(socket, &TOO_MANY, now).go_on(&mut self.pages, now);
    }
}

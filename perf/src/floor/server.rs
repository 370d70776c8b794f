//! The floor's server: what arrives on a connection goes back on it.

use std::{
    io,
    net::{SocketAddr, TcpListener},
    os::fd::OwnedFd,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, Ordering},
        mpsc::{Receiver, Sender, SyncSender, channel, sync_channel},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use ringcall::ShardCounters;
use rustix::net::{AddressFamily, SocketFlags, SocketType, sockopt};

use super::{Turns, shard::Shard};
use crate::{cores, error::Failure, parse::CoreList, target::Target};

/// Connections that may wait to be accepted.
const BACKLOG: i32 = 1024;

/// Longest time for which counters are waited for: a thread looks every 50 ms.
const ANSWER_MAX: Duration = Duration::from_secs(5);

/// A running floor server. Dropping it stops it.
pub(crate) struct FloorServer {
    address: SocketAddr,
    shards: Vec<ShardThread>,
    is_stopping: Arc<AtomicBool>,
}

struct ShardThread {
    /// Counts the requests for counters; the thread answers each.
    asked: Arc<AtomicU32>,
    answers: Receiver<ShardCounters>,
    thread: Option<JoinHandle<io::Result<()>>>,
}

/// What a thread is started with.
struct Setup {
    core: usize,
    spin: Duration,
    listener: OwnedFd,
    is_stopping: Arc<AtomicBool>,
    asked: Arc<AtomicU32>,
    answers: Sender<ShardCounters>,
}

impl FloorServer {
    pub(crate) fn start(
        address: SocketAddr,
        cores: &CoreList,
        spin: Duration,
    ) -> Result<Self, Failure> {
        let mut server = Self { address, shards: Vec::new(), is_stopping: Arc::default() };
        for core in &cores.0 {
            let listener =
                listen(server.address).map_err(|source| Failure::Listen { address, source })?;
            server.address =
                listener.local_addr().map_err(|source| Failure::Listen { address, source })?;
            server.start_shard(*core, spin, listener.into())?;
        }
        Ok(server)
    }

    fn start_shard(
        &mut self,
        core: usize,
        spin: Duration,
        listener: OwnedFd,
    ) -> Result<(), Failure> {
        let asked = Arc::<AtomicU32>::default();
        let (sender, answers) = channel();
        let setup = Setup {
            core,
            spin,
            listener,
            is_stopping: Arc::clone(&self.is_stopping),
            asked: Arc::clone(&asked),
            answers: sender,
        };
        let (started, has_started) = sync_channel(1);
        let body = move || run(setup, &started);
        let thread = thread::Builder::new().name(format!("floor-{core}")).spawn(body);
        let thread = Some(thread.map_err(io_failure)?);
        self.shards.push(ShardThread { asked, answers, thread });
        has_started
            .recv()
            .unwrap_or(Err(Failure::Panicked { target: Target::Floor, side: "server" }))
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// What each thread has counted up to now; each takes its figures by itself.
    pub(crate) fn counters(&self) -> Result<Vec<ShardCounters>, Failure> {
        for shard in &self.shards {
            shard.asked.fetch_add(1, Ordering::Relaxed);
        }
        let answer = |shard: &ShardThread| shard.answers.recv_timeout(ANSWER_MAX);
        let silent = |_| Failure::Silent { target: Target::Floor };
        self.shards.iter().map(|shard| answer(shard).map_err(silent)).collect()
    }

    /// Stops the server and waits for its end.
    pub(crate) fn join(mut self) -> Result<(), Failure> {
        self.join_all()
    }

    fn join_all(&mut self) -> Result<(), Failure> {
        self.is_stopping.store(true, Ordering::Relaxed);
        let mut outcome = Ok(());
        for thread in self.shards.iter_mut().filter_map(|shard| shard.thread.take()) {
            match thread.join() {
                Ok(Ok(())) => {}
                Ok(Err(source)) => outcome = Err(io_failure(source)),
                Err(_) => {
                    outcome = Err(Failure::Panicked { target: Target::Floor, side: "server" });
                }
            }
        }
        outcome
    }
}

impl Drop for FloorServer {
    fn drop(&mut self) {
        if let Err(failure) = self.join_all() {
            eprintln!("warning: {failure}");
        }
    }
}

fn io_failure(source: io::Error) -> Failure {
    Failure::Io { target: Target::Floor, side: "server", source }
}

/// A listener that shares its port with the other threads', with the options of ringcall's.
fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let flags = SocketFlags::CLOEXEC;
    let socket = rustix::net::socket_with(family, SocketType::STREAM, flags, None)?;
    sockopt::set_socket_reuseaddr(&socket, true)?;
    sockopt::set_socket_reuseport(&socket, true)?;
    sockopt::set_tcp_nodelay(&socket, true)?;
    rustix::net::bind(&socket, &address)?;
    rustix::net::listen(&socket, BACKLOG)?;
    Ok(socket.into())
}

/// A thread's life.
fn run(setup: Setup, started: &SyncSender<Result<(), Failure>>) -> io::Result<()> {
    let Setup { core, spin, listener, is_stopping, asked, answers } = setup;
    let shard = cores::pin(core)
        .map_err(|source| Failure::Pin { core, source })
        .and_then(|()| Ok(Shard::new(Turns::new(spin)?, listener)));
    let mut shard = match shard {
        Ok(shard) => shard,
        Err(failure) => {
            // Who started the thread waits for this; if it is gone, nobody needs to know.
            let _ = started.send(Err(failure));
            return Ok(());
        }
    };
    let _ = started.send(Ok(()));
    let mut answered = 0;
    while !is_stopping.load(Ordering::Relaxed) {
        shard.turn()?;
        if asked.load(Ordering::Relaxed) != answered {
            answered = answered.wrapping_add(1);
            let _ = answers.send(shard.counters());
        }
    }
    Ok(())
}

//! The server side of a run: one thread, pinned to its core, with one system on it.

use std::{
    io,
    net::{Ipv4Addr, SocketAddr, TcpListener},
    os::unix::net::UnixStream,
    thread::{self, JoinHandle},
};

use tokio::runtime::{Builder, LocalRuntime};

use crate::{
    cores,
    error::Failure,
    peers::{Peer, PeerError, System},
    workload::Workload,
};

/// A running server. Dropping it tells it to stop.
pub(crate) struct Server {
    system: System,
    address: SocketAddr,
    /// The server stops when this end is closed.
    stop: UnixStream,
    thread: JoinHandle<Result<(), Failure>>,
}

impl Server {
    /// Starts a system on a port of loopback that the kernel chooses. Without a core its thread
    /// runs anywhere, which is for tests.
    pub(crate) fn start(
        system: System,
        core: Option<usize>,
        workload: Workload,
    ) -> Result<Self, Failure> {
        let cannot = |source| Failure::Start { system, side: "server", source };
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).map_err(cannot)?;
        let address = listener.local_addr().map_err(cannot)?;
        let (stop, stopped) = UnixStream::pair().map_err(cannot)?;
        let body = move || {
            core.map_or(Ok(()), cores::pin)?;
            let served = (system.sides().serve)(listener, workload, stopped);
            served.map_err(|source| Failure::Peer { system, side: "server", source })
        };
        let name = format!("server {system}");
        let thread = thread::Builder::new().name(name).spawn(body).map_err(cannot)?;
        Ok(Self { system, address, stop, thread })
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Stops the server, waits for its end, and gives why it failed if it did.
    pub(crate) fn stop(self) -> Result<(), Failure> {
        drop(self.stop);
        let panicked = Failure::Panicked { system: self.system, side: "server" };
        self.thread.join().unwrap_or(Err(panicked))
    }
}

/// Serves a peer on this thread until the other end of `stop` is closed.
pub(crate) fn serve<P: Peer>(
    listener: TcpListener,
    workload: Workload,
    stop: UnixStream,
) -> Result<(), PeerError> {
    stop.set_nonblocking(true)?;
    listener.set_nonblocking(true)?;
    runtime()?.block_on(async {
        let stop = tokio::net::UnixStream::from_std(stop)?;
        tokio::select! {
            served = P::serve(listener, workload) => served,
            readable = stop.readable() => Ok(readable?),
        }
    })
}

/// A runtime on this thread alone, for systems whose futures may and may not cross threads.
pub(crate) fn runtime() -> io::Result<LocalRuntime> {
    Builder::new_current_thread().enable_all().build_local(Default::default())
}

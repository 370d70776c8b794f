//! The systems that are measured, behind one trait.
//!
//! A file each. Its head says which version's advice is applied and where that is written, and
//! what is not alike. `server` and `client` run any [`Peer`] in the same way; `epoll` is no system
//! of calls and brings two sides of its own.

mod capnp;
mod connectrpc;
mod epoll;
mod tarpc;
mod tokio_handwritten;
mod tonic;
mod volo;

use std::{
    error::Error,
    fmt,
    net::{SocketAddr, TcpListener},
    os::unix::net::UnixStream,
};

use bytes::Bytes;

use crate::{
    client::{self, ClientThread},
    error::Failure,
    measure::ClientFigures,
    server,
    workload::Workload,
};

/// Why a system failed, in its own words.
pub(crate) type PeerError = Box<dyn Error + Send + Sync>;

/// An RPC system, on a tokio runtime of one thread on each side.
pub(crate) trait Peer: 'static {
    /// One connection; its clones share it, and may have calls in flight at the same time.
    type Client: Clone + 'static;

    /// Echoes what arrives on the listener's connections, for as long as it is polled.
    async fn serve(listener: TcpListener, workload: Workload) -> Result<(), PeerError>;

    /// Opens a connection of its own.
    async fn connect(address: SocketAddr, workload: Workload) -> Result<Self::Client, PeerError>;

    /// Calls once, and gives the length of the reply's body.
    async fn call(client: &mut Self::Client, body: &Bytes) -> Result<usize, PeerError>;
}

/// The two sides of a system.
pub(crate) struct Sides {
    /// Serves until the other end of the stream is closed.
    pub(crate) serve: fn(TcpListener, Workload, UnixStream) -> Result<(), PeerError>,
    pub(crate) call: fn(&ClientThread) -> Result<ClientFigures, Failure>,
}

/// What is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum System {
    /// gRPC over HTTP/2
    Tonic,
    /// Rust traits over bincode
    Tarpc,
    /// Cap'n Proto's RPC
    CapnpRpc,
    /// Thrift by volo
    VoloThrift,
    /// Connect's protocol over HTTP/2
    Connectrpc,
    /// What one writes without an RPC system: tokio, length-delimited frames, postcard
    TokioHandwritten,
    /// A raw echo on epoll: no calls, closed loop only
    Epoll,
}

impl System {
    pub(crate) const ALL: [Self; 7] = [
        Self::Tonic,
        Self::Tarpc,
        Self::CapnpRpc,
        Self::VoloThrift,
        Self::Connectrpc,
        Self::TokioHandwritten,
        Self::Epoll,
    ];

    /// How it is run.
    pub(crate) fn sides(self) -> Sides {
        match self {
            Self::Tonic => sides::<tonic::Tonic>(),
            Self::Tarpc => sides::<tarpc::Tarpc>(),
            Self::CapnpRpc => sides::<capnp::CapnpRpc>(),
            Self::VoloThrift => sides::<volo::VoloThrift>(),
            Self::Connectrpc => sides::<connectrpc::Connectrpc>(),
            Self::TokioHandwritten => sides::<tokio_handwritten::TokioHandwritten>(),
            Self::Epoll => Sides { serve: epoll::serve, call: epoll::call },
        }
    }

    /// Whether it can be called at a rate.
    pub(crate) fn has_calls(self) -> bool {
        self != Self::Epoll
    }
}

impl fmt::Display for System {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // `pad` heeds the width that a table asks for.
        f.pad(match self {
            Self::Tonic => "tonic",
            Self::Tarpc => "tarpc",
            Self::CapnpRpc => "capnp-rpc",
            Self::VoloThrift => "volo-thrift",
            Self::Connectrpc => "connectrpc",
            Self::TokioHandwritten => "tokio-handwritten",
            Self::Epoll => "epoll",
        })
    }
}

fn sides<P: Peer>() -> Sides {
    Sides { serve: server::serve::<P>, call: client::run::<P> }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

    use std::{sync::mpsc::channel, thread, time::Duration};

    use ringcall_perf::generator::Clock;
    use tokio::task::JoinSet;

    use super::*;
    use crate::{server::Server, workload::Window};

    /// Calls made by each test.
    const CALLS: usize = 100;

    /// Starts a server and makes calls over two connections, `depth` at once on each.
    fn makes_calls<P: Peer>(system: System, depth: u32, size: u32) {
        let workload = Workload { connections: 2, depth, size };
        let server = Server::start(system, None, workload).unwrap();
        let address = server.address();
        server::runtime().unwrap().block_on(async move {
            let mut callers = JoinSet::new();
            for connection in 0..workload.connections as usize {
                let client = P::connect(address, workload).await.unwrap();
                for caller in 0..depth as usize {
                    let mut client = client.clone();
                    let callers_in_all = (workload.connections * depth) as usize;
                    let first = connection * depth as usize + caller;
                    callers.spawn_local(async move {
                        for call in (first..CALLS).step_by(callers_in_all) {
                            // Lengths differ, so that a reply to another call is noticed.
                            let body = Bytes::from(vec![7; workload.body_len() - call / 2]);
                            let len = P::call(&mut client, &body).await.unwrap();
                            assert_eq!(len, body.len(), "call {call}");
                        }
                        CALLS.saturating_sub(first).div_ceil(callers_in_all)
                    });
                }
            }
            assert_eq!(callers.join_all().await.iter().sum::<usize>(), CALLS);
        });
        server.stop().unwrap();
    }

    fn echoes<P: Peer>(system: System) {
        makes_calls::<P>(system, 4, 64);
        makes_calls::<P>(system, 4, 60 << 10);
        // One call at a time is another mode of volo's.
        makes_calls::<P>(system, 1, 4 << 10);
    }

    #[test]
    fn tonic_echoes() {
        echoes::<tonic::Tonic>(System::Tonic);
    }

    #[test]
    fn tarpc_echoes() {
        echoes::<tarpc::Tarpc>(System::Tarpc);
    }

    #[test]
    fn capnp_rpc_echoes() {
        echoes::<capnp::CapnpRpc>(System::CapnpRpc);
    }

    #[test]
    fn volo_thrift_echoes() {
        echoes::<volo::VoloThrift>(System::VoloThrift);
    }

    #[test]
    fn connectrpc_echoes() {
        echoes::<connectrpc::Connectrpc>(System::Connectrpc);
    }

    #[test]
    fn a_protocol_by_hand_echoes() {
        echoes::<tokio_handwritten::TokioHandwritten>(System::TokioHandwritten);
    }

    /// Runs both sides as a bench does, for a moment; for a longer one where a busy machine lets no
    /// call be answered in it.
    fn figures(system: System, workload: Workload, rate: Option<u32>) -> ClientFigures {
        let mut duration = Duration::from_millis(100);
        loop {
            let figures = figures_of(system, workload, rate, duration);
            if figures.answered() > 0 || figures.errors > 0 {
                return figures;
            }
            duration *= 2;
        }
    }

    fn figures_of(
        system: System,
        workload: Workload,
        rate: Option<u32>,
        duration: Duration,
    ) -> ClientFigures {
        let server = Server::start(system, None, workload).unwrap();
        let (ready, is_ready) = channel();
        let (open, opens) = channel();
        // The window opens when the client is connected, and not before.
        let gate = thread::spawn(move || {
            is_ready.recv().unwrap();
            open.send(Window::after(&Clock::new(), Duration::from_millis(10), duration)).unwrap();
        });
        let address = server.address();
        let client = ClientThread { system, address, core: None, workload, rate, ready, opens };
        let figures = (system.sides().call)(&client).unwrap();
        gate.join().unwrap();
        server.stop().unwrap();
        figures
    }

    #[test]
    fn the_floor_gives_back_what_it_was_sent() {
        for size in [64, 60 << 10, 300_000] {
            let workload = Workload { connections: 2, depth: 4, size };
            // It compares a whole body on each connection before it counts.
            let figures = figures(System::Epoll, workload, None);
            assert!(figures.answered() > 0, "{workload}");
        }
    }

    #[test]
    fn a_closed_loop_makes_calls_without_errors_on_every_system() {
        let workload = Workload { connections: 2, depth: 2, size: 64 };
        for system in System::ALL {
            let figures = figures(system, workload, None);
            assert!(figures.answered() > 0, "{system}");
            assert_eq!((figures.errors, figures.first_error), (0, None), "{system}");
            assert!(figures.record.open.is_none(), "{system}");
        }
    }

    #[test]
    fn an_open_loop_accounts_for_every_call_that_is_due() {
        let workload = Workload { connections: 2, depth: 2, size: 64 };
        for system in System::ALL.into_iter().filter(|system| system.has_calls()) {
            let figures = figures(system, workload, Some(1_000));
            assert_eq!((figures.errors, &figures.first_error), (0, &None), "{system}");
            let open = figures.record.open.as_ref().unwrap();
            let recorded = open.from_due.count();
            assert_eq!(recorded, figures.answered() + figures.bounds.count(), "{system}");
            assert!(open.lateness.count() >= figures.answered(), "{system}");
            // Give or take what chance makes of so few; what the warm-up left over comes on top.
            let due = 1_000.0 * figures.elapsed.as_secs_f64();
            assert!(recorded as f64 >= due * 0.6, "{system}: {recorded} of {due}");
        }
    }
}

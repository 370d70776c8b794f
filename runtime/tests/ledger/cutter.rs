//! What cuts connections: it stands between clients and a server, and lets so many bytes through.

use std::{
    io::{Read, Write},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use rustix::net::sockopt::set_socket_linger;

use crate::{book::Book, random::Random};

/// A door to a server, and whoever comes through it is cut off sooner or later.
pub(crate) struct Cutter {
    address: SocketAddr,
    is_over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Cutter {
    pub(crate) fn start(server: SocketAddr, book: &Arc<Book>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (is_over, book) = (Arc::<AtomicBool>::default(), Arc::clone(book));
        let ends = Arc::clone(&is_over);
        let thread = thread::spawn(move || {
            let mut random = Random::new(1);
            let mut pumps = Vec::new();
            for client in listener.incoming() {
                if ends.load(Relaxed) {
                    break;
                }
                let client = client.unwrap();
                // Where nobody listens at the moment the client finds out and comes again.
                let Ok(server) = TcpStream::connect(server) else { continue };
                pumps.extend(stand_between(client, server, &mut random, &book));
            }
            for pump in pumps {
                pump.join().unwrap();
            }
        });
        Self { address, is_over, thread: Some(thread) }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Lets nobody in any more, and waits until everybody is gone.
    pub(crate) fn end(mut self) {
        self.is_over.store(true, Relaxed);
        drop(TcpStream::connect(self.address).unwrap());
        self.thread.take().unwrap().join().unwrap();
    }
}

/// Lets bytes through, both ways, up to a number of them in one direction; then both directions
/// end, at a place that nobody expects, by a reset or in order.
fn stand_between(
    client: TcpStream,
    server: TcpStream,
    random: &mut Random,
    book: &Arc<Book>,
) -> Vec<JoinHandle<()>> {
    for stream in [&client, &server] {
        stream.set_nodelay(true).unwrap();
        if random.below(2) == 0 {
            // Its last handle resets the connection.
            set_socket_linger(stream, Some(Duration::ZERO)).unwrap();
        }
    }
    let ways = [(client.try_clone(), server.try_clone()), (Ok(server), Ok(client))];
    let limit = u64::from(random.below(4_000_000));
    let pumps = ways.map(|(from, to)| {
        let (from, to, book) = (from.unwrap(), to.unwrap(), Arc::clone(book));
        thread::spawn(move || {
            if pump(&from, &to, limit) {
                book.cuts.fetch_add(1, Relaxed);
            }
            for stream in [from, to] {
                // It may be closed from the other side.
                let _ = stream.shutdown(Shutdown::Both);
            }
        })
    });
    pumps.into()
}

/// Whether the limit was reached.
fn pump(mut from: &TcpStream, mut to: &TcpStream, limit: u64) -> bool {
    let mut bytes = [0; 16 * 1024];
    let mut left = limit;
    while left > 0 {
        let most = bytes.len().min(left as usize);
        match from.read(&mut bytes[..most]) {
            Ok(len) if len > 0 && to.write_all(&bytes[..len]).is_ok() => left -= len as u64,
            _ => return false,
        }
    }
    true
}

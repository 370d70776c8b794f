//! Who works in a run: servers that follow each other on one port, and clients that come again.

use std::{
    net::SocketAddr,
    rc::Rc,
    sync::{Arc, atomic::Ordering::Relaxed},
    thread,
    time::Duration,
};

use ringcall::{Client, ClientConfig, RunConfig, ServerHandle, ShardConfig};

use crate::{
    book::Book,
    cutter::Cutter,
    errand::Errands,
    post::{Office, PostClient, PostServer},
    random::Random,
    support::{event::background, server::usable_cores, wait::until_async},
};

/// Shards of each server; two may be on one core.
const SHARDS: usize = 2;

/// Threads of clients.
const CLIENTS: u64 = 2;

/// Connections of each that are never cut, and those that are.
const CONNECTIONS: u64 = 4;
const CONNECTIONS_CUT: u64 = 1;

/// Calls that each connection has under way.
const DEPTH: u64 = 24;

/// Fewer than that: callers wait for room, and some one-way calls find none.
const CALLS_IN_FLIGHT_MAX: u32 = 16;

/// Time for a server to drain; more than any run has.
const GRACE: Duration = Duration::from_secs(100_000);

/// Calls after which a client comes again, at most.
const CALLS_PER_CONNECTION_MAX: u32 = 20_000;

/// Makes so many calls, while servers drain and others take their place so many times.
pub(crate) fn work(book: &Arc<Book>, calls: u64, restarts: u64) {
    let mut server = serve("127.0.0.1:0".parse().unwrap(), book);
    let address = server.address();
    let cutter = Cutter::start(address, book);
    let clients: Vec<_> = (0..CLIENTS)
        .map(|index| {
            let (book, through) = (Arc::clone(book), cutter.address());
            thread::spawn(move || client(index, address, through, &book))
        })
        .collect();
    for restart in 1..=restarts {
        let due = calls * restart / (restarts + 1);
        while book.made() < due && !clients.iter().any(thread::JoinHandle::is_finished) {
            thread::sleep(Duration::from_millis(1));
        }
        let successor = serve(address, book);
        leave(std::mem::replace(&mut server, successor));
        book.restarts.fetch_add(1, Relaxed);
    }
    for client in clients {
        client.join().unwrap();
    }
    cutter.end();
    leave(server);
}

fn config() -> ShardConfig {
    ShardConfig::new().calls_in_flight_max(CALLS_IN_FLIGHT_MAX)
}

fn serve(address: SocketAddr, book: &Arc<Book>) -> ServerHandle {
    let cores = usable_cores().into_iter().cycle().take(SHARDS);
    let server = ringcall::Server::builder().cores(cores).shard(config());
    let server = server.calls_clients(PostClient::METHODS);
    let book = Arc::clone(book);
    server.serve(address, move |_| PostServer::new(Office::new(&book))).unwrap()
}

/// Ends a server in order.
fn leave(server: ServerHandle) {
    server.drain(GRACE);
    server.join().unwrap();
}

/// A thread of clients.
fn client(index: u64, address: SocketAddr, through: SocketAddr, book: &Arc<Book>) {
    let run = RunConfig::new().shard(config()).run(async {
        let lanes: Vec<_> = (0..CONNECTIONS + CONNECTIONS_CUT)
            .map(|lane| {
                let is_cut = lane >= CONNECTIONS;
                let (to, book) = (if is_cut { through } else { address }, Arc::clone(book));
                background(self::lane(to, is_cut, index << 8 | lane, book))
            })
            .collect();
        for lane in lanes {
            lane.await;
        }
    });
    run.unwrap();
}

/// One connection after the other, until enough calls are made.
async fn lane(address: SocketAddr, is_cut: bool, seed: u64, book: Arc<Book>) {
    let mut random = Random::new(seed);
    while !book.is_full() {
        let office = Office::new(&book);
        let running = office.running();
        let (config, methods) = (ClientConfig::new(), PostClient::METHODS);
        let service = PostServer::new(office);
        let connected = Client::connect_serving(&config, address, methods, service).await;
        let Ok(client) = connected else {
            // A connection that waits to be accepted is reset when its listener closes.
            ringcall::sleep(Duration::from_millis(1)).await;
            continue;
        };
        book.connections.fetch_add(1, Relaxed);
        let errands = Rc::new(Errands::of_client(client, &book, is_cut, random.next()));
        if errands.begin().await {
            let calls = u64::from(random.below(CALLS_PER_CONNECTION_MAX)) / DEPTH;
            let callers: Vec<_> =
                (0..DEPTH).map(|_| background(caller(Rc::clone(&errands), calls))).collect();
            for caller in callers {
                caller.await;
            }
        }
        errands.settled().await;
        if !is_cut {
            until_async("the handlers of this client end", || running.get() == 0).await;
        }
    }
}

/// Makes one call after the other while that is possible.
async fn caller(errands: Rc<Errands>, calls: u64) {
    for _ in 0..calls {
        if errands.is_done() {
            return;
        }
        errands.run().await;
    }
}

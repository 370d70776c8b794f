//! Handlers that wait, for whatever it is: they get it, and their neighbours are served meanwhile.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod support;

use std::{
    fs,
    net::SocketAddr,
    path::PathBuf,
    process,
    sync::atomic::{AtomicU64, Ordering::Relaxed},
};

use support::{
    desk::{DeskClient, Load, Office, Place, Unit, load, pass_calls, run},
    event::background,
    server::counters,
    wait::watched,
};

/// Starts a call that waits until `open`; its neighbours are served before that, and it is
/// answered after.
async fn waits_among_neighbours<F>(office: &Office, start: impl FnOnce(DeskClient) -> F) -> Load
where
    F: Future<Output = Load> + 'static,
{
    let (desk, other) = (office.connect().await, office.connect().await);
    let waiting = background(start(desk.clone()));
    // It got what it waits for a few times, and waits again.
    office.has_waited(3).await;
    pass_calls(&desk, 100).await;
    pass_calls(&other, 100).await;
    let waits = office.waits();
    office.has_waited(waits + 3).await;
    assert!(!waiting.is_done());
    other.open(&Unit).await.unwrap();
    waiting.await
}

#[test]
fn a_handler_that_sleeps_works_and_its_neighbours_are_served() {
    watched(|| {
        let office = Office::start();
        run(async {
            let sleep = |desk: DeskClient| async move {
                let reply = desk.sleep(&load(1, 1000)).await.unwrap();
                reply.to_owned().unwrap()
            };
            let reply = waits_among_neighbours(&office, sleep).await;
            assert_eq!(reply.bytes, load(1, 1000).bytes);
        });
        assert_eq!(counters(&office.server).calls_spawned, 1);
    });
}

#[test]
fn a_handler_that_waits_on_a_timer_of_the_executor_works_and_its_neighbours_are_served() {
    watched(|| {
        let office = Office::start();
        run(async {
            let tick = |desk: DeskClient| async move {
                let reply = desk.tick(&load(2, 2000)).await.unwrap();
                reply.to_owned().unwrap()
            };
            let reply = waits_among_neighbours(&office, tick).await;
            assert_eq!(reply.bytes, load(2, 2000).bytes);
        });
        assert_eq!(counters(&office.server).calls_spawned, 1);
    });
}

/// A file that is there for as long as this is.
struct File(PathBuf);

impl File {
    fn create(bytes: &[u8]) -> Self {
        static FILES: AtomicU64 = AtomicU64::new(0);
        let name = format!("ringcall-{}-{}", process::id(), FILES.fetch_add(1, Relaxed));
        let path = std::env::temp_dir().join(name);
        fs::write(&path, bytes).unwrap();
        Self(path)
    }
}

impl Drop for File {
    fn drop(&mut self) {
        fs::remove_file(&self.0).unwrap();
    }
}

#[test]
fn a_handler_that_reads_a_file_works_and_its_neighbours_are_served() {
    watched(|| {
        let office = Office::start();
        let written = load(3, 300_000).bytes;
        let file = File::create(&written);
        let path = file.0.to_str().unwrap().to_owned();
        run(async {
            let read = |desk: DeskClient| async move {
                let reply = desk.read(&Place { path }).await.unwrap();
                reply.to_owned().unwrap()
            };
            let reply = waits_among_neighbours(&office, read).await;
            assert_eq!(reply.bytes, written);
        });
        assert_eq!(counters(&office.server).calls_spawned, 1);
    });
}

/// A handler that calls the server at an address.
fn a_handler_calls(office: &Office, address: SocketAddr) {
    run(async {
        let path = address.to_string();
        let ask = |desk: DeskClient| async move {
            let reply = desk.ask(&Place { path }).await.unwrap();
            reply.to_owned().unwrap()
        };
        let reply = waits_among_neighbours(office, ask).await;
        assert_eq!(reply.bytes, load(5, 50_000).bytes);
    });
}

#[test]
fn a_handler_that_calls_another_server_works_and_its_neighbours_are_served() {
    watched(|| {
        let (office, other) = (Office::start(), Office::start());
        a_handler_calls(&office, other.server.address());
        assert!(counters(&office.server).calls_made > 0);
        assert!(counters(&other.server).calls_inline > 0);
    });
}

#[test]
fn a_handler_that_calls_its_own_shard_works_and_its_neighbours_are_served() {
    watched(|| {
        let office = Office::start();
        a_handler_calls(&office, office.server.address());
        let counters = counters(&office.server);
        assert!(counters.calls_made > 0);
        // Two of the test, and that of the handler.
        assert_eq!(counters.connections_accepted, 3);
    });
}

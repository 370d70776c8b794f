//! Starting and stopping leaves no descriptor and no thread behind.
//!
//! The only test of its process, as it counts all of them.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use std::fs;

use ringcall::prelude::*;

#[ringcall::message]
pub struct Number {
    pub number: u64,
}

#[ringcall::service]
pub trait Adder {
    /// Adds one, at once.
    async fn add(&self, cx: &Context, request: Request<'_, Number>) -> Result<Number, Status>;

    /// Waits for ever.
    async fn never(&self, cx: &Context, request: Request<'_, Number>) -> Result<Number, Status>;
}

struct Service;

impl Adder for Service {
    async fn add(&self, _: &Context, request: Request<'_, Number>) -> Result<Number, Status> {
        Ok(Number {
            number: u64::from(request.number) + 1,
        })
    }

    async fn never(&self, _: &Context, _: Request<'_, Number>) -> Result<Number, Status> {
        std::future::pending().await
    }
}

fn descriptors() -> Vec<String> {
    let mut open: Vec<_> = fs::read_dir("/proc/self/fd")
        .unwrap()
        .filter_map(|entry| {
            let entry = entry.unwrap();
            let to = fs::read_link(entry.path()).ok()?;
            Some(to.to_string_lossy().into_owned())
        })
        .collect();
    open.sort();
    open
}

fn threads() -> usize {
    fs::read_dir("/proc/self/task").unwrap().count()
}

#[test]
fn probe() {
    for round in 0..5 {
        let server = Server::builder()
            .cores([0])
            .serve("127.0.0.1:0", |_| AdderServer::new(Service))
            .unwrap();
        let address = server.address();
        ringcall::run(async move {
            let adder = AdderClient::connect(address).await.unwrap();
            let got = adder.add(&Number { number: 1 }).await.unwrap();
            assert_eq!(got.number, 2);
        })
        .unwrap();
        drop(server);
        eprintln!(
            "{round}: {} threads, {} fds",
            threads(),
            descriptors().len()
        );
    }
    let mut map = std::collections::BTreeMap::new();
    for d in descriptors() {
        *map.entry(d.split(':').take(2).collect::<Vec<_>>().join(":"))
            .or_insert(0) += 1;
    }
    eprintln!("{map:#?}");
}

//! Services that keep the connections of their callers: a server ends with them all the same.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod support;

use std::{cell::RefCell, net::TcpListener, time::Duration};

use ringcall::{Client, ShardConfig, prelude::*};
use support::{
    server::serve,
    wait::{until, watched},
};

#[ringcall::message]
struct Name {
    name: String,
}

#[ringcall::service]
trait Guests {
    /// Keeps the connection that the call came on.
    async fn enter(&self, cx: &Context, request: Request<'_, Name>) -> Result<Name, Status>;
}

#[derive(Default)]
struct Book(RefCell<Vec<Client>>);

impl Guests for Book {
    async fn enter(&self, cx: &Context, request: Request<'_, Name>) -> Result<Name, Status> {
        self.0.borrow_mut().push(cx.caller());
        request.to_owned()
    }
}

#[test]
fn a_server_whose_service_keeps_its_callers_frees_its_port() {
    watched(|| {
        for drains in [false, true] {
            let server = serve(ShardConfig::new(), || GuestsServer::new(Book::default()));
            let address = server.address();
            let run = ringcall::run(async move {
                let guests = GuestsClient::connect(address).await.unwrap();
                guests.enter(&Name { name: "Ada".to_owned() }).await.unwrap();
            });
            run.unwrap();
            if drains {
                server.drain(Duration::from_secs(3600));
            }
            drop(server);
            // Nobody else is allowed to listen there while a shard does.
            until("the port is free", || TcpListener::bind(address).is_ok());
        }
    });
}

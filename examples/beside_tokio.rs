//! A ringcall server beside a tokio runtime of the same process: started and stopped from it, and
//! with handlers that wait for its tasks.
//!
//! Run it: `cargo run --release -p ringcall-examples --example beside_tokio`

use std::time::Duration;

use ringcall::{Handle, prelude::*};
use ringcall_examples::{address, serve_if_asked};
use tokio::runtime::Runtime;

#[ringcall::message]
struct Product {
    number: u32,
}

#[ringcall::message]
struct Price {
    cents: u64,
}

#[ringcall::service]
trait Shop {
    async fn price(&self, cx: &Context, request: Request<'_, Product>) -> Result<Price, Status>;
}

/// The service of a shard, and how it reaches tokio.
struct Counter {
    tokio: tokio::runtime::Handle,
}

impl Shop for Counter {
    async fn price(&self, _: &Context, request: Request<'_, Product>) -> Result<Price, Status> {
        // What needs tokio runs there; the handler waits on its shard, and others go on.
        let lookup = self.tokio.spawn(look_up(request.number.into()));
        let cents = lookup.await.map_err(|error| Status::new(Code::Internal, error.to_string()))?;
        Ok(Price { cents })
    }
}

/// Asks a database whose driver is tokio's.
async fn look_up(number: u32) -> u64 {
    tokio::time::sleep(Duration::from_millis(1)).await;
    u64::from(number) * 100 - 1
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let runtime = Runtime::new()?;
    let tokio = runtime.handle().clone();
    let server = Server::builder().serve(address(), move |_| {
        let tokio = tokio.clone();
        ShopServer::new(Counter { tokio })
    })?;
    let Some(server) = serve_if_asked(server)? else { return Ok(()) };

    runtime.block_on(async {
        let handle = Handle::start()?;
        let shop = ShopSendClient::connect(&handle, server.address()).await?;
        // A call borrows nothing: it can be a task as it is.
        let calls: Vec<_> =
            (1..=3).map(|number| tokio::spawn(shop.price(&Product { number }))).collect();
        for call in calls {
            println!("{} cents", call.await??.cents);
        }
        // Waiting for its end blocks, so a thread for that waits.
        server.drain(Duration::from_secs(10));
        tokio::task::spawn_blocking(|| server.join()).await??;
        if let Err(status) = shop.price(&Product { number: 4 }).await {
            println!("closed: {}", status.code());
        }
        Ok(())
    })
}

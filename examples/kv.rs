//! A store of which each core has its own part.
//!
//! Shards share nothing, so a part needs no lock, and no call waits for another core. At which
//! shard a connection arrives is the kernel's choice: the client connects until it has a connection
//! to each, and sends every key to the shard that owns it by its hash. No other would find it.
//!
//! Run it: `cargo run --release -p ringcall-examples --example kv`

use std::{cell::RefCell, collections::HashMap, net::SocketAddr};

use ringcall::{ConnectError, prelude::*};
use ringcall_examples::{address, serve_if_asked};

#[ringcall::message]
struct Put {
    key: String,
    value: String,
}

#[ringcall::message]
struct Get {
    key: String,
}

/// The key's value; after a `put`, the one that it had before.
#[ringcall::message]
struct Got {
    value: Option<String>,
}

#[ringcall::service]
trait Kv {
    async fn put(&self, cx: &Context, request: Request<'_, Put>) -> Result<Got, Status>;
    async fn get(&self, cx: &Context, request: Request<'_, Get>) -> Result<Got, Status>;
}

/// A shard's part of the store.
#[derive(Default)]
struct Part(RefCell<HashMap<String, String>>);

impl Kv for Part {
    async fn put(&self, _: &Context, request: Request<'_, Put>) -> Result<Got, Status> {
        let Put { key, value } = request.to_owned()?;
        let value = self.0.borrow_mut().insert(key, value);
        Ok(Got { value })
    }

    async fn get(&self, _: &Context, request: Request<'_, Get>) -> Result<Got, Status> {
        let value = self.0.borrow().get(&*request.key).cloned();
        Ok(Got { value })
    }
}

/// The shard that owns a key, by the FNV-1a hash.
fn owner(key: &str, shards: u16) -> u16 {
    let step = |hash: u64, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
    let hash = key.bytes().fold(0xcbf2_9ce4_8422_2325, step);
    ((hash >> 32) % u64::from(shards)) as u16
}

/// A connection to each shard, by the shard's number.
async fn connect(address: SocketAddr) -> Result<Vec<KvClient>, ConnectError> {
    let mut shards: Vec<Option<KvClient>> = vec![None];
    while shards.iter().any(Option::is_none) {
        let client = KvClient::connect(address).await?;
        let shard = client.client().shard();
        shards.resize(shard.count.into(), None);
        shards[usize::from(shard.index)] = Some(client);
    }
    Ok(shards.into_iter().flatten().collect())
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let server = Server::builder().serve(address(), |_| KvServer::new(Part::default()))?;
    let Some(server) = serve_if_asked(server)? else { return Ok(()) };
    ringcall::run(async {
        let shards = connect(server.address()).await?;
        for name in ["Ada", "Alan", "Barbara", "Edsger", "Grace", "Tony"] {
            let (key, value) = (name.to_owned(), format!("Hello, {name}!"));
            let index = owner(name, shards.len() as u16);
            let shard = &shards[usize::from(index)];
            shard.put(&Put { key: key.clone(), value }).await?;
            let got = shard.get(&Get { key }).await?;
            println!("shard {index} of {} says {:?}", shards.len(), got.value);
        }
        Ok(())
    })?
}

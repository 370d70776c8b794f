//! A store of which each core has its own part.
//!
//! Shards share nothing, so a part needs no lock, and no call waits for another core: `shard_by`
//! names the key by which a call finds the shard that owns it. `KvShards` keeps a connection to
//! each; a call of a client that does not is passed on by the shard where it comes.
//!
//! Run it: `cargo run --release -p ringcall-examples --example sharded_kv`

use std::{cell::RefCell, collections::HashMap};

use ringcall::prelude::*;
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

/// The key's value, after a `put` the one that it had before; and the shard that says so.
#[ringcall::message]
struct Got {
    value: Option<String>,
    shard: u16,
}

#[ringcall::service]
trait Kv {
    #[rpc(shard_by = key)]
    async fn put(&self, cx: &Context, request: Request<'_, Put>) -> Result<Got, Status>;
    #[rpc(shard_by = key, idempotent)]
    async fn get(&self, cx: &Context, request: Request<'_, Get>) -> Result<Got, Status>;
}

/// A shard's part of the store.
#[derive(Default)]
struct Part(RefCell<HashMap<String, String>>);

impl Kv for Part {
    async fn put(&self, cx: &Context, request: Request<'_, Put>) -> Result<Got, Status> {
        let Put { key, value } = request.to_owned()?;
        let value = self.0.borrow_mut().insert(key, value);
        Ok(Got { value, shard: cx.shard().index })
    }

    async fn get(&self, cx: &Context, request: Request<'_, Get>) -> Result<Got, Status> {
        let value = self.0.borrow().get(&*request.key).cloned();
        Ok(Got { value, shard: cx.shard().index })
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let server = Server::builder().serve(address(), |_| KvServer::new(Part::default()))?;
    let Some(server) = serve_if_asked(server)? else { return Ok(()) };
    let hops = ringcall::run(async {
        let kv = KvShards::connect(server.address()).await?;
        for name in ["Ada", "Alan", "Barbara", "Edsger", "Grace", "Tony"] {
            let (key, value) = (name.to_owned(), format!("Hello, {name}!"));
            kv.put(&Put { key: key.clone(), value }).await?;
            let got = kv.get(&Get { key }).await?;
            println!("shard {} of {} says {:?}", got.shard, kv.client().shards(), got.value);
        }
        let forwarded = |shard: ringcall::ShardCounters| shard.calls_forwarded;
        Ok::<u64, Box<dyn std::error::Error>>(server.counters().into_iter().map(forwarded).sum())
    })??;
    println!("{hops} calls came to a shard that was not theirs");
    Ok(())
}

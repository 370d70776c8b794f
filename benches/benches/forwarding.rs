//! What a call costs that comes to its shard, and one that is passed on: CPU time of all shards per
//! call, closed loop.
//!
//! Run it: `cargo bench -p ringcall-benches --bench forwarding`

use std::{cell::Cell, rc::Rc, time::Duration};

use ringcall::{ConnectError, RoutingKey, prelude::*};

#[ringcall::message]
struct Ping {
    key: u64,
    bytes: [u8; 56],
}

#[ringcall::service]
trait Echo {
    #[rpc(shard_by = key)]
    async fn echo<'a>(&self, cx: &Context, request: Request<'a, Ping>) -> Result<Pong<'a>, Status>;
}

#[ringcall::message]
struct Pong<'a> {
    bytes: &'a [u8],
}

struct Parrot;

impl Echo for Parrot {
    async fn echo<'a>(&self, _: &Context, request: Request<'a, Ping>) -> Result<Pong<'a>, Status> {
        Ok(Pong { bytes: &request.get().bytes })
    }
}

const CALLS: u64 = 200_000;
const SHARDS: u16 = 2;

/// Nanoseconds of CPU time per call, of all shards: of calls that come to their owner, or to the
/// other shard.
async fn measure(
    server: &ServerHandle,
    depth: u64,
    is_passed_on: bool,
) -> Result<u64, ConnectError> {
    let cpu_ns = || server.counters().iter().map(|shard| shard.cpu_ns).sum::<u64>();
    let client = EchoClient::connect(server.address()).await?;
    let here = client.client().shard().index;
    let is_wanted = |key: &u64| (RoutingKey::of(key).owner(SHARDS) != here) == is_passed_on;
    let keys: Rc<Vec<u64>> = Rc::new((0..).filter(is_wanted).take(64).collect());
    call(&client, &keys, depth, CALLS / 10).await;
    let before = cpu_ns();
    call(&client, &keys, depth, CALLS).await;
    Ok((cpu_ns() - before) / CALLS)
}

/// Makes so many calls, as many at a time as the depth says.
async fn call(client: &EchoClient, keys: &Rc<Vec<u64>>, depth: u64, calls: u64) {
    let left = Rc::new(Cell::new(depth));
    for _ in 0..depth {
        let (client, keys, left) = (client.clone(), Rc::clone(keys), Rc::clone(&left));
        ringcall::spawn(async move {
            for call in 0..calls / depth {
                let key = keys[call as usize % keys.len()];
                assert!(client.echo(&Ping { key, bytes: [7; 56] }).await.is_ok());
            }
            left.set(left.get() - 1);
        });
    }
    while left.get() > 0 {
        ringcall::sleep(Duration::from_millis(1)).await;
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    // Both shards on one core and the client on the other, so that no time is spent waiting.
    let server = Server::builder()
        .cores([0; SHARDS as usize])
        .serve("127.0.0.1:0", |_| EchoServer::new(Parrot))?;
    ringcall::RunConfig::new().core(1).run(async move {
        println!("depth   at the owner   passed on   more   (CPU time of the server per call, ns)");
        for depth in [1, 16, 64, 256] {
            for _ in 0..3 {
                let own = measure(&server, depth, false).await?;
                let passed = measure(&server, depth, true).await?;
                println!("{depth:5} {own:14} {passed:11} {:6}", passed.saturating_sub(own));
            }
        }
        Ok(())
    })?
}

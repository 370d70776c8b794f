//! State that each shard has for itself, and handlers that ask other shards for theirs.
//!
//! A score is kept on the shard that its name says, whichever one a call arrives at: the handler
//! asks the owner. A total is gathered from all, after the additions that came with it.
//!
//! Run it: `cargo run --release -p ringcall-examples --example sharded_state`

use std::{cell::RefCell, collections::HashMap};

use ringcall::{Placement, prelude::*};
use ringcall_examples::{address, serve_if_asked};

#[ringcall::message]
struct Score {
    name: String,
    points: u64,
}

#[ringcall::message]
struct Nothing;

#[ringcall::service]
trait Scores {
    /// Adds points, and gives all that the name has.
    #[rpc(class = "latency")]
    async fn add(&self, cx: &Context, request: Request<'_, Score>) -> Result<Score, Status>;
    /// The points of all names.
    #[rpc(class = "bulk")]
    async fn total(&self, cx: &Context, request: Request<'_, Nothing>) -> Result<Score, Status>;
}

/// What one shard has: points by name.
#[derive(Default)]
struct Part(RefCell<HashMap<String, u64>>);

impl Part {
    fn add(&self, name: String, points: u64) -> u64 {
        let mut all = self.0.borrow_mut();
        let sum = all.entry(name).or_default();
        *sum += points;
        *sum
    }
}

impl Scores for Part {
    async fn add(&self, cx: &Context, request: Request<'_, Score>) -> Result<Score, Status> {
        let Score { name, points } = request.to_owned()?;
        let (shards, key) = (cx.shards(), name.clone());
        let owner = name.bytes().map(u16::from).sum::<u16>() % shards.count();
        let points = shards.on(owner, move |part: &Part| part.add(key, points)).await?;
        Ok(Score { name, points })
    }

    async fn total(&self, cx: &Context, _: Request<'_, Nothing>) -> Result<Score, Status> {
        let sums = cx.shards().gather(|part: &Part| part.0.borrow().values().sum::<u64>()).await;
        let points = sums.into_iter().sum::<Result<u64, _>>()?;
        Ok(Score { name: "all".to_owned(), points })
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let server = Server::builder().placement(Placement::physical()).serve(address(), |_| {
        ringcall::spawn(async {
            let _unfinished = ringcall::draining().await;
            // Here a shard would write down what it has: it does not end before this is dropped.
        });
        ScoresServer::new(Part::default())
    })?;
    let Some(server) = serve_if_asked(server)? else { return Ok(()) };
    ringcall::run(async {
        let scores = ScoresClient::connect(server.address()).await?;
        for (name, points) in [("Ada", 3), ("Grace", 4), ("Ada", 5)] {
            let score = scores.add(&Score { name: name.to_owned(), points }).await?;
            println!("{} has {} points", score.name, score.points);
        }
        println!("all have {} points", scores.total(&Nothing).await?.points);
        Ok(())
    })?
}

//! Subscriptions: what is published goes to everybody who listens, and one who is slow misses some
//! of it and is told how much.
//!
//! Run it: `cargo run --release -p ringcall-examples --example subscribe`

use ringcall::{Lag, Topic, prelude::*};
use ringcall_examples::{address, serve_if_asked};

/// What is published.
#[ringcall::message]
struct Price {
    cents: u64,
}

/// Whom a listener wants to be: one who is told of each price, or of the last ones.
#[ringcall::message]
struct Wish {
    every: bool,
}

#[ringcall::message]
struct Nothing;

#[ringcall::service]
trait Market {
    /// Sends each price from now on. Who does not take them is disconnected, or misses the oldest.
    async fn listen(
        &self,
        cx: &Context,
        request: Request<'_, Wish>,
        prices: Sink<'_, Price>,
    ) -> Result<Nothing, Status>;

    /// Publishes a price.
    async fn publish(&self, cx: &Context, request: Request<'_, Price>) -> Result<Nothing, Status>;

    /// Publishes so many prices at once, counting up.
    async fn rush(&self, cx: &Context, request: Request<'_, Price>) -> Result<Nothing, Status>;
}

/// Prices that may wait for a listener.
const DEPTH: usize = 64;

#[derive(Default)]
struct Exchange {
    prices: Topic<Price>,
}

impl Market for Exchange {
    async fn listen(
        &self,
        _: &Context,
        request: Request<'_, Wish>,
        prices: Sink<'_, Price>,
    ) -> Result<Nothing, Status> {
        if request.every {
            // Until the caller is gone, and this handler with it.
            self.prices.subscribe(Lag::Disconnect, DEPTH).forward(&prices).await?;
            return Ok(Nothing);
        }
        let mut subscriber = self.prices.subscribe(Lag::DropOldest, DEPTH);
        let mut missed = 0;
        loop {
            let price = subscriber.next().await?;
            if subscriber.missed() > missed {
                missed = subscriber.missed();
                println!("server: a listener has missed {missed} prices");
            }
            prices.send(&price).await?;
        }
    }

    async fn publish(&self, _: &Context, request: Request<'_, Price>) -> Result<Nothing, Status> {
        // Waits for subscribers of `Lag::Block`, of which there are none here.
        self.prices.publish(request.to_owned()?).await;
        Ok(Nothing)
    }

    async fn rush(&self, _: &Context, request: Request<'_, Price>) -> Result<Nothing, Status> {
        for cents in 0..request.cents.into() {
            self.prices.publish(Price { cents }).await;
        }
        Ok(Nothing)
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    // Each shard has a topic of its own, and here all calls come on one connection: to one shard.
    let server = Server::builder().serve(address(), |_| MarketServer::new(Exchange::default()))?;
    let Some(server) = serve_if_asked(server)? else { return Ok(()) };

    ringcall::run(async {
        let market = MarketClient::connect(server.address()).await?;
        let mut every = market.listen(&Wish { every: true }).await?;
        let mut last = market.listen(&Wish { every: false }).await?;
        for cents in [999, 1_001] {
            // Calls and streams of a connection begin in order, so both listen already.
            market.publish(&Price { cents }).await?;
            for (name, listener) in [("every", &mut every), ("last", &mut last)] {
                if let Some(price) = listener.next().await? {
                    println!("{name}: {} cents", price.cents);
                }
            }
        }
        // More than may wait, before anybody can take them.
        market.rush(&Price { cents: 1_000 }).await?;
        if let Some(price) = last.next().await? {
            println!("last: {} cents, the oldest that was kept", price.cents);
        }
        if let Err(status) = every.next().await {
            println!("every: {status}");
        }
        Ok(())
    })?
}

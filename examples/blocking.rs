//! A script that calls a server without an executor: one call, a batch in one write, a deadline.
//!
//! The client blocks its thread. It is for tools and tests; on a shard, or where many calls wait
//! for each other, the other client is the better one.
//!
//! Run it: `cargo run --release -p ringcall-examples --example blocking`

use std::{future::pending, time::Duration};

use ringcall::prelude::*;
use ringcall_examples::{address, serve_if_asked};

#[ringcall::message]
struct Text {
    text: String,
}

#[ringcall::message]
struct Count {
    count: u64,
}

#[ringcall::service]
trait Words {
    /// Counts the words of a text.
    async fn count(&self, cx: &Context, request: Request<'_, Text>) -> Result<Count, Status>;

    /// Thinks about a text, for ever.
    #[rpc(timeout = "10ms")]
    async fn ponder(&self, cx: &Context, request: Request<'_, Text>) -> Result<Count, Status>;
}

struct Reader;

impl Words for Reader {
    async fn count(&self, _: &Context, request: Request<'_, Text>) -> Result<Count, Status> {
        let count = request.text.split_whitespace().count() as u64;
        Ok(Count { count })
    }

    async fn ponder(&self, _: &Context, _: Request<'_, Text>) -> Result<Count, Status> {
        pending().await
    }
}

fn text(text: &str) -> Text {
    Text { text: text.to_owned() }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let server = Server::builder().serve(address(), |_| WordsServer::new(Reader))?;
    let Some(server) = serve_if_asked(server)? else { return Ok(()) };

    let mut words = WordsBlockingClient::connect(server.address())?;
    println!("{} words", words.count(&text("one call after the other")).wait()?.count);

    // Three calls in one write; their outcomes can be taken in any order.
    let lines = ["the quick brown fox", "jumps over", "the lazy dog"].map(text);
    let mut tickets = Vec::new();
    for line in &lines {
        tickets.push(words.count(line).timeout(Duration::from_secs(1)).start()?);
    }
    for ticket in tickets.into_iter().rev() {
        println!("{} words", words.client().finish(ticket)?.count);
    }

    // A call that is not answered in time, and one that is.
    if let Err(status) = words.ponder(&text("to be or not to be")).wait() {
        println!("no answer: {}", status.code());
    }
    println!("{} words", words.count(&text("that is the question")).wait()?.count);
    Ok(())
}

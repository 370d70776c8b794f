//! Says hello: the smallest service, its server and a client.
//!
//! Run it: `cargo run --release -p ringcall-examples --example greeter`

use ringcall::prelude::*;
use ringcall_examples::{address, serve_if_asked};

/// Who is to be greeted.
#[ringcall::message]
struct Name {
    name: String,
}

/// The greeting.
#[ringcall::message]
struct Greeting {
    text: String,
}

/// The interface: each method has one request and one reply.
#[ringcall::service]
trait Greeter {
    async fn greet(&self, cx: &Context, request: Request<'_, Name>) -> Result<Greeting, Status>;
}

struct Polite;

impl Greeter for Polite {
    async fn greet(&self, _: &Context, request: Request<'_, Name>) -> Result<Greeting, Status> {
        let text = format!("Hello, {}!", request.name);
        Ok(Greeting { text })
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    // A shard on each core, each with a service of its own.
    let server = Server::builder().serve(address(), |_| GreeterServer::new(Polite))?;
    let Some(server) = serve_if_asked(server)? else { return Ok(()) };

    ringcall::run(async {
        let greeter = GreeterClient::connect(server.address()).await?;
        let name = "world".to_owned();
        let reply = greeter.greet(&Name { name }).await?;
        println!("{}", reply.text);
        Ok(())
    })?
}

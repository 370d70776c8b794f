//! Says hello: the smallest service, its server and a client.
//!
//! Run it: `cargo run --release -p ringcall-examples --example greeter`

use ringcall::prelude::*;

/// Who is to be greeted.
#[ringcall::message]
pub struct Name {
    pub name: String,
}

/// The greeting.
#[ringcall::message]
pub struct Greeting {
    pub text: String,
}

/// The interface: each method has one request and one reply.
#[ringcall::service]
pub trait Greeter {
    async fn greet(&self, cx: &Context, request: Request<'_, Name>) -> Result<Greeting, Status>;
}

struct Polite;

impl Greeter for Polite {
    async fn greet(&self, _: &Context, request: Request<'_, Name>) -> Result<Greeting, Status> {
        Ok(Greeting {
            text: format!("Hello, {}!", request.name),
        })
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let server = Server::builder()
        .cores([0])
        .serve("127.0.0.1:0", |_| GreeterServer::new(Polite))?;

    let greeting = ringcall::run(async {
        let greeter = GreeterClient::connect(server.address()).await?;
        let reply = greeter
            .greet(&Name {
                name: "world".to_owned(),
            })
            .await?;
        Ok::<_, Box<dyn std::error::Error>>(reply.text.to_string())
    })??;
    println!("{greeting}");
    Ok(())
}

//! A web service on tokio and axum that calls ringcall: one client, cloned into every handler.
//!
//! Run it: `cargo run --release -p ringcall-examples --example web`

use axum::{
    Router,
    extract::{Path, State},
    http::StatusCode,
    routing::get,
};
use ringcall::{Handle, prelude::*};
use ringcall_examples::{address, serve_if_asked};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    runtime::Runtime,
};

#[ringcall::message]
struct Name<'a> {
    name: &'a str,
}

#[ringcall::message]
struct Greeting {
    text: String,
}

#[ringcall::service]
trait Greeter {
    #[rpc(timeout = "1s")]
    async fn greet(&self, cx: &Context, request: Request<'_, Name<'_>>)
    -> Result<Greeting, Status>;
}

struct Polite;

impl Greeter for Polite {
    async fn greet(&self, _: &Context, request: Request<'_, Name<'_>>) -> Result<Greeting, Status> {
        match &*request.name {
            "nobody" => Err(Status::new(Code::NotFound, "there is nobody")),
            name => Ok(Greeting { text: format!("Hello, {name}!") }),
        }
    }
}

/// Answers `GET /greet/NAME`, on whatever thread tokio likes.
async fn greet(
    State(greeter): State<GreeterSendClient>,
    Path(name): Path<String>,
) -> Result<String, (StatusCode, String)> {
    match greeter.greet(&Name { name: &name }).await {
        Ok(reply) => Ok(reply.text.to_string()),
        Err(status) if status.code() == Code::NotFound => {
            Err((StatusCode::NOT_FOUND, status.to_string()))
        }
        Err(status) => Err((StatusCode::BAD_GATEWAY, status.to_string())),
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let server = Server::builder().serve(address(), |_| GreeterServer::new(Polite))?;
    let Some(server) = serve_if_asked(server)? else { return Ok(()) };

    // A shard for the calls of the whole process, beside tokio's threads.
    let handle = Handle::start()?;
    Runtime::new()?.block_on(async {
        let greeter = GreeterSendClient::connect(&handle, server.address()).await?;
        let app = Router::new().route("/greet/{name}", get(greet)).with_state(greeter);
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let web = listener.local_addr()?;
        tokio::spawn(async move { axum::serve(listener, app).await });
        for path in ["/greet/world", "/greet/nobody"] {
            let mut stream = TcpStream::connect(web).await?;
            let request = format!("GET {path} HTTP/1.1\r\nhost: it\r\nconnection: close\r\n\r\n");
            stream.write_all(request.as_bytes()).await?;
            let mut answer = String::new();
            stream.read_to_string(&mut answer).await?;
            let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_default();
            println!("{path}: {}: {body}", head.lines().next().unwrap_or_default());
        }
        Ok(())
    })
}

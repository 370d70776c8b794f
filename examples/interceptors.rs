//! Interceptors: a bearer token asked for and sent, and every call logged, at both ends.
//!
//! `Log` and `Token` are one interceptor as a tuple. The compiler composes them: a service
//! without any is called as if there were none to be had.
//!
//! Run it: `cargo run --release -p ringcall-examples --example interceptors`

use std::time::Duration;

use ringcall::{
    ClientConfig, Intercept, InterceptCall, Key, Metadata, MethodInfo, Outcome, intercept,
    prelude::*,
};
use ringcall_examples::{address, serve_if_asked};

#[ringcall::message]
struct Hello {
    name: String,
}

#[ringcall::message]
struct Greeting {
    text: String,
}

#[ringcall::service]
trait Greeter {
    /// Greets by name.
    async fn hello(&self, cx: &Context, request: Request<'_, Hello>) -> Result<Greeting, Status>;
}

struct Polite;

impl Greeter for Polite {
    async fn hello(&self, _: &Context, request: Request<'_, Hello>) -> Result<Greeting, Status> {
        Ok(Greeting { text: format!("Hello, {}!", request.name) })
    }
}

/// Prints how calls end. A server would give this to `tracing`.
struct Log;

impl Intercept for Log {
    type State = ();

    fn before(&self, _: &'static MethodInfo, _: &Context) -> Result<(), Status> {
        Ok(())
    }

    fn after(&self, (): (), method: &'static MethodInfo, _: &Context, outcome: Outcome) {
        println!("server: {} ended with {outcome:?}", method.name);
    }
}

impl InterceptCall for Log {
    fn after(&self, method: &'static MethodInfo, outcome: Result<(), &Status>, _: Duration) {
        let outcome = outcome.map_or_else(|status| status.code().to_string(), |()| "ok".to_owned());
        println!("client: {} ended with {outcome:?}", method.name);
    }
}

/// A bearer token: asked for by the server, sent by the client.
struct Token(&'static str);

impl Intercept for Token {
    type State = ();

    fn before(&self, _: &'static MethodInfo, cx: &Context) -> Result<(), Status> {
        match cx.metadata().get(Key::AUTHORIZATION) {
            Some(token) if token == self.0.as_bytes() => Ok(()),
            _ => Err(Status::new(Code::Unauthenticated, "a valid token is wanted")),
        }
    }

    fn after(&self, (): (), _: &'static MethodInfo, _: &Context, _: Outcome) {}
}

impl InterceptCall for Token {
    fn before(&self, _: &'static MethodInfo, metadata: &mut Metadata) -> Result<(), Status> {
        let inserted = metadata.insert(Key::AUTHORIZATION, self.0);
        inserted.map(drop).map_err(|error| Status::new(Code::InvalidArgument, error.to_string()))
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let serve = |_| intercept((Log, Token("Bearer sesame")), GreeterServer::new(Polite));
    let server = Server::builder().serve(address(), serve)?;
    let Some(server) = serve_if_asked(server)? else { return Ok(()) };
    ringcall::run(async {
        for token in ["Bearer sesame", "Bearer onion"] {
            let config = ClientConfig::new().intercept((Log, Token(token)));
            let greeter = GreeterClient::with(&config, server.address()).await?;
            // The interceptors tell how it ended.
            let _ = greeter.hello(&Hello { name: "Ada".to_owned() }).await;
        }
        Ok(())
    })?
}

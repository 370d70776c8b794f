//! A long operation by token: started by one call, asked for, waited for and cancelled by others.
//!
//! The call that starts it is answered at once. Whoever has the token can ask later, on any
//! connection that arrives at the same shard; results are kept for ten minutes.
//!
//! Run it: `cargo run --release -p ringcall-examples --example long_operation`

use std::time::Duration;

use ringcall::{
    operations::{Operations, Progress, Token},
    prelude::*,
};
use ringcall_examples::{address, serve_if_asked};

#[ringcall::message]
struct Range {
    end: u64,
}

#[ringcall::message]
enum State {
    Running { percent: u32 },
    Found { primes: u64 },
    Failed { message: String },
}

#[ringcall::service]
trait Primes {
    async fn count(&self, cx: &Context, request: Request<'_, Range>) -> Result<Token, Status>;
    async fn poll(&self, cx: &Context, request: Request<'_, Token>) -> Result<State, Status>;
    /// Answers when the operation has ended, or after a second.
    async fn wait(&self, cx: &Context, request: Request<'_, Token>) -> Result<State, Status>;
    async fn cancel(&self, cx: &Context, request: Request<'_, Token>) -> Result<State, Status>;
}

struct Counter(Operations<u64>);

impl Primes for Counter {
    async fn count(&self, _: &Context, request: Request<'_, Range>) -> Result<Token, Status> {
        let end = request.end.to_native();
        self.0.start(move |operation| async move {
            let mut primes = 0;
            for number in 2..end {
                let mut divisors = (2..number).take_while(|divisor| divisor * divisor <= number);
                primes += u64::from(divisors.all(|divisor| number % divisor != 0));
                operation.report((number * 100 / end) as u32);
                // Others have their turn: this shard serves calls meanwhile.
                ringcall::yield_now().await;
            }
            Ok(primes)
        })
    }

    async fn poll(&self, _: &Context, request: Request<'_, Token>) -> Result<State, Status> {
        self.0.poll(request.get()).map(state)
    }

    async fn wait(&self, _: &Context, request: Request<'_, Token>) -> Result<State, Status> {
        self.0.wait(request.get(), Duration::from_secs(1)).await.map(state)
    }

    async fn cancel(&self, _: &Context, request: Request<'_, Token>) -> Result<State, Status> {
        self.0.cancel(request.get()).map(state)
    }
}

fn state(progress: Progress<u64>) -> State {
    match progress {
        Progress::Running(percent) => State::Running { percent },
        Progress::Done(primes) => State::Found { primes: *primes },
        Progress::Failed(status) => State::Failed { message: status.to_string() },
    }
}

fn say(what: &str, state: &ArchivedState) {
    match state {
        ArchivedState::Running { percent } => println!("{what}: {percent} % are done"),
        ArchivedState::Found { primes } => println!("{what}: {primes} primes"),
        ArchivedState::Failed { message } => println!("{what}: {message}"),
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let server = Server::builder().serve(address(), |shard| {
        PrimesServer::new(Counter(Operations::new(shard.index, 100, Duration::from_secs(600))))
    })?;
    let Some(server) = serve_if_asked(server)? else { return Ok(()) };
    ringcall::run(async {
        let primes = PrimesClient::connect(server.address()).await?;
        let endless = primes.count(&Range { end: u64::MAX / 100 }).await?.to_owned()?;
        say("the long one", &*primes.poll(&endless).await?);

        let short = primes.count(&Range { end: 1000 }).await?.to_owned()?;
        let mut now = primes.wait(&short).await?;
        while let ArchivedState::Running { .. } = *now {
            now = primes.wait(&short).await?;
        }
        say("the short one", &now);

        primes.cancel(&endless).await?;
        say("the long one", &*primes.poll(&endless).await?);
        Ok(())
    })?
}

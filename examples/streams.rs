//! Streams: items from the client, from the server, and from both while the call runs.
//!
//! Whoever sends waits while the other end does not take: nothing piles up between them.
//!
//! Run it: `cargo run --release -p ringcall-examples --example streams`

use ringcall::prelude::*;
use ringcall_examples::{address, serve_if_asked};

#[ringcall::message]
struct Range {
    from: u64,
    to: u64,
}

#[ringcall::message]
struct Number {
    number: u64,
}

#[ringcall::service]
trait Numbers {
    /// Sends the primes of a range, and replies with how many they were.
    async fn primes(
        &self,
        cx: &Context,
        request: Request<'_, Range>,
        primes: Sink<'_, Number>,
    ) -> Result<Number, Status>;

    /// Replies with the sum of the numbers that were sent.
    async fn sum(
        &self,
        cx: &Context,
        request: Request<'_, Range>,
        numbers: Source<Number>,
    ) -> Result<Number, Status>;

    /// Answers each number with its square.
    async fn squares(
        &self,
        cx: &Context,
        request: Request<'_, Range>,
        numbers: Source<Number>,
        squares: Sink<'_, Number>,
    ) -> Result<Number, Status>;
}

struct Desk;

fn is_prime(number: u64) -> bool {
    number > 1
        && (2..number).take_while(|at| at * at <= number).all(|at| !number.is_multiple_of(at))
}

impl Numbers for Desk {
    async fn primes(
        &self,
        _: &Context,
        request: Request<'_, Range>,
        primes: Sink<'_, Number>,
    ) -> Result<Number, Status> {
        let mut count = 0;
        for number in request.from.into()..request.to.into() {
            if is_prime(number) {
                primes.send(&Number { number }).await?;
                count += 1;
            }
        }
        Ok(Number { number: count })
    }

    async fn sum(
        &self,
        _: &Context,
        _: Request<'_, Range>,
        mut numbers: Source<Number>,
    ) -> Result<Number, Status> {
        let mut sum = 0;
        while let Some(item) = numbers.next().await? {
            // Read where the kernel put it.
            sum += item.number.to_native();
        }
        Ok(Number { number: sum })
    }

    async fn squares(
        &self,
        _: &Context,
        _: Request<'_, Range>,
        mut numbers: Source<Number>,
        squares: Sink<'_, Number>,
    ) -> Result<Number, Status> {
        let mut count = 0;
        while let Some(item) = numbers.next().await? {
            let number = item.number.to_native();
            squares.send(&Number { number: number * number }).await?;
            count += 1;
        }
        Ok(Number { number: count })
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let server = Server::builder().serve(address(), |_| NumbersServer::new(Desk))?;
    let Some(server) = serve_if_asked(server)? else { return Ok(()) };

    ringcall::run(async {
        let numbers = NumbersClient::connect(server.address()).await?;
        let range = Range { from: 0, to: 30 };

        let mut primes = numbers.primes(&range).await?;
        while let Some(prime) = primes.next().await? {
            print!("{} ", prime.number);
        }
        println!("are {} primes", primes.finish().await?.number);

        let sum = numbers.sum(&range).await?;
        for number in range.from..range.to {
            sum.send(&Number { number }).await?;
        }
        // No more come, and what is the outcome?
        println!("the sum is {}", sum.finish().await?.number);

        // A task sends while this one takes, or two full windows could wait for each other.
        let mut squares = numbers.squares(&range).await?;
        let sender = squares.sender();
        ringcall::spawn(async move {
            for number in 1..=100_000 {
                if sender.send(&Number { number }).await.is_err() {
                    return;
                }
            }
            sender.end();
        });
        let mut last = 0;
        while let Some(square) = squares.next().await? {
            last = square.number.into();
        }
        println!("{} squares, the last is {last}", squares.finish().await?.number);
        Ok(())
    })?
}

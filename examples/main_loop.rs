//! A program with a loop of its own, as many are in C: the blocking client in the middle of it,
//! with calls that are always on their way.
//!
//! Run it: `cargo run --release -p ringcall-examples --example main_loop`

use std::collections::VecDeque;

use ringcall::prelude::*;
use ringcall_examples::{address, serve_if_asked};

#[ringcall::message]
struct Sample {
    at: u32,
}

#[ringcall::message]
struct Smooth {
    value: u64,
}

#[ringcall::service]
trait Filter {
    async fn filter(&self, cx: &Context, request: Request<'_, Sample>) -> Result<Smooth, Status>;
}

struct Half;

impl Filter for Half {
    async fn filter(&self, _: &Context, request: Request<'_, Sample>) -> Result<Smooth, Status> {
        Ok(Smooth { value: u64::from(u32::from(request.at)) / 2 })
    }
}

/// Calls that are on their way: the loop goes on with other things meanwhile.
const AHEAD: usize = 16;

/// Rounds of the loop.
const ROUNDS: u32 = 1000;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let server = Server::builder().serve(address(), |_| FilterServer::new(Half))?;
    let Some(server) = serve_if_asked(server)? else { return Ok(()) };

    let mut filter = FilterBlockingClient::connect(server.address())?;
    let mut on_their_way = VecDeque::with_capacity(AHEAD);
    let (mut frames, mut sum) = (0, 0);
    for round in 0..ROUNDS {
        // Input: a call that is started is sent with the next write, and not waited for.
        on_their_way.push_back(filter.filter(&Sample { at: round }).start()?);

        // Output: what was asked for sixteen rounds ago is there, or is waited for now.
        if on_their_way.len() == AHEAD
            && let Some(ticket) = on_their_way.pop_front()
        {
            sum += u64::from(filter.client().finish(ticket)?.value);
        }

        // Everything else that the loop does; `tend` answers the server while no call is made.
        frames += 1;
        if frames % 100 == 0 {
            filter.client().tend()?;
        }
    }
    for ticket in on_their_way {
        sum += u64::from(filter.client().finish(ticket)?.value);
    }
    println!("{frames} rounds, the sum is {sum}");
    Ok(())
}

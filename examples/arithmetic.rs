//! Adds, subtracts and divides; what cannot be divided is a status that the client matches on.
//!
//! Run it: `cargo run --release -p ringcall-examples --example arithmetic`

use ringcall::prelude::*;
use ringcall_examples::{address, serve_if_asked};

/// Two numbers.
#[ringcall::message]
struct Operands {
    left: i64,
    right: i64,
}

/// What they come to.
#[ringcall::message]
struct Answer {
    value: i64,
}

/// Whole numbers. What does not fit into 64 bits is `OutOfRange`.
#[ringcall::service]
trait Arithmetic {
    async fn add(&self, cx: &Context, request: Request<'_, Operands>) -> Result<Answer, Status>;
    async fn subtract(
        &self,
        cx: &Context,
        request: Request<'_, Operands>,
    ) -> Result<Answer, Status>;
    /// Division by zero is `InvalidArgument`.
    async fn divide(&self, cx: &Context, request: Request<'_, Operands>) -> Result<Answer, Status>;
}

struct Calculator;

impl Arithmetic for Calculator {
    async fn add(&self, _: &Context, request: Request<'_, Operands>) -> Result<Answer, Status> {
        answer(request.left.to_native().checked_add(request.right.to_native()))
    }

    async fn subtract(
        &self,
        _: &Context,
        request: Request<'_, Operands>,
    ) -> Result<Answer, Status> {
        answer(request.left.to_native().checked_sub(request.right.to_native()))
    }

    async fn divide(&self, _: &Context, request: Request<'_, Operands>) -> Result<Answer, Status> {
        if request.right == 0 {
            return Err(Status::new(Code::InvalidArgument, "division by zero"));
        }
        answer(request.left.to_native().checked_div(request.right.to_native()))
    }
}

fn answer(value: Option<i64>) -> Result<Answer, Status> {
    let value = value.ok_or(Status::new(Code::OutOfRange, "more than 64 bits"))?;
    Ok(Answer { value })
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let server = Server::builder().serve(address(), |_| ArithmeticServer::new(Calculator))?;
    let Some(server) = serve_if_asked(server)? else { return Ok(()) };
    ringcall::run(async {
        let arithmetic = ArithmeticClient::connect(server.address()).await?;
        let sum = arithmetic.add(&Operands { left: 2, right: 3 }).await?;
        println!("2 + 3 = {}", sum.value);
        let difference = arithmetic.subtract(&Operands { left: 2, right: 3 }).await?;
        println!("2 - 3 = {}", difference.value);
        for (left, right) in [(7, 2), (7, 0), (i64::MIN, -1)] {
            match arithmetic.divide(&Operands { left, right }).await {
                Ok(quotient) => println!("{left} / {right} = {}", quotient.value),
                Err(status) if status.code() == Code::InvalidArgument => {
                    println!("{left} / {right} has no answer: {}", status.message());
                }
                Err(status) => println!("{left} / {right} failed: {status}"),
            }
        }
        Ok(())
    })?
}

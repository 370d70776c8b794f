//! One-way methods that expect something back, and a method that forgets to say that it is one.

use ringcall::prelude::*;

#[ringcall::message]
pub struct Line;

#[ringcall::service]
pub trait Log {
    #[rpc(oneway)]
    async fn replies(&self, cx: &Context, request: Request<'_, Line>) -> Result<Line, Status>;
    #[rpc(oneway)]
    async fn unit(&self, cx: &Context, request: Request<'_, Line>) -> ();
    #[rpc(oneway)]
    async fn source(&self, cx: &Context, request: Request<'_, Line>, lines: Source<Line>);
    #[rpc(oneway)]
    async fn sink(&self, cx: &Context, request: Request<'_, Line>, lines: Sink<'_, Line>);
    async fn forgets(&self, cx: &Context, request: Request<'_, Line>);
    #[rpc(oneway, timeout = "1s")]
    async fn right(&self, cx: &Context, request: Request<'_, Line>);
}

async fn call(log: &LogClient) {
    let _ = log.right(&Line).await;
}

fn main() {
    let _ = call;
}

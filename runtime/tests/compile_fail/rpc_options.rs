//! Options that a method does not have, and values that they do not take.

use ringcall::prelude::*;

#[ringcall::message]
pub struct Empty;

#[ringcall::service]
pub trait Kv {
    #[rpc(retries = 3, id = 4294967296)]
    async fn get(&self, cx: &Context, request: Request<'_, Empty>) -> Result<Empty, Status>;
    #[rpc(timeout = 5ms)]
    async fn put(&self, cx: &Context, request: Request<'_, Empty>) -> Result<Empty, Status>;
    #[rpc(timeout = "5 ms")]
    async fn add(&self, cx: &Context, request: Request<'_, Empty>) -> Result<Empty, Status>;
    #[rpc(timeout = "0ms")]
    async fn now(&self, cx: &Context, request: Request<'_, Empty>) -> Result<Empty, Status>;
    #[rpc(timeout = "61m")]
    async fn late(&self, cx: &Context, request: Request<'_, Empty>) -> Result<Empty, Status>;
    #[rpc(idempotent = true, no_cancel, no_cancel)]
    async fn set(&self, cx: &Context, request: Request<'_, Empty>) -> Result<Empty, Status>;
    #[rpc]
    async fn del(&self, cx: &Context, request: Request<'_, Empty>) -> Result<Empty, Status>;
    #[rpc(timeout, oneway)]
    async fn note(&self, cx: &Context, request: Request<'_, Empty>);
}

// The methods are there all the same.
async fn call(kv: &KvClient) {
    let _ = kv.get(&Empty).await;
    let _ = kv.note(&Empty).await;
}

fn main() {
    let _ = call;
}

//! Options that a method does not have.

use ringcall::prelude::*;

#[ringcall::message]
pub struct Empty;

#[ringcall::service]
pub trait Kv {
    #[rpc(timeout = "5ms")]
    async fn get(&self, cx: &Context, request: Request<'_, Empty>) -> Result<Empty, Status>;
    #[rpc(id = 4294967296)]
    async fn put(&self, cx: &Context, request: Request<'_, Empty>) -> Result<Empty, Status>;
    #[rpc]
    async fn del(&self, cx: &Context, request: Request<'_, Empty>) -> Result<Empty, Status>;
}

// The methods are there all the same.
async fn call(kv: &KvClient) {
    let _ = kv.get(&Empty).await;
}

fn main() {
    let _ = call;
}

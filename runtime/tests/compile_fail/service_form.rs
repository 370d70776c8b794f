//! Traits that are no service, and options that there are not.

use ringcall::prelude::*;

#[ringcall::message]
pub struct Got;

#[ringcall::service]
pub trait Generic<T> {
    async fn get(&self, cx: &Context, request: Request<'_, Got>) -> Result<Got, Status>;
}

#[ringcall::service]
pub trait Members {
    type Item;
    const LIMIT: u32;
    async fn get(&self, cx: &Context, request: Request<'_, Got>) -> Result<Got, Status>;
}

#[ringcall::service(version = 2)]
pub trait Versioned {
    async fn get(&self, cx: &Context, request: Request<'_, Got>) -> Result<Got, Status>;
}

#[ringcall::service(name = "acme Kv")]
pub trait Named {
    async fn get(&self, cx: &Context, request: Request<'_, Got>) -> Result<Got, Status>;
}

#[ringcall::service]
pub struct Structure;

fn main() {
    let _ = Structure;
}

//! Methods that are not of the form that a service has.

use ringcall::prelude::*;

#[ringcall::message]
pub struct Get;

#[ringcall::message]
pub struct Got;

#[ringcall::service]
pub trait Kv {
    async fn no_request(&self, cx: &Context) -> Result<Got, Status>;
    async fn no_context(&self, request: Request<'_, Get>) -> Result<Got, Status>;
    async fn bare(&self) -> Result<Got, Status>;
    async fn no_self(cx: &Context, request: Request<'_, Get>) -> Result<Got, Status>;
    async fn exclusive(
        &mut self,
        cx: &Context,
        request: Request<'_, Get>,
    ) -> Result<Got, Status>;
    fn not_async(&self, cx: &Context, request: Request<'_, Get>) -> Result<Got, Status>;
    async fn owned(&self, cx: &Context, request: Get) -> Result<Got, Status>;
    async fn no_result(&self, cx: &Context, request: Request<'_, Get>) -> Got;
    async fn nothing(&self, cx: &Context, request: Request<'_, Get>);
    async fn generic<T>(&self, cx: &Context, request: Request<'_, Get>) -> Result<Got, Status>;
    async fn body(&self, _: &Context, _: Request<'_, Get>) -> Result<Got, Status> {
        Ok(Got)
    }
    async fn on(&self, cx: &Context, request: Request<'_, Get>) -> Result<Got, Status>;
    async fn connect(&self, cx: &Context, request: Request<'_, Get>) -> Result<Got, Status>;
    async fn right(&self, cx: &Context, request: Request<'_, Get>) -> Result<Got, Status>;
}

// What is right goes on working beside what is wrong.
async fn call(kv: &KvClient) {
    let _ = kv.right(&Get).await;
}

fn main() {
    let _ = call;
}

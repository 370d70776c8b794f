//! Parameters behind the request that are no streams, or one too many.

use ringcall::prelude::*;

#[ringcall::message]
pub struct Get;

#[ringcall::message]
pub struct Got;

#[ringcall::message]
pub struct Row {
    pub number: u32,
}

#[ringcall::service]
pub trait Kv {
    async fn number(&self, cx: &Context, request: Request<'_, Get>, x: u8) -> Result<Got, Status>;
    async fn sources(
        &self,
        cx: &Context,
        request: Request<'_, Get>,
        first: Source<Row>,
        second: Source<Row>,
    ) -> Result<Got, Status>;
    async fn sinks(
        &self,
        cx: &Context,
        request: Request<'_, Get>,
        first: Sink<'_, Row>,
        source: Source<Row>,
        second: Sink<'_, Row>,
    ) -> Result<Got, Status>;
    async fn borrowed(
        &self,
        cx: &Context,
        request: Request<'_, Get>,
        rows: &mut Sink<'_, Row>,
    ) -> Result<Got, Status>;
    async fn generic(
        &self,
        cx: &Context,
        request: Request<'_, Get>,
        rows: Source<impl Sized>,
    ) -> Result<Got, Status>;
    async fn before(
        &self,
        cx: &Context,
        rows: Sink<'_, Row>,
        request: Request<'_, Get>,
    ) -> Result<Got, Status>;
    async fn right(
        &self,
        cx: &Context,
        request: Request<'_, Get>,
        out: Sink<'_, Row>,
        rows: Source<Row>,
    ) -> Result<Got, Status>;
}

fn main() {
    let _ = KvClient::right;
}

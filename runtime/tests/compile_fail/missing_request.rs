//! A method with no request.

use ringcall::prelude::*;

#[ringcall::message]
pub struct Got;

#[ringcall::service]
pub trait Kv {
    async fn get(&self, cx: &Context) -> Result<Got, Status>;
}

struct Store;

impl Kv for Store {
    async fn get(&self, _: &Context) -> Result<Got, Status> {
        Ok(Got)
    }
}

fn main() {
    let _ = KvServer::new(Store);
}

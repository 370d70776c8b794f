//! Two methods with one id: by number, and by the hash of their names.

use ringcall::prelude::*;

#[ringcall::message]
pub struct Empty;

#[ringcall::service]
pub trait Kv {
    #[rpc(id = 7)]
    async fn get(&self, cx: &Context, request: Request<'_, Empty>) -> Result<Empty, Status>;
    #[rpc(id = 0x7)]
    async fn put(&self, cx: &Context, request: Request<'_, Empty>) -> Result<Empty, Status>;
}

// FNV-1a (32 bits) of "Store.unlock_hot_ranges" and of "Store.insert_orders_by_id" are the same.
#[ringcall::service]
pub trait Store {
    async fn unlock_hot_ranges(
        &self,
        cx: &Context,
        request: Request<'_, Empty>,
    ) -> Result<Empty, Status>;
    async fn insert_orders_by_id(
        &self,
        cx: &Context,
        request: Request<'_, Empty>,
    ) -> Result<Empty, Status>;
}

struct Both;

impl Kv for Both {
    async fn get(&self, _: &Context, _: Request<'_, Empty>) -> Result<Empty, Status> {
        Ok(Empty)
    }
    async fn put(&self, _: &Context, _: Request<'_, Empty>) -> Result<Empty, Status> {
        Ok(Empty)
    }
}

fn main() {
    let _ = KvServer::new(Both);
}

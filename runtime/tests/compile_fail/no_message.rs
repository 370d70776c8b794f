//! A request and a reply whose types are no messages.

use ringcall::prelude::*;

pub struct Get {
    pub key: String,
}

pub struct Got {
    pub value: Vec<u8>,
}

fn key(_: Request<'_, Get>) {}

fn value(_: Response<Got>) {}

fn main() {
    let _ = (key, value);
}

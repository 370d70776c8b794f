//! A field of a type that is no message.

pub struct Foreign;

#[ringcall::message]
pub struct Holder {
    pub id: u64,
    pub foreign: Vec<Foreign>,
}

fn main() {}

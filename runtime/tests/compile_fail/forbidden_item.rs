//! Items and options that make no message.

#[ringcall::message]
pub union Either {
    pub number: u32,
    pub bytes: [u8; 4],
}

#[ringcall::message]
pub enum Never {}

#[ringcall::message]
pub enum Side {
    Buy = 1,
    Sell = 2,
}

#[ringcall::message(version = 2)]
pub struct Versioned;

#[ringcall::message]
#[rkyv(bytecheck(verify))]
pub struct Checked {
    #[rkyv(with = ringcall::rkyv::with::Skip)]
    pub skipped: u32,
}

#[ringcall::message]
fn function() {}

fn main() {
    function();
}

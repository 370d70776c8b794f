//! A message with parameters beside lifetimes.

#[ringcall::message]
pub struct Page<T> {
    pub items: Vec<T>,
}

#[ringcall::message]
pub struct Digest<const N: usize> {
    pub bytes: [u8; N],
}

fn main() {}

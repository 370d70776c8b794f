//! kv.

fn main() {}

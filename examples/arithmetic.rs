//! arithmetic.

fn main() {}

//! What the tests share, a file a topic. Each test uses some of it.

#![allow(dead_code, unused_imports)]

pub mod caller;
pub mod server;
pub mod wait;

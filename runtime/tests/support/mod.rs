//! What the tests share, a file a topic. Each test uses some of it.

#![allow(dead_code, unused_imports)]

pub(crate) mod belongings;
pub(crate) mod blocking;
pub(crate) mod bystander;
pub(crate) mod caller;
pub(crate) mod child;
pub(crate) mod desk;
pub(crate) mod echo;
pub(crate) mod event;
pub(crate) mod feed;
pub(crate) mod host;
pub(crate) mod memory;
pub(crate) mod raw;
pub(crate) mod routed;
pub(crate) mod server;
pub(crate) mod station;
pub(crate) mod tcp;
pub(crate) mod text;
pub(crate) mod wait;
pub(crate) mod works;

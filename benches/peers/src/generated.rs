//! What the schema compilers wrote: `regenerate` writes it anew from `schema/`.

#![allow(clippy::all, missing_docs, unreachable_pub, rust_2018_idioms)]

#[rustfmt::skip]
pub(crate) mod capnp {
    pub(crate) mod echo_capnp;
}
#[rustfmt::skip]
pub(crate) mod connectrpc;
#[rustfmt::skip]
pub(crate) mod tonic {
    pub(crate) mod echo;
}
#[rustfmt::skip]
pub(crate) mod volo {
    pub(crate) mod echo;
}

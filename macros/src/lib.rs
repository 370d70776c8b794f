//! `#[message]` and `#[service]`: what they write is meant to be read with `cargo expand`.
//!
//! The macros run in the compiler and are on no call's path; what they generate is: the traits
//! of `ringcall` for a message type, and the server and client of a service trait. They see
//! tokens and not types, so what a name stands for is left to the `Field` and `Message` bounds.
//! They must never let through what the wire cannot carry, and never write code that hides a
//! user's mistake behind an error in a line that the user did not write.
//!
//! One file each: `message` (the item), `field` (what may stand in a message, and how a borrow
//! in it is archived), `service` (the trait and its server), `client`, `sharded`, `blocking` and `send`
//! (what calls it), `method` and `signature` (one method's form), `options`, `shard_by` and `timeout`
//! (what `#[rpc]` says of it).

use proc_macro::TokenStream;

mod attributes;
mod blocking;
mod client;
mod errors;
mod field;
mod id;
mod lifetimes;
mod message;
mod method;
mod options;
mod send;
mod service;
mod shard_by;
mod sharded;
mod signature;
mod timeout;

/// Makes a struct or an enum one that travels: it can be a request, a reply, or part of one.
///
/// Implements `ringcall::Field` (with the fingerprint of its layout), `ringcall::Message`, and
/// rkyv's `Archive` and `Serialize`. A message that owns all its parts is `Deserialize` too.
///
/// ```ignore
/// #[ringcall::message]
/// pub struct Got { pub value: Option<Vec<u8>> }
///
/// #[ringcall::message]
/// pub struct Blob<'a> { pub bytes: &'a [u8] }
/// ```
///
/// A field is a number, `bool`, `char`, `String`, `Vec`, `Option`, `Box`, an array, a tuple, a
/// reference, or another message. References may stand alone or in `Option`, `Vec` and arrays,
/// all with one lifetime; they are archived as a `Box` is.
///
/// # Errors
///
/// Refused at compile time, at the field: types whose archives differ between machines
/// (`usize`), that defeated validation (`Rc`, maps, `NonZero`), or that mean nothing elsewhere
/// (cells, pointers); a message that contains itself, since its depth has no bound; type
/// parameters, since a fingerprint is of one concrete type; variants with discriminants.
///
/// Of rkyv's own options for the type, `#[rkyv(derive(...))]`, `compare(...)`, `archived = ...`
/// and `resolver = ...` are accepted. None is for a field: the fingerprint would not show it.
#[proc_macro_attribute]
pub fn message(args: TokenStream, item: TokenStream) -> TokenStream {
    message::expand(args.into(), item.into()).into()
}

/// Makes a trait the definition of a service, and writes its server and its client.
///
/// ```ignore
/// #[ringcall::service]
/// pub trait Kv {
///     #[rpc(timeout = "5ms", idempotent)]
///     async fn get(&self, cx: &Context, request: Request<'_, Get>) -> Result<Got, Status>;
///
///     #[rpc(oneway)]
///     async fn note(&self, cx: &Context, request: Request<'_, Line>);
///
///     async fn scan(
///         &self,
///         cx: &Context,
///         request: Request<'_, Range>,
///         rows: Sink<'_, Row>,
///     ) -> Result<Done, Status>;
///
///     async fn upload(
///         &self,
///         cx: &Context,
///         request: Request<'_, Open>,
///         parts: Source<Part>,
///     ) -> Result<Done, Status>;
/// }
/// ```
///
/// gives, with the trait's visibility:
///
/// - the trait, with `impl Future` in place of `async fn`, to be implemented with `async fn`;
/// - `KvServer<S>`, a `ringcall::Service` for any `S: Kv + 'static`;
/// - `KvClient`, with a function for each method, `KvClient::GET` for each method's id, and
///   `KvClient::METHODS`;
/// - `KvBlockingClient` and `KvSendClient`, with the methods without streams: on a blocking socket,
///   and through a `ringcall::Handle` from any executor.
///
/// A method has one request and, unless it is one-way, one result. Behind the request it takes a
/// `Source<I>` of items that the caller sends, a `Sink<'_, O>` for items that it sends itself, or
/// both in either order. The error of its result is a `Status`, or another type that is made
/// from a `Status` and into one.
///
/// A request and reply may borrow. A reply may borrow from its request, by name:
/// `async fn echo<'a>(&self, cx: &Context, request: Request<'a, Blob<'a>>) -> Result<Blob<'a>,
/// Status>`.
///
/// # Options
///
/// - `#[service(name = "acme.Kv")]`: the name on the wire; the trait's name unless given.
///
/// On a method, `#[rpc(...)]` with any of:
///
/// - `timeout = "5ms"`: the time that a call gets unless its caller says otherwise, from `1us` to
///   `60m`; a whole number of `us`, `ms`, `s` or `m`. None unless given.
/// - `oneway`: there is no reply; the method returns nothing, and takes no streams.
/// - `idempotent`: a call may be made twice without harm.
/// - `class = "latency"`, `"normal"` or `"bulk"`: in which order calls that came together begin on
///   a shard, `ringcall::Class`.
/// - `no_cancel`: the handler is finished also when its caller gave up.
/// - `shard_by = key`: calls go to the shard that owns this field of the request, or field of a
///   field, or fields: `shard_by = (tenant, user.id)`. Its type is a `ringcall::ShardKey`. A call
///   that comes to another shard is passed on. Not for methods with streams. With such a method the
///   trait has a third client, `KvShards`, which keeps a connection to each shard.
/// - `id = 7`: the id on the wire; FNV-1a (32 bits) of `Kv.get` unless given.
///
/// # Errors
///
/// A method of another form, two methods with one id, and an unknown option are refused at
/// compile time, each at its own line.
#[proc_macro_attribute]
pub fn service(args: TokenStream, item: TokenStream) -> TokenStream {
    service::expand(args.into(), item.into()).into()
}

//! capnp-rpc 0.27: Cap'n Proto's RPC, whose messages are read in place.
//!
//! Applied of its documentation: `VatNetwork` over a buffered reader and writer, as every example
//! of the crate has it; `TCP_NODELAY` as there; one connection with a bootstrap capability for
//! each of the workload's, and calls on it that do not wait for each other. The limit on what a
//! reader goes through is raised so that it holds every body (`ReaderOptions`).
//!
//! Not alike: a call is an object's method, with tables of questions, answers and capabilities on
//! both sides, and a FINISH message behind each reply; the body is copied from the request into
//! the reply's message, as one message cannot hold a part of another.

use std::{
    net::{SocketAddr, TcpListener},
    rc::Rc,
};

use bytes::Bytes;
use capnp::message::ReaderOptions;
use capnp_rpc::{
    RpcSystem, new_client,
    rpc_twoparty_capnp::Side,
    twoparty::{VatId, VatNetwork},
};
use futures::io::{BufReader, BufWriter};
use tokio::{net::TcpStream, task::spawn_local};
use tokio_util::compat::{TokioAsyncReadCompatExt, TokioAsyncWriteCompatExt};

use super::{Peer, PeerError};
use crate::{generated::capnp::echo_capnp::echo, workload::Workload};

/// Cap'n Proto counts in words of eight bytes.
const WORD_LEN: usize = 8;

/// capnp-rpc.
pub(super) struct CapnpRpc;

struct Mirror;

impl echo::Server for Mirror {
    async fn echo(
        self: Rc<Self>,
        params: echo::EchoParams,
        mut results: echo::EchoResults,
    ) -> Result<(), capnp::Error> {
        results.get().set_body(params.get()?.get_body()?);
        Ok(())
    }
}

impl Peer for CapnpRpc {
    type Client = echo::Client;

    async fn serve(listener: TcpListener, workload: Workload) -> Result<(), PeerError> {
        let listener = tokio::net::TcpListener::from_std(listener)?;
        let mirror: echo::Client = new_client(Mirror);
        loop {
            let (stream, _) = listener.accept().await?;
            let network = network(stream, Side::Server, workload)?;
            spawn_local(RpcSystem::new(network, Some(mirror.clone().client)));
        }
    }

    async fn connect(address: SocketAddr, workload: Workload) -> Result<Self::Client, PeerError> {
        let stream = TcpStream::connect(address).await?;
        let mut system = RpcSystem::new(network(stream, Side::Client, workload)?, None);
        let client = system.bootstrap(Side::Server);
        spawn_local(system);
        Ok(client)
    }

    async fn call(client: &mut Self::Client, body: &Bytes) -> Result<usize, PeerError> {
        let mut request = client.echo_request();
        request.get().set_body(body);
        let reply = request.send().promise.await?;
        Ok(reply.get()?.get_body()?.len())
    }
}

/// One end of a connection.
fn network(
    stream: TcpStream,
    side: Side,
    workload: Workload,
) -> Result<Box<dyn capnp_rpc::VatNetwork<VatId>>, PeerError> {
    stream.set_nodelay(true)?;
    let (reader, writer) = stream.into_split();
    let (reader, writer) = (BufReader::new(reader.compat()), BufWriter::new(writer.compat_write()));
    let mut options = ReaderOptions::new();
    // A message is gone through more than once: by the RPC system and by its user.
    let limit = options.traversal_limit_in_words.unwrap_or(0);
    options.traversal_limit_in_words = Some(limit.max(4 * workload.message_len_max() / WORD_LEN));
    Ok(Box::new(VatNetwork::new(reader, writer, side, options)))
}

//! volo-thrift 0.12: Thrift's binary protocol, framed, with TTHeader, by volo and pilota.
//!
//! Applied of its documentation: the client and server of the generated code with their default
//! codec; `Bytes` for `binary`, pilota's default, which passes through the server without a copy.
//! With one call in flight on a connection it is ping-pong, its default. With more it is
//! `multiplex`, the only mode in which calls share a connection; volo calls that unstable and does
//! not recommend it to most users, and in ping-pong the same calls would take as many connections
//! as there are calls. It sets `TCP_NODELAY` itself. The time-out of a call, 1 s by default, is off,
//! as the other systems but tarpc have none. Left out: the feature `unsafe-codec`, faster by its
//! own word, which reads malformed messages with undefined behaviour; the others check what they
//! read.
//!
//! Not alike: a client takes its connection out of a pool for each call; TTHeader carries
//! metadata of the call.

use std::net::{SocketAddr, TcpListener};

use bytes::Bytes;
use volo::net::{Address, incoming::DefaultIncoming};
use volo_thrift::ServerError;

use super::{Peer, PeerError};
use crate::{
    generated::volo::echo::echo::echo::{Echo, EchoClient, EchoClientBuilder, EchoServer, Payload},
    workload::Workload,
};

/// volo-thrift.
pub(super) struct VoloThrift;

struct Mirror;

impl Echo for Mirror {
    async fn echo(&self, request: Payload) -> Result<Payload, ServerError> {
        Ok(request)
    }
}

impl Peer for VoloThrift {
    type Client = EchoClient;

    async fn serve(listener: TcpListener, workload: Workload) -> Result<(), PeerError> {
        let listener = tokio::net::TcpListener::from_std(listener)?;
        EchoServer::new(Mirror)
            .multiplex(is_multiplexed(workload))
            .run(DefaultIncoming::from(listener))
            .await
    }

    async fn connect(address: SocketAddr, workload: Workload) -> Result<Self::Client, PeerError> {
        // Each client has a pool of its own, and in either mode one connection in it: a second
        // is made where all are in use, and here none is while a call is to be made.
        Ok(EchoClientBuilder::new("echo")
            .address(Address::from(address))
            .rpc_timeout(None)
            .multiplex(is_multiplexed(workload))
            .build())
    }

    async fn call(client: &mut Self::Client, body: &Bytes) -> Result<usize, PeerError> {
        Ok(client.echo(Payload { body: body.clone() }).await?.body.len())
    }
}

fn is_multiplexed(workload: Workload) -> bool {
    workload.depth > 1
}

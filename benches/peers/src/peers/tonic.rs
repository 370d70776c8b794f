//! tonic 0.14: gRPC, that is protobuf in HTTP/2, with hyper and h2 below.
//!
//! Applied of its documentation: `tcp_nodelay` on both sides (`Endpoint::tcp_nodelay`,
//! `TcpIncoming::with_nodelay`: the builder's own does not reach a listener that is given to it);
//! windows that hold several bodies (`initial_stream_window_size` and its neighbours, on both
//! sides), since the default of 64 KiB would make a body of 60 KiB wait for a WINDOW_UPDATE;
//! as many streams as there are calls in flight (`max_concurrent_streams`); a channel for each
//! connection and its clones for each caller ("multiplexing requests" at `Channel`); `Bytes` for
//! the body (`Builder::bytes` of tonic-prost-build), so that the server copies none out of what it
//! received. No compression, no TLS, no time-outs.
//!
//! Not alike: each call is an HTTP/2 stream with headers that HPACK compresses, flow control by
//! stream and connection, and a status in trailers; a channel has a task and a queue of its own.

use std::net::{SocketAddr, TcpListener};

use bytes::Bytes;
use tonic::{
    Request, Response, Status,
    transport::{Channel, Endpoint, Server, server::TcpIncoming},
};

use super::{Peer, PeerError};
use crate::{
    generated::tonic::echo::{
        Payload,
        echo_client::EchoClient,
        echo_server::{Echo, EchoServer},
    },
    workload::Workload,
};

/// Bytes that may be on their way to one side of a stream: sixteen of the longest standard body.
pub(super) const STREAM_WINDOW: u32 = 1 << 20;

/// The same for all streams of a connection.
pub(super) const CONNECTION_WINDOW: u32 = 16 << 20;

/// tonic.
pub(super) struct Tonic;

struct Mirror;

#[tonic::async_trait]
impl Echo for Mirror {
    async fn echo(&self, request: Request<Payload>) -> Result<Response<Payload>, Status> {
        Ok(Response::new(request.into_inner()))
    }
}

impl Peer for Tonic {
    type Client = EchoClient<Channel>;

    async fn serve(listener: TcpListener, workload: Workload) -> Result<(), PeerError> {
        let listener = tokio::net::TcpListener::from_std(listener)?;
        let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));
        let service = EchoServer::new(Mirror).max_decoding_message_size(workload.message_len_max());
        Server::builder()
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .max_concurrent_streams(workload.depth)
            .add_service(service)
            .serve_with_incoming(incoming)
            .await?;
        Ok(())
    }

    async fn connect(address: SocketAddr, workload: Workload) -> Result<Self::Client, PeerError> {
        let channel = Endpoint::new(format!("http://{address}"))?
            .tcp_nodelay(true)
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .connect()
            .await?;
        Ok(EchoClient::new(channel).max_decoding_message_size(workload.message_len_max()))
    }

    async fn call(client: &mut Self::Client, body: &Bytes) -> Result<usize, PeerError> {
        let reply = client.echo(Payload { body: body.clone() }).await?;
        Ok(reply.get_ref().body.len())
    }
}

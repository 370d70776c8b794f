//! connectrpc 0.9 (connect-rust): Connect's own protocol, protobuf in HTTP/2, by hyper and h2.
//!
//! Applied of its documentation: one `Http2Connection` for each connection, shared by its callers
//! (`shared`, with the bound of 1024 that it names; "scaling past single-connection contention" in
//! the documentation of `client`), not the pooling `HttpClient`, which would put all calls on one;
//! fixed windows as for tonic, which turn the adaptive ones off; as many streams as there are calls
//! in flight (`with_max_concurrent_streams`); no compression, which is a default feature and would
//! have squeezed these bodies, and no JSON ("minimal build", "proto-only builds" of the README);
//! `Bytes` for bodies in messages; the handler replies with the view that it was given, which the
//! encoder sends from the buffer it was received in (`ServiceRequest::to_owned_view`). It sets
//! `TCP_NODELAY` itself. Its own protocol and not its gRPC: a unary call of it has no trailers.
//!
//! Not alike: as for tonic, streams of HTTP/2 with headers, and two tasks on a client connection.

use std::net::{SocketAddr, TcpListener};

use bytes::Bytes;
use connectrpc::{
    Encodable, RequestContext, Response, Router, Server, ServiceRequest, ServiceResult,
    client::{ClientConfig, Http2Connection, SharedHttp2Connection},
};

use super::{
    Peer, PeerError,
    tonic::{CONNECTION_WINDOW, STREAM_WINDOW},
};
use crate::{
    generated::connectrpc::echo::{Echo, EchoClient, Payload},
    workload::Workload,
};

/// Calls that may wait to be sent on a connection.
const BUFFER: usize = 1024;

/// connectrpc.
pub(super) struct Connectrpc;

struct Mirror;

impl Echo for Mirror {
    async fn echo<'a>(
        &'a self,
        _: RequestContext,
        request: ServiceRequest<'_, Payload>,
    ) -> ServiceResult<impl Encodable<Payload> + Send + use<'a>> {
        Response::ok(request.to_owned_view())
    }
}

impl Peer for Connectrpc {
    type Client = EchoClient<SharedHttp2Connection>;

    async fn serve(listener: TcpListener, workload: Workload) -> Result<(), PeerError> {
        let router = Router::new().add_service(std::sync::Arc::new(Mirror));
        Server::from_listener(tokio::net::TcpListener::from_std(listener)?)
            .with_http2_initial_stream_window_size(STREAM_WINDOW)
            .with_http2_initial_connection_window_size(CONNECTION_WINDOW)
            .with_max_concurrent_streams(workload.depth)
            .serve(router)
            .await?;
        Ok(())
    }

    async fn connect(address: SocketAddr, workload: Workload) -> Result<Self::Client, PeerError> {
        let uri: http::Uri = format!("http://{address}").parse()?;
        let connection = Http2Connection::builder()
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .connect_plaintext(uri.clone())
            .await?
            .shared(BUFFER);
        let config =
            ClientConfig::new(uri).with_default_max_message_size(workload.message_len_max());
        Ok(EchoClient::new(connection, config))
    }

    async fn call(client: &mut Self::Client, body: &Bytes) -> Result<usize, PeerError> {
        let reply = client.echo(Payload { body: body.clone(), ..Payload::default() }).await?;
        Ok(reply.view().body.len())
    }
}

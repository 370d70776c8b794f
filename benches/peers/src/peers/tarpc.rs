//! tarpc 0.38: a Rust trait as the interface, bincode in length-delimited frames.
//!
//! Applied of its documentation: its serde transport with bincode, as in its examples of TCP; room
//! for every call in flight in the client's queue ("too low value may decrease throughput" at
//! `client::Config::pending_request_buffer`), its table (`max_in_flight_requests`) and the
//! server's queue of responses (`server::Config::pending_response_buffer`); a task for each
//! request, as `Channel::execute` is used throughout. `TCP_NODELAY` is set on both sides, which its
//! transport leaves to the user. `Bytes` for the body: serde hands it over in one piece, where a
//! `Vec<u8>` would be encoded byte by byte.
//!
//! Not alike: each call has a deadline, 10 s by default, for which both sides set a timer, and
//! carries it and a trace identity; the spans that tarpc opens go nowhere, as nobody listens.

use std::net::{SocketAddr, TcpListener};

use bytes::Bytes;
use futures::{Stream, StreamExt, future};
use tarpc::{
    ClientMessage, Response, client, context,
    serde_transport::{self, Transport},
    server::{self, BaseChannel, Channel},
    tokio_serde::formats::Bincode,
    tokio_util::codec::LengthDelimitedCodec,
};
use tokio::{net::TcpStream, task::spawn_local};

use super::{Peer, PeerError};
use crate::workload::Workload;

/// tarpc.
pub(super) struct Tarpc;

#[tarpc::service]
pub(super) trait Echo {
    async fn echo(body: Bytes) -> Bytes;
}

#[derive(Clone)]
struct Mirror;

impl Echo for Mirror {
    async fn echo(self, _: context::Context, body: Bytes) -> Bytes {
        body
    }
}

impl Peer for Tarpc {
    type Client = EchoClient;

    async fn serve(listener: TcpListener, workload: Workload) -> Result<(), PeerError> {
        let listener = tokio::net::TcpListener::from_std(listener)?;
        loop {
            let (stream, _) = listener.accept().await?;
            stream.set_nodelay(true)?;
            let transport: Transport<_, ClientMessage<EchoRequest>, Response<EchoResponse>, _> =
                serde_transport::new(codec(workload).new_framed(stream), Bincode::default());
            let config = server::Config { pending_response_buffer: workload.depth as usize };
            let requests = BaseChannel::new(config, transport).execute(Mirror.serve());
            spawn_local(handle(requests));
        }
    }

    async fn connect(address: SocketAddr, workload: Workload) -> Result<Self::Client, PeerError> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        let transport =
            serde_transport::new(codec(workload).new_framed(stream), Bincode::default());
        let mut config = client::Config::default();
        config.max_in_flight_requests = config.max_in_flight_requests.max(workload.depth as usize);
        config.pending_request_buffer = config.pending_request_buffer.max(workload.depth as usize);
        Ok(EchoClient::new(config, transport).spawn())
    }

    async fn call(client: &mut Self::Client, body: &Bytes) -> Result<usize, PeerError> {
        Ok(client.echo(context::current(), body.clone()).await?.len())
    }
}

/// Handles what comes on a connection, each request in a task of its own.
async fn handle(requests: impl Stream<Item = impl Future<Output = ()> + 'static>) {
    requests
        .for_each(|request| {
            spawn_local(request);
            future::ready(())
        })
        .await;
}

fn codec(workload: Workload) -> tarpc::tokio_util::codec::length_delimited::Builder {
    let mut codec = LengthDelimitedCodec::builder();
    codec.max_frame_length(workload.message_len_max());
    codec
}

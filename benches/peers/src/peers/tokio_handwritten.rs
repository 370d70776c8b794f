//! What one would write without an RPC system: tokio, length-delimited frames, postcard.
//!
//! Every frame has the number of its call, so that calls share a connection. Both ends are written
//! with care: the server handles all frames that have arrived before it flushes once; the client
//! sends all calls that were made before it flushes once, and lets all callers go whose replies
//! have arrived. Messages are encoded straight into the bytes to be sent, and bodies are read where
//! they were received. Nothing else is there: no deadlines, no cancellation, no limits beside that
//! on a frame, no methods, no errors that travel, no check of what a peer may not do.
//!
//! Applied of the documentation of tokio-util: `Framed::with_capacity` and
//! `set_backpressure_boundary`, so that a batch is one read and one write; `feed` for all frames
//! and one `flush`.

use std::{
    cell::RefCell,
    io,
    net::{SocketAddr, TcpListener},
    rc::Rc,
};

use bytes::{BufMut, Bytes, BytesMut};
use futures::{FutureExt, SinkExt, StreamExt};
use serde::{Deserialize, Serialize};
use slab::Slab;
use tokio::{
    net::{
        TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::{mpsc, oneshot},
    task::spawn_local,
};
use tokio_util::codec::{Decoder, Encoder, Framed, FramedRead, FramedWrite, LengthDelimitedCodec};

use super::{Peer, PeerError};
use crate::workload::Workload;

/// Bytes that are read at once, and that collect before they are written without a flush.
const BUFFER_LEN: usize = 256 << 10;

/// Calls that are sent at once.
const BATCH_MAX: usize = 1024;

/// Bytes of a frame's length, big-endian.
const LENGTH_LEN: usize = 4;

/// Bytes before a body: the frame's length, and two varints of 32 and 64 bits.
const HEAD_LEN_MAX: usize = LENGTH_LEN + 5 + 10;

/// A protocol by hand.
pub(super) struct TokioHandwritten;

/// A request or its reply.
#[derive(Serialize, Deserialize)]
struct Message<'a> {
    /// The number of the call.
    id: u32,
    #[serde(with = "serde_bytes")]
    body: &'a [u8],
}

/// Messages as frames, each behind its length of four bytes.
struct Codec(LengthDelimitedCodec);

/// Callers that wait, by the number of their call.
type Waiting = Rc<RefCell<Slab<oneshot::Sender<usize>>>>;

/// A call that is to be sent.
type Call = (Bytes, oneshot::Sender<usize>);

impl Peer for TokioHandwritten {
    type Client = mpsc::UnboundedSender<Call>;

    async fn serve(listener: TcpListener, workload: Workload) -> Result<(), PeerError> {
        let listener = tokio::net::TcpListener::from_std(listener)?;
        loop {
            let (stream, _) = listener.accept().await?;
            stream.set_nodelay(true)?;
            let mut frames = Framed::with_capacity(stream, Codec::new(workload), BUFFER_LEN);
            frames.set_backpressure_boundary(BUFFER_LEN);
            // A connection that breaks ends alone; its client says what it saw.
            spawn_local(serve_connection(frames));
        }
    }

    async fn connect(address: SocketAddr, workload: Workload) -> Result<Self::Client, PeerError> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        let (reader, writer) = stream.into_split();
        let replies = FramedRead::with_capacity(reader, Codec::new(workload), BUFFER_LEN);
        let mut frames = FramedWrite::new(writer, Codec::new(workload));
        frames.set_backpressure_boundary(BUFFER_LEN);
        let (sender, calls) = mpsc::unbounded_channel();
        let waiting = Waiting::default();
        spawn_local(send_calls(frames, calls, Rc::clone(&waiting)));
        spawn_local(take_replies(replies, waiting));
        Ok(sender)
    }

    async fn call(client: &mut Self::Client, body: &Bytes) -> Result<usize, PeerError> {
        let (sender, reply) = oneshot::channel();
        client.send((body.clone(), sender)).map_err(|_| "the connection is closed")?;
        Ok(reply.await?)
    }
}

/// Echoes the frames of a connection: all that are there, then one flush.
async fn serve_connection(mut frames: Framed<TcpStream, Codec>) -> io::Result<()> {
    while let Some(first) = frames.next().await {
        let mut next = Some(Some(first));
        while let Some(Some(frame)) = next {
            let frame = frame?;
            let request: Message<'_> = postcard::from_bytes(&frame).map_err(io::Error::other)?;
            frames.feed(request).await?;
            next = frames.next().now_or_never();
        }
        SinkExt::<Message<'_>>::flush(&mut frames).await?;
    }
    Ok(())
}

/// Sends the calls of a connection: all that were made, then one flush. A connection that breaks
/// is noticed where replies are taken.
async fn send_calls(
    mut frames: FramedWrite<OwnedWriteHalf, Codec>,
    mut calls: mpsc::UnboundedReceiver<Call>,
    waiting: Waiting,
) -> io::Result<()> {
    let mut batch = Vec::with_capacity(BATCH_MAX);
    while calls.recv_many(&mut batch, BATCH_MAX).await > 0 {
        for (body, caller) in batch.drain(..) {
            let id = waiting.borrow_mut().insert(caller);
            let id = u32::try_from(id).map_err(io::Error::other)?;
            frames.feed(Message { id, body: &body }).await?;
        }
        SinkExt::<Message<'_>>::flush(&mut frames).await?;
    }
    Ok(())
}

/// Hands each reply's length to its caller.
async fn take_replies(mut replies: FramedRead<OwnedReadHalf, Codec>, waiting: Waiting) {
    while let Some(Ok(frame)) = replies.next().await {
        let Ok(reply) = postcard::from_bytes::<Message<'_>>(&frame) else { break };
        if let Some(caller) = waiting.borrow_mut().try_remove(reply.id as usize) {
            // A caller that is gone wants no reply.
            let _ = caller.send(reply.body.len());
        }
    }
    // Whoever still waits is told so by the end of its channel.
    waiting.borrow_mut().clear();
}

impl Codec {
    fn new(workload: Workload) -> Self {
        let mut codec = LengthDelimitedCodec::builder();
        Self(codec.max_frame_length(workload.message_len_max()).new_codec())
    }
}

impl Decoder for Codec {
    type Item = BytesMut;
    type Error = io::Error;

    fn decode(&mut self, received: &mut BytesMut) -> io::Result<Option<BytesMut>> {
        self.0.decode(received)
    }
}

impl Encoder<Message<'_>> for Codec {
    type Error = io::Error;

    fn encode(&mut self, message: Message<'_>, to_send: &mut BytesMut) -> io::Result<()> {
        let begin = to_send.len();
        to_send.reserve(HEAD_LEN_MAX + message.body.len());
        to_send.put_u32(0);
        let sink = Sink(to_send);
        postcard::serialize_with_flavor(&message, sink).map_err(io::Error::other)?;
        let len = to_send.len() - begin - LENGTH_LEN;
        let len = u32::try_from(len).map_err(io::Error::other)?;
        to_send[begin..begin + LENGTH_LEN].copy_from_slice(&len.to_be_bytes());
        Ok(())
    }
}

/// Where postcard writes: behind what is to be sent already.
struct Sink<'a>(&'a mut BytesMut);

impl postcard::ser_flavors::Flavor for Sink<'_> {
    type Output = ();

    fn try_push(&mut self, byte: u8) -> postcard::Result<()> {
        self.0.put_u8(byte);
        Ok(())
    }

    fn try_extend(&mut self, bytes: &[u8]) -> postcard::Result<()> {
        self.0.extend_from_slice(bytes);
        Ok(())
    }

    fn finalize(self) -> postcard::Result<()> {
        Ok(())
    }
}

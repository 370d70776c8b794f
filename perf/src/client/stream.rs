//! Streams as they are measured: items that the server sends back.
//!
//! One task for each connection, with one stream on it: as many items are on their way as a
//! workload has calls in flight, and each that comes back is recorded and followed by the next.

use std::{
    collections::VecDeque,
    future::{Future, poll_fn},
    pin::pin,
    rc::Rc,
    task::Poll,
};

use ringcall::Status;

use super::Shared;
use crate::{
    generator::Timing,
    target::{EchoClient, Payload},
};

/// Sends items until the run is over.
pub(super) async fn items(client: EchoClient, depth: usize, shared: Rc<Shared>) {
    if let Err(status) = send_all(&client, depth, &shared).await {
        shared.fail(|| status.to_string());
    }
    shared.ends();
}

async fn send_all(client: &EchoClient, depth: usize, shared: &Shared) -> Result<(), Status> {
    let item = Payload { bytes: &shared.payload };
    let mut stream = client.mirror(&Payload { bytes: &[] }).await?;
    // When each item was to be sent: they come back in this order.
    let mut begun = VecDeque::from(vec![shared.clock.now_ns(); depth]);
    let mut unsent = depth;
    while !shared.is_over.get() {
        // Sends while it waits for the next that comes back, as each may wait for the other.
        let back = poll_fn(|cx| {
            while unsent > 0 {
                match pin!(stream.send_like(&item)).poll(cx) {
                    Poll::Ready(Ok(())) => unsent -= 1,
                    Poll::Ready(Err(status)) => return Poll::Ready(Err(status)),
                    Poll::Pending => break,
                }
            }
            pin!(stream.next()).poll(cx)
        });
        let back = back.await?;
        // One clock read an item: the next begins when this one was recorded.
        let done_ns = shared.clock.now_ns();
        match (back, begun.pop_front()) {
            (Some(back), Some(due_ns)) if back.bytes.len() == shared.payload.len() => {
                let timing = Timing { due_ns, free_ns: due_ns, sent_ns: due_ns, done_ns };
                shared.recorder.borrow_mut().record(timing);
            }
            (Some(back), _) => shared.fail(|| format!("an item of {} bytes", back.bytes.len())),
            (None, _) => break,
        }
        begun.push_back(done_ns);
        unsent += 1;
    }
    stream.finish().await.map(|_| ())
}

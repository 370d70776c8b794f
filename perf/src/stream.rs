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
    time::Instant,
};

use ringcall::Status;

use crate::target::{EchoClient, Payload, Shared};

/// Sends items until the run is over.
pub(crate) async fn items(client: EchoClient, payload: Rc<[u8]>, depth: usize, shared: Rc<Shared>) {
    if let Err(status) = send_all(&client, &payload, depth, &shared).await {
        shared.fail(|| status.to_string());
    }
    shared.callers.set(shared.callers.get() - 1);
}

async fn send_all(
    client: &EchoClient,
    payload: &[u8],
    depth: usize,
    shared: &Shared,
) -> Result<(), Status> {
    let item = Payload { bytes: payload };
    let mut stream = client.mirror(&Payload { bytes: &[] }).await?;
    // When each item was to be sent: they come back in this order.
    let mut begun = VecDeque::from(vec![Instant::now(); depth]);
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
        let now = Instant::now();
        match (back, begun.pop_front()) {
            (Some(back), Some(begun)) if back.bytes.len() == shared.payload_len => {
                shared.latencies.borrow_mut().record(now - begun);
            }
            (Some(back), _) => shared.fail(|| format!("an item of {} bytes", back.bytes.len())),
            (None, _) => break,
        }
        begun.push_back(now);
        unsent += 1;
    }
    stream.finish().await.map(|_| ())
}

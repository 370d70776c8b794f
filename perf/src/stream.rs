//! Streams as they are measured: items that the server sends back.
//!
//! One task for each connection, with one stream on it: as many items are on their way as a
//! workload has calls in flight, and each that comes back is recorded and followed by the next.

use std::{collections::VecDeque, rc::Rc, time::Instant};

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
    // Items come back in the order they were sent.
    let mut sent = VecDeque::with_capacity(depth);
    for _ in 0..depth {
        sent.push_back(Instant::now());
        stream.send_like(&item).await?;
    }
    while !shared.is_over.get() {
        let back = stream.next().await?;
        // One clock read an item: the next begins when this one was recorded.
        let now = Instant::now();
        match (back, sent.pop_front()) {
            (Some(back), Some(begun)) if back.bytes.len() == shared.payload_len => {
                shared.latencies.borrow_mut().record(now - begun);
            }
            (Some(back), _) => shared.fail(|| format!("an item of {} bytes", back.bytes.len())),
            (None, _) => break,
        }
        sent.push_back(now);
        stream.send_like(&item).await?;
    }
    stream.finish().await.map(|_| ())
}

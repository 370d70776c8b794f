//! Idle connections of a client thread: opened, greeted, and left alone until the run ends.

use ringcall::ring::RingConfig;

use crate::{
    error::Failure,
    idle,
    load::ClientThread,
    target::{EchoClient, Payload},
};

/// Opens this thread's share of the idle connections, once every thread has all else that it needs:
/// the receive buffers among it, which are there once, however many connections there are. The
/// kernel fills them in turn, so that as many calls on the thread's other connections touch all of
/// its own, and of the server's shards those that have such connections.
pub(super) async fn connections(
    thread: &ClientThread,
    clients: &[EchoClient],
) -> Result<Vec<EchoClient>, Failure> {
    if thread.plan.idle == 0 {
        return Ok(Vec::new());
    }
    for client in clients.iter().cycle().take(RingConfig::default().pool_buffers.into()) {
        let outcome = client.echo(&Payload { bytes: &[] }).await;
        let failed =
            |status: ringcall::Status| Failure::CallsFailed { count: 1, first: status.to_string() };
        outcome.map_err(failed)?;
    }
    thread.gate.meet()?;
    let share = idle::share(thread.plan.idle, thread.number, thread.threads);
    let mut clients = Vec::with_capacity(share as usize);
    for _ in 0..share {
        if thread.gate.is_over() {
            return Err(Failure::Interrupted);
        }
        clients.push(EchoClient::connect(thread.address).await?);
    }
    Ok(clients)
}

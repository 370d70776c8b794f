//! Idle connections of a client thread: opened, greeted, and left alone until the run ends.

use crate::{error::Failure, idle, load::ClientThread, target::EchoClient};

/// Opens this thread's share of the idle connections, once every thread has all else that it needs.
pub(super) async fn connections(thread: &ClientThread) -> Result<Vec<EchoClient>, Failure> {
    if thread.plan.idle == 0 {
        return Ok(Vec::new());
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

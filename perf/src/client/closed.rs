//! A closed loop: each call is followed by the next as soon as it is answered.

use std::{rc::Rc, time::Duration};

use super::Shared;
use crate::{generator::Timing, target::EchoClient};

/// Makes one call after the other.
pub(super) async fn calls(client: EchoClient, shared: Rc<Shared>) {
    // One clock read a call: a call begins when the one before was recorded.
    let mut begun_ns = shared.clock.now_ns();
    while !shared.is_over.get() {
        let request = shared.next_payload();
        let outcome = client.echo(&request).await;
        let done_ns = shared.clock.now_ns();
        match outcome {
            Ok(reply) if reply.bytes.len() == request.bytes.len() => {
                let (due_ns, free_ns, sent_ns) = (begun_ns, begun_ns, begun_ns);
                let timing = Timing { due_ns, free_ns, sent_ns, done_ns };
                shared.recorder.borrow_mut().record(timing);
            }
            Ok(reply) => shared.fail(|| format!("a reply of {} bytes", reply.bytes.len())),
            Err(status) => {
                shared.fail(|| status.to_string());
                // What fails at once would keep this thread from everything else.
                ringcall::sleep(Duration::from_millis(1)).await;
                if !client.client().is_open() {
                    break;
                }
            }
        }
        begun_ns = done_ns;
    }
    shared.ends();
}

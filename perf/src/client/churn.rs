//! Connections that come and go beside the load: each is made, used for one call, and closed.

use std::{cell::Cell, net::SocketAddr, rc::Rc, time::Duration};

use super::Shared;
use crate::target::EchoClient;

/// Most connections of this kind under way at a time; those that are due beyond it wait.
const UNDER_WAY_MAX: usize = 1024;

/// Makes so many connections a second, evenly, until it is over. One that takes long does not keep
/// the next from being made.
pub(super) async fn churn(address: SocketAddr, per_s: f64, shared: Rc<Shared>) {
    let gap_ns = (1e9 / per_s) as u64;
    let mut due_ns = shared.clock.now_ns();
    let under_way = Rc::new(Cell::new(0));
    while !shared.is_over.get() {
        let left = due_ns.saturating_sub(shared.clock.now_ns());
        if left > 0 {
            ringcall::sleep(Duration::from_nanos(left)).await;
            continue;
        }
        if under_way.get() < UNDER_WAY_MAX {
            under_way.set(under_way.get() + 1);
            shared.begins();
            let (shared, under_way) = (Rc::clone(&shared), Rc::clone(&under_way));
            ringcall::spawn(async move {
                come_and_go(address, due_ns, &shared).await;
                under_way.set(under_way.get() - 1);
                shared.ends();
            });
            due_ns += gap_ns;
        }
        // However many are due, the load goes on.
        ringcall::yield_now().await;
    }
}

/// One connection, which counts from when it was due.
async fn come_and_go(address: SocketAddr, due_ns: u64, shared: &Shared) {
    let request = shared.next_payload();
    let outcome = match EchoClient::connect(address).await {
        Ok(client) => client.echo(&request).await.map(|_| ()).map_err(|it| it.to_string()),
        Err(error) => Err(error.to_string()),
    };
    match outcome {
        Ok(()) => {
            let took_ns = shared.clock.now_ns().saturating_sub(due_ns);
            shared.extras.borrow_mut().churn.record(took_ns);
        }
        Err(why) => shared.fail(|| why),
    }
}

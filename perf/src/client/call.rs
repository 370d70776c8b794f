//! One call as the load makes it: plain, to a handler that takes its time, or to many at once.

use std::{
    future::{Future, poll_fn},
    pin::Pin,
    rc::Rc,
    task::Poll,
};

use ringcall::Status;

use super::Shared;
use crate::target::{EchoClient, Linger, Payload};

/// What makes the calls of one caller.
pub(super) struct Maker {
    clients: Rc<[EchoClient]>,
    /// Which of them is the caller's own.
    own: usize,
}

/// What became of a call.
pub(super) enum Outcome {
    /// It was answered as it should.
    Answered,
    /// As that, by a handler that takes its time: no call of the others.
    AnsweredSlowly,
    Failed(String),
}

impl Maker {
    pub(super) fn new(clients: &Rc<[EchoClient]>, own: usize) -> Self {
        Self { clients: Rc::clone(clients), own }
    }

    /// Whether the connection of this caller can still be used.
    pub(super) fn is_open(&self) -> bool {
        self.clients[self.own].client().is_open()
    }

    /// Makes one call that is not slow.
    #[inline]
    pub(super) async fn call(&self, shared: &Shared, request: &Payload<'_>) -> Outcome {
        if shared.is_plain {
            let reply = self.clients[self.own].echo(request).await;
            return outcome(reply.map(|it| it.bytes.len()), request);
        }
        self.call_many(shared.fanout, request).await
    }

    /// Makes a call to a handler that takes its time, which was due at a time.
    pub(super) async fn call_slowly(
        &self,
        shared: &Shared,
        request: &Payload<'_>,
        due_ns: u64,
    ) -> Outcome {
        let linger = Linger { us: shared.slow_us, bytes: request.bytes };
        let reply = self.clients[self.own].linger(&linger).await.map(|it| it.bytes.len());
        match outcome(reply, request) {
            Outcome::Answered => {
                let took_ns = shared.clock.now_ns().saturating_sub(due_ns);
                shared.extras.borrow_mut().slow.record(took_ns);
                shared.slow_calls.set(shared.slow_calls.get() + 1);
                Outcome::AnsweredSlowly
            }
            other => other,
        }
    }

    /// Makes as many calls at once, each on the next connection of this thread, and waits for the last.
    async fn call_many(&self, fanout: usize, request: &Payload<'_>) -> Outcome {
        let client = |nth| &self.clients[(self.own + nth) % self.clients.len()];
        let mut calls: Vec<_> = (0..fanout).map(|nth| Some(client(nth).echo(request))).collect();
        let mut worst = Outcome::Answered;
        poll_fn(|cx| {
            let mut are_done = true;
            for place in &mut calls {
                let Some(call) = place else { continue };
                match Pin::new(call).poll(cx) {
                    Poll::Pending => are_done = false,
                    Poll::Ready(reply) => {
                        let reply = reply.map(|it| it.bytes.len());
                        if let failed @ Outcome::Failed(_) = outcome(reply, request) {
                            worst = failed;
                        }
                        *place = None;
                    }
                }
            }
            if are_done { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
        worst
    }
}

#[inline]
fn outcome(reply: Result<usize, Status>, request: &Payload<'_>) -> Outcome {
    match reply {
        Ok(len) if len == request.bytes.len() => Outcome::Answered,
        Ok(len) => Outcome::Failed(format!("a reply of {len} bytes")),
        Err(status) => Outcome::Failed(status.to_string()),
    }
}

//! An open load: calls are made when they are due, whatever became of those before. Who makes which
//! is the desk's affair (`generator::desk`).

use std::{future::Future, pin::Pin, rc::Rc};

use super::{
    Shared,
    call::{Maker, Outcome},
    callers::Callers,
};
use crate::{
    generator::{Caller, Desk, Job, Schedule, Timing},
    target::EchoClient,
};

/// Starts the callers of each connection, and the pacer. Gives the desk that they work off.
pub(super) fn start(
    clients: &Rc<[EchoClient]>,
    depth: usize,
    schedule: Schedule,
    shared: &Rc<Shared>,
) -> Rc<Desk> {
    let (desk, callers) = Desk::new(schedule, clients.len(), depth);
    let callers = callers.into_iter().map(|caller| {
        shared.begins();
        let maker = Maker::new(clients, caller.connection());
        let calls = calls(maker, caller, Rc::clone(shared));
        Box::pin(calls) as Pin<Box<dyn Future<Output = ()>>>
    });
    let callers = Callers::new(callers.collect());
    ringcall::spawn(pace(callers, Rc::clone(&desk), Rc::clone(shared)));
    desk
}

/// Gives out calls when they are due and has them made, and waits for the last when it is over.
/// Never sleeps.
async fn pace(mut callers: Callers, desk: Rc<Desk>, shared: Rc<Shared>) {
    // They come to the desk.
    callers.poll_all();
    while !shared.is_over.get() && shared.callers.get() > 0 {
        // First those whose answers have come: they are free then.
        callers.poll_woken();
        desk.give_out();
        callers.poll_woken();
        ringcall::yield_now().await;
    }
    desk.close();
    while shared.callers.get() > 0 {
        callers.poll_woken();
        ringcall::yield_now().await;
    }
}

/// Makes the calls that a caller is given.
async fn calls(maker: Maker, caller: Caller, shared: Rc<Shared>) {
    while let Some(Job { due_ns, free_ns, size }) = caller.next().await {
        let request = match size {
            Some(size) => shared.payload_of(size),
            None => shared.next_payload(),
        };
        let sent_ns = shared.clock.now_ns();
        let outcome = if shared.is_slow_turn() {
            // It has a figure of its own, and is none of the calls of which this takes note.
            caller.ended();
            maker.call_slowly(&shared, &request, due_ns).await
        } else {
            maker.call(&shared, &request).await
        };
        let done_ns = shared.clock.now_ns();
        match outcome {
            Outcome::Answered => {
                let timing = Timing { due_ns, free_ns, sent_ns, done_ns };
                shared.recorder.borrow_mut().record(timing);
            }
            Outcome::AnsweredSlowly => {}
            Outcome::Failed(why) => {
                shared.fail(|| why);
                if !maker.is_open() {
                    caller.ended();
                    break;
                }
            }
        }
        caller.frees(done_ns);
    }
    shared.ends();
}

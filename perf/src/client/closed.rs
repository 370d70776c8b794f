//! A closed loop: each call is followed by the next as soon as it is answered.

use std::{rc::Rc, time::Duration};

use super::{
    Shared,
    call::{Maker, Outcome},
};
use crate::generator::Timing;

/// Makes one call after the other.
pub(super) async fn calls(maker: Maker, shared: Rc<Shared>) {
    // One clock read a call: a call begins when the one before was recorded.
    let mut begun_ns = shared.clock.now_ns();
    while !shared.is_over.get() {
        let request = shared.next_payload();
        let outcome = if shared.is_slow_turn() {
            maker.call_slowly(&shared, &request, begun_ns).await
        } else {
            maker.call(&shared, &request).await
        };
        let mut done_ns = shared.clock.now_ns();
        match outcome {
            Outcome::Answered => {
                let (due_ns, free_ns, sent_ns) = (begun_ns, begun_ns, begun_ns);
                let timing = Timing { due_ns, free_ns, sent_ns, done_ns };
                shared.recorder.borrow_mut().record(timing);
            }
            Outcome::AnsweredSlowly => {}
            Outcome::Failed(why) => {
                shared.fail(|| why);
                // What fails at once would keep this thread from everything else.
                ringcall::sleep(Duration::from_millis(1)).await;
                if !maker.is_open() {
                    break;
                }
                // The time that it slept is no call's.
                done_ns = shared.clock.now_ns();
            }
        }
        begun_ns = done_ns;
    }
    shared.ends();
}

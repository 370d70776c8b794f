//! An open load: calls are made when they are due, whatever became of those before.
//!
//! A task that never sleeps, the pacer, looks at the clock and has each call that is due made by a
//! caller that is free: of the next connection in turn that has one. Where there is none, as the
//! most calls that may be in flight are, calls wait in the order in which they were due; the time
//! that they wait counts as theirs, and not as the generator's lateness.

use std::{
    cell::{Cell, RefCell},
    future::{Future, poll_fn},
    pin::Pin,
    rc::Rc,
    task::Poll,
};

use super::{
    Shared,
    call::{Maker, Outcome},
    callers::Callers,
};
use crate::{
    generator::{Schedule, Timing, Unanswered},
    target::EchoClient,
};

/// Calls that the pacer gives out before it lets others run: they are sent together.
const AT_ONCE_MAX: u32 = 512;

/// What stands for a caller without a call: no call is due then.
const NO_CALL: u64 = u64::MAX;

/// What is due on a thread, and what of it has no answer.
pub(super) struct Due {
    schedule: RefCell<Schedule>,
    /// When there was last no caller free: whatever was due by then waited for one.
    full_ns: Cell<u64>,
    /// When the call of each caller was due; [`NO_CALL`] where it has none. In one place, as all of
    /// it is looked through at every tick.
    in_flight: Box<[Cell<u64>]>,
}

/// The callers of one connection.
struct Connection {
    /// Those that are free, the one that was last at the end: what it needs is in the cache.
    free: RefCell<Vec<Rc<Caller>>>,
}

/// Makes one call at a time.
#[derive(Default)]
struct Caller {
    /// Its number among those of the thread.
    number: usize,
    /// The call that it was given.
    job: Cell<Option<Job>>,
    /// When its last call was answered.
    freed_ns: Cell<u64>,
}

/// A call that is to be made.
#[derive(Clone, Copy)]
struct Job {
    due_ns: u64,
    /// When a caller became free that it had waited for; zero where it had not.
    free_ns: u64,
    /// When it was given out, which is when it is made.
    sent_ns: u64,
    /// Length of its body; none leaves it to the workload.
    size: Option<u32>,
}

/// Starts the callers of each connection, and the pacer. Gives what they work off.
pub(super) fn start(
    clients: &Rc<[EchoClient]>,
    depth: usize,
    schedule: Schedule,
    shared: &Rc<Shared>,
) -> Rc<Due> {
    let due = Rc::new(Due {
        schedule: RefCell::new(schedule),
        full_ns: Cell::new(0),
        in_flight: vec![Cell::new(NO_CALL); clients.len() * depth].into(),
    });
    let (mut connections, mut callers) = (Vec::new(), Vec::new());
    for own in 0..clients.len() {
        let connection = Rc::new(Connection { free: RefCell::default() });
        for nth in 0..depth {
            let caller = Rc::new(Caller { number: own * depth + nth, ..Caller::default() });
            connection.free.borrow_mut().push(Rc::clone(&caller));
            shared.begins();
            let (maker, connection) = (Maker::new(clients, own), Rc::clone(&connection));
            let (due, shared) = (Rc::clone(&due), Rc::clone(shared));
            let calls = Box::pin(calls(maker, caller, connection, due, shared));
            callers.push(calls as Pin<Box<dyn Future<Output = ()>>>);
        }
        connections.push(connection);
    }
    let callers = Callers::new(callers);
    ringcall::spawn(pace(connections, callers, Rc::clone(&due), Rc::clone(shared)));
    due
}

/// Has calls made when they are due, and waits for those that were made when it is over.
async fn pace(
    connections: Vec<Rc<Connection>>,
    mut callers: Callers,
    due: Rc<Due>,
    shared: Rc<Shared>,
) {
    let mut turn = 0;
    while !shared.is_over.get() && shared.callers.get() > 0 {
        callers.poll_woken();
        due.give_out(&connections, &mut callers, &mut turn, &shared);
        ringcall::yield_now().await;
    }
    // Those that wait for a call see that it is over.
    callers.poll_all();
    while shared.callers.get() > 0 {
        ringcall::yield_now().await;
        callers.poll_woken();
    }
}

/// A caller that is free, of the next connection that has one.
fn next_free(connections: &[Rc<Connection>], turn: &mut usize) -> Option<Rc<Caller>> {
    for _ in 0..connections.len() {
        *turn += 1;
        if *turn >= connections.len() {
            *turn = 0;
        }
        if let Some(caller) = connections[*turn].free.borrow_mut().pop() {
            return Some(caller);
        }
    }
    None
}

impl Due {
    /// Gives the calls that are due to callers that are free, which make them at once.
    fn give_out(
        &self,
        connections: &[Rc<Connection>],
        callers: &mut Callers,
        turn: &mut usize,
        shared: &Shared,
    ) {
        let mut schedule = self.schedule.borrow_mut();
        for _ in 0..AT_ONCE_MAX {
            let (due_ns, now_ns) = (schedule.due_ns(), shared.clock.now_ns());
            if due_ns > now_ns {
                return;
            }
            let Some(caller) = next_free(connections, turn) else {
                return self.full_ns.set(now_ns);
            };
            let free_ns = if due_ns <= self.full_ns.get() { caller.freed_ns.get() } else { 0 };
            self.in_flight[caller.number].set(due_ns);
            let size = schedule.size();
            schedule.advance();
            caller.job.set(Some(Job { due_ns, free_ns, sent_ns: now_ns, size }));
            callers.poll(caller.number);
        }
    }

    /// The call of a caller waits for an answer no longer.
    #[inline]
    fn ended(&self, caller: &Caller) {
        self.in_flight[caller.number].set(NO_CALL);
    }

    /// The calls without an answer, as of now.
    pub(super) fn unanswered(&self) -> Unanswered {
        let made = self.in_flight.iter().map(Cell::get).filter(|due_ns| *due_ns != NO_CALL);
        let rest = Some(self.schedule.borrow().clone());
        Unanswered { made: made.collect(), rest, full_ns: self.full_ns.get() }
    }
}

/// Makes the calls that a caller is given.
async fn calls(
    maker: Maker,
    caller: Rc<Caller>,
    connection: Rc<Connection>,
    due: Rc<Due>,
    shared: Rc<Shared>,
) {
    while let Some(job) = caller.next(&shared).await {
        let request = match job.size {
            Some(size) => shared.payload_of(size),
            None => shared.next_payload(),
        };
        let outcome = if shared.is_slow_turn() {
            // It has a figure of its own, and is none of the calls of which this takes note.
            due.ended(&caller);
            maker.call_slowly(&shared, &request, job.due_ns).await
        } else {
            maker.call(&shared, &request).await
        };
        let done_ns = shared.clock.now_ns();
        due.ended(&caller);
        match outcome {
            Outcome::Answered => {
                let Job { due_ns, free_ns, sent_ns, .. } = job;
                let timing = Timing { due_ns, free_ns, sent_ns, done_ns };
                shared.recorder.borrow_mut().record(timing);
            }
            Outcome::AnsweredSlowly => {}
            Outcome::Failed(why) => {
                shared.fail(|| why);
                if !maker.is_open() {
                    break;
                }
            }
        }
        caller.freed_ns.set(done_ns);
        connection.free.borrow_mut().push(Rc::clone(&caller));
    }
    shared.ends();
}

impl Caller {
    /// Waits for the next call; none once it is over. Nothing wakes it: who gives it a call polls
    /// it.
    async fn next(&self, shared: &Shared) -> Option<Job> {
        poll_fn(|_| match self.job.take() {
            Some(job) => Poll::Ready(Some(job)),
            None if shared.is_over.get() => Poll::Ready(None),
            None => Poll::Pending,
        })
        .await
    }
}

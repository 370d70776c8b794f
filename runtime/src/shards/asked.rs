//! What runs on a shard for another one, and how the answer gets back.

use std::{
    cell::RefCell,
    collections::HashMap,
    future::Future,
    marker::PhantomData,
    panic::{self, AssertUnwindSafe},
    pin::Pin,
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    task::{Context, Poll, Waker},
};

use crate::{mail::Mailbox, shard::Shard, shards::AskError, tasks};

/// The shard that asks, and the key of its seat.
pub(crate) type From = (u16, u64);

/// The way back to who asks. Dropped unused it says that this shard has stopped, so that each ask
/// has an outcome.
pub(crate) struct ReplyTo<R: Send + 'static> {
    home: Arc<Mailbox>,
    from: From,
    asked: u16,
    is_given_up: Arc<AtomicBool>,
    is_sent: bool,
    result: PhantomData<fn(R)>,
}

impl<R: Send + 'static> ReplyTo<R> {
    pub(crate) fn new(
        home: Arc<Mailbox>,
        from: From,
        asked: u16,
        is_given_up: Arc<AtomicBool>,
    ) -> Self {
        Self { home, from, asked, is_given_up, is_sent: false, result: PhantomData }
    }

    fn send(mut self, outcome: Result<R, AskError>) {
        self.send_once(outcome);
    }

    fn send_once(&mut self, outcome: Result<R, AskError>) {
        if !std::mem::replace(&mut self.is_sent, true) {
            let seat = (self.asked, self.from.1);
            // There is room: each seat has one answer.
            self.home.answer(Box::new(move |shard| {
                shard.asks.seats.answered(shard, seat, outcome);
            }));
        }
    }

    fn is_given_up(&self) -> bool {
        self.is_given_up.load(Relaxed)
    }
}

impl<R: Send + 'static> Drop for ReplyTo<R> {
    fn drop(&mut self) {
        self.send_once(Err(AskError::Stopped));
    }
}

/// Runs a closure from another shard.
pub(crate) fn run<S, R, F>(shard: &Rc<Shard>, ask: F, reply: ReplyTo<R>)
where
    S: 'static,
    R: Send + 'static,
    F: FnOnce(&S) -> R + Send + 'static,
{
    let state = &shard.asks.state;
    if state.is_early() {
        return state.keep(Box::new(move |shard| run(shard, ask, reply)));
    }
    if reply.is_given_up() {
        return;
    }
    shard.counters.asks_run.add(1);
    let outcome = state.find::<S>().and_then(|state| caught(shard, || ask(state.get())));
    reply.send(outcome);
}

/// Begins with a closure from another shard that may wait.
pub(crate) fn begin<S, R, F>(shard: &Rc<Shard>, ask: F, reply: ReplyTo<R>)
where
    S: 'static,
    R: Send + 'static,
    F: AsyncFnOnce(&S) -> R + Send + 'static,
{
    let state = &shard.asks.state;
    if state.is_early() {
        return state.keep(Box::new(move |shard| begin(shard, ask, reply)));
    }
    if reply.is_given_up() {
        return;
    }
    shard.counters.asks_run.add(1);
    let state = match state.find::<S>() {
        Ok(state) => state,
        Err(error) => return reply.send(Err(error)),
    };
    let mut future: Pin<Box<dyn Future<Output = R>>> =
        Box::pin(async move { ask(state.get()).await });
    // Nobody needs to be woken yet: a task polls again at once, with a waker of its own.
    let mut cx = Context::from_waker(Waker::noop());
    match caught(shard, || future.as_mut().poll(&mut cx)) {
        Ok(Poll::Ready(result)) => reply.send(Ok(result)),
        Ok(Poll::Pending) => {
            shard.task_begins();
            let from = reply.from;
            let (future, reply) = (Some(future), Some(reply));
            tasks::spawn(Waiting { future, reply, from, shard: Rc::clone(shard) });
        }
        Err(error) => reply.send(Err(error)),
    }
}

/// What waits here for another shard, so that it can be woken to be dropped. As many at most as
/// the other shards have seats.
#[derive(Default)]
pub(crate) struct Running(RefCell<HashMap<From, Waker>>);

impl Running {
    /// Wakes what another shard has given up, if it waits here.
    pub(crate) fn wake(&self, shard: &Shard, from: From) {
        let waker = self.0.borrow_mut().remove(&from);
        waker.iter().for_each(|waker| shard.wake_task(waker));
    }

    fn wait(&self, from: From, waker: &Waker) {
        let mut running = self.0.borrow_mut();
        match running.get_mut(&from) {
            Some(kept) => kept.clone_from(waker),
            None => drop(running.insert(from, waker.clone())),
        }
    }
}

/// A closure's future that waits, as a task.
struct Waiting<R: Send + 'static> {
    /// Nothing in it once it is done.
    future: Option<Pin<Box<dyn Future<Output = R>>>>,
    reply: Option<ReplyTo<R>>,
    from: From,
    shard: Rc<Shard>,
}

impl<R: Send + 'static> Future for Waiting<R> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = self.get_mut();
        let (Some(mut future), Some(reply)) = (this.future.take(), this.reply.take()) else {
            return Poll::Ready(());
        };
        let shard = &this.shard;
        if reply.is_given_up() {
            // A user's drop may panic; the future is gone then all the same.
            let _ = caught(shard, || drop(future));
            return Poll::Ready(());
        }
        match caught(shard, || future.as_mut().poll(cx)) {
            Ok(Poll::Ready(result)) => reply.send(Ok(result)),
            Ok(Poll::Pending) => {
                shard.asks.running.wait(this.from, cx.waker());
                (this.future, this.reply) = (Some(future), Some(reply));
                return Poll::Pending;
            }
            Err(error) => reply.send(Err(error)),
        }
        Poll::Ready(())
    }
}

impl<R: Send + 'static> Unpin for Waiting<R> {}

impl<R: Send + 'static> Drop for Waiting<R> {
    fn drop(&mut self) {
        self.shard.handler_done();
        self.shard.asks.running.0.borrow_mut().remove(&self.from);
    }
}

/// Runs what a user gave; a panic of it is its own.
fn caught<T>(shard: &Shard, run: impl FnOnce() -> T) -> Result<T, AskError> {
    // What panicked is dropped and not used again, so nothing sees it half-way.
    panic::catch_unwind(AssertUnwindSafe(run)).map_err(|_| {
        shard.counters.handlers_panicked.add(1);
        AskError::Panicked
    })
}

//! Calls to their handlers: polled at once, made a task only where they wait.
//!
//! After the session on the path of a call. Most handlers are done when they are first polled;
//! for those nothing is spawned and nothing allocated. A handler that panics fails its call and
//! nothing else.

use std::{
    future::Future,
    panic::{self, AssertUnwindSafe},
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, Waker},
};

use ringcall_codec::{CallId, MethodInfo};

use crate::{
    config::SPARE_SLOTS_MAX,
    connection::Connection,
    ring::Lease,
    seats::Seat,
    service::{CallTag, Incoming, Owned, Service},
    shard::Shard,
    slots::{Slot, Slots},
    tasks,
};

/// What a connection gives its calls to. One for each service value, whatever its type.
pub(crate) trait Dispatch {
    /// Runs a call's handler for as long as it does not wait, and on as a task if it does.
    ///
    /// What makes a call up is passed apart, in registers, and put together in the place where
    /// its handler will run.
    fn dispatch(&self, connection: &Rc<Connection>, call: CallId, tag: CallTag, body: Lease);

    /// The methods served.
    fn methods(&self) -> &'static [MethodInfo];
}

/// Dispatches to a service by the one function that makes its futures.
struct Dispatcher<S, F, M> {
    service: Rc<S>,
    make: M,
    home: Rc<Home<F>>,
}

/// What the futures of one service share: one pointer in each that waits.
struct Home<F> {
    slots: Slots<F>,
    shard: Rc<Shard>,
}

/// Prepares a service value for dispatch.
pub(crate) fn dispatcher<S: Service>(service: Rc<S>, shard: &Rc<Shard>) -> Rc<dyn Dispatch> {
    // The future owns both, so that no other is put around it to hold them.
    let make = |service: Rc<S>, call: Incoming| S::dispatch(service, Owned(call));
    with_make(service, make, shard)
}

/// Gives the future's type a name.
fn with_make<S, F, M>(service: Rc<S>, make: M, shard: &Rc<Shard>) -> Rc<dyn Dispatch>
where
    S: Service,
    F: Future<Output = ()> + 'static,
    M: Fn(Rc<S>, Incoming) -> F + 'static,
{
    let home = Home { slots: Slots::new(SPARE_SLOTS_MAX), shard: Rc::clone(shard) };
    Rc::new(Dispatcher { service, make, home: Rc::new(home) })
}

impl<S, F, M> Dispatch for Dispatcher<S, F, M>
where
    S: Service,
    F: Future<Output = ()> + 'static,
    M: Fn(Rc<S>, Incoming) -> F + 'static,
{
    #[inline]
    fn dispatch(&self, connection: &Rc<Connection>, call: CallId, tag: CallTag, body: Lease) {
        let Home { slots, shard } = &*self.home;
        let mut slot = slots.place(|| {
            let incoming = Incoming::new(connection, call, tag, body);
            (self.make)(Rc::clone(&self.service), incoming)
        });
        // Nobody needs to be woken yet: a task polls again at once, with a waker of its own.
        let mut cx = Context::from_waker(Waker::noop());
        if poll_caught(&mut slot, &mut cx, shard).is_ready() {
            shard.counters.calls_inline.add(1);
            slots.recycle(slot);
        } else {
            self.spawn(slot, connection, call, tag);
        }
    }

    fn methods(&self) -> &'static [MethodInfo] {
        S::METHODS
    }
}

impl<S, F, M> Dispatcher<S, F, M>
where
    S: Service,
    F: Future<Output = ()> + 'static,
{
    #[cold]
    fn spawn(&self, slot: Slot<F>, connection: &Rc<Connection>, call: CallId, tag: CallTag) {
        let info = S::METHODS.iter().find(|info| info.id == tag.method());
        let is_stoppable = !tag.is_one_way() && !info.is_some_and(|info| info.no_cancel);
        let seat = is_stoppable.then(|| Seat::new(connection, call));
        self.home.shard.handler_spawned();
        let home = Rc::clone(&self.home);
        tasks::spawn(Waiting { slot: Some(slot), seat, home });
    }
}

/// A handler that waits, as a task. Written out, since it is most of what an idle stream takes.
struct Waiting<F: Future> {
    /// Nothing in it once the handler is done.
    slot: Option<Slot<F>>,
    seat: Option<Seat>,
    home: Rc<Home<F>>,
}

impl<F: Future<Output = ()>> Future for Waiting<F> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = self.get_mut();
        let Some(mut slot) = this.slot.take() else { return Poll::Ready(()) };
        let Home { slots, shard } = &*this.home;
        if this.seat.as_ref().is_some_and(|seat| seat.poll_stop(cx.waker()).is_ready()) {
            drop_caught(slots, slot, shard);
        } else if poll_caught(&mut slot, cx, shard).is_pending() {
            this.slot = Some(slot);
            return Poll::Pending;
        } else {
            slots.recycle(slot);
        }
        shard.handler_done();
        Poll::Ready(())
    }
}

/// Drops a handler that was told to stop, which ends its call.
fn drop_caught<F: Future>(slots: &Slots<F>, slot: Slot<F>, shard: &Shard) {
    shard.counters.handlers_stopped.add(1);
    // The future is gone afterwards, so nothing sees it half-way.
    if panic::catch_unwind(AssertUnwindSafe(|| slots.recycle(slot))).is_err() {
        shard.counters.handlers_panicked.add(1);
    }
}

/// Polls a handler; one that panics is done, and its call was answered when it unwound.
#[inline(always)]
fn poll_caught<F: Future<Output = ()>>(
    slot: &mut Slot<F>,
    cx: &mut Context<'_>,
    shard: &Shard,
) -> Poll<()> {
    // The future is dropped and not polled again after a panic, so nothing sees it half-way.
    match panic::catch_unwind(AssertUnwindSafe(|| slot.poll(cx))) {
        Ok(polled) => polled,
        Err(_) => {
            shard.counters.handlers_panicked.add(1);
            Poll::Ready(())
        }
    }
}

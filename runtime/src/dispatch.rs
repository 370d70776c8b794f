//! Calls to their handlers: polled at once, made a task only where they wait.
//!
//! After the session on the path of a call. Most handlers are done when they are first polled;
//! for those nothing is spawned and nothing allocated. A handler that panics fails its call and
//! nothing else.

use std::{
    cell::{Cell, RefCell},
    future::Future,
    panic::{self, AssertUnwindSafe},
    pin::Pin,
    rc::{Rc, Weak},
    sync::Arc,
    task::{Context, Poll, Waker},
};

use ringcall_codec::{CallId, MethodInfo};

use crate::{
    classes::{Class, Deferred, GoOn},
    config::SPARE_SLOTS_MAX,
    connection::Connection,
    events::overload,
    metrics::{ServiceFigures, WaitingSince},
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

    /// Begins with a call that has waited for more urgent ones.
    fn run(&self, connection: &Rc<Connection>, call: CallId, tag: CallTag, body: Lease);

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
    /// Nothing where nothing is measured.
    figures: Option<Arc<ServiceFigures>>,
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
    let (slots, figures) = (Slots::new(SPARE_SLOTS_MAX), shard.figures_of(S::METHODS));
    let home = Home { slots, shard: Rc::clone(shard), figures };
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
        if S::HAS_CLASSES {
            let class = S::class(tag.method());
            if class != Class::Latency {
                return defer(class, connection, call, tag, body);
            }
        }
        self.run(connection, call, tag, body);
    }

    #[inline]
    fn run(&self, connection: &Rc<Connection>, call: CallId, tag: CallTag, body: Lease) {
        let Home { slots, shard, figures } = &*self.home;
        let is_measured = shard.meter.call_begins(tag.method());
        let began_ns = if is_measured { shard.begin_measured(tag) } else { 0 };
        let mut slot = slots.place(|| {
            let incoming = Incoming::new(connection, call, tag, body);
            (self.make)(Rc::clone(&self.service), incoming)
        });
        // Nobody needs to be woken yet: a task polls again at once, with a waker of its own.
        let mut cx = Context::from_waker(Waker::noop());
        if poll_caught(&mut slot, &mut cx, shard).is_ready() {
            shard.counters.calls_inline.add(1);
            slots.recycle(slot);
            shard.meter.count_call(figures.as_deref(), tag);
            if began_ns != 0 {
                shard.end_measured(connection, figures.as_deref(), tag, began_ns);
            }
        } else {
            let since = shard.begin_waiting(connection, figures.as_deref(), tag, began_ns);
            self.spawn(slot, connection, call, tag, since);
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
    fn spawn(
        &self,
        slot: Slot<F>,
        connection: &Rc<Connection>,
        call: CallId,
        tag: CallTag,
        since: WaitingSince,
    ) {
        let info = S::METHODS.iter().find(|info| info.id == tag.method());
        let is_stoppable = !tag.is_one_way() && !info.is_some_and(|info| info.no_cancel);
        let seat = is_stoppable.then(|| Seat::new(connection, call));
        self.home.shard.handler_spawned();
        let home = Rc::clone(&self.home);
        let waiting = Waiting { slot: Some(slot), seat, home, since };
        if S::HAS_CLASSES && S::class(tag.method()) == Class::Bulk {
            return tasks::spawn(WaitingInBulk(Rc::new(Bulk::new(waiting))));
        }
        tasks::spawn(waiting);
    }
}

/// Keeps a call that is not to begin before everything was looked at that has come.
fn defer(class: Class, connection: &Rc<Connection>, call: CallId, tag: CallTag, body: Lease) {
    // It is what this call was given to.
    let Some(serves) = connection.serves.borrow().clone() else { return };
    let (connection, came) = (Rc::clone(connection), connection.taken_at());
    let shard = Rc::clone(&connection.shard);
    let deferred = Deferred { serves, connection, call, tag, body, came };
    if class != Class::Bulk {
        shard.backlog.defer_normal(deferred);
    } else if let Err(deferred) = shard.backlog.defer_bulk(deferred) {
        deferred.refuse(&overload());
    }
}

/// A handler that waits, as a task. Written out, since it is most of what an idle stream takes.
struct Waiting<F: Future> {
    /// Nothing in it once the handler is done.
    slot: Option<Slot<F>>,
    seat: Option<Seat>,
    home: Rc<Home<F>>,
    since: WaitingSince,
}

impl<F: Future<Output = ()>> Future for Waiting<F> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = self.get_mut();
        let Some(mut slot) = this.slot.take() else { return Poll::Ready(()) };
        let Home { slots, shard, figures } = &*this.home;
        if this.seat.as_ref().is_some_and(|seat| seat.poll_stop(cx.waker()).is_ready()) {
            drop_caught(slots, slot, shard);
        } else if poll_caught(&mut slot, cx, shard).is_pending() {
            this.slot = Some(slot);
            return Poll::Pending;
        } else {
            slots.recycle(slot);
        }
        shard.handler_done();
        shard.end_waiting(figures.as_deref(), this.since);
        Poll::Ready(())
    }
}

/// The task of a bulk handler that waits: it goes on when the shard has time for bulk, and not when
/// it is woken.
struct WaitingInBulk<F: Future>(Rc<Bulk<F>>);

struct Bulk<F: Future> {
    /// Nothing once it is done, and while it is polled.
    waiting: RefCell<Option<Waiting<F>>>,
    /// That of the task.
    waker: RefCell<Waker>,
    is_queued: Cell<bool>,
    /// Not counted: the shard's queue may be what keeps this.
    shard: Weak<Shard>,
}

impl<F: Future> Bulk<F> {
    fn new(waiting: Waiting<F>) -> Self {
        let shard = Rc::downgrade(&waiting.home.shard);
        let (waiting, waker) = (RefCell::new(Some(waiting)), RefCell::new(Waker::noop().clone()));
        Self { waiting, waker, is_queued: Cell::new(false), shard }
    }
}

impl<F: Future<Output = ()> + 'static> Future for WaitingInBulk<F> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let bulk = &self.get_mut().0;
        if bulk.waiting.borrow().is_none() {
            return Poll::Ready(());
        }
        bulk.waker.borrow_mut().clone_from(cx.waker());
        if !bulk.is_queued.replace(true)
            && let Some(shard) = bulk.shard.upgrade()
        {
            shard.backlog.go_on_later(Rc::<Bulk<F>>::clone(bulk));
            shard.wake_driver();
        }
        Poll::Pending
    }
}

impl<F: Future<Output = ()>> GoOn for Bulk<F> {
    fn go_on(&self) {
        self.is_queued.set(false);
        let Some(mut waiting) = self.waiting.take() else { return };
        let waker = self.waker.borrow().clone();
        if Pin::new(&mut waiting).poll(&mut Context::from_waker(&waker)).is_pending() {
            *self.waiting.borrow_mut() = Some(waiting);
        } else if let Some(shard) = self.shard.upgrade() {
            // The task ends.
            shard.wake_task(&waker);
        }
    }
}

impl<F: Future> Drop for WaitingInBulk<F> {
    fn drop(&mut self) {
        // It may still be queued, and is not to be polled any more.
        drop(self.0.waiting.take());
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

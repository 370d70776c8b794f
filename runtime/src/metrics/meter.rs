//! How a shard measures itself: which calls, when it looks at the clock, what it makes of it.
//!
//! Beside the dispatch of a call. A look at the clock costs about as much as a tenth of a call, so
//! calls are measured one in so many, by chance, and turns and batches always: a few looks a turn.
//! What was measured one in so many is recorded as so many calls, so that counts and percentiles
//! are those of all calls. A handler that waits is measured always.

use std::{
    cell::{Cell, RefCell},
    rc::Rc,
    sync::Arc,
    time::{Duration, Instant},
};

use ringcall_codec::Code;

use super::{
    histogram::Recent,
    methods::{OTHER_METHODS, ServiceFigures, outcome_index},
    reply::{Watched, Watches},
    turn::{CallTimes, Longest, Turn},
};
use crate::{connection::Connection, service::CallTag, shard::Shard};

/// Calls that a shard measures in a second, about, until more than one in [`ONE_IN_MAX`] would be
/// left out: a thousandth of its time.
pub(super) const MEASURED_PER_S: u64 = 10_000;

/// Of so many calls one is measured at least.
pub(super) const ONE_IN_MAX: u64 = 64;

/// Time after which a shard looks at how many calls there are, in nanoseconds: 100 ms.
pub(super) const TICK_NS: u64 = 100_000_000;

/// Ticks after which it looks at what is slow: every second.
pub(super) const TICKS_PER_LOOK: u32 = 10;

/// Without a setting, a call is slow that takes longer than all but one in so many did lately.
pub(super) const SLOW_ONE_IN: u64 = 1000;

/// A call is slow from so many nanoseconds on while too few were seen to say, and never from less
/// than the second.
pub(super) const SLOW_FROM_NS: u64 = 1_000_000;
pub(super) const SLOW_FROM_NS_MIN: u64 = 20_000;

/// Slow calls that are kept of one turn, in number: one cause has many of them, and it is enough to
/// see it and one that suffered.
pub(super) const SLOW_PER_TURN_MAX: usize = 2;

/// What a shard measures of itself, where only the shard is concerned. Times are nanoseconds since
/// it started.
pub(crate) struct Meter {
    pub(super) is_on: bool,
    epoch: Instant,
    /// Calls that began.
    pub(super) calls: Cell<u64>,
    /// The call that is measured next; never where nothing is.
    pub(super) measure_at: Cell<u64>,
    last_method: Cell<u32>,
    /// How the call ended whose handler was dropped last: an index of outcomes.
    last_outcome: Cell<u8>,
    /// The last look at the clock.
    pub(super) clock_ns: Cell<u64>,
    pub(super) one_in: Cell<u64>,
    /// What the call counts for that is being measured.
    weight: Cell<u64>,
    /// Calls that had begun when the last chunk was read.
    chunk_calls: Cell<u64>,
    /// What a call takes about, in sixteenths of a nanosecond.
    call_ns_16: Cell<u64>,
    pub(super) turn: Turn,
    pub(super) watches: Watches,
    pub(super) recent: RefCell<Recent>,
    pub(super) recent_replies: RefCell<Recent>,
    /// As it was set, or found out.
    pub(super) slow_from_ns: Cell<u64>,
    pub(super) slow_reply_ns: Cell<u64>,
    pub(super) is_slow_set: bool,
    /// The slow calls of this turn.
    pub(super) kept: [Cell<u64>; SLOW_PER_TURN_MAX],
    pub(super) kept_len: Cell<usize>,
    pub(super) tick_due_ns: Cell<u64>,
    pub(super) tick_calls: Cell<u64>,
    pub(super) ticks: Cell<u32>,
    /// The services of the shard, for the names of their methods.
    services: RefCell<Vec<Arc<ServiceFigures>>>,
}

/// A handler that waits, as it is measured: in eight bytes, as there may be very many.
#[derive(Clone, Copy, Debug)]
pub(crate) struct WaitingSince {
    /// In 1,024 ns; comes round after 73 minutes.
    began: u32,
    /// In microseconds, 65 ms at most; the maximum where it is not measured.
    queue_us: u16,
    row: u16,
}

impl Meter {
    pub(crate) fn new(is_on: bool, slow_call: Option<Duration>) -> Self {
        let slow_ns = slow_call.map(|slow| u64::try_from(slow.as_nanos()).unwrap_or(u64::MAX));
        let slow_from_ns = slow_ns.unwrap_or(SLOW_FROM_NS);
        Self {
            is_on,
            epoch: Instant::now(),
            calls: Cell::new(0),
            measure_at: Cell::new(if is_on { 1 } else { u64::MAX }),
            last_method: Cell::new(0),
            last_outcome: Cell::new(0),
            clock_ns: Cell::new(0),
            one_in: Cell::new(1),
            weight: Cell::new(1),
            chunk_calls: Cell::new(0),
            call_ns_16: Cell::new(0),
            turn: Turn::default(),
            watches: Watches::default(),
            recent: RefCell::new(Recent::new()),
            recent_replies: RefCell::new(Recent::new()),
            slow_from_ns: Cell::new(slow_from_ns),
            slow_reply_ns: Cell::new(slow_from_ns),
            is_slow_set: slow_ns.is_some(),
            kept: Default::default(),
            kept_len: Cell::new(0),
            tick_due_ns: Cell::new(TICK_NS),
            tick_calls: Cell::new(0),
            ticks: Cell::new(0),
            services: RefCell::default(),
        }
    }

    #[inline]
    pub(super) fn ns_of(&self, time: Instant) -> u64 {
        let since = time.saturating_duration_since(self.epoch);
        since.as_secs() * 1_000_000_000 + u64::from(since.subsec_nanos())
    }

    /// Looks at the clock.
    pub(super) fn look(&self) -> u64 {
        self.ns_of(Instant::now())
    }

    /// Counts a call that begins. True where it is to be measured.
    #[inline]
    pub(crate) fn call_begins(&self, method: u32) -> bool {
        let calls = self.calls.get() + 1;
        self.calls.set(calls);
        self.last_method.set(method);
        calls >= self.measure_at.get()
    }

    /// Notes how a call ended whose handler is being dropped.
    #[inline]
    pub(crate) fn call_ends(&self, code: Option<Code>) {
        self.last_outcome.set(outcome_index(code) as u8);
    }

    /// Counts the call of this method whose handler was dropped last.
    #[inline]
    pub(crate) fn count_call(&self, service: Option<&ServiceFigures>, tag: CallTag) {
        self.count_outcome(service, row_of(service, tag));
    }

    /// Counts the call of this row whose handler was dropped last.
    #[inline]
    fn count_outcome(&self, service: Option<&ServiceFigures>, row: u16) {
        if let Some(service) = service {
            let outcomes = &service.row(row).outcomes;
            // It is the index of an outcome.
            if let Some(outcome) = outcomes.get(usize::from(self.last_outcome.get())) {
                outcome.add(1);
            }
        }
    }

    fn name_of(&self, method: u32) -> &'static str {
        let services = self.services.borrow();
        let mut names = services.iter().map(|service| service.name_of(service.row_of(method)));
        names.find(|name| *name != OTHER_METHODS).unwrap_or(OTHER_METHODS)
    }
}

impl Shard {
    /// The figures of a service that is served here; none where nothing is measured.
    pub(crate) fn figures_of(
        &self,
        methods: &'static [ringcall_codec::MethodInfo],
    ) -> Option<Arc<ServiceFigures>> {
        if !self.meter.is_on {
            return None;
        }
        let service = self.counters.figures.service(methods)?;
        let mut services = self.meter.services.borrow_mut();
        if !services.iter().any(|known| Arc::ptr_eq(known, &service)) {
            services.push(Arc::clone(&service));
        }
        Some(service)
    }

    /// A call is measured from now on: when that is, and the next one is drawn. Zero where it is
    /// not measured after all.
    #[cold]
    #[inline(never)]
    pub(crate) fn begin_measured(&self, tag: CallTag) -> u64 {
        let meter = &self.meter;
        let one_in = meter.one_in.get();
        // One that was asked for, beside those that were drawn, stands for itself.
        let was_drawn = meter.measure_at.get() > 0;
        meter.weight.set(if was_drawn { one_in } else { 1 });
        let gap = if one_in == 1 { 1 } else { 1 + self.random() % (2 * one_in - 1) };
        meter.measure_at.set(meter.calls.get() + gap);
        // A stream lives for as long as its two ends like.
        if tag.is_stream() { 0 } else { meter.look() }
    }

    /// The handler of a call that is measured was done at once.
    #[cold]
    #[inline(never)]
    pub(crate) fn end_measured(
        &self,
        connection: &Rc<Connection>,
        service: Option<&ServiceFigures>,
        tag: CallTag,
        began_ns: u64,
    ) {
        let meter = &self.meter;
        let (ended_ns, weight) = (meter.look(), meter.weight.get());
        let times = CallTimes {
            queue_ns: self.queue_ns(connection, began_ns),
            service_ns: ended_ns.saturating_sub(began_ns),
            away_ns: meter.turn.away.get().total_ns(),
            waited: false,
            was_blocked: meter.ns_of(connection.taken_at()) < meter.turn.began_ns.get(),
        };
        let row = row_of(service, tag);
        let slow = self.record(service, row, began_ns, times, weight);
        if !tag.is_one_way() && connection.watch.get() == 0 && connection.is_alive() {
            let method = name_of_row(service, row);
            let watched = Watched { ended_ns, weight, times, method, slow, ..Watched::default() };
            connection.watch.set(meter.watches.begin(watched));
        }
    }

    /// The handler of a call waits. `began_ns` is zero where it was not to be measured.
    pub(crate) fn begin_waiting(
        &self,
        connection: &Rc<Connection>,
        service: Option<&ServiceFigures>,
        tag: CallTag,
        began_ns: u64,
    ) -> WaitingSince {
        let row = row_of(service, tag);
        if !self.meter.is_on || tag.is_stream() {
            return WaitingSince { began: 0, queue_us: u16::MAX, row };
        }
        // The last look at the clock was when the first call began that came with this one.
        let began_ns = if began_ns == 0 { self.meter.clock_ns.get() } else { began_ns };
        let queue_us = (self.queue_ns(connection, began_ns) / 1000).min(u64::from(u16::MAX) - 1);
        WaitingSince { began: (began_ns >> 10) as u32, queue_us: queue_us as u16, row }
    }

    /// A handler that waited is done.
    pub(crate) fn end_waiting(&self, service: Option<&ServiceFigures>, since: WaitingSince) {
        let WaitingSince { began, queue_us, row } = since;
        self.meter.count_outcome(service, row);
        if queue_us == u16::MAX {
            return;
        }
        let now_ns = self.meter.look();
        let service_ns = u64::from(((now_ns >> 10) as u32).wrapping_sub(began)) << 10;
        let queue_ns = u64::from(queue_us) * 1000;
        let times = CallTimes { queue_ns, service_ns, waited: true, ..CallTimes::default() };
        self.record(service, row, now_ns.saturating_sub(service_ns), times, 1);
    }

    fn queue_ns(&self, connection: &Connection, began_ns: u64) -> u64 {
        began_ns.saturating_sub(self.meter.ns_of(connection.taken_at()))
    }

    /// Records the times of a call. Its number where it was slow and is kept.
    fn record(
        &self,
        service: Option<&ServiceFigures>,
        row: u16,
        began_ns: u64,
        times: CallTimes,
        weight: u64,
    ) -> Option<u64> {
        let (meter, figures) = (&self.meter, &self.counters.figures);
        let CallTimes { queue_ns, service_ns, .. } = times;
        figures.queue_ns.record(queue_ns, weight);
        figures.service_ns.record(service_ns, weight);
        if let Some(service) = service {
            service.row(row).service_ns.record(service_ns, weight);
        }
        let seen_ns = queue_ns + service_ns;
        meter.recent.borrow_mut().record(seen_ns, weight);
        let from_ns = meter.slow_from_ns.get();
        let is_slow = seen_ns >= from_ns || times.away_ns >= from_ns;
        let method = name_of_row(service, row);
        let keep = || self.keep_slow(method, began_ns, times, None, 1);
        let slow = is_slow.then(keep).flatten();
        if !times.waited && service_ns > meter.turn.longest.get().excess_ns {
            meter.turn.longest.set(Longest { excess_ns: service_ns, method });
        }
        slow
    }

    /// The frames of a chunk were read: whether they took longer than such do.
    #[inline]
    pub(crate) fn chunk_ends(&self) {
        let meter = &self.meter;
        if meter.is_on && meter.chunk_calls.get() != meter.calls.get() {
            self.measure_chunk();
        }
    }

    fn measure_chunk(&self) {
        let meter = &self.meter;
        let now_ns = meter.look();
        let took_ns = now_ns.saturating_sub(meter.clock_ns.replace(now_ns));
        let calls = meter.calls.get() - meter.chunk_calls.replace(meter.calls.get());
        let call_ns_16 = meter.call_ns_16.get();
        let excess_ns = took_ns.saturating_sub(calls * call_ns_16 / 16);
        let seen_16 = took_ns * 16 / calls.max(1);
        meter.call_ns_16.set(call_ns_16 + seen_16 / 16 - call_ns_16 / 16);
        if excess_ns > meter.turn.longest.get().excess_ns {
            let method = meter.name_of(meter.last_method.get());
            meter.turn.longest.set(Longest { excess_ns, method });
        }
        if excess_ns >= meter.slow_from_ns.get() && meter.one_in.get() > 1 {
            let times = CallTimes { service_ns: took_ns, ..CallTimes::default() };
            let method = meter.name_of(meter.last_method.get());
            self.keep_slow(method, now_ns - took_ns, times, None, calls);
        }
    }

    /// What was collected on a connection goes to the kernel, with so many replies in it.
    #[inline]
    pub(crate) fn send_begins(&self, connection: &Connection) {
        let replies = connection.replies_unsent.take();
        if self.meter.is_on && replies > 0 {
            self.counters.figures.calls_per_send.record(u64::from(replies), 1);
            self.meter.watches.sends(connection.watch.get());
        }
    }
}

/// The row of a call's method.
#[inline]
fn row_of(service: Option<&ServiceFigures>, tag: CallTag) -> u16 {
    service.map_or(0, |service| service.row_of(tag.method()))
}

fn name_of_row(service: Option<&ServiceFigures>, row: u16) -> &'static str {
    service.map_or(OTHER_METHODS, |service| service.name_of(row))
}

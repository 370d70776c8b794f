//! Turns as the driver tells of them: when they begin and end, and where it was between them.
//!
//! Also what is looked at now and then, at the end of a turn.

use std::time::{Duration, Instant};

use super::{
    meter::{
        MEASURED_PER_S, ONE_IN_MAX, SLOW_FROM_NS, SLOW_FROM_NS_MIN, SLOW_ONE_IN, TICK_NS,
        TICKS_PER_LOOK,
    },
    turn::{Away, AwayTimes},
};
use crate::shard::Shard;

impl Shard {
    /// A turn begins: what the ring has was taken.
    #[inline]
    pub(crate) fn turn_begins(&self, now: Instant) {
        let meter = &self.meter;
        if !meter.is_on {
            return;
        }
        let now_ns = meter.ns_of(now);
        let before_ns = meter.clock_ns.replace(now_ns);
        let turn = &meter.turn;
        let mut away = turn.away_since.take();
        if turn.was_idle.replace(false) {
            away = AwayTimes::default();
        } else {
            away.kernel_ns += now_ns.saturating_sub(before_ns);
        }
        turn.away.set(away);
        turn.began_ns.set(now_ns);
        if away.total_ns() >= meter.slow_from_ns.get() {
            // The first call may have waited for all of that.
            meter.measure_at.set(0);
        }
    }

    /// A turn that found something to do has ended.
    #[inline]
    pub(crate) fn turn_ends(&self) {
        let meter = &self.meter;
        if !meter.is_on {
            return;
        }
        let figures = &self.counters.figures;
        let turn = &meter.turn;
        let now_ns = meter.look();
        meter.clock_ns.set(now_ns);
        let turn_ns = now_ns - turn.began_ns.get();
        figures.turn_ns.record(turn_ns, 1);
        let calls = meter.calls.get();
        let batch = calls - turn.calls_before.replace(calls);
        if batch > 0 {
            figures.calls_per_turn.record(batch, 1);
        }
        if meter.kept_len.get() > 0 {
            self.amend_slow(turn_ns, batch);
        }
        turn.longest.take();
        turn.copies_before.set(self.copies());
        turn.short_before.set(turn.short_at_begin.replace(self.shortages()));
        let gauges = &figures.gauges;
        gauges.buffers_free.set(self.pool.free() as u64);
        gauges.calls_running.set(self.calls_running() as u64);
        gauges.connections_open.set(self.connections.borrow().len() as u64);
        if now_ns >= meter.tick_due_ns.get() {
            self.tick(now_ns);
        }
    }

    /// The driver goes on after it was elsewhere.
    pub(crate) fn came_back(&self, from: Away) {
        let meter = &self.meter;
        if !meter.is_on {
            return;
        }
        let now_ns = meter.look();
        let away_ns = now_ns.saturating_sub(meter.clock_ns.replace(now_ns));
        let mut away = meter.turn.away_since.get();
        match from {
            Away::Tasks => {
                self.counters.figures.tasks_ns.record(away_ns, 1);
                away.tasks_ns += away_ns;
            }
            Away::Reactor => {
                self.counters.figures.reactor_turn_ns.record(away_ns, 1);
                away.reactor_ns += away_ns;
            }
        }
        meter.turn.away_since.set(away);
    }

    /// The driver lets the reactor run, so long after it did last.
    pub(crate) fn reactor_turn_begins(&self, gap: Duration) {
        let meter = &self.meter;
        if meter.is_on {
            meter.clock_ns.set(meter.look());
            let gap_ns = u64::try_from(gap.as_nanos()).unwrap_or(u64::MAX);
            self.counters.figures.reactor_gap_ns.record(gap_ns, 1);
        }
    }

    /// The shard has nothing to do: what comes now came while it waited for it.
    pub(crate) fn becomes_idle(&self) {
        self.meter.turn.was_idle.set(true);
    }

    /// Now and then: how many calls are measured, and from when on one is slow.
    #[cold]
    fn tick(&self, now_ns: u64) {
        let meter = &self.meter;
        let since_ns = now_ns - (meter.tick_due_ns.replace(now_ns + TICK_NS) - TICK_NS);
        let calls = meter.calls.get() - meter.tick_calls.replace(meter.calls.get());
        let per_s = u128::from(calls) * 1_000_000_000 / u128::from(since_ns.max(1));
        let one_in = u64::try_from(per_s).unwrap_or(u64::MAX) / MEASURED_PER_S;
        let one_in = one_in.min(ONE_IN_MAX).next_power_of_two();
        meter.one_in.set(one_in);
        let ticks = meter.ticks.get() + 1;
        meter.ticks.set(ticks % TICKS_PER_LOOK);
        if ticks == TICKS_PER_LOOK && !meter.is_slow_set {
            let seen = meter.recent.borrow_mut().exceeded_by_one_in(SLOW_ONE_IN);
            let from = |seen: Option<u64>| seen.unwrap_or(SLOW_FROM_NS).max(SLOW_FROM_NS_MIN);
            meter.slow_from_ns.set(from(seen));
            let replies = meter.recent_replies.borrow_mut().exceeded_by_one_in(SLOW_ONE_IN);
            meter.slow_reply_ns.set(from(replies));
        }
        let gauges = &self.counters.figures.gauges;
        gauges.measured_one_in.set(one_in);
        gauges.slow_from_ns.set(meter.slow_from_ns.get());
        gauges.owned_bytes.set(self.owned.outstanding_bytes() as u64);
    }
}

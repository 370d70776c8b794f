//! Outliers: slow calls kept with what the shard was doing, and replies that were slow.

use std::time::{Duration, SystemTime};

use super::{
    slow::{Cause, SlowCall},
    turn::CallTimes,
};
use crate::{connection::Connection, shard::Shard};

impl Shard {
    /// A send of a connection that is watched is done.
    #[cold]
    pub(crate) fn watched_sent(&self, connection: &Connection) {
        let meter = &self.meter;
        let Some(watched) = meter.watches.sent(connection.watch.get()) else { return };
        connection.watch.set(0);
        let reply_ns = meter.ns_of(self.now()).saturating_sub(watched.ended_ns);
        self.counters.figures.reply_ns.record(reply_ns, watched.weight);
        meter.recent_replies.borrow_mut().record(reply_ns, watched.weight);
        let reply = Duration::from_nanos(reply_ns);
        let CallTimes { queue_ns, service_ns, .. } = watched.times;
        let is_longest = reply_ns > queue_ns + service_ns;
        let is_slow = reply_ns >= meter.slow_reply_ns.get() && is_longest;
        // The shard may have been elsewhere when the kernel had taken it.
        let away = meter.turn.away.get();
        let cause = if away.total_ns() > reply_ns / 2 { away.cause() } else { Cause::Reply };
        match watched.slow {
            Some(number) => self.counters.figures.slow.amend(number, |call| {
                call.reply = reply;
                if is_slow {
                    call.cause = cause;
                }
            }),
            None if is_slow => {
                let began_ns = watched.ended_ns.saturating_sub(service_ns);
                self.keep_slow(watched.method, began_ns, watched.times, Some((reply, cause)), 1);
            }
            None => {}
        }
    }

    /// A connection ends: nothing of it is watched any more.
    pub(crate) fn ends_watch(&self, connection: &Connection) {
        self.meter.watches.end(connection.watch.take());
    }

    /// Keeps a slow call, and gives its number.
    #[cold]
    pub(super) fn keep_slow(
        &self,
        method: &'static str,
        began_ns: u64,
        times: CallTimes,
        reply: Option<(Duration, Cause)>,
        calls: u64,
    ) -> Option<u64> {
        let (meter, figures) = (&self.meter, &self.counters.figures);
        figures.slow.seen.add(1);
        let kept = meter.kept_len.get();
        let place = meter.kept.get(kept)?;
        let turn = &meter.turn;
        let is_pool_short = self.shortages() > turn.short_before.get();
        let judged = || (Duration::ZERO, turn.cause_of(&times, is_pool_short));
        let is_over = reply.is_some();
        let (reply, cause) = reply.unwrap_or_else(judged);
        let ago = Duration::from_nanos(meter.look().saturating_sub(began_ns));
        let number = figures.slow.keep(SlowCall {
            shard: self.place.index,
            method,
            at: SystemTime::now().checked_sub(ago).unwrap_or(SystemTime::UNIX_EPOCH),
            calls: u32::try_from(calls).unwrap_or(u32::MAX),
            queue: Duration::from_nanos(times.queue_ns),
            service: Duration::from_nanos(times.service_ns),
            reply,
            away: Duration::from_nanos(times.away_ns),
            turn: Duration::ZERO,
            batch: 0,
            copies: (self.copies() - turn.copies_before.get()) as u32,
            buffers_free: self.pool.free() as u32,
            cause,
        })?;
        // Of one whose turn is over, this one says nothing.
        place.set(if is_over { u64::MAX } else { number });
        meter.kept_len.set(kept + 1);
        Some(number)
    }

    /// Says of the slow calls of a turn how it went on.
    #[cold]
    pub(super) fn amend_slow(&self, turn_ns: u64, batch: u64) {
        for number in &self.meter.kept[..self.meter.kept_len.take()] {
            self.counters.figures.slow.amend(number.get(), |call| {
                call.turn = Duration::from_nanos(turn_ns);
                call.batch = u32::try_from(batch).unwrap_or(u32::MAX);
            });
        }
    }

    pub(super) fn copies(&self) -> u64 {
        let counters = &self.counters;
        counters.frames_copied_straddle.get()
            + counters.frames_copied_misaligned.get()
            + counters.frames_copied_pressure.get()
            + counters.frames_copied_large.get()
    }

    /// How often receive buffers were short.
    pub(super) fn shortages(&self) -> u64 {
        self.counters.frames_copied_pressure.get() + self.counters.buffers_exhausted.get()
    }
}

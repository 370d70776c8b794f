//! The life of a connection: what it waits for and for how long, and how it ends well.
//!
//! Times are the transport's, in microseconds from any start.

use alloc::boxed::Box;
use core::num::NonZeroU64;

use super::{config::Patience, extras::NEVER};
use crate::limits::{CANCELS_PER_SECOND_MAX, PART_LEN, PARTS_AT_ONCE_MAX, PINGS_PER_SECOND_MAX};

/// Bytes of frames in parts that may be on their way and not seen: the longest part.
const LONG_SLACK_LEN: u64 = (PART_LEN * PARTS_AT_ONCE_MAX + PART_LEN / 2) as u64;

/// The clock of a session, and what it measures. Small, as there can be thousands that idle.
#[derive(Debug)]
pub(super) struct Life {
    pub(super) now_us: u64,
    /// When bytes came last.
    received_us: u64,
    /// When a call was made or ended last.
    called_us: u64,
    /// When this end had sent last what was to be sent before the answer of the PING that was sent.
    progress_us: u64,
    /// When the frame that is being received is to have come, and when it began to.
    frame_due_us: u64,
    frame_since_us: u64,
    /// When the call that is being handled came; [`NEVER`] is now.
    call_begun_us: u64,
    /// When the last PING was sent; [`NEVER`] where it was answered, or none was.
    ping_us: u64,
    /// When the connection is given up that has had no HELLO; [`NEVER`] once it came.
    hello_due_us: u64,
    /// When the connection is old.
    age_due_us: u64,
    /// PINGs that were sent: the number of the last.
    pings_sent: u64,
    /// The PING whose answer means that the peer knows of the drain.
    drain_ping: Option<NonZeroU64>,
    /// The frames that come in parts, where there was one ever.
    long: Option<Box<Long>>,
    cancels: Rate,
    pings: Rate,
}

/// What was told of the frames that come in parts.
#[derive(Debug)]
struct Long {
    /// When they are to have come.
    due_us: u64,
    /// Bytes that are still to come of them.
    missing: u64,
    /// Bytes that came, in the life of the connection.
    came: u64,
}

/// What is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Due {
    Nothing,
    NoHello,
    FrameStalled,
    PeerSilent,
    Ping,
    Idle,
    Aged,
}

/// Counts events within a second.
#[derive(Clone, Copy, Debug, Default)]
struct Rate {
    /// When the second began, in milliseconds, which are counted anew after 49 days: a count that
    /// is as old as that may be taken for one of the last second.
    since_ms: u32,
    count: u32,
}

impl Rate {
    /// Counts one. False where it is one too many.
    fn allows(&mut self, now_us: u64, per_second_max: u32) -> bool {
        let now_ms = (now_us / 1000) as u32;
        if now_ms.wrapping_sub(self.since_ms) >= 1000 {
            *self = Self { since_ms: now_ms, count: 0 };
        }
        self.count = self.count.saturating_add(1);
        self.count <= per_second_max
    }
}

impl Life {
    /// That of a connection which is drained at this age, in microseconds; at zero never.
    pub(super) fn new(patience: &Patience, age_us: u64) -> Self {
        Self {
            now_us: 0,
            received_us: 0,
            called_us: 0,
            progress_us: 0,
            frame_due_us: NEVER,
            frame_since_us: NEVER,
            call_begun_us: NEVER,
            ping_us: NEVER,
            hello_due_us: after(0, patience.hello_us, true),
            age_due_us: after(0, age_us, true),
            pings_sent: 0,
            drain_ping: None,
            long: None,
            cancels: Rate::default(),
            pings: Rate::default(),
        }
    }

    /// The connection begins.
    pub(super) fn begin(&mut self, now_us: u64) {
        self.now_us = now_us;
        self.received_us = now_us;
        self.called_us = now_us;
        self.hello_due_us = self.hello_due_us.saturating_add(now_us);
        self.age_due_us = self.age_due_us.saturating_add(now_us);
    }

    /// Time goes on; never back.
    #[inline]
    pub(super) fn set_now(&mut self, now_us: u64) {
        self.now_us = self.now_us.max(now_us);
    }

    /// Bytes came: a sign of life.
    #[inline]
    pub(super) fn received(&mut self, now_us: u64) {
        self.set_now(now_us);
        self.received_us = self.now_us;
    }

    /// The peer's side has taken bytes: a PING may wait behind them.
    #[inline]
    pub(super) fn sent(&mut self, now_us: u64) {
        self.set_now(now_us);
        self.progress_us = self.now_us;
    }

    /// A frame is complete.
    #[inline]
    pub(super) fn frame_ended(&mut self) {
        self.frame_since_us = NEVER;
        self.frame_due_us = NEVER;
    }

    /// The bytes that came end inside of a frame, of this length if that is known.
    pub(super) fn frame_is_cut(&mut self, patience: &Patience, frame_len: Option<u64>) {
        if patience.frame_us == 0 {
            return;
        }
        if self.frame_since_us == NEVER {
            self.frame_since_us = self.now_us;
            self.frame_due_us = self.now_us;
        }
        let allowed_us = patience.frame_us.saturating_add(bytes_us(patience, frame_len));
        // Its length may be known only after its first bytes; what a length allows is not taken back.
        self.frame_due_us = self.frame_due_us.max(self.frame_since_us.saturating_add(allowed_us));
    }

    /// So many bytes are still to come of frames in parts, and so many were announced ever.
    ///
    /// What has come of them gives time for what is still to come, and no more of it than a sender
    /// needs that goes on: so neither bytes that trickle nor bytes that came fast allow a stall.
    #[inline]
    pub(super) fn long_frames(&mut self, patience: &Patience, missing: u64, announced: u64) {
        if self.long.is_some() || announced > 0 {
            self.some_long_frames(patience, missing, announced);
        }
    }

    fn some_long_frames(&mut self, patience: &Patience, missing: u64, announced: u64) {
        let none = || Box::new(Long { due_us: NEVER, missing: 0, came: 0 });
        let long = self.long.get_or_insert_with(none);
        let came = announced - missing;
        let new = came - long.came;
        (long.missing, long.came) = (missing, came);
        if missing == 0 {
            long.due_us = NEVER;
            return;
        }
        // What comes for a call is use.
        self.called_us = self.now_us;
        if patience.frame_us == 0 {
            return;
        }
        // Other frames have every other turn, and a part may be seen only when it has ended.
        let slack_us =
            bytes_us(patience, Some(2 * LONG_SLACK_LEN)).saturating_add(patience.frame_us);
        let latest_us = self.now_us.saturating_add(slack_us);
        let more_us = bytes_us(patience, Some(new.saturating_mul(2)));
        long.due_us = long.due_us.saturating_add(more_us).min(latest_us);
    }

    /// What the peer sends is not read for now: the time begins anew when it is.
    pub(super) fn pause_long_frames(&mut self) {
        if let Some(long) = &mut self.long {
            long.due_us = NEVER;
        }
    }

    /// Whether frames in parts have begun and not ended.
    #[inline]
    pub(super) fn has_long_frames(&self) -> bool {
        self.long.as_ref().is_some_and(|long| long.missing > 0)
    }

    /// When those are to have come.
    #[inline]
    fn long_due_us(&self) -> u64 {
        self.long.as_ref().map_or(NEVER, |long| long.due_us)
    }

    /// When the call that is being handled came; [`NEVER`] is now.
    pub(super) fn set_call_begun(&mut self, begun_us: u64) {
        self.call_begun_us = begun_us;
    }

    /// From when the time of the call that is being handled counts.
    pub(super) fn call_begun_us(&self) -> u64 {
        self.call_begun_us.min(self.now_us)
    }

    /// The peer has said HELLO, or why it says none.
    pub(super) fn hello_came(&mut self) {
        self.hello_due_us = NEVER;
        self.used();
    }

    /// A call was made or has ended.
    #[inline]
    pub(super) fn used(&mut self) {
        self.called_us = self.now_us;
    }

    /// How long no call was made or has ended, in microseconds.
    pub(super) fn unused_us(&self) -> u64 {
        self.now_us - self.called_us
    }

    /// Counts a CANCEL of the peer. False where it sends too many.
    pub(super) fn allows_cancel(&mut self) -> bool {
        self.cancels.allows(self.now_us, CANCELS_PER_SECOND_MAX)
    }

    /// Counts a PING of the peer. False where it sends too many.
    pub(super) fn allows_ping(&mut self) -> bool {
        self.pings.allows(self.now_us, PINGS_PER_SECOND_MAX)
    }

    /// A PING is to be sent: its number.
    pub(super) fn begin_ping(&mut self) -> u64 {
        self.pings_sent += 1;
        self.ping_us = self.now_us;
        self.progress_us = self.now_us;
        self.pings_sent
    }

    /// A PING is to be sent after the announcement of a drain.
    pub(super) fn begin_drain(&mut self) -> u64 {
        let number = self.begin_ping();
        self.drain_ping = NonZeroU64::new(number);
        number
    }

    /// A PONG came: the round trip in microseconds, where it answers the last PING.
    pub(super) fn pong(&mut self, number: u64) -> Option<u64> {
        if self.drain_ping.is_some_and(|ping| ping.get() == number) {
            self.drain_ping = None;
        }
        if number != self.pings_sent || self.ping_us == NEVER {
            return None;
        }
        let sent_us = core::mem::replace(&mut self.ping_us, NEVER);
        Some(self.now_us - sent_us)
    }

    /// Whether the peer may not know of the drain yet.
    pub(super) fn awaits_drain_pong(&self) -> bool {
        self.drain_ping.is_some()
    }

    /// What is due now.
    pub(super) fn due(
        &self,
        patience: &Patience,
        is_open: bool,
        has_calls: bool,
        drains: bool,
    ) -> Due {
        let is_due = |at_us: u64| at_us <= self.now_us;
        if is_due(self.hello_due_us) {
            Due::NoHello
        } else if is_due(self.frame_due_us.min(self.long_due_us())) {
            Due::FrameStalled
        } else if is_due(self.ping_at_us(patience, is_open)) {
            if self.awaits_pong() { Due::PeerSilent } else { Due::Ping }
        } else if is_due(self.idle_at_us(patience, is_open, has_calls, drains)) {
            Due::Idle
        } else if is_due(self.age_at_us(is_open, drains)) {
            Due::Aged
        } else {
            Due::Nothing
        }
    }

    /// When something may be due next; [`NEVER`] where nothing will be.
    #[inline]
    pub(super) fn next_us(
        &self,
        patience: &Patience,
        is_open: bool,
        has_calls: bool,
        drains: bool,
    ) -> u64 {
        self.hello_due_us
            .min(self.frame_due_us)
            .min(self.long_due_us())
            .min(self.ping_at_us(patience, is_open))
            .min(self.idle_at_us(patience, is_open, has_calls, drains))
            .min(self.age_at_us(is_open, drains))
    }

    /// When to send a PING, or to give up waiting for its answer. Whatever comes from the peer is
    /// as good as an answer.
    #[inline]
    fn ping_at_us(&self, patience: &Patience, is_open: bool) -> u64 {
        if self.awaits_pong() {
            let since_us = self.ping_us.max(self.progress_us);
            return after(since_us, patience.ping_answer_us, is_open);
        }
        after(self.received_us, patience.ping_after_us, is_open)
    }

    /// Whether a PING was sent and nothing has come since.
    #[inline]
    fn awaits_pong(&self) -> bool {
        self.ping_us != NEVER && self.ping_us >= self.received_us
    }

    #[inline]
    fn idle_at_us(&self, patience: &Patience, is_open: bool, has_calls: bool, drains: bool) -> u64 {
        after(self.called_us, patience.idle_us, is_open && !has_calls && !drains)
    }

    #[inline]
    fn age_at_us(&self, is_open: bool, drains: bool) -> u64 {
        if is_open && !drains { self.age_due_us } else { NEVER }
    }
}

/// How long so many bytes may take at the slowest.
fn bytes_us(patience: &Patience, bytes: Option<u64>) -> u64 {
    match patience.bytes_per_s_min {
        0 => NEVER,
        rate => bytes.unwrap_or(0).saturating_mul(1_000_000) / rate,
    }
}

/// A time after another, where it is waited for; zero is for ever.
#[inline]
fn after(since_us: u64, patience_us: u64, is_awaited: bool) -> u64 {
    if patience_us == 0 || !is_awaited { NEVER } else { since_us.saturating_add(patience_us) }
}

//! The life of a connection: what it waits for and for how long, and how it ends well.
//!
//! Times are the transport's, in microseconds from any start.

use super::{config::Patience, extras::NEVER};
use crate::limits::{CANCELS_PER_SECOND_MAX, PART_LEN, PARTS_AT_ONCE_MAX, PINGS_PER_SECOND_MAX};

/// Bytes of frames in parts that may be on their way and not seen: the longest part.
const LONG_SLACK_LEN: u64 = (PART_LEN * PARTS_AT_ONCE_MAX + PART_LEN / 2) as u64;

/// The clock of a session, and what it measures.
#[derive(Debug)]
pub(super) struct Life {
    patience: Patience,
    pub(super) now_us: u64,
    opened_us: u64,
    /// Whether the peer has said nothing yet.
    awaits_hello: bool,
    /// When bytes came last.
    received_us: u64,
    /// When a call was made or ended last.
    called_us: u64,
    /// When the frame that is being received began to arrive, and how long it may take.
    frame_due_us: u64,
    frame_since_us: u64,
    /// When the frames that come in parts are to have come, and what was told of them.
    long_due_us: u64,
    long_missing: u64,
    long_came: u64,
    /// When the call that is being handled came; [`NEVER`] is now.
    call_begun_us: u64,
    /// The PING that is not answered: its number and when it was sent.
    ping: Option<(u64, u64)>,
    /// When this end had sent last what was to be sent before that PING's answer.
    progress_us: u64,
    pings_sent: u64,
    /// The PING whose answer means that the peer knows of the drain.
    drain_ping: Option<u64>,
    cancels: Rate,
    pings: Rate,
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
    since_us: u64,
    count: u32,
}

impl Rate {
    /// Counts one. False where it is one too many.
    fn allows(&mut self, now_us: u64, per_second_max: u32) -> bool {
        if now_us.saturating_sub(self.since_us) >= 1_000_000 {
            *self = Self { since_us: now_us, count: 0 };
        }
        self.count = self.count.saturating_add(1);
        self.count <= per_second_max
    }
}

impl Life {
    pub(super) fn new(patience: Patience) -> Self {
        Self {
            patience,
            now_us: 0,
            opened_us: 0,
            awaits_hello: true,
            received_us: 0,
            called_us: 0,
            frame_due_us: NEVER,
            frame_since_us: NEVER,
            long_due_us: NEVER,
            long_missing: 0,
            long_came: 0,
            call_begun_us: NEVER,
            ping: None,
            progress_us: 0,
            pings_sent: 0,
            drain_ping: None,
            cancels: Rate::default(),
            pings: Rate::default(),
        }
    }

    /// The connection begins.
    pub(super) fn begin(&mut self, now_us: u64) {
        self.now_us = now_us;
        self.opened_us = now_us;
        self.received_us = now_us;
        self.called_us = now_us;
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
    pub(super) fn frame_is_cut(&mut self, frame_len: Option<u64>) {
        if self.patience.frame_us == 0 {
            return;
        }
        if self.frame_since_us == NEVER {
            self.frame_since_us = self.now_us;
            self.frame_due_us = self.now_us;
        }
        let allowed_us = self.patience.frame_us.saturating_add(self.bytes_us(frame_len));
        // Its length may be known only after its first bytes; what a length allows is not taken back.
        self.frame_due_us = self.frame_due_us.max(self.frame_since_us.saturating_add(allowed_us));
    }

    /// So many bytes are still to come of frames in parts, and so many were announced ever.
    ///
    /// What has come of them gives time for what is still to come, and no more of it than a sender
    /// needs that goes on: so neither bytes that trickle nor bytes that came fast allow a stall.
    pub(super) fn long_frames(&mut self, missing: u64, announced: u64) {
        let came = announced - missing;
        let new = came - self.long_came;
        (self.long_missing, self.long_came) = (missing, came);
        if missing == 0 {
            self.long_due_us = NEVER;
            return;
        }
        // What comes for a call is use.
        self.used();
        if self.patience.frame_us == 0 {
            return;
        }
        // Other frames have every other turn, and a part may be seen only when it has ended.
        let slack_us =
            self.bytes_us(Some(2 * LONG_SLACK_LEN)).saturating_add(self.patience.frame_us);
        let latest_us = self.now_us.saturating_add(slack_us);
        let more_us = self.bytes_us(Some(new.saturating_mul(2)));
        self.long_due_us = self.long_due_us.saturating_add(more_us).min(latest_us);
    }

    /// What the peer sends is not read for now: the time begins anew when it is.
    pub(super) fn pause_long_frames(&mut self) {
        self.long_due_us = NEVER;
    }

    /// Whether frames in parts have begun and not ended.
    pub(super) fn has_long_frames(&self) -> bool {
        self.long_missing > 0
    }

    /// How long so many bytes may take at the slowest.
    fn bytes_us(&self, bytes: Option<u64>) -> u64 {
        match self.patience.bytes_per_s_min {
            0 => NEVER,
            rate => bytes.unwrap_or(0).saturating_mul(1_000_000) / rate,
        }
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
        self.awaits_hello = false;
        self.used();
    }

    /// A call was made or has ended.
    #[inline]
    pub(super) fn used(&mut self) {
        self.called_us = self.now_us;
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
        self.ping = Some((self.pings_sent, self.now_us));
        self.progress_us = self.now_us;
        self.pings_sent
    }

    /// A PING is to be sent after the announcement of a drain.
    pub(super) fn begin_drain(&mut self) -> u64 {
        let number = self.begin_ping();
        self.drain_ping = Some(number);
        number
    }

    /// A PONG came: the round trip in microseconds, where it answers the last PING.
    pub(super) fn pong(&mut self, number: u64) -> Option<u64> {
        if self.drain_ping == Some(number) {
            self.drain_ping = None;
        }
        let (_, sent_us) = self.ping.take_if(|(sent, _)| *sent == number)?;
        Some(self.now_us - sent_us)
    }

    /// Whether the peer may not know of the drain yet.
    pub(super) fn awaits_drain_pong(&self) -> bool {
        self.drain_ping.is_some()
    }

    /// What is due now.
    pub(super) fn due(&self, is_open: bool, has_calls: bool, drains: bool) -> Due {
        let is_due = |at_us: u64| at_us <= self.now_us;
        if is_due(self.hello_at_us()) {
            Due::NoHello
        } else if is_due(self.frame_due_us.min(self.long_due_us)) {
            Due::FrameStalled
        } else if is_due(self.ping_at_us(is_open)) {
            if self.awaits_pong() { Due::PeerSilent } else { Due::Ping }
        } else if is_due(self.idle_at_us(is_open, has_calls, drains)) {
            Due::Idle
        } else if is_due(self.age_at_us(is_open, drains)) {
            Due::Aged
        } else {
            Due::Nothing
        }
    }

    /// When something may be due next; [`NEVER`] where nothing will be.
    #[inline]
    pub(super) fn next_us(&self, is_open: bool, has_calls: bool, drains: bool) -> u64 {
        self.hello_at_us()
            .min(self.frame_due_us)
            .min(self.long_due_us)
            .min(self.ping_at_us(is_open))
            .min(self.idle_at_us(is_open, has_calls, drains))
            .min(self.age_at_us(is_open, drains))
    }

    #[inline]
    fn hello_at_us(&self) -> u64 {
        after(self.opened_us, self.patience.hello_us, self.awaits_hello)
    }

    /// When to send a PING, or to give up waiting for its answer. Whatever comes from the peer is
    /// as good as an answer.
    #[inline]
    fn ping_at_us(&self, is_open: bool) -> u64 {
        match self.ping {
            Some((_, sent_us)) if self.awaits_pong() => {
                let since_us = sent_us.max(self.progress_us);
                after(since_us, self.patience.ping_answer_us, is_open)
            }
            _ => after(self.received_us, self.patience.ping_after_us, is_open),
        }
    }

    /// Whether a PING was sent and nothing has come since.
    #[inline]
    fn awaits_pong(&self) -> bool {
        self.ping.is_some_and(|(_, sent_us)| sent_us >= self.received_us)
    }

    #[inline]
    fn idle_at_us(&self, is_open: bool, has_calls: bool, drains: bool) -> u64 {
        after(self.called_us, self.patience.idle_us, is_open && !has_calls && !drains)
    }

    #[inline]
    fn age_at_us(&self, is_open: bool, drains: bool) -> u64 {
        after(self.opened_us, self.patience.age_us, is_open && !drains)
    }
}

/// A time after another, where it is waited for; zero is for ever.
#[inline]
fn after(since_us: u64, patience_us: u64, is_awaited: bool) -> u64 {
    if patience_us == 0 || !is_awaited { NEVER } else { since_us.saturating_add(patience_us) }
}

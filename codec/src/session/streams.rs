//! Streams: items that travel in either direction while a call runs, and the credit they take.
//!
//! The receiver of items grants credit in bytes, to each stream and to all streams of the
//! connection together. An item may be sent while both are above zero, and takes its length from
//! both, below zero if need be: so an item of any length can be sent, and a receiver holds of each
//! stream its window and one item at most, and of all together theirs and two.

use alloc::boxed::Box;

use super::{
    SessionError,
    session::{Event, Session, plain},
};
use crate::{
    encode::{EncodeError, Scratch, encode_bytes, encode_message},
    header::{CallId, Flags, Header, Kind},
    limits::ITEM_COST_MIN,
    message::Message,
};

/// A stream: the call it belongs to, and whether that was made here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct StreamId {
    /// The call.
    pub call: CallId,
    /// Whether this end made the call; else it serves it.
    pub is_made_here: bool,
}

/// Both directions of one stream, as one end of it sees them.
#[derive(Debug)]
pub(super) struct Stream {
    /// Credit for items sent, in bytes.
    send_left: i64,
    /// Credit that the peer has left, in bytes.
    receive_left: i64,
    /// Bytes of items that were taken and not yet granted anew.
    taken: u32,
    /// Bytes of items that came and were not taken.
    untaken: u32,
    sent: u32,
    received: u32,
    has_ended_sending: bool,
    has_ended_receiving: bool,
    /// Whether its call has an outcome at this end. It stays for its items that were not taken.
    is_over: bool,
}

/// The credit of all streams of a connection together.
#[derive(Debug, Default)]
pub(super) struct Credit {
    /// What may be sent, in bytes.
    pub(super) send_left: i64,
    /// What the peer may send, in bytes.
    pub(super) receive_left: i64,
    /// What the longest item took that has come.
    longest: u32,
    taken: u32,
}

/// Why an item was not sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ItemError {
    /// The receiver has granted no credit for now; an [`Event::Credit`] tells when it has.
    #[error("no credit for now")]
    NoCredit,
    /// The same, for all streams of the connection together.
    #[error("no credit of the connection for now")]
    NoSharedCredit,
    /// The call has ended, or the items of this end.
    #[error("the stream has ended")]
    Ended,
    /// The item could not be encoded.
    #[error(transparent)]
    Encode(#[from] EncodeError),
}

impl Credit {
    /// Takes what an item costs that has come. Whether it cannot have been sent with credit.
    ///
    /// Each item was sent while some was left, and those of different streams may have overtaken
    /// each other: so the last that was sent, whichever it is, may be below zero by itself.
    #[inline]
    fn overdraws(&mut self, cost: u32) -> bool {
        self.receive_left -= i64::from(cost);
        self.longest = self.longest.max(cost);
        cost > 0 && self.receive_left + i64::from(self.longest) <= 0
    }
}

impl Stream {
    pub(super) fn new(send_window: u32, receive_window: u32) -> Box<Self> {
        Box::new(Self {
            send_left: send_window.into(),
            receive_left: receive_window.into(),
            taken: 0,
            untaken: 0,
            sent: 0,
            received: 0,
            has_ended_sending: false,
            has_ended_receiving: false,
            is_over: false,
        })
    }

    /// Its call has its outcome: nothing is sent any more, and what still comes is late. Items that
    /// came can be taken.
    pub(super) fn close(&mut self) {
        self.has_ended_sending = true;
        self.has_ended_receiving = true;
        self.is_over = true;
    }
}

impl Session {
    /// Sends an item, encoded straight into the output.
    ///
    /// # Errors
    ///
    /// Where there is no credit, the stream has ended, or the item cannot be encoded; nothing was
    /// sent.
    #[inline]
    pub fn send_item<T: Message>(
        &mut self,
        scratch: &mut Scratch,
        stream: StreamId,
        item: &T,
    ) -> Result<(), ItemError> {
        let frame_len_max = self.peer_frame_len_max();
        let is_open = self.is_open_or_answers();
        let (Some(state), true) = (self.stream_mut(stream), is_open) else {
            return Err(ItemError::Ended);
        };
        if state.has_ended_sending {
            return Err(ItemError::Ended);
        }
        let header = item_header(stream, state.sent, Flags::NONE);
        if state.send_left <= 0 {
            return Err(ItemError::NoCredit);
        }
        if self.credit.send_left <= 0 {
            return Err(ItemError::NoSharedCredit);
        }
        let len = self.output.len();
        encode_message(&mut self.output, scratch, header, &[], item, frame_len_max)?;
        let cost = i64::from(cost_of((self.output.len() - len) as u64));
        self.credit.send_left -= cost;
        if let Some(state) = self.stream_mut(stream) {
            state.send_left -= cost;
            state.sent = state.sent.wrapping_add(1);
        }
        Ok(())
    }

    /// Counts an item that was sent as one of another length.
    pub(super) fn recount(&mut self, stream: StreamId, before: u64, after: u64) {
        let refund = i64::from(cost_of(before)) - i64::from(cost_of(after));
        self.credit.send_left += refund;
        if let Some(state) = self.stream_mut(stream) {
            state.send_left += refund;
        }
    }

    /// Says that no more items come from this end. A second time changes nothing.
    pub fn end_items(&mut self, stream: StreamId) {
        if !self.is_open_or_answers() {
            return;
        }
        if let Some(state) = self.stream_mut(stream)
            && !state.has_ended_sending
        {
            state.has_ended_sending = true;
            let header = item_header(stream, state.sent, Flags::END);
            encode_bytes(&mut self.output, header, b"");
        }
    }

    /// Notes that an item was taken, so that its sender may send another: the item's frame had
    /// this length in bytes.
    #[inline]
    pub fn item_taken(&mut self, stream: StreamId, frame_len: u64) {
        let cost = cost_of(frame_len);
        let window = self.end.hello.limits.stream_window;
        let Some(state) = self.stream_mut(stream) else {
            // Its outcome was taken, or nobody waits for it: what it had was granted anew then.
            return;
        };
        state.untaken = state.untaken.saturating_sub(cost);
        state.taken = state.taken.saturating_add(cost);
        if state.taken >= window / 2 && !state.has_ended_receiving {
            let granted = core::mem::take(&mut state.taken);
            state.receive_left += i64::from(granted);
            self.write_credit(Some(stream), granted);
        }
        self.grant(cost);
    }

    /// Whether the call is a stream, and has not ended.
    pub fn is_stream(&self, stream: StreamId) -> bool {
        let found = if stream.is_made_here {
            self.made.table.stream(stream.call)
        } else {
            self.running.table.stream(stream.call)
        };
        found.is_some_and(|stream| !stream.is_over)
    }

    #[inline]
    pub(super) fn item(&mut self, header: &Header) -> Result<Event, SessionError> {
        let call = header.call;
        // Who serves the call has sent it: so it was made here.
        let is_made_here = header.flags.contains(Flags::CALLEE);
        let stream = StreamId { call, is_made_here };
        let is_end = header.flags.contains(Flags::END);
        // The end of a stream takes no credit, as it could not be said without some.
        let cost = if is_end { 0 } else { cost_of(header.frame_len()) };
        if self.credit.overdraws(cost) {
            return Err(SessionError::CreditOverdrawn(call));
        }
        let Some(state) = self.stream_mut(stream).filter(|state| !state.is_over) else {
            return self.late_item(stream, cost);
        };
        if !is_end && state.receive_left <= 0 {
            return Err(SessionError::CreditOverdrawn(call));
        }
        if state.has_ended_receiving || header.aux != state.received {
            return Err(SessionError::ItemOutOfOrder(call));
        }
        if is_end {
            state.has_ended_receiving = true;
            return Ok(Event::ItemsEnded(stream));
        }
        state.received = state.received.wrapping_add(1);
        state.receive_left -= i64::from(cost);
        state.untaken = state.untaken.saturating_add(cost);
        Ok(Event::Item(stream))
    }

    /// An item of a call that has ended at this end, and at the other had not when it was sent.
    #[cold]
    fn late_item(&mut self, stream: StreamId, cost: u32) -> Result<Event, SessionError> {
        if !self.may_be_late(stream) {
            return Err(SessionError::NoSuchStream(stream.call));
        }
        self.grant(cost);
        Ok(Event::Nothing)
    }

    fn may_be_late(&self, stream: StreamId) -> bool {
        if stream.is_made_here {
            self.made.is_abandoned(stream.call)
        } else {
            self.running.was_last(stream.call)
        }
    }

    /// Checks by its header alone that a frame can be what its kind says, so that nothing is kept
    /// of one that cannot: the outcome of a call in flight, or an item of a stream.
    ///
    /// # Errors
    ///
    /// Where it cannot. The connection ends.
    pub fn check_header(&self, header: &Header) -> Result<(), SessionError> {
        let call = header.call;
        if !self.is_open() {
            return Ok(());
        }
        match header.kind {
            Kind::Response if !self.made.is_in_flight(call) => Err(SessionError::NoSuchCall(call)),
            Kind::Item => {
                let is_made_here = header.flags.contains(Flags::CALLEE);
                let stream = StreamId { call, is_made_here };
                let is_known = self.is_stream(stream) || self.may_be_late(stream);
                if is_known { Ok(()) } else { Err(SessionError::NoSuchStream(call)) }
            }
            _ => Ok(()),
        }
    }

    pub(super) fn credited(&mut self, header: &Header) -> Result<Event, SessionError> {
        let granted = i64::from(header.aux);
        if header.call == CallId(0) {
            self.credit.send_left = add_credit(self.credit.send_left, granted, header.call)?;
            return Ok(Event::Credit(None));
        }
        let is_made_here = header.flags.contains(Flags::CALLEE);
        let stream = StreamId { call: header.call, is_made_here };
        // One that is not there has ended meanwhile.
        if let Some(state) = self.stream_mut(stream).filter(|state| !state.is_over) {
            state.send_left = add_credit(state.send_left, granted, header.call)?;
            return Ok(Event::Credit(Some(stream)));
        }
        Ok(Event::Nothing)
    }

    /// Ends a stream that has begun, and grants the connection anew what was not taken of it.
    pub(super) fn end_stream(&mut self, ended: Option<Box<Stream>>) {
        if let Some(stream) = ended {
            self.grant(stream.untaken);
        }
    }

    /// Grants the connection so many bytes anew; it is told when they are worth a frame.
    fn grant(&mut self, cost: u32) {
        let credit = &mut self.credit;
        credit.taken = credit.taken.saturating_add(cost);
        if credit.taken >= self.end.hello.limits.connection_window / 2 {
            let granted = core::mem::take(&mut credit.taken);
            credit.receive_left += i64::from(granted);
            self.write_credit(None, granted);
        }
    }

    fn write_credit(&mut self, stream: Option<StreamId>, granted: u32) {
        if !self.is_open_or_answers() {
            return;
        }
        let mut header = plain(Kind::Credit, stream.map_or(CallId(0), |stream| stream.call));
        if stream.is_some_and(|stream| !stream.is_made_here) {
            header.flags = Flags::CALLEE;
        }
        header.aux = granted;
        encode_bytes(&mut self.output, header, b"");
    }

    #[inline]
    fn stream_mut(&mut self, stream: StreamId) -> Option<&mut Stream> {
        if stream.is_made_here {
            self.made.table.stream_mut(stream.call)
        } else {
            self.running.table.stream_mut(stream.call)
        }
    }
}

/// What an item of a frame of this length takes from the credit, in bytes.
#[inline]
fn cost_of(frame_len: u64) -> u32 {
    // Frames are bounded by a u32.
    u32::try_from(frame_len).unwrap_or(u32::MAX).max(ITEM_COST_MIN)
}

#[inline]
fn item_header(stream: StreamId, sequence: u32, flags: Flags) -> Header {
    let flags = if stream.is_made_here { flags } else { flags.with(Flags::CALLEE) };
    Header { flags, aux: sequence, ..plain(Kind::Item, stream.call) }
}

/// Credit is bounded, so that no sum of grants can overflow.
fn add_credit(left: i64, granted: i64, call: CallId) -> Result<i64, SessionError> {
    let sum = left + granted;
    if sum > i64::from(u32::MAX) { Err(SessionError::CreditOverflow(call)) } else { Ok(sum) }
}

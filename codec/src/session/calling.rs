//! Calls out: what this end asks of its peer, and what it is answered.

use alloc::vec::Vec;

use super::{
    SessionError,
    calls::OpenState,
    extras::NEVER,
    serving::check_metadata,
    session::{Event, Session},
    status_from_wire,
};
use crate::{
    encode::{EncodeError, Scratch, body_len_max, encode_encoded, encode_message},
    header::{CallId, Flags, Header, Kind},
    message::Message,
    pack::features,
    shard_key::RoutingKey,
};

/// What goes with a request.
#[derive(Clone, Copy, Debug, Default)]
pub struct CallOptions<'a> {
    /// The time by which the outcome is wanted, in microseconds; none waits for ever.
    pub deadline_us: Option<u64>,
    /// The time now; without a deadline it is not looked at.
    pub now_us: u64,
    /// A block as [`Metadata`](crate::Metadata) makes it, empty for none.
    pub metadata: &'a [u8],
    /// Whether items travel while the call runs.
    pub is_stream: bool,
    /// The key of whose shard the call is; it travels where the peer knows of keys. A stream has
    /// none.
    pub key: Option<RoutingKey>,
}

/// Why a call was not made; nothing was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// The peer has not said HELLO, or either side GOAWAY.
    #[error("the connection is not open")]
    NotOpen,
    /// The peer takes no more calls on this connection.
    #[error("the peer takes no more calls on this connection; make the call on another")]
    Draining,
    /// As many calls as the peer accepts are in flight.
    #[error("as many calls as the server accepts are in flight")]
    TooManyInFlight,
    /// The deadline is past.
    #[error("the deadline is past")]
    TooLate,
    /// The request could not be encoded.
    #[error(transparent)]
    Encode(#[from] EncodeError),
}

impl Session {
    /// Makes a call: the request is encoded straight into the output.
    ///
    /// # Errors
    ///
    /// Where the connection is not open, the deadline is past, too many calls are in flight, or
    /// the request cannot be encoded. Nothing was sent then.
    // Inlined, as the options and the outcome would be passed through memory otherwise.
    #[inline(always)]
    pub fn call<T: Message>(
        &mut self,
        scratch: &mut Scratch,
        method: u32,
        options: CallOptions<'_>,
        request: &T,
    ) -> Result<CallId, OpenError> {
        self.call_with(method, options, |output, header, frame_len_max| {
            encode_message(output, scratch, header, options.metadata, request, frame_len_max)
        })
    }

    /// Makes a call whose request was encoded before: it is copied to the output. As
    /// [`call`](Self::call).
    ///
    /// # Errors
    ///
    /// As [`call`](Self::call).
    pub fn call_encoded(
        &mut self,
        method: u32,
        options: CallOptions<'_>,
        body: &[u8],
    ) -> Result<CallId, OpenError> {
        self.call_with(method, options, |output, header, frame_len_max| {
            encode_encoded(output, header, options.metadata, body, frame_len_max)
        })
    }

    #[inline(always)]
    fn call_with(
        &mut self,
        method: u32,
        options: CallOptions<'_>,
        encode: impl FnOnce(&mut Vec<u8>, Header, u32) -> Result<(), EncodeError>,
    ) -> Result<CallId, OpenError> {
        self.check_open()?;
        let time_us = time_left_us(options)?;
        let deadline_us = options.deadline_us.unwrap_or(NEVER);
        let call = self.made.open(deadline_us).ok_or(OpenError::TooManyInFlight)?;
        let mut header = request_header(Kind::Request, call, method, time_us);
        header.aux = self.key_of(options);
        if options.is_stream {
            (header.flags, header.aux) = (Flags::STREAM, 0);
            self.made.table.begin_stream(call, self.new_stream());
        }
        let frame_len_max = self.peer_frame_len_max();
        self.life.used();
        match encode(&mut self.output, header, frame_len_max) {
            Ok(()) => Ok(call),
            Err(error) => {
                self.made.table.take_stream(call);
                self.made.undo_open(call);
                Err(error.into())
            }
        }
    }

    /// Makes a call that gets no answer, and gives its number: where it fails at the peer, an
    /// [`Event::Notice`] may say so.
    ///
    /// # Errors
    ///
    /// As [`call`](Self::call), but that any number can be on their way.
    pub fn one_way<T: Message>(
        &mut self,
        scratch: &mut Scratch,
        method: u32,
        options: CallOptions<'_>,
        request: &T,
    ) -> Result<u64, OpenError> {
        self.one_way_with(method, options, |output, header, frame_len_max| {
            encode_message(output, scratch, header, options.metadata, request, frame_len_max)
        })
    }

    /// Makes a call that gets no answer, whose request was encoded before: it is copied to the
    /// output. As [`one_way`](Self::one_way).
    ///
    /// # Errors
    ///
    /// As [`one_way`](Self::one_way).
    pub fn one_way_encoded(
        &mut self,
        method: u32,
        options: CallOptions<'_>,
        body: &[u8],
    ) -> Result<u64, OpenError> {
        self.one_way_with(method, options, |output, header, frame_len_max| {
            encode_encoded(output, header, options.metadata, body, frame_len_max)
        })
    }

    #[inline(always)]
    fn one_way_with(
        &mut self,
        method: u32,
        options: CallOptions<'_>,
        encode: impl FnOnce(&mut Vec<u8>, Header, u32) -> Result<(), EncodeError>,
    ) -> Result<u64, OpenError> {
        self.check_open()?;
        let time_us = time_left_us(options)?;
        let number = self.one_ways_made + 1;
        let mut header = request_header(Kind::OneWay, CallId(number), method, time_us);
        header.aux = self.key_of(options);
        let frame_len_max = self.peer_frame_len_max();
        encode(&mut self.output, header, frame_len_max)?;
        self.life.used();
        self.one_ways_made = number;
        Ok(number)
    }

    /// Frees the slot of a call whose [`Reply`](Event::Reply) or [`Failed`](Event::Failed) was
    /// taken by who made the call. Of one that failed as its time was up, it is free when the
    /// response has come too. Items that were not taken are gone.
    #[inline]
    pub fn release(&mut self, call: CallId) {
        if let Some(stream) = self.made.table.take_stream(call) {
            self.end_stream(Some(stream));
        }
        self.made.release(call);
    }

    /// Marks that nobody waits for the call any more, and tells the peer where it still runs. Its
    /// slot stays taken until its response comes.
    pub fn abandon(&mut self, call: CallId) {
        let ended = self.made.table.take_stream(call);
        self.end_stream(ended);
        if self.made.abandon(call) && self.is_open() {
            self.write_plain(Kind::Cancel, call.0);
        }
    }

    /// Whether one more call can be in flight.
    #[inline]
    pub fn has_room(&self) -> bool {
        self.made.has_room()
    }

    /// Calls in flight that were made here, abandoned ones included.
    pub fn calls_made(&self) -> usize {
        self.made.len()
    }

    #[inline(always)]
    pub(super) fn response(
        &mut self,
        header: &Header,
        payload: &[u8],
    ) -> Result<Event, SessionError> {
        if header.meta_len != 0 {
            check_metadata(header, payload)?;
        }
        let call = header.call;
        self.life.used();
        if let Some(stream) = self.made.table.stream_mut(call) {
            // Its items that came can still be taken.
            stream.close();
        }
        match self.made.answer(call) {
            Some(OpenState::Waiting) if header.code == 0 => Ok(Event::Reply(call)),
            Some(OpenState::Waiting) => failed(header, payload),
            Some(_) => Ok(Event::Abandoned),
            None => Err(SessionError::NoSuchCall(call)),
        }
    }

    pub(super) fn notice(
        &mut self,
        header: &Header,
        payload: &[u8],
    ) -> Result<Event, SessionError> {
        let number = header.call.0;
        if number == 0 || number > self.one_ways_made {
            return Err(SessionError::NoSuchCall(header.call));
        }
        Ok(Event::Notice { number, status: status_from_wire(header, payload)? })
    }

    /// The routing key as it travels.
    #[inline]
    fn key_of(&self, options: CallOptions<'_>) -> u32 {
        match options.key {
            Some(key) if self.features() & features::KEYS != 0 => key.to_wire(),
            _ => 0,
        }
    }

    #[inline]
    fn check_open(&self) -> Result<(), OpenError> {
        if !self.is_open() {
            return Err(OpenError::NotOpen);
        }
        if self.peer_drains {
            return Err(OpenError::Draining);
        }
        Ok(())
    }

    /// Longest body that the peer accepts, without metadata before it, in bytes.
    pub fn body_len_max(&self) -> usize {
        body_len_max(self.peer_frame_len_max())
    }

    /// Longest frame to be sent, as it is encoded, in bytes.
    #[inline]
    pub(super) fn peer_frame_len_max(&self) -> u32 {
        self.peer.frame_len_max
    }
}

/// The time left until a call's deadline, in microseconds as it travels; zero for none.
#[inline]
fn time_left_us(options: CallOptions<'_>) -> Result<u32, OpenError> {
    let Some(deadline_us) = options.deadline_us else {
        return Ok(0);
    };
    match deadline_us.saturating_sub(options.now_us) {
        0 => Err(OpenError::TooLate),
        // More than travels is clamped: over an hour, and the caller's own clock knows better.
        left_us => Ok(u32::try_from(left_us).unwrap_or(u32::MAX)),
    }
}

#[inline]
fn request_header(kind: Kind, call: CallId, method: u32, time_us: u32) -> Header {
    let flags = Flags::NONE;
    Header { body_len: 0, meta_len: 0, kind, flags, call, code: method, time_us, aux: 0 }
}

/// What a response means that is no reply.
#[cold]
fn failed(header: &Header, payload: &[u8]) -> Result<Event, SessionError> {
    Ok(Event::Failed(header.call, status_from_wire(header, payload)?))
}

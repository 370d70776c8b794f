//! Calls in: what a peer asks of this end, and what it is answered.

use alloc::boxed::Box;

use super::{
    SessionError,
    calls::{Finished, Refusal},
    extras::NEVER,
    session::{Event, Session, State, was_running},
    streams::Stream,
};
use crate::{
    encode::{EncodeError, Scratch, encode_bytes, encode_message, encode_with},
    header::{CallId, Flags, Header, HeaderError, Kind},
    message::Message,
    metadata::MetadataRef,
    pack::features,
    status::{Code, Status},
};

/// Why a reply was not sent as it was given.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ReplyError {
    /// The call is not running; nothing was sent.
    #[error("the call is not running")]
    NotRunning,
    /// This side has said GOAWAY; nothing was sent.
    #[error("the connection is closed")]
    Closed,
    /// The reply could not be encoded; a status was sent in its place.
    #[error(transparent)]
    Encode(#[from] EncodeError),
}

impl Session {
    /// Answers a call with its reply, encoded straight into the output. `metadata` is a block as
    /// [`Metadata`](crate::Metadata) makes it, empty for none.
    ///
    /// # Errors
    ///
    /// Where the call is not running or the connection is closed, or where the reply cannot be
    /// encoded; the caller was then answered with a status.
    #[inline]
    pub fn reply<T: Message>(
        &mut self,
        scratch: &mut Scratch,
        call: CallId,
        metadata: &[u8],
        reply: &T,
    ) -> Result<(), ReplyError> {
        // One that was told to stop and is done has its reply all the same.
        if !was_running(self.finish(call)) {
            return Err(ReplyError::NotRunning);
        }
        if self.state == State::Closed {
            return Err(ReplyError::Closed);
        }
        let header = self.response_header(call, 0, Flags::NONE);
        let frame_len_max = self.peer_frame_len_max();
        encode_message(&mut self.output, scratch, header, metadata, reply, frame_len_max).map_err(
            |error| {
                let code = match error {
                    EncodeError::TooLong { .. } => Code::ResourceExhausted,
                    EncodeError::Serialize => Code::Internal,
                };
                self.write_status(call, &Status::new(code, alloc::format!("reply: {error}")));
                ReplyError::Encode(error)
            },
        )
    }

    /// Answers a call with a status. False where the call is not running.
    pub fn refuse(&mut self, call: CallId, status: &Status) -> bool {
        let is_running = was_running(self.finish(call));
        if is_running {
            self.write_status(call, status);
        }
        is_running
    }

    /// Ends a call whose handler has stopped without an answer: with the reason for which it was
    /// [told to](Event::Stop), or with `status` where it was not. False where it is not running.
    pub fn end_stopped(&mut self, call: CallId, status: &Status) -> bool {
        match self.finish(call) {
            Finished::NotRunning => return false,
            Finished::InTime => self.write_status(call, status),
            Finished::Stopped(code) => self.write_status(call, &Status::new(code, "")),
        }
        true
    }

    /// Answers every call that runs with a status, and says how many they were.
    pub fn refuse_all(&mut self, status: &Status) -> usize {
        let running = self.running.finish_all();
        for call in &running {
            self.write_status(*call, status);
        }
        running.len()
    }

    /// Refuses a call by its header alone: its body need not be there, and no handler runs.
    ///
    /// # Errors
    ///
    /// As [`handle_frame`](Self::handle_frame).
    pub fn refuse_header(&mut self, header: &Header, status: &Status) -> Result<(), SessionError> {
        if self.state != State::Open {
            // No call is expected now, and why is found out there.
            return self.handle_frame(header, b"").map(drop);
        }
        let status = status.clone().not_executed();
        if header.kind == Kind::OneWay {
            self.check_one_way(header)?;
            self.write_notice(header.call.0, &status);
            return Ok(());
        }
        self.accept(header, NEVER)?;
        self.refuse(header.call, &status);
        Ok(())
    }

    /// Ends a one-way call, which has failed where there is a status.
    pub fn end_one_way(&mut self, number: u64, outcome: Result<(), &Status>) {
        self.one_ways_running = self.one_ways_running.saturating_sub(1);
        self.life.used();
        if let Err(status) = outcome {
            self.write_notice(number, status);
        }
    }

    /// Ends a call that runs, and its stream.
    #[inline]
    pub(super) fn finish(&mut self, call: CallId) -> Finished {
        if let Some(stream) = self.running.table.take_stream(call) {
            self.end_stream(Some(stream));
        }
        self.running.finish(call)
    }

    /// The time by which a call that runs is to be answered, in microseconds, where it has a
    /// deadline.
    pub fn deadline_us(&self, call: CallId) -> Option<u64> {
        Some(self.running.deadline_us(call)).filter(|deadline_us| *deadline_us != NEVER)
    }

    /// Whether a call that runs was told to stop.
    pub fn is_stopping(&self, call: CallId) -> bool {
        self.running.is_stopping(call)
    }

    /// Why a call that runs was told to stop, where it was: its caller gave up, or its time is over.
    pub fn why_stopping(&self, call: CallId) -> Option<Code> {
        self.running.why_stopping(call)
    }

    /// Calls of the peer that run, one-way calls not counted.
    #[inline]
    pub fn calls_running(&self) -> u32 {
        self.running.len()
    }

    /// One-way calls of the peer that run.
    pub fn one_ways_running(&self) -> u32 {
        self.one_ways_running
    }

    #[inline(always)]
    pub(super) fn request(
        &mut self,
        header: &Header,
        payload: &[u8],
    ) -> Result<Event, SessionError> {
        let call = header.call;
        let is_plain = header.meta_len == 0 && header.flags == Flags::NONE;
        if header.time_us | self.end.deadlines.default_us == 0 && is_plain && !self.drains {
            self.accept(header, NEVER)?;
            return Ok(Event::Call { call, method: header.code });
        }
        self.request_with_more(header, payload)
    }

    /// A call with a deadline, metadata or items, or one that comes while this end drains.
    fn request_with_more(
        &mut self,
        header: &Header,
        payload: &[u8],
    ) -> Result<Event, SessionError> {
        let call = header.call;
        check_metadata(header, payload)?;
        let deadline_us = self.deadline_of(header.time_us);
        self.accept(header, deadline_us)?;
        if let Some(status) = self.refusal(deadline_us) {
            self.refuse(call, &status);
            return Ok(Event::Refused(status.code()));
        }
        if header.flags.contains(Flags::STREAM) {
            self.running.table.begin_stream(call, self.new_stream());
        }
        Ok(Event::Call { call, method: header.code })
    }

    /// A stream, with the credit that each side has from the start.
    pub(super) fn new_stream(&self) -> Box<Stream> {
        Stream::new(self.peer.stream_window, self.end.hello.limits.stream_window)
    }

    /// Why a call that has come is not begun, if it is not.
    fn refusal(&self, deadline_us: u64) -> Option<Status> {
        if self.drains {
            let status = Status::new(Code::Unavailable, "the connection takes no more calls");
            return Some(status.not_executed());
        }
        (deadline_us <= self.life.now_us)
            .then(|| Status::new(Code::DeadlineExceeded, "too late when it came").not_executed())
    }

    #[inline]
    fn accept(&mut self, header: &Header, deadline_us: u64) -> Result<(), SessionError> {
        self.check_serves(header)?;
        self.check_key(header)?;
        self.life.used();
        let accepted = self.running.accept(header.call, deadline_us);
        accepted.map_err(|refusal| self.call_error(header.call, &refusal))
    }

    pub(super) fn one_way_request(
        &mut self,
        header: &Header,
        payload: &[u8],
    ) -> Result<Event, SessionError> {
        check_metadata(header, payload)?;
        self.check_one_way(header)?;
        let number = header.call.0;
        if let Some(status) = self.refusal(self.deadline_of(header.time_us)) {
            self.write_notice(number, &status);
            return Ok(Event::Refused(status.code()));
        }
        if self.one_ways_running >= self.running.limit() {
            let status = Status::new(Code::ResourceExhausted, "too many one-way calls run");
            self.write_notice(number, &status.not_executed());
            return Ok(Event::Refused(Code::ResourceExhausted));
        }
        self.life.used();
        self.one_ways_running += 1;
        Ok(Event::OneWay { number, method: header.code })
    }

    fn check_one_way(&self, header: &Header) -> Result<(), SessionError> {
        self.check_serves(header)?;
        self.check_key(header)?;
        if header.call.0 == 0 {
            return Err(SessionError::GenerationZero(header.call));
        }
        Ok(())
    }

    /// A key that was not agreed on is a field that has no meaning.
    #[inline]
    fn check_key(&self, header: &Header) -> Result<(), SessionError> {
        if header.aux != 0 && self.features() & features::KEYS == 0 {
            return Err(HeaderError::ReservedField("aux").into());
        }
        Ok(())
    }

    #[inline]
    fn check_serves(&self, header: &Header) -> Result<(), SessionError> {
        if self.end.serves.is_empty() && self.end.is_client {
            let (kind, why) = (header.kind, "this end makes calls and serves none");
            return Err(SessionError::Unexpected { kind, why });
        }
        Ok(())
    }

    pub(super) fn cancelled(&mut self, call: CallId) -> Result<Event, SessionError> {
        if call.slot() >= self.running.limit() {
            return Err(self.call_error(call, &Refusal::BeyondLimit));
        }
        if !self.life.allows_cancel() {
            return Err(SessionError::TooMany("CANCEL"));
        }
        // It may have crossed the response.
        let must_stop = self.running.cancel(call);
        Ok(if must_stop { Event::Stop(call) } else { Event::Nothing })
    }

    /// The deadline of a call that came now and asks for so many microseconds, zero for none.
    fn deadline_of(&self, time_us: u32) -> u64 {
        let limits = self.end.deadlines;
        let wanted_us = if time_us == 0 { limits.default_us } else { time_us };
        if wanted_us == 0 {
            return NEVER;
        }
        let granted_us = wanted_us.max(limits.least_us).min(limits.most_us);
        self.life.call_begun_us().saturating_add(u64::from(granted_us))
    }

    #[cold]
    pub(super) fn write_status(&mut self, call: CallId, status: &Status) {
        if self.state == State::Closed {
            return;
        }
        let mut flags = if status.is_not_executed() { Flags::NOT_EXECUTED } else { Flags::NONE };
        if status.has_details() {
            flags = flags.with(Flags::DETAILS);
        }
        let header = self.response_header(call, status.code() as u32, flags);
        encode_with(&mut self.output, header, |out| status.encode_wire(out));
    }

    #[cold]
    pub(super) fn write_notice(&mut self, number: u64, status: &Status) {
        if self.state == State::Closed {
            return;
        }
        let header = Header {
            body_len: 0,
            meta_len: 0,
            kind: Kind::Notice,
            flags: Flags::NONE,
            call: CallId(number),
            code: status.code() as u32,
            time_us: 0,
            aux: 0,
        };
        encode_bytes(&mut self.output, header, status.wire_message().as_bytes());
    }

    #[inline]
    pub(super) fn response_header(&mut self, call: CallId, code: u32, flags: Flags) -> Header {
        self.life.used();
        let (kind, aux) = (Kind::Response, self.running.len());
        Header { body_len: 0, meta_len: 0, kind, flags, call, code, time_us: 0, aux }
    }

    #[cold]
    fn call_error(&self, call: CallId, refusal: &Refusal) -> SessionError {
        match refusal {
            Refusal::BeyondLimit => {
                SessionError::SlotBeyondLimit { call, limit: self.running.limit() }
            }
            Refusal::GenerationZero => SessionError::GenerationZero(call),
            Refusal::Reused => SessionError::CallReused(call),
        }
    }
}

/// Checks the metadata of a frame, so that who reads it need not.
pub(super) fn check_metadata(header: &Header, payload: &[u8]) -> Result<(), SessionError> {
    let metadata = payload.get(..header.meta_bytes()).unwrap_or_default();
    MetadataRef::parse(metadata)?;
    Ok(())
}

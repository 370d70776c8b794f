//! What a frame, or the time, means for a connection: calls to their handlers, outcomes to their
//! callers.
//!
//! Between the session and the dispatch of a call.

use std::rc::Rc;

use ringcall_codec::{CallId, Code, Event, Flags, Header, Kind, SessionError, Status, StreamId};

use crate::{
    connection::{Connection, Side, State},
    pack::Packing,
    ring::Lease,
    service::CallTag,
};

impl Connection {
    /// Gives a frame to the session, and what it means to whom it concerns. `payload` is its
    /// metadata and body.
    #[inline]
    pub(crate) fn frame(self: &Rc<Self>, header: &Header, payload: Lease) {
        self.frame_since(header, payload, None);
    }

    /// [`frame`](Self::frame) of one whose header came earlier, at this time.
    #[cold]
    pub(crate) fn assembled_frame(self: &Rc<Self>, header: &Header, payload: Lease, begun_us: u64) {
        self.frame_since(header, payload, Some(begun_us));
    }

    #[inline(always)]
    fn frame_since(self: &Rc<Self>, header: &Header, payload: Lease, begun_us: Option<u64>) {
        let payload = if header.flags.intersects(Flags::PACKED) {
            match self.unpacked(header, payload) {
                Ok(payload) => payload,
                Err(error) => return self.fail(error),
            }
        } else {
            payload
        };
        let event = match begun_us {
            None => self.session.borrow_mut().handle_frame(header, &payload),
            Some(begun_us) => {
                self.session.borrow_mut().handle_assembled(header, &payload, begun_us)
            }
        };
        match event {
            Ok(Event::Call { call, method }) => {
                if let Some(owner) = self.other_owner(header.aux) {
                    return self.pass_on(owner, header, payload);
                }
                let tag = CallTag::new(method, header);
                self.begin_call(call, tag, body_of(header, payload));
            }
            Ok(Event::Reply(call)) => {
                let body = body_of(header, payload);
                let is_taken = self.callers.replied(&self.shard, call, body, header.meta_len);
                self.wake_senders_of(call);
                if is_taken {
                    self.release(call);
                }
            }
            Ok(Event::Item(stream)) => {
                self.shard.counters.items_received.add(1);
                self.inboxes.push(&self.shard, stream, payload, header.frame_len());
            }
            Ok(Event::OneWay { number, method }) => {
                if let Some(owner) = self.other_owner(header.aux) {
                    return self.pass_on(owner, header, payload);
                }
                let tag = CallTag::new(method, header).one_way();
                self.begin_call(CallId(number), tag, body_of(header, payload));
            }
            Ok(Event::WrongShard(shard)) => self.begin_handover(shard, header, &payload),
            Ok(event) => self.event(event),
            Err(error) => self.fail(error),
        }
    }

    /// Gives a call to its handler.
    #[inline]
    fn begin_call(self: &Rc<Self>, call: CallId, tag: CallTag, body: Lease) {
        // Not borrowed while the handler runs, which may end the connection.
        let serves = self.serves.borrow().clone();
        let Some(serves) = serves else {
            return self.refuse(call, tag, &Status::new(Code::Unimplemented, "nothing is served"));
        };
        if self.shard.has_no_room_for_calls() {
            self.shard.counters.calls_refused_overload.add(1);
            return self.refuse(call, tag, &overload());
        }
        if tag.is_stream() {
            self.inboxes.begin(StreamId { call, is_made_here: false });
        }
        serves.dispatch(self, call, tag, body);
        self.end_if_peer_finished();
    }

    /// Ends the connection where its peer waits for nothing any more.
    #[inline]
    pub(crate) fn end_if_peer_finished(self: &Rc<Self>) {
        if self.state() == State::PeerFinished {
            self.end_if_done();
        }
    }

    /// Decides on a frame by its header, before its body is there. False where it is refused, and
    /// its body not wanted.
    ///
    /// # Errors
    ///
    /// Where it is refused and cannot be a call: none that is may hold memory that there is not.
    pub(crate) fn admits(self: &Rc<Self>, header: &Header) -> Result<bool, SessionError> {
        self.session.borrow().check_header(header)?;
        let is_call = matches!(header.kind, Kind::Request | Kind::OneWay);
        let has_room =
            !self.shard.has_no_room_for_calls() && self.shard.has_memory_for(header.frame_len());
        if !is_call || has_room {
            return Ok(true);
        }
        self.session.borrow_mut().refuse_header(header, &overload())?;
        self.shard.counters.calls_refused_overload.add(1);
        self.shard.mark_dirty(self);
        Ok(false)
    }

    /// Events that are not the path of a call.
    #[cold]
    pub(crate) fn event(self: &Rc<Self>, event: Event) {
        let shard = &self.shard;
        match event {
            Event::Failed(call, status) => {
                let is_taken = self.callers.failed(shard, call, status);
                self.wake_senders_of(call);
                if is_taken {
                    self.release(call);
                }
            }
            Event::Abandoned => self.wake_waiting(),
            Event::Stop(call) => {
                self.seats.stop(shard, call);
                self.stop_passed(call);
                // A handler that is finished all the same finds out that no more items come.
                self.inboxes.cut_one(shard, StreamId { call, is_made_here: false });
            }
            Event::Opened => {
                if self.side == Side::Client {
                    shard.counters.connections_opened.add(1);
                }
                let config = &shard.config;
                self.with_output(|output| shard.use_spare(output));
                let agreed = self.session.borrow().features();
                let packing = Packing::agreed(agreed, config.compression, config.compress_from);
                self.packing.set(packing);
                self.callers.opened(shard);
                shard.mark_dirty(self);
            }
            Event::Refused(Code::DeadlineExceeded) => {
                shard.counters.calls_refused_late.add(1);
                shard.mark_dirty(self);
            }
            Event::Refused(_) => {
                shard.counters.calls_refused_drain.add(1);
                shard.mark_dirty(self);
            }
            Event::Notice { number, status } => {
                tracing::debug!(peer = %self.peer, number, %status, "one-way call failed");
                shard.counters.notices.add(1);
                self.callers.notice(number, &status);
            }
            Event::ItemsEnded(stream) => self.inboxes.ended(shard, stream),
            Event::Credit(Some(stream)) => self.inboxes.wake_senders_of(shard, stream),
            Event::Credit(None) => self.inboxes.wake_senders(shard),
            Event::Pong(round_trip_us) => {
                shard.counters.pings_answered.add(1);
                shard.counters.ping_round_trips.record_us(round_trip_us);
                self.end_if_done();
            }
            Event::Draining(status) => {
                tracing::debug!(peer = %self.peer, %status, "the peer takes no more calls");
                self.callers.fail_waiting(shard);
                self.end_if_done();
            }
            Event::GoAway(status) => {
                tracing::debug!(peer = %self.peer, %status, "the peer goes away");
                self.peer_goes_away(&status);
            }
            // PING wants an answer.
            Event::Nothing => {
                self.with_output(|output| shard.use_spare(output));
                shard.mark_dirty(self);
            }
            // Those with a body are not without their frame.
            _ => {}
        }
    }

    /// A call made here has its outcome: who still sends items of it finds that out.
    #[inline]
    fn wake_senders_of(&self, call: CallId) {
        self.inboxes.wake_senders_of(&self.shard, StreamId { call, is_made_here: true });
    }

    fn refuse(self: &Rc<Self>, call: CallId, tag: CallTag, status: &Status) {
        let status = status.clone().not_executed();
        let mut session = self.session.borrow_mut();
        if tag.is_one_way() {
            session.end_one_way(call.0, Err(&status));
        } else {
            session.refuse(call, &status);
        }
        drop(session);
        self.shard.mark_dirty(self);
    }
}

/// The body of a frame's payload.
#[inline]
fn body_of(header: &Header, payload: Lease) -> Lease {
    if header.meta_len == 0 { payload } else { payload.skip(header.meta_bytes()) }
}

#[cold]
pub(crate) fn overload() -> Status {
    Status::new(Code::ResourceExhausted, "the server has no room for the call; try later")
        .not_executed()
}

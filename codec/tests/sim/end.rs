//! One end of a connection: a session, and what a transport and an application do around it.
//!
//! It keeps its own account of every call and compares it with the session's after each step.

use std::collections::BTreeMap;

use ringcall_codec::{
    Code, Decoder, Event, Header, Kind, Session, SessionConfig, SessionError, ShardPlace, Status,
    Step,
    limits::{METADATA_LEN_MAX, STATUS_BODY_LEN_MAX, STATUS_MESSAGE_LEN_MAX},
};

use crate::{
    core::{Core, Place, Task},
    items::Handle,
    ledger::{Answer, Outcome},
    letter::{Body, METHODS, align, sum_of},
    outbox::Outbox,
    traffic::{self, Job, Made, MadeState, streams, streams::Stream},
};

/// Requests are made only where fewer bytes than this wait to be sent, as a transport does that
/// pushes back.
pub(crate) const CALL_GATE_BYTES: usize = 64 * 1024;

/// What an archive and the frame around it take beside a letter's bytes.
const LETTER_OVERHEAD: usize = 128;

/// What one stream says beside its items: their end, and CREDIT, three times at most. Each grants
/// half a window, and what is granted and has not come back is no more than a window and an item.
const STREAM_FRAMES_LEN_MAX: usize = 4 * 32;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum EndState {
    Live,
    /// What is in the output is sent, then the connection ends.
    Closing,
    Closed,
}

pub(crate) struct End {
    pub(crate) place: Place,
    pub(crate) session: Session,
    pub(crate) decoder: Decoder<Body>,
    pub(crate) state: EndState,
    pub(crate) config: SessionConfig,
    /// The peer takes no more calls.
    pub(crate) peer_drains: bool,
    /// The peer has said its last word, or its bytes have ended.
    pub(crate) peer_left: bool,
    /// Calls made here whose slot is taken.
    pub(crate) made: BTreeMap<u64, Made>,
    /// Calls that run here, by the number of their job.
    pub(crate) jobs: BTreeMap<u64, Job>,
    pub(crate) one_way_jobs: BTreeMap<u64, Job>,
    pub(crate) one_ways_come: usize,
    pub(crate) streams: BTreeMap<Handle, Stream>,
    pub(crate) outbox: Outbox,
    /// When what runs began to be waited for; `u64::MAX` where it is not.
    grace_since_us: u64,
    timer_at_us: u64,
    began_us: u64,
    /// When a call was made here or came, or ended, last.
    pub(crate) used_us: u64,
    was_told_to_drain: bool,
}

impl End {
    pub(crate) fn new(core: &mut Core, place: Place, node: usize) -> Self {
        let config = core.plan.configs[node];
        let mut session = if place.side == 0 {
            let serves = if core.plan.calls_back { METHODS } else { &[] };
            Session::client(&config, METHODS, serves)
        } else {
            let calls = if core.plan.calls_back { METHODS } else { &[] };
            Session::server(&config, ShardPlace { index: 0, count: 1 }, calls, METHODS)
        };
        session.begin(core.now_us);
        Self {
            place,
            session,
            decoder: Decoder::new(config.limits.frame_len_max),
            state: EndState::Live,
            config,
            peer_drains: false,
            peer_left: false,
            made: BTreeMap::new(),
            jobs: BTreeMap::new(),
            one_way_jobs: BTreeMap::new(),
            one_ways_come: 0,
            streams: BTreeMap::new(),
            outbox: Outbox::new(core.plan.part_len),
            grace_since_us: u64::MAX,
            timer_at_us: u64::MAX,
            began_us: core.now_us,
            used_us: core.now_us,
            was_told_to_drain: false,
        }
    }

    /// Bytes that wait to be sent, but for one long frame.
    pub(crate) fn backlog(&mut self) -> usize {
        self.session.output().len() + self.outbox.waiting_bytes()
    }

    pub(crate) fn is_live(&self) -> bool {
        self.state == EndState::Live
    }

    /// Whether new calls are for this connection.
    pub(crate) fn is_usable(&self) -> bool {
        self.is_live() && !self.peer_drains && !self.peer_left && !self.session.drains()
    }

    /// Bytes have come.
    pub(crate) fn on_bytes(&mut self, core: &mut Core, input: &[u8]) {
        if !self.is_live() {
            return;
        }
        core.note(self.place, "bytes", &[input.len() as u64, sum_of(0, 0, input)]);
        self.session.handle_bytes(core.now_us);
        let mut at = 0;
        while self.is_live() {
            let mut refused = None;
            let (session, place) = (&mut self.session, self.place);
            let step = self.decoder.next(input, &mut at, |header| {
                if !traffic::refuses_header(core, session, header) {
                    return Ok(Some(Body::new()));
                }
                session.refuse_header(header, &Status::new(Code::ResourceExhausted, "full"))?;
                refused = Some(*header);
                Ok(None)
            });
            if let Some(header) = refused {
                traffic::was_refused(core, place, &header, Code::ResourceExhausted);
            }
            match step {
                Err(error) => self.fail(core, &error),
                Ok(Step::InPlace { header, body }) => {
                    let mut payload = std::mem::take(&mut core.payload);
                    align(&mut payload, &input[body]);
                    self.on_frame(core, &header, &payload);
                    core.payload = payload;
                }
                Ok(Step::Assembled(frame)) => self.on_frame(core, &frame.header, frame.body()),
                Ok(Step::Skipped) => self.session.handle_skipped(),
                Ok(Step::Part) => {
                    core.note(self.place, "part", &[]);
                    self.session.handle_skipped();
                }
                Ok(Step::More) => break,
            }
        }
        if self.is_live() {
            assert_eq!(at, input.len(), "all of the input is consumed");
            if self.decoder.is_between_frames() {
                // Also where a frame that was skipped ends here.
                self.session.handle_skipped();
            } else {
                self.session.handle_cut(self.decoder.cut_len());
            }
            let (missing, announced) = self.decoder.long_frames();
            self.session.handle_long_frames(missing, announced);
        }
    }

    fn on_frame(&mut self, core: &mut Core, header: &Header, payload: &[u8]) {
        match self.session.handle_frame(header, payload) {
            Ok(event) => self.on_event(core, header, payload, event),
            Err(error) => self.fail(core, &error),
        }
    }

    fn on_event(&mut self, core: &mut Core, header: &Header, payload: &[u8], event: Event) {
        match event {
            Event::Opened => core.note(self.place, "opened", &[]),
            Event::Pong(round_trip_us) => core.note(self.place, "pong", &[round_trip_us]),
            Event::Draining(_) => {
                core.note(self.place, "peer drains", &[]);
                self.peer_drains = true;
            }
            Event::GoAway(status) => {
                core.note(self.place, "peer leaves", &[status.code() as u64]);
                core.trace.say(|| format!("because: {status}"));
                self.leave(core);
            }
            event => traffic::on_event(self, core, header, payload, event),
        }
    }

    /// The peer's bytes have ended.
    pub(crate) fn on_fin(&mut self, core: &mut Core) {
        if !self.is_live() {
            return;
        }
        core.note(self.place, "fin", &[]);
        let is_cut = !self.decoder.is_between_frames() || self.decoder.long_frames().0 > 0;
        if is_cut || !self.session.is_open() && !self.peer_left {
            self.give_up(core, &Status::new(Code::InvalidArgument, "ended early"));
        } else {
            self.leave(core);
        }
    }

    /// Nothing comes any more: what was called fails, and what runs is still answered.
    fn leave(&mut self, core: &mut Core) {
        self.peer_left = true;
        for (id, made) in &mut self.made {
            if made.state == MadeState::Waiting {
                lose(core, self.place, made.uid);
                made.state = MadeState::Abandoned;
                self.session.abandon(ringcall_codec::CallId(*id));
            }
        }
        streams::left(self, core);
    }

    /// The connection has failed, and nothing can be sent any more.
    pub(crate) fn on_broken(&mut self, core: &mut Core) {
        if self.is_live() {
            core.note(self.place, "broken", &[]);
            self.close(core);
        }
        self.state = EndState::Closed;
    }

    /// The node of this end crashes: nobody learns anything here any more.
    pub(crate) fn crash(&mut self, core: &mut Core) {
        for made in std::mem::take(&mut self.made).into_values() {
            if made.state == MadeState::Waiting {
                core.ledger.gives_up(made.uid, Outcome::CallerGone);
            }
        }
        if self.is_live() {
            self.close(core);
        }
        self.state = EndState::Closed;
    }

    /// The session says that the connection is at its end.
    fn fail(&mut self, core: &mut Core, error: &SessionError) {
        core.note(self.place, "error", &[]);
        core.trace.say(|| format!("because: {error}"));
        let facts = *core.facts(self.place);
        assert!(facts.explains(error), "unexplained at {:?}: {error} ({facts:?})", self.place);
        self.give_up(core, &error.status());
    }

    fn give_up(&mut self, core: &mut Core, status: &Status) {
        core.excuse(self.place, "an end gave up");
        self.session.go_away(status);
        self.close(core);
    }

    /// The end of everything here.
    fn close(&mut self, core: &mut Core) {
        self.state = EndState::Closing;
        self.streams.clear();
        for made in std::mem::take(&mut self.made).into_values() {
            if made.state == MadeState::Waiting {
                lose(core, self.place, made.uid);
            }
        }
        let jobs = std::mem::take(&mut self.jobs).into_values();
        for job in jobs.chain(std::mem::take(&mut self.one_way_jobs).into_values()) {
            job.ends(core, None);
        }
    }

    /// The timer fires.
    pub(crate) fn on_timer(&mut self, core: &mut Core) {
        if self.is_live() && self.timer_at_us == core.now_us {
            self.timer_at_us = u64::MAX;
            self.handle_timeout(core);
        }
    }

    /// Gives the session the time, and checks that everything due was done (P4).
    pub(crate) fn handle_timeout(&mut self, core: &mut Core) {
        let mut events = Vec::new();
        let outcome = self.session.handle_timeout(core.now_us, &mut events);
        for event in events {
            traffic::on_due(self, core, event);
        }
        if let Err(error) = outcome {
            return self.fail(core, &error);
        }
        let now_us = core.now_us;
        for made in self.made.values().filter(|made| made.state == MadeState::Waiting) {
            assert!(made.deadline_us > now_us, "call {} is late and not expired", made.uid);
        }
        for job in self.jobs.values() {
            let deadline_us = self.session.deadline_us(job.call).unwrap_or(u64::MAX);
            assert!(job.was_told || deadline_us > now_us, "a late handler was not told to stop");
        }
        // At any time, whether or not the connection is idle.
        self.session.shrink_to_fit();
        self.decoder.shrink_to_fit();
        self.outbox.shrink_to_fit();
        let next_us = self.session.next_timeout_us();
        assert!(next_us > now_us, "{next_us} is not after {now_us}: the timer spins");
    }

    /// This end is to take no more calls.
    pub(crate) fn drain(&mut self, core: &mut Core) {
        if self.is_live() && self.session.is_open() {
            core.note(self.place, "drain", &[]);
            self.was_told_to_drain = true;
            self.session.set_now(core.now_us);
            self.session.drain(&Status::new(Code::Unavailable, "drained"));
        }
    }

    /// What runs was waited for long enough.
    pub(crate) fn on_grace(&mut self, core: &mut Core) {
        if !self.is_live() {
            return;
        }
        core.note(self.place, "grace is over", &[]);
        let status = Status::new(Code::Unavailable, "out of time");
        assert_eq!(self.session.refuse_all(&status), self.jobs.len());
        for job in std::mem::take(&mut self.jobs).into_values() {
            job.ends(core, Some(Answer::Status(status.code())));
        }
        self.give_up(core, &status);
    }

    /// After each step: compares accounts, and does what is due.
    pub(crate) fn settle(&mut self, core: &mut Core) {
        if !self.is_live() {
            return;
        }
        self.check(core);
        streams::check(self, core);
        if self.session.drains() && !self.was_told_to_drain && self.grace_since_us == u64::MAX {
            self.check_drain(core);
        }
        if (self.session.drains() || self.peer_left) && self.grace_since_us == u64::MAX {
            core.note(self.place, "has grace", &[]);
            self.grace_since_us = core.now_us;
            core.after(core.plan.grace_us, Task::Grace(self.place));
        }
        let is_done = self.jobs.is_empty() && self.one_way_jobs.is_empty();
        if self.session.is_drained() || self.peer_left && is_done {
            core.note(self.place, "done", &[]);
            self.session.go_away(&Status::new(Code::Unavailable, "done"));
            return self.close(core);
        }
        let next_us = self.session.next_timeout_us();
        let late_us = core.random.below(core.plan.timer_late_us_max + 1);
        let fires_us = next_us.saturating_add(late_us).max(core.now_us);
        if next_us != u64::MAX && fires_us < self.timer_at_us {
            self.timer_at_us = fires_us;
            core.at(fires_us, Task::Timer(self.place));
        }
    }

    /// The session's tables are the ones that are kept here (P4), within their limits (P2).
    fn check(&mut self, core: &mut Core) {
        let (limits, session) = (self.config.limits, &mut self.session);
        let (made, running) = (session.calls_made(), session.calls_running() as usize);
        assert_eq!(made, self.made.len(), "calls made at {:?}", self.place);
        assert_eq!(running, self.jobs.len(), "calls running at {:?}", self.place);
        assert_eq!(session.one_ways_running() as usize, self.one_way_jobs.len());
        let in_flight_max = limits.calls_in_flight_max as usize;
        assert!(made.max(running).max(self.one_way_jobs.len()) <= in_flight_max);
        assert!(made < in_flight_max || !session.has_room(), "room beyond the limit");

        let waiting = self.made.values().filter(|made| made.state == MadeState::Waiting);
        let earliest_us = waiting.map(|made| made.deadline_us).min().unwrap_or(u64::MAX);
        let next_us = session.next_timeout_us();
        assert!(next_us <= earliest_us, "the timer sleeps past a deadline");

        let letter_len = core.plan.large_len_max as usize + LETTER_OVERHEAD + METADATA_LEN_MAX;
        let answer_len = letter_len.max(STATUS_BODY_LEN_MAX + 32);
        let output_max = CALL_GATE_BYTES
            + letter_len
            + in_flight_max * (answer_len + 32 + 2 * STREAM_FRAMES_LEN_MAX)
            + self.one_ways_come * (STATUS_MESSAGE_LEN_MAX + 32)
            + 4096;
        let output_len = session.output().len() + self.outbox.waiting_bytes();
        assert!(output_len <= output_max, "{output_len} bytes wait, at most {output_max} may");
        if let Some(partial) = self.decoder.partial() {
            let (kept, held) = (partial.buffer.len(), partial.buffer.capacity());
            assert!(kept as u64 <= u64::from(limits.frame_len_max), "{kept} bytes are kept");
            assert!(held <= (2 * kept).max(1 << 10), "{held} bytes are held for {kept}");
        }
    }

    /// The session drains of itself: it is idle, or old.
    fn check_drain(&self, core: &Core) {
        let patience = self.config.patience;
        let is_past = |since_us: u64, us: u64| us > 0 && since_us + us <= core.now_us;
        let is_idle = is_past(self.used_us, patience.idle_us) && self.made.is_empty();
        assert!(
            is_idle || is_past(self.began_us, patience.age_us),
            "drains at {}, used at {}, began at {}: {patience:?}",
            core.now_us,
            self.used_us,
            self.began_us,
        );
    }

    /// No call is in flight here, and no drain takes longer than it may. A PING may be on its way.
    pub(crate) fn is_at_rest(&self, core: &Core) -> bool {
        let grace_us = core.now_us.saturating_sub(self.grace_since_us);
        self.made.is_empty()
            && self.jobs.is_empty()
            && self.one_way_jobs.is_empty()
            && self.streams.is_empty()
            && grace_us <= core.plan.grace_us
    }
}

/// A call's connection has ended before its outcome came (P6: only where something explains it).
fn lose(core: &mut Core, place: Place, uid: u64) {
    let facts = *core.facts(place);
    assert!(facts.excuse.is_some(), "call {uid} is lost, and nothing has cut {place:?}");
    core.note(place, "lost", &[uid]);
    core.ledger.gives_up(uid, Outcome::Lost);
}

/// Whether frames of this kind carry a call.
pub(crate) fn is_call(kind: Kind) -> bool {
    matches!(kind, Kind::Request | Kind::OneWay)
}

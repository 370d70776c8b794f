//! What the nodes do with their connections: one file for each kind of traffic.
//!
//! A kind makes something at an end, and handles the events that come of it at both. A new one is
//! a new file, its method in `letter.rs`, and a line in each function here.

pub(crate) mod one_way;
pub(crate) mod streams;
pub(crate) mod unary;

use ringcall_codec::{
    CallId, CallOptions, Code, Event, Header, Key, Kind, Metadata, MetadataRef, OpenError,
    RoutingKey, Session,
};

use crate::{
    core::{Core, Place},
    end::{CALL_GATE_BYTES, End, is_call},
    items::Handle,
    ledger::Answer,
    letter::{Envelope, UNARY},
};

/// A call whose slot at its caller's end is taken.
#[derive(Debug)]
pub(crate) struct Made {
    pub(crate) uid: u64,
    pub(crate) state: MadeState,
    /// `u64::MAX` for none.
    pub(crate) deadline_us: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum MadeState {
    /// Its outcome is waited for.
    Waiting,
    /// Its outcome came and was not taken yet.
    Answered,
    /// Its time was up, which was not taken yet.
    Expired,
    /// Nobody waits, and the response is still to come.
    Abandoned,
}

/// A handler at work.
#[derive(Debug)]
pub(crate) struct Job {
    /// The call in the ledger, where it is known.
    pub(crate) uid: Option<u64>,
    /// A one-way call's number stands here too.
    pub(crate) call: CallId,
    pub(crate) request: Option<Envelope>,
    pub(crate) work: Work,
    pub(crate) was_told: bool,
}

/// What a handler does at the end of its work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Work {
    Reply,
    Refuse,
    /// Never ends of itself.
    Hang,
}

impl Job {
    /// The handler does not work any more.
    pub(crate) fn ends(&self, core: &mut Core, answer: Option<Answer>) {
        if let Some(uid) = self.uid {
            core.ledger.ends(uid, answer);
        }
    }
}

/// Makes something at this end, if anything can be made there.
pub(crate) fn make(end: &mut End, core: &mut Core) {
    if !end.is_live() || end.peer_left || end.backlog() >= CALL_GATE_BYTES {
        return;
    }
    if core.random.percent(core.plan.one_ways) {
        one_way::make(end, core);
    } else if core.random.percent(core.plan.streams) {
        streams::make(end, core, true);
    } else {
        unary::make(end, core, UNARY, true);
    }
}

/// Makes a call that must succeed at some time: a stream too, where there are any.
pub(crate) fn probe(end: &mut End, core: &mut Core) -> Option<u64> {
    if core.random.percent(core.plan.streams) {
        streams::make(end, core, false)
    } else {
        unary::make(end, core, UNARY, false).map(|(uid, _)| uid)
    }
}

/// A frame of traffic has come and means this.
pub(crate) fn on_event(
    end: &mut End,
    core: &mut Core,
    header: &Header,
    payload: &[u8],
    event: Event,
) {
    match event {
        Event::Refused(code) => was_refused(core, end.place, header, code),
        Event::Call { call, method } => unary::on_call(end, core, call, method, header, payload),
        Event::Stop(call) => unary::on_stop(end, core, call),
        Event::Reply(call) => unary::on_reply(end, core, call, header, payload),
        Event::Failed(call, status) => unary::on_failed(end, core, call, &status),
        Event::Abandoned => unary::on_abandoned(end, core, header.call),
        Event::OneWay { number, method } => {
            one_way::on_call(end, core, number, method, header, payload);
        }
        Event::Notice { number, status } => one_way::on_notice(end, core, number, &status),
        Event::Item(stream) => streams::on_item(end, core, stream.into(), header, payload),
        Event::ItemsEnded(stream) => streams::on_ended(end, core, stream.into(), header),
        Event::Credit(stream) => streams::on_credit(end, core, stream.map(Handle::from), header),
        Event::Nothing => streams::on_nothing(end, core, header, payload),
        event => panic!("{event:?} is no event of traffic"),
    }
}

/// Faults stop: what would go on for ever or for long ends soon.
pub(crate) fn calm(end: &mut End, core: &mut Core) {
    unary::calm(end, core);
    streams::calm(end);
}

/// The time has come for this.
pub(crate) fn on_due(end: &mut End, core: &mut Core, event: Event) {
    match event {
        Event::Stop(call) => unary::on_stop(end, core, call),
        Event::Failed(call, status) => {
            assert_eq!(status.code(), Code::DeadlineExceeded);
            unary::on_expired(end, core, call);
        }
        event => panic!("{event:?} has nothing to do with time"),
    }
}

/// Whether a cut call is refused before its body is there.
pub(crate) fn refuses_header(core: &mut Core, session: &Session, header: &Header) -> bool {
    is_call(header.kind) && session.is_open() && core.random.percent(core.plan.header_refusals)
}

/// A call was refused before its handler began.
pub(crate) fn was_refused(core: &mut Core, at: Place, header: &Header, code: Code) {
    let is_one_way = header.kind == Kind::OneWay;
    core.note(at, "refused", &[header.call.0, u64::from(is_one_way), code as u64]);
    let is_sure = core.is_sure(at);
    if let Some(uid) = core.ledger.arrives(at, is_one_way, header.call.0, is_sure) {
        core.ledger.ends(uid, Some(Answer::Status(code)));
    }
}

/// Metadata of the call with this number, sometimes none.
fn metadata(core: &mut Core, uid: u64) -> Metadata {
    let mut metadata = Metadata::new();
    if core.random.percent(core.plan.metadata) {
        let filler_len = core.random.one_of(&[0, 10, 3000]);
        metadata.insert_named("uid", uid.to_le_bytes()).expect("short");
        metadata.insert(Key::TRACEPARENT, vec![b'x'; filler_len]).expect("short enough");
    }
    metadata
}

/// Metadata came with the call that it was sent with.
fn check_metadata(core: &Core, at: Place, uid: u64, header: &Header, payload: &[u8]) {
    let block = &payload[..header.meta_bytes()];
    let metadata = MetadataRef::parse(block).expect("the session has checked it");
    if core.is_sure(at) && !block.is_empty() {
        assert_eq!(metadata.get_named("uid"), Some(&uid.to_le_bytes()[..]), "metadata of {uid}");
    }
}

/// What goes with a request that is made now, and its deadline, `u64::MAX` for none.
fn options<'a>(core: &mut Core, metadata: &'a Metadata) -> (CallOptions<'a>, u64) {
    let (now_us, metadata) = (core.now_us, metadata.as_bytes());
    let mut options = CallOptions { now_us, metadata, ..CallOptions::default() };
    if core.random.percent(core.plan.deadlines) {
        options.deadline_us = Some(core.now_us + core.random.below(core.plan.deadline_us_max));
    }
    options.key = RoutingKey::from_wire(core.random.below(2) as u32);
    (options, options.deadline_us.unwrap_or(u64::MAX))
}

/// A request was not sent: there is a reason.
fn check_not_made(end: &End, core: &mut Core, error: &OpenError, deadline_us: u64) {
    let is_explained = match error {
        OpenError::NotOpen => !end.session.is_open(),
        OpenError::Draining => end.peer_drains,
        OpenError::TooManyInFlight => !end.session.has_room(),
        OpenError::TooLate => deadline_us <= core.now_us,
        OpenError::Encode(_) => core.plan.large > 0,
        _ => false,
    };
    assert!(is_explained, "no call at {:?}: {error}", end.place);
    core.note(end.place, "not made", &[]);
}

//! Calls with items: from the server, from the client, or from both.
//!
//! The call itself is made, run and answered as in `unary.rs`; what is here sends its items, takes
//! those that come, and tells the handler when it is done. An end whose credit has run out sends
//! again when it is told that there is more, and not before: else it would not be found out that
//! nobody told it.

use std::collections::VecDeque;

use ringcall_codec::{CallId, Flags, Header, ItemError, Kind};

use super::{Work, unary};
use crate::{
    core::{Core, Task},
    end::{CALL_GATE_BYTES, End},
    items::{Handle, cost_of, credits},
    letter::{CLIENT_STREAM, Envelope, Letter, SERVER_STREAM, TWO_WAY},
    plan::MS,
};

/// Items that are still sent of each stream when faults have stopped, at most.
const ITEMS_AFTER_CALM_MAX: u32 = 2;

/// How long an end waits that has too much to send.
const GATE_US: u64 = 20 * MS;

/// A stream at one of its ends.
#[derive(Debug)]
pub(crate) struct Stream {
    /// The call in the ledger, where it is known.
    uid: Option<u64>,
    /// The handler, at the end that serves the call.
    job: Option<u64>,
    /// Items to be sent before the end.
    to_send: u32,
    has_ended: bool,
    /// What there was none of when an item was to be sent.
    lacks: Option<Lack>,
    /// The lengths of the frames of items that wait to be taken, in bytes.
    inbox: VecDeque<u64>,
    /// What they take from the credit, in bytes.
    held: u64,
    /// What was taken and not granted anew, in bytes of credit.
    owed: u64,
    received: u32,
    peer_has_ended: bool,
    is_take_due: bool,
    /// The handler is not done before the caller's items are.
    awaits_end: bool,
    is_finishing: bool,
    /// The call has its outcome at this end.
    is_over: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Lack {
    Credit,
    SharedCredit,
}

pub(crate) fn make(end: &mut End, core: &mut Core, is_random: bool) -> Option<u64> {
    let method = core.random.one_of(&[SERVER_STREAM, CLIENT_STREAM, TWO_WAY]);
    let (uid, call) = unary::make(end, core, method, is_random)?;
    core.note(end.place, "stream", &[uid, call.0]);
    open(end, core, Handle::made(call), method, Some(uid), None);
    Some(uid)
}

/// A stream has come, and its handler begins.
pub(crate) fn begin(end: &mut End, core: &mut Core, method: u32, number: u64) {
    let Some(job) = end.jobs.get(&number) else { return };
    let (uid, work, stream) = (job.uid, job.work, Handle::served(job.call));
    open(end, core, stream, method, uid, Some(number));
    match work {
        Work::Reply => finish_if_done(end, core, stream),
        Work::Refuse => {
            let work_us = core.random.below(core.plan.work_us_max);
            core.after(work_us, Task::Work { at: end.place, job: number });
        }
        Work::Hang => {}
    }
}

fn open(
    end: &mut End,
    core: &mut Core,
    stream: Handle,
    method: u32,
    uid: Option<u64>,
    job: Option<u64>,
) {
    let caller_sends = method != SERVER_STREAM;
    let sends = if stream.is_made_here { caller_sends } else { method != CLIENT_STREAM };
    let count_max = if core.is_calm { ITEMS_AFTER_CALM_MAX } else { core.plan.items_max };
    let to_send = if sends { core.random.below(u64::from(count_max) + 1) as u32 } else { 0 };
    let is_early = core.random.percent(core.plan.early_ends);
    let state = Stream {
        uid,
        job,
        to_send,
        has_ended: false,
        lacks: None,
        inbox: VecDeque::new(),
        held: 0,
        owed: 0,
        received: 0,
        peer_has_ended: false,
        is_take_due: false,
        awaits_end: caller_sends && !is_early,
        is_finishing: false,
        is_over: false,
    };
    end.streams.insert(stream, state);
    core.items.begin(end.place, stream);
    if sends || core.random.percent(50) {
        let wait_us = core.random.below(core.plan.item_every_us + 1);
        core.after(wait_us, Task::Send { at: end.place, stream });
    }
}

/// The application has items to send.
pub(crate) fn on_send(end: &mut End, core: &mut Core, stream: Handle) {
    let is_live = end.is_live();
    let Some(state) = end.streams.get_mut(&stream) else { return };
    if !is_live || state.is_over || state.has_ended || state.lacks.is_some() {
        return;
    }
    for _ in 0..core.random.between(1, 4) {
        if end.backlog() >= CALL_GATE_BYTES {
            return core.after(GATE_US, Task::Send { at: end.place, stream });
        }
        let Some(state) = end.streams.get_mut(&stream) else { return };
        if state.to_send == 0 {
            end_items(end, core, stream);
            return finish_if_done(end, core, stream);
        }
        match send(end, core, stream) {
            Err(ItemError::NoCredit) => return lack(end, core, stream, Lack::Credit),
            Err(ItemError::NoSharedCredit) => return lack(end, core, stream, Lack::SharedCredit),
            Err(ItemError::Encode(_)) => {
                // Another item is sent in its place, and a small one is drawn at some time.
                assert!(core.plan.large > 0, "small items fit");
                core.note(end.place, "item too long", &[stream.call]);
            }
            outcome => {
                let has_gone = outcome.is_ok();
                assert!(has_gone || !core.is_sure(end.place), "{stream:?}: {outcome:?}");
                let Some(state) = end.streams.get_mut(&stream) else { return };
                state.to_send -= 1;
            }
        }
    }
    let wait_us = core.random.below(core.plan.item_every_us + 1);
    core.after(wait_us, Task::Send { at: end.place, stream });
}

fn lack(end: &mut End, core: &mut Core, stream: Handle, lack: Lack) {
    let what = if lack == Lack::Credit { "no credit" } else { "no shared credit" };
    core.note(end.place, what, &[stream.call]);
    if let Some(state) = end.streams.get_mut(&stream) {
        state.lacks = Some(lack);
    }
}

/// Sends an item; that this can or cannot be is what the account of credit says.
fn send(end: &mut End, core: &mut Core, stream: Handle) -> Result<(), ItemError> {
    let uid = end.streams.get(&stream).and_then(|state| state.uid).unwrap_or_default();
    let sequence = core.items.count(end.place, stream);
    let len = core.plan.len(&mut core.random);
    let item = Letter::new(uid, mark(stream.is_made_here, sequence), len);
    let obstacle = core.items.obstacle(end.place, stream);
    let before = end.session.output().len();
    let outcome = end.session.send_item(&mut core.scratch, stream.id(), &item);
    let frame_len = (end.session.output().len() - before) as u64;
    assert_eq!(frame_len > 0, outcome.is_ok(), "{stream:?}: {outcome:?}");
    if core.is_sure(end.place) {
        let is_too_long = matches!(outcome, Err(ItemError::Encode(_)));
        let is_right = outcome.err() == obstacle || is_too_long && obstacle.is_none();
        assert!(is_right, "{stream:?}: {outcome:?}, should be {obstacle:?}");
    }
    if outcome.is_ok() {
        core.note(end.place, "item", &[stream.call, u64::from(sequence), frame_len]);
        core.items.sent(end.place, stream, item.envelope(), frame_len);
    }
    outcome
}

/// What an item says of its place: who sends it, and how many it has sent before. It is no zero,
/// as that of a request is.
fn mark(is_from_caller: bool, sequence: u32) -> u64 {
    let sender = if is_from_caller { 1 } else { 2 };
    sender << 32 | u64::from(sequence)
}

/// Says that no more items come; after that none can be sent, and saying it again changes nothing.
fn end_items(end: &mut End, core: &mut Core, stream: Handle) {
    let Some(state) = end.streams.get_mut(&stream) else { return };
    state.has_ended = true;
    core.note(end.place, "items end", &[stream.call]);
    end.session.end_items(stream.id());
    core.items.ended(end.place, stream);
    if core.random.percent(20) {
        let output_len = end.session.output().len();
        end.session.end_items(stream.id());
        check_ended(end, core, stream, output_len);
    }
}

/// An item cannot be sent on this stream, and nothing was sent since the output was so long.
fn check_ended(end: &mut End, core: &mut Core, stream: Handle, output_len: usize) {
    let outcome = end.session.send_item(&mut core.scratch, stream.id(), &Letter::new(0, 0, 8));
    assert_eq!(outcome, Err(ItemError::Ended), "{stream:?}");
    assert_eq!(end.session.output().len(), output_len, "{stream:?}: nothing is sent");
}

/// The frame of an item or an end has come. Whatever the session made of it, it is the next that
/// was sent.
fn arrives(end: &End, core: &mut Core, header: &Header, payload: &[u8]) -> Option<Envelope> {
    let is_end = header.flags.contains(Flags::END);
    let body = payload.get(header.meta_bytes()..).filter(|_| !is_end);
    let item = body.and_then(Letter::read);
    if core.is_sure(end.place) {
        core.items.arrives(end.place, header, item);
    }
    item
}

/// A frame means nothing: an item or credit does so where the stream has ended here.
pub(crate) fn on_nothing(end: &End, core: &mut Core, header: &Header, payload: &[u8]) {
    let what = match header.kind {
        Kind::Item => "late item",
        Kind::Credit => "late credit",
        _ => return,
    };
    if header.kind == Kind::Item {
        arrives(end, core, header, payload);
    }
    let is_made_here = header.flags.contains(Flags::CALLEE);
    let stream = Handle { is_made_here, call: header.call.0 };
    if core.is_sure(end.place) {
        let is_over = end.streams.get(&stream).is_none_or(|state| state.is_over);
        assert!(is_over, "{:?} of {stream:?} was thrown away", header.kind);
    }
    core.note(end.place, what, &[stream.call]);
}

/// An item has come.
pub(crate) fn on_item(
    end: &mut End,
    core: &mut Core,
    stream: Handle,
    header: &Header,
    payload: &[u8],
) {
    let (frame_len, is_sure) = (header.frame_len(), core.is_sure(end.place));
    core.note(end.place, "item comes", &[stream.call, u64::from(header.aux), frame_len]);
    let item = arrives(end, core, header, payload);
    let Some(state) = end.streams.get_mut(&stream) else {
        assert!(!is_sure, "an item of {stream:?}, which is no stream");
        return;
    };
    if is_sure {
        assert!(!state.is_over && !state.peer_has_ended, "{stream:?}: an item after the end");
        assert_eq!(header.aux, state.received, "{stream:?}: not the next item");
        let place = item.map(|Envelope { uid, answers, .. }| (Some(uid), answers));
        let mark = mark(!stream.is_made_here, state.received);
        assert_eq!(place, Some((state.uid, mark)), "{stream:?}: another item");
        core.items.hold(end.place, cost_of(frame_len), state.held);
    }
    state.received += 1;
    state.inbox.push_back(frame_len);
    state.held += cost_of(frame_len);
    if !std::mem::replace(&mut state.is_take_due, true) {
        take_later(end, core, stream);
    }
}

/// The peer sends no more items.
pub(crate) fn on_ended(end: &mut End, core: &mut Core, stream: Handle, header: &Header) {
    core.note(end.place, "items have ended", &[stream.call]);
    arrives(end, core, header, b"");
    let is_sure = core.is_sure(end.place);
    let Some(state) = end.streams.get_mut(&stream) else {
        assert!(!is_sure, "the end of {stream:?}, which is no stream");
        return;
    };
    let has_ended = std::mem::replace(&mut state.peer_has_ended, true);
    assert!(!is_sure || !has_ended && !state.is_over, "{stream:?}: a second end");
    finish_if_done(end, core, stream);
}

/// There is more credit: who had none sends again.
pub(crate) fn on_credit(end: &mut End, core: &mut Core, stream: Option<Handle>, header: &Header) {
    let call = stream.map_or(0, |stream| stream.call);
    core.note(end.place, "credit", &[call, u64::from(header.aux)]);
    if core.is_sure(end.place) {
        core.items.credited(end.place, stream, header.aux.into());
    }
    let lack = if stream.is_some() { Lack::Credit } else { Lack::SharedCredit };
    for (handle, state) in &mut end.streams {
        let is_meant = stream.is_none_or(|stream| stream == *handle);
        if is_meant && state.lacks == Some(lack) {
            state.lacks = None;
            core.after(0, Task::Send { at: end.place, stream: *handle });
        }
    }
}

fn take_later(end: &End, core: &mut Core, stream: Handle) {
    let wait_us_max = if core.is_calm { MS } else { core.plan.take_us_max };
    let wait_us = core.random.below(wait_us_max + 1);
    core.after(wait_us, Task::Take { at: end.place, stream });
}

/// The application takes items.
pub(crate) fn on_take(end: &mut End, core: &mut Core, stream: Handle) {
    if !end.is_live() {
        return;
    }
    let Some(state) = end.streams.get_mut(&stream) else {
        return use_gone(end, core, stream);
    };
    for _ in 0..core.random.between(1, 3) {
        let Some(frame_len) = state.inbox.pop_front() else { break };
        let (cost, output_len) = (cost_of(frame_len), end.session.output().len());
        state.held -= cost;
        state.owed += cost;
        core.items.taken(end.place, stream, cost);
        end.session.item_taken(stream.id(), frame_len);
        let credits = credits(&end.session.output()[output_len..]);
        let of_stream = credits.filter(|(call, _)| *call == stream.call);
        state.owed -= of_stream.map(|(_, bytes)| bytes).sum::<u64>();
        let is_due = state.owed >= u64::from(end.config.limits.stream_window) / 2;
        let may_come = !state.is_over && !state.peer_has_ended;
        assert!(!(is_due && may_come), "{} bytes of {stream:?} are not granted anew", state.owed);
    }
    state.is_take_due = !state.inbox.is_empty();
    if state.is_take_due {
        take_later(end, core, stream);
    } else {
        finish_if_done(end, core, stream);
    }
}

/// A handler that replies does so once it has sent all items, and taken all where it wants to.
fn finish_if_done(end: &mut End, core: &mut Core, stream: Handle) {
    let Some(state) = end.streams.get_mut(&stream) else { return };
    let Some(number) = state.job.filter(|_| !state.is_finishing) else { return };
    let has_taken = !state.awaits_end || state.peer_has_ended && state.inbox.is_empty();
    let replies = end.jobs.get(&number).is_some_and(|job| job.work == Work::Reply);
    if replies && has_taken && state.to_send == 0 {
        state.is_finishing = true;
        let work_us = core.random.below(core.plan.work_us_max);
        core.after(work_us, Task::Work { at: end.place, job: number });
    }
}

/// A handler is to stop and does not listen. It goes on for a while and not for ever, as what it
/// waits for may never come.
pub(crate) fn on_stop(end: &End, core: &mut Core, call: CallId, job: u64) {
    if end.streams.contains_key(&Handle::served(call)) {
        let stop_us = core.random.below(core.plan.work_us_max);
        core.after(stop_us, Task::Work { at: end.place, job });
    }
}

/// A call made here has its outcome, which was not taken yet: items that came can be.
pub(crate) fn closes(end: &mut End, core: &mut Core, call: CallId) {
    let stream = Handle::made(call);
    if let Some(state) = end.streams.get_mut(&stream) {
        state.is_over = true;
        core.items.close(end.place, stream);
    }
}

/// The response of a call made here has come: nothing of it comes after that, or was sent before
/// and is still to come.
pub(crate) fn responded(end: &End, core: &mut Core, call: CallId) {
    if core.is_sure(end.place) {
        core.items.check_all_came(end.place, Handle::made(call));
    }
}

/// A call has ended here, and its stream with it. Somebody may not know yet.
pub(crate) fn gone(end: &mut End, core: &mut Core, stream: Handle) {
    let Some(state) = end.streams.remove(&stream) else { return };
    core.items.close(end.place, stream);
    core.items.dropped(end.place, state.held);
    if !state.inbox.is_empty() {
        core.note(end.place, "untaken", &[stream.call, state.held]);
    }
    if core.random.percent(20) {
        let wait_us = core.random.below(50 * MS);
        core.after(wait_us, Task::Take { at: end.place, stream });
    }
}

/// Somebody uses a stream that has ended, when its slot may be another call's: nothing happens.
fn use_gone(end: &mut End, core: &mut Core, stream: Handle) {
    let output_len = end.session.output().len();
    assert!(!end.session.is_stream(stream.id()), "{stream:?} has ended");
    end.session.item_taken(stream.id(), 1 << 20);
    end.session.end_items(stream.id());
    check_ended(end, core, stream, output_len);
}

/// The peer has left, and nobody waits for calls made here any more.
pub(crate) fn left(end: &mut End, core: &mut Core) {
    let made = end.streams.iter().filter(|(stream, state)| stream.is_made_here && !state.is_over);
    let made: Vec<Handle> = made.map(|(stream, _)| *stream).collect();
    for stream in made {
        gone(end, core, stream);
    }
}

/// Streams end soon.
pub(crate) fn calm(end: &mut End) {
    for state in end.streams.values_mut() {
        state.to_send = state.to_send.min(ITEMS_AFTER_CALM_MAX);
    }
}

/// The session has the streams that are kept here.
pub(crate) fn check(end: &End, core: &Core) {
    if core.is_sure(end.place) {
        for (stream, state) in &end.streams {
            assert_eq!(end.session.is_stream(stream.id()), !state.is_over, "{stream:?}: {state:?}");
        }
    }
}

//! Calls that get an answer, those with items included: what of them has to do with items is in
//! `streams.rs`.

use ringcall_codec::{CallId, Code, Flags, Header, OpenError, ReplyError, Status};

use super::{
    Job, Made, MadeState, Work, check_metadata, check_not_made, metadata, options, streams,
};
use crate::{
    core::{Core, Task},
    end::End,
    items::Handle,
    ledger::{Answer, Outcome},
    letter::{Letter, UNARY},
    plan::{LEN_SMALL_MAX, MS, SECOND},
};

/// Makes a call, and gives its number in the ledger and its id. Not `is_random`: a small one
/// without a deadline, whose caller waits.
pub(crate) fn make(
    end: &mut End,
    core: &mut Core,
    method: u32,
    is_random: bool,
) -> Option<(u64, CallId)> {
    let uid = core.ledger.next_uid();
    let len = if is_random { core.plan.len(&mut core.random) } else { 10 };
    // Most attempts find no room, and the letter is not looked at then: a short one is as good.
    let len = if end.session.has_room() { len } else { len.min(LEN_SMALL_MAX as usize) };
    let request = Letter::new(uid, 0, len);
    let metadata = metadata(core, uid);
    let (mut options, mut deadline_us) = options(core, &metadata);
    if !is_random {
        options.deadline_us = None;
        deadline_us = u64::MAX;
    }
    options.is_stream = method != UNARY;
    let output_len = end.session.output().len();
    match end.session.call(&mut core.scratch, method, options, &request) {
        Ok(call) => {
            end.used_us = core.now_us;
            core.note(end.place, "call", &[uid, call.0]);
            let deadline = options.deadline_us;
            core.ledger.enter(end.place, method, call.0, deadline, request.envelope());
            let made = Made { uid, state: MadeState::Waiting, deadline_us };
            assert!(end.made.insert(call.0, made).is_none(), "{call} was in flight");
            if is_random && core.random.percent(core.plan.abandons) {
                let wait_us = core.random.below(2 * core.plan.work_us_max);
                core.after(wait_us, Task::Abandon { at: end.place, call: call.0 });
            }
            Some((uid, call))
        }
        Err(error) => {
            assert_eq!(end.session.output().len(), output_len, "nothing was sent");
            check_not_made(end, core, &error, deadline_us);
            if let OpenError::Encode(_) = error {
                core.note(end.place, "too long", &[len as u64]);
            }
            None
        }
    }
}

/// A call has come.
pub(crate) fn on_call(
    end: &mut End,
    core: &mut Core,
    call: CallId,
    method: u32,
    header: &Header,
    payload: &[u8],
) {
    end.used_us = core.now_us;
    let is_sure = core.is_sure(end.place);
    let uid = core.ledger.arrives(end.place, false, call.0, is_sure);
    let request = Letter::read(&payload[header.meta_bytes()..]);
    let is_stream = header.flags.contains(Flags::STREAM);
    if is_sure {
        let called = uid.and_then(|uid| core.ledger.call(uid)).map(|call| call.method);
        assert_eq!(called, Some(method), "another method");
        assert_eq!(is_stream, method != UNARY, "a stream that is none");
    }
    if let Some(uid) = uid {
        check_metadata(core, end.place, uid, header, payload);
    }
    let plan = &core.plan;
    if core.random.percent(plan.refusals / 4) {
        // By who dispatches calls, before the handler.
        let status = Status::new(Code::PermissionDenied, "not you").not_executed();
        assert!(end.session.refuse(call, &status));
        core.note(end.place, "turned away", &[call.0]);
        if let Some(uid) = uid {
            core.ledger.ends(uid, Some(Answer::Status(status.code())));
        }
        return;
    }
    let work = if core.random.percent(plan.hangs) && !core.is_calm {
        Work::Hang
    } else if core.random.percent(plan.refusals) {
        Work::Refuse
    } else {
        Work::Reply
    };
    if let Some(uid) = uid {
        core.ledger.begins(uid, request, is_sure);
    }
    core.jobs += 1;
    let job = core.jobs;
    core.note(end.place, "begins", &[call.0, job]);
    end.jobs.insert(job, Job { uid, call, request, work, was_told: false });
    if is_stream {
        return streams::begin(end, core, method, job);
    }
    if work == Work::Hang {
        return;
    }
    if core.random.percent(core.plan.at_once) {
        on_work(end, core, job);
    } else {
        let work_us = core.random.below(core.plan.work_us_max);
        core.after(work_us, Task::Work { at: end.place, job });
    }
}

/// A handler is to stop. Some do not listen; others take their time.
pub(crate) fn on_stop(end: &mut End, core: &mut Core, call: CallId) {
    core.note(end.place, "stop", &[call.0]);
    assert!(end.session.is_stopping(call));
    let (number, job) = end
        .jobs
        .iter_mut()
        .find(|(_, job)| job.call == call)
        .unwrap_or_else(|| panic!("{call} does not run and is to stop"));
    assert!(!job.was_told, "{call} was told to stop twice");
    job.was_told = true;
    if job.work == Work::Hang || !core.random.percent(core.plan.deaf) {
        job.work = Work::Hang;
        let stop_us = core.random.below(core.plan.stop_us_max + 1);
        let task = Task::Work { at: end.place, job: *number };
        core.after(stop_us, task);
    } else {
        let number = *number;
        streams::on_stop(end, core, call, number);
    }
}

/// A handler is done, if it still works.
pub(crate) fn on_work(end: &mut End, core: &mut Core, number: u64) {
    let Some(job) = end.jobs.remove(&number) else { return };
    end.used_us = core.now_us;
    core.note(end.place, "ends", &[job.call.0, number]);
    let answer = match (job.work, job.request) {
        (Work::Reply, Some(_)) => reply(end, core, &job),
        (Work::Hang, _) => {
            let status = Status::new(Code::Cancelled, "stopped");
            assert!(end.session.end_stopped(job.call, &status));
            if job.was_told { Answer::Stopped } else { Answer::Status(status.code()) }
        }
        (Work::Reply | Work::Refuse, _) => {
            let mut status = Status::new(Code::NotFound, "not here");
            if core.random.percent(50) {
                let details = Letter::new(job.uid.unwrap_or_default(), 0, 100);
                status = status.with_details(&details).expect("short enough");
            }
            assert!(end.session.refuse(job.call, &status));
            Answer::Status(status.code())
        }
    };
    streams::gone(end, core, Handle::served(job.call));
    job.ends(core, Some(answer));
}

fn reply(end: &mut End, core: &mut Core, job: &Job) -> Answer {
    let uid = job.uid.unwrap_or_default();
    let len = core.plan.len(&mut core.random);
    let reply = Letter::new(uid, job.request.map_or(0, |request| request.sum), len);
    let metadata = metadata(core, uid);
    match end.session.reply(&mut core.scratch, job.call, metadata.as_bytes(), &reply) {
        Ok(()) => Answer::Reply { sum: reply.envelope().sum },
        Err(ReplyError::Encode(_)) => {
            assert!(core.plan.large > 0, "small replies fit");
            core.note(end.place, "reply too long", &[len as u64]);
            Answer::Status(Code::ResourceExhausted)
        }
        Err(error) => panic!("no reply to {}: {error}", job.call),
    }
}

/// A reply has come.
pub(crate) fn on_reply(
    end: &mut End,
    core: &mut Core,
    call: CallId,
    header: &Header,
    payload: &[u8],
) {
    let uid = answered(end, core, call);
    core.note(end.place, "reply", &[uid, call.0]);
    check_metadata(core, end.place, uid, header, payload);
    let reply = Letter::read(&payload[header.meta_bytes()..]);
    let is_sure = core.is_sure(end.place);
    core.ledger.replied(uid, reply, is_sure);
}

/// The peer says that a call has failed.
pub(crate) fn on_failed(end: &mut End, core: &mut Core, call: CallId, status: &Status) {
    let uid = answered(end, core, call);
    let is_sure = core.is_sure(end.place);
    match core.ledger.failed(uid, status, is_sure) {
        Outcome::Refused(code) => core.note(end.place, "not executed", &[uid, code as u64]),
        _ => core.note(end.place, "failed", &[uid, status.code() as u64]),
    }
    if is_sure && status.has_details() {
        let details = status.details::<Letter>().expect("a letter was sent");
        assert_eq!(details.envelope().map(|envelope| envelope.uid), Some(uid), "another's details");
        core.note(end.place, "details", &[uid]);
    }
}

/// A call's outcome has come, and is taken soon.
fn answered(end: &mut End, core: &mut Core, call: CallId) -> u64 {
    let made = end.made.get_mut(&call.0).unwrap_or_else(|| panic!("{call} is not in flight"));
    assert_eq!(made.state, MadeState::Waiting, "{call} has an outcome, and nobody waits for it");
    made.state = MadeState::Answered;
    end.used_us = core.now_us;
    let uid = made.uid;
    streams::responded(end, core, call);
    streams::closes(end, core, call);
    release_soon(end, core, call);
    uid
}

/// The outcome of a call is taken now, or a little later.
fn release_soon(end: &mut End, core: &mut Core, call: CallId) {
    if core.random.percent(50) {
        release(end, core, call.0);
    } else {
        let taken_us = core.random.below(20 * MS);
        core.after(taken_us, Task::Release { at: end.place, call: call.0 });
    }
}

/// The caller takes the outcome of a call, or drops it.
pub(crate) fn release(end: &mut End, core: &mut Core, call: u64) {
    match end.made.get_mut(&call) {
        Some(made) if made.state == MadeState::Expired => made.state = MadeState::Abandoned,
        Some(made) if made.state == MadeState::Answered => drop(end.made.remove(&call)),
        _ => return,
    }
    if core.random.percent(80) {
        end.session.release(CallId(call));
    } else {
        end.session.abandon(CallId(call));
    }
    streams::gone(end, core, Handle::made(CallId(call)));
}

/// A call's deadline is past.
pub(crate) fn on_expired(end: &mut End, core: &mut Core, call: CallId) {
    let made = end.made.get_mut(&call.0).unwrap_or_else(|| panic!("{call} is not in flight"));
    assert_eq!(made.state, MadeState::Waiting, "{call} expires and nobody waits");
    made.state = MadeState::Expired;
    core.note(end.place, "expired", &[made.uid]);
    core.ledger.expired(made.uid, core.now_us);
    streams::closes(end, core, call);
    release_soon(end, core, call);
}

/// The caller gives up, if it still waits.
pub(crate) fn abandon(end: &mut End, core: &mut Core, call: u64) {
    let is_live = end.is_live();
    let waiting = end.made.get_mut(&call).filter(|made| made.state == MadeState::Waiting);
    if let Some(made) = waiting.filter(|_| is_live) {
        made.state = MadeState::Abandoned;
        core.note(end.place, "abandon", &[made.uid]);
        core.ledger.gives_up(made.uid, Outcome::Abandoned);
        end.session.abandon(CallId(call));
        streams::gone(end, core, Handle::made(CallId(call)));
    }
}

/// The response to an abandoned call has come: its slot is free.
pub(crate) fn on_abandoned(end: &mut End, core: &mut Core, call: CallId) {
    end.used_us = core.now_us;
    let made = end.made.get_mut(&call.0).unwrap_or_else(|| panic!("{call} is not in flight"));
    let (uid, was) = (made.uid, made.state);
    // Its time is up and nobody has taken note yet: the slot is free once somebody has.
    made.state = MadeState::Answered;
    if was != MadeState::Expired {
        assert_eq!(was, MadeState::Abandoned, "{call} was not abandoned");
        end.made.remove(&call.0);
    }
    core.note(end.place, "slot is free", &[uid]);
    let is_sure = core.is_sure(end.place);
    core.ledger.slot_is_free(uid, is_sure);
    streams::responded(end, core, call);
}

/// Handlers that never end do so soon.
pub(crate) fn calm(end: &End, core: &mut Core) {
    for (job, _) in end.jobs.iter().filter(|(_, job)| job.work == Work::Hang) {
        let stop_us = core.random.below(SECOND);
        core.after(stop_us, Task::Work { at: end.place, job: *job });
    }
}

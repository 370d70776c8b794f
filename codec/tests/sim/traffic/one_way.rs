//! Calls that get no answer, and notices where they have failed.

use ringcall_codec::{CallId, Code, Header, Status};

use super::{Job, Work, check_metadata, check_not_made, metadata, options};
use crate::{
    core::{Core, Task},
    end::End,
    ledger::Answer,
    letter::{Letter, ONE_WAY},
};

pub(crate) fn make(end: &mut End, core: &mut Core) {
    let uid = core.ledger.next_uid();
    let len = core.plan.len(&mut core.random);
    let request = Letter::new(uid, 0, len);
    let metadata = metadata(core, uid);
    let (options, deadline_us) = options(core, &metadata);
    let output_len = end.session.output().len();
    match end.session.one_way(&mut core.scratch, ONE_WAY, options, &request) {
        Ok(number) => {
            end.used_us = core.now_us;
            core.note(end.place, "one way", &[uid, number]);
            let deadline_us = options.deadline_us;
            core.ledger.enter(end.place, ONE_WAY, number, deadline_us, request.envelope());
        }
        Err(error) => {
            assert_eq!(end.session.output().len(), output_len, "nothing was sent");
            check_not_made(end, core, &error, deadline_us);
        }
    }
}

/// A one-way call has come.
pub(crate) fn on_call(
    end: &mut End,
    core: &mut Core,
    number: u64,
    method: u32,
    header: &Header,
    payload: &[u8],
) {
    end.used_us = core.now_us;
    let is_sure = core.is_sure(end.place);
    let uid = core.ledger.arrives(end.place, true, number, is_sure);
    let request = Letter::read(&payload[header.meta_bytes()..]);
    if is_sure {
        assert_eq!(method, ONE_WAY);
    }
    if let Some(uid) = uid {
        check_metadata(core, end.place, uid, header, payload);
        core.ledger.begins(uid, request, is_sure);
    }
    core.jobs += 1;
    let job = core.jobs;
    core.note(end.place, "begins one way", &[number, job]);
    let work = if core.random.percent(core.plan.refusals) { Work::Refuse } else { Work::Reply };
    let call = CallId(number);
    end.one_ways_come += 1;
    end.one_way_jobs.insert(job, Job { uid, call, request, work, was_told: false });
    let work_us = core.random.below(core.plan.work_us_max);
    core.after(work_us, Task::Work { at: end.place, job });
}

/// A handler is done, if it still works.
pub(crate) fn on_work(end: &mut End, core: &mut Core, number: u64) {
    let Some(job) = end.one_way_jobs.remove(&number) else { return };
    end.used_us = core.now_us;
    core.note(end.place, "ends one way", &[job.call.0, number]);
    if job.work == Work::Reply {
        end.session.end_one_way(job.call.0, Ok(()));
        job.ends(core, None);
    } else {
        let status = Status::new(Code::FailedPrecondition, "cannot");
        end.session.end_one_way(job.call.0, Err(&status));
        job.ends(core, Some(Answer::Status(status.code())));
    }
}

/// The peer says that a one-way call has failed.
pub(crate) fn on_notice(end: &mut End, core: &mut Core, number: u64, status: &Status) {
    core.note(end.place, "notice", &[number, status.code() as u64]);
    let is_sure = core.is_sure(end.place);
    core.ledger.noticed(end.place, number, status.code(), is_sure);
}

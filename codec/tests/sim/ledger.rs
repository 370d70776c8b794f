//! What the checker knows of each call: that it has one outcome, and which ones it may have.
//!
//! It sees both ends, so it can say what no end can: whether a handler has really begun, whether
//! it still works, and what it has answered. Calls on a connection whose bytes were changed are
//! held to less (`is_sure` is false): one outcome, whatever it is.

use std::collections::BTreeMap;

use ringcall_codec::{Code, Status};

use crate::{
    core::Place,
    letter::{Envelope, ONE_WAY},
};

#[derive(Default)]
pub(crate) struct Ledger {
    calls: Vec<Call>,
    /// By the end that made the call, whether it is a one-way call, and its number there.
    ids: BTreeMap<(Place, bool, u64), u64>,
}

#[derive(Debug)]
pub(crate) struct Call {
    pub(crate) from: Place,
    pub(crate) method: u32,
    pub(crate) deadline_us: Option<u64>,
    sum: u64,
    /// It reached the other end.
    is_seen: bool,
    /// Its handler has begun.
    has_begun: bool,
    /// Its handler works.
    works: bool,
    answer: Option<Answer>,
    pub(crate) outcome: Option<Outcome>,
    /// A one-way call has failed and its caller was told.
    is_noticed: bool,
}

/// How the handler's end has answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    Reply {
        sum: u64,
    },
    Status(Code),
    /// As the session says, after it told the handler to stop.
    Stopped,
}

/// What the caller knows at last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    Reply,
    Status(Code),
    /// Not executed.
    Refused(Code),
    Expired,
    /// The caller gave up.
    Abandoned,
    /// The connection ended first.
    Lost,
    /// The caller's node crashed.
    CallerGone,
}

impl Ledger {
    /// The number of the next call.
    pub(crate) fn next_uid(&self) -> u64 {
        self.calls.len() as u64 + 1
    }

    /// Enters a call that was made, with its number at its caller's end.
    pub(crate) fn enter(
        &mut self,
        from: Place,
        method: u32,
        id: u64,
        deadline_us: Option<u64>,
        request: Envelope,
    ) {
        assert_eq!(request.uid, self.next_uid());
        let twice = self.ids.insert((from, method == ONE_WAY, id), request.uid);
        assert_eq!(twice, None, "two calls have the number {id:#x}");
        self.calls.push(Call {
            from,
            method,
            deadline_us,
            sum: request.sum,
            is_seen: false,
            has_begun: false,
            works: false,
            answer: None,
            outcome: None,
            is_noticed: false,
        });
    }

    pub(crate) fn call(&self, uid: u64) -> Option<&Call> {
        self.calls.get(uid.checked_sub(1)? as usize)
    }

    pub(crate) fn calls(&self) -> impl Iterator<Item = (u64, &Call)> {
        self.calls.iter().enumerate().map(|(at, call)| (at as u64 + 1, call))
    }

    fn get(&mut self, uid: u64) -> &mut Call {
        &mut self.calls[uid as usize - 1]
    }

    /// A call has come at the end `at` under this number: the number in the ledger of the call
    /// that its caller made so.
    pub(crate) fn arrives(
        &mut self,
        at: Place,
        is_one_way: bool,
        id: u64,
        is_sure: bool,
    ) -> Option<u64> {
        let uid = self.ids.get(&(at.peer(), is_one_way, id)).copied();
        let call = uid.map(|uid| self.get(uid)).filter(|call| !call.is_seen);
        if let Some(call) = call {
            call.is_seen = true;
            return uid;
        }
        assert!(!is_sure, "{id:#x} was never called, or arrived twice");
        None
    }

    /// The handler begins, with this request.
    pub(crate) fn begins(&mut self, uid: u64, request: Option<Envelope>, is_sure: bool) {
        let call = self.get(uid);
        if is_sure {
            let sent = Envelope { uid, answers: 0, sum: call.sum };
            assert_eq!(request, Some(sent), "call {uid} came with another request");
        }
        assert!(!call.has_begun, "call {uid} was executed twice");
        call.has_begun = true;
        call.works = true;
    }

    /// The handler does not work any more, or never will; its answer, if any, was sent.
    pub(crate) fn ends(&mut self, uid: u64, answer: Option<Answer>) {
        let call = self.get(uid);
        assert_eq!(call.answer, None, "call {uid} was answered twice");
        call.works = false;
        call.answer = answer;
    }

    fn settle(&mut self, uid: u64, outcome: Outcome) -> &Call {
        let call = self.get(uid);
        assert_eq!(call.outcome, None, "call {uid} has a second outcome, {outcome:?}");
        call.outcome = Some(outcome);
        call
    }

    /// The caller has a reply.
    pub(crate) fn replied(&mut self, uid: u64, reply: Option<Envelope>, is_sure: bool) {
        let call = self.settle(uid, Outcome::Reply);
        if is_sure {
            let reply = reply.expect("a reply can be read");
            assert_eq!(reply.uid, uid, "the reply to another call");
            assert_eq!(reply.answers, call.sum, "the reply to another request");
            assert_eq!(call.answer, Some(Answer::Reply { sum: reply.sum }), "call {uid}");
        }
    }

    /// The caller was told by the other end that the call has failed.
    pub(crate) fn failed(&mut self, uid: u64, status: &Status, is_sure: bool) -> Outcome {
        let code = status.code();
        let is_refused = status.is_not_executed();
        let outcome = if is_refused { Outcome::Refused(code) } else { Outcome::Status(code) };
        let call = self.settle(uid, outcome);
        if !is_sure {
            return outcome;
        }
        assert!(!(is_refused && call.has_begun), "call {uid} was executed, {status}");
        match call.answer {
            Some(Answer::Status(answer)) => assert_eq!(code, answer, "call {uid}"),
            Some(Answer::Stopped) => assert_eq!(code, Code::DeadlineExceeded, "call {uid}"),
            answer => panic!("call {uid} has failed ({status}) after {answer:?}"),
        }
        outcome
    }

    /// The caller's end says that the deadline is past.
    pub(crate) fn expired(&mut self, uid: u64, now_us: u64) {
        let deadline_us = self.settle(uid, Outcome::Expired).deadline_us;
        assert!(deadline_us.is_some_and(|at_us| at_us <= now_us), "call {uid} expired early");
    }

    /// The call has no other outcome: its caller gave up or is no more, or the connection ended.
    pub(crate) fn gives_up(&mut self, uid: u64, outcome: Outcome) {
        self.settle(uid, outcome);
    }

    /// The caller's slot is free again: nothing works for the call any more.
    pub(crate) fn slot_is_free(&self, uid: u64, is_sure: bool) {
        let works = self.call(uid).is_some_and(|call| call.works);
        assert!(!(is_sure && works), "the slot of call {uid} is free and its handler works");
    }

    /// The caller was told that a one-way call has failed.
    pub(crate) fn noticed(&mut self, from: Place, number: u64, code: Code, is_sure: bool) {
        let Some(uid) = self.ids.get(&(from, true, number)).copied() else {
            panic!("a notice of one-way call {number}, which was never made");
        };
        let call = self.get(uid);
        if is_sure {
            assert_eq!(call.answer, Some(Answer::Status(code)), "one-way call {uid}");
            assert!(!call.is_noticed, "two notices of one-way call {uid}");
        }
        call.is_noticed = true;
    }

    /// Whether a call still waits for its outcome, or a one-way call was lost where none may be.
    pub(crate) fn is_open(call: &Call, is_cut: bool) -> bool {
        if call.method == ONE_WAY { !is_cut && !call.is_seen } else { call.outcome.is_none() }
    }
}

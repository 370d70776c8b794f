//! Calls of every kind, each entered when it is made and when its caller knows how it ended.

use std::{
    cell::{Cell, RefCell},
    future::Future,
    pin::pin,
    rc::Rc,
    sync::Arc,
    task::Poll,
    time::Duration,
};

use ringcall::{Client, Code, Response, Status};

use crate::{
    book::{Book, Fault, Kind, Outcome, Terms},
    items::{self, Items},
    letter::{Letter, flags},
    post::{PostClient, count_body, failure},
    random::Random,
    support::wait::until_async,
};

/// The one-way calls that were made on a connection, in their order.
pub(crate) type OneWays = Rc<RefCell<Vec<u64>>>;

/// One end of a connection, as it calls the other.
pub(crate) struct Errands {
    post: PostClient,
    book: Arc<Book>,
    one_ways: OneWays,
    is_cut: bool,
    is_from_handler: bool,
    seed: Cell<u64>,
}

/// A call as it is to be made.
#[derive(Clone, Copy, Debug)]
struct Plan {
    kind: Kind,
    body_len: u32,
    reply_len: u32,
    wait_us: u32,
    count: u32,
    fails: bool,
    /// Zero is for ever.
    timeout: Duration,
    given_up_after: Option<Duration>,
    /// The call is made by a handler that may be stopped.
    may_be_dropped: bool,
}

/// A call that was entered: it has one outcome, and without another it was given up.
struct Open<'a> {
    book: &'a Book,
    id: u64,
    outcome: Outcome,
}

impl Drop for Open<'_> {
    fn drop(&mut self) {
        self.book.settles(self.id, self.outcome);
    }
}

impl Plan {
    /// One of the kinds that a handler may call, too.
    fn choose(random: &mut Random) -> Self {
        let kind = match random.below(100) {
            0..70 => Kind::Unary,
            70..88 => Kind::OneWay,
            88..92 => Kind::Collect,
            92..96 => Kind::Deliver,
            _ => Kind::Converse,
        };
        let mut plan = Self {
            kind,
            body_len: body_len(random),
            reply_len: body_len(random),
            wait_us: if random.in_10_000(300) { random.below(3_000) } else { 0 },
            count: random.below(12),
            fails: random.in_10_000(200),
            timeout: Duration::ZERO,
            given_up_after: None,
            may_be_dropped: false,
        };
        if kind == Kind::OneWay {
            plan.fails = false;
            return plan;
        }
        match random.below(400) {
            // A deadline that passes, mostly, and one that does not.
            0 => {
                plan.timeout = Duration::from_micros(1 + u64::from(random.below(1_500)));
                plan.wait_us = 1 + random.below(3_000);
            }
            1 => plan.timeout = Duration::from_secs(600),
            // Sometimes the request is not even sent.
            2 => {
                plan.given_up_after = Some(Duration::from_micros(random.below(1_500).into()));
                plan.wait_us = random.below(3_000);
            }
            _ => {}
        }
        plan
    }
}

/// Mostly short, as calls are, and now and then longer than a receive buffer.
fn body_len(random: &mut Random) -> u32 {
    match random.below(1_000) {
        0..900 => random.below(256),
        900..990 => random.below(4_096),
        990..998 => random.below(40_000),
        998 => 64 * 1024 + random.below(64 * 1024),
        _ => random.below(700_000),
    }
}

impl Errands {
    /// Calls that a client makes.
    pub(crate) fn of_client(client: Client, book: &Arc<Book>, is_cut: bool, seed: u64) -> Self {
        let one_ways = Self::note_one_ways(&client, book);
        let (post, book, seed) = (PostClient::on(client), Arc::clone(book), Cell::new(seed));
        Self { post, book, one_ways, is_cut, is_from_handler: false, seed }
    }

    /// Calls that handlers make to their caller, with the one-way calls that were made to it.
    pub(crate) fn of_handlers(
        client: Client,
        book: &Arc<Book>,
        is_cut: bool,
        one_ways: &OneWays,
    ) -> Self {
        let (post, book, one_ways) = (PostClient::on(client), Arc::clone(book), one_ways.clone());
        Self { post, book, one_ways, is_cut, is_from_handler: true, seed: Cell::new(0) }
    }

    /// From here on the one-way calls of a connection are noted, and their notices have a place.
    pub(crate) fn note_one_ways(client: &Client, book: &Arc<Book>) -> OneWays {
        let one_ways = OneWays::default();
        let (made, theirs) = (Rc::clone(&one_ways), Arc::clone(book));
        client.on_notice(move |number, status| {
            let id = made.borrow().get(number as usize - 1).copied();
            match id {
                Some(id) => theirs.noticed(id, status),
                None => theirs.fault(Fault::Crossed, format!("notice {number}: {status}")),
            }
        });
        one_ways
    }

    pub(crate) fn is_open(&self) -> bool {
        self.post.client().is_open()
    }

    /// Whether no more calls are to be made here.
    pub(crate) fn is_done(&self) -> bool {
        !self.is_open() || self.book.is_full()
    }

    /// The first call of a connection; whether it was answered.
    pub(crate) async fn begin(&self) -> bool {
        let mut plan = Plan::choose(&mut Random::new(0));
        plan.kind = Kind::Unary;
        plan.fails = false;
        let (open, letter) = self.enter(&plan);
        let replied = self.post.begin(&letter).await;
        self.settle(open, self.outcome(&plan, &letter, replied)) == Outcome::Replied
    }

    /// Makes a call of some kind.
    pub(crate) async fn run(&self) {
        let mut random = Random::new(self.seed.get());
        self.seed.set(random.next());
        let mut plan = Plan::choose(&mut random);
        if random.in_10_000(300) {
            plan.kind = Kind::AskBack;
            plan.count = random.below(4);
        }
        self.make(&plan).await;
    }

    /// Makes a call of some kind, for a handler: that of this call, the how many-th.
    pub(crate) async fn back(&self, call: u64, index: u32, may_be_dropped: bool) {
        let mut random = Random::new(call << 8 | u64::from(index));
        let plan = Plan::choose(&mut random);
        self.make(&Plan { may_be_dropped, ..plan }).await;
    }

    /// Waits until every one-way call has come to its end, if it does: the ledger tells.
    pub(crate) async fn settled(&self) {
        let one_ways = self.one_ways.borrow().clone();
        if !self.is_cut {
            let mut at = 0;
            until_async("one-way calls end", || {
                at += one_ways[at..].iter().take_while(|id| self.book.is_settled(**id)).count();
                at == one_ways.len()
            })
            .await;
        }
    }

    /// Enters a call that is about to be made.
    fn enter(&self, plan: &Plan) -> (Open<'_>, Letter) {
        let Plan { kind, may_be_dropped, .. } = *plan;
        let expires = !plan.timeout.is_zero();
        let may_be_abandoned = may_be_dropped || plan.given_up_after.is_some();
        // Nobody waits until such a one-way call has arrived.
        let is_cut = self.is_cut || kind == Kind::OneWay && may_be_dropped;
        let is_from_handler = self.is_from_handler;
        let id =
            self.book.enter(Terms { kind, expires, may_be_abandoned, is_cut, is_from_handler });
        let mut letter = Letter::new(id, plan.body_len);
        for (holds, flag) in [
            (plan.fails, flags::FAILS),
            (is_cut, flags::IS_CUT),
            (may_be_abandoned || expires, flags::MAY_STOP),
        ] {
            letter.flags |= if holds { flag } else { 0 };
        }
        letter.wait_us = plan.wait_us;
        letter.count = plan.count;
        letter.len = plan.reply_len;
        let book = &self.book;
        (Open { book, id, outcome: Outcome::Abandoned }, letter.sealed())
    }

    fn settle(&self, mut open: Open<'_>, outcome: Outcome) -> Outcome {
        open.outcome = outcome;
        outcome
    }

    /// Makes a call, and waits for its outcome unless that takes too long.
    async fn make(&self, plan: &Plan) {
        let (open, letter) = self.enter(plan);
        let Some(after) = plan.given_up_after else {
            let outcome = self.call(plan, &letter).await;
            self.settle(open, outcome);
            return;
        };
        let mut call = pin!(self.call(plan, &letter));
        let mut time_is_up = pin!(ringcall::sleep(after));
        let outcome = std::future::poll_fn(|cx| match call.as_mut().poll(cx) {
            Poll::Ready(outcome) => Poll::Ready(Some(outcome)),
            Poll::Pending => time_is_up.as_mut().poll(cx).map(|()| None),
        });
        if let Some(outcome) = outcome.await {
            self.settle(open, outcome);
        }
    }

    async fn call(&self, plan: &Plan, letter: &Letter) -> Outcome {
        match plan.kind {
            Kind::Unary => {
                let replied = self.post.exchange(letter).timeout(plan.timeout).await;
                self.outcome(plan, letter, replied)
            }
            Kind::AskBack => {
                let replied = self.post.ask_back(letter).timeout(plan.timeout).await;
                self.outcome(plan, letter, replied)
            }
            Kind::OneWay => match self.post.drop_off(letter).await {
                Ok(()) => {
                    self.one_ways.borrow_mut().push(letter.id);
                    Outcome::Sent
                }
                Err(status) => self.failed(plan, letter, &status),
            },
            Kind::Collect => self.collect(plan, letter).await,
            Kind::Deliver => self.deliver(plan, letter).await,
            Kind::Converse => self.converse(plan, letter).await,
        }
    }

    async fn collect(&self, plan: &Plan, letter: &Letter) -> Outcome {
        let stream = match self.post.collect(letter).timeout(plan.timeout).await {
            Ok(stream) => stream,
            Err(status) => return self.failed(plan, letter, &status),
        };
        for index in 0..plan.count {
            if stream.send(&items::item(letter.id, index, plan.reply_len)).await.is_err() {
                // The outcome tells why.
                break;
            }
        }
        self.outcome(plan, letter, stream.finish().await)
    }

    async fn deliver(&self, plan: &Plan, letter: &Letter) -> Outcome {
        let mut stream = match self.post.deliver(letter).timeout(plan.timeout).await {
            Ok(stream) => stream,
            Err(status) => return self.failed(plan, letter, &status),
        };
        let mut taken = Items::of(letter.id, &self.book);
        loop {
            match stream.next().await {
                Ok(Some(item)) => taken.take(&item),
                Ok(None) => break,
                Err(status) => return self.failed(plan, letter, &status),
            }
        }
        let replied = stream.finish().await;
        self.all_taken(plan, letter, replied, &taken)
    }

    async fn converse(&self, plan: &Plan, letter: &Letter) -> Outcome {
        let mut stream = match self.post.converse(letter).timeout(plan.timeout).await {
            Ok(stream) => stream,
            Err(status) => return self.failed(plan, letter, &status),
        };
        let mut taken = Items::of(letter.id, &self.book);
        for index in 0..plan.count {
            if stream.send(&items::item(letter.id, index, plan.reply_len)).await.is_err() {
                return self.outcome(plan, letter, stream.finish().await);
            }
            // One item is always on its way, and two where the lengths are even.
            let is_even = index.is_multiple_of(2) && plan.reply_len.is_multiple_of(2);
            if is_even && index + 1 < plan.count {
                continue;
            }
            while taken.count() <= index {
                match stream.next().await {
                    Ok(Some(item)) => taken.take(&item),
                    Ok(None) => return self.outcome(plan, letter, stream.finish().await),
                    Err(status) => return self.failed(plan, letter, &status),
                }
            }
        }
        stream.end();
        let replied = stream.finish().await;
        self.all_taken(plan, letter, replied, &taken)
    }

    /// The outcome of a stream whose items have all been taken.
    fn all_taken(
        &self,
        plan: &Plan,
        letter: &Letter,
        replied: Result<Response<Letter>, Status>,
        taken: &Items<'_>,
    ) -> Outcome {
        let outcome = self.outcome(plan, letter, replied);
        let count = taken.count();
        if outcome == Outcome::Replied && count != plan.count {
            let what = format!("{count} items of {} came in call {}", plan.count, letter.id);
            self.book.fault(Fault::Lost, what);
        }
        outcome
    }

    fn outcome(
        &self,
        plan: &Plan,
        letter: &Letter,
        replied: Result<Response<Letter>, Status>,
    ) -> Outcome {
        let reply = match replied {
            Ok(reply) => reply,
            Err(status) => return self.failed(plan, letter, &status),
        };
        let is_its_own = reply.is_whole()
            && reply.id == letter.id
            && reply.answers == letter.sum
            && reply.body.len() == letter.len as usize;
        if !is_its_own {
            let what = format!("the reply to {} came for call {}", reply.id, letter.id);
            self.book.fault(Fault::Crossed, what);
        }
        let has_items = !matches!(plan.kind, Kind::Unary | Kind::OneWay);
        if has_items && reply.count != plan.count {
            let what = format!("{} of {} were counted in {plan:?}", reply.count, plan.count);
            self.book.fault(Fault::Lost, what);
        }
        count_body(&self.book, &reply);
        Outcome::Replied
    }

    fn failed(&self, plan: &Plan, letter: &Letter, status: &Status) -> Outcome {
        if status.is_not_executed() {
            return Outcome::Refused;
        }
        match status.code() {
            Code::OutOfRange => {
                if status.message() != failure(letter.id).message() {
                    let what = format!("{status} came for call {}", letter.id);
                    self.book.fault(Fault::Crossed, what);
                }
                Outcome::Failed
            }
            Code::DeadlineExceeded => Outcome::Expired,
            Code::Unavailable => Outcome::Lost,
            // What a handler makes of an item that comes too late.
            Code::Cancelled if !plan.timeout.is_zero() => Outcome::Failed,
            _ => {
                self.book.fault(Fault::Untrue, format!("call {}: {status}, {plan:?}", letter.id));
                Outcome::Lost
            }
        }
    }
}

//! The service that every letter goes to. Both ends of a connection serve it, so that a handler
//! calls its caller as it was called itself.

use std::{
    cell::{Cell, RefCell},
    collections::HashMap,
    net::SocketAddr,
    rc::Rc,
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Duration,
};

use ringcall::{Code, Context, Item, Request, Sink, Source, Status};

use crate::{
    book::{Book, End, Fault, Kind},
    errand::{Errands, OneWays},
    items::{self, Items},
    letter::{ArchivedLetter, Letter, flags},
};

#[ringcall::service]
pub(crate) trait Post {
    /// The first call of a connection: from here on notices have a place to go.
    async fn begin(&self, cx: &Context, request: Request<'_, Letter>) -> Result<Letter, Status>;

    /// Replies.
    async fn exchange(&self, cx: &Context, request: Request<'_, Letter>) -> Result<Letter, Status>;

    /// Takes the letter.
    #[rpc(oneway)]
    async fn drop_off(&self, cx: &Context, request: Request<'_, Letter>);

    /// Replies with how many items came.
    async fn collect(
        &self,
        cx: &Context,
        request: Request<'_, Letter>,
        items: Source<Letter>,
    ) -> Result<Letter, Status>;

    /// Sends as many items as are asked for.
    async fn deliver(
        &self,
        cx: &Context,
        request: Request<'_, Letter>,
        items: Sink<'_, Letter>,
    ) -> Result<Letter, Status>;

    /// Answers each item with one.
    async fn converse(
        &self,
        cx: &Context,
        request: Request<'_, Letter>,
        items: Source<Letter>,
        back: Sink<'_, Letter>,
    ) -> Result<Letter, Status>;

    /// Calls the caller as often as is asked for.
    async fn ask_back(&self, cx: &Context, request: Request<'_, Letter>) -> Result<Letter, Status>;
}

/// One end of connections: a shard's, or a client's.
pub(crate) struct Office {
    book: Arc<Book>,
    /// Handlers that have begun and not ended.
    running: Rc<Cell<u64>>,
    /// What was sent one way to each caller, by where it calls from, since its first call.
    callers: RefCell<HashMap<SocketAddr, OneWays>>,
}

/// A handler that has begun: it has one end.
struct Work<'a> {
    book: &'a Book,
    running: &'a Cell<u64>,
    id: u64,
    letter: &'a ArchivedLetter,
    end: End,
}

impl Office {
    pub(crate) fn new(book: &Arc<Book>) -> Self {
        let (running, callers) = (Rc::default(), RefCell::default());
        Self { book: Arc::clone(book), running, callers }
    }

    /// How many handlers run.
    pub(crate) fn running(&self) -> Rc<Cell<u64>> {
        Rc::clone(&self.running)
    }

    /// Begins a handler: reads the letter, and waits as it says.
    async fn work<'a>(&'a self, kind: Kind, request: Request<'a, Letter>) -> Work<'a> {
        let letter = request.get();
        let id = letter.id.to_native();
        self.book.begins(id, kind);
        if !letter.is_whole() {
            self.book.fault(Fault::Crossed, format!("the request of {kind:?} {id} is damaged"));
        }
        self.running.set(self.running.get() + 1);
        let (book, running) = (&*self.book, &*self.running);
        let work = Work { book, running, id, letter, end: End::Dropped };
        let wait_us = letter.wait_us.to_native();
        if wait_us > 0 {
            ringcall::sleep(Duration::from_micros(wait_us.into())).await;
        }
        work
    }
}

impl Work<'_> {
    /// The handler's result: a reply, or the status that was asked for.
    fn result(mut self, count: u32) -> Result<Letter, Status> {
        if self.letter.has(flags::FAILS) {
            self.end = End::Failed;
            return Err(failure(self.id));
        }
        self.end = End::Answered;
        let reply = Letter::new(self.id, self.letter.len.to_native());
        Ok(Letter { answers: self.letter.sum.to_native(), count, ..reply }.sealed())
    }

    /// The result of a handler whose items can be neither sent nor taken any more.
    fn stopped(mut self, status: Status) -> Status {
        if !self.letter.has(flags::IS_CUT | flags::MAY_STOP) {
            self.book.fault(Fault::Lost, format!("an item of call {}: {status}", self.id));
        }
        self.end = End::Failed;
        status
    }
}

/// The status of a handler that is told to fail.
pub(crate) fn failure(id: u64) -> Status {
    Status::new(Code::OutOfRange, format!("call {id} fails"))
}

impl Drop for Work<'_> {
    fn drop(&mut self) {
        self.running.set(self.running.get() - 1);
        self.book.ends(self.id, self.end);
    }
}

impl Post for Office {
    async fn begin(&self, cx: &Context, request: Request<'_, Letter>) -> Result<Letter, Status> {
        let work = self.work(Kind::Unary, request).await;
        let one_ways = Errands::note_one_ways(&cx.caller(), &self.book);
        self.callers.borrow_mut().insert(cx.peer(), one_ways);
        work.result(0)
    }

    async fn exchange(&self, _: &Context, request: Request<'_, Letter>) -> Result<Letter, Status> {
        self.work(Kind::Unary, request).await.result(0)
    }

    async fn drop_off(&self, _: &Context, request: Request<'_, Letter>) {
        // There is no reply to be made; the rest is as for every call.
        let _ = self.work(Kind::OneWay, request).await.result(0);
    }

    async fn collect(
        &self,
        _: &Context,
        request: Request<'_, Letter>,
        mut items: Source<Letter>,
    ) -> Result<Letter, Status> {
        let work = self.work(Kind::Collect, request).await;
        let mut taken = Items::of(work.id, &self.book);
        loop {
            match items.next().await {
                Ok(Some(item)) => taken.take(&item),
                Ok(None) => return work.result(taken.count()),
                Err(status) => return Err(work.stopped(status)),
            }
        }
    }

    async fn deliver(
        &self,
        _: &Context,
        request: Request<'_, Letter>,
        items: Sink<'_, Letter>,
    ) -> Result<Letter, Status> {
        let work = self.work(Kind::Deliver, request).await;
        let count = request.count.to_native();
        for index in 0..count {
            let item = items::item(work.id, index, request.len.to_native());
            if let Err(status) = items.send(&item).await {
                return Err(work.stopped(status));
            }
        }
        work.result(count)
    }

    async fn converse(
        &self,
        _: &Context,
        request: Request<'_, Letter>,
        mut items: Source<Letter>,
        back: Sink<'_, Letter>,
    ) -> Result<Letter, Status> {
        let work = self.work(Kind::Converse, request).await;
        let mut taken = Items::of(work.id, &self.book);
        loop {
            let item: Item<Letter> = match items.next().await {
                Ok(Some(item)) => item,
                Ok(None) => return work.result(taken.count()),
                Err(status) => return Err(work.stopped(status)),
            };
            let index = taken.count();
            taken.take(&item);
            drop(item);
            let answer = items::item(work.id, index, request.len.to_native());
            if let Err(status) = back.send(&answer).await {
                return Err(work.stopped(status));
            }
        }
    }

    async fn ask_back(&self, cx: &Context, request: Request<'_, Letter>) -> Result<Letter, Status> {
        let one_ways = self.callers.borrow().get(&cx.peer()).map(Rc::clone);
        let work = self.work(Kind::AskBack, request).await;
        let count = request.count.to_native();
        let Some(one_ways) = one_ways else {
            self.book.fault(Fault::Untrue, format!("call {} came before `begin`", work.id));
            return work.result(0);
        };
        let is_cut = request.has(flags::IS_CUT);
        let caller = Errands::of_handlers(cx.caller(), &self.book, is_cut, &one_ways);
        for index in 0..count {
            caller.back(work.id, index, request.has(flags::MAY_STOP)).await;
        }
        work.result(count)
    }
}

/// How many bodies there are, of which lengths.
pub(crate) fn count_body(book: &Book, letter: &ArchivedLetter) {
    book.body_bytes.fetch_add(letter.body.len() as u64, Relaxed);
    if letter.body.len() > 64 * 1024 {
        book.large_bodies.fetch_add(1, Relaxed);
    }
}

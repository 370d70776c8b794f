//! An operation's task, from its start until its result is gone.
//!
//! A task first polls the operation's future, and then sleeps for as long as the result is kept:
//! nothing goes looking for results that are old. The task alone owns the future, so that the
//! future ends with the task, whatever it holds; the table reaches it to drop it early. No cell is
//! borrowed while code of a user runs, since that may ask for any operation, its own too.

use std::{
    cell::{Cell, RefCell},
    collections::BTreeMap,
    future::{Future, poll_fn},
    panic::{AssertUnwindSafe, catch_unwind},
    pin::{Pin, pin},
    rc::{Rc, Weak},
    task::{Context, Poll, Waker},
    time::Duration,
};

use ringcall_codec::{Code, Status};

use super::{Progress, Table, Token};

/// What an operation's future is given: its token, and the way to say how far it is. A clone speaks
/// for the same operation.
#[derive(Clone)]
pub struct Operation<P: Copy = u32> {
    token: Token,
    progress: Rc<Cell<P>>,
}

/// An operation as the table and those who wait see it.
pub(super) struct Entry<T, P> {
    token: Token,
    progress: Rc<Cell<P>>,
    /// How it ended; none while it runs. Set once.
    outcome: RefCell<Option<Result<Rc<T>, Status>>>,
    /// Who waits for its end.
    waiters: RefCell<Waiters>,
    work: Weak<Work<T>>,
    /// The task, to be woken where it has something else to do than to wait.
    task: RefCell<Option<Waker>>,
    /// Whether the task is to end before the result's time is over.
    is_forgotten: Cell<bool>,
}

/// An operation's future.
type Running<T> = Pin<Box<dyn Future<Output = Result<T, Status>>>>;

/// The future while it waits: it is out while it is polled, and gone when the operation has ended.
type Work<T> = RefCell<Option<Running<T>>>;

/// Wakers, in the order of those who wait.
#[derive(Default)]
struct Waiters {
    wakers: BTreeMap<u64, Waker>,
    next: u64,
}

/// One who waits for an operation's end, for as long as this exists.
struct Waiter<'a, T, P> {
    entry: &'a Entry<T, P>,
    key: u64,
}

/// What the task has. It ends in order wherever the task is dropped.
pub(super) struct Life<T: 'static, P: Copy + 'static> {
    table: Weak<Table<T, P>>,
    entry: Rc<Entry<T, P>>,
    work: Rc<Work<T>>,
}

impl<P: Copy> Operation<P> {
    pub(super) fn new(token: Token) -> Self
    where
        P: Default,
    {
        Self { token, progress: Rc::default() }
    }

    /// The operation's own token.
    pub fn token(&self) -> Token {
        self.token
    }

    /// Says how far the operation is, to whoever asks from now on.
    pub fn report(&self, progress: P) {
        self.progress.set(progress);
    }
}

impl<T: 'static, P: Copy + 'static> Life<T, P> {
    /// The life of an operation that begins to run when this is polled.
    pub(super) fn new(
        table: Weak<Table<T, P>>,
        operation: &Operation<P>,
        work: Running<T>,
    ) -> Self {
        let work = Rc::new(RefCell::new(Some(work)));
        let entry = Entry {
            token: operation.token,
            progress: Rc::clone(&operation.progress),
            outcome: RefCell::default(),
            waiters: RefCell::default(),
            work: Rc::downgrade(&work),
            task: RefCell::default(),
            is_forgotten: Cell::new(false),
        };
        Self { table, entry: Rc::new(entry), work }
    }

    pub(super) fn entry(&self) -> &Rc<Entry<T, P>> {
        &self.entry
    }

    /// Runs the operation, and keeps its result for a time.
    pub(super) async fn live(self, keep_for: Duration) {
        poll_fn(|cx| self.poll_work(cx)).await;
        let mut time = pin!(crate::sleep(keep_for));
        poll_fn(|cx| {
            self.entry.keep_task(cx.waker());
            if self.entry.is_forgotten.get() {
                return Poll::Ready(());
            }
            time.as_mut().poll(cx)
        })
        .await;
    }

    fn poll_work(&self, cx: &mut Context<'_>) -> Poll<()> {
        self.entry.keep_task(cx.waker());
        let work = self.work.take();
        let Some(mut work) = work else {
            return Poll::Ready(());
        };
        // It is not polled again after a panic, so nothing sees it half-way.
        let polled = catch_unwind(AssertUnwindSafe(|| work.as_mut().poll(cx)));
        if let Ok(Poll::Pending) = polled
            && self.entry.is_running()
        {
            self.work.replace(Some(work));
            return Poll::Pending;
        }
        // What it holds is free again before anybody hears of its end.
        end(work);
        match polled {
            Ok(Poll::Ready(outcome)) => self.entry.finish(outcome.map(Rc::new)),
            Err(_) => self.entry.fail(Code::Internal, "the operation panicked"),
            // It cancelled itself.
            Ok(Poll::Pending) => false,
        };
        Poll::Ready(())
    }
}

impl<T: 'static, P: Copy + 'static> Drop for Life<T, P> {
    fn drop(&mut self) {
        self.work.take().into_iter().for_each(end);
        // No more than a word to those who wait, where the task ended before the operation did.
        self.entry.fail(Code::Cancelled, "the operation's shard has stopped");
        if let Some(table) = self.table.upgrade() {
            let entry = table.entries.borrow_mut().remove(&self.entry.token.secret);
            drop(entry);
        }
    }
}

impl<T, P: Copy> Entry<T, P> {
    pub(super) fn token(&self) -> Token {
        self.token
    }

    pub(super) fn progress(&self) -> Progress<T, P> {
        match &*self.outcome.borrow() {
            None => Progress::Running(self.progress.get()),
            Some(Ok(result)) => Progress::Done(Rc::clone(result)),
            Some(Err(status)) => Progress::Failed(status.clone()),
        }
    }

    /// Drops the operation's future, unless it has ended.
    pub(super) fn cancel(&self) {
        if !self.fail(Code::Cancelled, "the operation was cancelled") {
            return;
        }
        if let Some(work) = self.work.upgrade() {
            let work = work.take();
            work.into_iter().for_each(end);
        }
        self.wake_task();
    }

    /// Cancels the operation where it runs, and ends its task.
    pub(super) fn forget(&self) {
        self.is_forgotten.set(true);
        self.cancel();
        self.wake_task();
    }

    /// Waits until the operation has ended, or for so long.
    pub(super) async fn ended(&self, at_most: Duration) {
        if !self.is_running() {
            return;
        }
        let waiter = Waiter::new(self);
        let mut time = pin!(crate::sleep(at_most));
        poll_fn(|cx| {
            waiter.keep(cx.waker());
            if self.is_running() { time.as_mut().poll(cx) } else { Poll::Ready(()) }
        })
        .await;
    }

    fn is_running(&self) -> bool {
        self.outcome.borrow().is_none()
    }

    fn fail(&self, code: Code, message: &'static str) -> bool {
        self.is_running() && self.finish(Err(Status::new(code, message)))
    }

    /// Notes how the operation ended, and tells those who wait; false where it had ended before.
    fn finish(&self, outcome: Result<Rc<T>, Status>) -> bool {
        if !self.is_running() {
            return false;
        }
        self.outcome.replace(Some(outcome));
        let waiters = std::mem::take(&mut self.waiters.borrow_mut().wakers);
        waiters.into_values().for_each(Waker::wake);
        true
    }

    fn keep_task(&self, waker: &Waker) {
        let before = self.task.replace(Some(waker.clone()));
        drop(before);
    }

    fn wake_task(&self) {
        let task = self.task.take();
        task.into_iter().for_each(Waker::wake);
    }
}

impl<'a, T, P> Waiter<'a, T, P> {
    fn new(entry: &'a Entry<T, P>) -> Self {
        let mut waiters = entry.waiters.borrow_mut();
        let key = waiters.next;
        waiters.next += 1;
        Self { entry, key }
    }

    fn keep(&self, waker: &Waker) {
        let before = self.entry.waiters.borrow_mut().wakers.insert(self.key, waker.clone());
        drop(before);
    }
}

impl<T, P> Drop for Waiter<'_, T, P> {
    fn drop(&mut self) {
        let waker = self.entry.waiters.borrow_mut().wakers.remove(&self.key);
        drop(waker);
    }
}

/// Drops what belongs to a user. A panic of that is not the shard's, nor that of who cancels.
fn end<T>(work: Running<T>) {
    let _ = catch_unwind(AssertUnwindSafe(|| drop(work)));
}

//! Long operations by token: a call starts one and gets a token, later calls ask for it.
//!
//! Beside the path of a call, on top of it: a library that a service may use, built on what every
//! service can do. It has no frames of its own; a token travels in the service's own messages.
//!
//! A call holds its connection's slot, its deadline and its caller for as long as it runs. What
//! takes minutes, or must go on when its caller is gone, is no call but an operation: it runs as a
//! task of the shard, and its result is kept for a stated time for those who have its [`Token`].
//!
//! ```
//! use std::time::Duration;
//!
//! use ringcall::operations::{Operations, Progress};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! ringcall::run(async {
//!     // At most 100 at a time on this shard, 0; each result is kept for ten minutes.
//!     let operations = Operations::<String>::new(0, 100, Duration::from_secs(600));
//!     let token = operations.start(|operation| async move {
//!         operation.report(50);
//!         ringcall::sleep(Duration::from_millis(1)).await;
//!         Ok("done".to_owned())
//!     })?;
//!     assert!(matches!(operations.poll(token)?, Progress::Running(50)));
//!     match operations.wait(token, Duration::from_secs(30)).await? {
//!         Progress::Running(percent) => println!("{percent} % are done"),
//!         Progress::Done(text) => println!("{text}"),
//!         Progress::Failed(status) => println!("it failed: {status}"),
//!     }
//!     Ok(())
//! })?
//! # }
//! ```
//!
//! One file each: `token` (what names an operation, and why nobody guesses it), `task` (what an
//! operation does from its start until its result is gone).

mod task;
mod token;

use std::{cell::RefCell, collections::HashMap, future::Future, rc::Rc, time::Duration};

use ringcall_codec::{Code, Status};

pub use self::{
    task::Operation,
    token::{ArchivedToken, Token},
};
use self::{
    task::{Entry, Life},
    token::Secrets,
};

/// The long operations of one service on one shard: those that run, and those whose results are
/// kept. Each gives a `T` in the end, and says how far it is by a `P`, as a percentage.
///
/// A clone is the same table. With the last clone everything in it ends, as it does with the
/// shard: what runs is dropped where it waits, what is kept is forgotten. Draining a server waits
/// for calls and not for operations.
///
/// A token that this table does not know is `NOT_FOUND`, whatever is asked: it was never one of
/// this server's, its server has been started anew, or its result was kept for its time and is
/// gone. The token of another shard is `FAILED_PRECONDITION`, with the shard's number in the
/// message: the caller needs a connection to that one.
pub struct Operations<T: 'static, P: Copy + 'static = u32>(Rc<Table<T, P>>);

struct Table<T: 'static, P: Copy + 'static> {
    shard: u16,
    operations_max: usize,
    keep_for: Duration,
    secrets: Secrets,
    /// By their tokens' secrets.
    entries: RefCell<HashMap<u128, Rc<Entry<T, P>>>>,
}

/// How far an operation is.
#[derive(Debug)]
pub enum Progress<T, P = u32> {
    /// It runs, and has reported this; the default of `P` where it has reported nothing.
    Running(P),
    /// It is done. The result is shared by all who ask.
    Done(Rc<T>),
    /// It ended with a status: its own, `CANCELLED` where it was cancelled, `INTERNAL` where it
    /// panicked.
    Failed(Status),
}

impl<T: 'static, P: Copy + Default + 'static> Operations<T, P> {
    /// An empty table for the shard with this number ([`ShardInfo::index`](crate::ShardInfo);
    /// zero where there are no shards).
    ///
    /// `operations_max` bounds those that run and those that are kept together: the memory that
    /// callers can have a shard hold is so many futures, or results. `keep_for` is the time from an
    /// operation's end until its result is forgotten and its place is free; it counts from the end
    /// and not from when the result is asked for, so a result can be fetched twice.
    pub fn new(shard: u16, operations_max: usize, keep_for: Duration) -> Self {
        let (secrets, entries) = (Secrets::default(), RefCell::default());
        Self(Rc::new(Table { shard, operations_max, keep_for, secrets, entries }))
    }

    /// Starts an operation: the future that `make` gives runs as a task of this shard, whatever
    /// becomes of the call that starts it. It may call others, also with this table.
    ///
    /// It runs up to its first wait at once. A panic in it fails it with `INTERNAL`, and no more.
    ///
    /// # Errors
    ///
    /// `RESOURCE_EXHAUSTED` where the table is full: nothing that is kept is forgotten early for
    /// another. `UNAVAILABLE` where no token can be made, as the process has no descriptor left to
    /// read random numbers from.
    ///
    /// # Panics
    ///
    /// Outside of an executor, as [`spawn`](crate::spawn) does.
    pub fn start<W>(&self, make: impl FnOnce(Operation<P>) -> W + 'static) -> Result<Token, Status>
    where
        W: Future<Output = Result<T, Status>> + 'static,
    {
        let table = &self.0;
        let operations_max = table.operations_max;
        if table.entries.borrow().len() >= operations_max {
            let message = format!(
                "all {operations_max} places for operations are taken by those that run and those \
                 whose results are kept; try again later"
            );
            return Err(Status::new(Code::ResourceExhausted, message));
        }
        let token = Token { shard: table.shard, secret: table.secrets.next()? };
        let operation = Operation::new(token);
        let theirs = operation.clone();
        // `make` is called in the task, where its panics are the operation's.
        let work = Box::pin(async move { make(theirs).await });
        let life = Life::new(Rc::downgrade(table), &operation, work);
        table.entries.borrow_mut().insert(token.secret, Rc::clone(life.entry()));
        crate::spawn(life.live(table.keep_for));
        Ok(token)
    }

    /// How far an operation is, now.
    ///
    /// # Errors
    ///
    /// Where the token is not of this table, as [`Operations`] says. That the operation itself
    /// failed is [`Progress::Failed`], and no error here.
    pub fn poll(&self, token: impl Into<Token>) -> Result<Progress<T, P>, Status> {
        Ok(self.find(token.into())?.progress())
    }

    /// Waits for an operation's end, for so long at most: how far it is then.
    ///
    /// Any number may wait for the same operation. Dropping the future gives up the wait alone.
    ///
    /// When a call's time is over its handler is dropped and its caller learns nothing, so a
    /// handler that waits on behalf of a call should leave the reply some of the time, as
    /// `cx.time_left().map_or(Duration::MAX, |left| left / 2)` does.
    ///
    /// # Errors
    ///
    /// As [`poll`](Self::poll). A time that is over is [`Progress::Running`], and no error.
    pub async fn wait(
        &self,
        token: impl Into<Token>,
        at_most: Duration,
    ) -> Result<Progress<T, P>, Status> {
        // It has its outcome even if that is forgotten before the wait goes on.
        let entry = self.find(token.into())?;
        entry.ended(at_most).await;
        Ok(entry.progress())
    }

    /// Cancels an operation that runs: its future is dropped before this returns, those who wait
    /// for it are told, and for the time that results are kept it is one that failed with
    /// `CANCELLED`. Gives what the operation is then, as it may have ended before.
    ///
    /// # Errors
    ///
    /// As [`poll`](Self::poll).
    pub fn cancel(&self, token: impl Into<Token>) -> Result<Progress<T, P>, Status> {
        let entry = self.find(token.into())?;
        entry.cancel();
        Ok(entry.progress())
    }

    /// Frees an operation's place at once, for callers that have the result and know that nobody
    /// else wants it. One that runs is cancelled. Gives the last that was known of it.
    ///
    /// # Errors
    ///
    /// As [`poll`](Self::poll).
    pub fn forget(&self, token: impl Into<Token>) -> Result<Progress<T, P>, Status> {
        let entry = self.find(token.into())?;
        self.0.entries.borrow_mut().remove(&entry.token().secret);
        entry.forget();
        Ok(entry.progress())
    }

    /// Every operation in the table, in no order. For the service itself: who is given a token may
    /// do everything with its operation.
    pub fn list(&self) -> Vec<(Token, Progress<T, P>)> {
        let entries: Vec<_> = self.0.entries.borrow().values().cloned().collect();
        entries.iter().map(|entry| (entry.token(), entry.progress())).collect()
    }

    fn find(&self, token: Token) -> Result<Rc<Entry<T, P>>, Status> {
        let (here, there) = (self.0.shard, token.shard);
        if here != there {
            let message = format!(
                "the operation is one of shard {there}, and this is shard {here}; ask on a \
                 connection that arrives at shard {there}"
            );
            return Err(Status::new(Code::FailedPrecondition, message));
        }
        let entry = self.0.entries.borrow().get(&token.secret).cloned();
        entry.ok_or(Status::new(
            Code::NotFound,
            "no operation has this token; its result may have been kept for its time and be gone",
        ))
    }
}

impl<T: 'static, P: Copy + 'static> Clone for Operations<T, P> {
    fn clone(&self) -> Self {
        Self(Rc::clone(&self.0))
    }
}

impl<T: 'static, P: Copy + 'static> Drop for Table<T, P> {
    fn drop(&mut self) {
        // Their tasks have no table any more; they end.
        self.entries.take().into_values().for_each(|entry| entry.forget());
    }
}

impl<T, P> Progress<T, P> {
    /// How the operation ended; none while it runs.
    pub fn outcome(self) -> Option<Result<Rc<T>, Status>> {
        match self {
            Self::Running(_) => None,
            Self::Done(result) => Some(Ok(result)),
            Self::Failed(status) => Some(Err(status)),
        }
    }
}

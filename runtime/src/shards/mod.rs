//! Shards that ask each other: a closure is sent to where the state is, and its result comes back.
//!
//! Beside the path of a call. What is asked travels as an errand through the queue of a pair of
//! shards (`mail.rs`) and runs on the driver of the other shard; where it waits, it goes on there
//! as a task (`asked.rs`). The one who asks holds a seat (`seats.rs` in here) until the answer
//! comes, and each ask has one outcome, whatever becomes of the other shard.

mod ask;
mod asked;
mod seats;
mod state;

use std::rc::{Rc, Weak};

pub use self::ask::{Ask, Gather};
pub(crate) use self::{ask::NEVER, seats::Seats, state::State};
use crate::shard::Shard;

/// What a shard has to do with asks: those that it made, and those that it was asked.
#[derive(Default)]
pub(crate) struct Asks {
    /// Who waits here for another shard.
    pub(crate) seats: Seats,
    /// What runs here for another shard and waits.
    pub(crate) running: asked::Running,
    /// The service value, as others ask for it.
    pub(crate) state: State,
}

impl Asks {
    /// The shard stops: everything that was asked from here fails, and nothing of it is kept.
    pub(crate) fn close(&self, shard: &Shard) {
        self.seats.close(shard);
        self.state.close();
    }
}

/// The shards of a server, to be asked from one of them.
///
/// Each shard has a service value of its own and nobody else touches it, so whoever needs what
/// another shard has sends a closure there:
///
/// ```ignore
/// let total: u64 = cx.shards().on(owner, move |store: &Store| store.total(&key)).await?;
/// let sizes = cx.shards().gather(|store: &Store| store.len()).await;
/// ```
///
/// The closure is given what implements the service's trait: the `Store` of `KvServer<Store>`. It
/// and its result are `Send`; a future that it gives need not be, as it stays on that shard.
///
/// From a handler: [`Context::shards`](crate::Context::shards), whose asks end with the call. From
/// where a service value is made, and from tasks of the shard: [`shards`]. Cheap to clone; it does
/// not keep the shard running.
#[derive(Clone)]
pub struct Shards {
    here: Weak<Shard>,
    /// Asks end by then, in the time of the shard.
    within_us: u64,
}

/// Why another shard gave no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AskError {
    /// The server has fewer shards.
    #[error("there is no shard {index}: the server has {count}, numbered from zero")]
    NoSuchShard {
        /// The shard that was asked.
        index: u16,
        /// How many there are.
        count: u16,
    },
    /// As much was asked of the shard as may wait there; what was asked now has not run.
    #[error("too much that was asked of the shard waits there; ask for less at once, or try later")]
    Busy,
    /// The shard has stopped, or this one has. Whether what was asked has run is not known.
    #[error("the shard has stopped")]
    Stopped,
    /// The time was over before the answer came. Whether what was asked has run is not known.
    #[error("the shard has not answered in time")]
    TimedOut,
    /// What was asked panicked on the other shard, which goes on.
    #[error("what was asked of the shard panicked there")]
    Panicked,
    /// The closure asks for a state that is not the service's.
    #[error("the state of the shards is `{has}`; ask for that, and not for `{asked}`")]
    WrongState {
        /// What the closure takes.
        asked: &'static str,
        /// What the service has.
        has: &'static str,
    },
    /// There is nobody to ask.
    #[error(
        "no shard of a server runs on this thread; ask from a handler, or from a task of the shard"
    )]
    NoServer,
}

/// The shards of the server whose shard runs on this thread, for where a service value is made and
/// for tasks. Elsewhere every ask fails, with [`AskError::NoServer`].
pub fn shards() -> Shards {
    let here = Shard::existing().map(|shard| Rc::downgrade(&shard)).unwrap_or_default();
    Shards { here, within_us: NEVER }
}

impl Shards {
    /// For asks that end no later than this, in the time of the shard.
    pub(crate) fn within(here: &Rc<Shard>, within_us: u64) -> Self {
        Self { here: Rc::downgrade(here), within_us }
    }

    /// How many shards there are; zero where there is none to ask.
    pub fn count(&self) -> u16 {
        self.here.upgrade().map_or(0, |here| here.place.count)
    }

    /// Asks one shard: runs the closure there, between two calls, and gives its result.
    ///
    /// Nothing happens before the ask is first polled. It may be this shard itself, which is asked
    /// in the same way. What is asked of one shard by another runs in the order in which it was
    /// asked, and holds up the other shard for as long as it takes.
    pub fn on<S, R, F>(&self, shard: u16, ask: F) -> Ask<R>
    where
        S: 'static,
        R: Send + 'static,
        F: FnOnce(&S) -> R + Send + 'static,
    {
        Ask::new(&self.here, shard, self.within_us, false, |reply| {
            Box::new(move |shard| asked::run(shard, ask, reply))
        })
    }

    /// [`on`](Self::on), for a closure that waits on the other shard.
    ///
    /// Its future runs there as a task. It is dropped at its next await when the ask is dropped,
    /// or its time is over.
    pub fn on_async<S, R, F>(&self, shard: u16, ask: F) -> Ask<R>
    where
        S: 'static,
        R: Send + 'static,
        F: AsyncFnOnce(&S) -> R + Send + 'static,
    {
        Ask::new(&self.here, shard, self.within_us, true, |reply| {
            Box::new(move |shard| asked::begin(shard, ask, reply))
        })
    }

    /// Asks every shard at once, this one too: the results by the shards' numbers.
    pub fn gather<S, R, F>(&self, ask: F) -> Gather<R>
    where
        S: 'static,
        R: Send + 'static,
        F: Fn(&S) -> R + Clone + Send + 'static,
    {
        Gather::new((0..self.count()).map(|shard| self.on(shard, ask.clone())))
    }

    /// [`gather`](Self::gather), for a closure that waits on the other shards.
    pub fn gather_async<S, R, F>(&self, ask: F) -> Gather<R>
    where
        S: 'static,
        R: Send + 'static,
        F: AsyncFn(&S) -> R + Clone + Send + 'static,
    {
        let ask = |shard| {
            let ask = ask.clone();
            self.on_async(shard, async move |state: &S| ask(state).await)
        };
        Gather::new((0..self.count()).map(ask))
    }
}

impl From<AskError> for ringcall_codec::Status {
    fn from(error: AskError) -> Self {
        use ringcall_codec::Code;
        let code = match error {
            AskError::Busy => Code::ResourceExhausted,
            AskError::Stopped => Code::Unavailable,
            AskError::TimedOut => Code::DeadlineExceeded,
            AskError::NoSuchShard { .. }
            | AskError::Panicked
            | AskError::WrongState { .. }
            | AskError::NoServer => Code::Internal,
        };
        Self::new(code, error.to_string())
    }
}

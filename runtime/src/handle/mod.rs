//! Calls from any executor: a handle that can be cloned and sent to any thread, with a shard of its
//! own behind it.
//!
//! For programs that run on another executor (tokio, async-std, smol) or on none. The futures are
//! `Send`, borrow nothing, and need nothing of ours on the thread that polls them. On a shard
//! [`ringcall::Client`](crate::Client) is the better one: nothing is copied there, and nothing
//! crosses threads.
//!
//! ```no_run
//! use ringcall::{Handle, prelude::*};
//!
//! #[ringcall::message]
//! pub struct Name { pub name: String }
//!
//! #[ringcall::service]
//! pub trait Greeter {
//!     async fn greet(&self, cx: &Context, request: Request<'_, Name>) -> Result<Name, Status>;
//! }
//!
//! // On any executor.
//! async fn greet() -> Result<(), Box<dyn std::error::Error>> {
//!     let handle = Handle::start()?;
//!     let greeter = GreeterSendClient::connect(&handle, "127.0.0.1:7000").await?;
//!     let reply = greeter.greet(&Name { name: "world".to_owned() }).await?;
//!     println!("{}", reply.name);
//!     Ok(())
//! }
//! ```
//!
//! # What is copied
//!
//! A request is encoded on the caller's thread and copied to the send buffer of its connection. A
//! reply is copied out of its receive buffer, unless it is long and lies in a buffer of its own:
//! that goes to the caller as it is. Counted in
//! [`requests_copied_in`](crate::ShardCounters::requests_copied_in),
//! [`replies_copied_out`](crate::ShardCounters::replies_copied_out) and
//! [`replies_handed_over`](crate::ShardCounters::replies_handed_over).
//!
//! Streams, calls from server to client and interceptors are the other client's.
//!
//! One file each: `call` (what users write), `client`, `config`, `reply`; `room` (how many calls
//! may be in flight), `queue` (what the shard is asked to do), `port` (the shard's side of it),
//! `promise` (how an outcome comes back).

mod call;
mod client;
mod config;
mod port;
mod promise;
mod queue;
mod reply;
mod room;

use std::{
    fmt,
    future::poll_fn,
    panic::resume_unwind,
    rc::Rc,
    sync::{
        Arc, Mutex, PoisonError,
        mpsc::{SyncSender, sync_channel},
    },
};

use ringcall_codec::ShardPlace;

pub(crate) use self::port::{PendingCall, Ports};
use self::queue::{Entry, Shared};
pub use self::{
    call::{Call, OneWay},
    client::Client,
    config::{ClientConfig, HandleConfig},
    reply::Reply,
};
use crate::{
    config::ShardConfig,
    counters::ShardCounters,
    executor::{self, ExecutorConfig, ExecutorEnd, ExecutorThread},
    mail::Mailboxes,
    shard::{self, Shard, ShardError},
    tasks,
};

/// A shard on a thread of its own, on which clients connect for callers anywhere. Cheap to clone.
///
/// It ends when the last handle and the last client of it are gone, or when it is
/// [stopped](Self::stop).
#[derive(Clone)]
pub struct Handle {
    owner: Arc<Owner>,
}

/// Ends the shard when the last who needs it is gone.
struct Owner {
    shared: Arc<Shared>,
    /// Taken by who waits for its end.
    thread: Mutex<Option<ExecutorThread<()>>>,
}

/// What the shard's thread is started with.
struct Setup {
    config: ShardConfig,
    mailboxes: Mailboxes,
    shared: Closing,
    started: SyncSender<Result<(), ShardError>>,
}

/// Closes the queue when the shard ends, in whatever way.
struct Closing(Arc<Shared>);

impl Handle {
    /// Starts a shard with the defaults, and returns once it runs, which takes milliseconds.
    ///
    /// # Errors
    ///
    /// Where the shard cannot start: io_uring is missing or forbidden, or too little memory may be
    /// locked. The error says what to do.
    pub fn start() -> Result<Self, ShardError> {
        HandleConfig::default().start()
    }

    fn start_with(config: HandleConfig) -> Result<Self, ShardError> {
        config.validate()?;
        let HandleConfig { core, shard, calls_max } = config;
        executor::check_cores(core.as_slice())?;
        shard::check_process(&shard, 1)?;
        let mailboxes = Mailboxes::new(1)?;
        let Some(mail) = mailboxes.of(0).cloned() else { return Err(ShardError::Ended) };
        let sender = mailboxes.outsiders();
        let shared = Arc::new(Shared::new(mail, sender, calls_max, Arc::default()));
        let executor = ExecutorConfig {
            core,
            name: "ringcall-handle".to_owned(),
            preempt_timer: shard.preempt_timer,
        };
        let (started, has_started) = sync_channel(1);
        let closing = Closing(Arc::clone(&shared));
        let setup = Setup { config: shard, mailboxes, shared: closing, started };
        let thread = executor::start(&executor, move || run(setup))?;
        match has_started.recv() {
            Ok(Ok(())) => {
                let owner = Owner { shared, thread: Mutex::new(Some(thread)) };
                Ok(Self { owner: Arc::new(owner) })
            }
            Ok(Err(error)) => Err(error),
            Err(_) => Err(thread.join().err().map_or(ShardError::Ended, ended_badly)),
        }
    }

    /// Ends the shard: connections are closed, and every call that is in flight, or is made later,
    /// fails with `UNAVAILABLE`. Returns at once; [`join`](Self::join) waits.
    pub fn stop(&self) {
        self.owner.shared.push(Entry::Stop);
    }

    /// Ends the shard as [`stop`](Self::stop) does, and waits until its thread has ended: what was
    /// made before was sent then, as far as the sockets took it. Blocks this thread, for
    /// milliseconds. The first who waits is told of a panic.
    ///
    /// # Errors
    ///
    /// Where the shard had ended by a panic: a defect of ringcall.
    pub fn join(&self) -> Result<(), ShardError> {
        self.stop();
        let mut thread = self.owner.thread.lock().unwrap_or_else(PoisonError::into_inner);
        match thread.take() {
            Some(thread) => thread.join().map_err(ended_badly),
            None => Ok(()),
        }
    }

    /// The counters of the shard. They are read while it runs.
    pub fn counters(&self) -> ShardCounters {
        self.owner.shared.counters.snapshot()
    }
}

impl fmt::Debug for Handle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let is_running = !self.owner.shared.is_closed();
        f.debug_struct("Handle").field("is_running", &is_running).finish_non_exhaustive()
    }
}

impl Drop for Owner {
    fn drop(&mut self) {
        self.shared.push(Entry::Stop);
    }
}

impl Drop for Closing {
    fn drop(&mut self) {
        self.0.close();
    }
}

/// The shard's life.
async fn run(setup: Setup) {
    let Setup { config, mailboxes, shared, started } = setup;
    let counters = Arc::clone(&shared.0.counters);
    let shard = match Shard::start(config, ShardPlace::default(), counters, mailboxes) {
        Ok(shard) => shard,
        Err(error) => {
            // Who started the shard waits for this.
            let _ = started.send(Err(error));
            return;
        }
    };
    let ended = tasks::guard(async {
        tasks::spawn(port::keep_time(Rc::clone(&shard), Arc::clone(&shared.0)));
        let _ = started.send(Ok(()));
        poll_fn(|cx| shard.poll_stopping(cx.waker())).await;
    });
    let ended = ended.await;
    shard.close_all();
    tasks::end_all().await;
    // What is left in the queue is told before the thread ends.
    drop(shared);
    drop(shard);
    if let Err(panic) = ended {
        resume_unwind(panic);
    }
}

fn ended_badly(end: ExecutorEnd) -> ShardError {
    match end {
        ExecutorEnd::Failed(error) => error.into(),
        ExecutorEnd::Panicked(message) => ShardError::Panicked(message),
    }
}

/// What goes from thread to thread.
const _: () = {
    const fn is_send_and_sync<T: Send + Sync>() {}
    is_send_and_sync::<Handle>();
    is_send_and_sync::<Client>();
    is_send_and_sync::<OneWay>();
};

//! A shard: everything that one core has to itself.
//!
//! One executor, one ring, the connections on it and the buffers for them. Nothing in here is
//! shared with another shard but the counters, which others only read, and the remote, through
//! which others ask it to stop or leave it errands. The driver (`driver.rs`) is what moves it.

use std::{
    cell::{Cell, OnceCell, RefCell},
    collections::{BTreeSet, HashMap},
    hash::{BuildHasher, RandomState},
    io,
    rc::{Rc, Weak},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    task::{Poll, Waker},
    time::{Duration, Instant},
};

use crossbeam::utils::CachePadded;
use ringcall_codec::{Scratch, ShardPlace};

use crate::{
    classes::Backlog,
    config::{SPARE_SEND_BUFFERS_MAX, SPARE_SEND_BYTES_MAX, ShardConfig},
    connection::{Connection, State},
    counters::Counters,
    draining::Farewells,
    driver,
    endpoints::Endpoints,
    executor::{self, Knocker},
    handle::Ports,
    handover::Passage,
    heartbeat::Heartbeat,
    http::Door,
    ids::{IdSource, ServerNumber},
    listener::{self, Listener},
    mail::{Mailbox, Mailboxes},
    metrics::Meter,
    relay::Relays,
    ring::{Bell, OwnedPool, Pool, Ring, RingError},
    shards::Asks,
    slab::Slab,
};

/// Everything that one core has to itself.
pub(crate) struct Shard {
    pub(crate) config: ShardConfig,
    pub(crate) place: ShardPlace,
    pub(crate) ring: RefCell<Ring>,
    /// The ring's pool of receive buffers.
    pub(crate) pool: Rc<Pool>,
    /// Buffers for what is copied, and for large frames.
    pub(crate) owned: Rc<OwnedPool>,
    pub(crate) connections: RefCell<Slab<Rc<Connection>>>,
    pub(crate) listeners: RefCell<Vec<Listener>>,
    pub(crate) endpoints: Endpoints,
    pub(crate) scratch: RefCell<Scratch>,
    /// On cache lines of their own: other threads read them, and their neighbours are others'.
    pub(crate) counters: Arc<CachePadded<Counters>>,
    pub(crate) meter: Meter,
    /// Where connections go that speak HTTP; nowhere where that is not answered.
    pub(crate) http: OnceCell<Arc<Door>>,
    pub(crate) heartbeat: Heartbeat,
    /// On an executor that is not ringcall's own; there it has one from its first task on.
    _knocker: Option<Knocker>,
    pub(crate) remote: Remote,
    /// How to reach the other shards of the server, and this one.
    pub(crate) mailboxes: Mailboxes,
    /// Connections on which calls from other threads are made.
    pub(crate) ports: Ports,
    /// What is asked of them from here, and by them.
    pub(crate) asks: Asks,
    /// Calls that wait for more urgent ones.
    pub(crate) backlog: Backlog,
    /// Tasks to be told of the end, and waited for.
    pub(crate) farewells: Farewells,
    /// Where ids come from, once one was asked for.
    pub(crate) ids: OnceCell<Rc<IdSource>>,
    /// What they have of the server; none on a shard that is not a server's.
    pub(crate) server_number: OnceCell<Arc<ServerNumber>>,
    /// Calls that one shard receives and another runs.
    pub(crate) relays: Relays,
    /// Connections that are being handed over, by key.
    pub(crate) passages: RefCell<HashMap<u64, Passage>>,
    /// Connections that have bytes to send.
    dirty: RefCell<Vec<Rc<Connection>>>,
    /// Connections whose receive ended because the pool was empty.
    pub(crate) starved: RefCell<Vec<Rc<Connection>>>,
    spare: RefCell<SpareBuffers>,
    /// When the shard started: time zero of its sessions.
    epoch: Instant,
    /// When this turn took what had come.
    now: Cell<Instant>,
    /// The same, in microseconds since the shard started.
    now_us: Cell<u64>,
    /// When each connection's first timer is due, and the connection's key; or an ask's, with
    /// [`ASK_TIMER`].
    timers: RefCell<BTreeSet<(u64, u64)>>,
    /// When the first of them is due.
    next_timer_us: Cell<u64>,
    /// State of [`random`](Self::random).
    random: Cell<u64>,
    /// Calls that run here.
    running: Cell<usize>,
    /// Handlers that became tasks and run.
    spawned: Cell<usize>,
    /// Calls made and not yet answered.
    made: Cell<usize>,
    /// Set where a task may have become runnable in this turn.
    woke_tasks: Cell<bool>,
    /// Set where the driver has something to submit that it has not looked at.
    has_news: Cell<bool>,
    /// Tasks that wait for the driver's next turn.
    gave_way: RefCell<Vec<Waker>>,
    /// Who waits for the shard to stop.
    stopped: RefCell<Vec<Waker>>,
    /// Set once the shard has begun to stop.
    pub(crate) is_stopping: Cell<bool>,
    /// Set once the shard takes no more calls.
    pub(crate) is_draining: Cell<bool>,
    /// The driver, while it waits for something to do.
    driver: RefCell<Option<Waker>>,
}

/// How other threads reach a shard.
#[derive(Clone)]
pub(crate) struct Remote {
    pub(crate) mail: Arc<Mailbox>,
    pub(crate) stop: Arc<AtomicBool>,
    /// How long to drain before stopping, in milliseconds and one; zero where nobody asked.
    pub(crate) drain_ms: Arc<AtomicU64>,
}

/// Why a shard cannot start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ShardError {
    /// The ring cannot be made.
    #[error(transparent)]
    Ring(#[from] RingError),
    /// A setting is out of range.
    #[error(transparent)]
    Config(#[from] crate::config::ConfigError),
    /// The executor or a descriptor it needs cannot be made.
    #[error("cannot start the shard's executor: {0}")]
    Io(io::Error),
    /// The process may not run on a core.
    #[error("core {core} is not there for this process, which may use {available}")]
    NoSuchCore {
        /// The core.
        core: usize,
        /// Those that there are.
        available: String,
    },
    /// The process may lock too little memory.
    #[error(
        "the process may lock {current} bytes of memory and needs {wanted}; raise the limit with \
         `ulimit -l`, LimitMEMLOCK= of systemd or --ulimit memlock= of a container"
    )]
    Memlock {
        /// The limit, in bytes.
        current: u64,
        /// What is needed, in bytes.
        wanted: u64,
    },
    /// There is an executor on this thread, and a thread runs one at a time.
    #[error(
        "an executor runs on this thread already; await the future there, instead of running it"
    )]
    ExecutorRuns,
    /// There is no executor on this thread.
    #[error("no executor runs on this thread; call from a shard, or inside of `ringcall::run`")]
    NoExecutor,
    /// The shard of a handle has ended: it was stopped, or has panicked.
    #[error("the handle's shard has ended; start another handle")]
    Ended,
    /// The shard of a handle panicked: a defect of ringcall.
    #[error("the handle's shard panicked: {0}")]
    Panicked(String),
}

impl From<io::Error> for ShardError {
    fn from(error: io::Error) -> Self {
        RingError::of_shard(error).map_or_else(Self::Io, Self::Ring)
    }
}

/// Descriptors that a shard has from the start: its executor's four, its ring, two bells and listener,
/// and the heartbeat's timers; and one that the executor opens for a moment.
const DESCRIPTORS: usize = 13;

/// The ring's token of the bell that mail rings where the shard waits in its ring. No connection's: it
/// has the bit of a listener, and there are not so many.
pub(crate) const MAIL_TOKEN: u64 = u64::MAX;

/// The bit of a timer's key that says that it is an ask's. No connection's key has it.
const ASK_TIMER: u64 = 1 << 63;

#[derive(Default)]
struct SpareBuffers {
    buffers: Vec<Vec<u8>>,
    bytes: usize,
}

thread_local! {
    /// The shard of the executor that this thread runs.
    static CURRENT: RefCell<Option<(usize, Weak<Shard>)>> = const { RefCell::new(None) };
}

/// Tries what so many shards will need of the process, where an error is easily told.
///
/// The descriptors above all: the executor asks once in a process whether there is io_uring, and
/// keeps to a no that was for want of one.
pub(crate) fn check_process(config: &ShardConfig, shards: usize) -> Result<(), ShardError> {
    executor::check_limits()?;
    let _ring = Ring::new(&config.ring)?;
    let descriptors = 0..shards.saturating_mul(DESCRIPTORS);
    let _descriptors: Vec<Bell> = descriptors.map(|_| Bell::new()).collect::<io::Result<_>>()?;
    Ok(())
}

impl Shard {
    /// Starts a shard on this thread's executor.
    pub(crate) fn start(
        config: ShardConfig,
        place: ShardPlace,
        counters: Arc<CachePadded<Counters>>,
        mailboxes: Mailboxes,
    ) -> Result<Rc<Self>, ShardError> {
        config.validate()?;
        let executor = executor::current().ok_or(ShardError::NoExecutor)?;
        let mail = match mailboxes.of(place.index) {
            Some(mailbox) => Arc::clone(mailbox),
            None => Mailbox::new(1)?,
        };
        let mut ring = Ring::new(&config.ring)?;
        ring.register_bell(mail.bell())?;
        counters.figures.gauges.buffers.set(ring.pool().len() as u64);
        let meter = Meter::new(config.metrics, config.slow_call);
        let shard = Rc::new(Self {
            config,
            place,
            pool: Rc::clone(ring.pool()),
            owned: Rc::clone(ring.owned()),
            ring: RefCell::new(ring),
            connections: RefCell::default(),
            listeners: RefCell::default(),
            endpoints: Endpoints::default(),
            scratch: RefCell::default(),
            counters,
            meter,
            http: OnceCell::new(),
            heartbeat: Heartbeat::new()?,
            _knocker: Knocker::start_here()?,
            relays: Relays::new(&mail),
            passages: RefCell::default(),
            remote: Remote { mail, stop: Arc::default(), drain_ms: Arc::default() },
            mailboxes,
            ports: Ports::default(),
            asks: Asks::default(),
            backlog: Backlog::default(),
            farewells: Farewells::default(),
            ids: OnceCell::new(),
            server_number: OnceCell::new(),
            dirty: RefCell::default(),
            starved: RefCell::default(),
            spare: RefCell::default(),
            epoch: Instant::now(),
            now: Cell::new(Instant::now()),
            now_us: Cell::new(0),
            timers: RefCell::default(),
            next_timer_us: Cell::new(u64::MAX),
            random: Cell::new(RandomState::new().hash_one(0) | 1),
            running: Cell::new(0),
            spawned: Cell::new(0),
            made: Cell::new(0),
            woke_tasks: Cell::new(false),
            has_news: Cell::new(false),
            is_stopping: Cell::new(false),
            is_draining: Cell::new(false),
            gave_way: RefCell::default(),
            stopped: RefCell::default(),
            driver: RefCell::new(None),
        });
        shard.watch_mail();
        driver::start(&shard)?;
        Heartbeat::start(&shard);
        CURRENT.set(Some((executor, Rc::downgrade(&shard))));
        Ok(shard)
    }

    /// The shard of this thread's executor; started with the defaults where there is none yet.
    pub(crate) fn current() -> Result<Rc<Self>, ShardError> {
        match Self::existing() {
            Some(shard) => Ok(shard),
            None => {
                let (config, place) = (ShardConfig::default(), ShardPlace::default());
                Self::start(config, place, Arc::default(), Mailboxes::new(1)?)
            }
        }
    }

    /// The shard of this thread's executor, where there is one.
    pub(crate) fn existing() -> Option<Rc<Self>> {
        let (of, shard) = CURRENT.with_borrow(Clone::clone)?;
        let shard = shard.upgrade()?;
        (executor::current() == Some(of)).then_some(shard)
    }

    /// Has the ring see to it that mail wakes the shard.
    pub(crate) fn watch_mail(&self) {
        self.ring.borrow_mut().watch(self.remote.mail.ring_bell(), MAIL_TOKEN);
        self.wake_driver();
    }

    /// Notes that a connection has bytes to send; the driver sends them when its next
    /// turn begins, after every completion of this one.
    #[inline]
    pub(crate) fn mark_dirty(&self, connection: &Rc<Connection>) {
        if !connection.is_dirty.replace(true) {
            self.dirty.borrow_mut().push(Rc::clone(connection));
            self.wake_driver();
        }
    }

    /// Moves the connections with bytes to send to `into`.
    #[inline]
    pub(crate) fn take_dirty(&self, into: &mut Vec<Rc<Connection>>) {
        self.has_news.set(false);
        into.append(&mut self.dirty.borrow_mut());
    }

    /// Whether the driver has something to do that no completion will tell it of.
    #[inline]
    pub(crate) fn has_work(&self) -> bool {
        self.has_news.get()
            || self.remote.mail.has_mail()
            || !self.backlog.is_empty()
            || self.relays.has_some()
            || !self.gave_way.borrow().is_empty()
            || self.can_feed_starved()
            || self.must_stop()
            || self.must_drain()
    }

    /// Whether a connection waits for receive buffers and some are free again.
    pub(crate) fn can_feed_starved(&self) -> bool {
        !self.starved.borrow().is_empty() && self.pool.free() > 0
    }

    /// Whether another thread asked this shard to stop, and it has not begun to.
    #[inline]
    pub(crate) fn must_stop(&self) -> bool {
        self.remote.stop.load(Ordering::Acquire) && !self.is_stopping.get()
    }

    /// Whether another thread asked this shard to take no more calls, and it has not begun to.
    #[inline]
    pub(crate) fn must_drain(&self) -> bool {
        self.remote.drain_ms.load(Ordering::Acquire) != 0
            && !self.is_draining.get()
            && !self.is_stopping.get()
    }

    /// The time of this turn, in microseconds since the shard started.
    #[inline]
    pub(crate) fn now_us(&self) -> u64 {
        self.now_us.get()
    }

    /// The time of this turn, to the nanosecond.
    pub(crate) fn now(&self) -> Instant {
        self.now.get()
    }

    /// When the shard started.
    pub(crate) fn epoch(&self) -> Instant {
        self.epoch
    }

    /// Whether the shard has begun to drain or to stop.
    pub(crate) fn is_ending(&self) -> bool {
        self.is_draining.get() || self.is_stopping.get()
    }

    /// Notes the time.
    #[inline]
    pub(crate) fn set_now(&self, now: Instant) {
        self.now.set(now);
        self.now_us.set(self.us_of(now));
    }

    /// The time now, for tasks, which may run long after the driver looked at the clock.
    pub(crate) fn fresh_now_us(&self) -> u64 {
        self.us_of(Instant::now())
    }

    /// A time in microseconds since the shard started.
    pub(crate) fn us_of(&self, now: Instant) -> u64 {
        let since = now.saturating_duration_since(self.epoch);
        since.as_secs() * 1_000_000 + u64::from(since.subsec_micros())
    }

    /// Time until a connection's timer is due; none where none will be.
    pub(crate) fn until_next_timer(&self) -> Option<Duration> {
        let next_us = self.next_timer_us.get();
        (next_us != u64::MAX)
            .then(|| Duration::from_micros(next_us.saturating_sub(self.now_us.get())))
    }

    /// Whether a connection's timer will be due within a time from now on, whenever the driver
    /// looked at the clock last: it may have slept since.
    pub(crate) fn is_timer_due_within(&self, time: Duration) -> bool {
        let next_us = self.next_timer_us.get();
        next_us != u64::MAX && next_us <= self.us_of(Instant::now() + time)
    }

    /// Whether a connection's timer is due.
    #[inline]
    pub(crate) fn is_timer_due(&self) -> bool {
        self.next_timer_us.get() <= self.now_us.get()
    }

    /// Enters when to look at a connection's timers.
    pub(crate) fn set_timer(&self, connection: &Connection, due_us: u64) {
        let mut timers = self.timers.borrow_mut();
        timers.remove(&(connection.timer_us.replace(due_us), connection.key));
        timers.insert((due_us, connection.key));
        if due_us < self.next_timer_us.get() {
            self.next_timer_us.set(due_us);
            drop(timers);
            // It may sleep for longer than that.
            self.wake_driver();
        }
    }

    /// Forgets a connection's timers.
    pub(crate) fn clear_timer(&self, connection: &Connection) {
        let due_us = connection.timer_us.replace(u64::MAX);
        if due_us != u64::MAX {
            self.timers.borrow_mut().remove(&(due_us, connection.key));
        }
    }

    /// Enters when an ask ends at the latest.
    pub(crate) fn set_ask_timer(&self, key: u64, due_us: u64) {
        self.timers.borrow_mut().insert((due_us, key | ASK_TIMER));
        if due_us < self.next_timer_us.get() {
            self.next_timer_us.set(due_us);
            self.wake_driver();
        }
    }

    /// Forgets the timer of an ask.
    pub(crate) fn clear_ask_timer(&self, key: u64, due_us: u64) {
        self.timers.borrow_mut().remove(&(due_us, key | ASK_TIMER));
    }

    /// Looks at the timers of every connection that may have one due.
    pub(crate) fn fire_timers(&self) {
        let now_us = self.now_us.get();
        loop {
            let mut timers = self.timers.borrow_mut();
            let due = timers.first().copied().filter(|(due_us, _)| *due_us <= now_us);
            let Some((due_us, key)) = due else {
                self.next_timer_us.set(timers.first().map_or(u64::MAX, |(due_us, _)| *due_us));
                return;
            };
            timers.remove(&(due_us, key));
            drop(timers);
            if key & ASK_TIMER != 0 {
                self.asks.seats.wake(self, key & !ASK_TIMER);
                continue;
            }
            let connection = self.connections.borrow().get(key).cloned();
            if let Some(connection) = connection {
                connection.timer_us.set(u64::MAX);
                connection.timer_fired(now_us);
            }
        }
    }

    /// A number that no two shards draw in the same order. Not for secrets.
    pub(crate) fn random(&self) -> u64 {
        // Marsaglia's xorshift64.
        let mut state = self.random.get();
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        self.random.set(state);
        state
    }

    /// Whether as many calls run as this shard takes.
    #[inline]
    pub(crate) fn has_no_room_for_calls(&self) -> bool {
        self.running.get() >= self.config.calls_max
    }

    /// Whether there is memory for one more frame of this length, in bytes.
    pub(crate) fn has_memory_for(&self, frame_len: u64) -> bool {
        self.owned.outstanding_bytes() as u64 + frame_len <= self.config.memory_max as u64
    }

    /// Calls that run here.
    pub(crate) fn calls_running(&self) -> usize {
        self.running.get()
    }

    /// Counts a call that begins here.
    #[inline]
    pub(crate) fn handler_begins(&self) {
        self.running.set(self.running.get() + 1);
    }

    /// Counts a call that has ended here.
    #[inline]
    pub(crate) fn handler_ends(&self) {
        self.running.set(self.running.get() - 1);
    }

    /// Tells the driver that there is something to submit, and wakes it if it sleeps.
    #[inline]
    pub(crate) fn wake_driver(&self) {
        self.has_news.set(true);
        if let Some(driver) = self.driver.borrow_mut().take() {
            driver.wake();
        }
    }

    /// Leaves the driver's waker to be woken when there is work.
    pub(crate) fn driver_sleeps(&self, waker: &Waker) {
        *self.driver.borrow_mut() = Some(waker.clone());
    }

    /// Takes the driver's waker back.
    pub(crate) fn driver_woke(&self) {
        self.driver.borrow_mut().take();
    }

    /// Wakes a task of this executor; the driver gives way to it when its turn
    /// ends.
    #[inline]
    pub(crate) fn wake_task(&self, waker: &Waker) {
        self.woke_tasks.set(true);
        waker.wake_by_ref();
    }

    /// Leaves the waker of a task that gives way, to be woken when the driver has had a turn.
    ///
    /// It may not just stay runnable: the executor's reactor runs when nothing else is, and a task
    /// that gives way in a loop would keep the driver waiting for that.
    pub(crate) fn give_way(&self, waker: &Waker) {
        self.gave_way.borrow_mut().push(waker.clone());
        self.wake_driver();
    }

    /// Wakes the tasks that gave way. False where there was none.
    #[inline]
    pub(crate) fn resume_tasks(&self) -> bool {
        let mut gave_way = self.gave_way.take();
        let were_there = !gave_way.is_empty();
        // Not woken in the list's presence: what a waker does is its own affair.
        gave_way.drain(..).for_each(Waker::wake);
        let mut now = self.gave_way.borrow_mut();
        if now.is_empty() {
            // For its capacity.
            *now = gave_way;
        }
        were_there
    }

    /// Whether tasks may be runnable that the driver should give way to.
    #[inline]
    pub(crate) fn take_woke_tasks(&self) -> bool {
        self.woke_tasks.replace(false) || self.spawned.get() > 0
    }

    /// Counts a handler that became a task.
    pub(crate) fn handler_spawned(&self) {
        self.spawned.set(self.spawned.get() + 1);
        self.counters.calls_spawned.add(1);
    }

    /// Counts a task that the driver is to give way to as to a handler's.
    pub(crate) fn task_begins(&self) {
        self.spawned.set(self.spawned.get() + 1);
    }

    /// Counts a task's handler that is done.
    pub(crate) fn handler_done(&self) {
        self.spawned.set(self.spawned.get() - 1);
    }

    /// Counts a call made.
    #[inline]
    pub(crate) fn call_made(&self) {
        self.made.set(self.made.get() + 1);
        self.counters.calls_made.add(1);
        self.heartbeat.quicken();
    }

    /// Counts a call made that has its outcome, or was given up.
    #[inline]
    pub(crate) fn call_ended(&self) {
        self.made.set(self.made.get() - 1);
    }

    /// Whether calls, made or served, wait for something other than a completion.
    pub(crate) fn has_calls_in_flight(&self) -> bool {
        self.made.get() > 0 || self.spawned.get() > 0
    }

    /// An empty send buffer, with capacity if one was kept.
    #[inline]
    pub(crate) fn take_spare(&self) -> Vec<u8> {
        let mut spare = self.spare.borrow_mut();
        let buffer = spare.buffers.pop().unwrap_or_default();
        spare.bytes -= buffer.capacity();
        buffer
    }

    /// Moves what the session said of itself, a HELLO, PING or PONG, to a send buffer that was kept
    /// if there is one: or each of them would add another to those that are.
    pub(crate) fn use_spare(&self, output: &mut Vec<u8>) {
        let mut buffer = self.take_spare();
        if buffer.capacity() >= output.capacity() && !output.is_empty() {
            buffer.append(output);
            *output = buffer;
        } else {
            self.keep_spare(buffer);
        }
    }

    /// Keeps a send buffer for the next reply, within bounds.
    #[inline]
    pub(crate) fn keep_spare(&self, mut buffer: Vec<u8>) {
        let mut spare = self.spare.borrow_mut();
        let bytes = spare.bytes + buffer.capacity();
        if buffer.capacity() > 0
            && spare.buffers.len() < SPARE_SEND_BUFFERS_MAX
            && bytes <= SPARE_SEND_BYTES_MAX
        {
            buffer.clear();
            spare.buffers.push(buffer);
            spare.bytes = bytes;
        }
    }

    /// Ends every connection at once, and lets go of everything that holds the shard.
    pub(crate) fn close_all(&self) {
        self.remote.mail.close();
        listener::close_all(self);
        let connections = self.connections.borrow().values();
        for connection in connections {
            if connection.state() == State::Open {
                connection.flush();
            }
            connection.finish("the shard has stopped");
        }
        self.ports.clear();
        self.dirty.take();
        self.starved.take();
        self.asks.close(self);
        self.backlog.close();
        // That calls have ended which ran here for other shards.
        self.send_relayed();
    }

    /// Waits until the shard has begun to stop.
    pub(crate) fn poll_stopping(&self, waker: &Waker) -> Poll<()> {
        if self.is_stopping.get() {
            return Poll::Ready(());
        }
        self.keep_stopped_waker(waker);
        Poll::Pending
    }

    /// Waits until no connection is left, nor a task that is to finish something.
    pub(crate) fn poll_empty(&self, waker: &Waker) -> Poll<()> {
        if self.connections.borrow().len() == 0 && self.farewells.are_over() {
            return Poll::Ready(());
        }
        self.keep_stopped_waker(waker);
        Poll::Pending
    }

    /// Wakes who waits for the shard to stop.
    pub(crate) fn wake_stopped(&self) {
        let stopped = std::mem::take(&mut *self.stopped.borrow_mut());
        stopped.iter().for_each(|waker| self.wake_task(waker));
    }

    fn keep_stopped_waker(&self, waker: &Waker) {
        let mut stopped = self.stopped.borrow_mut();
        // Those who wait are two at most: the shard's own task, and the one that drains it.
        if !stopped.iter().any(|kept| kept.will_wake(waker)) {
            stopped.push(waker.clone());
        }
    }
}

//! The driver: the one long-lived task of a shard, which turns its ring.
//!
//! Each turn submits what is queued, handles every completion, and sends what the connections
//! have collected: syscalls are per turn, not per call. While there is work it never waits; every
//! 500 µs it lets the executor's reactor run, so that timers, files and channels of user code
//! make progress; with nothing to do it looks on for as long as it is told to spin, then waits in
//! the ring for a moment, then arms the bell and lets the executor sleep.

use std::{
    future::{Future, poll_fn},
    io,
    pin::pin,
    rc::Rc,
    task::Poll,
    time::{Duration, Instant},
};

use rustix::time::{ClockId, clock_gettime};

use crate::{
    config::{DOZE_MAX, HEARTBEAT_IDLE, REACTOR_TURN_AFTER, YIELDS_BEFORE_DOZE},
    connection::Connection,
    executor::{self, ReadableWatch},
    listener::{self, LISTENER_TOKEN},
    mail::Wait,
    metrics::Away,
    ring::{Bell, Completion, Event},
    server,
    shard::Shard,
    tasks,
};

/// Starts the driver of a shard on this executor.
pub(crate) fn start(shard: &Rc<Shard>) -> io::Result<()> {
    let bell = ReadableWatch::new(shard.remote.mail.bell().clone())?;
    let driver = Driver {
        bell,
        completions: Vec::with_capacity(1024),
        dirty: Vec::new(),
        work_since: Instant::now(),
        cpu_published: Instant::now(),
        shard: Rc::clone(shard),
    };
    tasks::spawn(driver.run());
    Ok(())
}

struct Driver {
    shard: Rc<Shard>,
    bell: ReadableWatch<Bell>,
    /// Completions of this turn; kept for its capacity.
    completions: Vec<Completion>,
    /// Connections to send from in this turn; kept for its capacity.
    dirty: Vec<Rc<Connection>>,
    /// When the reactor last ran.
    work_since: Instant,
    cpu_published: Instant,
}

impl Driver {
    async fn run(mut self) {
        loop {
            let (mut found_work, now) = self.turn();
            if self.shard.is_timer_due() {
                self.shard.fire_timers();
                found_work = true;
            }
            if self.shard.must_drain() {
                server::begin_drain(&self.shard);
            }
            if self.shard.must_stop() {
                server::begin_stop(&self.shard);
            }
            self.publish_cpu(now);
            if self.shard.take_woke_tasks() | self.shard.resume_tasks() {
                executor::yield_now().await;
                self.shard.came_back(Away::Tasks);
            }
            if now - self.work_since >= REACTOR_TURN_AFTER {
                self.reactor_turn().await;
            }
            if found_work || self.shard.has_work() {
                continue;
            }
            if self.spin(now).await || self.doze().await {
                continue;
            }
            self.sleep().await;
        }
    }

    /// Sends, submits and handles what has completed. False where there was nothing; and the time.
    fn turn(&mut self) -> (bool, Instant) {
        let shard = &self.shard;
        shard.take_dirty(&mut self.dirty);
        let mut found_work = !self.dirty.is_empty();
        for connection in self.dirty.drain(..) {
            connection.start_send();
        }
        if shard.relays.has_some() {
            // What relays have said.
            shard.send_relayed();
        }
        if shard.can_feed_starved() {
            let starved = shard.starved.take();
            starved.iter().for_each(|connection| connection.rearm());
        }
        {
            let mut ring = shard.ring.borrow_mut();
            if let Err(error) = ring.enter() {
                // The kernel refuses to be entered for reasons that pass (out of memory).
                tracing::warn!(%error, "io_uring_enter failed; trying again");
            }
            ring.drain(&mut self.completions);
            shard.counters.enters.set(ring.enters());
            shard.counters.cq_overflows.set(ring.cq_overflows());
        }
        // The one look at the clock of a turn: what comes in now came now.
        let now = Instant::now();
        shard.set_now(now);
        shard.turn_begins(now);
        found_work |= !self.completions.is_empty();
        for completion in self.completions.drain(..) {
            handle(shard, completion);
        }
        if shard.remote.mail.has_mail() {
            found_work |= shard.remote.mail.run(shard);
            shard.relays.loans.collect();
        }
        if shard.relays.has_some() {
            shard.send_relayed();
        }
        if !shard.backlog.is_empty() {
            shard.backlog.run();
            found_work = true;
        }
        if found_work {
            shard.counters.turns.add(1);
            shard.turn_ends();
        }
        (found_work, now)
    }

    /// Lets everything else on this executor have a turn: its rings, and every runnable task.
    ///
    /// Giving way is not enough, as that stays inside the run queue. Waiting for the bell that was
    /// just rung leaves it and comes straight back.
    async fn reactor_turn(&mut self) {
        self.shard.counters.reactor_turns.add(1);
        self.shard.reactor_turn_begins(self.work_since.elapsed());
        self.shard.remote.mail.bell().ring();
        self.wait_for_bell(false).await;
        self.shard.came_back(Away::Reactor);
        self.work_since = Instant::now();
    }

    /// Looks for work without sleeping, for the time that is configured. False where none came.
    async fn spin(&mut self, idle_since: Instant) -> bool {
        let spin = self.shard.config.spin;
        if spin == Duration::ZERO {
            return false;
        }
        // Tasks of user code may be runnable, and may make work.
        executor::yield_now().await;
        self.shard.came_back(Away::Tasks);
        self.shard.becomes_idle();
        loop {
            if !self.shard.ring.borrow_mut().is_quiet() || self.shard.has_work() {
                return true;
            }
            let now = Instant::now();
            self.shard.set_now(now);
            if self.shard.is_timer_due() {
                return true;
            }
            if now - idle_since >= spin {
                return false;
            }
            if now - self.work_since >= REACTOR_TURN_AFTER {
                self.reactor_turn().await;
            }
            std::hint::spin_loop();
        }
    }

    /// Waits in the ring itself, for a short time. False where nothing came.
    ///
    /// Under load there is something to do again within microseconds, and a wait in the ring is
    /// one syscall, where a sleep of the executor is half a dozen and a barrier on every core of
    /// the process. It ends in time for the next turn of the reactor, so that nothing of the
    /// executor waits longer than it does under full load.
    async fn doze(&mut self) -> bool {
        if self.shard.config.sleeps_at_once {
            return false;
        }
        for _ in 0..YIELDS_BEFORE_DOZE {
            executor::yield_now().await;
        }
        self.shard.came_back(Away::Tasks);
        if self.work_since.elapsed() + DOZE_MAX > REACTOR_TURN_AFTER {
            self.reactor_turn().await;
        }
        let mail = &self.shard.remote.mail;
        mail.fall_asleep(Wait::InRing);
        if self.shard.has_work() {
            mail.wake_up();
            return true;
        }
        self.shard.becomes_idle();
        let wait = self.shard.until_next_timer().map_or(DOZE_MAX, |until| until.min(DOZE_MAX));
        let mut ring = self.shard.ring.borrow_mut();
        let waited = ring.wait(wait);
        mail.wake_up();
        if let Err(error) = waited {
            tracing::warn!(%error, "waiting in the ring failed");
            return false;
        }
        !ring.is_quiet() || wait < DOZE_MAX || mail.has_mail()
    }

    /// Lets the executor sleep until there is something to do.
    async fn sleep(&mut self) {
        self.shard.becomes_idle();
        {
            let mut ring = self.shard.ring.borrow_mut();
            ring.enable_bell();
            // What completed before the bell was armed did not ring it: one last look.
            let looked = ring.enter_always();
            if looked.is_err() || !ring.is_quiet() {
                ring.disable_bell();
                return;
            }
        }
        self.shard.counters.parks.add(1);
        // Mail that came before is seen by the look for work with which the wait begins.
        self.shard.remote.mail.fall_asleep(Wait::InExecutor);
        self.wait_for_bell(true).await;
        self.shard.remote.mail.wake_up();
        self.shard.ring.borrow_mut().disable_bell();
        self.work_since = Instant::now();
        self.shard.heartbeat.quicken();
    }

    /// Waits until the bell rings, or for work as well.
    async fn wait_for_bell(&mut self, or_work: bool) {
        let shard = &self.shard;
        let bell = &mut self.bell;
        // Timers that are further away are seen by a beat of the heart.
        let until_timer = shard.until_next_timer().filter(|until| *until < HEARTBEAT_IDLE);
        let mut timer = pin!(until_timer.filter(|_| or_work).map(executor::sleep));
        let rung = poll_fn(|cx| {
            if or_work && shard.has_work() {
                return Poll::Ready(Ok(false));
            }
            if let Some(timer) = timer.as_mut().as_pin_mut()
                && timer.poll(cx).is_ready()
            {
                return Poll::Ready(Ok(false));
            }
            shard.driver_sleeps(cx.waker());
            bell.poll_readable(cx).map_ok(|()| true)
        })
        .await;
        shard.driver_woke();
        match rung {
            Ok(true) => shard.remote.mail.bell().clear(),
            Ok(false) => {}
            Err(error) => tracing::warn!(%error, "cannot wait for the ring"),
        }
    }

    /// Publishes the thread's CPU time, once a millisecond at most.
    fn publish_cpu(&mut self, now: Instant) {
        if now - self.cpu_published >= Duration::from_millis(1) {
            self.cpu_published = now;
            let cpu = clock_gettime(ClockId::ThreadCPUTime);
            let cpu_ns = cpu.tv_sec.cast_unsigned() * 1_000_000_000 + cpu.tv_nsec.cast_unsigned();
            self.shard.counters.cpu_ns.set(cpu_ns);
        }
    }
}

impl Drop for Driver {
    /// The executor ends: nobody turns the ring any more, so nobody may wait for it.
    fn drop(&mut self) {
        self.shard.close_all();
    }
}

/// Gives a completion to the connection or listener that it belongs to.
#[inline]
fn handle(shard: &Rc<Shard>, completion: Completion) {
    let Completion { token, op, event } = completion;
    if let Event::Rung { more } = event {
        if !more {
            shard.watch_mail();
        }
        return;
    }
    if let Event::Accepted { result, more } = event {
        listener::accepted(shard, token & !LISTENER_TOKEN, result, more);
        return;
    }
    let connection = shard.connections.borrow().get(token).cloned();
    // A connection that is gone has no use for it; buffers go back where they came from.
    let Some(connection) = connection else { return };
    match event {
        Event::Received { result, more } => connection.received(op, result, more),
        Event::ReceivedInto { result, buffer } => connection.received_into(result, buffer),
        Event::Sent { result, bytes, from } => connection.sent(result, bytes, from),
        Event::Connected { result } => connection.connected(result),
        // Connections send what they have encoded; accepts went to their listener.
        Event::SentShared { .. } | Event::Accepted { .. } | Event::Rung { .. } => {}
    }
}

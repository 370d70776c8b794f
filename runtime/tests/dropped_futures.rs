//! Calls and handlers that are dropped at any point of their lives: nothing that is still used is
//! freed, nothing stays behind, and every reply that does come is the right one.
//!
//! A seed decides what is polled and dropped when. `RINGCALL_DROPPED_FUTURES` says how many calls
//! are made: few in a usual run, more under a sanitizer (`cargo xtask asan`).

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod support;

use std::{
    cell::{Cell, RefCell},
    future::{Future, pending, poll_fn},
    net::SocketAddr,
    pin::Pin,
    rc::Rc,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    task::Poll,
    time::Duration,
};

use ringcall::{ShardConfig, prelude::*};
use support::{
    event::Noted,
    server::{counters, serve},
    wait::{until_async, watched_for},
};

#[ringcall::message]
#[derive(Clone)]
pub struct Step {
    pub number: u64,
    /// How often the handler waits.
    pub waits: u32,
    pub bytes: Vec<u8>,
}

#[ringcall::message]
pub struct View<'a> {
    pub number: u64,
    pub bytes: &'a [u8],
}

#[ringcall::service]
pub trait Walk {
    /// Waits as often as it is told, and replies with a borrow of what came.
    async fn walk<'a>(&self, cx: &Context, request: Request<'a, Step>) -> Result<View<'a>, Status>;
    /// Waits for good.
    async fn stay(&self, cx: &Context, request: Request<'_, Step>) -> Result<Step, Status>;
    /// Has `walk` of this server answer.
    async fn relay(&self, cx: &Context, request: Request<'_, Step>) -> Result<Step, Status>;
}

/// What the test sees of the handlers.
#[derive(Default)]
struct Watch {
    begun: AtomicU64,
    ended: AtomicU64,
    address: OnceLock<SocketAddr>,
}

/// A handler, which reads its request once more when it is dropped, wherever it waited.
struct Handler<'a> {
    watch: &'a Watch,
    request: Request<'a, Step>,
    number: Box<u64>,
}

impl<'a> Handler<'a> {
    fn begin(watch: &'a Watch, request: Request<'a, Step>) -> Self {
        watch.begun.fetch_add(1, Relaxed);
        Self { watch, request, number: Box::new(request.number.into()) }
    }
}

impl Drop for Handler<'_> {
    fn drop(&mut self) {
        self.watch.ended.fetch_add(1, Relaxed);
        assert_eq!(u64::from(self.request.number), *self.number);
        assert!(is_filled(&self.request.bytes, *self.number));
    }
}

#[derive(Clone)]
struct Walker {
    watch: Arc<Watch>,
    /// The server's connection to itself.
    own: Rc<RefCell<Option<WalkClient>>>,
}

impl Walker {
    async fn own_client(&self) -> WalkClient {
        let own = self.own.borrow().clone();
        if let Some(own) = own {
            return own;
        }
        let address = self.watch.address.get().expect("it was set before the first call");
        let own = WalkClient::connect(*address).await.expect("the server is there");
        // Another handler may have connected meanwhile: one of the two connections is kept.
        self.own.borrow_mut().insert(own).clone()
    }
}

impl Walk for Walker {
    async fn walk<'a>(&self, _: &Context, request: Request<'a, Step>) -> Result<View<'a>, Status> {
        let handler = Handler::begin(&self.watch, request);
        for _ in 0..request.waits.to_native() {
            ringcall::yield_now().await;
        }
        Ok(View { number: *handler.number, bytes: &request.get().bytes })
    }

    async fn stay(&self, _: &Context, request: Request<'_, Step>) -> Result<Step, Status> {
        let _handler = Handler::begin(&self.watch, request);
        pending().await
    }

    async fn relay(&self, _: &Context, request: Request<'_, Step>) -> Result<Step, Status> {
        let _handler = Handler::begin(&self.watch, request);
        let own = self.own_client().await;
        let step = request.to_owned()?;
        let reply = own.walk(&step).await?;
        Ok(Step { number: reply.number.into(), waits: 0, bytes: reply.bytes.to_vec() })
    }
}

/// Calls made unless the environment says how many.
const CALLS_DEFAULT: u64 = 20_000;

/// Calls that are there at once, dropped ones not counted. More than the server lets a connection
/// have in flight, so that some wait for room.
const FUTURES_MAX: usize = 24;
const CALLS_IN_FLIGHT_MAX: u32 = 16;

/// Calls of `stay` among them: fewer than there is room for, so that the others get some.
const STAYS_MAX: usize = 4;

/// Replies that are kept at once.
const REPLIES_MAX: usize = 12;

type Reply = (u64, Response<View<'static>>);

/// A call at some point of its life.
struct Running {
    future: Pin<Box<dyn Future<Output = ()>>>,
    stays: bool,
    was_polled: bool,
}

/// What became of calls.
#[derive(Debug, Default)]
struct Ends {
    dropped_before_poll: u64,
    dropped_in_flight: u64,
    answered: u64,
}

struct Caller {
    random: Random,
    client: WalkClient,
    running: Vec<Running>,
    /// Replies that are read again when they are dropped.
    replies: Rc<RefCell<Vec<Reply>>>,
    answered: Rc<Cell<u64>>,
    ends: Ends,
}

impl Caller {
    /// Makes one call that is polled later, or never.
    fn call(&mut self, number: u64) {
        let (client, replies) = (self.client.clone(), Rc::clone(&self.replies));
        let answered = Rc::clone(&self.answered);
        // Up to what stands in one receive buffer, and more; now and then what goes in parts.
        let len = match self.random.below(500) {
            0 => 100_000,
            other => [0, 8, 200, 3000, 20_000][(other % 20).saturating_sub(15)],
        };
        let (waits, bytes) = (self.random.below(4) as u32, filled(number, len));
        let step = Step { number, waits, bytes };
        let may_stay = self.running.iter().filter(|running| running.stays).count() < STAYS_MAX;
        let method = self.random.below(16).max(usize::from(!may_stay));
        let future = async move {
            match method {
                0 => drop(client.stay(&step).await),
                1..4 => {
                    let reply = client.relay(&step).await.expect("nothing refuses it");
                    assert_eq!(u64::from(reply.number), number);
                    assert!(is_filled(&reply.bytes, number));
                }
                _ => {
                    let reply = client.walk(&step).await.expect("nothing refuses it");
                    assert_eq!(u64::from(reply.number), number);
                    assert!(is_filled(&reply.bytes, number));
                    replies.borrow_mut().push((number, reply));
                }
            }
            answered.set(answered.get() + 1);
        };
        let (future, stays) = (Box::pin(future), method == 0);
        self.running.push(Running { future, stays, was_polled: false });
    }

    /// Polls one of the calls, whether or not it was woken.
    fn poll(&mut self, waker: &Arc<Noted>) {
        if self.running.is_empty() {
            return;
        }
        let at = self.random.below(self.running.len());
        let running = &mut self.running[at];
        running.was_polled = true;
        if let Poll::Ready(()) = waker.poll(Pin::new(&mut running.future)) {
            drop(self.running.swap_remove(at));
        }
    }

    /// Lets calls go on until no more than so many are left, and those that stay.
    async fn settle(&mut self, left: usize) {
        poll_fn(|cx| {
            // Each, as one that has its reply and was not polled keeps others from having room.
            self.running.retain_mut(|running| {
                running.was_polled = true;
                running.future.as_mut().poll(cx).is_pending()
            });
            let is_settled = self.running.len() <= left.max(STAYS_MAX);
            if is_settled { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
    }

    /// Drops one of the calls where it is.
    fn drop_call(&mut self) {
        if self.running.is_empty() {
            return;
        }
        let at = self.random.below(self.running.len());
        let running = self.running.swap_remove(at);
        match running.was_polled {
            true => self.ends.dropped_in_flight += 1,
            false => self.ends.dropped_before_poll += 1,
        }
    }

    fn drop_reply(&mut self) {
        let mut replies = self.replies.borrow_mut();
        if replies.is_empty() {
            return;
        }
        let at = self.random.below(replies.len());
        let (number, reply) = replies.swap_remove(at);
        assert_eq!(u64::from(reply.number), number);
        assert!(is_filled(&reply.bytes, number));
    }

    /// One call, and as much of what goes on around it as chance wills.
    async fn step(&mut self, number: u64, address: SocketAddr, waker: &Arc<Noted>) {
        self.call(number);
        for _ in 0..self.random.below(6) {
            match self.random.below(16) {
                0..8 => self.poll(waker),
                8..10 => self.drop_call(),
                10..12 => self.drop_reply(),
                _ => ringcall::yield_now().await,
            }
        }
        if self.running.len() >= FUTURES_MAX {
            let left = self.random.below(FUTURES_MAX);
            self.settle(left).await;
        }
        while self.replies.borrow().len() > REPLIES_MAX {
            self.drop_reply();
        }
        if self.random.below(2000) == 0 {
            // The connection goes with the last call that is in flight on it.
            self.client = WalkClient::connect(address).await.expect("the server is there");
        }
    }
}

#[test]
fn what_is_dropped_at_any_point_leaves_nothing_behind() {
    let calls = match std::env::var("RINGCALL_DROPPED_FUTURES") {
        Ok(calls) => calls.parse().expect("RINGCALL_DROPPED_FUTURES is a number of calls"),
        Err(_) => CALLS_DEFAULT,
    };
    // A hang is found late where much is asked for, and never taken for slowness.
    let patience = Duration::from_secs(60) + Duration::from_millis(calls);
    watched_for(patience, move || drop_futures(calls));
}

fn drop_futures(calls: u64) {
    let watch = Arc::new(Watch::default());
    let server = serve(ShardConfig::new().calls_in_flight_max(CALLS_IN_FLIGHT_MAX), {
        let watch = Arc::clone(&watch);
        move || WalkServer::new(Walker { watch: Arc::clone(&watch), own: Rc::default() })
    });
    let address = server.address();
    watch.address.set(address).unwrap();

    let ends = ringcall::run(async {
        let waker = Noted::new();
        let mut caller = Caller {
            random: Random(0x9e37_79b9_7f4a_7c15),
            client: WalkClient::connect(address).await.unwrap(),
            running: Vec::new(),
            replies: Rc::default(),
            answered: Rc::default(),
            ends: Ends::default(),
        };
        for number in 0..calls {
            caller.step(number, address, &waker).await;
        }
        caller.running.clear();
        // Nobody is let down by those that were dropped before.
        let step = Step { number: calls, waits: 3, bytes: filled(calls, 200) };
        let reply = caller.client.walk(&step).await.unwrap();
        assert!(is_filled(&reply.bytes, calls));
        let (begun, ended) = (&watch.begun, &watch.ended);
        until_async("all handlers have ended", || begun.load(Relaxed) == ended.load(Relaxed)).await;
        Ends { answered: caller.answered.get(), ..caller.ends }
    })
    .unwrap();

    let counters = counters(&server);
    // A tenth at least of each, or something is hardly tried at all.
    assert!(ends.dropped_before_poll > calls / 10, "{ends:?}");
    assert!(ends.dropped_in_flight > calls / 10, "{ends:?}");
    assert!(ends.answered > calls / 10, "{ends:?}");
    assert!(counters.handlers_stopped > 0, "{counters:?}");
    assert_eq!(counters.handlers_panicked, 0, "{counters:?}");
}

/// Bytes that follow from a number.
fn filled(number: u64, len: usize) -> Vec<u8> {
    (0..len as u64).map(|at| (at ^ number) as u8).collect()
}

fn is_filled(bytes: &[u8], number: u64) -> bool {
    bytes.iter().zip(0_u64..).all(|(byte, at)| *byte == (at ^ number) as u8)
}

/// Marsaglia's xorshift64: the same numbers on every run.
struct Random(u64);

impl Random {
    fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 16) as usize % end
    }
}

//! Subscriptions: what is published goes to everybody who listens, and each policy says what
//! becomes of one who is slow.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod support;

use std::{pin::pin, task::Poll};

use ringcall::{Lag, RunConfig, ShardConfig, Topic, prelude::*};
use support::{
    event::{Noted, background},
    server::serve,
    wait::watched,
};

#[ringcall::message]
pub struct Terms {
    /// 0 blocks, 1 drops the oldest, 2 disconnects.
    pub lag: u8,
    pub depth: u32,
}

#[ringcall::message]
pub struct Number {
    pub number: u64,
}

/// An item, and how many were missed before it.
#[ringcall::message]
pub struct Tick {
    pub number: u64,
    pub missed: u64,
}

#[ringcall::service]
pub trait Clock {
    /// Forwards what is published.
    async fn listen(
        &self,
        cx: &Context,
        request: Request<'_, Terms>,
        ticks: Sink<'_, Tick>,
    ) -> Result<Number, Status>;
    /// The same, and says of each item how many were missed before it.
    async fn listen_closely(
        &self,
        cx: &Context,
        request: Request<'_, Terms>,
        ticks: Sink<'_, Tick>,
    ) -> Result<Number, Status>;
    /// Publishes a tick of this number.
    async fn tick(&self, cx: &Context, request: Request<'_, Number>) -> Result<Number, Status>;
    /// How many listen.
    async fn listeners(&self, cx: &Context, request: Request<'_, Number>)
    -> Result<Number, Status>;
    /// Ends the topic.
    async fn end(&self, cx: &Context, request: Request<'_, Number>) -> Result<Number, Status>;
}

#[derive(Default)]
struct Tower(std::cell::RefCell<Topic<Tick>>);

impl Tower {
    fn topic(&self) -> Topic<Tick> {
        self.0.borrow().clone()
    }

    fn subscribe(&self, terms: &ArchivedTerms) -> ringcall::Subscriber<Tick> {
        let lag = [Lag::Block, Lag::DropOldest, Lag::Disconnect][usize::from(terms.lag)];
        self.0.borrow().subscribe(lag, terms.depth.to_native() as usize)
    }
}

impl Clock for Tower {
    async fn listen(
        &self,
        _: &Context,
        request: Request<'_, Terms>,
        ticks: Sink<'_, Tick>,
    ) -> Result<Number, Status> {
        let mut subscriber = self.subscribe(&request);
        subscriber.forward(&ticks).await?;
        Ok(Number { number: subscriber.missed() })
    }

    async fn listen_closely(
        &self,
        _: &Context,
        request: Request<'_, Terms>,
        ticks: Sink<'_, Tick>,
    ) -> Result<Number, Status> {
        let mut subscriber = self.subscribe(&request);
        loop {
            let tick = subscriber.next().await?;
            ticks.send(&Tick { number: tick.number, missed: subscriber.missed() }).await?;
        }
    }

    async fn tick(&self, _: &Context, request: Request<'_, Number>) -> Result<Number, Status> {
        let number = request.number.to_native();
        self.topic().publish(Tick { number, missed: 0 }).await;
        Ok(Number { number })
    }

    async fn listeners(&self, _: &Context, _: Request<'_, Number>) -> Result<Number, Status> {
        Ok(Number { number: self.topic().subscribers() as u64 })
    }

    async fn end(&self, _: &Context, _: Request<'_, Number>) -> Result<Number, Status> {
        self.0.take();
        Ok(Number { number: 0 })
    }
}

const BLOCK: u8 = 0;
const DROP_OLDEST: u8 = 1;
const DISCONNECT: u8 = 2;

/// Ticks that are on their way to a client that takes none: its window is the least.
const WINDOW: u64 = 4_096 / 256;

fn with_clock<F: Future<Output = ()>>(test: impl FnOnce(ClockClient) -> F + Send + 'static) {
    watched(|| {
        let server = serve(ShardConfig::new(), || ClockServer::new(Tower::default()));
        let config = ShardConfig::new().stream_windows(4_096, 16 << 20);
        let run = RunConfig::new().shard(config).run(async {
            test(ClockClient::connect(server.address()).await.unwrap()).await;
        });
        run.unwrap();
    });
}

impl ClockClient {
    async fn tick_of(&self, number: u64) {
        self.tick(&Number { number }).await.unwrap();
    }

    async fn are_listening(&self, listeners: u64) {
        let none = Number { number: 0 };
        while self.listeners(&none).await.unwrap().number != listeners {}
    }
}

/// Takes ticks until the stream fails: their numbers, and why.
async fn rest(
    mut ticks: ringcall::Stream<ringcall::NoItems, Tick, Number>,
) -> (Vec<u64>, Option<Status>) {
    let mut numbers = Vec::new();
    loop {
        match ticks.next().await {
            Ok(Some(tick)) => numbers.push(tick.number.to_native()),
            Ok(None) => return (numbers, None),
            Err(status) => return (numbers, Some(status)),
        }
    }
}

#[test]
fn everybody_who_listens_gets_everything_in_order() {
    with_clock(async |clock| {
        let mut streams = Vec::new();
        for lag in [BLOCK, DROP_OLDEST, DISCONNECT] {
            for _ in 0..10 {
                streams.push(clock.listen(&Terms { lag, depth: 100 }).await.unwrap());
            }
        }
        clock.are_listening(30).await;
        for number in 0..500 {
            clock.tick_of(number).await;
            for ticks in &mut streams {
                assert_eq!(ticks.next().await.unwrap().unwrap().number, number);
            }
        }
        clock.end(&Number { number: 0 }).await.unwrap();
        for ticks in streams {
            assert_eq!(ticks.finish().await.unwrap().number, 0, "nothing was missed");
        }
    });
}

#[test]
fn one_who_listens_from_now_on_gets_nothing_of_before() {
    with_clock(async |clock| {
        clock.tick_of(1).await;
        let mut ticks = clock.listen(&Terms { lag: BLOCK, depth: 1 }).await.unwrap();
        clock.are_listening(1).await;
        clock.tick_of(2).await;
        assert_eq!(ticks.next().await.unwrap().unwrap().number, 2);
    });
}

#[test]
fn publishing_waits_for_a_slow_subscriber_that_blocks_and_nothing_is_lost() {
    with_clock(async |clock| {
        let depth = 4;
        let mut slow = clock.listen(&Terms { lag: BLOCK, depth: 4 }).await.unwrap();
        let mut quick = clock.listen(&Terms { lag: DISCONNECT, depth: 100 }).await.unwrap();
        clock.are_listening(2).await;
        let clock = std::rc::Rc::new(clock);
        let publishing = {
            let clock = std::rc::Rc::clone(&clock);
            background(async move {
                for number in 0..200 {
                    clock.tick_of(number).await;
                }
            })
        };
        // As many as are on their way, one that waits to be sent, and those that wait behind it.
        let room = WINDOW + 1 + depth;
        for number in 0..room {
            assert_eq!(quick.next().await.unwrap().unwrap().number, number);
        }
        for _ in 0..10 {
            clock.are_listening(2).await;
        }
        assert!(!publishing.is_done());
        let mut more = pin!(quick.next());
        Noted::new().begin(more.as_mut());
        for number in 0..200 {
            assert_eq!(slow.next().await.unwrap().unwrap().number, number);
        }
        publishing.await;
        assert_eq!(more.await.unwrap().unwrap().number, room);
    });
}

#[test]
fn publishing_goes_on_when_a_subscriber_that_blocks_is_gone() {
    with_clock(async |clock| {
        let slow = clock.listen(&Terms { lag: BLOCK, depth: 1 }).await.unwrap();
        clock.are_listening(1).await;
        let clock = std::rc::Rc::new(clock);
        let publishing = {
            let clock = std::rc::Rc::clone(&clock);
            background(async move {
                for number in 0..100 {
                    clock.tick_of(number).await;
                }
            })
        };
        for _ in 0..10 {
            clock.are_listening(1).await;
        }
        assert!(!publishing.is_done());
        drop(slow);
        publishing.await;
        clock.are_listening(0).await;
    });
}

#[test]
fn a_slow_subscriber_misses_the_oldest_and_is_told_how_many() {
    with_clock(async |clock| {
        let terms = Terms { lag: DROP_OLDEST, depth: 4 };
        let mut ticks = clock.listen_closely(&terms).await.unwrap();
        clock.are_listening(1).await;
        for number in 0..1_000 {
            clock.tick_of(number).await;
        }
        let (mut seen, mut missed, mut next) = (0, 0, 0);
        while next < 1_000 {
            let tick = ticks.next().await.unwrap().unwrap();
            let (number, so_far) = (tick.number.to_native(), tick.missed.to_native());
            // Exactly those that were missed are not there.
            assert_eq!(number, next + (so_far - missed));
            (next, missed, seen) = (number + 1, so_far, seen + 1);
        }
        assert_eq!(seen + missed, 1_000);
        // As many as are on their way, one that waits to be sent, and those that wait behind it.
        assert!((WINDOW..=WINDOW + 1 + 4).contains(&seen), "{seen}");
    });
}

#[test]
fn a_slow_subscriber_is_disconnected_and_the_others_are_not() {
    with_clock(async |clock| {
        let slow = clock.listen(&Terms { lag: DISCONNECT, depth: 4 }).await.unwrap();
        let mut quick = clock.listen(&Terms { lag: DISCONNECT, depth: 4 }).await.unwrap();
        clock.are_listening(2).await;
        let mut published = 0;
        while clock.listeners(&Number { number: 0 }).await.unwrap().number == 2 {
            clock.tick_of(published).await;
            assert_eq!(quick.next().await.unwrap().unwrap().number, published);
            published += 1;
        }
        let (numbers, status) = rest(slow).await;
        let status = status.expect("it has no reply");
        assert_eq!(status.code(), Code::ResourceExhausted);
        assert_eq!(status.message(), "more than 4 items waited to be taken");
        // What was on its way has come, in order.
        assert!(numbers.iter().copied().eq(0..numbers.len() as u64));
        assert!((WINDOW..=WINDOW + 1).contains(&(numbers.len() as u64)));
        assert!(published <= WINDOW + 1 + 4 + 1, "{published}");
        clock.tick_of(published).await;
        assert_eq!(quick.next().await.unwrap().unwrap().number, published);
    });
}

#[test]
fn a_subscriber_whose_caller_is_gone_is_gone_too() {
    with_clock(async |clock| {
        for _ in 0..100 {
            let terms = Terms { lag: DISCONNECT, depth: 1 };
            drop(clock.listen(&terms).await.unwrap());
        }
        let kept = clock.listen(&Terms { lag: DISCONNECT, depth: 1 }).await.unwrap();
        clock.are_listening(1).await;
        drop(kept);
        clock.are_listening(0).await;
    });
}

/// Polls a future that is done at once.
#[track_caller]
fn now<F: Future>(future: F) -> F::Output {
    match Noted::new().poll(pin!(future).as_mut()) {
        Poll::Ready(output) => output,
        Poll::Pending => panic!("it waits"),
    }
}

#[test]
fn a_topic_that_is_dropped_gives_what_waits_and_then_ends() {
    let topic = Topic::new();
    let mut subscriber = topic.subscribe(Lag::Block, 8);
    let other = topic.clone();
    now(topic.publish(1));
    drop(topic);
    now(other.publish(2));
    let noted = Noted::new();
    assert_eq!(*now(subscriber.next()).unwrap(), 1);
    assert_eq!(*now(subscriber.next()).unwrap(), 2);
    let mut next = pin!(subscriber.next());
    noted.begin(next.as_mut());
    drop(other);
    assert!(noted.take());
    let status = now(next).unwrap_err();
    assert_eq!((status.code(), status.message()), (Code::Unavailable, "the topic has ended"));
}

#[test]
fn one_item_is_kept_once_for_all() {
    let topic = Topic::new();
    let mut subscribers: Vec<_> = (0..5).map(|_| topic.subscribe(Lag::DropOldest, 2)).collect();
    now(topic.publish(vec![7_u8; 1 << 20]));
    let items: Vec<_> = subscribers.iter_mut().map(|one| now(one.next()).unwrap()).collect();
    assert!(items.iter().all(|item| std::rc::Rc::ptr_eq(item, &items[0])));
    assert_eq!(std::rc::Rc::strong_count(&items[0]), 5);
}

#[test]
fn a_depth_of_none_is_one() {
    let topic = Topic::new();
    let mut subscriber = topic.subscribe(Lag::DropOldest, 0);
    now(topic.publish(1));
    now(topic.publish(2));
    assert_eq!(*now(subscriber.next()).unwrap(), 2);
    assert_eq!(subscriber.missed(), 1);
}

#[test]
fn an_item_that_is_dropped_may_publish_listen_and_leave() {
    /// Publishes the next, listens for a moment, and leaves, when it is dropped.
    struct Loud {
        topic: Topic<Loud>,
        number: u32,
    }

    impl Drop for Loud {
        fn drop(&mut self) {
            drop(self.topic.subscribe(Lag::Block, 1));
            if self.number == 1 {
                let next = Loud { topic: self.topic.clone(), number: 10 };
                assert!(self.topic.try_publish(next).is_ok(), "there is room");
            }
        }
    }

    let topic = Topic::new();
    let loud = |number| Loud { topic: topic.clone(), number };
    let mut newest = topic.subscribe(Lag::DropOldest, 1);
    let mut all = topic.subscribe(Lag::Block, 2);
    now(topic.publish(loud(1)));
    assert_eq!(now(all.next()).unwrap().number, 1);
    // The first is held by nobody else, and dropped for the second.
    now(topic.publish(loud(2)));
    assert_eq!(now(all.next()).unwrap().number, 2);
    assert_eq!(now(all.next()).unwrap().number, 10);
    assert_eq!((now(newest.next()).unwrap().number, newest.missed()), (10, 2));
    // Nothing is full, so nobody waits.
    now(topic.publish(loud(3)));
    assert_eq!(now(all.next()).unwrap().number, 3);
}

#[test]
fn publishing_at_once_gives_the_item_back_where_it_would_wait() {
    let topic = Topic::new();
    let mut subscriber = topic.subscribe(Lag::Block, 1);
    assert_eq!(topic.try_publish(1), Ok(()));
    assert_eq!(topic.try_publish(2), Err(2));
    assert_eq!(*now(subscriber.next()).unwrap(), 1);
    assert_eq!(topic.try_publish(3), Ok(()));
    drop(subscriber);
    assert_eq!(topic.try_publish(4), Ok(()));
}

#[test]
fn publishers_that_wait_all_go_on_and_one_that_is_dropped_publishes_nothing() {
    let topic = Topic::new();
    let (mut one, mut two) = (topic.subscribe(Lag::Block, 1), topic.subscribe(Lag::Block, 1));
    now(topic.publish(0));
    let (first, second) = (Noted::new(), Noted::new());
    let mut publishing = [Box::pin(topic.publish(1)), Box::pin(topic.publish(2))];
    first.begin(publishing[0].as_mut());
    second.begin(publishing[1].as_mut());
    {
        let mut dropped = pin!(topic.publish(3));
        Noted::new().begin(dropped.as_mut());
    }
    now(one.next()).unwrap();
    assert!(!first.take() && !second.take(), "the other has no room");
    now(two.next()).unwrap();
    assert!(first.take() && second.take());
    assert!(first.poll(publishing[0].as_mut()).is_ready());
    second.begin(publishing[1].as_mut());
    drop(two);
    assert_eq!(*now(one.next()).unwrap(), 1);
    assert!(second.take());
    assert!(second.poll(publishing[1].as_mut()).is_ready());
    assert_eq!(*now(one.next()).unwrap(), 2);
    assert_eq!(topic.try_publish(4), Ok(()));
}

#[test]
fn subscribers_come_and_go_in_any_order() {
    let topic = Topic::new();
    let mut subscribers = Vec::new();
    let mut random = support::raw::Random::new(5);
    for round in 0..2_000_u64 {
        match random.number() % 3 {
            0 => subscribers.push((round, topic.subscribe(Lag::Disconnect, usize::MAX))),
            1 if !subscribers.is_empty() => {
                let at = random.number() as usize % subscribers.len();
                let (since, mut subscriber) = subscribers.swap_remove(at);
                for expected in since..round {
                    assert_eq!(*now(subscriber.next()).unwrap(), expected);
                }
                Noted::new().begin(pin!(subscriber.next()).as_mut());
            }
            _ => {}
        }
        now(topic.publish(round));
        assert_eq!(topic.subscribers(), subscribers.len());
    }
}

#[test]
fn a_disconnected_subscriber_holds_nothing() {
    let topic = Topic::new();
    let mut subscriber = topic.subscribe(Lag::Disconnect, 2);
    let item = std::rc::Rc::new(());
    for _ in 0..3 {
        now(topic.publish(std::rc::Rc::clone(&item)));
    }
    assert_eq!((std::rc::Rc::strong_count(&item), topic.subscribers()), (1, 0));
    for _ in 0..2 {
        assert_eq!(now(subscriber.next()).unwrap_err().code(), Code::ResourceExhausted);
    }
}

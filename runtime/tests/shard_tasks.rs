//! Tasks that a shard has beside its calls: they end with it, in order where they want to; and the
//! ids that it makes.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod support;

use std::{
    cell::Cell,
    collections::HashSet,
    future::pending,
    sync::{
        Arc,
        mpsc::{Sender, channel},
    },
    time::Duration,
};

use ringcall::{Ids, IdsError, prelude::*};
use support::{
    event::background,
    station::{ANY_PORT, Number, Porter, StationClient, StationServer, cores, run},
    wait::watched,
};

/// What a task says when it is dropped.
struct Says(Sender<&'static str>, &'static str);

impl Drop for Says {
    fn drop(&mut self) {
        self.0.send(self.1).unwrap();
    }
}

fn porter() -> StationServer<Porter> {
    StationServer::new(Porter { served: Cell::new(0), waiting: Arc::default() })
}

fn serve(shards: usize, make: impl Fn(ShardInfo) + Clone + Send + 'static) -> ServerHandle {
    let server = Server::builder().cores(cores(shards)).serve(ANY_PORT, move |shard| {
        make(shard);
        porter()
    });
    server.unwrap()
}

#[test]
fn tasks_run_beside_the_calls_of_their_shard_and_end_with_it() {
    watched(|| {
        for drains in [false, true] {
            let (say, said) = channel();
            let server = serve(2, move |_| {
                let say = say.clone();
                ringcall::spawn(async move {
                    let _says = Says(say.clone(), "dropped");
                    ringcall::sleep(Duration::from_micros(1)).await;
                    say.send("runs").unwrap();
                    pending().await
                });
            });
            assert_eq!([said.recv().unwrap(), said.recv().unwrap()], ["runs", "runs"]);
            if drains {
                server.drain(Duration::from_secs(60));
            } else {
                server.stop();
            }
            server.join().unwrap();
            assert_eq!(said.iter().collect::<Vec<_>>(), ["dropped", "dropped"]);
        }
    });
}

#[test]
fn a_task_that_is_told_that_the_shard_ends_can_finish_before() {
    watched(|| {
        for drains in [false, true] {
            let (say, said) = channel();
            let server = serve(2, move |_| {
                let say = say.clone();
                ringcall::spawn(async move {
                    let _unfinished = ringcall::draining().await;
                    for _ in 0..20 {
                        ringcall::sleep(Duration::from_millis(1)).await;
                    }
                    say.send("finished").unwrap();
                });
            });
            if drains {
                server.drain(Duration::from_secs(60));
            } else {
                server.stop();
            }
            server.join().unwrap();
            assert_eq!(said.iter().collect::<Vec<_>>(), ["finished", "finished"]);
        }
    });
}

#[test]
fn a_task_is_told_while_calls_still_run_and_they_are_answered() {
    watched(|| {
        let (say, said) = channel();
        let server = serve(1, move |_| {
            let say = say.clone();
            ringcall::spawn(async move {
                drop(ringcall::draining().await);
                say.send("told").unwrap();
                // Told again at once, as everybody who asks later.
                drop(ringcall::draining().await);
                say.send("told again").unwrap();
            });
        });
        run(async {
            let client = StationClient::connect(server.address()).await.unwrap();
            let calling = client.clone();
            let call =
                background(async move { calling.never(&Number { number: 0 }).await.map(drop) });
            client.place(&Number { number: 0 }).await.unwrap();
            server.drain(Duration::from_secs(1));
            assert_eq!([said.recv().unwrap(), said.recv().unwrap()], ["told", "told again"]);
            assert!(!call.is_done());
            assert_eq!(call.await.unwrap_err().code(), Code::Unavailable);
        });
        server.join().unwrap();
    });
}

#[test]
fn a_task_that_does_not_finish_is_waited_for_no_longer_than_the_grace() {
    watched(|| {
        let (say, said) = channel();
        let server = serve(1, move |_| {
            let says = Says(say.clone(), "dropped");
            ringcall::spawn(async move {
                let _says = says;
                let _unfinished = ringcall::draining().await;
                pending().await
            });
        });
        server.drain(Duration::from_millis(1));
        server.join().unwrap();
        assert_eq!(said.recv().unwrap(), "dropped");
    });
}

#[test]
fn what_nobody_waits_with_any_more_holds_no_shard_up() {
    watched(|| {
        let server = serve(1, |_| {
            drop(ringcall::draining());
            ringcall::spawn(async {
                let mut draining = Box::pin(ringcall::draining());
                support::event::Noted::new().begin(draining.as_mut());
                drop(draining);
                pending().await
            });
        });
        // It would be waited for.
        server.drain(Duration::from_secs(3600));
        server.join().unwrap();
    });
}

#[test]
fn ids_are_unique_in_the_process_and_increase_on_each_shard() {
    const IDS: usize = 20_000;
    watched(|| {
        let (send, received) = channel();
        let serve = || {
            let send = send.clone();
            serve(2, move |shard| {
                let (ids, send) = (shard.ids().unwrap(), send.clone());
                ringcall::spawn(async move {
                    let more = shard.ids().unwrap();
                    let mut made = Vec::new();
                    while made.len() < IDS {
                        made.extend([ids.next(), more.next()]);
                        if made.len() % 1000 == 0 {
                            ringcall::yield_now().await;
                        }
                    }
                    send.send((shard.index, made)).unwrap();
                });
            })
        };
        let mut all = HashSet::new();
        // Two at a time; the second pair takes the numbers of the first.
        for _ in 0..2 {
            let servers = [serve(), serve()];
            for _ in 0..4 {
                let (index, made) = received.recv().unwrap();
                assert!(made.is_sorted_by(|before, after| before < after));
                assert!(made.iter().all(|id| Ids::shard_of(*id) == index));
                all.extend(made);
            }
            drop(servers);
        }
        assert_eq!(all.len(), 8 * IDS);
    });
}

#[test]
fn ids_are_those_of_a_shards_own_thread() {
    watched(|| {
        let (send, received) = channel();
        let server = serve(1, move |shard| send.send(shard).unwrap());
        let shard = received.recv().unwrap();
        assert_eq!(shard.ids().map(drop), Err(IdsError::NotHere));
        run(async move { assert_eq!(shard.ids().map(drop), Err(IdsError::NotHere)) });
        drop(server);
    });
}

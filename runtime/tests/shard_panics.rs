//! Panics outside of handlers: where a service is made, in its tasks, in the future that runs.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod support;

use std::{
    cell::Cell, future::pending, net::TcpListener, panic::resume_unwind, rc::Rc, sync::Arc, thread,
    time::Duration,
};

use ringcall::{ServeError, prelude::*};
use support::{
    event::background,
    station::{
        ANY_PORT, Number, Place, Porter, Station, StationClient, StationServer, cores, next, run,
    },
    wait::watched,
};

/// A service that panics where it is made, on one shard of several.
fn panic_where_made(shards: usize, panicking: u16) {
    // A port that others can have afterwards.
    let address = TcpListener::bind(ANY_PORT).unwrap().local_addr().unwrap();
    let server = Server::builder().cores(cores(shards)).serve(address, move |shard| {
        if shard.index == panicking {
            // As `panic!`, and prints nothing.
            resume_unwind(Box::new("on purpose"));
        }
        StationServer::new(Porter { served: Cell::new(0), waiting: Arc::default() })
    });
    match server.map(drop).unwrap_err() {
        ServeError::Panicked { index, message } => {
            assert_eq!(index, panicking);
            assert!(message.contains("on purpose"), "{message}");
        }
        error => panic!("{error}"),
    }
    drop(TcpListener::bind(address).unwrap());
}

#[test]
fn a_service_that_panics_where_it_is_made_is_an_error() {
    watched(|| {
        for (shards, panicking) in [(1, 0), (2, 0), (2, 1), (4, 2)] {
            panic_where_made(shards, panicking);
        }
    });
}

#[test]
fn a_task_that_panics_fails_its_shard_and_the_calls_on_it_alone() {
    struct Fragile {
        panics: Rc<Cell<bool>>,
        porter: Porter,
    }

    impl Station for Fragile {
        async fn place(&self, cx: &Context, request: Request<'_, Number>) -> Result<Place, Status> {
            self.porter.place(cx, request).await
        }

        async fn add(&self, cx: &Context, request: Request<'_, Number>) -> Result<Number, Status> {
            self.porter.add(cx, request).await
        }

        async fn wait(&self, _: &Context, request: Request<'_, Number>) -> Result<Number, Status> {
            self.panics.set(true);
            Ok(next(request))
        }

        async fn never(
            &self,
            cx: &Context,
            request: Request<'_, Number>,
        ) -> Result<Number, Status> {
            self.porter.never(cx, request).await
        }
    }

    watched(|| {
        let server = Server::builder().cores(cores(2)).serve(ANY_PORT, |_| {
            let panics = Rc::<Cell<bool>>::default();
            let theirs = Rc::clone(&panics);
            ringcall::spawn(async move {
                while !theirs.get() {
                    ringcall::sleep(Duration::from_millis(1)).await;
                }
                resume_unwind(Box::new("on purpose"));
            });
            StationServer::new(Fragile {
                panics,
                porter: Porter { served: Cell::new(0), waiting: Arc::default() },
            })
        });
        let server = server.unwrap();
        let failed = run(async {
            // A connection to each shard.
            let mut stations: [Option<StationClient>; 2] = [None, None];
            while stations.iter().any(Option::is_none) {
                let station = StationClient::connect(server.address()).await.unwrap();
                let index = usize::from(station.client().shard().index);
                stations[index] = Some(station);
            }
            let [fails, works] = stations.map(Option::unwrap);
            let failing = fails.clone();
            let call = background(async move {
                let outcome = failing.never(&Number { number: 1 }).await;
                outcome.map(drop).unwrap_err()
            });
            // The task may be faster than the reply.
            if let Err(status) = fails.wait(&Number { number: 1 }).await {
                assert_eq!(status.code(), Code::Unavailable, "{status}");
            }
            let status = call.await;
            assert_eq!(status.code(), Code::Unavailable, "{status}");
            let reply = works.add(&Number { number: 5 }).await.unwrap();
            assert_eq!(reply.number, 6);
            fails.client().shard().index
        });
        server.stop();
        match server.join().unwrap_err() {
            ServeError::Panicked { index, message } => {
                assert_eq!(index, failed);
                assert!(message.contains("on purpose"), "{message}");
            }
            error => panic!("{error}"),
        }
    });
}

#[test]
fn a_panic_of_the_future_that_runs_is_that_of_run() {
    watched(|| {
        for _ in 0..2 {
            let outcome = thread::spawn(|| {
                run(async {
                    ringcall::yield_now().await;
                    resume_unwind(Box::new("on purpose"));
                });
            });
            let panic = outcome.join().unwrap_err();
            assert_eq!(panic.downcast_ref(), Some(&"on purpose"));
            let outcome = thread::spawn(|| {
                run(async {
                    ringcall::spawn(async { resume_unwind(Box::new("on purpose")) });
                    pending::<()>().await;
                });
            });
            let panic = outcome.join().unwrap_err();
            assert_eq!(panic.downcast_ref(), Some(&"on purpose"));
        }
    });
}

//! Classes of methods: which calls begin first, and that the last come to their turn.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod support;

use std::{
    cell::Cell,
    rc::Rc,
    sync::{Arc, Mutex},
    thread,
    time::Duration,
};

use ringcall::{Service, intercept, prelude::*};
use support::{
    event::{Gate, background},
    server::{counters, one_shard},
    station::{Number, run},
    wait::{all, until_async, watched},
};

#[ringcall::service]
trait Office {
    #[rpc(class = "latency")]
    async fn urgent(&self, cx: &Context, request: Request<'_, Number>) -> Result<Number, Status>;
    #[rpc(class = "normal")]
    async fn normal(&self, cx: &Context, request: Request<'_, Number>) -> Result<Number, Status>;
    async fn unclassed(&self, cx: &Context, request: Request<'_, Number>)
    -> Result<Number, Status>;
    #[rpc(class = "bulk")]
    async fn bulk(&self, cx: &Context, request: Request<'_, Number>) -> Result<Number, Status>;
    /// Blocks its shard for so many microseconds.
    #[rpc(class = "bulk")]
    async fn blocks(&self, cx: &Context, request: Request<'_, Number>) -> Result<Number, Status>;
    /// Waits for the gate.
    #[rpc(class = "bulk")]
    async fn bulk_waits(
        &self,
        cx: &Context,
        request: Request<'_, Number>,
    ) -> Result<Number, Status>;
    #[rpc(class = "latency")]
    async fn urgent_waits(
        &self,
        cx: &Context,
        request: Request<'_, Number>,
    ) -> Result<Number, Status>;
    #[rpc(class = "latency")]
    async fn open(&self, cx: &Context, request: Request<'_, Number>) -> Result<Number, Status>;
    #[rpc(class = "bulk", oneway)]
    async fn note(&self, cx: &Context, request: Request<'_, Number>);
}

/// What was done, in its order.
type Log = Arc<Mutex<Vec<&'static str>>>;

struct Clerk {
    log: Log,
    gate: Gate,
}

impl Clerk {
    fn done(&self, what: &'static str) -> Result<Number, Status> {
        self.log.lock().unwrap().push(what);
        Ok(Number { number: 0 })
    }
}

impl Office for Clerk {
    async fn urgent(&self, _: &Context, _: Request<'_, Number>) -> Result<Number, Status> {
        self.done("urgent")
    }

    async fn normal(&self, _: &Context, _: Request<'_, Number>) -> Result<Number, Status> {
        self.done("normal")
    }

    async fn unclassed(&self, _: &Context, _: Request<'_, Number>) -> Result<Number, Status> {
        self.done("unclassed")
    }

    async fn bulk(&self, _: &Context, _: Request<'_, Number>) -> Result<Number, Status> {
        self.done("bulk")
    }

    async fn blocks(&self, _: &Context, request: Request<'_, Number>) -> Result<Number, Status> {
        thread::sleep(Duration::from_micros(request.number.into()));
        self.done("blocks")
    }

    async fn bulk_waits(&self, _: &Context, _: Request<'_, Number>) -> Result<Number, Status> {
        self.done("bulk waits")?;
        self.gate.wait().await;
        self.done("bulk goes on")
    }

    async fn urgent_waits(&self, _: &Context, _: Request<'_, Number>) -> Result<Number, Status> {
        self.done("urgent waits")?;
        self.gate.wait().await;
        self.done("urgent goes on")
    }

    async fn open(&self, _: &Context, _: Request<'_, Number>) -> Result<Number, Status> {
        self.gate.open();
        self.done("open")
    }

    async fn note(&self, _: &Context, _: Request<'_, Number>) {
        self.done("note").unwrap();
    }
}

fn clerk(log: &Log) -> OfficeServer<Clerk> {
    OfficeServer::new(Clerk { log: Arc::clone(log), gate: Gate::default() })
}

fn serve_with<S: Service>(
    make: impl Fn(&Log) -> S + Clone + Send + 'static,
) -> (ServerHandle, Log) {
    let log = Log::default();
    let theirs = Arc::clone(&log);
    let server = one_shard().serve("127.0.0.1:0", move |_| make(&theirs));
    (server.unwrap(), log)
}

fn serve() -> (ServerHandle, Log) {
    serve_with(clerk)
}

async fn connect(server: &ServerHandle) -> OfficeClient {
    OfficeClient::connect(server.address()).await.unwrap()
}

const NUMBER: &Number = &Number { number: 0 };

/// Calls that are made in one turn are sent, and arrive, together.
fn calls_of_a_turn_begin_by_class<S: Service>(make: impl Fn(&Log) -> S + Clone + Send + 'static) {
    watched(move || {
        let (server, log) = serve_with(make);
        run(async {
            let client = connect(&server).await;
            for _ in 0..100 {
                let (bulk, normal) = (client.bulk(NUMBER), client.normal(NUMBER));
                let (unclassed, urgent) = (client.unclassed(NUMBER), client.urgent(NUMBER));
                let calls: [std::pin::Pin<Box<dyn Future<Output = bool>>>; 6] = [
                    Box::pin(async { bulk.await.is_ok() }),
                    Box::pin(async { normal.await.is_ok() }),
                    Box::pin(async { urgent.await.is_ok() }),
                    Box::pin(async { unclassed.await.is_ok() }),
                    Box::pin(async { client.bulk(NUMBER).await.is_ok() }),
                    Box::pin(async { client.urgent(NUMBER).await.is_ok() }),
                ];
                assert!(all(calls).await.into_iter().all(|is_ok| is_ok));
                let begun = std::mem::take(&mut *log.lock().unwrap());
                assert_eq!(begun, ["urgent", "urgent", "normal", "unclassed", "bulk", "bulk"]);
            }
        });
    });
}

#[test]
fn calls_of_one_turn_begin_in_the_order_of_their_classes() {
    calls_of_a_turn_begin_by_class(clerk);
}

#[test]
fn an_intercepted_service_has_its_classes() {
    calls_of_a_turn_begin_by_class(|log| intercept((), clerk(log)));
}

#[test]
fn bulk_is_done_though_urgent_calls_never_cease() {
    watched(|| {
        let (server, log) = serve();
        run(async {
            let client = connect(&server).await;
            let is_over = Rc::<Cell<bool>>::default();
            let urgent: Vec<_> = (0..16)
                .map(|_| {
                    let (client, is_over) = (client.clone(), Rc::clone(&is_over));
                    background(async move {
                        while !is_over.get() {
                            client.urgent(NUMBER).await.unwrap();
                        }
                    })
                })
                .collect();
            for outcome in all((0..1000).map(|_| client.bulk(NUMBER))).await {
                outcome.unwrap();
            }
            is_over.set(true);
            all(urgent).await;
        });
        assert_eq!(log.lock().unwrap().iter().filter(|done| **done == "bulk").count(), 1000);
    });
}

#[test]
fn a_bulk_handler_that_waited_goes_on_after_a_latency_handler_that_did() {
    watched(|| {
        let (server, log) = serve();
        run(async {
            let client = connect(&server).await;
            for _ in 0..20 {
                let bulk = {
                    let client = client.clone();
                    background(async move { client.bulk_waits(NUMBER).await.map(drop) })
                };
                until_async("bulk waits", || log.lock().unwrap().len() == 1).await;
                let urgent = {
                    let client = client.clone();
                    background(async move { client.urgent_waits(NUMBER).await.map(drop) })
                };
                until_async("urgent waits", || log.lock().unwrap().len() == 2).await;
                client.open(NUMBER).await.unwrap();
                bulk.await.unwrap();
                urgent.await.unwrap();
                let done = std::mem::take(&mut *log.lock().unwrap());
                assert_eq!(
                    done,
                    ["bulk waits", "urgent waits", "open", "urgent goes on", "bulk goes on"]
                );
            }
        });
    });
}

#[test]
fn bulk_calls_that_nobody_waits_for_any_more_do_not_begin() {
    watched(|| {
        let (server, log) = serve();
        run(async {
            let client = connect(&server).await;
            // The last begins after 20 ms, or not at all.
            let number = Number { number: 1000 };
            let calls = (0..20).map(|_| client.blocks(&number).timeout(Duration::from_millis(5)));
            let outcomes = all(calls).await;
            let late = outcomes.iter().filter_map(|outcome| outcome.as_ref().err());
            assert!(late.clone().all(|status| status.code() == Code::DeadlineExceeded));
            assert!(late.count() > 0);
            // When this is answered, all before it had their turn.
            client.bulk(NUMBER).await.unwrap();
        });
        let begun = log.lock().unwrap().iter().filter(|done| **done == "blocks").count();
        assert!(begun < 20);
        assert_eq!(counters(&server).handlers_stopped, 20 - begun as u64);
    });
}

#[test]
fn a_bulk_handler_that_waits_is_dropped_when_its_caller_gives_up() {
    watched(|| {
        let (server, log) = serve();
        run(async {
            let client = connect(&server).await;
            for round in 1..=20 {
                let call = client.bulk_waits(NUMBER).timeout(Duration::from_millis(5));
                assert_eq!(call.await.map(drop).unwrap_err().code(), Code::DeadlineExceeded);
                until_async("it is dropped", || counters(&server).handlers_stopped == round).await;
            }
        });
        assert!(log.lock().unwrap().iter().all(|done| *done == "bulk waits"));
    });
}

#[test]
fn of_too_many_bulk_calls_each_is_answered_or_refused_and_none_that_was_refused_ran() {
    watched(|| {
        let (server, log) = serve();
        let answered = run(async {
            let (one, other) = (connect(&server).await, connect(&server).await);
            let number = Number { number: 1 };
            let calls = (0..4000).flat_map(|_| [one.blocks(&number), other.blocks(&number)]);
            let outcomes = all(calls).await;
            let refused = outcomes.iter().filter_map(|outcome| outcome.as_ref().err());
            assert!(refused.clone().all(|status| {
                status.code() == Code::ResourceExhausted && status.is_not_executed()
            }));
            outcomes.len() - refused.count()
        });
        assert_eq!(log.lock().unwrap().len(), answered);
    });
}

#[test]
fn bulk_calls_that_wait_when_their_server_drains_are_answered() {
    watched(|| {
        let (server, log) = serve();
        run(async {
            let client = connect(&server).await;
            let number = Number { number: 100 };
            for _ in 0..10 {
                client.note(NUMBER).await.unwrap();
            }
            let calls = {
                let client = client.clone();
                background(async move {
                    let outcomes = all((0..100).map(|_| client.blocks(&number))).await;
                    outcomes.into_iter().filter(Result::is_ok).count()
                })
            };
            until_async("the first has begun", || log.lock().unwrap().contains(&"blocks")).await;
            server.drain(Duration::from_secs(60));
            assert_eq!(calls.await, 100);
        });
        server.join().unwrap();
        assert_eq!(log.lock().unwrap().len(), 110);
    });
}

#[test]
fn a_server_that_stops_cuts_the_bulk_calls_that_wait() {
    watched(|| {
        let (server, log) = serve();
        run(async {
            let client = connect(&server).await;
            let number = Number { number: 2000 };
            let calls = {
                let client = client.clone();
                background(async move {
                    all((0..1000).map(|_| async { client.blocks(&number).await.map(drop) })).await
                })
            };
            let waits = {
                let client = client.clone();
                background(async move { client.bulk_waits(NUMBER).await.map(drop) })
            };
            until_async("the first has begun", || log.lock().unwrap().contains(&"blocks")).await;
            server.stop();
            let outcomes = calls.await;
            let cut = outcomes.iter().filter_map(|outcome| outcome.as_ref().err());
            assert!(cut.clone().all(|status| status.code() == Code::Unavailable));
            assert!(cut.count() > 0);
            waits.await.unwrap_err();
        });
        server.join().unwrap();
    });
}

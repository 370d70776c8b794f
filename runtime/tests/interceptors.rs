//! Interceptors: what sees every call, at both ends, before and after.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use std::{
    cell::RefCell,
    future::pending,
    rc::Rc,
    sync::{Arc, Mutex},
    time::Duration,
};

use ringcall::{
    ClientConfig, Code, Context, Intercept, InterceptCall, Key, Metadata, MethodInfo, Outcome,
    Request, RunConfig, Server, Service, Sink, Status, intercept,
};
use support::{
    station::{ANY_PORT, cores},
    wait::{until_async, watched},
};

#[ringcall::message]
struct Number {
    number: u64,
}

#[ringcall::service]
trait Counter {
    async fn next(&self, cx: &Context, request: Request<'_, Number>) -> Result<Number, Status>;

    async fn stay(&self, cx: &Context, request: Request<'_, Number>) -> Result<Number, Status>;

    #[rpc(oneway)]
    async fn note(&self, cx: &Context, request: Request<'_, Number>);

    async fn count(
        &self,
        cx: &Context,
        request: Request<'_, Number>,
        numbers: Sink<'_, Number>,
    ) -> Result<Number, Status>;
}

struct One;

impl Counter for One {
    async fn next(&self, _: &Context, request: Request<'_, Number>) -> Result<Number, Status> {
        match request.number.to_native() {
            13 => Err(Status::new(Code::OutOfRange, "thirteen")),
            number => Ok(Number { number: number + 1 }),
        }
    }

    async fn stay(&self, _: &Context, _: Request<'_, Number>) -> Result<Number, Status> {
        pending().await
    }

    async fn note(&self, _: &Context, _: Request<'_, Number>) {}

    async fn count(
        &self,
        _: &Context,
        request: Request<'_, Number>,
        numbers: Sink<'_, Number>,
    ) -> Result<Number, Status> {
        let number = request.number.to_native();
        for number in 0..number {
            numbers.send(&Number { number }).await?;
        }
        Ok(Number { number })
    }
}

type Notes = Arc<Mutex<Vec<String>>>;

/// Notes what it sees at a server, under a name; refuses what has no token that it wants.
struct Watcher {
    name: &'static str,
    notes: Notes,
    wants: Option<&'static str>,
}

impl Watcher {
    fn note(&self, what: impl AsRef<str>) {
        self.notes.lock().unwrap().push(format!("{} {}", self.name, what.as_ref()));
    }
}

impl Intercept for Watcher {
    type State = u64;

    fn before(&self, method: &'static MethodInfo, cx: &Context) -> Result<u64, Status> {
        let token = cx.metadata().get_str(Key::AUTHORIZATION);
        self.note(format!("before {} {token:?}", method.name));
        match self.wants {
            Some(wanted) if token != Some(wanted) => {
                Err(Status::new(Code::Unauthenticated, "no token"))
            }
            _ => Ok(7),
        }
    }

    fn after(&self, state: u64, method: &'static MethodInfo, _: &Context, outcome: Outcome) {
        assert_eq!(state, 7);
        self.note(format!("after {} {outcome:?}", method.name));
    }
}

/// The same at a client; sends a token.
struct Teller {
    name: &'static str,
    notes: Rc<RefCell<Vec<String>>>,
    token: Option<&'static str>,
    refuses: bool,
}

impl InterceptCall for Teller {
    fn before(&self, method: &'static MethodInfo, metadata: &mut Metadata) -> Result<(), Status> {
        self.notes.borrow_mut().push(format!("{} before {}", self.name, method.name));
        if let Some(token) = self.token {
            metadata.insert(Key::AUTHORIZATION, token).unwrap();
        }
        if self.refuses {
            Err(Status::new(Code::PermissionDenied, "not from here"))
        } else {
            Ok(())
        }
    }

    fn after(&self, method: &'static MethodInfo, outcome: Result<(), &Status>, _: Duration) {
        let outcome = outcome.map_err(|status| status.code());
        self.notes.borrow_mut().push(format!("{} after {} {outcome:?}", self.name, method.name));
    }
}

fn served_by<S: Service>(
    service: impl Fn(Notes) -> S + Clone + Send + 'static,
    test: impl AsyncFnOnce(std::net::SocketAddr, Notes) + Send + 'static,
) {
    watched(move || {
        let notes = Notes::default();
        let server = Server::builder().cores(cores(1));
        let noted = Arc::clone(&notes);
        let server = server.serve(ANY_PORT, move |_| service(Arc::clone(&noted))).unwrap();
        RunConfig::new().run(test(server.address(), notes)).unwrap();
    });
}

fn two_watchers(notes: Notes) -> impl Service {
    let outer = Watcher { name: "outer", notes: Arc::clone(&notes), wants: None };
    let inner = Watcher { name: "inner", notes, wants: Some("sesame") };
    intercept((outer, inner), CounterServer::new(One))
}

fn teller(name: &'static str, token: Option<&'static str>) -> (Teller, Rc<RefCell<Vec<String>>>) {
    let notes = Rc::default();
    (Teller { name, notes: Rc::clone(&notes), token, refuses: false }, notes)
}

#[test]
fn interceptors_of_a_server_are_asked_in_order_and_told_in_reverse() {
    served_by(two_watchers, async |address, notes| {
        let (teller, _) = teller("client", Some("sesame"));
        let config = ClientConfig::new().intercept(teller);
        let counter = CounterClient::with(&config, address).await.unwrap();
        assert_eq!(counter.next(&Number { number: 1 }).await.unwrap().number, 2);
        let thirteen = counter.next(&Number { number: 13 }).await.err().unwrap();
        assert_eq!(thirteen.code(), Code::OutOfRange);
        let notes = notes.lock().unwrap();
        let before = "before Counter.next Some(\"sesame\")";
        let expected = [
            format!("outer {before}"),
            format!("inner {before}"),
            "inner after Counter.next Replied".to_owned(),
            "outer after Counter.next Replied".to_owned(),
            format!("outer {before}"),
            format!("inner {before}"),
            "inner after Counter.next Failed(OutOfRange)".to_owned(),
            "outer after Counter.next Failed(OutOfRange)".to_owned(),
        ];
        assert_eq!(*notes, expected);
    });
}

#[test]
fn a_call_that_an_interceptor_refuses_has_not_been_executed() {
    served_by(two_watchers, async |address, notes| {
        let counter = CounterClient::connect(address).await.unwrap();
        let refused = counter.next(&Number { number: 1 }).await.err().unwrap();
        let expected = Status::new(Code::Unauthenticated, "no token").not_executed();
        assert_eq!(refused, expected);
        let notes = notes.lock().unwrap();
        let expected = [
            "outer before Counter.next None",
            "inner before Counter.next None",
            "outer after Counter.next Failed(Unauthenticated)",
        ];
        assert_eq!(*notes, expected);
    });
}

#[test]
fn an_interceptor_is_told_of_a_handler_that_was_dropped() {
    let watch = |notes| {
        let watcher = Watcher { name: "only", notes, wants: None };
        intercept(watcher, CounterServer::new(One))
    };
    served_by(watch, async |address, notes| {
        let counter = CounterClient::connect(address).await.unwrap();
        let late = counter.stay(&Number { number: 1 }).timeout(Duration::from_millis(20)).await;
        assert_eq!(late.err().unwrap().code(), Code::DeadlineExceeded);
        let stopped = "only after Counter.stay Unanswered";
        until_async("it is told", || notes.lock().unwrap().iter().any(|note| note == stopped))
            .await;
        // One-way calls end when their handlers have.
        counter.note(&Number { number: 1 }).await.unwrap();
        let noted = "only after Counter.note Replied";
        until_async("it is told", || notes.lock().unwrap().iter().any(|note| note == noted)).await;
    });
}

#[test]
fn interceptors_of_a_client_are_told_of_every_kind_of_call_once() {
    let plain = |_| CounterServer::new(One);
    served_by(plain, async |address, _| {
        let (first, notes) = teller("first", None);
        let second =
            Teller { name: "second", notes: Rc::clone(&notes), token: None, refuses: false };
        let config = ClientConfig::new().intercept((first, second));
        let counter = CounterClient::with(&config, address).await.unwrap();
        let told = |what: &str| {
            let told = std::mem::take(&mut *notes.borrow_mut());
            let mut expected = Vec::new();
            for name in ["first", "second"] {
                expected.push(format!("{name} before Counter.{}", what.split(' ').next().unwrap()));
            }
            for name in ["second", "first"] {
                expected.push(format!("{name} after Counter.{what}"));
            }
            assert_eq!(told, expected);
        };
        counter.next(&Number { number: 1 }).await.unwrap();
        told("next Ok(())");
        counter.next(&Number { number: 13 }).await.err().unwrap();
        told("next Err(OutOfRange)");
        counter.note(&Number { number: 1 }).await.unwrap();
        told("note Ok(())");
        let numbers = counter.count(&Number { number: 3 }).await.unwrap();
        numbers.finish().await.unwrap();
        told("count Ok(())");
        drop(counter.count(&Number { number: 3 }).await.unwrap());
        told("count Err(Cancelled)");
        counter.stay(&Number { number: 1 }).timeout(Duration::from_millis(5)).await.err().unwrap();
        told("stay Err(DeadlineExceeded)");
    });
}

#[test]
fn a_call_that_a_clients_interceptor_refuses_is_not_sent() {
    let plain = |_| CounterServer::new(One);
    served_by(plain, async |address, _| {
        let (mut teller, notes) = teller("only", None);
        teller.refuses = true;
        let config = ClientConfig::new().intercept(teller);
        let counter = CounterClient::with(&config, address).await.unwrap();
        let made = ringcall::counters().unwrap().calls_made;
        let expected = Status::new(Code::PermissionDenied, "not from here").not_executed();
        assert_eq!(counter.next(&Number { number: 1 }).await.err().unwrap(), expected);
        assert_eq!(counter.note(&Number { number: 1 }).await.err().unwrap(), expected);
        assert_eq!(ringcall::counters().unwrap().calls_made, made);
        assert_eq!(*notes.borrow(), ["only before Counter.next", "only before Counter.note"]);
    });
}

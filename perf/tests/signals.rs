//! `serve` when it is told to end, or ended: under load, twice, by SIGKILL, and with a successor on
//! its port.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use std::{
    cell::{Cell, RefCell},
    io::{BufRead, BufReader},
    net::TcpStream,
    os::unix::process::ExitStatusExt,
    process::{Child, Command, ExitStatus, Stdio},
    rc::Rc,
    thread,
    time::{Duration, Instant},
};

use ringcall::{Code, Status, prelude::*};
use rustix::process::{Pid, Signal, kill_process};

const CONNECTIONS: usize = 8;
const DEPTH: usize = 8;

/// Time after which a test hangs, rather than being slow.
const PATIENCE: Duration = Duration::from_secs(60);

#[ringcall::message]
struct Payload<'a> {
    bytes: &'a [u8],
}

/// What `serve` serves.
#[ringcall::service]
#[allow(dead_code)]
trait Echo {
    async fn echo<'a>(
        &self,
        cx: &Context,
        request: Request<'a, Payload<'a>>,
    ) -> Result<Payload<'a>, Status>;
}

/// A `serve` that is running.
struct Serve {
    child: Child,
    address: String,
}

impl Serve {
    fn start(address: &str) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_ringcall-perf"))
            .args(["serve", "--address", address])
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut address = String::new();
        BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut address).unwrap();
        assert!(!address.is_empty(), "it does not serve");
        Self { child, address: address.trim().to_owned() }
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_raw(self.child.id().cast_signed()).unwrap(), signal).unwrap();
    }

    /// Waits for its end.
    fn end(&mut self) -> ExitStatus {
        let begin = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(begin.elapsed() < PATIENCE, "it does not end");
            thread::sleep(Duration::from_millis(1));
        }
    }
}

impl Drop for Serve {
    fn drop(&mut self) {
        // Only where a test has failed is it still there.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What became of calls.
#[derive(Default)]
struct Tally {
    answered: Cell<u64>,
    /// Connections that were opened.
    connections: Cell<u64>,
    /// Calls that were not executed, and can be made elsewhere.
    refused: Cell<u64>,
    /// Calls of which nobody knows.
    lost: RefCell<Vec<Status>>,
    is_over: Cell<bool>,
    /// Connections that are over.
    ended: Cell<usize>,
}

/// Makes one call after the other until it fails, each with bytes of its own.
async fn call(echo: &EchoClient, number: u64, tally: &Tally) {
    for call in 0.. {
        if tally.is_over.get() {
            return;
        }
        let bytes = [number, call].map(u64::to_le_bytes).concat();
        match echo.echo(&Payload { bytes: &bytes }).await {
            Ok(reply) => {
                assert_eq!(&*reply.bytes, bytes, "the reply to another call");
                tally.answered.set(tally.answered.get() + 1);
            }
            Err(status) if status.is_not_executed() => {
                assert_eq!(status.code(), Code::Unavailable);
                return tally.refused.set(tally.refused.get() + 1);
            }
            Err(status) => return tally.lost.borrow_mut().push(status),
        }
    }
}

/// Calls over a connection, and over another when that takes no more, if it is to come again.
fn connection(address: &str, number: usize, comes_again: bool, tally: &Rc<Tally>) {
    let (address, tally) = (address.to_owned(), Rc::clone(tally));
    ringcall::spawn(async move {
        loop {
            match EchoClient::connect(&*address).await {
                Ok(echo) => {
                    tally.connections.set(tally.connections.get() + 1);
                    let echo = Rc::new(echo);
                    let left = Rc::new(Cell::new(DEPTH));
                    for caller in 0..DEPTH {
                        let (echo, tally, left) =
                            (Rc::clone(&echo), Rc::clone(&tally), Rc::clone(&left));
                        ringcall::spawn(async move {
                            call(&echo, (number * DEPTH + caller) as u64, &tally).await;
                            left.set(left.get() - 1);
                        });
                    }
                    until("every caller ends", || left.get() == 0).await;
                }
                // One that waits to be accepted is reset when its listener closes.
                Err(_) => ringcall::sleep(Duration::from_millis(1)).await,
            }
            if !comes_again || tally.is_over.get() {
                return tally.ended.set(tally.ended.get() + 1);
            }
        }
    });
}

async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let begin = Instant::now();
    while !holds() {
        assert!(begin.elapsed() < PATIENCE, "not yet: {what}");
        ringcall::sleep(Duration::from_millis(1)).await;
    }
}

/// Loads a server from this thread.
fn load(address: &str, comes_again: bool, then: impl AsyncFnOnce(&Tally)) -> Rc<Tally> {
    ringcall::run(async {
        let tally = Rc::<Tally>::default();
        for number in 0..CONNECTIONS {
            connection(address, number, comes_again, &tally);
        }
        until("it is under load", || tally.answered.get() > 5_000).await;
        then(&tally).await;
        until("every connection ends", || tally.ended.get() == CONNECTIONS).await;
        tally
    })
    .unwrap()
}

#[test]
fn a_server_that_is_terminated_under_load_loses_no_call_and_ends_well() {
    for signal in [Signal::TERM, Signal::INT] {
        let mut serve = Serve::start("127.0.0.1:0");
        let address = serve.address.clone();
        let tally = load(&address, false, async |_| serve.signal(signal));
        assert_eq!(*tally.lost.borrow(), []);
        // Every caller stopped, as each was refused at last.
        assert_eq!(tally.refused.get(), (CONNECTIONS * DEPTH) as u64);
        assert_eq!(serve.end().code(), Some(0));
    }
}

#[test]
fn a_second_signal_ends_a_server_that_drains() {
    let mut serve = Serve::start("127.0.0.1:0");
    let address = serve.address.clone();
    let run = ringcall::run(async move {
        let echo = EchoClient::connect(&*address).await.unwrap();
        serve.signal(Signal::TERM);
        // This thread is held up, so the server does not hear that the client knows: it drains, and
        // listens no more.
        let begin = Instant::now();
        while TcpStream::connect(&address).is_ok() {
            assert!(begin.elapsed() < PATIENCE, "it still listens");
            thread::sleep(Duration::from_millis(1));
        }
        assert_eq!(serve.child.try_wait().unwrap(), None, "it drains");
        serve.signal(Signal::TERM);
        assert_eq!(serve.end().signal(), Some(Signal::TERM.as_raw()));
        drop(echo);
    });
    run.unwrap();
}

#[test]
fn a_server_that_was_killed_starts_again_on_its_port() {
    let mut serve = Serve::start("127.0.0.1:0");
    let address = serve.address.clone();
    let tally = load(&address, true, async |tally| {
        serve.signal(Signal::KILL);
        assert_eq!(serve.end().signal(), Some(Signal::KILL.as_raw()));
        serve = Serve::start(&address);
        let answered = tally.answered.get();
        until("it answers again", || tally.answered.get() > answered + 5_000).await;
        tally.is_over.set(true);
    });
    // Calls in flight when it was killed failed, once each at most, and nobody hangs.
    let lost = tally.lost.borrow();
    assert!(lost.len() <= CONNECTIONS * DEPTH, "{}", lost.len());
    assert!(lost.iter().all(|status| status.code() == Code::Unavailable), "{lost:?}");
    serve.signal(Signal::TERM);
    assert_eq!(serve.end().code(), Some(0));
}

#[test]
fn two_servers_on_one_port_follow_each_other_and_no_call_is_lost() {
    let mut first = Serve::start("127.0.0.1:0");
    let address = first.address.clone();
    let tally = load(&address, true, async |tally| {
        for _ in 0..3 {
            let successor = Serve::start(&address);
            let (answered, connections) = (tally.answered.get(), tally.connections.get());
            first.signal(Signal::TERM);
            // Those of the first come again; the executor must run meanwhile.
            until("the first ends", || first.child.try_wait().unwrap().is_some()).await;
            assert_eq!(first.end().code(), Some(0));
            until("the successor answers", || {
                tally.answered.get() > answered + 5_000 && tally.connections.get() > connections
            })
            .await;
            first = successor;
        }
        tally.is_over.set(true);
    });
    assert_eq!(*tally.lost.borrow(), []);
    assert!(tally.refused.get() > 0, "no server was ended under load");
    first.signal(Signal::TERM);
    assert_eq!(first.end().code(), Some(0));
}

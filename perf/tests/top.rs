//! `top`: what it shows of a server, and what it says of what is none.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpListener},
    process::{Command, Output, Stdio},
    thread,
};

use ringcall::{Server, ServerBuilder, ServerHandle, prelude::*};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

#[ringcall::message]
pub struct Unit;

#[ringcall::service]
pub trait Bell {
    async fn ring(&self, cx: &Context, request: Request<'_, Unit>) -> Result<Unit, Status>;
}

struct Brass;

impl Bell for Brass {
    async fn ring(&self, _: &Context, _: Request<'_, Unit>) -> Result<Unit, Status> {
        Ok(Unit)
    }
}

fn serve(builder: ServerBuilder) -> ServerHandle {
    let server = builder.serve("127.0.0.1:0", |_| BellServer::new(Brass)).unwrap();
    let address = server.address();
    ringcall::run(async move {
        let bell = BellClient::connect(address).await.unwrap();
        for _ in 0..10 {
            assert!(bell.ring(&Unit).await.is_ok());
        }
    })
    .unwrap();
    server
}

fn top(address: SocketAddr, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ringcall-perf"));
    command.arg("top").arg(address.to_string()).args(args);
    command
}

fn once(address: SocketAddr) -> Output {
    top(address, &["--once"]).output().unwrap()
}

fn error_at(address: SocketAddr) -> String {
    let output = once(address);
    assert!(!output.status.success());
    assert!(output.stdout.is_empty());
    String::from_utf8(output.stderr).unwrap()
}

/// Answers one connection so.
fn answering(answer: &'static [u8]) -> (SocketAddr, thread::JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let thread = thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        assert!(stream.read(&mut [0; 4096]).unwrap() > 0);
        stream.write_all(answer).unwrap();
    });
    (address, thread)
}

#[test]
fn it_shows_shards_and_methods() {
    let server = serve(Server::builder());
    let output = once(server.address());
    assert!(output.status.success());
    let text = String::from_utf8(output.stdout).unwrap();
    let line = text.lines().find(|line| line.starts_with("Bell.ring")).unwrap();
    assert_eq!(line.split_whitespace().nth(2), Some("10"), "{text}");
    assert!(text.contains(&server.address().to_string()));
    assert!(!text.contains('\x1b'));
}

#[test]
fn it_prints_the_data_for_scripts() {
    let server = serve(Server::builder());
    let output = top(server.address(), &["--json"]).output().unwrap();
    let live: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(live["methods"][0]["calls"], 10);
}

#[test]
fn it_goes_on_until_it_is_interrupted() {
    let server = serve(Server::builder());
    let mut child =
        top(server.address(), &["--interval", "1ms"]).stdout(Stdio::piped()).spawn().unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut shown = lines.map_while(Result::ok).filter(|line| line.starts_with("Bell.ring"));
    assert!(shown.by_ref().take(3).count() == 3);
    kill_process(Pid::from_child(&child), Signal::INT).unwrap();
    shown.for_each(drop);
    assert!(child.wait().unwrap().success());
}

#[test]
fn a_server_that_tells_nothing_there_is_named_as_such() {
    let server = serve(Server::builder().metrics_off());
    let error = error_at(server.address());
    assert!(error.contains("metrics_at") && error.contains("metrics_off"), "{error}");

    let server = serve(Server::builder().metrics_at("127.0.0.1:0".parse().unwrap()));
    assert!(error_at(server.address()).contains("metrics_at"));
    assert!(once(server.metrics_address().unwrap()).status.success());
}

#[test]
fn what_is_no_ringcall_server_is_named_as_such() {
    let gone = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    assert!(error_at(gone).contains("is a server running there?"));
    for (answer, text) in [
        (&b""[..], "no ringcall server"),
        (b"220 mail.example ESMTP\r\n", "no ringcall server"),
        (b"HTTP/1.1 200 OK\r\n\r\n<html>", "no ringcall server"),
        (b"HTTP/1.1 404 Not\x1b Found\r\n\r\n", "no ringcall server"),
        (b"HTTP/1.1 503 Busy\r\n\r\n", "answers `503 Busy`"),
        (b"HTTP/1.1 200 OK\r\n\r\n{\"ringcall\":\"9.0.0\"}", "does not understand"),
    ] {
        let (address, thread) = answering(answer);
        let error = error_at(address);
        assert!(error.contains(text), "{error}");
        assert!(!error.contains('\x1b'));
        thread.join().unwrap();
    }
}

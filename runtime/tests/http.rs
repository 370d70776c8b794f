//! What a server tells of itself by HTTP, on its own port or another, and what it does not let
//! itself be disturbed by.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod support;

use std::{
    io::{Read, Write},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    thread,
    time::Duration,
};

use ringcall::{Code, ServeError, ServerHandle, ShardConfig, prelude::*};
use serde_json::Value;
use support::{
    raw::{GOAWAY, Peer},
    server::one_shard,
    station::run,
    wait::{until, watched},
};

#[ringcall::message]
pub struct Number {
    pub number: u64,
}

#[ringcall::service(name = "Ledger")]
pub trait Ledger {
    async fn add(&self, cx: &Context, request: Request<'_, Number>) -> Result<Number, Status>;
    async fn fail(&self, cx: &Context, request: Request<'_, Number>) -> Result<Number, Status>;
}

struct Book;

impl Ledger for Book {
    async fn add(&self, _: &Context, request: Request<'_, Number>) -> Result<Number, Status> {
        Ok(Number { number: u64::from(request.number) + 1 })
    }

    async fn fail(&self, _: &Context, _: Request<'_, Number>) -> Result<Number, Status> {
        Err(Status::new(Code::NotFound, "as asked for"))
    }
}

fn ledger() -> ServerHandle {
    one_shard().serve("127.0.0.1:0", |_| LedgerServer::new(Book)).unwrap()
}

/// Makes so many calls of `add`, and one of `fail`.
fn call(server: &ServerHandle, calls: u64) {
    let address = server.address();
    run(async move {
        let ledger = LedgerClient::connect(address).await.unwrap();
        for number in 0..calls {
            assert_eq!(ledger.add(&Number { number }).await.unwrap().number, number + 1);
        }
        assert!(ledger.fail(&Number { number: 0 }).await.is_err());
    });
}

/// The peer is told as one that speaks ringcall badly: by a HELLO and a GOAWAY.
fn assert_no_http(address: SocketAddr, bytes: &[u8]) {
    let mut peer = Peer::connect(address);
    peer.send_bytes(bytes);
    peer.expect_hello();
    assert_eq!(peer.frame().kind, GOAWAY);
}

fn connect(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).unwrap();
    stream.set_nodelay(true).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    stream
}

/// All that comes until the end.
fn read(mut stream: TcpStream) -> String {
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    String::from_utf8(answer).unwrap()
}

fn ask(address: SocketAddr, request: &str) -> String {
    let mut stream = connect(address);
    stream.write_all(request.as_bytes()).unwrap();
    read(stream)
}

/// Status line and body.
fn get(address: SocketAddr, path: &str) -> (String, String) {
    let answer = ask(address, &format!("GET {path} HTTP/1.1\r\nhost: {address}\r\n\r\n"));
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    let len = head.lines().find_map(|line| line.strip_prefix("content-length: ")).unwrap();
    assert_eq!(len.parse::<usize>().unwrap(), body.len());
    (head.lines().next().unwrap().to_owned(), body.to_owned())
}

const OK: &str = "HTTP/1.1 200 OK";

#[test]
fn prometheus_reads_what_was_called() {
    watched(|| {
        let server = ledger();
        call(&server, 20);
        let (status, text) = get(server.address(), "/metrics");
        assert_eq!(status, OK);
        for line in [
            "# TYPE ringcall_method_calls_total counter",
            "ringcall_method_calls_total{method=\"Ledger.add\",code=\"OK\"} 20",
            "ringcall_method_calls_total{method=\"Ledger.fail\",code=\"NOT_FOUND\"} 1",
            "ringcall_call_queue_seconds_count{shard=\"0\"} 21",
            "ringcall_method_service_seconds_bucket{method=\"Ledger.add\",le=\"+Inf\"} 20",
            "ringcall_connections_http_total{shard=\"0\"} 1",
            "ringcall_calls_inline_total{shard=\"0\"} 21",
        ] {
            assert!(text.lines().any(|known| known == line), "no line {line}");
        }
    });
}

#[test]
fn the_live_page_is_small_and_needs_nothing_from_elsewhere() {
    watched(|| {
        let server = ledger();
        let (status, page) = get(server.address(), "/");
        assert_eq!(status, OK);
        assert!(page.len() < 100_000, "{} bytes", page.len());
        assert!(page.starts_with("<!doctype html>"));
        assert!(page.contains("live.json"));
        for foreign in ["http://", "https://", "src=", "@import", "url("] {
            assert!(!page.contains(foreign), "it has {foreign}");
        }
    });
}

#[test]
fn the_data_of_the_live_page_has_shards_methods_and_slow_calls() {
    watched(|| {
        let config = ShardConfig::new().slow_call(Duration::ZERO);
        let server = one_shard().shard(config);
        let server = server.serve("127.0.0.1:0", |_| LedgerServer::new(Book)).unwrap();
        call(&server, 20);
        let (status, text) = get(server.address(), "/live.json");
        assert_eq!(status, OK);
        let live: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(live["address"], server.address().to_string());
        assert_eq!(live["shards"].as_array().unwrap().len(), 1);
        assert_eq!(live["shards"][0]["index"], 0);
        assert_eq!(live["methods"][0]["name"], "Ledger.add");
        assert_eq!(live["methods"][0]["calls"], 20);
        assert_eq!(live["methods"][1]["outcomes"]["NOT_FOUND"], 1);
        assert_eq!(live["counters"]["calls_inline"], 21);
        let slow = live["slow"].as_array().unwrap();
        assert!(!slow.is_empty());
        assert!(slow.iter().all(|call| call["total"].as_u64() >= call["queue"].as_u64()));
    });
}

#[test]
fn a_request_is_known_however_it_is_cut() {
    watched(|| {
        let server = ledger();
        let request = b"GET /metrics HTTP/1.0\r\n\r\n";
        for pieces in [1, 2, 3, 5, 7] {
            let mut stream = connect(server.address());
            for piece in request.chunks(pieces) {
                stream.write_all(piece).unwrap();
                thread::yield_now();
            }
            assert!(read(stream).starts_with(OK), "in pieces of {pieces}");
        }
    });
}

#[test]
fn who_sends_no_more_is_answered_and_only_the_first_request_is() {
    watched(|| {
        let server = ledger();
        let mut stream = connect(server.address());
        stream.write_all(b"GET /metrics HTTP/1.1\r\n\r\nGET / HTTP/1.1\r\n\r\n").unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
        let answer = read(stream);
        assert_eq!(answer.matches(OK).count(), 1);
        assert!(answer.contains("ringcall_build_info"));
    });
}

#[test]
fn the_head_alone_is_given_where_only_that_is_asked_for() {
    watched(|| {
        let server = ledger();
        let answer = ask(server.address(), "HEAD / HTTP/1.1\r\n\r\n");
        assert!(answer.starts_with(OK));
        assert!(answer.ends_with("\r\n\r\n"));
        assert!(answer.contains("content-type: text/html"));
    });
}

#[test]
fn requests_that_are_not_answered_are_told_why() {
    watched(|| {
        let server = ledger();
        let long = format!("GET / HTTP/1.1\r\ncookie: {}", "x".repeat(20_000));
        let many = format!("GET / HTTP/1.1\r\n{}\r\n", "a: b\r\n".repeat(100));
        let posted =
            format!("POST / HTTP/1.1\r\ncontent-length: 50000\r\n\r\n{}", "x".repeat(50_000));
        for (request, status, text) in [
            ("GET /admin HTTP/1.1\r\n\r\n", "404", "/metrics"),
            (&*posted, "405", "ringcall client"),
            ("DELETE /metrics HTTP/1.1\r\n\r\n", "405", "GET and HEAD"),
            ("GET / HTTP/9.9\r\n\r\n", "505", "HTTP/1.1"),
            ("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "505", "HTTP/1.1"),
            ("GET \u{1} HTTP/1.1\r\n\r\n", "400", "curl"),
            ("GET / HTTP/1.1\r\nno colon\r\n\r\n", "400", "curl"),
            (&*long, "431", "8192 bytes"),
            (&*many, "431", "64 headers"),
        ] {
            let answer = ask(server.address(), request);
            assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{answer}");
            assert!(answer.contains(text), "{answer}");
        }
        call(&server, 5);
        assert_eq!(server.counters()[0].protocol_errors, 0);
    });
}

#[test]
fn what_is_neither_http_nor_ringcall_ends_as_before() {
    watched(|| {
        let server = ledger();
        for garbage in
            [&b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"[..], b"GETTING STARTED", b"\xff"]
        {
            assert_no_http(server.address(), &[garbage, &[0x5a; 64]].concat());
        }
        assert_eq!(server.counters()[0].connections_http, 0);
        call(&server, 5);
    });
}

#[test]
fn where_it_is_off_the_port_speaks_no_http() {
    watched(|| {
        let server = one_shard().metrics_off();
        let server = server.serve("127.0.0.1:0", |_| LedgerServer::new(Book)).unwrap();
        assert_eq!(server.metrics_address(), None);
        assert_no_http(server.address(), b"GET /metrics HTTP/1.1\r\nhost: example\r\n\r\n");
        call(&server, 5);
        assert_eq!(server.metrics().merged().calls(), 6);
    });
}

#[test]
fn an_address_of_its_own_answers_and_the_port_does_not() {
    watched(|| {
        let at = "127.0.0.1:0".parse().unwrap();
        let server = one_shard().metrics_at(at);
        let server = server.serve("127.0.0.1:0", |_| LedgerServer::new(Book)).unwrap();
        let address = server.metrics_address().unwrap();
        assert_ne!(address, server.address());
        call(&server, 7);
        let (status, text) = get(address, "/metrics");
        assert_eq!(status, OK);
        assert!(
            text.contains("ringcall_method_calls_total{method=\"Ledger.add\",code=\"OK\"} 7\n")
        );
        assert_no_http(server.address(), b"GET /metrics HTTP/1.1\r\nhost: example\r\n\r\n");
        // It answers while the server drains too.
        server.drain(Duration::from_secs(30));
        assert_eq!(get(address, "/metrics").0, OK);
    });
}

#[test]
fn an_address_that_is_taken_is_an_error_that_names_it() {
    watched(|| {
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = taken.local_addr().unwrap();
        let server = one_shard().metrics_at(address);
        let error = server.serve("127.0.0.1:0", |_| LedgerServer::new(Book)).err().unwrap();
        assert!(matches!(error, ServeError::Metrics { .. }), "{error}");
        let text = error.to_string();
        assert!(text.contains(&address.to_string()) && text.contains("ss -ltnp"), "{text}");
    });
}

#[test]
fn thousands_of_scrapes_do_not_disturb_the_service() {
    watched(|| {
        let server = ledger();
        let (address, is_over, answered) =
            (server.address(), AtomicBool::new(false), AtomicU64::new(0));
        thread::scope(|scope| {
            let scrape = || {
                while !is_over.load(Relaxed) {
                    let answer = ask(address, "GET /metrics HTTP/1.1\r\n\r\n");
                    let known = ["HTTP/1.1 200", "HTTP/1.1 429", "HTTP/1.1 503"];
                    assert!(known.iter().any(|known| answer.starts_with(known)), "{answer}");
                    answered.fetch_add(1, Relaxed);
                }
            };
            let scrapers: Vec<_> = (0..3).map(|_| scope.spawn(scrape)).collect();
            // A client of a thread of its own, since this one must end the scrapers.
            let called = scope.spawn(|| {
                call(&server, 2000);
                until("a thousand scrapes", || answered.load(Relaxed) >= 1000);
                call(&server, 2000);
            });
            let outcome = called.join();
            is_over.store(true, Relaxed);
            scrapers.into_iter().for_each(|scraper| scraper.join().unwrap());
            outcome.unwrap();
        });
        let metrics = server.metrics().merged();
        assert_eq!((metrics.calls(), metrics.counters.protocol_errors), (4002, 0));
    });
}

#[test]
fn many_half_requests_keep_nobody_from_calling() {
    watched(|| {
        let server = ledger();
        let half = || {
            let mut stream = connect(server.address());
            stream.write_all(b"GET / HTTP/1.1\r\n").unwrap();
            stream
        };
        let halves: Vec<_> = (0..100).map(|_| half()).collect();
        call(&server, 20);
        // Those beyond the limit are told at once, the others when their time is over.
        let answers: Vec<_> = halves.into_iter().map(read).collect();
        let are = |status| answers.iter().filter(|answer| answer.starts_with(status)).count();
        let (late, refused) = (are("HTTP/1.1 408"), are("HTTP/1.1 503"));
        assert_eq!(late + refused, 100);
        assert!(refused > 0 && late > 0, "{late} were late, {refused} refused");
        // The thread need not have seen yet that they are gone.
        until("there is room again", || get(server.address(), "/metrics").0 == OK);
    });
}

#[test]
fn a_server_that_stops_does_not_wait_for_readers() {
    watched(|| {
        let server = ledger();
        let mut half = connect(server.address());
        half.write_all(b"GET / HTTP/1.1\r\n").unwrap();
        until("it is handed over", || server.counters()[0].connections_http == 1);
        drop(server);
        let mut rest = Vec::new();
        // Closed, with or without a reset.
        let _ = half.read_to_end(&mut rest);
        assert!(rest.is_empty());
    });
}

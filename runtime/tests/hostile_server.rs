//! A server that breaks the protocol: its client is told precisely what happened, and goes on.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod support;

use std::{
    future::{Future as _, poll_fn},
    net::{SocketAddr, TcpListener},
    thread,
    time::Duration,
};

use ringcall::{Client, ClientConfig, Code, ConnectError, MethodInfo, Response, Status};
use support::{
    echo::{Blob, Digest, EchoClient, Nest, digest_of, nested},
    raw::{
        CANCEL, DETAILS, Frame, ONEWAY, Peer, Random, archive, call, goaway, hello, hello_of,
        hello_with, plain, reply, request, status,
    },
    wait::{all, until_async, watched},
};

/// Runs a client against a server that does what it is told, until both are done.
fn against<T>(
    serve: impl FnOnce(&TcpListener) + Send + 'static,
    client: impl AsyncFnOnce(SocketAddr) -> T,
) -> T {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let server = thread::spawn(move || serve(&listener));
    let output = ringcall::run(async {
        let output = client(address).await;
        until_async("the server is done", || server.is_finished()).await;
        output
    });
    server.join().unwrap();
    output.unwrap()
}

/// The text of why a client cannot connect to a server that does as told, without its address.
fn refusal(serve: impl FnOnce(&TcpListener) + Send + 'static) -> String {
    against(serve, async |address| {
        let error = EchoClient::connect(address).await.err().unwrap();
        let text = error.to_string();
        text.strip_prefix(&address.to_string()).unwrap().to_owned()
    })
}

/// How two calls that are in flight end, where the server then sends these bytes and the client
/// ends the connection with a GOAWAY of this text.
fn outcomes(bytes: Vec<u8>, text: &str) -> Vec<Result<u64, Status>> {
    let text = text.to_owned();
    let serve = move |listener: &TcpListener| {
        let mut peer = Peer::serve(listener, EchoClient::METHODS);
        assert_eq!(peer.frame().call, call(0, 1));
        assert_eq!(peer.frame().call, call(1, 1));
        peer.send_bytes(&bytes);
        peer.expect_goaway(Code::InvalidArgument, &text);
    };
    against(serve, async |address| {
        let echo = EchoClient::connect(address).await.unwrap();
        let blob = Blob::new(1, 20);
        let outcomes = all([echo.digest(&blob), echo.digest(&blob)]).await;
        assert!(!echo.client().is_open());
        // Nothing is sent any more, and the reason is told.
        let late = echo.digest(&blob).await.err().unwrap();
        let why = outcomes.iter().find_map(|outcome| outcome.as_ref().err()).unwrap();
        let why = format!("the connection is closed: {}", why.message());
        assert_eq!(late, Status::new(Code::Unavailable, why).not_executed());
        let len = |reply: Response<Digest>| reply.len.into();
        outcomes.into_iter().map(|end| end.map(len)).collect()
    })
}

/// Bytes that break the protocol fail both calls, with this text.
fn breaks(bytes: Vec<u8>, text: &str) {
    let expected = Status::new(Code::Internal, format!("the server broke the protocol: {text}"));
    let failed = vec![Err(expected.clone()), Err(expected)];
    assert_eq!(outcomes(bytes, text), failed);
}

/// The reply to `digest` of `Blob::new(1, 20)`.
fn digest_reply(call: u64) -> Frame {
    let blob = Blob::new(1, 20);
    reply(call, &archive(&digest_of(blob.id, &blob.bytes)))
}

#[test]
fn a_response_to_no_call_fails_every_call() {
    watched(|| {
        for (stranger, name) in [
            (call(2, 1), "2.1"),
            (call(0, 2), "0.2"),
            (call(0, 0), "0.0"),
            (call(u32::MAX, u32::MAX), "4294967295.4294967295"),
        ] {
            let text = format!("response to call {name}, which is not in flight");
            breaks(digest_reply(stranger).bytes(), &text);
            breaks(status(stranger, Code::Internal, "no").bytes(), &text);
        }
    });
}

#[test]
fn a_response_to_no_call_at_all_closes_the_connection() {
    watched(|| {
        let serve = |listener: &TcpListener| {
            let mut peer = Peer::serve(listener, &[]);
            peer.send(&reply(call(0, 1), b""));
            let text = "response to call 0.1, which is not in flight";
            peer.expect_goaway(Code::InvalidArgument, text);
        };
        against(serve, async |address| {
            let echo = EchoClient::connect(address).await.unwrap();
            until_async("it is closed", || !echo.client().is_open()).await;
            let late = echo.digest(&Blob::new(1, 20)).await.err().unwrap();
            assert!(late.is_not_executed(), "{late}");
        });
    });
}

#[test]
fn a_response_that_comes_twice_leaves_the_first_and_fails_the_rest() {
    watched(|| {
        let text = "response to call 0.1, which is not in flight";
        let twice = [digest_reply(call(0, 1)).bytes(), digest_reply(call(0, 1)).bytes()];
        let outcomes = outcomes(twice.concat(), text);
        assert_eq!(outcomes[0], Ok(20));
        let failed = format!("the server broke the protocol: {text}");
        assert_eq!(outcomes[1], Err(Status::new(Code::Internal, failed)));
    });
}

#[test]
fn a_response_to_an_earlier_call_does_not_reach_the_next_one_in_its_slot() {
    watched(|| {
        let text = "response to call 0.1, which is not in flight";
        let serve = move |listener: &TcpListener| {
            let mut peer = Peer::serve(listener, EchoClient::METHODS);
            assert_eq!(peer.frame().call, call(0, 1));
            peer.send(&digest_reply(call(0, 1)));
            assert_eq!(peer.frame().call, call(0, 2));
            peer.send(&digest_reply(call(0, 1)));
            peer.expect_goaway(Code::InvalidArgument, text);
        };
        against(serve, async |address| {
            let echo = EchoClient::connect(address).await.unwrap();
            let blob = Blob::new(1, 20);
            assert_eq!(echo.digest(&blob).await.unwrap().len, 20);
            let failed = echo.digest(&blob).await.err().unwrap();
            let text = format!("the server broke the protocol: {text}");
            assert_eq!(failed, Status::new(Code::Internal, text));
        });
    });
}

#[test]
fn a_response_to_a_call_that_was_given_up_frees_its_slot() {
    watched(|| {
        let serve = |listener: &TcpListener| {
            let mut peer = Peer::serve(listener, EchoClient::METHODS);
            // The first is given up once the second was answered.
            assert_eq!(peer.frame().call, call(0, 1));
            assert_eq!(peer.frame().call, call(1, 1));
            peer.send(&digest_reply(call(1, 1)));
            assert_eq!(peer.frame(), plain(CANCEL, call(0, 1)));
            let third = peer.frame();
            assert_eq!(third.call, call(1, 2));
            peer.send(&digest_reply(call(0, 1)));
            peer.send(&digest_reply(call(1, 2)));
            let fourth = peer.frame();
            peer.send(&digest_reply(fourth.call));
            peer.expect_end();
        };
        against(serve, async |address| {
            let echo = EchoClient::connect(address).await.unwrap();
            let blob = Blob::new(1, 20);
            {
                let mut given_up = Box::pin(echo.digest(&blob));
                let mut second = Box::pin(echo.digest(&blob));
                poll_fn(|cx| {
                    assert!(given_up.as_mut().poll(cx).is_pending());
                    second.as_mut().poll(cx)
                })
                .await
                .unwrap();
            }
            for _ in 0..2 {
                assert_eq!(echo.digest(&blob).await.unwrap().len, 20);
            }
        });
    });
}

#[test]
fn frames_that_are_none_fail_every_call() {
    watched(|| {
        for kind in [0, 13, 14, 255] {
            let frame = Frame { kind, ..digest_reply(call(0, 1)) };
            breaks(frame.bytes(), &format!("frame of unknown kind {kind}"));
        }
        for flags in [0x01, 0x20, 0x40] {
            let frame = Frame { flags, ..digest_reply(call(0, 1)) };
            let text =
                format!("flags {flags:#04x} hold bits that are reserved in a RESPONSE frame");
            breaks(frame.bytes(), &text);
        }
        let frame = Frame { check: 1, ..digest_reply(call(0, 1)) };
        breaks(frame.bytes(), "reserved field `check` is not zero");
        let frame = Frame { meta_len: 1, ..goaway(Code::Internal, "") };
        breaks(frame.bytes(), "reserved field `meta_len` is not zero");
        let long = status(call(0, 1), Code::Internal, &"x".repeat(5137));
        let text = "status of 5137 bytes in a RESPONSE frame, the limit is 5136";
        breaks(Frame { flags: DETAILS, ..long }.bytes(), text);
    });
}

#[test]
fn a_client_serves_no_calls_and_hears_one_hello() {
    watched(|| {
        for (name, frame) in
            [("REQUEST", request(call(0, 1), 1, b"")), ("ONEWAY", plain(ONEWAY, 1))]
        {
            let text = format!("unexpected {name} frame: this end makes calls and serves none");
            breaks(frame.bytes(), &text);
        }
        let text = "unexpected HELLO frame: a connection has one HELLO";
        breaks(hello_of(1 << 20, 1, (0, 1), &[]).bytes(), text);
    });
}

#[test]
fn a_reply_that_is_longer_than_any_is_not_received() {
    watched(|| {
        let serve = |listener: &TcpListener| {
            let mut peer = Peer::serve(listener, EchoClient::METHODS);
            peer.frame();
            peer.send_bytes(&reply(call(0, 1), b"").declaring(u32::MAX));
            let text = "frame of 4294967328 bytes, the limit is 16777216; raise frame_len_max or \
                        send less at a time";
            peer.expect_goaway(Code::ResourceExhausted, text);
        };
        against(serve, async |address| {
            let echo = EchoClient::connect(address).await.unwrap();
            let failed = echo.digest(&Blob::new(1, 20)).await.err().unwrap();
            let text = "the server broke the protocol: frame of 4294967328 bytes, the limit is \
                        16777216; raise frame_len_max or send less at a time";
            assert_eq!(failed, Status::new(Code::Internal, text));
        });
    });
}

#[test]
fn garbage_fails_every_call() {
    watched(|| {
        for seed in 1..=10 {
            let mut garbage = Random::new(seed).bytes(2000);
            garbage[6] = garbage[6].max(13);
            let text = format!("frame of unknown kind {}", garbage[6]);
            breaks(garbage, &text);
        }
    });
}

#[test]
fn a_server_that_is_none_is_refused_by_its_first_bytes() {
    watched(|| {
        let refuses = |bytes: &[u8], code: Code, text: &str| {
            let bytes = bytes.to_vec();
            let told = text.to_owned();
            let refusal = refusal(move |listener| {
                let mut peer = Peer::accept(listener);
                peer.expect_hello();
                peer.send_bytes(&bytes);
                peer.expect_goaway(code, &told);
            });
            let is_header = text.starts_with("frame of unknown kind");
            let advice = if is_header { "; is it a ringcall server?" } else { "" };
            assert_eq!(refusal, format!(": {text}{advice}"));
        };
        let invalid = Code::InvalidArgument;
        let http = b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n";
        refuses(http, invalid, "frame of unknown kind 46");
        let magic = Frame { call: 7, ..hello() };
        let text = "not a ringcall peer: wrong magic 0x0000000000000007";
        refuses(&magic.bytes(), invalid, text);
        let version = Frame { code: 2 | 3 << 16, ..hello() };
        let text = "no common version: the peer speaks 2 to 3, this side 1 to 1; \
                    upgrade the older one";
        refuses(&version.bytes(), Code::FailedPrecondition, text);
        let text = "unexpected RESPONSE frame: a connection begins with HELLO";
        refuses(&digest_reply(call(0, 1)).bytes(), invalid, text);
        let text = "HELLO body of 0 bytes is malformed";
        refuses(&hello().declaring(0), invalid, text);
        let text = "HELLO body of 4294967295 bytes is malformed";
        refuses(&hello().declaring(u32::MAX), invalid, text);
        let text = "HELLO limit `frame_len_max` is out of range";
        refuses(&hello_of(1, 1, (0, 1), &[]).bytes(), invalid, text);
        let text = "HELLO limit `calls_in_flight_max` is out of range";
        refuses(&hello_of(1 << 20, 0, (0, 1), &[]).bytes(), invalid, text);
        let text = "HELLO limit `shard_index` is out of range";
        refuses(&hello_of(1 << 20, 1, (1, 1), &[]).bytes(), invalid, text);
        let mut methods = hello_with(&[]);
        methods.body[28] = 9;
        let text = "HELLO body of 32 bytes is malformed";
        refuses(&methods.bytes(), invalid, text);
        let garbage = Random::new(5).bytes(500);
        let text = format!("frame of unknown kind {}", garbage[6]);
        refuses(&garbage, invalid, &text);
    });
}

#[test]
fn a_server_of_other_layouts_is_refused_and_told_which() {
    watched(|| {
        let digest =
            EchoClient::METHODS.iter().position(|method| method.name == "Echo.digest").unwrap();
        for (request, reply, part) in
            [(1, 0, "request"), (0, 1, "reply"), (1, 1, "request and reply")]
        {
            let mut methods: Vec<MethodInfo> = EchoClient::METHODS.to_vec();
            methods[digest].request ^= request;
            methods[digest].reply ^= reply;
            let text = format!(
                "the layouts of method Echo.digest differ ({part}); \
                 build both sides from the same interface"
            );
            let told = text.clone();
            let refusal = refusal(move |listener| {
                let mut peer = Peer::accept(listener);
                peer.expect_hello();
                peer.send(&hello_with(&methods));
                peer.expect_goaway(Code::FailedPrecondition, &told);
            });
            assert_eq!(refusal, format!(": {text}"));
        }
    });
}

#[test]
fn a_server_that_closes_before_it_said_hello_is_named() {
    watched(|| {
        let hello = hello_of(1 << 20, 16, (0, 1), EchoClient::METHODS).bytes();
        for len in (0..hello.len()).step_by(7).chain([31, 32, 33, hello.len() - 1]) {
            let begun = hello[..len].to_vec();
            let refusal = refusal(move |listener| {
                let mut peer = Peer::accept(listener);
                peer.expect_hello();
                peer.send_bytes(&begun);
            });
            let expected = " refused the connection: unavailable: the server closed the connection";
            assert_eq!(refusal, expected);
        }
        let refusal = refusal(|listener| {
            let mut peer = Peer::accept(listener);
            peer.expect_hello();
            peer.send(&goaway(Code::PermissionDenied, "not you"));
        });
        assert_eq!(refusal, " refused the connection: permission denied: not you");
    });
}

#[test]
fn a_server_that_never_says_hello_is_given_up() {
    watched(|| {
        let serve = |listener: &TcpListener| {
            let mut peer = Peer::accept(listener);
            peer.expect_hello();
            peer.send_bytes(&hello().bytes()[..40]);
            peer.expect_end();
        };
        against(serve, async |address| {
            let timeout = Duration::from_millis(50);
            let config = ClientConfig::new().connect_timeout(timeout);
            match EchoClient::with(&config, address).await.err().unwrap() {
                ConnectError::Timeout { address: at, timeout: after } => {
                    assert_eq!((at, after), (address, timeout))
                }
                error => panic!("{error}"),
            }
        });
    });
}

#[test]
fn a_server_that_closes_inside_of_a_reply_fails_the_calls_that_wait() {
    watched(|| {
        let reply = digest_reply(call(0, 1)).bytes();
        let large = support::raw::reply(call(0, 1), &[1; 100_000]).bytes();
        let small = (0..reply.len()).map(|len| reply[..len].to_vec());
        let begun = small.chain([33, 16_384, 70_000].map(|len| large[..len].to_vec()));
        for begun in begun {
            let serve = move |listener: &TcpListener| {
                let mut peer = Peer::serve(listener, EchoClient::METHODS);
                peer.frame();
                peer.frame();
                peer.send_bytes(&begun);
            };
            against(serve, async |address| {
                let echo = EchoClient::connect(address).await.unwrap();
                let blob = Blob::new(1, 20);
                let expected = Status::new(Code::Unavailable, "the server closed the connection");
                for outcome in all([echo.digest(&blob), echo.digest(&blob)]).await {
                    assert_eq!(outcome.err(), Some(expected.clone()));
                }
                assert!(!echo.client().is_open());
            });
        }
    });
}

#[test]
fn a_server_that_resets_fails_the_calls_that_wait() {
    watched(|| {
        let serve = |listener: &TcpListener| {
            let mut peer = Peer::serve(listener, EchoClient::METHODS);
            peer.frame();
            peer.send_bytes(&digest_reply(call(0, 1)).bytes()[..40]);
            peer.reset();
        };
        against(serve, async |address| {
            let echo = EchoClient::connect(address).await.unwrap();
            let failed = echo.digest(&Blob::new(1, 20)).await.err().unwrap();
            let text = "receiving failed: Connection reset by peer (os error 104)";
            assert_eq!(failed, Status::new(Code::Unavailable, text));
        });
    });
}

#[test]
fn a_server_that_says_goaway_fails_the_calls_that_wait_with_its_reason() {
    watched(|| {
        let serve = |listener: &TcpListener| {
            let mut peer = Peer::serve(listener, EchoClient::METHODS);
            peer.frame();
            peer.frame();
            // What is answered before it is answered.
            peer.send(&digest_reply(call(1, 1)));
            peer.send(&goaway(Code::Unavailable, "closed for repairs"));
            peer.expect_end();
        };
        against(serve, async |address| {
            let echo = EchoClient::connect(address).await.unwrap();
            let blob = Blob::new(1, 20);
            let mut outcomes = all([echo.digest(&blob), echo.digest(&blob)]).await;
            assert_eq!(outcomes.pop().unwrap().unwrap().len, 20);
            let expected = Status::new(Code::Unavailable, "closed for repairs");
            assert_eq!(outcomes.pop().unwrap().err(), Some(expected));
        });
    });
}

#[test]
fn a_reply_that_does_not_validate_fails_its_call_alone() {
    watched(|| {
        let whole = archive(&digest_of(1, b""));
        let bodies = [b"".to_vec(), whole[1..].to_vec(), vec![0xff; 7]];
        let sent = bodies.clone();
        let serve = move |listener: &TcpListener| {
            let mut peer = Peer::serve(listener, EchoClient::METHODS);
            for body in sent {
                let request = peer.frame();
                peer.send(&reply(request.call, &body));
            }
            let request = peer.frame();
            peer.send(&digest_reply(request.call));
            peer.expect_end();
        };
        against(serve, async |address| {
            let echo = EchoClient::connect(address).await.unwrap();
            let blob = Blob::new(1, 20);
            for body in bodies {
                let len = body.len();
                let text =
                    format!("reply: body of {len} bytes is not a valid archive of the message");
                let failed = echo.digest(&blob).await.err().unwrap();
                assert_eq!(failed, Status::new(Code::Internal, text));
            }
            assert_eq!(echo.digest(&blob).await.unwrap().len, 20);
        });
    });
}

#[test]
fn a_status_of_any_code_and_text_reaches_its_call() {
    watched(|| {
        let serve = |listener: &TcpListener| {
            let mut peer = Peer::serve(listener, EchoClient::METHODS);
            let call = peer.frame().call;
            peer.send(&Frame {
                code: 99,
                body: vec![b'n', b'o', 0xff],
                flags: 2,
                ..reply(call, b"")
            });
            let call = peer.frame().call;
            peer.send(&status(call, Code::NotFound, ""));
            peer.expect_end();
        };
        against(serve, async |address| {
            let echo = EchoClient::connect(address).await.unwrap();
            let blob = Blob::new(1, 20);
            let unknown = echo.digest(&blob).await.err().unwrap();
            let expected = Status::new(Code::Unknown, "no\u{fffd}").not_executed();
            assert_eq!(unknown, expected);
            let absent = echo.digest(&blob).await.err().unwrap();
            assert_eq!(absent, Status::new(Code::NotFound, ""));
        });
    });
}

#[test]
fn a_reply_nested_too_deep_is_no_danger_to_a_client_on_a_stack_of_2_mib() {
    watched(|| {
        let run = || {
            const LEVELS: [usize; 5] = [63, 64, 65, 200_000, 1];
            const NEST: MethodInfo = MethodInfo::unary(1, "Nests.nest", 0, 0);
            let serve = |listener: &TcpListener| {
                let mut peer = Peer::serve(listener, &[]);
                for levels in LEVELS {
                    let request = peer.frame();
                    peer.send(&reply(request.call, &nested(levels)));
                }
                peer.expect_end();
            };
            against(serve, async |address| {
                let client = Client::connect(address, &[]).await.unwrap();
                for levels in LEVELS {
                    let outcome = client.call::<Blob, Nest, Status>(&NEST, &Blob::new(1, 20)).await;
                    let len = 8 * levels;
                    let text =
                        format!("reply: body of {len} bytes is not a valid archive of the message");
                    match outcome {
                        Ok(nest) => {
                            assert_eq!((nest.levels(), levels <= 64), (levels as u64, true))
                        }
                        Err(status) => {
                            assert_eq!(status, Status::new(Code::Internal, text));
                            assert!(levels > 64);
                        }
                    }
                }
            });
        };
        let thread = thread::Builder::new().stack_size(2 << 20).spawn(run);
        thread.unwrap().join().unwrap();
    });
}

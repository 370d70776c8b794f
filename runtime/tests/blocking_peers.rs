//! The blocking client against peers that are late, cut, silent or wrong.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod support;

use std::{
    net::TcpListener,
    sync::mpsc::{Sender, channel},
    thread,
    time::Duration,
};

use ringcall::{
    Code, ConnectError, SessionError,
    blocking::{Client, ClientConfig},
};
use support::{
    blocking::{assert_blob, assert_status, grown},
    echo::{Blob, EchoBlockingClient, EchoClient},
    raw::{
        CANCEL, END, Frame, GOAWAY, PING, PONG, Peer, REQUEST, archive, call, draining, goaway,
        hello, plain, reply, status,
    },
    tcp::is_read,
    wait::{until, watched},
    works::SHORT,
};

/// Runs `test` with a client, and `script` with the server that it is connected to.
fn against(
    script: impl FnOnce(Peer) + Send + 'static,
    test: impl FnOnce(EchoBlockingClient) + Send + 'static,
) {
    against_with(ClientConfig::new(), script, test);
}

fn against_with(
    config: ClientConfig,
    script: impl FnOnce(Peer) + Send + 'static,
    test: impl FnOnce(EchoBlockingClient) + Send + 'static,
) {
    watched(move || {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let server = thread::spawn(move || script(Peer::serve(&listener, EchoClient::METHODS)));
        test(EchoBlockingClient::with(&config, address).unwrap());
        server.join().unwrap();
    });
}

/// Why connecting to a server that does this fails.
fn refusal_by(script: impl FnOnce(Peer) + Send + 'static) -> ConnectError {
    watched(move || {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let server = thread::spawn(move || script(Peer::accept(&listener)));
        let config = ClientConfig::new().connect_timeout(Duration::from_millis(200));
        let error = EchoBlockingClient::with(&config, address).err().unwrap();
        server.join().unwrap();
        error
    })
}

/// Reads a request, and gives its call.
#[track_caller]
fn requested(peer: &mut Peer) -> u64 {
    let frame = peer.frame();
    assert_eq!(frame.kind, REQUEST, "{frame:?}");
    frame.call
}

#[test]
fn a_late_reply_is_skipped() {
    against(
        |mut peer| {
            for number in 0..3 {
                let late = requested(&mut peer);
                assert_eq!(peer.frame(), plain(CANCEL, late));
                let next = requested(&mut peer);
                peer.send(&reply(late, &archive(&Blob::new(99, 100_000 * number))));
                peer.send(&reply(next, &archive(&Blob::new(1, 10))));
            }
        },
        |mut client| {
            for _ in 0..3 {
                let outcome = client.grow(&Blob::new(1, 0)).timeout(SHORT).wait();
                assert_status(outcome, Code::DeadlineExceeded, "no outcome in time", false);
                assert_blob(&grown(&mut client, 1).unwrap(), &Blob::new(1, 10));
            }
        },
    );
}

#[test]
fn a_deadline_in_the_middle_of_a_long_frame_leaves_the_connection_usable_on_any_thread() {
    let (go, goes) = channel();
    against(
        move |mut peer| {
            let late = requested(&mut peer);
            let bytes = reply(late, &archive(&Blob::new(99, 1 << 20))).bytes();
            let (half, rest) = bytes.split_at(bytes.len() / 2 + 5);
            peer.send_bytes(half);
            assert_eq!(peer.frame(), plain(CANCEL, late));
            let next = requested(&mut peer);
            goes.recv().unwrap();
            peer.send_bytes(rest);
            peer.send(&reply(next, &archive(&Blob::new(1, 1 << 20))));
        },
        move |mut client| {
            let outcome = client.grow(&Blob::new(1, 0)).timeout(Duration::from_millis(100)).wait();
            assert_eq!(outcome.err().unwrap().code(), Code::DeadlineExceeded);
            let ticket = client.grow(&Blob::new(1, 0)).start().unwrap();
            client.client().flush().unwrap();
            let other = thread::spawn(move || {
                go.send(()).unwrap();
                assert_blob(&client.client().finish(ticket).unwrap(), &Blob::new(1, 1 << 20));
            });
            other.join().unwrap();
        },
    );
}

#[test]
fn a_call_that_is_finished_late_does_not_meet_the_next_in_its_slot() {
    let (tell, told) = channel();
    against(
        move |mut peer| {
            let late = requested(&mut peer);
            assert_eq!(peer.frame(), plain(CANCEL, late));
            peer.send(&reply(late, &archive(&Blob::new(99, 10))));
            until("the late reply is read", || is_read(&peer.stream));
            tell.send(()).unwrap();
            let next = requested(&mut peer);
            assert_ne!(late, next);
            peer.send(&reply(next, &archive(&Blob::new(1, 10))));
            let last = requested(&mut peer);
            assert!([call(0, 2), call(1, 2)].contains(&last), "{last:#x}");
            peer.send(&reply(last, &archive(&Blob::new(1, 10))));
        },
        move |mut client| {
            let late = client.grow(&Blob::new(1, 0)).timeout(SHORT).start().unwrap();
            until("it is cancelled, and answered", || {
                client.client().tend().unwrap();
                told.try_recv().is_ok()
            });
            let next = client.grow(&Blob::new(1, 0)).start().unwrap();
            let late = client.client().finish(late);
            assert_status(late, Code::DeadlineExceeded, "no outcome in time", false);
            assert_blob(&client.client().finish(next).unwrap(), &Blob::new(1, 10));
            // Now its slot is free.
            assert_blob(&grown(&mut client, 1).unwrap(), &Blob::new(1, 10));
        },
    );
}

#[test]
fn a_dropped_ticket_gives_its_call_up() {
    against(
        |mut peer| {
            let dropped = requested(&mut peer);
            assert_eq!(peer.frame(), plain(CANCEL, dropped));
            let next = requested(&mut peer);
            peer.send(&reply(dropped, &archive(&Blob::new(99, 10))));
            peer.send(&reply(next, &archive(&Blob::new(1, 10))));
        },
        |mut client| {
            drop(client.grow(&Blob::new(1, 0)).start().unwrap());
            assert_blob(&grown(&mut client, 1).unwrap(), &Blob::new(1, 10));
        },
    );
}

#[test]
fn a_ping_is_answered_while_a_reply_is_waited_for_and_when_the_client_is_tended() {
    let (tell, told): (Sender<()>, _) = channel();
    against(
        move |mut peer| {
            let waiting = requested(&mut peer);
            peer.send(&plain(PING, 7));
            assert_eq!(peer.frame(), plain(PONG, 7));
            peer.send(&reply(waiting, &archive(&Blob::new(1, 10))));
            peer.send(&plain(PING, 8));
            assert_eq!(peer.frame(), plain(PONG, 8));
            tell.send(()).unwrap();
            peer.expect_end();
        },
        move |mut client| {
            grown(&mut client, 1).unwrap();
            until("the second is answered", || {
                client.client().tend().unwrap();
                told.try_recv().is_ok()
            });
        },
    );
}

#[test]
fn a_server_that_drains_answers_what_runs_and_gets_no_more() {
    against(
        |mut peer| {
            let running = requested(&mut peer);
            peer.send(&draining(Code::Unavailable, "it is late"));
            let next = requested(&mut peer);
            // Sent before it was heard of.
            let refused = status(next, Code::Unavailable, "too late");
            peer.send(&Frame { flags: support::raw::NOT_EXECUTED, ..refused });
            peer.send(&plain(PING, 1));
            assert_eq!(peer.frame(), plain(PONG, 1));
            peer.send(&reply(running, &archive(&Blob::new(1, 10))));
            // The client closes a connection of which nothing is left.
            peer.expect_end();
        },
        |mut client| {
            let running = client.grow(&Blob::new(1, 0)).start().unwrap();
            assert_status(grown(&mut client, 1), Code::Unavailable, "too late", true);
            let text = "call not made: the peer takes no more calls on this connection; make the \
                        call on another";
            assert_status(grown(&mut client, 1), Code::Unavailable, text, true);
            assert!(!client.client().is_open());
            assert_blob(&client.client().finish(running).unwrap(), &Blob::new(1, 10));
            let text = "the connection is closed: the server takes no more calls on it";
            assert_status(grown(&mut client, 1), Code::Unavailable, text, true);
        },
    );
}

#[test]
fn a_server_that_leaves_says_why_to_every_call() {
    against(
        |mut peer| {
            let answered = requested(&mut peer);
            requested(&mut peer);
            let mut bytes = reply(answered, &archive(&Blob::new(1, 10))).bytes();
            bytes.extend(goaway(Code::ResourceExhausted, "no room").bytes());
            peer.send_bytes(&bytes);
            peer.expect_end();
        },
        |mut client| {
            let answered = client.grow(&Blob::new(1, 0)).start().unwrap();
            assert_status(grown(&mut client, 1), Code::ResourceExhausted, "no room", false);
            assert_blob(&client.client().finish(answered).unwrap(), &Blob::new(1, 10));
            let text = "the connection is closed: no room";
            assert_status(grown(&mut client, 1), Code::Unavailable, text, true);
            assert_status(client.client().flush(), Code::Unavailable, text, true);
            assert!(!client.client().is_open());
        },
    );
}

#[test]
fn a_server_that_is_gone_ends_its_calls() {
    for len in [0, 1, 40, 100, 50_000] {
        let script = move |mut peer: Peer| {
            let cut = requested(&mut peer);
            let bytes = reply(cut, &archive(&Blob::new(1, 60_000))).bytes();
            peer.send_bytes(&bytes[..len]);
        };
        against(script, |mut client| {
            let text = "the server closed the connection";
            assert_status(grown(&mut client, 1), Code::Unavailable, text, false);
            let text = "the connection is closed: the server closed the connection";
            assert_status(grown(&mut client, 1), Code::Unavailable, text, true);
        });
    }
    let reset = |mut peer: Peer| {
        requested(&mut peer);
        peer.reset();
    };
    against(reset, |mut client| {
        let status = grown(&mut client, 1).err().unwrap();
        assert_eq!((status.code(), status.is_not_executed()), (Code::Unavailable, false));
    });
}

#[test]
fn a_frame_may_be_cut_anywhere() {
    const LONG_LEN: usize = 300_000;
    let cuts = |len: usize| [1, 15, 16, 17, 31, 32, 33, 47, 48, 49, len / 2, len - 1, len + 31];
    against(
        move |mut peer| {
            for len in [100, LONG_LEN] {
                let body = archive(&Blob::new(1, len));
                for cut in cuts(body.len()) {
                    let bytes = reply(requested(&mut peer), &body).bytes();
                    peer.send_bytes(&bytes[..cut]);
                    until("the first part is read", || is_read(&peer.stream));
                    peer.send_bytes(&bytes[cut..]);
                }
            }
        },
        move |mut client| {
            for len in [100, LONG_LEN] {
                for _ in cuts(archive(&Blob::new(1, len)).len()) {
                    assert_blob(&grown(&mut client, 1).unwrap(), &Blob::new(1, len));
                }
            }
        },
    );
}

#[test]
fn replies_that_come_together_and_cut_are_told_apart() {
    const CALLS: usize = 600;
    against(
        |mut peer| {
            let calls: Vec<_> = (0..CALLS).map(|_| requested(&mut peer)).collect();
            let replies = calls.iter().enumerate().map(|(at, call)| {
                reply(*call, &archive(&Blob::new(at as u64, at * 37 % 1_000))).bytes()
            });
            // Pieces that end at places of their own.
            for piece in replies.flatten().collect::<Vec<_>>().chunks(7_777) {
                peer.send_bytes(piece);
                until("it is read", || is_read(&peer.stream));
            }
        },
        |mut client| {
            let request = Blob::new(1, 0);
            let tickets: Vec<_> =
                (0..CALLS).map(|_| client.grow(&request).start().unwrap()).collect();
            for (at, ticket) in tickets.into_iter().enumerate().rev() {
                let expected = Blob::new(at as u64, at * 37 % 1_000);
                assert_blob(&client.client().finish(ticket).unwrap(), &expected);
            }
        },
    );
}

#[test]
fn what_no_server_sends_ends_the_connection_and_is_said() {
    let unknown = "the server broke the protocol: response to call 0.9, which is not in flight";
    let broken: [(Vec<u8>, &str); 3] = [
        (vec![0xff; 32], "the server broke the protocol: "),
        (reply(call(0, 9), b"").bytes(), unknown),
        (Frame { flags: 0x0c, ..reply(call(0, 1), &[0; 16]) }.bytes(), "the server broke"),
    ];
    for (bytes, text) in broken {
        let script = move |mut peer: Peer| {
            requested(&mut peer);
            peer.send_bytes(&bytes);
            let word = peer.frame();
            assert_eq!((word.kind, word.flags), (GOAWAY, END));
            peer.expect_end();
        };
        against(script, move |mut client| {
            let status = grown(&mut client, 1).err().unwrap();
            assert_eq!((status.code(), status.is_not_executed()), (Code::Internal, false));
            assert!(status.message().starts_with(text), "{status}");
            let status = grown(&mut client, 1).err().unwrap();
            assert_eq!((status.code(), status.is_not_executed()), (Code::Unavailable, true));
        });
    }
}

#[test]
fn a_frame_that_is_too_long_is_refused_from_its_header() {
    let script = |mut peer: Peer| {
        let long = reply(requested(&mut peer), b"").declaring(64 * 1024);
        peer.send_bytes(&long);
        let word = peer.frame();
        assert_eq!((word.kind, word.code), (GOAWAY, Code::ResourceExhausted as u32));
    };
    // The least that can be.
    let config = ClientConfig::new().frame_len_max(0);
    watched(move || {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let server = thread::spawn(move || {
            let mut peer = Peer::accept(&listener);
            let theirs = peer.frame();
            assert_eq!(theirs.body[8..12], (64_u32 * 1024).to_le_bytes());
            peer.send(&hello());
            script(peer);
        });
        let mut client = EchoBlockingClient::with(&config, address).unwrap();
        let status = grown(&mut client, 1).err().unwrap();
        assert!(status.message().contains("the limit is 65536"), "{status}");
        server.join().unwrap();
    });
}

#[test]
fn a_body_that_is_no_archive_fails_its_call_alone() {
    against(
        |mut peer| {
            let bad = requested(&mut peer);
            peer.send(&reply(bad, &[0xff; 24]));
            let good = requested(&mut peer);
            peer.send(&reply(good, &archive(&Blob::new(1, 10))));
        },
        |mut client| {
            let text = "reply: body of 24 bytes is not a valid archive of the message";
            assert_status(grown(&mut client, 1), Code::Internal, text, false);
            assert_blob(&grown(&mut client, 1).unwrap(), &Blob::new(1, 10));
        },
    );
}

#[test]
fn a_server_that_gives_no_sign_of_life_is_given_up() {
    let patience = Duration::from_millis(100);
    let silent = |mut peer: Peer| {
        requested(&mut peer);
        assert_eq!(peer.frame().kind, PING);
        let word = peer.frame();
        assert_eq!((word.kind, word.code), (GOAWAY, Code::DeadlineExceeded as u32));
    };
    against_with(ClientConfig::new().keepalive(patience, patience), silent, |mut client| {
        let text = "the server broke the protocol: the peer gives no sign of life";
        assert_status(grown(&mut client, 1), Code::Internal, text, false);
    });
}

#[test]
fn a_server_that_reads_nothing_is_given_up() {
    let patience = Duration::from_millis(100);
    let (done, is_done) = channel();
    let deaf = move |_peer: Peer| is_done.recv().unwrap();
    let config = ClientConfig::new().keepalive(patience, patience);
    against_with(config, deaf, move |mut client| {
        let blob = Blob::new(1, 1 << 20);
        // Started until the socket takes no more.
        let mut tickets = Vec::new();
        let status = loop {
            match client.grow(&blob).start() {
                Ok(ticket) => tickets.push(ticket),
                Err(status) => break status,
            }
        };
        let text = "the connection is closed: the server broke the protocol: the peer gives no \
                    sign of life";
        assert_eq!((status.code(), status.message()), (Code::Unavailable, text));
        done.send(()).unwrap();
    });
}

#[test]
fn connecting_fails_with_the_reason() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let error = Client::connect(address, &[]).err().unwrap();
    assert!(matches!(error, ConnectError::Connect { .. }), "{error}");
    let error = Client::connect("no port", &[]).err().unwrap();
    assert!(matches!(error, ConnectError::Resolve(_)), "{error}");

    let error = refusal_by(|mut peer| {
        peer.expect_hello();
        // Until the client has given up.
        peer.frame();
    });
    assert!(matches!(error, ConnectError::Timeout { .. }), "{error}");
    let error = refusal_by(|mut peer| {
        peer.expect_hello();
        peer.send_bytes(b"HTTP/1.1 400 Bad Request\r\n\r\n    ");
        peer.frame();
    });
    assert!(matches!(error, ConnectError::Session { .. }), "{error}");
    let error = refusal_by(|mut peer| {
        peer.expect_hello();
        peer.send(&goaway(Code::Unavailable, "full"));
    });
    let ConnectError::Closed { status, .. } = error else { panic!("{error}") };
    assert_eq!((status.code(), status.message()), (Code::Unavailable, "full"));
    let error = refusal_by(|mut peer| {
        peer.expect_hello();
    });
    let ConnectError::Closed { status, .. } = error else { panic!("{error}") };
    assert_eq!(status.message(), "the server closed the connection");
}

#[test]
fn a_server_with_other_layouts_is_refused_by_the_name_of_the_method() {
    let error = refusal_by(|mut peer| {
        peer.expect_hello();
        let mut methods = EchoClient::METHODS.to_vec();
        methods[0].reply ^= 1;
        peer.send(&support::raw::hello_with(&methods));
        assert_eq!(peer.frame().kind, GOAWAY);
    });
    let ConnectError::Session { source: SessionError::LayoutMismatch { method, part }, .. } = error
    else {
        panic!("{error}")
    };
    assert_eq!((method.as_str(), part), ("Echo.echo", "reply"));
}

//! The blocking client: against a server, and against peers that are late, cut, silent or wrong.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod support;

use std::{
    net::TcpListener,
    sync::mpsc::{Sender, channel},
    thread,
    time::Duration,
};

use ringcall::{
    Code, ConnectError, Context, Metadata, MethodInfo, Request, SessionError, ShardConfig, Status,
    blocking::{Client, ClientConfig, Reply, Ticket},
};
use support::{
    echo::{self, Blob, EchoBlockingClient, EchoClient, Nothing},
    raw::{
        CANCEL, END, Frame, GOAWAY, ONEWAY, PING, PONG, Peer, REQUEST, archive, call, draining,
        goaway, hello, plain, reply, status,
    },
    server::{one_shard, serve},
    tcp::is_read,
    wait::{until, watched},
    works::{BAD, Job, LONG, SHORT, Shop, WorksBlockingClient, WorksClient},
};

/// `Echo.grow`.
const GROW: &MethodInfo = &EchoClient::METHODS[6];

/// Lengths around those at which bytes are received otherwise.
const LENGTHS: [usize; 12] =
    [0, 1, 100, 4_000, 16_300, 16_400, 40_000, 65_400, 65_600, 200_000, 1 << 20, 3 << 20];

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

#[track_caller]
fn assert_status<T>(outcome: Result<T, Status>, code: Code, text: &str, not_executed: bool) {
    let status = outcome.err().unwrap();
    let seen = (status.code(), status.message(), status.is_not_executed());
    assert_eq!(seen, (code, text, not_executed));
}

#[track_caller]
fn assert_blob(reply: &Reply<Blob>, blob: &Blob) {
    assert_eq!(reply.id, blob.id);
    assert!(*reply.bytes == *blob.bytes, "other bytes of {}", blob.bytes.len());
}

/// Reads a request, and gives its call.
#[track_caller]
fn requested(peer: &mut Peer) -> u64 {
    let frame = peer.frame();
    assert_eq!(frame.kind, REQUEST, "{frame:?}");
    frame.call
}

fn grown(client: &mut EchoBlockingClient, id: u64) -> Result<Reply<Blob>, Status> {
    client.grow(&Blob::new(id, 0)).wait()
}

#[ringcall::message]
pub(crate) struct Denied {
    pub(crate) name: String,
    pub(crate) why: String,
}

impl From<Denied> for Status {
    fn from(denied: Denied) -> Self {
        let status = Self::new(Code::PermissionDenied, denied.why.clone());
        status.with_details(&denied).unwrap()
    }
}

impl From<Status> for Denied {
    fn from(status: Status) -> Self {
        let name = status.details::<Self>().map(|denied| denied.name.as_str().to_owned());
        Self { name: name.unwrap_or_default(), why: status.message().to_owned() }
    }
}

#[ringcall::service]
pub(crate) trait Post {
    /// Sends the metadata back.
    async fn mirror(&self, cx: &Context, request: Request<'_, Nothing>) -> Result<Nothing, Status>;
    /// Refuses.
    async fn deny(&self, cx: &Context, request: Request<'_, Denied>) -> Result<Nothing, Denied>;
}

struct Office;

impl Post for Office {
    async fn mirror(&self, cx: &Context, _: Request<'_, Nothing>) -> Result<Nothing, Status> {
        cx.set_reply_metadata(cx.metadata().to_owned());
        Ok(Nothing)
    }

    async fn deny(&self, _: &Context, request: Request<'_, Denied>) -> Result<Nothing, Denied> {
        Err(request.to_owned().map_err(Denied::from)?)
    }
}

#[test]
fn requests_and_replies_of_any_length_arrive() {
    watched(|| {
        let server = echo::serve(ShardConfig::new());
        let mut client = EchoBlockingClient::connect(server.address()).unwrap();
        for (id, len) in (0..).zip(LENGTHS) {
            let blob = Blob::new(id, len);
            let reply = client.echo(&blob).wait().unwrap();
            assert_eq!(reply.id, id);
            assert!(*reply.bytes == *blob.bytes, "other bytes of {len}");
            let reply: Result<_, Status> = client.client().call(GROW, &Blob::new(len as u64, 0));
            assert_blob(&reply.unwrap(), &Blob::new(len as u64, len));
        }
        assert_eq!(client.client().peer(), server.address());
        assert_eq!(client.client().shard().count, 1);
    });
}

#[test]
fn pipelined_calls_are_finished_in_any_order() {
    watched(|| {
        let server = echo::serve(ShardConfig::new());
        let mut client = EchoBlockingClient::connect(server.address()).unwrap();
        for is_reversed in [false, true] {
            let mut tickets = Vec::new();
            for id in (0..200).chain([70_000, 5, 1 << 20, 7]) {
                tickets.push((id, client.grow(&Blob::new(id, 0)).start().unwrap()));
            }
            if is_reversed {
                tickets.reverse();
            }
            for (id, ticket) in tickets {
                let reply = client.client().finish(ticket).unwrap();
                assert_blob(&reply, &Blob::new(id, id as usize));
            }
        }
    });
}

#[test]
fn a_batch_that_neither_side_can_hold_is_read_while_it_is_sent() {
    watched(|| {
        let server = echo::serve(ShardConfig::new().send_buffer_max(4096));
        let mut client = EchoBlockingClient::connect(server.address()).unwrap();
        let blobs: Vec<_> = (0..100).map(|id| Blob::new(id, 512 * 1024)).collect();
        let tickets: Vec<_> = blobs.iter().map(|blob| client.echo(blob).start().unwrap()).collect();
        for (blob, ticket) in blobs.iter().zip(tickets) {
            let reply = client.client().finish(ticket).unwrap();
            assert!(reply.id == blob.id && *reply.bytes == *blob.bytes);
        }
        // The same without the generated client.
        let request = Blob::new(5, 0);
        let ticket: Ticket<Blob> = client.client().start(GROW, &request).unwrap();
        assert_blob(&client.client().finish(ticket).unwrap(), &Blob::new(5, 5));
    });
}

#[test]
fn replies_outlive_later_calls_and_their_client() {
    watched(|| {
        let server = echo::serve(ShardConfig::new());
        let mut client = EchoBlockingClient::connect(server.address()).unwrap();
        let replies: Vec<_> = (0..500).map(|id| grown(&mut client, id).unwrap()).collect();
        drop(client);
        for (id, reply) in (0..).zip(&replies) {
            assert_blob(reply, &Blob::new(id, id as usize));
            assert_blob(&reply.clone(), &reply.to_owned().unwrap());
        }
    });
}

#[test]
fn metadata_travels_both_ways_and_errors_are_the_users_own() {
    watched(|| {
        let server = one_shard().serve("127.0.0.1:0", |_| PostServer::new(Office)).unwrap();
        let mut client = PostBlockingClient::connect(server.address()).unwrap();
        let mut metadata = Metadata::new();
        metadata.insert_named("colour", b"blue").unwrap();
        let reply = client.mirror(&Nothing).metadata(&metadata).wait().unwrap();
        assert_eq!(reply.metadata().get_named("colour"), Some(&b"blue"[..]));
        // Kept on its way to who finishes it.
        let first = client.mirror(&Nothing).metadata(&metadata).start().unwrap();
        assert!(client.mirror(&Nothing).wait().unwrap().metadata().is_empty());
        let reply = client.client().finish(first).unwrap();
        assert_eq!(reply.metadata().get_named("colour"), Some(&b"blue"[..]));
        let denied = Denied { name: "Ada".to_owned(), why: "not today".to_owned() };
        let seen = client.deny(&denied).wait().err().unwrap();
        assert_eq!((seen.name, seen.why), (denied.name, denied.why));
    });
}

#[test]
fn a_deadline_ends_the_call_and_its_handler_and_not_the_connection() {
    watched(|| {
        let shop = Shop::start();
        let config = ClientConfig::new().call_timeout(SHORT);
        let mut client = WorksBlockingClient::with(&config, shop.server.address()).unwrap();
        // Its own time, the method's, and the client's.
        let outcomes = [
            client.never(&Job::new(1)).timeout(SHORT).wait(),
            client.hurry(&Job::new(1)).wait(),
            client.never(&Job::new(1)).wait(),
        ];
        for outcome in outcomes {
            assert_eq!(outcome.err().unwrap().code(), Code::DeadlineExceeded);
        }
        until("no handler runs", || shop.running() == 0);
        for number in 0..100 {
            let done = client.add(&Job::new(number)).timeout(LONG).wait().unwrap();
            assert_eq!(done.number, number + 1);
        }
    });
}

#[test]
fn a_call_without_a_deadline_waits() {
    watched(|| {
        let shop = Shop::start();
        let mut client = WorksBlockingClient::connect(shop.server.address()).unwrap();
        let waiting = thread::spawn(move || {
            let done = client.hurry(&Job::new(7)).timeout(Duration::ZERO).wait();
            done.unwrap().number.to_native()
        });
        shop.blocks_until_it_runs(1);
        shop.release();
        assert_eq!(waiting.join().unwrap(), 8);
    });
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
fn a_ticket_is_of_one_client() {
    watched(|| {
        let shop = Shop::start();
        let mut clients = [0, 1].map(|_| WorksBlockingClient::connect(shop.server.address()));
        let [Ok(one), Ok(other)] = &mut clients else { panic!("not connected") };
        let ticket = one.never(&Job::new(1)).start().unwrap();
        one.client().flush().unwrap();
        shop.blocks_until_it_runs(1);
        let outcome = other.client().finish(ticket);
        assert_status(outcome, Code::InvalidArgument, "the ticket is of another client", false);
        one.client().tend().unwrap();
        until("it was given up", || shop.running() == 0);
    });
}

#[test]
fn more_calls_than_the_server_accepts_are_refused_until_one_is_answered() {
    watched(|| {
        let server = serve(ShardConfig::new().calls_in_flight_max(2), || {
            echo::EchoServer::new(echo::Service::default())
        });
        let mut client = EchoBlockingClient::connect(server.address()).unwrap();
        let [first, second] = [1, 2].map(|id| client.grow(&Blob::new(id, 0)).start().unwrap());
        let text = "call not made: as many calls as the server accepts are in flight";
        assert_status(grown(&mut client, 3), Code::ResourceExhausted, text, true);
        // One that was given up makes room, once the server has answered it.
        drop(first);
        assert_blob(&grown(&mut client, 3).unwrap(), &Blob::new(3, 3));
        assert_blob(&client.client().finish(second).unwrap(), &Blob::new(2, 2));
    });
}

#[test]
fn one_way_calls_arrive_in_order_and_also_where_the_client_is_dropped_at_once() {
    watched(|| {
        let shop = Shop::start();
        let mut client = WorksBlockingClient::connect(shop.server.address()).unwrap();
        for number in 1_000..2_000 {
            client.note(&Job::new(number)).start().unwrap();
        }
        client.note(&Job::long(2_000, 100_000)).send().unwrap();
        client.note(&Job::long(2_001, 100_000)).start().unwrap();
        client.note(&Job::new(2_002)).start().unwrap();
        drop(client);
        until("all have arrived", || shop.noted().len() == 1_003);
        assert_eq!(shop.noted(), (1_000..2_003).collect::<Vec<_>>());
    });
}

#[test]
fn a_one_way_call_that_fails_is_told_of() {
    watched(|| {
        let shop = Shop::start();
        let mut client = WorksBlockingClient::connect(shop.server.address()).unwrap();
        let (tell, told) = channel();
        client.client().on_notice(move |number, status| {
            tell.send((number, status.code())).unwrap();
        });
        client.note(&Job::new(1)).send().unwrap();
        client.note(&Job::new(BAD)).send().unwrap();
        // Handlers run in order, and so do their answers.
        client.add(&Job::new(1)).wait().unwrap();
        assert_eq!(told.try_iter().collect::<Vec<_>>(), [(2, Code::Internal)]);
    });
}

#[test]
fn one_way_calls_with_a_time_out_and_metadata_say_so() {
    watched(|| {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let peer = thread::spawn(move || {
            let mut peer = Peer::serve(&listener, WorksClient::METHODS);
            peer.frame()
        });
        let mut client = WorksBlockingClient::connect(address).unwrap();
        let mut metadata = Metadata::new();
        metadata.insert_named("colour", b"blue").unwrap();
        let note = Job::new(3);
        client.note(&note).timeout(Duration::from_secs(1)).metadata(&metadata).send().unwrap();
        let frame = peer.join().unwrap();
        assert_eq!((frame.kind, frame.call, frame.meta_len), (ONEWAY, 1, 1));
        assert!((1..=1_000_000).contains(&frame.time_us), "{}", frame.time_us);
    });
}

#[test]
fn each_thread_has_a_client_and_one_can_change_its_thread() {
    watched(|| {
        let server = echo::serve(ShardConfig::new());
        let address = server.address();
        let threads = (0..4).map(|thread| {
            thread::spawn(move || {
                let mut client = EchoBlockingClient::connect(address).unwrap();
                for id in 0..200 {
                    let id = thread * 1_000 + id;
                    assert_blob(&grown(&mut client, id).unwrap(), &Blob::new(id, id as usize));
                }
                let ticket = client.grow(&Blob::new(thread, 0)).start().unwrap();
                // Its outcome is there, and is taken by another thread.
                grown(&mut client, 1).unwrap();
                (client, ticket, thread)
            })
        });
        for thread in threads.collect::<Vec<_>>() {
            let (mut client, ticket, id) = thread.join().unwrap();
            let reply = client.client().finish(ticket).unwrap();
            assert_blob(&reply, &Blob::new(id, id as usize));
        }
    });
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
fn a_server_drains_as_soon_as_its_clients_are_tended() {
    watched(|| {
        let server = echo::serve(ShardConfig::new());
        let mut client = EchoBlockingClient::connect(server.address()).unwrap();
        grown(&mut client, 1).unwrap();
        server.drain(LONG);
        until("the client knows", || client.client().tend().is_err());
        let refused = grown(&mut client, 1).err().unwrap();
        assert_eq!((refused.code(), refused.is_not_executed()), (Code::Unavailable, true));
        server.join().unwrap();
    });
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

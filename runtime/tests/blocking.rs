//! The blocking client and a server.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod support;

use std::{net::TcpListener, sync::mpsc::channel, thread, time::Duration};

use ringcall::{
    Code, Context, Metadata, MethodInfo, Request, ShardConfig, Status,
    blocking::{ClientConfig, Ticket},
};
use support::{
    blocking::{assert_blob, assert_status, grown},
    echo::{self, Blob, EchoBlockingClient, EchoClient, Nothing},
    raw::{ONEWAY, Peer},
    server::{one_shard, serve},
    wait::{until, watched},
    works::{BAD, Job, LONG, SHORT, Shop, WorksBlockingClient, WorksClient},
};

/// `Echo.grow`.
const GROW: &MethodInfo = &EchoClient::METHODS[6];

/// Lengths around those at which bytes are received otherwise.
const LENGTHS: [usize; 12] =
    [0, 1, 100, 4_000, 16_300, 16_400, 40_000, 65_400, 65_600, 200_000, 1 << 20, 3 << 20];

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

//! Errors of a service's own: they travel as a status with details, and come back as what they
//! were.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod support;

use std::{net::TcpListener, thread};

use ringcall::{ServerHandle, ShardConfig, prelude::*};
use support::{
    raw::{DETAILS, Frame, Peer, archive, call, request, status},
    server::{counters, serve as serve_one},
    station::run,
    wait::{until_async, watched},
};

#[ringcall::message]
pub struct Order {
    pub item: String,
    pub count: u32,
}

#[ringcall::message]
pub struct Bill {
    pub cents: u64,
}

/// What is said of an order that fails, to programs.
#[ringcall::message]
pub struct Shortage {
    pub item: String,
    pub left: u32,
}

/// Why an order fails, to who writes the program.
#[derive(Debug, PartialEq)]
pub enum OrderError {
    SoldOut { item: String, left: u32 },
    Other(Status),
}

impl From<OrderError> for Status {
    fn from(error: OrderError) -> Self {
        match error {
            OrderError::SoldOut { item, left } => {
                let status = Self::new(Code::ResourceExhausted, "sold out");
                status.with_details(&Shortage { item, left }).unwrap()
            }
            OrderError::Other(status) => status,
        }
    }
}

impl From<Status> for OrderError {
    fn from(status: Status) -> Self {
        match status.details::<Shortage>() {
            Some(shortage) => Self::SoldOut {
                item: shortage.item.as_str().to_owned(),
                left: shortage.left.into(),
            },
            None => Self::Other(status),
        }
    }
}

#[ringcall::service]
pub trait Store {
    /// There are three of everything.
    async fn order(&self, cx: &Context, request: Request<'_, Order>) -> Result<Bill, OrderError>;
    /// As `order`, after a while.
    async fn order_later(
        &self,
        cx: &Context,
        request: Request<'_, Order>,
    ) -> Result<Bill, OrderError>;
    /// Fails with a text of as many bytes as are ordered.
    async fn talk(&self, cx: &Context, request: Request<'_, Order>) -> Result<Bill, Status>;
}

struct Shelf;

fn sell(request: Request<'_, Order>) -> Result<Bill, OrderError> {
    let (item, count) = (request.item.as_str(), request.count.to_native());
    match count {
        0 => Err(OrderError::Other(Status::new(Code::InvalidArgument, "order some"))),
        1..=3 => Ok(Bill { cents: 100 * u64::from(count) }),
        _ => Err(OrderError::SoldOut { item: item.to_owned(), left: 3 }),
    }
}

impl Store for Shelf {
    async fn order(&self, _: &Context, request: Request<'_, Order>) -> Result<Bill, OrderError> {
        sell(request)
    }

    async fn order_later(
        &self,
        _: &Context,
        request: Request<'_, Order>,
    ) -> Result<Bill, OrderError> {
        ringcall::yield_now().await;
        sell(request)
    }

    async fn talk(&self, _: &Context, request: Request<'_, Order>) -> Result<Bill, Status> {
        // Two bytes each, of which none is cut in two.
        let text = "ä".repeat(request.count.to_native() as usize / 2);
        Err(Status::new(Code::DataLoss, text))
    }
}

fn serve() -> ServerHandle {
    serve_one(ShardConfig::new(), || StoreServer::new(Shelf))
}

fn order(count: u32) -> Order {
    Order { item: "lamp".to_owned(), count }
}

fn sold_out() -> OrderError {
    OrderError::SoldOut { item: "lamp".to_owned(), left: 3 }
}

#[test]
fn an_error_comes_back_as_what_it_was() {
    watched(|| {
        let server = serve();
        run(async {
            let store = StoreClient::connect(server.address()).await.unwrap();
            assert_eq!(store.order(&order(2)).await.unwrap().cents, 200);
            assert_eq!(store.order(&order(4)).await.err(), Some(sold_out()));
            assert_eq!(store.order_later(&order(4)).await.err(), Some(sold_out()));
            let none = Status::new(Code::InvalidArgument, "order some");
            assert_eq!(store.order(&order(0)).await.err(), Some(OrderError::Other(none)));
        });
        assert_eq!(counters(&server).calls_refused, 0);
    });
}

#[test]
fn a_failure_of_the_connection_is_an_error_too() {
    watched(|| {
        let server = serve();
        run(async {
            let store = StoreClient::connect(server.address()).await.unwrap();
            server.stop();
            until_async("it is closed", || !store.client().is_open()).await;
            match store.order(&order(1)).await.err().unwrap() {
                OrderError::Other(status) => {
                    assert_eq!(status.code(), Code::Unavailable);
                    assert!(status.is_not_executed());
                }
                error @ OrderError::SoldOut { .. } => panic!("{error:?}"),
            }
        });
    });
}

#[test]
fn details_are_read_as_what_they_are_and_as_nothing_else() {
    watched(|| {
        let server = serve();
        run(async {
            let store = StoreClient::connect(server.address()).await.unwrap();
            // The same call, to who does not know the error.
            let (method, order) = (&StoreClient::METHODS[0], order(9));
            let plain = store.client().call::<Order, Bill, Status>(method, &order);
            let status = plain.await.err().unwrap();
            assert_eq!((status.code(), status.message()), (Code::ResourceExhausted, "sold out"));
            assert!(status.has_details());
            assert_eq!(status.details::<Shortage>().unwrap().left, 3);
            assert!(status.details::<Bill>().is_none());
            assert!(status.details::<Order>().is_none(), "of the same fields, and another type");
        });
    });
}

#[test]
fn details_travel_before_the_text() {
    watched(|| {
        let server = serve();
        let mut peer = Peer::open(server.address());
        peer.send(&request(call(0, 1), StoreClient::ORDER, &archive(&order(4))));
        let frame = peer.frame();
        let details = archive(&Shortage { item: "lamp".to_owned(), left: 3 });
        let mut body = <Shortage as ringcall::Field>::LAYOUT.to_le_bytes().to_vec();
        body.extend((details.len() as u64).to_le_bytes());
        body.extend(&details);
        body.resize(body.len().next_multiple_of(16), 0);
        body.extend(b"sold out");
        let expected = status(call(0, 1), Code::ResourceExhausted, "");
        assert_eq!(frame, Frame { flags: DETAILS, body, ..expected });
    });
}

#[test]
fn a_long_text_is_cut_between_characters() {
    watched(|| {
        let server = serve();
        run(async {
            let store = StoreClient::connect(server.address()).await.unwrap();
            for (len, arrives) in [(0, 0), (1024, 1024), (1026, 1024), (5000, 1024)] {
                let status = store.talk(&order(len)).await.err().unwrap();
                assert_eq!(status.code(), Code::DataLoss);
                assert_eq!(status.message(), "ä".repeat(arrives / 2));
            }
        });
    });
}

/// What a call ends with whose answer has these details.
fn answered_with(body: Vec<u8>) -> OrderError {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let server = thread::spawn(move || {
        let mut peer = Peer::serve(&listener, StoreClient::METHODS);
        let call = peer.frame().call;
        let failed = status(call, Code::ResourceExhausted, "");
        peer.send(&Frame { flags: DETAILS, body, ..failed });
        peer
    });
    let error = run(async move {
        let store = StoreClient::connect(address).await.unwrap();
        store.order(&order(4)).await.err().unwrap()
    });
    drop(server.join().unwrap());
    error
}

fn details(layout: u64, archive: &[u8], text: &str) -> Vec<u8> {
    let mut body = layout.to_le_bytes().to_vec();
    body.extend((archive.len() as u64).to_le_bytes());
    body.extend(archive);
    body.resize(body.len().next_multiple_of(16), 0);
    body.extend(text.as_bytes());
    body
}

#[test]
fn details_that_are_not_valid_leave_the_status_as_it_is() {
    watched(|| {
        let layout = <Shortage as ringcall::Field>::LAYOUT;
        let right = archive(&Shortage { item: "lamp".to_owned(), left: 3 });
        assert_eq!(answered_with(details(layout, &right, "x")), sold_out());
        let cut = &right[..right.len() - 4];
        for (layout, archive) in [(layout, cut), (layout ^ 1, &right), (layout, &[])] {
            match answered_with(details(layout, archive, "why")) {
                OrderError::Other(status) => {
                    assert_eq!(status.code(), Code::ResourceExhausted);
                    assert_eq!(status.message(), "why");
                }
                error @ OrderError::SoldOut { .. } => panic!("{error:?}"),
            }
        }
    });
}

#[test]
fn details_whose_lengths_lie_end_the_connection() {
    watched(|| {
        let layout = <Shortage as ringcall::Field>::LAYOUT;
        let right = archive(&Shortage { item: "lamp".to_owned(), left: 3 });
        let mut beyond = details(layout, &right, "");
        beyond[8..12].copy_from_slice(&1000_u32.to_le_bytes());
        let mut too_long = details(layout, &[0; 4097], "");
        too_long.truncate(5136);
        let mut reserved = details(layout, &right, "");
        reserved[12] = 1;
        for body in [beyond, too_long, reserved, vec![0; 15]] {
            let OrderError::Other(status) = answered_with(body) else { panic!("it has details") };
            let text = "the server broke the protocol: status with malformed details";
            assert_eq!((status.code(), status.message()), (Code::Internal, text));
        }
    });
}

#[test]
fn details_that_are_too_long_are_refused_where_they_are_made() {
    let shortage = |len| Shortage { item: "x".repeat(len), left: 0 };
    let status = || Status::new(Code::Internal, "");
    assert!(status().with_details(&shortage(4000)).is_ok());
    assert!(status().with_details(&shortage(5000)).is_err());
}

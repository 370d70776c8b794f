//! Streams: items travel in both directions while a call runs, in order, and no faster than they
//! are taken.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod support;

use ringcall::{Code, Context, Request, RunConfig, Server, ShardConfig, Sink, Source, Status};
use support::wait::watched;

#[ringcall::message]
pub struct Range {
    pub from: u64,
    pub to: u64,
}

#[ringcall::message]
pub struct Number {
    pub number: u64,
}

#[ringcall::message]
pub struct Part {
    pub bytes: Vec<u8>,
}

#[ringcall::service]
pub trait Numbers {
    /// Sends the numbers of the range, and replies with how many they were.
    async fn count(
        &self,
        cx: &Context,
        request: Request<'_, Range>,
        numbers: Sink<'_, Number>,
    ) -> Result<Number, Status>;

    /// Replies with the sum of the numbers sent.
    async fn sum(
        &self,
        cx: &Context,
        request: Request<'_, Range>,
        numbers: Source<Number>,
    ) -> Result<Number, Status>;

    /// Sends back each part.
    async fn echo(
        &self,
        cx: &Context,
        request: Request<'_, Range>,
        parts: Source<Part>,
        back: Sink<'_, Part>,
    ) -> Result<Number, Status>;
}

struct Service;

impl Numbers for Service {
    async fn count(
        &self,
        _: &Context,
        request: Request<'_, Range>,
        numbers: Sink<'_, Number>,
    ) -> Result<Number, Status> {
        let (from, to) = (request.from.to_native(), request.to.to_native());
        for number in from..to {
            numbers.send(&Number { number }).await?;
        }
        if to == 13 {
            return Err(Status::new(Code::OutOfRange, "thirteen"));
        }
        Ok(Number { number: to - from })
    }

    async fn sum(
        &self,
        _: &Context,
        _: Request<'_, Range>,
        mut numbers: Source<Number>,
    ) -> Result<Number, Status> {
        let mut sum = 0;
        while let Some(number) = numbers.next().await? {
            sum += number.number.to_native();
        }
        Ok(Number { number: sum })
    }

    async fn echo(
        &self,
        _: &Context,
        _: Request<'_, Range>,
        mut parts: Source<Part>,
        back: Sink<'_, Part>,
    ) -> Result<Number, Status> {
        let mut count = 0;
        while let Some(part) = parts.next().await? {
            back.send(&part.to_owned()?).await?;
            count += 1;
        }
        Ok(Number { number: count })
    }
}

fn with_client<F: Future<Output = ()>>(test: impl FnOnce(NumbersClient) -> F + Send + 'static) {
    watched(|| {
        let server = Server::builder().cores([0]);
        let server = server.serve(("127.0.0.1", 0), |_| NumbersServer::new(Service)).unwrap();
        let run = RunConfig::new().shard(ShardConfig::new()).run(async {
            test(NumbersClient::connect(server.address()).await.unwrap()).await;
        });
        run.unwrap();
    });
}

#[test]
fn items_of_a_server_come_in_order_and_then_the_reply() {
    with_client(async |client| {
        for len in [0, 1, 1_000, 100_000] {
            let range = Range { from: 7, to: 7 + len };
            let mut numbers = client.count(&range).await.unwrap();
            let mut expected = 7;
            while let Some(item) = numbers.next().await.unwrap() {
                assert_eq!(item.number, expected);
                expected += 1;
            }
            assert_eq!(expected, 7 + len);
            assert_eq!(numbers.finish().await.unwrap().number, len);
        }
    });
}

#[test]
fn items_of_a_client_arrive_in_order() {
    with_client(async |client| {
        let numbers = client.sum(&Range { from: 0, to: 0 }).await.unwrap();
        for number in 0..100_000 {
            numbers.send(&Number { number }).await.unwrap();
        }
        assert_eq!(numbers.finish().await.unwrap().number, 4_999_950_000);
    });
}

#[test]
fn items_of_any_length_travel_both_ways() {
    with_client(async |client| {
        let mut echo = client.echo(&Range { from: 0, to: 0 }).await.unwrap();
        for len in [0, 1, 100, 16_000, 100_000, 1 << 20, 3 << 20, 5] {
            let part = Part { bytes: vec![len as u8; len] };
            echo.send(&part).await.unwrap();
            let back = echo.next().await.unwrap().unwrap();
            assert_eq!(back.bytes.as_slice(), part.bytes);
        }
        assert_eq!(echo.finish().await.unwrap().number, 8);
    });
}

#[test]
fn a_stream_that_fails_gives_its_items_and_then_the_status() {
    with_client(async |client| {
        let mut numbers = client.count(&Range { from: 10, to: 13 }).await.unwrap();
        for expected in 10..13 {
            assert_eq!(numbers.next().await.unwrap().unwrap().number, expected);
        }
        let status = numbers.next().await.err().unwrap();
        assert_eq!((status.code(), status.message()), (Code::OutOfRange, "thirteen"));
    });
}

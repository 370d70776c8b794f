//! Clients whose server takes no more calls: they stay until it has said its last word.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod support;

use std::{cell::RefCell, net::TcpListener, rc::Rc, thread};

use ringcall::prelude::*;
use support::{
    raw::{NOTICE, ONEWAY, PING, PONG, Peer, draining, goaway, plain, status},
    wait::{until_async, watched},
};

#[ringcall::message]
struct Line {
    number: u64,
}

#[ringcall::service]
#[allow(dead_code)]
trait Log {
    #[rpc(oneway)]
    async fn note(&self, cx: &Context, request: Request<'_, Line>);
}

#[test]
fn a_one_way_call_that_crosses_a_drain_is_noticed() {
    watched(|| {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let server = thread::spawn(move || {
            let mut peer = Peer::serve(&listener, LogClient::METHODS);
            let one_way = peer.frame();
            assert_eq!(one_way.kind, ONEWAY);
            peer.send(&draining(Code::Unavailable, "the server stops"));
            peer.send(&plain(PING, 1));
            assert_eq!(peer.frame(), plain(PONG, 1));
            // The client has nothing in flight that it waits for, and stays.
            let mut notice = status(one_way.call, Code::Unavailable, "too late");
            notice.kind = NOTICE;
            peer.send(&notice);
            peer.send(&goaway(Code::Unavailable, "every call has ended"));
            peer.expect_end();
        });
        let run = ringcall::run(async move {
            let log = LogClient::connect(address).await.unwrap();
            let notices = Rc::new(RefCell::new(Vec::new()));
            let noticed = Rc::clone(&notices);
            log.client().on_notice(move |number, status| {
                noticed.borrow_mut().push((number, status.message().to_owned()));
            });
            log.note(&Line { number: 7 }).await.unwrap();
            let counters = || ringcall::counters().unwrap();
            until_async("it is closed", || counters().connections_closed == 1).await;
            assert_eq!(*notices.borrow(), [(1, "too late".to_owned())]);
            let late = log.note(&Line { number: 8 }).await.unwrap_err();
            assert!(late.is_not_executed());
        });
        run.unwrap();
        server.join().unwrap();
    });
}

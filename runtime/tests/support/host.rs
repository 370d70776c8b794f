//! A server that hostile peers connect to, with a bystander that must not notice.

use std::net::SocketAddr;

use ringcall::{Code, ServerHandle, ShardConfig, ShardCounters};

use super::{
    bystander::Bystander,
    echo::{self, Blob, EchoClient},
    raw::{Peer, archive, call, hello, reply, request},
    server,
    wait::until,
};

/// One shard, and a client on it that calls all the time.
pub(crate) struct Host {
    /// Dropped first: it needs the server.
    bystander: Bystander,
    server: ServerHandle,
}

impl Host {
    pub(crate) fn start() -> Self {
        Self::with(ShardConfig::new())
    }

    pub(crate) fn with(config: ShardConfig) -> Self {
        Self::of(echo::serve(config))
    }

    pub(crate) fn of(server: ServerHandle) -> Self {
        Self { bystander: Bystander::start(server.address()), server }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.server.address()
    }

    pub(crate) fn counters(&self) -> ShardCounters {
        server::counters(&self.server)
    }

    /// The bystander is served.
    #[track_caller]
    pub(crate) fn is_unharmed(&self) {
        self.bystander.is_served();
    }

    /// A call on an open connection is answered.
    #[track_caller]
    pub(crate) fn serves(&self, peer: &mut Peer, id: u64) {
        let body = archive(&Blob::new(id, 100));
        peer.send(&request(id, EchoClient::ECHO, &body));
        let answer = peer.frame();
        let aux = answer.aux;
        let mut expected = reply(id, &body);
        expected.aux = aux;
        assert_eq!(answer, expected);
    }

    /// Bytes on a connection that is open end it, with this code and text.
    #[track_caller]
    pub(crate) fn refuses(&self, bytes: &[u8], code: Code, text: &str) {
        let mut peer = Peer::open(self.address());
        self.refuses_on(&mut peer, bytes, code, text);
    }

    /// The first bytes of a connection end it. The server says HELLO all the same.
    #[track_caller]
    pub(crate) fn refuses_first(&self, bytes: &[u8], code: Code, text: &str) {
        let mut peer = Peer::connect(self.address());
        self.judges(&mut peer, bytes, |peer| {
            peer.expect_hello();
            peer.expect_goaway(code, text);
        });
    }

    /// Bytes on this connection end it.
    #[track_caller]
    pub(crate) fn refuses_on(&self, peer: &mut Peer, bytes: &[u8], code: Code, text: &str) {
        self.judges(peer, bytes, |peer| peer.expect_goaway(code, text));
    }

    /// Bytes are one violation, which the bystander does not notice.
    #[track_caller]
    fn judges(&self, peer: &mut Peer, bytes: &[u8], expect: impl FnOnce(&mut Peer)) {
        let before = self.counters();
        let since = || self.counters().since(&before);
        peer.send_bytes(bytes);
        expect(peer);
        assert_eq!(since().protocol_errors, 1);
        // The connection is open until the peer closes it, too.
        self.is_unharmed();
        peer.finish();
        until("the connection is closed", || since().connections_closed == 1);
        assert_eq!(since().protocol_errors, 1);
        self.is_unharmed();
    }

    /// Lets every held call go.
    pub(crate) fn release(&self) {
        let mut peer = Peer::open(self.address());
        peer.send(&request(call(0, 1), EchoClient::RELEASE, b""));
        assert_eq!(peer.frame(), reply(call(0, 1), b""));
        // Gone from the counters before the caller goes on.
        peer.finish();
        peer.expect_end();
    }

    /// A connection with two calls that wait, in slots 10 and 11.
    pub(crate) fn with_held(&self, then: impl FnOnce(&mut Peer)) {
        let before = self.counters();
        let mut peer = Peer::connect(self.address());
        let body = archive(&Blob::new(1, 48));
        let mut stream = hello().bytes();
        for slot in [10, 11] {
            stream.extend(request(call(slot, 1), EchoClient::HOLD, &body).bytes());
        }
        peer.send_bytes(&stream);
        peer.expect_hello();
        until("both calls wait", || self.counters().since(&before).calls_spawned == 2);
        then(&mut peer);
        self.release();
    }
}

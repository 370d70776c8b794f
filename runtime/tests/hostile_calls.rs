//! Calls that cannot be run: each fails alone, and its connection lives on.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod support;

use ringcall::{Code, ShardConfig};
use support::{
    echo::{ArchivedForm, Blob, Choice, EchoClient, Form},
    host::Host,
    raw::{Peer, Random, archive, call, reply, request},
    wait::watched,
};

/// Makes calls with these bodies. Each fails without its handler, and the next call is served.
fn refuses_bodies(method: u32, bodies: &[Vec<u8>]) {
    let host = Host::start();
    let before = host.counters();
    let mut peer = Peer::open(host.address());
    for (generation, body) in (1..).zip(bodies) {
        let id = call(0, generation);
        peer.send(&request(id, method, body));
        let len = body.len();
        let text = format!("request: body of {len} bytes is not a valid archive of the message");
        peer.frame().assert_refusal(id, Code::InvalidArgument, &text);
        host.serves(&mut peer, call(1, generation));
    }
    host.is_unharmed();
    let since = host.counters().since(&before);
    assert_eq!(since.calls_refused, bodies.len() as u64);
    assert_eq!((since.protocol_errors, since.connections_closed), (0, 0));
}

#[test]
fn a_method_that_is_not_there_fails_its_call_alone() {
    watched(|| {
        let host = Host::start();
        let before = host.counters();
        let mut peer = Peer::open(host.address());
        let body = archive(&Blob::new(1, 48));
        let unknown = [0, 1, EchoClient::ECHO + 1, u32::MAX];
        for (generation, method) in (1..).zip(unknown) {
            let id = call(0, generation);
            peer.send(&request(id, method, &body));
            let text = format!("no method has the id {method:#010x}");
            peer.frame().assert_refusal(id, Code::Unimplemented, &text);
            host.serves(&mut peer, call(1, generation));
        }
        host.is_unharmed();
        let since = host.counters().since(&before);
        assert_eq!(since.calls_refused, unknown.len() as u64);
        assert_eq!((since.protocol_errors, since.connections_closed), (0, 0));
    });
}

#[test]
fn a_body_of_no_bytes_fails_its_call_unless_the_message_has_none() {
    watched(|| {
        let host = Host::start();
        let mut peer = Peer::open(host.address());
        let id = call(0, 1);
        peer.send(&request(id, EchoClient::ECHO, b""));
        let text = "request: body of 0 bytes is not a valid archive of the message";
        peer.frame().assert_refusal(id, Code::InvalidArgument, text);
        peer.send(&request(call(1, 1), EchoClient::RELEASE, b""));
        assert_eq!(peer.frame(), reply(call(1, 1), b""));
        // The last frame that a piece of the stream holds, so that nothing stands behind it.
        host.serves(&mut peer, call(2, 1));
        host.is_unharmed();
    });
}

#[test]
fn a_body_that_is_cut_anywhere_fails_its_call() {
    watched(|| {
        let whole = archive(&Blob::new(1, 40));
        let cut: Vec<_> = (0..whole.len()).map(|len| whole[..len].to_vec()).collect();
        let ends = (1..whole.len()).map(|from| whole[from..].to_vec());
        // What remains of the end can be a message if nothing points before it.
        let ends = ends.filter(|end| end.len() < 16 || !end.len().is_multiple_of(8));
        refuses_bodies(EchoClient::ECHO, &[cut, ends.collect()].concat());
    });
}

/// The length of a text that does not stand inline, as it is archived.
fn text_len(len: u32) -> [u8; 4] {
    (len & 0x3f | 0x80 | (len & !0x3f) << 2).to_le_bytes()
}

/// A form's archive with bytes of its root replaced.
fn form_with(at: usize, bytes: &[u8]) -> Vec<u8> {
    let form = Form {
        name: "a name that is too long to stand inline".to_owned(),
        is_set: true,
        letter: 'x',
        choice: Choice::Other(7),
        maybe: Some(9),
    };
    let mut archive = archive(&form);
    let root = archive.len() - size_of::<ArchivedForm>();
    archive[root + at..root + at + bytes.len()].copy_from_slice(bytes);
    archive
}

#[test]
fn values_that_a_type_does_not_have_fail_their_calls() {
    watched(|| {
        use std::mem::offset_of;
        let name = offset_of!(ArchivedForm, name);
        let text = form_with(0, &[]);
        let mut not_utf8 = text.clone();
        not_utf8[3] = 0xff;
        refuses_bodies(
            EchoClient::FILL,
            &[
                not_utf8,
                // A text that is longer than the body, or lies outside of it.
                form_with(name, &text_len(73)),
                form_with(name, &text_len(4000)),
                form_with(name, &text_len((1 << 30) - 1)),
                form_with(name + 4, &i32::MIN.to_le_bytes()),
                form_with(name + 4, &i32::MAX.to_le_bytes()),
                form_with(name + 4, &64_i32.to_le_bytes()),
                form_with(name + 4, &(-4000_i32).to_le_bytes()),
                form_with(offset_of!(ArchivedForm, is_set), &[2]),
                form_with(offset_of!(ArchivedForm, letter), &0xd800_u32.to_le_bytes()),
                form_with(offset_of!(ArchivedForm, letter), &0x11_0000_u32.to_le_bytes()),
                form_with(offset_of!(ArchivedForm, choice), &[2]),
                form_with(offset_of!(ArchivedForm, maybe), &[2]),
            ],
        );
    });
}

#[test]
fn the_form_that_those_were_made_of_is_valid() {
    watched(|| {
        let host = Host::start();
        let mut peer = Peer::open(host.address());
        peer.send(&request(call(0, 1), EchoClient::FILL, &form_with(0, &[])));
        assert_eq!(peer.frame(), reply(call(0, 1), b""));
    });
}

#[test]
fn bodies_of_garbage_fail_their_calls() {
    watched(|| {
        let host = Host::start();
        let mut peer = Peer::open(host.address());
        let mut random = Random::new(7);
        for generation in 1..=300 {
            let len = (random.number() % 300) as usize;
            let id = call(0, generation);
            let garbage = random.bytes(len);
            peer.send(&request(id, EchoClient::FILL, &garbage));
            let text =
                format!("request: body of {len} bytes is not a valid archive of the message");
            peer.frame().assert_refusal(id, Code::InvalidArgument, &text);
        }
        host.serves(&mut peer, call(1, 1));
        host.is_unharmed();
    });
}

#[test]
fn a_reply_that_the_peer_does_not_accept_becomes_a_status() {
    watched(|| {
        let host = Host::start();
        let mut peer = Peer::connect(host.address());
        peer.send(&support::raw::hello_of(64 * 1024, 16, (0, 0), &[]));
        peer.expect_hello();
        // The handler makes a reply as long as it is told.
        let body = archive(&Blob::new(64 * 1024, 0));
        peer.send(&request(call(0, 1), EchoClient::GROW, &body));
        let text = "reply: message does not fit into a body of 65504 bytes, the most the peer \
                    accepts";
        let status = support::raw::status(call(0, 1), Code::ResourceExhausted, text);
        assert_eq!(peer.frame(), status);
        let longest = archive(&Blob::new(65_504 - 16, 0));
        peer.send(&request(call(1, 1), EchoClient::GROW, &longest));
        assert_eq!(peer.frame().body.len(), 65_504);
        host.serves(&mut peer, call(2, 1));
    });
}

#[test]
fn as_many_calls_as_announced_can_be_in_flight() {
    watched(|| {
        let host = Host::with(ShardConfig::new().calls_in_flight_max(64));
        let mut peer = Peer::open(host.address());
        let body = archive(&Blob::new(1, 48));
        let before = host.counters();
        for slot in 0..64 {
            peer.send(&request(call(slot, 1), EchoClient::HOLD, &body));
        }
        support::wait::until("all wait", || host.counters().since(&before).calls_spawned == 64);
        host.is_unharmed();
        host.release();
        let mut slots: Vec<_> = (0..64).map(|_| peer.frame().call as u32).collect();
        slots.sort_unstable();
        assert_eq!(slots, (0..64).collect::<Vec<_>>());
    });
}

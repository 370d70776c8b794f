//! A connection that speaks HTTP leaves its shard.
//!
//! What it begins with is looked at until it has said HELLO, and never after. The kernel receives
//! for it until that was cancelled; what has come by then goes with the socket.

use std::rc::Rc;

use super::{HEAD_LEN_MAX, endpoint::Handed, request::TOO_MANY};
use crate::{
    connection::{Connection, Side, State},
    ring::Chunk,
};

/// What the first line of a request begins with. No HELLO does: its length would be beyond the
/// longest by far.
const METHODS: [&[u8]; 10] = [
    b"GET ",
    b"HEAD ",
    b"POST ",
    b"PUT ",
    b"DELETE ",
    b"OPTIONS ",
    b"PATCH ",
    b"TRACE ",
    b"CONNECT ",
    b"PRI ",
];

/// Whether a stream begins as an HTTP request does. It came in two pieces, of which the first may
/// be empty.
fn is_request(first: &[u8], then: &[u8]) -> bool {
    METHODS.iter().any(|method| {
        let (head, tail) = method.split_at(first.len().min(method.len()));
        first.starts_with(head) && then.starts_with(tail)
    })
}

impl Connection {
    /// Whether what has come of a stream that has said no HELLO is HTTP.
    #[inline]
    pub(crate) fn speaks_http(&self, input: &[u8]) -> bool {
        match self.receive.borrow().decoder.first_bytes() {
            None => false,
            Some(first) => self.begins_as_http(first, input),
        }
    }

    #[cold]
    fn begins_as_http(&self, first: &[u8], then: &[u8]) -> bool {
        let is_answered = self.side == Side::Server && self.shard.http.get().is_some();
        is_answered && is_request(first, then)
    }

    /// Leaves the shard once the kernel receives no more for it.
    pub(crate) fn leave_for_http(self: &Rc<Self>, chunk: Chunk) {
        self.set_state(State::LeavingForHttp);
        self.shard.clear_timer(self);
        self.keep_unread(chunk);
        self.stop_receiving();
    }

    /// Goes to the thread that answers HTTP.
    pub(crate) fn hand_to_http(&self) {
        let Some(socket) = self.socket() else { return };
        let mut head = self.take_unread(HEAD_LEN_MAX);
        let socket = rustix::io::fcntl_dupfd_cloexec(socket, 0);
        if let (Some(door), Ok(socket)) = (self.shard.http.get(), socket) {
            self.shard.counters.connections_http.add(1);
            head.shrink_to_fit();
            if let Err(Handed { socket, .. }) = door.hand(Handed { socket, head }) {
                let flags = rustix::net::SendFlags::DONTWAIT | rustix::net::SendFlags::NOSIGNAL;
                // It may have gone away meanwhile.
                let _ = rustix::net::send(&socket, &TOO_MANY.bytes(), flags);
            }
        }
        self.finish("it speaks HTTP");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_told_from_a_frame_however_it_comes() {
        let request = b"GET / HTTP/1.1\r\n\r\n";
        for cut in 0..request.len() {
            let is_cut_early = cut < 4;
            assert!(is_request(&request[..cut], &request[cut..]), "{cut}");
            assert_eq!(is_request(b"", &request[..cut]), !is_cut_early, "{cut}");
        }
        assert!(is_request(b"", b"OPTIONS * HTTP/1.1"));
        assert!(!is_request(b"", b"GETTING"));
        assert!(!is_request(b"", b""));
        assert!(!is_request(b"\x10\0\0\0\0\0\x01\0", b"ringcall"));
        assert!(!is_request(b"\x16\x03\x01", b"\x02\x00\x01"));
    }
}

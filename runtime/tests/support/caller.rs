//! A caller that decides which byte of a call it sends when, on a blocking socket.

use std::{io::Write, net::SocketAddr};

use ringcall::{
    Message,
    rkyv::{
        Serialize, api::high::HighSerializer, rancor, ser::allocator::ArenaHandle, util::AlignedVec,
    },
};
use ringcall_codec::access;

use super::raw::{Peer, RESPONSE, archive, call, request};

/// An open connection. Its calls have the slots 0, 1, 2 and so on.
pub(crate) struct Caller {
    peer: Peer,
    calls: u32,
}

impl Caller {
    /// Connects and exchanges HELLOs.
    pub(crate) fn connect(address: SocketAddr) -> Self {
        let peer = Peer::open(address);
        Self { peer, calls: 0 }
    }

    /// The frame of the next call, to be sent by the test.
    pub(crate) fn frame<Q>(&mut self, method: u32, message: &Q) -> Vec<u8>
    where
        Q: for<'a> Serialize<HighSerializer<AlignedVec, ArenaHandle<'a>, rancor::Error>>,
    {
        self.calls += 1;
        request(call(self.calls - 1, 1), method, &archive(message)).bytes()
    }

    #[track_caller]
    pub(crate) fn send(&mut self, bytes: &[u8]) {
        self.peer.stream.write_all(bytes).unwrap();
    }

    /// Reads the next frame, which must be a reply.
    #[track_caller]
    pub(crate) fn reply<R: Message, T>(&mut self, read: impl FnOnce(&R::Archived) -> T) -> T {
        let frame = self.peer.frame();
        assert_eq!((frame.kind, frame.code), (RESPONSE, 0), "{frame:?}");
        // With capacity, as an empty one is not aligned.
        let mut body = AlignedVec::<16>::with_capacity(16);
        body.extend_from_slice(&frame.body);
        read(access::<R>(&body).unwrap())
    }
}

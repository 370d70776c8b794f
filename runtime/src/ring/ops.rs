//! Operations in flight: each owns what the kernel may touch until its own last completion.

use std::{net::SocketAddr, os::fd::OwnedFd, rc::Rc};

use super::owned::OwnedBuffer;

/// A socket that operations can be in flight on. Each keeps a reference, so that the descriptor
/// is closed, and its number used again, only after the last of them has completed.
pub type Socket = Rc<OwnedFd>;

/// An operation that was given to the ring. It names nothing once the operation has completed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OpId(pub(super) u64);

/// What an operation in flight owns.
#[derive(Debug)]
pub(super) enum Op {
    Accept(#[expect(dead_code, reason = "kept for the kernel")] Socket),
    Receive(#[expect(dead_code, reason = "kept for the kernel")] Socket),
    ReceiveInto(#[expect(dead_code, reason = "kept for the kernel")] Socket, OwnedBuffer),
    Send(#[expect(dead_code, reason = "kept for the kernel")] Socket, Vec<u8>, usize),
    Connect(#[expect(dead_code, reason = "kept for the kernel")] Socket, Box<socket2::SockAddr>),
    Cancel,
}

/// The operations in flight, by slot; an id is the slot and the generation of its use.
#[derive(Debug, Default)]
pub(super) struct Ops {
    slots: Vec<Slot>,
    free: Vec<u32>,
}

#[derive(Debug)]
struct Slot {
    generation: u32,
    token: u64,
    op: Option<Op>,
}

impl Ops {
    #[inline]
    pub(super) fn insert(&mut self, token: u64, op: Op) -> OpId {
        let slot = self.free.pop().unwrap_or_else(|| {
            self.slots.push(Slot { generation: 0, token: 0, op: None });
            self.slots.len() as u32 - 1
        });
        let entry = &mut self.slots[slot as usize];
        entry.generation = entry.generation.wrapping_add(1);
        entry.token = token;
        entry.op = Some(op);
        OpId(u64::from(slot) | u64::from(entry.generation) << 32)
    }

    /// The token and the operation with this id; none where it has completed.
    #[inline]
    pub(super) fn get_mut(&mut self, id: OpId) -> Option<(u64, &mut Op)> {
        let entry = self.slots.get_mut(id.0 as u32 as usize)?;
        if u64::from(entry.generation) != id.0 >> 32 {
            return None;
        }
        let token = entry.token;
        entry.op.as_mut().map(|op| (token, op))
    }

    /// Ends an operation, and gives what it owned.
    #[inline]
    pub(super) fn remove(&mut self, id: OpId) -> Option<Op> {
        self.get_mut(id)?;
        self.free.push(id.0 as u32);
        self.slots[id.0 as u32 as usize].op.take()
    }

    /// Operations in flight.
    #[inline]
    pub(super) fn len(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    /// Ids of every operation in flight.
    pub(super) fn ids(&self) -> Vec<OpId> {
        let in_flight = (0_u32..).zip(&self.slots).filter(|(_, slot)| slot.op.is_some());
        in_flight.map(|(n, slot)| OpId(u64::from(n) | u64::from(slot.generation) << 32)).collect()
    }
}

/// An address as the kernel reads it, at a place that does not move.
pub(super) fn socket_address(address: &SocketAddr) -> Box<socket2::SockAddr> {
    Box::new((*address).into())
}

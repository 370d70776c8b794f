//! Operations that the kernel has, and what they own.
//!
//! Beside the ring on the path of a call: starting an operation enters it here, its completions
//! find it here. An operation owns its socket and the memory the kernel touches until its final
//! completion, whatever was dropped meanwhile. Completions of an operation that is gone are
//! never taken for those of another.

#![allow(unsafe_code)]

use std::{
    io,
    ops::Range,
    os::fd::{AsRawFd, FromRawFd, OwnedFd},
    rc::Rc,
};

use io_uring::{
    cqueue::{self, buffer_select, more},
    opcode, squeue,
    types::Fd,
};
use rustix::{
    event::PollFlags,
    net::{RecvFlags, SendFlags, SocketFlags},
};
use socket2::SockAddr;

use super::{Bell, Completion, Event, Lease, OpId, OwnedBuffer, Pool, Socket, kernel::POOL_GROUP};
use crate::slab::reserve;

/// Bytes that one operation moves at most. The kernel itself stops a little below 2 GiB.
const OPERATION_LEN_MAX: usize = 1 << 30;

/// An operation, with all that the kernel may touch on its behalf. Small, as every connection has
/// one in flight that waits for its peer.
pub(super) enum Operation {
    Accept {
        /// Only kept open.
        _listener: Socket,
    },
    Recv {
        _socket: Socket,
    },
    RecvInto {
        _socket: Socket,
        buffer: OwnedBuffer,
    },
    Send {
        _socket: Socket,
        bytes: Vec<u8>,
        from: usize,
    },
    /// The lease keeps every writer away, the kernel's receives included.
    SendShared {
        _socket: Socket,
        bytes: Lease,
        from: usize,
    },
    Connect {
        _socket: Socket,
        /// No `Box`: moving one ends what pointers into it are good for.
        _address: Rc<SockAddr>,
    },
    Watch {
        _bell: Bell,
    },
}

const _: () = assert!(size_of::<Option<Operation>>() <= 40);

/// An operation, and the entry that asks the kernel for it. The entry points into memory that the
/// operation owns and that does not move with it.
pub(super) struct Submission {
    operation: Operation,
    entry: squeue::Entry,
}

impl Submission {
    pub(super) fn accept(listener: Socket) -> Self {
        let flags = SocketFlags::CLOEXEC.bits().cast_signed();
        let entry = opcode::AcceptMulti::new(fd(&listener)).flags(flags).build();
        Self { operation: Operation::Accept { _listener: listener }, entry }
    }

    #[inline]
    pub(super) fn recv(socket: Socket) -> Self {
        let entry = opcode::RecvMulti::new(fd(&socket), POOL_GROUP).build();
        Self { operation: Operation::Recv { _socket: socket }, entry }
    }

    /// Into this range of the buffer, cut to its capacity.
    #[inline]
    pub(super) fn recv_into(
        socket: Socket,
        mut buffer: OwnedBuffer,
        range: Range<usize>,
        wait_all: bool,
    ) -> Self {
        let to = range.end.min(buffer.len());
        let from = range.start.min(to);
        let len = (to - from).min(OPERATION_LEN_MAX) as u32;
        let flags = if wait_all { RecvFlags::WAITALL } else { RecvFlags::empty() };
        // In bounds: `from` is at most the buffer's length.
        let start = buffer.start().as_ptr().wrapping_add(from);
        let entry = opcode::Recv::new(fd(&socket), start, len);
        let entry = entry.flags(flags.bits().cast_signed()).build();
        Self { operation: Operation::RecvInto { _socket: socket, buffer }, entry }
    }

    /// Of this range of the bytes, cut to where they end.
    #[inline]
    pub(super) fn send(socket: Socket, bytes: Vec<u8>, range: Range<usize>, more: bool) -> Self {
        let Range { start: from, end: to } = range;
        let entry = send_entry(&socket, bytes.get(..to).unwrap_or(&bytes), from, more);
        Self { operation: Operation::Send { _socket: socket, bytes, from }, entry }
    }

    #[inline]
    pub(super) fn send_shared(socket: Socket, bytes: Lease, from: usize) -> Self {
        let entry = send_entry(&socket, &bytes, from, false);
        Self { operation: Operation::SendShared { _socket: socket, bytes, from }, entry }
    }

    pub(super) fn connect(socket: Socket, address: Rc<SockAddr>) -> Self {
        let entry = opcode::Connect::new(fd(&socket), address.as_ptr().cast(), address.len());
        let entry = entry.build();
        Self { operation: Operation::Connect { _socket: socket, _address: address }, entry }
    }

    pub(super) fn watch(bell: Bell) -> Self {
        let readable = u32::from(PollFlags::IN.bits());
        let entry = opcode::PollAdd::new(Fd(bell.as_raw_fd()), readable).multi(true).build();
        Self { operation: Operation::Watch { _bell: bell }, entry }
    }
}

impl Operation {
    /// What a completion that others will follow says. None where the operation has one only.
    #[inline]
    fn step(&self, result: i32, filled: Option<super::Filled>) -> Option<Event> {
        match self {
            Self::Accept { .. } => Some(accepted(result, true)),
            Self::Recv { .. } => Some(received(result, filled, true)),
            Self::Watch { .. } => Some(Event::Rung { more: true }),
            Self::RecvInto { .. }
            | Self::Send { .. }
            | Self::SendShared { .. }
            | Self::Connect { .. } => None,
        }
    }

    /// What the final completion says; gives back what the operation owned.
    #[inline]
    fn finish(self, result: i32, filled: Option<super::Filled>) -> Event {
        match self {
            Self::Accept { .. } => accepted(result, false),
            Self::Recv { .. } => received(result, filled, false),
            Self::RecvInto { buffer, .. } => Event::ReceivedInto { result: count(result), buffer },
            Self::Send { bytes, from, .. } => Event::Sent { result: count(result), bytes, from },
            Self::SendShared { bytes, from, .. } => {
                Event::SentShared { result: count(result), bytes, from }
            }
            Self::Connect { .. } => Event::Connected { result: count(result).map(drop) },
            Self::Watch { .. } => Event::Rung { more: false },
        }
    }
}

/// Asks for `bytes[from..]` to be sent; with `more` they may wait for what is sent next.
#[inline]
fn send_entry(socket: &Socket, bytes: &[u8], from: usize, more: bool) -> squeue::Entry {
    let unsent = bytes.get(from..).unwrap_or_default();
    let len = unsent.len().min(OPERATION_LEN_MAX) as u32;
    // The kernel knows one set of flags; the crate has a type for each direction.
    let more = if more { SendFlags::MORE } else { SendFlags::empty() };
    let flags = SendFlags::NOSIGNAL.bits() | more.bits() | RecvFlags::WAITALL.bits();
    opcode::Send::new(fd(socket), unsent.as_ptr(), len).flags(flags.cast_signed()).build()
}

#[inline]
fn fd(socket: &Socket) -> Fd {
    Fd(socket.as_raw_fd())
}

#[inline]
fn count(result: i32) -> io::Result<usize> {
    usize::try_from(result).map_err(|_| error(result))
}

#[inline]
fn error(result: i32) -> io::Error {
    io::Error::from_raw_os_error(result.saturating_neg())
}

#[inline]
fn accepted(result: i32, more: bool) -> Event {
    let result = if result < 0 {
        Err(error(result))
    } else {
        // SAFETY: an accept that succeeds gives a descriptor that nobody else knows of.
        Ok(unsafe { OwnedFd::from_raw_fd(result) })
    };
    Event::Accepted { result, more }
}

#[inline]
fn received(result: i32, filled: Option<super::Filled>, more: bool) -> Event {
    let result = match (result, filled) {
        (1.., Some(filled)) => Ok(Some(filled)),
        // Bytes without a buffer: no kernel does this, and the stream cannot be trusted further.
        (1.., None) => Err(rustix::io::Errno::IO.into()),
        (0, _) => Ok(None),
        (..0, _) => Err(error(result)),
    };
    Event::Received { result, more }
}

/// The table of operations in flight.
pub(super) struct InFlight {
    slots: Vec<Slot>,
    /// The first of the free slots, which are chained by their links; or [`NO_SLOT`].
    first_free: u32,
    len: usize,
}

struct Slot {
    token: u64,
    /// Counts the operations that the slot has had.
    generation: u32,
    /// Of a free slot: the next that is free, or [`NO_SLOT`]. Else whether the operation is
    /// [`CANCELLED`].
    link: u32,
    operation: Option<Operation>,
}

const _: () = assert!(size_of::<Slot>() <= 56);

/// No slot: there are fewer than as many operations.
const NO_SLOT: u32 = u32::MAX;

/// The link of a slot whose operation was cancelled, and of one whose operation was not.
const CANCELLED: u32 = 1;
const NOT_CANCELLED: u32 = 0;

impl Default for InFlight {
    fn default() -> Self {
        Self { slots: Vec::new(), first_free: NO_SLOT, len: 0 }
    }
}

impl InFlight {
    /// Operations without a final completion.
    #[inline]
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// Enters an operation, and gives the entry that asks the kernel for it. What the entry
    /// points to lives until the operation's final completion is given to
    /// [`complete`](Self::complete), or this table is dropped.
    #[inline]
    pub(super) fn start(&mut self, token: u64, submission: Submission) -> (OpId, squeue::Entry) {
        if self.first_free == NO_SLOT {
            self.grow();
        }
        let Submission { operation, entry } = submission;
        let index = self.first_free;
        let slot = &mut self.slots[index as usize];
        self.first_free = std::mem::replace(&mut slot.link, NOT_CANCELLED);
        self.len += 1;
        slot.token = token;
        let op = OpId::new(index, slot.generation);
        slot.operation = Some(operation);
        (op, entry.user_data(op.0))
    }

    #[cold]
    fn grow(&mut self) {
        reserve(&mut self.slots, 1);
        self.first_free = self.slots.len() as u32;
        self.slots.push(Slot { token: 0, generation: 0, link: NO_SLOT, operation: None });
    }

    /// Marks an operation as cancelled; false where it is gone or was marked before.
    pub(super) fn cancel(&mut self, op: OpId) -> bool {
        match self.slots.get_mut(op.index()) {
            Some(slot) if slot.has(op) => {
                std::mem::replace(&mut slot.link, CANCELLED) == NOT_CANCELLED
            }
            _ => false,
        }
    }

    /// Matches a completion with its operation. None where it belongs to none; a buffer in it
    /// goes back to the kernel.
    #[inline]
    pub(super) fn complete(
        &mut self,
        entry: &cqueue::Entry,
        pool: &Rc<Pool>,
    ) -> Option<Completion> {
        let op = OpId(entry.user_data());
        let result = entry.result();
        let flags = entry.flags();
        // Taken over first of all, so that it goes back to the kernel on every path.
        let filled =
            buffer_select(flags).and_then(|bid| pool.fill(bid, result.max(0).cast_unsigned()));
        let slot = self.slots.get_mut(op.index()).filter(|slot| slot.has(op))?;
        let token = slot.token;
        if more(flags) {
            let event = slot.operation.as_ref()?.step(result, filled)?;
            return Some(Completion { token, op, event });
        }
        let operation = slot.operation.take()?;
        slot.generation = slot.generation.wrapping_add(1);
        slot.link = std::mem::replace(&mut self.first_free, op.index() as u32);
        self.len -= 1;
        Some(Completion { token, op, event: operation.finish(result, filled) })
    }
}

impl Slot {
    /// Whether the slot's operation is this one.
    #[inline]
    fn has(&self, op: OpId) -> bool {
        self.generation == op.generation() && self.operation.is_some()
    }
}

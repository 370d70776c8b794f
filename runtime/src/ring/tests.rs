//! What a ring promises, against the kernel: over socket pairs and loopback, driven by events.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::{
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    os::{fd::OwnedFd, unix::net::UnixStream},
    rc::Rc,
    thread,
    time::Duration,
};

use ringcall_codec::{BodyError, Field, Message};
use rustix::io::Errno;

use super::*;

/// A small ring: two buffers, eight submissions.
fn small() -> RingConfig {
    RingConfig {
        sq_entries: 8,
        cq_entries: 64,
        pool_buffers: 2,
        pool_buffer_len: 64,
        ..RingConfig::default()
    }
}

fn pair() -> (UnixStream, Socket) {
    let (ours, theirs) = UnixStream::pair().unwrap();
    (ours, Rc::new(OwnedFd::from(theirs)))
}

/// The next completions; fails where none come for so long that none will.
fn next(ring: &mut Ring) -> Vec<Completion> {
    let mut completions = Vec::new();
    for _ in 0..1000 {
        ring.wait(Duration::from_millis(10)).unwrap();
        ring.drain(&mut completions);
        if !completions.is_empty() {
            return completions;
        }
    }
    panic!("no completion came");
}

/// The next completion, where it comes alone.
fn one(ring: &mut Ring) -> Completion {
    let mut completions = next(ring);
    assert_eq!(completions.len(), 1, "{completions:?}");
    completions.remove(0)
}

fn filled(completion: Completion) -> Filled {
    match completion.event {
        Event::Received { result: Ok(Some(filled)), .. } => filled,
        event => panic!("not received: {event:?}"),
    }
}

fn errno(error: &io::Error) -> Option<Errno> {
    Errno::from_io_error(error)
}

#[test]
fn received_buffers_are_used_again() {
    let mut ring = Ring::new(&small()).unwrap();
    let (mut peer, socket) = pair();
    let op = ring.recv_multishot(&socket, 7);
    for round in 0..1000_u32 {
        peer.write_all(&round.to_le_bytes()).unwrap();
        let completion = one(&mut ring);
        assert_eq!((completion.token, completion.op), (7, op));
        assert!(matches!(completion.event, Event::Received { more: true, .. }));
        let bytes = filled(completion);
        assert_eq!(*bytes, round.to_le_bytes());
        assert!(ring.pool().contains(bytes.as_ptr()));
        assert_eq!(ring.pool().free(), 1);
    }
    assert_eq!(ring.pool().free(), 2);
    assert_eq!(ring.strays(), 0);
}

#[test]
fn the_end_of_the_stream_ends_the_receive() {
    let mut ring = Ring::new(&small()).unwrap();
    let (peer, socket) = pair();
    ring.recv_multishot(&socket, 0);
    drop(peer);
    let completion = one(&mut ring);
    assert!(matches!(completion.event, Event::Received { result: Ok(None), more: false }));
    assert_eq!(ring.in_flight(), 0);
    assert_eq!(ring.pool().free(), 2);
}

#[test]
fn a_lease_reads_the_same_while_others_come_and_go() {
    let config = RingConfig { pool_buffers: 4, ..small() };
    let mut ring = Ring::new(&config).unwrap();
    let (mut peer, socket) = pair();
    ring.recv_multishot(&socket, 0);
    peer.write_all(b"kept for long").unwrap();
    let kept = filled(one(&mut ring));
    let lease = Lease::new(&Chunk::of_pool(kept.clone()), 0..4);
    drop(kept);
    for round in 0..5000_u32 {
        peer.write_all(&[round as u8; 64]).unwrap();
        assert_eq!(*filled(one(&mut ring)), [round as u8; 64]);
        assert_eq!(*lease, *b"kept");
    }
    assert_eq!(ring.pool().free(), 3);
    drop(lease);
    assert_eq!(ring.pool().free(), 4);
}

#[test]
fn an_empty_pool_is_told_and_refills() {
    let mut ring = Ring::new(&small()).unwrap();
    let (mut peer, socket) = pair();
    ring.recv_multishot(&socket, 0);
    let mut held = Vec::new();
    for byte in 0..2 {
        peer.write_all(&[byte; 64]).unwrap();
        held.push(filled(one(&mut ring)));
    }
    assert_eq!(ring.pool().free(), 0);
    peer.write_all(b"more").unwrap();
    match one(&mut ring).event {
        Event::Received { result: Err(error), more: false } => {
            assert_eq!(errno(&error), Some(Errno::NOBUFS));
        }
        event => panic!("{event:?}"),
    }
    held.remove(0);
    ring.recv_multishot(&socket, 1);
    assert_eq!(*filled(one(&mut ring)), *b"more");
    assert_eq!(*held[0], [1; 64]);
}

#[test]
fn a_range_of_ones_own_buffer_is_filled_exactly() {
    let mut ring = Ring::new(&small()).unwrap();
    let (mut peer, socket) = pair();
    let mut buffer = ring.owned().take(100_000);
    buffer.fill(0xee);
    ring.recv_into(&socket, 3, buffer, 1000, 91_000, true);
    let writer = thread::spawn(move || {
        for part in [0xaa; 90_000].chunks(7000) {
            peer.write_all(part).unwrap();
        }
        peer.write_all(b"after").unwrap();
        peer
    });
    let Event::ReceivedInto { result, buffer } = one(&mut ring).event else { panic!() };
    assert_eq!(result.unwrap(), 90_000);
    assert!(buffer[..1000].iter().all(|byte| *byte == 0xee));
    assert!(buffer[1000..91_000].iter().all(|byte| *byte == 0xaa));
    assert!(buffer[91_000..].iter().all(|byte| *byte == 0xee));
    drop(writer.join().unwrap());
    ring.recv_into(&socket, 4, buffer, usize::MAX - 1, usize::MAX, true);
    let Event::ReceivedInto { result, buffer } = one(&mut ring).event else { panic!() };
    assert_eq!(result.unwrap(), 0, "a range outside of the buffer is cut to nothing");
    ring.recv_into(&socket, 5, buffer, 0, 64, true);
    let Event::ReceivedInto { result, buffer } = one(&mut ring).event else { panic!() };
    assert_eq!((result.unwrap(), &buffer[..5]), (5, &b"after"[..]), "the stream ended early");
}

#[test]
fn a_large_send_is_sent_whole() {
    let mut ring = Ring::new(&small()).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut reader = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let socket: Socket = Rc::new(listener.accept().unwrap().0.into());
    let bytes: Vec<u8> = (0..8 << 20).map(|n: u32| (n >> 4) as u8).collect();
    let reading = thread::spawn({
        let wanted = bytes.clone();
        move || {
            let mut read = vec![0; wanted.len() - 3];
            reader.read_exact(&mut read).unwrap();
            read == wanted[3..]
        }
    });
    ring.send(&socket, 9, bytes, 3);
    let completion = one(&mut ring);
    assert_eq!(completion.token, 9);
    let Event::Sent { result, bytes, from: 3 } = completion.event else { panic!() };
    assert_eq!(result.unwrap(), bytes.len() - 3);
    assert!(reading.join().unwrap());
}

/// Writes until the socket takes no more, so that a send waits for its peer to read. Gives the
/// number of bytes written.
fn fill(socket: &Socket) -> usize {
    let mut stream = UnixStream::from(socket.try_clone().unwrap());
    stream.set_nonblocking(true).unwrap();
    let mut written = 0;
    while let Ok(len) = stream.write(&[0; 4096]) {
        written += len;
    }
    stream.set_nonblocking(false).unwrap();
    written
}

#[test]
fn a_buffer_of_the_pool_is_sent_from_and_not_received_into_before_that() {
    let mut ring = Ring::new(&small()).unwrap();
    let (mut peer, socket) = pair();
    let (mut reader, other) = pair();
    ring.recv_multishot(&socket, 0);
    peer.write_all(b"received, then sent").unwrap();
    let chunk = Chunk::of_pool(filled(one(&mut ring)));
    let ahead = fill(&other);
    let op = ring.send_shared(&other, 1, Lease::new(&chunk, 2..17), 8);
    drop(chunk);
    // The only other buffer is received into, and then none is left.
    peer.write_all(&[1; 64]).unwrap();
    let held = filled(one(&mut ring));
    peer.write_all(&[2; 64]).unwrap();
    let Event::Received { result: Err(error), .. } = one(&mut ring).event else { panic!() };
    assert_eq!(errno(&error), Some(Errno::NOBUFS));
    drop(held);
    assert_eq!(ring.pool().free(), 1);
    reader.read_exact(&mut vec![0; ahead]).unwrap();
    let Completion { token: 1, op: sent, event } = one(&mut ring) else { panic!() };
    assert_eq!(sent, op);
    let Event::SentShared { result, bytes, from: 8 } = event else { panic!("{event:?}") };
    assert_eq!((result.unwrap(), &*bytes), (7, &b"ceived, then se"[..]));
    let mut read = [0; 7];
    reader.read_exact(&mut read).unwrap();
    assert_eq!(read, *b"then se");
    assert_eq!(ring.pool().free(), 1);
    drop(bytes);
    assert_eq!(ring.pool().free(), 2);
}

#[test]
fn a_buffer_of_ones_own_is_sent_from_and_not_given_out_before_that() {
    let mut ring = Ring::new(&small()).unwrap();
    let (mut reader, socket) = pair();
    let mut buffer = ring.owned().take(4 << 20);
    let place = buffer.as_ptr();
    buffer.iter_mut().zip(0_u32..).for_each(|(byte, n)| *byte = (n >> 4) as u8);
    let wanted = buffer.to_vec();
    let chunk = Chunk::of_owned(buffer.share(), wanted.len());
    ring.send_shared(&socket, 0, Lease::new(&chunk, 0..wanted.len()), 0);
    drop(chunk);
    ring.enter().unwrap();
    assert_eq!(ring.owned().outstanding_bytes(), wanted.len());
    let mut other = ring.owned().take(wanted.len());
    assert_ne!(other.as_ptr(), place);
    other.fill(0xff);
    drop(other);
    let reading = thread::spawn(move || {
        let mut read = vec![0; wanted.len()];
        reader.read_exact(&mut read).unwrap();
        read == wanted
    });
    let Event::SentShared { result, bytes, from: 0 } = one(&mut ring).event else { panic!() };
    assert_eq!(result.unwrap(), 4 << 20);
    assert!(reading.join().unwrap());
    drop(bytes);
    assert_eq!(ring.owned().outstanding_bytes(), 0);
    assert_eq!(ring.owned().take(4 << 20).as_ptr(), place);
}

#[test]
fn of_some_bytes_no_others_are_sent_and_those_that_more_follow_are_not_kept() {
    let mut ring = Ring::new(&small()).unwrap();
    let (mut peer, socket) = pair();
    let bytes = b"one, two, three".to_vec();
    for (range, more) in [(5..8, true), (0..3, false), (10..99, false)] {
        ring.send_some(&socket, 1, bytes.clone(), range.clone(), more);
        let Event::Sent { result, bytes: back, from } = one(&mut ring).event else { panic!() };
        let len = bytes.len().min(range.end) - range.start;
        assert_eq!((result.unwrap(), from), (len, range.start));
        assert_eq!(back, bytes);
    }
    let mut received = [0; 11];
    peer.read_exact(&mut received).unwrap();
    assert_eq!(&received, b"twoonethree");
}

#[test]
fn a_send_from_beyond_the_bytes_sends_none() {
    let mut ring = Ring::new(&small()).unwrap();
    let (_peer, socket) = pair();
    let chunk = Chunk::of_owned(ring.owned().take(8).share(), 8);
    ring.send_shared(&socket, 0, Lease::new(&chunk, 0..8), 9);
    let Event::SentShared { result, .. } = one(&mut ring).event else { panic!() };
    assert_eq!(result.unwrap(), 0);
}

#[test]
fn a_ring_dropped_while_received_bytes_are_sent_leaves_nothing_behind() {
    let mut ring = Ring::new(&small()).unwrap();
    let (mut peer, socket) = pair();
    let (_reader, full) = pair();
    let (_other_reader, other) = pair();
    fill(&full);
    ring.recv_multishot(&socket, 0);
    peer.write_all(b"received").unwrap();
    let of_pool = Chunk::of_pool(filled(one(&mut ring)));
    let of_owned = Chunk::of_owned(ring.owned().take(4 << 20).share(), 4 << 20);
    ring.send_shared(&full, 1, Lease::new(&of_pool, 0..8), 0);
    ring.send_shared(&other, 2, Lease::new(&of_owned, 0..4 << 20), 0);
    ring.enter().unwrap();
    // Never submitted.
    ring.send_shared(&full, 3, Lease::new(&of_owned, 0..8), 0);
    drop((of_pool, of_owned));
    let owned = Rc::clone(ring.owned());
    let pool = Rc::downgrade(ring.pool());
    assert_eq!(owned.outstanding_bytes(), 4 << 20);
    drop(ring);
    assert_eq!(owned.outstanding_bytes(), 0, "the buffer came back");
    assert!(pool.upgrade().is_none(), "the pool was not leaked");
    for socket in [&socket, &full, &other] {
        assert_eq!(Rc::strong_count(socket), 1, "no operation holds the socket");
    }
}

#[test]
fn a_send_to_nobody_is_an_error_and_no_signal() {
    let mut ring = Ring::new(&small()).unwrap();
    let (peer, socket) = pair();
    drop(peer);
    ring.send(&socket, 0, b"hello".to_vec(), 0);
    let Event::Sent { result, .. } = one(&mut ring).event else { panic!() };
    assert_eq!(errno(&result.unwrap_err()), Some(Errno::PIPE));
}

#[test]
fn a_cancelled_receive_gives_one_last_completion() {
    let mut ring = Ring::new(&small()).unwrap();
    let (mut peer, socket) = pair();
    let op = ring.recv_multishot(&socket, 1);
    peer.write_all(b"before").unwrap();
    drop(filled(one(&mut ring)));
    ring.cancel(op);
    ring.cancel(op);
    let completion = one(&mut ring);
    assert_eq!(completion.op, op);
    let Event::Received { result: Err(error), more: false } = completion.event else { panic!() };
    assert_eq!(errno(&error), Some(Errno::CANCELED));
    assert_eq!(ring.in_flight(), 0);
    // The place in the table is used again, and the old id does not reach the new operation.
    let next = ring.recv_multishot(&socket, 2);
    assert_ne!(next, op);
    ring.cancel(op);
    peer.write_all(b"after").unwrap();
    assert_eq!(*filled(one(&mut ring)), *b"after");
    assert_eq!(ring.strays(), 0);
}

#[test]
fn connections_are_made_and_accepted() {
    let mut ring = Ring::new(&small()).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let listener: Socket = Rc::new(listener.into());
    let accept = ring.accept_multishot(&listener, 1);
    let mut accepted = Vec::new();
    let mut connected = 0;
    for _ in 0..20 {
        let stream = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None);
        ring.connect(&Rc::new(stream.unwrap().into()), 2, &address);
    }
    while accepted.len() < 20 || connected < 20 {
        for completion in next(&mut ring) {
            match completion.event {
                Event::Accepted { result, more: true } => {
                    let flags = rustix::io::fcntl_getfd(result.as_ref().unwrap()).unwrap();
                    assert!(flags.contains(rustix::io::FdFlags::CLOEXEC));
                    accepted.push(result.unwrap());
                }
                Event::Connected { result } => {
                    result.unwrap();
                    connected += 1;
                }
                event => panic!("{event:?}"),
            }
        }
    }
    ring.cancel(accept);
    let Event::Accepted { result: Err(_), more: false } = one(&mut ring).event else { panic!() };
    assert_eq!(ring.in_flight(), 0);
}

#[test]
fn a_refused_connection_is_told() {
    let mut ring = Ring::new(&small()).unwrap();
    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let stream = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    ring.connect(&Rc::new(stream.into()), 0, &closed);
    let Event::Connected { result } = one(&mut ring).event else { panic!() };
    assert_eq!(errno(&result.unwrap_err()), Some(Errno::CONNREFUSED));
}

#[test]
fn more_operations_than_the_queue_holds_are_all_done() {
    let config = RingConfig { cq_entries: 8, pool_buffers: 512, ..small() };
    let mut ring = Ring::new(&config).unwrap();
    let pairs: Vec<_> = (0..300).map(|_| pair()).collect();
    for (token, (_, socket)) in (0..).zip(&pairs) {
        ring.recv_multishot(socket, token);
        ring.send(socket, token, vec![token as u8; 10], 0);
    }
    assert_eq!(ring.in_flight(), 600);
    for (mut peer, _) in pairs.iter().map(|(peer, socket)| (peer, socket)) {
        peer.write_all(b"bytes").unwrap();
    }
    let (mut sent, mut received) = (vec![0; 300], vec![0; 300]);
    while sent.iter().chain(&received).any(|count| *count == 0) {
        for completion in next(&mut ring) {
            match completion.event {
                Event::Sent { result, .. } => sent[completion.token as usize] += result.unwrap(),
                Event::Received { result: Ok(Some(bytes)), more } => {
                    received[completion.token as usize] += bytes.len();
                    if !more {
                        // A completion queue that overflows may end a multishot.
                        ring.recv_multishot(&pairs[completion.token as usize].1, completion.token);
                    }
                }
                event => panic!("{event:?}"),
            }
        }
    }
    assert!(sent.iter().all(|bytes| *bytes == 10));
    assert!(received.iter().all(|bytes| *bytes == 5));
    assert_eq!(ring.strays(), 0);
}

#[test]
fn a_ring_dropped_with_operations_in_flight_leaves_nothing_behind() {
    let (mut peer, socket) = pair();
    let (other_peer, other) = pair();
    let listener: Socket = Rc::new(TcpListener::bind("127.0.0.1:0").unwrap().into());
    let mut ring = Ring::new(&small()).unwrap();
    let owned = Rc::clone(ring.owned());
    let pool = Rc::downgrade(ring.pool());
    peer.write_all(&[1; 8]).unwrap();
    ring.recv_multishot(&socket, 0);
    let kept = filled(one(&mut ring));
    let buffer = owned.take(1 << 20);
    ring.recv_into(&other, 1, buffer, 0, 1 << 20, true);
    ring.accept_multishot(&listener, 2);
    ring.send(&other, 3, vec![0; 4 << 20], 0);
    ring.enter().unwrap();
    // Never submitted.
    ring.recv_multishot(&socket, 4);
    drop(ring);
    assert_eq!(owned.outstanding_bytes(), 0, "the buffer came back");
    for socket in [&socket, &other, &listener] {
        assert_eq!(Rc::strong_count(socket), 1, "no operation holds the socket");
    }
    assert_eq!(*kept, [1; 8], "what was received outlives the ring");
    assert!(pool.upgrade().is_some());
    drop(kept);
    assert!(pool.upgrade().is_none(), "the pool was not leaked");
    drop(other_peer);
}

#[test]
fn rings_can_be_made_and_dropped_without_end() {
    // More than the 16 that a thread can have registered, one after the other and together.
    for _ in 0..40 {
        drop(Ring::new(&small()).unwrap());
    }
    let many: Vec<_> = (0..20).map(|_| Ring::new(&small()).unwrap()).collect();
    for mut ring in many {
        let (mut peer, socket) = pair();
        ring.recv_multishot(&socket, 0);
        peer.write_all(b"works").unwrap();
        assert_eq!(*filled(one(&mut ring)), *b"works");
    }
}

#[test]
fn the_bell_rings_for_what_happens_while_it_is_enabled() {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    let is_rung = |bell: &Bell, seconds: i64| {
        let mut fds = [PollFd::new(bell, PollFlags::IN)];
        poll(&mut fds, Some(&Timespec { tv_sec: seconds, tv_nsec: 0 })).unwrap() > 0
    };
    let bell = Bell::new().unwrap();
    let mut ring = Ring::new(&small()).unwrap();
    ring.register_bell(&bell).unwrap();
    assert!(matches!(ring.register_bell(&bell), Err(RingError::Refused { .. })));
    let (mut peer, socket) = pair();
    ring.recv_multishot(&socket, 0);
    ring.enter_always().unwrap();
    peer.write_all(b"unheard").unwrap();
    drop(filled(one(&mut ring)));
    assert!(!is_rung(&bell, 0), "disabled at first");
    ring.enable_bell();
    ring.enter_always().unwrap();
    assert!(ring.is_quiet());
    peer.write_all(b"heard").unwrap();
    assert!(is_rung(&bell, 10));
    bell.clear();
    bell.clear();
    assert!(!is_rung(&bell, 0));
    assert!(!ring.is_quiet(), "there is something to enter for");
    drop(filled(one(&mut ring)));
    ring.disable_bell();
    let rope = bell.clone();
    thread::spawn(move || rope.ring()).join().unwrap();
    assert!(is_rung(&bell, 10), "other threads ring it too");
}

#[test]
fn a_quiet_ring_makes_no_syscalls() {
    let mut ring = Ring::new(&small()).unwrap();
    let (mut peer, socket) = pair();
    ring.recv_multishot(&socket, 0);
    assert!(!ring.is_quiet());
    ring.enter().unwrap();
    let entered = ring.enters();
    for _ in 0..100 {
        ring.enter().unwrap();
    }
    assert_eq!(ring.enters(), entered);
    assert!(ring.is_quiet());
    ring.enter_always().unwrap();
    assert_eq!(ring.enters(), entered + 1);
    peer.write_all(b"news").unwrap();
    while ring.is_quiet() {
        thread::yield_now();
    }
    ring.enter().unwrap();
    let mut completions = Vec::new();
    ring.drain(&mut completions);
    assert_eq!(completions.len(), 1);
}

#[test]
fn settings_out_of_bounds_are_named() {
    let refused = |config: RingConfig| match Ring::new(&config) {
        Err(RingError::Config { setting, .. }) => setting,
        result => panic!("{result:?}"),
    };
    assert_eq!(refused(RingConfig { sq_entries: 0, ..small() }), "sq_entries");
    assert_eq!(refused(RingConfig { cq_entries: 7, ..small() }), "cq_entries");
    assert_eq!(refused(RingConfig { pool_buffers: 3, ..small() }), "pool_buffers");
    assert_eq!(refused(RingConfig { pool_buffer_len: 0, ..small() }), "pool_buffer_len");
    assert_eq!(refused(RingConfig { pool_buffer_len: 24, ..small() }), "pool_buffer_len");
    drop(Ring::new(&RingConfig { cq_entries: 1 << 18, ..small() }).unwrap());
}

#[derive(rkyv::Archive, rkyv::Serialize)]
struct Text {
    text: String,
}

impl Field for Text {
    const LAYOUT: u64 = 1;
}

impl Message for Text {}

#[test]
fn a_view_reads_a_message_where_it_was_received() {
    let text = Text { text: "a text that is not stored inline".to_owned() };
    let archive = rkyv::to_bytes::<rkyv::rancor::Failure>(&text).unwrap();
    let mut ring = Ring::new(&small()).unwrap();
    let (mut peer, socket) = pair();
    ring.recv_multishot(&socket, 0);
    peer.write_all(&archive).unwrap();
    let chunk = Chunk::of_pool(filled(one(&mut ring)));
    let lease = Lease::new(&chunk, 0..archive.len());
    assert!(lease.in_pool());
    let misaligned = Lease::new(&chunk, 1..archive.len());
    assert_eq!(View::<Text>::new(misaligned).err(), Some(BodyError::Misaligned));
    let cut = Lease::new(&chunk, 0..archive.len() - 1);
    assert!(matches!(View::<Text>::new(cut), Err(BodyError::Invalid { .. })));
    let view = View::<Text>::new(lease).unwrap();
    let clone = view.clone();
    drop((view, chunk));
    drop(ring);
    assert_eq!(clone.text, text.text);
    assert_eq!(clone.buffer(0..archive.len()), &archive[..]);
    assert!(clone.buffer(0..usize::MAX).is_empty());
}

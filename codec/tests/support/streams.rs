//! Streams between two sessions, and windows that few items fill.

use ringcall_codec::{
    CallId, CallOptions, Event, Flags, Header, ItemError, Kind, Limits, StreamId,
    limits::WINDOW_FLOOR,
};

use super::{Blob, Body, ECHO, Pair, of_call};

/// The least windows, so that few items fill them.
pub(crate) const WINDOW: u32 = WINDOW_FLOOR;

/// What a small item takes from the credit, in bytes.
pub(crate) const COST: u32 = 256;

/// Small items that fill a window.
pub(crate) const FULL: u64 = (WINDOW / COST) as u64;

pub(crate) fn windows(stream_window: u32, connection_window: u32) -> Limits {
    Limits { stream_window, connection_window, ..Limits::default() }
}

/// Two ends with windows of this length for each stream, and for all together.
pub(crate) fn pair(stream_window: u32, connection_window: u32) -> Pair {
    let limits = windows(stream_window, connection_window);
    Pair::open_with(limits, limits)
}

/// Makes a stream that the server knows of: as the client names it, and as the server does.
pub(crate) fn stream(pair: &mut Pair) -> (StreamId, StreamId) {
    let options = CallOptions { is_stream: true, ..CallOptions::default() };
    let call = pair.client.call(&mut pair.scratch, ECHO, options, &Blob::new(0, 0)).unwrap();
    pair.drive();
    assert_eq!(pair.next_call().0, call);
    names(call)
}

/// A stream as who made its call names it, and as who serves it does.
pub(crate) fn names(call: CallId) -> (StreamId, StreamId) {
    (StreamId { call, is_made_here: true }, StreamId { call, is_made_here: false })
}

/// A stream with a deadline, in microseconds from now.
pub(crate) fn stream_within(pair: &mut Pair, left_us: u64) -> (StreamId, StreamId) {
    let (now_us, deadline_us) = (pair.now_us, Some(pair.now_us + left_us));
    let options = CallOptions { is_stream: true, deadline_us, now_us, ..CallOptions::default() };
    let call = pair.client.call(&mut pair.scratch, ECHO, options, &Blob::new(0, 0)).unwrap();
    pair.drive();
    assert_eq!(pair.next_call().0, call);
    names(call)
}

pub(crate) fn send_up(pair: &mut Pair, stream: StreamId, id: u64) -> Result<(), ItemError> {
    pair.client.send_item(&mut pair.scratch, stream, &Blob::new(id, 0))
}

pub(crate) fn send_down(pair: &mut Pair, stream: StreamId, id: u64) -> Result<(), ItemError> {
    pair.server.send_item(&mut pair.scratch, stream, &Blob::new(id, 0))
}

/// Sends small items from the client until there is no credit, and says how many they were.
pub(crate) fn fill_up(pair: &mut Pair, stream: StreamId) -> u64 {
    (0..).find(|id| send_up(pair, stream, *id).is_err()).unwrap()
}

/// Sends small items from the server until there is no credit, and says how many they were.
pub(crate) fn fill_down(pair: &mut Pair, stream: StreamId) -> u64 {
    (0..).find(|id| send_down(pair, stream, *id).is_err()).unwrap()
}

/// The length of the frame of an item, in bytes.
pub(crate) fn frame_len(payload: &Body) -> u64 {
    (32 + payload.len() as u64).next_multiple_of(16)
}

/// Takes every item that has come to the server, and says how many they were.
pub(crate) fn take_at_server(pair: &mut Pair) -> u64 {
    let mut taken = 0;
    while let Some((event, payload)) = pair.server_events.pop_front() {
        if let Event::Item(stream) = event {
            pair.server.item_taken(stream, frame_len(&payload));
            taken += 1;
        }
    }
    taken
}

/// What CREDIT frames among these grant: to the connection, and to streams.
pub(crate) fn granted(frames: &[(Header, Vec<u8>)]) -> (u32, u32) {
    let credits = frames.iter().filter(|(header, _)| header.kind == Kind::Credit);
    credits.fold((0, 0), |(shared, own), (header, _)| match header.call {
        CallId(0) => (shared + header.aux, own),
        _ => (shared, own + header.aux),
    })
}

pub(crate) fn item(call: CallId, number: u32) -> Header {
    Header { aux: number, ..of_call(Kind::Item, call) }
}

pub(crate) fn end(call: CallId, number: u32) -> Header {
    Header { flags: Flags::END, ..item(call, number) }
}

pub(crate) fn credit(call: CallId, bytes: u32) -> Header {
    Header { aux: bytes, ..of_call(Kind::Credit, call) }
}

pub(crate) fn from_callee(header: Header) -> Header {
    Header { flags: header.flags.with(Flags::CALLEE), ..header }
}

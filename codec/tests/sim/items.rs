//! What the checker knows of the items of streams: which are on their way, and what credit allows.
//!
//! It sees both ends, so it can say of each item that comes which one it must be, whether one may
//! be sent, and of each grant of credit whether as much was taken. Of a connection whose bytes were
//! changed it is asked nothing any more.

use std::collections::{BTreeMap, VecDeque};

use ringcall_codec::{
    CallId, Flags, Header, ItemError, Kind, Limits, StreamId, limits::ITEM_COST_MIN,
};

use crate::{core::Place, letter::Envelope};

/// A stream as one end of its connection names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Handle {
    pub(crate) is_made_here: bool,
    pub(crate) call: u64,
}

impl Handle {
    pub(crate) fn made(call: CallId) -> Self {
        Self { is_made_here: true, call: call.0 }
    }

    pub(crate) fn served(call: CallId) -> Self {
        Self { is_made_here: false, call: call.0 }
    }

    pub(crate) fn id(self) -> StreamId {
        StreamId { call: CallId(self.call), is_made_here: self.is_made_here }
    }

    /// As the other end names it.
    fn flipped(self) -> Self {
        Self { is_made_here: !self.is_made_here, ..self }
    }
}

impl From<StreamId> for Handle {
    fn from(stream: StreamId) -> Self {
        Self { is_made_here: stream.is_made_here, call: stream.call.0 }
    }
}

/// What an item takes from the credit, in bytes.
pub(crate) fn cost_of(frame_len: u64) -> u64 {
    frame_len.max(ITEM_COST_MIN.into())
}

/// Of whole frames, the calls and bytes of those that grant credit.
pub(crate) fn credits(mut frames: &[u8]) -> impl Iterator<Item = (u64, u64)> {
    let headers = std::iter::from_fn(move || {
        let header = Header::parse(frames.first_chunk()?).expect("whole frames");
        frames = &frames[header.frame_len() as usize..];
        Some(header)
    });
    let credits = headers.filter(|header| header.kind == Kind::Credit);
    credits.map(|header| (header.call.0, header.aux.into()))
}

#[derive(Default)]
pub(crate) struct Items {
    /// By connection and the end that sends.
    wires: Vec<[Wire; 2]>,
}

/// Items in one direction of a connection. Lengths are in bytes of credit.
#[derive(Default)]
struct Wire {
    /// What the receiver allows each stream, and all together, from the start.
    stream_window: u64,
    window: u64,
    on_way: VecDeque<OnWay>,
    /// What the sender may send.
    left: i64,
    sent: u64,
    arrived: u64,
    /// Of what has arrived, what waits to be taken.
    held: u64,
    /// The longest item that has arrived.
    longest: u64,
    /// What the receiver has said that it grants anew, and what of that the sender knows.
    said: u64,
    granted: u64,
    /// By the sender's name, while it may send.
    flows: BTreeMap<Handle, Flow>,
}

/// The items of one stream from one end.
#[derive(Debug)]
struct Flow {
    left: i64,
    count: u32,
    has_ended: bool,
    /// What the receiver has taken.
    taken: u64,
    granted: u64,
}

/// An item, or the end of items, between the two ends.
#[derive(Debug)]
struct OnWay {
    /// As its sender names it.
    stream: Handle,
    sequence: u32,
    /// `None` for the end.
    item: Option<Envelope>,
}

impl Items {
    /// A connection is made between a client and a server that accept so much.
    pub(crate) fn connect(&mut self, limits: [Limits; 2]) {
        let [of_client, of_server] = limits.map(|limits| Wire {
            stream_window: limits.stream_window.into(),
            window: limits.connection_window.into(),
            left: limits.connection_window.into(),
            ..Wire::default()
        });
        self.wires.push([of_server, of_client]);
    }

    fn from(&mut self, sender: Place) -> &mut Wire {
        &mut self.wires[sender.conn][sender.side]
    }

    fn to(&mut self, receiver: Place) -> &mut Wire {
        self.from(receiver.peer())
    }

    /// An end may send items of a stream from now on.
    pub(crate) fn begin(&mut self, at: Place, stream: Handle) {
        let wire = self.from(at);
        let left = wire.stream_window as i64;
        let flow = Flow { left, count: 0, has_ended: false, taken: 0, granted: 0 };
        wire.flows.insert(stream, flow);
    }

    /// The stream's call has its outcome at this end, which sends nothing more of it.
    pub(crate) fn close(&mut self, at: Place, stream: Handle) {
        self.from(at).flows.remove(&stream);
    }

    /// How many items of a stream this end has sent; zero where it may send none.
    pub(crate) fn count(&mut self, at: Place, stream: Handle) -> u32 {
        self.from(at).flows.get(&stream).map_or(0, |flow| flow.count)
    }

    /// Why an item that can be encoded cannot be sent now, if it cannot.
    pub(crate) fn obstacle(&mut self, at: Place, stream: Handle) -> Option<ItemError> {
        let wire = self.from(at);
        match wire.flows.get(&stream) {
            None => Some(ItemError::Ended),
            Some(flow) if flow.has_ended => Some(ItemError::Ended),
            Some(flow) if flow.left <= 0 => Some(ItemError::NoCredit),
            Some(_) if wire.left <= 0 => Some(ItemError::NoSharedCredit),
            Some(_) => None,
        }
    }

    /// An item was sent, in a frame of this length.
    pub(crate) fn sent(&mut self, at: Place, stream: Handle, item: Envelope, frame_len: u64) {
        let (wire, cost) = (self.from(at), cost_of(frame_len));
        let Some(flow) = wire.flows.get_mut(&stream) else { return };
        wire.on_way.push_back(OnWay { stream, sequence: flow.count, item: Some(item) });
        flow.count += 1;
        flow.left -= cost as i64;
        wire.left -= cost as i64;
        wire.sent += cost;
    }

    /// The end of a stream's items was sent.
    pub(crate) fn ended(&mut self, at: Place, stream: Handle) {
        let wire = self.from(at);
        let Some(flow) = wire.flows.get_mut(&stream) else { return };
        flow.has_ended = true;
        wire.on_way.push_back(OnWay { stream, sequence: flow.count, item: None });
    }

    /// An item or an end has arrived. It is the one of its stream that was sent first of those on
    /// their way: so none is lost, doubled, crossed, changed, or out of order.
    pub(crate) fn arrives(&mut self, at: Place, header: &Header, item: Option<Envelope>) {
        let wire = self.to(at);
        let is_made_by_sender = !header.flags.contains(Flags::CALLEE);
        let stream = Handle { is_made_here: is_made_by_sender, call: header.call.0 };
        let is_end = header.flags.contains(Flags::END);
        let index = wire.on_way.iter().position(|sent| sent.stream == stream);
        let sent = index.and_then(|index| wire.on_way.remove(index));
        let sent = sent.expect("an item that was not sent");
        assert_eq!(header.aux, sent.sequence, "{stream:?}: another item");
        assert_eq!(is_end, sent.item.is_none(), "{stream:?}: an item for an end or an end for one");
        assert_eq!(item, sent.item, "{stream:?}: an item was changed");
        if !is_end {
            wire.arrived += cost_of(header.frame_len());
        }
    }

    /// An item that has arrived waits to be taken, beside those of its stream that do so already.
    /// A receiver holds of a stream its window and one item at most; of a connection, where items of
    /// different streams overtake each other, its window and two.
    pub(crate) fn hold(&mut self, at: Place, cost: u64, held_of_stream: u64) {
        let wire = self.to(at);
        assert!(held_of_stream < wire.stream_window, "{held_of_stream} bytes of a stream wait");
        wire.longest = wire.longest.max(cost);
        let held_max = wire.window + wire.longest;
        assert!(wire.held < held_max, "{} bytes of a connection wait", wire.held);
        wire.held += cost;
    }

    /// An item was taken.
    pub(crate) fn taken(&mut self, at: Place, stream: Handle, cost: u64) {
        self.dropped(at, cost);
        // Its sender may have ended meanwhile.
        if let Some(flow) = self.to(at).flows.get_mut(&stream.flipped()) {
            flow.taken += cost;
        }
    }

    /// Items that waited are gone with their stream.
    pub(crate) fn dropped(&mut self, at: Place, cost: u64) {
        let wire = self.to(at);
        wire.held = wire.held.saturating_sub(cost);
    }

    /// The receiver of items is about to send these frames. What was taken, or is gone, is granted
    /// anew in them as soon as it comes to half of the window.
    pub(crate) fn check_said(&mut self, at: Place, frames: &[u8]) {
        let wire = self.to(at);
        let of_all = credits(frames).filter(|(call, _)| *call == 0);
        wire.said += of_all.map(|(_, bytes)| bytes).sum::<u64>();
        let due = wire.arrived - wire.held;
        let owed = due.checked_sub(wire.said).expect("no more is granted than was taken");
        assert!(owed < wire.window / 2, "{owed} bytes of {at:?} are not granted anew");
    }

    /// This end is granted credit, no more than was taken of what it has sent.
    pub(crate) fn credited(&mut self, at: Place, stream: Option<Handle>, bytes: u64) {
        let wire = self.from(at);
        let Some(stream) = stream else {
            wire.granted += bytes;
            wire.left += bytes as i64;
            let due = wire.arrived - wire.held;
            assert!(wire.granted <= due, "{} of {due} bytes are granted anew", wire.granted);
            return;
        };
        let flow = wire.flows.get_mut(&stream).expect("credit of a stream that has ended");
        flow.granted += bytes;
        flow.left += bytes as i64;
        assert!(flow.granted <= flow.taken, "{stream:?} is granted what was not taken: {flow:?}");
    }

    /// A stream's response has arrived: what was sent before it has too.
    pub(crate) fn check_all_came(&mut self, at: Place, stream: Handle) {
        let (wire, name) = (self.to(at), stream.flipped());
        let late = wire.on_way.iter().find(|sent| sent.stream == name);
        assert!(late.is_none(), "an item is overtaken by its response: {late:?}");
    }

    /// Nothing is in flight on a connection that nothing has harmed: all that was sent has come,
    /// nothing waits, and the credit that was granted has returned.
    pub(crate) fn check_at_rest(&self, conn: usize) {
        for wire in &self.wires[conn] {
            assert!(wire.on_way.is_empty(), "items never came: {:?}", wire.on_way);
            assert!(wire.flows.is_empty(), "streams never ended: {:?}", wire.flows);
            assert_eq!((wire.held, wire.arrived), (0, wire.sent));
            assert_eq!(wire.granted, wire.said, "credit never came back");
        }
    }
}

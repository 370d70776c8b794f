//! Calls that one shard receives and another runs, as that owns their key.
//!
//! Beside the path of a call. At the owner a connection without a socket, the relay, stands for
//! the one that the call came on: the frame is given to it as if it had come from the kernel, its
//! body read where the other shard's kernel put it, and what the relay has to say goes back with
//! the end of the turn. Nothing is copied but the reply, once. What is collected in a turn for one
//! shard is one errand. Calls that cannot be passed on are refused, as not executed.

use std::{
    cell::{Cell, RefCell},
    collections::HashMap,
    mem,
    net::SocketAddr,
    rc::Rc,
    sync::Arc,
};

use ringcall_codec::{CallId, Code, Flags, Header, Kind, RoutingKey, Session, Status};

use crate::{
    config::LOANS_MAX,
    connection::{Connection, Side, State, Transport},
    mail::Mailbox,
    ring::{Lease, Loan, Loans},
    shard::Shard,
};

/// What a shard has to do with calls that came to one shard and are run by another.
pub(crate) struct Relays {
    /// Requests that other shards read.
    pub(crate) loans: Loans,
    /// For other shards, by number: calls that are theirs.
    calls: RefCell<Vec<Vec<Passed>>>,
    /// For other shards, by number: what relays of their connections have said here.
    said: RefCell<Vec<Vec<Back>>>,
    has_some: Cell<bool>,
    /// The relays here.
    here: RefCell<HashMap<Origin, Rc<Connection>>>,
    /// Shards that have a relay of a connection of this shard, by the connection's key.
    there: RefCell<HashMap<u64, Vec<u16>>>,
}

/// A connection of another shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Origin {
    pub(crate) shard: u16,
    pub(crate) key: u64,
}

/// What is passed on to the owner of a key.
enum Passed {
    Call(Box<PassedCall>),
    /// The caller has given a call up, or its time is over.
    Stop(u64, CallId),
    /// The connection has ended.
    Gone(u64),
}

struct PassedCall {
    connection: u64,
    peer: SocketAddr,
    reply_len_max: u32,
    header: Header,
    payload: Loan,
}

/// What comes back.
enum Back {
    /// Frames that the relay of a connection says.
    Said(u64, Vec<u8>),
    /// No handler ran.
    Refused(u64, Header),
}

/// What is passed on to a shard in one turn. What is left of it when it is dropped goes back.
struct Batch {
    passed: Vec<Passed>,
    from: u16,
    to: u16,
    home: Arc<Mailbox>,
}

impl Relays {
    pub(crate) fn new(mail: &Arc<Mailbox>) -> Self {
        let mail = Arc::clone(mail);
        Self {
            loans: Loans::new(move || mail.wake()),
            calls: RefCell::default(),
            said: RefCell::default(),
            has_some: Cell::new(false),
            here: RefCell::default(),
            there: RefCell::default(),
        }
    }

    /// Whether something waits to be [sent](Shard::send_relayed).
    #[inline]
    pub(crate) fn has_some(&self) -> bool {
        self.has_some.get()
    }

    fn push<T>(&self, queues: &RefCell<Vec<Vec<T>>>, shard: u16, item: T) {
        let mut queues = queues.borrow_mut();
        if queues.len() <= usize::from(shard) {
            queues.resize_with(usize::from(shard) + 1, Vec::new);
        }
        queues[usize::from(shard)].push(item);
        self.has_some.set(true);
    }
}

impl Connection {
    /// The shard that owns the key of a call, where it is another than this.
    #[inline]
    pub(crate) fn other_owner(&self, key: u32) -> Option<u16> {
        let place = self.shard.place;
        let owner = RoutingKey::from_wire(key)?.owner(place.count);
        (owner != place.index && self.side == Side::Server).then_some(owner)
    }

    /// Passes a call, which the session has accepted, on to the shard that owns its key. `payload`
    /// is its metadata and body.
    #[cold]
    pub(crate) fn pass_on(self: &Rc<Self>, owner: u16, header: &Header, payload: Lease) {
        let shard = &self.shard;
        let is_one_way = header.kind == Kind::OneWay;
        let mut session = self.session.borrow_mut();
        let time_us = match session.deadline_us(header.call) {
            Some(deadline_us) if !is_one_way => {
                let left_us = deadline_us.saturating_sub(shard.now_us()).max(1);
                u32::try_from(left_us).unwrap_or(u32::MAX)
            }
            _ => 0,
        };
        let header = Header {
            body_len: (payload.len() - header.meta_bytes()) as u32,
            flags: Flags::NONE,
            time_us,
            ..*header
        };
        let reply_len_max = session.reply_len_max();
        if is_one_way {
            // What becomes of it is the relay's affair.
            session.end_one_way(header.call.0, Ok(()));
        }
        drop(session);
        if shard.relays.loans.len() >= LOANS_MAX {
            return self.not_run(&header, &too_many());
        }
        shard.counters.calls_forwarded.add(1);
        let mut there = shard.relays.there.borrow_mut();
        let owners = there.entry(self.key).or_default();
        if !owners.contains(&owner) {
            owners.push(owner);
        }
        drop(there);
        let payload = shard.relays.loans.lend(payload);
        let (connection, peer) = (self.key, self.peer);
        let call = PassedCall { connection, peer, reply_len_max, header, payload };
        shard.relays.push(&shard.relays.calls, owner, Passed::Call(Box::new(call)));
        shard.wake_driver();
    }

    /// Tells the owners of calls that were passed on that one is to stop.
    pub(crate) fn stop_passed(&self, call: CallId) {
        self.tell_owners(|key| Passed::Stop(key, call));
    }

    /// Tells the owners of calls that were passed on that nobody waits for any.
    pub(crate) fn end_passed(&self) {
        self.tell_owners(Passed::Gone);
        self.shard.relays.there.borrow_mut().remove(&self.key);
    }

    fn tell_owners(&self, what: impl Fn(u64) -> Passed) {
        let relays = &self.shard.relays;
        let there = relays.there.borrow();
        let Some(owners) = there.get(&self.key) else { return };
        for owner in owners {
            relays.push(&relays.calls, *owner, what(self.key));
        }
        self.shard.wake_driver();
    }

    /// Sends what a relay has to say back to where its connection is.
    pub(crate) fn say_back(self: &Rc<Self>, origin: Origin) {
        let said = self.with_output(mem::take);
        if said.is_empty() {
            return;
        }
        let relays = &self.shard.relays;
        relays.push(&relays.said, origin.shard, Back::Said(origin.key, said));
        self.shard.wake_driver();
    }

    /// Ends a relay: calls that run on it have failed, and their callers are told so.
    pub(crate) fn end_relay(&self, origin: Origin) {
        let relays = &self.shard.relays;
        let mut here = relays.here.borrow_mut();
        if here.get(&origin).is_some_and(|relay| relay.key == self.key) {
            here.remove(&origin);
        }
        drop(here);
        let stops = Status::new(Code::Unavailable, "the shard that ran the call stops");
        self.session.borrow_mut().refuse_all(&stops);
        let said = self.with_output(mem::take);
        if !said.is_empty() {
            relays.push(&relays.said, origin.shard, Back::Said(origin.key, said));
        }
    }

    /// A call, which is a frame of a peer no more, was not run.
    fn not_run(self: &Rc<Self>, header: &Header, status: &Status) {
        let mut session = self.session.borrow_mut();
        session.set_now(self.shard.now_us());
        if header.kind == Kind::OneWay {
            session.one_way_failed(header.call.0, status);
        } else {
            session.refuse(header.call, status);
        }
        drop(session);
        self.shard.counters.calls_refused_overload.add(1);
        self.shard.mark_dirty(self);
    }

    /// The relay of this connection has said something.
    fn said(self: &Rc<Self>, frames: &[u8]) {
        let shard = &self.shard;
        let mut session = self.session.borrow_mut();
        session.set_now(shard.now_us());
        let packing = self.packing.get();
        session.pass_on(frames, |output, from| {
            shard.counters.bytes_copied.add((output.len() - from) as u64);
            if let Some(packing) = packing {
                packing.pack(output, from);
            }
        });
        drop(session);
        shard.mark_dirty(self);
        if self.state() == State::PeerFinished {
            self.end_if_done();
        }
    }
}

impl Shard {
    /// Sends what was collected for other shards.
    pub(crate) fn send_relayed(&self) {
        let relays = &self.relays;
        relays.has_some.set(false);
        let from = self.place.index;
        let said = relays.said.borrow_mut().iter_mut().map(mem::take).collect::<Vec<_>>();
        for (to, said) in (0..).zip(said).filter(|(_, said)| !said.is_empty()) {
            if let Some(mailbox) = self.mailboxes.of(to) {
                mailbox.answer(Box::new(move |shard| {
                    said.into_iter().for_each(|back| back.come(shard))
                }));
            }
        }
        let calls = relays.calls.borrow_mut().iter_mut().map(mem::take).collect::<Vec<_>>();
        for (to, passed) in (0..).zip(calls).filter(|(_, passed)| !passed.is_empty()) {
            let home = Arc::clone(&self.remote.mail);
            let batch = Batch { passed, from, to, home };
            if let Some(mailbox) = self.mailboxes.of(to) {
                // What is not taken goes back by being dropped.
                let _ = mailbox.post(from.into(), Box::new(move |shard| batch.arrive(shard)));
            }
        }
    }

    /// The relay of a connection of another shard, made where there is none.
    fn relay(self: &Rc<Self>, origin: Origin, call: &PassedCall) -> Option<Rc<Connection>> {
        if let Some(relay) = self.relays.here.borrow().get(&origin) {
            return Some(Rc::clone(relay));
        }
        let dispatch = self.listeners.borrow().first().map(|listener| listener.dispatch())?;
        let config = self.config.session(0);
        let session = Session::relay(&config, self.place, dispatch.methods(), call.reply_len_max);
        let begins = (Side::Server, State::Open);
        let transport = Transport::Relay(Box::new(origin));
        let relay = Connection::open(self, transport, call.peer, begins, session, Some(dispatch));
        self.relays.here.borrow_mut().insert(origin, Rc::clone(&relay));
        Some(relay)
    }
}

impl Batch {
    /// It has come to the shard that owns the keys.
    fn arrive(mut self, shard: &Rc<Shard>) {
        for passed in mem::take(&mut self.passed) {
            match passed {
                Passed::Call(call) => self.run(shard, *call),
                Passed::Stop(key, call) => {
                    if let Some(relay) = self.existing(shard, key) {
                        let cancel = Header { kind: Kind::Cancel, call, ..Header::EMPTY };
                        relay.frame(&cancel, empty(&relay));
                    }
                }
                Passed::Gone(key) => {
                    if let Some(relay) = self.existing(shard, key) {
                        relay.finish("the connection that it is of has ended");
                    }
                }
            }
        }
    }

    fn existing(&self, shard: &Shard, key: u64) -> Option<Rc<Connection>> {
        shard.relays.here.borrow().get(&Origin { shard: self.from, key }).cloned()
    }

    fn run(&self, shard: &Rc<Shard>, call: PassedCall) {
        let stops = shard.is_draining.get() || shard.is_stopping.get();
        let origin = Origin { shard: self.from, key: call.connection };
        let relay = if stops { None } else { shard.relay(origin, &call) };
        let Some(relay) = relay else {
            let refused = Back::Refused(call.connection, call.header);
            shard.relays.push(&shard.relays.said, self.from, refused);
            return shard.wake_driver();
        };
        shard.counters.calls_served_for_others.add(1);
        relay.frame(&call.header, call.payload.into_lease());
        relay.set_timer();
    }
}

impl Drop for Batch {
    /// It was not taken: the shard has too much to do, or has ended.
    fn drop(&mut self) {
        let (passed, to) = (mem::take(&mut self.passed), self.to);
        if passed.is_empty() {
            return;
        }
        // Not before the loans have come back, or they would hold the calls' bodies.
        let passed: Vec<_> = passed.into_iter().map(Passed::without_loan).collect();
        self.home.answer(Box::new(move |shard| {
            for passed in passed {
                match passed {
                    Err(refused) => refused.come(shard),
                    Ok(gone) if shard.mailboxes.of(to).is_some_and(|mail| !mail.is_closed()) => {
                        shard.relays.push(&shard.relays.calls, to, gone);
                        shard.wake_driver();
                    }
                    Ok(_) => {}
                }
            }
        }));
    }
}

impl Passed {
    /// What is to be told of it where it cannot be passed on; or itself, to be passed on later.
    fn without_loan(self) -> Result<Self, Back> {
        match self {
            Self::Call(call) => Err(Back::Refused(call.connection, call.header)),
            other => Ok(other),
        }
    }
}

impl Back {
    /// It has come to the shard that the connection is on.
    fn come(self, shard: &Rc<Shard>) {
        let (Self::Said(key, _) | Self::Refused(key, _)) = &self;
        let connection = shard.connections.borrow().get(*key).cloned();
        match self {
            Self::Said(_, frames) => {
                if let Some(connection) = connection {
                    connection.said(&frames);
                }
                shard.keep_spare(frames);
            }
            Self::Refused(_, header) => {
                if let Some(connection) = connection {
                    connection.not_run(&header, &not_taken());
                }
            }
        }
    }
}

/// No bytes.
fn empty(relay: &Connection) -> Lease {
    relay.no_bytes()
}

#[cold]
fn too_many() -> Status {
    let text = "too many calls wait for other shards of the server; try later";
    Status::new(Code::ResourceExhausted, text).not_executed()
}

#[cold]
fn not_taken() -> Status {
    let text = "the shard that owns the key takes no calls now; try again";
    Status::new(Code::Unavailable, text).not_executed()
}

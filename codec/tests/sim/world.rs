//! Nodes, the connections among them, what goes wrong, and what must be true at the end.

use std::collections::BTreeMap;

use crate::{
    conn::Conn,
    core::{Core, Facts, Place, Task},
    end::End,
    ledger::{Ledger, Outcome},
    pipe::Pipe,
    plan::{Fault, MS, SECOND},
    traffic::{self, one_way, streams, unary},
};

/// From when faults stop until nothing may be in flight.
const SETTLE_US: u64 = 20 * SECOND;
/// From then until a new call must have succeeded on each link.
const PROBE_US: u64 = 20 * SECOND;
/// More tasks than any simulation has: one that has as many does not end.
const TASKS_MAX: u64 = 20_000_000;

struct Node {
    paused_until_us: u64,
    /// When it comes back from a crash.
    down_until_us: u64,
}

/// A client and a server that it talks to, over one connection after the other.
struct Link {
    nodes: [usize; 2],
    conn: Option<usize>,
    /// The call that probes the link, in the ledger.
    probe: Option<u64>,
}

pub(crate) struct World {
    core: Core,
    nodes: Vec<Node>,
    links: Vec<Link>,
    conns: Vec<Conn>,
}

/// What a simulation came to.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Report {
    /// Of everything that happened.
    pub(crate) hash: u64,
    /// How often what happened.
    pub(crate) counts: BTreeMap<&'static str, u64>,
}

/// Runs a simulation.
///
/// # Panics
///
/// Where anything is not as it must be.
pub(crate) fn run(seed: u64, prints: bool) -> Report {
    let mut world = World::new(seed, prints);
    while let Some(task) = world.core.next() {
        assert!(world.core.tasks() < TASKS_MAX, "it does not end");
        if task == Task::End {
            world.check_probes();
            break;
        }
        world.step(task);
    }
    world.core.trace.report()
}

impl World {
    fn new(seed: u64, prints: bool) -> Self {
        let mut core = Core::new(seed, prints);
        let (clients, servers) = (core.plan.clients as usize, core.plan.servers as usize);
        let node = || Node { paused_until_us: 0, down_until_us: 0 };
        let nodes = (0..clients + servers).map(|_| node()).collect();
        let pairs = (0..clients)
            .flat_map(|client| (0..servers).map(move |server| [client, clients + server]));
        let mut links: Vec<Link> =
            pairs.map(|nodes| Link { nodes, conn: None, probe: None }).collect();
        while links.len() > 1 && core.random.percent(40) {
            links.swap_remove(core.random.below(links.len() as u64) as usize);
        }
        for link in 0..links.len() {
            core.at(0, Task::Call { link });
        }
        for (fault, every_us) in core.plan.faults.clone() {
            let at_us = core.random.below(2 * every_us);
            core.at(at_us, Task::Fault(fault, every_us));
        }
        let calm_at_us = core.plan.calm_at_us;
        core.at(calm_at_us, Task::Calm);
        core.at(calm_at_us + SETTLE_US, Task::Settled);
        core.at(calm_at_us + SETTLE_US + PROBE_US, Task::End);
        Self { core, nodes, links, conns: Vec::new() }
    }

    fn step(&mut self, task: Task) {
        if let Some(place) = place_of(task) {
            let node = &self.nodes[self.conns[place.conn].nodes[place.side]];
            if node.paused_until_us > self.core.now_us {
                return self.core.at(node.paused_until_us, task);
            }
            return self.at_end(place, task);
        }
        match task {
            Task::Call { link } => self.call(link),
            Task::Probe { link } => self.probe(link),
            Task::Fault(fault, every_us) if !self.core.is_calm => {
                self.fault(fault);
                let wait_us = self.core.random.below(2 * every_us) + MS;
                self.core.after(wait_us, task);
            }
            Task::Calm => self.calm(),
            Task::Settled => self.settled(),
            _ => {}
        }
    }

    /// Something happens at one end of a connection.
    fn at_end(&mut self, place: Place, task: Task) {
        let (conn, core) = (&mut self.conns[place.conn], &mut self.core);
        let end = &mut conn.ends[place.side];
        end.session.set_now(core.now_us);
        match task {
            Task::Deliver(_) => return conn.deliver(core, place.side),
            Task::Broken(_) => end.on_broken(core),
            Task::Timer(_) => end.on_timer(core),
            Task::Grace(_) => end.on_grace(core),
            Task::Work { job, .. } => {
                unary::on_work(end, core, job);
                one_way::on_work(end, core, job);
            }
            Task::Abandon { call, .. } => unary::abandon(end, core, call),
            Task::Release { call, .. } => unary::release(end, core, call),
            Task::Send { stream, .. } => streams::on_send(end, core, stream),
            Task::Take { stream, .. } => streams::on_take(end, core, stream),
            _ => {}
        }
        conn.settle(core, place.side);
    }

    fn call(&mut self, link: usize) {
        if self.core.is_calm {
            return;
        }
        let wait_us = self.core.random.below(2 * self.core.plan.call_every_us) + 1;
        self.core.after(wait_us, Task::Call { link });
        let Some(conn) = self.connected(link) else { return };
        let side = usize::from(self.core.plan.calls_back && self.core.random.percent(25));
        let node = &self.nodes[self.links[link].nodes[side]];
        if node.paused_until_us > self.core.now_us {
            return;
        }
        let (conn, core) = (&mut self.conns[conn], &mut self.core);
        conn.ends[side].session.set_now(core.now_us);
        if core.random.percent(5) {
            // Earlier than it was asked for is allowed.
            if conn.ends[side].is_live() {
                conn.ends[side].handle_timeout(core);
            }
        } else {
            traffic::make(&mut conn.ends[side], core);
        }
        conn.settle(core, side);
    }

    /// The link's connection, made anew where that of before is of no more use.
    fn connected(&mut self, link: usize) -> Option<usize> {
        let Link { nodes, conn, .. } = self.links[link];
        let now_us = self.core.now_us;
        if let Some(conn) = conn.filter(|conn| self.conns[*conn].ends[0].is_usable()) {
            return Some(conn);
        }
        if nodes.iter().any(|node| self.nodes[*node].down_until_us > now_us)
            || self.nodes[nodes[0]].paused_until_us > now_us
        {
            return None;
        }
        let at = self.conns.len();
        let is_slowed = self.nodes[nodes[1]].paused_until_us > now_us;
        let facts = Facts { is_tainted: false, is_slowed, is_backlogged: false, excuse: None };
        self.core.facts.push(facts);
        self.core.trace.note(now_us, "connect", &[link as u64, at as u64]);
        self.core.items.connect(nodes.map(|node| self.core.plan.configs[node].limits));
        self.conns.push(Conn::new(&mut self.core, at, nodes));
        self.links[link].conn = Some(at);
        Some(at)
    }

    /// A connection that is not over, if there is one.
    fn any_conn(&mut self) -> Option<usize> {
        let alive: Vec<_> =
            (0..self.conns.len()).filter(|conn| !self.conns[*conn].is_over()).collect();
        let at = self.core.random.below(alive.len() as u64) as usize;
        alive.get(at).copied()
    }

    fn fault(&mut self, fault: Fault) {
        let node = self.core.random.below(self.nodes.len() as u64) as usize;
        let side = self.core.random.below(2) as usize;
        let span_us = self.core.random.between(10 * MS, 3 * SECOND);
        let until_us = self.core.now_us + span_us;
        match fault {
            Fault::Pause => {
                self.core.trace.note(self.core.now_us, "pause", &[node as u64, span_us]);
                self.nodes[node].paused_until_us = until_us;
                for conn in self.conns_of(node) {
                    self.core.facts[conn].is_slowed = true;
                }
            }
            Fault::Crash | Fault::Vanish => self.crash(node, until_us, fault),
            Fault::Reset | Fault::HalfClose | Fault::Stall | Fault::Corrupt | Fault::Drain => {
                if let Some(conn) = self.any_conn() {
                    self.fault_of(fault, Place { conn, side }, until_us);
                }
            }
        }
    }

    /// A fault of one connection.
    fn fault_of(&mut self, fault: Fault, place: Place, until_us: u64) {
        let (conn, core) = (&mut self.conns[place.conn], &mut self.core);
        match fault {
            Fault::Reset => {
                core.note(place, "reset", &[]);
                self.reset(place.conn, "reset");
            }
            Fault::HalfClose => {
                core.note(place, "half close", &[]);
                core.excuse(place, "half closed");
                core.facts(place).is_slowed = true;
                conn.pipes[place.side].cut(core);
            }
            Fault::Stall => {
                core.note(place, "stall", &[until_us]);
                core.facts(place).is_slowed = true;
                conn.pipes[place.side].stall(until_us);
            }
            Fault::Corrupt => conn.pipes[place.side].change_next(),
            _ => {
                // A node that is paused drains nothing.
                if self.nodes[conn.nodes[place.side]].paused_until_us <= core.now_us {
                    conn.ends[place.side].drain(core);
                    conn.settle(core, place.side);
                }
            }
        }
    }

    fn crash(&mut self, node: usize, until_us: u64, fault: Fault) {
        let what = if fault == Fault::Crash { "crash" } else { "vanish" };
        self.core.trace.note(self.core.now_us, what, &[node as u64]);
        self.nodes[node].down_until_us = until_us;
        self.nodes[node].paused_until_us = 0;
        for at in self.conns_of(node) {
            let (conn, core) = (&mut self.conns[at], &mut self.core);
            let side = usize::from(conn.nodes[1] == node);
            core.excuse(Place { conn: at, side }, what);
            core.facts[at].is_slowed = true;
            conn.ends[side].crash(core);
            conn.lose();
            if fault == Fault::Crash {
                self.reset(at, what);
            } else {
                conn.has_vanished = true;
            }
        }
    }

    /// Breaks a connection; both ends learn of it.
    fn reset(&mut self, conn: usize, why: &'static str) {
        self.core.excuse(Place { conn, side: 0 }, why);
        self.conns[conn].lose();
        for side in [0, 1] {
            let delay_us = self.core.random.below(self.core.plan.delay_us_max + 1);
            self.core.after(delay_us, Task::Broken(Place { conn, side }));
        }
    }

    fn conns_of(&self, node: usize) -> Vec<usize> {
        let alive = self.conns.iter().enumerate().filter(|(_, conn)| !conn.is_over());
        alive.filter(|(_, conn)| conn.nodes.contains(&node)).map(|(at, _)| at).collect()
    }

    /// Faults stop: what they have broken is broken for good, and the rest goes on.
    fn calm(&mut self) {
        self.core.trace.note(self.core.now_us, "calm", &[]);
        self.core.is_calm = true;
        for at in 0..self.conns.len() {
            let facts = self.core.facts[at];
            let is_broken =
                facts.is_tainted || facts.excuse.is_some() || self.conns[at].has_vanished;
            if is_broken && !self.conns[at].is_over() {
                self.reset(at, "never to heal");
            }
            self.conns[at].pipes.iter_mut().for_each(Pipe::heal);
            for end in &mut self.conns[at].ends {
                traffic::calm(end, &mut self.core);
            }
        }
    }

    /// Nothing may be in flight any more.
    fn settled(&mut self) {
        self.core.trace.note(self.core.now_us, "settled", &[]);
        for end in self.conns.iter().flat_map(|conn| &conn.ends) {
            let is_at_rest = !end.is_live() || end.is_at_rest(&self.core);
            assert!(is_at_rest, "{:?} is not at rest: {:#?}", end.place, end.session);
        }
        for (at, conn) in self.conns.iter().enumerate() {
            let facts = self.core.facts[at];
            let is_whole = !facts.is_tainted && facts.excuse.is_none() && !conn.has_vanished;
            if is_whole && conn.ends.iter().all(End::is_usable) {
                self.core.items.check_at_rest(at);
            }
        }
        for (uid, call) in self.core.ledger.calls() {
            let is_cut = self.core.facts[call.from.conn].excuse.is_some();
            assert!(!Ledger::is_open(call, is_cut), "call {uid} has no outcome: {call:?}");
        }
        for link in 0..self.links.len() {
            self.core.after(0, Task::Probe { link });
        }
    }

    /// Calls, until a call succeeds.
    fn probe(&mut self, link: usize) {
        let outcome_of = |uid: u64| self.core.ledger.call(uid).and_then(|call| call.outcome);
        if let Some(uid) = self.links[link].probe {
            match outcome_of(uid) {
                Some(Outcome::Reply) => return,
                None => return self.core.after(100 * MS, Task::Probe { link }),
                Some(_) => {}
            }
        }
        self.links[link].probe = None;
        if let Some(conn) = self.connected(link) {
            let (conn, core) = (&mut self.conns[conn], &mut self.core);
            conn.ends[0].session.set_now(core.now_us);
            self.links[link].probe = traffic::probe(&mut conn.ends[0], core);
            conn.settle(core, 0);
        }
        self.core.after(100 * MS, Task::Probe { link });
    }

    fn check_probes(&mut self) {
        for (at, link) in self.links.iter().enumerate() {
            let call = link.probe.and_then(|uid| self.core.ledger.call(uid));
            let outcome = call.and_then(|call| call.outcome);
            assert_eq!(outcome, Some(Outcome::Reply), "no call succeeds on link {at}: {call:?}");
        }
    }
}

/// Where a task happens, if at one end.
fn place_of(task: Task) -> Option<Place> {
    match task {
        Task::Deliver(place) | Task::Broken(place) | Task::Timer(place) | Task::Grace(place) => {
            Some(place)
        }
        Task::Work { at, .. } | Task::Abandon { at, .. } | Task::Release { at, .. } => Some(at),
        Task::Send { at, .. } | Task::Take { at, .. } => Some(at),
        Task::Call { .. }
        | Task::Probe { .. }
        | Task::Fault(..)
        | Task::Calm
        | Task::Settled
        | Task::End => None,
    }
}

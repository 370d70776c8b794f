//! The figures of shards at one moment, each on its own and merged.

use std::time::Duration;

use super::{
    figures::Figures,
    histogram::Histogram,
    methods::{OTHER_METHODS, OUTCOMES, ServiceFigures, outcome_index, outcome_name},
    slow::SlowCall,
};
use crate::counters::{Counters, RoundTrips, ShardCounters};
use ringcall_codec::Code;

/// The figures of a server at one moment: [`ServerHandle::metrics`](crate::ServerHandle::metrics).
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Metrics {
    /// Each shard's, by number.
    pub shards: Vec<ShardMetrics>,
}

/// The figures of one shard, or of several merged. `docs/observing.md` says what each tells.
///
/// Calls are measured one in [`measured_one_in`](Self::measured_one_in) and recorded as so many,
/// so that the counts are about those of all calls; handlers that wait, and turns, are all measured.
/// Streams are not among the calls: they live for as long as their ends like.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct ShardMetrics {
    /// What was counted.
    pub counters: ShardCounters,
    /// From when a call was taken from the ring until its handler began, in nanoseconds.
    pub queue_ns: Histogram,
    /// From a handler's begin to its end, in nanoseconds, with what it waited for.
    pub service_ns: Histogram,
    /// From the end of a handler that did not wait until the shard saw that the kernel had taken
    /// the reply, in nanoseconds.
    pub reply_ns: Histogram,
    /// Length of the driver's turns that found something to do, from when the ring's completions
    /// were taken to the end, in nanoseconds.
    pub turn_ns: Histogram,
    /// How long tasks ran between two turns, where some ran, in nanoseconds.
    pub tasks_ns: Histogram,
    /// Length of the reactor's turns, in nanoseconds.
    pub reactor_turn_ns: Histogram,
    /// Time without a turn of the reactor, in nanoseconds.
    pub reactor_gap_ns: Histogram,
    /// Calls that began in a turn, where some did.
    pub calls_per_turn: Histogram,
    /// Replies that went to the kernel with one send, where some did.
    pub calls_per_send: Histogram,
    /// Answers to PINGs, by powers of two of microseconds.
    pub ping_round_trips: RoundTrips,
    /// Receive buffers of the pool.
    pub buffers: u64,
    /// Those of them that are not leased. As of the last turn.
    pub buffers_free: u64,
    /// Bytes of messages held in buffers of their own.
    pub owned_bytes: u64,
    /// Connections that are open. As of the last turn.
    pub connections_open: u64,
    /// Calls that run. As of the last turn.
    pub calls_running: u64,
    /// Of how many calls one is measured; of several shards, the most.
    pub measured_one_in: u64,
    /// From how much on a call is kept as slow, in nanoseconds; of several shards, the most.
    pub slow_from_ns: u64,
    /// Slow calls that were seen, kept or not.
    pub slow_seen: u64,
    /// The last of them, at most [`SLOW_CALLS_KEPT`](crate::SLOW_CALLS_KEPT) of a shard, oldest
    /// first.
    pub slow: Vec<SlowCall>,
    /// Each method that was called, in the order of the trait.
    pub methods: Vec<MethodMetrics>,
}

/// The figures of one method.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct MethodMetrics {
    /// `Service.method`; [`OTHER_METHODS`](crate::OTHER_METHODS) for what has no row of its own.
    pub name: &'static str,
    /// From the handler's begin to its end, in nanoseconds.
    pub service_ns: Histogram,
    outcomes: [u64; OUTCOMES],
}

impl MethodMetrics {
    /// Calls that have ended.
    pub fn calls(&self) -> u64 {
        self.outcomes.iter().sum()
    }

    /// Calls that have ended otherwise than with a reply.
    pub fn errors(&self) -> u64 {
        self.outcomes[1..].iter().sum()
    }

    /// Calls that have ended so: with a reply (`None`) or a status of this code.
    pub fn ended_with(&self, code: Option<Code>) -> u64 {
        self.outcomes[outcome_index(code)]
    }

    /// Each outcome that was seen, by the name that gRPC has for it, and how often.
    pub fn outcomes(&self) -> impl Iterator<Item = (&'static str, u64)> {
        let outcomes = self.outcomes.iter().enumerate();
        outcomes.filter(|(_, calls)| **calls > 0).map(|(at, calls)| (outcome_name(at), *calls))
    }

    fn add(&mut self, other: &Self) {
        self.service_ns.add(&other.service_ns);
        self.outcomes.iter_mut().zip(&other.outcomes).for_each(|(to, from)| *to += from);
    }
}

impl Metrics {
    /// The shards' figures as one.
    pub fn merged(&self) -> ShardMetrics {
        let mut merged = ShardMetrics::default();
        self.shards.iter().for_each(|shard| merged.add(shard));
        merged
    }
}

impl ShardMetrics {
    pub(crate) fn of(counters: &Counters) -> Self {
        let figures: &Figures = &counters.figures;
        let gauges = &figures.gauges;
        let mut metrics = Self {
            counters: counters.snapshot(),
            queue_ns: figures.queue_ns.snapshot(),
            service_ns: figures.service_ns.snapshot(),
            reply_ns: figures.reply_ns.snapshot(),
            turn_ns: figures.turn_ns.snapshot(),
            tasks_ns: figures.tasks_ns.snapshot(),
            reactor_turn_ns: figures.reactor_turn_ns.snapshot(),
            reactor_gap_ns: figures.reactor_gap_ns.snapshot(),
            calls_per_turn: figures.calls_per_turn.snapshot(),
            calls_per_send: figures.calls_per_send.snapshot(),
            ping_round_trips: counters.ping_round_trips.snapshot(),
            buffers: gauges.buffers.get(),
            buffers_free: gauges.buffers_free.get(),
            owned_bytes: gauges.owned_bytes.get(),
            connections_open: gauges.connections_open.get(),
            calls_running: gauges.calls_running.get(),
            measured_one_in: gauges.measured_one_in.get(),
            slow_from_ns: gauges.slow_from_ns.get(),
            slow_seen: figures.slow.seen.get(),
            slow: figures.slow.snapshot(),
            methods: Vec::new(),
        };
        figures.services().iter().for_each(|service| metrics.add_service(service));
        metrics
    }

    fn add_service(&mut self, service: &ServiceFigures) {
        for (name, row) in service.rows() {
            let outcomes = std::array::from_fn(|at| row.outcomes[at].get());
            let is_called = outcomes.iter().any(|calls| *calls > 0);
            if is_called || name != OTHER_METHODS {
                let service_ns = row.service_ns.snapshot();
                self.add_method(&MethodMetrics { name, service_ns, outcomes });
            }
        }
    }

    fn add_method(&mut self, method: &MethodMetrics) {
        match self.methods.iter_mut().find(|known| known.name == method.name) {
            Some(known) => known.add(method),
            None => self.methods.push(method.clone()),
        }
    }

    /// Adds what another shard has; its slow calls are put where they belong in time.
    fn add(&mut self, other: &Self) {
        self.counters = self.counters.plus(&other.counters);
        for (to, from) in [
            (&mut self.queue_ns, &other.queue_ns),
            (&mut self.service_ns, &other.service_ns),
            (&mut self.reply_ns, &other.reply_ns),
            (&mut self.turn_ns, &other.turn_ns),
            (&mut self.tasks_ns, &other.tasks_ns),
            (&mut self.reactor_turn_ns, &other.reactor_turn_ns),
            (&mut self.reactor_gap_ns, &other.reactor_gap_ns),
            (&mut self.calls_per_turn, &other.calls_per_turn),
            (&mut self.calls_per_send, &other.calls_per_send),
        ] {
            to.add(from);
        }
        let round_trips = self.ping_round_trips.iter_mut().zip(other.ping_round_trips);
        round_trips.for_each(|(to, from)| *to += from);
        self.buffers += other.buffers;
        self.buffers_free += other.buffers_free;
        self.owned_bytes += other.owned_bytes;
        self.connections_open += other.connections_open;
        self.calls_running += other.calls_running;
        self.measured_one_in = self.measured_one_in.max(other.measured_one_in);
        self.slow_from_ns = self.slow_from_ns.max(other.slow_from_ns);
        self.slow_seen += other.slow_seen;
        self.slow.extend(&other.slow);
        self.slow.sort_by_key(|call| call.at);
        other.methods.iter().for_each(|method| self.add_method(method));
    }

    /// Calls that have ended, of every method: those that a handler ended.
    pub fn calls(&self) -> u64 {
        self.methods.iter().map(MethodMetrics::calls).sum()
    }

    /// Time that the shard's thread was on its core.
    pub fn cpu(&self) -> Duration {
        Duration::from_nanos(self.counters.cpu_ns)
    }
}

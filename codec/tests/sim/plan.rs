//! What a seed switches on: which faults and how often, how ends are configured, what is called.

use ringcall_codec::{
    Deadlines, Limits, Patience, SessionConfig, features,
    limits::{
        BYTES_PER_S_MIN_DEFAULT, CONNECTION_WINDOW_DEFAULT, FRAME_LEN_MAX_FLOOR,
        STREAM_WINDOW_DEFAULT, WINDOW_FLOOR,
    },
};

use crate::random::Random;

pub(crate) const MS: u64 = 1_000;
pub(crate) const SECOND: u64 = 1_000_000;

/// A message that is not large is shorter than this, in bytes.
pub(crate) const LEN_SMALL_MAX: u64 = 300;

/// What can go wrong between and in nodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// A connection breaks and both ends are told.
    Reset,
    /// One direction of a connection ends, anywhere in a frame, and the other goes on.
    HalfClose,
    /// One direction of a connection stands still for a while.
    Stall,
    /// A bit changes on its way.
    Corrupt,
    /// A node does nothing for a while.
    Pause,
    /// A node loses all its connections and their state, and comes back; its peers are told.
    Crash,
    /// The same, and its peers are not told.
    Vanish,
    /// One end of a connection drains it.
    Drain,
}

pub(crate) const FAULTS: [Fault; 8] = [
    Fault::Reset,
    Fault::HalfClose,
    Fault::Stall,
    Fault::Corrupt,
    Fault::Pause,
    Fault::Crash,
    Fault::Vanish,
    Fault::Drain,
];

/// Chances are in percent, times in microseconds.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) clients: u64,
    pub(crate) servers: u64,
    pub(crate) configs: Vec<SessionConfig>,
    /// Whether servers call their clients.
    pub(crate) calls_back: bool,
    /// The faults that happen, and the mean time between two of a kind.
    pub(crate) faults: Vec<(Fault, u64)>,
    /// When faults and new calls stop.
    pub(crate) calm_at_us: u64,

    // The network.
    pub(crate) delay_us_max: u64,
    /// Bytes of one direction on their way.
    pub(crate) window: u64,
    pub(crate) bytes_per_s: u64,
    /// Frames longer than this go in parts.
    pub(crate) part_len: usize,
    /// How often a piece is a few bytes.
    pub(crate) tiny_pieces: u64,
    /// How late a timer fires.
    pub(crate) timer_late_us_max: u64,

    // Calls.
    pub(crate) call_every_us: u64,
    pub(crate) one_ways: u64,
    pub(crate) deadlines: u64,
    pub(crate) deadline_us_max: u64,
    pub(crate) abandons: u64,
    pub(crate) metadata: u64,
    /// How often a message is large, and how large then.
    pub(crate) large: u64,
    pub(crate) large_len_max: u64,

    // Handlers.
    pub(crate) work_us_max: u64,
    /// Answered within the turn in which the call came.
    pub(crate) at_once: u64,
    pub(crate) refusals: u64,
    /// Ends when it is told to, and never else.
    pub(crate) hangs: u64,
    /// Does not listen when it is told to stop.
    pub(crate) deaf: u64,
    pub(crate) stop_us_max: u64,
    /// Refused by its header, where the frame is cut.
    pub(crate) header_refusals: u64,
    pub(crate) grace_us: u64,

    // Streams.
    pub(crate) streams: u64,
    pub(crate) items_max: u32,
    pub(crate) item_every_us: u64,
    pub(crate) take_us_max: u64,
    /// How often a handler is done before the caller's items are.
    pub(crate) early_ends: u64,
}

impl Plan {
    pub(crate) fn new(random: &mut Random) -> Self {
        let (clients, servers) = (random.between(1, 4), random.between(1, 3));
        let chances = [0, 0, 5, 20, 60];
        let bytes_per_s = random.one_of(&[1 << 30, 1 << 30, 1 << 20, 1 << 18]);
        let mut plan = Self {
            clients,
            servers,
            configs: Vec::new(),
            calls_back: random.percent(50),
            faults: Vec::new(),
            calm_at_us: random.between(SECOND, 8 * SECOND),
            delay_us_max: random.one_of(&[0, 50, MS, 20 * MS]),
            // What is on a slow line when faults stop is a second's worth at most.
            window: random.one_of(&[1 << 16, 1 << 18, 1 << 30]).min(bytes_per_s),
            bytes_per_s,
            part_len: random.one_of(&[64, 1 << 10, 1 << 16]),
            tiny_pieces: random.one_of(&[0, 0, 5, 50]),
            timer_late_us_max: random.one_of(&[0, 0, MS, 20 * MS]),
            call_every_us: random.one_of(&[2 * MS, 10 * MS, 30 * MS, 100 * MS]),
            one_ways: random.one_of(&chances),
            deadlines: random.one_of(&[0, 5, 50, 100]),
            deadline_us_max: random.one_of(&[MS, 30 * MS, 500 * MS, 3 * SECOND]),
            abandons: random.one_of(&chances),
            metadata: random.one_of(&chances),
            large: random.one_of(&[0, 0, 2, 20]),
            large_len_max: random.one_of(&[1 << 12, 1 << 17, 1 << 18]),
            work_us_max: random.one_of(&[MS, 10 * MS, 200 * MS]),
            at_once: random.one_of(&[0, 20, 80]),
            refusals: random.one_of(&chances),
            hangs: random.one_of(&[0, 0, 2, 10]),
            deaf: random.one_of(&chances),
            stop_us_max: random.one_of(&[0, MS, 50 * MS, 300 * MS]),
            header_refusals: random.one_of(&[0, 0, 30]),
            grace_us: random.one_of(&[100 * MS, 2 * SECOND]),
            streams: random.one_of(&chances),
            items_max: random.one_of(&[2, 10, 40]),
            item_every_us: random.one_of(&[0, MS, 20 * MS]),
            take_us_max: random.one_of(&[0, MS, 30 * MS, 300 * MS]),
            early_ends: random.one_of(&chances),
        };
        for _ in 0..clients + servers {
            let config = config(random, bytes_per_s);
            plan.configs.push(config);
        }
        // One seed in ten has no faults: then nothing may fail.
        if !random.percent(10) {
            for fault in FAULTS {
                if random.percent(35) {
                    let every_us = random.one_of(&[200 * MS, SECOND, 3 * SECOND]);
                    plan.faults.push((fault, every_us));
                }
            }
        }
        plan
    }

    /// The length of a message.
    pub(crate) fn len(&self, random: &mut Random) -> usize {
        let len_max = if random.percent(self.large) { self.large_len_max } else { LEN_SMALL_MAX };
        random.below(len_max) as usize
    }
}

/// How an end behaves. Its patience is longer than what the network alone takes (see
/// `Facts::explains`).
fn config(random: &mut Random, bytes_per_s: u64) -> SessionConfig {
    let calls_in_flight_max = random.one_of(&[1, 3, 16, 64]);
    let frame_len_max = random.one_of(&[FRAME_LEN_MAX_FLOOR, 1 << 17, 1 << 20]);
    // The least ones run out after a few items.
    let stream_window = random.one_of(&[WINDOW_FLOOR, 1 << 14, STREAM_WINDOW_DEFAULT]);
    let connection_window = random.one_of(&[WINDOW_FLOOR, 1 << 16, CONNECTION_WINDOW_DEFAULT]);
    let sometimes = |random: &mut Random, least, most| {
        if random.percent(50) { 0 } else { random.between(least, most) }
    };
    SessionConfig {
        features: random.one_of(&[0, features::KEYS, features::KEYS]),
        limits: Limits { frame_len_max, calls_in_flight_max, stream_window, connection_window },
        deadlines: Deadlines {
            least_us: random.one_of(&[0, 0, 5_000]),
            most_us: random.one_of(&[u32::MAX, u32::MAX, 100_000]),
            default_us: random.one_of(&[0, 0, 50_000, 2_000_000]),
        },
        patience: Patience {
            hello_us: sometimes(random, 200 * MS, 5 * SECOND),
            frame_us: sometimes(random, 300 * MS, 5 * SECOND),
            bytes_per_s_min: (bytes_per_s / 2).min(BYTES_PER_S_MIN_DEFAULT),
            ping_after_us: sometimes(random, 200 * MS, 5 * SECOND),
            ping_answer_us: sometimes(random, 300 * MS, 3 * SECOND),
            idle_us: sometimes(random, 200 * MS, 3 * SECOND),
            age_us: sometimes(random, SECOND, 10 * SECOND),
        },
    }
}

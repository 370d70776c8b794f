//! Ids that a shard makes by itself, and no other shard of the process makes.
//!
//! Beside the path of a call. A shard keeps one number, the tick of its last id. What shards have
//! to know of each other is asked for when the first id is made: the number of their server, which
//! no other server of the process has at the time.

use std::{
    cell::Cell,
    rc::{Rc, Weak},
    sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant, SystemTime},
};

use crate::shard::Shard;

/// Makes ids that are unique in this process, each greater than the one before. From
/// [`ShardInfo::ids`](crate::ShardInfo::ids).
///
/// ```text
/// 63                                                  14 13     10 9              0
/// | microseconds since 2025-01-01T00:00:00Z, 50 bits     | server | shard          |
/// ```
///
/// - **Order**: each id of a shard is greater than those before it. Those of different shards are
///   in the order of time, as exactly as a turn of a shard is long. The time is that of the turn:
///   no clock is read. Where more than a million ids a second are made, it runs ahead.
/// - **Bounds**: 1,024 shards, 16 servers at a time in a process that make ids, and the year 2060.
/// - **Between processes**, and after a restart with another time, ids may be the same.
///
/// Cheap to clone; all of a shard go on where the last one ended.
#[derive(Clone)]
pub struct Ids(Rc<IdSource>);

/// Why a shard makes no ids.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum IdsError {
    /// The thread is not that of the shard.
    #[error("ids are made on the thread of their shard; ask where its service value is made")]
    NotHere,
    /// Too many servers of this process make ids.
    #[error("{SERVERS_MAX} servers of this process make ids; a seventeenth has no number for them")]
    TooManyServers,
}

/// Servers that make ids in one process at a time: four bits of an id.
const SERVERS_MAX: u16 = 16;

const SHARD_BITS: u32 = 10;
const SERVER_BITS: u32 = 4;

/// From 1970 to where the time of ids begins, 2025-01-01T00:00:00Z.
const EPOCH: Duration = Duration::from_secs(1_735_689_600);

/// Where the ids of a shard come from.
pub(crate) struct IdSource {
    shard: Weak<Shard>,
    /// When the shard started, in the time of ids.
    started_us: u64,
    ticks: Ticks,
    lane: u64,
    server: Arc<ServerNumber>,
}

/// Times that only increase, in microseconds.
struct Ticks(Cell<u64>);

/// A server's number, from its first id on until nobody can make one any more.
#[derive(Default)]
pub(crate) struct ServerNumber(Mutex<Option<u16>>);

/// What the servers of this process know of each other.
struct Servers {
    /// A bit for each number that is taken.
    taken: u16,
    /// No id that was made by a server that has ended has a later tick.
    tick_max: u64,
}

static SERVERS: Mutex<Servers> = Mutex::new(Servers { taken: 0, tick_max: 0 });

/// One moment in the time of ids. Taken once: a system clock that is set back makes no id twice.
static MOMENT: LazyLock<(Instant, u64)> = LazyLock::new(|| {
    let since_1970 = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    (Instant::now(), micros(since_1970.saturating_sub(EPOCH)))
});

impl Ids {
    /// Those of the shard that this thread runs.
    pub(crate) fn here(index: u16) -> Result<Self, IdsError> {
        let shard = Shard::existing().filter(|shard| shard.place.index == index);
        let shard = shard.ok_or(IdsError::NotHere)?;
        let server = shard.server_number.get().ok_or(IdsError::NotHere)?;
        if let Some(source) = shard.ids.get() {
            return Ok(Self(Rc::clone(source)));
        }
        let lane = u64::from(server.claim()?) << SHARD_BITS | u64::from(index);
        let (moment, moment_us) = *MOMENT;
        let started_us = moment_us + micros(shard.epoch().saturating_duration_since(moment));
        let (ticks, server) = (Ticks(Cell::new(servers().tick_max)), Arc::clone(server));
        let source = IdSource { shard: Rc::downgrade(&shard), started_us, ticks, lane, server };
        Ok(Self(Rc::clone(shard.ids.get_or_init(|| Rc::new(source)))))
    }

    /// The next id.
    #[inline]
    pub fn next(&self) -> u64 {
        let source = &*self.0;
        // A shard that has ended has no time any more; its ids go on.
        let now_us = source.shard.upgrade().map_or(0, |shard| source.started_us + shard.now_us());
        source.ticks.next(now_us) << (SHARD_BITS + SERVER_BITS) | source.lane
    }

    /// Number of the shard that made an id.
    pub fn shard_of(id: u64) -> u16 {
        (id & ((1 << SHARD_BITS) - 1)) as u16
    }

    /// When an id was made, in microseconds since 2025-01-01T00:00:00Z.
    pub fn made_us(id: u64) -> u64 {
        id >> (SHARD_BITS + SERVER_BITS)
    }
}

impl Ticks {
    #[inline]
    fn next(&self, now_us: u64) -> u64 {
        let tick = now_us.max(self.0.get() + 1);
        self.0.set(tick);
        tick
    }
}

impl Drop for IdSource {
    fn drop(&mut self) {
        // A server that takes the number later goes on from there, though this one was ahead.
        let mut servers = servers();
        servers.tick_max = servers.tick_max.max(self.ticks.0.get());
        drop(servers);
        // The number is free no earlier than that.
        let _ = &self.server;
    }
}

impl ServerNumber {
    /// The server's number; taken where it has none yet.
    fn claim(&self) -> Result<u16, IdsError> {
        let mut own = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(number) = *own {
            return Ok(number);
        }
        let mut servers = servers();
        let number = servers.taken.trailing_ones() as u16;
        if number == SERVERS_MAX {
            return Err(IdsError::TooManyServers);
        }
        servers.taken |= 1 << number;
        *own = Some(number);
        Ok(number)
    }
}

impl Drop for ServerNumber {
    fn drop(&mut self) {
        let own = self.0.get_mut().unwrap_or_else(PoisonError::into_inner);
        if let Some(number) = own.take() {
            servers().taken &= !(1 << number);
        }
    }
}

/// Nothing panics while this is locked.
fn servers() -> MutexGuard<'static, Servers> {
    SERVERS.lock().unwrap_or_else(PoisonError::into_inner)
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn ticks_increase_whatever_the_clock_says_and_keep_up_with_it(
            times in prop::collection::vec(0..1u64 << 50, 1..200),
        ) {
            let ticks = Ticks(Cell::new(0));
            let mut before = 0;
            for now_us in times {
                let tick = ticks.next(now_us);
                prop_assert!(tick > before && tick >= now_us);
                // Ahead of the clock only where it has to be.
                prop_assert!(tick == now_us || tick == before + 1);
                before = tick;
            }
        }

        #[test]
        fn an_id_has_its_parts(tick in 0..1u64 << 50, server in 0..16u64, shard in 0..1024u16) {
            let id = tick << 14 | server << 10 | u64::from(shard);
            prop_assert_eq!(Ids::shard_of(id), shard);
            prop_assert_eq!(Ids::made_us(id), tick);
        }
    }
}

//! One direction of an emulated link: which packets get through, and when each leaves.
//!
//! Pure, so that it is tested in virtual time: packets and the time in, packets out. For each
//! packet that comes, `handle_arrival`; whenever `poll_departure` says, `take_due` until there is
//! no more. Times are those since the link was made.
//!
//! Packets stay in order, whatever the jitter: one that would pass those before it waits for them,
//! as in the queue of a router. Only those that `reorder` picks do not.

use std::{collections::BTreeMap, time::Duration};

use fastrand::Rng;
use hdrhistogram::Histogram;

use crate::netns::parse::PartsPerMillion;

/// Packets that are on their way at once, each way; one more is dropped. At 1,500 bytes each this
/// is what a link of 1 Gbit/s and 100 ms holds, and some 12 MB.
pub(super) const PACKETS_MAX: usize = 8192;

/// Least time for which a packet is held back. A delay can be shorter than the time between two
/// packets, and then nothing would overtake it.
const HOLD_MIN: Duration = Duration::from_micros(100);

/// Longest delay that is told from a longer one, in nanoseconds: an hour.
const DELAY_MAX_NS: u64 = 3_600_000_000_000;

const MILLION: u32 = 1_000_000;

/// What a link does to packets, the same each way.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct LinkPlan {
    /// Time that a packet takes.
    pub(super) delay: Duration,
    /// How far that time varies, evenly, up and down; at most `delay`.
    pub(super) jitter: Duration,
    /// Packets that are lost.
    pub(super) loss: PartsPerMillion,
    /// Packets that are held back, for as long again as the delay and [`HOLD_MIN`] at least.
    pub(super) reorder: PartsPerMillion,
}

/// What became of the packets of one direction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct LinkCounts {
    /// Packets that came.
    pub(super) arrived: u64,
    /// Of these, lost as it was asked for.
    pub(super) lost: u64,
    /// Of these, dropped because [`PACKETS_MAX`] were on their way.
    pub(super) dropped: u64,
    /// Of these, held back.
    pub(super) held_back: u64,
    /// Of those held back, overtaken by a later one.
    pub(super) overtaken: u64,
    /// Packets that left.
    pub(super) left: u64,
}

/// One direction of a link.
#[derive(Debug)]
pub(super) struct LinkDirection {
    plan: LinkPlan,
    /// A generator for each matter, so that what is lost does not depend on the rest of the plan.
    losses: Rng,
    holds: Rng,
    variations: Rng,
    packets_max: usize,
    /// Packets on their way, by when they leave and their number.
    on_way: BTreeMap<(Duration, u64), Packet>,
    /// When the last packet leaves that is not held back.
    leaves_last: Duration,
    /// Highest number of a packet that has left.
    left_last: Option<u64>,
    counts: LinkCounts,
    /// How long packets took, in nanoseconds.
    delays_ns: Histogram<u64>,
}

#[derive(Debug)]
struct Packet {
    arrived: Duration,
    bytes: Box<[u8]>,
}

impl LinkDirection {
    /// A direction with nothing on its way. The same seed loses and holds back the same packets,
    /// by their number.
    pub(super) fn new(
        plan: LinkPlan,
        seed: u64,
        packets_max: usize,
    ) -> Result<Self, hdrhistogram::CreationError> {
        let mut seeds = Rng::with_seed(seed);
        Ok(Self {
            plan,
            losses: seeds.fork(),
            holds: seeds.fork(),
            variations: seeds.fork(),
            packets_max,
            on_way: BTreeMap::new(),
            leaves_last: Duration::ZERO,
            left_last: None,
            counts: LinkCounts::default(),
            delays_ns: Histogram::new_with_max(DELAY_MAX_NS, 3)?,
        })
    }

    /// Takes a packet that came, unless it is lost or too many are on their way.
    pub(super) fn handle_arrival(&mut self, now: Duration, bytes: &[u8]) {
        let number = self.counts.arrived;
        self.counts.arrived += 1;
        // Drawn for every packet, so that its number says what becomes of it.
        let is_lost = is_one_of(self.plan.loss, &mut self.losses);
        let is_held_back = is_one_of(self.plan.reorder, &mut self.holds);
        let takes = self.draw_delay();
        if is_lost {
            self.counts.lost += 1;
            return;
        }
        if self.on_way.len() >= self.packets_max {
            self.counts.dropped += 1;
            return;
        }
        let mut leaves = (now + takes).max(self.leaves_last);
        if is_held_back {
            self.counts.held_back += 1;
            leaves += self.plan.delay.max(HOLD_MIN);
        } else {
            self.leaves_last = leaves;
        }
        let packet = Packet { arrived: now, bytes: bytes.into() };
        let other = self.on_way.insert((leaves, number), packet);
        assert!(other.is_none(), "two packets have one number");
    }

    /// When the next packet leaves.
    pub(super) fn poll_departure(&self) -> Option<Duration> {
        self.on_way.first_key_value().map(|((leaves, _), _)| *leaves)
    }

    /// The next packet whose time has come.
    pub(super) fn take_due(&mut self, now: Duration) -> Option<Box<[u8]>> {
        let first = self.on_way.first_entry()?;
        let (leaves, number) = *first.key();
        if leaves > now {
            return None;
        }
        let packet = first.remove();
        if self.left_last.is_some_and(|last| number < last) {
            self.counts.overtaken += 1;
        }
        self.left_last = self.left_last.max(Some(number));
        self.counts.left += 1;
        let took = now.saturating_sub(packet.arrived).as_nanos();
        self.delays_ns.saturating_record(u64::try_from(took).unwrap_or(u64::MAX));
        Some(packet.bytes)
    }

    pub(super) fn counts(&self) -> LinkCounts {
        self.counts
    }

    /// How long the packets took that have left, in nanoseconds.
    pub(super) fn delays_ns(&self) -> &Histogram<u64> {
        &self.delays_ns
    }

    /// The time that one packet takes.
    fn draw_delay(&mut self) -> Duration {
        let LinkPlan { delay, jitter, .. } = self.plan;
        let jitter_ns = u64::try_from(jitter.as_nanos()).unwrap_or(u64::MAX / 2);
        let varied = Duration::from_nanos(self.variations.u64(0..=2 * jitter_ns));
        (delay + varied).saturating_sub(jitter)
    }
}

fn is_one_of(share: PartsPerMillion, rng: &mut Rng) -> bool {
    rng.u32(0..MILLION) < share.0
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

    use super::*;

    const DELAY: Duration = Duration::from_millis(1);
    const GAP: Duration = Duration::from_micros(10);

    fn direction(plan: LinkPlan, seed: u64) -> LinkDirection {
        LinkDirection::new(plan, seed, PACKETS_MAX).unwrap()
    }

    /// Sends packets that name their number, one every [`GAP`], and gives the time and the number
    /// of each that left, exactly when the link says.
    fn sent(link: &mut LinkDirection, count: u32) -> Vec<(Duration, u32)> {
        let mut left = Vec::new();
        let arrivals = (0..count).map(|number| (GAP * number, Some(number)));
        for (now, number) in arrivals.chain([(Duration::MAX, None)]) {
            while let Some(leaves) = link.poll_departure().filter(|leaves| *leaves <= now) {
                if let Some(before) = leaves.checked_sub(Duration::from_nanos(1)) {
                    assert_eq!(link.take_due(before), None, "too early");
                }
                let packet = link.take_due(leaves).unwrap();
                left.push((leaves, u32::from_le_bytes(packet[..].try_into().unwrap())));
            }
            if let Some(number) = number {
                link.handle_arrival(now, &number.to_le_bytes());
            }
        }
        assert_eq!(link.poll_departure(), None);
        assert_eq!(link.counts().left, left.len() as u64);
        assert!(left.is_sorted_by_key(|(leaves, _)| *leaves), "time went back");
        left
    }

    #[test]
    fn with_nothing_but_a_delay_each_packet_leaves_in_order_that_much_later() {
        let mut link = direction(LinkPlan { delay: DELAY, ..LinkPlan::default() }, 1);
        let expected: Vec<_> = (0..1_000).map(|number| (GAP * number + DELAY, number)).collect();
        assert_eq!(sent(&mut link, 1_000), expected);
        let counts = LinkCounts { arrived: 1_000, left: 1_000, ..LinkCounts::default() };
        assert_eq!(link.counts(), counts);
        let delays_ns = link.delays_ns();
        let delay_ns = delays_ns.lowest_equivalent(1_000_000);
        assert_eq!(delays_ns.lowest_equivalent(delays_ns.min()), delay_ns);
        assert_eq!(delays_ns.lowest_equivalent(delays_ns.max()), delay_ns);
    }

    #[test]
    fn without_anything_a_packet_leaves_at_once() {
        let mut link = direction(LinkPlan::default(), 1);
        link.handle_arrival(GAP, b"packet");
        assert_eq!(link.poll_departure(), Some(GAP));
        assert_eq!(link.take_due(GAP).as_deref(), Some(&b"packet"[..]));
        assert_eq!(link.take_due(GAP), None);
    }

    #[test]
    fn jitter_varies_the_delay_both_ways_and_keeps_the_order() {
        let jitter = DELAY / 2;
        let plan = LinkPlan { delay: DELAY, jitter, ..LinkPlan::default() };
        let left = sent(&mut direction(plan, 1), 10_000);
        let numbers: Vec<_> = left.iter().map(|(_, number)| *number).collect();
        assert_eq!(numbers, (0..10_000).collect::<Vec<_>>());
        let took = left.iter().map(|(leaves, number)| *leaves - GAP * *number);
        assert!(took.clone().all(|took| (DELAY - jitter..=DELAY + jitter).contains(&took)));

        // One at a time, none waits for another: both ends of the range are reached.
        let mut link = direction(plan, 1);
        let mut drawn: Vec<_> = (0..10_000).map(|_| link.draw_delay()).collect();
        drawn.sort_unstable();
        assert!(drawn[0] < DELAY - jitter * 98 / 100);
        assert!(drawn[9_999] > DELAY + jitter * 98 / 100);
        assert!((DELAY - jitter / 20..DELAY + jitter / 20).contains(&drawn[5_000]));
    }

    #[test]
    fn as_many_packets_are_lost_as_was_asked_for() {
        for (loss, bounds) in [(0, 0..=0), (10_000, 900..=1_100), (1_000_000, 100_000..=100_000)] {
            let plan = LinkPlan { loss: PartsPerMillion(loss), ..LinkPlan::default() };
            let mut link = direction(plan, 1);
            let left = sent(&mut link, 100_000);
            let lost = link.counts().lost;
            assert!(bounds.contains(&lost), "{lost} of 100,000 at {loss} in a million");
            assert_eq!(left.len() as u64, 100_000 - lost);
            assert!(left.is_sorted_by_key(|(_, number)| *number));
        }
    }

    #[test]
    fn as_many_packets_are_overtaken_as_was_asked_for_and_none_is_lost() {
        let reorder = PartsPerMillion(20_000);
        for delay in [Duration::ZERO, DELAY] {
            let mut link = direction(LinkPlan { delay, reorder, ..LinkPlan::default() }, 1);
            let left = sent(&mut link, 100_000);
            let mut numbers: Vec<_> = left.iter().map(|(_, number)| *number).collect();
            let descents = numbers.windows(2).filter(|pair| pair[0] > pair[1]).count() as u64;
            let LinkCounts { held_back, overtaken, .. } = link.counts();
            assert!((1_800..=2_200).contains(&held_back), "{held_back}");
            // But for those at the very end, which nothing follows.
            assert!(held_back - overtaken <= 10, "{overtaken} of {held_back}");
            // Neighbours that are both held back come as one step down.
            assert!(descents <= overtaken && descents > overtaken * 9 / 10, "{descents}");
            numbers.sort_unstable();
            assert_eq!(numbers, (0..100_000).collect::<Vec<_>>());
            for (leaves, number) in left {
                let took = leaves - GAP * number;
                assert!(took == delay || took == delay + delay.max(HOLD_MIN), "{took:?}");
            }
        }
    }

    #[test]
    fn a_seed_gives_the_same_link_again_and_another_seed_another() {
        let loss = PartsPerMillion(100_000);
        let plan = LinkPlan { delay: DELAY, jitter: DELAY / 4, loss, reorder: loss };
        let left = sent(&mut direction(plan, 7), 1_000);
        assert_eq!(sent(&mut direction(plan, 7), 1_000), left);
        assert_ne!(sent(&mut direction(plan, 8), 1_000), left);
    }

    #[test]
    fn what_is_lost_does_not_depend_on_the_rest_of_the_plan() {
        let loss = PartsPerMillion(100_000);
        let survivors = |plan| {
            let mut left = sent(&mut direction(plan, 7), 1_000);
            left.sort_unstable_by_key(|(_, number)| *number);
            left.into_iter().map(|(_, number)| number).collect::<Vec<_>>()
        };
        let plain = survivors(LinkPlan { loss, ..LinkPlan::default() });
        let rich = LinkPlan { delay: DELAY, jitter: DELAY, loss, reorder: loss };
        assert_eq!(survivors(rich), plain);
    }

    #[test]
    fn a_full_link_drops_what_comes_and_takes_packets_again_once_one_has_left() {
        let plan = LinkPlan { delay: DELAY, ..LinkPlan::default() };
        let mut link = LinkDirection::new(plan, 1, 3).unwrap();
        for number in 0..5_u8 {
            link.handle_arrival(Duration::ZERO, &[number]);
        }
        assert_eq!(link.counts().dropped, 2);
        assert_eq!(link.take_due(DELAY).as_deref(), Some(&[0][..]));
        link.handle_arrival(DELAY, &[5]);
        assert_eq!(link.counts().dropped, 2);
        let rest: Vec<_> = std::iter::from_fn(|| link.take_due(DELAY * 2)).collect();
        assert_eq!(rest.concat(), [1, 2, 5]);
    }
}

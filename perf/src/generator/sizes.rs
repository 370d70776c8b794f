//! How long the bodies of calls are.

use std::fmt;

use fastrand::Rng;

use super::random::normal;

/// Sizes in a table, after which it begins again.
const PICKS: usize = 1 << 16;

/// The sizes of a load, in bytes.
#[derive(Clone, Debug, PartialEq)]
pub enum SizeMix {
    /// All alike.
    Fixed(u32),
    /// Each with its weight, which need not add up to anything.
    Weighted(Vec<(u32, f64)>),
    /// As in a fleet of servers: half of the bodies below 1.5 KB, one in a hundred above 196 KB,
    /// none above 500 KB. After Seemakhupt et al., "A Cloud-Scale Characterization of Remote
    /// Procedure Calls" (SOSP 2023), whose two percentiles of requests a log-normal is laid
    /// through.
    Fleet,
}

/// The median of a fleet's sizes, in bytes.
const FLEET_MEDIAN: f64 = 1_500.0;

/// The standard deviation of the logarithm of a fleet's sizes: ln(196 / 1.5) over the 99th
/// percentile of a standard normal.
const FLEET_SIGMA: f64 = 2.095;

/// The bounds of a fleet's sizes, in bytes.
const FLEET_BOUNDS: (f64, f64) = (8.0, 500_000.0);

/// The sizes of one client thread's calls, drawn beforehand.
#[derive(Clone, Debug)]
pub struct SizePicks {
    picks: Box<[u32]>,
    position: usize,
}

impl SizeMix {
    /// The sizes of a client thread's calls, one after the other.
    pub fn picks(&self, seed: u64) -> SizePicks {
        let mut rng = Rng::with_seed(seed);
        let picks: Box<[u32]> = match self {
            Self::Fixed(size) => Box::new([*size]),
            Self::Weighted(sizes) => (0..PICKS).map(|_| weighted(sizes, &mut rng)).collect(),
            Self::Fleet => (0..PICKS).map(|_| of_fleet(&mut rng)).collect(),
        };
        SizePicks { picks, position: 0 }
    }

    /// The longest that there can be.
    pub fn longest(&self) -> u32 {
        match self {
            Self::Fixed(size) => *size,
            Self::Weighted(sizes) => sizes.iter().map(|(size, _)| *size).max().unwrap_or(0),
            Self::Fleet => FLEET_BOUNDS.1 as u32,
        }
    }
}

fn weighted(sizes: &[(u32, f64)], rng: &mut Rng) -> u32 {
    let sum: f64 = sizes.iter().map(|(_, weight)| weight).sum();
    let mut left = rng.f64() * sum;
    let found = sizes.iter().find(|(_, weight)| {
        left -= weight;
        left < 0.0
    });
    // A sum that was rounded may leave a little over.
    found.or(sizes.last()).map_or(0, |(size, _)| *size)
}

fn of_fleet(rng: &mut Rng) -> u32 {
    let size = FLEET_MEDIAN * (FLEET_SIGMA * normal(rng)).exp();
    // A multiple of 4, as bodies are.
    (size.clamp(FLEET_BOUNDS.0, FLEET_BOUNDS.1) as u32) & !3
}

impl SizePicks {
    /// The size of the next call.
    #[inline]
    pub fn pick(&mut self) -> u32 {
        let size = self.picks[self.position];
        self.position += 1;
        if self.position == self.picks.len() {
            self.position = 0;
        }
        size
    }
}

impl fmt::Display for SizeMix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Fixed(size) => write!(f, "{size} B"),
            Self::Fleet => f.write_str("a fleet's sizes"),
            Self::Weighted(sizes) => {
                for (index, (size, weight)) in sizes.iter().enumerate() {
                    let comma = if index == 0 { "" } else { ", " };
                    write!(f, "{comma}{size} B × {weight}")?;
                }
                Ok(())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sorted(mix: &SizeMix, count: usize) -> Vec<u32> {
        let mut picks = mix.picks(1);
        let mut sizes: Vec<u32> = (0..count).map(|_| picks.pick()).collect();
        sizes.sort_unstable();
        sizes
    }

    #[test]
    fn weights_are_kept() {
        let mix = SizeMix::Weighted(vec![(64, 9.0), (4096, 0.9), (65_536, 0.1)]);
        let sizes = sorted(&mix, PICKS);
        let share = |size| sizes.iter().filter(|it| **it == size).count() as f64 / PICKS as f64;
        assert!((0.89..0.91).contains(&share(64)), "{}", share(64));
        assert!((0.085..0.095).contains(&share(4096)), "{}", share(4096));
        assert!((0.008..0.012).contains(&share(65_536)), "{}", share(65_536));
        assert_eq!(mix.longest(), 65_536);
    }

    #[test]
    fn a_fleets_sizes_have_the_published_percentiles() {
        let sizes = sorted(&SizeMix::Fleet, PICKS);
        let at = |quantile: f64| sizes[(PICKS as f64 * quantile) as usize];
        assert!((1_450..1_550).contains(&at(0.5)), "{}", at(0.5));
        assert!((180_000..212_000).contains(&at(0.99)), "{}", at(0.99));
        assert!(sizes.iter().all(|size| size.is_multiple_of(4) && *size >= 8));
        assert_eq!(sizes.last(), Some(&SizeMix::Fleet.longest()));
    }

    #[test]
    fn sizes_go_on_from_the_beginning() {
        assert_eq!(sorted(&SizeMix::Fixed(64), 3), [64, 64, 64]);
        let mut picks = SizeMix::Fleet.picks(3);
        let first: Vec<u32> = (0..PICKS).map(|_| picks.pick()).collect();
        assert_eq!(picks.pick(), first[0]);
    }
}

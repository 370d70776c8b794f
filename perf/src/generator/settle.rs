//! When a load has warmed up: found from its figures, not by a time.

use std::collections::VecDeque;

use super::confidence::median;

/// Intervals on each side of a comparison.
const WINDOW: usize = 5;

/// Largest difference between the two sides of what has settled, as a part of the figure.
const TOLERANCE: f64 = 0.05;

/// Looks whether a figure that is taken again and again still moves.
///
/// It has settled when the median of its last five values and that of the five before differ by
/// less than a twentieth. Caches that fill, connections that open their windows and clocks that
/// rise move it for longer; noise moves the medians of five but little.
#[derive(Debug, Default)]
pub struct Settling {
    values: VecDeque<f64>,
}

impl Settling {
    /// Takes one more value. True where it has settled.
    pub fn take(&mut self, value: f64) -> bool {
        if self.values.len() == 2 * WINDOW {
            self.values.pop_front();
        }
        self.values.push_back(value);
        if self.values.len() < 2 * WINDOW {
            return false;
        }
        let half = |skip| median(self.values.iter().skip(skip).take(WINDOW).copied().collect());
        let (before, now) = (half(0), half(WINDOW));
        (now - before).abs() <= TOLERANCE * before.max(now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settled_at(values: impl Iterator<Item = f64>) -> Option<usize> {
        let mut settling = Settling::default();
        values.enumerate().find(|(_, value)| settling.take(*value)).map(|(index, _)| index)
    }

    #[test]
    fn what_stands_still_has_settled_after_ten() {
        assert_eq!(settled_at(std::iter::repeat_n(7.0, 20)), Some(9));
    }

    #[test]
    fn what_falls_has_not_settled_until_it_stands() {
        let falling = (0..30).map(|index| 1000.0 * 0.9_f64.powi(index));
        assert_eq!(settled_at(falling), None);
        let falls_then_stands = (0..40).map(|index| if index < 15 { 500.0 } else { 100.0 });
        // The first ten stand too, as far as anybody can tell.
        assert_eq!(settled_at(falls_then_stands), Some(9));
        let slides = (0..60).map(|index| 100.0 + 400.0 * 0.8_f64.powi(index));
        assert!(settled_at(slides).is_some_and(|index| (15..30).contains(&index)));
    }

    #[test]
    fn one_outlier_does_not_matter() {
        let noisy =
            (0..20).map(|index| if index == 7 { 900.0 } else { 100.0 + f64::from(index % 3) });
        assert_eq!(settled_at(noisy), Some(9));
    }
}

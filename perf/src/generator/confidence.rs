//! How sure a percentile is.
//!
//! Latencies of calls that follow each other are not independent, so an interval that takes them
//! for it is too narrow. Here the run is cut into sections in time, the percentile of each is
//! taken, and their spread around that of the whole run tells how sure it is ("sectioning", Asmussen
//! and Glynn, "Stochastic Simulation", 2007, chapter III). Sections must be long beside what
//! disturbs the calls.

/// Fewest sections that say anything.
const SECTIONS_MIN: usize = 5;

/// The 97.5th percentile of the standard normal: intervals are of 95 %.
const Z: f64 = 1.959_964;

/// A figure with its 95 % confidence interval.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Interval {
    /// The figure.
    pub value: f64,
    /// From the figure to either end of the interval.
    pub half_width: f64,
}

impl Interval {
    /// Half the interval as a part of the figure.
    pub fn relative(self) -> f64 {
        if self.value > 0.0 { self.half_width / self.value } else { f64::INFINITY }
    }
}

/// The interval of a figure of a whole run, from that of each section. None where there are fewer
/// than five.
pub fn interval_of(whole: f64, sections: &[f64]) -> Option<Interval> {
    if sections.len() < SECTIONS_MIN {
        return None;
    }
    let count = sections.len() as f64;
    let squares: f64 = sections.iter().map(|section| (section - whole).powi(2)).sum();
    let error = (squares / (count * (count - 1.0))).sqrt();
    Some(Interval { value: whole, half_width: student(count - 1.0) * error })
}

/// The 97.5th percentile of Student's distribution, by its expansion around the normal one
/// (Abramowitz and Stegun, 26.7.5); off by less than a hundredth from four degrees of freedom on.
fn student(degrees: f64) -> f64 {
    let first = (Z.powi(3) + Z) / 4.0;
    let second = (5.0 * Z.powi(5) + 16.0 * Z.powi(3) + 3.0 * Z) / 96.0;
    let third = (3.0 * Z.powi(7) + 19.0 * Z.powi(5) + 17.0 * Z.powi(3) - 15.0 * Z) / 384.0;
    Z + first / degrees + second / degrees.powi(2) + third / degrees.powi(3)
}

/// The value in the middle, or the mean of the two there; zero where there is none.
pub fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    match (values.get(middle.wrapping_sub(1)), values.get(middle)) {
        (Some(below), Some(above)) if values.len().is_multiple_of(2) => (below + above) / 2.0,
        (_, Some(value)) => *value,
        _ => 0.0,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

    use super::*;
    use crate::generator::random;

    #[test]
    fn students_percentiles_are_those_of_the_tables() {
        for (degrees, expected) in [(4.0, 2.776), (9.0, 2.262), (19.0, 2.093), (60.0, 2.000)] {
            let found: f64 = student(degrees);
            assert!((found - expected).abs() < 0.02, "{degrees}: {found}");
        }
    }

    #[test]
    fn equal_sections_are_sure_and_few_say_nothing() {
        let interval = interval_of(10.0, &[10.0; 8]).unwrap();
        assert_eq!([interval.half_width, interval.relative()], [0.0, 0.0]);
        assert_eq!(interval_of(10.0, &[10.0; 4]), None);
    }

    /// Of intervals of 95 %, 95 of a hundred hold the truth.
    #[test]
    fn intervals_hold_the_truth_as_often_as_they_claim() {
        let mut rng = fastrand::Rng::with_seed(5);
        let runs = 4_000;
        let mut holds = 0;
        for _ in 0..runs {
            let sections: Vec<f64> =
                (0..10).map(|_| 100.0 + 5.0 * random::normal(&mut rng)).collect();
            let whole = sections.iter().sum::<f64>() / 10.0;
            let interval = interval_of(whole, &sections).unwrap();
            holds += u32::from((whole - 100.0).abs() <= interval.half_width);
        }
        let share = f64::from(holds) / f64::from(runs);
        assert!((0.94..0.96).contains(&share), "{share}");
    }

    #[test]
    fn the_median_is_in_the_middle() {
        assert_eq!(median(vec![3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(vec![4.0, 1.0, 2.0, 3.0]), 2.5);
        assert_eq!(median(vec![7.0]), 7.0);
        assert_eq!(median(vec![]), 0.0);
    }
}

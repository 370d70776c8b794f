//! Random numbers from a seed, so that a load is the same each time that it is asked for.

use fastrand::Rng;

/// Exponential, with a mean of one.
pub(crate) fn exponential(rng: &mut Rng) -> f64 {
    // In 0 to 1 without 0, whose logarithm there is not.
    -(1.0 - rng.f64()).ln()
}

/// Standard normal, after Box and Muller.
pub(crate) fn normal(rng: &mut Rng) -> f64 {
    let radius = (2.0 * exponential(rng)).sqrt();
    radius * (std::f64::consts::TAU * rng.f64()).cos()
}

//! Values of the command line: times, sizes and lists of cores.
//!
//! Pure: text in, a value or the reason why it is none out. The reason is shown after the flag
//! and the text.

use std::{fmt, time::Duration};

use crate::{
    extras::Slow,
    generator::{Rate, SizeMix, Spacing},
    lengths::percentile_name,
    workload::{SIZE_MAX, SIZE_MIN},
};

/// Longest time that may be asked for.
const DURATION_MAX: Duration = Duration::from_secs(24 * 60 * 60);

/// Longest spin that may be asked for: a shard that spins for longer sleeps never.
const SPIN_MAX: Duration = Duration::from_secs(1);

/// Calls a second that may be asked for: one in ten seconds, and more than any core makes.
const RATE_MIN: f64 = 0.1;
const RATE_MAX: f64 = 1e9;

/// Most calls of a burst: as many as the pacer could give out in a tenth of a second.
const BURST_MAX: u32 = 100_000;

/// Longest time that a slow handler takes.
const SLOW_MAX: Duration = Duration::from_secs(60);

/// Highest number of a core.
const CORE_MAX: usize = 1023;

/// Cores by number, in the order they were named, each at most once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct CoreList(pub(crate) Vec<usize>);

impl fmt::Display for CoreList {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let numbers: Vec<String> = self.0.iter().map(ToString::to_string).collect();
        f.write_str(&numbers.join(","))
    }
}

/// A limit of a percentile: `p99.9<=200us`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Slo {
    /// In 0 to 1.
    pub(crate) quantile: f64,
    pub(crate) limit: Duration,
}

impl fmt::Display for Slo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} <= {:?}", percentile_name(self.quantile), self.limit)
    }
}

/// A list of cores: `1`, `0,2`, `0,2-3`.
pub(crate) fn cores(text: &str) -> Result<CoreList, String> {
    let mut cores = Vec::new();
    for part in text.split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last) = (core(first)?, core(last)?);
        if first > last {
            return Err(format!("the range {part} is upside down"));
        }
        for core in first..=last {
            if cores.contains(&core) {
                return Err(format!("core {core} is named twice"));
            }
            cores.push(core);
        }
    }
    Ok(CoreList(cores))
}

fn core(text: &str) -> Result<usize, String> {
    match text.trim().parse() {
        Ok(core) if core <= CORE_MAX => Ok(core),
        Ok(core) => Err(format!("{core} is more than {CORE_MAX}, the highest core")),
        Err(_) => Err(format!("{text:?} is no core; name cores as `1` or `0,2-3`")),
    }
}

/// A time of at least a millisecond: `3s`, `1.5s`, `50ms`.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    match duration_or_zero(text)? {
        duration if duration < Duration::from_millis(1) => Err("it is less than 1ms".to_owned()),
        duration => Ok(duration),
    }
}

/// A time: `3s`, `1.5s`, `50ms`, `0`.
pub(crate) fn duration_or_zero(text: &str) -> Result<Duration, String> {
    let wanted = "name a time as `3s`, `50ms` or `20us`";
    let split = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(split);
    let seconds_per_unit = match unit.trim() {
        "ns" => 1e-9,
        "us" | "µs" => 1e-6,
        "ms" => 1e-3,
        "s" => 1.0,
        "m" | "min" => 60.0,
        "" if number == "0" => 1.0,
        "" => return Err(format!("it has no unit; {wanted}")),
        unit => return Err(format!("{unit:?} is no unit of time; {wanted}")),
    };
    let number: f64 = number.parse().map_err(|_| format!("it has no number; {wanted}"))?;
    match Duration::try_from_secs_f64(number * seconds_per_unit) {
        Ok(duration) if duration <= DURATION_MAX => Ok(duration),
        _ => Err("it is longer than a day".to_owned()),
    }
}

/// A time to spin for.
pub(crate) fn spin(text: &str) -> Result<Duration, String> {
    match duration_or_zero(text)? {
        spin if spin > SPIN_MAX => Err("it is longer than 1s".to_owned()),
        spin => Ok(spin),
    }
}

/// A length in bytes: `64`, `4KiB`, `1MiB`.
pub(crate) fn size(text: &str) -> Result<u32, String> {
    let split = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(split);
    let bytes_per_unit: u64 = match unit.trim() {
        "" | "B" => 1,
        "KiB" | "K" | "k" => 1 << 10,
        "MiB" | "M" => 1 << 20,
        unit => {
            return Err(format!("{unit:?} is no unit of bytes; name a size as `64` or `4KiB`"));
        }
    };
    let number: u64 = number.parse().map_err(|_| "it is no number of bytes".to_owned())?;
    match number.checked_mul(bytes_per_unit).and_then(|bytes| u32::try_from(bytes).ok()) {
        Some(bytes) if bytes < SIZE_MIN => {
            Err(format!("a body has at least {SIZE_MIN} bytes, the root of its archive"))
        }
        Some(bytes) if bytes <= SIZE_MAX => Ok(bytes),
        _ => Err(format!("a body has at most {SIZE_MAX} bytes: with its header 16 MiB")),
    }
}

/// Calls a second: `100k`, a ramp `100k..400k/10s`, or steps `100k/5s,200k/5s`.
pub(crate) fn rate(text: &str) -> Result<Rate, String> {
    if let Some((from, to)) = text.split_once("..") {
        let (to, over) = to.split_once('/').ok_or("a ramp takes a time, as `100k..400k/10s`")?;
        return Ok(Rate::Ramp(calls_per_s(from)?, calls_per_s(to)?, duration(over)?));
    }
    if text.contains('/') {
        let step = |step: &str| match step.split_once('/') {
            Some((rate, time)) => Ok((calls_per_s(rate)?, duration(time)?)),
            None => Err("each step takes a time, as `100k/5s,200k/5s`".to_owned()),
        };
        return Ok(Rate::Steps(text.split(',').map(step).collect::<Result<_, String>>()?));
    }
    Ok(Rate::Flat(calls_per_s(text)?))
}

/// Calls a second: `1000`, `100k`, `1.5M`.
pub(crate) fn calls_per_s(text: &str) -> Result<f64, String> {
    let wanted = "name calls a second as `1000`, `100k` or `1.5M`";
    let (number, factor) = match text.trim() {
        text if text.ends_with('k') => (&text[..text.len() - 1], 1e3),
        text if text.ends_with('M') => (&text[..text.len() - 1], 1e6),
        text => (text, 1.0),
    };
    let number: f64 = number.parse().map_err(|_| format!("{text:?} is no rate; {wanted}"))?;
    match number * factor {
        rate if rate > RATE_MAX => Err(format!("it is more than {RATE_MAX} calls a second")),
        rate if rate >= RATE_MIN => Ok(rate),
        _ => Err(format!("it is less than {RATE_MIN} calls a second; {wanted}")),
    }
}

/// How arrivals are spread: `even`, `poisson`, `bursts:32`.
pub(crate) fn spacing(text: &str) -> Result<Spacing, String> {
    match text.split_once(':') {
        None if text == "even" => Ok(Spacing::Even),
        None if text == "poisson" => Ok(Spacing::Poisson),
        Some(("bursts", calls)) => match calls.parse() {
            Ok(calls @ 1..=BURST_MAX) => Ok(Spacing::Bursts(calls)),
            _ => Err(format!("a burst has 1 to {BURST_MAX} calls")),
        },
        _ => Err("name `even`, `poisson`, or `bursts:32` for 32 at once".to_owned()),
    }
}

/// Sizes with their weights: `64:9,4KiB:1`, or `fleet`.
pub(crate) fn sizes(text: &str) -> Result<SizeMix, String> {
    if text == "fleet" {
        return Ok(SizeMix::Fleet);
    }
    let one = |part: &str| {
        let (length, weight) = part.split_once(':').unwrap_or((part, "1"));
        match weight.parse::<f64>() {
            Ok(weight) if weight > 0.0 && weight.is_finite() => Ok((size(length)?, weight)),
            _ => Err(format!("{weight:?} is no weight; name sizes as `64:9,4KiB:1` or `fleet`")),
        }
    };
    Ok(SizeMix::Weighted(text.split(',').map(one).collect::<Result<_, _>>()?))
}

/// A percentile in 0 to 1: `p50`, `99.9`.
pub(crate) fn percentile(text: &str) -> Result<f64, String> {
    match text.trim_start_matches('p').parse::<f64>() {
        // The nearest number to what was written, which a division by a hundred may miss.
        Ok(percent) if (1.0..=99.999).contains(&percent) => Ok((percent * 1e6).round() / 1e8),
        _ => Err("name a percentile from p1 to p99.999, as `p99.9`".to_owned()),
    }
}

/// A limit of a percentile: `p99.9<=200us`.
pub(crate) fn slo(text: &str) -> Result<Slo, String> {
    let (name, limit) = text.split_once("<=").ok_or("name a limit as `p99.9<=200us`")?;
    let limit = duration_or_zero(limit.trim())?;
    if limit.is_zero() {
        return Err("no call takes no time".to_owned());
    }
    Ok(Slo { quantile: percentile(name.trim())?, limit })
}

/// A part of the calls, and how long their handler takes: `1%:10ms`.
pub(crate) fn slow(text: &str) -> Result<Slow, String> {
    let (part, time) = text.split_once(':').ok_or("name a share and a time as `1%:10ms`")?;
    let time = duration_or_zero(time)?;
    if time > SLOW_MAX {
        return Err(format!("a handler takes at most {SLOW_MAX:?}"));
    }
    match share(part)? {
        share if share < 1.0 => Ok(Slow { share, time }),
        _ => Err("some calls must be left to measure: name less than 100%".to_owned()),
    }
}

/// A part of a whole: `5%`, `0.05`.
pub(crate) fn share(text: &str) -> Result<f64, String> {
    let (number, unit) = match text.strip_suffix('%') {
        Some(percent) => (percent, 0.01),
        None => (text, 1.0),
    };
    match number.trim().parse::<f64>() {
        Ok(share) if share > 0.0 && share * unit <= 1.0 => Ok(share * unit),
        _ => Err("name a share as `5%`, above 0 and to 100%".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

    use super::*;

    #[test]
    fn cores_are_numbers_and_ranges() {
        assert_eq!(cores("1").unwrap().0, [1]);
        assert_eq!(cores("0,2-4, 7").unwrap().0, [0, 2, 3, 4, 7]);
        assert_eq!(cores("3,0-1").unwrap().to_string(), "3,0,1");
    }

    #[test]
    fn what_is_no_list_of_cores_is_refused() {
        for (text, reason) in [
            ("", "\"\" is no core; name cores as `1` or `0,2-3`"),
            ("a", "\"a\" is no core; name cores as `1` or `0,2-3`"),
            ("0,", "\"\" is no core; name cores as `1` or `0,2-3`"),
            ("-1", "\"\" is no core; name cores as `1` or `0,2-3`"),
            ("3-1", "the range 3-1 is upside down"),
            ("1,0-1", "core 1 is named twice"),
            ("1024", "1024 is more than 1023, the highest core"),
            ("0-99999999999", "99999999999 is more than 1023, the highest core"),
        ] {
            assert_eq!(cores(text).unwrap_err(), reason, "{text}");
        }
    }

    #[test]
    fn times_have_a_number_and_a_unit() {
        assert_eq!(duration("3s").unwrap(), Duration::from_secs(3));
        assert_eq!(duration("1.5s").unwrap(), Duration::from_millis(1500));
        assert_eq!(duration("50ms").unwrap(), Duration::from_millis(50));
        assert_eq!(duration("2m").unwrap(), Duration::from_secs(120));
        assert_eq!(spin("50us").unwrap(), Duration::from_micros(50));
        assert_eq!(spin("50µs").unwrap(), Duration::from_micros(50));
        assert_eq!(spin("0").unwrap(), Duration::ZERO);
    }

    #[test]
    fn what_is_no_time_is_refused() {
        for text in ["", "s", "3", "3x", "-1s", "1.2.3s", "1e9s", "100000s"] {
            assert!(duration_or_zero(text).is_err(), "{text}");
        }
        assert_eq!(duration("0s").unwrap_err(), "it is less than 1ms");
        assert_eq!(spin("2s").unwrap_err(), "it is longer than 1s");
    }

    #[test]
    fn sizes_are_bytes_within_the_limits_of_a_frame() {
        assert_eq!(size("64").unwrap(), 64);
        assert_eq!(size("4KiB").unwrap(), 4096);
        assert_eq!(size("16777184").unwrap(), SIZE_MAX);
        for text in ["", "0", "7", "-8", "1.5KiB", "8GiB", "16777185", "16MiB", "99999999999999"] {
            assert!(size(text).is_err(), "{text}");
        }
    }

    #[test]
    fn rates_are_flat_ramps_or_steps() {
        let seconds = Duration::from_secs;
        assert_eq!(rate("100k").unwrap(), Rate::Flat(1e5));
        assert_eq!(rate("1.5M").unwrap(), Rate::Flat(1.5e6));
        assert_eq!(rate("1k..4k/10s").unwrap(), Rate::Ramp(1e3, 4e3, seconds(10)));
        let steps = Rate::Steps(vec![(1e3, seconds(5)), (2e3, seconds(1))]);
        assert_eq!(rate("1k/5s,2k/1s").unwrap(), steps);
        for text in ["", "0", "-5", "k", "5kk", "1k..2k", "1k/5s,2k", "2G", "1k/0s", "nan", "inf"] {
            assert!(rate(text).is_err(), "{text}");
        }
    }

    #[test]
    fn arrivals_sizes_percentiles_and_shares_are_named() {
        assert_eq!(spacing("even").unwrap(), Spacing::Even);
        assert_eq!(spacing("bursts:32").unwrap(), Spacing::Bursts(32));
        let weighted = SizeMix::Weighted(vec![(64, 9.0), (4096, 1.0)]);
        assert_eq!(sizes("64:9,4KiB").unwrap(), weighted);
        assert_eq!(sizes("fleet").unwrap(), SizeMix::Fleet);
        assert_eq!(percentile("p99.9").unwrap(), 0.999);
        assert_eq!(share("5%").unwrap(), 0.05);
        let time = Duration::from_millis(10);
        assert_eq!(slow("1%:10ms").unwrap(), Slow { share: 0.01, time });
        assert!(slow("1%").is_err() && slow("1%:2m").is_err() && slow("0%:1ms").is_err());
        assert!(slow("100%:1ms").is_err());
        let limit = slo("p99.9 <= 200us").unwrap();
        assert_eq!((limit.quantile, limit.limit), (0.999, Duration::from_micros(200)));
        assert_eq!(limit.to_string(), "p99.9 <= 200µs");
        for text in ["p99.9", "p99.9<200us", "p99<=", "p99<=0", "x<=1ms"] {
            assert!(slo(text).is_err(), "{text}");
        }
        for text in ["bursts", "bursts:0", "bursts:x", "odd", ""] {
            assert!(spacing(text).is_err(), "{text}");
        }
        for text in ["", "64:0", "64:x", "7:1", "fleets"] {
            assert!(sizes(text).is_err(), "{text}");
        }
        assert!(percentile("p100").is_err() && percentile("x").is_err());
        assert!(share("0").is_err() && share("200%").is_err());
    }
}

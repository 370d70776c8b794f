//! Values of the command line: times, sizes, rates, shares and lists of cores.
//!
//! Pure: text in, a value or the reason why it is none out. The reason is shown after the flag
//! and the text.

use std::{fmt, time::Duration};

use crate::workload::{SIZE_MAX, SIZE_MIN};

/// Longest time that may be asked for.
const DURATION_MAX: Duration = Duration::from_secs(24 * 60 * 60);

/// Longest spin that may be asked for: a shard that spins for longer sleeps never.
const SPIN_MAX: Duration = Duration::from_secs(1);

/// Highest number of a core.
const CORE_MAX: usize = 1023;

/// Least rate of a link in bits per second: below it a connection takes longer to be made than the
/// load waits.
const RATE_MIN: f64 = 64e3;

/// Highest rate of a link in bits per second: beyond what two namespaces can carry.
const RATE_MAX: f64 = 100e9;

/// Cores by number, in the order they were named, each at most once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct CoreList(pub(crate) Vec<usize>);

impl fmt::Display for CoreList {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let numbers: Vec<String> = self.0.iter().map(ToString::to_string).collect();
        f.write_str(&numbers.join(","))
    }
}

/// A share of packets, in millionths: at most 1,000,000.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct PartsPerMillion(pub(crate) u32);

/// What a link carries, in bits per second.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct BitsPerSecond(pub(crate) u64);

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

/// A share: `0.1%`, `100%`, `0%`; finer than a millionth is rounded.
pub(crate) fn share(text: &str) -> Result<PartsPerMillion, String> {
    let wanted = "name a share as `0.1%`";
    let number = text.strip_suffix('%').ok_or_else(|| format!("it has no `%`; {wanted}"))?;
    match number.trim().parse::<f64>() {
        // In range, so the conversion is exact after rounding.
        Ok(percent) if (0.0..=100.0).contains(&percent) => {
            Ok(PartsPerMillion((percent * 1e4).round() as u32))
        }
        Ok(_) => Err("it is not from 0% to 100%".to_owned()),
        Err(_) => Err(format!("it has no number; {wanted}")),
    }
}

/// A rate: `1gbit`, `100mbit`, `64kbit`, in bits per second and powers of ten.
pub(crate) fn rate(text: &str) -> Result<BitsPerSecond, String> {
    let split = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(split);
    let bits_per_unit = match unit.trim().to_ascii_lowercase().as_str() {
        "kbit" => 1e3,
        "mbit" => 1e6,
        "gbit" => 1e9,
        _ => return Err("name a rate as `1gbit`, `100mbit` or `64kbit`".to_owned()),
    };
    let number: f64 = number.parse().map_err(|_| "it has no number".to_owned())?;
    let bits = number * bits_per_unit;
    if (RATE_MIN..=RATE_MAX).contains(&bits) {
        Ok(BitsPerSecond(bits.round() as u64))
    } else {
        Err("it is not from 64kbit to 100gbit".to_owned())
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
    fn shares_are_percentages() {
        assert_eq!(share("0.1%").unwrap(), PartsPerMillion(1_000));
        assert_eq!(share("0%").unwrap(), PartsPerMillion(0));
        assert_eq!(share("100%").unwrap(), PartsPerMillion(1_000_000));
        assert_eq!(share("0.0001%").unwrap(), PartsPerMillion(1));
        for text in ["", "%", "1", "-1%", "100.1%", "NaN%", "inf%", "x%"] {
            assert!(share(text).is_err(), "{text}");
        }
    }

    #[test]
    fn rates_are_bits_per_second_in_powers_of_ten() {
        assert_eq!(rate("1gbit").unwrap(), BitsPerSecond(1_000_000_000));
        assert_eq!(rate("2.5Gbit").unwrap(), BitsPerSecond(2_500_000_000));
        assert_eq!(rate("64kbit").unwrap(), BitsPerSecond(64_000));
        for text in ["", "1", "gbit", "1gb", "1gbps", "1kbit", "101gbit", "-1gbit", "1.2.3gbit"] {
            assert!(rate(text).is_err(), "{text}");
        }
    }
}

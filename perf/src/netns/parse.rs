//! Values of the command line that describe a link: rates and shares of packets.
//!
//! Pure, as all of `parse` is.

/// Least rate of a link in bits per second: below it a connection takes longer to be made than the
/// load waits.
const RATE_MIN: f64 = 64e3;

/// Highest rate of a link in bits per second: beyond what two namespaces can carry.
const RATE_MAX: f64 = 100e9;

/// A share of packets, in millionths: at most 1,000,000.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct PartsPerMillion(pub(crate) u32);

/// What a link carries, in bits per second.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct BitsPerSecond(pub(crate) u64);

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

//! `timeout = "5ms"`: the time that a call of a method gets unless its caller says otherwise.

use proc_macro2::TokenStream;
use syn::{Error, Lit};

/// The timeout in microseconds that `value` stands for.
///
/// # Errors
///
/// What is not a string of a whole number and a unit, and a time under 1 µs or over an hour.
pub(crate) fn parse(value: TokenStream) -> Result<u32, Error> {
    let text = match syn::parse2::<Lit>(value.clone()) {
        Ok(Lit::Str(text)) => text.value(),
        _ => return Err(Error::new_spanned(value, TIMEOUT)),
    };
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let Some((_, unit_us)) = UNITS.iter().find(|(name, _)| *name == unit) else {
        return Err(Error::new_spanned(value, TIMEOUT));
    };
    if number.is_empty() {
        return Err(Error::new_spanned(value, TIMEOUT));
    }
    // A number that does not fit is out of range as well.
    let time_us = number.parse().ok().and_then(|number: u32| number.checked_mul(*unit_us));
    match time_us {
        Some(time_us) if (1..=TIMEOUT_US_MAX).contains(&time_us) => Ok(time_us),
        _ => Err(Error::new_spanned(value, RANGE)),
    }
}

/// What a unit is in microseconds.
const UNITS: [(&str, u32); 4] = [("us", 1), ("ms", 1_000), ("s", 1_000_000), ("m", 60_000_000)];
/// An hour, in microseconds. A call that may take longer has no use for a timeout, and the header
/// carries the time in 32 bits.
const TIMEOUT_US_MAX: u32 = 3_600_000_000;

pub(crate) const TIMEOUT: &str = "a timeout is a string of a whole number and `us`, `ms`, `s` or \
    `m`; expected `timeout = \"5ms\"`";
const RANGE: &str = "a timeout is from `1us` to `60m`; a method without the option has none";

#[cfg(test)]
mod tests {
    use quote::quote;

    use super::*;

    fn read(text: &str) -> Result<u32, String> {
        parse(quote!(#text)).map_err(|error| error.to_string())
    }

    #[test]
    fn each_unit_is_read_in_microseconds() {
        assert_eq!(read("250us"), Ok(250));
        assert_eq!(read("5ms"), Ok(5_000));
        assert_eq!(read("2s"), Ok(2_000_000));
        assert_eq!(read("3m"), Ok(180_000_000));
    }

    #[test]
    fn a_timeout_is_from_a_microsecond_to_an_hour() {
        for (shortest, longest) in
            [("1us", "3600000000us"), ("1ms", "3600000ms"), ("1s", "3600s"), ("1m", "60m")]
        {
            assert!(read(shortest).is_ok(), "{shortest}");
            assert_eq!(read(longest), Ok(TIMEOUT_US_MAX), "{longest}");
        }
        for out in ["0us", "0m", "3600000001us", "3600001ms", "3601s", "61m", "4294967296us"] {
            assert_eq!(read(out), Err(RANGE.to_owned()), "{out}");
        }
        // Neither the number nor the product fits 32 bits.
        for out in ["72m", "4295s", "99999999999999999999ms"] {
            assert_eq!(read(out), Err(RANGE.to_owned()), "{out}");
        }
    }

    #[test]
    fn what_is_not_a_number_and_a_unit_is_refused() {
        for text in [
            "", "5", "ms", "5 ms", " 5ms", "5ms ", "+5ms", "-5ms", "1.5s", "5MS", "1h", "5µs", "٥s",
        ] {
            assert_eq!(read(text), Err(TIMEOUT.to_owned()), "{text:?}");
        }
    }

    #[test]
    fn what_is_not_a_string_is_refused() {
        for value in [quote!(5), quote!(5ms), quote!(b"5ms"), quote!(TIME), quote!("5ms" + "5ms")] {
            assert_eq!(parse(value).unwrap_err().to_string(), TIMEOUT);
        }
    }
}

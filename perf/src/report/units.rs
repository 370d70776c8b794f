//! Figures as people read them.

/// A number to three digits: `812`, `19.2 k`, `5.31 M`.
pub(crate) fn si(number: f64) -> String {
    let (number, unit) = match number {
        n if n >= 999_500.0 => (n / 1e6, " M"),
        n if n >= 999.5 => (n / 1e3, " k"),
        n => (n, ""),
    };
    digits(number) + unit
}

/// A time in nanoseconds, to three digits: `54.1 ns`, `4.65 µs`, `1.20 ms`.
pub(crate) fn time(ns: f64) -> String {
    let (number, unit) = match ns {
        n if n >= 999.5e6 => (n / 1e9, " s"),
        n if n >= 999.5e3 => (n / 1e6, " ms"),
        n if n >= 999.5 => (n / 1e3, " µs"),
        n => (n, " ns"),
    };
    digits(number) + unit
}

fn digits(number: f64) -> String {
    match number {
        n if n >= 99.95 => format!("{n:.0}"),
        n if n >= 9.995 => format!("{n:.1}"),
        n => format!("{n:.2}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_three_digits_and_a_unit() {
        assert_eq!(si(7.0), "7.00");
        assert_eq!(si(812.4), "812");
        assert_eq!(si(999.6), "1.00 k");
        assert_eq!(si(5_312_345.0), "5.31 M");
        assert_eq!(time(54.06), "54.1 ns");
        assert_eq!(time(999.7), "1.00 µs");
        assert_eq!(time(99_960.0), "100 µs");
        assert_eq!(time(1_200_000.0), "1.20 ms");
        assert_eq!(time(2.5e9), "2.50 s");
    }
}

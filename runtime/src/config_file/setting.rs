//! The kinds of values that a key can have: how each is read from TOML, and written.

use std::time::Duration;

use toml::de::{DeInteger, DeValue};

use crate::pack::Compression;

/// A value of the settings, as a file has it.
pub(super) trait Setting {
    /// Takes what a file says; false where it is not what is [`wanted`](Self::wanted).
    fn read(&mut self, value: &DeValue<'_>) -> bool;

    /// What a file can say, after "must be".
    fn wanted(&self) -> String;

    /// What a file would say; none where it would say nothing.
    fn write(&self) -> Option<String>;

    /// What a file could say where by default it says nothing.
    fn example(&self) -> &'static str {
        ""
    }
}

/// A whole number.
pub(super) struct Whole<'a, T>(pub(super) &'a mut T);

/// A whole number that the kernel chooses where none is named, with an example.
pub(super) struct Chosen<'a>(pub(super) &'a mut Option<usize>, pub(super) &'static str);

/// A time in a unit, with an example where there may be none.
pub(super) struct Time<'a, T>(pub(super) &'a mut T, pub(super) Unit, pub(super) &'static str);

/// True or false.
pub(super) struct Flag<'a>(pub(super) &'a mut bool);

/// Cores, or all that there are.
pub(super) struct Cores<'a>(pub(super) &'a mut Option<Vec<usize>>);

/// How bodies are compressed.
pub(super) struct Packing<'a>(pub(super) &'a mut Compression);

/// The unit of a time, which stands at the end of its key.
#[derive(Clone, Copy)]
pub(super) enum Unit {
    Us,
    Ms,
    S,
}

/// A time as the settings keep it.
pub(super) trait Microseconds {
    /// The most that it can be.
    const MAX: u64;

    /// None where none is set.
    fn get(&self) -> Option<u64>;

    fn set(&mut self, us: u64);
}

/// The longest deadline, in microseconds, which is none where it is the most that there can be.
pub(super) struct Most<'a>(pub(super) &'a mut u32);

impl<T: TryFrom<u64> + ToString> Setting for Whole<'_, T> {
    fn read(&mut self, value: &DeValue<'_>) -> bool {
        let number = whole(value).and_then(|number| T::try_from(number).ok());
        number.map(|number| *self.0 = number).is_some()
    }

    fn wanted(&self) -> String {
        match size_of::<T>() {
            2 => format!("a whole number up to {}", u16::MAX),
            4 => format!("a whole number up to {}", u32::MAX),
            1 => format!("a whole number up to {}", u8::MAX),
            _ => "a whole number".to_owned(),
        }
    }

    fn write(&self) -> Option<String> {
        Some(self.0.to_string())
    }
}

impl Setting for Chosen<'_> {
    fn read(&mut self, value: &DeValue<'_>) -> bool {
        *self.0 = whole(value).and_then(|number| usize::try_from(number).ok());
        self.0.is_some()
    }

    fn wanted(&self) -> String {
        "a whole number".to_owned()
    }

    fn write(&self) -> Option<String> {
        Some(self.0.as_ref()?.to_string())
    }

    fn example(&self) -> &'static str {
        self.1
    }
}

impl<T: Microseconds> Setting for Time<'_, T> {
    fn read(&mut self, value: &DeValue<'_>) -> bool {
        let in_us = self.1.in_us();
        let us = match value {
            DeValue::Float(number) => number.as_str().parse().ok().and_then(|number: f64| {
                let us = (number * in_us as f64).round();
                // Beyond 2^53 not every whole number is one of these; no time is as long.
                (0.0..9e15).contains(&us).then_some(us as u64)
            }),
            value => whole(value).and_then(|number| number.checked_mul(in_us)),
        };
        us.filter(|us| *us <= T::MAX).map(|us| self.0.set(us)).is_some()
    }

    fn wanted(&self) -> String {
        let unit = self.1.name();
        match T::MAX {
            u64::MAX => format!("a number of {unit}, not negative"),
            max => format!("a number of {unit} from 0 to {}", max / self.1.in_us()),
        }
    }

    fn write(&self) -> Option<String> {
        let (us, in_us) = (self.0.get()?, self.1.in_us());
        let (whole, rest) = (us / in_us, us % in_us);
        Some(match rest {
            0 => whole.to_string(),
            // As many digits as the unit has microseconds, without zeros at the end.
            rest => {
                let digits = format!("{:0width$}", rest, width = in_us.ilog10() as usize);
                format!("{whole}.{}", digits.trim_end_matches('0'))
            }
        })
    }

    fn example(&self) -> &'static str {
        self.2
    }
}

impl Setting for Flag<'_> {
    fn read(&mut self, value: &DeValue<'_>) -> bool {
        value.as_bool().map(|flag| *self.0 = flag).is_some()
    }

    fn wanted(&self) -> String {
        "true or false".to_owned()
    }

    fn write(&self) -> Option<String> {
        Some(self.0.to_string())
    }
}

impl Setting for Cores<'_> {
    fn read(&mut self, value: &DeValue<'_>) -> bool {
        let Some(cores) = value.as_array() else { return false };
        let core = |core: &DeValue<'_>| usize::try_from(whole(core)?).ok();
        let cores: Option<Vec<usize>> = cores.iter().map(|it| core(it.as_ref())).collect();
        *self.0 = cores.filter(|cores| (1..=1024).contains(&cores.len()));
        self.0.is_some()
    }

    fn wanted(&self) -> String {
        "a list of 1 to 1024 cores, as [0, 1]".to_owned()
    }

    fn write(&self) -> Option<String> {
        let cores: Vec<_> = self.0.as_ref()?.iter().map(usize::to_string).collect();
        Some(format!("[{}]", cores.join(", ")))
    }

    fn example(&self) -> &'static str {
        "[0, 1]"
    }
}

impl Setting for Packing<'_> {
    fn read(&mut self, value: &DeValue<'_>) -> bool {
        let compression = match value.as_str() {
            Some("none") => Some(Compression::None),
            Some("lz4") => Some(Compression::Lz4),
            Some(text) => text
                .strip_prefix("zstd:")
                .and_then(|level| level.parse().ok())
                .map(Compression::Zstd),
            None => None,
        };
        compression.map(|compression| *self.0 = compression).is_some()
    }

    fn wanted(&self) -> String {
        "\"none\", \"lz4\" or \"zstd:\" with a level from 1 to 19, as \"zstd:3\"".to_owned()
    }

    fn write(&self) -> Option<String> {
        Some(match *self.0 {
            Compression::None => "\"none\"".to_owned(),
            Compression::Lz4 => "\"lz4\"".to_owned(),
            Compression::Zstd(level) => format!("\"zstd:{level}\""),
        })
    }
}

impl Unit {
    /// Microseconds in one.
    fn in_us(self) -> u64 {
        match self {
            Self::Us => 1,
            Self::Ms => 1_000,
            Self::S => 1_000_000,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Us => "microseconds",
            Self::Ms => "milliseconds",
            Self::S => "seconds",
        }
    }
}

impl Microseconds for u32 {
    const MAX: u64 = u32::MAX as u64;

    fn get(&self) -> Option<u64> {
        Some(u64::from(*self))
    }

    fn set(&mut self, us: u64) {
        *self = u32::try_from(us).unwrap_or(u32::MAX);
    }
}

impl Microseconds for u64 {
    const MAX: u64 = u64::MAX;

    fn get(&self) -> Option<u64> {
        Some(*self)
    }

    fn set(&mut self, us: u64) {
        *self = us;
    }
}

impl Microseconds for Duration {
    const MAX: u64 = u64::MAX;

    fn get(&self) -> Option<u64> {
        u64::try_from(self.as_micros()).ok()
    }

    fn set(&mut self, us: u64) {
        *self = Self::from_micros(us);
    }
}

impl Microseconds for Option<Duration> {
    const MAX: u64 = u64::MAX;

    fn get(&self) -> Option<u64> {
        self.as_ref().and_then(Microseconds::get)
    }

    fn set(&mut self, us: u64) {
        *self = Some(Duration::from_micros(us));
    }
}

impl Microseconds for Most<'_> {
    // The most that there can be says that there is none.
    const MAX: u64 = u32::MAX as u64 - 1;

    fn get(&self) -> Option<u64> {
        Some(u64::from(*self.0)).filter(|us| *us <= Self::MAX)
    }

    fn set(&mut self, us: u64) {
        *self.0 = u32::try_from(us).unwrap_or(u32::MAX);
    }
}

/// A whole number that is not negative.
fn whole(value: &DeValue<'_>) -> Option<u64> {
    let number: &DeInteger<'_> = value.as_integer()?;
    u64::from_str_radix(number.as_str(), number.radix()).ok()
}

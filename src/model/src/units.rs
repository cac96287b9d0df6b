//! Rates and sizes with their units, parsed from configuration text.

use std::fmt;
use std::str::FromStr;

/// A data rate. Configuration text: `9600bit/s`, `256kbit/s`, `2Mbit/s`, `1Gbit/s` (decimal prefixes).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct BitsPerSecond(pub u64);

impl BitsPerSecond {
    /// Bytes that fit in `millis` milliseconds, rounded down.
    pub fn bytes_in_millis(self, millis: u64) -> u64 {
        (u128::from(self.0) * u128::from(millis) / 8_000).try_into().unwrap_or(u64::MAX)
    }
}

/// A size in bytes. Configuration text: `512B`, `64KiB`, `100MB`, `4GiB`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ByteSize(pub u64);

/// Text that is no quantity of the wanted unit.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is no {wanted}")]
pub struct BadQuantity {
    text: String,
    wanted: &'static str,
}

fn parse(text: &str, units: &[(&str, u64)], wanted: &'static str) -> Result<u64, BadQuantity> {
    let bad = || BadQuantity { text: text.to_owned(), wanted };
    let trimmed = text.trim();
    let digits = trimmed.find(|c: char| !c.is_ascii_digit()).unwrap_or(trimmed.len());
    let (number, unit) = trimmed.split_at(digits);
    let number: u64 = number.parse().map_err(|_| bad())?;
    let (_, factor) = units.iter().find(|(name, _)| *name == unit.trim()).ok_or_else(bad)?;
    number.checked_mul(*factor).ok_or_else(bad)
}

const RATES: &[(&str, u64)] = &[("Gbit/s", 1_000_000_000), ("Mbit/s", 1_000_000), ("kbit/s", 1_000), ("bit/s", 1)];

const SIZES: &[(&str, u64)] = &[
    ("GiB", 1 << 30),
    ("MiB", 1 << 20),
    ("KiB", 1 << 10),
    ("GB", 1_000_000_000),
    ("MB", 1_000_000),
    ("kB", 1_000),
    ("B", 1),
];

impl FromStr for BitsPerSecond {
    type Err = BadQuantity;

    fn from_str(s: &str) -> Result<Self, BadQuantity> {
        match parse(s, RATES, "rate such as `256kbit/s`")? {
            0 => Err(BadQuantity { text: s.to_owned(), wanted: "rate above zero" }),
            bits => Ok(Self(bits)),
        }
    }
}

impl FromStr for ByteSize {
    type Err = BadQuantity;

    fn from_str(s: &str) -> Result<Self, BadQuantity> {
        parse(s, SIZES, "size such as `100MB` or `64KiB`").map(Self)
    }
}

fn show(f: &mut fmt::Formatter<'_>, value: u64, units: &[(&str, u64)]) -> fmt::Result {
    let whole = units.iter().find(|(_, factor)| value >= *factor && value.is_multiple_of(*factor));
    let (name, factor) = whole.copied().unwrap_or((units[units.len() - 1].0, 1));
    write!(f, "{}{name}", value / factor)
}

impl fmt::Display for BitsPerSecond {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        show(f, self.0, RATES)
    }
}

impl fmt::Display for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        show(f, self.0, SIZES)
    }
}

macro_rules! serde_as_text {
    ($($t:ty),*) => {$(
        impl serde::Serialize for $t {
            fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
                s.collect_str(self)
            }
        }

        impl<'de> serde::Deserialize<'de> for $t {
            fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
                String::deserialize(d)?.parse().map_err(serde::de::Error::custom)
            }
        }
    )*};
}

serde_as_text!(BitsPerSecond, ByteSize);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_read_and_print_with_their_unit() {
        assert_eq!("256kbit/s".parse(), Ok(BitsPerSecond(256_000)));
        assert_eq!(BitsPerSecond(256_000).to_string(), "256kbit/s");
        assert_eq!(BitsPerSecond(256_000).bytes_in_millis(50), 1_600);
        for bad in ["", "256", "0kbit/s", "fast", "1.5Mbit/s", "99999999999999999999bit/s"] {
            assert!(bad.parse::<BitsPerSecond>().is_err(), "{bad}");
        }
    }
}

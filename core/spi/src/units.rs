//! Durations and sizes as configuration writes them: `"10s"`, `"64MiB"`. A bare number is refused, since nobody can see
//! from it whether seconds or milliseconds were meant.

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};
use std::{borrow::Cow, fmt, str::FromStr, time::Duration};

/// A duration of whole milliseconds or longer units: `"100ms"`, `"10s"`, `"5min"`, `"2h"`, `"1d"`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TimeSpan(Duration);

/// A number of bytes in powers of 1024: `"512B"`, `"32KiB"`, `"64MiB"`, `"1GiB"`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ByteSize(u64);

const SPANS: [(&str, u64); 5] = [("d", 86_400_000), ("h", 3_600_000), ("min", 60_000), ("s", 1_000), ("ms", 1)];
const SIZES: [(&str, u64); 5] = [("TiB", 1 << 40), ("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10), ("B", 1)];

/// Splits `"10 s"` into number and unit, and answers number × unit.
fn parse(text: &str, units: &[(&str, u64)], what: &str, example: &str) -> Result<u64, String> {
    let text = text.trim();
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let unit = unit.trim();
    let names = || units.iter().rev().map(|(name, _)| *name).collect::<Vec<_>>().join(", ");
    if number.is_empty() {
        return Err(format!("{text:?} is not a {what}: write a whole number and a unit, like \"{example}\""));
    }
    if unit.is_empty() {
        return Err(format!("{text:?} has no unit: write {}", with_units(number, units)));
    }
    let Some((_, factor)) = units.iter().find(|(name, _)| *name == unit) else {
        return Err(format!("{text:?} has an unknown unit {unit:?}: a {what} takes {}, like \"{example}\"", names()));
    };
    let number = number.parse::<u64>().ok().and_then(|n| n.checked_mul(*factor));
    number.ok_or_else(|| format!("{text:?} is too large for a {what}"))
}

/// `"10ms", "10s" or "10min"`: what a bare number may have meant.
fn with_units(number: &str, units: &[(&str, u64)]) -> String {
    let likely: Vec<_> = units.iter().rev().take(3).map(|(unit, _)| format!("\"{number}{unit}\"")).collect();
    likely.join(" or ")
}

/// The largest unit that divides the value; `zero` for none.
fn print(value: u64, units: &[(&str, u64)], zero: &str, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    match units.iter().find(|(_, factor)| value > 0 && value.is_multiple_of(*factor)) {
        Some((name, factor)) => write!(f, "{}{name}", value / factor),
        None => f.write_str(zero),
    }
}

impl TimeSpan {
    /// So many milliseconds.
    pub const fn from_millis(millis: u64) -> Self {
        Self(Duration::from_millis(millis))
    }

    /// So many seconds.
    pub const fn from_secs(secs: u64) -> Self {
        Self(Duration::from_secs(secs))
    }

    /// The duration.
    pub const fn get(self) -> Duration {
        self.0
    }

    /// What a bare number may have meant, for the message that refuses it.
    pub fn instead_of(number: &str) -> String {
        with_units(number, &SPANS)
    }
}

impl ByteSize {
    /// So many bytes.
    pub const fn from_bytes(bytes: u64) -> Self {
        Self(bytes)
    }

    /// So many times 1024 × 1024 bytes.
    pub const fn from_mib(mib: u64) -> Self {
        Self(mib << 20)
    }

    /// The number of bytes.
    pub const fn get(self) -> u64 {
        self.0
    }

    /// The number of bytes as a length in memory; the largest one where it is more.
    pub fn as_usize(self) -> usize {
        usize::try_from(self.0).unwrap_or(usize::MAX)
    }

    /// What a bare number may have meant, for the message that refuses it.
    pub fn instead_of(number: &str) -> String {
        with_units(number, &SIZES)
    }
}

impl From<TimeSpan> for Duration {
    fn from(span: TimeSpan) -> Self {
        span.0
    }
}

impl FromStr for TimeSpan {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        parse(text, &SPANS, "duration", "10s").map(Self::from_millis)
    }
}

impl FromStr for ByteSize {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        parse(text, &SIZES, "size", "64MiB").map(Self)
    }
}

impl fmt::Display for TimeSpan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        print(u64::try_from(self.0.as_millis()).unwrap_or(u64::MAX), &SPANS, "0s", f)
    }
}

impl fmt::Display for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        print(self.0, &SIZES, "0B", f)
    }
}

macro_rules! as_text {
    ($name:ident, $format:literal) => {
        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
            }
        }

        impl JsonSchema for $name {
            // Written out where it stands, so that a field keeps its own doc comment beside it.
            fn inline_schema() -> bool {
                true
            }

            fn schema_name() -> Cow<'static, str> {
                stringify!($name).into()
            }

            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                json_schema!({ "type": "string", "format": $format })
            }
        }
    };
}

as_text!(TimeSpan, "duration");
as_text!(ByteSize, "size");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_and_sizes_print_as_they_are_written() {
        for text in ["100ms", "1500ms", "10s", "5min", "2h", "1d", "0s"] {
            assert_eq!(text.parse::<TimeSpan>().unwrap().to_string(), text);
        }
        for text in ["512B", "32KiB", "64MiB", "1GiB", "1025B"] {
            assert_eq!(text.parse::<ByteSize>().unwrap().to_string(), text);
        }
        assert_eq!("10 s".parse::<TimeSpan>().unwrap().get(), Duration::from_secs(10));
    }

    #[test]
    fn what_is_refused_says_what_to_write() {
        let span = |text: &str| text.parse::<TimeSpan>().unwrap_err();
        assert_eq!(span("10"), "\"10\" has no unit: write \"10ms\" or \"10s\" or \"10min\"");
        assert_eq!(span("10m"), "\"10m\" has an unknown unit \"m\": a duration takes ms, s, min, h, d, like \"10s\"");
        assert!(span("soon").contains("not a duration"));
        assert!(span("99999999999999999999s").contains("too large"));
        assert!("64MB".parse::<ByteSize>().unwrap_err().contains("B, KiB, MiB, GiB, TiB"));
        assert!("64".parse::<ByteSize>().unwrap_err().contains("\"64MiB\""));
    }
}

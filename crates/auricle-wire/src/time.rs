//! Times on the wire: ISO 8601 UTC with `Z` and six fractional digits, held as Unix microseconds.
//!
//! Read more widely than written: any offset, any number of digits (beyond microseconds they are cut), and the form
//! without an offset that Python writes for naive times, which means UTC.

use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Microseconds since 1970-01-01 UTC, written as e.g. `2026-01-15T17:03:11.204518Z`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[cfg_attr(feature = "openapi", schema(value_type = String, format = DateTime))]
pub struct WireTime(pub i64);

/// 0001-01-01T00:00:00Z.
const YEAR_ONE_MICROS: i64 = -62_135_596_800_000_000;

impl std::fmt::Display for WireTime {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Out of range only for records no clock made; the nearest time is shown. Year 1 is the first that clients read.
        let micros = self.0.max(YEAR_ONE_MICROS);
        let at = Timestamp::from_microsecond(micros).unwrap_or(Timestamp::MAX);
        write!(f, "{at:.6}")
    }
}

impl Serialize for WireTime {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for WireTime {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<str>::deserialize(deserializer)?;
        let at = text.parse::<Timestamp>().or_else(|_| TimeZone::UTC.to_timestamp(text.parse::<DateTime>()?));
        // The text itself is not repeated: it may be anything a peer sent.
        let at = at
            .map_err(|_| serde::de::Error::custom("a time is not of the form 2026-01-15T17:03:11.204518Z"))?;
        Ok(Self(at.as_microsecond()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn six_digits_and_a_z_both_ways() {
        let at = WireTime(1_768_496_591_204_518);
        assert_eq!(at.to_string(), "2026-01-15T17:03:11.204518Z");
        assert_eq!(WireTime(0).to_string(), "1970-01-01T00:00:00.000000Z");
        assert_eq!(serde_json::from_str::<WireTime>("\"2026-01-15T17:03:11.204518Z\"").unwrap(), at);
        assert_eq!(serde_json::from_str::<WireTime>("\"2026-01-15T18:03:11.204518+01:00\"").unwrap(), at);
        assert!(serde_json::from_str::<WireTime>("\"soon\"").is_err());
    }

    #[test]
    fn times_without_an_offset_are_utc() {
        let at = WireTime(1_768_496_591_204_518);
        for text in ["\"2026-01-15T17:03:11.204518\"", "\"2026-01-15 17:03:11.2045189\""] {
            assert_eq!(serde_json::from_str::<WireTime>(text).unwrap(), at, "{text}");
        }
    }

    #[test]
    fn times_beyond_the_calendar_are_shown_as_its_ends() {
        assert_eq!(WireTime(i64::MIN).to_string(), "0001-01-01T00:00:00.000000Z");
        assert!(WireTime(i64::MAX).to_string().starts_with("9999-12-30T"));
    }
}

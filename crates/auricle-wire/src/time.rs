//! Times on the wire: ISO 8601 UTC with `Z` and six fractional digits, held as Unix microseconds.

use jiff::Timestamp;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Microseconds since 1970-01-01 UTC, written as e.g. `2026-01-15T17:03:11.204518Z`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[cfg_attr(feature = "openapi", schema(value_type = String, format = DateTime))]
pub struct WireTime(pub i64);

impl std::fmt::Display for WireTime {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Out of range only for records no clock made; the nearest time is shown.
        let at = Timestamp::from_microsecond(self.0).unwrap_or(if self.0 < 0 {
            Timestamp::MIN
        } else {
            Timestamp::MAX
        });
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
        let at: Timestamp = text.parse().map_err(serde::de::Error::custom)?;
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
        WireTime(i64::MAX).to_string();
    }
}

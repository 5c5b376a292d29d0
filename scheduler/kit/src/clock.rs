//! Time: microseconds since the Unix epoch inside, each service's own spelling outside.
use jiff::Timestamp;

/// Now, in microseconds since 1970 UTC.
pub fn now_us() -> i64 {
    Timestamp::now().as_microsecond()
}

fn format(us: i64, pattern: &str) -> String {
    let stamp = Timestamp::from_microsecond(us).unwrap_or(Timestamp::UNIX_EPOCH);
    stamp.strftime(pattern).to_string()
}

/// `2026-11-23T22:10:05Z`
pub fn seconds_z(us: i64) -> String {
    format(us, "%Y-%m-%dT%H:%M:%SZ")
}

/// `2026-11-23T22:10:05`
pub fn seconds(us: i64) -> String {
    format(us, "%Y-%m-%dT%H:%M:%S")
}

/// `2026-11-23T22:10:05.000000Z`
pub fn micros_z(us: i64) -> String {
    format(us, "%Y-%m-%dT%H:%M:%S%.6fZ")
}

/// `2026-11-23T22:10:05.000000`
pub fn micros(us: i64) -> String {
    format(us, "%Y-%m-%dT%H:%M:%S%.6f")
}

/// Reads the ISO 8601 spellings that clients send (with or without fraction, zone or `T`).
pub fn parse(text: &str) -> Option<i64> {
    let text = text.trim();
    if let Ok(stamp) = text.parse::<Timestamp>() {
        return Some(stamp.as_microsecond());
    }
    let civil: jiff::civil::DateTime = text.trim_end_matches('Z').parse().ok()?;
    Some(jiff::tz::TimeZone::UTC.to_timestamp(civil).ok()?.as_microsecond())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spellings_round_trip() {
        let us = 1_795_472_345_123_456;
        assert_eq!(parse(&micros_z(us)), Some(us));
        assert_eq!(parse(&micros(us)), Some(us));
        assert_eq!(parse(&seconds(us)), Some(us - 123_456));
        assert_eq!(parse("2026-11-23 22:10:05"), parse("2026-11-23T22:10:05Z"));
        assert_eq!(parse("yesterday"), None);
    }
}

//! Lengths of time in milliseconds, the unit of all event times.

pub(crate) const SECOND_MS: i64 = 1_000;
pub(crate) const MINUTE_MS: i64 = 60 * SECOND_MS;
pub(crate) const HOUR_MS: i64 = 60 * MINUTE_MS;
pub(crate) const DAY_MS: i64 = 24 * HOUR_MS;

/// Seconds from `now`, milliseconds since the epoch, until the next minute has begun: 1 to 61, rounded up.
pub(crate) const fn seconds_left_in_minute(now: i64) -> i64 {
    (MINUTE_MS - now.rem_euclid(MINUTE_MS)) / SECOND_MS + 1
}

/// RFC 3339 in UTC, to the second. Empty for a time that has no calendar date.
pub(crate) fn rfc3339(millis: i64) -> String {
    let time = jiff::Timestamp::from_second(millis.div_euclid(SECOND_MS));
    time.map(|time| time.to_string()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn next_minute_has_begun_after_the_seconds_left() {
        assert_eq!([0, 1, 59_000, 59_999].map(seconds_left_in_minute), [61, 60, 2, 1]);
        assert_eq!(seconds_left_in_minute(-1), 1);
    }

    #[test]
    fn time_is_rounded_down_to_the_second() {
        assert_eq!(rfc3339(1_769_990_400_999), "2026-02-02T00:00:00Z");
        assert_eq!(rfc3339(-1), "1969-12-31T23:59:59Z");
        assert_eq!(rfc3339(i64::MAX), "");
    }
}

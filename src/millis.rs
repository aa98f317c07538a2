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

/// Whether it is the first day of a month in some time zone, from UTC−12 to UTC+14.
pub(crate) fn month_begins(at: i64) -> bool {
    let is_first = |hours: i64| {
        let time = jiff::Timestamp::from_millisecond(at.saturating_add(hours * HOUR_MS));
        time.is_ok_and(|time| jiff::tz::Offset::UTC.to_datetime(time).day() == 1)
    };
    [-12, 0, 14].into_iter().any(is_first)
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
    fn month_begins_in_the_first_zone_and_ends_its_day_in_the_last() {
        let first = 1_769_904_000_000; // 2026-02-01T00:00:00Z
        for hours in -14..36 {
            assert!(month_begins(first + hours * HOUR_MS), "{hours}");
        }
        assert!(!month_begins(first - 14 * HOUR_MS - 1) && !month_begins(first + 36 * HOUR_MS));
        assert!(!month_begins(i64::MAX) && !month_begins(i64::MIN));
    }

    #[test]
    fn time_is_rounded_down_to_the_second() {
        assert_eq!(rfc3339(1_769_990_400_999), "2026-02-02T00:00:00Z");
        assert_eq!(rfc3339(-1), "1969-12-31T23:59:59Z");
        assert_eq!(rfc3339(i64::MAX), "");
    }
}

//! Times on the command line.

use jiff::civil::Date;
use jiff::tz::TimeZone;

use super::failure::Failure;
use crate::millis::{DAY_MS, HOUR_MS, MINUTE_MS};

/// The time that `text` names, in milliseconds since the epoch: RFC 3339, a date (midnight UTC), or a number and `m`, `h`
/// or `d`, before `now`. `option` is the name for the error.
pub(super) fn parse(text: &str, now: i64, option: &str) -> Result<i64, Failure> {
    let ago = || now.checked_sub(millis_of(text)?);
    let date = || {
        // The parser ignores a time of day after the date.
        let date: Date = text.parse().ok().filter(|_| text.len() == "2026-11-22".len())?;
        TimeZone::UTC.to_timestamp(date.at(0, 0, 0, 0)).ok()
    };
    let absolute = || text.parse::<jiff::Timestamp>().ok().or_else(date).map(jiff::Timestamp::as_millisecond);
    ago().or_else(absolute).ok_or_else(|| {
        let known = "a time such as 2026-11-22T10:15:00Z, a date such as 2026-11-22, or 30m, 12h or 7d before now";
        Failure::Usage(format!("{option} `{text}` is not {known}"))
    })
}

/// The time span that `text` names, in milliseconds: a number and `m`, `h` or `d`. `option` is the name for the error.
pub(super) fn span(text: &str, option: &str) -> Result<i64, Failure> {
    millis_of(text).ok_or_else(|| Failure::Usage(format!("{option} `{text}` is not a span such as 30m, 12h or 7d")))
}

fn millis_of(text: &str) -> Option<i64> {
    let of = |unit: char, millis: i64| {
        let count = text.strip_suffix(unit)?.parse::<u32>().ok()?;
        i64::from(count).checked_mul(millis)
    };
    of('m', MINUTE_MS).or_else(|| of('h', HOUR_MS)).or_else(|| of('d', DAY_MS))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_absolute_or_before_now() {
        let now = 1_795_000_000_000;
        let parsed = |text: &str| parse(text, now, "--since").ok();
        assert_eq!(parsed("2026-11-18T11:06:40Z"), Some(now));
        assert_eq!(parsed("2026-11-18T12:06:40+01:00"), Some(now));
        assert_eq!(parsed("2026-11-18"), Some(1_794_960_000_000));
        assert_eq!(
            (parsed("30m"), parsed("2h"), parsed("7d")),
            (Some(now - 30 * MINUTE_MS), Some(now - 2 * HOUR_MS), Some(now - 7 * DAY_MS))
        );
        for wrong in ["", "h", "-2h", "yesterday", "2026-13-01", "99999999999d", "2026-11-18T11:06:40"] {
            assert_eq!(parsed(wrong), None, "{wrong}");
        }
    }
}

//! Times as text: RFC 3339 in, RFC 3339 with milliseconds out.

use crate::event::Timestamp;
use crate::millis::{DAY_MS, HOUR_MS, MINUTE_MS};

/// Error for a text that is not an accepted time.
pub(crate) const NOT_A_TIME: &str = "not an RFC 3339 time";
/// Error for a time out of range.
pub(crate) const OUT_OF_RANGE: &str = "a time outside the years 1970 to 2199";

/// Error for a number that is no time in milliseconds.
pub(crate) const SECONDS: &str = "looks like seconds, where milliseconds are expected";
/// The years 2000 to 2100 in seconds. In milliseconds these are a few weeks of 1970, when no events existed.
pub(crate) const LIKE_SECONDS: std::ops::Range<i64> = 946_684_800..4_133_980_800;

/// Reads an RFC 3339 `date-time`. Fractions beyond milliseconds are cut off; a leap second is the second before it.
pub(crate) fn parse(text: &str) -> Result<Timestamp, &'static str> {
    let millis = date_time(text.as_bytes()).ok_or(NOT_A_TIME)?;
    Timestamp::from_millis(millis).ok_or(OUT_OF_RANGE)
}

/// Milliseconds since the epoch. The shape is that of RFC 3339 section 5.6, where `T` and `Z` may be small and a
/// space may stand for `T`.
fn date_time(text: &[u8]) -> Option<i64> {
    let (stem, rest) = text.split_at_checked(19)?;
    let &[y0, y1, y2, y3, b'-', mo0, mo1, b'-', d0, d1, b'T' | b't' | b' ', h0, h1, b':', mi0, mi1, b':', s0, s1] =
        stem
    else {
        return None;
    };
    let year = number(&[y0, y1, y2, y3])?;
    let (month, day) = (number(&[mo0, mo1])?, number(&[d0, d1])?);
    let (hour, minute, second) = (number(&[h0, h1])?, number(&[mi0, mi1])?, number(&[s0, s1])?);
    if hour > 23 || minute > 59 || second > 60 {
        return None;
    }
    let (fraction, zone) = fraction_millis(rest)?;
    let days = days_from_civil(year, month, day)?;
    let local = days * DAY_MS + ((hour * 60 + minute) * 60 + second.min(59)) * 1000 + fraction;
    Some(local - offset_minutes(zone)? * MINUTE_MS)
}

/// The milliseconds of `.fff…`, if it is there, and what follows it.
fn fraction_millis(text: &[u8]) -> Option<(i64, &[u8])> {
    let [b'.', digits @ ..] = text else { return Some((0, text)) };
    let count = digits.iter().take_while(|byte| byte.is_ascii_digit()).count();
    let (digits, rest) = digits.split_at_checked(count)?;
    let digit = |at: usize| digits.get(at).map_or(0, |&byte| i64::from(byte - b'0'));
    (count > 0).then(|| (digit(0) * 100 + digit(1) * 10 + digit(2), rest))
}

/// Minutes east of Greenwich.
fn offset_minutes(zone: &[u8]) -> Option<i64> {
    match *zone {
        [b'Z' | b'z'] => Some(0),
        [sign @ (b'+' | b'-'), h0, h1, b':', m0, m1] => {
            let (hours, minutes) = (number(&[h0, h1])?, number(&[m0, m1])?);
            let east = hours * 60 + minutes;
            (hours < 24 && minutes < 60).then_some(if sign == b'-' { -east } else { east })
        }
        _ => None,
    }
}

fn number(digits: &[u8]) -> Option<i64> {
    digits.iter().try_fold(0, |sum, byte| byte.is_ascii_digit().then(|| sum * 10 + i64::from(byte - b'0')))
}

/// Days from 1970-01-01 to a date of the proleptic Gregorian calendar: H. Hinnant, "chrono-compatible low-level date
/// algorithms", `days_from_civil`.
fn days_from_civil(year: i64, month: i64, day: i64) -> Option<i64> {
    let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let last = match month {
        1 | 3 | 5 | 7 | 8 | 10 | 12 => 31,
        4 | 6 | 9 | 11 => 30,
        2 if leap => 29,
        2 => 28,
        _ => return None,
    };
    if day < 1 || day > last {
        return None;
    }
    // Years begin in March, so that the leap day is the last of its year.
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    Some(era * 146_097 + day_of_era - 719_468)
}

/// Appends `time` as `YYYY-MM-DDTHH:MM:SS.mmmZ`.
pub(crate) fn write(out: &mut Vec<u8>, time: Timestamp) {
    let (days, millis) = (time.millis() / DAY_MS, time.millis() % DAY_MS);
    let (year, month, day) = civil_from_days(days);
    let mut text = *b"0000-00-00T00:00:00.000Z";
    let (date, clock) = text.split_at_mut(11);
    put(date, 0..4, year);
    put(date, 5..7, month);
    put(date, 8..10, day);
    put(clock, 0..2, millis / HOUR_MS);
    put(clock, 3..5, millis / MINUTE_MS % 60);
    put(clock, 6..8, millis / 1000 % 60);
    put(clock, 9..12, millis % 1000);
    out.extend_from_slice(&text);
}

fn put(text: &mut [u8], digits: std::ops::Range<usize>, mut number: i64) {
    for digit in text.get_mut(digits).into_iter().flatten().rev() {
        *digit = b'0' + (number % 10) as u8;
        number /= 10;
    }
}

/// Year, month and day: `civil_from_days` of the same source.
fn civil_from_days(days: i64) -> (i64, i64, i64) {
    let days = days + 719_468;
    let era = days.div_euclid(146_097);
    let day_of_era = days.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    (year, month, day)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn millis(text: &str) -> Result<i64, &'static str> {
        parse(text).map(Timestamp::millis)
    }

    #[test]
    fn time_reads_the_forms_of_rfc_3339() {
        assert_eq!(millis("1970-01-01T00:00:00Z"), Ok(0));
        assert_eq!(millis("2026-11-22T10:15:30.123Z"), Ok(1_795_342_530_123));
        assert_eq!(millis("2026-11-22t10:15:30.1239999z"), Ok(1_795_342_530_123));
        assert_eq!(millis("2026-11-22 12:15:30.1+02:00"), Ok(1_795_342_530_100));
        assert_eq!(millis("2016-12-31T23:59:60Z"), millis("2016-12-31T23:59:59Z"));
    }

    #[test]
    fn time_refuses_other_texts_and_ranges() {
        for text in [
            "",
            "now",
            "2026-11-22",
            "2026-11-22T10:15:30",
            "2026-11-22T10:15Z",
            "2026-13-22T10:15:30Z",
            "2026-02-29T10:15:30Z",
            "2026-11-22T24:15:30Z",
            "2026-11-22T10:15:30.Z",
            "2026-11-22T10:15:30+2:00",
            "2026-11-22T10:15:30+24:00",
            "292277-01-01T00:00:00Z",
            "２026-11-22T10:15:30Z",
        ] {
            assert_eq!(millis(text), Err(NOT_A_TIME), "{text}");
        }
        for text in ["0000-01-01T00:00:00Z", "1969-12-31T23:59:59.999Z", "9999-12-31T23:59:59Z", "2200-01-01T00:00:00Z"]
        {
            assert_eq!(millis(text), Err(OUT_OF_RANGE), "{text}");
        }
    }

    proptest! {
        #[test]
        fn time_agrees_with_jiff(
            year in 0..=9999_u16, month in 0..=13_u8, day in 0..=32_u8,
            hour in 0..=24_u8, minute in 0..=60_u8, second in 0..=60_u8,
            fraction in "(\\.[0-9]{1,9})?", zone in "(Z|[+-]([01][0-9]|2[0-3]):[0-5][0-9])",
        ) {
            let text = format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}{fraction}{zone}");
            let oracle = text.parse::<jiff::Timestamp>().ok().and_then(|time| Timestamp::from_millis(time.as_millisecond()));

            prop_assert_eq!(parse(&text).ok(), oracle, "{}", text);
        }

        #[test]
        fn time_reads_back_and_equals_jiff(millis in 0..=Timestamp::MAX.millis()) {
            let time = Timestamp::from_millis(millis).expect("in range");
            let mut out = Vec::new();
            write(&mut out, time);
            let text = String::from_utf8(out).expect("ascii");
            let oracle = jiff::Timestamp::from_millisecond(millis).expect("in range");
            prop_assert_eq!(&text, &format!("{oracle:.3}"));
            prop_assert_eq!(parse(&text), Ok(time));
        }
    }
}

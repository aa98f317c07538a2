//! Policies: requirements for tokens, independent of the log-odds. A violation raises the verdict by itself and does
//! not change the log-odds.

use std::fmt::{self, Write as _};

use crate::enrichment::EnrichedEvent;
use crate::event::Event;
use crate::millis::{DAY_MS, MINUTE_MS};
use crate::place::{Country, Prefix};
use crate::verdict::{RuleId, Signal, Verdict};

/// Rules whose files may have policies.
pub(crate) const RULES: [RuleId; 5] =
    [RuleId::NewCountry, RuleId::NewNetwork, RuleId::UnusualTime, RuleId::NewClient, RuleId::VolumeSpike];

/// A requirement for some or all tokens.
#[derive(Clone, Debug, PartialEq)]
pub struct Policy {
    /// Name in alerts.
    pub(crate) name: String,
    pub(crate) verdict: Verdict,
    pub(crate) of: Selector,
    pub(crate) wants: Wants,
    pub(crate) exceptions: Vec<Exception>,
}

/// Scope of a policy or an exception. An absent field matches any value.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Selector {
    pub(crate) tenant: Option<String>,
    pub(crate) app: Option<String>,
    pub(crate) token: Option<String>,
}

/// Exception from a policy, with an author and an end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Exception {
    pub(crate) author: String,
    pub(crate) reason: String,
    /// Milliseconds since the epoch, event time.
    pub(crate) until: i64,
    pub(crate) of: Selector,
}

/// Requirement of a policy. An event without the value (unknown country, no user agent) does not violate it, so that a
/// missing GeoIP file causes no violations.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Wants {
    Countries(List<Country>),
    Networks(List<NetworkRange>),
    /// Client families such as `Chrome` or `curl`, case-insensitive.
    Clients(List<String>),
    Times(Times),
    /// Maximum number of calls of a grant in a clock minute.
    CallsPerMinuteMax(u32),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum List<T> {
    /// Only these.
    Allow(Vec<T>),
    /// All but these.
    Deny(Vec<T>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NetworkRange {
    /// Number of an autonomous system.
    Asn(u32),
    Prefix(Prefix),
}

/// Times at which tokens may be used, UTC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Times {
    /// Minutes since midnight, `from` inclusive and `to` exclusive. 22:00 to 06:00 includes midnight. Equal values: all
    /// day.
    pub(crate) from: u16,
    pub(crate) to: u16,
    /// Bit 0 is Monday.
    pub(crate) weekdays: u8,
}

/// Violation of a policy by one event.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Finding {
    pub(crate) rule: RuleId,
    pub(crate) verdict: Verdict,
    pub(crate) observed: String,
    pub(crate) expected: String,
    /// One sentence for alerts.
    pub(crate) reason: String,
}

/// Time of an event, for policies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Time {
    /// Milliseconds since the epoch.
    Known(i64),
    /// Stream time, milliseconds since the epoch, because the event's own time is not believed. Policies about hours,
    /// ages and rates are not checked. Exceptions end by this time.
    Unknown(i64),
}

impl Time {
    /// The event's own time, if it is believed. Milliseconds since the epoch.
    pub(crate) const fn known(self) -> Option<i64> {
        match self {
            Self::Known(at) => Some(at),
            Self::Unknown(_) => None,
        }
    }

    const fn millis(self) -> i64 {
        let (Self::Known(at) | Self::Unknown(at)) = self;
        at
    }
}

impl Finding {
    /// The finding as a signal that fired, with a share of 0.
    pub(crate) fn signal(self) -> Signal {
        let Self { rule, observed, expected, reason, .. } = self;
        Signal { rule, share: 0.0, p_value: 1.0, fired: true, observed, expected, reason }
    }
}

impl Selector {
    fn selects(&self, event: &Event<'_>) -> bool {
        let is = |wanted: &Option<String>, found: Option<&str>| wanted.is_none() || wanted.as_deref() == found;
        is(&self.tenant, event.tenant_id.as_deref())
            && is(&self.app, event.app_id.as_deref())
            && is(&self.token, Some(event.token_id.as_str()))
    }
}

impl Policy {
    /// Violation of this policy of `rule` by an event. `count` counts a call of the grant and returns the number of
    /// calls in its minute so far.
    pub(crate) fn violation(
        &self,
        rule: RuleId,
        enriched: &EnrichedEvent<'_>,
        time: Time,
        count: &mut dyn FnMut() -> u32,
    ) -> Option<Finding> {
        let mut calls = 0;
        let mut counted = || {
            calls = count();
            calls
        };
        if !self.holds_for(&enriched.event, time.millis()) || !self.wants.violated_by(enriched, time, &mut counted) {
            return None;
        }
        let observed = self.wants.observed(enriched, calls);
        let expected = self.wants.to_string();
        let reason = format!("violates the policy \"{}\": {observed}; {expected}", self.name);
        Some(Finding { rule, verdict: self.verdict, observed, expected, reason })
    }

    fn holds_for(&self, event: &Event<'_>, at: i64) -> bool {
        self.of.selects(event) && !self.exceptions.iter().any(|but| at < but.until && but.of.selects(event))
    }
}

impl Wants {
    /// `calls` counts the event and returns the number of calls in its minute.
    fn violated_by(&self, enriched: &EnrichedEvent<'_>, time: Time, calls: &mut impl FnMut() -> u32) -> bool {
        match self {
            Self::Countries(list) => {
                let country = enriched.place.as_ref().map(|place| place.country);
                country.is_some_and(|country| list.refuses(|listed| *listed == country))
            }
            Self::Networks(list) => {
                let asn = enriched.network.as_ref().map(|network| network.asn);
                let address = enriched.event.address.map(crate::event::Address::ip);
                let is_in = |range: &NetworkRange| match range {
                    NetworkRange::Asn(listed) => asn == Some(*listed),
                    NetworkRange::Prefix(prefix) => address.is_some_and(|address| prefix.covers(address)),
                };
                let needs_asn = |range: &NetworkRange| matches!(range, NetworkRange::Asn(_));
                // An unknown network may be allowed.
                let unsure = asn.is_none() && matches!(list, List::Allow(ranges) if ranges.iter().any(needs_asn));
                !unsure && list.refuses(is_in)
            }
            Self::Clients(list) => {
                let family = &enriched.client.family;
                enriched.event.user_agent.is_some() && list.refuses(|listed| listed.eq_ignore_ascii_case(family))
            }
            Self::Times(times) => time.known().is_some_and(|at| !times.include(at)),
            Self::CallsPerMinuteMax(max) => time.known().is_some() && calls() > *max,
        }
    }

    fn observed(&self, enriched: &EnrichedEvent<'_>, calls: u32) -> String {
        match self {
            Self::Countries(_) => {
                enriched.place.as_ref().map_or_else(String::new, |place| format!("used from {}", place.country))
            }
            Self::Networks(_) => {
                let mut observed = "used from ".to_owned();
                if let Some(network) = &enriched.network {
                    // Writing to a `String` cannot fail.
                    let _ = write!(observed, "AS{} {}, ", network.asn, network.org);
                }
                if let Some(address) = enriched.event.address {
                    let _ = write!(observed, "{address}");
                }
                observed
            }
            Self::Clients(_) => format!("used with {}", enriched.client.family),
            Self::Times(_) => {
                let (weekday, minute) = clock(enriched.event.timestamp.millis());
                format!("used on {} at {:02}:{:02} UTC", WEEKDAYS[weekday], minute / 60, minute % 60)
            }
            Self::CallsPerMinuteMax(_) => format!("{calls} calls within a minute"),
        }
    }
}

impl<T> List<T> {
    fn refuses(&self, is: impl Fn(&T) -> bool) -> bool {
        match self {
            Self::Allow(listed) => !listed.iter().any(is),
            Self::Deny(listed) => listed.iter().any(is),
        }
    }
}

/// Weekdays in rule files. The first one is bit 0 of [`Times::weekdays`].
pub(crate) const WEEKDAYS: [&str; 7] = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"];

impl Times {
    fn include(self, at: i64) -> bool {
        let (weekday, minute) = clock(at);
        let within = if self.from < self.to {
            (self.from..self.to).contains(&minute)
        } else {
            minute >= self.from || minute < self.to
        };
        within && self.weekdays >> weekday & 1 == 1
    }
}

/// Day of the week, 0 for Monday, and minutes since midnight, UTC. The epoch was a Thursday.
const fn clock(at: i64) -> (usize, u16) {
    let weekday = (at.div_euclid(DAY_MS) + 3).rem_euclid(7) as usize;
    (weekday, (at.rem_euclid(DAY_MS) / MINUTE_MS) as u16)
}

/// The requirement as text: `allowed: DE, AT`.
impl fmt::Display for Wants {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Countries(list) => list.fmt(f),
            Self::Networks(list) => list.fmt(f),
            Self::Clients(list) => list.fmt(f),
            Self::Times(times) => times.fmt(f),
            Self::CallsPerMinuteMax(max) => write!(f, "allowed: {max}"),
        }
    }
}

impl<T: fmt::Display> fmt::Display for List<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        /// Maximum number of elements in a sentence.
        const SHOWN_MAX: usize = 8;
        let (word, listed) = match self {
            Self::Allow(listed) => ("allowed", listed),
            Self::Deny(listed) => ("denied", listed),
        };
        write!(f, "{word}: ")?;
        for (place, item) in listed.iter().take(SHOWN_MAX).enumerate() {
            write!(f, "{}{item}", if place == 0 { "" } else { ", " })?;
        }
        if listed.len() > SHOWN_MAX { write!(f, " and {} more", listed.len() - SHOWN_MAX) } else { Ok(()) }
    }
}

impl fmt::Display for NetworkRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Asn(asn) => write!(f, "AS{asn}"),
            Self::Prefix(prefix) => prefix.fmt(f),
        }
    }
}

impl fmt::Display for Times {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { from, to, weekdays } = self;
        f.write_str("allowed:")?;
        if from != to {
            write!(f, " {:02}:{:02} to {:02}:{:02} UTC", from / 60, from % 60, to / 60, to % 60)?;
        }
        if *weekdays != ALL_WEEK {
            f.write_str(" on")?;
            for (_, name) in WEEKDAYS.iter().enumerate().filter(|(day, _)| weekdays >> day & 1 == 1) {
                write!(f, " {name}")?;
            }
        }
        Ok(())
    }
}

/// Every day of [`Times::weekdays`].
pub(crate) const ALL_WEEK: u8 = 0x7f;

#[cfg(test)]
mod tests {
    use super::*;

    /// Monday, 2 March 2026, 00:00 UTC.
    const MONDAY: i64 = 1_772_409_600_000;

    #[test]
    fn times_include_the_start_and_exclude_the_end() {
        let includes =
            |from, to, minute: i64| Times { from, to, weekdays: ALL_WEEK }.include(MONDAY + minute * MINUTE_MS);
        assert_eq!([419, 420, 1_139, 1_140].map(|minute| includes(420, 1_140, minute)), [false, true, true, false]);
        assert_eq!(
            [1_319, 1_320, 0, 359, 360].map(|minute| includes(1_320, 360, minute)),
            [false, true, true, true, false]
        );
        assert!(includes(0, 0, 0) && includes(0, 0, 720), "all day");
    }

    #[test]
    fn times_use_weekdays_in_utc() {
        let times = Times { from: 0, to: 0, weekdays: 0b001_1111 };
        let days = [0, 4, 5, 6, 7].map(|day| times.include(MONDAY + day * DAY_MS));
        assert_eq!(days, [true, true, false, false, true]);
        assert_eq!(times.to_string(), "allowed: on mon tue wed thu fri");
        assert!(Times { weekdays: 0b000_1000, ..times }.include(0), "the epoch was a Thursday");
    }

    #[test]
    fn long_list_is_shortened() {
        let list = List::Deny((1..=10).map(NetworkRange::Asn).collect());
        assert_eq!(list.to_string(), "denied: AS1, AS2, AS3, AS4, AS5, AS6, AS7, AS8 and 2 more");
    }
}

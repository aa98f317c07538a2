//! Text of a verdict: for each rule the observed and the expected value, and a sentence with the reason.

use std::borrow::Cow;
use std::fmt::Write as _;

use super::lesson::Lesson;
use super::score::{Observation, Score};
use super::turn::{CALLS_MIN, burst};
use crate::math::exp;
use crate::memory::cohort::Hourly;
use crate::memory::visit::Core;
use crate::memory::{Baseline, Cohorts, Feature, Generations, Memory, Sighting};
use crate::rule::{RuleSet, Status};
use crate::term::{Term, client, net};
use crate::verdict::{RuleId, Signal, decisive};

/// Probability of the hour from which the evidence must come from an earlier visit.
const ORDINARY_P: f64 = 0.2;

/// Calls from which a route counts as usual.
const USUAL_CALLS: f64 = 3.0;

/// Reason for evidence of a client that became known after the holder began.
const RECENT_CLIENT: &str = "used with a client that was new recently";

/// Minimum share, in nats, of a listed signal.
const LISTED_FROM: f64 = 0.5;

/// Stores the names of network and client family when a visit begins. Later reasons show them as usual values.
pub(crate) fn learn_names(names: &mut Generations<Box<str>>, observation: &Observation<'_>, score: &Score) {
    if score.visit_calls != 1 {
        return;
    }
    let sighting = observation.sighting;
    if let Some(network) = &observation.enriched.network {
        names.entry(network_name(sighting.network), || format!("AS{} {}", network.asn, network.org).into());
    }
    names.entry(family_name(sighting.family), || observation.enriched.client.family.clone());
}

const fn network_name(network: u32) -> u64 {
    network as u64
}

const fn family_name(family: u32) -> u64 {
    1 << 32 | family as u64
}

/// Signals of all rules that are not disabled and have a share of at least 0.5 nats, the largest share first.
pub(crate) fn signals(
    memory: &Memory,
    rules: &RuleSet,
    observation: &Observation<'_>,
    (score, lesson): (&Score, &Lesson),
) -> Vec<Signal> {
    let Memory { baselines, names, others, .. } = memory;
    let Some(baseline) = lesson.baseline(baselines, observation.place) else { return Vec::new() };
    let cohorts = others.cohorts.of(observation.tenant.seat);
    let words = Words { observation, score, baseline, lesson, names, cohorts };
    let mut signals = Vec::new();
    for (rule, share, p_value) in shares(score, &lesson.visit) {
        let configured = rules.rule(rule);
        if share < LISTED_FROM || configured.status == Status::Disabled {
            continue;
        }
        let (observed, expected, reason) = words.of(rule);
        // By Markov's inequality, a likelihood ratio of e^share has a probability of at most e^−share for the owner.
        let by_chance = exp(-share);
        // The running hour may be another one than that of the evidence.
        let of_hour = || words.p_value_of_hour(rule).map(|p_value| p_value.min(by_chance));
        let p_value = p_value.or_else(of_hour).unwrap_or(by_chance);
        let fired = configured.speaks(share);
        signals.push(Signal { rule, share, p_value, fired, observed, expected, reason });
    }
    signals.sort_by(|one, other| other.share.total_cmp(&one.share));
    signals
}

/// Share of each rule in nats, after the reduction for shared causes. With it the owner's probability of an observation at
/// least as unusual, if the term has one.
fn shares(score: &Score, visit: &Core) -> impl Iterator<Item = (RuleId, f64, Option<f64>)> {
    let evidence = &score.evidence;
    let kept = score.unexplained();
    let travel = Term::Net.weight() * evidence.travel.get();
    let net = kept * (score.shares.of(Term::Net) - travel);
    let by_level = match score.net_level {
        net::level::KNOWN_ADDRESS => None,
        net::level::KNOWN_PREFIX | net::level::KNOWN_NETWORK => Some(RuleId::NewIp),
        net::level::NEW_COUNTRY => Some(RuleId::NewCountry),
        _ => Some(RuleId::NewNetwork),
    };
    let client = kept * score.shares.of(Term::Client);
    let sensitive = evidence.sensitive.get().min(evidence.route.get().max(0.0));
    let calls = evidence.route.get() + evidence.area.get().max(0.0) - sensitive;
    let volume = evidence.volume.get() - evidence.objects.get();
    // Rotating proxies and two holders in turn are one rule: the grant is used at several places at a time.
    let holders = kept * (evidence.switch.get() + score.shares.of(Term::Sibling));
    [
        // At a known address, evidence remains if the network was new when the holder began.
        (by_level.unwrap_or(RuleId::NewIp), net, Some(f64::from(visit.net_p))),
        (RuleId::ImpossibleTravel, kept * travel, None),
        (RuleId::NewClient, client, Some(f64::from(visit.client_p))),
        (RuleId::UnusualTime, kept * score.shares.of(Term::Hour), Some(f64::from(visit.hour_p))),
        (RuleId::NewEndpoint, calls, None),
        (RuleId::SensitiveEndpoint, sensitive, None),
        (RuleId::ConcurrentUse, holders, None),
        (RuleId::VolumeSpike, volume, None),
        (RuleId::Enumeration, evidence.objects.get(), None),
        (RuleId::BytesSpike, evidence.bytes.get() * crate::term::volume::BYTES_WEIGHT, None),
        (score.lifecycle_rule.unwrap_or(RuleId::UseAfterExpiry), evidence.lifecycle.get(), None),
        (RuleId::StaleAfterCredentialChange, score.shares.of(Term::Credential), None),
        (RuleId::AppFanout, kept * score.app_fan, None),
        (RuleId::IpFanout, kept * score.ip_fan, None),
    ]
    .into_iter()
}

/// Data for the texts of a signal.
struct Words<'a> {
    observation: &'a Observation<'a>,
    score: &'a Score,
    baseline: &'a Baseline,
    lesson: &'a Lesson,
    names: &'a Generations<Box<str>>,
    cohorts: &'a Cohorts,
}

impl Words<'_> {
    /// The owner's probability of an hour at least as large as the running one, for rules about the volume of an hour.
    fn p_value_of_hour(&self, rule: RuleId) -> Option<f64> {
        let what = match rule {
            RuleId::VolumeSpike => Hourly::Calls,
            RuleId::Enumeration => Hourly::Objects,
            RuleId::BytesSpike => Hourly::Bytes,
            _ => return None,
        };
        let (hour, number) = (&self.lesson.hour, self.observation.sighting.hour_number());
        let runs = hour.number == number && (hour.calls >= CALLS_MIN || rule == RuleId::BytesSpike);
        runs.then(|| burst((self.baseline, self.lesson), self.cohorts, what, number).p_value())
    }

    /// Observed value, expected value, and one sentence.
    fn of(&self, rule: RuleId) -> (String, String, String) {
        let score = self.score;
        let mut digits = itoa::Buffer::new();
        match rule {
            RuleId::NewCountry | RuleId::NewNetwork | RuleId::NewIp => {
                let (here, usual) = (self.here(), self.usual_place());
                let what = match rule {
                    RuleId::NewCountry => "used from a new country",
                    RuleId::NewNetwork if score.net_level == net::level::USERS_NETWORK => {
                        "used from a network that is known only from the user's other tokens"
                    }
                    RuleId::NewNetwork => "used from a new network",
                    _ if score.net_level == net::level::KNOWN_ADDRESS => "used from an address that was new recently",
                    _ => "used from a new address in a known network",
                };
                let reason = [what, ": ", &here, "; usually ", &usual].concat();
                (here, usual, reason)
            }
            RuleId::ImpossibleTravel => {
                let here = self.here();
                let (km, minutes) =
                    (f64::from(self.lesson.visit.travel_km), f64::from(self.lesson.visit.travel_minutes));
                let reason = if km > 0.0 {
                    let (km, time) = (thousands(km), span((minutes * 60_000.0) as i64));
                    ["too far to travel: ", &km, " km in ", &time, ", to ", &here].concat()
                } else {
                    ["too far to travel: to ", &here, " from the places of recent uses"].concat()
                };
                (here, "a place that can be reached in the elapsed time".to_owned(), reason)
            }
            RuleId::NewClient => {
                let client = &self.observation.enriched.client;
                let observed = both(&client.family, &client.version);
                let expected = self.usual_client();
                let what = match score.client_level {
                    client::level::NEW_FINGERPRINT => "used with the usual user agent and a new fingerprint",
                    client::level::NEW_TEXT => "used with a new user agent text",
                    client::level::NEW_VERSION => "used with a new version of the client",
                    client::level::USERS_FAMILY => "used with a client that is known only from the user's other tokens",
                    client::level::KNOWN => RECENT_CLIENT,
                    _ => "used with a new client",
                };
                let learnt = self
                    .baseline
                    .seen
                    .most(Feature::Family)
                    .is_some_and(|(usual, _)| usual == self.observation.sighting.family);
                let reason = match score.client_level {
                    // The evidence remains after the visit in which the client became known.
                    client::level::NEW_FAMILY | client::level::USERS_FAMILY if learnt => {
                        [RECENT_CLIENT, ": ", &observed].concat()
                    }
                    _ => {
                        let (visits, noun) = self.visits(&mut digits);
                        [what, ": ", &observed, "; usually ", &expected, " (", visits, noun, " so far)"].concat()
                    }
                };
                (observed, expected, reason)
            }
            RuleId::UnusualTime => {
                let hour = self.observation.sighting.hour();
                let observed = hours_text(hour, (hour + 1) % 24);
                let expected = self.usual_hours();
                if f64::from(self.lesson.visit.hour_p) > ORDINARY_P {
                    let reason = ["used at unusual hours in earlier visits; usually ", &expected].concat();
                    return ("unusual hours in earlier visits".to_owned(), expected, reason);
                }
                let reason = ["used at an unusual time, ", &observed, "; usually ", &expected].concat();
                (observed, expected, reason)
            }
            RuleId::ConcurrentUse => {
                let here = self.here();
                let times = self.lesson.holder.switches;
                let observed = match times {
                    0 => "several suspicious networks within a day".to_owned(),
                    1 => "1 change of network within 60 minutes".to_owned(),
                    times => [digits.format(times), " changes of network, each within 60 minutes"].concat(),
                };
                let activity = self.baseline.activity;
                let an_hour = activity.changes() / activity.minutes().max(1.0) * 60.0;
                let expected = [&hundredths(an_hour), " changes of network per hour of activity"].concat();
                let reason =
                    ["possibly two holders: ", &observed, ", last from ", &here, "; usually ", &expected].concat();
                (observed, expected, reason)
            }
            RuleId::VolumeSpike | RuleId::Enumeration | RuleId::BytesSpike => self.volume(rule),
            RuleId::NewEndpoint | RuleId::SensitiveEndpoint => self.calls(rule),
            RuleId::AppFanout | RuleId::IpFanout => {
                let here = self.here();
                let app = self.observation.enriched.event.app_id.as_deref().unwrap_or("one application");
                let (of, app) = if rule == RuleId::AppFanout { (" of ", app) } else { ("", "") };
                let observed = ["tokens of 3 or more users", of, app, " used from ", &here, " within 2 hours"].concat();
                let expected = "each user at their own usual places".to_owned();
                let reason = [&observed, "; a new place for each"].concat();
                (observed, expected, reason)
            }
            _ => self.lifecycle(rule),
        }
    }

    fn lifecycle(&self, rule: RuleId) -> (String, String, String) {
        let event = &self.observation.enriched.event;
        let at = self.observation.sighting.at;
        let answer = match event.status {
            Some(status) => format!("status {status}"),
            None if event.outcome_unclear => "an unclear outcome".to_owned(),
            None => "no status".to_owned(),
        };
        let since =
            |moment: i64| if moment == 0 { "time unknown".to_owned() } else { format!("{} later", span(at - moment)) };
        let ended = self.observation.ended;
        let (observed, expected, reason) = match rule {
            RuleId::RefreshReuse => (
                "a superseded refresh token".to_owned(),
                "each refresh token presented once",
                "a refresh token was presented again after its exchange: copied, or the new one was lost".to_owned(),
            ),
            RuleId::BindingMismatch => (
                "proof of possession of another key".to_owned(),
                "the key of earlier requests",
                "used with a key other than that of earlier requests: copied, or the key was replaced".to_owned(),
            ),
            RuleId::UseAfterRevocation => (
                format!("{answer}, {}", since(ended.revoked_at)),
                "no use after revocation",
                format!("used after its revocation ({answer}, {}), from {}", since(ended.revoked_at), self.here()),
            ),
            RuleId::UseAfterSessionEnd => (
                format!("{answer}, {}", since(ended.session_ended_at)),
                "no use after the end of the session",
                format!("accepted after the end of its session ({})", since(ended.session_ended_at)),
            ),
            RuleId::UseAfterExpiry => {
                let late = self.observation.expiry.map_or(0, |expiry| at - expiry.at);
                let stated = if self.observation.expiry.is_some_and(|expiry| expiry.said_at_issue) {
                    "the expiry stated at its issue"
                } else {
                    "its expiry"
                };
                let (observed, reason) = if late > 0 {
                    (format!("{answer}, {} late", span(late)), format!("accepted {} after {stated}", span(late)))
                } else {
                    // The evidence of a holder remains after the event.
                    (
                        "an earlier use after expiry".to_owned(),
                        "accepted after its expiry earlier in this context".to_owned(),
                    )
                };
                (observed, "no use after expiry", reason)
            }
            _ => (
                "a new context of an old token, within 3 days after a credential change".to_owned(),
                "new tokens after a credential change",
                format!("old token used in a new context within 3 days of a credential change, from {}", self.here()),
            ),
        };
        (observed, expected.to_owned(), reason)
    }

    fn volume(&self, rule: RuleId) -> (String, String, String) {
        let usual = |mean: f32| whole(exp(f64::from(mean)));
        let (mut digits, mut of_hours) = (itoa::Buffer::new(), itoa::Buffer::new());
        match rule {
            RuleId::Enumeration => {
                let objects = digits.format(whole(self.lesson.hour.objects()));
                let observed = ["about ", objects, " different objects this hour"].concat();
                let expected =
                    ["about ", digits.format(usual(self.lesson.habits(self.baseline).objects.mean)), " per hour"]
                        .concat();
                let reason = ["unusually many objects: ", &observed, "; usually ", &expected].concat();
                (observed, expected, reason)
            }
            RuleId::BytesSpike => {
                let kilobytes = digits.format(whole(f64::from(self.lesson.hour.kilobytes)));
                let observed = [kilobytes, " kB read this hour"].concat();
                let expected =
                    ["about ", digits.format(usual(self.lesson.habits(self.baseline).bytes.mean)), " kB per hour"]
                        .concat();
                let reason = ["unusually many bytes: ", &observed, "; usually ", &expected].concat();
                (observed, expected, reason)
            }
            _ => {
                let calls = self.lesson.hour.calls;
                let observed = if calls < CALLS_MIN {
                    "many calls in an earlier hour".to_owned()
                } else {
                    [digits.format(calls), " calls this hour"].concat()
                };
                let mean = digits.format(usual(self.lesson.habits(self.baseline).calls.mean));
                let expected = match whole(f64::from(self.lesson.habits(self.baseline).calls.hours)) {
                    0 => "few, as for similar tokens".to_owned(),
                    1 => ["about ", mean, " (1 hour known)"].concat(),
                    hours => ["about ", mean, " per hour (", of_hours.format(hours), " hours known)"].concat(),
                };
                let reason = ["unusually many calls: ", &observed, "; usually ", &expected].concat();
                (observed, expected, reason)
            }
        }
    }

    fn calls(&self, rule: RuleId) -> (String, String, String) {
        let event = &self.observation.enriched.event;
        let endpoint = crate::route::template(event.endpoint.as_deref().unwrap_or_default());
        let observed = both(event.method.as_deref().unwrap_or_default(), &endpoint);
        let (known, _) = self.baseline.seen.variety(Feature::Route);
        let expected = ["one of ", itoa::Buffer::new().format(known), " known routes"].concat();
        let what = match rule {
            RuleId::SensitiveEndpoint => "calls of sensitive routes",
            _ => "calls of unusual routes",
        };
        // The unusual call may be an earlier one than this event.
        let is_usual = self.baseline.seen.count(Feature::Route, self.observation.enriched.route.key) >= USUAL_CALLS;
        if is_usual || observed.is_empty() {
            return ("earlier calls".to_owned(), expected, [what, ", earlier in this context"].concat());
        }
        let reason = [what, ", most recently ", &observed].concat();
        (observed, expected, reason)
    }

    fn visits<'a>(&self, digits: &'a mut itoa::Buffer) -> (&'a str, &'static str) {
        match self.baseline.visits {
            1 => ("1", " visit"),
            visits => (digits.format(visits), " visits"),
        }
    }

    /// Place and network of the event: `Sydney, AU, AS1221 Telstra`.
    fn here(&self) -> String {
        let enriched = self.observation.enriched;
        let (city, country) = enriched.place.as_ref().map_or(("", ""), |place| (&*place.city, place.country.as_str()));
        let comma = |text: &str| if text.is_empty() { "" } else { ", " };
        let mut digits = itoa::Buffer::new();
        let address;
        let (by, number, name) = match (&enriched.network, enriched.event.address) {
            (Some(network), _) => ("AS", digits.format(network.asn), &*network.org),
            (None, Some(found)) => {
                address = found.to_string();
                ("", address.as_str(), "")
            }
            (None, None) => ("", "", ""),
        };
        let space = if name.is_empty() { "" } else { " " };
        [city, comma(city), country, comma(country), by, number, space, name].concat()
    }

    /// The most frequent country and network: `DE, AS3320 Deutsche Telekom (412 of 413 visits)`.
    fn usual_place(&self) -> String {
        let seen = &self.baseline.seen;
        // The new country may have been learnt already, and may be the only known one.
        let is_new = |country: u32| {
            self.score.net_level == net::level::NEW_COUNTRY && country == self.observation.sighting.country
        };
        let country = seen.most(Feature::Country).filter(|(country, _)| !is_new(*country));
        let letters = country.map_or([0; 2], |(country, _)| [(country >> 8) as u8, country as u8]);
        let (country, comma) = match str::from_utf8(&letters) {
            Ok(country) if letters != [0; 2] => (country, ", "),
            _ => ("", ""),
        };
        let Some((network, weight)) = seen.most(Feature::Network) else {
            return [country, comma, "the places of the user's other tokens"].concat();
        };
        let name = match (self.names.get(network_name(network)), Sighting::asn(network)) {
            (Some(name), _) => Cow::Borrowed(&**name),
            (None, Some(asn)) => Cow::Owned(format!("AS{asn}")),
            (None, None) => Cow::Borrowed("networks without GeoIP data"),
        };
        let (mut here, mut all) = (itoa::Buffer::new(), itoa::Buffer::new());
        let (here, all) = (here.format(whole(weight)), all.format(whole(seen.total(Feature::Network).max(weight))));
        [country, comma, &name, " (", here, " of ", all, " visits)"].concat()
    }

    fn usual_client(&self) -> String {
        let usual = self.baseline.seen.most(Feature::Family);
        let name = usual.and_then(|(family, _)| self.names.get(family_name(family)));
        name.map_or_else(|| "the clients of the user's other tokens".to_owned(), ToString::to_string)
    }

    /// The shortest range of hours with at least 90 % of the visits: `08:00 to 17:00 UTC`.
    fn usual_hours(&self) -> String {
        let hours = &self.baseline.hours;
        let total: u32 = hours.iter().map(|count| u32::from(*count)).sum();
        if total == 0 {
            return "the hours of the user's other tokens".to_owned();
        }
        // Two pointers around the clock: for each first hour, the end of the shortest range that holds 90 %.
        let at = |hour: usize| u32::from(hours[hour % 24]);
        let (mut end, mut held) = (0, 0);
        let stretches = (0..24).map(|start| {
            while held * 10 < total * 9 {
                held += at(end);
                end += 1;
            }
            held -= at(start);
            (end - start, start)
        });
        match stretches.min() {
            Some((length @ ..24, start)) => hours_text(start, (start + length) % 24),
            _ => "any hour".to_owned(),
        }
    }
}

/// Rounds to the nearest integer. Formatting an integer takes a tenth of the time of a float.
fn whole(number: f64) -> u64 {
    number.round() as u64
}

/// Both texts with a space between them, or the one that is not empty.
fn both(one: &str, other: &str) -> String {
    let (one, other) = (one.trim(), other.trim());
    let between = if one.is_empty() || other.is_empty() { "" } else { " " };
    [one, between, other].concat()
}

/// `08:00 to 17:00 UTC`
fn hours_text(from: usize, to: usize) -> String {
    let (mut first, mut last) = (itoa::Buffer::new(), itoa::Buffer::new());
    let zero = |hour: usize| if hour < 10 { "0" } else { "" };
    [zero(from), first.format(from), ":00 to ", zero(to), last.format(to), ":00 UTC"].concat()
}

/// `0.07`
fn hundredths(number: f64) -> String {
    let hundredths = (number * 100.0).round() as u64;
    format!("{}.{:02}", hundredths / 100, hundredths % 100)
}

/// `15,900`: rounded to 100 km, because GeoIP coordinates are not more accurate.
fn thousands(km: f64) -> String {
    let hundreds = (km / 100.0).round() as u64;
    if hundreds < 10 { format!("{hundreds}00") } else { format!("{},{}00", hundreds / 10, hundreds % 10) }
}

/// `41 min`, `3 h`, `2 days`.
fn span(millis: i64) -> String {
    let minutes = millis / 60_000;
    match minutes {
        ..1 => format!("{} s", millis / 1_000),
        1..120 => format!("{minutes} min"),
        120..2_880 => format!("{} h", minutes / 60),
        _ => format!("{} days", minutes / 1_440),
    }
}

/// Maximum number of reasons in a sentence.
const REASONS_MAX: usize = 4;

/// The numbers of a sentence.
pub(crate) struct Sum {
    pub log_odds: f64,
    pub prior: f64,
    /// Log-odds from which an alert is raised.
    pub threshold: f64,
    /// A policy requested the alert, whatever the log-odds.
    pub by_policy: bool,
    /// Number of grants or tokens in the incident.
    pub baselines: u32,
}

/// Summary of an incident: the reasons with their shares in nats, the sum, and the first decisive rule.
pub(crate) fn sentence(signals: &[Signal], sum: &Sum) -> String {
    let mut text = String::new();
    if sum.baselines > 1 {
        let _ = write!(text, "{} tokens with one cause: ", sum.baselines);
    }
    if signals.is_empty() {
        text.push_str("several small deviations, or evidence of disabled rules only");
    }
    for (place, signal) in signals.iter().take(REASONS_MAX).enumerate() {
        let separator = if place == 0 { "" } else { "; " };
        let _ = write!(text, "{separator}{}", signal.reason);
        // A policy has no share in the log-odds.
        if signal.share > 0.0 {
            let _ = write!(text, " ({:+.1})", signal.share);
        }
    }
    let listed: f64 = signals.iter().take(REASONS_MAX).map(|signal| signal.share).sum();
    let rest = sum.log_odds - sum.prior - listed;
    let _ = write!(text, ". Log-odds {:.1} (prior {:.1}", sum.log_odds, sum.prior);
    if rest.abs() >= LISTED_FROM {
        let _ = write!(text, ", other evidence {rest:+.1}");
    }
    text.push_str(").");
    if sum.by_policy {
        text.push_str(" Requested by a policy.");
    } else if let Some(leading) = decisive(signals, sum.log_odds, sum.threshold).next() {
        let _ = write!(text, " Without {} there would be no alert.", leading.rule);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sentence_without_signals_states_the_log_odds() {
        let sum = Sum { log_odds: 2.4, prior: -7.0, threshold: 1.0, by_policy: false, baselines: 1 };
        assert_eq!(
            sentence(&[], &sum),
            "several small deviations, or evidence of disabled rules only. Log-odds 2.4 (prior -7.0, other evidence +9.4)."
        );
    }
}

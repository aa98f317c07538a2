//! The judgement in words: what each rule saw, what it expected, and what it weighs.

use std::borrow::Cow;
use std::fmt::Write as _;

use super::judge::{Judged, Scene};
use super::turn::{CALLS_MIN, burst};
use crate::math::exp;
use crate::memory::cohort::Hourly;
use crate::memory::{Baseline, Cohorts, Generations, Memory, Sighting, Sort};
use crate::rule::{RuleSet, Status};
use crate::term::{CLIENT_WEIGHT, NET_WEIGHT, client, net};
use crate::verdict::{RuleId, Signal, decisive};

/// What an owner does as often as this is not what speaks against them: evidence of an earlier visit is.
const ORDINARY_P: f64 = 0.2;

/// A route that was called so often is none that it does not usually call.
const USUAL_CALLS: f64 = 3.0;

/// A share below this, nats, is not worth a word.
const TOLD_FROM: f64 = 0.5;

/// Notes how network and client family are called where a visit begins, for those who later read what is usual.
pub fn learn_names(names: &mut Generations<Box<str>>, scene: &Scene<'_>, judged: &Judged) {
    if judged.visit_calls != 1 {
        return;
    }
    let sighting = &scene.sighting;
    if let Some(network) = &scene.enriched.network {
        names.entry(network_name(sighting.network), || format!("AS{} {}", network.asn, network.org).into());
    }
    names.entry(family_name(sighting.family), || scene.enriched.client.family.clone());
}

const fn network_name(network: u32) -> u64 {
    network as u64
}

const fn family_name(family: u32) -> u64 {
    1 << 32 | family as u64
}

/// What the rules have to say, the largest share first.
pub fn signals(memory: &Memory, rules: &RuleSet, scene: &Scene<'_>, judged: &Judged) -> Vec<Signal> {
    let Memory { baselines, names, others, .. } = memory;
    // One that was only just made was not there to be found.
    let Some(place) = scene.place.or_else(|| baselines.find(scene.baseline)) else { return Vec::new() };
    let baseline = baselines.get(place);
    let words = Words { scene, judged, baseline, names, cohorts: &others.cohorts };
    let mut signals = Vec::new();
    for (rule, share, p_value) in shares(judged) {
        let configured = rules.rule(rule);
        if share < TOLD_FROM || configured.status == Status::Disabled {
            continue;
        }
        let (observed, expected, reason) = words.of(rule);
        // A likelihood ratio of e^share against the owner comes by chance with e^−share at the most.
        let by_chance = exp(-share);
        // The hour that showed it may be over.
        let of_hour = || words.p_value_of_hour(rule).map(|p_value| p_value.min(by_chance));
        let p_value = p_value.or_else(of_hour).unwrap_or(by_chance);
        let fired = configured.speaks(share);
        signals.push(Signal { rule, share, p_value, fired, observed, expected, reason });
    }
    signals.sort_by(|one, other| other.share.total_cmp(&one.share));
    signals
}

/// Each rule's part of the log-odds, of what a company or a colleague leaves of it, and the owner's probability of something as odd where the term knows it.
fn shares(judged: &Judged) -> impl Iterator<Item = (RuleId, f64, Option<f64>)> {
    let evidence = &judged.evidence;
    let kept = judged.unexplained();
    let net = kept * NET_WEIGHT * (evidence.net.get() + judged.net_credit - evidence.travel.get());
    let by_level = match judged.net_level {
        net::level::KNOWN_ADDRESS => None,
        net::level::KNOWN_PREFIX | net::level::KNOWN_NETWORK => Some(RuleId::NewIp),
        net::level::NEW_COUNTRY => Some(RuleId::NewCountry),
        _ => Some(RuleId::NewNetwork),
    };
    let client = kept * CLIENT_WEIGHT * (evidence.client.get() + judged.client_credit);
    let sensitive = evidence.sensitive.get().min(evidence.route.get().max(0.0));
    let calls = evidence.route.get() + evidence.area.get().max(0.0) - sensitive;
    let volume = evidence.volume.get() - evidence.objects.get();
    // One holder who comes by many ways, or two who take turns: more than one place at a time either way.
    let holders = kept * (evidence.switch.get() + judged.sibling);
    [
        // A network that was new when the holder came is still what speaks against it.
        (by_level.unwrap_or(RuleId::NewIp), net, Some(judged.net_p)),
        (RuleId::ImpossibleTravel, kept * NET_WEIGHT * evidence.travel.get(), None),
        (RuleId::NewClient, client, Some(judged.client_p)),
        (RuleId::UnusualTime, kept * evidence.hour.get(), Some(judged.hour_p)),
        (RuleId::NewEndpoint, calls, None),
        (RuleId::SensitiveEndpoint, sensitive, None),
        (RuleId::ConcurrentUse, holders, None),
        (RuleId::VolumeSpike, volume, None),
        (RuleId::Enumeration, evidence.objects.get(), None),
        (RuleId::BytesSpike, evidence.bytes.get() * crate::term::volume::BYTES_WEIGHT, None),
        (judged.lifecycle_rule.unwrap_or(RuleId::UseAfterExpiry), evidence.lifecycle.get(), None),
        (RuleId::StaleAfterCredentialChange, evidence.credential.get(), None),
        (RuleId::AppFanout, kept * judged.app_fan, None),
        (RuleId::IpFanout, kept * judged.ip_fan, None),
    ]
    .into_iter()
}

/// What is needed to put a rule's finding into words.
struct Words<'a> {
    scene: &'a Scene<'a>,
    judged: &'a Judged,
    baseline: &'a Baseline,
    names: &'a Generations<Box<str>>,
    cohorts: &'a Cohorts,
}

impl Words<'_> {
    /// The owner's probability of an hour as large as this one, where the rule is of that.
    fn p_value_of_hour(&self, rule: RuleId) -> Option<f64> {
        let what = match rule {
            RuleId::VolumeSpike => Hourly::Calls,
            RuleId::Enumeration => Hourly::Objects,
            RuleId::BytesSpike => Hourly::Bytes,
            _ => return None,
        };
        let (hour, number) = (&self.baseline.hour, self.scene.sighting.hour_number());
        let runs = hour.number == number && (hour.calls >= CALLS_MIN || rule == RuleId::BytesSpike);
        runs.then(|| burst(self.baseline, self.cohorts, self.baseline.kind, what, number).p_value())
    }

    /// Observed, expected, and one sentence.
    fn of(&self, rule: RuleId) -> (String, String, String) {
        let judged = self.judged;
        let mut digits = itoa::Buffer::new();
        match rule {
            RuleId::NewCountry | RuleId::NewNetwork | RuleId::NewIp => {
                let (here, usual) = (self.here(), self.usual_place());
                let what = match rule {
                    RuleId::NewCountry => "used from a country that is new to it",
                    RuleId::NewNetwork if judged.net_level == net::level::USERS_NETWORK => {
                        "used from a network that only its user's other tokens know"
                    }
                    RuleId::NewNetwork => "used from a network that is new to it",
                    _ if judged.net_level == net::level::KNOWN_ADDRESS => "used from an address that was new lately",
                    _ => "used from a new address of a network that it knows",
                };
                let (visits, noun) = self.visits(&mut digits);
                let reason = [what, ": ", &here, ", after ", visits, noun, " from ", &usual].concat();
                (here, usual, reason)
            }
            RuleId::ImpossibleTravel => {
                let here = self.here();
                let reason = if judged.travel_km > 0.0 {
                    let (km, time) = (thousands(judged.travel_km), span((judged.travel_minutes * 60_000.0) as i64));
                    [&km, " km in ", &time, ", to ", &here].concat()
                } else {
                    ["in ", &here, " soon after uses so far away that nobody can have travelled"].concat()
                };
                (here, "a place that can be reached from the last one in time".to_owned(), reason)
            }
            RuleId::NewClient => {
                let client = &self.scene.enriched.client;
                let observed = both(&client.family, &client.version);
                let expected = self.usual_client();
                let what = match judged.client_level {
                    client::level::NEW_FINGERPRINT => "the agent is the usual one and its fingerprint is not",
                    client::level::NEW_TEXT => "the user agent is written in a new way",
                    client::level::NEW_VERSION => "the client's version is new",
                    client::level::USERS_FAMILY => "a client that only its user's other tokens are used with",
                    client::level::KNOWN => "the client was new lately",
                    _ => "a client that it was never used with",
                };
                let learnt =
                    self.baseline.seen.most(Sort::Family).is_some_and(|(usual, _)| usual == self.scene.sighting.family);
                let reason = match judged.client_level {
                    // Its evidence outlasts the visit that made it known.
                    client::level::NEW_FAMILY | client::level::USERS_FAMILY if learnt => {
                        ["the client was new lately: ", &observed].concat()
                    }
                    _ => {
                        let (visits, noun) = self.visits(&mut digits);
                        [what, ": ", &observed, ", after ", visits, noun, " with ", &expected].concat()
                    }
                };
                (observed, expected, reason)
            }
            RuleId::UnusualTime => {
                let hour = self.scene.sighting.hour();
                let observed = hours_text(hour, (hour + 1) % 24);
                let expected = self.usual_hours();
                if judged.hour_p > ORDINARY_P {
                    let reason = ["used at unusual hours lately; usually ", &expected].concat();
                    return ("unusual hours lately".to_owned(), expected, reason);
                }
                let reason = ["used from ", &observed, ", when it hardly ever is; usually ", &expected].concat();
                (observed, expected, reason)
            }
            RuleId::ConcurrentUse => {
                let here = self.here();
                let times = judged.switches;
                let observed = match times {
                    0 => "it turns up by one way after another while an earlier holder is suspect".to_owned(),
                    1 => "one change of network within the hour".to_owned(),
                    times => [digits.format(times), " changes of network back and forth"].concat(),
                };
                let activity = self.baseline.activity;
                let an_hour = activity.changes() / activity.minutes().max(1.0) * 60.0;
                let expected = [&hundredths(an_hour), " changes an hour of activity"].concat();
                let reason =
                    ["two holders in turns: ", &observed, ", last from ", &here, "; its owner has ", &expected]
                        .concat();
                (observed, expected, reason)
            }
            RuleId::VolumeSpike | RuleId::Enumeration | RuleId::BytesSpike => self.volume(rule),
            RuleId::NewEndpoint | RuleId::SensitiveEndpoint => self.calls(rule),
            RuleId::AppFanout | RuleId::IpFanout => {
                let here = self.here();
                let app = self.scene.enriched.event.app_id.as_deref().unwrap_or("the same application");
                let (of, app) = if rule == RuleId::AppFanout { (" of ", app) } else { ("", "") };
                let observed = ["several users' tokens", of, app, " from ", &here, " within two hours"].concat();
                let expected = "each user from places of their own".to_owned();
                let reason = [&observed, ", and none of them at home there"].concat();
                (observed, expected, reason)
            }
            _ => self.lifecycle(rule),
        }
    }

    fn lifecycle(&self, rule: RuleId) -> (String, String, String) {
        let event = &self.scene.enriched.event;
        let at = self.scene.sighting.at;
        let answer = event.status.map_or_else(|| "no status".to_owned(), |status| format!("status {status}"));
        let since =
            |moment: i64| if moment == 0 { "earlier".to_owned() } else { format!("{} after it", span(at - moment)) };
        let ended = self.scene.ended;
        let (observed, expected, reason) = match rule {
            RuleId::RefreshReuse => (
                "a refresh token that was exchanged already".to_owned(),
                "each refresh token is presented once",
                "a refresh token was presented again after its successor had been issued: two hold it, or its client \
                 lost the new one"
                    .to_owned(),
            ),
            RuleId::BindingMismatch => (
                "proof of another key".to_owned(),
                "the key of all earlier requests",
                "the request proved possession of another key than all before: the token was copied without its key, or \
                 has a new one"
                    .to_owned(),
            ),
            RuleId::UseAfterRevocation => (
                format!("{answer}, {}", since(ended.revoked_at)),
                "no use after revocation",
                format!("used after it was revoked ({answer}, {}), from {}", since(ended.revoked_at), self.here()),
            ),
            RuleId::UseAfterSessionEnd => (
                format!("{answer}, {}", since(ended.session_ended_at)),
                "no use after the session's end",
                format!("accepted after its session had ended ({})", since(ended.session_ended_at)),
            ),
            RuleId::UseAfterExpiry => {
                let late = self.scene.expiry.map_or(0, |expiry| at - expiry.at);
                let told = if self.scene.expiry.is_some_and(|expiry| expiry.said_at_issue) {
                    "the expiry that was told when it was issued"
                } else {
                    "it had expired"
                };
                let (observed, reason) = if late > 0 {
                    (format!("{answer}, {} late", span(late)), format!("accepted {} after {told}", span(late)))
                } else {
                    // What is suspected of a holder outlasts the event that showed it.
                    ("a late use before".to_owned(), "this holder's token was accepted after it had expired".to_owned())
                };
                (observed, "no use after expiry", reason)
            }
            _ => (
                "a new holder of an old token, days after its user's credential was changed".to_owned(),
                "fresh tokens after a change of credential",
                format!(
                    "an old token turns up with a new holder right after its user's credential was changed, from {}",
                    self.here()
                ),
            ),
        };
        (observed, expected.to_owned(), reason)
    }

    fn volume(&self, rule: RuleId) -> (String, String, String) {
        let judged = self.judged;
        let usual = |mean: f32| whole(exp(f64::from(mean)));
        let (mut digits, mut of_hours) = (itoa::Buffer::new(), itoa::Buffer::new());
        match rule {
            RuleId::Enumeration => {
                let objects = digits.format(whole(self.baseline.hour.objects()));
                let observed = ["about ", objects, " different objects this hour"].concat();
                let expected = ["about ", digits.format(usual(self.baseline.objects.mean)), " an hour"].concat();
                let reason = ["walks through objects: ", &observed, ", usually ", &expected].concat();
                (observed, expected, reason)
            }
            RuleId::BytesSpike => {
                let kilobytes = digits.format(whole(f64::from(self.baseline.hour.kilobytes)));
                let observed = [kilobytes, " kB read this hour"].concat();
                let expected = ["about ", digits.format(usual(self.baseline.bytes.mean)), " kB an hour"].concat();
                let reason = [&observed, ", usually ", &expected].concat();
                (observed, expected, reason)
            }
            _ => {
                let observed = if judged.calls < CALLS_MIN {
                    "many calls in an hour before".to_owned()
                } else {
                    [digits.format(judged.calls), " calls this hour"].concat()
                };
                let mean = digits.format(usual(self.baseline.calls.mean));
                let expected = match whole(f64::from(self.baseline.calls.hours)) {
                    0 => "few, as others of its kind make".to_owned(),
                    1 => ["about ", mean, " (one hour is known)"].concat(),
                    hours => ["about ", mean, " an hour (", of_hours.format(hours), " hours are known)"].concat(),
                };
                let reason = [&observed, ", usually ", &expected].concat();
                (observed, expected, reason)
            }
        }
    }

    fn calls(&self, rule: RuleId) -> (String, String, String) {
        let event = &self.scene.enriched.event;
        let endpoint = crate::route::template(event.endpoint.as_deref().unwrap_or_default());
        let observed = both(event.method.as_deref().unwrap_or_default(), &endpoint);
        let (known, _) = self.baseline.seen.variety(Sort::Route);
        let expected = ["its usual ", itoa::Buffer::new().format(known), " routes"].concat();
        let what = match rule {
            RuleId::SensitiveEndpoint => "calls what thieves look for",
            _ => "calls what it does not usually call",
        };
        // What was odd may lie a few calls back.
        let is_usual = self.baseline.seen.count(Sort::Route, self.scene.enriched.route.key) >= USUAL_CALLS;
        if is_usual || observed.is_empty() {
            return ("calls a while ago".to_owned(), expected, [what, ", or did a while ago"].concat());
        }
        let reason = [what, ", lately ", &observed].concat();
        (observed, expected, reason)
    }

    fn visits<'a>(&self, digits: &'a mut itoa::Buffer) -> (&'a str, &'static str) {
        match self.judged.visits {
            1 => ("one", " visit"),
            visits => (digits.format(visits), " visits"),
        }
    }

    /// `Sydney, AU, AS1221 Telstra`.
    fn here(&self) -> String {
        let enriched = self.scene.enriched;
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

    /// `DE, AS3320 Deutsche Telekom (412 of 413 sightings)`.
    fn usual_place(&self) -> String {
        let seen = &self.baseline.seen;
        // The country that is new here may be learnt already, and be the only one that is known.
        let is_new =
            |country: u32| self.judged.net_level == net::level::NEW_COUNTRY && country == self.scene.sighting.country;
        let country = seen.most(Sort::Country).filter(|(country, _)| !is_new(*country));
        let letters = country.map_or([0; 2], |(country, _)| [(country >> 8) as u8, country as u8]);
        let (country, comma) = match str::from_utf8(&letters) {
            Ok(country) if letters != [0; 2] => (country, ", "),
            _ => ("", ""),
        };
        let Some((network, weight)) = seen.most(Sort::Network) else {
            return [country, comma, "places of its user's other tokens"].concat();
        };
        let name = match (self.names.get(network_name(network)), Sighting::asn(network)) {
            (Some(name), _) => Cow::Borrowed(&**name),
            (None, Some(asn)) => Cow::Owned(format!("AS{asn}")),
            (None, None) => Cow::Borrowed("networks that no file knows"),
        };
        let (mut here, mut all) = (itoa::Buffer::new(), itoa::Buffer::new());
        let (here, all) = (here.format(whole(weight)), all.format(whole(seen.total(Sort::Network).max(weight))));
        [country, comma, &name, " (", here, " of ", all, " visits)"].concat()
    }

    fn usual_client(&self) -> String {
        let usual = self.baseline.seen.most(Sort::Family);
        let name = usual.and_then(|(family, _)| self.names.get(family_name(family)));
        name.map_or_else(|| "clients of its user's other tokens".to_owned(), ToString::to_string)
    }

    /// The hours with most of the visits, as a span: `08:00 to 17:00 UTC`.
    fn usual_hours(&self) -> String {
        let hours = &self.baseline.hours;
        let total: u32 = hours.iter().map(|count| u32::from(*count)).sum();
        if total == 0 {
            return "as its user's other tokens".to_owned();
        }
        // The shortest stretch around the clock that holds nine visits in ten: the end moves on with the beginning.
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
            _ => "at any hour".to_owned(),
        }
    }
}

/// To the nearest: a whole number is written in a tenth of the time that a float takes.
fn whole(number: f64) -> u64 {
    number.round() as u64
}

/// Both words, where there are both.
fn both(one: &str, other: &str) -> String {
    let (one, other) = (one.trim(), other.trim());
    let between = if one.is_empty() || other.is_empty() { "" } else { " " };
    [one, between, other].concat()
}

/// `08:00 to 17:00 UTC`
fn hours_text(from: usize, to: usize) -> String {
    let digits = |hour: usize| [b'0' + (hour / 10) as u8, b'0' + (hour % 10) as u8].map(char::from);
    digits(from).into_iter().chain(":00 to ".chars()).chain(digits(to)).chain(":00 UTC".chars()).collect()
}

/// `0.07`
fn hundredths(number: f64) -> String {
    let hundredths = (number * 100.0).round() as u64;
    format!("{}.{:02}", hundredths / 100, hundredths % 100)
}

/// `15,900`: to the hundred, for addresses are not placed better.
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

/// Reasons in a sentence.
const TOLD_MAX: usize = 4;

/// What the sentence adds up to.
pub struct Sum {
    pub log_odds: f64,
    pub prior: f64,
    /// Log-odds from which an alert is raised.
    pub threshold: f64,
    /// It is told because people asked for it, whatever the log-odds.
    pub by_policy: bool,
    /// Tokens or grants of the incident.
    pub baselines: u32,
}

/// One sentence for people: the reasons with their shares, the sum, and without which it would not have alerted.
pub fn sentence(signals: &[Signal], sum: &Sum) -> String {
    let mut text = String::new();
    if sum.baselines > 1 {
        let _ = write!(text, "{} tokens, one cause: ", sum.baselines);
    }
    if signals.is_empty() {
        text.push_str("many small signs, or rules that are disabled, and none to name");
    }
    for (place, signal) in signals.iter().take(TOLD_MAX).enumerate() {
        let separator = if place == 0 { "" } else { "; " };
        let _ = write!(text, "{separator}{}", signal.reason);
        // A policy has no part in the sum.
        if signal.share > 0.0 {
            let _ = write!(text, " ({:+.1})", signal.share);
        }
    }
    let told: f64 = signals.iter().take(TOLD_MAX).map(|signal| signal.share).sum();
    let rest = sum.log_odds - sum.prior - told;
    let _ = write!(text, ". Before looking {}", sum.prior);
    if rest.abs() >= TOLD_FROM {
        let _ = write!(text, "; the rest {rest:+.1}");
    }
    let _ = write!(text, "; in all {:.1}.", sum.log_odds);
    if sum.by_policy {
        text.push_str(" Told because of the policy.");
    } else if let Some(leading) = decisive(signals, sum.log_odds, sum.threshold).next() {
        let _ = write!(text, " Would not have alerted without {}.", leading.rule);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sentence_says_what_happened_even_where_no_rule_may_speak() {
        let sum = Sum { log_odds: 2.4, prior: -7.0, threshold: 1.0, by_policy: false, baselines: 1 };
        let told = sentence(&[], &sum);
        assert_eq!(
            told,
            "many small signs, or rules that are disabled, and none to name. Before looking -7; the rest +9.4; in all 2.4."
        );
    }
}

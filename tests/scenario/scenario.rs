//! Tools for scenarios: a clock, a town, events and their scoring.

use std::net::IpAddr;
use std::sync::Arc;

use serde_json::{Map, Value, json};
use tokenwarden::engine::{self, Feedback, FeedbackEvent, Learnt, Settings, State, Step};
use tokenwarden::enrich::{Enricher, GeoSettings};
use tokenwarden::feed::Feed;
use tokenwarden::place::{Coordinates, Country, Network, NetworkClass, Place};
use tokenwarden::port::GeoLookup;
use tokenwarden::rule::RuleSet;
use tokenwarden::token::TokenHasher;
use tokenwarden::verdict::{IncidentId, Judgement, Outcome, RuleId};
use tokenwarden::wire::{self, Decoded, Decoder, Format};

pub(crate) const SECOND: i64 = 1_000;
pub(crate) const MINUTE: i64 = 60 * SECOND;
pub(crate) const HOUR: i64 = 60 * MINUTE;
pub(crate) const DAY: i64 = 24 * HOUR;

/// Monday, 2 February 2026, 00:00 UTC.
const START: i64 = 1_769_990_400_000;
/// Number of days before a scenario; the last is a Tuesday, and it is 17:00.
const TOWN_DAYS: i64 = 30;
const NOW: i64 = START + (TOWN_DAYS - 1) * DAY + 17 * HOUR;

pub(crate) mod address {
    /// A fixed line.
    pub(crate) const BERLIN: &str = "192.0.2.10";
    pub(crate) const SYDNEY: &str = "198.51.100.9";
    /// A rented server in the owner's country.
    pub(crate) const LEIPZIG_HOST: &str = "203.0.113.66";
}

/// Places of addresses. Addresses outside of the table get a place from their first bytes.
pub(crate) struct Atlas;

impl GeoLookup for Atlas {
    fn lookup(&mut self, address: IpAddr) -> (Option<Arc<Place>>, Option<Arc<Network>>) {
        use NetworkClass::{Access, Hosting};
        let parts = match address.to_canonical() {
            IpAddr::V4(v4) => v4.octets(),
            IpAddr::V6(v6) => [v6.octets()[0], v6.octets()[1], v6.octets()[4], v6.octets()[5]],
        };
        let (country, city, latitude, longitude, asn, org, class) = match parts {
            [192, 0, 2 | 77, _] | [0x20, 0x01, 0, 1] => {
                ("DE", "Berlin", 52.52, 13.40, 3320, "Deutsche Telekom AG", Access)
            }
            [198, 51, 100, _] => ("AU", "Sydney", -33.87, 151.21, 1221, "Telstra Limited", Access),
            [203, 0, 113, _] => ("DE", "Leipzig", 51.34, 12.37, 24940, "Hetzner Online GmbH", Hosting),
            [198, 18, ..] => ("DE", "Munich", 48.14, 11.58, 6805, "Telefonica Germany", Access),
            [198, 19, ..] => ("FR", "Paris", 48.86, 2.35, 3215, "Orange S.A.", Access),
            [a, b, ..] => {
                let country = ["US", "GB", "IN", "BR", "JP"][usize::from(a % 5)];
                let (latitude, longitude) = (f32::from(a % 60), f32::from(b % 150));
                (country, "Somewhere", latitude, longitude, u32::from(a) << 8 | u32::from(b), "Some Net", Access)
            }
        };
        let coordinates = Some(Coordinates { latitude, longitude, accuracy_km: Some(20) });
        let country = Country::parse(country).expect("a country");
        let place = Place { country, city: city.into(), coordinates };
        (Some(Arc::new(place)), Some(Arc::new(Network { asn, org: org.into(), class })))
    }
}

/// A native event without id and time.
#[derive(Clone)]
pub(crate) struct Event(Map<String, Value>);

const CHROME: &str =
    "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/144.0.0.0 Safari/537.36";
const IPHONE: &str = "Mozilla/5.0 (iPhone; CPU iPhone OS 18_3 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/18.3 Mobile/15E148 Safari/604.1";

impl Event {
    /// An ordinary call of the person, from Berlin.
    pub(crate) fn of(person: &str) -> Self {
        let fields = json!({
            "token_id": format!("at-{person}"), "family_id": format!("grant-{person}"), "user_id": person,
            "app_id": "crm", "tenant_id": "acme", "ip_address": address::BERLIN, "user_agent": CHROME,
            "method": "GET", "endpoint": "/v1/contacts", "status": 200,
        });
        let Value::Object(fields) = fields else { unreachable!("it is written as an object") };
        Self(fields)
    }

    pub(crate) fn set(mut self, field: &str, value: impl Into<Value>) -> Self {
        self.0.insert(field.to_owned(), value.into());
        self
    }

    pub(crate) fn from(&self, address: &str) -> Self {
        self.clone().set("ip_address", address)
    }

    pub(crate) fn agent(&self, agent: &str) -> Self {
        self.clone().set("user_agent", agent)
    }

    pub(crate) fn kind(&self, kind: &str) -> Self {
        self.clone().set("kind", kind)
    }
}

/// A family with rotating refresh tokens, and the number of its exchanges.
pub(crate) struct Rotating {
    person: Event,
    name: String,
    number: u32,
}

impl Rotating {
    /// The latest refresh token.
    pub(crate) fn refresh_token(&self) -> String {
        format!("rt-{}-{}", self.name, self.number)
    }

    /// The presentation of this refresh token at the token endpoint.
    pub(crate) fn presents(&self, refresh_token: &str) -> Event {
        self.person.kind("refreshed").set("token_id", refresh_token).set("token_type", "refresh")
    }

    /// A call with the latest access token.
    pub(crate) fn uses(&self) -> Event {
        let token = format!("at-{}-{}", self.name, self.number);
        self.person.clone().set("token_id", token).set("token_type", "access")
    }

    /// Number of exchanges so far.
    pub(crate) const fn number(&self) -> u32 {
        self.number
    }

    /// The provider's events of an exchange of the latest refresh token.
    pub(crate) fn exchange(&mut self) -> [Event; 3] {
        let parent = self.refresh_token();
        let presented = self.presents(&parent);
        self.number += 1;
        let issued = |token: String, token_type: &str| {
            let event = self.person.kind("issued").set("token_id", token).set("token_type", token_type);
            event.set("parent_token_id", &*parent)
        };
        let access = format!("at-{}-{}", self.name, self.number);
        [presented, issued(self.refresh_token(), "refresh"), issued(access, "access")]
    }
}

/// Feedback about one subject of an incident.
pub(crate) struct TestFeedback<'a> {
    pub(crate) id: u64,
    pub(crate) incident: IncidentId,
    pub(crate) judgement: Judgement,
    /// The messages of the incident.
    pub(crate) lines: &'a [String],
}

/// A sequence of events, scored one by one.
pub(crate) struct Scenario {
    decoder: Decoder,
    enricher: Enricher,
    rules: RuleSet,
    state: State,
    now: i64,
    events: u32,
    events_apart: u32,
    verdicts: Vec<String>,
    /// Traffic of forty people that has not happened yet.
    town: Vec<(i64, Event)>,
}

impl Scenario {
    /// In a town of forty people with thirty days of history.
    pub(crate) fn in_town() -> Self {
        Self::in_town_with(Settings::default())
    }

    /// As [`Self::in_town`], with a source whose confirmations are accepted.
    pub(crate) fn in_town_confirmed() -> Self {
        Self::in_town_with(Settings { confirmed: true, ..Settings::default() })
    }

    /// Without any history.
    pub(crate) fn empty() -> Self {
        Self::with(Settings::default())
    }

    /// As [`Self::empty`], where only events give the places of addresses.
    pub(crate) fn located_by_events() -> Self {
        Self { enricher: Enricher::new(&GeoSettings::default()).trust_event_geo(true), ..Self::empty() }
    }

    /// As [`Self::in_town`], with other settings.
    pub(crate) fn in_town_with(settings: Settings) -> Self {
        Self { town: (0..40).flat_map(neighbour).collect(), ..Self::with(settings) }
    }

    fn with(settings: Settings) -> Self {
        Self {
            decoder: Decoder::new(
                Feed { confirmed: settings.confirmed, ..Feed::default() },
                TokenHasher::new(b"a key for stories"),
            ),
            enricher: Enricher::with_lookup(Box::new(Atlas)),
            rules: RuleSet::builtin(),
            state: State::new(settings),
            now: NOW,
            events: 0,
            events_apart: 0,
            verdicts: Vec::new(),
            town: Vec::new(),
        }
    }

    /// An ordinary call of a person with this number of days of history: one fixed line, one browser, from 08:00 to
    /// 17:00.
    pub(crate) fn office_worker(&mut self, name: &str, days: i64) -> Event {
        let call = Event::of(name);
        let mut past = Vec::new();
        for day in TOWN_DAYS - days..TOWN_DAYS {
            for (number, hour) in (0..).zip([8, 10, 13, 15]) {
                // Mostly few calls, sometimes many.
                for minute in 0..[3, 5, 2, 24, 4, 9, 3][((day * 4 + number) % 7) as usize] {
                    let at = START + day * DAY + hour * HOUR + (7 * day % 31 + 11 * number + minute) * MINUTE;
                    past.push((at, call.clone()));
                }
            }
        }
        self.live(past);
        call
    }

    /// An ordinary call of a phone user with another address of the carrier at each visit.
    pub(crate) fn phone_user(&mut self, name: &str, days: i64) -> Event {
        let call = Event::of(name).agent(IPHONE).from("198.18.0.1");
        let mut past = Vec::new();
        for day in TOWN_DAYS - days..TOWN_DAYS {
            for hour in (7..22).step_by(2) {
                let from = format!("198.18.{}.{}", (day + hour) % 8, 1 + (day * 13 + hour * 7) % 250);
                for minute in 0..2 {
                    past.push((START + day * DAY + hour * HOUR + (day % 13 + minute) * MINUTE, call.from(&from)));
                }
            }
        }
        self.live(past);
        call
    }

    /// A family with one exchange per hour; the latest was an hour ago.
    pub(crate) fn rotating(&mut self, name: &str, times: i64) -> Rotating {
        let mut grant = Rotating { person: Event::of(name), name: name.to_owned(), number: 0 };
        let mut past = Vec::new();
        for time in 0..times {
            let at = NOW - (times - time) * HOUR;
            past.extend((0..).zip(grant.exchange()).map(|(number, event)| (at + 20 * number, event)));
            past.extend((0..5).map(|call| (at + 5 * SECOND + call * 9 * MINUTE, grant.uses())));
        }
        self.live(past);
        grant
    }

    /// Exchanges the latest refresh token correctly.
    pub(crate) fn refresh(&mut self, grant: &mut Rotating) {
        for event in grant.exchange() {
            self.see(&event);
        }
    }

    pub(crate) const fn state(&self) -> &State {
        &self.state
    }

    pub(crate) const fn now(&self) -> i64 {
        self.now
    }

    pub(crate) const fn wait(&mut self, millis: i64) {
        self.now += millis;
    }

    /// Scores the event, which happens now.
    pub(crate) fn see(&mut self, event: &Event) -> Outcome {
        self.see_at(self.now, event)
    }

    /// Scores the event, which happened at `at` and arrives now.
    pub(crate) fn see_at(&mut self, at: i64, event: &Event) -> Outcome {
        let line = self.write_at(at, event);
        self.score(&line).expect("its id is new")
    }

    /// As [`Self::see`], with an id that does not change the ids of other events.
    pub(crate) fn see_apart(&mut self, event: &Event) -> Outcome {
        let line = self.write_apart(event);
        self.score(&line).expect("its id is new")
    }

    /// The message of [`Self::see_apart`], not scored.
    pub(crate) fn write_apart(&mut self, event: &Event) -> String {
        self.events_apart += 1;
        let event = event.clone().set("event_id", format!("apart{}", self.events_apart)).set("timestamp", self.now);
        Value::Object(event.0).to_string()
    }

    /// Number of events scored so far.
    pub(crate) const fn scored_count(&self) -> usize {
        self.verdicts.len()
    }

    /// As [`Self::see`], returning the message.
    pub(crate) fn send(&mut self, event: &Event) -> String {
        let line = self.write(event);
        self.score(&line).expect("its id is new");
        line
    }

    /// The message of an event that happens now, not scored.
    pub(crate) fn write(&mut self, event: &Event) -> String {
        self.write_at(self.now, event)
    }

    fn write_at(&mut self, at: i64, event: &Event) -> String {
        self.events += 1;
        let event = event.clone().set("event_id", format!("e{}", self.events)).set("timestamp", at);
        Value::Object(event.0).to_string()
    }

    /// As [`Self::see`] with the given id; `None` if it is a repeated delivery.
    pub(crate) fn see_as(&mut self, id: &str, event: &Event) -> Option<Outcome> {
        let event = event.clone().set("event_id", id).set("timestamp", self.now);
        self.score(&Value::Object(event.0).to_string())
    }

    /// Scores a message; `None` if the event was delivered before.
    pub(crate) fn score(&mut self, line: &str) -> Option<Outcome> {
        self.score_in(Format::Native, line)
    }

    /// As [`Self::score`], for a record in another format.
    pub(crate) fn score_in(&mut self, format: Format, line: &str) -> Option<Outcome> {
        let Self { decoder, enricher, rules, state, verdicts, .. } = self;
        let mut other =
            (format != Format::Native).then(|| Decoder::new(format, TokenHasher::new(b"a key for stories")));
        let decoder = other.as_mut().unwrap_or(decoder);
        let mut scored = None;
        decoder.decode(line.as_bytes(), &mut |decoded| {
            let Ok(Decoded::Event(event)) = decoded else { panic!("no event: {line}: {decoded:?}") };
            let event = enricher.enrich(event);
            let Step::Scored(outcome) = engine::step(state, rules, &event) else { return };
            let mut verdict = Vec::new();
            wire::verdict::encode(&mut verdict, &event, &outcome);
            verdicts.push(String::from_utf8(verdict).expect("JSON is text"));
            scored = Some(outcome);
        });
        scored
    }

    /// Learns feedback now.
    pub(crate) fn learn(&mut self, given: &TestFeedback<'_>) -> Learnt {
        let feedback = self.undecided(given);
        engine::learn_feedback(&mut self.state, &feedback)
    }

    /// The feedback with its thieves, as they are found now.
    pub(crate) fn decided(&mut self, given: &TestFeedback<'_>) -> Feedback<'static> {
        let feedback = self.undecided(given);
        Feedback { thieves: Some(engine::find_thieves(&self.state, &feedback)), ..feedback }
    }

    /// Replaces the state by an empty one, and learns `feedback` as the rebuilt state does: before all events.
    pub(crate) fn rebuild(&mut self, feedback: &Feedback<'_>) {
        self.state = State::new(Settings::default());
        assert_eq!(engine::learn_feedback(&mut self.state, feedback), Learnt::Now);
    }

    /// The feedback without its thieves.
    pub(crate) fn undecided(&mut self, given: &TestFeedback<'_>) -> Feedback<'static> {
        let mut events = Vec::new();
        for (index, line) in (0..).zip(given.lines) {
            self.decoder.decode(line.as_bytes(), &mut |decoded| {
                let Ok(Decoded::Event(event)) = decoded else { panic!("no event: {line}: {decoded:?}") };
                events.push(FeedbackEvent { index, event: self.enricher.enrich(event.into_owned()) });
            });
        }
        let times = || events.iter().map(|one: &FeedbackEvent<'_>| one.event.event.timestamp.millis());
        let (since, until) = (times().min().expect("an event"), times().max().expect("an event"));
        let &TestFeedback { id, incident, judgement, .. } = given;
        Feedback { id, incident, judgement, since, until, events, thieves: None }
    }

    /// Uses the token `times` times, two minutes apart, with proof of a key.
    pub(crate) fn see_bound(&mut self, event: &Event, key: &str, times: usize) {
        for _ in 0..times {
            self.wait(2 * MINUTE);
            self.see(&event.clone().set("binding", key));
        }
    }

    /// The verdict lines of the last `count` events.
    pub(crate) fn last_verdicts(&self, count: usize) -> Vec<String> {
        self.verdicts[self.verdicts.len() - count..].to_vec()
    }

    /// Replays the town's days until now, with `past` among them.
    fn live(&mut self, past: Vec<(i64, Event)>) {
        let mut days = std::mem::take(&mut self.town);
        days.extend(past);
        days.retain(|(at, _)| *at < NOW);
        days.sort_by_key(|(at, _)| *at);
        for (at, event) in days {
            self.see_at(at, &event);
        }
    }
}

/// An ordinary call of a neighbour.
pub(crate) fn neighbours_call(number: i64) -> Event {
    let from = match number % 4 {
        0 | 1 => format!("192.0.2.{}", 100 + number),
        2 => format!("198.18.{}.7", 100 + number),
        _ => format!("198.51.100.{}", 100 + number),
    };
    let call = Event::of(&format!("neighbour-{number}")).from(&from);
    if number % 3 == 0 { call.agent(IPHONE) } else { call }
}

/// Three visits a day from one line, each of two calls, for thirty days.
fn neighbour(number: i64) -> Vec<(i64, Event)> {
    let call = neighbours_call(number);
    let mut past = Vec::new();
    for day in 0..TOWN_DAYS {
        for visit in 0..3 {
            let at = START + day * DAY + (7 + number % 5 + visit * 4) * HOUR + (day * 17 + number * 7) % 50 * MINUTE;
            past.push((at, call.clone()));
            past.push((at + 90 * SECOND, call.clone().set("endpoint", "/v1/deals")));
        }
    }
    past
}

pub(crate) fn fired(outcome: &Outcome, rule: RuleId) -> bool {
    outcome.signals.iter().any(|signal| signal.rule == rule && signal.fired)
}

/// The rule's share of the log-odds; 0 without a signal.
pub(crate) fn share(outcome: &Outcome, rule: RuleId) -> f64 {
    outcome.signals.iter().find(|signal| signal.rule == rule).map_or(0.0, |signal| signal.share)
}

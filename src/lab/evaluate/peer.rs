//! Widely published detection rules, run on the same events and measured by the same code.
//!
//! Each rule gives every event a score, 0 if it does not fire. A rule without a score is ranked by the order that is
//! best for it, to compare it at equal false positives. The result of its published setting is reported too
//! ([`Peer::own_bar`]). All rules learn as published, from every event including those of thieves.

use std::collections::{HashMap, HashSet};

use crate::enrichment::EnrichedEvent;
use crate::event::BaselineId;
use crate::math::distance_km;
use crate::millis::{DAY_MS, HOUR_MS};
use crate::place::{Coordinates, Country};

/// A comparison rule.
pub trait Peer: Send + Sync {
    fn name(&self) -> &'static str;
    /// What it does and how its hits are ranked, in one sentence.
    fn about(&self) -> &'static str;
    /// The published threshold: a score above it fires. `None` if there is none.
    fn own_bar(&self) -> Option<f32>;
    /// Scores one event, then learns from it.
    fn score(&mut self, event: &EnrichedEvent<'_>) -> f32;
}

/// Number of comparison rules.
pub const COUNT: usize = 5;

/// One of each, without any history.
#[must_use]
pub fn all() -> [Box<dyn Peer>; COUNT] {
    [
        Box::<NewCountry>::default(),
        Box::<FixedSpeed>::default(),
        Box::<NewAddress>::default(),
        Box::<TwoAddresses>::default(),
        Box::<LikelihoodRatio>::default(),
    ]
}

/// Key of the user, otherwise of the baseline.
fn user(event: &EnrichedEvent<'_>) -> u64 {
    event.keys.user.unwrap_or(event.keys.baseline)
}

/// The first use from a country that is new to the user.
#[derive(Default)]
struct NewCountry {
    seen: HashMap<u64, HashSet<Country>>,
    /// Number of users seen in each country.
    users: HashMap<Country, u32>,
    pairs: u32,
}

impl Peer for NewCountry {
    fn name(&self) -> &'static str {
        "new country"
    }

    fn about(&self) -> &'static str {
        "first use from a country that is new to the user; ranked by rarity of the country among all users"
    }

    fn own_bar(&self) -> Option<f32> {
        Some(0.0)
    }

    fn score(&mut self, event: &EnrichedEvent<'_>) -> f32 {
        let Some(place) = &event.place else { return 0.0 };
        let countries = self.seen.entry(user(event)).or_default();
        let first = countries.is_empty();
        if !countries.insert(place.country) {
            return 0.0;
        }
        let users = self.users.entry(place.country).or_default();
        let score = (f64::from(self.pairs + 2) / f64::from(*users + 1)).ln() as f32;
        *users += 1;
        self.pairs += 1;
        if first { 0.0 } else { score }
    }
}

/// The speed between two events of a user, without accuracy radii.
#[derive(Default)]
struct FixedSpeed {
    last: HashMap<u64, (i64, Coordinates)>,
}

impl FixedSpeed {
    /// Faster than an airliner. Published limits are between 800 and 1,000 km/h.
    const LIMIT_KM_H: f32 = 1_000.0;
    /// Simultaneous events count as one second apart. Otherwise a change between IPv4 and IPv6 would be infinitely
    /// fast.
    const APART_MS_MIN: i64 = 1_000;
}

impl Peer for FixedSpeed {
    fn name(&self) -> &'static str {
        "fixed speed"
    }

    fn about(&self) -> &'static str {
        "speed in km/h since the user's previous event, between city centres; published limit 1,000 km/h"
    }

    fn own_bar(&self) -> Option<f32> {
        Some(Self::LIMIT_KM_H)
    }

    fn score(&mut self, event: &EnrichedEvent<'_>) -> f32 {
        let Some(here) = event.place.as_ref().and_then(|place| place.coordinates) else { return 0.0 };
        let at = event.event.timestamp.millis();
        let Some((before, there)) = self.last.insert(user(event), (at, here)) else { return 0.0 };
        let hours = (at - before).abs().max(Self::APART_MS_MIN) as f64 / HOUR_MS as f64;
        let degrees = |of: Coordinates| (f64::from(of.latitude), f64::from(of.longitude));
        (distance_km(degrees(there), degrees(here)) / hours) as f32
    }
}

/// An address from which the token was not used for 30 days.
#[derive(Default)]
struct NewAddress {
    tokens: HashMap<BaselineId, KnownAddresses>,
}

#[derive(Default)]
struct KnownAddresses {
    /// Last use of each address, in milliseconds since the epoch.
    last: HashMap<u64, i64>,
    /// Number of uses since the last hit.
    quiet: u32,
}

impl NewAddress {
    const KEPT_MS: i64 = 30 * DAY_MS;
}

impl Peer for NewAddress {
    fn name(&self) -> &'static str {
        "new address"
    }

    fn about(&self) -> &'static str {
        "an address that the token has not used for 30 days; ranked by how long it had kept its addresses"
    }

    fn own_bar(&self) -> Option<f32> {
        Some(0.0)
    }

    fn score(&mut self, event: &EnrichedEvent<'_>) -> f32 {
        let Some(address) = event.event.address else { return 0.0 };
        let at = event.event.timestamp.millis();
        let known = self.tokens.entry(event.baseline_id()).or_default();
        let first = known.last.is_empty();
        let before = known.last.insert(address.client(), at);
        if first || before.is_some_and(|before| at - before <= Self::KEPT_MS) {
            known.quiet += 1;
            return 0.0;
        }
        // Expired addresses are removed only here, because hits are rare.
        known.last.retain(|_, last| at - *last <= Self::KEPT_MS);
        let score = 1.0 + f64::from(known.quiet).ln_1p() as f32;
        known.quiet = 0;
        score
    }
}

/// Two addresses of one token in one 30-minute bucket.
#[derive(Default)]
struct TwoAddresses {
    tokens: HashMap<BaselineId, Bucket>,
}

#[derive(Default)]
struct Bucket {
    number: i64,
    addresses: Vec<u64>,
    last: u64,
    switches: u32,
}

impl TwoAddresses {
    const BUCKET_MS: i64 = 1_800_000;
    /// Maximum number of addresses that are counted.
    const ADDRESSES_MAX: usize = 64;
}

impl Peer for TwoAddresses {
    fn name(&self) -> &'static str {
        "two addresses"
    }

    fn about(&self) -> &'static str {
        "two addresses of the token in one half hour of the clock; ranked by number of addresses, then of changes"
    }

    fn own_bar(&self) -> Option<f32> {
        Some(0.0)
    }

    fn score(&mut self, event: &EnrichedEvent<'_>) -> f32 {
        let Some(address) = event.event.address else { return 0.0 };
        let (address, number) = (address.client(), event.event.timestamp.millis().div_euclid(Self::BUCKET_MS));
        let bucket = self.tokens.entry(event.baseline_id()).or_default();
        if bucket.number != number {
            *bucket = Bucket { number, ..Bucket::default() };
        }
        if !bucket.addresses.contains(&address) && bucket.addresses.len() < Self::ADDRESSES_MAX {
            bucket.addresses.push(address);
        }
        if bucket.last != address && bucket.addresses.len() > 1 {
            bucket.switches += 1;
        }
        bucket.last = address;
        let (others, switches) = (bucket.addresses.len() - 1, f64::from(bucket.switches));
        if others == 0 { 0.0 } else { (others as f64 + switches / (switches + 1.0)) as f32 }
    }
}

/// After Freeman, Jain, Dürmuth, Biggio and Giacinto, "Who Are You? A Statistical Approach to Measuring User
/// Authenticity", NDSS 2016: ln p(x) − ln p(x | user), summed over address and user agent, which are assumed
/// independent. Attackers and users are assumed equally likely everywhere (the paper's form without attack data).
///
/// p(x | user) is smoothed by backing off to coarser values: address, network, country, all users; and user agent,
/// version, family, all users. The probability of leaving a level is the rate of new values at that level in the user's
/// history (Witten and Bell, "The zero-frequency problem", 1991). The paper's log-ins are visits here: calls of a user
/// with one address and user agent, with gaps below 30 minutes.
#[derive(Default)]
struct LikelihoodRatio {
    population: Counts,
    users: HashMap<u64, History>,
}

const LEVELS: usize = 3;
const FEATURES: usize = 2;

/// Number of visits with each value of each level.
#[derive(Default)]
struct Counts {
    values: HashMap<(u8, u64), u32>,
    /// Number of distinct values, by level of each feature.
    different: [[u32; LEVELS]; FEATURES],
    visits: u32,
}

#[derive(Default)]
struct History {
    counts: Counts,
    last: (u64, u64),
    last_at: i64,
    score: f32,
}

impl LikelihoodRatio {
    const VISIT_GAP_MS: i64 = 1_800_000;
}

impl Peer for LikelihoodRatio {
    fn name(&self) -> &'static str {
        "likelihood ratio"
    }

    fn about(&self) -> &'static str {
        "Freeman et al. 2016: probability of address and user agent among all users against that of the user, with back-off"
    }

    fn own_bar(&self) -> Option<f32> {
        None
    }

    fn score(&mut self, event: &EnrichedEvent<'_>) -> f32 {
        let Some(address) = event.event.address else { return 0.0 };
        let at = event.event.timestamp.millis();
        let client = &event.client;
        let country = event.place.as_ref().map_or(0, |place| u64::from(u16::from_be_bytes(place.country.bytes())));
        let network = event.network.as_ref().map_or(0, |network| u64::from(network.asn));
        // The finest level first.
        let features = [
            [address.client(), network, country],
            [client.agent_key, client.version_key, client.family_key].map(u64::from),
        ];
        let now = (features[0][0], features[1][0]);
        let history = self.users.entry(user(event)).or_default();
        let known = history.counts.visits > 0;
        let goes_on = history.last == now && (at - history.last_at).abs() < Self::VISIT_GAP_MS;
        history.last_at = at;
        if known && goes_on {
            return history.score;
        }
        history.last = now;
        history.score = if known { history.counts.surprise(&features, &self.population) as f32 } else { 0.0 };
        history.counts.add(&features);
        self.population.add(&features);
        history.score
    }
}

impl Counts {
    fn add(&mut self, features: &[[u64; LEVELS]; FEATURES]) {
        self.visits += 1;
        for (feature, levels) in features.iter().enumerate() {
            for (level, value) in levels.iter().enumerate() {
                let count = self.values.entry(key(feature, level, *value)).or_default();
                self.different[feature][level] += u32::from(*count == 0);
                *count += 1;
            }
        }
    }

    /// −Σ ln p(x | user) / p(x); `self` holds the counts of the user.
    fn surprise(&self, features: &[[u64; LEVELS]; FEATURES], population: &Self) -> f64 {
        let mut surprise = 0.0;
        for (feature, levels) in features.iter().enumerate() {
            // At the root, the probabilities of the user and of all users are equal.
            let mut ratio = 1.0;
            for (level, value) in levels.iter().enumerate().rev() {
                let key = key(feature, level, *value);
                let count = |counts: &Self| f64::from(counts.values.get(&key).copied().unwrap_or(0));
                // One visit is added, so that a value without visits is rare instead of impossible.
                let everybodys = (count(population) + 1.0) / f64::from(population.visits + 1);
                let (visits, different) = (f64::from(self.visits), f64::from(self.different[feature][level]));
                // The share of a finer value within its coarser one is that of all users, and cancels out.
                ratio = (count(self) / everybodys + different * ratio) / (visits + different);
            }
            surprise -= ratio.ln();
        }
        surprise
    }
}

const fn key(feature: usize, level: usize, value: u64) -> (u8, u64) {
    ((feature * LEVELS + level) as u8, value)
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;
    use std::sync::Arc;

    use super::*;
    use crate::enrich::Enricher;
    use crate::event::Address;
    use crate::lab::evaluate::samples::event;
    use crate::millis::MINUTE_MS;
    use crate::place::{Network, NetworkClass, Place};
    use crate::port::GeoLookup;

    const BERLIN: &str = "192.0.2.1";
    const MUNICH: &str = "192.0.2.2";
    const SYDNEY: &str = "198.51.100.1";

    /// 192.0.2.0/24 is in Germany, every other address in Australia.
    struct Two;

    impl GeoLookup for Two {
        fn lookup(&mut self, address: IpAddr) -> (Option<Arc<Place>>, Option<Arc<Network>>) {
            let (country, latitude, longitude, asn) = match address.to_string().as_str() {
                BERLIN => ("DE", 52.52, 13.40, 3320),
                MUNICH => ("DE", 48.14, 11.58, 3320),
                _ => ("AU", -33.87, 151.21, 1221),
            };
            let coordinates = Some(Coordinates { latitude, longitude, accuracy_km: Some(50) });
            let country = Country::parse(country).expect("a code");
            let place = Place { country, city: "".into(), coordinates };
            (Some(Arc::new(place)), Some(Arc::new(Network { asn, org: "".into(), class: NetworkClass::Access })))
        }
    }

    /// Scores of a sequence of events: user, time in minutes, address, user agent.
    fn scores(mut peer: impl Peer, uses: &[(&str, i64, &str, &str)]) -> Vec<f32> {
        let mut enricher = Enricher::with_lookup(Box::new(Two));
        uses.iter()
            .map(|(user, minute, address, agent)| {
                let mut event = event("e", minute * MINUTE_MS);
                event.user_id = Some((*user).into());
                event.family_id = Some((*user).into());
                event.address = Some(Address::new(address.parse().expect("an address")));
                event.user_agent = Some((*agent).into());
                peer.score(&enricher.enrich(event))
            })
            .collect()
    }

    fn assert_close(scores: &[f32], expected: &[f32]) {
        assert_eq!(scores.len(), expected.len());
        let close = scores.iter().zip(expected).all(|(score, expected)| (score - expected).abs() < 1e-5);
        assert!(close, "{scores:?} for {expected:?}");
    }

    #[test]
    fn new_country_fires_once_and_not_at_first() {
        let uses = [("u", 0, BERLIN, ""), ("u", 1, MUNICH, ""), ("u", 2, SYDNEY, ""), ("u", 3, SYDNEY, "")];
        let scores = scores(NewCountry::default(), &uses);
        // One pair of user and country before, none of them with this country.
        assert_close(&scores, &[0.0, 0.0, 3_f32.ln(), 0.0]);
    }

    #[test]
    fn fixed_speed_is_distance_over_time() {
        let uses = [("u", 0, BERLIN, ""), ("u", 60, MUNICH, ""), ("u", 60, BERLIN, ""), ("v", 61, SYDNEY, "")];
        let scores = scores(FixedSpeed::default(), &uses);
        // Berlin and Munich are 504 km apart.
        assert!((scores[1] - 504.0).abs() < 3.0, "{scores:?}");
        assert!((scores[2] / (3_600.0 * 504.0) - 1.0).abs() < 0.01, "{scores:?}");
        assert_close(&[scores[0], scores[3]], &[0.0, 0.0]);
    }

    #[test]
    fn new_address_forgets_after_thirty_days() {
        let day = DAY_MS / MINUTE_MS;
        let uses = [
            ("u", 0, BERLIN, ""),
            ("u", 1, BERLIN, ""),
            ("u", 2, MUNICH, ""),
            ("u", 30 * day, BERLIN, ""),
            ("u", 61 * day, BERLIN, ""),
            ("v", 61 * day, BERLIN, ""),
        ];
        let expected = [0.0, 0.0, 1.0 + 3_f32.ln(), 0.0, 1.0 + 2_f32.ln(), 0.0];
        assert_close(&scores(NewAddress::default(), &uses), &expected);
    }

    #[test]
    fn two_addresses_fire_within_one_half_hour() {
        let uses = [
            ("u", 0, BERLIN, ""),
            ("u", 29, MUNICH, ""),
            ("u", 29, BERLIN, ""),
            ("u", 29, SYDNEY, ""),
            ("u", 30, BERLIN, ""),
            ("v", 30, MUNICH, ""),
        ];
        assert_close(&scores(TwoAddresses::default(), &uses), &[0.0, 1.5, 1.0 + 2.0 / 3.0, 2.75, 0.0, 0.0]);
    }

    #[test]
    fn likelihood_ratio_rises_with_new_values() {
        let mut uses: Vec<_> = (0..20).map(|visit| ("u", visit * 60, BERLIN, "curl/8.1.2")).collect();
        uses.extend((0..20).map(|visit| ("v", visit * 60, SYDNEY, "Go-http-client/2.0")));
        let known = uses.len();
        uses.push(("u", 2_000, BERLIN, "curl/8.1.2"));
        uses.push(("u", 2_001, MUNICH, "curl/8.1.2"));
        uses.push(("u", 2_002, SYDNEY, "curl/8.1.2"));
        uses.push(("u", 2_003, SYDNEY, "curl/8.1.2"));
        let scores = &scores(LikelihoodRatio::default(), &uses)[known..];
        assert!(scores[0] < 0.0, "known address: {scores:?}");
        assert!(scores[0] < scores[1] && scores[1] < scores[2], "another address, another country: {scores:?}");
        assert_eq!(scores[2].to_bits(), scores[3].to_bits(), "one visit is scored once");
        // Expected value for the new country, after 22 visits with two addresses in one network and country: back-off
        // from two of 24, one of 23 and one of 23. The user's only user agent: 23 of all 43 visits, one more counted.
        let address = (2.0 / 24.0) * (1.0 / 23.0) * (1.0 / 23.0_f64);
        let agent = (0..3).fold(1.0_f64, |ratio, _| (22.0 / (23.0 / 43.0) + ratio) / 23.0);
        assert!((f64::from(scores[2]) + address.ln() + agent.ln()).abs() < 1e-5, "{scores:?}");
    }
}

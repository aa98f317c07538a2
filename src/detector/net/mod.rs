//! `net`: novelty of the network address, and travel speed. Scored once per visit.

pub(crate) mod formula;

use std::borrow::Cow;

use self::formula::{Inputs, KNOWN_NETWORK_ABROAD, journey};
use super::words::{Description, Signals, Words, kilometres, network_name, span, whole};
use super::{Case, Detector, DetectorId, Fading, Lesson, Score, Teaching};
use crate::memory::level::NetLevel;
use crate::memory::{Baseline, Evidence, Feature, Holder, Nats, Others, Review, Seen, Sighting, Site, Tenant, User};
use crate::place::NetworkClass;
use crate::verdict::RuleId;

/// Share of a thief whom a person has reported by feedback, nats. With the prior it raises an alert, and without other
/// evidence it revokes nothing.
const REPORTED_THIEF: f64 = 14.0;

pub(crate) struct Net;

/// Sets the evidence against a holder whom a person has reported as a thief. It does not decay.
pub(crate) fn set_thief_evidence(holder: &mut Holder) {
    let evidence = &mut holder.evidence[Net::ID];
    *evidence = (*evidence).max(Nats::new(REPORTED_THIEF / Net::WEIGHT));
}

impl Detector for Net {
    const ID: DetectorId = DetectorId::Net;
    const WEIGHT: f64 = 0.5;
    const OF_IDENTITY: bool = true;

    #[inline]
    fn score_visit(case: &Case<'_>, lesson: &mut Lesson) {
        let sighting = case.observation.sighting;
        let net = if sighting.has_place() { find(case, lesson.visit.net_level) } else { formula::Net::NOTHING };
        let credits_place = case.credits_place(lesson);
        lesson.usual_network = net.sum() < 0.0;
        let novelty_weight = case.novelty_weight(lesson, Feature::Network, sighting.network);
        let (holder, visit) = (&mut lesson.holder, &mut lesson.visit);
        if net.sum() >= 0.0 {
            let weighted = novelty_weight * net.sum();
            if weighted >= holder.evidence[Self::ID].get() && holder.review != Review::Owner {
                holder.evidence[Self::ID] = Nats::new(weighted);
                holder.evidence.travel = Nats::new(novelty_weight * net.travel);
            }
        } else {
            visit.net_credit = if credits_place { net.sum() as f32 } else { 0.0 };
        }
        if let Some(journey) = net.journey.filter(formula::Journey::too_fast) {
            (visit.travel_km, visit.travel_minutes) = (journey.km as u16, journey.minutes as f32);
        }
        visit.net_p = net.p_value as f32;
    }

    #[inline]
    fn evidence(lesson: &Lesson) -> f64 {
        lesson.holder.evidence[Self::ID].get() + f64::from(lesson.visit.net_credit)
    }

    /// Limits the credit of place and client, because a thief may have both. If the client is new, the credit of the
    /// place counts more: owners use a new device at their usual places first.
    #[inline]
    fn adjust(score: &mut Score) {
        let credit = score.shares[Self::ID] + score.shares[DetectorId::Client];
        if credit < 0.0 {
            let limited = formula::limited_credit(credit);
            score.of_identity += limited - credit;
            score.shares[Self::ID] *= limited / credit;
            score.shares[DetectorId::Client] *= limited / credit;
        } else if score.shares[Self::ID] < 0.0 {
            let more = formula::credit_of_place(score.shares[Self::ID], credit);
            score.shares[Self::ID] += more;
            score.of_identity += more;
        }
    }

    fn leave_out(score: &mut Score) {
        (score.evidence[Self::ID], score.evidence.travel) = (Nats::default(), Nats::default());
    }

    fn fade(evidence: &mut Evidence, fading: &Fading) {
        evidence[Self::ID] = fading.against_holder(evidence[Self::ID]);
        evidence.travel = fading.against_holder(evidence.travel);
    }

    #[inline]
    fn learn_visit(teaching: &mut Teaching<'_>, user: &User) {
        let (observation, lesson, weights) = (teaching.observation, teaching.lesson, teaching.weights());
        let (sighting, kind, level) = (observation.sighting, lesson.kind, lesson.visit.net_level);
        let (is_hosting, site) = (sighting.class != NetworkClass::Access, sighting.site());
        let visits = teaching.baseline.visits;
        if sighting.has_place()
            && (!lesson.learns.first || user.is_known())
            && let Some(cohorts) = &mut teaching.cohorts
        {
            cohorts.learn_net(kind, visits, level, weights.counted);
        }
        let baseline = &mut *teaching.baseline;
        if !lesson.learns.first {
            if sighting.has_place() {
                baseline.net_levels.learn(level as usize, weights.known, sighting.minute());
            }
            if level >= NetLevel::NewNetwork
                && sighting.class != NetworkClass::Anonymiser
                && let Some(journey) = journey(&baseline.sites, &site)
            {
                let fast_travel = &mut teaching.population.fast_travel[usize::from(is_hosting)];
                fast_travel.learn(observation.tenant.seat, journey.too_fast(), weights.counted);
            }
        }
        if sighting.has_place() && !baseline.seen.knows(Feature::Network, sighting.network) && weights.counted > 0.5 {
            baseline.networks = baseline.networks.saturating_add(1);
            baseline.hosting_networks = baseline.hosting_networks.saturating_add(u8::from(is_hosting));
            if let Some(cohorts) = &mut teaching.cohorts {
                cohorts.learn_network(kind, sighting.class, weights.counted);
            }
        }
        learn_place(baseline, sighting, site, weights.known);
    }

    fn explain(words: &Words<'_>, signals: &mut Signals<'_>) {
        let score = words.score;
        let travel = Self::WEIGHT * score.evidence.travel.get();
        let rule = match score.net_level {
            // The evidence of the holder remains after the address has become known.
            NetLevel::KnownAddress | NetLevel::KnownPrefix | NetLevel::KnownNetwork => RuleId::NewIp,
            NetLevel::NewCountry => RuleId::NewCountry,
            NetLevel::UsersNetwork | NetLevel::NewNetwork => RuleId::NewNetwork,
        };
        signals.add(rule, words.unexplained * (score.shares[Self::ID] - travel), || describe_place(words, rule));
        signals.add(RuleId::ImpossibleTravel, words.unexplained * travel, || describe_travel(words));
    }
}

/// Level of novelty of the network address. An event without a place has the lowest level.
pub(crate) fn level(baseline: &Baseline, user: &User, sighting: &Sighting) -> NetLevel {
    let seen = &baseline.seen;
    let knows_countries = seen.knows_any(Feature::Country) || user.has_countries();
    // A network that spans countries is known in the owner's countries only.
    let new_country = sighting.country != 0
        && knows_countries
        && !seen.knows(Feature::Country, sighting.country)
        && !user.has_country(sighting.country);
    if !sighting.has_place() || knows_here(seen, sighting, Feature::Address, Sighting::address_in) {
        NetLevel::KnownAddress
    } else if knows_here(seen, sighting, Feature::Prefix, Sighting::prefix_in) {
        NetLevel::KnownPrefix
    } else if !new_country && seen.knows(Feature::Network, sighting.network) {
        NetLevel::KnownNetwork
    } else if !new_country && user.has_network(sighting.network) {
        NetLevel::UsersNetwork
    } else if new_country {
        NetLevel::NewCountry
    } else {
        NetLevel::NewNetwork
    }
}

/// Whether an address or prefix is known in the country of this sighting. If one of the two countries is unknown, they
/// count as the same.
fn knows_here(seen: &Seen, sighting: &Sighting, feature: Feature, key_in: fn(&Sighting, u32) -> u32) -> bool {
    let knows = |country| seen.knows(feature, key_in(sighting, country));
    knows(sighting.country) || if sighting.country == 0 { seen.known(Feature::Country).any(knows) } else { knows(0) }
}

/// Learns the place of a visit with the weight `owner`, the probability that the visit was the owner's.
pub(crate) fn learn_place(baseline: &mut Baseline, sighting: &Sighting, here: Site, owner: f64) {
    baseline.learn_place(sighting, owner);
    if owner > 0.5 {
        learn_site(baseline, here);
    }
}

/// Stores the geographic place of the owner.
pub(crate) fn learn_site(baseline: &mut Baseline, here: Site) {
    if here.exists() {
        let same = baseline.sites.iter().position(|site| site.exists() && site.distance_km(&here) < 50.0);
        // A new place replaces the oldest one.
        let place = same.unwrap_or(baseline.sites.len() - 1);
        baseline.sites[..=place].rotate_right(1);
        baseline.sites[0] = here;
    }
}

fn find(case: &Case<'_>, level: NetLevel) -> formula::Net {
    let Case { observation, baseline, others, cohorts, kind, .. } = *case;
    let sighting = observation.sighting;
    let is_hosting = sighting.class != NetworkClass::Access;
    let own = f64::from(baseline.hosting_networks) + 3.0 * cohorts.hosting(kind);
    // The place of a relay or anonymiser is not the place of the client.
    let travels = observation.timed && sighting.class != NetworkClass::Anonymiser && level >= NetLevel::NewNetwork;
    let travel = travels.then(|| journey(&baseline.sites, &sighting.site())).flatten();
    formula::evidence(&Inputs {
        level,
        own: &baseline.net_levels.get(),
        cohort: &cohorts.net(kind, baseline.visits),
        which: if level >= NetLevel::NewNetwork { which_network(case) } else { (1.0, 1.0) },
        hosting: is_hosting,
        own_hosting: own / (f64::from(baseline.networks) + 3.0),
        travel: travel.map(|journey| (journey, fast_travel(others, observation.tenant, is_hosting))),
    })
}

/// Probabilities that a thief and the owner choose this network.
fn which_network(case: &Case<'_>) -> (f64, f64) {
    let (sighting, seen) = (case.observation.sighting, &case.baseline.seen);
    let of_user = case.user.into_iter().flat_map(User::countries);
    let mut known: Vec<u32> = seen.known(Feature::Country).chain(of_user).collect();
    known.sort_unstable();
    known.dedup();
    let population = &case.others.population;
    let (thief, owner) = population.chooses(case.observation.tenant, sighting.network, sighting.country, &known);
    let is_known = seen.knows(Feature::Network, sighting.network)
        || case.user.is_some_and(|user| user.has_network(sighting.network));
    let known_abroad = if is_known { KNOWN_NETWORK_ABROAD } else { 0.0 };
    (thief, known_abroad + (1.0 - known_abroad) * owner)
}

/// Share of owners' journeys that are too fast, by the class of the target network.
fn fast_travel(others: &Others, tenant: Tenant, hosting: bool) -> f64 {
    let assumed = if hosting { 0.2 } else { 0.02 };
    others.population.fast_travel[usize::from(hosting)].read(tenant.seat).get(assumed, 20.0)
}

fn describe_place(words: &Words<'_>, rule: RuleId) -> Description {
    let (here, usual) = (words.here(), usual_place(words));
    let what = match (rule, words.score.net_level) {
        _ if words.lesson.holder.review == Review::Thief => {
            "used from the network and with the client of a theft that feedback has confirmed"
        }
        (RuleId::NewCountry, _) => "used from a new country",
        (RuleId::NewNetwork, NetLevel::UsersNetwork) => {
            "used from a network that is known only from the user's other tokens"
        }
        (RuleId::NewNetwork, _) => "used from a new network",
        (_, NetLevel::KnownAddress) => "used from an address that was new recently",
        _ => "used from a new address in a known network",
    };
    let reason = [what, ": ", &here, "; usually ", &usual].concat();
    Description { p_value: Some(f64::from(words.lesson.visit.net_p)), observed: here, expected: usual, reason }
}

fn describe_travel(words: &Words<'_>) -> Description {
    let here = words.here();
    let (km, minutes) = (f64::from(words.lesson.visit.travel_km), f64::from(words.lesson.visit.travel_minutes));
    let reason = if km > 0.0 {
        let (km, time) = (kilometres(km), span((minutes * 60_000.0) as i64));
        ["too far to travel: ", &km, " km in ", &time, ", to ", &here].concat()
    } else {
        ["too far to travel: to ", &here, " from the places of recent uses"].concat()
    };
    let expected = "a place that can be reached in the elapsed time".to_owned();
    Description { p_value: None, observed: here, expected, reason }
}

/// The most frequent country and network: `DE, AS3320 Deutsche Telekom (412 of 413 visits)`.
fn usual_place(words: &Words<'_>) -> String {
    let seen = &words.baseline.seen;
    // The new country may already be learnt, and may be the only known one.
    let is_new =
        |country: u32| words.score.net_level == NetLevel::NewCountry && country == words.observation.sighting.country;
    let country = seen.most(Feature::Country).filter(|(country, _)| !is_new(*country));
    let letters = country.map_or([0; 2], |(country, _)| [(country >> 8) as u8, country as u8]);
    let (country, comma) = match str::from_utf8(&letters) {
        Ok(country) if letters != [0; 2] => (country, ", "),
        _ => ("", ""),
    };
    let Some((network, weight)) = seen.most(Feature::Network) else {
        return [country, comma, "the places of the user's other tokens"].concat();
    };
    let name = match (words.names.get(network_name(network)), Sighting::asn(network)) {
        (Some(name), _) => Cow::Borrowed(&**name),
        (None, Some(asn)) => Cow::Owned(format!("AS{asn}")),
        (None, None) => Cow::Borrowed("networks without GeoIP data"),
    };
    let (mut here, mut all) = (itoa::Buffer::new(), itoa::Buffer::new());
    let (here, all) = (here.format(whole(weight)), all.format(whole(seen.total(Feature::Network).max(weight))));
    [country, comma, &name, " (", here, " of ", all, " visits)"].concat()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::Kind;

    const fn country(letters: [u8; 2]) -> u32 {
        (letters[0] as u32) << 8 | letters[1] as u32
    }

    #[test]
    fn network_is_known_in_the_owners_countries_only() {
        let mut user = User::default();
        let home = crate::memory::tests::sighting();
        let mut baseline = Baseline::new(1, Kind::new(crate::event::TokenType::ApiKey, home.device), 0);
        learn_place(&mut baseline, &home, home.site(), 1.0);
        let level = |user: &User, network, country| {
            level(&baseline, user, &Sighting { address: 77, prefix: 78, network, country, ..home })
        };
        let abroad = country(*b"AU");
        assert_eq!(level(&user, home.network, home.country), NetLevel::KnownNetwork);
        assert_eq!(level(&user, home.network, abroad), NetLevel::NewCountry, "another region of the same cloud");
        assert_eq!(level(&user, home.network, 0), NetLevel::KnownNetwork, "GeoIP data does not have the country");
        user.learn(1221, 1, abroad);
        assert_eq!(level(&user, home.network, abroad), NetLevel::KnownNetwork, "a country of the user");
        assert_eq!(level(&user, 1221, abroad), NetLevel::UsersNetwork);
    }

    #[test]
    fn known_prefix_abroad_is_no_known_place() {
        let user = User::default();
        let home = crate::memory::tests::sighting();
        let (abroad, nowhere) = (country(*b"AU"), 0);
        let level = |learnt: &Sighting, sighting: Sighting| {
            let mut baseline = Baseline::new(1, Kind::new(crate::event::TokenType::ApiKey, home.device), 0);
            learn_place(&mut baseline, learnt, learnt.site(), 1.0);
            level(&baseline, &user, &sighting)
        };
        let (known, near) = (NetLevel::KnownAddress, NetLevel::KnownPrefix);
        let neighbour = Sighting { address: 77, ..home };
        assert_eq!((level(&home, home), level(&home, neighbour)), (known, near));
        assert_eq!(level(&home, Sighting { country: abroad, ..neighbour }), NetLevel::NewCountry);
        assert_eq!(
            level(&home, Sighting { country: abroad, ..home }),
            known,
            "an IPv4 address is not shared by countries"
        );
        let wide = Sighting { is_wide: true, ..home };
        assert_eq!(level(&wide, wide), known);
        assert_eq!(level(&wide, Sighting { country: abroad, ..wide }), NetLevel::NewCountry);
        for (learnt, now) in [(home.country, nowhere), (nowhere, abroad), (nowhere, nowhere)] {
            let learnt = Sighting { country: learnt, ..wide };
            assert_eq!(level(&learnt, Sighting { country: now, ..wide }), known);
            assert_eq!(level(&learnt, Sighting { country: now, address: 77, ..wide }), near);
        }
    }
}

//! `net`: evidence of the network address. Evaluated once per visit.

use crate::detector::levels::level_ratio;
use crate::math::{exp, ln};
use crate::memory::Site;
use crate::memory::level::{LEVELS, NetLevel};

/// Assumed shares of thieves by level: most use new networks, few use the owner's address.
pub(crate) const THIEF: [f64; LEVELS] = [0.05, 0.03, 0.10, 0.05, 0.42, 0.35];

/// Shorter journeys give no travel evidence. The accuracy radii are subtracted first. Kilometres.
const NEAR_KM: f64 = 300.0;
/// Maximum speed. Airliners fly at 800 to 900 km/h, and are slower from gate to gate.
const SPEED_KMH: f64 = 800.0;
/// Tolerance for GeoIP errors, added to the distance that can be travelled.
const SLACK_KM: f64 = 100.0;
const SLACK_HOURS: f64 = 1.0 / 60.0;
/// A return to within this distance of a place of the last 12 hours is not a journey: it may be a VPN or a second holder.
const RETURN_KM: f64 = 100.0;
const RETURN_MS: i64 = 12 * 3_600_000;
/// Assumed share of thieves whose journey is too fast.
const THIEF_TOO_FAST: f64 = 0.35;

/// Assumed share of owners in a new country who use a known network. Examples: another region of their cloud, or another
/// exit of their VPN.
pub(crate) const KNOWN_NETWORK_ABROAD: f64 = 0.5;

/// Assumed share of thieves who act from the owner's place and with the owner's client: malware on the owner's machine,
/// a colleague, a shared gateway.
const AT_HOME: f64 = 0.3;

/// Evidence of place and client for the owner (at most 0), limited by the thieves who act from there:
/// `ln(0.7·e^credit + 0.3)`, at least −1.2.
#[must_use]
pub(crate) fn limited_credit(credit: f64) -> f64 {
    ln((1.0 - AT_HOME) * exp(credit) + AT_HOME)
}

/// Additional credit of a usual place for a new client: up to 0.6 of `place`, the share of the place (negative). It grows
/// with `sum`, the share of place and client together (positive), so that more evidence of the client never lowers the
/// score.
pub(crate) fn credit_of_place(place: f64, sum: f64) -> f64 {
    const MORE: f64 = 0.6;
    const WHOLE_FROM: f64 = 2.0;
    MORE * place * (sum / WHOLE_FROM).min(1.0)
}

/// Inputs of the detector: the place of the visit and the history of the owner.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Inputs<'a> {
    pub(crate) level: NetLevel,
    /// The baseline's past visits by level.
    pub(crate) own: &'a [f64; LEVELS],
    /// The cohort's shares by level.
    pub(crate) cohort: &'a [f64; LEVELS],
    /// For a new network: probabilities that the thief and the owner choose it.
    pub(crate) which: (f64, f64),
    /// The network is a hosting network.
    pub(crate) hosting: bool,
    /// Share of hosting networks among the owner's networks.
    pub(crate) own_hosting: f64,
    /// For a new network, if both places are known: the journey, and the share of owners' journeys that are too fast.
    pub(crate) travel: Option<(Journey, f64)>,
}

/// Distance and time from the latest place to the current one.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Journey {
    /// Smallest distance that the accuracy radii allow.
    pub(crate) km: f64,
    pub(crate) minutes: f64,
}

impl Journey {
    /// Whether the journey is faster than an airliner, with tolerance.
    pub(crate) fn too_fast(&self) -> bool {
        self.km > SLACK_KM + SPEED_KMH * (self.minutes / 60.0 + SLACK_HOURS)
    }
}

/// The parts of the evidence.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Net {
    /// Evidence of level, choice of network and hosting.
    pub(crate) network: f64,
    /// Evidence of travel speed.
    pub(crate) travel: f64,
    pub(crate) journey: Option<Journey>,
    /// The owner's probability of a level at least as new.
    pub(crate) p_value: f64,
}

impl Net {
    /// The evidence of an event without a known place.
    pub(crate) const NOTHING: Self = Self { network: 0.0, travel: 0.0, journey: None, p_value: 1.0 };

    pub(crate) const fn sum(&self) -> f64 {
        self.network + self.travel
    }
}

/// `ln P_T/P_O` of the level. For new networks also:
/// - which network, limited to ±3: thieves choose by popularity to the power 0.6, owners like their tenant;
/// - hosting or access: 60 % of thieves use hosting networks, 75 % in a new country;
/// - travel: whether the journey is too fast.
pub(crate) fn evidence(inputs: &Inputs<'_>) -> Net {
    let of_level = level_ratio(inputs.level as usize, &THIEF, inputs.own, inputs.cohort);
    let mut net = Net { network: of_level.ratio, travel: 0.0, journey: None, p_value: of_level.p_value };
    if inputs.level >= NetLevel::NewNetwork {
        let (thief, owner) = inputs.which;
        net.network += ln(thief / owner).clamp(-3.0, 3.0) + hosting_ratio(inputs);
        if let Some((journey, owners)) = inputs.travel {
            net.travel = travel_ratio(journey.too_fast(), owners);
            net.journey = Some(journey);
        }
    }
    net
}

fn hosting_ratio(inputs: &Inputs<'_>) -> f64 {
    let thief = if inputs.level == NetLevel::NewCountry { 0.75 } else { 0.60 };
    let owner = inputs.own_hosting.clamp(0.02, 0.95);
    if inputs.hosting { ln(thief / owner) } else { ln((1.0 - thief) / (1.0 - owner)) }
}

fn travel_ratio(too_fast: bool, owners: f64) -> f64 {
    let owners = owners.clamp(0.001, 0.9);
    if too_fast { ln(THIEF_TOO_FAST / owners) } else { ln((1.0 - THIEF_TOO_FAST) / (1.0 - owners)) }
}

/// The journey from the latest of `sites` to `here`: smallest distance that the radii allow, absolute time difference.
/// `None` if a place is unknown, the distance is too small, or `here` is near a place of the last 12 hours.
pub(crate) fn journey(sites: &[Site], here: &Site) -> Option<Journey> {
    if !here.exists() {
        return None;
    }
    let known = || sites.iter().filter(|site| site.exists());
    if known().any(|site| (here.at() - site.at()).abs() <= RETURN_MS && site.distance_km(here) <= RETURN_KM) {
        return None;
    }
    let latest = known().max_by_key(|site| site.at())?;
    let radii = f64::from(latest.radius_km) + f64::from(here.radius_km);
    let km = latest.distance_km(here) - radii;
    let minutes = (here.at() - latest.at()).abs() as f64 / 60_000.0;
    (km > NEAR_KM).then_some(Journey { km, minutes })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MINUTE: i64 = 60_000;
    const NOON: i64 = 1_790_000_040_000;
    const COHORT: [f64; LEVELS] = [0.76, 0.05, 0.10, 0.03, 0.05, 0.01];
    const HOME: [f64; LEVELS] = [100.0, 0.0, 0.0, 0.0, 0.0, 0.0];

    fn too_fast(sites: &[Site], here: &Site) -> Option<bool> {
        journey(sites, here).map(|journey| journey.too_fast())
    }

    fn berlin(at: i64) -> Site {
        Site::new(52.52, 13.40, 20, at)
    }

    fn sydney(at: i64) -> Site {
        Site::new(-33.87, 151.21, 20, at)
    }

    fn inputs(level: NetLevel) -> Inputs<'static> {
        Inputs {
            level,
            own: &HOME,
            cohort: &COHORT,
            which: (0.01, 0.01),
            hosting: false,
            own_hosting: 0.1,
            travel: None,
        }
    }

    #[test]
    fn journey_berlin_to_sydney_in_41_min_is_too_fast() {
        assert_eq!(too_fast(&[berlin(NOON)], &sydney(NOON + 41 * MINUTE)), Some(true));
        assert_eq!(too_fast(&[sydney(NOON + 41 * MINUTE)], &berlin(NOON)), Some(true), "in reverse order");
        assert_eq!(too_fast(&[berlin(NOON)], &sydney(NOON + 22 * 60 * MINUTE)), Some(false));
    }

    #[test]
    fn journey_needs_two_known_distant_places() {
        let hamburg = Site::new(53.55, 9.99, 50, NOON + MINUTE);
        assert_eq!(too_fast(&[berlin(NOON)], &hamburg), None, "shorter than the minimum distance");
        assert_eq!(too_fast(&[berlin(NOON)], &Site::default()), None);
        assert_eq!(too_fast(&[Site::default()], &berlin(NOON)), None);
        let back = too_fast(&[berlin(NOON), sydney(NOON + 60 * MINUTE)], &berlin(NOON + 90 * MINUTE));
        assert_eq!(back, None, "return to a recent place");
    }

    #[test]
    fn new_country_counts_and_known_address_exonerates() {
        // P_O(5) = 6·0.01/36; P_T(5) = 0.35; access: ln(0.25/0.9).
        let abroad = evidence(&inputs(NetLevel::NewCountry));
        assert!((abroad.network - ((0.35_f64 / (0.06 / 36.0)).ln() + (0.25_f64 / 0.9).ln())).abs() < 1e-9);
        let home = evidence(&inputs(NetLevel::KnownAddress));
        assert!(home.network < -2.0 && home.travel == 0.0);
    }

    #[test]
    fn network_of_the_tenant_counts_less_than_a_rare_one() {
        let tenants = Inputs { which: (0.01, 0.2), ..inputs(NetLevel::NewNetwork) };
        let unpopular = Inputs { which: (0.01, 0.0001), ..inputs(NetLevel::NewNetwork) };
        assert!(
            (evidence(&unpopular).network - evidence(&tenants).network - (20.0_f64.ln() + 3.0)).abs() < 1e-9,
            "clamped"
        );
    }

    #[test]
    fn travel_evidence_depends_on_owners_rate() {
        let at = |too_fast, owners| {
            let journey = Journey { km: 10_000.0, minutes: if too_fast { 30.0 } else { 3_000.0 } };
            evidence(&Inputs { travel: Some((journey, owners)), ..inputs(NetLevel::NewCountry) }).travel
        };
        assert!((at(true, 0.02) - (0.35_f64 / 0.02).ln()).abs() < 1e-9);
        assert!(at(true, 0.35).abs() < 1e-9, "owners with VPNs");
        assert!(at(false, 0.02) < 0.0);
    }

    proptest! {
        #[test]
        fn new_client_at_usual_place_never_lowers_the_score(place in -1.6..0.0_f64, client in 0.0..10.0_f64) {
            let sum = |client: f64| {
                let sum = place + client;
                sum + if sum < 0.0 { limited_credit(sum) - sum } else { credit_of_place(place, sum) }
            };
            prop_assert!(sum(client + 0.01) >= sum(client) - 1e-9);
            prop_assert!(sum(client) >= 1.6 * place + client - 1e-9);
        }

        #[test]
        fn evidence_is_finite_for_all_inputs(
            level in 0..LEVELS, own in proptest::array::uniform6(0.0..1e6_f64), thief in 0.0..1.0_f64,
            owner in 0.0..1.0_f64, hosting: bool, own_hosting in -1.0..2.0_f64, km in 0.0..2e4_f64, minutes in 0.0..1e6_f64, owners in -1.0..2.0_f64,
        ) {
            let travel = Some((Journey { km, minutes }, owners));
            let inputs = Inputs { level: NetLevel::ALL[level], own: &own, cohort: &COHORT, which: (thief, owner), hosting, own_hosting, travel };
            prop_assert!(evidence(&inputs).sum().is_finite());
        }

        #[test]
        fn longer_journey_time_is_never_faster(minutes in 0..5_000_i64, more in 0..5_000_i64) {
            let at = |minutes| too_fast(&[berlin(NOON)], &sydney(NOON + minutes * MINUTE));
            prop_assert!(at(minutes) != Some(false) || at(minutes + more) == Some(false));
        }
    }
}

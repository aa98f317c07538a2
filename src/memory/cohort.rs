//! Cohort: habits of all baselines of one kind and age. They are the prior of each baseline.

use serde::{Deserialize, Serialize};

use super::areas;
use super::level::{ClientLevel, LEVELS, NetLevel};
use super::rate::Rate;
use super::tenants::{BySeat, Seat};
use crate::enrichment::Device;
use crate::event::TokenType;
use crate::place::NetworkClass;

/// Number of ages: ⌊log2(visits + 1)⌋, limited to 13 (8,191 visits).
const AGES: usize = 14;
/// Number of device classes: machine, phone, other.
const DEVICES: usize = 3;
pub(crate) const KINDS: usize = TokenType::ALL.len() * DEVICES;

/// Weight of the wider group in a cohort's shares, visits.
const WIDER: f64 = 10.0;
/// Weight of the assumed values, visits.
const ASSUMED: f64 = 20.0;
/// Minimum probability of a new value for an owner.
const SHARE_MIN: f64 = 5e-4;

/// Assumed shares of the levels among owners: new addresses are frequent, new networks rare, new countries rarer.
const NET_ASSUMED: [f64; LEVELS] = [0.76, 0.05, 0.10, 0.03, 0.05, 0.01];
const CLIENT_ASSUMED: [f64; LEVELS] = [0.90, 0.02, 0.01, 0.04, 0.01, 0.02];
/// The same for the first visit of a grant of a known user. A frequent reason for a new grant is a new device.
const NET_ASSUMED_FIRST: [f64; LEVELS] = [0.30, 0.05, 0.10, 0.42, 0.10, 0.03];
/// Assumed shares of visits with at least 1, 2, 4, … areas that are new to the owner.
const AREAS_ASSUMED: [f64; areas::LEVELS] = [0.3, 0.15, 0.06, 0.02, 0.007, 0.003, 0.001];
/// Weight of the wider group in these shares, visits.
const AREAS_WIDER: f64 = 30.0;
const CLIENT_ASSUMED_FIRST: [f64; LEVELS] = [0.30, 0.02, 0.02, 0.10, 0.36, 0.20];

/// Token type and device class. Phones change their network more often than other devices.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Kind(u8);

impl Kind {
    #[must_use]
    pub(crate) const fn new(token_type: TokenType, device: Device) -> Self {
        let device = match device {
            Device::Desktop | Device::Unknown => 0,
            Device::Machine => 1,
            Device::Mobile => 2,
        };
        Self(token_type as u8 * DEVICES as u8 + device)
    }

    #[must_use]
    pub(crate) const fn is_machine(self) -> bool {
        self.0 % DEVICES as u8 == 1
    }

    #[must_use]
    pub(crate) const fn token_type(self) -> usize {
        self.0 as usize / DEVICES
    }

    /// Index in tables by kind, from 0.
    #[must_use]
    pub(crate) const fn number(self) -> usize {
        self.0 as usize
    }
}

/// Counts by level, and their total.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
struct Levels {
    counts: [f64; LEVELS],
    total: f64,
}

impl Levels {
    fn learn(&mut self, level: usize, weight: f64) {
        self.counts[level] += weight;
        self.total += weight;
    }

    fn shares(&self, prior: &[f64; LEVELS], weight: f64) -> [f64; LEVELS] {
        let whole = 1.0 / (self.total + weight);
        std::array::from_fn(|level| (self.counts[level] + weight * prior[level]) * whole)
    }
}

/// Mean and variance of the logarithm of an hourly count: sums of values and of squares, and their weight.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
struct Spread {
    values: f64,
    squares: f64,
    total: f64,
}

impl Spread {
    fn learn(&mut self, value: f64, own_mean: f64, weight: f64) {
        // Around the owner's own mean, because owners differ more from each other than from hour to hour.
        let square = (value - own_mean) * (value - own_mean);
        self.values += weight * value;
        self.squares += weight * square;
        self.total += weight;
    }

    /// Mean and variance, shrunk towards the assumed ones.
    fn get(&self, (mean, deviation): (f64, f64)) -> (f64, f64) {
        let whole = self.total + ASSUMED;
        ((self.values + ASSUMED * mean) / whole, (self.squares + ASSUMED * (deviation * deviation)) / whole)
    }
}

/// Number of visits that call an area, and of those that reach each level of new areas ([`areas::level`]).
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
struct NewAreas {
    visits: f64,
    reached: [f64; areas::LEVELS],
}

impl NewAreas {
    /// Share of the visits that reach `level`, after adding `weight` visits with the share `prior`.
    fn share(&self, level: usize, prior: f64, weight: f64) -> f64 {
        (self.reached[level] + weight * prior) / (self.visits + weight)
    }
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct Cohort {
    net: Levels,
    client: Levels,
    areas: NewAreas,
}

/// Habits that do not depend on age.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct Wide {
    net: Levels,
    client: Levels,
    hosting: Rate,
    /// Number of changes of network, and of active minutes.
    switches: [f64; 2],
    areas: NewAreas,
    /// Share of visits to areas that are new to the owner.
    new_areas: Rate,
    /// Number of new tasks, and of visits.
    new_tasks: Rate,
    /// Share of rare routes, among those called first in a visit.
    rare_routes: Rate,
    calls: Spread,
    objects: Spread,
    bytes: Spread,
    reads: Rate,
}

/// Cohorts of each tenant. Tenants do not share them, because the part of the largest tenant cannot be left out of a
/// mean.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct AllCohorts {
    tenants: BySeat<Cohorts>,
    /// For tenants without a seat: the assumed values.
    assumed: Cohorts,
}

impl AllCohorts {
    #[must_use]
    pub(crate) fn of(&self, seat: Option<Seat>) -> &Cohorts {
        seat.and_then(|seat| self.tenants.get(seat)).unwrap_or(&self.assumed)
    }

    /// `None`: the tenant has no seat.
    pub(crate) fn of_mut(&mut self, seat: Option<Seat>) -> Option<&mut Cohorts> {
        seat.and_then(|seat| self.tenants.get_mut(seat))
    }
}

/// All cohorts of one tenant.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Cohorts {
    cohorts: Vec<Cohort>,
    wide: Vec<Wide>,
}

/// A count per hour.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Hourly {
    Calls,
    Objects,
    Bytes,
}

impl Hourly {
    /// Assumed mean and deviation of the logarithm.
    const fn assumed(self) -> (f64, f64) {
        match self {
            Self::Calls => (1.6, 0.9),
            Self::Objects => (1.4, 0.8),
            Self::Bytes => (2.5, 1.5),
        }
    }
}

impl Default for Cohorts {
    fn default() -> Self {
        Self { cohorts: vec![Cohort::default(); KINDS * AGES], wide: vec![Wide::default(); KINDS] }
    }
}

impl Cohorts {
    /// Share of each network level among visits of owners, for baselines of `kind` with `visits` visits.
    #[must_use]
    pub(crate) fn net(&self, kind: Kind, visits: u32) -> [f64; LEVELS] {
        let assumed = if visits == 0 { &NET_ASSUMED_FIRST } else { &NET_ASSUMED };
        let wide = if visits == 0 { *assumed } else { self.wide[kind.number()].net.shares(assumed, ASSUMED) };
        self.cohorts[index(kind, visits)].net.shares(&wide, WIDER).map(|share| share.max(SHARE_MIN))
    }

    /// The same for client levels.
    #[must_use]
    pub(crate) fn client(&self, kind: Kind, visits: u32) -> [f64; LEVELS] {
        let assumed = if visits == 0 { &CLIENT_ASSUMED_FIRST } else { &CLIENT_ASSUMED };
        let wide = if visits == 0 { *assumed } else { self.wide[kind.number()].client.shares(assumed, ASSUMED) };
        self.cohorts[index(kind, visits)].client.shares(&wide, WIDER).map(|share| share.max(SHARE_MIN))
    }

    /// Learns the network level of a visit of a baseline of `kind` with `visits` visits.
    pub(crate) fn learn_net(&mut self, kind: Kind, visits: u32, level: NetLevel, weight: f64) {
        self.cohorts[index(kind, visits)].net.learn(level as usize, weight);
        if visits > 0 {
            self.wide[kind.number()].net.learn(level as usize, weight);
        }
    }

    /// Learns the client level of a visit.
    pub(crate) fn learn_client(&mut self, kind: Kind, visits: u32, level: ClientLevel, weight: f64) {
        self.cohorts[index(kind, visits)].client.learn(level as usize, weight);
        if visits > 0 {
            self.wide[kind.number()].client.learn(level as usize, weight);
        }
    }

    /// Share of hosting networks and anonymisers among the networks of baselines.
    #[must_use]
    pub(crate) fn hosting(&self, kind: Kind) -> f64 {
        self.wide[kind.number()].hosting.get(if kind.is_machine() { 0.5 } else { 0.06 }, ASSUMED)
    }

    /// Learns the class of a network that is new to its baseline.
    pub(crate) fn learn_network(&mut self, kind: Kind, class: NetworkClass, weight: f64) {
        let is_hosting = class != NetworkClass::Access;
        self.wide[kind.number()].hosting.learn(f64::from(u8::from(is_hosting)), weight);
    }

    /// Changes of network per active minute.
    #[must_use]
    pub(crate) fn switches(&self, kind: Kind) -> f64 {
        let [switches, minutes] = self.wide[kind.number()].switches;
        (switches + 3_000.0 * 0.005) / (minutes + 3_000.0)
    }

    pub(crate) fn learn_activity(&mut self, kind: Kind, switches: f64, minutes: f64) {
        let [sum, active] = &mut self.wide[kind.number()].switches;
        *sum += switches;
        *active += minutes;
    }

    /// Share of visits to areas that are new to the owner.
    #[must_use]
    pub(crate) fn new_areas(&self, kind: Kind) -> f64 {
        self.wide[kind.number()].new_areas.get(0.1, ASSUMED)
    }

    pub(crate) fn learn_area(&mut self, kind: Kind, is_new: bool, weight: f64) {
        self.wide[kind.number()].new_areas.learn(f64::from(u8::from(is_new)), weight);
    }

    /// Share of visits with a number of new areas of at least `level`, for baselines of `kind` with `visits` visits.
    #[must_use]
    pub(crate) fn areas(&self, kind: Kind, visits: u32, level: usize) -> f64 {
        let wide = self.wide[kind.number()].areas.share(level, AREAS_ASSUMED[level], ASSUMED);
        self.cohorts[index(kind, visits)].areas.share(level, wide, AREAS_WIDER)
    }

    /// Learns a visit that calls its first area.
    pub(crate) fn learn_visit_to_areas(&mut self, kind: Kind, visits: u32, weight: f64) {
        self.wide[kind.number()].areas.visits += weight;
        self.cohorts[index(kind, visits)].areas.visits += weight;
    }

    /// Learns a visit whose new areas reach `level`.
    pub(crate) fn learn_new_areas(&mut self, kind: Kind, visits: u32, level: usize, weight: f64) {
        self.wide[kind.number()].areas.reached[level] += weight;
        self.cohorts[index(kind, visits)].areas.reached[level] += weight;
    }

    /// Number of new tasks per visit.
    #[must_use]
    pub(crate) fn new_tasks(&self, kind: Kind) -> f64 {
        self.wide[kind.number()].new_tasks.get(0.02, ASSUMED)
    }

    /// Learns that a visit began.
    pub(crate) fn learn_visit(&mut self, kind: Kind, weight: f64) {
        self.wide[kind.number()].new_tasks.learn_chance(weight);
    }

    /// Learns that a new task began.
    pub(crate) fn learn_task(&mut self, kind: Kind, weight: f64) {
        self.wide[kind.number()].new_tasks.learn_occurrence(weight);
    }

    /// Share of rare routes, among those called first in a visit.
    #[must_use]
    pub(crate) fn rare_routes(&self, kind: Kind) -> f64 {
        self.wide[kind.number()].rare_routes.get(0.01, 10.0 * ASSUMED).max(SHARE_MIN)
    }

    /// Learns the first call of a route in a visit.
    pub(crate) fn learn_route(&mut self, kind: Kind, is_rare: bool, weight: f64) {
        self.wide[kind.number()].rare_routes.learn_lately(f64::from(u8::from(is_rare)), weight);
    }

    /// Mean and variance of the logarithm of an hourly count.
    #[must_use]
    pub(crate) fn hourly(&self, kind: Kind, what: Hourly) -> (f64, f64) {
        let wide = &self.wide[kind.number()];
        let spread = match what {
            Hourly::Calls => &wide.calls,
            Hourly::Objects => &wide.objects,
            Hourly::Bytes => &wide.bytes,
        };
        spread.get(what.assumed())
    }

    pub(crate) fn learn_hourly(&mut self, kind: Kind, what: Hourly, value: f64, own_mean: f64, weight: f64) {
        let wide = &mut self.wide[kind.number()];
        let spread = match what {
            Hourly::Calls => &mut wide.calls,
            Hourly::Objects => &mut wide.objects,
            Hourly::Bytes => &mut wide.bytes,
        };
        spread.learn(value, own_mean, weight);
    }

    /// Share of reads among calls.
    #[must_use]
    pub(crate) fn reads(&self, kind: Kind) -> f64 {
        self.wide[kind.number()].reads.get(0.75, ASSUMED)
    }

    pub(crate) fn learn_reads(&mut self, kind: Kind, share: f64, weight: f64) {
        self.wide[kind.number()].reads.learn(share, weight);
    }
}

fn index(kind: Kind, visits: u32) -> usize {
    let age = (u64::from(visits) + 1).ilog2() as usize;
    kind.number() * AGES + age.min(AGES - 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::tenants::seated;

    #[test]
    fn cohort_starts_from_assumed_shares() {
        let mut cohorts = Cohorts::default();
        let person = Kind::new(TokenType::Access, Device::Desktop);
        let before = cohorts.net(person, 5)[4];
        assert!((before - NET_ASSUMED[4]).abs() < 1e-12);
        for _ in 0..100 {
            cohorts.learn_net(person, 5, NetLevel::NewNetwork, 1.0);
        }
        let after = cohorts.net(person, 5)[4];
        assert!(after > 0.9, "{after}");
        let (older, machines) =
            (cohorts.net(person, 500)[4], cohorts.net(Kind::new(TokenType::Access, Device::Machine), 5)[4]);
        assert!(older > before && older < after, "another age learns less");
        assert!((machines - before).abs() < 1e-12, "another kind learns nothing");
    }

    #[test]
    fn new_tasks_are_learnt_by_kind_and_weight() {
        let mut cohorts = Cohorts::default();
        let kind = |device| Kind::new(TokenType::ApiKey, device);
        for number in 0..1_000 {
            cohorts.learn_visit(kind(Device::Machine), 1.0);
            cohorts.learn_visit(kind(Device::Desktop), 1.0);
            if number % 20 == 0 {
                cohorts.learn_task(kind(Device::Desktop), 1.0);
            }
        }
        let (machines, people) = (cohorts.new_tasks(kind(Device::Machine)), cohorts.new_tasks(kind(Device::Desktop)));
        assert!(machines < 0.001 && (0.04..0.06).contains(&people), "{machines} {people}");
        cohorts.learn_task(kind(Device::Desktop), 0.03);
        assert!(cohorts.new_tasks(kind(Device::Desktop)) < people * 1.02);
    }

    #[test]
    fn shares_have_a_minimum() {
        let mut cohorts = Cohorts::default();
        let kind = Kind::new(TokenType::ApiKey, Device::Machine);
        for _ in 0..1_000_000 {
            cohorts.learn_net(kind, 1_000, NetLevel::KnownAddress, 1.0);
        }
        let shares = cohorts.net(kind, 1_000);
        assert!(shares.iter().all(|share| *share >= SHARE_MIN));
        assert!((shares.iter().sum::<f64>() - 1.0).abs() < 6.0 * SHARE_MIN);
    }

    #[test]
    fn cohort_is_that_of_the_tenant() {
        let mut all = AllCohorts::default();
        let kind = Kind::new(TokenType::ApiKey, Device::Machine);
        let mut teach = |seat, visits, level| {
            let cohorts = all.of_mut(seat).expect("it has a seat");
            (0..visits).for_each(|_| cohorts.learn_net(kind, 50, level, 1.0));
            [seated(0).seat, None, seated(3).seat].map(|seat| all.of(seat).net(kind, 50)[5])
        };
        let before = teach(seated(0).seat, 1_000, NetLevel::KnownAddress);
        let after = teach(seated(3).seat, 50_000, NetLevel::NewCountry);
        assert_eq!([0, 1].map(|at| after[at].to_bits()), [0, 1].map(|at| before[at].to_bits()));
        assert!(after[2] > 0.9);
        assert!(all.of_mut(None).is_none());
    }
}

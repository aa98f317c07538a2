//! Statistics that tenants share. A tenant reads them without the part of the largest other tenant, so that no single
//! tenant can change what another one reads (`docs/decisions/0026-statistics-shared-by-tenants.md`).
//!
//! A shared amount stores its total and the parts of the two tenants that contributed most. Only tenants with a seat
//! contribute ([`super::tenants`]). All other tenants read like a tenant that contributed nothing.

use serde::{Deserialize, Serialize};
use serde_big_array::BigArray;

use super::tenants::{BySeat, Seat, Tenant};

/// A weight below this is a rounding error.
const NOTHING: f64 = 1e-9;

/// Amounts of one contribution. The last one is the weight by which parts are compared.
type Amounts<const N: usize> = [f64; N];

fn add<const N: usize>(to: &mut Amounts<N>, more: &Amounts<N>) {
    for (to, more) in to.iter_mut().zip(more) {
        *to += more;
    }
}

fn without<const N: usize>(all: &Amounts<N>, part: &Amounts<N>) -> Amounts<N> {
    let left = std::array::from_fn(|at| all[at] - part[at]);
    if left[N - 1] > NOTHING { left } else { [0.0; N] }
}

/// Contribution of one tenant.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
struct Part<const N: usize> {
    seat: Option<Seat>,
    #[serde(with = "BigArray")]
    amounts: Amounts<N>,
}

impl<const N: usize> Part<N> {
    const NONE: Self = Self { seat: None, amounts: [0.0; N] };
}

/// Amounts to which several tenants contribute.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Shared<const N: usize> {
    #[serde(with = "BigArray")]
    total: Amounts<N>,
    /// Parts of the two tenants that contributed most.
    first: Part<N>,
    second: Part<N>,
}

impl<const N: usize> Default for Shared<N> {
    fn default() -> Self {
        Self { total: [0.0; N], first: Part::NONE, second: Part::NONE }
    }
}

impl<const N: usize> Shared<N> {
    /// Adds `more` of one tenant. `own` is all that the tenant contributed, including `more`. Returns the tenant whose
    /// part is not stored any more, and that part.
    pub(crate) fn teach(&mut self, seat: Seat, own: &Amounts<N>, more: &Amounts<N>) -> Option<(Seat, Amounts<N>)> {
        add(&mut self.total, more);
        if self.first.seat == Some(seat) {
            add(&mut self.first.amounts, more);
            return None;
        }
        let was_second = self.second.seat == Some(seat);
        let mut part = Part { seat: Some(seat), amounts: *own };
        if was_second {
            add(&mut self.second.amounts, more);
            part = self.second;
        }
        let displaced = self.second;
        if part.amounts[N - 1] > self.first.amounts[N - 1] {
            self.second = self.first;
            self.first = part;
        } else if part.amounts[N - 1] > self.second.amounts[N - 1] {
            self.second = part;
        } else {
            return None;
        }
        displaced.seat.filter(|_| !was_second).map(|seat| (seat, displaced.amounts))
    }

    /// The total without the part of the largest other tenant.
    pub(crate) fn read(&self, seat: Option<Seat>) -> Amounts<N> {
        let is_first = seat.is_some() && seat == self.first.seat;
        without(&self.total, if is_first { &self.second.amounts } else { &self.first.amounts })
    }

    /// Multiplies all amounts by `left`.
    pub(crate) fn fade(&mut self, left: f64) {
        for amounts in [&mut self.total, &mut self.first.amounts, &mut self.second.amounts] {
            for amount in amounts {
                *amount *= left;
            }
        }
    }
}

/// Sums of each tenant with a seat, which only the tenant itself reads. For habits, because the part of the largest
/// tenant cannot be left out of a mean.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Separate<const N: usize>(BySeat<OwnAmounts<N>>);

#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
struct OwnAmounts<const N: usize>(#[serde(with = "BigArray")] Amounts<N>);

impl<const N: usize> Default for OwnAmounts<N> {
    fn default() -> Self {
        Self([0.0; N])
    }
}

impl<const N: usize> Default for Separate<N> {
    fn default() -> Self {
        Self(BySeat::default())
    }
}

impl<const N: usize> Separate<N> {
    pub(crate) fn learn(&mut self, seat: Seat, more: &Amounts<N>) {
        if let Some(own) = self.0.get_mut(seat) {
            add(&mut own.0, more);
        }
    }

    pub(crate) fn read(&self, seat: Option<Seat>) -> Amounts<N> {
        seat.and_then(|seat| self.0.get(seat)).map_or([0.0; N], |own| own.0)
    }
}

/// A count of one tenant, and the part of it that was added to the shared count. The part is 0 while the tenant has no
/// seat.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Own {
    pub(crate) count: f64,
    taught: f64,
}

impl Own {
    /// A count that is part of the shared one.
    pub(crate) const fn taught(count: f64) -> Self {
        Self { count, taught: count }
    }

    /// Adds to the count, and returns what to add to the shared count.
    pub(crate) fn add(&mut self, tenant: Tenant, weight: f64) -> Option<Contribution> {
        if let Some(seat) = tenant.seat {
            return Some(self.teach(seat, weight));
        }
        self.count += weight;
        None
    }

    /// The same of a tenant with a seat.
    pub(crate) fn teach(&mut self, seat: Seat, weight: f64) -> Contribution {
        self.count += weight;
        let more = self.count - self.taught;
        self.taught = self.count;
        Contribution { seat, own: self.count, more }
    }
}

/// Addition of one tenant to a shared count.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Contribution {
    pub(crate) seat: Seat,
    own: f64,
    more: f64,
}

impl Contribution {
    /// Of a tenant whose part the shared count stores.
    pub(crate) const fn of_stored(seat: Seat, more: f64) -> Self {
        Self { seat, own: more, more }
    }
}

impl Shared<1> {
    /// Adds to the count. Returns the tenant whose part is not stored any more, and that part.
    pub(crate) fn learn(&mut self, contribution: &Contribution) -> Option<(Seat, f64)> {
        // If the shared count was evicted meanwhile, it holds less of the tenant than the tenant's own count.
        let of_others = self.first.amounts[0] + self.second.amounts[0];
        let own = contribution.own.min(self.total[0] + contribution.more - of_others);
        self.teach(contribution.seat, &[own], &[contribution.more]).map(|(seat, [part])| (seat, part))
    }

    /// Whether the tenant is one of the two whose parts are stored: it needs no count of its own.
    pub(crate) fn stores(&self, seat: Seat) -> bool {
        self.first.seat == Some(seat) || self.second.seat == Some(seat)
    }

    pub(crate) fn count(&self, seat: Option<Seat>) -> f64 {
        self.read(seat)[0]
    }

    /// `value` of the count as each tenant reads it; 0 for a count of 0.
    pub(crate) fn values<const N: usize>(&self, value: impl Fn(f64) -> [f64; N]) -> Values<N> {
        let value = |count: f64| if count > 0.0 { value(count) } else { [0.0; N] };
        let others = value(self.count(None));
        let mut beyond = [0.0; N];
        if self.first.seat.is_some() {
            let first = value(self.count(self.first.seat));
            beyond = std::array::from_fn(|at| first[at] - others[at]);
        }
        Values { others, first: self.first.seat, beyond }
    }
}

/// Values of a shared count for its readers: `others`, and by how much the value is higher for the tenant that
/// contributed most.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct Values<const N: usize> {
    #[serde(with = "BigArray")]
    others: [f64; N],
    first: Option<Seat>,
    #[serde(with = "BigArray")]
    beyond: [f64; N],
}

impl<const N: usize> Values<N> {
    pub(crate) const ZERO: Self = Self { others: [0.0; N], first: None, beyond: [0.0; N] };
}

/// Sums of the values of shared counts as each tenant reads them. The part that is left out of a count is thus left out
/// of the sum as well.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Sums<const N: usize> {
    #[serde(with = "BigArray")]
    others: [f64; N],
    beyond: BySeat<OwnAmounts<N>>,
}

impl<const N: usize> Default for Sums<N> {
    fn default() -> Self {
        Self { others: [0.0; N], beyond: BySeat::default() }
    }
}

impl<const N: usize> Sums<N> {
    /// Replaces the values of one count.
    pub(crate) fn change(&mut self, before: &Values<N>, after: &Values<N>) {
        let difference = |after: &[f64; N], before: &[f64; N]| std::array::from_fn(|at| after[at] - before[at]);
        add(&mut self.others, &difference(&after.others, &before.others));
        if before.first == after.first {
            self.add_beyond(after.first, &difference(&after.beyond, &before.beyond));
        } else {
            self.add_beyond(before.first, &before.beyond.map(|beyond| -beyond));
            self.add_beyond(after.first, &after.beyond);
        }
    }

    fn add_beyond(&mut self, seat: Option<Seat>, more: &[f64; N]) {
        if let Some(beyond) = seat.and_then(|seat| self.beyond.get_mut(seat)) {
            add(&mut beyond.0, more);
        }
    }

    pub(crate) fn read(&self, seat: Option<Seat>) -> [f64; N] {
        let beyond = seat.and_then(|seat| self.beyond.get(seat)).map_or([0.0; N], |beyond| beyond.0);
        std::array::from_fn(|at| {
            // By one instruction: `max` would also check for values that are not a number.
            let sum = self.others[at] + beyond[at];
            if sum > 0.0 { sum } else { 0.0 }
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::memory::tenants::seated;

    fn taught(contributions: &[(u16, f64)]) -> Shared<1> {
        let (mut owns, mut shared) = ([Own::default(); 10], Shared::default());
        for (tenant, weight) in contributions {
            let contribution = owns[usize::from(*tenant)].add(seated(*tenant), *weight).expect("it has a seat");
            shared.learn(&contribution);
        }
        shared
    }

    fn contributions(tenants: std::ops::Range<u16>) -> impl Strategy<Value = Vec<(u16, f64)>> {
        proptest::collection::vec((tenants, 0.03..1.0_f64), 0..60)
    }

    #[test]
    fn own_count_is_taught_once_there_is_a_seat() {
        let (mut own, mut shared) = (Own::default(), Shared::<1>::default());
        assert!(own.add(Tenant { key: 1, seat: None }, 3.0).is_none());
        let contribution = own.add(seated(0), 1.0).expect("it has a seat");
        shared.learn(&contribution);
        assert!((shared.count(seated(0).seat) - 4.0).abs() < 1e-12);
        shared.learn(&own.add(seated(0), 1.0).expect("it has a seat"));
        assert!((shared.count(seated(0).seat) - 5.0).abs() < 1e-12);
        assert_eq!(shared.count(None).to_bits(), 0.0_f64.to_bits());
    }

    proptest! {
        #[test]
        fn shared_count_of_one_tenant_is_what_it_taught(contributions in contributions(3..4)) {
            let taught = taught(&contributions);
            let sum = contributions.iter().map(|(_, weight)| weight).sum::<f64>();
            prop_assert!((taught.count(seated(3).seat) - sum).abs() < 1e-9);
            prop_assert_eq!(taught.count(seated(1).seat).to_bits(), 0.0_f64.to_bits());
            prop_assert_eq!(taught.count(None).to_bits(), 0.0_f64.to_bits());
        }

        #[test]
        fn shared_count_leaves_out_the_largest_other(contributions in contributions(0..6), reader in 0..7_u16) {
            let taught = taught(&contributions);
            let of = |tenant| contributions.iter().filter(|(by, _)| *by == tenant).map(|(_, weight)| weight).sum::<f64>();
            let largest = (0..6).filter(|tenant| *tenant != reader).map(of).fold(0.0, f64::max);
            let expected = (0..6).map(of).sum::<f64>() - largest;
            prop_assert!((taught.count(seated(reader).seat) - expected).abs() < 1e-9);
        }

        /// One other tenant can raise a count at most to the sum of all the rest, and cannot lower it.
        #[test]
        fn shared_count_is_bounded_by_the_rest(
            rest in contributions(0..4), flood in proptest::collection::vec(0.0..1e5_f64, 1..20), reader in 0..4_u16,
        ) {
            let before = taught(&rest).count(seated(reader).seat);
            let all = rest.iter().map(|(_, weight)| weight).sum::<f64>();
            let mut contributions = rest;
            contributions.extend(flood.into_iter().map(|weight| (9, weight)));
            let after = taught(&contributions).count(seated(reader).seat);
            prop_assert!(after >= before - 1e-6 && after <= all + 1e-6, "{} {} {}", before, after, all);
        }

        #[test]
        fn sums_are_those_of_the_counts(contributions in proptest::collection::vec((0..5_u16, 0..4_usize, 0.03..9.0_f64), 0..80)) {
            let value = |count: f64| [count, libm::sqrt(count + 0.5), 1.0];
            let (mut counts, mut owns) = ([Shared::<1>::default(); 4], [[Own::default(); 5]; 4]);
            let mut sums = Sums::<3>::default();
            for (tenant, key, weight) in contributions {
                let contribution = owns[key][usize::from(tenant)].add(seated(tenant), weight).expect("a seat");
                let before = counts[key].values(value);
                counts[key].learn(&contribution);
                sums.change(&before, &counts[key].values(value));
            }
            for seat in (0..5).map(|number| seated(number).seat).chain([None]) {
                let mut expected = [0.0; 3];
                for count in counts.iter().map(|count| count.count(seat)).filter(|count| *count > 0.0) {
                    add(&mut expected, &value(count));
                }
                for (sum, expected) in sums.read(seat).iter().zip(expected) {
                    prop_assert!((sum - expected).abs() < 1e-6, "{} {}", sum, expected);
                }
            }
        }
    }
}

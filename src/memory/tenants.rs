//! The tenants of a partition: which of them are known, and which contribute to shared statistics
//! ([`super::shared`], `docs/decisions/0026-statistics-shared-by-tenants.md`).
//!
//! Events can contain invented tenants. A tenant is known from `KNOWN_VISITS` visits on. Tenants with a seat
//! contribute: the first tenant of the partition, and each known one while there are seats. A tenant without a
//! visit for `AWAY_DAYS` loses its seat when another known tenant needs one.

use std::num::NonZeroU32;

use serde::{Deserialize, Serialize};

use super::generations::{Generations, Map};
use super::pools::Pool;
use super::sketch::Sketch;

/// Maximum of tenants with a seat; later ones only read.
const SEATS_MAX: usize = 256;
/// Visits from which a tenant is known. Below, it may be invented.
const KNOWN_VISITS: u32 = 1_000;
/// Maximum number of known tenants.
pub(crate) const KNOWN_MAX: usize = 1 << 16;
/// Days of the stream without a visit after which a seat may be given to another tenant.
const AWAY_DAYS: u32 = 30;

/// Number of a tenant that contributes to shared statistics. Each tenant that gets a seat has another number. The
/// contribution of an earlier tenant at the same place therefore remains its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct Seat(NonZeroU32);

impl Seat {
    /// A key in a table that is kept by tenant.
    pub(crate) fn key(self) -> u64 {
        u64::from(self.0.get()).wrapping_mul(0x9e37_79b9_7f4a_7c15)
    }

    /// The first number at a place.
    fn at(place: usize) -> Option<Self> {
        u32::try_from(place + 1).ok().and_then(NonZeroU32::new).map(Self)
    }

    /// The number of the next tenant at the same place.
    fn next(self) -> Option<Self> {
        self.0.checked_add(SEATS_MAX as u32).map(Self)
    }

    const fn place(self) -> usize {
        (self.0.get() as usize - 1) % SEATS_MAX
    }
}

/// A tenant that reads shared statistics and may contribute to them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Tenant {
    pub(crate) key: u64,
    /// `None`: it does not contribute.
    pub(crate) seat: Option<Seat>,
}

/// The tenants of a partition.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Tenants {
    seats: Map<u64, Seat>,
    /// The last tenant. The next event is often of the same one.
    last: Tenant,
    /// The tenants with a seat, by its place.
    seated: Vec<Seated>,
    /// Day on which all seats were last found to be in use. On one day, they are searched once.
    full_on: Option<u32>,
    /// The pool of each known tenant.
    known: Generations<Pool>,
    /// Number of tenants that became known.
    numbered: u32,
    /// Visits of tenants that are not known.
    newcomers: Sketch,
}

#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
struct Seated {
    key: u64,
    seat: Seat,
    /// Day of the stream of its last visit.
    day: u32,
}

impl Default for Tenants {
    fn default() -> Self {
        Self {
            seats: Map::default(),
            last: Tenant { key: 0, seat: None },
            seated: Vec::new(),
            full_on: None,
            known: Generations::new(KNOWN_MAX),
            numbered: 0,
            newcomers: Sketch::default(),
        }
    }
}

impl Tenants {
    #[inline]
    pub(crate) fn get(&self, key: u64) -> Tenant {
        if self.last.key == key && self.last.seat.is_some() {
            return self.last;
        }
        Tenant { key, seat: self.seats.get(&key).copied() }
    }

    pub(crate) fn is_known(&self, key: u64) -> bool {
        self.known.get(key).is_some()
    }

    /// The pool of baselines of a tenant.
    pub(crate) fn pool(&self, key: u64) -> Pool {
        self.known.get(key).copied().unwrap_or(Pool::STRANGERS)
    }

    /// A tenant as [`Self::get`] has just found it; the first tenant of the partition gets a seat.
    #[inline]
    pub(crate) fn admit(&mut self, found: Tenant) -> Tenant {
        if found.seat.is_none() && self.seats.is_empty() {
            self.give_seat(found.key, 0);
            self.last = self.get(found.key);
        } else {
            self.last = found;
        }
        self.last
    }

    /// Whether a tenant has had at least this number of visits, or is known.
    pub(crate) fn has_visits(&mut self, key: u64, visits: i32) -> bool {
        self.is_known(key) || self.newcomers.add(key, 0) >= visits
    }

    /// Counts a visit of a tenant. `day`: number of days of the stream so far, in which a step of the clock of any
    /// length is one day.
    pub(crate) fn count_visit(&mut self, key: u64, day: u32) {
        let is_known = self.known.get_mut(key).is_some() || self.makes_known(key);
        if let Some(seat) = self.get(key).seat {
            self.seated[seat.place()].day = day;
        } else if is_known {
            self.give_seat(key, day);
        }
    }

    fn makes_known(&mut self, key: u64) -> bool {
        let visits = self.newcomers.add(key, 1);
        let is_known = visits >= KNOWN_VISITS as i32;
        if is_known {
            // Its visits no longer disturb the counts of others.
            self.newcomers.add(key, -visits);
            self.known.insert(key, Pool::of_known(self.numbered));
            self.numbered = self.numbered.wrapping_add(1);
        }
        is_known
    }

    fn give_seat(&mut self, key: u64, day: u32) {
        let place = self.seated.len();
        if place < SEATS_MAX {
            if let Some(seat) = Seat::at(place) {
                self.seated.push(Seated { key, seat, day });
                self.seats.insert(key, seat);
            }
        } else if self.full_on != Some(day) {
            let longest = self.seated.iter_mut().min_by_key(|seated| seated.day);
            let away = longest.filter(|seated| seated.day + AWAY_DAYS <= day);
            let taken = away.and_then(|seated| Some((seated.seat.next()?, seated)));
            let Some((seat, seated)) = taken else {
                self.full_on = Some(day);
                return;
            };
            self.seats.remove(&seated.key);
            self.last = Tenant { key, seat: Some(seat) };
            self.seats.insert(key, seat);
            *seated = Seated { key, seat, day };
        }
    }
}

/// One value for each tenant with a seat.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct BySeat<V>(Vec<Option<(Seat, V)>>);

impl<V> Default for BySeat<V> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<V: Default> BySeat<V> {
    /// `None`: the tenant has none, or has lost its seat.
    #[inline]
    pub(crate) fn get(&self, seat: Seat) -> Option<&V> {
        match self.0.get(seat.place()) {
            Some(Some((held, value))) if *held == seat => Some(value),
            _ => None,
        }
    }

    /// The value of a tenant for changes. It replaces that of an earlier tenant at the same place. `None`: a later
    /// tenant has the place.
    #[inline]
    pub(crate) fn get_mut(&mut self, seat: Seat) -> Option<&mut V> {
        if self.get(seat).is_none() {
            self.take_place(seat);
        }
        match self.0.get_mut(seat.place()) {
            Some(Some((held, value))) if *held == seat => Some(value),
            _ => None,
        }
    }

    /// Gives `seat` an empty value at its place, unless a later tenant has the place.
    #[cold]
    #[inline(never)]
    fn take_place(&mut self, seat: Seat) {
        let place = seat.place();
        if self.0.len() <= place {
            self.0.resize_with(place + 1, || None);
        }
        if self.0[place].as_ref().is_none_or(|(held, _)| *held < seat) {
            self.0[place] = Some((seat, V::default()));
        }
    }

    /// Values of all tenants but one, in the order of their places.
    pub(crate) fn others(&self, seat: Option<Seat>) -> impl Iterator<Item = &V> {
        self.0.iter().flatten().filter(move |(held, _)| Some(*held) != seat).map(|(_, value)| value)
    }
}

/// A tenant with the seat of this number, from 0.
#[cfg(test)]
pub(crate) fn seated(number: u16) -> Tenant {
    Tenant { key: u64::from(number) + 1_000, seat: Seat::at(number.into()) }
}

/// The tenant that gets the seat of `tenant` after it.
#[cfg(test)]
pub(crate) fn successor(tenant: Tenant) -> Tenant {
    Tenant { key: tenant.key + 1_000_000, seat: tenant.seat.and_then(Seat::next) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn visit(tenants: &mut Tenants, key: u64, visits: u32, day: u32) {
        (0..visits).for_each(|_| tenants.count_visit(key, day));
    }

    #[test]
    fn seat_is_given_to_first_and_known_tenants() {
        let mut tenants = Tenants::default();
        assert_eq!(tenants.get(7).seat, None);
        let mut admit = |key| tenants.admit(tenants.get(key)).seat;
        let (first, second) = (admit(7), admit(8));
        assert!(first.is_some() && second.is_none() && !tenants.is_known(7));
        visit(&mut tenants, 8, KNOWN_VISITS - 1, 0);
        assert!(tenants.get(8).seat.is_none() && !tenants.is_known(8));
        visit(&mut tenants, 8, 1, 0);
        assert!(tenants.get(8).seat.is_some() && tenants.get(8).seat != first && tenants.is_known(8));
        (0..100_000).for_each(|number| tenants.count_visit(1_000 + number, 0));
        assert_eq!(tenants.seats.len(), 2, "invented tenants");
        for tenant in 10..10 + SEATS_MAX as u64 {
            // After many names, a count can be too low by some visits.
            visit(&mut tenants, tenant, KNOWN_VISITS + 60, 0);
        }
        assert_eq!(tenants.seats.len(), SEATS_MAX);
    }

    /// A table of 16,384 names would evict a tenant if more names came between two of its visits.
    #[test]
    fn flood_of_names_delays_no_tenant() {
        let mut tenants = Tenants::default();
        tenants.admit(tenants.get(1));
        for number in 0..KNOWN_VISITS + 60 {
            if number % 300 == 299 {
                let names = 0..20_000;
                names.for_each(|name: u64| tenants.count_visit(1_000_000 * u64::from(number) + name, 0));
            }
            if number < KNOWN_VISITS - 60 {
                assert!(!tenants.is_known(7), "{number}");
            }
            tenants.count_visit(7, 0);
        }
        assert!(tenants.is_known(7) && tenants.get(7).seat.is_some());
        assert!(!tenants.is_known(299_000_000) && tenants.seats.len() == 2, "no invented tenant is known");
    }

    #[test]
    fn known_tenant_is_kept_in_a_flood() {
        let mut tenants = Tenants::default();
        visit(&mut tenants, 7, KNOWN_VISITS, 0);
        (0..100_000).for_each(|number| tenants.count_visit(1_000 + number, 0));
        assert!(tenants.is_known(7) && !tenants.is_known(1_000));
    }

    #[test]
    fn seat_of_an_absent_tenant_is_given_to_another() {
        let mut tenants = Tenants::default();
        (0..SEATS_MAX as u64).for_each(|invented| visit(&mut tenants, 1_000 + invented, KNOWN_VISITS, 3));
        visit(&mut tenants, 7, KNOWN_VISITS, 4);
        assert!(tenants.is_known(7) && tenants.get(7).seat.is_none(), "all seats are taken");
        // All but two tenants are absent.
        for day in 4..40 {
            let seat = tenants.get(7).seat;
            assert_eq!(seat.is_some(), day > AWAY_DAYS + 3, "{day}");
            visit(&mut tenants, 1_000, 1, day);
            visit(&mut tenants, 1_255, 1, day);
            visit(&mut tenants, 7, 1, day);
            visit(&mut tenants, 8, 1, day);
        }
        assert!(tenants.get(8).seat.is_none(), "it is not known");
        assert!(tenants.get(1_000).seat.is_some() && tenants.get(1_255).seat.is_some(), "they keep their seats");
        assert_eq!(tenants.seats.len(), SEATS_MAX);
        let given = tenants.get(7).seat.map(Seat::place);
        let lost = (1_001..1_255).filter(|key| tenants.get(*key).seat.is_none());
        assert_eq!(
            lost.map(|key| Some(key as usize - 1_000)).collect::<Vec<_>>(),
            [given],
            "one tenant loses its seat"
        );
        visit(&mut tenants, 1_001, 1, 40);
        assert!(tenants.get(1_001).seat.is_some() && tenants.get(7).seat.map(Seat::place) == given, "no seat is free");
    }

    #[test]
    fn value_of_an_earlier_tenant_is_dropped() {
        let mut values = BySeat::<u32>::default();
        let (first, other) = (seated(3), seated(5));
        let next = successor(first);
        let [first, other, next] = [first, other, next].map(|tenant| tenant.seat.expect("it has one"));
        (*values.get_mut(first).expect("its own"), *values.get_mut(other).expect("its own")) = (7, 9);
        assert_eq!(values.get(next), None);
        *values.get_mut(next).expect("its own") += 1;
        assert_eq!([first, next, other].map(|seat| values.get(seat).copied()), [None, Some(1), Some(9)]);
        assert_eq!(values.get_mut(first), None, "it has lost its seat");
        assert!(values.others(Some(next)).eq(&[9]) && values.others(None).eq(&[1, 9]));
    }
}

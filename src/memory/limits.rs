//! Limits of the tables of one state, derived from a limit of its bytes.
//!
//! A quarter of the bytes is for tables with a maximum number of entries in the code. If all of them can be full in it,
//! they keep their maximum, and what they leave is for the baselines. Otherwise the maximum of each is reduced by the same
//! factor. The rest is for baselines, users and seeds.

use super::pools::Size;

/// Bytes for tables that are not reduced: statistics of at most 256 tenants, and small tables.
const STATIC_BYTES: usize = 64 << 20;
/// Minimum of the bytes of a state. With fewer, the limits are those of this number.
pub(crate) const STATE_BYTES_MIN: usize = 128 << 20;

/// Percentages of the remaining bytes for users and seeds. The rest is for baselines: about as many as users.
const USERS_PERCENT: usize = 15;
const SEEDS_PERCENT: usize = 10;

/// Upper limits of the bytes of tables.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Costs {
    /// All tables whose maximum [`Limits::scaled`] reduces, at their maximum.
    pub(crate) tables: usize,
    /// A user, a seed, and a recent event id if their number is a power of two.
    pub(crate) user: usize,
    pub(crate) seed: usize,
    pub(crate) recent: usize,
}

/// Limits of the tables of a state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Limits {
    /// Part of the maximum of each table, 2^16 is all of it.
    part: usize,
    pub(super) baselines: Size,
    pub(super) users: usize,
    pub(super) seeds: usize,
    /// Number of recent event ids.
    pub(crate) recent: usize,
}

impl Limits {
    /// Limits by number only.
    pub(crate) const fn by_number(baselines_max: usize, recent_max: usize) -> Self {
        Self {
            part: 1 << 16,
            baselines: Size { bytes: u64::MAX, count: baselines_max },
            users: baselines_max,
            seeds: baselines_max.saturating_mul(2),
            recent: recent_max,
        }
    }

    /// The same within `bytes`.
    pub(crate) const fn within(self, bytes: usize, costs: &Costs) -> Self {
        let room = if bytes > STATE_BYTES_MIN { bytes } else { STATE_BYTES_MIN } - STATIC_BYTES;
        let quarter = room / 4;
        let recent = least(self.recent, 1 << (quarter / 4 / costs.recent).ilog2());
        let recent_bytes = recent.next_power_of_two() * costs.recent;
        let part = least(((quarter - recent_bytes) << 16) / costs.tables, 1 << 16);
        let rest = room - recent_bytes - ((costs.tables * part) >> 16);
        let (users, seeds) = (rest / 100 * USERS_PERCENT, rest / 100 * SEEDS_PERCENT);
        Self {
            part,
            baselines: Size { bytes: (rest - users - seeds) as u64, count: self.baselines.count },
            users: least(self.users, users / costs.user),
            seeds: least(self.seeds, seeds / costs.seed),
            recent,
        }
    }

    /// A maximum, reduced to the part that fits.
    pub(crate) const fn scaled(&self, max: usize) -> usize {
        let scaled = (max * self.part) >> 16;
        if scaled > 16 { scaled } else { 16 }
    }
}

const fn least(one: usize, other: usize) -> usize {
    if one < other { one } else { other }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::Memory;

    const GIB: usize = 1 << 30;
    const COSTS: Costs = Memory::COSTS;

    fn within(bytes: usize) -> Limits {
        Limits::by_number(10_000_000, 1 << 20).within(bytes, &COSTS)
    }

    #[test]
    fn limits_are_within_their_bytes() {
        for bytes in [STATE_BYTES_MIN, GIB / 4, GIB, 3 * GIB, 8 * GIB, 64 * GIB] {
            let limits = within(bytes);
            let sum = STATIC_BYTES
                + ((COSTS.tables * limits.part) >> 16)
                + limits.recent * COSTS.recent
                + limits.baselines.bytes as usize
                + limits.users * COSTS.user
                + limits.seeds * COSTS.seed;
            assert!(
                sum <= bytes && (bytes - sum) * 20 <= bytes || limits.users == 10_000_000,
                "{sum} of {bytes}: {limits:?}"
            );
        }
    }

    #[test]
    fn more_bytes_never_lower_a_limit() {
        let all: Vec<_> = (1..200).map(|number| within(number * GIB / 10)).collect();
        for pair in all.windows(2) {
            let [less, more] = pair else { unreachable!("two") };
            assert!(less.part <= more.part && less.users <= more.users && less.seeds <= more.seeds);
            assert!(less.baselines.bytes <= more.baselines.bytes && less.recent <= more.recent);
        }
        assert_eq!((all[190].part, all[190].recent), (1 << 16, 1 << 20));
    }

    #[test]
    fn fewer_bytes_than_the_minimum_give_its_limits() {
        assert_eq!(within(1), within(STATE_BYTES_MIN));
        assert!(within(1).baselines.bytes > 8 << 20 && within(1).scaled(1 << 20) > 1_000);
        assert_eq!(within(1).scaled(20), 16);
    }

    #[test]
    fn limits_by_number_are_kept_if_smaller() {
        let limits = Limits::by_number(500, 64).within(8 * GIB, &COSTS);
        assert_eq!((limits.baselines.count, limits.users, limits.seeds, limits.recent), (500, 500, 1_000, 64));
    }

    /// The sizes on which the percentages are based.
    #[test]
    fn a_gibibyte_has_room_for_a_million_grants_less_the_tables() {
        let limits = within(GIB);
        let baselines = limits.baselines.bytes / (870 + crate::memory::baselines::BYTES_BESIDE as u64);
        assert!((400_000..700_000).contains(&baselines), "{baselines}");
        assert!((baselines as usize..2 * baselines as usize).contains(&limits.users), "{}", limits.users);
        assert!(limits.seeds > 200_000, "{}", limits.seeds);
    }
}

//! Networks and client families of thieves of a user's tokens, by feedback `true`.

use serde::{Deserialize, Serialize};

use super::generations::Generations;
use super::holder::Holder;
use super::seen::{Feature, Seen};

const THIEVES_MAX: usize = 1 << 16;
/// Visits from which network and client family of a grant are its owner's, so that the thief is not recognised by them.
const OWN_VISITS: f64 = 2.0;

/// Users, each with a network and a client family of a thief, by the time of the feedback's last event (minutes since the
/// epoch).
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Thieves(Generations<u32>);

impl Default for Thieves {
    fn default() -> Self {
        Self(Generations::new(THIEVES_MAX))
    }
}

impl Thieves {
    pub(crate) fn insert(&mut self, user: u64, holder: &Holder, minute: u32) {
        self.0.insert(key(user, holder), minute);
    }

    pub(crate) fn remove(&mut self, user: u64, holder: &Holder) {
        self.0.remove(key(user, holder));
    }

    /// Whether `holder` of a grant of `user` is a known thief. `seen`: values of the grant.
    pub(crate) fn contains(&self, user: u64, holder: &Holder, seen: &Seen) -> bool {
        !self.0.is_empty() && self.0.get(key(user, holder)).is_some() && !is_usual(holder, seen)
    }
}

/// Whether the grant was often used from the network, and often with the client family.
fn is_usual(holder: &Holder, seen: &Seen) -> bool {
    is_own(seen, Feature::Network, holder.network) && is_own(seen, Feature::Family, holder.family)
}

/// Whether a value has the weight of several visits of the owner.
pub(crate) fn is_own(seen: &Seen, feature: Feature, key: u32) -> bool {
    seen.count(feature, key) >= OWN_VISITS
}

/// Clients choose neither the key of the user, which is a keyed hash, nor that of the network.
const fn key(user: u64, holder: &Holder) -> u64 {
    let pair = ((holder.network as u64) << 32 | holder.family as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let mixed = (user ^ pair ^ pair >> 32).wrapping_mul(0xd6e8_feb8_6659_fd93);
    mixed ^ mixed >> 32
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::NetLevel;

    #[test]
    fn thief_is_known_by_user_network_and_client() {
        let holder = |network, family| Holder::born(network, family, 0, NetLevel::NewNetwork);
        let (mut thieves, mut seen) = (Thieves::default(), Seen::default());
        assert!(!thieves.contains(1, &holder(2, 3), &seen));
        thieves.insert(1, &holder(2, 3), 0);
        assert!(thieves.contains(1, &holder(2, 3), &seen));
        for (user, network, family) in [(2, 2, 3), (1, 3, 3), (1, 2, 2), (1, 3, 2)] {
            assert!(!thieves.contains(user, &holder(network, family), &seen), "{user} {network} {family}");
        }
        for feature in [Feature::Network, Feature::Family] {
            assert!(thieves.contains(1, &holder(2, 3), &seen), "only one of the two is usual");
            for minute in 0..2 {
                seen.learn(feature, if feature == Feature::Network { 2 } else { 3 }, 1.0, minute);
            }
        }
        assert!(!thieves.contains(1, &holder(2, 3), &seen), "another grant of the user has them");
        thieves.remove(1, &holder(2, 3));
        assert!(!thieves.contains(1, &holder(2, 3), &Seen::default()));
    }
}

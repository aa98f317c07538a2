//! How new the network address and the client of a visit are to the owner, from known to new.

use serde::{Deserialize, Serialize};

use super::seen::sixteenths;

/// Number of levels of each kind.
pub(crate) const LEVELS: usize = 6;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[repr(u8)]
pub(crate) enum NetLevel {
    /// The address is known, or the event has none.
    #[default]
    KnownAddress,
    KnownPrefix,
    KnownNetwork,
    /// A network of the user's other tokens.
    UsersNetwork,
    NewNetwork,
    NewCountry,
}

#[cfg(test)]
impl NetLevel {
    pub(crate) const ALL: [Self; LEVELS] = [
        Self::KnownAddress,
        Self::KnownPrefix,
        Self::KnownNetwork,
        Self::UsersNetwork,
        Self::NewNetwork,
        Self::NewCountry,
    ];
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[repr(u8)]
pub(crate) enum ClientLevel {
    /// User agent and fingerprint are known.
    #[default]
    Known,
    NewFingerprint,
    /// Known family and version, new user agent text.
    NewText,
    NewVersion,
    /// A family of the user's other tokens.
    UsersFamily,
    NewFamily,
}

#[cfg(test)]
impl ClientLevel {
    pub(crate) const ALL: [Self; LEVELS] =
        [Self::Known, Self::NewFingerprint, Self::NewText, Self::NewVersion, Self::UsersFamily, Self::NewFamily];
}

/// Number of visits of each level of novelty, sixteenths.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct LevelCounts([u16; LEVELS]);

impl LevelCounts {
    pub(crate) fn get(&self) -> [f64; LEVELS] {
        self.0.map(|count| f64::from(count) / 16.0)
    }

    pub(crate) fn learn(&mut self, level: usize, weight: f64, minute: u32) {
        // Habits change: older visits lose weight after 200 visits.
        if self.0.iter().map(|count| u32::from(*count)).sum::<u32>() > 200 * 16 {
            self.0 = self.0.map(|count| count / 2);
        }
        self.0[level] += sixteenths(weight, level as u32, minute);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_are_in_the_order_of_their_numbers() {
        assert_eq!(NetLevel::ALL.map(|level| level as usize), std::array::from_fn(|number| number));
        assert_eq!(ClientLevel::ALL.map(|level| level as usize), std::array::from_fn(|number| number));
    }
}

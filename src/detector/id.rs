//! Names of the detectors.

use std::ops::{Index, IndexMut};

use super::table::detectors;
use crate::memory::holder::{DETECTORS_MAX, Evidence, Nats};

macro_rules! define {
    ($($(#[$attribute:meta])* $id:ident = $module:ident,)+) => {
        /// Identifies a detector, for example in `evaluate --without`.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum DetectorId {
            $($(#[$attribute])* $id,)+
        }

        impl DetectorId {
            const TABLE: &'static [(Self, &'static str)] =
                &[$($(#[$attribute])* (Self::$id, stringify!($module)),)+];

            /// Number of detectors.
            pub(crate) const COUNT: usize = Self::TABLE.len();
        }
    };
}
detectors!(define);

impl DetectorId {
    /// All detectors, in the order of the table.
    pub(crate) fn all() -> impl Iterator<Item = Self> + Clone {
        Self::TABLE.iter().map(|(id, _)| *id)
    }

    pub(crate) const fn name(self) -> &'static str {
        Self::TABLE[self as usize].1
    }
}

const _: () = assert!(DetectorId::COUNT <= DETECTORS_MAX, "raise DETECTORS_MAX in src/memory/holder.rs");

impl Index<DetectorId> for Evidence {
    type Output = Nats;

    fn index(&self, detector: DetectorId) -> &Nats {
        &self.sums[detector as usize]
    }
}

impl IndexMut<DetectorId> for Evidence {
    fn index_mut(&mut self, detector: DetectorId) -> &mut Nats {
        &mut self.sums[detector as usize]
    }
}

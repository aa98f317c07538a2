//! Memory of a table.

/// Bytes that a table uses, and the number of entries that were evicted from it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    pub bytes: usize,
    pub evicted: u64,
}

impl Usage {
    /// Sum of two tables.
    #[must_use]
    pub(crate) const fn plus(self, other: Self) -> Self {
        Self { bytes: self.bytes + other.bytes, evicted: self.evicted + other.evicted }
    }

    /// Sum of several tables.
    #[must_use]
    pub(crate) fn of_all(tables: impl IntoIterator<Item = Self>) -> Self {
        tables.into_iter().fold(Self::default(), Self::plus)
    }
}

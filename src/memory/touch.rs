//! Reading structs ahead of their use, so that they are in a cache by then.

/// Declares the fields that are read to fetch a struct, or a part of it, into a cache. A test checks their positions.
macro_rules! touch {
    ($of:ty { $($fields:tt)+ }) => {
        $crate::memory::touch::touch!($of: touch, touched { $($fields)+ });
    };
    ($of:ty: $touch:ident, $touched:ident { $($($field:ident).+ $([$at:expr])?),+ $(,)? }) => {
        impl $of {
            /// Prefetches it. The returned value has no meaning.
            pub(crate) fn $touch(&self) -> u64 {
                0 $(^ u64::from(self.$($field).+ $([$at])?))+
            }

            /// Offsets of the fields that are read, bytes.
            #[cfg(test)]
            pub(in crate::memory) fn $touched(&self) -> Vec<usize> {
                let begin = std::ptr::from_ref(self).addr();
                vec![$(std::ptr::from_ref(&self.$($field).+ $([$at])?).addr() - begin),+]
            }
        }
    };
}
pub(in crate::memory) use touch;

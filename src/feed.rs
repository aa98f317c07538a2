//! What the operator says of a source of events: a topic's entry in the configuration, or `[source.file]`.

use serde::Deserialize;
use serde::de::{Deserializer, Error};

use crate::format::Format;
use crate::sanitize::is_unsafe;

/// How the events of one topic or file are read, and how far they are believed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Feed {
    pub format: Format,
    /// Whether its `confirmed` events are believed. Anyone who can write to a topic could otherwise vouch for a theft.
    pub confirmed: bool,
    /// The tenant of all its events, whatever they say.
    pub tenant: Option<Tenant>,
}

impl From<Format> for Feed {
    fn from(format: Format) -> Self {
        Self { format, ..Self::default() }
    }
}

/// A tenant that the operator names. Its text is never freed: the configuration names few, and events of any lifetime
/// borrow it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tenant(&'static str);

impl Tenant {
    /// Longest name, bytes: as of an event's `tenant_id`.
    pub const BYTES_MAX: usize = 1024;

    /// `None` for an empty name, one that is too long, and one that holds a character that is not seen.
    #[must_use]
    pub fn new(name: &str) -> Option<Self> {
        let fits = (1..=Self::BYTES_MAX).contains(&name.len()) && !name.chars().any(is_unsafe);
        fits.then(|| Self(Box::leak(name.into())))
    }

    #[must_use]
    pub const fn as_str(self) -> &'static str {
        self.0
    }
}

impl<'de> Deserialize<'de> for Tenant {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let name = String::deserialize(deserializer)?;
        Self::new(&name).ok_or_else(|| D::Error::custom("a tenant's name, 1 to 1024 bytes of visible characters"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tenant_name_is_checked() {
        assert_eq!(Tenant::new("acme").map(Tenant::as_str), Some("acme"));
        assert_eq!(Tenant::new(""), None);
        assert_eq!(Tenant::new("a\nb"), None);
        assert_eq!(Tenant::new(&"a".repeat(1025)), None);
    }
}

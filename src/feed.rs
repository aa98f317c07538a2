//! Settings of one source of events: a topic in the configuration, or `[source.file]`.

use std::collections::HashMap;
use std::sync::Arc;

use serde::Deserialize;
use serde::de::{Deserializer, Error};

use crate::format::Format;
use crate::sanitize::is_unsafe;

/// How the events of one topic or file are read, and whether they are trusted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Feed {
    pub format: Format,
    /// Accepts `confirmed` events, and `concerns` in native `session_ended` events. Set it only for topics with trusted
    /// producers: the former can confirm a theft as legitimate, the latter can end all sessions of any user.
    pub confirmed: bool,
    /// Tenant of all its events. Replaces the tenant in the events.
    pub tenant: Option<Tenant>,
}

impl From<Format> for Feed {
    fn from(format: Format) -> Self {
        Self { format, ..Self::default() }
    }
}

/// Settings of the messages in one partition.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Feeds {
    /// Of messages that their producers sent to the topic of the partition.
    pub(crate) own: Feed,
    /// Of messages that were forwarded to the partition, by the topic to which their producers sent them.
    pub(crate) forwarded: HashMap<Arc<str>, Feed>,
}

impl From<Feed> for Feeds {
    fn from(own: Feed) -> Self {
        Self { own, forwarded: HashMap::new() }
    }
}

/// A tenant from the configuration. Its text is never freed, so that events of any lifetime can borrow it; a configuration
/// has few tenants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tenant(&'static str);

impl Tenant {
    /// Maximum length of the name, bytes. The same as for `tenant_id` of an event.
    pub(crate) const BYTES_MAX: usize = 1024;

    /// `None` if the name is empty, too long, or contains a character that [`is_unsafe`].
    pub fn new(name: &str) -> Option<Self> {
        let fits = (1..=Self::BYTES_MAX).contains(&name.len()) && !name.chars().any(is_unsafe);
        fits.then(|| Self(Box::leak(name.into())))
    }

    pub(crate) const fn as_str(self) -> &'static str {
        self.0
    }
}

impl<'de> Deserialize<'de> for Tenant {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let name = String::deserialize(deserializer)?;
        Self::new(&name)
            .ok_or_else(|| D::Error::custom("expected a tenant name of 1 to 1024 bytes without invisible characters"))
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

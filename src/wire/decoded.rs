//! Result of decoding one record.

use std::borrow::Cow;

use crate::event::Event;
use crate::feed::Tenant;

/// Result of one record.
#[derive(Clone, Debug, PartialEq)]
#[expect(clippy::large_enum_variant, reason = "nearly all are events, and a box for each would be an allocation")]
pub enum Decoded<'a> {
    Event(Event<'a>),
    /// A record without a token, with the reason.
    Skipped(&'static str),
}

impl Decoded<'_> {
    /// The same event in the tenant of the configuration. The tenant in the event becomes an attribute.
    pub(super) fn within(mut self, tenant: Tenant) -> Self {
        if let Self::Event(event) = &mut self {
            let sent = event.tenant_id.replace(Cow::Borrowed(tenant.as_str()));
            if let Some(sent) = sent.filter(|sent| sent != tenant.as_str()) {
                event.attrs.push((Cow::Borrowed("tenant_id"), sent));
            }
        }
        self
    }

    pub(super) fn into_owned(self) -> Decoded<'static> {
        match self {
            Self::Event(event) => Decoded::Event(event.into_owned()),
            Self::Skipped(reason) => Decoded::Skipped(reason),
        }
    }
}

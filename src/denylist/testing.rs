//! Parts that the tests of this module share.

use std::sync::atomic::{AtomicI64, Ordering};

use crate::port::{Clock, Denial, DeniedKey, DenylistRecord};
use crate::verdict::Target;

/// A clock that tests set.
#[derive(Default)]
pub(super) struct At(pub(super) AtomicI64);

impl Clock for At {
    fn now_millis(&self) -> i64 {
        self.0.load(Ordering::Relaxed)
    }
}

pub(super) fn denied(tenant: &str, target: Target, until: i64) -> DenylistRecord {
    let key = DeniedKey { tenant_id: tenant.to_owned(), target };
    DenylistRecord { key, denial: Denial::Denied { at: 0, until } }
}

pub(super) fn lifted(tenant: &str, target: Target) -> DenylistRecord {
    let denial = Denial::Lifted { at: 1, by: "ana".to_owned(), reason: "a false alarm".to_owned() };
    DenylistRecord { denial, ..denied(tenant, target, 0) }
}

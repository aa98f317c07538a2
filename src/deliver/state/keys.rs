//! What can be due in a lane, and the keys of changes, revocations and allowances.

use sha2::{Digest as _, Sha256};

use crate::deliver::record::REVOKE;
use crate::verdict::Incident;

/// When something is due in a lane.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::deliver) struct Due {
    /// Milliseconds since the epoch, wall clock.
    pub at: i64,
    pub(super) number: u64,
    pub item: Item,
}

/// What is due.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::deliver) enum Item {
    /// A message about this incident.
    Thread(u64),
    Notice(String),
    Revocation(String),
}

pub(super) fn item_of(lane: &str, key: &str) -> Item {
    match thread_of(key) {
        _ if lane == REVOKE => Item::Revocation(key.to_owned()),
        Some(incident) => Item::Thread(incident),
        None => Item::Notice(key.to_owned()),
    }
}

/// The incident whose change or message has this key: `INC-` and 16 hexadecimal digits begin it.
pub(super) fn thread_of(key: &str) -> Option<u64> {
    u64::from_str_radix(key.strip_prefix("INC-")?.get(..16)?, 16).ok()
}

/// Identity of one change of an incident: the event that made it, by tenant, id and content. Producers choose event
/// ids, and two events may share one. It stands in headers, so it is plain.
pub(in crate::deliver) fn change_key(incident: &Incident) -> String {
    format!("{}-{:016x}", incident.id, incident.change)
}

/// The idempotency key of an incident's revocation of one target in one tenant: constant over its changes. The names are
/// chosen by strangers, so the hash is one for which nobody can find two texts.
pub(in crate::deliver) fn revocation_key(incident: &Incident) -> Option<String> {
    use std::fmt::Write as _;

    let target = incident.revoke.as_ref()?;
    let mut hash = Sha256::new();
    for part in [&*incident.tenant_id, target.kind(), target.id()] {
        hash.update((part.len() as u64).to_le_bytes());
        hash.update(part);
    }
    let mut key = format!("{}-revoke-", incident.id);
    for byte in &hash.finalize()[..16] {
        let _ = write!(key, "{byte:02x}");
    }
    Some(key)
}

/// Whose allowance of revocations an incident uses: its tenant's, or the one that all new tenants share, for anyone can
/// invent a tenant.
pub(in crate::deliver) fn allowance(incident: &Incident) -> &str {
    if incident.tenant_is_new { NEW_TENANTS } else { &incident.tenant_id }
}

/// No id has a control character.
const NEW_TENANTS: &str = "\0new";

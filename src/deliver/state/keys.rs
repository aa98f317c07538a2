//! Items of a lane, and the keys of changes and revocations.

use sha2::{Digest as _, Sha256};

use crate::deliver::record::REVOKE;
use crate::number::hex;
use crate::verdict::Incident;

/// A due item of a lane.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::deliver) struct Due {
    /// Milliseconds since the epoch, wall clock.
    pub(crate) at: i64,
    pub(super) number: u64,
    pub(crate) item: Item,
}

/// A kind of delivery.
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

/// The incident of a change or message with this key, which begins with `INC-` and 16 hexadecimal digits.
pub(in crate::deliver) fn thread_of(key: &str) -> Option<u64> {
    u64::from_str_radix(key.strip_prefix("INC-")?.get(..16)?, 16).ok()
}

/// Identity of one change of an incident: tenant, id and content of its event. Producers choose event ids, so the id
/// alone
/// may not be unique. It is used in headers, so it contains only plain characters.
pub(in crate::deliver) fn change_key(incident: &Incident) -> String {
    format!("{}-{:016x}", incident.id, incident.change)
}

/// Idempotency key of a revocation: the same for all changes of an incident, different for each tenant and target.
/// Clients choose the names, so a collision-resistant hash is used.
pub(in crate::deliver) fn revocation_key(incident: &Incident) -> Option<String> {
    let target = incident.revoke.as_ref()?;
    let mut hash = Sha256::new();
    for part in [&*incident.tenant_id, target.kind(), target.id()] {
        hash.update((part.len() as u64).to_le_bytes());
        hash.update(part);
    }
    Some(format!("{}-revoke-{}", incident.id, hex(&hash.finalize()[..16])))
}

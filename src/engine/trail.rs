//! Follows the places and areas of each user, and finds appearances.

use std::borrow::Cow;

use super::state::State;
use crate::appearance::Appearance;
use crate::detector::words::place_text;
use crate::enrichment::{EnrichedEvent, Keys, NO_NETWORK};
use crate::memory::trail::Use;
use crate::millis::DAY_MS;
use crate::place::NetworkClass;
use crate::verdict::Victim;

/// An event whose time differs more from the time at which the log appended it is ignored.
const SKEW_MS_MAX: i64 = DAY_MS;

/// The user, or the grant, client or token of an event without one.
pub(super) fn trail_key(keys: &Keys) -> u64 {
    keys.user.unwrap_or(keys.baseline)
}

/// Learns a use whose credential was accepted. Reads only the event and the trail of its user: other events of the partition, and so the
/// number of partitions, have no effect.
pub(super) fn follow(state: &mut State, enriched: &EnrichedEvent<'_>) {
    let EnrichedEvent { event, keys, network, appended_at, .. } = enriched;
    let at = event.timestamp.millis();
    // Anyone can send what is answered before the credential is checked.
    if event.is_own_call()
        || event.is_unchecked()
        || appended_at.is_some_and(|appended| (at - appended).abs() > SKEW_MS_MAX)
    {
        return;
    }
    // Thieves and applications rent servers at the same providers, so a hosting network is no place.
    let is_hosting = network.as_ref().is_some_and(|network| network.class == NetworkClass::Hosting);
    let place = if is_hosting { keys.prefix } else { keys.network };
    let this = Use { at, place, area: enriched.route.area };
    if state.memory.trails.entry(trail_key(keys), at).follow(this) && keys.network != NO_NETWORK {
        state.appearance = Some(Box::new(appearance(state, enriched)));
    }
}

#[cold]
#[inline(never)] // Few uses are appearances.
fn appearance(state: &State, enriched: &EnrichedEvent<'_>) -> Appearance {
    let EnrichedEvent { event, keys, .. } = enriched;
    let text = |text: &Option<Cow<'_, str>>| text.as_deref().unwrap_or_default().to_owned();
    Appearance {
        at: event.timestamp,
        event: keys.event,
        tenant: keys.tenant,
        user: trail_key(keys),
        app: event.app_id.is_some().then_some(keys.app),
        network: keys.network,
        address: keys.address,
        grant: keys.baseline,
        tenant_is_known: state.memory.others.tenants.is_known(keys.tenant),
        tenant_id: text(&event.tenant_id),
        victim: Victim {
            token_id: event.token_id.as_str().to_owned(),
            family_id: text(&event.family_id),
            user_id: text(&event.user_id),
            app_id: text(&event.app_id),
        }
        .into(),
        token_type: event.token_type,
        expires_at: event.expires_at,
        event_id: event.event_id.to_string(),
        place: place_text(enriched),
        from: event.address.map_or_else(String::new, |address| address.to_string()),
    }
}

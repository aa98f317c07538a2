//! Thefts in which the thief gets tokens of their own, by a copied refresh token or through the owner's login.

use std::sync::Arc;

use super::past::Past;
use super::takeover::Login;
use super::{Loot, Planter};
use crate::event::{Kind, TokenType};
use crate::lab::simulate::apps::Tokens;
use crate::lab::simulate::networks::Network;
use crate::lab::simulate::record::Record;
use crate::lab::simulate::span::Depth;
use crate::lab::simulate::thief::Manner;
use crate::millis::{HOUR_MS, MINUTE_MS};

impl Planter {
    /// A copy of a refresh token that the owner has exchanged before, or exchanges later.
    pub(super) fn refresh_reuse(&mut self, past: &Past<'_>, networks: &[Network]) -> Option<Loot> {
        let Tokens::Rotating { minutes } = past.holder.app.tokens else { return None };
        let answered = |record: &&&Record| record.sighting.as_ref().is_some_and(|sighting| sighting.status == 200);
        let refreshes: Vec<&Record> = past.refreshes.iter().filter(answered).copied().collect();
        let thief_is_first = self.depth == Depth::Full && self.random.chance(0.4);
        let (_, earlier) = refreshes.split_last().filter(|(_, earlier)| !earlier.is_empty())?;
        let copied = *self.random.pick(if thief_is_first { &refreshes[1..] } else { earlier });
        let mut made_odd = Vec::new();
        let begins = if thief_is_first {
            // The owner's client presents the token that the thief exchanged minutes or hours before.
            let before = refreshes.iter().rev().find(|before| before.at < copied.at - 20 * MINUTE_MS)?;
            made_odd.push((copied.token, copied.at));
            copied.at - self.random.within(8 * MINUTE_MS..copied.at - before.at - 2 * MINUTE_MS)
        } else {
            let next = refreshes.iter().find(|later| later.at > copied.at + MINUTE_MS)?;
            next.at + self.random.within(10 * MINUTE_MS..5 * HOUR_MS)
        };
        let mut thief = match self.depth {
            Depth::Plain => self.far_thief(copied, networks, |_| true)?,
            Depth::Full => self.anywhere(copied, networks)?,
        };
        let refused = !thief_is_first && self.random.chance(0.5);
        let sighting = thief.at_token_endpoint(if refused { 400 } else { 200 });
        let mut stolen = vec![Record { at: begins, sighting: Some(sighting), ..copied.clone() }];
        if !refused {
            // The provider does not check, so the thief gets tokens in the same grant.
            let (refresh, access) = (self.random.bits(), self.random.bits());
            let expires_at = begins + minutes * MINUTE_MS;
            let issued = |token, token_type, expires_at, after| Record {
                at: begins + after,
                kind: Kind::Issued,
                token,
                token_type,
                parent: Some(copied.token),
                expires_at,
                sighting: None,
                ..copied.clone()
            };
            stolen.push(issued(refresh, TokenType::Refresh, None, 20));
            stolen.push(issued(access, TokenType::Access, Some(expires_at), 21));
            let mut taken = (*past.uses.first()?).clone();
            (taken.token, taken.expires_at) = (access, Some(expires_at));
            let mut manner = Manner::any(&mut self.random);
            manner.calls = self.random.within(3..12) as usize;
            stolen.extend(self.calls(
                past.target(&taken),
                (begins + 700, Some(expires_at)),
                &mut thief,
                &manner,
                networks,
            ));
        }
        Some(Loot { records: stolen, made_odd, stay: None })
    }

    /// The owner logs in through the thief's proxy, and the new session is the thief's.
    pub(super) fn phished_session(&mut self, past: &Past<'_>, networks: &[Network]) -> Option<Vec<Record>> {
        let owned = *self.random.pick(&past.uses);
        let mut thief = self.anywhere(owned, networks)?;
        let begins = owned.at + self.random.log_uniform(MINUTE_MS as f64, 4.0 * HOUR_MS as f64) as i64;
        let Login { holder, access, expires_at, issued } = self.login(past, begins)?;
        let mut stolen: Vec<Record> = issued.into();
        let mut taken = owned.clone();
        (taken.token, taken.expires_at, taken.holder) = (access, Some(expires_at), Arc::clone(&holder));
        let mut manner = Manner::any(&mut self.random);
        manner.calls = manner.calls.max(2);
        let begins = begins + self.random.log_uniform(400.0, 240_000.0) as i64;
        stolen.extend(self.calls(past.target(&taken), (begins, Some(expires_at)), &mut thief, &manner, networks));
        (stolen.len() > 2).then_some(stolen)
    }
}

//! Each holder's events of the day, and which kinds of theft fit them.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::kind::TheftKind;
use crate::event::{Kind, TokenType};
use crate::lab::simulate::apps::{App, DEPLOY, Tokens};
use crate::lab::simulate::record::{Holder, Record, Subject};
use crate::lab::simulate::span::Depth;
use crate::lab::simulate::thief::Target;

/// One holder's events of the day, in time order.
pub(super) struct Past<'r> {
    /// The grant, otherwise the token.
    pub(super) id: u64,
    pub(super) holder: &'r Arc<Holder>,
    pub(super) uses: Vec<&'r Record>,
    pub(super) refreshes: Vec<&'r Record>,
    /// Revocation or end of session.
    pub(super) end: Option<&'r Record>,
    /// The token has not been used for weeks, and `uses` has its last use.
    pub(super) sleeps: bool,
    /// Time at which the user's credential changed today.
    pub(super) changed_at: Option<i64>,
}

impl Past<'_> {
    /// The token of `owned`, one of the holder's events.
    pub(super) fn target<'a>(&'a self, owned: &'a Record) -> Target<'a> {
        Target { owned, habits: &self.uses }
    }

    fn is_bound(&self) -> bool {
        self.uses.iter().any(|record| record.sighting.as_ref().is_some_and(|sighting| sighting.binding.is_some()))
    }

    fn rotates(&self) -> bool {
        matches!(self.holder.app.tokens, Tokens::Rotating { .. })
    }

    /// Whether a theft of `kind` fits this holder's day.
    pub(super) fn suits(&self, kind: TheftKind, depth: Depth) -> bool {
        let app = self.holder.app;
        let family = self.holder.family.is_some();
        let uses = self.uses.len();
        let ended_by = |kind| self.end.is_some_and(|end| end.kind == kind);
        let lives = self.end.is_none();
        if self.is_bound() != (kind == TheftKind::BindingMismatch)
            || self.sleeps != (kind == TheftKind::SleepingKey)
            || uses == 0
        {
            return false;
        }
        match kind {
            TheftKind::Foreign if depth == Depth::Plain => family && uses > 3,
            TheftKind::Foreign
            | TheftKind::SameCountryVpn
            | TheftKind::ResidentialProxy
            | TheftKind::Insider
            | TheftKind::SlowAndLow
            | TheftKind::RecordScraping
            | TheftKind::BulkExport => lives && app.id != DEPLOY.id,
            TheftKind::BindingMismatch => lives && uses >= 3,
            TheftKind::TwoHolders if depth == Depth::Plain => family && uses >= 14,
            TheftKind::TwoHolders | TheftKind::VpnThief => lives && uses >= 8,
            TheftKind::NightBurst => {
                uses <= 150 && matches!(app.tokens, Tokens::Standing(TokenType::Personal | TokenType::ApiKey))
            }
            TheftKind::RefreshReuse => lives && self.rotates() && self.refreshes.len() >= 2,
            TheftKind::Campaign => is_plugin(app),
            TheftKind::PhishedSession => lives && app.has_sessions,
            TheftKind::ClonedMobile => lives && family && !app.has_sessions,
            TheftKind::LeakedCiSecret => lives && app.id == DEPLOY.id,
            TheftKind::RotationBypass => lives && self.rotates(),
            TheftKind::AfterRevocation => ended_by(Kind::Revoked),
            TheftKind::AfterLogout => ended_by(Kind::SessionEnded),
            TheftKind::AfterExpiry | TheftKind::LoginTakeover => lives && family,
            TheftKind::ClientSecret
            | TheftKind::ServiceToken
            | TheftKind::SleepingKey
            | TheftKind::AggregatorGrant
            | TheftKind::AggregatorStore
            | TheftKind::SourceExfiltration
            | TheftKind::SecretSearch => true,
            TheftKind::DeviceClone => lives && uses >= 4,
            TheftKind::StaleCredential => lives && self.changed_at.is_some(),
        }
    }
}

/// Each holder's day, ordered by id.
pub(super) fn pasts(records: &[Record]) -> Vec<Past<'_>> {
    let mut pasts: BTreeMap<u64, Past<'_>> = BTreeMap::new();
    let mut changes: BTreeMap<(&str, &Subject), i64> = BTreeMap::new();
    for record in records {
        if record.kind == Kind::CredentialChanged {
            changes.insert((record.holder.tenant, &record.holder.subject), record.at);
        }
        let id = victim(record);
        let past = pasts.entry(id).or_insert_with(|| Past {
            id,
            holder: &record.holder,
            uses: Vec::new(),
            refreshes: Vec::new(),
            end: None,
            sleeps: false,
            changed_at: None,
        });
        match record.kind {
            Kind::Use if record.sighting.as_ref().is_some_and(|sighting| sighting.status != 401) => {
                past.uses.push(record);
            }
            Kind::Refreshed => past.refreshes.push(record),
            Kind::Revoked | Kind::SessionEnded => past.end = Some(record),
            _ => {}
        }
    }
    for past in pasts.values_mut() {
        past.uses.sort_by_key(|record| record.at);
        past.refreshes.sort_by_key(|record| record.at);
        past.changed_at = changes.get(&(past.holder.tenant, &past.holder.subject)).copied();
    }
    pasts.into_values().collect()
}

/// The last use of a token that has not been used for weeks.
pub(super) fn sleeping(last: &Record) -> Past<'_> {
    Past {
        id: victim(last),
        holder: &last.holder,
        uses: vec![last],
        refreshes: Vec::new(),
        end: None,
        sleeps: true,
        changed_at: None,
    }
}

fn is_plugin(app: &App) -> bool {
    matches!(app.tokens, Tokens::Standing(TokenType::Access))
}

pub(super) fn victim(record: &Record) -> u64 {
    record.holder.id(record.token)
}

//! Life cycle of tokens: long-lived secrets, and grants that are refreshed, end and begin again.

use std::net::IpAddr;
use std::sync::Arc;

use super::apps::{App, Binding, Tokens};
use super::clients::Client;
use super::label::Label;
use super::networks::Zone;
use super::random::Random;
use super::record::{Call, Holder, Record, Sighting, Subject};
use super::span::Depth;
use crate::event::{Kind, TokenType};

/// A holder's grant for one application.
#[derive(Clone, Debug)]
pub(super) struct Grant {
    pub(crate) holder: Arc<Holder>,
    access: u64,
    access_until: i64,
    refresh: u64,
    /// The key that it is bound to.
    binding: Option<u64>,
    /// Its client refreshes the access token only after a 401.
    waits_for_401: bool,
    depth: Depth,
    ended: Option<Kind>,
}

/// Address and client of a visit.
#[derive(Clone, Debug)]
pub(super) struct Visitor {
    pub(crate) address: IpAddr,
    /// Address of the same device on its other network.
    pub(crate) hop: Option<IpAddr>,
    pub(crate) client: Arc<Client>,
    pub(crate) label: Option<Label>,
}

/// The owner of the grant.
#[derive(Clone, Debug)]
pub(super) struct Owner<'a> {
    pub(crate) tenant: &'static str,
    pub(crate) subject: Subject,
    pub(crate) zone: &'a Zone,
}

impl Grant {
    /// A grant that was issued before the simulation begins, without an `issued` event.
    pub(crate) fn new(owner: Owner<'_>, app: &'static App, depth: Depth, random: &mut Random) -> Self {
        let Owner { tenant, subject, zone } = owner;
        let holder = Holder { tenant, subject, app, family: family(app, random), zone: zone.clone() };
        let deep = depth == Depth::Full;
        let bound = deep && app.binding != Binding::None && random.chance(0.5);
        Self {
            holder: Arc::new(holder),
            access: random.bits(),
            access_until: i64::MIN,
            refresh: random.bits(),
            binding: bound.then(|| random.bits()),
            waits_for_401: deep && random.chance(0.3),
            depth,
            ended: None,
        }
    }

    /// Gives a long-lived token a grant.
    pub(crate) fn ensure_family(&mut self, random: &mut Random) {
        if self.holder.family.is_none() {
            self.holder = Arc::new(Holder { family: Some(random.bits() >> 16), ..Holder::clone(&self.holder) });
        }
    }

    pub(crate) const fn is_bound(&self) -> bool {
        self.binding.is_some()
    }

    /// Replaces the key that a bound grant proves possession of.
    pub(crate) fn renew_key(&mut self, random: &mut Random) {
        self.binding = self.binding.map(|_| random.bits());
    }

    pub(crate) const fn is_ended(&self) -> bool {
        self.ended.is_some()
    }

    /// Whether the grant was revoked without notice to its client.
    pub(crate) fn was_revoked(&self) -> bool {
        self.ended == Some(Kind::Revoked)
    }

    /// Makes one call at `at`, after a refresh if the access token has expired.
    pub(crate) fn call(&mut self, at: i64, visitor: &Visitor, call: Call, random: &mut Random, out: &mut Vec<Record>) {
        let expires_at = match self.holder.app.tokens {
            Tokens::Standing(_) => None,
            Tokens::Rotating { .. } | Tokens::Refreshing { .. } => Some(self.refreshed(at, visitor, call, random, out)),
            Tokens::Minted { .. } => Some(self.minted(at, visitor.label, random, out)),
        };
        let status = match random.below(1_000) {
            0..=3 => 404,
            4..=5 => 429,
            6 => 500,
            7 => 403,
            _ => 200,
        };
        let mut record = self.use_of(self.access, at, visitor, call, status);
        record.expires_at = expires_at;
        out.push(record);
    }

    /// A call by a client that has not yet noticed the end of its grant.
    pub(crate) fn stale_call(&self, at: i64, status: u16, label: Label, visitor: &Visitor, call: Call) -> Record {
        let expires_at = self.holder.family.map(|_| self.access_until);
        let record = self.use_of(self.access, at, visitor, call, status);
        Record { expires_at, label: Some(label), ..record }
    }

    /// The refused refresh of a client whose grant has ended.
    pub(crate) fn stale_refresh(&self, at: i64, label: Label, visitor: &Visitor) -> Option<Record> {
        self.holder.family?;
        let mut record = self.token_event(Kind::Refreshed, at, self.refresh, TokenType::Refresh, Some(visitor));
        record.sighting.as_mut()?.status = 400;
        record.label = Some(label);
        Some(record)
    }

    /// Ends the grant by `kind`: revocation or end of session. The event names the long-lived token.
    pub(crate) fn end(&mut self, at: i64, kind: Kind, out: &mut Vec<Record>) {
        let (token, token_type) = match self.holder.app.tokens {
            Tokens::Rotating { .. } | Tokens::Refreshing { .. } => (self.refresh, TokenType::Refresh),
            tokens @ (Tokens::Standing(_) | Tokens::Minted { .. }) => (self.access, tokens.in_calls()),
        };
        out.push(self.token_event(kind, at, token, token_type, None));
        if kind == Kind::Revoked && self.holder.family.is_some() && at < self.access_until {
            // The end of the access token is a separate event.
            out.push(self.token_event(kind, at + 15, self.access, TokenType::Access, None));
        }
        self.ended = Some(kind);
    }

    /// The user's password or factor changes, in the session of this grant.
    pub(crate) fn credential_changes(&self, at: i64) -> Record {
        self.token_event(Kind::CredentialChanged, at, self.access, self.holder.app.tokens.in_calls(), None)
    }

    /// Begins a new grant after a login or with a new secret: other tokens, and another family.
    pub(crate) fn begin_anew(&mut self, at: i64, label: Option<Label>, random: &mut Random, out: &mut Vec<Record>) {
        let old = &self.holder;
        self.holder = Arc::new(Holder {
            tenant: old.tenant,
            subject: old.subject.clone(),
            app: old.app,
            family: family(old.app, random),
            zone: old.zone.clone(),
        });
        (self.access, self.refresh) = (random.bits(), random.bits());
        self.binding = self.binding.map(|_| random.bits());
        self.ended = None;
        let (parent, first) = match self.holder.app.tokens {
            tokens @ (Tokens::Standing(_) | Tokens::Minted { .. }) => {
                self.access_until = at + tokens.lifetime_ms();
                (None, self.token_event(Kind::Issued, at, self.access, tokens.in_calls(), None))
            }
            tokens @ (Tokens::Rotating { .. } | Tokens::Refreshing { .. }) => {
                self.access_until = at + tokens.lifetime_ms();
                let first = self.token_event(Kind::Issued, at, self.refresh, TokenType::Refresh, None);
                (Some(self.refresh), first)
            }
        };
        out.push(Record { label, ..first });
        if parent.is_some() {
            let access = self.token_event(Kind::Issued, at + 2, self.access, TokenType::Access, None);
            out.push(Record { parent, label, expires_at: Some(self.access_until), ..access });
        }
    }

    fn use_of(&self, token: u64, at: i64, visitor: &Visitor, call: Call, status: u16) -> Record {
        let mut record = self.token_event(Kind::Use, at, token, self.holder.app.tokens.in_calls(), Some(visitor));
        if let Some(sighting) = &mut record.sighting {
            (sighting.call, sighting.status) = (Some(call), status);
        }
        record
    }

    /// Ensures a valid access token that the client obtained with its secret. Returns its expiry.
    fn minted(&mut self, at: i64, label: Option<Label>, random: &mut Random, out: &mut Vec<Record>) -> i64 {
        if at >= self.access_until {
            let asked_at = at - random.within(80..500);
            self.access = random.bits();
            self.access_until = asked_at + self.holder.app.tokens.lifetime_ms();
            if self.holder.app.logs_issuance {
                let issued = self.token_event(Kind::Issued, asked_at, self.access, TokenType::Access, None);
                out.push(Record { label, expires_at: Some(self.access_until), ..issued });
            }
        }
        self.access_until
    }

    /// Ensures a valid access token in the second before `at`. Returns its expiry.
    fn refreshed(&mut self, at: i64, visitor: &Visitor, call: Call, random: &mut Random, out: &mut Vec<Record>) -> i64 {
        if at < self.access_until {
            return self.access_until;
        }
        let instance = self.refresh;
        let asked_at = at - random.within(120..700);
        if self.waits_for_401 && self.access_until > i64::MIN {
            // Servers tolerate small differences between clocks and refuse afterwards.
            let within_leeway = asked_at - self.access_until < self.holder.app.leeway_ms;
            let scenario = if within_leeway { "expiry_leeway" } else { "stale_client" };
            let tried_at = asked_at - random.within(30..110);
            let status = if within_leeway { 200 } else { 401 };
            out.push(self.stale_call(tried_at, status, Label::honest(scenario, instance), visitor, call));
        }
        let rotates = self.holder.app.tokens.rotates();
        if rotates && random.chance(0.002) {
            // The response was lost. The same client presents its old refresh token again and gets a response.
            let label = Label::honest("lost_refresh", instance);
            let before = match self.depth {
                Depth::Plain => random.within(3_000..25_000),
                Depth::Full => random.log_uniform(2_000.0, 300_000.0) as i64,
            };
            let mut earlier = Visitor { label: Some(label), ..visitor.clone() };
            if let Some(hop) = visitor.hop
                && random.chance(0.35)
            {
                earlier.address = hop;
            }
            let presented = self.exchange(asked_at - before, &earlier, random, out);
            self.refresh = presented;
            let again = Visitor { label: Some(label), ..visitor.clone() };
            self.exchange(asked_at, &again, random, out);
            return self.access_until;
        }
        let presented = self.exchange(asked_at, visitor, random, out);
        if rotates && random.chance(0.005) {
            // Two requests of one client raced. The later one is refused, or gets a token that is never used.
            let label = Some(Label::honest("refresh_race", instance));
            let raced_at = asked_at + random.within(30..1_500);
            let mut race = self.token_event(Kind::Refreshed, raced_at, presented, TokenType::Refresh, Some(visitor));
            race.label = label;
            if self.depth == Depth::Full && random.chance(0.5) {
                let unused = random.bits();
                let issued = self.token_event(Kind::Issued, raced_at + 21, unused, TokenType::Access, None);
                out.push(Record {
                    parent: Some(presented),
                    label,
                    expires_at: Some(raced_at + self.holder.app.tokens.lifetime_ms()),
                    ..issued
                });
            } else if let Some(sighting) = &mut race.sighting {
                sighting.status = 400;
            }
            out.push(race);
        }
        self.access_until
    }

    /// Presents the refresh token, which it returns, and stores the new tokens.
    fn exchange(&mut self, at: i64, visitor: &Visitor, random: &mut Random, out: &mut Vec<Record>) -> u64 {
        let presented = self.refresh;
        out.push(self.token_event(Kind::Refreshed, at, presented, TokenType::Refresh, Some(visitor)));
        if self.holder.app.tokens.rotates() {
            self.refresh = random.bits();
            let successor = self.token_event(Kind::Issued, at + 20, self.refresh, TokenType::Refresh, None);
            out.push(Record { parent: Some(presented), label: visitor.label, ..successor });
        }
        self.access = random.bits();
        self.access_until = at + self.holder.app.tokens.lifetime_ms();
        let access = self.token_event(Kind::Issued, at + 21, self.access, TokenType::Access, None);
        out.push(Record {
            parent: Some(presented),
            label: visitor.label,
            expires_at: Some(self.access_until),
            ..access
        });
        presented
    }

    fn token_event(&self, kind: Kind, at: i64, token: u64, token_type: TokenType, visitor: Option<&Visitor>) -> Record {
        Record {
            at,
            kind,
            token,
            token_type,
            parent: None,
            holder: Arc::clone(&self.holder),
            expires_at: None,
            sighting: visitor.map(|visitor| Sighting {
                address: visitor.address,
                client: Arc::clone(&visitor.client),
                call: None,
                status: 200,
                binding: self.binding,
            }),
            label: visitor.and_then(|visitor| visitor.label),
        }
    }
}

fn family(app: &App, random: &mut Random) -> Option<u64> {
    match app.tokens {
        Tokens::Standing(_) | Tokens::Minted { .. } => None,
        Tokens::Rotating { .. } | Tokens::Refreshing { .. } => Some(random.bits() >> 16),
    }
}

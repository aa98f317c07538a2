//! How tokens live: standing secrets, and families that refresh.

use std::net::IpAddr;
use std::sync::Arc;

use super::apps::{App, Tokens};
use super::clients::Client;
use super::random::Random;
use super::record::{Call, Holder, Record, Sighting};
use crate::event::{Kind, TokenType};

/// What one holder was given for one application.
#[derive(Clone, Debug)]
pub(super) struct Grant {
    pub holder: Arc<Holder>,
    access: u64,
    access_until: i64,
    refresh: u64,
}

/// Where a visit comes from and with what.
#[derive(Clone, Debug)]
pub(super) struct Visitor {
    pub address: IpAddr,
    pub client: Arc<Client>,
}

impl Grant {
    /// A grant from before the story begins: nobody saw it issued.
    pub fn new(tenant: &'static str, user: &str, app: &'static App, offset_ms: i64, random: &mut Random) -> Self {
        let family = match app.tokens {
            Tokens::Standing(_) => None,
            Tokens::Rotating { .. } | Tokens::Refreshing { .. } => Some(random.bits() >> 16),
        };
        let holder = Arc::new(Holder { tenant, user: user.to_owned(), app, family, offset_ms });
        Self { holder, access: random.bits(), access_until: i64::MIN, refresh: random.bits() }
    }

    /// Uses the grant once at `at`, and refreshes it first where the access token has expired.
    pub fn call(&mut self, at: i64, visitor: &Visitor, call: Call, random: &mut Random, out: &mut Vec<Record>) {
        let (token_type, expires_at) = match self.holder.app.tokens {
            Tokens::Standing(token_type) => (token_type, None),
            Tokens::Rotating { minutes } => {
                (TokenType::Access, Some(self.refreshed(at, minutes, true, visitor, random, out)))
            }
            Tokens::Refreshing { minutes } => {
                (TokenType::Access, Some(self.refreshed(at, minutes, false, visitor, random, out)))
            }
        };
        let status = match random.below(1_000) {
            0..=3 => 404,
            4..=5 => 429,
            6 => 500,
            7 => 403,
            _ => 200,
        };
        out.push(Record {
            at,
            kind: Kind::Use,
            token: self.access,
            token_type,
            parent: None,
            holder: Arc::clone(&self.holder),
            expires_at,
            sighting: Some(sighting(visitor, Some(call), status)),
            theft: None,
        });
    }

    /// Makes sure of a valid access token, in the second before `at`. Returns its expiry.
    fn refreshed(
        &mut self,
        at: i64,
        minutes: i64,
        rotates: bool,
        visitor: &Visitor,
        random: &mut Random,
        out: &mut Vec<Record>,
    ) -> i64 {
        if at < self.access_until {
            return self.access_until;
        }
        let asked_at = at - random.within(120..700);
        let mut exchange = |grant: &mut Self, asked_at: i64, random: &mut Random| {
            let presented = grant.refresh;
            out.push(grant.token_event(Kind::Refreshed, asked_at, presented, TokenType::Refresh, None, Some(visitor)));
            if rotates {
                grant.refresh = random.bits();
                let (refresh, kind) = (grant.refresh, TokenType::Refresh);
                out.push(grant.token_event(Kind::Issued, asked_at + 20, refresh, kind, Some(presented), None));
            }
            grant.access = random.bits();
            grant.access_until = asked_at + minutes * 60_000;
            let access = grant.access;
            let mut issued =
                grant.token_event(Kind::Issued, asked_at + 21, access, TokenType::Access, Some(presented), None);
            issued.expires_at = Some(grant.access_until);
            out.push(issued);
            presented
        };
        if rotates && random.chance(0.002) {
            // The answer was lost on the way: the same client asks again with what it has, and is answered.
            let before = random.within(3_000..25_000);
            let presented = exchange(self, asked_at - before, random);
            self.refresh = presented;
        }
        let presented = exchange(self, asked_at, random);
        if rotates && random.chance(0.005) {
            // Two requests of one client raced, and the later one is refused.
            let raced_at = asked_at + random.within(30..1_500);
            let mut race =
                self.token_event(Kind::Refreshed, raced_at, presented, TokenType::Refresh, None, Some(visitor));
            race.sighting = Some(sighting(visitor, None, 400));
            out.push(race);
        }
        self.access_until
    }

    fn token_event(
        &self,
        kind: Kind,
        at: i64,
        token: u64,
        token_type: TokenType,
        parent: Option<u64>,
        visitor: Option<&Visitor>,
    ) -> Record {
        Record {
            at,
            kind,
            token,
            token_type,
            parent,
            holder: Arc::clone(&self.holder),
            expires_at: None,
            sighting: visitor.map(|visitor| sighting(visitor, None, 200)),
            theft: None,
        }
    }
}

fn sighting(visitor: &Visitor, call: Option<Call>, status: u16) -> Sighting {
    Sighting { address: visitor.address, client: Arc::clone(&visitor.client), call, status }
}

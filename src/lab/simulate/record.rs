//! One generated event, before and after it is written as native JSON.

use std::fmt::Write as _;
use std::io::Write as _;
use std::net::IpAddr;
use std::sync::Arc;

use jiff::Timestamp as Instant;

use super::apps::{App, Route};
use super::clients::Client;
use super::label::Label;
use super::networks::Zone;
use super::repositories::fill;
use crate::event::{Kind, TokenType};

/// The holder of a token.
#[derive(Clone, Debug)]
pub(super) struct Holder {
    pub(crate) tenant: &'static str,
    pub(crate) subject: Subject,
    pub(crate) app: &'static App,
    /// Grants with refresh tokens.
    pub(crate) family: Option<u64>,
    /// Time zone of the holder.
    pub(crate) zone: Zone,
}

/// Who acts with a token.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Subject {
    User(String),
    /// A client without a user (OAuth client credentials), by number. Its id includes the name of its application.
    Client(u64),
}

impl Holder {
    /// Identifies the holder of `token` among all holders: the grant, the client or the token.
    pub(crate) const fn id(&self, token: u64) -> u64 {
        match (self.family, &self.subject) {
            (Some(family), _) => family,
            (None, Subject::Client(number)) => *number,
            (None, Subject::User(_)) => token,
        }
    }
}

/// Additional attributes of a use: address, client and call.
#[derive(Clone, Debug)]
pub(super) struct Sighting {
    pub(crate) address: IpAddr,
    pub(crate) client: Arc<Client>,
    /// Absent at the token endpoint.
    pub(crate) call: Option<Call>,
    pub(crate) status: u16,
    /// Thumbprint of the key that the request proved possession of.
    pub(crate) binding: Option<u64>,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Call {
    pub(crate) route: &'static Route,
    pub(crate) object: u64,
    pub(crate) bytes: u32,
}

#[derive(Clone, Debug)]
pub(super) struct Record {
    /// Milliseconds since the epoch.
    pub(crate) at: i64,
    pub(crate) kind: Kind,
    pub(crate) token: u64,
    pub(crate) token_type: TokenType,
    pub(crate) parent: Option<u64>,
    pub(crate) holder: Arc<Holder>,
    /// Milliseconds since the epoch.
    pub(crate) expires_at: Option<i64>,
    pub(crate) sighting: Option<Sighting>,
    /// Never written into the event.
    pub(crate) label: Option<Label>,
}

impl Record {
    /// Appends the event as one line of JSON. The texts contain no characters that need escapes.
    pub(crate) fn write(&self, event_id: &str, out: &mut Vec<u8>) {
        let holder = &self.holder;
        put(out, format_args!("{{\"event_id\":\"{event_id}\",\"timestamp\":\"{}\"", Rfc3339(self.at)));
        if self.kind != Kind::Use {
            put(out, format_args!(",\"kind\":\"{}\"", self.kind.as_str()));
        }
        put(out, format_args!(",\"token_id\":\"{:016x}\",\"token_type\":\"{}\"", self.token, self.token_type.as_str()));
        if let Some(family) = holder.family {
            put(out, format_args!(",\"family_id\":\"g-{family:012x}\""));
        }
        if holder.app.has_sessions
            && let Some(family) = holder.family
        {
            put(out, format_args!(",\"session_id\":\"s-{family:012x}\""));
        }
        if let Some(parent) = self.parent {
            put(out, format_args!(",\"parent_token_id\":\"{parent:016x}\""));
        }
        let (app, tenant) = (holder.app.id, holder.tenant);
        match &holder.subject {
            Subject::User(user) => put(out, format_args!(",\"user_id\":\"{user}\",\"app_id\":\"{app}\"")),
            Subject::Client(number) => put(out, format_args!(",\"app_id\":\"{app}-{number}\"")),
        }
        put(out, format_args!(",\"tenant_id\":\"{tenant}\""));
        if let Some(sighting) = &self.sighting {
            let Sighting { address, client, .. } = sighting;
            put(out, format_args!(",\"ip_address\":\"{address}\",\"user_agent\":\"{}\"", client.agent));
            // The older gateway logs neither.
            if !sighting.call.is_some_and(|call| call.route.bare) {
                put(out, format_args!(",\"client_fingerprint\":\"{}\"", client.fingerprint));
                if let Some(key) = sighting.binding {
                    put(out, format_args!(",\"binding\":\"{}:{}\"", holder.app.binding.prefix(), Thumbprint(key)));
                }
            }
            if let Some(Call { route, object, bytes }) = sighting.call {
                put(out, format_args!(",\"method\":\"{}\",\"endpoint\":\"", route.method));
                match route.path.split_once("{}") {
                    None if route.path.contains("{repo}") => put(out, format_args!("{}\"", fill(route.path, object))),
                    Some((before, after)) => put(out, format_args!("{before}{object}{after}\"")),
                    None => put(out, format_args!("{}\"", route.path)),
                }
                put(out, format_args!(",\"bytes_out\":{bytes}"));
            }
            put(out, format_args!(",\"status\":{}", sighting.status));
        }
        if let Some(expires_at) = self.expires_at {
            put(out, format_args!(",\"expires_at\":\"{}\"", Rfc3339(expires_at)));
        }
        out.extend_from_slice(b"}\n");
    }
}

/// A SHA-256 in base64url (RFC 7638): 43 characters, derived from `0`.
struct Thumbprint(u64);

impl std::fmt::Display for Thumbprint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
        let mut bits = self.0;
        for _ in 0..43 {
            bits = bits.wrapping_mul(0xD134_2543_DE82_EF95).wrapping_add(0x9E37_79B9_7F4A_7C15);
            f.write_char(char::from(DIGITS[(bits >> 58) as usize]))?;
        }
        Ok(())
    }
}

fn put(out: &mut Vec<u8>, text: std::fmt::Arguments<'_>) {
    // Writing to memory cannot fail.
    let _ = out.write_fmt(text);
}

/// A time in RFC 3339 with milliseconds.
struct Rfc3339(i64);

impl std::fmt::Display for Rfc3339 {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:.3}", Instant::from_millisecond(self.0).unwrap_or(Instant::UNIX_EPOCH))
    }
}

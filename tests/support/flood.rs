//! Floods of events that fill tables of the memory.

use std::fmt::Write as _;

/// Monday, 2 February 2026, 00:00 UTC.
const START_MS: u64 = 1_769_990_400_000;
const HOUR_MS: u64 = 3_600_000;

/// What is new in the events of a flood.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Flood {
    /// Each event has a token of its own.
    Tokens,
    /// Each event has a token and a user of its own, in one tenant.
    Users,
    /// The same in invented tenants.
    Tenants,
    /// Grants with visits in five hours, which are therefore established. One in five events is the first of a grant.
    Grants,
    /// One token from many addresses, with many routes and areas.
    OneToken,
    /// Grants that are revoked and used again by another client.
    Alerts,
    /// Refresh tokens and issued tokens with expiry, user and session ends.
    LifeCycle,
}

impl Flood {
    pub(crate) const ALL: [Self; 7] =
        [Self::Tokens, Self::Users, Self::Tenants, Self::Grants, Self::OneToken, Self::Alerts, Self::LifeCycle];

    /// Appends event `number` of `count` as a line of native JSON.
    pub(crate) fn write(self, number: u64, count: u64, to: &mut String) {
        let address =
            |number: u64| format!("{}.{}.{}.{}", 11 + number % 90, number >> 16 & 255, number >> 8 & 255, number & 255);
        let (mut at, mut kind) = (START_MS + number, "use");
        let rest = match self {
            Self::Tokens => format!(r#""token_id":"t{number}","ip_address":"{}""#, address(number)),
            Self::Users => format!(
                r#""token_id":"t{number}","user_id":"u{number}","tenant_id":"acme","ip_address":"{}""#,
                address(number)
            ),
            Self::Tenants => format!(
                r#""token_id":"t{number}","user_id":"u{number}","tenant_id":"x{}","ip_address":"{}""#,
                number % 100_000,
                address(number)
            ),
            Self::Grants => {
                let grants = (count / 5).max(1);
                let grant = number % grants;
                at = START_MS + number / grants * HOUR_MS + grant * HOUR_MS / grants;
                format!(
                    r#""token_id":"t{number}","family_id":"g{grant}","user_id":"u{grant}","app_id":"crm","tenant_id":"t{}","ip_address":"{}","endpoint":"/v1/contacts""#,
                    grant % 20,
                    address(grant)
                )
            }
            Self::OneToken => format!(
                r#""token_id":"t","user_id":"u","app_id":"crm","ip_address":"{}","endpoint":"/v1/names{number}/area{}","user_agent":"agent{}/1.0""#,
                address(number),
                number % 1_000,
                number % 5_000
            ),
            Self::Alerts => {
                let grant = number / 4;
                let (kind_of, client) = [("use", 1), ("use", 1), ("revoked", 1), ("use", 2)][(number % 4) as usize];
                kind = kind_of;
                at = START_MS + number % 4 * HOUR_MS * 2 + number;
                format!(
                    r#""token_id":"token-{grant}-{:0>180}","family_id":"g{grant}","user_id":"u{grant}","app_id":"crm","ip_address":"{}","user_agent":"agent{client}/1.0""#,
                    grant,
                    address(grant * client)
                )
            }
            Self::LifeCycle => {
                kind = ["issued", "refreshed", "revoked", "session_ended"][(number % 4) as usize];
                format!(
                    r#""token_id":"t{number}","parent_token_id":"p{number}","user_id":"u{number}","session_id":"s{number}","token_type":"refresh","ip_address":"{}","expires_at":{}"#,
                    address(number),
                    at + 24 * HOUR_MS
                )
            }
        };
        let _ = writeln!(to, r#"{{"event_id":"e{number}","timestamp":{at},"kind":"{kind}",{rest}}}"#);
    }
}

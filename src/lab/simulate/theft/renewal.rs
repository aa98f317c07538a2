//! A thief who gets access tokens with a copied refresh token that does not rotate.

use super::Planter;
use super::past::Past;
use crate::event::{Kind, TokenType};
use crate::lab::simulate::record::Record;
use crate::lab::simulate::thief::Thief;

impl Planter {
    /// Ensures that `token` is valid at `at`. `None` if it has expired and the holder has no refresh token.
    pub(super) fn renew(
        &mut self,
        token: &mut Record,
        past: &Past<'_>,
        at: i64,
        thief: &Thief,
        stolen: &mut Vec<Record>,
    ) -> Option<()> {
        if token.expires_at.is_none_or(|expiry| at < expiry) {
            return Some(());
        }
        let refresh = *past.refreshes.last()?;
        let sighting = thief.at_token_endpoint(200);
        token.token = self.random.bits();
        token.expires_at = Some(at + past.holder.app.tokens.lifetime_ms());
        stolen.push(Record { at, sighting: Some(sighting), label: None, ..refresh.clone() });
        stolen.push(Record {
            at: at + 21,
            kind: Kind::Issued,
            token_type: TokenType::Access,
            parent: Some(refresh.token),
            sighting: None,
            label: None,
            ..token.clone()
        });
        Some(())
    }
}

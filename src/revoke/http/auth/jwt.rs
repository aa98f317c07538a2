//! JSON Web Tokens signed with RS256 (RFC 7515, RFC 7518 section 3.3). OpenSSL signs.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use openssl::error::ErrorStack;
use openssl::hash::MessageDigest;
use openssl::pkey::{PKey, Private};
use openssl::sign::Signer;
use serde_json::{Value, json};

/// A private RSA key.
pub(super) struct Key(PKey<Private>);

impl Key {
    /// `pem`: PKCS #1 or PKCS #8. `None` if it is not an RSA key in this format.
    pub(super) fn parse(pem: &str) -> Option<Self> {
        let key = PKey::private_key_from_pem(pem.as_bytes()).ok()?;
        key.rsa().is_ok().then_some(Self(key))
    }

    /// The signed token with these claims.
    pub(super) fn sign(&self, claims: &Value) -> Result<String, ErrorStack> {
        let header = json!({ "alg": "RS256", "typ": "JWT" });
        let parts = [&header, claims].map(|part| URL_SAFE_NO_PAD.encode(part.to_string()));
        let text = parts.join(".");
        let mut signer = Signer::new(MessageDigest::sha256(), &self.0)?;
        signer.update(text.as_bytes())?;
        Ok(format!("{text}.{}", URL_SAFE_NO_PAD.encode(signer.sign_to_vec()?)))
    }
}

#[cfg(test)]
mod tests {
    use openssl::ec::{EcGroup, EcKey};
    use openssl::nid::Nid;
    use openssl::rsa::Rsa;
    use openssl::sign::Verifier;

    use super::*;

    #[test]
    fn jwt_has_a_valid_signature() {
        let key = PKey::from_rsa(Rsa::generate(2048).expect("a key")).expect("a key");
        let pems =
            [key.private_key_to_pem_pkcs8().expect("PEM"), key.rsa().expect("RSA").private_key_to_pem().expect("PEM")];
        for pem in pems {
            let token = Key::parse(std::str::from_utf8(&pem).expect("text")).expect("a key");
            let token = token.sign(&json!({ "iss": "app", "exp": 1 })).expect("a token");
            let (signed, signature) = token.rsplit_once('.').expect("a signature");
            let mut verifier = Verifier::new(MessageDigest::sha256(), &key).expect("a verifier");
            verifier.update(signed.as_bytes()).expect("text");
            assert!(verifier.verify(&URL_SAFE_NO_PAD.decode(signature).expect("base64")).expect("a check"));
            let parts: Vec<_> = signed.split('.').map(|part| URL_SAFE_NO_PAD.decode(part).expect("base64")).collect();
            assert_eq!(parts, [&br#"{"alg":"RS256","typ":"JWT"}"#[..], br#"{"exp":1,"iss":"app"}"#]);
        }
    }

    #[test]
    fn key_must_be_rsa_in_pem() {
        let group = EcGroup::from_curve_name(Nid::X9_62_PRIME256V1).expect("a curve");
        let curve = PKey::from_ec_key(EcKey::generate(&group).expect("a key")).expect("a key");
        let pem = String::from_utf8(curve.private_key_to_pem_pkcs8().expect("PEM")).expect("text");
        for text in ["", "s3cret", &pem] {
            assert!(Key::parse(text).is_none());
        }
    }
}

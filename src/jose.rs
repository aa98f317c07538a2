//! JSON Web Signatures in compact form (RFC 7515), with the algorithms RS256 and ES256 (RFC 7518) and EdDSA with Ed25519
//! (RFC 8037). OpenSSL signs and verifies.
//!
//! The algorithm belongs to the key, not to the token: a token whose header names another one is rejected.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use openssl::bn::BigNum;
use openssl::ec::{EcGroup, EcKey};
use openssl::ecdsa::EcdsaSig;
use openssl::error::ErrorStack;
use openssl::hash::MessageDigest;
use openssl::nid::Nid;
use openssl::pkey::{Id, PKey, Private, Public};
use openssl::rsa::Rsa;
use openssl::sign::{Signer, Verifier};
use serde::Deserialize;
use serde_json::{Map, Value};

/// Maximum length of a token, bytes.
pub(crate) const TOKEN_BYTES_MAX: usize = 16 << 10;
/// Smallest RSA key, RFC 7518 section 3.3.
const RSA_BITS_MIN: u32 = 2_048;
/// Length of each of the two numbers of an ES256 signature, RFC 7518 section 3.4.
const ES256_NUMBER_BYTES: usize = 32;
/// Maximum number of keys that are used of a set.
const KEYS_MAX: usize = 100;

/// A signature algorithm. There is no symmetric one and no `none`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub(crate) enum Algorithm {
    #[serde(rename = "RS256")]
    Rs256,
    #[serde(rename = "ES256")]
    Es256,
    #[serde(rename = "EdDSA")]
    EdDsa,
}

impl Algorithm {
    pub(crate) const ALL: [Self; 3] = [Self::Rs256, Self::Es256, Self::EdDsa];

    /// The name in headers and in the configuration.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Rs256 => "RS256",
            Self::Es256 => "ES256",
            Self::EdDsa => "EdDSA",
        }
    }

    fn of_key(id: Id) -> Option<Self> {
        match id {
            Id::RSA => Some(Self::Rs256),
            Id::EC => Some(Self::Es256),
            Id::ED25519 => Some(Self::EdDsa),
            _ => None,
        }
    }
}

/// Why a token is rejected. Contains no value of the token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Rejected {
    #[error("is not a signed token in compact form with a key id (kid)")]
    Malformed,
    #[error("has an algorithm that is not allowed, or not that of its key")]
    Algorithm,
    #[error("has a key id (kid) that is not in the set of keys")]
    UnknownKey,
    #[error("has a wrong signature")]
    Signature,
}

/// A private key that signs.
pub(crate) struct SigningKey {
    key: PKey<Private>,
    algorithm: Algorithm,
}

impl SigningKey {
    /// `pem`: an RSA key of at least 2,048 bits, a P-256 key or an Ed25519 key. `None` for anything else.
    pub(crate) fn parse(pem: &str) -> Option<Self> {
        let key = PKey::private_key_from_pem(pem.as_bytes()).ok()?;
        let algorithm = Algorithm::of_key(key.id())?;
        let is_usable = match algorithm {
            Algorithm::Rs256 => key.bits() >= RSA_BITS_MIN,
            Algorithm::Es256 => key.ec_key().ok()?.group().curve_name() == Some(Nid::X9_62_PRIME256V1),
            Algorithm::EdDsa => true,
        };
        is_usable.then_some(Self { key, algorithm })
    }

    pub(crate) const fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// The token with `claims`. `header`: the fields of its header besides `alg`.
    pub(crate) fn sign(&self, mut header: Map<String, Value>, claims: &Value) -> Result<String, ErrorStack> {
        header.insert("alg".to_owned(), self.algorithm.as_str().into());
        let parts = [Value::Object(header).to_string(), claims.to_string()].map(|part| URL_SAFE_NO_PAD.encode(part));
        let text = parts.join(".");
        let signature = match self.algorithm {
            Algorithm::EdDsa => Signer::new_without_digest(&self.key)?.sign_oneshot_to_vec(text.as_bytes())?,
            Algorithm::Rs256 | Algorithm::Es256 => {
                let mut signer = Signer::new(MessageDigest::sha256(), &self.key)?;
                signer.update(text.as_bytes())?;
                let signature = signer.sign_to_vec()?;
                if self.algorithm == Algorithm::Es256 { numbers(&signature)? } else { signature }
            }
        };
        Ok(format!("{text}.{}", URL_SAFE_NO_PAD.encode(signature)))
    }
}

/// The form of JWS for an ECDSA signature in DER.
fn numbers(der: &[u8]) -> Result<Vec<u8>, ErrorStack> {
    let signature = EcdsaSig::from_der(der)?;
    let size = i32::try_from(ES256_NUMBER_BYTES).unwrap_or(i32::MAX);
    Ok([signature.r().to_vec_padded(size)?, signature.s().to_vec_padded(size)?].concat())
}

/// A public key that verifies.
struct VerifyingKey {
    id: String,
    key: PKey<Public>,
    algorithm: Algorithm,
}

impl VerifyingKey {
    /// A key of a set, RFC 7517. `None` if it is of another type or for another use, or too weak.
    fn of(jwk: &Value) -> Option<Self> {
        let text = |name: &str| jwk.get(name).and_then(Value::as_str);
        let bytes = |name: &str| URL_SAFE_NO_PAD.decode(text(name)?).ok();
        let number = |name: &str| BigNum::from_slice(&bytes(name)?).ok();
        let id = text("kid").filter(|id| !id.is_empty())?.to_owned();
        if text("use").is_some_and(|purpose| purpose != "sig") {
            return None;
        }
        let (key, algorithm) = match (text("kty")?, text("crv")) {
            ("RSA", _) => {
                let key = PKey::from_rsa(Rsa::from_public_components(number("n")?, number("e")?).ok()?).ok()?;
                (Some(key).filter(|key| key.bits() >= RSA_BITS_MIN)?, Algorithm::Rs256)
            }
            ("EC", Some("P-256")) => {
                let group = EcGroup::from_curve_name(Nid::X9_62_PRIME256V1).ok()?;
                // Fails for a point that is not on the curve.
                let key = EcKey::from_public_key_affine_coordinates(&group, &*number("x")?, &*number("y")?).ok()?;
                (PKey::from_ec_key(key).ok()?, Algorithm::Es256)
            }
            ("OKP", Some("Ed25519")) => {
                (PKey::public_key_from_raw_bytes(&bytes("x")?, Id::ED25519).ok()?, Algorithm::EdDsa)
            }
            _ => return None,
        };
        let is_named = text("alg").is_none_or(|name| name == algorithm.as_str());
        is_named.then_some(Self { id, key, algorithm })
    }

    fn verifies(&self, signed: &[u8], signature: &[u8]) -> bool {
        let verified = || -> Result<bool, ErrorStack> {
            match self.algorithm {
                Algorithm::EdDsa => Verifier::new_without_digest(&self.key)?.verify_oneshot(signature, signed),
                Algorithm::Rs256 => {
                    let mut verifier = Verifier::new(MessageDigest::sha256(), &self.key)?;
                    verifier.update(signed)?;
                    verifier.verify(signature)
                }
                Algorithm::Es256 => {
                    if signature.len() != 2 * ES256_NUMBER_BYTES {
                        return Ok(false);
                    }
                    let (r, s) = signature.split_at(ES256_NUMBER_BYTES);
                    let pair = EcdsaSig::from_private_components(BigNum::from_slice(r)?, BigNum::from_slice(s)?)?;
                    let mut verifier = Verifier::new(MessageDigest::sha256(), &self.key)?;
                    verifier.update(signed)?;
                    verifier.verify(&pair.to_der()?)
                }
            }
        };
        verified().unwrap_or(false)
    }
}

/// The public keys of an issuer (JWK Set, RFC 7517 section 5).
#[derive(Default)]
pub(crate) struct KeySet(Vec<VerifyingKey>);

impl KeySet {
    /// Keys that cannot be used are left out. The error contains no value.
    pub(crate) fn parse(json: &[u8]) -> Result<Self, &'static str> {
        let set: Value = serde_json::from_slice(json).map_err(|_| "is not JSON")?;
        let keys = set.get("keys").and_then(Value::as_array).ok_or("has no list `keys` (RFC 7517 section 5)")?;
        let keys: Vec<_> = keys.iter().take(KEYS_MAX).filter_map(VerifyingKey::of).collect();
        if keys.is_empty() {
            return Err("has no public key with a `kid` for RS256, ES256 or EdDSA");
        }
        Ok(Self(keys))
    }

    pub(crate) fn has(&self, id: &str) -> bool {
        self.0.iter().any(|key| key.id == id)
    }

    /// Verifies `token`, with one of the algorithms `allowed`.
    pub(crate) fn verify(&self, token: &str, allowed: &[Algorithm]) -> Result<Signed, Rejected> {
        let parts = Parts::of(token)?;
        let algorithm =
            allowed.iter().find(|allowed| allowed.as_str() == parts.algorithm).ok_or(Rejected::Algorithm)?;
        let mut named = self.0.iter().filter(|key| key.id == parts.key_id).peekable();
        named.peek().ok_or(Rejected::UnknownKey)?;
        let key = named.find(|key| key.algorithm == *algorithm).ok_or(Rejected::Algorithm)?;
        if !key.verifies(parts.signed.as_bytes(), &parts.signature) {
            return Err(Rejected::Signature);
        }
        let claims = URL_SAFE_NO_PAD.decode(parts.claims).map_err(|_| Rejected::Malformed)?;
        let claims = serde_json::from_slice(&claims).map_err(|_| Rejected::Malformed)?;
        Ok(Signed { kind: parts.kind, claims })
    }
}

/// Content of a verified token.
#[derive(Debug)]
pub(crate) struct Signed {
    /// `typ` of the header; empty if absent.
    pub(crate) kind: String,
    pub(crate) claims: Map<String, Value>,
}

impl Signed {
    /// The text claim `name`, if it is not empty.
    pub(crate) fn text(&self, name: &str) -> Option<&str> {
        self.claims.get(name).and_then(Value::as_str).filter(|text| !text.is_empty())
    }

    /// The time claim `name`, milliseconds since the epoch (RFC 7519 section 2, NumericDate).
    pub(crate) fn time(&self, name: &str) -> Option<i64> {
        let seconds = self.claims.get(name)?.as_f64()?;
        let millis = seconds * 1_000.0;
        (millis.abs() < 9e15).then_some(millis as i64)
    }

    /// Whether it is for `audience` (RFC 7519 section 4.1.3).
    pub(crate) fn is_for(&self, audience: &str) -> bool {
        match self.claims.get("aud") {
            Some(Value::String(one)) => one == audience,
            Some(Value::Array(all)) => all.iter().any(|one| one == audience),
            _ => false,
        }
    }
}

/// The parts of a token before its verification.
struct Parts<'t> {
    algorithm: String,
    key_id: String,
    kind: String,
    signed: &'t str,
    claims: &'t str,
    signature: Vec<u8>,
}

impl<'t> Parts<'t> {
    fn of(token: &'t str) -> Result<Self, Rejected> {
        if token.len() > TOKEN_BYTES_MAX {
            return Err(Rejected::Malformed);
        }
        let (signed, signature) = token.rsplit_once('.').ok_or(Rejected::Malformed)?;
        let (header, claims) = signed.split_once('.').ok_or(Rejected::Malformed)?;
        let decode = |part: &str| URL_SAFE_NO_PAD.decode(part).map_err(|_| Rejected::Malformed);
        let header: Map<String, Value> = serde_json::from_slice(&decode(header)?).map_err(|_| Rejected::Malformed)?;
        let text = |name: &str| header.get(name).and_then(Value::as_str);
        // Extensions that this code does not implement must be rejected, RFC 7515 section 4.1.11.
        if header.contains_key("crit") || claims.contains('.') {
            return Err(Rejected::Malformed);
        }
        Ok(Self {
            algorithm: text("alg").ok_or(Rejected::Malformed)?.to_owned(),
            key_id: text("kid").filter(|id| !id.is_empty()).ok_or(Rejected::Malformed)?.to_owned(),
            kind: text("typ").unwrap_or_default().to_owned(),
            signed,
            claims,
            signature: decode(signature)?,
        })
    }
}

/// The key id that `token` names, before its verification.
pub(crate) fn key_id(token: &str) -> Result<String, Rejected> {
    Parts::of(token).map(|parts| parts.key_id)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn key(jwk: &Value) -> VerifyingKey {
        VerifyingKey::of(jwk).expect("a key")
    }

    fn verifies(jwk: &Value, token: &str) -> bool {
        let (signed, signature) = token.rsplit_once('.').expect("a signature");
        key(jwk).verifies(signed.as_bytes(), &URL_SAFE_NO_PAD.decode(signature).expect("base64"))
    }

    #[test]
    fn examples_of_the_rfcs_verify() {
        // RFC 7515 appendix A.3.
        let es256 = json!({ "kty": "EC", "kid": "1", "crv": "P-256",
            "x": "f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU", "y": "x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0" });
        let token = "eyJhbGciOiJFUzI1NiJ9.eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS\
                     9pc19yb290Ijp0cnVlfQ.DtEhU3ljbEg8L38VWAfUAqOyKAM6-Xx-F4GawxaepmXFCgfTjDxw5djxLa8ISlSApmWQxfKTUJqPP3\
                     -Kg6NU1Q";
        assert!(verifies(&es256, token));
        assert!(!verifies(&es256, &token.replace("eyJpc3", "eyJpc2")));
        // RFC 8037 appendix A.4.
        let ed25519 = json!({ "kty": "OKP", "kid": "1", "crv": "Ed25519",
            "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo" });
        let token = "eyJhbGciOiJFZERTQSJ9.RXhhbXBsZSBvZiBFZDI1NTE5IHNpZ25pbmc.hgyY0il_MGCjP0JzlnLWG1PPOt7-09PGcvMg3A\
                     IbQR6dWbhijcNR4ki4iylGjg5BhVsPt9g7sVvpAr_MuM0KAg";
        assert!(verifies(&ed25519, token));
        assert!(!verifies(&ed25519, &token.replace("RXhhbX", "RXhhbY")));
    }

    fn number(number: &openssl::bn::BigNumRef) -> String {
        URL_SAFE_NO_PAD.encode(number.to_vec())
    }

    /// A private key of each algorithm in PEM, and its public key.
    fn pairs() -> [(String, Value); 3] {
        let rsa = Rsa::generate(2_048).expect("a key");
        let rsa_jwk = json!({ "kty": "RSA", "kid": "rsa", "n": number(rsa.n()), "e": number(rsa.e()) });
        let group = EcGroup::from_curve_name(Nid::X9_62_PRIME256V1).expect("a curve");
        let ec = EcKey::generate(&group).expect("a key");
        let (mut x, mut y) = (BigNum::new().expect("a number"), BigNum::new().expect("a number"));
        let mut context = openssl::bn::BigNumContext::new().expect("a context");
        ec.public_key().affine_coordinates(&group, &mut x, &mut y, &mut context).expect("a point");
        let ec_jwk = json!({ "kty": "EC", "crv": "P-256", "kid": "ec", "x": number(&x), "y": number(&y) });
        let ed = PKey::generate_ed25519().expect("a key");
        let x = URL_SAFE_NO_PAD.encode(ed.raw_public_key().expect("a key"));
        let edwards = json!({ "kty": "OKP", "crv": "Ed25519", "kid": "ed", "x": x });
        let pem = |key: &PKey<Private>| String::from_utf8(key.private_key_to_pem_pkcs8().expect("PEM")).expect("text");
        let rsa = PKey::from_rsa(rsa).expect("a key");
        let ec = PKey::from_ec_key(ec).expect("a key");
        [(pem(&rsa), rsa_jwk), (pem(&ec), ec_jwk), (pem(&ed), edwards)]
    }

    fn header(kid: &str) -> Map<String, Value> {
        json!({ "kid": kid, "typ": "JWT" }).as_object().expect("an object").clone()
    }

    fn set(keys: &[&Value]) -> KeySet {
        KeySet::parse(json!({ "keys": keys }).to_string().as_bytes()).expect("keys")
    }

    #[test]
    fn token_of_each_algorithm_is_verified() {
        let pairs = pairs();
        let set = set(&[&pairs[0].1, &pairs[1].1, &pairs[2].1]);
        for (pem, jwk) in &pairs {
            let kid = jwk["kid"].as_str().expect("a kid");
            let signer = SigningKey::parse(pem).expect("a key");
            let token =
                signer.sign(header(kid), &json!({ "sub": "ana", "aud": ["a", "b"], "exp": 7.5 })).expect("signed");
            let content = set.verify(&token, &Algorithm::ALL).expect("a token");
            assert_eq!((content.text("sub"), content.time("exp"), &*content.kind), (Some("ana"), Some(7_500), "JWT"));
            assert!(content.is_for("b") && !content.is_for("c"));
            assert_eq!(key_id(&token).as_deref(), Ok(kid));
            let others: Vec<_> = Algorithm::ALL.into_iter().filter(|other| *other != signer.algorithm).collect();
            assert_eq!(set.verify(&token, &others).map(|_| ()), Err(Rejected::Algorithm), "not allowed");
            // The key of another algorithm.
            let other = pairs.iter().find(|(_, other)| other["kid"] != kid).expect("another").1["kid"].clone();
            let token = signer.sign(header(other.as_str().expect("a kid")), &json!({})).expect("signed");
            assert_eq!(set.verify(&token, &Algorithm::ALL).map(|_| ()), Err(Rejected::Algorithm));
        }
    }

    #[test]
    fn forged_tokens_are_rejected() {
        let [(pem, jwk), ..] = pairs();
        let (set, signer) = (set(&[&jwk]), SigningKey::parse(&pem).expect("a key"));
        let token = signer.sign(header("rsa"), &json!({ "sub": "ana" })).expect("signed");
        let verify = |token: &str| set.verify(token, &Algorithm::ALL).map(|_| ());
        assert_eq!(verify(&token), Ok(()));
        let parts: Vec<_> = token.split('.').collect();
        let forged = |header: Value, signature: &str| {
            format!("{}.{}.{signature}", URL_SAFE_NO_PAD.encode(header.to_string()), parts[1])
        };
        let none = json!({ "alg": "none", "kid": "rsa" });
        assert_eq!(verify(&forged(none.clone(), "")), Err(Rejected::Algorithm));
        assert_eq!(verify(&forged(none, parts[2])), Err(Rejected::Algorithm));
        // The public key as a symmetric key.
        let hs256 = json!({ "alg": "HS256", "kid": "rsa" });
        let mac = PKey::hmac(jwk.to_string().as_bytes()).expect("a key");
        let mut signer_of_mac = Signer::new(MessageDigest::sha256(), &mac).expect("a signer");
        let text = format!("{}.{}", URL_SAFE_NO_PAD.encode(hs256.to_string()), parts[1]);
        signer_of_mac.update(text.as_bytes()).expect("text");
        let signature = URL_SAFE_NO_PAD.encode(signer_of_mac.sign_to_vec().expect("a signature"));
        assert_eq!(verify(&format!("{text}.{signature}")), Err(Rejected::Algorithm));
        assert_eq!(verify(&forged(json!({ "alg": "RS256" }), parts[2])), Err(Rejected::Malformed), "no kid");
        let critical = json!({ "alg": "RS256", "kid": "rsa", "crit": ["b64"], "b64": false });
        assert_eq!(verify(&forged(critical, parts[2])), Err(Rejected::Malformed));
        assert_eq!(verify(&forged(json!({ "alg": "RS256", "kid": "x" }), parts[2])), Err(Rejected::UnknownKey));
        let payload = URL_SAFE_NO_PAD.encode(json!({ "sub": "bob" }).to_string());
        assert_eq!(verify(&[parts[0], &payload, parts[2]].join(".")), Err(Rejected::Signature));
        assert_eq!(verify(&[parts[0], parts[1], ""].join(".")), Err(Rejected::Signature));
        for text in ["", ".", "..", "a.b.c", "a.b", "a.b.c.d", &format!("{token}.x"), &"x".repeat(TOKEN_BYTES_MAX + 1)]
        {
            assert_eq!(verify(text), Err(Rejected::Malformed), "{text}");
        }
    }

    #[test]
    fn set_has_only_usable_keys() {
        let [(_, rsa), (_, ec), (_, ed)] = pairs();
        let is_usable = |change: &dyn Fn(&mut Value), jwk: &Value| {
            let mut jwk = jwk.clone();
            change(&mut jwk);
            VerifyingKey::of(&jwk).is_some()
        };
        for jwk in [&rsa, &ec, &ed] {
            assert!(is_usable(&|_| {}, jwk));
            assert!(!is_usable(&|jwk| jwk["use"] = json!("enc"), jwk));
            assert!(!is_usable(&|jwk| jwk["alg"] = json!("HS256"), jwk));
            assert!(!is_usable(&|jwk| jwk["kid"] = json!(""), jwk));
        }
        assert!(!is_usable(&|jwk| jwk["x"] = json!("AQ"), &ec), "not on the curve");
        let weak = Rsa::generate(1_024).expect("a key");
        assert!(!is_usable(&|jwk| jwk["n"] = json!(number(weak.n())), &rsa));
        assert!(VerifyingKey::of(&json!({ "kty": "oct", "kid": "k", "k": "c2VjcmV0" })).is_none());
        for text in ["", "[]", "{\"keys\":7}", "{\"keys\":[]}"] {
            assert!(KeySet::parse(text.as_bytes()).is_err(), "{text}");
        }
    }

    #[test]
    fn signing_key_is_of_a_known_type() {
        let weak = PKey::from_rsa(Rsa::generate(1_024).expect("a key")).expect("a key");
        let group = EcGroup::from_curve_name(Nid::SECP384R1).expect("a curve");
        let curve = PKey::from_ec_key(EcKey::generate(&group).expect("a key")).expect("a key");
        let pem = |key: PKey<Private>| String::from_utf8(key.private_key_to_pem_pkcs8().expect("PEM")).expect("text");
        for text in ["", "s3cret", &pem(weak), &pem(curve)] {
            assert!(SigningKey::parse(text).is_none());
        }
    }
}

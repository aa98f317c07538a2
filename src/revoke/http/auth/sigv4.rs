//! AWS Signature Version 4
//! (<https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv-create-signed-request.html>).

use hmac::{Hmac, KeyInit as _, Mac as _};
use percent_encoding::{AsciiSet, utf8_percent_encode};
use reqwest::Request;
use reqwest::header::{AUTHORIZATION, CONTENT_TYPE, HeaderName, HeaderValue, InvalidHeaderValue};
use secrecy::{ExposeSecret as _, SecretString};
use sha2::{Digest as _, Sha256};

use crate::number::hex;
use crate::revoke::http::auth_settings::AwsSettings;
use crate::revoke::http::template::ESCAPED_IN_URLS;

const DATE: HeaderName = HeaderName::from_static("x-amz-date");
const SESSION: HeaderName = HeaderName::from_static("x-amz-security-token");
const ALGORITHM: &str = "AWS4-HMAC-SHA256";
/// The path is already encoded, and all services except S3 expect that it is encoded again.
const ESCAPED_IN_PATH: &AsciiSet = &ESCAPED_IN_URLS.remove(b'/');

/// Credentials of AWS, and the service for which they sign.
pub(in crate::revoke::http) struct AwsSigner {
    access_key_id: String,
    secret_access_key: SecretString,
    session_token: Option<SecretString>,
    region: String,
    service: String,
}

impl AwsSigner {
    pub(super) fn new(settings: &AwsSettings) -> Self {
        Self {
            access_key_id: settings.access_key_id.clone(),
            secret_access_key: settings.secret_access_key.clone(),
            session_token: settings.session_token.clone(),
            region: settings.region.clone(),
            service: settings.service.clone(),
        }
    }

    /// Adds the headers of the signature. `now`: milliseconds since the epoch.
    pub(super) fn sign(&self, request: &mut Request, now: i64) -> Result<(), InvalidHeaderValue> {
        let time = jiff::Timestamp::from_millisecond(now).unwrap_or_default().strftime("%Y%m%dT%H%M%SZ").to_string();
        request.headers_mut().insert(DATE, HeaderValue::from_str(&time)?);
        if let Some(token) = &self.session_token {
            let mut token = HeaderValue::from_str(token.expose_secret())?;
            token.set_sensitive(true);
            request.headers_mut().insert(SESSION, token);
        }
        let (canonical, signed) = canonical(request);
        let date = time.get(..8).unwrap_or_default();
        let scope = format!("{date}/{}/{}/aws4_request", self.region, self.service);
        let text = format!("{ALGORITHM}\n{time}\n{scope}\n{}", hex(&Sha256::digest(canonical)));
        let signature = hex(&hmac(&self.key(date), text.as_bytes()));
        let id = &self.access_key_id;
        let value = format!("{ALGORITHM} Credential={id}/{scope}, SignedHeaders={signed}, Signature={signature}");
        request.headers_mut().insert(AUTHORIZATION, HeaderValue::from_str(&value)?);
        Ok(())
    }

    /// The key for one day, region and service.
    fn key(&self, date: &str) -> Vec<u8> {
        let secret = format!("AWS4{}", self.secret_access_key.expose_secret());
        let parts = [date, &self.region, &self.service, "aws4_request"];
        parts.into_iter().fold(secret.into_bytes(), |key, part| hmac(&key, part.as_bytes()))
    }
}

/// The text whose hash is signed, and the names of the signed headers.
fn canonical(request: &Request) -> (String, String) {
    let url = request.url();
    let mut query: Vec<(String, String)> =
        url.query_pairs().map(|(name, value)| (encoded(&name), encoded(&value))).collect();
    query.sort();
    let query: Vec<_> = query.into_iter().map(|(name, value)| format!("{name}={value}")).collect();
    let host = match url.port() {
        Some(port) => format!("{}:{port}", url.host_str().unwrap_or_default()),
        None => url.host_str().unwrap_or_default().to_owned(),
    };
    let mut headers = vec![("host".to_owned(), host)];
    for name in [CONTENT_TYPE, DATE, SESSION] {
        if let Some(value) = request.headers().get(&name) {
            headers.push((name.to_string(), String::from_utf8_lossy(value.as_bytes()).trim().to_owned()));
        }
    }
    headers.sort();
    let signed: Vec<_> = headers.iter().map(|(name, _)| name.as_str()).collect();
    let signed = signed.join(";");
    let lines: Vec<_> = headers.iter().map(|(name, value)| format!("{name}:{value}")).collect();
    let lines = lines.join("\n");
    let path = utf8_percent_encode(url.path(), ESCAPED_IN_PATH);
    let body = request.body().and_then(reqwest::Body::as_bytes).unwrap_or_default();
    let (method, query, body) = (request.method(), query.join("&"), hex(&Sha256::digest(body)));
    (format!("{method}\n{path}\n{query}\n{lines}\n\n{signed}\n{body}"), signed)
}

fn encoded(text: &str) -> String {
    utf8_percent_encode(text, ESCAPED_IN_URLS).to_string()
}

fn hmac(key: &[u8], text: &[u8]) -> Vec<u8> {
    // HMAC takes keys of any length.
    let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(key) else { return Vec::new() };
    mac.update(text);
    mac.finalize().into_bytes().to_vec()
}

#[cfg(test)]
mod tests {
    use reqwest::Client;

    use super::*;

    /// The credentials and the time of AWS's examples: 30 August 2015, 12:36:00.
    const NOW: i64 = 1_440_938_160_000;

    fn signed(service: &str, request: reqwest::RequestBuilder) -> String {
        let signer = AwsSigner {
            access_key_id: "AKIDEXAMPLE".to_owned(),
            secret_access_key: SecretString::from(["wJalrXUtnFEMI", "K7MDENG+bPxRfiCYEXAMPLEKEY"].join("/")),
            session_token: None,
            region: "us-east-1".to_owned(),
            service: service.to_owned(),
        };
        let mut request = request.build().expect("a request");
        signer.sign(&mut request, NOW).expect("a signature");
        let value = request.headers()[AUTHORIZATION].to_str().expect("text").to_owned();
        value.rsplit_once("Signature=").expect("a signature").1.to_owned()
    }

    /// Expected signatures: the examples of AWS's documentation, and its test suite (`aws-sig-v4-test-suite`).
    #[test]
    fn signatures_are_those_of_the_aws_examples() {
        let client = Client::new();
        let form = "application/x-www-form-urlencoded";
        let users = client.get("https://iam.amazonaws.com/?Action=ListUsers&Version=2010-05-08");
        let users = users.header(CONTENT_TYPE, format!("{form}; charset=utf-8"));
        assert_eq!(signed("iam", users), "5d672d79c15b13162d9279b0855cfba6789a8edb4c82c400e06b5924a6f2b5d7");
        let post = client.post("https://example.amazonaws.com/").header(CONTENT_TYPE, form).body("Param1=value1");
        assert_eq!(signed("service", post), "ff11897932ad3f4e8b18135d722051e5ac45fc38421b1da7b9d196a0fe09473a");
        let order = client.get("https://example.amazonaws.com/?Param2=value2&Param1=value1");
        assert_eq!(signed("service", order), "b97d918cfa904a5beff61c982a1b6f458b799221646efd99d3219ec94cdf2500");
    }

    #[test]
    fn session_token_is_signed() {
        let signer = AwsSigner::new(
            &toml::from_str("access_key_id = 'A'\nsecret_access_key = 's'\nsession_token = 't'").expect("settings"),
        );
        let mut request = Client::new().post("https://iam.amazonaws.com/").body("x").build().expect("a request");
        signer.sign(&mut request, NOW).expect("a signature");
        let value = request.headers()[AUTHORIZATION].to_str().expect("text");
        assert!(value.contains("SignedHeaders=host;x-amz-date;x-amz-security-token"), "{value}");
        assert_eq!(request.headers()[SESSION], "t");
    }
}

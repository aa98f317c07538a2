//! Routes: a call whose ids are replaced by placeholders. `GET /v1/users/42/keys` and `GET /v1/users/7/keys` are one
//! route.
//!
//! An endpoint is a path (`/repos/acme/site/hooks/17`, or a URL) or the name of an operation, optionally after its
//! service (`iam.amazonaws.com ListUsers`, `repo.create`). Both are split into words at delimiters. Each word in the
//! form of an id becomes `{}`. Names that users chose (`acme`) have no such form. [`crate::memory::templates`] learns
//! where paths contain them.

mod segments;
mod word;

use std::borrow::Cow;

use xxhash_rust::xxh3::xxh3_64_with_seed;

use self::segments::HOLE;
pub use self::segments::{ID, Names, SEGMENTS_MAX, Segments};
use self::word::{id_length, is_version, word_end};
use crate::key::{Class, KeyHasher};

/// Keys of a call, so that memory stores no texts; [`template`] returns the text.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Route {
    /// Key of method and template.
    pub(crate) key: u32,
    /// Key of the template's first two segments, or of the service: `iam.amazonaws.com`, `/repos/{}`. Segments that
    /// only give a version (`/api/v1`) do not count as segments but belong to the area.
    pub(crate) area: u32,
    /// Hash of the replaced ids, in order: the object that was accessed. `None` if no id was replaced. The hash is not
    /// keyed: memory does not look it up, and estimates from it must be equal on all installations.
    pub object: Option<u64>,
    /// Whether the call reads: GET, HEAD, OPTIONS, or an operation whose name begins with a reading verb (`List…`,
    /// `Get…`, `Describe…`).
    pub reads: bool,
    /// Number of the method.
    pub method: u32,
    pub segments: Segments,
    /// Hash of the endpoint without query. Not keyed, as `object`.
    pub path: u64,
}

impl Route {
    /// Route of `method` and `endpoint`; either may be empty. Does not allocate.
    #[must_use]
    pub fn of(method: &str, endpoint: &str, hasher: &KeyHasher) -> Self {
        let mut text = Template::default();
        let mut object = None;
        let call = scan(endpoint, &mut text, |id| {
            object = Some(xxh3_64_with_seed(id, object.unwrap_or_default()));
        });
        let method_number = method_number(method, hasher);
        Self {
            key: hasher.record(Class::Route, method_number, text.as_bytes()) as u32,
            area: hasher.name(Class::Area, &text.as_bytes()[..call.area_end]) as u32,
            object,
            reads: method_reads(method).unwrap_or_else(|| operation_reads(call.endpoint)),
            method: (method_number ^ (method_number >> 32)) as u32,
            segments: Segments::of(text.as_bytes(), hasher),
            path: xxh3_64_with_seed(call.endpoint.as_bytes(), 0),
        }
    }
}

/// A short method is its own key: hashing it would take as long as hashing the route.
fn method_number(method: &str, hasher: &KeyHasher) -> u64 {
    let mut bytes = [0; 8];
    match bytes.get_mut(..method.len()) {
        Some(short) => {
            short.copy_from_slice(method.as_bytes());
            u64::from_le_bytes(bytes)
        }
        None => hasher.name(Class::Method, method.as_bytes()),
    }
}

/// `endpoint` with ids, UUIDs, hashes and numbers replaced by `{}`, without the query, cut to [`TEMPLATE_BYTES_MAX`]
/// bytes.
#[must_use]
pub fn template(endpoint: &str) -> Cow<'_, str> {
    let mut text = Template::default();
    let mut has_ids = false;
    let call = scan(endpoint, &mut text, |_| has_ids = true);
    if !has_ids && !text.cut {
        return Cow::Borrowed(call.endpoint);
    }
    String::from_utf8_lossy(text.as_bytes()).into_owned().into()
}

/// The template of `endpoint` with `names` replaced by `{}`, and by one `{}` if they are the end of the path.
#[must_use]
pub fn template_without(endpoint: &str, names: Names) -> Cow<'_, str> {
    let template = template(endpoint);
    if names == Names::default() { template } else { segments::without(&template, names).into() }
}

/// Maximum length of a template in bytes. Later bytes of a longer one are data rather than part of a route.
pub(crate) const TEMPLATE_BYTES_MAX: usize = 256;

/// The template under construction, on the stack so that a call does not allocate.
struct Template {
    bytes: [u8; TEMPLATE_BYTES_MAX],
    length: usize,
    cut: bool,
}

impl Default for Template {
    fn default() -> Self {
        Self { bytes: [0; TEMPLATE_BYTES_MAX], length: 0, cut: false }
    }
}

impl Template {
    /// Appends as many whole characters of `part` as fit. Once a part is cut, later ones are dropped.
    fn push(&mut self, part: &[u8]) {
        let room = TEMPLATE_BYTES_MAX - self.length;
        let mut fits = if self.cut { 0 } else { part.len().min(room) };
        while part.get(fits).is_some_and(|byte| byte & 0xc0 == 0x80) {
            fits -= 1;
        }
        self.bytes[self.length..self.length + fits].copy_from_slice(&part[..fits]);
        self.length += fits;
        self.cut |= fits < part.len();
    }

    fn as_bytes(&self) -> &[u8] {
        &self.bytes[..self.length]
    }
}

/// Results of a scan besides the template.
struct Call<'a> {
    /// Without query, fragment and trailing slash.
    endpoint: &'a str,
    /// Length in bytes of the template's part that is the area.
    area_end: usize,
}

/// Reads the endpoint once, word by word. Kept text is copied in runs; each replaced id is passed to `found`.
fn scan<'a>(endpoint: &'a str, template: &mut Template, mut found: impl FnMut(&[u8])) -> Call<'a> {
    let bytes = endpoint.as_bytes();
    let mut area = Area::default();
    let (mut start, mut copied) = (0, 0);
    let end = loop {
        let (end, classes) = word_end(bytes, start);
        let word = &bytes[start..end];
        let id = id_length(word, classes);
        if id > 0 {
            found(&word[..id]);
            template.push(&bytes[copied..start]);
            template.push(HOLE);
            copied = start + id;
        }
        let length = template.length + end - copied;
        match bytes.get(end) {
            None | Some(b'?' | b'#') => break end,
            Some(_) if length > TEMPLATE_BYTES_MAX => break bytes.len(),
            Some(delimiter) => area.delimiter(*delimiter, word, length),
        }
        start = end + 1;
    };
    let endpoint = without_trailing_slashes(&endpoint[..end]);
    template.push(&bytes[copied.min(endpoint.len())..endpoint.len()]);
    Call { endpoint, area_end: area.end(template.as_bytes()) }
}

fn without_trailing_slashes(endpoint: &str) -> &str {
    match endpoint.trim_end_matches('/') {
        "" => &endpoint[..endpoint.len().min(1)],
        rest => rest,
    }
}

/// Finds the end of the area during the scan.
#[derive(Default)]
struct Area {
    /// Number of segments so far that are not versions.
    segments: u8,
    end: Option<usize>,
}

impl Area {
    /// `word` ended at a delimiter, `length` bytes into the template.
    fn delimiter(&mut self, delimiter: u8, word: &[u8], length: usize) {
        if self.end.is_some() {
            return;
        }
        match delimiter {
            b'/' => {
                self.segments += u8::from(!word.is_empty() && !is_version(word));
                if self.segments == 2 {
                    self.end = Some(length);
                }
            }
            // The service ends before its operation.
            b' ' if self.segments == 0 => self.end = Some(length),
            _ => {}
        }
    }

    /// A name with dots and without delimiters (`repo.create`) has the part before its first dot as area.
    fn end(&self, template: &[u8]) -> usize {
        let dotted = || if self.segments == 0 { template.iter().position(|&byte| byte == b'.') } else { None };
        self.end.or_else(dotted).unwrap_or(template.len()).min(template.len())
    }
}

/// Whether the method reads; `None` if that depends on the operation, as for POST with an operation's name.
fn method_reads(method: &str) -> Option<bool> {
    const READING: [&str; 7] = ["GET", "HEAD", "OPTIONS", "TRACE", "PROPFIND", "QUERY", "read"];
    const WRITING: [&str; 4] = ["PUT", "PATCH", "DELETE", "write"];
    if READING.iter().any(|name| name.eq_ignore_ascii_case(method)) {
        Some(true)
    } else if WRITING.iter().any(|name| name.eq_ignore_ascii_case(method)) {
        Some(false)
    } else {
        None
    }
}

/// Whether the operation's name (the last word) begins with a reading verb.
fn operation_reads(endpoint: &str) -> bool {
    const READING: [&str; 12] = [
        "get", "list", "describe", "head", "search", "lookup", "batchget", "query", "scan", "read", "download", "view",
    ];
    let name = endpoint.rsplit(['/', ' ', '.', ':']).next().unwrap_or_default().as_bytes();
    READING.iter().any(|verb| {
        // The verb must be a whole word: `GetUser`, `get_user`, `get`, but not `getaway` or `Listen`.
        name.get(..verb.len()).is_some_and(|start| start.eq_ignore_ascii_case(verb.as_bytes()))
            && !name.get(verb.len()).is_some_and(u8::is_ascii_lowercase)
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn route_of(method: &str, endpoint: &str) -> Route {
        Route::of(method, endpoint, &KeyHasher::default())
    }

    #[test]
    fn template_replaces_ids_and_keeps_words() {
        for (endpoint, expected) in [
            ("/v1/users/42/keys", "/v1/users/{}/keys"),
            ("/users/3f2504e0-4f89-41d3-9a0c-0305e82c3301", "/users/{}"),
            ("/users/3F2504E04F8941D39A0C0305E82C3301?expand=all#top", "/users/{}"),
            ("/git/commits/7fd1a60b01f91b314f59955a4e4d4e80d8edf11d", "/git/commits/{}"),
            ("/customers/cus_9s6XKzkNRiz8i3/sources", "/customers/{}/sources"),
            ("/keys/AKIAIOSFODNN7EXAMPLE", "/keys/{}"),
            ("/conversations/U012AB3CD/history", "/conversations/{}/history"),
            ("/users/ann@example.com/roles", "/users/{}/roles"),
            ("/users/ann%40example.com/roles", "/users/{}/roles"),
            ("/users/@me/guilds", "/users/@me/guilds"),
            ("/items/1,2,3", "/items/{}"),
            ("/reports/2026-11-24/rows", "/reports/{}/rows"),
            ("/hosts/192.0.2.7", "/hosts/{}"),
            ("/orders/order_1009.json", "/orders/{}.json"),
            ("/v1/projects/acme-42/secrets/db:access", "/v1/projects/{}/secrets/db:access"),
            ("/odata/Users(42)/Groups('9f1c2ab8')", "/odata/Users({})/Groups('{}')"),
            ("/1.1/statuses/home_timeline.json", "/1.1/statuses/home_timeline.json"),
            ("/v2beta1/phase-2/oauth2/ed25519/utf-8", "/v2beta1/phase-2/oauth2/ed25519/utf-8"),
            ("arn:aws:iam::123456789012:user/ann", "arn:aws:iam::{}:user/ann"),
            ("/v1/customers/cus_PQrStUvWxYzab1", "/v1/customers/{}"),
            ("/v1/charges/ch_aBcD3EfGhiJklM", "/v1/charges/{}"),
            ("/sobjects/Account/0015g00000XyZabAAB", "/sobjects/Account/{}"),
            ("/files/1BxiMVs0XRA5nFMdKvBdBZjg", "/files/{}"),
            ("/v1/list_customers2/search_listKeysV2", "/v1/list_customers2/search_listKeysV2"),
            ("/users/", "/users"),
            ("/", "/"),
            ("", ""),
        ] {
            assert_eq!(template(endpoint), expected, "{endpoint}");
        }
    }

    #[test]
    fn template_keeps_operation_names() {
        for endpoint in [
            "iam.amazonaws.com ListUsers",
            "lambda.amazonaws.com ListFunctions20150331",
            "lambda.amazonaws.com UpdateFunctionCode20150331v2",
            "s3.amazonaws.com ListObjectsV2",
            "kms.amazonaws.com ListKeysV2",
            "wafv2.amazonaws.com GetWebACLForResource",
            "cognito-idp.amazonaws.com AdminSetUserMFAPreference",
            "ec2.amazonaws.com DescribeVpcEndpointServicePermissionsV2",
            "com.salesforce 3DSecureSettings",
            "rds.amazonaws.com DescribeDBClusterParameterGroups",
            "cloudfront.amazonaws.com GetDistribution2020_05_31",
            "repo.create",
            "user.session.start",
            "app.oauth2.token.grant.access_token",
        ] {
            assert_eq!(template(endpoint), endpoint);
            assert_eq!(route_of("", endpoint).object, None, "{endpoint}");
        }
    }

    #[test]
    fn area_is_the_service_or_two_segments() {
        let area = |endpoint| route_of("GET", endpoint).area;
        assert_eq!(area("iam.amazonaws.com ListUsers"), area("iam.amazonaws.com DeleteUser"));
        assert_ne!(area("iam.amazonaws.com ListUsers"), area("s3.amazonaws.com ListBuckets"));
        assert_eq!(area("repo.create"), area("repo.destroy"));
        assert_ne!(area("repo.create"), area("org.create"));
        assert_eq!(area("/repos/17/hooks"), area("/repos/18/keys"));
        assert_ne!(area("/repos/acme/hooks"), area("/users/acme/hooks"));
        assert_eq!(area("/api/v1/users/42/keys"), area("/api/v1/users/7"), "a version does not count as a segment");
        assert_ne!(area("/api/v1/users/42"), area("/api/v1/groups/42"));
        assert_eq!(area("https://api.example.com/users/1"), area("https://api.example.com/users/2/keys"));
    }

    #[test]
    fn object_is_the_replaced_ids() {
        let object = |endpoint| route_of("GET", endpoint).object;
        assert_eq!(object("/users"), None);
        assert_ne!(object("/users/1"), object("/users/2"));
        assert_eq!(object("/users/1"), object("/users/1?page=3"));
        assert_ne!(object("/a/11/b/22"), object("/a/22/b/11"), "the order matters");
    }

    #[test]
    fn route_reads_by_method_or_name() {
        for (method, endpoint) in [
            ("GET", "/users"),
            ("head", "/users"),
            ("read", "iam.amazonaws.com AssumeRole"),
            ("", "iam.amazonaws.com ListUsers"),
            ("POST", "dynamodb.amazonaws.com BatchGetItem"),
            ("", "repo.download_zip"),
            ("POST", "/v1/search"),
        ] {
            assert!(route_of(method, endpoint).reads, "{method} {endpoint}");
        }
        for (method, endpoint) in [
            ("POST", "/users"),
            ("DELETE", "/v1/search"),
            ("write", "iam.amazonaws.com GetUser"),
            ("", "iam.amazonaws.com CreateUser"),
            ("", "events.Listen"),
            ("", ""),
        ] {
            assert!(!route_of(method, endpoint).reads, "{method} {endpoint}");
        }
    }

    /// Endpoints of words as they occur in APIs and ids, few enough to repeat often.
    fn endpoint() -> impl Strategy<Value = String> {
        let word = prop_oneof![
            "[a-z]{1,6}",
            "[0-9]{1,4}",
            "[0-9a-f]{8}",
            "[A-Za-z0-9]{10,20}",
            "[a-z]{2,5}[-_.][0-9]{1,3}",
            "[a-z]{1,3}@[a-z]{1,3}",
            "\\PC{0,8}",
        ];
        (proptest::collection::vec(word, 0..6), "[/ :]", "(\\?[a-z=0-9]{0,5})?")
            .prop_map(|(words, delimiter, query)| format!("{delimiter}{}{query}", words.join(&delimiter)))
    }

    proptest! {
        #[test]
        fn equal_keys_mean_equal_templates(a in endpoint(), b in endpoint()) {
            prop_assert_eq!(route_of("GET", &a).key == route_of("GET", &b).key, template(&a) == template(&b));
        }

        #[test]
        fn template_of_a_template_is_itself(endpoint in endpoint()) {
            let once = template(&endpoint).into_owned();
            prop_assert_eq!(template(&once), once.as_str());
            prop_assert_eq!(route_of("", &once).object, None);
        }

        #[test]
        fn template_ignores_the_value_of_ids(a in 0u64.., b in 0u64.., tail in "[a-z]{1,5}") {
            let route = |id| route_of("GET", &format!("/users/{id}/{tail}"));
            prop_assert_eq!(route(a).key, route(b).key);
            prop_assert_eq!(route(a).object == route(b).object, a == b);
        }

        #[test]
        fn route_accepts_any_text(method in ".{0,9}", endpoint in ".{0,600}") {
            let _ = route_of(&method, &endpoint);
            prop_assert!(template(&endpoint).len() <= TEMPLATE_BYTES_MAX);
        }
    }
}

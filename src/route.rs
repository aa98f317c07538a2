//! Routes: a call whose ids are replaced by placeholders. `GET /v1/users/42/keys` and `GET /v1/users/7/keys` are one
//! route.
//!
//! An endpoint is a path (`/repos/acme/site/hooks/17`, or a URL) or the name of an operation, optionally after its
//! service (`iam.amazonaws.com ListUsers`, `repo.create`). Both are split into words at delimiters; a word that looks
//! like an id becomes `{}`. Names that users chose (`acme`) look like words of the API and stay. They add routes but
//! never merge two.

use std::borrow::Cow;

use xxhash_rust::xxh3::xxh3_64_with_seed;

use crate::key::{Class, KeyHasher};

/// Keys of a call, so that memory stores no texts; [`template`] returns the text.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Route {
    /// Key of method and template.
    pub key: u32,
    /// Key of the template's first two segments, or of the service: `iam.amazonaws.com`, `/repos/{}`. Segments that
    /// only give a version (`/api/v1`) do not count as segments but belong to the area.
    pub area: u32,
    /// Hash of the replaced ids, in order: the object that was accessed. `None` if no id was replaced. The hash is not
    /// keyed: memory does not look it up, and estimates from it must be equal on all installations.
    pub object: Option<u64>,
    /// Whether the call reads: GET, HEAD, OPTIONS, or an operation whose name begins with a reading verb (`List…`,
    /// `Get…`, `Describe…`).
    pub reads: bool,
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
        Self {
            key: hasher.record(Class::Route, method_number(method, hasher), text.as_bytes()) as u32,
            area: hasher.name(Class::Area, &text.as_bytes()[..call.area_end]) as u32,
            object,
            reads: method_reads(method).unwrap_or_else(|| operation_reads(call.endpoint)),
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

/// Maximum length of a template in bytes. Later bytes of a longer one are data rather than part of a route.
pub const TEMPLATE_BYTES_MAX: usize = 256;

/// Longer words, in bytes, count as ids.
const WORD_BYTES_MAX: usize = 64;

/// Placeholder of an id.
const HOLE: &[u8] = b"{}";

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

/// Reads the endpoint once, word by word. Text that stays is copied in stretches; each replaced id goes to `found`.
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

/// `api`, `rest`, `v2`, `v1beta1`, `1.0`.
fn is_version(word: &[u8]) -> bool {
    match word {
        b"api" | b"rest" => true,
        [b'v' | b'V', digit, ..] => word.len() <= 10 && digit.is_ascii_digit(),
        [a, b'.', b] => a.is_ascii_digit() && b.is_ascii_digit(),
        _ => false,
    }
}

// Classes of bytes as bits, so that a word's classes can be combined.
const DELIMITER: u8 = 1;
const DIGIT: u8 = 2;
/// Letters a to f.
const HEX: u8 = 4;
const LOWER: u8 = 8;
const UPPER: u8 = 16;
/// Characters that join the parts of a word.
const JOINT: u8 = 32;
const AT: u8 = 64;
const OTHER: u8 = 128;

const CLASSES: [u8; 256] = classes();

const fn classes() -> [u8; 256] {
    let mut table = [OTHER; 256];
    let mut byte = 0;
    while byte < 256 {
        table[byte] = match byte as u8 {
            b'/' | b' ' | b':' | b';' | b'=' | b'(' | b')' | b'\'' | b'?' | b'#' => DELIMITER,
            b'0'..=b'9' => DIGIT,
            b'a'..=b'f' => HEX | LOWER,
            b'A'..=b'F' => HEX | UPPER,
            b'g'..=b'z' => LOWER,
            b'G'..=b'Z' => UPPER,
            b'-' | b'_' | b'.' | b'~' | b',' | b'+' => JOINT,
            b'@' => AT,
            _ => OTHER,
        };
        byte += 1;
    }
    table
}

/// End of the word that begins at `start`, and the classes of its bytes.
fn word_end(bytes: &[u8], start: usize) -> (usize, u8) {
    let mut classes = 0;
    let mut end = start;
    while let Some(&byte) = bytes.get(end) {
        let class = CLASSES[byte as usize];
        if class == DELIMITER {
            break;
        }
        classes |= class;
        end += 1;
    }
    (end, classes)
}

/// How many bytes of `word` are an id: none, all, or those before a file extension (`42.json`).
fn id_length(word: &[u8], classes: u8) -> usize {
    // Most words are names in the API: letters and joints only.
    if classes & (DIGIT | AT | OTHER) == 0 && word.len() <= WORD_BYTES_MAX {
        return 0;
    }
    if is_id(word) {
        return word.len();
    }
    match word.iter().rposition(|&byte| byte == b'.') {
        Some(dot) if is_ending(&word[dot + 1..]) && is_id(&word[..dot]) => dot,
        _ => 0,
    }
}

fn is_ending(text: &[u8]) -> bool {
    (2..=5).contains(&text.len()) && text.iter().all(u8::is_ascii_lowercase)
}

/// Whether `word` identifies one object among many of its kind.
fn is_id(word: &[u8]) -> bool {
    if word.len() > WORD_BYTES_MAX {
        return true;
    }
    let mut all = Counts::default();
    let mut before_run = Counts::default();
    let mut random_run = false;
    let mut last = 0;
    let mut first = 0;
    for &byte in word {
        let class = CLASSES[byte as usize];
        if class & JOINT != 0 {
            random_run |= all.since(before_run).is_random(first, before_run.is_prefix());
            all.add(class, last);
            before_run = all;
            last = 0;
        } else {
            all.add(class, last);
            first = if last == 0 { class } else { first };
            last = class;
        }
    }
    let run = all.since(before_run);
    if random_run || run.is_random(first, before_run.is_prefix()) {
        return true;
    }
    // An e-mail address, with `@` or `%40`; not `@me`.
    if all.at() == 1 && !word.starts_with(b"@") || all.other() > 0 && word.windows(3).any(|part| part == b"%40") {
        return true;
    }
    if all.digits() == 0 || all.at() + all.other() > 0 {
        return false;
    }
    if all.lower() + all.upper() == 0 {
        // Numbers, dates, addresses and lists of them; not the `1.1` of a version.
        return !is_version(word);
    }
    let one_case = all.lower() == 0 || all.upper() == 0;
    // UUIDs and hashes, with or without joints. Seven hexadecimal digits may be a word (`ed25519`).
    let hex = all.hex() + all.digits();
    hex + all.joints() == word.len() as u8 && hex >= 8
        // A name and a number: `user-42`, `order_1009`; not `phase-2`, not `GetDistribution2020_05_31`.
        || run.digits() >= 2 && run.lower() + run.upper() == 0 && all.joints() > 0 && one_case
        // Short ids of capitals and digits: `U012AB3CD`, `EXAMPLE1A2B3`.
        || all.lower() == 0 && all.digits() >= 3 && word.len() >= 8
}

/// Number of bytes in each class, one byte per counter: one addition counts a byte in all of its classes. Words are too
/// short to overflow a counter.
#[derive(Clone, Copy, Default)]
struct Counts {
    classes: u64,
    /// Number of times that a capital follows a small letter, a digit a letter or a letter a digit.
    breaks: u8,
}

const _: () = assert!(WORD_BYTES_MAX < 256);

impl Counts {
    fn add(&mut self, class: u8, last: u8) {
        let turns = last != 0 && (last ^ class) & DIGIT != 0;
        // The highest byte counts changes between letters and digits.
        self.classes += COUNTED[class as usize] + (u64::from(turns) << 56);
        self.breaks += u8::from(turns || last & LOWER != 0 && class & UPPER != 0);
    }

    const fn since(self, before: Self) -> Self {
        Self { classes: self.classes - before.classes, breaks: self.breaks - before.breaks }
    }

    const fn of(self, class: u8) -> u8 {
        (self.classes >> (8 * (class.trailing_zeros() - 1))) as u8
    }

    const fn digits(self) -> u8 {
        self.of(DIGIT)
    }

    const fn hex(self) -> u8 {
        self.of(HEX)
    }

    const fn lower(self) -> u8 {
        self.of(LOWER)
    }

    const fn upper(self) -> u8 {
        self.of(UPPER)
    }

    const fn joints(self) -> u8 {
        self.of(JOINT)
    }

    const fn at(self) -> u8 {
        self.of(AT)
    }

    const fn other(self) -> u8 {
        self.of(OTHER)
    }

    const fn turns(self) -> u8 {
        (self.classes >> 56) as u8
    }

    /// A prefix that names the kind of an id, such as `cus_` and `acct_`: small letters and a joint.
    const fn is_prefix(self) -> bool {
        self.joints() == 1 && self.lower() >= 2 && self.lower() <= 6 && self.digits() + self.upper() + self.other() == 0
    }

    /// Whether letters and digits are mixed as in random ids, in a run whose first byte has class `first`. A name with
    /// a number (`ListFunctions20150331`, `GetFunction20150331v2`) changes between letters and digits at most three
    /// times. A name of several words (`ListKeysV2`) has at most three breaks in ten letters; random letters and digits
    /// have one at nearly every second position.
    fn is_random(self, first: u8, prefixed: bool) -> bool {
        let length = self.digits() + self.lower() + self.upper();
        let both_cases = self.lower() > 0 && self.upper() > 0 && self.digits() > 0;
        let mixed = self.digits() >= 2 && self.turns() >= 4 && length >= 10;
        let broken = both_cases && length >= 10 && u16::from(self.breaks) * 20 >= u16::from(length) * 7;
        let after_prefix = prefixed && both_cases && length >= 14;
        // No name looks like `0015g00000XyZab`.
        let from_digit = first & DIGIT != 0 && self.digits() >= 3 && self.digits() < length && length >= 10;
        let capitals = self.digits() >= 1 && self.lower() == 0 && length >= 16;
        self.at() + self.other() == 0 && (mixed || broken || after_prefix || from_digit || capitals)
    }
}

/// For each set of classes, the number to add to [`Counts`]: DIGIT in the lowest byte, OTHER in the seventh.
const COUNTED: [u64; 256] = counted();

const fn counted() -> [u64; 256] {
    let mut table = [0; 256];
    let mut classes = 0;
    while classes < 256 {
        let mut bit = 1;
        while bit < 8 {
            if classes & (1 << bit) != 0 {
                table[classes] |= 1 << (8 * (bit - 1));
            }
            bit += 1;
        }
        classes += 1;
    }
    table
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
        fn any_text_has_a_route(method in ".{0,9}", endpoint in ".{0,600}") {
            let _ = route_of(&method, &endpoint);
            prop_assert!(template(&endpoint).len() <= TEMPLATE_BYTES_MAX);
        }
    }
}

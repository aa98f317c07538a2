//! A call with its ids templated away: `GET /v1/users/42/keys` and `GET /v1/users/7/keys` are one route.
//!
//! An endpoint is either a path (`/repos/acme/site/hooks/17`, a URL too) or the name of an operation, with its service
//! in front of it or not (`iam.amazonaws.com ListUsers`, `repo.create`). Both are cut into words at delimiters, and a
//! word that looks like an id becomes `{}`. Names that people gave to things (`acme`) cannot be told from words of the
//! API and stay: they make more routes than there are, never fewer.

use std::borrow::Cow;

use xxhash_rust::xxh3::xxh3_64_with_seed;

use crate::key::{Class, KeyHasher};

/// The numbers of a call, so that memory need not hold texts; [`template`] gives the text back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Route {
    /// Of method and template.
    pub key: u32,
    /// Of the first two segments of the template, or of the service: `iam.amazonaws.com`, `/repos/{}`. Segments that
    /// only version an API (`/api/v1`) are no area: the first two after them count, with them.
    pub area: u32,
    /// Of the ids that were templated away, in order: which object was touched. `None` where there was none. Under no key:
    /// it is no key of memory, and what is estimated of it must not differ between installations.
    pub object: Option<u64>,
    /// GET, HEAD, OPTIONS, or a name that begins as readers do (`List…`, `Get…`, `Describe…`).
    pub reads: bool,
}

impl Route {
    /// Route of `method` and `endpoint`, either of which may be absent (empty). Allocates nothing.
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

/// A short method is its own number: hashing it would take as long as hashing the route.
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

/// `endpoint` with ids, uuids, hashes and numbers replaced by `{}` and the query cut off; at most
/// [`TEMPLATE_BYTES_MAX`] bytes of it.
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

/// Longer templates are cut: what an API calls by this many bytes is no longer a route but data.
pub const TEMPLATE_BYTES_MAX: usize = 256;

/// Words of more bytes are data, whatever they consist of.
const WORD_BYTES_MAX: usize = 64;

/// What stands for an id.
const HOLE: &[u8] = b"{}";

/// The template being written: on the stack, so that a call allocates nothing.
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
    /// As much of `part`, which begins with a whole character, as there is room for, in whole characters; after that
    /// nothing more.
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

/// What a scan finds besides the template itself.
struct Call<'a> {
    /// Without query, fragment and trailing slash.
    endpoint: &'a str,
    /// Length of the template's part that names the area.
    area_end: usize,
}

/// The one pass over an endpoint, word by word. What is not templated away is copied in stretches, not in words; each id
/// that is goes to `found`.
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

/// Finds where the area ends while the words go by.
#[derive(Default)]
struct Area {
    /// Segments seen that name something.
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
            // A service before its operation.
            b' ' if self.segments == 0 => self.end = Some(length),
            _ => {}
        }
    }

    /// Names with dots and no delimiter (`repo.create`) belong to what stands before the first dot.
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

// Classes of bytes, as bits, so that those of a word can be gathered.
const DELIMITER: u8 = 1;
const DIGIT: u8 = 2;
/// Letters a to f.
const HEX: u8 = 4;
const LOWER: u8 = 8;
const UPPER: u8 = 16;
/// What joins the parts of one word.
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

/// How much of `word` is an id: nothing, all of it, or all before a file's ending (`42.json`).
fn id_length(word: &[u8], classes: u8) -> usize {
    // Most words are names of the API: letters and joints alone.
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

/// Whether `word` names one thing among many of its kind.
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
    // An address of mail, its sign encoded or not; not `@me`.
    if all.at() == 1 && !word.starts_with(b"@") || all.other() > 0 && word.windows(3).any(|part| part == b"%40") {
        return true;
    }
    if all.digits() == 0 || all.at() + all.other() > 0 {
        return false;
    }
    if all.lower() + all.upper() == 0 {
        // Numbers, dates, addresses, lists of them; not the `1.1` of a version.
        return !is_version(word);
    }
    let one_case = all.lower() == 0 || all.upper() == 0;
    // uuids and hashes, with joints or without. Seven digits of hex may be a word (`ed25519`).
    let hex = all.hex() + all.digits();
    hex + all.joints() == word.len() as u8 && hex >= 8
        // A name with a number behind it: `user-42`, `order_1009`; not `phase-2`, not `GetDistribution2020_05_31`.
        || run.digits() >= 2 && run.lower() + run.upper() == 0 && all.joints() > 0 && one_case
        // Short ids of capitals and digits: `U012AB3CD`, `EXAMPLE1A2B3`.
        || all.lower() == 0 && all.digits() >= 3 && word.len() >= 8
}

/// How many bytes of each class, a byte for each count: one addition counts a byte in all of them, and no word is
/// long enough to overflow one.
#[derive(Clone, Copy, Default)]
struct Counts {
    classes: u64,
    /// Times that a capital follows a small letter, a digit a letter or a letter a digit.
    breaks: u8,
}

const _: () = assert!(WORD_BYTES_MAX < 256);

impl Counts {
    fn add(&mut self, class: u8, last: u8) {
        let turns = last != 0 && (last ^ class) & DIGIT != 0;
        // The count of turns is the highest: times that a digit follows a letter or a letter a digit.
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

    /// `cus_`, `acct_`: small letters and a joint, before what they say the kind of.
    const fn is_prefix(self) -> bool {
        self.joints() == 1 && self.lower() >= 2 && self.lower() <= 6 && self.digits() + self.upper() + self.other() == 0
    }

    /// Letters and digits mixed as words are not, in a run whose first byte is of class `first`. A name with a number in
    /// it or behind it (`ListFunctions20150331`, `GetFunction20150331v2`) turns at most three times, and one of many
    /// words (`ListKeysV2`) breaks no more than three times in ten letters, where letters and digits at random do so
    /// nearly every other time.
    fn is_random(self, first: u8, prefixed: bool) -> bool {
        let length = self.digits() + self.lower() + self.upper();
        let both_cases = self.lower() > 0 && self.upper() > 0 && self.digits() > 0;
        let mixed = self.digits() >= 2 && self.turns() >= 4 && length >= 10;
        let broken = both_cases && length >= 10 && u16::from(self.breaks) * 20 >= u16::from(length) * 7;
        let after_prefix = prefixed && both_cases && length >= 14;
        // As no name does: `0015g00000XyZab`.
        let from_digit = first & DIGIT != 0 && self.digits() >= 3 && self.digits() < length && length >= 10;
        let capitals = self.digits() >= 1 && self.lower() == 0 && length >= 16;
        self.at() + self.other() == 0 && (mixed || broken || after_prefix || from_digit || capitals)
    }
}

/// For each set of classes what it adds to [`Counts`]: DIGIT to the lowest byte, OTHER to the seventh.
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

/// What the method says: `None` where it says nothing, as POST to an operation's name.
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

/// Whether the operation's name (the last word) begins as readers do.
fn operation_reads(endpoint: &str) -> bool {
    const READING: [&str; 12] = [
        "get", "list", "describe", "head", "search", "lookup", "batchget", "query", "scan", "read", "download", "view",
    ];
    let name = endpoint.rsplit(['/', ' ', '.', ':']).next().unwrap_or_default().as_bytes();
    READING.iter().any(|verb| {
        // A word of its own: `GetUser`, `get_user`, `get`, but not `getaway` or `Listen`.
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
    fn ids_become_holes_and_words_stay() {
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
    fn names_of_operations_stay_as_they_are() {
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
    fn an_area_is_the_service_or_the_first_two_segments() {
        let area = |endpoint| route_of("GET", endpoint).area;
        assert_eq!(area("iam.amazonaws.com ListUsers"), area("iam.amazonaws.com DeleteUser"));
        assert_ne!(area("iam.amazonaws.com ListUsers"), area("s3.amazonaws.com ListBuckets"));
        assert_eq!(area("repo.create"), area("repo.destroy"));
        assert_ne!(area("repo.create"), area("org.create"));
        assert_eq!(area("/repos/17/hooks"), area("/repos/18/keys"));
        assert_ne!(area("/repos/acme/hooks"), area("/users/acme/hooks"));
        assert_eq!(area("/api/v1/users/42/keys"), area("/api/v1/users/7"), "a version is no area");
        assert_ne!(area("/api/v1/users/42"), area("/api/v1/groups/42"));
        assert_eq!(area("https://api.example.com/users/1"), area("https://api.example.com/users/2/keys"));
    }

    #[test]
    fn an_object_is_what_was_templated_away() {
        let object = |endpoint| route_of("GET", endpoint).object;
        assert_eq!(object("/users"), None);
        assert_ne!(object("/users/1"), object("/users/2"));
        assert_eq!(object("/users/1"), object("/users/1?page=3"));
        assert_ne!(object("/a/11/b/22"), object("/a/22/b/11"), "order counts");
    }

    #[test]
    fn readers_are_known_by_method_or_name() {
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

    /// Words as APIs and their ids have them, to meet each other often.
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
        fn equal_keys_are_equal_templates(a in endpoint(), b in endpoint()) {
            prop_assert_eq!(route_of("GET", &a).key == route_of("GET", &b).key, template(&a) == template(&b));
        }

        #[test]
        fn a_template_is_its_own_template(endpoint in endpoint()) {
            let once = template(&endpoint).into_owned();
            prop_assert_eq!(template(&once), once.as_str());
            prop_assert_eq!(route_of("", &once).object, None);
        }

        #[test]
        fn other_ids_make_the_same_route(a in 0u64.., b in 0u64.., tail in "[a-z]{1,5}") {
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

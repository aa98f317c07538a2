//! Positions of names in paths, learnt from calls.
//!
//! In `/repos/acme/contents/src/main.rs`, users chose `acme` and `src/main.rs`. The operation is
//! `/repos/{}/contents/{}`, and the names are the resource on which it acts. Each position of a path (the segments
//! before it) keeps a uniform sample of the words that follow (adaptive sampling: Flajolet, "On adaptive sampling",
//! Computing 1990). A position after at least one segment has names if one of these is true:
//!
//! - **Alike**: at least six words follow that are not the last of a path, and three segments occur after two thirds of
//!   them: `/repos/acme/hooks`, `/repos/acme/keys`, `/repos/beta/hooks`, …
//! - **Open**: at least 48 words follow, called by at least twelve tokens, and a third of the words were called by fewer
//!   than four. At least 512 words, if fewer than a quarter are followed by another segment, because a service may have
//!   hundreds of operations.
//!
//! If the position after an open one is open too, the rest of the path is one name.
//!
//! Only successful calls of tokens with a history count, of tenants with a history. What the largest tenant taught
//! does not count if there are others, and an open position must be open for two of them: one tenant cannot turn
//! operations of others into names, and neither can many tenants that each have an interface of their own.

use serde::{Deserialize, Serialize};

use smallvec::SmallVec;

use super::generations::Generations;
use crate::route::{ID, Names, Route, Segments};

/// Maximum number of positions without names that are observed, and of positions with names.
const POSITIONS_MAX: usize = 1 << 12;
/// Maximum number of sampled words of a position.
const SAMPLE: usize = 32;
/// Tokens that are stored per word.
const CALLERS: usize = 4;
/// Minimum number of words at a position with names that are alike.
const ALIKE_MIN: usize = 6;
/// Minimum number of segments that occur after two thirds of the words.
const ALIKE_SEGMENTS: usize = 3;
/// Following segments that are stored per word: those with the smallest hashes, so that words store the same ones.
const NEXT: usize = 8;
/// Minimum number of words at an open position, and if few of them are followed by another segment.
const OPEN_MIN: usize = 48;
const OPEN_LEAVES_MIN: usize = 512;
/// Minimum number of tokens that call the words of an open position.
const OPEN_CALLERS_MIN: usize = 12;
/// Minimum number of sampled words of each of two tenants at an open position, if several tenants use it.
const OPEN_OWN_MIN: usize = 4;
/// Maximum number of words of a resource that its area contains.
const AREA_WORDS: usize = 3;

/// Position before the first segment.
const ROOT: u64 = 0x243f_6a88_85a3_08d3;

/// Position after `segment`.
const fn below(position: u64, segment: u32) -> u64 {
    let mixed = (position ^ segment as u64).wrapping_mul(0xff51_afd7_ed55_8ccd);
    (mixed ^ (mixed >> 29)).wrapping_mul(0x9fb2_1c65_1e98_df25)
}

/// Names that follow a position.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum Found {
    Alike,
    Open,
}

/// One sampled word.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
struct Word {
    key: u32,
    /// Tenant that called it first.
    tenant: u64,
    /// Hashes of segments that follow it, in ascending order; the largest value: none.
    next: [u16; NEXT],
    /// Tokens that called it; 0: none.
    callers: [u16; CALLERS],
}

/// Words that follow a position.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Position {
    words: Vec<Word>,
    /// A word is sampled if the lowest bits of its key are 0, this many.
    level: u32,
    /// The tenant that called first, and whether others did.
    first: Option<u64>,
    shared: bool,
}

/// A call that is learnt.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Taught {
    pub(crate) tenant: u64,
    /// Key of the token's baseline.
    pub(crate) baseline: u64,
}

impl Word {
    /// Stores a segment that follows. Returns whether it is new.
    fn add_next(&mut self, segment: u32) -> bool {
        let hash = (segment >> 16) as u16;
        match self.next.binary_search(&hash) {
            Err(at) if at < NEXT => {
                self.next[at..].rotate_right(1);
                self.next[at] = hash;
                true
            }
            _ => false,
        }
    }

    /// Whether it is followed by a segment that is no id.
    const fn is_followed(&self) -> bool {
        self.next[0] != u16::MAX
    }
}

impl Position {
    /// Learns a call. Returns whether the sample changed.
    fn learn(&mut self, taught: Taught, key: u32, next: Option<u32>) -> bool {
        if key.trailing_zeros() < self.level {
            return false;
        }
        self.shared |= *self.first.get_or_insert(taught.tenant) != taught.tenant;
        let mut changed = false;
        let at = self.words.iter().position(|word| word.key == key).unwrap_or_else(|| {
            changed = true;
            self.words.push(Word { key, tenant: taught.tenant, next: [u16::MAX; NEXT], callers: [0; CALLERS] });
            self.words.len() - 1
        });
        let word = &mut self.words[at];
        changed |= next.is_some_and(|next| next != ID && word.add_next(next));
        let caller = ((taught.baseline >> 32) as u16).max(1);
        // Free places come last.
        if let Some(place) = word.callers.iter_mut().find(|known| **known == caller || **known == 0)
            && *place == 0
        {
            *place = caller;
            changed = true;
        }
        while self.words.len() > SAMPLE {
            self.level += 1;
            let level = self.level;
            self.words.retain(|word| word.key.trailing_zeros() >= level);
        }
        changed
    }

    /// Whether names follow, without the part of the largest tenant if there are several.
    fn names(&self) -> Option<Found> {
        let number_of = |words: usize| words << self.level.min(24);
        let taught = |tenant| self.words.iter().filter(|word| word.tenant == tenant).count();
        let largest = self.words.iter().map(|word| word.tenant).max_by_key(|tenant| (taught(*tenant), *tenant))?;
        let words = || self.words.iter().filter(|word| !self.shared || word.tenant != largest);
        let sampled = words().count();
        let followed: SmallVec<[&Word; SAMPLE]> = words().filter(|word| word.is_followed()).collect();
        if followed.len() >= ALIKE_MIN && 2 * followed.len() >= sampled && are_alike(&followed) {
            return Some(Found::Alike);
        }
        let minimum = if 4 * followed.len() >= sampled { OPEN_MIN } else { OPEN_LEAVES_MIN };
        let few_callers = words().filter(|word| word.callers.contains(&0)).count();
        if number_of(sampled) < minimum || 3 * few_callers < sampled {
            return None;
        }
        let mut callers: SmallVec<[u16; SAMPLE * CALLERS]> =
            words().flat_map(|word| word.callers).filter(|caller| *caller != 0).collect();
        callers.sort_unstable();
        callers.dedup();
        let mut tenants: SmallVec<[u64; SAMPLE]> =
            words().map(|word| word.tenant).filter(|tenant| taught(*tenant) >= OPEN_OWN_MIN).collect();
        tenants.sort_unstable();
        tenants.dedup();
        let is_open = callers.len() >= OPEN_CALLERS_MIN && (!self.shared || tenants.len() >= 2);
        is_open.then_some(Found::Open)
    }
}

/// Whether enough segments follow two thirds of the words.
fn are_alike(words: &[&Word]) -> bool {
    let mut all: SmallVec<[u16; SAMPLE * NEXT]> =
        words.iter().flat_map(|word| word.next).filter(|next| *next != u16::MAX).collect();
    all.sort_unstable();
    all.chunk_by(|a, b| a == b).filter(|same| 3 * same.len() >= 2 * words.len()).count() >= ALIKE_SEGMENTS
}

/// Positions of names in the paths of a partition.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Templates {
    found: Generations<Found>,
    positions: Generations<Position>,
}

impl Default for Templates {
    fn default() -> Self {
        Self { found: Generations::new(POSITIONS_MAX), positions: Generations::new(POSITIONS_MAX) }
    }
}

/// A route whose names are found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Resolved {
    /// Key of method and operation.
    pub(crate) key: u32,
    /// Key of the area: the first names, and where they stand.
    pub(crate) area: u32,
    /// Hash of the path.
    pub(crate) object: Option<u64>,
    pub(crate) names: Names,
}

impl Templates {
    /// `route` with the names that were found in its path.
    #[must_use]
    pub(crate) fn resolve(&self, route: &Route) -> Resolved {
        let plain = Resolved { key: route.key, area: route.area, object: route.object, names: Names::default() };
        if self.found.is_empty() {
            return plain;
        }
        let segments = route.segments.keys();
        let (mut position, mut area, mut area_words) = (ROOT, ROOT, 0);
        let mut names = Names::default();
        let mut add = |position: u64, segments: &[u32]| {
            if area_words == 0 {
                area = position;
            }
            for segment in segments.iter().take(AREA_WORDS - area_words) {
                area = below(area, *segment);
                area_words += 1;
            }
        };
        for (number, segment) in segments.iter().enumerate() {
            match self.found.get(position) {
                None => position = below(position, *segment),
                Some(found) => {
                    position = below(position, ID);
                    if *found == Found::Open && self.found.get(position) == Some(&Found::Open) {
                        names.add_all_from(number);
                        add(position, &segments[number..]);
                        break;
                    }
                    names.add(number);
                    add(position, std::slice::from_ref(segment));
                }
            }
        }
        if names == Names::default() {
            return plain;
        }
        let key = below(position, route.method) as u32;
        Resolved { key: key.max(1), area: (area as u32).max(1), object: Some(route.path), names }
    }

    /// Learns a successful call of a token with a history.
    pub(crate) fn learn(&mut self, taught: Taught, segments: &Segments) {
        let mut position = ROOT;
        let mut is_open = false;
        for (number, segment) in segments.keys().iter().enumerate() {
            let found = if self.found.is_empty() { None } else { self.found.get_mut(position).copied() };
            if is_open && found == Some(Found::Open) {
                return;
            }
            is_open = found == Some(Found::Open);
            let segment = if found.is_some() { ID } else { *segment };
            // The first segment is the service or its version.
            if segment != ID && number > 0 {
                let words = self.positions.entry(position, Position::default);
                if words.learn(taught, segment, segments.keys().get(number + 1).copied())
                    && let Some(found) = words.names()
                {
                    self.positions.remove(position);
                    self.found.insert(position, found);
                    return;
                }
            }
            position = below(position, segment);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::KeyHasher;

    struct Calls {
        templates: Templates,
        hasher: KeyHasher,
    }

    impl Calls {
        fn new() -> Self {
            Self { templates: Templates::default(), hasher: KeyHasher::default() }
        }

        fn route(&self, endpoint: &str) -> Route {
            Route::of("GET", endpoint, &self.hasher)
        }

        /// A call of the token `baseline` of `tenant`.
        fn teach(&mut self, tenant: u64, baseline: u64, endpoint: &str) {
            let segments = self.route(endpoint).segments;
            self.templates.learn(Taught { tenant, baseline: baseline << 32 }, &segments);
        }

        fn template(&self, endpoint: &str) -> String {
            let resolved = self.templates.resolve(&self.route(endpoint));
            crate::route::template_without(endpoint, resolved.names).into_owned()
        }

        /// Calls of one tenant that owns a repository.
        fn repository(&mut self, tenant: u64, name: &str) {
            for operation in ["pulls", "issues", "hooks", "branches"] {
                self.teach(tenant, tenant, &format!("/v1/repos/{name}/{operation}"));
            }
        }

        /// Calls of files in a tree of folders, by several tokens.
        fn files(&mut self, of: impl Fn(u64) -> String) {
            for file in 0..400 {
                let folder = format!("folder{}", ["a", "b", "c", "d", "e", "f", "g"][file as usize % 7]);
                self.teach(
                    file % 5,
                    file,
                    &format!("{}/{folder}w{}/p{}/x{}", of(file), word(file), word(file), word(file + 7)),
                );
            }
        }
    }

    /// A word without the form of an id.
    fn word(number: u64) -> String {
        number.to_string().bytes().map(|digit| char::from(b'a' + digit - b'0')).collect()
    }

    #[test]
    fn names_that_are_alike_are_found() {
        let mut calls = Calls::new();
        for (tenant, name) in ["alpha", "beta", "gamma", "delta", "zeta", "eta", "theta"].iter().enumerate() {
            assert_eq!(calls.template("/v1/repos/beta/pulls"), "/v1/repos/beta/pulls");
            calls.repository(tenant as u64, name);
        }
        assert_eq!(calls.template("/v1/repos/beta/pulls"), "/v1/repos/{}/pulls");
        assert_eq!(calls.template("/v1/repos/unknown/pulls"), "/v1/repos/{}/pulls");
        assert_eq!(calls.template("/v1/user/repos"), "/v1/user/repos");
        let resolve = |endpoint| calls.templates.resolve(&calls.route(endpoint));
        let (one, other) = (resolve("/v1/repos/alpha/pulls"), resolve("/v1/repos/beta/pulls"));
        assert_eq!(one.key, other.key, "the operation is the same");
        assert!(one.area != other.area && one.object != other.object, "the resource is not");
        assert_ne!(one.key, resolve("/v1/repos/alpha/hooks").key);
        assert_ne!(one.key, calls.templates.resolve(&Route::of("PUT", "/v1/repos/alpha/pulls", &calls.hasher)).key);
    }

    #[test]
    fn operations_of_a_service_are_no_names() {
        let mut calls = Calls::new();
        for token in 0..2_000_u64 {
            for resource in ["customers", "invoices", "products", "orders", "refunds", "plans", "prices", "events"] {
                calls.teach(token % 9, token, &format!("/v1/{resource}/{token}"));
                calls.teach(token % 9, token, &format!("/v1/{resource}/search"));
            }
            // Three hundred operations, of which each token calls a few.
            calls.teach(token % 9, token, &format!("/api/chat.{}", word(token % 300)));
        }
        // Collections with children that are names.
        for token in 0..3_000_u64 {
            let resource = ["users", "topics", "teams", "groups", "queues", "indexes", "buckets"][token as usize % 7];
            calls.teach(token % 4, token % 200, &format!("/v2/{resource}/{}", word(token % 40 * 7 + token % 7)));
        }
        for endpoint in ["/v2/users/b", "/v2/teams/cf"] {
            assert!(calls.template(endpoint).starts_with(&endpoint[..7]), "{}", calls.template(endpoint));
        }
        for endpoint in ["/v1/customers/search", "/v1/invoices/search", "/api/chat.bc"] {
            assert_eq!(calls.template(endpoint), endpoint);
        }
    }

    #[test]
    fn tree_of_names_is_one_name() {
        let mut calls = Calls::new();
        calls.files(|_| "/files".to_owned());
        calls.files(|_| "/files".to_owned());
        for endpoint in ["/files/readme", "/files/folderaw/pa/xb", "/files/a/b/c/d"] {
            assert_eq!(calls.template(endpoint), "/files/{}", "{endpoint}");
        }
        let area = |endpoint| calls.templates.resolve(&calls.route(endpoint)).area;
        assert_eq!(area("/files/src/net/ip/v4"), area("/files/src/net/ip/v6"));
        assert_ne!(area("/files/src/net/ip"), area("/files/src/net/tcp"));
    }

    #[test]
    fn one_tenant_turns_no_operations_of_others_into_names() {
        let mut calls = Calls::new();
        calls.teach(1, 1, "/v1/user/keys");
        calls.teach(2, 2, "/v1/user/orgs");
        for number in 0..5_000 {
            for operation in ["x", "y", "z"] {
                calls.teach(9, number, &format!("/v1/user/{}/{operation}", word(number)));
            }
        }
        assert_eq!(calls.template("/v1/user/keys"), "/v1/user/keys");
    }

    #[test]
    fn interfaces_of_many_tenants_are_no_names() {
        let mut calls = Calls::new();
        for round in 0..40_u64 {
            for tenant in 0..30 {
                calls.teach(tenant, tenant * 3 + round % 3, &format!("/api/{}/list/all", word(tenant * 6 + round % 6)));
            }
        }
        assert_eq!(calls.template("/api/bc/list/all"), "/api/bc/list/all");
    }

    #[test]
    fn one_token_invents_no_words() {
        let mut calls = Calls::new();
        for number in 0..2_000 {
            calls.teach(1, number % 3, &format!("/admin/{}/x", word(number % 20)));
            calls.teach(1, 7, &format!("/admin/{}/{}", word(number + 1_000), word(number)));
        }
        assert_eq!(calls.template("/admin/b/x"), "/admin/b/x");
    }

    proptest::proptest! {
        #[test]
        fn sample_is_bounded_and_uniform(words in proptest::collection::vec(2_u32.., 1..500)) {
            let mut position = Position::default();
            for (number, key) in words.iter().enumerate() {
                position.learn(Taught { tenant: 1, baseline: (number as u64) << 32 }, *key, None);
            }
            proptest::prop_assert!(position.words.len() <= SAMPLE);
            for word in &position.words {
                proptest::prop_assert!(word.key.trailing_zeros() >= position.level);
            }
            let sampled = |key: &&u32| key.trailing_zeros() >= position.level;
            let expected: std::collections::BTreeSet<u32> = words.iter().filter(sampled).copied().collect();
            proptest::prop_assert_eq!(position.words.len(), expected.len(), "every word of the level is sampled");
        }
    }
}

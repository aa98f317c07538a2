//! Positions of names in paths, learnt from calls.
//!
//! In `/repos/acme/contents/src/main.rs`, users chose `acme` and `src/main.rs`. The operation is
//! `/repos/{}/contents/{}`, and the names are the resource on which it acts. Each position of a path (the segments
//! before it) keeps a uniform sample of the words that follow (adaptive sampling: Flajolet, "On adaptive sampling",
//! Computing 1990). A position has names if one of these is true:
//!
//! - **Alike**: at least six words follow, and three segments occur after at least half of the words that are not the
//!   last of a path: `/repos/acme/hooks`, `/repos/acme/keys`, `/repos/beta/hooks`, …
//! - **Open**: at least 48 words follow, and a third of them were called by fewer than four tokens. At least 512, if
//!   fewer than a quarter are followed by another segment, because a service may have hundreds of operations.
//!
//! If the position after an open one is open too, the rest of the path is one name.
//!
//! Only accepted calls of tokens with a history count, so that a caller cannot invent words. What the largest tenant
//! taught does not count if there are others, so that one tenant cannot turn operations of others into names.

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
/// Minimum number of segments that occur after half of the words.
const ALIKE_SEGMENTS: usize = 3;
/// Minimum number of words at an open position, and if few of them are followed by another segment.
const OPEN_MIN: usize = 48;
const OPEN_LEAVES_MIN: usize = 512;
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
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Found {
    Alike,
    Open,
}

/// One sampled word.
#[derive(Clone, Copy, Debug)]
struct Word {
    key: u32,
    /// Tenant that called it first.
    tenant: u64,
    /// Segments that follow it: a bit for each, by hash.
    next: u64,
    /// Tokens that called it; 0: none.
    callers: [u16; CALLERS],
}

/// Words that follow a position.
#[derive(Debug, Default)]
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
            self.words.push(Word { key, tenant: taught.tenant, next: 0, callers: [0; CALLERS] });
            self.words.len() - 1
        });
        let word = &mut self.words[at];
        let next = next.filter(|next| *next != ID).map_or(0, |next| 1_u64 << (next % 64));
        changed |= word.next & next != next;
        word.next |= next;
        let caller = ((taught.baseline >> 32) as u16).max(1);
        if !word.callers.contains(&caller)
            && let Some(free) = word.callers.iter_mut().find(|caller| **caller == 0)
        {
            *free = caller;
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
        let taught = |tenant| self.words.iter().filter(|word| word.tenant == tenant).count();
        let largest = self.words.iter().map(|word| word.tenant).max_by_key(|tenant| (taught(*tenant), *tenant))?;
        let words = || self.words.iter().filter(|word| !self.shared || word.tenant != largest);
        let sampled = words().count();
        let number = sampled << self.level.min(24);
        let containers = words().filter(|word| word.next != 0).count();
        let follows = |bit: u32| words().filter(|word| word.next >> bit & 1 == 1).count();
        if containers >= ALIKE_MIN
            && 2 * containers >= sampled
            && (0..64).filter(|bit| 3 * follows(*bit) >= 2 * containers).count() >= ALIKE_SEGMENTS
        {
            return Some(Found::Alike);
        }
        let few_callers = words().filter(|word| word.callers.contains(&0)).count();
        let minimum = if 4 * containers >= sampled { OPEN_MIN } else { OPEN_LEAVES_MIN };
        (number >= minimum && 3 * few_callers >= sampled).then_some(Found::Open)
    }
}

/// Positions of names in the paths of a partition.
#[derive(Debug)]
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
    /// Key of method and operation, and of the area: the first words of the resource.
    pub(crate) key: u32,
    pub(crate) area: u32,
    /// Hash of the resource.
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
        let mut add = |segments: &[u32]| {
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
                        add(&segments[number..]);
                        break;
                    }
                    names.add(number);
                    add(std::slice::from_ref(segment));
                }
            }
        }
        if names == Names::default() {
            return plain;
        }
        let key = below(position, route.method) as u32;
        Resolved { key: key.max(1), area: (area as u32).max(1), object: Some(route.path), names }
    }

    /// Learns an accepted call of a token with a history.
    pub(crate) fn learn(&mut self, taught: Taught, segments: &Segments) {
        let mut position = ROOT;
        let mut is_open = false;
        for (number, segment) in segments.keys().iter().enumerate() {
            let found = self.found.get_mut(position).copied();
            if is_open && found == Some(Found::Open) {
                return;
            }
            is_open = found == Some(Found::Open);
            let segment = if found.is_some() { ID } else { *segment };
            if segment != ID {
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

    /// A call by the token `baseline` of `tenant`.
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

//! What is known of a user over all of their tokens: where a new grant of theirs starts from.

/// Networks, client families and countries kept of a user.
const NETWORKS_MAX: usize = 6;
const FAMILIES_MAX: usize = 4;
const COUNTRIES_MAX: usize = 3;

/// Seen with a probability of one half or more; the one that was new longest ago makes room.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct User {
    networks: [u32; NETWORKS_MAX],
    families: [u32; FAMILIES_MAX],
    countries: [u32; COUNTRIES_MAX],
    /// Minutes since the epoch; 0: never.
    changed_at: u32,
    visits: u16,
}

const MINUTE: i64 = 60_000;

impl User {
    #[must_use]
    pub const fn is_known(&self) -> bool {
        self.visits > 0
    }

    #[must_use]
    pub const fn visits(&self) -> u16 {
        self.visits
    }

    #[must_use]
    pub fn has_network(&self, network: u32) -> bool {
        self.networks.contains(&network)
    }

    #[must_use]
    pub fn has_family(&self, family: u32) -> bool {
        self.families.contains(&family)
    }

    #[must_use]
    pub fn has_country(&self, country: u32) -> bool {
        self.countries.contains(&country)
    }

    pub fn countries(&self) -> impl Iterator<Item = u32> {
        self.countries.into_iter().filter(|country| *country != 0)
    }

    /// Whether any country of theirs is known.
    #[must_use]
    pub fn has_countries(&self) -> bool {
        self.countries != [0; COUNTRIES_MAX]
    }

    /// The password or factor was changed.
    pub fn change_credential(&mut self, at: i64) {
        self.changed_at = self.changed_at.max((at / MINUTE) as u32);
    }

    /// Days since the credential was changed; `None` if never, or not yet.
    #[must_use]
    pub fn days_since_change(&self, at: i64) -> Option<f64> {
        let minutes = at / MINUTE - i64::from(self.changed_at);
        (self.changed_at != 0 && minutes >= 0).then(|| minutes as f64 / 1_440.0)
    }

    /// Milliseconds since the epoch.
    #[must_use]
    pub const fn changed_at(&self) -> i64 {
        self.changed_at as i64 * MINUTE
    }

    /// Takes in a visit that is the owner's by all we know. 0 stands for what is not known.
    pub fn learn(&mut self, network: u32, family: u32, country: u32) {
        remember(&mut self.networks, network);
        remember(&mut self.families, family);
        remember(&mut self.countries, country);
        self.visits = self.visits.saturating_add(1);
    }
}

fn remember<const MAX: usize>(known: &mut [u32; MAX], key: u32) {
    if key != 0 && !known.contains(&key) {
        known.rotate_right(1);
        known[0] = key;
    }
}

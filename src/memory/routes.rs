//! The routes that anybody calls, and what a thief who chooses among them would take.

use super::generations::Map;
use crate::math::{exp, ln};

/// Routes of a generation: of two of them, what is called goes on into the younger one.
const GENERATION: usize = 1 << 15;
/// A route that so few calls of anybody's went to is nobody's, once so many calls are known.
const NOBODYS_CALLS: f64 = 2.0;
const KNOWN_CALLS: f64 = 2_000.0;
/// The thief's preference for all that nobody calls: twenty ordinary routes, √.3 each.
pub const UNKNOWN: f64 = 20.0 * 0.547_722_557_505_166_1;

/// One route as everybody uses it.
#[derive(Clone, Copy, Debug, Default)]
pub struct RouteUse {
    count: f64,
    /// How much its words promise a thief: 1 is an ordinary route.
    pub promise: f32,
    /// promise^.6
    lure: f32,
}

impl RouteUse {
    /// One that nobody uses yet.
    #[must_use]
    pub fn new(promise: f64) -> Self {
        Self { count: 0.0, promise: promise as f32, lure: exp(0.6 * ln(promise)) as f32 }
    }

    /// promise^.6: how much more a thief takes of it than of an ordinary one.
    #[must_use]
    pub fn lure(self) -> f64 {
        f64::from(self.lure)
    }

    /// The thief's: `(count + .3)^.5 · promise^.6`.
    fn preference(self) -> f64 {
        self.preference_of(self.count)
    }

    /// The same where so many calls count.
    #[must_use]
    pub fn preference_of(self, count: f64) -> f64 {
        libm::sqrt(count + 0.3) * f64::from(self.lure)
    }
}

/// One generation, with its sums.
#[derive(Debug, Default)]
struct Generation {
    routes: Map<u32, RouteUse>,
    calls: f64,
    /// Σ of the thief's preferences.
    preferences: f64,
}

impl Generation {
    fn take(&mut self, route: u32) -> Option<RouteUse> {
        let used = self.routes.remove(&route)?;
        self.calls -= used.count;
        self.preferences -= used.preference();
        Some(used)
    }
}

/// All routes. A path that is made up, or holds an id that cannot be told from a word, is called once and forgotten when
/// 32,768 others were called after it; so that nothing is ever full.
#[derive(Debug, Default)]
pub struct Routes {
    young: Generation,
    old: Generation,
}

impl Routes {
    #[must_use]
    pub fn get(&self, route: u32) -> Option<RouteUse> {
        self.young.routes.get(&route).or_else(|| self.old.routes.get(&route)).copied()
    }

    /// Takes in a call, and tells what is known of the route then.
    pub fn learn(&mut self, route: u32, promise: f64, weight: f64) -> RouteUse {
        if self.young.routes.len() >= GENERATION && !self.young.routes.contains_key(&route) {
            self.old = std::mem::take(&mut self.young);
        }
        let Self { young, old } = self;
        let mut calls = weight;
        let mut before = 0.0;
        let used = young.routes.entry(route).and_modify(|used| before = used.preference()).or_insert_with(|| {
            let found = old.take(route).unwrap_or_else(|| RouteUse::new(promise));
            calls += found.count;
            found
        });
        used.count += weight;
        young.calls += calls;
        young.preferences += used.preference() - before;
        *used
    }

    /// The probability of a route among all calls of anybody's.
    #[must_use]
    pub fn taken(&self, used: RouteUse) -> f64 {
        let routes = self.young.routes.len() + self.old.routes.len();
        (used.count + 0.3) / (self.calls() + 0.3 * (routes as f64 + 20.0))
    }

    /// The thief's probability of a route among all of them.
    #[must_use]
    pub fn tempts(&self, used: RouteUse) -> f64 {
        used.preference() / (self.young.preferences + self.old.preferences.max(0.0) + UNKNOWN)
    }

    /// Whether a route is nobody's: an id in a path that cannot be told from a word, a name, or a wild guess.
    #[must_use]
    pub fn is_nobodys(&self, used: RouteUse) -> bool {
        used.count < NOBODYS_CALLS && self.calls() > KNOWN_CALLS
    }

    fn calls(&self) -> f64 {
        self.young.calls + self.old.calls.max(0.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn made_up_paths_push_nothing_out_that_is_called() {
        let mut routes = Routes::default();
        for number in 0..200_000 {
            routes.learn(1_000 + number, 1.0, 1.0);
            if number % 100 == 0 {
                routes.learn(7, 4.0, 1.0);
            }
        }
        let used = routes.get(7).expect("it is called all the time");
        assert!((used.count - 2_000.0).abs() < 1.0);
        assert!(routes.young.routes.len() + routes.old.routes.len() <= 2 * GENERATION);
        assert!(routes.get(1_000).is_none(), "called once, long ago");
        assert!(routes.is_nobodys(RouteUse::new(1.0)) && !routes.is_nobodys(used));
        // The sums are those of what is there.
        let all: Vec<RouteUse> = routes.young.routes.values().chain(routes.old.routes.values()).copied().collect();
        let (calls, preferences) =
            all.iter().fold((0.0, 0.0), |sums, used| (sums.0 + used.count, sums.1 + used.preference()));
        assert!((routes.calls() - calls).abs() < 1e-6 * calls);
        assert!((routes.young.preferences + routes.old.preferences - preferences).abs() < 1e-6 * preferences);
        assert!((all.iter().map(|used| routes.taken(*used)).sum::<f64>() - 1.0).abs() < 1e-3);
    }
}

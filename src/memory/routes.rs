//! Popularity of routes in the population, and the preferences of a thief among them.

use super::generations::Map;
use crate::math::{exp, ln};

/// Routes per generation. There are two, and a route that is called moves to the younger one.
const GENERATION: usize = 1 << 15;
/// A route with fewer calls than this is rare, once the second number of calls is known.
const NOBODYS_CALLS: f64 = 2.0;
const KNOWN_CALLS: f64 = 2_000.0;
/// The thief's preference for all rare routes: that of twenty ordinary routes, √0.3 each.
pub const UNKNOWN: f64 = 20.0 * 0.547_722_557_505_166_1;

/// Use of one route in the population.
#[derive(Clone, Copy, Debug, Default)]
pub struct RouteUse {
    count: f64,
    /// How attractive its words are to a thief; 1 is an ordinary route.
    pub promise: f32,
    /// promise^0.6
    lure: f32,
}

impl RouteUse {
    /// A route without calls.
    #[must_use]
    pub fn new(promise: f64) -> Self {
        Self { count: 0.0, promise: promise as f32, lure: exp(0.6 * ln(promise)) as f32 }
    }

    /// promise^0.6: the thief's preference relative to an ordinary route.
    #[must_use]
    pub fn lure(self) -> f64 {
        f64::from(self.lure)
    }

    /// The thief's preference: `(count + 0.3)^0.5 · promise^0.6`.
    fn preference(self) -> f64 {
        self.preference_of(self.count)
    }

    /// The same for another number of calls.
    #[must_use]
    pub fn preference_of(self, count: f64) -> f64 {
        libm::sqrt(count + 0.3) * f64::from(self.lure)
    }
}

/// One generation with its sums.
#[derive(Debug, Default)]
struct Generation {
    routes: Map<u32, RouteUse>,
    calls: f64,
    /// Sum of the thief's preferences.
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

/// All routes. An invented path, or one with an id that looks like a word, is called once and evicted after 32,768
/// other routes. The table is never full.
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

    /// Counts a call, and returns the use of the route.
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

    /// Probability of a route among all calls.
    #[must_use]
    pub fn taken(&self, used: RouteUse) -> f64 {
        let routes = self.young.routes.len() + self.old.routes.len();
        (used.count + 0.3) / (self.calls() + 0.3 * (routes as f64 + 20.0))
    }

    /// The thief's probability of a route among all routes.
    #[must_use]
    pub fn tempts(&self, used: RouteUse) -> f64 {
        used.preference() / (self.young.preferences + self.old.preferences.max(0.0) + UNKNOWN)
    }

    /// Whether a route is rare: an id in a path that looks like a word, a name, or a guess.
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

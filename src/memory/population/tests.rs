use super::*;
use crate::memory::tenants::seated;

const fn call(app: u64, family: u32, route: u32) -> AppCall {
    AppCall { app, family, route, promise: 1.0, is_rare: None }
}

/// A first visit of a known user.
const fn adoption(network: u32, country: u32) -> NewNetwork {
    NewNetwork { network, country, is_known_user: true }
}

#[test]
fn thief_prefers_popular_networks_less_than_owners() {
    let mut population = Population::default();
    for _ in 0..900 {
        population.learn_network(seated(1), NewNetwork { is_known_user: false, ..adoption(3320, 49) }, 1.0);
    }
    for network in 0..100 {
        population.learn_network(seated(1), NewNetwork { is_known_user: false, ..adoption(network, 49) }, 1.0);
    }
    let thief = |network| population.networks.thief(seated(1).seat, place(network, 49), 5.0);
    assert!(thief(3320) < 0.9 && thief(3320) > thief(5));
    let all: f64 = (0..100).map(thief).sum::<f64>() + thief(3320) + 5.0 * thief(999_999);
    assert!((all - 1.0).abs() < 1e-6, "{all}");
}

#[test]
fn adopted_network_is_likely_in_its_tenant() {
    let mut population = Population::default();
    for _ in 0..200 {
        population.learn_network(seated(1), adoption(9009, 49), 1.0);
        population.learn_network(seated(2), adoption(3320, 49), 1.0);
    }
    let adopts = |population: &Population, tenant, network| population.chooses(seated(tenant), network, 49, &[49]).1;
    assert!(adopts(&population, 1, 9009) > 0.9);
    let (of_another, unheard) = (adopts(&population, 2, 9009), adopts(&population, 2, 12345));
    assert!(
        of_another < 0.05 && (of_another - unheard).abs() < 1e-9,
        "one other tenant does not count: {of_another} {unheard}"
    );
    for _ in 0..200 {
        population.learn_network(seated(3), adoption(9009, 49), 1.0);
    }
    let of_two = adopts(&population, 2, 9009);
    assert!(of_two < 0.05 && of_two > 2.0 * unheard, "{of_two} {unheard}");
}

#[test]
fn network_choice_is_within_the_country() {
    let mut population = Population::default();
    for _ in 0..300 {
        population.learn_network(seated(1), adoption(3320, 49), 1.0);
    }
    for _ in 0..3 {
        population.learn_network(seated(1), adoption(1221, 61), 1.0);
    }
    let choice = |known: &[u32]| population.chooses(seated(1), 1221, 61, known);
    let ((thief_abroad, owner_abroad), (thief_at_known, owner_at_known)) = (choice(&[49]), choice(&[49, 61]));
    // Of the owner's visits outside Germany, most are in the network of colleagues.
    assert!(owner_abroad > 0.2 && owner_abroad > 10.0 * owner_at_known, "{owner_abroad} {owner_at_known}");
    assert!(thief_abroad > thief_at_known && thief_abroad < 1.0);
    assert!(owner_at_known < 0.05);
    let (_, owner_nowhere) = population.chooses(seated(1), 3320, 0, &[49]);
    assert!(owner_nowhere < 0.2, "an unknown country is not a new one: {owner_nowhere}");
    for (thief, owner) in [choice(&[]), choice(&[61]), population.chooses(seated(9), 9, 9, &[49, 61])] {
        assert!(thief > 0.0 && thief <= 1.0 && owner > 0.0 && owner <= 1.0, "{thief} {owner}");
    }
}

#[test]
fn route_probability_is_that_of_the_nearest_group() {
    let mut population = Population::default();
    for _ in 0..500 {
        population.learn_route(seated(0), &call(1, 7, 11), 1.0);
        population.learn_route(seated(0), &call(1, 8, 12), 1.0);
        population.learn_route(seated(0), &call(2, 7, 13), 1.0);
    }
    let calls = |app, family, route| {
        let used = population.route(seated(0), route).unwrap_or_else(|| RouteUse::new(1.0));
        population.calls(&population.callers(seated(0), app, family), route, used)
    };
    let others = |app, family, route| calls(app, family, route).others;
    assert!(others(1, 7, 11) > 0.9);
    assert!(others(1, 7, 12) < 0.1 && others(1, 7, 13) < 0.02);
    assert!(others(1, 9, 12) > 0.4, "unknown family, known application");
    assert!(others(3, 7, 12) > 0.3, "unknown application");
    assert!(others(1, 7, 99) < 1e-3);
    // A thief prefers the routes of the token's application.
    assert!(calls(2, 7, 13).thief > 0.6 && calls(2, 7, 11).thief < 0.2);
    assert!(calls(1, 7, 13).thief > 0.0);
}

#[test]
fn large_population_counts_each_call() {
    let mut population = Population::default();
    let large = f64::from(1_u32 << 25);
    for route in [11, 12] {
        population.learn_route(seated(0), &call(1, 7, route), large);
    }
    for _ in 0..1_000 {
        population.learn_route(seated(0), &call(1, 7, 11), 0.25);
    }
    let used = population.route(seated(0), 12).expect("it was called");
    let found = population.calls(&population.callers(seated(0), 1, 7), 12, used);
    let all = 2.0 * large + 250.0;
    let anyone = (large + 0.3) / (all + 0.3 * 22.0);
    let with_app = (large + 50.0 * anyone) / (all + 50.0);
    let others = (large + 100.0 * with_app) / (all + 100.0);
    assert!((found.others - others).abs() < 1e-12, "{} and {others}", found.others);
}

#[test]
fn first_call_is_all_of_its_application() {
    let mut population = Population::default();
    // Not exact as a 32-bit float.
    population.learn_route(seated(0), &call(1, 7, 11), 0.999);
    let used = population.route(seated(0), 11).expect("it was called");
    let found = population.calls(&population.callers(seated(0), 1, 7), 11, used);
    let preference = 1.299_f64.sqrt();
    let expected = preference * (1.0 + UNKNOWN / (preference + UNKNOWN)) / (preference + UNKNOWN);
    assert!((found.thief - expected).abs() < 1e-9, "{} and {expected}", found.thief);
}

#[test]
fn thief_prefers_attractive_words() {
    let mut population = Population::default();
    for route in 0..40 {
        for _ in 0..10 {
            population.learn_route(
                seated(0),
                &AppCall { promise: if route == 0 { 4.0 } else { 1.0 }, ..call(1, 7, route) },
                1.0,
            );
        }
    }
    let thief = |route| {
        population
            .calls(&population.callers(seated(0), 1, 7), route, population.route(seated(0), route).unwrap_or_default())
            .thief
    };
    assert!(thief(0) > 2.0 * thief(1));
    let all: f64 = (0..40).map(thief).sum();
    // The rest is the probability of routes without calls.
    assert!(all > 0.85 && all < 1.0, "{all}");
}

#[test]
fn route_with_few_calls_is_rare() {
    let mut population = Population::default();
    population.learn_route(seated(0), &call(1, 7, 11), 1.0);
    let used = |population: &Population, route| population.route(seated(0), route).unwrap_or_default();
    assert!(!population.is_rare(seated(0), used(&population, 11)), "too few calls are known");
    for _ in 0..3_000 {
        population.learn_route(seated(0), &call(1, 7, 12), 1.0);
    }
    assert!(
        population.is_rare(seated(0), used(&population, 11)) && population.is_rare(seated(0), used(&population, 99))
    );
    assert!(!population.is_rare(seated(0), used(&population, 12)));
}

#[test]
fn areas_are_counted_per_tenant() {
    let mut population = Population::default();
    for area in [1, 2, 2, 3, 1, 2] {
        population.learn_area(7, area, 0.5);
        population.learn_area(8, 1, 1.0);
    }
    // A suspected thief's.
    population.learn_area(7, 4, 0.03);
    assert_eq!([7, 8, 9].map(|tenant| population.areas(tenant) as u32), [3, 1, 0]);
}

#[test]
fn share_of_rare_routes_follows_the_application() {
    let mut population = Population::default();
    let share = |population: &Population, app| population.callers(seated(0), app, 7).rare_routes(0.01);
    assert!((share(&population, 1) - 0.01).abs() < 1e-12, "an unknown application: the share of the cohort");
    let mut learn = |app, is_rare, times| {
        for _ in 0..times {
            population.learn_route(seated(0), &AppCall { is_rare: Some(is_rare), ..call(app, 7, 11) }, 1.0);
        }
    };
    learn(1, true, 1_000);
    learn(1, false, 2_000);
    learn(2, true, 1_000);
    population.learn_route(seated(0), &AppCall { is_rare: Some(false), ..call(2, 7, 11) }, 0.0);
    // 2,000 calls later, e^(−2,000/300) of the share is left. The cohort has a weight of 200 of 500 calls.
    let expected = 0.4 * 0.01 + 0.6 * (-2_000.0_f64 / 300.0).exp();
    assert!((share(&population, 1) - expected).abs() < 1e-4, "{}", share(&population, 1));
    assert!((share(&population, 2) - 0.604).abs() < 1e-9, "{}", share(&population, 2));
}

#[test]
fn fingerprint_of_another_product_is_borrowed() {
    let mut population = Population::default();
    for _ in 0..6 {
        population.learn_fingerprint(1, 100, 1.0);
    }
    assert!(population.is_borrowed(1, 200) && !population.is_borrowed(1, 100));
    assert!(!population.is_borrowed(2, 200), "an unknown fingerprint");
}

#[test]
fn replaced_keys_are_learnt_per_tenant_and_application() {
    let mut population = Population::default();
    for visit in 0..600 {
        // Four of 600 visits, such as those of a day in which a fleet's certificates are renewed.
        population.learn_habit(Habit::ReplacedKey, (1, 7), visit % 150 == 0, 1.0);
    }
    let rate = |tenant, app| population.habit(Habit::ReplacedKey, tenant, app);
    assert!(rate(1, 7) > 0.003, "{}", rate(1, 7));
    assert!(rate(2, 7) < 1e-4 && rate(1, 8) < 1e-4, "another tenant or application");
}

//! `route`: the called routes. Scored at calls 1, 4, 16, … of a route in a visit.

pub(crate) mod formula;

use super::words::{Description, Signals, Words, both};
use super::{Case, Detector, DetectorId, Fading, Lesson, Observation, Score, Teaching};
use crate::event::Kind;
use crate::math::ln;
use crate::memory::baseline::RouteCall;
use crate::memory::population::{AppCall, Callers};
use crate::memory::templates::Taught;
use crate::memory::visit::Core;
use crate::memory::{Evidence, Feature, Nats, Seen, User};
use crate::route;
use crate::verdict::RuleId;

/// Visits of a tenant from which its calls teach where paths have names.
const TEACHING_VISITS: i32 = 100;
/// Calls from which a route counts as usual.
const USUAL_CALLS: f64 = 3.0;

pub(crate) struct Route;

impl Detector for Route {
    const ID: DetectorId = DetectorId::Route;

    #[inline]
    fn score_event(case: &Case<'_>, lesson: &mut Lesson) {
        let event = &case.observation.enriched.event;
        if event.kind != Kind::Use || event.endpoint.is_none() {
            return;
        }
        let route = case.observation.route.key;
        let calls = lesson.visit.count_route(route).unwrap_or_else(|| {
            lesson.further_route = true;
            case.visit.map_or(1, |visit| visit.further_calls(route))
        });
        lesson.learns.route = formula::weight(calls);
        if lesson.learns.route > 0.0 {
            score_call(case, lesson);
        }
    }

    /// Includes the evidence of change-point detection, which counts in its visit only.
    #[inline]
    fn evidence(lesson: &Lesson) -> f64 {
        let evidence = lesson.holder.evidence[Self::ID];
        let between = f64::from(lesson.visit.between);
        if between > 0.0 { Nats::new(evidence.get() + between).get() } else { evidence.get() }
    }

    fn leave_out(score: &mut Score) {
        (score.evidence[Self::ID], score.evidence.sensitive) = (Nats::default(), Nats::default());
        score.between = 0.0;
    }

    fn fade(evidence: &mut Evidence, fading: &Fading) {
        evidence[Self::ID] = fading.limited_fast(evidence[Self::ID]);
        evidence.route_owner = fading.limited_fast(evidence.route_owner);
        evidence.route_task = fading.fast(evidence.route_task);
        evidence.sensitive = fading.against_holder(evidence.sensitive);
    }

    #[inline]
    fn learn_event(teaching: &mut Teaching<'_>) {
        if teaching.lesson.learns.route > 0.0 {
            learn_call(teaching);
        }
    }

    #[inline]
    fn learn_visit(teaching: &mut Teaching<'_>, _: &User) {
        let counted = teaching.weights().counted;
        let kind = teaching.lesson.kind;
        if teaching.is_settled()
            && let Some(cohorts) = &mut teaching.cohorts
        {
            cohorts.learn_visit(kind, counted);
        }
    }

    /// The rule `new_endpoint` also reports the evidence of `area`.
    fn explain(words: &Words<'_>, signals: &mut Signals<'_>) {
        let score = words.score;
        let route = score.shares[Self::ID];
        let sensitive = score.evidence.sensitive.get().min(route.max(0.0));
        let calls = route + score.shares[DetectorId::Area].max(0.0) - sensitive;
        signals.add(RuleId::NewEndpoint, calls, || describe(words, "calls of unusual routes"));
        signals.add(RuleId::SensitiveEndpoint, sensitive, || describe(words, "calls of sensitive routes"));
    }
}

#[inline(never)] // Many calls are repeats.
fn score_call(case: &Case<'_>, lesson: &mut Lesson) {
    let Lesson { holder, visit, learns, .. } = lesson;
    let (observation, baseline, population) = (case.observation, case.baseline, &case.others.population);
    let (tenant, route) = (observation.tenant, observation.route);
    let key = known_key(observation, &baseline.seen);
    let used = population.route(tenant, key).unwrap_or_else(|| {
        let endpoint = observation.enriched.event.endpoint.as_deref().unwrap_or_default();
        let template = route::template_without(endpoint, route.names);
        population.own_route(tenant, route.key, formula::promise(&template, observation.enriched.route.reads))
    });
    learns.promise = f64::from(used.promise);
    if case.blank {
        return;
    }
    let sighting = observation.sighting;
    let own = baseline.own_route(key);
    let calls = f64::from(visit.calls);
    learns.rare_route = population.is_rare(tenant, used);
    let weight = learns.route;
    let callers = population.callers(tenant, sighting.app, sighting.family);
    let mut call = if learns.rare_route && own.of_this <= 0.0 {
        let others = callers.rare_routes(case.cohorts.rare_routes(case.kind));
        formula::rare(&baseline.own_rare_routes(), others, used.lure(), calls)
    } else {
        let likely = population.calls(&callers, key, used);
        let own = if own.of_this > 0.0 { own } else { own.spread(share_of_known_routes(case, visit, &callers)) };
        formula::evidence(&own, likely.others, likely.thief, calls)
    };
    if call.against_task > 0.0 {
        visit.task_calls = visit.task_calls.saturating_add(1);
        call.against_task = formula::of_one_task(call.against_task, visit.task_calls.into());
    }
    let new_task = formula::new_task(case.cohorts.new_tasks(case.kind), visit.client_level);
    visit.weighed = visit.weighed.saturating_add(1);
    let settled = holder.age_days(sighting.at) > formula::SETTLED_DAYS;
    let evidence = &mut holder.evidence;
    let against_owner = formula::added(evidence.route_owner.get(), weight * call.against_owner);
    let against_task = formula::added(evidence.route_task.get(), weight * call.against_task);
    learns.new_task = evidence.route_owner.get() < formula::TASK && against_owner >= formula::TASK;
    (evidence.route_owner, evidence.route_task) = (Nats::new(against_owner), Nats::new(against_task));
    let of_holder = formula::holder(against_owner, against_task, new_task);
    let before = evidence[Route::ID].get() + f64::from(visit.between);
    visit.between = 0.0;
    if settled {
        let sums = (f64::from(visit.between_owner), f64::from(visit.between_task));
        let (owner, task) = formula::between(sums, &call, weight);
        (visit.between_owner, visit.between_task) = (owner as f32, task as f32);
        if owner > 0.0 {
            let after_change = formula::holder(owner, task, new_task) - ln(f64::from(visit.weighed));
            visit.between = if after_change > 0.0 { (after_change - of_holder).max(0.0) as f32 } else { 0.0 };
        }
    }
    let after = of_holder + f64::from(visit.between);
    lesson.changed |= Nats::new(after) > Nats::new(before);
    if learns.promise > 1.0 && call.against_owner > 0.0 {
        let share = (weight * 0.6 * ln(learns.promise)).min(after.max(0.0));
        evidence.sensitive = Nats::new((evidence.sensitive.get() + share).min(after.max(0.0)));
    }
    evidence[Route::ID] = Nats::new(of_holder);
}

#[inline(never)] // Many calls are repeats.
fn learn_call(teaching: &mut Teaching<'_>) {
    let (observation, lesson, weights) = (teaching.observation, teaching.lesson, teaching.weights());
    let (sighting, route, learns) = (observation.sighting, observation.route.key, &lesson.learns);
    let (is_first, is_settled) = (learns.route >= formula::weight(1), teaching.is_settled());
    if is_first && is_settled {
        if let Some(cohorts) = &mut teaching.cohorts {
            cohorts.learn_route(lesson.kind, learns.rare_route, weights.counted);
            if learns.new_task {
                cohorts.learn_task(lesson.kind, weights.counted);
            }
        }
        if weights.counted > 0.5
            && observation.enriched.event.succeeded()
            && teaching.tenants.has_visits(sighting.tenant, TEACHING_VISITS)
        {
            let taught = Taught { tenant: sighting.tenant, baseline: observation.baseline };
            teaching.templates.learn(taught, &observation.enriched.route.segments);
        }
    }
    let weight = learns.route / formula::weight(1);
    let (counted, known) = (weights.counted * weight, weights.known * weight);
    let call = RouteCall { route, is_rare: learns.rare_route, minute: sighting.minute() };
    teaching.baseline.learn_route(call, counted, known);
    let population = &mut *teaching.population;
    let is_rare = (is_first && is_settled).then_some(learns.rare_route);
    let call = AppCall { app: sighting.app, family: sighting.family, route, promise: learns.promise, is_rare };
    population.learn_route(observation.tenant, &call, counted);
}

/// Key under which the owner knows the route: that before names in its path were found, if only that is known.
fn known_key(observation: &Observation<'_>, seen: &Seen) -> u32 {
    let (resolved, plain) = (observation.route.key, observation.enriched.route.key);
    let only_plain = resolved != plain && !seen.knows(Feature::Route, resolved) && seen.knows(Feature::Route, plain);
    if only_plain { plain } else { resolved }
}

/// Others' share of calls to the routes that the baseline stores.
fn share_of_known_routes(case: &Case<'_>, visit: &mut Core, callers: &Callers) -> f32 {
    let population = &case.others.population;
    let used = |route| population.route(case.observation.tenant, route).unwrap_or_default();
    let share = |(route, _)| population.calls(callers, route, used(route)).others;
    let seen = &case.baseline.seen;
    visit.routes_remembered.get_or_insert_with(|| seen.each(Feature::Route).map(share).sum::<f64>() as f32)
}

fn describe(words: &Words<'_>, what: &str) -> Description {
    let seen = &words.baseline.seen;
    let (known, _) = seen.variety(Feature::Route);
    let expected = ["one of ", itoa::Buffer::new().format(known), " known routes"].concat();
    // The unusual call may be earlier than this event.
    let is_usual = seen.count(Feature::Route, words.observation.route.key) >= USUAL_CALLS;
    let observed = if is_usual { String::new() } else { called(words.observation) };
    let (observed, reason) = if observed.is_empty() {
        ("earlier calls".to_owned(), [what, ", earlier from this network and client"].concat())
    } else {
        let reason = [what, ", most recently ", &observed].concat();
        (observed, reason)
    };
    Description { p_value: None, observed, expected, reason }
}

/// Method and template: `GET /v1/users/{}/keys`.
fn called(observation: &Observation<'_>) -> String {
    let event = &observation.enriched.event;
    let endpoint = route::template_without(event.endpoint.as_deref().unwrap_or_default(), observation.route.names);
    both(event.method.as_deref().unwrap_or_default(), &endpoint)
}

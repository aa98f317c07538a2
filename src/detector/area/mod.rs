//! `area`: the called parts of the service. Scored at the first call of an area in a visit.

pub(crate) mod formula;

use self::formula::AreaUse;
use super::{Case, Detector, DetectorId, Fading, Lesson, Teaching};
use crate::event::Kind;
use crate::memory::visit::Core;
use crate::memory::{Baseline, Evidence, Feature, Nats, areas};

pub(crate) struct Area;

impl Detector for Area {
    const ID: DetectorId = DetectorId::Area;

    #[inline]
    fn score_event(case: &Case<'_>, lesson: &mut Lesson) {
        let event = &case.observation.enriched.event;
        if event.kind != Kind::Use || event.endpoint.is_none() {
            return;
        }
        let area = case.observation.route.area;
        lesson.learns.first_area = !lesson.visit.has_areas();
        lesson.learns.area = lesson.visit.enter_area(area).unwrap_or_else(|| {
            lesson.further_area = true;
            case.visit.is_none_or(|visit| visit.is_further_new(area)) || is_unknown(case.baseline, area)
        });
        if lesson.learns.area && !case.blank {
            score_call(case, lesson, area);
        }
    }

    fn fade(evidence: &mut Evidence, fading: &Fading) {
        evidence[Self::ID] = fading.limited(evidence[Self::ID]);
    }

    #[inline]
    fn learn_event(teaching: &mut Teaching<'_>) {
        if teaching.lesson.learns.area {
            learn_call(teaching);
        }
    }
}

/// Whether an area is new to a baseline that stores new areas. A visit stores 16 areas, and a thief may first call 16 that
/// the owner knows.
fn is_unknown(baseline: &Baseline, area: u32) -> bool {
    baseline.grown.is_some() && !baseline.knows_area(area)
}

/// Scores the first call of an area in a visit.
#[inline(never)] // Most calls are repeats.
fn score_call(case: &Case<'_>, lesson: &mut Lesson, area: u32) {
    let share = evidence(case, &mut lesson.visit, area) + count_new_area(case, lesson, area);
    let evidence = &mut lesson.holder.evidence[Area::ID];
    *evidence = Nats::new(formula::carried(evidence.get(), share));
    lesson.changed |= share > 0.0;
}

/// Counts an area that is new to the owner. Returns the increase of the evidence of the visit's new areas.
fn count_new_area(case: &Case<'_>, lesson: &mut Lesson, area: u32) -> f64 {
    let (baseline, visit) = (case.baseline, &mut lesson.visit);
    let of_tenant = || case.others.population.touches(case.observation.sighting.tenant)(area, 0.0);
    if baseline.knows_area(area) || of_tenant() > formula::COMMON {
        return 0.0;
    }
    visit.new_areas = visit.new_areas.saturating_add(1);
    lesson.learns.area_level = areas::level(visit.new_areas);
    let (Some(grown), Some(level)) = (&baseline.grown, lesson.learns.area_level) else { return 0.0 };
    let evidence = |level| {
        let cohort = case.cohorts.areas(case.kind, baseline.visits, level);
        formula::novelty(areas::number_at(level), grown.areas.reached(level), cohort)
    };
    let before = if level == 0 { 0.0 } else { evidence(level - 1) };
    (evidence(level) - before).max(0.0)
}

/// Learns the first call of an area in a visit.
#[inline(never)] // Most calls are repeats.
fn learn_call(teaching: &mut Teaching<'_>) {
    let (observation, lesson, weights) = (teaching.observation, teaching.lesson, teaching.weights());
    let area = observation.route.area;
    let is_new = !teaching.baseline.seen.knows(Feature::Area, area);
    learn_new_area(teaching, area);
    teaching.baseline.learn_area(area, weights.counted, weights.known, observation.sighting.minute());
    teaching.population.learn_area(observation.sighting.tenant, area, weights.counted);
    if teaching.is_settled()
        && let Some(cohorts) = &mut teaching.cohorts
    {
        cohorts.learn_area(lesson.kind, is_new, weights.counted);
    }
}

/// Learns the area of the event, and how many new areas its visit has. The area is stored even if a thief may have called
/// it: its evidence is stored with the holder, and must not be added again in each visit.
fn learn_new_area(teaching: &mut Teaching<'_>, area: u32) {
    let (lesson, counted) = (teaching.lesson, teaching.weights().counted);
    let (first, level) = (lesson.learns.first_area, lesson.learns.area_level);
    let (is_known, visits) = (teaching.baseline.knows_area(area), teaching.baseline.visits);
    if let Some(grown) = &mut teaching.baseline.grown {
        if !is_known {
            grown.areas.enter(area);
        }
        if first && counted > 0.5 {
            grown.areas.count_visit();
        }
        if let Some(level) = level.filter(|_| counted > 0.5) {
            grown.areas.count_level(level);
        }
    }
    if teaching.is_settled()
        && let Some(cohorts) = &mut teaching.cohorts
    {
        if first {
            cohorts.learn_visit_to_areas(lesson.kind, visits, counted);
        }
        if let Some(level) = level {
            cohorts.learn_new_areas(lesson.kind, visits, level, counted);
        }
    }
}

fn evidence(case: &Case<'_>, visit: &mut Core, area: u32) -> f64 {
    let (seen, population) = (&case.baseline.seen, &case.others.population);
    let tenant = case.observation.sighting.tenant;
    let touches = population.touches(tenant);
    let own = case.baseline.own_area(area);
    let own = if own.of_this > 0.0 {
        own
    } else {
        // Others' share of visits to the areas that the baseline stores.
        let share = |(area, own)| touches(area, own);
        let sum = || seen.each(Feature::Area).map(share).sum::<f64>() as f32;
        own.spread(visit.areas_remembered.get_or_insert_with(sum))
    };
    let (_, once) = seen.variety(Feature::Area);
    let of_tenant = AreaUse { share: touches(area, own.of_this), areas: population.areas(tenant) };
    formula::evidence(&own, once as f64, case.cohorts.new_areas(case.kind), of_tenant)
}

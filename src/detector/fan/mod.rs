//! `fan`: tokens of several users appear within two hours at one network, prefix or address that is new to each of them.
//! Scored when other evidence against the holder changes.

pub(crate) mod formula;

use super::client::Client;
use super::net::Net;
use super::words::{Description, Signals, Words};
use super::{Case, Detector, DetectorId, Lesson, Score, Teaching};
use crate::detector::lesson::Arrival;
use crate::memory::Sighting;
use crate::memory::fleet::Member;
use crate::memory::level::NetLevel;
use crate::verdict::RuleId;

pub(crate) struct Fan;

impl Detector for Fan {
    const ID: DetectorId = DetectorId::Fan;

    #[inline]
    fn score_change(case: &Case<'_>, lesson: &mut Lesson) {
        let Lesson { holder, visit, learns, .. } = lesson;
        let (observation, fleets) = (case.observation, &case.others.fleets);
        let &Sighting { app, at, prefix, network, address, .. } = observation.sighting;
        let (tenant, level) = (observation.tenant, visit.net_level);
        if !observation.timed || !observation.sighting.has_place() {
            return;
        }
        if level == NetLevel::KnownAddress {
            learns.arrival = Arrival::AtKnownPlace;
            return;
        }
        let evidence = |detector| holder.evidence[detector].get();
        let client = evidence(DetectorId::Client) + f64::from(visit.client_credit);
        let deviation = evidence(DetectorId::Route) + evidence(DetectorId::Hour);
        // Without an `app_id`, each user counts as an application of its own, if the tenant is known.
        let event = &observation.enriched.event;
        let own_app = if event.app_id.is_none() && event.tenant_id.is_some() { observation.user } else { app };
        let member = Member::new(observation.user, tenant, own_app, at, deviation);
        let mut users = 0;
        let mut groups = [None; 3];
        let mut fan = |key: u64| {
            let group = fleets.group(key);
            if let Some(place) = groups.iter_mut().find(|place| place.is_none()) {
                *place = Some(group);
            }
            let arrivals = fleets.arrivals(group, &member);
            users = users.max(arrivals.users);
            (formula::evidence(arrivals, || fleets.usual_share(app, tenant, at)), arrivals)
        };
        let (by_prefix, _) = fan(app ^ (u64::from(prefix) << 8 | 1));
        let by_network = if level >= NetLevel::UsersNetwork { fan(app ^ (u64::from(network) << 8 | 2)).0 } else { 0.0 };
        let (by_address, arrivals) = fan(u64::from(address) << 8 | 3);
        learns.arrival = Arrival::WithOthers { member, groups };
        let strongest = |a: f64, b: f64| if a.abs() > b.abs() { a } else { b };
        visit.arrivals = users as u8;
        visit.app_fan = strongest(by_prefix, by_network) as f32;
        // The same users may count by application and by address: the excess by address is added.
        visit.ip_fan = (by_address - f64::from(visit.app_fan).max(0.0)).max(0.0) as f32;
        let identity = Net::WEIGHT * (evidence(DetectorId::Net) + f64::from(visit.net_credit))
            + Client::WEIGHT * client
            + evidence(DetectorId::Hour)
            + f64::from(visit.app_fan)
            + f64::from(visit.ip_fan);
        let of_tenant = || fleets.tenant_share(app, tenant, at);
        visit.together = (formula::together(identity, arrivals, of_tenant) - identity) as f32;
    }

    #[inline]
    fn evidence(lesson: &Lesson) -> f64 {
        let visit = &lesson.visit;
        f64::from(visit.app_fan) + f64::from(visit.ip_fan) + f64::from(visit.together)
    }

    fn leave_out(score: &mut Score) {
        (score.app_fan, score.ip_fan, score.together) = (0.0, 0.0, 0.0);
    }

    #[inline]
    fn learn_event(teaching: &mut Teaching<'_>) {
        if !matches!(teaching.lesson.learns.arrival, Arrival::None) {
            learn_arrival(teaching);
        }
    }

    fn explain(words: &Words<'_>, signals: &mut Signals<'_>) {
        let app = words.observation.enriched.event.app_id.as_deref().unwrap_or("one application");
        signals.add(RuleId::AppFanout, words.unexplained * words.score.app_fan, || describe(words, " of ", app));
        signals.add(RuleId::IpFanout, words.unexplained * words.score.ip_fan, || describe(words, "", ""));
    }
}

#[inline(never)] // Few events are arrivals.
fn learn_arrival(teaching: &mut Teaching<'_>) {
    let (observation, fleets) = (teaching.observation, &mut *teaching.fleets);
    match teaching.lesson.learns.arrival {
        Arrival::None => {}
        Arrival::AtKnownPlace => {
            let &Sighting { app, at, .. } = observation.sighting;
            fleets.learn_usual_visit(app, observation.tenant, at.min(observation.now));
        }
        Arrival::WithOthers { member, groups } => {
            groups.into_iter().flatten().for_each(|group| fleets.join(group, member, observation.now));
        }
    }
}

fn describe(words: &Words<'_>, of: &str, app: &str) -> Description {
    let observed = ["tokens of 3 or more users", of, app, " used from ", &words.here(), " within 2 hours"].concat();
    let reason = [&observed, "; a new place for each"].concat();
    Description { p_value: None, observed, expected: "each user at their own usual places".to_owned(), reason }
}

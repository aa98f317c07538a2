//! `credential`: a new holder of an old token, within 3 days after its user changed the password or a factor. Scored
//! once per visit.

pub(crate) mod formula;

use super::words::{Description, Signals, Words};
use super::{Case, Detector, DetectorId, Lesson, Teaching};
use crate::memory::level::NetLevel;
use crate::memory::{Nats, User};
use crate::millis::MINUTE_MS;
use crate::verdict::RuleId;

pub(crate) struct Credential;

impl Detector for Credential {
    const ID: DetectorId = DetectorId::Credential;

    #[inline]
    fn score_visit(case: &Case<'_>, lesson: &mut Lesson) {
        let Some(user) = case.user else { return };
        let is_old = i64::from(case.baseline.first_minute) * MINUTE_MS < user.changed_at();
        let born_after = i64::from(lesson.holder.born) * MINUTE_MS >= user.changed_at();
        if case.observation.timed
            && changed_lately(user, case.observation.sighting.at)
            && is_old
            && born_after
            && lesson.holder.level >= NetLevel::KnownNetwork
        {
            let rate = case.others.population.after_change.read(case.observation.tenant.seat);
            let evidence = formula::evidence(rate.chances(), rate.happened());
            lesson.holder.evidence[Self::ID] = Nats::new(evidence);
        }
    }

    #[inline]
    fn learn_visit(teaching: &mut Teaching<'_>, user: &User) {
        let (observation, counted) = (teaching.observation, teaching.weights().counted);
        let lately = changed_lately(user, observation.sighting.at);
        teaching.population.after_change.learn(observation.tenant.seat, lately, counted);
    }

    fn explain(words: &Words<'_>, signals: &mut Signals<'_>) {
        let rule = RuleId::StaleAfterCredentialChange;
        signals.add(rule, words.score.shares[Self::ID], || Description {
            p_value: None,
            observed: "an old token from a new network or client, within 3 days after a credential change".to_owned(),
            expected: "new tokens after a credential change".to_owned(),
            reason: format!(
                "old token used from a new network or client within 3 days of a credential change: {}",
                words.here()
            ),
        });
    }
}

fn changed_lately(user: &User, at: i64) -> bool {
    user.days_since_change(at).is_some_and(|days| days <= formula::DAYS_MAX)
}

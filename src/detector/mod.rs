//! The detectors. Each adds one share to the score, in nats. A positive share is evidence for a thief. A detector has a
//! folder with its formula, and with its scoring, learning and explanation. `table.rs` lists the detectors.
//!
//! The score is the sum of the prior and the shares (`docs/detection.md`). A share is the evidence of the detector times
//! its weight. The weights of `net` and `client` come from fits on labelled traffic. The fitted weights of the
//! other detectors were close to 1.

pub(crate) mod area;
pub(crate) mod case;
pub(crate) mod client;
pub(crate) mod credential;
pub(crate) mod fan;
pub(crate) mod hour;
pub(crate) mod id;
pub(crate) mod lesson;
pub(crate) mod levels;
pub(crate) mod lifecycle;
pub(crate) mod net;
pub(crate) mod observation;
pub(crate) mod route;
pub(crate) mod score;
pub(crate) mod sibling;
pub(crate) mod switch;
mod table;
pub(crate) mod teaching;
#[cfg(test)]
pub(crate) mod toy;
pub(crate) mod volume;
pub(crate) mod words;

pub(crate) use case::Case;
pub(crate) use id::DetectorId;
pub(crate) use lesson::Lesson;
pub(crate) use observation::{Observation, Standing};
pub(crate) use score::{Origin, Score, Setting};
use table::detectors;
pub(crate) use teaching::Teaching;
use words::Signals;
pub(crate) use words::Words;

use crate::math::faded;
use crate::memory::{Evidence, Holder, Nats, User};
use crate::millis::{DAY_MS, MINUTE_MS};

/// A summand of the score. Scoring reads memory and writes to the lesson only. Learning writes to [`Teaching`] only.
///
/// | method | when it runs |
/// |---|---|
/// | `score_visit` | first event of a visit, unless the case is blank |
/// | `score_event` | every event; for a blank case it may count, and leaves no evidence |
/// | `score_change` | after all `score_event`, if the event adds evidence or begins a visit or a holder |
/// | `evidence`, `adjust` | sum of the score |
/// | `learn_event`, `learn_visit` | the event counts as a use; `learn_visit` if it begins a visit |
/// | `fade` | the holder's next event is in a later step of ten minutes |
/// | `explain` | the event added evidence, or has a verdict of at least `watch` |
///
/// Methods that score and learn are `#[inline]`: each has one call, but the compiler assumes others for methods of a
/// trait, and does not inline the larger ones otherwise.
pub(crate) trait Detector {
    const ID: DetectorId;
    /// Factor of its evidence in the score.
    const WEIGHT: f64 = 1.0;
    /// The evidence is about the identity of the holder (place, client, time), not about the calls.
    const OF_IDENTITY: bool = false;

    /// Scores the beginning of a visit.
    fn score_visit(_: &Case<'_>, _: &mut Lesson) {}

    /// Scores an event.
    fn score_event(_: &Case<'_>, _: &mut Lesson) {}

    /// Scores an event that adds evidence or begins a visit or a holder (`lesson.changed`).
    fn score_change(_: &Case<'_>, _: &mut Lesson) {}

    /// Evidence after the event, nats. By default, the stored evidence of the holder.
    fn evidence(lesson: &Lesson) -> f64 {
        lesson.holder.evidence[Self::ID].get()
    }

    /// Sets the share from the shares of the other detectors.
    fn adjust(_: &mut Score) {}

    /// Removes its evidence from the score, for `evaluate --without`.
    fn leave_out(score: &mut Score) {
        score.evidence[Self::ID] = Nats::default();
    }

    /// Decays the stored evidence of a holder. By default, the half-life is one day, and evidence for the owner is
    /// dropped: detectors that credit the owner keep the credit in the visit.
    fn fade(evidence: &mut Evidence, fading: &Fading) {
        evidence[Self::ID] = fading.against_holder(evidence[Self::ID]);
    }

    /// Learns an event.
    fn learn_event(_: &mut Teaching<'_>) {}

    /// Learns the beginning of a visit. The user is as before the event.
    fn learn_visit(_: &mut Teaching<'_>, _: &User) {}

    /// Adds the signals of its rules.
    fn explain(_: &Words<'_>, _: &mut Signals<'_>) {}
}

macro_rules! run_all {
    ($($(#[$attribute:meta])* $detector:ident = $module:ident,)+) => {
        /// Scores the beginning of a visit.
        #[inline(never)] // Most events continue a visit.
        pub(crate) fn score_visit(case: &Case<'_>, lesson: &mut Lesson) {
            $($(#[$attribute])* { $module::$detector::score_visit(case, lesson); })+
        }

        /// Scores an event.
        pub(crate) fn score_event(case: &Case<'_>, lesson: &mut Lesson) {
            $($(#[$attribute])* { $module::$detector::score_event(case, lesson); })+
            if lesson.changed {
                $($(#[$attribute])* { $module::$detector::score_change(case, lesson); })+
            }
        }

        /// Sets the shares of all detectors and adds them to the log-odds. `without`: detectors that are left out.
        pub(crate) fn sum_up(lesson: &Lesson, score: &mut Score, without: &[DetectorId]) {
            $($(#[$attribute])* {
                score.shares[DetectorId::$detector] =
                    <$module::$detector as Detector>::WEIGHT * $module::$detector::evidence(lesson);
            })+
            for left_out in without {
                score.shares[*left_out] = 0.0;
                match left_out {
                    $($(#[$attribute])* DetectorId::$detector => $module::$detector::leave_out(score),)+
                }
            }
            $($(#[$attribute])* {
                if <$module::$detector as Detector>::OF_IDENTITY {
                    score.of_identity += score.shares[DetectorId::$detector];
                }
            })+
            $($(#[$attribute])* {
                if without.is_empty() || !without.contains(&DetectorId::$detector) {
                    $module::$detector::adjust(score);
                }
            })+
            score.log_odds += score.shares.sum();
        }

        fn fade_all(evidence: &mut Evidence, fading: &Fading) {
            $($(#[$attribute])* { $module::$detector::fade(evidence, fading); })+
        }

        /// Learns an event.
        pub(crate) fn learn_event(teaching: &mut Teaching<'_>) {
            $($(#[$attribute])* { $module::$detector::learn_event(teaching); })+
        }

        /// Learns the beginning of a visit.
        #[inline(never)] // Most events continue a visit.
        pub(crate) fn learn_visit(teaching: &mut Teaching<'_>, user: &User) {
            $($(#[$attribute])* { $module::$detector::learn_visit(teaching, user); })+
        }

        /// Adds the signals of all rules.
        pub(crate) fn explain(words: &Words<'_>, signals: &mut Signals<'_>) {
            $($(#[$attribute])* { $module::$detector::explain(words, signals); })+
        }
    };
}
detectors!(run_all);

/// Evidence decays in steps of ten minutes, so that most events compute no decay.
const FADE_STEP_MS: i64 = 10 * MINUTE_MS;
/// Minimum evidence of routes and areas after a decay: for holders older than ten days, and for others. Nats.
const LEAST: (f64, f64) = (-1.0, -5.0);
const LEAST_AGE_DAYS: f64 = 10.0;

/// Decay factors times 65,536, for half-lives of eight hours, one day and three days.
#[derive(Clone, Copy)]
struct Left {
    eight_hours: i32,
    day: i32,
    three_days: i32,
}

impl Left {
    const WHOLE: Self = Self { eight_hours: 65_536, day: 65_536, three_days: 65_536 };

    /// The factors of the first day, because most holders are used again within a day.
    const OF_DAY: [Self; (DAY_MS / FADE_STEP_MS) as usize] = {
        let mut of_day = [Self::WHOLE; _];
        let mut steps = 0;
        while steps < of_day.len() {
            of_day[steps] = Self::calculate(steps as i64);
            steps += 1;
        }
        of_day
    };

    const fn after(steps: i64) -> Self {
        if steps < Self::OF_DAY.len() as i64 { Self::OF_DAY[steps as usize] } else { Self::calculate(steps) }
    }

    const fn calculate(steps: i64) -> Self {
        let days = (steps * FADE_STEP_MS) as f64 / DAY_MS as f64;
        Self {
            eight_hours: (faded(days, 1.0 / 3.0) * 65_536.0) as i32,
            day: (faded(days, 1.0) * 65_536.0) as i32,
            three_days: (faded(days, 3.0) * 65_536.0) as i32,
        }
    }
}

/// Decay of evidence over the time since the last event of a holder.
pub(crate) struct Fading {
    left: Left,
    least: Nats,
}

impl Fading {
    /// Half-life of one day. Evidence for the owner is dropped.
    pub(crate) fn against_holder(&self, evidence: Nats) -> Nats {
        evidence.max(Nats::default()).faded(self.left.day)
    }

    /// Half-life of one day. Evidence for the owner is limited.
    pub(crate) fn limited(&self, evidence: Nats) -> Nats {
        evidence.faded(self.left.day).max(self.least)
    }

    /// Half-life of eight hours. Evidence for the owner is limited.
    pub(crate) fn limited_fast(&self, evidence: Nats) -> Nats {
        evidence.faded(self.left.eight_hours).max(self.least)
    }

    /// Half-life of eight hours, for evidence of either sign.
    pub(crate) const fn fast(&self, evidence: Nats) -> Nats {
        evidence.faded(self.left.eight_hours)
    }

    /// Half-life of three days, for evidence of either sign.
    pub(crate) const fn slow(&self, evidence: Nats) -> Nats {
        evidence.faded(self.left.three_days)
    }
}

/// Decays the evidence of a holder from its last event to `at` (milliseconds since the epoch).
pub(crate) fn fade(holder: &mut Holder, at: i64) {
    let steps = at / FADE_STEP_MS - holder.last_at / FADE_STEP_MS;
    if steps <= 0 {
        return;
    }
    let least = if holder.age_days(at) > LEAST_AGE_DAYS { LEAST.0 } else { LEAST.1 };
    let fading = Fading { left: Left::after(steps), least: Nats::new(least) };
    fade_all(&mut holder.evidence, &fading);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::TokenType;
    use crate::memory::visit::Core;
    use crate::memory::{Baseline, Kind};

    /// A lesson in which each detector has evidence, with the expected shares.
    fn lesson() -> (Lesson, [(DetectorId, f64); 11]) {
        let kind = Kind::new(TokenType::ApiKey, crate::enrichment::Device::Machine);
        let mut lesson = None;
        let mut lesson = Lesson::begin(&mut lesson, &Baseline::new(1, kind, 0), &Core::begun(1, 1, 0), 0).clone();
        let evidence = &mut lesson.holder.evidence;
        let sums = [
            (DetectorId::Net, 1.0),
            (DetectorId::Client, 2.0),
            (DetectorId::Hour, 0.25),
            (DetectorId::Route, 4.0),
            (DetectorId::Area, 0.75),
            (DetectorId::Switch, 1.5),
            (DetectorId::Volume, 3.0),
            (DetectorId::Lifecycle, 14.0),
            (DetectorId::Credential, 2.5),
        ];
        for (detector, nats) in sums {
            evidence[detector] = Nats::new(nats);
        }
        (evidence.travel, evidence.sensitive) = (Nats::new(0.5), Nats::new(0.5));
        (evidence.objects, evidence.bytes) = (Nats::new(1.0), Nats::new(2.0));
        let visit = &mut lesson.visit;
        (visit.net_credit, visit.client_credit, visit.silence, visit.between) = (-0.25, -0.5, -0.5, 1.0);
        (visit.app_fan, visit.ip_fan, visit.together) = (5.0, 1.0, -2.0);
        lesson.sibling = 3.5;
        let expected = [
            (DetectorId::Net, 0.5 * 0.75),
            (DetectorId::Client, 0.85 * 1.5),
            (DetectorId::Hour, 0.25),
            (DetectorId::Route, 5.0),
            (DetectorId::Area, 0.75),
            (DetectorId::Switch, 1.0),
            (DetectorId::Volume, 3.0 + volume::formula::BYTES_WEIGHT * 2.0),
            (DetectorId::Lifecycle, 14.0),
            (DetectorId::Credential, 2.5),
            (DetectorId::Fan, 4.0),
            (DetectorId::Sibling, 3.5),
        ];
        (lesson, expected)
    }

    fn score(lesson: &Lesson, without: &[DetectorId]) -> Score {
        let mut score = Score::of(lesson, Setting::Usual, -7.0);
        sum_up(lesson, &mut score, without);
        score
    }

    #[test]
    fn shares_contain_all_evidence_once() {
        let (lesson, expected) = lesson();
        let score = score(&lesson, &[]);
        for (detector, expected) in expected {
            let share = score.shares[detector];
            assert!((share - expected).abs() < 1e-9, "{}: {share} instead of {expected}", detector.name());
        }
        let sum = expected.iter().map(|(_, share)| share).sum::<f64>();
        assert!((score.log_odds - (sum - 7.0)).abs() < 1e-9, "the log-odds are the prior and the shares");
        let of_identity = 0.5 * 0.75 + 0.85 * 1.5 + 0.25 + 1.0 + 3.5;
        assert!((score.of_identity - of_identity).abs() < 1e-9, "routes and volume are no identity evidence");
    }

    #[test]
    fn left_out_detector_has_no_share_or_parts() {
        let (lesson, expected) = lesson();
        let all = score(&lesson, &[]).log_odds;
        for (detector, share) in expected {
            let without = score(&lesson, &[detector]);
            assert!((without.log_odds - (all - share)).abs() < 1e-9, "{}", detector.name());
            assert_eq!(without.evidence[detector], Nats::default(), "{}", detector.name());
        }
        let nothing = score(&lesson, &DetectorId::all().collect::<Vec<_>>());
        assert_eq!(nothing.evidence, Evidence::default());
        assert!(nothing.app_fan + nothing.ip_fan + nothing.between <= 0.0);
    }

    #[test]
    fn credit_of_place_and_client_is_limited() {
        let (mut lesson, _) = lesson();
        lesson.holder.evidence = Evidence::default();
        (lesson.visit.net_credit, lesson.visit.client_credit) = (-6.0, -3.0);
        let limited = score(&lesson, &[]);
        let credit = limited.shares[DetectorId::Net] + limited.shares[DetectorId::Client];
        let expected = net::formula::limited_credit(-6.0 * 0.5 - 3.0 * 0.85);
        assert!((credit - expected).abs() < 1e-9 && (-1.21..-1.1).contains(&credit), "{credit}");
        (lesson.visit.net_credit, lesson.visit.client_credit) = (-0.1, -0.1);
        let small = score(&lesson, &[]);
        let credit = small.shares[DetectorId::Net] + small.shares[DetectorId::Client];
        assert!((-0.1..-0.08).contains(&credit), "{credit}");
    }

    #[test]
    fn evidence_decays_by_half_life_of_its_detector() {
        let (lesson, _) = lesson();
        let mut holder = lesson.holder;
        (holder.born, holder.last_at) = (0, 0);
        fade(&mut holder, DAY_MS);
        let left = |detector| holder.evidence[detector].get() / lesson.holder.evidence[detector].get();
        for detector in [DetectorId::Net, DetectorId::Client, DetectorId::Area, DetectorId::Volume] {
            assert!((left(detector) - 0.5).abs() < 0.01, "{}", detector.name());
        }
        assert!((left(DetectorId::Route) - 0.125).abs() < 0.01);
        assert!((left(DetectorId::Switch) - 0.5_f64.powf(1.0 / 3.0)).abs() < 0.01);
        assert!((left(DetectorId::Hour) - 1.0).abs() < 1e-9, "decays at the next visit");
        let sum = |nats| Holder { evidence: Evidence { sums: [Nats::new(nats); _], ..Evidence::default() }, ..holder };
        let mut owner = Holder { last_at: 0, ..sum(-6.0) };
        fade(&mut owner, DAY_MS);
        assert!(owner.evidence[DetectorId::Net] == Nats::default(), "evidence for the owner counts in one visit");
        assert!((owner.evidence[DetectorId::Route].get() + 0.75).abs() < 0.01);
        assert!((owner.evidence[DetectorId::Area].get() + 3.0).abs() < 0.01);
        let mut old = Holder { last_at: 20 * DAY_MS, ..sum(-6.0) };
        fade(&mut old, 20 * DAY_MS + FADE_STEP_MS);
        assert!((old.evidence[DetectorId::Area].get() + 1.0).abs() < 0.01, "limit for holders older than ten days");
    }
}

//! `hour`: the hour of the day and the phase of a schedule. Evaluated once per visit.

use crate::math::{exp, ln, turn};

/// Weights for smoothing over neighbouring hours.
const KERNEL: [i32; 5] = [1, 4, 10, 4, 1];
const KERNEL_SUM: f64 = 20.0;
/// Weight of the population's hours, visits.
const OTHERS: f64 = 6.0;

/// Periods of schedules: five minutes, an hour, a day. Milliseconds.
pub(crate) const PERIODS_MS: [i64; 3] = [300_000, 3_600_000, 86_400_000];
/// Minimum number of visits and minimum mean resultant length of a schedule.
const VISITS_MIN: f64 = 30.0;
const AGREEMENT_MIN: f64 = 0.9;

#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Hour {
    /// Evidence of the hour of the day, in [−1, 2.5].
    pub(crate) of_day: f64,
    /// Evidence of the phase of a schedule, in [−1, 3]; 0 without a schedule.
    pub(crate) of_phase: f64,
    /// The owner's probability of an hour at least as rare; 1 if the hour favours the owner.
    pub(crate) p_value: f64,
}

impl Hour {
    /// In [−1, 4].
    #[must_use]
    pub(crate) fn sum(&self) -> f64 {
        (self.of_day + self.of_phase).clamp(-1.0, 4.0)
    }
}

/// Evidence of a visit in UTC `hour`. Assumptions: half of the travellers follow local time. Half of the thieves are
/// active around the clock, and half at the hours of the population.
///
/// `own`: past visits by UTC hour, in sixteenths; `population`: the share of an hour in all visits; `shift`: number of
/// time zones to the east of the owner's place.
#[must_use]
pub(crate) fn evidence(
    hour: usize,
    own: &[u16; 24],
    population: impl Fn(usize) -> f64,
    of_phase: f64,
    shift: i32,
) -> Hour {
    let around = around_midnight(own);
    let visits = around[2..26].iter().sum::<i32>();
    let whole = 1.0 / (f64::from(visits) / 16.0 + OTHERS);
    let at_home = |hour: usize| {
        let near = (0..5).map(|step| KERNEL[step] * around[hour + step]).sum::<i32>();
        (f64::from(near) / (16.0 * KERNEL_SUM) + OTHERS * population(hour)) * whole
    };
    let here = travelling(at_home, hour, shift);
    let thief = 0.5 / 24.0 + 0.5 * population(hour);
    let of_day = ln(thief / here).clamp(-1.0, 2.5);
    let p_value = if of_day > 0.0 {
        // A select instead of a branch, which the processor could not predict.
        let as_rare = |other: f64| if other <= here * (1.0 + 1e-9) { other } else { 0.0 };
        let at_home: [f64; 24] = std::array::from_fn(at_home);
        (0..24).map(|hour| as_rare(travelling(|hour| at_home[hour], hour, shift))).sum::<f64>().min(1.0)
    } else {
        1.0
    };
    Hour { of_day, of_phase, p_value }
}

/// The owner's probability of an hour, from those at home.
fn travelling(at_home: impl Fn(usize) -> f64, hour: usize, shift: i32) -> f64 {
    match shift {
        0 => at_home(hour),
        shift => 0.5 * at_home(hour) + 0.5 * at_home((hour as i32 + shift).rem_euclid(24) as usize),
    }
}

/// The visits of each hour, with two more hours at both ends, for smoothing across midnight. Signed, because the
/// processor converts several signed integers to floats at once.
fn around_midnight(own: &[u16; 24]) -> [i32; 28] {
    let mut around = [0; 28];
    around[..2].copy_from_slice(&own[22..]);
    around[2..26].copy_from_slice(own);
    around[26..].copy_from_slice(&own[..2]);
    around.map(i32::from)
}

/// Evidence of the phase, if visits follow a schedule: the density of a von Mises distribution around the schedule
/// against a uniform phase (Mardia and Jupp, "Directional Statistics", 3.5.4).
///
/// `phases`: sum of the past visits' phases as vectors, per period; `visits`: their number.
#[must_use]
pub(crate) fn phase(at: i64, phases: &[(f32, f32); 3], visits: f64) -> f64 {
    if visits < VISITS_MIN {
        return 0.0;
    }
    let mut sharpest: Option<(f64, f64)> = None;
    for (period, sum) in PERIODS_MS.iter().zip(phases) {
        let (x, y) = (f64::from(sum.0), f64::from(sum.1));
        let agreement = (libm::sqrt(x * x + y * y) / visits).min(0.9999);
        if agreement > AGREEMENT_MIN && sharpest.is_none_or(|(best, _)| agreement > best) {
            let (here_x, here_y) = vector(at, *period);
            sharpest = Some((agreement, (x * here_x + y * here_y) / (agreement * visits)));
        }
    }
    let Some((agreement, cosine)) = sharpest else { return 0.0 };
    // For narrow distributions, κ = 1/(2(1 − R)) (op. cit., 5.3.10), and ln I0(κ) = κ − ½ ln(2πκ).
    let kappa = 0.5 / (1.0 - agreement);
    let owner = kappa * (cosine - 1.0) + 0.5 * ln(kappa / std::f64::consts::TAU);
    let thief = -ln(std::f64::consts::TAU);
    (thief - owner).clamp(-1.0, 3.0)
}

/// The phase of a time in a period, as a unit vector.
#[must_use]
pub(crate) fn vector(at: i64, period_ms: i64) -> (f64, f64) {
    turn(at.rem_euclid(period_ms) as f64 / period_ms as f64)
}

/// Evidence after a visit. At most 0.7 of the previous value is kept.
///
/// `before`: previous value, decayed up to the visit; `fade`: the decay factor.
#[must_use]
pub(crate) fn carried(before: f64, fade: f64, hour: f64) -> f64 {
    before * fade.min(0.7) + 0.77 * hour
}

/// Decay of the phases per visit: the effective number of visits is at most 100.
pub(crate) const PHASE_FADE: f64 = 0.99;

/// Effective number of visits under [`PHASE_FADE`].
#[must_use]
pub(crate) fn effective_visits(visits: u32) -> f64 {
    const LN_FADE: f64 = -0.010_050_335_853_501_45;
    (1.0 - exp(f64::from(visits) * LN_FADE)) / (1.0 - PHASE_FADE)
}

#[cfg(test)]
mod tests {
    use crate::millis::HOUR_MS;
    use proptest::prelude::*;

    use super::*;

    fn office() -> [u16; 24] {
        std::array::from_fn(|hour| if (8..17).contains(&hour) { 16 * 40 } else { 0 })
    }

    fn flat(_: usize) -> f64 {
        1.0 / 24.0
    }

    #[test]
    fn night_counts_more_than_overtime() {
        let night = evidence(2, &office(), flat, 0.0, 0);
        // P_own = 6/24/366, thief 1/24: the ratio is clamped.
        assert!((night.of_day - 2.5).abs() < 1e-12);
        assert!(night.p_value < 0.02);
        assert!(evidence(17, &office(), flat, 0.0, 0).of_day < 0.7);
        let noon = evidence(12, &office(), flat, 0.0, 0);
        let expected = (1.0_f64 / 24.0 / ((40.0 + 0.25) / 366.0)).ln().max(-1.0);
        assert!((noon.of_day - expected).abs() < 1e-9);
    }

    #[test]
    fn hours_of_a_traveller_follow_local_time() {
        // Nine hours to the east, 01:00 UTC is 10:00.
        let (in_berlin, in_sydney) = (evidence(1, &office(), flat, 0.0, 0), evidence(1, &office(), flat, 0.0, 9));
        assert!(in_berlin.of_day > 2.4 && in_sydney.of_day < 0.0, "{in_berlin:?} {in_sydney:?}");
    }

    #[test]
    fn new_token_has_no_evidence() {
        let new = evidence(3, &[0; 24], flat, 0.0, 0);
        assert!(new.of_day.abs() < 1e-12, "{new:?}");
        assert_eq!(phase(0, &[(0.0, 0.0); 3], 0.0).to_bits(), 0.0_f64.to_bits());
    }

    #[test]
    fn visit_off_schedule_is_evidence_for_a_thief() {
        let mut phases = [(0.0_f32, 0.0_f32); 3];
        for visit in 0..60_i64 {
            let at = visit * HOUR_MS + 5_000 * (visit % 3);
            for (sum, period) in phases.iter_mut().zip(PERIODS_MS) {
                let (x, y) = vector(at, period);
                *sum = (sum.0 + x as f32, sum.1 + y as f32);
            }
        }
        assert!(phase(61 * HOUR_MS + 4_000, &phases, 60.0) < -0.5);
        assert!(phase(61 * HOUR_MS + 1_700_000, &phases, 60.0) > 2.0);
    }

    proptest! {
        #[test]
        fn evidence_is_within_its_bounds(
            hour in 0..24_usize, own in proptest::array::uniform24(0..32_000_u16), at in 0..7_000_000_000_000_i64,
            shift in -12..=12_i32, x in -100.0..100.0_f32, y in -100.0..100.0_f32, visits in 0.0..100.0_f64,
        ) {
            let of_phase = phase(at, &[(x, y); 3], visits);
            let sum = evidence(hour, &own, flat, of_phase, shift).sum();
            prop_assert!((-1.0..=4.0).contains(&sum));
        }
    }
}

//! Mathematical functions for scoring.
//!
//! They give the same bits on every machine, because they use only operations that IEEE 754 defines exactly. The `ln`
//! and `exp` of a platform do not. With tables of a few cache lines, they need a third of the time of those of `libm`.
//! Rarely used functions are those of `libm`, which is written in Rust.
//!
//! The tables are those of Tang, "Table-driven implementation of the exponential function in IEEE floating-point
//! arithmetic", ACM Trans. Math. Softw. 15(2), 1989, and of "… of the logarithm function …", 16(4), 1990. The argument
//! is reduced to the nearest entry, and a short series is added.

use std::f64::consts::LN_2;

/// Entries of the table for exponentials: powers of two, with exponents 1/32 apart.
const POWERS: usize = 32;
const POWERS_OF_TWO: [f64; POWERS] = powers_of_two();

/// Steps of the table for logarithms: from 1 to 2, 1/64 apart. The table includes both ends.
const STEPS: usize = 64;
const LOGARITHMS: [(f64, f64); STEPS + 1] = logarithms();

const fn powers_of_two() -> [f64; POWERS] {
    let mut powers = [1.0; POWERS];
    let mut at = 1;
    while at < POWERS {
        // Taylor series of e^x, beginning with the smallest summand.
        let x = LN_2 * at as f64 / POWERS as f64;
        let mut power = 1.0;
        let mut term = 24;
        while term > 0 {
            power = 1.0 + power * x / term as f64;
            term -= 1;
        }
        powers[at] = power;
        at += 1;
    }
    powers
}

/// Inverse and logarithm of each step.
const fn logarithms() -> [(f64, f64); STEPS + 1] {
    let mut logarithms = [(1.0, 0.0); STEPS + 1];
    let mut at = 1;
    while at <= STEPS {
        let step = 1.0 + at as f64 / STEPS as f64;
        // ln x = 2 artanh((x − 1)/(x + 1)), beginning with the smallest summand.
        let z = (step - 1.0) / (step + 1.0);
        let mut sum = 0.0;
        let mut power = 41;
        while power > 0 {
            sum = sum * z * z + 1.0 / power as f64;
            power -= 2;
        }
        logarithms[at] = (1.0 / step, 2.0 * z * sum);
        at += 1;
    }
    // Exact, so that the logarithm of 1 is 0 from either side.
    logarithms[STEPS].1 = LN_2;
    logarithms
}

/// Natural logarithm, with an error of at most 6e-12. Arguments below the smallest positive normal number give the
/// logarithm of this number. Infinity gives that of 2^1024.
#[inline]
pub(crate) fn ln(x: f64) -> f64 {
    const FRACTION: u64 = (1 << 52) - 1;
    // Also for NaN, which `max` would check separately.
    let x = if x > f64::MIN_POSITIVE { x } else { f64::MIN_POSITIVE };
    let bits = x.to_bits();
    let exponent = (bits >> 52) as i32 - 1_023;
    let fraction = f64::from_bits(bits & FRACTION | 1.0_f64.to_bits());
    // The nearest step.
    let step = ((bits & FRACTION) + (1 << 45)) >> 46;
    let (inverse, logarithm) = LOGARITHMS[step as usize];
    let r = fraction * inverse - 1.0;
    // ln(1 + r), |r| ≤ 1/128. The fifth summand is below 6e-12. Evidence has a resolution of 1/256.
    // Estrin's scheme: products in pairs do not depend on each other.
    let square = r * r;
    let series = r + square * ((1.0 / 3.0 * r - 0.5) - 0.25 * square);
    f64::from(exponent) * LN_2 + (logarithm + series)
}

/// e^x, with a relative error of at most 2e-12. 0 below e^−708.
#[inline]
pub(crate) fn exp(x: f64) -> f64 {
    // In two parts: the product of the first one with an integer below 2^20 is exact.
    const LN_2_HIGH: f64 = 6.931_471_803_691_238e-1;
    const LN_2_LOW: f64 = 1.908_214_929_270_587_7e-10;
    let (scaled, whole) = nearest(x * (POWERS as f64 / LN_2));
    let r = (x - scaled * (LN_2_HIGH / POWERS as f64)) - scaled * (LN_2_LOW / POWERS as f64);
    power(x, whole, r)
}

/// 2^x, with a relative error of at most 2e-12. 0 below e^−708.
#[inline]
pub(crate) const fn exp2(x: f64) -> f64 {
    let (scaled, whole) = nearest(x * POWERS as f64);
    power(x * LN_2, whole, (x - scaled / POWERS as f64) * LN_2)
}

/// The integer nearest to `x`, for |x| < 2^51, and its lower 32 bits.
#[inline]
pub(crate) const fn nearest(x: f64) -> (f64, i32) {
    // Floats of this size are integers, so the lower bits of the sum are the integer. A cast would check for overflow.
    const WHOLE: f64 = 6_755_399_441_055_744.0;
    let sum = x + WHOLE;
    (sum - WHOLE, sum.to_bits() as i32)
}

/// `2^(scaled/32)·e^r`, |r| ≤ ln 2/64. `x`: the exponent of e that both give.
#[inline]
const fn power(x: f64, scaled: i32, r: f64) -> f64 {
    if !(x >= -708.0 && x <= 709.0) {
        return if x < 0.0 { 0.0 } else { x * f64::INFINITY };
    }
    let entry = POWERS_OF_TWO[scaled as usize % POWERS];
    // e^r. The sixth summand is below 2e-12.
    let square = r * r;
    let series = 1.0 + (r + square * ((0.5 + 1.0 / 6.0 * r) + 1.0 / 24.0 * square));
    let exponent = scaled.div_euclid(POWERS as i32) as i64;
    entry * series * f64::from_bits(((exponent + 1_023) as u64) << 52)
}

/// Probability of log-odds: `1/(1 + e^−x)`.
pub(crate) fn sigma(x: f64) -> f64 {
    1.0 / (1.0 + exp(-x))
}

/// `2^(−elapsed/half_life)`, both in the same unit. 1 if `elapsed` is negative.
pub(crate) const fn faded(elapsed: f64, half_life: f64) -> f64 {
    exp2(-elapsed.max(0.0) / half_life)
}

/// Logarithm of the gamma function of x > 0, with a relative error of at most 1e-10. Stirling's series from 8 on
/// (Abramowitz and Stegun 6.1.41).
pub(crate) fn ln_gamma(x: f64) -> f64 {
    /// ½ ln 2π.
    const HALF_LN_TAU: f64 = 0.918_938_533_204_672_8;
    let (mut x, mut below) = (x, 1.0);
    while x < 8.0 {
        below *= x;
        x += 1.0;
    }
    let inverse = 1.0 / x;
    let square = inverse * inverse;
    let series = inverse * (1.0 / 12.0 - square * (1.0 / 360.0 - square * (1.0 / 1_260.0 - square / 1_680.0)));
    (x - 0.5) * ln(x) - x + HALF_LN_TAU + series - ln(below)
}

/// Probability that Student's t with `freedom` degrees of freedom exceeds `t` ≥ 0, by the regularised incomplete beta
/// function (Abramowitz and Stegun 26.7.1).
pub(crate) fn student_tail(t: f64, freedom: f64) -> f64 {
    0.5 * incomplete_beta(0.5 * freedom, 0.5, freedom / (freedom + t * t))
}

/// Logarithm of the beta function.
pub(crate) fn ln_beta(a: f64, b: f64) -> f64 {
    ln_gamma(a) + ln_gamma(b) - ln_gamma(a + b)
}

/// Regularised incomplete beta function I_x(a, b), by its continued fraction (Lentz's method; Numerical Recipes 6.4).
fn incomplete_beta(a: f64, b: f64, x: f64) -> f64 {
    if x <= 0.0 {
        return 0.0;
    }
    if x >= 1.0 {
        return 1.0;
    }
    let front = exp(a * ln(x) + b * ln(1.0 - x) - ln_beta(a, b));
    if x < (a + 1.0) / (a + b + 2.0) {
        front * beta_fraction(a, b, x) / a
    } else {
        1.0 - front * beta_fraction(b, a, 1.0 - x) / b
    }
}

#[allow(clippy::many_single_char_names, reason = "names of the formula in the literature")]
fn beta_fraction(a: f64, b: f64, x: f64) -> f64 {
    const TINY: f64 = 1e-300;
    let away_from_zero = |value: f64| if value.abs() < TINY { TINY } else { value };
    let mut c = 1.0;
    let mut d = 1.0 / away_from_zero(1.0 - (a + b) * x / (a + 1.0));
    let mut fraction = d;
    for step in 1..200 {
        let m = f64::from(step);
        let even = m * (b - m) * x / ((a + 2.0 * m - 1.0) * (a + 2.0 * m));
        let odd = -(a + m) * (a + b + m) * x / ((a + 2.0 * m) * (a + 2.0 * m + 1.0));
        for coefficient in [even, odd] {
            d = 1.0 / away_from_zero(1.0 + coefficient * d);
            c = away_from_zero(1.0 + coefficient / c);
            fraction *= c * d;
        }
        if (c * d - 1.0).abs() < 1e-14 {
            break;
        }
    }
    fraction
}

/// Cosine and sine of a part of a full turn, 0 to 1, with an error of at most 7e-12.
pub(crate) fn turn(part: f64) -> (f64, f64) {
    // The rest is at most 1/8 of a turn.
    let (quarters, whole) = nearest(4.0 * part);
    let x = (part - 0.25 * quarters) * std::f64::consts::TAU;
    // Taylor series. The next summands are below 7e-12 and 4e-13. In pairs, as in `ln`.
    let square = x * x;
    let fourth = square * square;
    let eighth = fourth * fourth;
    let sine = x
        * ((1.0 - 1.0 / 6.0 * square)
            + fourth * (1.0 / 120.0 - 1.0 / 5_040.0 * square)
            + eighth * (1.0 / 362_880.0 - 1.0 / 39_916_800.0 * square));
    let cosine = (1.0 - 0.5 * square)
        + fourth * (1.0 / 24.0 - 1.0 / 720.0 * square)
        + eighth * ((1.0 / 40_320.0 - 1.0 / 3_628_800.0 * square) + 1.0 / 479_001_600.0 * fourth);
    match whole & 3 {
        0 => (cosine, sine),
        1 => (-sine, cosine),
        2 => (-cosine, -sine),
        _ => (sine, -cosine),
    }
}

/// Great-circle distance, kilometres, between two points given in degrees (haversine; mean Earth radius 6,371 km).
pub(crate) fn distance_km(from: (f64, f64), to: (f64, f64)) -> f64 {
    // The most frequent case.
    if from == to {
        return 0.0;
    }
    let (from_lat, to_lat) = (from.0.to_radians(), to.0.to_radians());
    let half_lat = libm::sin((to_lat - from_lat) / 2.0);
    let half_lon = libm::sin((to.1 - from.1).to_radians() / 2.0);
    let square = half_lat * half_lat + libm::cos(from_lat) * libm::cos(to_lat) * half_lon * half_lon;
    2.0 * 6371.0 * libm::asin(libm::sqrt(square.clamp(0.0, 1.0)))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use statrs::distribution::{ContinuousCDF as _, StudentsT};

    use super::*;

    #[test]
    fn distance_is_that_of_the_great_circle() {
        let (berlin, sydney) = ((52.52, 13.40), (-33.87, 151.21));
        assert!((distance_km(berlin, sydney) - 16_090.0).abs() < 30.0, "{}", distance_km(berlin, sydney));
        assert!(distance_km(berlin, berlin) < 1e-9);
        assert!((distance_km((0.0, 179.5), (0.0, -179.5)) - 111.2).abs() < 0.1, "across the date line");
    }

    #[test]
    fn faded_halves_in_a_half_life() {
        assert!((faded(24.0, 24.0) - 0.5).abs() < 1e-15);
        assert!((faded(-5.0, 24.0) - 1.0).abs() < 1e-15, "negative times");
    }

    #[test]
    fn ln_and_exp_have_exact_special_values() {
        assert_eq!(
            (ln(1.0).to_bits(), exp(0.0).to_bits(), exp2(-3.0).to_bits()),
            (0, 1.0_f64.to_bits(), 0.125_f64.to_bits())
        );
        assert_eq!((exp(-1e9), exp(f64::NEG_INFINITY), exp2(-2_000.0)), (0.0, 0.0, 0.0));
        assert_eq!((exp(f64::INFINITY), exp(1e9)), (f64::INFINITY, f64::INFINITY));
        assert!((ln(f64::INFINITY) - 1_024.0 * LN_2).abs() < 1e-9);
        assert!(exp(f64::NAN).is_nan());
        assert!(ln(-1.0) < -708.0 && ln(0.0) < -708.0);
    }

    proptest! {
        #[test]
        fn ln_and_exp_agree_with_libm(x in -708.0..708.0_f64, y in -1_000.0..1_000.0_f64, large in 1e-3..1e6_f64) {
            let close = |ours: f64, theirs: f64| (ours - theirs).abs() <= 2e-12 * theirs.abs();
            prop_assert!(close(exp(x), libm::exp(x)));
            prop_assert!(close(exp2(y), libm::exp2(y)));
            let theirs = libm::exp(x);
            prop_assert!((ln(theirs) - libm::log(theirs)).abs() <= 6e-12);
            let near_one = 1.0 + 0.01 * x / 708.0;
            prop_assert!((ln(near_one) - libm::log(near_one)).abs() <= 6e-12);
            prop_assert!((ln_gamma(large) - libm::lgamma(large)).abs() <= 1e-10 * libm::lgamma(large).abs().max(1.0));
        }

        #[test]
        fn turn_agrees_with_libm(part in 0.0..1.0_f64) {
            let (cosine, sine) = turn(part);
            let angle = std::f64::consts::TAU * part;
            prop_assert!((cosine - libm::cos(angle)).abs() <= 7e-12 && (sine - libm::sin(angle)).abs() <= 7e-12);
        }

        #[test]
        fn student_tail_agrees_with_statrs(t in 0.0..60.0_f64, freedom in 1.0..200.0_f64) {
            let theirs = StudentsT::new(0.0, 1.0, freedom).expect("a distribution").sf(t);
            prop_assert!((student_tail(t, freedom) - theirs).abs() <= 1e-9 + 1e-6 * theirs);
        }

        #[test]
        fn ln_is_finite_for_any_argument(x in proptest::num::f64::ANY) {
            prop_assert!(ln(x).is_finite());
            prop_assume!(!x.is_nan());
            prop_assert!((0.0..=1.0).contains(&sigma(x)));
        }
    }
}

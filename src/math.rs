//! The functions of probability that judgement needs, from `libm`: written in Rust alone, they give the same bits on
//! every machine, which the platform's own `ln` and `exp` do not.

/// Natural logarithm; of anything below the smallest positive number, that number's.
#[must_use]
pub fn ln(x: f64) -> f64 {
    libm::log(x.max(f64::MIN_POSITIVE))
}

#[must_use]
pub fn exp(x: f64) -> f64 {
    libm::exp(x)
}

/// Probability of log-odds: `1/(1 + e^−x)`.
#[must_use]
pub fn sigma(x: f64) -> f64 {
    1.0 / (1.0 + libm::exp(-x))
}

/// What remains of one after `elapsed` at a given half-life, both in the same unit; 1 for negative times.
#[must_use]
pub fn faded(elapsed: f64, half_life: f64) -> f64 {
    libm::exp2(-elapsed.max(0.0) / half_life)
}

/// Probability that Student's t of `freedom` degrees exceeds `t` ≥ 0.
///
/// By the regularised incomplete beta function (Abramowitz and Stegun 26.7.1).
#[must_use]
pub fn student_tail(t: f64, freedom: f64) -> f64 {
    0.5 * incomplete_beta(0.5 * freedom, 0.5, freedom / (freedom + t * t))
}

/// Logarithm of the beta function.
#[must_use]
pub fn ln_beta(a: f64, b: f64) -> f64 {
    libm::lgamma(a) + libm::lgamma(b) - libm::lgamma(a + b)
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

#[allow(clippy::many_single_char_names, reason = "the names that the formula has in the books")]
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

/// Great-circle distance, kilometres, between two points given in degrees (haversine; mean Earth radius 6,371 km).
#[must_use]
pub fn distance_km(from: (f64, f64), to: (f64, f64)) -> f64 {
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
    fn distances_are_those_of_atlases() {
        let (berlin, sydney) = ((52.52, 13.40), (-33.87, 151.21));
        assert!((distance_km(berlin, sydney) - 16_090.0).abs() < 30.0, "{}", distance_km(berlin, sydney));
        assert!(distance_km(berlin, berlin) < 1e-9);
        assert!((distance_km((0.0, 179.5), (0.0, -179.5)) - 111.2).abs() < 0.1, "over the date line");
    }

    #[test]
    fn evidence_fades_by_half_in_a_half_life() {
        assert!((faded(24.0, 24.0) - 0.5).abs() < 1e-15);
        assert!((faded(-5.0, 24.0) - 1.0).abs() < 1e-15, "time that runs backwards fades nothing");
    }

    proptest! {
        #[test]
        fn the_tail_of_student_is_that_of_statrs(t in 0.0..60.0_f64, freedom in 1.0..200.0_f64) {
            let theirs = StudentsT::new(0.0, 1.0, freedom).expect("a distribution").sf(t);
            prop_assert!((student_tail(t, freedom) - theirs).abs() <= 1e-9 + 1e-6 * theirs);
        }

        #[test]
        fn logarithms_are_finite_whatever_comes(x in proptest::num::f64::ANY) {
            prop_assume!(!x.is_nan() && x < f64::INFINITY);
            prop_assert!(ln(x).is_finite());
            prop_assert!((0.0..=1.0).contains(&sigma(x)));
        }
    }
}

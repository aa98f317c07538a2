//! A share of few observations, with its uncertainty.

/// The two-sided 95 % quantile of the normal distribution.
const Z: f64 = 1.959_963_984_540_054;

/// Lower and upper end of the 95 % confidence interval of a share: `hits` of `count`, both in observations. `None` without
/// observations.
///
/// Source: E. B. Wilson, "Probable Inference, the Law of Succession, and Statistical Inference", Journal of the American
/// Statistical Association 22 (1927), pages 209 to 212, <https://doi.org/10.1080/01621459.1927.10502953>. Brown, Cai and
/// DasGupta, "Interval Estimation for a Binomial Proportion", Statistical Science 16 (2001),
/// <https://doi.org/10.1214/ss/1009213286>, recommend it for few observations.
pub(super) fn wilson(hits: u64, count: u64) -> Option<(f64, f64)> {
    if count == 0 {
        return None;
    }
    let (n, share) = (count as f64, hits as f64 / count as f64);
    let scale = 1.0 + Z * Z / n;
    let centre = (share + Z * Z / (2.0 * n)) / scale;
    let half = Z / scale * (share * (1.0 - share) / n + Z * Z / (4.0 * n * n)).sqrt();
    Some(((centre - half).max(0.0), (centre + half).min(1.0)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wilson_is_that_of_its_closed_forms() {
        // None of n: 0 to z²/(n + z²). Half of n: 1/2 ± z/(2 √(n + z²)). All of n: n/(n + z²) to 1.
        let cases =
            [(0, 10, 0.0, 0.277_533), (5, 10, 0.236_593, 0.763_407), (10, 10, 0.722_467, 1.0), (1, 1, 0.206_549, 1.0)];
        for (hits, count, low, high) in cases {
            let (from, to) = wilson(hits, count).expect("observations");
            assert!((from - low).abs() < 1e-6 && (to - high).abs() < 1e-6, "{hits} of {count}: {from} to {to}");
        }
        assert_eq!(wilson(0, 0), None);
    }

    proptest::proptest! {
        #[test]
        fn wilson_contains_the_share(count in 1_u64..10_000, part in 0.0_f64..=1.0) {
            let hits = (part * count as f64) as u64;
            let (from, to) = wilson(hits, count).expect("observations");
            let share = hits as f64 / count as f64;
            proptest::prop_assert!(from <= share + 1e-12 && share <= to + 1e-12 && from >= 0.0 && to <= 1.0);
        }
    }
}

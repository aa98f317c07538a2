//! A share of few observations, with its uncertainty.

use statrs::distribution::{Beta, ContinuousCDF as _};

/// Probability outside of each end of a 95 % interval.
const TAIL: f64 = 0.025;

/// Lower and upper end of the exact 95 % confidence interval of a share: `hits` of `count`, both in observations. `None`
/// without observations. The interval contains the true share in at least 95 % of samples. Its width is not 0 if all or
/// none are hits.
///
/// Source: C. J. Clopper and E. S. Pearson, "The Use of Confidence or Fiducial Limits Illustrated in the Case of the
/// Binomial", Biometrika 26 (1934), pages 404 to 413, <https://doi.org/10.1093/biomet/26.4.404>.
#[must_use]
pub(crate) fn interval(hits: u64, count: u64) -> Option<(f64, f64)> {
    let missed = count.checked_sub(hits).filter(|_| count > 0)?;
    // Both parameters are at least 1, so the distribution exists.
    let quantile = |a: u64, b: u64, p: f64| Beta::new(a as f64, b as f64).map_or(f64::NAN, |beta| beta.inverse_cdf(p));
    let low = if hits == 0 { 0.0 } else { quantile(hits, missed + 1, TAIL) };
    let high = if missed == 0 { 1.0 } else { quantile(hits + 1, missed, 1.0 - TAIL) };
    Some((low, high))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use statrs::distribution::{Binomial, DiscreteCDF as _};

    use super::*;

    #[test]
    fn interval_matches_published_tables() {
        // Ten of ten: the tenth root of 0.025. The others are from Clopper and Pearson's charts, to four digits.
        for (hits, count, low, high) in
            [(10, 10, 0.6915, 1.0), (0, 10, 0.0, 0.3085), (5, 10, 0.1871, 0.8129), (1, 20, 0.0013, 0.2487)]
        {
            let found = interval(hits, count).expect("observations");
            assert!((found.0 - low).abs() < 1e-4 && (found.1 - high).abs() < 1e-4, "{found:?}");
        }
        assert_eq!(interval(0, 0), None);
    }

    proptest! {
        /// At each end, a sample as extreme as this one has a probability of 2.5 %.
        #[test]
        fn interval_inverts_the_binomial(count in 1..2_000_000_u64, part in 0.0..=1.0_f64) {
            let hits = ((count as f64 * part) as u64).min(count);
            let share = hits as f64 / count as f64;
            let (low, high) = interval(hits, count).expect("observations");
            prop_assert!((0.0..=share).contains(&low) && (share..=1.0).contains(&high), "{low} {share} {high}");
            let binomial = |p| Binomial::new(p, count).expect("a distribution");
            if hits > 0 {
                prop_assert!((1.0 - binomial(low).cdf(hits - 1) - TAIL).abs() < 2e-5);
            }
            if hits < count {
                prop_assert!((binomial(high).cdf(hits) - TAIL).abs() < 2e-5);
            }
        }
    }
}

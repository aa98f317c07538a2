//! Random numbers that are the same on every machine: xoshiro256++ (Blackman and Vigna, 2019), seeded by SplitMix64.

use std::ops::Range;

/// A stream of random numbers. Each actor has its own, so that an additional actor does not change the others.
#[derive(Clone, Debug)]
pub(super) struct Random {
    state: [u64; 4],
}

impl Random {
    /// Stream number `actor` under `seed`.
    pub(crate) fn new(seed: u64, actor: u64) -> Self {
        let mut mixed = seed ^ actor.wrapping_mul(0xD605_BBB5_8C8A_BBFD);
        let mut next = || {
            mixed = mixed.wrapping_add(0x9E37_79B9_7F4A_7C15);
            let z = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
            let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
            z ^ (z >> 31)
        };
        Self { state: [next(), next(), next(), next()] }
    }

    pub(crate) const fn bits(&mut self) -> u64 {
        let [a, b, c, d] = self.state;
        let result = a.wrapping_add(d).rotate_left(23).wrapping_add(a);
        let (c, d) = (c ^ a, d ^ b);
        let (b_next, a_next) = (b ^ c, a ^ d);
        self.state = [a_next, b_next, c ^ (b << 17), d.rotate_left(45)];
        result
    }

    /// Uniform in `[0, 1)`.
    pub(crate) fn unit(&mut self) -> f64 {
        (self.bits() >> 11) as f64 / (1_u64 << 53) as f64
    }

    pub(crate) fn chance(&mut self, probability: f64) -> bool {
        self.unit() < probability
    }

    /// Uniform in `0..n`; 0 for an empty range.
    pub(crate) fn below(&mut self, n: u64) -> u64 {
        ((u128::from(self.bits()) * u128::from(n)) >> 64) as u64
    }

    pub(crate) fn within(&mut self, range: Range<i64>) -> i64 {
        range.start + self.below(range.end.abs_diff(range.start)) as i64
    }

    /// An entry of `table`, which must not be empty.
    pub(crate) fn pick<'t, T>(&mut self, table: &'t [T]) -> &'t T {
        &table[self.below(table.len() as u64) as usize]
    }

    /// Normal distribution by the Box–Muller transform. libm's functions give the same bits on every platform.
    pub(crate) fn normal(&mut self, mean: f64, deviation: f64) -> f64 {
        let radius = libm::sqrt(-2.0 * libm::log(1.0 - self.unit()));
        mean + deviation * radius * libm::cos(std::f64::consts::TAU * self.unit())
    }

    pub(crate) fn log_normal(&mut self, median: f64, sigma: f64) -> f64 {
        median * libm::exp(self.normal(0.0, sigma))
    }

    /// Pareto distribution from `min` up: P(X > x) = (min/x)^alpha.
    pub(crate) fn pareto(&mut self, min: f64, alpha: f64) -> f64 {
        min * libm::pow(1.0 - self.unit(), -1.0 / alpha)
    }

    /// Log-uniform between `min` and `max`.
    pub(crate) fn log_uniform(&mut self, min: f64, max: f64) -> f64 {
        min * libm::pow(max / min, self.unit())
    }

    /// Poisson distribution by counting exponential gaps; for small means.
    pub(crate) fn poisson(&mut self, mean: f64) -> u32 {
        let (limit, mut product, mut count) = (libm::exp(-mean), self.unit(), 0);
        while product > limit {
            product *= self.unit();
            count += 1;
        }
        count
    }

    /// A heavy-tailed count: Poisson around a log-normal mean.
    pub(crate) fn count(&mut self, median: f64, sigma: f64) -> u32 {
        let mean = self.log_normal(median, sigma).min(200.0);
        self.poisson(mean)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn random_streams_repeat_and_differ() {
        let draw = |seed, actor| {
            let mut random = Random::new(seed, actor);
            [random.bits(), random.bits(), random.bits()]
        };
        assert_eq!(draw(1, 2), draw(1, 2));
        assert_ne!(draw(1, 2), draw(1, 3));
        assert_ne!(draw(1, 2), draw(2, 2));
    }

    #[test]
    fn distributions_have_the_expected_moments() {
        let mut random = Random::new(7, 7);
        let n = 100_000;
        let mean = |mut draw: Box<dyn FnMut() -> f64>| (0..n).map(|_| draw()).sum::<f64>() / f64::from(n);
        let mut copy = random.clone();
        assert!((mean(Box::new(move || copy.unit())) - 0.5).abs() < 0.01);
        let mut copy = random.clone();
        assert!((mean(Box::new(move || copy.normal(3.0, 2.0))) - 3.0).abs() < 0.05);
        let mut copy = random.clone();
        assert!((mean(Box::new(move || f64::from(copy.poisson(4.0)))) - 4.0).abs() < 0.05);
        let above = (0..n).filter(|_| random.pareto(1.0, 1.5) > 4.0).count() as f64 / f64::from(n);
        assert!((above - 0.125).abs() < 0.01, "{above}");
        assert!((0..n).all(|_| (5..9).contains(&random.within(5..9))));
    }
}

//! What one partition remembers: visits, contexts, baselines, cohorts and the population.

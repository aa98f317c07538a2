//! Shares of the memory of a process.

use super::*;
use crate::worker::partitions::Partitions;

fn shares(partitions: &Partitions<TestRows>) -> Vec<Option<usize>> {
    partitions.states().map(|state| state.settings().memory_bytes_max).collect()
}

#[test]
fn partitions_share_the_memory_evenly() {
    let settings = engine::Settings { memory_bytes_max: Some(12 << 30), ..engine::Settings::default() };
    let enricher = Enricher::new(&GeoSettings::default());
    let hasher = TokenHasher::new(b"a key for the test");
    let pipeline = Pipeline::new(enricher, Arc::new(RuleSet::builtin()), hasher, settings);
    let spread = Spread::ByPartition(HashMap::new());
    let mut partitions = Partitions::new(spread, VerdictOutput::None, pipeline.memory_max(), TestRows::default);
    for number in 0..3 {
        partitions.of(&Position::new("t", number, 0), &pipeline);
    }
    assert_eq!(shares(&partitions), [Some(4 << 30); 3]);
    partitions.remove(&[("t".into(), 1)]);
    assert_eq!(shares(&partitions), [Some(6 << 30); 2]);
    let (metrics, health) = (Metrics::new(), Health::default());
    metrics.memory_limits(13 << 30, 12 << 30);
    partitions.report(&metrics, &health);
    let text = metrics.text();
    let value = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line.and_then(|value| value.parse::<u64>().ok())
    };
    // The table of recent event ids has its whole size from the beginning.
    assert!(value("tokenwarden_memory_bytes{table=\"recent\"}").is_some_and(|bytes| bytes > 16 << 20));
    assert_eq!(value("tokenwarden_memory_bytes{table=\"baselines\"}").map(|bytes| bytes < 1 << 20), Some(true));
    assert_eq!(value("tokenwarden_evictions_total{table=\"baselines\"}"), Some(0));
    assert_eq!(value("tokenwarden_memory_limit_bytes"), Some(12 << 30));
    assert_eq!(value("tokenwarden_resident_limit_bytes"), Some(13 << 30));
    assert!(value("tokenwarden_resident_bytes").is_some_and(|bytes| bytes > 1 << 20));
}

#[test]
fn partitions_of_one_source_share_the_memory_evenly() {
    let settings = engine::Settings { memory_bytes_max: Some(8 << 30), ..engine::Settings::default() };
    let enricher = Enricher::new(&GeoSettings::default());
    let hasher = TokenHasher::new(b"a key for the test");
    let pipeline = Pipeline::new(enricher, Arc::new(RuleSet::builtin()), hasher, settings);
    let spread = Spread::BySubject(crate::feed::Feed::default(), 4);
    let mut partitions = Partitions::new(spread, VerdictOutput::None, pipeline.memory_max(), TestRows::default);
    partitions.of(&Position::new("t", 0, 0), &pipeline);
    assert_eq!(shares(&partitions), [Some(2 << 30); 4]);
}

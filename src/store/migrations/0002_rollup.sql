-- Hours in which a baseline was active. Counts are states over event ids, so that an event counts once however often it
-- is written.
CREATE TABLE IF NOT EXISTS baseline_hours
(
    tenant_id LowCardinality(String),
    baseline UInt64,
    hour DateTime64(3, 'UTC'),
    ingested_month UInt32,
    events AggregateFunction(uniq, String),
    suspect_events AggregateFunction(uniqIf, String, UInt8),
    addresses AggregateFunction(uniq, IPv6),
    routes AggregateFunction(uniq, String),
    score_max SimpleAggregateFunction(max, Float64),
    written_at SimpleAggregateFunction(max, DateTime('UTC'))
)
ENGINE = AggregatingMergeTree
PARTITION BY ingested_month
ORDER BY (tenant_id, baseline, hour, ingested_month)
TTL written_at + INTERVAL 180 DAY
SETTINGS non_replicated_deduplication_window = 1000, ttl_only_drop_parts = 1;

CREATE MATERIALIZED VIEW IF NOT EXISTS baseline_hours_writer TO baseline_hours AS
SELECT
    tenant_id,
    baseline,
    fromUnixTimestamp64Milli(intDiv(toUnixTimestamp64Milli(timestamp), 3600000) * 3600000, 'UTC') AS hour,
    toYYYYMM(ingested_at) AS ingested_month,
    uniqState(event_id) AS events,
    uniqIfState(event_id, verdict IN ('alert', 'revoke')) AS suspect_events,
    uniqState(ip_address) AS addresses,
    uniqState(toString(route)) AS routes,
    max(score) AS score_max,
    max(token_events.written_at) AS written_at
FROM token_events
GROUP BY tenant_id, baseline, hour, ingested_month;

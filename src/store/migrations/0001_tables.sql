-- Tables that tokenwarden writes. It applies missing files itself. If its user may not, apply them by hand with
-- `clickhouse-client --database tokenwarden --multiquery < FILE`. Every statement can be repeated.

-- Versions of these files that were applied.
CREATE TABLE IF NOT EXISTS schema_migrations
(
    version UInt32,
    name String,
    applied_at DateTime64(3, 'UTC') DEFAULT now64(3)
)
ENGINE = ReplacingMergeTree
ORDER BY version;

-- Every scored event. Absent texts are '', absent numbers 0. If 0 is a possible value, the column is NULL instead.
CREATE TABLE IF NOT EXISTS token_events
(
    event_id String CODEC(ZSTD(1)),
    timestamp DateTime64(3, 'UTC') COMMENT 'when the token was used' CODEC(Delta, ZSTD(1)),
    ingested_at DateTime64(3, 'UTC') COMMENT 'when tokenwarden took it in, by its own clock' CODEC(Delta, ZSTD(1)),
    written_at DateTime('UTC') DEFAULT now() COMMENT 'when it was stored, by the clock here; retention counts from it' CODEC(Delta, ZSTD(1)),
    kind LowCardinality(String) COMMENT 'use, issued, refreshed, revoked, session_ended, credential_changed',
    tenant_id LowCardinality(String),
    user_id String CODEC(ZSTD(1)),
    app_id LowCardinality(String),
    family_id String COMMENT 'the grant' CODEC(ZSTD(1)),
    token_id String COMMENT 'name or keyed hash, never the token' CODEC(ZSTD(1)),
    token_type LowCardinality(String),
    parent_token_id String CODEC(ZSTD(1)),
    session_id String CODEC(ZSTD(1)),
    baseline UInt64 COMMENT 'whose past the event was held against: the grant, else the token' CODEC(ZSTD(1)),
    ip_address IPv6 COMMENT 'IPv4 is v4-mapped; :: where the event has none' CODEC(ZSTD(1)),
    address String ALIAS if(ip_address = toIPv6('::'), '', replaceOne(toString(ip_address), '::ffff:', '')),
    asn UInt32,
    as_org LowCardinality(String),
    network_class LowCardinality(String) COMMENT 'access, hosting, anonymiser',
    country LowCardinality(String) COMMENT 'ISO 3166-1 alpha-2',
    city LowCardinality(String),
    latitude Nullable(Float32),
    longitude Nullable(Float32),
    accuracy_km Nullable(UInt16),
    user_agent String CODEC(ZSTD(1)),
    client_family LowCardinality(String),
    client_version LowCardinality(String),
    device LowCardinality(String) COMMENT 'desktop, mobile, machine, unknown',
    client_fingerprint String CODEC(ZSTD(1)),
    method LowCardinality(String),
    endpoint String CODEC(ZSTD(1)),
    route LowCardinality(String) COMMENT 'the endpoint with ids templated away',
    status UInt16,
    bytes_out UInt64 CODEC(ZSTD(1)),
    scopes Array(LowCardinality(String)),
    issued_at Nullable(DateTime64(3, 'UTC')),
    expires_at Nullable(DateTime64(3, 'UTC')),
    binding String CODEC(ZSTD(1)),
    verdict LowCardinality(String) COMMENT 'allow, watch, alert, revoke',
    score Float64 COMMENT 'ln(1 + e^log_odds): higher is more suspicious' CODEC(ZSTD(1)),
    log_odds Float64 COMMENT 'natural log-odds that somebody else holds the token' CODEC(ZSTD(1)),
    p_value Float64 CODEC(ZSTD(1)),
    rules Array(LowCardinality(String)) COMMENT 'the signals, largest share first; the next six arrays run beside it',
    reasons Array(String),
    signal_shares Array(Float64),
    signal_p_values Array(Float64),
    signal_fired Array(Bool) COMMENT 'whether the share reached the threshold of the rule',
    signal_observed Array(String),
    signal_expected Array(String),
    incident_id String CODEC(ZSTD(1)),
    action LowCardinality(String),
    mode LowCardinality(String),
    source_topic LowCardinality(String),
    source_partition Int32,
    source_offset Int64 CODEC(Delta, ZSTD(1)),
    attrs Map(LowCardinality(String), String) CODEC(ZSTD(1)),
    INDEX time timestamp TYPE minmax GRANULARITY 1,
    INDEX event event_id TYPE bloom_filter(0.01) GRANULARITY 1,
    INDEX token token_id TYPE bloom_filter(0.01) GRANULARITY 1,
    INDEX family family_id TYPE bloom_filter(0.01) GRANULARITY 1,
    INDEX user user_id TYPE bloom_filter(0.01) GRANULARITY 1,
    INDEX ip ip_address TYPE bloom_filter(0.01) GRANULARITY 1,
    INDEX incident incident_id TYPE bloom_filter(0.01) GRANULARITY 1,
    INDEX suspicion log_odds TYPE minmax GRANULARITY 1
)
ENGINE = ReplacingMergeTree(ingested_at)
PARTITION BY toYYYYMM(ingested_at)
ORDER BY (tenant_id, toDate32(timestamp), baseline, timestamp, event_id)
TTL written_at + INTERVAL 180 DAY
SETTINGS non_replicated_deduplication_window = 1000, ttl_only_drop_parts = 1, fsync_after_insert = 1;

-- One row per change of an incident; rows are never updated. Latest state: incidents_latest.
CREATE TABLE IF NOT EXISTS incidents
(
    incident_id String,
    opened_at DateTime64(3, 'UTC'),
    updated_at DateTime64(3, 'UTC'),
    written_at DateTime64(3, 'UTC') DEFAULT now64(3),
    severity LowCardinality(String),
    verdict LowCardinality(String),
    baseline UInt64,
    subject String COMMENT 'the family or token that the baseline belongs to',
    tenant_id LowCardinality(String),
    token_id String,
    family_id String,
    user_id String,
    app_id LowCardinality(String),
    event_id String COMMENT 'the event that made this change',
    log_odds Float64,
    rules Array(LowCardinality(String)) COMMENT 'the signals, largest share first; the next two arrays run beside it',
    reasons Array(String),
    signal_shares Array(Float64),
    reason String,
    action LowCardinality(String),
    mode LowCardinality(String),
    target String COMMENT 'what is to be revoked, as kind:id',
    INDEX incident incident_id TYPE bloom_filter(0.01) GRANULARITY 1
)
ENGINE = ReplacingMergeTree
PARTITION BY toYYYYMM(written_at)
ORDER BY (incident_id, updated_at, event_id)
SETTINGS non_replicated_deduplication_window = 1000, fsync_after_insert = 1;

-- Audit trail: every attempt, success, failure and refusal of an action.
CREATE TABLE IF NOT EXISTS actions
(
    action_id String COMMENT 'constant over the retries of one effect',
    incident_id String,
    requested_at DateTime64(3, 'UTC'),
    kind LowCardinality(String),
    target String,
    mode LowCardinality(String),
    attempt UInt32,
    outcome LowCardinality(String),
    http_status UInt16,
    latency_ms UInt32,
    requested_by LowCardinality(String),
    reason String
)
ENGINE = ReplacingMergeTree
PARTITION BY toYYYYMM(requested_at)
ORDER BY (incident_id, action_id, attempt, requested_at, outcome)
SETTINGS non_replicated_deduplication_window = 1000, fsync_after_insert = 1;

-- Messages that could not be decoded, complete.
CREATE TABLE IF NOT EXISTS dead_letters
(
    source_topic LowCardinality(String),
    source_partition Int32,
    source_offset Int64,
    received_at DateTime64(3, 'UTC'),
    written_at DateTime('UTC') DEFAULT now(),
    reason String,
    payload String CODEC(ZSTD(3))
)
ENGINE = ReplacingMergeTree(received_at)
PARTITION BY toYYYYMM(received_at)
ORDER BY (source_topic, source_partition, source_offset, reason, cityHash64(payload))
TTL written_at + INTERVAL 180 DAY
SETTINGS non_replicated_deduplication_window = 1000, ttl_only_drop_parts = 1, fsync_after_insert = 1;

-- Feedback of analysts.
CREATE TABLE IF NOT EXISTS feedback
(
    incident_id String,
    given_at DateTime64(3, 'UTC') DEFAULT now64(3),
    analyst LowCardinality(String),
    verdict LowCardinality(String) COMMENT 'theft, benign, unsure',
    note String
)
ENGINE = ReplacingMergeTree
PARTITION BY toYYYYMM(given_at)
ORDER BY (incident_id, given_at, analyst)
SETTINGS fsync_after_insert = 1;

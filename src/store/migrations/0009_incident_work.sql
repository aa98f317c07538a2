-- What people do about incidents, by `tokenwarden incidents`. Rows are never changed.
CREATE TABLE IF NOT EXISTS incident_work
(
    incident_id String,
    version UInt32 COMMENT 'from 1, one more with each change; of two rows with one version, the earlier counts',
    changed_at DateTime64(3, 'UTC') DEFAULT now64(3) COMMENT 'by the clock here',
    change_id UInt64,
    changed_by LowCardinality(String),
    status LowCardinality(String) COMMENT 'open, acknowledged, resolved',
    assignee LowCardinality(String),
    note String
)
ENGINE = MergeTree
PARTITION BY toYYYYMM(changed_at)
ORDER BY (incident_id, version, changed_at)
SETTINGS fsync_after_insert = 1;

-- The last change of each incident that has one.
CREATE OR REPLACE VIEW incident_work_latest AS
SELECT *
FROM incident_work
ORDER BY incident_id, version DESC, changed_at, change_id
LIMIT 1 BY incident_id;

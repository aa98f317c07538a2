-- A row is identified by its position in the log, because producers choose event ids and two events may share one.
-- Earlier rows have row_id 0 and keep their old identity.
ALTER TABLE token_events
    ADD COLUMN IF NOT EXISTS source_index UInt32 COMMENT 'place of the event in its message, from 0' CODEC(ZSTD(1)) AFTER source_offset,
    ADD COLUMN IF NOT EXISTS row_id UInt64 COMMENT 'of topic, partition, offset and place in the message' CODEC(ZSTD(1)) AFTER source_index,
    MODIFY ORDER BY (tenant_id, toDate32(timestamp), baseline, timestamp, event_id, row_id);

-- Two events with one id count as two in an hour.
ALTER TABLE baseline_hours_writer MODIFY QUERY
SELECT
    tenant_id,
    baseline,
    fromUnixTimestamp64Milli(intDiv(toUnixTimestamp64Milli(timestamp), 3600000) * 3600000, 'UTC') AS hour,
    toYYYYMM(ingested_at) AS ingested_month,
    uniqState(concat(event_id, '/', toString(row_id))) AS events,
    uniqIfState(concat(event_id, '/', toString(row_id)), verdict IN ('alert', 'revoke')) AS suspect_events,
    uniqState(ip_address) AS addresses,
    uniqState(toString(route)) AS routes,
    max(score) AS score_max,
    max(token_events.written_at) AS written_at
FROM token_events
GROUP BY tenant_id, baseline, hour, ingested_month;

-- A change of an incident is identified by its event's id and content.
ALTER TABLE incidents
    ADD COLUMN IF NOT EXISTS change_id UInt64 COMMENT 'of the event that made this change: its tenant, id and content' AFTER event_id,
    ADD COLUMN IF NOT EXISTS campaign_id String COMMENT 'links the incidents of several tenants with one cause; for the operator of all tenants only' AFTER incident_id,
    ADD COLUMN IF NOT EXISTS victims UInt32 COMMENT 'grants and tokens of the incident so far' AFTER app_id,
    MODIFY ORDER BY (incident_id, updated_at, event_id, change_id);

CREATE OR REPLACE VIEW incidents_latest AS
SELECT *
FROM incidents FINAL
ORDER BY incident_id, updated_at DESC, victims DESC, written_at DESC, log_odds DESC
LIMIT 1 BY incident_id;

-- Every grant and token of an incident, in the order in which they became suspect.
CREATE OR REPLACE VIEW incident_victims AS
SELECT
    incident_id,
    tenant_id,
    family_id,
    if(family_id = '', token_events.token_id, '') AS token_id,
    any(user_id) AS user_id,
    any(app_id) AS app_id,
    min(timestamp) AS first_suspect_call,
    max(timestamp) AS last_suspect_call,
    count() AS suspect_calls,
    max(token_events.log_odds) AS log_odds
FROM token_events FINAL
WHERE incident_id != '' AND verdict IN ('alert', 'revoke')
GROUP BY incident_id, tenant_id, family_id, token_id;

-- Incidents of several tenants with one cause, for the operator of all tenants: it shows tenants' names together.
CREATE OR REPLACE VIEW campaigns AS
SELECT
    campaign_id,
    arraySort(groupUniqArray(tenant_id)) AS tenants,
    arraySort(groupUniqArray(incident_id)) AS incidents,
    sum(victims) AS victims,
    min(opened_at) AS opened_at,
    max(updated_at) AS updated_at
FROM incidents_latest
WHERE campaign_id != ''
GROUP BY campaign_id
HAVING uniqExact(tenant_id) > 1;

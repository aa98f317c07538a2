-- When a provider confirmed a revocation, and what the request ends. Earlier rows have neither.
ALTER TABLE actions
    ADD COLUMN IF NOT EXISTS radius LowCardinality(String) COMMENT 'what the request of a revocation ends: token, grant, session, user, role, app; empty for alerts' AFTER reason,
    ADD COLUMN IF NOT EXISTS revoked_at Nullable(DateTime64(3, 'UTC')) COMMENT 'when the provider confirmed that the token is revoked' AFTER radius,
    ADD COLUMN IF NOT EXISTS verified_at Nullable(DateTime64(3, 'UTC')) COMMENT 'when a later read found the token inactive' AFTER revoked_at;

-- A confirmed revocation has its times in its summary.
CREATE OR REPLACE VIEW incident_timeline AS
SELECT
    incident_id,
    timestamp AS at,
    'event' AS what,
    event_id AS id,
    verdict AS outcome,
    concat(kind, ' ', method, ' ', endpoint, if(status = 0, '', concat(' -> ', toString(status))), ' from ', address,
        if(country = '', '', concat(' ', city, ' ', country)), if(asn = 0, '', concat(' AS', toString(asn), ' ', as_org)),
        if(empty(reasons), '', concat(': ', reasons[1]))) AS summary
FROM token_events FINAL
WHERE incident_id != ''
UNION ALL
SELECT incident_id, updated_at, 'incident', event_id, verdict, concat(severity, ': ', reason)
FROM incidents FINAL
UNION ALL
SELECT
    incident_id, requested_at, 'action', action_id, outcome,
    concat(kind, ' ', target, ' (', mode, ', attempt ', toString(attempt), ', by ', requested_by,
        if(radius = '', '', concat(', radius ', radius)),
        if(isNull(revoked_at), '', concat(', revoked at ', toString(assumeNotNull(revoked_at)))),
        if(isNull(verified_at), '', concat(', verified at ', toString(assumeNotNull(verified_at)))), ')',
        if(reason = '', '', concat(': ', reason)))
FROM actions FINAL
WHERE incident_id != ''
UNION ALL
SELECT incident_id, given_at, 'feedback', analyst, verdict, concat('by ', analyst, if(note = '', '', concat(': ', note)))
FROM feedback FINAL;

-- Views for analysts. They read with FINAL, so that a row that was written twice is shown once.

-- Current state of each incident.
CREATE OR REPLACE VIEW incidents_latest AS
SELECT *
FROM incidents FINAL
ORDER BY incident_id, updated_at DESC, written_at DESC, log_odds DESC
LIMIT 1 BY incident_id;

-- Timeline of an incident: its events, its changes, actions and feedback.
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
    concat(kind, ' ', target, ' (', mode, ', attempt ', toString(attempt), ', by ', requested_by, ')',
        if(reason = '', '', concat(': ', reason)))
FROM actions FINAL
WHERE incident_id != ''
UNION ALL
SELECT incident_id, given_at, 'feedback', analyst, verdict, note
FROM feedback FINAL;

-- Routes called with the token since the first suspect event. suspect_calls counts calls from an address of the
-- incident's events.
CREATE OR REPLACE VIEW blast_radius AS
SELECT
    incidents.incident_id AS incident_id,
    events.tenant_id AS tenant_id,
    events.user_id AS user_id,
    events.app_id AS app_id,
    events.method AS method,
    events.route AS route,
    count() AS calls,
    countIf(has(suspects.addresses, events.ip_address)) AS suspect_calls,
    countIf(has(suspects.addresses, events.ip_address) AND events.status NOT IN (401, 403)) AS suspect_calls_accepted,
    sumIf(events.bytes_out, has(suspects.addresses, events.ip_address)) AS suspect_bytes_out,
    uniqIf(events.endpoint, has(suspects.addresses, events.ip_address)) AS suspect_endpoints,
    minIf(events.timestamp, has(suspects.addresses, events.ip_address)) AS first_suspect_call,
    maxIf(events.timestamp, has(suspects.addresses, events.ip_address)) AS last_suspect_call,
    groupUniqArrayIf(20)(events.token_id, has(suspects.addresses, events.ip_address)) AS suspect_tokens
FROM incidents_latest AS incidents
INNER JOIN
(
    SELECT incident_id, groupUniqArray(1000)(ip_address) AS addresses
    FROM token_events FINAL
    WHERE incident_id != ''
    GROUP BY incident_id
) AS suspects ON suspects.incident_id = incidents.incident_id
INNER JOIN
(
    SELECT tenant_id, user_id, app_id, baseline, token_id, timestamp, ip_address, method, route, endpoint, status, bytes_out
    FROM token_events FINAL
    WHERE (tenant_id, baseline) IN (SELECT tenant_id, baseline FROM incidents)
) AS events ON events.tenant_id = incidents.tenant_id AND events.baseline = incidents.baseline
WHERE events.timestamp >= incidents.opened_at
GROUP BY incident_id, tenant_id, user_id, app_id, method, route;

-- Usual behaviour of a baseline: where, with which client and when it is used, without suspect events.
CREATE OR REPLACE VIEW token_profile AS
SELECT
    tenant_id,
    baseline,
    any(user_id) AS user_id,
    any(app_id) AS app_id,
    any(family_id) AS family_id,
    argMax(token_id, timestamp) AS last_token_id,
    min(timestamp) AS first_seen,
    max(timestamp) AS last_seen,
    count() AS events,
    uniq(toDate32(timestamp)) AS active_days,
    uniq(ip_address) AS addresses,
    topK(5)(concat('AS', toString(asn), ' ', as_org)) AS networks,
    topK(5)(country) AS countries,
    topK(5)(city) AS cities,
    topK(5)(client_family) AS clients,
    topK(10)(concat(method, ' ', route)) AS routes,
    arraySort(groupUniqArray(toHour(timestamp))) AS hours_utc,
    max(score) AS score_max
FROM token_events FINAL
WHERE verdict NOT IN ('alert', 'revoke')
GROUP BY tenant_id, baseline;

-- Other baselines with the address, network or client of an incident.
CREATE OR REPLACE VIEW shared_indicators AS
SELECT
    marks.incident_id AS incident_id,
    marks.indicator AS indicator,
    marks.value AS value,
    uniq(others.tenant_id, others.baseline) AS other_tokens,
    uniq(others.tenant_id, others.user_id) AS other_users,
    groupUniqArray(20)(others.token_id) AS token_ids,
    count() AS events,
    countIf(others.verdict IN ('alert', 'revoke')) AS suspect_events,
    min(others.timestamp) AS first_seen,
    max(others.timestamp) AS last_seen
FROM
(
    SELECT DISTINCT
        incident_id, tenant_id, baseline, mark.1 AS indicator, mark.2 AS value
    FROM token_events FINAL
    ARRAY JOIN [('address', address), ('network', if(asn = 0, '', concat('AS', toString(asn)))), ('client', user_agent)] AS mark
    WHERE incident_id != '' AND verdict IN ('alert', 'revoke') AND mark.2 != ''
) AS marks
INNER JOIN
(
    SELECT 'address' AS indicator, address AS value, tenant_id, baseline, user_id, token_id, verdict, timestamp
    FROM token_events FINAL
    WHERE ip_address IN (SELECT ip_address FROM token_events WHERE incident_id != '')
    UNION ALL
    SELECT 'network', concat('AS', toString(asn)), tenant_id, baseline, user_id, token_id, verdict, timestamp
    FROM token_events FINAL
    WHERE asn IN (SELECT asn FROM token_events WHERE incident_id != '' AND asn != 0)
    UNION ALL
    SELECT 'client', user_agent, tenant_id, baseline, user_id, token_id, verdict, timestamp
    FROM token_events FINAL
    WHERE user_agent IN (SELECT user_agent FROM token_events WHERE incident_id != '' AND user_agent != '')
) AS others ON others.indicator = marks.indicator AND others.value = marks.value
WHERE (others.tenant_id, others.baseline) != (marks.tenant_id, marks.baseline)
GROUP BY incident_id, indicator, value;

-- The hourly rollup with its counts finalized.
CREATE OR REPLACE VIEW baseline_activity AS
SELECT
    tenant_id,
    baseline,
    hour,
    uniqMerge(events) AS events,
    uniqIfMerge(suspect_events) AS suspect_events,
    uniqMerge(addresses) AS addresses,
    uniqMerge(routes) AS routes,
    max(score_max) AS score_max
FROM baseline_hours
GROUP BY tenant_id, baseline, hour;

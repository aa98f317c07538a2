-- Verdicts of people about incidents, by `tokenwarden feedback`. Rows of other tools may have other verdicts.
ALTER TABLE feedback
    COMMENT COLUMN verdict 'true (theft), false (no theft), benign (unusual and allowed)';

-- The last verdict about each incident.
CREATE OR REPLACE VIEW feedback_latest AS
SELECT *
FROM feedback FINAL
ORDER BY incident_id, given_at DESC, analyst
LIMIT 1 BY incident_id;

-- The author of a feedback is part of its summary.
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
SELECT incident_id, given_at, 'feedback', analyst, verdict, concat('by ', analyst, if(note = '', '', concat(': ', note)))
FROM feedback FINAL;

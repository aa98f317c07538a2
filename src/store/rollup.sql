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

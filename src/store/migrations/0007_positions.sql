-- The last offset of each partition per hour of ingestion, in every part: tells after a crash which rows exist.
ALTER TABLE token_events
    MODIFY SETTING deduplicate_merge_projection_mode = 'rebuild';

ALTER TABLE token_events
    ADD PROJECTION IF NOT EXISTS positions
    (
        SELECT source_topic, source_partition, toStartOfHour(ingested_at), max(source_offset)
        GROUP BY source_topic, source_partition, toStartOfHour(ingested_at)
    );

ALTER TABLE token_events MATERIALIZE PROJECTION positions;

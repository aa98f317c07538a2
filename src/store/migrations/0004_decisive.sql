-- Values that the verdict was compared with, so that it can be explained later. Earlier rows have NULL and no decisive
-- rules.
ALTER TABLE token_events
    ADD COLUMN IF NOT EXISTS prior_log_odds Nullable(Float64) COMMENT 'log-odds before looking' CODEC(ZSTD(1)) AFTER p_value,
    ADD COLUMN IF NOT EXISTS alert_from Nullable(Float64) COMMENT 'log-odds from which an alert was raised then' CODEC(ZSTD(1)) AFTER prior_log_odds,
    ADD COLUMN IF NOT EXISTS decisive Array(LowCardinality(String)) COMMENT 'the rules without any one of which it would not have alerted' AFTER signal_expected;

ALTER TABLE token_events
    COMMENT COLUMN kind 'use, issued, refreshed, revoked, session_ended, credential_changed, confirmed';

-- Tenant and user of an action, so that the revocations of a user are found without the incidents. Earlier rows have neither.
ALTER TABLE actions
    ADD COLUMN IF NOT EXISTS tenant_id LowCardinality(String) COMMENT 'of the incident or grant' AFTER reason,
    ADD COLUMN IF NOT EXISTS user_id String COMMENT 'of the incident or grant; empty if unknown' AFTER tenant_id;

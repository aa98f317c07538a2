-- Position of the error in a message, separate from the reason, so that one cause has one reason. Earlier rows have
-- zeros, and the position in their reason.
ALTER TABLE dead_letters
    ADD COLUMN IF NOT EXISTS fault_byte UInt64 COMMENT 'byte of the message, from 0' AFTER reason,
    ADD COLUMN IF NOT EXISTS fault_line UInt32 COMMENT 'from 1; 0 where it is the message as a whole' AFTER fault_byte,
    ADD COLUMN IF NOT EXISTS fault_column UInt32 COMMENT 'in bytes, from 1; 0 where it is the message as a whole' AFTER fault_line,
    MODIFY ORDER BY (source_topic, source_partition, source_offset, reason, cityHash64(payload), fault_byte);

//! The way of an event: decode, enrich, step, fan out, checkpoint.

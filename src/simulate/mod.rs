//! Generated traffic with planted thefts.

//! The configuration and the rule files.

pub mod rule_file;
